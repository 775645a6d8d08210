//! What `verify` finds: one flipped byte anywhere in the used part of a log, and a tail that was cut off.

mod common;

use std::path::{Path, PathBuf};

use common::Place;

const SECTOR: usize = 512;

/// A log with events of many sizes, with zeros and without data, in several frames: so small that it is not packed.
fn a_log(place: &Place) -> (PathBuf, Vec<u8>) {
    for batch in 0..6 {
        let mut lines = String::new();
        for n in 0..8 {
            let text = "z".repeat(n * n * 6 * (1 + batch));
            let id = batch * 100 + n;
            lines.push_str(&format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"urn:test","type":"test.happened","subject":"s{n}","data":{{"text":"{text}"}}}}"#
            ));
            lines.push('\n');
        }
        lines.push_str(&format!(
            r#"{{"specversion":"1.0","id":"zeros{batch}","source":"urn:test","type":"test.zeros","data_base64":"{}"}}"#,
            "AAAA".repeat(700)
        ));
        let done = place.run_with(["import", "-"], lines.as_bytes());
        assert_eq!(done.code(), 0, "{}", done.err());
    }
    let segment = place.path().join("precedent-data/logs/main/00000000.seg");
    let bytes = std::fs::read(&segment).unwrap();
    (segment, bytes)
}

fn used(bytes: &[u8]) -> usize {
    (bytes.iter().rposition(|b| *b != 0).unwrap() + 1).next_multiple_of(SECTOR)
}

#[test]
fn one_flipped_byte_anywhere_in_the_used_part_is_found_and_named() {
    let place = Place::new();
    let (segment, bytes) = a_log(&place);
    assert_eq!(place.run("verify").code(), 0);
    let used = used(&bytes);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..1_000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = (random >> 16) as usize % used;
        let flip = (random as u8).max(1);
        let mut bad = bytes.clone();
        bad[at] ^= flip;
        std::fs::write(&segment, &bad).unwrap();
        let done = place.run("verify");
        assert_eq!(done.code(), 1, "byte {at} ^ {flip}: {}{}", done.out(), done.err());
        assert!(done.out().contains("00000000.seg at offset"), "byte {at} ^ {flip}: {}", done.out());
        assert_eq!(std::fs::read(&segment).unwrap(), bad, "verify writes nothing");
    }
    std::fs::write(&segment, &bytes).unwrap();
    assert_eq!(place.run("verify").code(), 0);
}

#[test]
fn a_tail_that_was_cut_off_at_a_frames_edge_is_found_with_what_was_expected() {
    let place = Place::new();
    let (segment, bytes) = a_log(&place);
    let head = place.run("--json head").json();
    let expect = format!("{}:{}", head["size"], head["root"].as_str().unwrap());
    assert_eq!(place.run(&format!("verify --expect {expect}")).code(), 0);

    let edges: Vec<usize> =
        (SECTOR..used(&bytes)).step_by(SECTOR).filter(|at| bytes[*at..].starts_with(b"PRF1")).collect();
    assert!(edges.len() >= 5, "{edges:?}");
    let log = segment.parent().unwrap();
    // Everything inside the store that could tell goes with the tail.
    remove_everything_derived(log);
    for edge in edges {
        std::fs::write(&segment, &bytes[..edge]).unwrap();
        assert_eq!(place.run("verify").code(), 0, "nothing inside a store can tell");
        let done = place.run(&format!("verify --expect {expect}"));
        assert_eq!(done.code(), 1, "cut at {edge}: {}", done.out());
        assert!(done.out().contains("the tail is missing"), "cut at {edge}: {}", done.out());
    }
}

#[test]
fn a_tail_that_was_cut_off_is_found_by_what_was_left_of_it() {
    let place = Place::new();
    let (segment, bytes) = a_log(&place);
    let cut = (SECTOR..used(&bytes)).step_by(SECTOR).rfind(|at| bytes[*at..].starts_with(b"PRF1")).unwrap();
    std::fs::write(&segment, &bytes[..cut]).unwrap();
    let done = place.run("verify");
    assert_eq!(done.code(), 1, "{}", done.out());
    let done = place.run("append --type test.more --data {}");
    assert_eq!(done.code(), 2, "{}", done.out());
    assert!(done.err().contains("can only be read"), "{}", done.err());
}

#[test]
fn without_index_and_maps_everything_is_found_again() {
    let place = Place::new();
    let (segment, _) = a_log(&place);
    let before = place.run("--json read --stream s3 --backward").out();
    assert_eq!(before.lines().count(), 6);
    remove_everything_derived(segment.parent().unwrap());
    assert_eq!(place.run("--json read --stream s3 --backward").out(), before);
    assert_eq!(place.run("append --type test.more --stream s3 --data {}").code(), 0);
    assert_eq!(place.run("--json read --stream s3").out().lines().count(), 7);
    assert_eq!(place.run("verify").code(), 0);
}

fn remove_everything_derived(log: &Path) {
    std::fs::remove_dir_all(log.join("index")).unwrap();
    for name in ["clean", "published", "00000000.map"] {
        std::fs::remove_file(log.join(name)).unwrap();
    }
}

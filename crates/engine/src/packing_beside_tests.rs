//! Packing beside readers: whoever looked a moment ago, at a place, a list or a block, still gets what is there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use precedent_core::{Direction, Log, LogName, Position, Query, Read, Store};

use crate::crash_tests::{self, DIR, append, block_on, event, noise, packing, read_all};
use crate::io::faults::{FaultyIo, Held};
use crate::io::{Io, Mode};
use crate::pack::Unpacker;
use crate::reader::FrameReader;
use crate::segment::Segments;
use crate::{Access, EmbeddedStore, Options, pack};

fn options(segment_bytes: u64) -> Options {
    Options { segment_bytes, index_flush_bytes: 1 << 30, ..crash_tests::options() }
}
fn open(io: &FaultyIo, s: u64) -> EmbeddedStore {
    EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options(s)).unwrap()
}
fn dir() -> PathBuf {
    Path::new(DIR).join("logs/main")
}
fn packs(io: &FaultyIo) -> Vec<(u32, u32)> {
    let mut p: Vec<_> = io.list(&dir()).unwrap().iter().filter_map(|n| pack::range_of(n)).collect();
    p.sort();
    p
}

#[test]
fn a_reader_opens_a_log_that_ends_with_a_pack_after_a_crash() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 1 << 20);
        append(&store, vec![event("a", noise(1, 100_000))]).unwrap();
        drop(store);
        // As a writer leaves it that died after it had packed while idle.
        io.remove_matching(|p| p.ends_with("clean"));
        let o = Options { access: Access::ReadOnly, ..options(1 << 20) };
        let store = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), o);
        assert!(store.is_ok(), "{:?}", store.err());
    });
}

#[test]
fn a_frame_of_repeats_is_within_its_limit_with_all_its_content() {
    let io = FaultyIo::default();
    let store = Arc::new(open(&io, 64 << 20));
    let base = noise(1, 3_600_000);
    append(&store, vec![event("base", base.clone())]).unwrap();
    let log = Log::new(store.clone(), LogName::default());
    io.hold(Held::Syncs);
    let first = log.submit(precedent_core::Append::new([event("x", vec![1; 10])])).unwrap();
    io.await_held();
    let inner = store.log(&LogName::default()).unwrap();
    let mut all = vec![first];
    for i in 0..6 {
        all.push(log.submit(precedent_core::Append::new([event(&format!("e{i}"), base.clone())])).unwrap());
        // What there is no room for stays in the queue.
        (0..2_000).filter(|_| inner.has_jobs()).for_each(|_| std::thread::yield_now());
    }
    io.release();
    for p in all {
        block_on(p).unwrap();
    }
    let head = block_on(store.head(&LogName::default())).unwrap();
    for f in 0..head.frames {
        let frames = block_on(store.frames(&LogName::default(), f, 1));
        assert!(frames.is_ok(), "{:?}", frames.err());
    }
}

#[test]
fn a_reader_in_the_middle_of_a_frame_reads_on_when_it_is_packed() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 200_000);
        append(&store, (0..20).map(|i| event(&format!("a{i}"), noise(i, 8_000))).collect()).unwrap();
        let log = store.log(&LogName::default()).unwrap();
        let mut reader = FrameReader::new(&log.segments, false);
        reader.event(Position(0)).unwrap();
        append(&store, (0..20).map(|i| event(&format!("b{i}"), noise(100 + i, 8_000))).collect()).unwrap();
        let read = reader.event(Position(19));
        let scan: Vec<_> = {
            let mut r = FrameReader::new(&log.segments, false);
            r.event(Position(20)).unwrap();
            append(&store, (0..20).map(|i| event(&format!("c{i}"), noise(200 + i, 8_000))).collect())
                .unwrap();
            (21..40).filter_map(|p| r.event(Position(p)).err()).collect()
        };
        assert!(read.is_ok() && scan.is_empty(), "{:?} {:?}", read.err(), scan.first());
    });
}

#[test]
fn a_frame_that_was_packed_since_it_was_looked_up_is_found() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 200_000);
        append(&store, (0..20).map(|i| event(&format!("a{i}"), noise(i, 8_000))).collect()).unwrap();
        let log = store.log(&LogName::default()).unwrap();
        let place = log.segments.frame_number(0).unwrap().unwrap();
        append(&store, (0..20).map(|i| event(&format!("b{i}"), noise(100 + i, 8_000))).collect()).unwrap();
        let read = FrameReader::new(&log.segments, true).frame(&place);
        assert!(read.is_ok(), "{:?}", read.err());
    });
}

fn until_eight(io: &FaultyIo, store: &EmbeddedStore, i: &mut u64) {
    append(store, vec![event("zero", noise(77, 9_000))]).unwrap();
    while packs(io).len() < 7 {
        append(store, vec![event(&format!("e{i}"), noise(*i, 9_000))]).unwrap();
        *i += 1;
    }
}
fn until_merged(io: &FaultyIo, store: &EmbeddedStore, i: &mut u64) {
    while !packs(io).iter().any(|(a, b)| a < b) {
        append(store, vec![event(&format!("e{i}"), noise(*i, 9_000))]).unwrap();
        *i += 1;
    }
}

#[test]
fn a_block_of_a_pack_that_was_merged_is_taken_for_no_other() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 24_000);
        let mut i = 0;
        until_eight(&io, &store, &mut i);
        let log = store.log(&LogName::default()).unwrap();
        // A reader has opened the first pack …
        let old = log.segments.packs()[0].clone();
        let open = log.segments.open_pack(&old).unwrap();
        let end = old.end_position;
        // … it is merged …
        until_merged(&io, &store, &mut i);
        // … and the reader reads its block.
        let mut unpacker = Unpacker::new(false).unwrap();
        open.block(open.block_of(Position(end - 1)), &mut unpacker).unwrap();
        let read = FrameReader::new(&log.segments, false).event(Position(end));
        assert!(read.is_ok(), "{:?}", read.err());
    });
}

#[test]
fn an_old_list_of_packs_does_no_harm_after_a_merge() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 24_000);
        let mut i = 0;
        until_eight(&io, &store, &mut i);
        let stale = Segments::list(&io, &dir()).unwrap().0;
        let kept: Vec<_> = packs(&io)
            .into_iter()
            .map(|(a, b)| {
                let p = dir().join(pack::file_name(a, b));
                (p.clone(), io.content(&p).unwrap())
            })
            .collect();
        until_merged(&io, &store, &mut i);
        let log = store.log(&LogName::default()).unwrap();
        log.segments.adopt(&stale).unwrap();
        // As if the first of them had not been removed yet.
        for (path, content) in kept.iter().take(2) {
            io.open(path, Mode::Create).unwrap().write_at(content, 0).unwrap();
        }
        log.segments.adopt(&stale).unwrap();
        for (path, _) in kept.iter().take(2) {
            io.remove(path).unwrap();
        }
        let page =
            block_on(store.read(&LogName::default(), &Read { after: Some(Position(3)), ..Read::default() }))
                .unwrap();
        assert!(page.damaged.is_empty(), "{} damaged: {}", page.damaged.len(), page.damaged[0].error);
    });
}

#[test]
fn a_log_is_verified_while_it_is_packed() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io, 24_000);
        for i in 0..4 {
            append(&store, vec![event(&format!("e{i}"), noise(i, 5_000))]).unwrap();
        }
        let once = std::sync::Once::new();
        // With a first pack so that something is read before the segment.
        for i in 4..6 {
            append(&store, vec![event(&format!("e{i}"), noise(i, 5_000))]).unwrap();
        }
        let report = block_on(store.verify(&LogName::default(), None, &|_, _| {
            once.call_once(|| {
                for i in 6..12 {
                    append(&store, vec![event(&format!("e{i}"), noise(i, 5_000))]).unwrap();
                }
            })
        }))
        .unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
        let _ = read_all(&store);
    });
}

#[test]
fn a_page_that_is_read_while_another_process_packs_names_no_damage() {
    for limit in (20..=42).map(|n| n * 10) {
        let io = FaultyIo::default();
        // Frames of 40 KB, one in a segment.
        let frame =
            |n: u64| (n * 20..n * 20 + 20).map(|i| event(&format!("e{i}"), noise(i, 2_000))).collect();
        let store = open(&io, 48 << 10);
        for n in 0..42 {
            append(&store, frame(n)).unwrap();
        }
        block_on(store.close()).unwrap();
        let options = Options { access: Access::ReadOnly, ..options(48 << 10) };
        let reader = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap();
        let before = Some(Position(42 * 20));
        let query = Query::event_type("test.happened");
        let read =
            Read { direction: Direction::Backward, limit: Some(limit), before, ..Read::matching(query) };
        let page = block_on(reader.read(&LogName::default(), &read)).unwrap();
        assert_eq!((page.events.len(), page.damaged.len()), (limit, 0));
        packing(|| {
            let writer = open(&io, 48 << 10);
            for n in 100..103 {
                append(&writer, frame(n)).unwrap();
            }
        });
        assert!(!packs(&io).is_empty());
        // As a read that looked for what is new a moment before that.
        let page = reader.log(&LogName::default()).unwrap().read(&read).unwrap();
        assert!(page.damaged.is_empty(), "{:?}", page.damaged[0]);
        assert_eq!(page.events.len(), limit);
    }
}

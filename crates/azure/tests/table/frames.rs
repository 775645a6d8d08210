//! Frames: committed, read, raced for, damaged.

use std::sync::Arc;

use bytes::Bytes;
use precedent_azure::remote::{LogRecord, Outcome, Remote, StoredFrame};
use precedent_azure::table::TableRemote;
use precedent_azure::table::entity::{Entity, Row, Value};
use precedent_azure::table::keys::Key;
use precedent_core::{ErrorKind, Hash, LogId, LogName};

use crate::{all_rows, azurite, commit, commit_some, empty, frame, hash, make_log, noise};

/// Reads as a catching up does: again and again, behind the last, until there is no more.
async fn read_all(remote: &TableRemote, log: LogId, bytes_max: usize) -> Vec<StoredFrame> {
    let mut read: Vec<StoredFrame> = Vec::new();
    loop {
        let from = read.last().map_or(0, |frame| frame.sequence + 1);
        let some = remote.frames(log, from, bytes_max).await.expect("frames");
        if some.is_empty() {
            return read;
        }
        read.extend(some);
    }
}

fn numbers(frames: &[StoredFrame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.sequence).collect()
}

#[tokio::test]
async fn frames_of_any_size_come_back_as_they_were() {
    let remote = azurite!().fresh().await;
    let log = make_log(&remote).await;
    let sizes = [1, 500 << 10, 3 << 20, 15 << 20, 200_000, 0];
    let mut committed = Vec::new();
    for (sequence, size) in sizes.into_iter().enumerate() {
        let sequence = sequence as u64;
        assert!(!remote.has_frame(log, sequence).await.expect("an answer"));
        let bytes = if sequence == 4 { Bytes::from(vec![7; size]) } else { noise(size, sequence + 1) };
        let frame = frame(log, sequence, bytes);
        commit(&remote, &frame).await;
        assert!(remote.has_frame(log, sequence).await.expect("an answer"));
        committed.push(frame);
    }
    let read = read_all(&remote, log, 1 << 20).await;
    assert_eq!(read.len(), committed.len());
    for (read, committed) in read.iter().zip(&committed) {
        assert_eq!(read.sequence, committed.sequence);
        let bytes = read.bytes.as_ref().expect("undamaged");
        assert!(*bytes == committed.bytes, "frame {}", read.sequence);
        let header = &committed.header[..];
        assert_eq!(read.header.as_deref(), Some(header));
    }
    let all = remote.frames(log, 0, usize::MAX).await.expect("frames");
    assert_eq!(numbers(&all), [0, 1, 2, 3, 4, 5]);
    let first = remote.frames(log, 1, 1).await.expect("frames");
    assert_eq!(numbers(&first), [1], "at least one, and no more than asked for");

    let refused = remote.commit(&frame(log, 6, vec![0; (16 << 20) + 1].into())).await;
    assert!(
        matches!(&refused, Outcome::Refused(error) if error.kind() == ErrorKind::LimitExceeded),
        "{refused:?}"
    );
}

#[tokio::test]
async fn of_two_commits_of_one_number_exactly_one_wins() {
    let azurite = azurite!();
    let one = azurite.fresh().await;
    let log = make_log(&one).await;
    for sequence in 0..20 {
        let (a, b) = (frame(log, sequence, noise(100, 1)), frame(log, sequence, noise(100, 2)));
        let (first, second) = tokio::join!(one.commit(&a), one.commit(&b));
        let winner = match (&first, &second) {
            (Outcome::Committed, Outcome::Taken) => &a,
            (Outcome::Taken, Outcome::Committed) => &b,
            both => panic!("{both:?}"),
        };
        let stored = one.frames(log, sequence, 1).await.expect("frames");
        assert_eq!(stored[0].bytes.as_ref().expect("undamaged"), &winner.bytes);
        // Sent again, the answer is the same.
        commit(&one, winner).await;
    }
}

#[tokio::test]
async fn a_thousand_frames_are_read_over_pages_and_buckets() {
    const FRAMES: u64 = 1100;
    let azurite = azurite!();
    let remote = azurite.fresh().await;
    let log = make_log(&remote).await;
    commit_some(&remote, log, 0..FRAMES).await;
    // One bucket, more rows than a page has.
    let all = remote.frames(log, 0, usize::MAX).await.expect("frames");
    assert_eq!(numbers(&all), (0..FRAMES).collect::<Vec<_>>());
    assert!(all.iter().all(|frame| frame.bytes.is_ok()));
    // As many as are asked for, about.
    let some = remote.frames(log, 0, 20 * 100).await.expect("frames");
    assert_eq!(some.len(), 100);
    assert_eq!(
        numbers(&remote.frames(log, FRAMES - 2, usize::MAX).await.expect("frames")),
        [FRAMES - 2, FRAMES - 1]
    );
    for beyond in [FRAMES, FRAMES + 5000, u64::MAX] {
        assert!(numbers(&remote.frames(log, beyond, 1).await.expect("frames")).is_empty());
    }
}

#[tokio::test]
async fn a_bucket_follows_the_other_and_only_its_predecessor() {
    let azurite = azurite!();
    let remote = azurite.fresh().await.with_bucket_bits(2);
    let log = make_log(&remote).await;
    commit_some(&remote, log, 0..8).await;
    // The bucket is full, the next one has not begun.
    assert_eq!(read_all(&remote, log, usize::MAX).await.len(), 8);
    for wrong in [frame(log, 9, noise(9, 9)), frame(log, 12, noise(9, 9)), frame(log, 8, noise(9, 9))] {
        let wrong = if wrong.sequence == 8 {
            precedent_azure::remote::Commit { previous: hash(1), ..wrong }
        } else {
            wrong
        };
        let outcome = remote.commit(&wrong).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{outcome:?}");
    }
    commit_some(&remote, log, 8..13).await;
    let other = TableRemote::new(
        &azurite.settings(remote.url().rsplit('/').next().expect("a name"), Default::default()),
    );
    let other = other.expect("a remote").with_bucket_bits(2);
    for bytes_max in [1, 50, usize::MAX] {
        let read = read_all(&other, log, bytes_max).await;
        assert_eq!(numbers(&read), (0..13).collect::<Vec<_>>());
    }
    // Another handle goes on where the first stopped, without having read anything.
    commit_some(&other, log, 13..17).await;
    let outcome = remote.commit(&frame(log, 13, noise(1, 1))).await;
    assert!(matches!(outcome, Outcome::Taken), "{outcome:?}");
    commit_some(&remote, log, 17..18).await;
}

#[tokio::test]
async fn two_writers_cross_a_boundary_at_once_and_one_of_them_wins() {
    let azurite = azurite!();
    let one = azurite.fresh().await.with_bucket_bits(1);
    let name = one.url().rsplit('/').next().expect("a name").to_owned();
    let two =
        TableRemote::new(&azurite.settings(&name, Default::default())).expect("a remote").with_bucket_bits(1);
    let log = make_log(&one).await;
    for sequence in 0..16 {
        let (a, b) = (frame(log, sequence, noise(10, 1)), frame(log, sequence, noise(10, 2)));
        let (first, second) = tokio::join!(one.commit(&a), two.commit(&b));
        assert!(
            matches!(
                (&first, &second),
                (Outcome::Committed, Outcome::Taken) | (Outcome::Taken, Outcome::Committed)
            ),
            "frame {sequence}: {first:?} {second:?}"
        );
    }
    assert_eq!(read_all(&two, log, usize::MAX).await.len(), 16);
}

#[tokio::test]
async fn a_table_emptied_under_an_open_handle_takes_nothing_more() {
    let azurite = azurite!();
    for frames in [0, 3, 4, 6] {
        let remote = azurite.fresh().await.with_bucket_bits(2);
        let log = make_log(&remote).await;
        commit_some(&remote, log, 0..frames).await;
        empty(&remote).await;
        assert!(numbers(&read_all(&remote, log, usize::MAX).await).is_empty());
        for _ in 0..2 {
            let outcome = remote.commit(&frame(log, frames, noise(1, 1))).await;
            assert!(matches!(outcome, Outcome::Gone(_)), "{frames}: {outcome:?}");
        }
        // Made again, it is another log, and the former one does not come back.
        let record = LogRecord { id: LogId::random(), copy: false, home: String::new() };
        let made = remote.make_log(&LogName::default(), record.clone()).await.expect("a log");
        assert_eq!(made, record);
        commit_some(&remote, record.id, 0..5).await;
        let outcome = remote.commit(&frame(log, frames, noise(1, 1))).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{frames}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_log_whose_maker_crashed_halfway_can_be_made_and_written() {
    let azurite = azurite!();
    let remote = azurite.fresh().await;
    let record = LogRecord { id: LogId::random(), copy: true, home: String::new() };
    // The head is there, the log is not yet.
    let head = Entity::new(Key::new(format!("~log:{}:{:016}", record.id, 0), "head"))
        .with("next", Value::Int64(0))
        .with("hash", Hash::ZERO.to_string());
    remote.client().insert(&head).await.expect("a head");
    assert_eq!(remote.log(&LogName::default()).await.expect("an answer"), None);
    assert_eq!(remote.make_log(&LogName::default(), record.clone()).await.expect("a log"), record);
    commit_some(&remote, record.id, 0..2).await;
}

pub(crate) fn copied(row: &Row, change: impl Fn(&str) -> Option<Value>, without: &str) -> Entity {
    let mut entity = Entity::new(row.key.clone());
    let names: Vec<String> = row.names().map(str::to_owned).filter(|name| name != without).collect();
    for name in names {
        let kept = || match name.as_str() {
            "header" => Value::Binary(row.binary(&name).expect("bytes")),
            chunk if chunk.len() == 3 && chunk.starts_with('d') => {
                Value::Binary(row.binary(&name).expect("bytes"))
            }
            "first" | "count" | "length" | "crc" | "rows" | "next" => {
                Value::Int64(row.number(&name).expect("a number") as i64)
            }
            _ => Value::from(row.text(&name).expect("a text")),
        };
        let value = change(&name).unwrap_or_else(kept);
        entity = entity.with(name, value);
    }
    entity
}

#[tokio::test]
async fn damage_is_named_with_its_place_and_hides_only_its_frame() {
    let azurite = azurite!();
    let remote = azurite.fresh().await;
    let log = make_log(&remote).await;
    let sizes = [300, 1_200_000, 4_000_000, 300, 300, 300, 300, 300, 300];
    for (sequence, size) in sizes.iter().enumerate() {
        commit(&remote, &frame(log, sequence as u64, noise(*size, sequence as u64 + 1))).await;
    }
    let rows = all_rows(&remote).await;
    let row =
        |key: &str| rows.iter().find(|row| row.key.row.starts_with(key)).unwrap_or_else(|| panic!("{key}"));
    let replace = async |row: &Row, entity: Entity| {
        remote.client().delete(&row.key).await.expect("deleted");
        remote.client().insert(&entity).await.expect("another one in its place");
    };
    // 1: its second row is not there. 2: a part is another one. 3: a chunk is another one. 4: a property is missing.
    // 5: a number is a text. 6: an unknown codec. 7: not there at all. 8, the last, stays.
    remote.client().delete(&row("frame:00000000000000000001:01").key).await.expect("deleted");
    let part = rows.iter().find(|row| row.key.partition.starts_with("~part:")).expect("parts");
    let other = |name: &str| (name == "d03").then(|| Value::Binary(noise(65_536, 99)));
    replace(part, copied(part, other, "")).await;
    let three = row("frame:00000000000000000003:00");
    replace(three, copied(three, |name| (name == "d00").then(|| Value::Binary(noise(300, 99))), "")).await;
    let four = row("frame:00000000000000000004:00");
    replace(four, copied(four, |_| None, "crc")).await;
    let five = row("frame:00000000000000000005:00");
    replace(five, copied(five, |name| (name == "length").then(|| Value::from("many")), "")).await;
    let six = row("frame:00000000000000000006:00");
    replace(six, copied(six, |name| (name == "codec").then(|| Value::from("lzma")), "")).await;
    remote.client().delete(&row("frame:00000000000000000007:00").key).await.expect("deleted");
    let stranger = Entity::new(Key::new(three.key.partition.clone(), "frame:x")).with("note", "hello");
    remote.client().insert(&stranger).await.expect("a stranger");

    let read = remote.frames(log, 0, usize::MAX).await.expect("damage is not an error of the call");
    assert_eq!(numbers(&read), [0, 1, 2, 3, 4, 5, 6, 8]);
    for frame in &read {
        match (&frame.bytes, frame.sequence) {
            (Ok(_), 0 | 8) => {}
            (Err(error), 1..=6) => {
                assert_eq!(error.kind(), ErrorKind::Damaged);
                let place = format!("row frame:{:020}:00", frame.sequence);
                assert!(error.message().contains(&place), "{error}");
                assert!(frame.header.is_some(), "the header is kept by itself");
                if frame.sequence == 2 {
                    assert!(error.message().contains("part 0, at partition ~part:"), "{error}");
                }
            }
            other => panic!("{other:?}"),
        }
    }
    // Nothing behind the last one tells of it but the head.
    remote.client().delete(&row("frame:00000000000000000008:00").key).await.expect("deleted");
    let read = remote.frames(log, 0, usize::MAX).await.expect("frames");
    assert_eq!(numbers(&read), [0, 1, 2, 3, 4, 5, 6, 8]);
    assert_eq!(read[7].bytes.as_ref().expect_err("not there").kind(), ErrorKind::Damaged);
    let outcome = remote.commit(&frame(log, 8, noise(1, 1))).await;
    assert!(matches!(outcome, Outcome::Gone(_)), "{outcome:?}");
}

#[tokio::test]
async fn the_end_of_a_full_bucket_that_is_missing_is_seen() {
    let azurite = azurite!();
    let remote = azurite.fresh().await.with_bucket_bits(1);
    let log = make_log(&remote).await;
    commit_some(&remote, log, 0..4).await;
    let rows = all_rows(&remote).await;
    for row in rows.iter().filter(|row| row.key.row.contains("0003:")) {
        remote.client().delete(&row.key).await.expect("deleted");
    }
    let read = read_all(&remote, log, usize::MAX).await;
    assert_eq!(numbers(&read), [0, 1, 2, 3]);
    assert_eq!(read[3].bytes.as_ref().expect_err("not there").kind(), ErrorKind::Damaged);
    let outcome = remote.commit(&frame(log, 4, noise(1, 1))).await;
    assert!(matches!(outcome, Outcome::Gone(_)), "its predecessor is not there: {outcome:?}");
    // Missing in the middle, over a boundary.
    let remote = azurite.fresh().await.with_bucket_bits(1);
    let log = make_log(&remote).await;
    commit_some(&remote, log, 0..6).await;
    for row in all_rows(&remote).await {
        if ["0001:", "0002:", "0003:"].iter().any(|part| row.key.row.contains(part)) {
            remote.client().delete(&row.key).await.expect("deleted");
        }
    }
    assert_eq!(numbers(&read_all(&remote, log, usize::MAX).await), [0, 4, 5]);
    assert_eq!(numbers(&remote.frames(log, 1, 1).await.expect("frames")), [4]);
}

#[tokio::test]
async fn what_others_commit_while_pages_are_read_is_no_damage() {
    let azurite = azurite!();
    let remote = Arc::new(azurite.fresh().await.with_bucket_bits(5));
    let log = make_log(&remote).await;
    let writer = {
        let remote = remote.clone();
        tokio::spawn(async move { commit_some(&remote, log, 0..150).await })
    };
    let mut seen = 0;
    while seen < 150 {
        for frame in remote.frames(log, seen, 60).await.expect("frames") {
            assert_eq!(frame.sequence, seen);
            frame.bytes.expect("undamaged");
            seen += 1;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("no panic");
}

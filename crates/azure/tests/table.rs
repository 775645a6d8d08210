//! Table Storage, method by method of `Remote`, against Azurite.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use precedent_azure::remote::{Commit, LogRecord, Outcome, Remote};
use precedent_azure::table::TableRemote;
use precedent_core::store::ExpectedRegister;
use precedent_core::{ErrorKind, FrameId, Hash, LogId, LogName, Position};
use support::azurite::azurite;

/// Some bytes, the same every time, that do not get shorter by being packed.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect::<Vec<_>>().into()
}

fn hash(sequence: u64) -> Hash {
    let mut hash = Hash([9; 32]);
    hash.0[..8].copy_from_slice(&sequence.to_le_bytes());
    hash
}

/// A frame with one event, after the one of the number before it.
fn frame(log: LogId, sequence: u64, bytes: Bytes) -> Commit {
    Commit {
        log,
        sequence,
        id: FrameId::random(),
        first: Position(sequence),
        count: 1,
        hash: hash(sequence),
        previous: if sequence == 0 { Hash::ZERO } else { hash(sequence - 1) },
        bytes,
    }
}

async fn make_log(remote: &TableRemote) -> LogId {
    let record = LogRecord { id: LogId::random(), copy: false, home: String::new() };
    remote.make_log(&LogName::default(), record).await.expect("a log").id
}

macro_rules! azurite {
    () => {
        match azurite() {
            Some(azurite) => azurite,
            None => return,
        }
    };
}

async fn commit(remote: &TableRemote, commit: &Commit) {
    let outcome = remote.commit(commit).await;
    assert!(matches!(outcome, Outcome::Committed), "{outcome:?}");
}

#[tokio::test]
async fn frames_of_any_size_come_back_as_they_were() {
    let remote = azurite!().fresh().await;
    let log = make_log(&remote).await;
    let sizes = [1, 500 << 10, 3 << 20, 15 << 20, 200_000];
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
    let mut from = 0;
    let mut read = Vec::new();
    while let Some(last) = {
        let some = remote.frames(log, from, 1 << 20).await.expect("frames");
        read.extend(some.iter().cloned());
        some.last().map(|frame| frame.sequence)
    } {
        from = last + 1;
    }
    assert_eq!(read.len(), committed.len());
    for (read, committed) in read.iter().zip(&committed) {
        assert_eq!(read.sequence, committed.sequence);
        let bytes = read.bytes.as_ref().expect("undamaged");
        assert!(*bytes == committed.bytes, "frame {}", read.sequence);
        let header = &committed.bytes[..committed.bytes.len().min(precedent_core::frame::HEADER_BYTES)];
        assert_eq!(read.header.as_deref(), Some(header));
    }
}

#[tokio::test]
async fn of_two_commits_of_one_number_exactly_one_wins() {
    let azurite = azurite!();
    let one = Arc::new(azurite.fresh().await);
    let log = make_log(&one).await;
    for sequence in 0..20 {
        let (a, b) = (frame(log, sequence, noise(100, 1)), frame(log, sequence, noise(100, 2)));
        let (first, second) = tokio::join!(one.commit(&a), one.commit(&b));
        let won = matches!(first, Outcome::Committed) as u8 + matches!(second, Outcome::Committed) as u8;
        let lost = matches!(first, Outcome::Taken) as u8 + matches!(second, Outcome::Taken) as u8;
        assert_eq!((won, lost), (1, 1), "{first:?} {second:?}");
        let winner = if matches!(first, Outcome::Committed) { &a } else { &b };
        let stored = one.frames(log, sequence, 1).await.expect("frames");
        assert_eq!(stored[0].bytes.as_ref().expect("undamaged"), &winner.bytes);
        // Sent again, the answer is the same.
        commit(&one, winner).await;
    }
}

#[tokio::test]
async fn a_register_is_set_if_it_is_as_expected() {
    let remote = azurite!().fresh().await;
    let name = "cursors/a".parse().expect("a name");
    assert_eq!(remote.register(&name).await.expect("an answer"), None);
    let set = remote.set_register(&name, ExpectedRegister::Absent, noise(65_536, 1)).await.expect("set");
    assert_eq!(set.revision, 1);
    assert_eq!(remote.register(&name).await.expect("an answer"), Some(set));
    let error = remote.set_register(&name, ExpectedRegister::Absent, Bytes::new()).await.expect_err("set");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let set = remote.set_register(&name, ExpectedRegister::Revision(1), Bytes::new()).await.expect("set");
    assert_eq!(set.revision, 2);
    assert_eq!(remote.register(&name).await.expect("an answer"), Some(set));
    let error = remote.set_register(&name, ExpectedRegister::Revision(1), Bytes::new()).await;
    assert_eq!(error.expect_err("it has revision 2").kind(), ErrorKind::Conflict);
    let error = remote.set_register(&name, ExpectedRegister::Revision(2), noise(65_537, 1)).await;
    assert_eq!(error.expect_err("too long").kind(), ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn a_log_is_made_once_and_a_copy_is_promoted() {
    let remote = azurite!().fresh().await;
    let name: LogName = "copied.log".parse().expect("a name");
    assert_eq!(remote.logs().await.expect("logs"), []);
    assert_eq!(remote.log(&name).await.expect("an answer"), None);
    let record = LogRecord { id: LogId::random(), copy: true, home: String::new() };
    assert_eq!(remote.make_log(&name, record.clone()).await.expect("made"), record);
    let other = LogRecord { id: LogId::random(), copy: false, home: "x".into() };
    assert_eq!(remote.make_log(&name, other).await.expect("there"), record);
    let main = make_log(&remote).await;
    assert_eq!(remote.logs().await.expect("logs"), [name.clone(), LogName::default()]);
    remote.promote(&name, main).await.expect_err("another id");
    for _ in 0..2 {
        remote.promote(&name, record.id).await.expect("promoted");
        let now = remote.log(&name).await.expect("an answer");
        assert_eq!(now, Some(LogRecord { copy: false, ..record.clone() }));
    }
    let error = remote.promote(&"none".parse().expect("a name"), main).await.expect_err("no such log");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

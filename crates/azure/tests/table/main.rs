//! Table Storage, method by method of `Remote`, against Azurite, and with answers that are lost or made up.

#[path = "../support/mod.rs"]
mod support;

mod conformance;
mod documents;
mod faults;
mod frames;
mod records;
mod refusals;

use bytes::Bytes;
use precedent_azure::remote::{Commit, LogRecord, Outcome, Remote};
use precedent_azure::table::TableRemote;
use precedent_azure::table::client::Query;
use precedent_azure::table::entity::Row;
use precedent_core::{FrameId, Hash, LogId, LogName, Position};

/// The emulator, or the end of the test after the reason was said.
macro_rules! azurite {
    () => {
        match $crate::support::azurite::azurite() {
            Some(azurite) => azurite,
            None => return,
        }
    };
}
pub(crate) use azurite;

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
        header: bytes.slice(..bytes.len().min(200)),
        bytes,
    }
}

async fn make_log(remote: &TableRemote) -> LogId {
    let record = LogRecord { id: LogId::random(), copy: false, home: String::new() };
    remote.make_log(&LogName::default(), record).await.expect("a log").id
}

async fn commit(remote: &TableRemote, commit: &Commit) {
    let outcome = remote.commit(commit).await;
    assert!(matches!(outcome, Outcome::Committed), "frame {}: {outcome:?}", commit.sequence);
}

/// Commits frames of a few bytes, and answers them.
async fn commit_some(remote: &TableRemote, log: LogId, numbers: std::ops::Range<u64>) -> Vec<Commit> {
    let mut all = Vec::new();
    for sequence in numbers {
        let frame = frame(log, sequence, noise(20, sequence));
        commit(remote, &frame).await;
        all.push(frame);
    }
    all
}

/// Every row of the table.
async fn all_rows(remote: &TableRemote) -> Vec<Row> {
    let query = Query { filter: "PartitionKey ge ''".to_owned(), ..Query::default() };
    let (mut rows, mut next) = (Vec::new(), None);
    loop {
        let page = remote.client().query(&query, next.as_ref()).await.expect("a page");
        rows.extend(page.rows);
        next = page.next;
        if next.is_none() {
            return rows;
        }
    }
}

/// Empties the table behind everybody's back.
async fn empty(remote: &TableRemote) {
    for row in all_rows(remote).await {
        remote.client().delete(&row.key).await.expect("deleted");
    }
}

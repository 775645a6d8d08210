//! The hashes alone: salts, commitments, leaves and the tree of the same events, by one thread, with nothing recorded.
//!
//! A log without them would be another product, so the store cannot leave them out. This says what they cost of a
//! batch, beside stores that compute none.

use std::time::{Duration, Instant};

use bytes::Bytes;
use precedent::commitment::{Salt, commit_each};
use precedent::tree::{Tree, leaf_hash};

use super::workload::{Appends, Samples};

/// Bytes of an entry: about what the events of this benchmark have.
const ENTRY_BYTES: usize = 200;
/// Events whose commitments the store computes together, at most.
const AT_ONCE: usize = 16;

/// Hashes for about so long.
pub(super) fn measure(workload: Appends, data: &[Bytes], duration: Duration) -> Samples {
    let mut entry = [0; ENTRY_BYTES];
    let mut tree = Tree::new();
    let mut latencies = Vec::new();
    let mut all = data.iter().cycle();
    let began = Instant::now();
    while began.elapsed() < duration {
        let batch = Instant::now();
        let contents: Vec<(Salt, &[u8])> =
            all.by_ref().take(workload.batch).map(|data| (Salt::random(), &data[..])).collect();
        for commitment in contents.chunks(AT_ONCE).flat_map(commit_each) {
            entry[..commitment.0.len()].copy_from_slice(&commitment.0);
            tree.push(leaf_hash(&entry));
        }
        std::hint::black_box(tree.root());
        latencies.push(batch.elapsed());
    }
    Samples::new(latencies, tree.size(), began.elapsed())
}

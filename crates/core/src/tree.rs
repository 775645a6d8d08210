//! The Merkle tree of RFC 6962 (section 2.1) over a log's entries, SHA-256.
//!
//! [`Tree`] holds the right edge only: the roots of the perfect subtrees that make up the tree, largest
//! first, at most 64 of them. That is all an appender needs, and costs one inner node an event on average.
//!
//! Compiled with `--cfg precedent_unhashed`, which nothing but the benchmark does, nothing is hashed here and in
//! [`commitment`](crate::commitment), and the logs prove nothing.

use sha2::{Digest, Sha256};

use crate::ids::Hash;

/// The hash of a leaf: `SHA-256(0x00 || entry)`.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    if cfg!(precedent_unhashed) {
        return Hash::ZERO;
    }
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    if cfg!(precedent_unhashed) {
        return Hash::ZERO;
    }
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// A tree that grows by one leaf at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    edge: Vec<Hash>,
}

impl Tree {
    /// The tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tree of `size` leaves with this right edge; `None` if a tree of that size has another number of
    /// perfect subtrees.
    pub fn from_edge(size: u64, edge: Vec<Hash>) -> Option<Self> {
        (edge.len() == size.count_ones() as usize).then_some(Self { size, edge })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first: as many as `size` has bits set.
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// Adds a leaf, given by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.edge.pop().expect("a tree has a subtree for every bit of its size");
            node = node_hash(&left, &node);
        }
        self.edge.push(node);
        self.size += 1;
    }

    /// The root. That of the empty tree is the hash of nothing.
    pub fn root(&self) -> Hash {
        let mut subtrees = self.edge.iter().rev();
        match subtrees.next() {
            None => Hash(Sha256::digest([]).into()),
            Some(last) => subtrees.fold(*last, |right, left| node_hash(left, &right)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    #[test]
    fn the_empty_root_and_the_first_leaf_are_those_of_rfc_6962() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Tree::new().root().to_string(), empty);
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(leaf_hash(b"").to_string(), leaf);
    }

    #[test]
    fn every_root_up_to_1025_leaves_is_the_one_another_implementation_computes() {
        let mut ours = Tree::new();
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for i in 0..1025u32 {
            let entry = i.to_le_bytes().to_vec();
            ours.push(leaf_hash(&entry));
            theirs.push(entry);
            assert_eq!(ours.root().0.as_slice(), theirs.root().as_bytes().as_slice(), "size {}", i + 1);
            let again = Tree::from_edge(ours.size(), ours.edge().to_vec()).unwrap();
            assert_eq!(again.root(), ours.root());
        }
        assert_eq!(Tree::from_edge(3, vec![Hash::ZERO]), None);
    }
}

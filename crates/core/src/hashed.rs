//! Tables whose keys are hashes already.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table whose keys are hashes that nobody outside can choose: keyed ones, or of what has no choice. It does not hash them again.
pub type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// Hashes a `u64` to itself.
#[derive(Debug, Default, Clone, Copy)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    /// # Panics
    /// Always: the keys are `u64`.
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

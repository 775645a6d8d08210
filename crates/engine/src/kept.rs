//! What was read lately, up to so many bytes: what is asked for again and again stays.
//!
//! Two generations: what is new or was asked for goes to the young one, and when that has half of the bytes it becomes
//! the old one, in place of the one before.

use std::collections::HashMap;
use std::hash::Hash;

/// A cache of a bounded number of bytes.
pub(crate) struct Kept<K, V> {
    bytes_max: usize,
    young: HashMap<K, (V, usize)>,
    young_bytes: usize,
    old: HashMap<K, (V, usize)>,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    /// Holds no more than so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, young: HashMap::new(), young_bytes: 0, old: HashMap::new() }
    }

    /// What was put there, if it is still there.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, cost)) = self.old.remove_entry(key)?;
        self.put(key, value.clone(), cost);
        Some(value)
    }

    /// Puts something there that takes `cost` bytes. What takes more than a sixteenth of them all is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, cost: usize) {
        if cost > self.bytes_max / 16 {
            return;
        }
        if self.young_bytes + cost > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += cost;
        if let Some((_, before)) = self.young.insert(key, (value, cost)) {
            self.young_bytes -= before;
        }
    }

    /// Lets go of everything but what `stays`.
    pub(crate) fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|key, _| stays(key));
        }
        self.young_bytes = self.young.values().map(|(_, cost)| cost).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_no_more_is_held_than_there_is_room_for() {
        let mut kept = Kept::new(1_600);
        for key in 0..1_000 {
            kept.put(key, key, 100);
            assert_eq!(kept.get(&0), Some(0), "asked for every time, at {key}");
            assert!((kept.young.len() + kept.old.len()) * 100 <= 1_600, "at {key}");
        }
        assert_eq!((kept.get(&999), kept.get(&500)), (Some(999), None));
        kept.put(1, 1, 101);
        assert_eq!(kept.get(&1), None, "too large to be kept");
    }

    #[test]
    fn what_is_let_go_of_makes_room() {
        let mut kept = Kept::new(1_600);
        (0..8).for_each(|key| kept.put(key, key, 100));
        kept.retain(|key| *key == 7);
        (10..17).for_each(|key| kept.put(key, key, 100));
        assert_eq!((kept.get(&7), kept.get(&3), kept.get(&16)), (Some(7), None, Some(16)));
        // The same key again takes its place and no more.
        (0..100).for_each(|_| kept.put(16, 17, 100));
        assert_eq!((kept.get(&7), kept.get(&16)), (Some(7), Some(17)));
    }
}

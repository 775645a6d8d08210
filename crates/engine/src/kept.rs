//! What was read lately, up to so many bytes: what is asked for again and again stays.

use std::hash::Hash;

use hashlink::LruCache;

/// A cache of a bounded number of bytes, which lets go of what was not asked for the longest.
pub(crate) struct Kept<K, V> {
    bytes_max: usize,
    bytes: usize,
    values: LruCache<K, (V, usize)>,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    /// Holds no more than so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, values: LruCache::new_unbounded() }
    }

    /// What was put there, if it is still there.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.values.get(key).map(|(value, _)| value.clone())
    }

    /// Puts something there that takes `cost` bytes. What takes more than a sixteenth of them all is not kept.
    pub(crate) fn put(&mut self, key: K, value: V, cost: usize) {
        if cost > self.bytes_max / 16 {
            return;
        }
        self.bytes += cost;
        if let Some((_, before)) = self.values.insert(key, (value, cost)) {
            self.bytes -= before;
        }
        while self.bytes > self.bytes_max
            && let Some((_, (_, cost))) = self.values.remove_lru()
        {
            self.bytes -= cost;
        }
    }

    /// Lets go of everything but what `stays`.
    pub(crate) fn retain(&mut self, stays: impl Fn(&K) -> bool) {
        let bytes = &mut self.bytes;
        self.values.retain(|key, (_, cost)| {
            let stays = stays(key);
            if !stays {
                *bytes -= *cost;
            }
            stays
        });
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
            assert!(kept.values.len() <= 16 && kept.bytes == kept.values.len() * 100, "at {key}");
        }
        assert_eq!((kept.get(&999), kept.get(&984)), (Some(999), None));
        // As much as there is room for stays, in whatever order it is asked for.
        let all: Vec<i32> = std::iter::once(0).chain(985..1_000).collect();
        assert!(all.iter().chain(&all).all(|key| kept.get(key) == Some(*key)));
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
        assert_eq!(kept.bytes, kept.values.len() * 100);
    }
}

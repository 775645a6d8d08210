//! A set of frames by their numbers, as ranges: what several writers have each done comes together in one.

use precedent_core::{Error, Result};

/// Ranges that are written down at most. What lies behind them is forgotten, and then done once more.
const RANGES_MAX: usize = 512;

/// A set of frame numbers.
///
/// As text it is its ranges in order, each `first-end` with its end left out: `0-7 9-10`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameSet {
    /// First and end of each range; in order, and none touches the next.
    ranges: Vec<(u64, u64)>,
}

impl FrameSet {
    /// All frames before this number.
    pub fn before(end: u64) -> Self {
        Self { ranges: if end > 0 { vec![(0, end)] } else { Vec::new() } }
    }

    /// The number of the first frame that is not in it.
    pub fn through(&self) -> u64 {
        self.ranges.first().filter(|(first, _)| *first == 0).map_or(0, |(_, end)| *end)
    }

    /// Whether a frame is in it.
    pub fn contains(&self, sequence: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= sequence);
        after.checked_sub(1).is_some_and(|index| sequence < self.ranges[index].1)
    }

    /// Adds a frame.
    pub fn insert(&mut self, sequence: u64) {
        self.add_range(sequence, sequence + 1);
    }

    /// Adds all that are in another.
    pub fn add(&mut self, other: &Self) {
        other.ranges.iter().for_each(|(first, end)| self.add_range(*first, *end));
    }

    fn add_range(&mut self, first: u64, end: u64) {
        let begin = self.ranges.partition_point(|(_, before)| *before < first);
        let behind = self.ranges.partition_point(|(after, _)| *after <= end);
        let touched = &self.ranges[begin..behind];
        let first = touched.first().map_or(first, |(touched, _)| first.min(*touched));
        let end = touched.last().map_or(end, |(_, touched)| end.max(*touched));
        self.ranges.splice(begin..behind, [(first, end)]);
    }

    /// Whether all frames of another are in it.
    pub fn covers(&self, other: &Self) -> bool {
        let mut both = self.clone();
        both.add(other);
        both == *self
    }
}

impl std::fmt::Display for FrameSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, end)) in self.ranges.iter().take(RANGES_MAX).enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{first}-{end}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for FrameSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut set = Self::default();
        for range in text.split_ascii_whitespace() {
            let bounds = range.split_once('-').and_then(|(first, end)| {
                let bounds: (u64, u64) = (first.parse().ok()?, end.parse().ok()?);
                (bounds.0 < bounds.1).then_some(bounds)
            });
            let (first, end) = bounds
                .ok_or_else(|| Error::damaged(format!("'{}' is no range of frames", range.escape_debug())))?;
            set.add_range(first, end);
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn it_is_the_set_of_what_was_added_in_whatever_order() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut set, mut model) = (FrameSet::default(), BTreeSet::new());
            for _ in 0..random.random_range(0..60) {
                if random.random_bool(0.8) {
                    let sequence = random.random_range(0..40);
                    set.insert(sequence);
                    model.insert(sequence);
                } else {
                    let end = random.random_range(0..10);
                    set.add(&FrameSet::before(end));
                    model.extend(0..end);
                }
            }
            let there: BTreeSet<u64> = (0..50).filter(|sequence| set.contains(*sequence)).collect();
            assert_eq!(there, model, "seed {seed}");
            let through = (0..).find(|sequence| !model.contains(sequence)).expect("there is an end");
            assert_eq!(set.through(), through, "seed {seed}");
            assert_eq!(set.to_string().parse::<FrameSet>().expect("a set"), set, "seed {seed}");
            assert!(set.covers(&FrameSet::before(through)) && !set.covers(&FrameSet::before(through + 1)));
        }
    }

    #[test]
    fn what_is_written_down_is_bounded_and_says_too_little_rather_than_too_much() {
        let mut set = FrameSet::default();
        (0..4 * RANGES_MAX as u64).for_each(|sequence| set.insert(2 * sequence));
        let read: FrameSet = set.to_string().parse().expect("a set");
        assert!(set.covers(&read) && !read.covers(&set));
        assert!(set.to_string().len() < 16 << 10);
        for bad in ["1", "2-1", "1-1", "a-b", "1-2,3-4", "-1-2"] {
            assert!(bad.parse::<FrameSet>().is_err(), "{bad}");
        }
    }
}

//! The newest part of the index, in memory: what has been recorded since the last run was written.

use precedent_core::Position;
use precedent_core::hashed::HashedMap;

use super::term::Term;

/// The positions of one term, ascending; nearly always just one.
#[derive(Debug, Clone)]
enum Postings {
    One(u32),
    Many(Vec<u32>),
}

impl Postings {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(position) => std::slice::from_ref(position),
            Self::Many(positions) => positions,
        }
    }
}

/// Terms and their positions, over a range of whole frames.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) first_position: u64,
    pub(crate) end_position: u64,
    pub(crate) first_sequence: u64,
    pub(crate) end_sequence: u64,
    /// Bytes of log that are indexed here.
    pub(crate) log_bytes: u64,
    terms: HashedMap<Postings>,
}

impl Table {
    pub(crate) fn new(first_position: u64, first_sequence: u64) -> Self {
        Self {
            first_position,
            end_position: first_position,
            first_sequence,
            end_sequence: first_sequence,
            ..Self::default()
        }
    }

    /// An empty one for the frames behind these, with room for as many terms.
    pub(crate) fn next(&self) -> Self {
        let terms = HashedMap::with_capacity_and_hasher(self.terms.len(), Default::default());
        Self { terms, ..Self::new(self.end_position, self.end_sequence) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first_position == self.end_position
    }

    /// Adds one term of the event at `position`. Positions ascend.
    pub(crate) fn insert(&mut self, term: Term, position: Position) {
        let relative = (position.0 - self.first_position) as u32;
        match self.terms.entry(term) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Postings::One(relative));
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => match slot.get_mut() {
                Postings::One(first) if *first == relative => {}
                Postings::One(first) => *slot.get_mut() = Postings::Many(vec![*first, relative]),
                Postings::Many(all) if all.last() == Some(&relative) => {}
                Postings::Many(all) => all.push(relative),
            },
        }
    }

    /// The positions of a term, relative to the first.
    pub(crate) fn get(&self, term: Term) -> &[u32] {
        self.terms.get(&term).map_or(&[], Postings::as_slice)
    }

    /// Fetches where these terms are, or are not, before [`Self::insert`]: that is in no cache, and here no place waits for the one before it.
    pub(crate) fn fetch(&self, terms: impl Iterator<Item = Term>) {
        let last = |term| self.get(term).last().copied();
        std::hint::black_box(terms.filter_map(last).fold(0, u32::wrapping_add));
    }

    /// Adds to `has` which of these terms it has.
    pub(crate) fn has_each(&self, terms: &[Term], has: &mut [bool]) {
        for (term, has) in terms.iter().zip(has) {
            *has |= self.terms.contains_key(term);
        }
    }

    /// All terms with their positions, ordered by term.
    pub(crate) fn sorted(&self) -> Vec<(Term, &[u32])> {
        let mut all: Vec<_> =
            self.terms.iter().map(|(term, postings)| (*term, postings.as_slice())).collect();
        all.sort_unstable_by_key(|(term, _)| *term);
        all
    }
}

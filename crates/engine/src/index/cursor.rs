//! Candidates for a query, found by leaping from position to position.
//!
//! A [`Cursor`] answers one question: which is the next position at or beyond `p`, in the direction of the
//! read? Lists of positions answer it by binary search, unions by the nearest answer, intersections by
//! leaping until all agree. Every answer is a candidate that the caller checks against the event.

use std::sync::Arc;

use precedent_core::Direction;

use super::run::{BadRun, Found, Page, Run, posting_on, postings_per_page};

/// A set of positions, in memory or on disk.
pub(crate) enum Cursor {
    /// Every position of a range: what has no index.
    All { first: u64, end: u64 },
    /// Positions in memory, relative to `base`.
    Listed { base: u64, positions: Arc<[u32]> },
    /// Positions in a run.
    Stored(Stored),
    /// Sets over adjacent ranges of positions, ascending: (end of the range, its set).
    Ranges(Vec<(u64, Cursor)>),
    /// What is in any.
    Union(Vec<Cursor>),
    /// What is in all.
    Intersection(Vec<Cursor>),
}

/// Many positions of one term in a run.
pub(crate) struct Stored {
    run: Arc<Run>,
    /// The page with which the postings of its group begin.
    postings_at: u64,
    start: u32,
    count: u32,
    /// The page of postings read last.
    page: Option<(u64, Page)>,
    /// Where the last answer was, which is where the next one probably is.
    hint: u32,
}

impl Stored {
    fn get(&mut self, index: u32) -> Result<u32, BadRun> {
        let at = self.start.saturating_add(index);
        let number = self.postings_at + u64::from(at / postings_per_page());
        if self.page.as_ref().is_none_or(|(n, _)| *n != number) {
            self.page = Some((number, self.run.postings_page(number)?));
        }
        let (_, page) = self.page.as_ref().expect("the page was just read");
        Ok(posting_on(page, at % postings_per_page()))
    }

    /// The number of positions below `relative`, by galloping from the hint and then halving.
    fn below(&mut self, relative: u32) -> Result<u32, BadRun> {
        // Always: what is below `low` is below `relative`, what is at `high` and above is not.
        let (mut low, mut high, mut step) = (0, self.count, 1);
        let hint = self.hint.min(self.count - 1);
        if self.get(hint)? < relative {
            low = hint + 1;
            while low < high {
                let probe = low.saturating_add(step - 1).min(high - 1);
                if self.get(probe)? >= relative {
                    high = probe;
                    break;
                }
                low = probe + 1;
                step = step.saturating_mul(2);
            }
        } else {
            high = hint;
            while low < high {
                let probe = high - step.min(high - low);
                if self.get(probe)? < relative {
                    low = probe + 1;
                    break;
                }
                high = probe;
                step = step.saturating_mul(2);
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)? < relative { low = middle + 1 } else { high = middle }
        }
        self.hint = low;
        Ok(low)
    }

    fn seek(&mut self, position: u64, direction: Direction) -> Result<Option<u64>, BadRun> {
        let base = self.run.coverage.first_position;
        let clamped = |p: u64| u32::try_from(p.saturating_sub(base)).unwrap_or(u32::MAX);
        let index = match direction {
            Direction::Forward => Some(self.below(clamped(position))?).filter(|i| *i < self.count),
            Direction::Backward if position < base => None,
            Direction::Backward => self.below(clamped(position).saturating_add(1))?.checked_sub(1),
        };
        index.map(|i| Ok(base + u64::from(self.get(i)?))).transpose()
    }
}

impl Cursor {
    /// What is in any of these.
    pub(crate) fn union(mut cursors: Vec<Self>) -> Self {
        if cursors.len() == 1 { cursors.remove(0) } else { Self::Union(cursors) }
    }

    /// What is in all of these.
    pub(crate) fn intersection(mut cursors: Vec<Self>) -> Self {
        if cursors.len() == 1 { cursors.remove(0) } else { Self::Intersection(cursors) }
    }

    /// The set of a term's positions in a run.
    pub(crate) fn of_run(run: &Arc<Run>, found: Found) -> Self {
        let base = run.coverage.first_position;
        match found {
            Found::None => Self::Listed { base, positions: Arc::from([]) },
            Found::One(position) => Self::Listed { base, positions: Arc::from([position]) },
            Found::Many { page: postings_at, start, count } => {
                Self::Stored(Stored { run: run.clone(), postings_at, start, count, page: None, hint: 0 })
            }
        }
    }

    /// The nearest position of the set at `position` or beyond it in this direction.
    pub(crate) fn seek(&mut self, position: u64, direction: Direction) -> Result<Option<u64>, BadRun> {
        let forward = direction == Direction::Forward;
        match self {
            Self::All { first, end } if first == end => Ok(None),
            Self::All { first, end } if forward => Ok(Some(position.max(*first)).filter(|p| p < end)),
            Self::All { first, end } => Ok(Some(position.min(*end - 1)).filter(|p| p >= first)),
            Self::Listed { base, positions } => {
                let index = match forward {
                    true => Some(positions.partition_point(|p| *base + u64::from(*p) < position)),
                    false => positions.partition_point(|p| *base + u64::from(*p) <= position).checked_sub(1),
                };
                Ok(index.and_then(|i| positions.get(i)).map(|p| *base + u64::from(*p)))
            }
            Self::Stored(stored) => stored.seek(position, direction),
            Self::Ranges(ranges) => {
                let containing = ranges.partition_point(|(end, _)| *end <= position);
                if forward {
                    for (_, cursor) in &mut ranges[containing..] {
                        if let Some(found) = cursor.seek(position, direction)? {
                            return Ok(Some(found));
                        }
                    }
                } else {
                    let upto = (containing + 1).min(ranges.len());
                    for (_, cursor) in ranges[..upto].iter_mut().rev() {
                        if let Some(found) = cursor.seek(position, direction)? {
                            return Ok(Some(found));
                        }
                    }
                }
                Ok(None)
            }
            Self::Union(cursors) => {
                let mut nearest = None;
                for cursor in cursors {
                    if let Some(found) = cursor.seek(position, direction)? {
                        nearest = Some(
                            nearest.map_or(found, |n: u64| if forward { n.min(found) } else { n.max(found) }),
                        );
                    }
                }
                Ok(nearest)
            }
            Self::Intersection(cursors) => {
                let mut candidate = position;
                'leap: loop {
                    for cursor in cursors.iter_mut() {
                        match cursor.seek(candidate, direction)? {
                            None => return Ok(None),
                            Some(found) if found != candidate => {
                                candidate = found;
                                continue 'leap;
                            }
                            Some(_) => {}
                        }
                    }
                    return Ok(Some(candidate));
                }
            }
        }
    }
}

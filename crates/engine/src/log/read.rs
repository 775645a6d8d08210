//! A page of a read: where its events are, and which of them there is room for.

use std::ops::Range;
use std::sync::Arc;

use precedent_core::entry::Entry;
use precedent_core::store::beyond;
use precedent_core::{Direction, Page, Position, Read, Result, Time, TimeField};

use super::Log;
use crate::helpers;
use crate::index::cursor::Cursor;
use crate::page::{self, HELPED_EVENTS_MIN, PAGE_BYTES, PageBuilder, Shares};
use crate::reader::FrameReader;

/// A read of everything reads more at once than is asked for, if it wants at least so many events.
const READ_AHEAD_EVENTS: usize = 100;

/// Where the events of a read can be.
struct Candidates<'a> {
    log: &'a Log,
    read: &'a Read,
    /// The number of events in the log.
    size: u64,
    /// `None`: everywhere.
    cursor: Option<Cursor>,
    /// Nowhere else.
    range: Range<u64>,
}

impl<'a> Candidates<'a> {
    fn new(log: &'a Log, read: &'a Read, size: u64) -> Self {
        let mut low = read.after.map_or(0, |after| after.0 + 1);
        let mut high = read.before.map_or(size, |before| before.0.min(size));
        if read.by == TimeField::Recorded {
            if let Some(since) = read.since {
                low = low.max(log.first_recorded_at(since, size));
            }
            if let Some(until) = read.until {
                high = high.min(log.end_recorded_before(until, size));
            }
        }
        let cursor = log.ask(|index| index.query(&read.query));
        Self { log, read, size, cursor, range: low..high }
    }

    fn first(&self) -> Option<u64> {
        let first = match self.read.direction {
            Direction::Forward => Some(self.range.start),
            Direction::Backward => self.range.end.checked_sub(1),
        };
        first.filter(|at| self.range.contains(at))
    }

    /// Where those behind a position can begin.
    fn behind(&self, position: u64) -> Option<u64> {
        let next = match self.read.direction {
            Direction::Forward => position.checked_add(1),
            Direction::Backward => position.checked_sub(1),
        };
        next.filter(|at| self.range.contains(at))
    }

    /// The next of them from a position on, at most so many.
    fn find(&mut self, mut at: Option<u64>, wanted: usize) -> Vec<u64> {
        let bound = usize::try_from(self.range.end.saturating_sub(self.range.start)).unwrap_or(wanted);
        let mut found = Vec::with_capacity(wanted.min(bound));
        while let Some(from) = at.filter(|_| found.len() < wanted) {
            let candidate = match &mut self.cursor {
                None => Some(from),
                Some(cursor) => match cursor.seek(from, self.read.direction) {
                    Ok(candidate) => candidate,
                    Err(bad) => {
                        self.log.index().drop_run(&bad);
                        let cursor = self.log.ask(|index| index.query(&self.read.query));
                        self.cursor = Some(cursor.unwrap_or(Cursor::All { first: 0, end: self.size }));
                        continue;
                    }
                },
            };
            let Some(position) = candidate.filter(|at| self.range.contains(at)) else { break };
            found.push(position);
            at = self.behind(position);
        }
        found
    }
}

impl Log {
    /// A page of events.
    pub(crate) fn read(&self, read: &Read) -> Result<Page> {
        self.check_open()?;
        self.check_exists()?;
        let size = self.published().size;
        read.check(&self.settings.limits, size)?;
        if let Some(position) = read.at_least
            && position.0 >= size
        {
            return Err(beyond(position, size));
        }
        let mut candidates = Candidates::new(self, read, size);
        let mut page = PageBuilder::new(read.limit.unwrap_or(usize::MAX), size);
        // A few events are not worth it.
        let sequential = candidates.cursor.is_none()
            && read.direction == Direction::Forward
            && page.events_max >= READ_AHEAD_EVENTS;
        let goes_ahead = sequential && helpers::can_be() && page.events_max >= HELPED_EVENTS_MIN;
        let ahead = if goes_ahead { self.settings.readers.take(&self.segments, read) } else { None };
        // Of the next page, to begin with it for somebody who goes on, or to know whether there is one.
        let wanted = if ahead.is_some() { page.events_max } else { 1 };
        let mut begun = ahead.flatten();
        let mut reader = FrameReader::new(&self.segments, sequential);
        let mut at = candidates.first();
        while !page.is_full() {
            let (positions, examined) = match begun.take() {
                Some(begun) => (begun.positions().to_vec(), begun.finish(&mut reader)),
                None => {
                    // All that the page may hold are looked up before the first of them is read: what lies close together
                    // is read together.
                    let positions = candidates.find(at, page.events_max - page.page.events.len());
                    // Where little is left, what is not wanted must not use it up: the page ends with what it takes of
                    // this.
                    let bytes_max = PAGE_BYTES.saturating_sub(page.bytes).max(PAGE_BYTES / 4);
                    let examined =
                        page::examine_all(&self.segments, &mut reader, &positions, read, bytes_max);
                    (positions, examined)
                }
            };
            if positions.is_empty() {
                break;
            }
            // The sooner helpers have more to do, the less do they wait.
            let is_filled = page.is_filled_by(&examined);
            let mut next = None;
            if is_filled {
                next = self.begin(&mut candidates, positions[positions.len() - 1], wanted);
            }
            page.page.events.reserve(examined.iter().map(|examined| examined.events.len()).sum());
            let mut taken = 0;
            for examined in examined {
                taken += page.take(examined);
                if page.is_full() {
                    break;
                }
            }
            let last = positions[taken - 1];
            at = candidates.behind(last);
            if page.is_full() {
                if !is_filled {
                    next = self.begin(&mut candidates, last, wanted);
                }
                page.page.next = next.is_some().then_some(Position(last));
                if let Some(next) = next.filter(|_| goes_ahead) {
                    let readers = &self.settings.readers;
                    readers.put(&self.segments, read.clone().continued(Position(last)), next);
                    // Whoever closes the log lets go of it afterwards, or has done so before.
                    if self.is_closed() {
                        readers.forget(&self.segments);
                    }
                }
            }
        }
        Ok(page.page)
    }

    /// Whether there is something behind a position that ends a page: whoever reads to the end need not ask again to hear that
    /// there is nothing. With what was begun of it for somebody who goes on and wants more than one.
    fn begin(
        &self,
        candidates: &mut Candidates<'_>,
        last: u64,
        wanted: usize,
    ) -> Option<Option<Arc<Shares>>> {
        let at = candidates.behind(last);
        let positions = candidates.find(at, wanted);
        if positions.is_empty() {
            return None;
        }
        let is_worth_it = positions.len() >= HELPED_EVENTS_MIN;
        let begin = || Shares::begin(&self.segments, true, positions, candidates.read, PAGE_BYTES);
        Some(is_worth_it.then(begin))
    }

    /// The lowest position that can be of an event recorded at `time` or later. Recorded times never go
    /// backwards; events that cannot be read stay within the bounds, so that they are named.
    fn first_recorded_at(&self, time: Time, size: u64) -> u64 {
        let mut events = FrameReader::new(&self.segments, false);
        let (mut low, mut high) = (0, size);
        while low < high {
            let middle = low + (high - low) / 2;
            match next_recorded(&mut events, middle, high) {
                Some((at, recorded)) if recorded < time => low = at + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// The lowest position from which on every event was recorded at `time` or later for certain.
    fn end_recorded_before(&self, time: Time, size: u64) -> u64 {
        let mut events = FrameReader::new(&self.segments, false);
        let low = self.first_recorded_at(time, size);
        next_recorded(&mut events, low, size).map_or(size, |(at, _)| at)
    }
}

/// The first event in a range that can be read, and when it was recorded.
fn next_recorded(events: &mut FrameReader<'_>, from: u64, to: u64) -> Option<(u64, Time)> {
    (from..to).find_map(|at| {
        let stored = events.event(Position(at)).ok()?;
        Some((at, Entry::decode(&stored.entry).ok()?.recorded))
    })
}

//! A page of a read: the events at some positions, as far as they are wanted and fit.
//!
//! A page of many events is cut into *shares*, and several threads read them. Each reads a share by itself, as a page of
//! its own would be read, so nothing depends on who reads what. What is read beyond the end of the page is let go.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use precedent_core::{Damage, Error, Page, Position, Read, RecordedEvent, TimeField};

use crate::helpers::{self, Work};
use crate::pack::Unpacker;
use crate::reader::FrameReader;
use crate::segment::Segments;

/// Events in a page at most.
pub(crate) const PAGE_EVENTS: usize = 1_000;
/// Bytes of entries and data in a page, about.
pub(crate) const PAGE_BYTES: usize = 4 << 20;
/// Bytes that are looked at for one page, about, matching or not.
const PAGE_EXAMINED_BYTES: usize = 64 << 20;

/// Nobody is asked to help with fewer events than this: it takes about as long to wake somebody as to read half of them.
pub(crate) const HELPED_EVENTS_MIN: usize = 128;
/// Events of a share that lie scattered.
const SCATTERED_EVENTS: usize = 32;
/// Events of a share that lie one behind the other: they are read in few pieces.
const SEQUENTIAL_EVENTS: usize = 128;

pub(crate) struct PageBuilder {
    pub(crate) page: Page,
    pub(crate) events_max: usize,
    pub(crate) bytes: usize,
    examined: usize,
}

impl PageBuilder {
    pub(crate) fn new(events_max: usize, size: u64) -> Self {
        let page = Page { events: Vec::new(), damaged: Vec::new(), next: None, size };
        Self { page, events_max: events_max.min(PAGE_EVENTS), bytes: 0, examined: 0 }
    }

    /// Takes what was found at the next positions, up to where the page is full. Answers of how many.
    pub(crate) fn take(&mut self, mut examined: Examined) -> usize {
        let rows = examined.rows.len();
        let (stored, bytes) = examined.totals();
        if self.examined + stored < PAGE_EXAMINED_BYTES
            && self.bytes + bytes < PAGE_BYTES
            && self.page.events.len() + examined.events.len() < self.events_max
            && self.page.damaged.len() + examined.damaged.len() < PAGE_EVENTS
        {
            self.examined += stored;
            self.bytes += bytes;
            self.page.events.append(&mut examined.events);
            self.page.damaged.append(&mut examined.damaged);
            return rows;
        }
        let (mut events, mut damaged) = (examined.events.into_iter(), examined.damaged.into_iter());
        for (index, row) in examined.rows.into_iter().enumerate() {
            self.examined += row.stored;
            match row.found {
                Found::Event => {
                    self.bytes += row.bytes;
                    self.page.events.extend(events.next());
                }
                Found::Other => {}
                Found::Damage => self.page.damaged.extend(damaged.next()),
            }
            if self.is_full() {
                return index + 1;
            }
        }
        rows
    }

    /// Whether this fills the page, which is empty, with its very last event.
    pub(crate) fn is_filled_by(&self, examined: &[Examined]) -> bool {
        if !self.page.events.is_empty() || !self.page.damaged.is_empty() {
            return false;
        }
        let (mut events, mut bytes, mut stored) = (0, 0, 0);
        for examined in examined {
            let totals = examined.totals();
            (stored, bytes) = (stored + totals.0, bytes + totals.1);
            events += examined.events.len();
        }
        events == self.events_max && bytes < PAGE_BYTES && self.examined + stored < PAGE_EXAMINED_BYTES
    }

    pub(crate) fn is_full(&self) -> bool {
        self.page.events.len() >= self.events_max
            || self.page.damaged.len() >= PAGE_EVENTS
            || self.bytes >= PAGE_BYTES
            || self.examined >= PAGE_EXAMINED_BYTES
    }
}

/// What was found at positions, one after the other.
#[derive(Default)]
pub(crate) struct Examined {
    rows: Vec<Row>,
    /// Those that are wanted.
    pub(crate) events: Vec<RecordedEvent>,
    damaged: Vec<Damage>,
}

/// What was found at one position.
struct Row {
    found: Found,
    /// Bytes of it in the file.
    stored: usize,
    /// Bytes of it in memory, if that is more: content can be more than what is stored of it.
    bytes: usize,
}

#[derive(PartialEq)]
enum Found {
    /// An event that is wanted.
    Event,
    /// Another event.
    Other,
    Damage,
}

impl Examined {
    /// Bytes in files of all, and in memory of those that are wanted.
    fn totals(&self) -> (usize, usize) {
        self.rows.iter().fold((0, 0), |(stored, bytes), row| {
            (stored + row.stored, bytes + if row.found == Found::Event { row.bytes } else { 0 })
        })
    }

    /// Reads what is at the next position. Answers how many bytes that were.
    fn examine(&mut self, events: &mut FrameReader<'_>, position: Position, read: &Read) -> usize {
        let (mut stored, mut bytes) = (0, 0);
        // Of events among which only some are wanted, those would hold what was read around them.
        let some = read.by == TimeField::Produced && (read.since.is_some() || read.until.is_some());
        let recorded = events.event(position).and_then(|mut event| {
            stored = event.entry.len() + event.parts.len();
            bytes = stored;
            if some {
                event.entry = Bytes::copy_from_slice(&event.entry);
                event.parts = Bytes::copy_from_slice(&event.parts);
            }
            events.decode(event).map_err(|error| Error::damaged(format!("position {position}: {error}")))
        });
        let found = match recorded {
            Ok(recorded) if recorded.position != position => {
                let there = recorded.position;
                let error = Error::damaged(format!("position {position}: the entry there says {there}"));
                self.damaged.push(Damage { position, error });
                Found::Damage
            }
            Ok(recorded) => {
                let data = recorded.event.data().map_or(0, |data| data.len());
                bytes = bytes.max(recorded.entry.len() + data);
                match read.wants(&recorded) {
                    true => {
                        self.events.push(recorded);
                        Found::Event
                    }
                    false => Found::Other,
                }
            }
            Err(error) => {
                self.damaged.push(Damage { position, error });
                Found::Damage
            }
        };
        self.rows.push(Row { found, stored, bytes });
        bytes
    }
}

/// Reads what is at these positions, the next of a read, with help if they are many: of the first of them, at least
/// one, until `bytes_max` are reached.
pub(crate) fn examine_all(
    segments: &Arc<Segments>,
    events: &mut FrameReader<'_>,
    positions: &[u64],
    read: &Read,
    bytes_max: usize,
) -> Vec<Examined> {
    if !helpers::can_be() || positions.len() < HELPED_EVENTS_MIN {
        let bytes = AtomicUsize::new(0);
        return vec![examine_some(events, positions, read, &bytes, bytes_max)];
    }
    Shares::begin(segments, events.is_sequential(), positions.to_vec(), read, bytes_max).finish(events)
}

/// Reads what is at the first of these positions, at least one, until `bytes`, which others may count too, are enough.
fn examine_some(
    events: &mut FrameReader<'_>,
    positions: &[u64],
    read: &Read,
    bytes: &AtomicUsize,
    bytes_max: usize,
) -> Examined {
    events.plan(positions);
    let mut all = Examined::default();
    all.rows.reserve_exact(positions.len());
    all.events.reserve_exact(positions.len());
    let mut uncounted = 0;
    for position in positions {
        uncounted += all.examine(events, Position(*position), read);
        if uncounted >= COUNTED_BYTES {
            let more = std::mem::take(&mut uncounted);
            if bytes.fetch_add(more, Ordering::Relaxed).saturating_add(more) >= bytes_max {
                break;
            }
        }
    }
    bytes.fetch_add(uncounted, Ordering::Relaxed);
    all
}

/// So many bytes are counted together: of a number that several threads change for every event, each waits for the others.
const COUNTED_BYTES: usize = 16 << 10;

/// Where positions are cut into shares: if they lie one behind the other, where a small frame or a block begins, so that
/// none is read twice.
fn cut(segments: &Segments, positions: &[u64], sequential: bool) -> Vec<Range<usize>> {
    let share = if sequential { SEQUENTIAL_EVENTS } else { SCATTERED_EVENTS };
    let (mut shares, mut start) = (Vec::with_capacity(positions.len() / share + 1), 0);
    while start < positions.len() {
        let mut end = (start + share).min(positions.len());
        if sequential && end < positions.len() {
            let begins = segments.piece_start(positions[end]).unwrap_or(positions[end]);
            let back = usize::try_from(positions[end] - begins).unwrap_or(usize::MAX);
            end = end.checked_sub(back).filter(|end| *end > start).unwrap_or(end);
        }
        shares.push(start..end);
        start = end;
    }
    shares
}

/// Positions that several threads examine.
pub(crate) struct Shares {
    segments: Arc<Segments>,
    sequential: bool,
    read: Read,
    positions: Vec<u64>,
    shares: Vec<Share>,
    /// The first share that nobody has taken.
    next: AtomicUsize,
    /// Bytes of what was examined, and how many are enough.
    bytes: AtomicUsize,
    bytes_max: usize,
}

struct Share {
    /// Of the positions.
    range: Range<usize>,
    /// What is there, once it is known: of all of them, or of the first until there were bytes enough.
    examined: Mutex<Option<Examined>>,
}

impl Share {
    fn take(&self) -> Option<Examined> {
        self.examined.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, examined: Examined) {
        *self.examined.lock().unwrap_or_else(PoisonError::into_inner) = Some(examined);
    }
}

impl Shares {
    /// Asks helpers to begin with these positions.
    pub(crate) fn begin(
        segments: &Arc<Segments>,
        sequential: bool,
        positions: Vec<u64>,
        read: &Read,
        bytes_max: usize,
    ) -> Arc<Self> {
        let shares = cut(segments, &positions, sequential).into_iter();
        let shares = shares.map(|range| Share { range, examined: Mutex::default() }).collect();
        let helpers = positions.len() / HELPED_EVENTS_MIN;
        let shares = Arc::new(Self {
            segments: segments.clone(),
            sequential,
            read: read.clone(),
            positions,
            shares,
            next: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bytes_max,
        });
        helpers::ask(&shares, helpers);
        shares
    }

    /// The positions.
    pub(crate) fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// Examines what nobody has begun, and answers what is there: of the first positions, at least one, until there are bytes
    /// enough.
    pub(crate) fn finish(&self, events: &mut FrameReader<'_>) -> Vec<Examined> {
        self.examine(events);
        // All have been taken, and some of those that a helper took are not done. What could not be read a moment ago may be read
        // now.
        let (mut all, mut bytes) = (Vec::with_capacity(self.shares.len()), 0);
        for share in &self.shares {
            let examined = share.take().filter(|examined| examined.damaged.is_empty());
            let examined = examined.unwrap_or_else(|| self.examine_share(share, events));
            let whole = examined.rows.len() == share.range.len();
            bytes += examined.rows.iter().map(|row| row.bytes).sum::<usize>();
            all.push(examined);
            if !whole || bytes >= self.bytes_max {
                break;
            }
        }
        self.give_up();
        all
    }

    /// Nobody wants what helpers still read.
    pub(crate) fn give_up(&self) {
        self.bytes.store(self.bytes_max, Ordering::Relaxed);
    }

    /// Examines shares until all are taken.
    fn examine(&self, events: &mut FrameReader<'_>) {
        while self.bytes.load(Ordering::Relaxed) < self.bytes_max
            && let Some(share) = self.shares.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            share.put(self.examine_share(share, events));
        }
    }

    fn examine_share(&self, share: &Share, events: &mut FrameReader<'_>) -> Examined {
        let positions = &self.positions[share.range.clone()];
        examine_some(events, positions, &self.read, &self.bytes, self.bytes_max)
    }
}

impl Work for Shares {
    fn help(&self, unpacker: &mut Option<Unpacker>) {
        let mut events = FrameReader::new(&self.segments, self.sequential).with_unpacker(unpacker.take());
        self.examine(&mut events);
        *unpacker = events.into_unpacker();
    }

    fn goes_on(&self) -> bool {
        self.sequential
    }
}

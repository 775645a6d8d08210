//! The index: which positions have a term. Derived, written without a sync, made again when it is missing.
//!
//! It is a list of parts over adjacent ranges of frames: immutable [`Run`]s on disk, tables that wait to
//! become runs, and the active table. Where a part is missing, every position is a candidate: queries stay
//! right and become slow, until the writer has made the part again.
//!
//! Names positions, never offsets, so it does not care where events are stored.
//!
//! Memory: the active table and those that wait, 16 MiB of log each; the lists of groups of all runs, a byte for every
//! 1,300 terms; and filters, at most [`FILTER_BYTES_MAX`]. Of filters the smaller ones are held: every append of a new
//! key asks each run once, so a byte is worth most there. A run whose filter is not held answers with one page read.

pub(crate) mod cursor;
pub(crate) mod run;
pub(crate) mod table;
pub(crate) mod term;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use precedent_core::{Event, Hash, LogId, Position, Query, Result};

use self::cursor::Cursor;
use self::run::{BadRun, Coverage, MergeError, Run};
use self::table::Table;
use self::term::{Term, Terms};
use crate::io::Io;

/// Adjacent runs of one level that are merged into one of the next.
const FANOUT: usize = 8;

/// Terms that are looked up or inserted together: as many places as a processor fetches from memory at once, and some more.
const TERMS_AT_ONCE: usize = 32;

/// Bytes of filters that are held in memory, of one log: those of about fifty million terms.
const FILTER_BYTES_MAX: u64 = 64 << 20;

/// The term of positions that could not be read when they were to be indexed. Every query includes them, so
/// that damage is named and never hidden.
const UNREADABLE: Term = 0;

/// A range of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameRange {
    pub(crate) first_sequence: u64,
    pub(crate) end_sequence: u64,
    pub(crate) first_position: u64,
    pub(crate) end_position: u64,
}

/// The index of one log.
pub(crate) struct Index {
    io: Arc<dyn Io>,
    dir: PathBuf,
    log: LogId,
    terms: Terms,
    writable: bool,
    state: RwLock<State>,
    filling: Mutex<()>,
    flushing: Mutex<()>,
    merging: Mutex<()>,
    filter_bytes_max: u64,
    /// Whether some position is, or was, indexed as unreadable: nearly always not, and then nobody looks.
    unreadable: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Ascending, without overlaps; there may be gaps.
    runs: Vec<Arc<Run>>,
    frozen: Vec<(Arc<Table>, Hash)>,
    active: Table,
}

impl Index {
    /// Opens what is there. `belongs` tells whether a run ends with a frame that the log has.
    pub(crate) fn open(
        io: Arc<dyn Io>,
        dir: PathBuf,
        log: LogId,
        writable: bool,
        belongs: impl Fn(&Coverage) -> bool,
    ) -> Result<Self> {
        let mut names: Vec<(u64, u64, String)> = io
            .list(&dir)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| run::range_of(&name).map(|(first, end)| (first, end, name)))
            .collect();
        // Of two that begin with the same frame the longer one comes first: it is the merged one.
        names.sort_by_key(|(first, end, _)| (*first, std::cmp::Reverse(*end)));
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for (first, _, name) in names {
            let path = dir.join(&name);
            let follows = runs.last().is_none_or(|r| r.coverage.end_sequence <= first);
            match Run::open(&*io, &path, log).filter(|run| follows && belongs(&run.coverage)) {
                Some(run) => runs.push(Arc::new(run)),
                None if writable => {
                    let _ = io.remove(&path);
                }
                None => {}
            }
        }
        let unreadable = runs.iter().any(|run| run.has_unreadable());
        share_filters(&mut runs, FILTER_BYTES_MAX);
        let (position, sequence) =
            runs.last().map_or((0, 0), |r| (r.coverage.end_position, r.coverage.end_sequence));
        let state = State { runs, frozen: Vec::new(), active: Table::new(position, sequence) };
        Ok(Self {
            io,
            dir,
            log,
            terms: Terms::new(log),
            writable,
            state: RwLock::new(state),
            filling: Mutex::new(()),
            flushing: Mutex::new(()),
            merging: Mutex::new(()),
            filter_bytes_max: FILTER_BYTES_MAX,
            unreadable: unreadable.into(),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|p| p.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|p| p.into_inner())
    }

    /// Behind everything that is indexed: sequence number and position.
    pub(crate) fn end(&self) -> (u64, u64) {
        let state = self.read();
        (state.active.end_sequence, state.active.end_position)
    }

    /// Bytes of log that are indexed in memory only.
    pub(crate) fn active_log_bytes(&self) -> u64 {
        self.read().active.log_bytes
    }

    /// Bytes of the runs on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.read().runs.iter().map(|run| run.bytes).sum()
    }

    /// Held by whoever makes missing runs again, so that no two make the same one.
    pub(crate) fn filling(&self) -> MutexGuard<'_, ()> {
        self.filling.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Ranges that no run covers, before the last run.
    pub(crate) fn gaps(&self) -> Vec<FrameRange> {
        let state = self.read();
        let (mut sequence, mut position) = (0, 0);
        let mut gaps = Vec::new();
        let mut part = |first_sequence, first_position, end_sequence, end_position| {
            if first_sequence > sequence {
                gaps.push(FrameRange {
                    first_sequence: sequence,
                    end_sequence: first_sequence,
                    first_position: position,
                    end_position: first_position,
                });
            }
            (sequence, position) = (end_sequence, end_position);
        };
        for run in &state.runs {
            let c = &run.coverage;
            part(c.first_sequence, c.first_position, c.end_sequence, c.end_position);
        }
        for table in state.frozen.iter().map(|(t, _)| &**t).chain([&state.active]) {
            part(table.first_sequence, table.first_position, table.end_sequence, table.end_position);
        }
        gaps
    }

    /// Adds a frame's events to the active table. `end_position` can lie behind the last of them.
    pub(crate) fn add_frame<'e>(
        &self,
        sequence: u64,
        log_bytes: u64,
        end_position: u64,
        events: impl Iterator<Item = (Position, &'e Event)>,
    ) {
        // Hashed before the lock is taken: whoever drafts the next frame asks the index meanwhile.
        let mut terms = Vec::new();
        for (position, event) in events {
            self.terms.of(event, |term| terms.push((term, position)));
        }
        let mut state = self.write();
        for terms in terms.chunks(TERMS_AT_ONCE) {
            state.active.fetch(terms.iter().map(|(term, _)| *term));
            terms.iter().for_each(|(term, position)| state.active.insert(*term, *position));
        }
        state.active.end_sequence = sequence + 1;
        state.active.end_position = end_position;
        state.active.log_bytes += log_bytes;
    }

    /// Adds positions that cannot be read to the active table.
    pub(crate) fn add_unreadable(&self, positions: std::ops::Range<u64>) {
        self.unreadable.fetch_or(!positions.is_empty(), Ordering::AcqRel);
        let mut state = self.write();
        for position in positions {
            state.active.insert(UNREADABLE, Position(position));
        }
    }

    /// Sets the active table aside, to become a run, if it covers at least `log_bytes`. `last_frame` is the
    /// hash of the last frame in it.
    pub(crate) fn freeze(&self, log_bytes: u64, last_frame: Hash) -> bool {
        let mut state = self.write();
        if state.active.is_empty() || state.active.log_bytes < log_bytes {
            return false;
        }
        let next = state.active.next();
        let table = std::mem::replace(&mut state.active, next);
        state.frozen.push((Arc::new(table), last_frame));
        true
    }

    /// Tables that wait to become runs.
    pub(crate) fn frozen_count(&self) -> usize {
        self.read().frozen.len()
    }

    /// Writes the oldest frozen table as a run. If that fails the table stays in memory, and is written later.
    pub(crate) fn flush_one(&self) -> bool {
        // Two threads may come here; each table is written once.
        let _flushing = self.flushing.lock().unwrap_or_else(|p| p.into_inner());
        let Some((table, last_frame)) = self.read().frozen.first().cloned() else { return false };
        let Some(run) = self.write_run(&table, last_frame) else { return false };
        let mut state = self.write();
        state.frozen.remove(0);
        self.insert_run(&mut state.runs, run);
        true
    }

    /// Writes a table that was made again from the log as a run.
    pub(crate) fn fill_gap(&self, table: &Table, last_frame: Hash) -> bool {
        let Some(run) = self.write_run(table, last_frame) else { return false };
        self.insert_run(&mut self.write().runs, run);
        true
    }

    /// A table for a gap, to be filled by [`Self::table_add`].
    pub(crate) fn table_add<'e>(
        &self,
        table: &mut Table,
        events: impl Iterator<Item = (Position, &'e Event)>,
    ) {
        add_events(table, &self.terms, events);
    }

    pub(crate) fn table_add_unreadable(&self, table: &mut Table, positions: std::ops::Range<u64>) {
        self.unreadable.fetch_or(!positions.is_empty(), Ordering::AcqRel);
        for position in positions {
            table.insert(UNREADABLE, Position(position));
        }
    }

    fn write_run(&self, table: &Table, last_frame: Hash) -> Option<Arc<Run>> {
        if !self.writable {
            return None;
        }
        let coverage = Coverage {
            log: self.log,
            level: 0,
            first_sequence: table.first_sequence,
            end_sequence: table.end_sequence,
            first_position: table.first_position,
            end_position: table.end_position,
            last_frame,
        };
        self.io.create_dir_all(&self.dir).ok()?;
        let path = run::write_table(&*self.io, &self.dir, table, &coverage).ok()?;
        Run::open(&*self.io, &path, self.log).map(Arc::new)
    }

    fn insert_run(&self, runs: &mut Vec<Arc<Run>>, run: Arc<Run>) {
        let at = runs.partition_point(|r| r.coverage.first_sequence < run.coverage.first_sequence);
        runs.insert(at, run);
        share_filters(runs, self.filter_bytes_max);
    }

    /// Merges the oldest runs that are due; answers whether there were any. While another thread merges, it has
    /// whatever is due.
    pub(crate) fn merge_once(&self) -> bool {
        let _merging = match self.merging.try_lock() {
            Ok(merging) => merging,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return false,
        };
        let due = {
            let state = self.read();
            let adjacent = |runs: &[Arc<Run>]| {
                runs.windows(2).all(|w| {
                    w[0].coverage.level == w[1].coverage.level
                        && w[0].coverage.end_sequence == w[1].coverage.first_sequence
                }) && runs[FANOUT - 1].coverage.end_position - runs[0].coverage.first_position
                    < u64::from(u32::MAX)
            };
            state.runs.windows(FANOUT).find(|runs| adjacent(runs)).map(<[_]>::to_vec)
        };
        let Some(due) = due.filter(|_| self.writable) else { return false };
        match run::merge(&*self.io, &self.dir, &due) {
            Ok(path) => {
                let Some(merged) = Run::open(&*self.io, &path, self.log) else { return false };
                let mut state = self.write();
                let (first, end) = (merged.coverage.first_sequence, merged.coverage.end_sequence);
                state.runs.retain(|r| r.coverage.first_sequence < first || r.coverage.first_sequence >= end);
                self.insert_run(&mut state.runs, Arc::new(merged));
                drop(state);
                for run in due {
                    let _ = self.io.remove(&run.path);
                }
                true
            }
            Err(MergeError::Bad(bad)) => {
                self.drop_run(&bad);
                false
            }
            Err(MergeError::Io) => false,
        }
    }

    /// Lets go of a run that failed its check: what it covered has no index until it is made again.
    pub(crate) fn drop_run(&self, bad: &BadRun) {
        let mut state = self.write();
        let is_it =
            |c: &Coverage| (c.first_sequence, c.end_sequence) == (bad.first_sequence, bad.end_sequence);
        let position = state.runs.iter().position(|r| is_it(&r.coverage));
        if let Some(position) = position {
            let run = state.runs.remove(position);
            if self.writable {
                let _ = self.io.remove(&run.path);
            }
        }
    }

    /// The set of positions with a term.
    fn of_term(&self, state: &State, term: Term, lists: &mut Lists) -> Result<Cursor, BadRun> {
        let mut ranges = Vec::new();
        let mut position = 0;
        let mut gap = |ranges: &mut Vec<(u64, Cursor)>, first: u64, end: u64| {
            if first > position {
                ranges.push((first, Cursor::All { first: position, end: first }));
            }
            position = end;
        };
        for run in &state.runs {
            gap(&mut ranges, run.coverage.first_position, run.coverage.end_position);
            match run.find(term)? {
                run::Found::None => {}
                found => ranges.push((run.coverage.end_position, Cursor::of_run(run, found))),
            }
        }
        for table in state.frozen.iter().map(|(t, _)| &**t).chain([&state.active]) {
            gap(&mut ranges, table.first_position, table.end_position);
            let positions = table.get(term);
            if !positions.is_empty() {
                let base = table.first_position;
                let positions = lists.entry((term, base)).or_insert_with(|| Arc::from(positions)).clone();
                ranges.push((table.end_position, Cursor::Listed { base, positions }));
            }
        }
        Ok(Cursor::Ranges(ranges))
    }

    /// Candidates for a query; `None` if every event is one.
    pub(crate) fn query(&self, query: &Query) -> Result<Option<Cursor>, BadRun> {
        if query.items.is_empty() {
            return Ok(None);
        }
        let state = self.read();
        let lists = &mut Lists::new();
        let mut items = Vec::with_capacity(query.items.len() + 1);
        for item in &query.items {
            let mut all = Vec::new();
            if let Some(stream) = &item.stream {
                all.push(self.of_term(&state, self.terms.stream(stream), lists)?);
            }
            for (name, value) in &item.attributes {
                all.push(self.of_term(&state, self.terms.attribute(*name, value), lists)?);
            }
            for tag in &item.tags {
                all.push(self.of_term(&state, self.terms.tag(tag), lists)?);
            }
            if !item.types.is_empty() {
                let types = item.types.iter().map(|t| self.of_term(&state, self.terms.event_type(t), lists));
                all.push(Cursor::union(types.collect::<Result<_, _>>()?));
            }
            items.push(Cursor::intersection(all));
        }
        if self.may_have_unreadable() {
            items.push(self.of_term(&state, UNREADABLE, lists)?);
        }
        Ok(Some(Cursor::union(items)))
    }

    /// Whether an event with this key can be there: nearly never if it is not. Allocates nothing, and reads nothing
    /// but filters.
    pub(crate) fn may_have_key(&self, source: &str, id: &str) -> bool {
        self.may_have(self.terms.key(source, id))
    }

    /// Whether an event of this stream can be there, as [`Self::may_have_key`].
    pub(crate) fn may_have_stream(&self, stream: &str) -> bool {
        self.may_have(self.terms.stream(stream))
    }

    /// The same of the keys of many events, in their order. Some are asked for together, so that what is in no cache is fetched for all
    /// of them at once; whoever adds to the index meanwhile waits for no more than these.
    pub(crate) fn may_have_keys<'e>(&self, events: impl Iterator<Item = &'e Event>) -> Vec<bool> {
        let terms: Vec<Term> = events.map(|event| self.terms.key(event.source(), event.id())).collect();
        let mut may = vec![false; terms.len()];
        for (terms, may) in terms.chunks(TERMS_AT_ONCE).zip(may.chunks_mut(TERMS_AT_ONCE)) {
            self.may_have_each(terms, may);
        }
        may
    }

    fn may_have(&self, term: Term) -> bool {
        let mut may = [false];
        self.may_have_each(&[term], &mut may);
        may[0]
    }

    /// Of at most [`TERMS_AT_ONCE`].
    fn may_have_each(&self, terms: &[Term], may: &mut [bool]) {
        assert!(terms.len() <= TERMS_AT_ONCE, "of what is left over, nothing would be found");
        let state = self.read();
        let mut position = 0;
        for run in &state.runs {
            // What has no index may have everything.
            if run.coverage.first_position > position {
                return may.fill(true);
            }
            run.may_have_each(terms, may);
            position = run.coverage.end_position;
        }
        for table in state.frozen.iter().map(|(t, _)| &**t).chain([&state.active]) {
            if table.first_position > position {
                return may.fill(true);
            }
            table.has_each(terms, may);
            position = table.end_position;
        }
    }

    /// Candidates for a key, as far as events could be read.
    pub(crate) fn key(&self, source: &str, id: &str) -> Result<Cursor, BadRun> {
        self.of_term(&self.read(), self.terms.key(source, id), &mut Lists::new())
    }

    /// Candidates for a stream, as far as events could be read.
    pub(crate) fn stream(&self, stream: &str) -> Result<Cursor, BadRun> {
        self.of_term(&self.read(), self.terms.stream(stream), &mut Lists::new())
    }

    /// Whether there can be any in [`Self::unreadable`].
    pub(crate) fn may_have_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Acquire)
    }

    /// Positions that could not be read when they were indexed.
    pub(crate) fn unreadable(&self) -> Result<Cursor, BadRun> {
        let state = self.read();
        let mut cursor = self.of_term(&state, UNREADABLE, &mut Lists::new())?;
        // What has no index is not unreadable for that.
        if let Cursor::Ranges(ranges) = &mut cursor {
            ranges.retain(|(_, cursor)| !matches!(cursor, Cursor::All { .. }));
        }
        Ok(cursor)
    }
}

/// Lists of positions that one question has copied out of tables: each once, however often it is asked for.
type Lists = HashMap<(Term, u64), Arc<[u32]>>;

/// Lets the runs with the smallest filters hold them, as many as there is room for.
fn share_filters(runs: &mut [Arc<Run>], bytes_max: u64) {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|index| runs[*index].filter_pages());
    let mut bytes = 0;
    for index in order {
        bytes += runs[index].filter_pages() * run::PAGE as u64;
        let holds = bytes <= bytes_max;
        if runs[index].holds_filter() != holds {
            runs[index] = Arc::new(runs[index].holding_filter(holds));
        }
    }
}

fn add_events<'e>(table: &mut Table, terms: &Terms, events: impl Iterator<Item = (Position, &'e Event)>) {
    for (position, event) in events {
        terms.of(event, |term| table.insert(term, position));
    }
}

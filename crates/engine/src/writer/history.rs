//! What the sequencer asks about everything recorded so far: answered from the index and the segments.

use std::sync::Arc;

use precedent_core::drafts::Drafts;
use precedent_core::sequencer::{History, StreamTip};
use precedent_core::{Direction, Error, Event, Position, Query, RecordedEvent, Result, Version};

use crate::index::Index;
use crate::index::cursor::Cursor;
use crate::index::run::BadRun;
use crate::log::Log;
use crate::reader::FrameReader;
use crate::recovery;

/// The log up to `size` events. What has been drafted behind them, [`Drafts`] knows.
pub(crate) struct Recorded<'a> {
    log: &'a Log,
    size: u64,
    index: Arc<Index>,
}

impl<'a> Recorded<'a> {
    pub(crate) fn new(log: &'a Log, size: u64) -> Self {
        Self { log, size, index: log.index() }
    }

    /// Makes runs again that were found damaged: the writer cannot read the whole log for every key.
    fn repair(&self) -> Result<()> {
        recovery::fill_gaps(&self.index, &self.log.segments, self.log.settings.index_flush_bytes)
    }

    /// The first candidate from `from` on in this direction for which `found` answers something.
    fn search<T>(
        &self,
        from: u64,
        direction: Direction,
        cursor: impl Fn(&Index) -> Result<Cursor, BadRun>,
        mut found: impl FnMut(RecordedEvent) -> Option<T>,
    ) -> Result<Option<T>> {
        let log = self.log;
        let mut at = Some(from);
        'again: loop {
            let mut set = match cursor(&self.index) {
                Ok(set) => set,
                Err(bad) => {
                    self.index.drop_run(&bad);
                    self.repair()?;
                    continue 'again;
                }
            };
            let mut events = FrameReader::new(&log.segments, false);
            while let Some(from) = at.filter(|at| *at < self.size) {
                let position = match set.seek(from, direction) {
                    Ok(Some(position)) if position < self.size => position,
                    Ok(_) => return Ok(None),
                    Err(bad) => {
                        self.index.drop_run(&bad);
                        self.repair()?;
                        continue 'again;
                    }
                };
                if let Some(answer) = found(events.recorded(Position(position))?) {
                    return Ok(Some(answer));
                }
                at = match direction {
                    Direction::Forward => Some(position + 1),
                    Direction::Backward => position.checked_sub(1),
                };
            }
            return Ok(None);
        }
    }

    /// Refuses to answer a question about events of which some, from `from` on, cannot be read.
    fn check_readable(&self, from: u64, question: &str) -> Result<()> {
        if !self.index.may_have_unreadable() {
            return Ok(());
        }
        match self.candidate(from, Index::unreadable)? {
            None => Ok(()),
            Some(position) => Err(Error::damaged(format!(
                "the event at position {position} cannot be read, so it cannot be told {question}"
            ))),
        }
    }

    /// The first position of a set at or behind `from`.
    fn candidate(&self, from: u64, cursor: impl Fn(&Index) -> Result<Cursor, BadRun>) -> Result<Option<u64>> {
        loop {
            match cursor(&self.index).and_then(|mut set| set.seek(from, Direction::Forward)) {
                Ok(found) => return Ok(found.filter(|position| *position < self.size)),
                Err(bad) => {
                    self.index.drop_run(&bad);
                    self.repair()?;
                }
            }
        }
    }
}

impl History for Recorded<'_> {
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>> {
        let matches = |e: RecordedEvent| (e.event.source() == source && e.event.id() == id).then_some(e);
        // The common case, a new key, costs the filters and nothing else.
        let index = &self.index;
        let found = match index.may_have_key(source, id) {
            true => self.search(0, Direction::Forward, |index| index.key(source, id), matches)?,
            false if !index.may_have_unreadable() => return Ok(None),
            false => None,
        };
        if found.is_none() {
            self.check_readable(0, "whether an event with this source and id is there")?;
        }
        Ok(found)
    }

    fn may_have_keys(&self, events: &mut dyn ExactSizeIterator<Item = &Event>) -> Vec<bool> {
        let may = self.index.may_have_keys(events);
        // Asked afterwards: what had no index a moment ago may have been made unreadable meanwhile.
        match self.index.may_have_unreadable() {
            true => vec![true; may.len()],
            false => may,
        }
    }

    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>> {
        let Some(last) = self.size.checked_sub(1) else { return Ok(None) };
        let tip = |e: RecordedEvent| {
            let version: Version = (e.event.stream() == Some(stream)).then_some(e.version)??;
            Some(StreamTip { position: e.position, version, leaf: e.leaf() })
        };
        let tip = match self.index.may_have_stream(stream) {
            true => self.search(last, Direction::Backward, |index| index.stream(stream), tip)?,
            false => None,
        };
        self.check_readable(
            tip.map_or(0, |tip| tip.position.0 + 1),
            "which event of the stream is the last",
        )?;
        Ok(tip)
    }

    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>> {
        let from = after.map_or(0, |after| after.0 + 1);
        let end = self.size;
        let cursor = |index: &Index| Ok(index.query(query)?.unwrap_or(Cursor::All { first: 0, end }));
        self.search(from, Direction::Forward, cursor, |e| query.matches(&e.event).then_some(e.position))
    }
}

/// The same, with the ends of streams that are remembered. For frames of a copy, which are not drafted.
pub(super) struct Remembered<'a> {
    pub(super) recorded: Recorded<'a>,
    pub(super) drafts: &'a Drafts,
}

impl History for Remembered<'_> {
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>> {
        self.recorded.by_key(source, id)
    }

    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>> {
        match self.drafts.tip(stream) {
            Some(tip) => Ok(Some(tip)),
            None => self.recorded.stream_tip(stream),
        }
    }

    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>> {
        self.recorded.any_match(query, after)
    }
}

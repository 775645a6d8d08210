//! The one writer of a log: group commit without a timer.
//!
//! It takes whatever waits in the queue, makes one frame of it, writes it, syncs once, publishes, and answers.
//! While a frame syncs the queue fills, so the size of a frame tunes itself.
//!
//! A frame is written only after the sync of the frame before it has returned: so a crash leaves at most one
//! frame unfinished.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use precedent_core::frame::{Chained, FRAME_BYTES_MAX, Frame, FrameBuilder, SECTOR_BYTES, padded};
use precedent_core::memory::{forked, is_copy, no_log};
use precedent_core::sequencer::{
    Draft, DraftedFrame, History, LogState, Prepared, StreamTip, check_clock, check_copied,
};
use precedent_core::{
    Appended, Direction, Error, ErrorKind, Event, FrameId, Hash, Limits, Position, Query, Receipt,
    RecordedEvent, Result, Time, Version,
};

use crate::index::Index;
use crate::index::cursor::Cursor;
use crate::index::run::BadRun;
use crate::io::{IoFile, Mode, replace_file};
use crate::log::{Job, Log, mark_of, writer_id};
use crate::meta::{CLEAN_FILE, LogMeta, Mark, PUBLISHED_FILE};
use crate::recovery;
use crate::segment::{FrameReader, SegmentMap};

/// A frame is closed at about this many bytes, unless one batch is larger.
const FRAME_BYTES: usize = 4 << 20;
/// The tree's right edge is in at least one frame in this many …
const EDGE_FRAMES: u64 = 256;
/// … and at least once in about this many bytes, so that a new writer never reads more than that.
const EDGE_BYTES: u64 = 1 << 20;
/// How far zeros are written ahead: as much as the segment already holds, within these bounds.
const ZERO_AHEAD_MIN: u64 = 64 << 10;
const ZERO_AHEAD_MAX: u64 = 2 << 20;
/// A frame of this size is written into the growing file: zeroing ahead would write every byte twice.
const GROWING_FRAME_BYTES: u64 = 256 << 10;
/// Streams whose last event is remembered.
const TIPS_MAX: usize = 100_000;
/// Tables that may wait to be written as runs before the writer does it itself.
const FROZEN_MAX: usize = 4;

/// See the [module documentation](self).
pub(crate) struct Writer {
    log: Arc<Log>,
    id: FrameId,
    state: LogState,
    segment: u32,
    offset: u64,
    /// Behind the zeros that were written ahead.
    zeroed_end: u64,
    file: Option<Arc<dyn IoFile>>,
    published: Option<Arc<dyn IoFile>>,
    frames_since_edge: u64,
    bytes_since_edge: u64,
    tips: HashMap<String, StreamTip>,
    /// Whether this handle has recorded that it goes on with a clock that is behind the log.
    clock_accepted: bool,
    /// Whether the mark `clean` is gone.
    clean_forgotten: bool,
    /// The memory of the last frame.
    builder: FrameBuilder,
    zeros: Vec<u8>,
    background: Option<Background>,
}

/// The thread that writes and merges index runs.
struct Background {
    wake: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Writer {
    pub(crate) fn new(log: Arc<Log>, state: LogState, segment: u32, offset: u64) -> Result<Self> {
        let exists = log.exists.load(Ordering::Acquire);
        let (mut file, mut zeroed_end) = (None, offset);
        if exists && crate::segment::Segments::list(&*log.io, &log.dir)?.0.contains(&segment) {
            let open = log.io.open(&log.segments.path(segment), Mode::Write)?;
            zeroed_end = open.len()?.max(offset);
            file = Some(open);
        }
        let background = match log.settings.background {
            true => Some(Background::start(&log)?),
            false => None,
        };
        let writer = Self {
            log,
            id: writer_id(),
            state,
            segment,
            offset,
            zeroed_end,
            file,
            published: None,
            frames_since_edge: EDGE_FRAMES,
            bytes_since_edge: 0,
            tips: HashMap::new(),
            clock_accepted: false,
            clean_forgotten: false,
            builder: FrameBuilder::default(),
            zeros: Vec::new(),
            background,
        };
        Ok(writer)
    }

    /// Works until the log is closed.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.log.take_jobs() {
            let mut appends = Vec::new();
            for job in jobs {
                match job {
                    Job::Append(prepared, answer) => appends.push((prepared, answer)),
                    Job::PutFrames(frames, answer) => {
                        self.append_all(std::mem::take(&mut appends));
                        let result = self.put_frames(frames);
                        let _ = answer.send(result);
                    }
                    Job::Promote(answer) => {
                        self.append_all(std::mem::take(&mut appends));
                        let result = self.promote();
                        let _ = answer.send(result);
                    }
                }
            }
            self.append_all(appends);
        }
        self.finish();
    }

    fn append_all(&mut self, appends: Vec<(Prepared, Answer)>) {
        let mut appends = appends.into_iter().peekable();
        while appends.peek().is_some() {
            if let Err(error) = self.can_append() {
                for (_, answer) in appends {
                    let _ = answer.send(Err(error.clone()));
                }
                return;
            }
            self.append_frame(&mut appends);
        }
    }

    fn can_append(&self) -> Result<()> {
        if self.log.copy.load(Ordering::Acquire) {
            return Err(is_copy(&self.log.name));
        }
        self.log.settings.check_stopped()
    }

    /// Makes one frame of as many appends as fit, and answers them all once it is durable.
    fn append_frame(&mut self, appends: &mut std::iter::Peekable<std::vec::IntoIter<(Prepared, Answer)>>) {
        let now = (self.log.settings.clock)();
        let clock = check_clock(now, self.state.last_time);
        let base = self.state.clone();
        let mut draft = Draft::with_builder(&base, now, std::mem::take(&mut self.builder));
        let mut answers = Vec::new();
        while let Some((prepared, answer)) =
            appends.next_if(|(prepared, _)| draft.fits(prepared, FRAME_BYTES))
        {
            let receipts = match &clock {
                Err(error) if !self.log.settings.accept_clock => Err(error.clone()),
                _ => draft.add(prepared, &Recorded { writer: self }),
            };
            answers.push((answer, receipts));
        }
        // Recorded once, behind the events it was accepted for: what was there already records nothing.
        let accepts = clock.is_err() && !self.clock_accepted && !draft.is_empty();
        if accepts
            && let Ok(event) = accepted_clock(now, self.state.last_time, &self.log.settings.limits)
            && draft.fits(&event, FRAME_BYTES_MAX)
            && draft.add(event, &Recorded { writer: self }).is_ok()
        {
            self.clock_accepted = true;
        }
        let size = draft.size();
        let with_edge = self.wants_edge(draft.len_max());
        let written = match draft.finish(self.id, with_edge) {
            Some(frame) => self.write_drafted(frame),
            None => Ok(()),
        };
        if written.is_err() {
            self.clock_accepted &= !accepts;
        }
        self.answer(answers, &written, base.size(), size);
    }

    /// Answers everybody whose append was drafted on a log of `base` events.
    fn answer(
        &self,
        answers: Vec<(Answer, Result<Vec<Receipt>>)>,
        written: &Result<()>,
        base: u64,
        size: u64,
    ) {
        for (answer, receipts) in answers {
            let result = match (written, receipts) {
                (Ok(()), Ok(receipts)) => Ok(Appended { events: receipts, size }),
                (Err(error), Ok(_)) => Err(error.clone()),
                // What was refused for the sake of an event that then was not written fails as that did.
                (Err(error), Err(refused)) if names_one_of(&refused, base) => Err(error.clone()),
                (_, Err(refused)) => Err(refused),
            };
            let _ = answer.send(result);
        }
    }

    /// Whether a frame of at most this many bytes is to carry the tree's right edge. The first of a segment does.
    fn wants_edge(&self, len_max: usize) -> bool {
        let fills_up = self.offset + padded(len_max as u64) > self.log.settings.segment_bytes;
        self.offset == 0
            || fills_up
            || self.frames_since_edge + 1 >= EDGE_FRAMES
            || self.bytes_since_edge >= EDGE_BYTES
    }

    fn write_drafted(&mut self, frame: DraftedFrame) -> Result<()> {
        let DraftedFrame { chained, mut bytes, state, events, builder } = frame;
        let padded_len = self.write_frame(&chained, &mut bytes)?;
        self.builder = builder.recycle(bytes);
        for event in &events {
            if let (Some(stream), Some(version)) = (event.event.stream(), event.version) {
                self.remember_tip(stream, StreamTip { position: event.position, version, leaf: event.leaf });
            }
        }
        let indexed = events.iter().map(|e| (e.position, &e.event));
        self.log.index().add_frame(chained.sequence, padded_len, state.size(), indexed);
        self.publish(state);
        Ok(())
    }

    fn remember_tip(&mut self, stream: &str, tip: StreamTip) {
        match self.tips.get_mut(stream) {
            Some(known) => *known = tip,
            None => {
                if self.tips.len() >= TIPS_MAX {
                    self.tips.clear();
                }
                self.tips.insert(stream.to_owned(), tip);
            }
        }
    }

    /// Writes and syncs one encoded frame; answers its length with padding.
    ///
    /// An error that is not [`Error::may_have_been_written`] has left nothing behind. After any other the
    /// handle has stopped.
    fn write_frame(&mut self, chained: &Chained, bytes: &mut Vec<u8>) -> Result<u64> {
        let has_edge = bytes[7] & 1 != 0;
        let padded_len = padded(bytes.len() as u64);
        bytes.resize(padded_len as usize, 0);
        self.make_log()?;
        self.forget_clean()?;
        let new_segment = self.make_room(padded_len, chained)?;
        let file = self.file.clone().expect("there is a segment to write to");
        let end = self.offset + padded_len;
        let zeros_until = self.zeros_until(padded_len);
        let mut written = file.write_at(bytes, self.offset);
        if written.is_ok() && zeros_until > end {
            self.zeros.resize((ZERO_AHEAD_MAX as usize).max((zeros_until - end) as usize), 0);
            // Zeros are a convenience: without space for them the frame is still good.
            if file.write_at(&self.zeros[..(zeros_until - end) as usize], end).is_err() {
                written = file.set_len(end);
                self.zeroed_end = end;
            } else {
                self.zeroed_end = zeros_until;
            }
        }
        if let Err(error) = written {
            return Err(self.undo_write(&*file, error));
        }
        self.zeroed_end = self.zeroed_end.max(end);
        let synced = file.sync().and_then(|()| match new_segment {
            true => self.log.io.sync_dir(&self.log.dir),
            false => Ok(()),
        });
        if let Err(error) = synced {
            let path = self.log.segments.path(self.segment);
            return Err(self.stop(Error::from(error).context(format!("syncing {} failed", path.display()))));
        }
        self.log.segments.push(chained, self.offset, padded_len);
        self.offset = end;
        (self.frames_since_edge, self.bytes_since_edge) = match has_edge {
            true => (0, 0),
            false => (self.frames_since_edge + 1, self.bytes_since_edge + padded_len),
        };
        Ok(padded_len)
    }

    /// Where zeros have to reach once a frame of this length is written.
    fn zeros_until(&self, padded_len: u64) -> u64 {
        let end = self.offset + padded_len;
        if end <= self.zeroed_end || padded_len >= GROWING_FRAME_BYTES {
            return end;
        }
        let ahead = end.clamp(ZERO_AHEAD_MIN, ZERO_AHEAD_MAX);
        (end + ahead).min(self.log.settings.segment_bytes).max(end)
    }

    /// Takes back a write that failed. If that works nothing has happened; if not, the handle stops.
    fn undo_write(&mut self, file: &dyn IoFile, error: std::io::Error) -> Error {
        let path = self.log.segments.path(self.segment);
        let error = Error::from(error).context(format!("writing {} failed", path.display()));
        let undone = file.set_len(self.offset);
        if undone.is_ok() && error.kind() == ErrorKind::Full {
            self.zeroed_end = self.offset;
            return error;
        }
        self.stop(error)
    }

    fn stop(&self, error: Error) -> Error {
        let error = error.maybe_written();
        self.log.stop(&error);
        error
    }

    /// Makes the log's directory and its file `log`, before its first frame.
    fn make_log(&mut self) -> Result<()> {
        if self.log.exists.load(Ordering::Acquire) {
            return Ok(());
        }
        let (io, dir) = (&*self.log.io, &self.log.dir);
        let logs = dir.parent().expect("a log's directory is in the store's");
        io.create_dir_all(dir)?;
        LogMeta { id: self.state.log, copy: self.log.copy.load(Ordering::Acquire) }.write(io, dir)?;
        io.sync_dir(logs)?;
        self.log.exists.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the mark of the last good order away, durably: while it is there the log ends where it says.
    fn forget_clean(&mut self) -> Result<()> {
        if self.clean_forgotten {
            return Ok(());
        }
        match self.log.io.remove(&self.log.dir.join(CLEAN_FILE)) {
            Ok(()) => self.log.io.sync_dir(&self.log.dir)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        self.clean_forgotten = true;
        Ok(())
    }

    /// Makes the next segment if the frame does not fit; answers whether the segment is new.
    fn make_room(&mut self, padded_len: u64, chained: &Chained) -> Result<bool> {
        let full = self.offset > 0 && self.offset + padded_len > self.log.settings.segment_bytes;
        if self.file.is_some() && !full {
            // A segment that was made for a frame which then could not be written is as good as new.
            if self.offset == 0 {
                self.log.segments.start_segment(SegmentMap::new(
                    self.segment,
                    chained.first.0,
                    chained.sequence,
                ));
            }
            return Ok(self.offset == 0);
        }
        let number = if self.file.is_some() { self.segment + 1 } else { self.segment };
        let path = self.log.segments.path(number);
        let file = self.log.io.open(&path, Mode::Create);
        let file = file.map_err(|e| Error::from(e).context(format!("making {} failed", path.display())))?;
        if full {
            self.seal();
        }
        self.log.segments.start_segment(SegmentMap::new(number, chained.first.0, chained.sequence));
        (self.segment, self.offset, self.zeroed_end) = (number, 0, 0);
        self.file = Some(file);
        Ok(true)
    }

    /// Cuts the segment to its frames. Everything in it is durable; zeros that stay are no harm.
    fn seal(&mut self) {
        self.log.segments.save_active_map();
        if let Some(file) = &self.file {
            let _ = file.set_len(self.offset);
        }
    }

    fn publish(&mut self, state: LogState) {
        self.state = state.clone();
        let state = Arc::new(state);
        self.write_published_mark();
        self.log.publish(state);
        self.flush_index();
    }

    fn mark(&self) -> Mark {
        mark_of(&self.state)
    }

    /// For readers in other processes. It is not synced: it counts only while this process lives. If it cannot
    /// be written they see new events later, never wrong ones.
    fn write_published_mark(&mut self) {
        let path = self.log.dir.join(PUBLISHED_FILE);
        if self.published.is_none() {
            let io = &self.log.io;
            self.published = io.open(&path, Mode::Write).or_else(|_| io.open(&path, Mode::Create)).ok();
        }
        if let Some(file) = &self.published {
            let _ = file.write_at(&self.mark().encode(), 0);
        }
    }

    fn flush_index(&mut self) {
        let index = self.log.index();
        if !index.freeze(self.log.settings.index_flush_bytes, self.state.last_frame) {
            return;
        }
        self.log.segments.save_active_map();
        match &self.background {
            Some(background) if index.frozen_count() <= FROZEN_MAX => {
                let _ = background.wake.send(());
            }
            _ => {
                index.flush_one();
                index.merge_once();
            }
        }
    }

    fn put_frames(&mut self, frames: Vec<Frame>) -> Result<()> {
        for frame in frames {
            self.put_frame(&frame)?;
        }
        Ok(())
    }

    /// Adds a frame of the original to a copy.
    fn put_frame(&mut self, frame: &Frame) -> Result<()> {
        let sequence = frame.chained().sequence;
        if sequence < self.state.next_sequence {
            let ours = self.log.frames(sequence, 1)?;
            return match ours.first().is_some_and(|ours| ours.chained() == frame.chained()) {
                true => Ok(()),
                false => Err(forked(&self.state, frame)),
            };
        }
        self.log.settings.check_stopped()?;
        if !self.log.copy.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "log '{}' is one of its own, not a copy: frames of another log cannot be added",
                    self.log.name
                ),
            ));
        }
        frame.check()?;
        let state = self.state.after(frame)?;
        check_copied(frame, &self.state, &Recorded { writer: self })?;
        let events = (0..frame.len())
            .map(|index| frame.event(index)?.decode())
            .collect::<Result<Vec<RecordedEvent>>>()?;
        // The frame may be as large as a frame can be without the edge.
        let len_max = frame.bytes().len() + state.tree.edge().len() * Hash::LEN;
        let with_edge = self.wants_edge(len_max) && len_max <= FRAME_BYTES_MAX;
        let edge = with_edge.then_some(&state.tree);
        let mut bytes = frame.reencode(edge)?;
        let padded_len = self.write_frame(frame.chained(), &mut bytes)?;
        let indexed = events.iter().map(|recorded| (recorded.position, &recorded.event));
        self.log.index().add_frame(sequence, padded_len, state.size(), indexed);
        self.publish(state);
        Ok(())
    }

    fn promote(&mut self) -> Result<()> {
        if !self.log.exists.load(Ordering::Acquire) {
            return Err(no_log(&self.log.name));
        }
        LogMeta { id: self.state.log, copy: false }.write(&*self.log.io, &self.log.dir)?;
        self.log.copy.store(false, Ordering::Release);
        Ok(())
    }

    /// Leaves the log in good order: index and maps written, a clean mark if nothing went wrong.
    pub(crate) fn finish(&mut self) {
        if let Some(background) = self.background.take() {
            drop(background.wake);
            let _ = background.thread.join();
        }
        if self.log.settings.check_stopped().is_err() || !self.log.exists.load(Ordering::Acquire) {
            return;
        }
        let index = self.log.index();
        index.freeze(1, self.state.last_frame);
        while index.flush_one() {}
        while index.merge_once() {}
        self.log.segments.save_active_map();
        let (io, dir) = (&*self.log.io, &self.log.dir);
        let clean = dir.join(CLEAN_FILE);
        let unchanged = Mark::read(io, &clean, self.state.log) == Some(self.mark());
        if !unchanged {
            // Without it the next open does a little more.
            let _ = replace_file(io, &clean, &self.mark().encode());
        }
    }
}

type Answer = futures_channel::oneshot::Sender<Result<Appended>>;

/// Whether an error names an event from position `base` on.
fn names_one_of(error: &Error, base: u64) -> bool {
    error.conflicts().iter().filter_map(|conflict| conflict.position).any(|position| position.0 >= base)
}

/// The event that records that a clock was accepted although it is behind the log.
fn accepted_clock(now: Time, last: Time, limits: &Limits) -> Result<Prepared> {
    let event =
        Event::builder("urn:precedent:log", FrameId::random().to_string(), "~precedent.clock.accepted")
            .datacontenttype("application/json")
            .data(format!(r#"{{"clock":"{now}","lastrecorded":"{last}"}}"#))
            .build()?;
    Prepared::internal(event, limits)
}

impl Background {
    fn start(log: &Arc<Log>) -> Result<Self> {
        let (wake, woken) = std::sync::mpsc::channel();
        let log = log.clone();
        let name = format!("precedent-{}-index", log.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while woken.recv().is_ok() {
                let index = log.index();
                while index.flush_one() {}
                while index.merge_once() {}
                // A run that failed its check and was let go. What fails here is tried again next time.
                let _ = recovery::fill_gaps(&index, &log.segments, log.settings.index_flush_bytes);
            }
        })?;
        Ok(Self { wake, thread })
    }
}

impl Drop for Writer {
    /// A panic is a defect of ours; whoever waits is told, instead of waiting for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop(Error::new(
                ErrorKind::Internal,
                format!("the writer of log '{}' panicked", self.log.name),
            ));
            self.log.drop_jobs();
        }
    }
}

/// What the sequencer asks: everything recorded so far, from the index and the segments.
struct Recorded<'a> {
    writer: &'a Writer,
}

impl Recorded<'_> {
    /// Makes runs again that were found damaged: the writer cannot read the whole log for every key.
    fn repair(&self) -> Result<()> {
        let log = &self.writer.log;
        recovery::fill_gaps(&log.index(), &log.segments, log.settings.index_flush_bytes)
    }

    /// The first candidate from `from` on in this direction for which `found` answers something.
    fn search<T>(
        &self,
        from: u64,
        direction: Direction,
        cursor: impl Fn(&Index) -> Result<Cursor, BadRun>,
        mut found: impl FnMut(RecordedEvent) -> Option<T>,
    ) -> Result<Option<T>> {
        let log = &self.writer.log;
        let size = self.writer.state.size();
        let mut at = Some(from);
        'again: loop {
            let mut set = match cursor(&log.index()) {
                Ok(set) => set,
                Err(bad) => {
                    log.index().drop_run(&bad);
                    self.repair()?;
                    continue 'again;
                }
            };
            let mut events = FrameReader::new(&log.segments, false);
            while let Some(from) = at.filter(|at| *at < size) {
                let position = match set.seek(from, direction) {
                    Ok(Some(position)) if position < size => position,
                    Ok(_) => return Ok(None),
                    Err(bad) => {
                        log.index().drop_run(&bad);
                        self.repair()?;
                        continue 'again;
                    }
                };
                if let Some(answer) = found(events.event(Position(position))?.decode()?) {
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
}

impl Recorded<'_> {
    /// Refuses to answer a question about events of which some, from `from` on, cannot be read.
    fn check_readable(&self, from: u64, question: &str) -> Result<()> {
        if !self.writer.log.index().may_have_unreadable() {
            return Ok(());
        }
        let size = self.writer.state.size();
        let first = self.candidate(from, size, Index::unreadable)?;
        match first {
            None => Ok(()),
            Some(position) => Err(Error::damaged(format!(
                "the event at position {position} cannot be read, so it cannot be told {question}"
            ))),
        }
    }

    /// The first position of a set at or behind `from`.
    fn candidate(
        &self,
        from: u64,
        size: u64,
        cursor: impl Fn(&Index) -> Result<Cursor, BadRun>,
    ) -> Result<Option<u64>> {
        let log = &self.writer.log;
        loop {
            let found = cursor(&log.index()).and_then(|mut set| set.seek(from, Direction::Forward));
            match found {
                Ok(found) => return Ok(found.filter(|position| *position < size)),
                Err(bad) => {
                    log.index().drop_run(&bad);
                    self.repair()?;
                }
            }
        }
    }
}

impl History for Recorded<'_> {
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>> {
        let matches = |e: RecordedEvent| (e.event.source() == source && e.event.id() == id).then_some(e);
        let found = self.search(0, Direction::Forward, |index| index.key(source, id), matches)?;
        if found.is_none() {
            self.check_readable(0, "whether an event with this source and id is there")?;
        }
        Ok(found)
    }

    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>> {
        if let Some(tip) = self.writer.tips.get(stream) {
            return Ok(Some(*tip));
        }
        let Some(last) = self.writer.state.size().checked_sub(1) else { return Ok(None) };
        let tip = |e: RecordedEvent| {
            let version: Version = (e.event.stream() == Some(stream)).then_some(e.version)??;
            Some(StreamTip { position: e.position, version, leaf: e.leaf() })
        };
        let tip = self.search(last, Direction::Backward, |index| index.stream(stream), tip)?;
        self.check_readable(
            tip.map_or(0, |tip| tip.position.0 + 1),
            "which event of the stream is the last",
        )?;
        Ok(tip)
    }

    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>> {
        let from = after.map_or(0, |after| after.0 + 1);
        let end = self.writer.state.size();
        let cursor = |index: &Index| Ok(index.query(query)?.unwrap_or(Cursor::All { first: 0, end }));
        self.search(from, Direction::Forward, cursor, |e| query.matches(&e.event).then_some(e.position))
    }
}

const _: () = assert!(ZERO_AHEAD_MIN.is_multiple_of(SECTOR_BYTES as u64));

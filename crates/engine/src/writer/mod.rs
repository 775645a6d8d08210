//! The writer of a log: group commit without a timer, one frame ahead.
//!
//! ```text
//!              drafting            device               publishing
//! queue ──► frame k+1: keys,   frame k: write,     frame k-1: index,
//!           conditions, hash       one sync           publish, answer
//! ```
//!
//! A frame goes through three stages, each with a lock of its own, taken in this order: whoever makes a frame
//! takes the next lock before letting go of the last. So frames stay in order, and while one is written and
//! synced the next is drafted and the last is answered. Any thread can do it: [`Writer::lead`] makes one frame
//! of what waits. Two threads of the log do so, the second from the first time that something waits
//! while the device is at work; a caller that may wait does it itself if nobody else is at it, and then no
//! thread is woken at all.
//!
//! - A frame is written only after the sync of the frame before it has returned: so a crash leaves at most one
//!   frame unfinished. The device's lock is held through write and sync.
//! - Nothing is answered or published before its sync. What was drafted on a frame that then was not written
//!   is given up with it, [`Drafting::give_up`], and fails as that did.
//! - A frame stays open as long as the device is at work: what comes meanwhile goes into it, until it is so
//!   large that one sync more does not matter.
//!
//! What the next frame has to know of those that are drafted but not yet in the index is in
//! [`Drafts`].
//!
//! # What it costs
//!
//! For one appender the sync is nearly everything: what is added to it is waking two threads, some 50 µs, which
//! is why a caller that may wait leads itself. For large batches it is the processor, and of an event of 1 KiB, in this
//! order: its content held against recent content and remembered, its commitment, the index and the question whether its key
//! is known, its anchors, the leaf and the tree; of frames that are not large the copy into the page cache besides. `cargo run --release -p precedent-engine --example
//! appends` measures it; what was learned stands in `docs/decisions/0022-what-an-append-costs.md`.

mod background;
mod device;
pub(crate) mod history;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use precedent_core::drafts::Drafts;
use precedent_core::entry::Entry;
use precedent_core::extents::Recent;
use precedent_core::frame::{Chained, EncodedFrame, FRAME_BYTES_MAX, Frame, FrameBuilder, padded};
use precedent_core::memory::{forked, is_copy, no_log};
use precedent_core::prepared::Prepared;
use precedent_core::sequencer::{
    Draft, DraftedFrame, LogState, StreamTip, check_clock, check_copied, clock_accepted,
};
use precedent_core::stored::WithFrame;
use precedent_core::tree::leaf_hash;
use precedent_core::{Appended, Error, ErrorKind, FrameId, Hash, Position, Receipt, Result};

use self::background::{Background, while_closing};
use self::device::Device;
use self::history::{Recorded, Remembered};
use crate::io::{IoFile, Mode, replace_file};
use crate::log::{Answer, DeviceTurn, Job, Log, Room, mark_of, writer_id};
use crate::meta::{CLEAN_FILE, LogMeta, Mark, PUBLISHED_FILE};
use crate::mirror::Mirrored;
use crate::reader::FrameReader;

/// A frame is closed at about this many bytes, unless one batch is larger.
pub(crate) const FRAME_BYTES: usize = 4 << 20;
/// A frame of this many bytes takes in nothing more while it waits for the device: it is encoded instead.
pub(crate) const ENOUGH_BYTES: usize = 256 << 10;
/// The tree's right edge is in at least one frame in this many …
const EDGE_FRAMES: u64 = 256;
/// … and at least once in about this many bytes, so that a new writer never reads more than that.
const EDGE_BYTES: u64 = 1 << 20;
/// Tables that may wait to be written as runs before the writer does it itself.
const FROZEN_MAX: usize = 4;
/// Frames whose memory is kept to be used again: one in every stage.
const BUILDERS_MAX: usize = 3;

/// See the [module documentation](self).
pub(crate) struct Writer {
    log: Arc<Log>,
    id: FrameId,
    drafting: Mutex<Drafting>,
    device: Mutex<Device>,
    publishing: Mutex<Publishing>,
    /// As in [`Device::given_up`], for a look without the lock.
    given_up: AtomicU64,
    builders: Mutex<Vec<FrameBuilder>>,
    background: Mutex<Option<Background>>,
}

/// The first stage: what the next frame is drafted on.
struct Drafting {
    /// The log with every frame that has been drafted.
    state: Arc<LogState>,
    drafts: Drafts,
    /// What new content is held against.
    recent: Recent,
    /// What [`Device::given_up`] was when this was last right.
    given_up: u64,
    plan: Plan,
    /// Behind the event by which this handle has recorded that it goes on with a clock that is behind the log.
    clock_accepted: Option<u64>,
}

impl Drafting {
    /// What was drafted and is not durable will not be written: everything goes on from where the device is.
    fn give_up(&mut self, device: &Device) {
        let size = device.state.size();
        self.drafts.forget_from(Position(size));
        self.recent.forget_from(Position(size));
        self.clock_accepted = self.clock_accepted.filter(|end| *end <= size);
        self.state = device.state.clone();
        self.plan.restart(device.offset, device.log.segments.active().first_position);
        self.given_up = device.given_up;
    }
}

/// Where the next frame will go, whether it is to carry the tree's right edge, and what it may refer to.
struct Plan {
    /// In its segment.
    offset: u64,
    /// The position of that segment's first event.
    first: Position,
    frames_since_edge: u64,
    bytes_since_edge: u64,
    /// The sealed segments that new events may refer to: first position and bytes.
    before: VecDeque<(Position, u64)>,
}

impl Plan {
    fn new(offset: u64, first: u64) -> Self {
        let first = Position(first);
        Self { offset, first, frames_since_edge: EDGE_FRAMES, bytes_since_edge: 0, before: VecDeque::new() }
    }

    /// The next frame goes here instead.
    fn restart(&mut self, offset: u64, first: u64) {
        (self.offset, self.first) = (offset, Position(first));
        self.frames_since_edge = EDGE_FRAMES;
        self.before.retain(|(before, _)| before.0 < first);
    }

    /// Whether a frame of at most this many bytes is to carry the tree's right edge. The first of a segment does.
    fn wants_edge(&self, len_max: usize, segment_bytes: u64) -> bool {
        let fills_up = self.offset + padded(len_max as u64) > segment_bytes;
        self.offset == 0
            || fills_up
            || self.frames_since_edge + 1 >= EDGE_FRAMES
            || self.bytes_since_edge >= EDGE_BYTES
    }

    /// The next frame goes behind this one, which begins at position `first`.
    fn advance(&mut self, frame: &[u8], first: Position, segment_bytes: u64, recent: &mut Recent) {
        let has_edge = frame[7] & 1 != 0;
        let padded_len = padded(frame.len() as u64);
        if self.offset > 0 && self.offset + padded_len > segment_bytes {
            self.seal(first, segment_bytes, recent);
        }
        self.offset += padded_len;
        (self.frames_since_edge, self.bytes_since_edge) = match has_edge {
            true => (0, 0),
            false => (self.frames_since_edge + 1, self.bytes_since_edge + padded_len),
        };
    }

    /// The segment ends before position `next`.
    fn seal(&mut self, next: Position, segment_bytes: u64, recent: &mut Recent) {
        self.before.push_back((self.first, self.offset));
        (self.offset, self.first) = (0, next);
        let all = |before: &VecDeque<(Position, u64)>| before.iter().map(|(_, bytes)| bytes).sum::<u64>();
        while self.before.len() > 1 && all(&self.before) > segment_bytes {
            self.before.pop_front();
        }
        // What is not remembered is not referred to: so whoever removes or rewrites a segment one day has to
        // look at what follows it within so many bytes, and no further.
        recent.forget_before(self.before[0].0);
    }
}

/// The last stage.
struct Publishing {
    /// The file for readers in other processes.
    mark: Option<Arc<dyn IoFile>>,
    /// The log as it is published.
    state: Arc<LogState>,
    /// Whether a segment was sealed since segments were packed.
    pack: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Tells everybody if a thread panics while it makes a frame: a panic is a defect of ours, and whoever waits is
/// told instead of waiting for ever.
struct Watch<'a>(&'a Log);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = format!("the writer of log '{}' panicked", self.0.name);
            self.0.stop(&Error::new(ErrorKind::Internal, message).maybe_written());
            self.0.drop_jobs();
        }
    }
}

impl Writer {
    pub(crate) fn new(log: Arc<Log>, state: LogState, segment: u32, offset: u64) -> Result<Arc<Self>> {
        let state = Arc::new(state);
        if log.exists.load(Ordering::Acquire) {
            crate::packer::tidy(&log)?;
        }
        let device = Device::new(log.clone(), state.clone(), segment, offset)?;
        let drafting = Drafting {
            state: state.clone(),
            drafts: Drafts::default(),
            recent: recall(&log, &state),
            given_up: 0,
            plan: Plan::new(offset, log.segments.active().first_position),
            clock_accepted: None,
        };
        let writer = Arc::new(Self {
            log,
            id: writer_id(),
            drafting: Mutex::new(drafting),
            device: Mutex::new(device),
            publishing: Mutex::new(Publishing { mark: None, state, pack: true }),
            given_up: AtomicU64::new(0),
            builders: Mutex::default(),
            background: Mutex::default(),
        });
        if writer.log.settings.background {
            *lock(&writer.background) = Some(Background::start(&writer.log, Arc::downgrade(&writer))?);
        }
        Ok(writer)
    }

    /// What a thread of the log does: makes frames whenever something waits, until the log is closed.
    pub(crate) fn work(&self) {
        while self.log.await_jobs() {
            self.lead(lock(&self.drafting));
        }
    }

    /// Makes frames of what waits if nobody is drafting one. If somebody is, that one or a thread of the log will.
    pub(crate) fn try_lead(&self) -> bool {
        let drafting = match self.drafting.try_lock() {
            Ok(drafting) => drafting,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return false,
        };
        self.lead(drafting);
        true
    }

    /// Makes one frame of what waits, or does the one other thing that is first in the queue.
    fn lead<'w>(&'w self, mut drafting: MutexGuard<'w, Drafting>) {
        let _watch = Watch(&self.log);
        if self.given_up.load(Ordering::Acquire) != drafting.given_up {
            drafting.give_up(&lock(&self.device));
        }
        let mut jobs = self.log.take_jobs();
        match jobs.front() {
            None => self.log.drafted(),
            Some(Job::Append(..)) => self.append_frame(drafting, jobs),
            Some(_) => {
                self.do_alone(&mut drafting, jobs.pop_front().expect("there is one"));
                drop(drafting);
                self.log.drafted();
            }
        }
    }

    /// What is not an append is done with nothing else under way.
    fn do_alone(&self, drafting: &mut Drafting, job: Job) {
        let turn = self.log.await_device();
        let mut device = lock(&self.device);
        let mut publishing = lock(&self.publishing);
        if device.given_up != drafting.given_up {
            drafting.give_up(&device);
        }
        match job {
            Job::Append(..) => unreachable!("appends are drafted"),
            Job::PutFrames(frames, answer) => {
                let put = |frame: &Frame| self.put_frame(frame, drafting, &mut device, &mut publishing);
                let _ = answer.send(frames.iter().try_for_each(put));
            }
            Job::Mirror(frames, answer) => {
                // Nothing is held against what was recorded of late here: the memory of that is given back.
                drafting.recent = Recent::new(0);
                let put = |frame: &Mirrored| self.put_mirrored(frame, drafting, &mut device, &mut publishing);
                let _ = answer.send(frames.iter().try_for_each(put));
            }
            Job::Promote(answer) => drop(answer.send(self.promote())),
        }
        drop((device, publishing, turn));
    }

    fn can_append(&self) -> Result<()> {
        if self.log.copy.load(Ordering::Acquire) {
            return Err(is_copy(&self.log.name));
        }
        self.log.settings.check_stopped()
    }

    /// Makes one frame of these appends and of what comes until the device is free, and answers them all once
    /// it is durable.
    fn append_frame<'w>(&'w self, mut guard: MutexGuard<'w, Drafting>, jobs: VecDeque<Job>) {
        if let Err(error) = self.can_append() {
            for (_, answer) in appends(jobs) {
                let _ = answer.send(Err(error.clone()));
            }
            drop(guard);
            return self.log.drafted();
        }
        let settings = &self.log.settings;
        let drafting = &mut *guard;
        let base = drafting.state.clone();
        // Freed at the end, when others can go on.
        let _freed = drafting.drafts.recorded(self.log.recorded_size());
        let recorded = Recorded::new(&self.log, drafting.drafts.recorded_size(base.size()));
        let now = (settings.clock)();
        let clock = check_clock(now, base.last_time);
        let builder = lock(&self.builders).pop().unwrap_or_default();
        let mut draft = Draft::with_builder(&base, now, &mut drafting.recent, &mut drafting.drafts, builder);
        let mut answers = Vec::with_capacity(jobs.len());
        let mut add = |draft: &mut Draft<'_>, jobs: VecDeque<Job>| {
            for (prepared, answer) in appends(jobs) {
                let receipts = match &clock {
                    Err(error) if !settings.accept_clock => Err(error.clone()),
                    _ => draft.add(prepared, &recorded),
                };
                answers.push((answer, receipts));
            }
        };
        add(&mut draft, jobs);
        let mut turn = None;
        // What there is room for is counted with all content literally: so large a frame is when it travels.
        while turn.is_none() && draft.literal_len_max() < ENOUGH_BYTES {
            let (jobs, device) = self.log.await_turn(Room::beside(draft.literal_len_max()));
            add(&mut draft, jobs);
            turn = device;
        }
        // Recorded once, behind the events it was accepted for: what was there already records nothing.
        let accepts = clock.is_err() && drafting.clock_accepted.is_none() && !draft.is_empty();
        if accepts
            && let Ok(event) = clock_accepted(now, base.last_time, &settings.limits)
            && draft.fits(&event, FRAME_BYTES_MAX)
            && draft.add(event, &recorded).is_ok()
        {
            drafting.clock_accepted = Some(draft.size());
        }
        let (size, len_max) = (draft.size(), draft.len_max());
        let with_edge = drafting.plan.wants_edge(len_max, settings.segment_bytes);
        let frame = draft.finish(self.id, with_edge);
        let frame = frame.map(|frame| {
            let state = Arc::new(frame.state.clone());
            let (first, recent) = (frame.chained.first, &mut drafting.recent);
            drafting.plan.advance(&frame.bytes, first, settings.segment_bytes, recent);
            drafting.state = state.clone();
            (frame, state)
        });
        let turn = turn.unwrap_or_else(|| self.log.await_device());
        let device = lock(&self.device);
        let durable = device.state.size();
        let refused = if device.given_up != drafting.given_up {
            drafting.give_up(&device);
            device.failure.clone().map_or(Ok(()), Err)
        } else if self.device.is_poisoned() {
            Err(Error::new(ErrorKind::Internal, "a thread panicked while it wrote to the log"))
        } else {
            settings.check_stopped()
        };
        drop(guard);
        self.log.drafted();
        match refused {
            Ok(()) => self.write_and_answer(turn, device, frame, answers, size),
            Err(error) => {
                drop(device);
                drop(turn);
                answer_all(answers, &Err(error), durable, size);
            }
        }
    }

    /// The second and the third stage of a frame. `None`: there is nothing to write, but those who are told
    /// that their events exist are told so only now that these are durable.
    fn write_and_answer<'w>(
        &'w self,
        turn: DeviceTurn<'w>,
        mut device: MutexGuard<'w, Device>,
        frame: Option<(DraftedFrame, Arc<LogState>)>,
        answers: Vec<(Answer, Result<Vec<Receipt>>)>,
        size: u64,
    ) {
        let durable = device.state.size();
        let Some((frame, state)) = frame else {
            drop((lock(&self.publishing), device, turn));
            return answer_all(answers, &Ok(()), durable, size);
        };
        let DraftedFrame { chained, mut bytes, events, builder, .. } = frame;
        let written = device.write_frame(&chained, &mut bytes);
        match &written {
            Ok(padded_len) => {
                device.state = state.clone();
                let mut publishing = lock(&self.publishing);
                publishing.pack |= std::mem::take(&mut device.sealed);
                drop((device, turn));
                let indexed = events.iter().map(|e| (e.position, e.event()));
                self.log.index().add_frame(chained.sequence, *padded_len, state.size(), indexed);
                self.publish(&mut publishing, state);
            }
            Err(error) => {
                device.given_up += 1;
                device.failure = Some(error.clone());
                self.given_up.store(device.given_up, Ordering::Release);
                // What was published before this frame is answered before it.
                drop((lock(&self.publishing), device, turn));
            }
        }
        answer_all(answers, &written.map(drop), durable, size);
        let mut builders = lock(&self.builders);
        if builders.len() < BUILDERS_MAX {
            builders.push(builder.recycle(bytes));
        }
    }

    fn publish(&self, publishing: &mut Publishing, state: Arc<LogState>) {
        publishing.state = state.clone();
        self.write_published_mark(publishing);
        self.log.publish(state);
        self.flush_index(publishing);
        self.pack(publishing);
    }

    /// Packs what is sealed, here or in the background.
    fn pack(&self, publishing: &mut Publishing) {
        let due = std::mem::take(&mut publishing.pack) && self.log.settings.pack;
        match &*lock(&self.background) {
            Some(background) if due => background.wake(),
            Some(background) => background.stir(),
            None if !due => {}
            None if self.log.settings.background => crate::packer::pack(&self.log, &while_closing()),
            None => crate::packer::pack(&self.log, &|| true),
        }
    }

    /// For readers in other processes. It is not synced: it counts only while this process lives. If it cannot
    /// be written they see new events later, never wrong ones.
    fn write_published_mark(&self, publishing: &mut Publishing) {
        let path = self.log.dir.join(PUBLISHED_FILE);
        if publishing.mark.is_none() {
            let io = &self.log.io;
            publishing.mark = io.open(&path, Mode::Write).or_else(|_| io.open(&path, Mode::Create)).ok();
        }
        if let Some(file) = &publishing.mark {
            let _ = file.write_at(&mark_of(&publishing.state).encode(), 0);
        }
    }

    fn flush_index(&self, publishing: &Publishing) {
        let index = self.log.index();
        if !index.freeze(self.log.settings.index_flush_bytes, publishing.state.last_frame) {
            return;
        }
        self.log.segments.save_active_map();
        match &*lock(&self.background) {
            Some(background) if index.frozen_count() <= FROZEN_MAX => background.wake(),
            _ => {
                index.flush_one();
                index.merge_once();
            }
        }
    }

    /// Adds a frame of the original to a copy.
    fn put_frame(
        &self,
        frame: &Frame,
        drafting: &mut Drafting,
        device: &mut Device,
        publishing: &mut Publishing,
    ) -> Result<()> {
        if self.has_frame(frame.chained(), drafting)? {
            return Ok(());
        }
        frame.check()?;
        let base = drafting.state.clone();
        let state = Arc::new(base.after(frame)?);
        self.check_follows(frame, &base, drafting)?;
        let edge = self.edge_for(frame.bytes().len(), &state, drafting);
        let encoded = frame.reencode(edge.then_some(&state.tree), &mut drafting.recent);
        let encoded = encoded.inspect_err(|_| drafting.give_up(device))?;
        self.put_encoded(frame.chained(), encoded, &entries_of(frame)?, state, drafting, device, publishing)
    }

    /// Adds a frame of a log that is kept elsewhere.
    fn put_mirrored(
        &self,
        mirrored: &Mirrored,
        drafting: &mut Drafting,
        device: &mut Device,
        publishing: &mut Publishing,
    ) -> Result<()> {
        if self.has_frame(mirrored.chained(), drafting)? {
            return Ok(());
        }
        let base = drafting.state.clone();
        match mirrored {
            Mirrored::Frame(frame) => {
                let mut reader = FrameReader::new(&self.log.segments, false);
                frame.check_with(&mut WithFrame { frame, before: reader.sources() })?;
                let state = Arc::new(base.after(frame)?);
                // Behind a hole it cannot be told which keys and streams there were; verifying the original does.
                if !self.log.index().may_have_unreadable() {
                    self.check_follows(frame, &base, drafting)?;
                }
                let edge = self.edge_for(frame.bytes().len(), &state, drafting);
                let encoded = frame.with_edge(edge.then_some(&state.tree))?;
                let entries = entries_of(frame)?;
                self.put_encoded(frame.chained(), encoded, &entries, state, drafting, device, publishing)
            }
            Mirrored::Hole(hole) => {
                let chained = hole.chained();
                let state = Arc::new(base.past(chained, hole.tree().clone())?);
                self.log.index().add_unreadable(chained.first.0..chained.tree_size());
                self.put_encoded(
                    chained,
                    EncodedFrame::copy_of(&hole.filled()),
                    &[],
                    state,
                    drafting,
                    device,
                    publishing,
                )?;
                // Whoever opens the log finds its end without having to read through the hole.
                drafting.plan.frames_since_edge = EDGE_FRAMES;
                Ok(())
            }
        }
    }

    /// Whether a frame of another log is here already; an error if another one is in its place, or none can be added.
    fn has_frame(&self, chained: &Chained, drafting: &Drafting) -> Result<bool> {
        let base = &drafting.state;
        if chained.sequence < base.next_sequence {
            let same = match chained.sequence + 1 == base.next_sequence {
                true => chained.hash() == base.last_frame,
                false => self.log.chained(chained.sequence)? == *chained,
            };
            return match same {
                true => Ok(true),
                false => Err(forked(base, chained)),
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
        Ok(false)
    }

    /// Checks what a frame of another log says about the log before it.
    fn check_follows(&self, frame: &Frame, base: &LogState, drafting: &mut Drafting) -> Result<()> {
        drop(drafting.drafts.recorded(base.size()));
        let recorded = Recorded::new(&self.log, base.size());
        check_copied(frame, base, &Remembered { recorded, drafts: &drafting.drafts })
    }

    /// Whether a frame of another log, so long without it, is to carry the tree's edge here. It may be as large as a frame
    /// can be without.
    fn edge_for(&self, len: usize, state: &LogState, drafting: &Drafting) -> bool {
        let len_max = len + state.tree.edge().len() * Hash::LEN;
        drafting.plan.wants_edge(len_max, self.log.settings.segment_bytes) && len_max <= FRAME_BYTES_MAX
    }

    /// Writes and publishes a frame of another log.
    #[expect(clippy::too_many_arguments, reason = "three of them are the stages of the writer")]
    fn put_encoded(
        &self,
        chained: &Chained,
        mut bytes: EncodedFrame,
        events: &[(Hash, Entry)],
        state: Arc<LogState>,
        drafting: &mut Drafting,
        device: &mut Device,
        publishing: &mut Publishing,
    ) -> Result<()> {
        let segment_bytes = self.log.settings.segment_bytes;
        drafting.plan.advance(&bytes, chained.first, segment_bytes, &mut drafting.recent);
        let written = device.write_frame(chained, &mut bytes);
        let padded_len = written.inspect_err(|_| drafting.give_up(device))?;
        (device.state, drafting.state) = (state.clone(), state.clone());
        for (leaf, entry) in events {
            if let (Some(stream), Some(version)) = (entry.event.stream(), entry.version) {
                let tip = StreamTip { position: entry.position, version, leaf: *leaf };
                drafting.drafts.set_tip(stream, tip, state.size());
            }
        }
        let indexed = events.iter().map(|(_, entry)| (entry.position, &entry.event));
        self.log.index().add_frame(chained.sequence, padded_len, state.size(), indexed);
        publishing.pack |= std::mem::take(&mut device.sealed);
        self.publish(publishing, state);
        Ok(())
    }

    fn promote(&self) -> Result<()> {
        if !self.log.exists.load(Ordering::Acquire) {
            return Err(no_log(&self.log.name));
        }
        LogMeta { id: self.log.id, copy: false }.write(&*self.log.io, &self.log.dir)?;
        self.log.copy.store(false, Ordering::Release);
        Ok(())
    }

    /// Ends the active segment. Nothing is under way meanwhile.
    fn seal_active(&self, drafting: &mut Drafting, device: &mut Device) {
        if device.given_up != drafting.given_up {
            drafting.give_up(device);
        }
        device.seal_active();
        if drafting.plan.offset > 0 {
            let next = Position(device.state.size());
            drafting.plan.seal(next, self.log.settings.segment_bytes, &mut drafting.recent);
        }
    }

    /// Nothing was appended for a while: ends the active segment if packing it is worth it, and answers whether
    /// there is something to pack.
    pub(crate) fn idle(&self) -> bool {
        let mut drafting = lock(&self.drafting);
        let _turn = self.log.await_device();
        let mut device = lock(&self.device);
        if self.log.settings.check_stopped().is_err() || !crate::packer::worth_packing(&self.log) {
            return false;
        }
        self.seal_active(&mut drafting, &mut device);
        std::mem::take(&mut device.sealed)
    }

    /// Leaves the log in good order: index and maps written, a clean mark if nothing went wrong.
    pub(crate) fn finish(&self) {
        let background = lock(&self.background).take();
        if let Some(background) = background {
            background.end();
        }
        // Whoever is still at work has these.
        while self.log.has_jobs() {
            self.lead(lock(&self.drafting));
        }
        let mut drafting = lock(&self.drafting);
        let mut device = lock(&self.device);
        let mut publishing = lock(&self.publishing);
        if self.log.settings.check_stopped().is_err() || !self.log.exists.load(Ordering::Acquire) {
            return;
        }
        let index = self.log.index();
        index.freeze(1, publishing.state.last_frame);
        while index.flush_one() {}
        while index.merge_once() {}
        self.log.segments.save_active_map();
        if self.log.settings.pack {
            if crate::packer::worth_packing(&self.log) {
                self.seal_active(&mut drafting, &mut device);
            }
            // What was given up a moment ago is taken up again.
            publishing.pack |= device.sealed || !self.log.segments.sealed().is_empty();
            self.pack(&mut publishing);
        }
        let (io, dir) = (&*self.log.io, &self.log.dir);
        let clean = dir.join(CLEAN_FILE);
        let mark = mark_of(&publishing.state);
        let unchanged = Mark::read(io, &clean, self.log.id) == Some(mark);
        if !unchanged {
            // Without it the next open does a little more.
            let _ = replace_file(io, &clean, &mark.encode());
        }
    }
}

/// Data that is read again when a log is opened, to be held against what comes.
const RECALLED_BYTES: usize = 4 << 20;
/// Its bytes, wherever they stand.
const RECALLED_CONTENT: u64 = 32 << 20;
/// Events that are looked at for it.
const RECALLED_EVENTS: u64 = 4_096;

/// Remembers the log's newest content. What cannot be read is not remembered: it is named when somebody reads it.
pub(crate) fn recall(log: &Log, state: &LogState) -> Recent {
    let mut recent = Recent::new(Recent::BYTES_MAX);
    let mut reader = FrameReader::new(&log.segments, false);
    let (mut bytes, mut content, mut first) = (0, 0, state.size());
    let earliest = first.saturating_sub(RECALLED_EVENTS);
    while first > earliest && bytes < RECALLED_BYTES && content < RECALLED_CONTENT {
        let Ok(stored) = reader.event(Position(first - 1)) else { break };
        let Ok(entry) = Entry::decode(&stored.entry) else { break };
        bytes += stored.parts.len();
        content += entry.parts.iter().map(|part| part.length).sum::<u64>();
        first -= 1;
    }
    let mut reader = FrameReader::new(&log.segments, true);
    for position in (first..state.size()).map(Position) {
        let Ok(stored) = reader.event(position) else { continue };
        let _ =
            Entry::decode(&stored.entry).and_then(|entry| recent.recall(&stored, &entry, reader.sources()));
    }
    recent
}

/// The entries of a frame, with their leaves.
fn entries_of(frame: &Frame) -> Result<Vec<(Hash, Entry)>> {
    let entry = |index| {
        let entry = frame.event(index)?.entry;
        Ok((leaf_hash(&entry), Entry::decode(&entry)?))
    };
    (0..frame.len()).map(entry).collect()
}

fn appends(jobs: VecDeque<Job>) -> impl Iterator<Item = (Prepared, Answer)> {
    jobs.into_iter().map(|job| match job {
        Job::Append(prepared, answer) => (prepared, answer),
        _ => unreachable!("what is not an append is taken alone"),
    })
}

/// Answers everybody whose append was in a frame, `durable` being the size of the log without it.
fn answer_all(answers: Vec<(Answer, Result<Vec<Receipt>>)>, written: &Result<()>, durable: u64, size: u64) {
    for (answer, receipts) in answers {
        let result = match (written, receipts) {
            (Ok(()), Ok(receipts)) => Ok(Appended { events: receipts, size }),
            (Err(error), Ok(_)) => Err(error.clone()),
            // What was refused for the sake of an event that then was not written fails as that did.
            (Err(error), Err(refused)) if names_one_of(&refused, durable) => Err(error.clone()),
            (_, Err(refused)) => Err(refused),
        };
        let _ = answer.send(result);
    }
}

/// Whether an error names an event from position `base` on.
fn names_one_of(error: &Error, base: u64) -> bool {
    error.conflicts().iter().filter_map(|conflict| conflict.position).any(|position| position.0 >= base)
}

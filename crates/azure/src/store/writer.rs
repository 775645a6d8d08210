//! The writer of one log: what waits becomes the next frame, and the next frame is put there if it is absent.
//!
//! ```text
//! queue ──► draft on what is here ──► commit ──► committed ──► put it here, write its documents, answer
//!                  ▲                     │
//!                  └──── catch up ◄── taken: somebody else was quicker
//! ```
//!
//! A log has any number of writers, in any number of processes. What makes it one history is that a frame is created
//! only where there is none, behind the one it was drafted on.
//!
//! - A frame whose answer was lost is sent again, byte for byte, at the same number, until it is known to be there or
//!   not. Nothing else is appended meanwhile. When that takes longer than [`Options::settle_for`] its appends are
//!   `unknown` and the handle stops.
//! - **Nobody is told no by what is here alone.** A conflict stands once a frame that was drafted beside it is
//!   committed, or there has proved to be no more than is here.
//! - While one frame is under way the queue fills, and the next takes what fits into an item of the service. There is
//!   no timer. The queue is bounded: whoever appends waits for room in it, and whoever submits is refused.
//! - A writer that was not quick enough tries again, after pauses that grow and differ, for as long as
//!   [`Options::settle_for`], and catches up behind each pause. A writer that is never idle and knows of others, and now
//!   and then in any case, lets a moment pass in which they can go first: without that, whoever has to catch up is always
//!   late.
//!
//! One thread a log that is written to: drafting reads the disk, and the service is waited for.
//!
//! [`Options::settle_for`]: super::Options

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::oneshot;
use precedent_core::drafts::Drafts;
use precedent_core::extents::Recent;
use precedent_core::frame::{FRAME_BYTES_MAX, Frame, FrameHeader, OVERHEAD_BYTES_MAX};
use precedent_core::memory::{forked, is_copy};
use precedent_core::prepared::Prepared;
use precedent_core::sequencer::{
    CLOCK_TOLERANCE_MICROS, Draft, History, LogState, check_clock, check_copied, clock_accepted,
};
use precedent_core::store::{Receipt, Status};
use precedent_core::{
    Appended, Error, ErrorKind, FrameId, LogId, LogName, Position, Query, RecordedEvent, Result, Time,
};
use precedent_engine::Mirrored;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::documents::Documents;
use super::log::RemoteLog;
use super::{COPIES_MAX, Inner, closed};
use crate::remote::{Commit, LogRecord, Outcome};

/// Frames whose number has the same quotient lie in one partition of the service: what is stored refers to nothing below
/// the one before.
pub const BUCKET_FRAMES: u64 = 4_096;
/// The first pause before a frame is sent again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often somebody else may be quicker before there are pauses; the first of these, and the longest.
const LOST_MAX: u32 = 2;
const RACE_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// So many frames after one of somebody else, others are thought to be waiting.
const OTHERS_FRAMES: u64 = 64;
/// The longest time without a moment for others.
const UNRESTING_MAX: Duration = Duration::from_secs(10);
/// What a moment for others is reckoned from, in commits: they have a tail to read and a frame to draft as well, which is
/// more than the commit where that is quick.
const COMMIT_MIN: Duration = Duration::from_millis(10);
/// The longest moment that is left to them.
const ROOM_FOR_OTHERS: Duration = Duration::from_secs(2);
/// What a queue holds at most, in bytes of at least [`UNIT_BYTES`] an event.
pub(super) const QUEUE_BYTES: usize = if cfg!(test) { 24 << 20 } else { 64 << 20 };
/// And so many events.
const QUEUE_EVENTS: usize = QUEUE_BYTES / UNIT_BYTES;
const UNIT_BYTES: usize = 1 << 10;

/// Who is told what came of an append.
pub(super) type Answer = oneshot::Sender<Result<Appended>>;

/// Something for the writer to do.
pub(super) enum Job {
    Append(Box<Waiting>),
    /// Frames of the original of a copy.
    Put(Vec<Frame>, oneshot::Sender<Result<()>>, Room),
}

/// An append, until it is recorded.
pub(super) struct Waiting {
    pub(super) prepared: Prepared,
    pub(super) answer: Answer,
    pub(super) _room: Room,
}

/// A place in a queue, which is free again when this is dropped.
pub(super) struct Room(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// How much of a queue an append takes.
pub(super) fn units(bytes: usize, events: usize) -> u32 {
    let units = bytes.div_ceil(UNIT_BYTES).max(events).clamp(1, QUEUE_EVENTS);
    u32::try_from(units).expect("a queue has fewer units than that")
}

/// How much of a queue frames take.
pub(super) fn units_of_frames(frames: &[Frame]) -> u32 {
    let (bytes, events) = frames
        .iter()
        .fold((0, 0), |(bytes, events), frame| (bytes + frame.bytes().len(), events + frame.len()));
    units(bytes, events)
}

/// The queue of a log, from its first append through this handle on.
pub(super) struct Lane {
    pub(super) name: LogName,
    inner: Arc<Inner>,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closing: bool,
    ended: Vec<oneshot::Sender<()>>,
    /// Whether the thread is gone.
    over: bool,
}

impl Lane {
    /// A lane and its thread.
    pub(super) fn start(inner: Arc<Inner>, name: LogName) -> Result<Arc<Self>> {
        let room = Arc::new(Semaphore::new(QUEUE_EVENTS));
        let lane = Arc::new(Self { name, inner, queue: Mutex::default(), wake: Condvar::new(), room });
        let writer = Writer {
            lane: lane.clone(),
            id: FrameId::random(),
            writing: None,
            clock_accepted: None,
            committing: Duration::ZERO,
            in_a_row: 0,
            unresting: Instant::now(),
        };
        std::thread::Builder::new().name("precedent-remote".into()).spawn(move || writer.work())?;
        Ok(lane)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Waits for room in the queue: in turn, and until there is some.
    pub(super) async fn room(&self, units: u32) -> Result<Room> {
        self.room.clone().acquire_many_owned(units).await.map(Room).map_err(|_| self.over())
    }

    /// Room in the queue, if there is some at once.
    ///
    /// # Errors
    /// `overloaded` if there is not.
    pub(super) fn room_now(&self, units: u32) -> Result<Room> {
        self.room.clone().try_acquire_many_owned(units).map(Room).map_err(|error| match error {
            TryAcquireError::Closed => self.over(),
            TryAcquireError::NoPermits => {
                let message = format!(
                    "the queue of log '{}' is full: it holds {} MiB and {QUEUE_EVENTS} events at most; wait for what was \
                     submitted before",
                    self.name,
                    QUEUE_BYTES >> 20
                );
                Error::new(ErrorKind::Overloaded, message).retry_after(1)
            }
        })
    }

    /// Why it takes nothing any more.
    fn over(&self) -> Error {
        self.inner.check_stopped().err().unwrap_or_else(closed)
    }

    /// Queues a job.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        let mut queue = self.queue();
        if queue.closing {
            return Err(self.over());
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes no more jobs; the answer comes when those that wait are done.
    pub(super) fn close(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut queue = self.queue();
        queue.closing = true;
        if !queue.over {
            queue.ended.push(tell);
        }
        drop(queue);
        self.room.close();
        self.wake.notify_all();
        told
    }

    /// Waits for a job. `None` when the lane is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closing {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(|p| p.into_inner());
        }
    }

    /// The next append, if there is one that fits.
    fn next_append(&self, fits: impl Fn(&Prepared) -> bool) -> Option<Waiting> {
        let mut queue = self.queue();
        match queue.jobs.pop_front()? {
            Job::Append(waiting) if fits(&waiting.prepared) => Some(*waiting),
            other => {
                queue.jobs.push_front(other);
                None
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.queue().jobs.is_empty()
    }
}

/// What is being written to.
struct Writing {
    log: Arc<RemoteLog>,
    documents: Documents,
    drafts: Drafts,
    /// What new content is held against.
    recent: Recent,
    /// The number of events that `recent` has seen.
    seen: u64,
    /// The bucket of the frame drafted last.
    bucket: u64,
    /// Up to this frame others are thought to be waiting for their turn.
    others_until: u64,
}

/// What is recorded before a log is made.
struct Nothing;

impl History for Nothing {
    fn by_key(&self, _source: &str, _id: &str) -> Result<Option<RecordedEvent>> {
        Ok(None)
    }

    fn stream_tip(&self, _stream: &str) -> Result<Option<precedent_core::sequencer::StreamTip>> {
        Ok(None)
    }

    fn any_match(&self, _query: &Query, _after: Option<Position>) -> Result<Option<Position>> {
        Ok(None)
    }
}

/// The thread of a lane.
struct Writer {
    lane: Arc<Lane>,
    id: FrameId,
    writing: Option<Writing>,
    /// Behind the event by which this handle has recorded that it goes on with a clock that is off.
    clock_accepted: Option<u64>,
    /// How long the last commit took.
    committing: Duration,
    /// Frames of its own, one behind the other, without a moment's rest, and since when.
    in_a_row: u64,
    unresting: Instant,
}

/// Stops the handle if the thread panics: a panic is a defect of ours, and nobody goes on as if nothing had happened. Made
/// behind what is dropped with an answer in it, it does so before anybody is told.
struct Watch(Arc<Lane>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = format!("the writer of log '{}' panicked", self.0.name);
            self.0.inner.stop(&Error::new(ErrorKind::Internal, message).maybe_written());
        }
    }
}

/// The tries to record something, as long as others are quicker.
struct Race {
    lost: u32,
    /// When it was lost first. What came before is our own work, however long it took.
    begun: Option<Instant>,
    at_most: Duration,
}

impl Race {
    fn new(at_most: Duration) -> Self {
        Self { lost: 0, begun: None, at_most }
    }

    /// How long it has been going on.
    fn elapsed(&mut self) -> Duration {
        self.begun.get_or_insert_with(Instant::now).elapsed()
    }

    /// How long to wait before the next try; `None` if there has been enough of it.
    fn pause(&mut self) -> Option<Duration> {
        self.lost += 1;
        let (first, longest) = RACE_PAUSES;
        let doubled =
            self.lost.checked_sub(LOST_MAX + 1).map_or(Duration::ZERO, |n| first * (1 << n.min(16)));
        let pause = doubled.min(longest).mul_f64(rand::random::<f64>());
        (self.elapsed() + pause < self.at_most).then_some(pause)
    }
}

/// How a try to record a batch ended.
enum Tried {
    /// Everybody can be told. With the frame that was committed, if one was.
    Done(Vec<Result<Vec<Receipt>>>, u64, Option<u64>),
    /// There was more than was here: again.
    Again,
    /// Somebody else was quicker: again, on what is there by then.
    Lost,
}

impl Writer {
    fn work(mut self) {
        let lane = self.lane.clone();
        // Also if a defect of ours ends this thread: then whoever waits is told by the answer that is dropped.
        struct Over(Arc<Lane>);
        impl Drop for Over {
            fn drop(&mut self) {
                let mut queue = self.0.queue();
                queue.closing = true;
                queue.over = true;
                let (jobs, ended) = (std::mem::take(&mut queue.jobs), std::mem::take(&mut queue.ended));
                drop(queue);
                self.0.room.close();
                drop((jobs, ended));
            }
        }
        let _over = Over(lane.clone());
        let _watch = Watch(lane.clone());
        while let Some(job) = lane.next() {
            match job {
                Job::Append(waiting) => self.append(*waiting),
                Job::Put(frames, answer, _room) => {
                    let _watch = Watch(lane.clone());
                    let put = frames.into_iter().try_for_each(|frame| self.put(&frame));
                    let _ = answer.send(put);
                }
            }
            self.leave_room();
        }
        if let Some(writing) = self.writing.take() {
            writing.documents.finish(&self.lane.inner.runtime);
        }
    }

    fn inner(&self) -> &Inner {
        &self.lane.inner
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.inner().runtime.block_on(future)
    }

    /// Lets others go first for a moment, if there is no rest otherwise: see the [module documentation](self).
    fn leave_room(&mut self) {
        if self.lane.is_idle() {
            self.rested();
            return;
        }
        self.in_a_row += 1;
        let others = self.writing.as_ref().is_some_and(|writing| {
            writing.log.state().is_ok_and(|state| state.next_sequence < writing.others_until)
        });
        if others || self.in_a_row >= OTHERS_FRAMES || self.unresting.elapsed() >= UNRESTING_MAX {
            // As long as they take to catch up and commit, about.
            let commits = 1.0 + 2.0 * rand::random::<f64>();
            let moment = self.committing.max(COMMIT_MIN).mul_f64(commits).min(ROOM_FOR_OTHERS);
            self.wait(async { tokio::time::sleep(moment).await });
            self.rested();
        }
    }

    fn rested(&mut self) {
        self.in_a_row = 0;
        self.unresting = Instant::now();
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// `overloaded` if others have been quicker for too long.
    fn wait_for_turn(&self, race: &mut Race) -> Result<()> {
        let Some(pause) = race.pause() else {
            let seconds = race.elapsed().as_secs_f32();
            let message = format!(
                "log '{}' was written to by others {} times in {:.1} s before this could be recorded; nothing of it is, try \
                 again",
                self.lane.name, race.lost, seconds
            );
            return Err(Error::new(ErrorKind::Overloaded, message).retry_after(1));
        };
        if !pause.is_zero() {
            self.wait(async { tokio::time::sleep(pause).await });
        }
        Ok(())
    }

    /// Whether there was an error because the copy here is given up: a reader found it damaged, or it could not be written.
    /// Then nothing was written there, and the next copy is to be tried; a few of them.
    fn was_of_old_copy(&self, copies: &mut u32) -> bool {
        *copies += 1;
        *copies < COPIES_MAX
            && self.inner().check_stopped().is_ok()
            && self.writing.as_ref().is_some_and(|writing| writing.log.is_doubted())
    }

    /// Records this append and what else waits and fits beside it.
    fn append(&mut self, first: Waiting) {
        let mut batch = vec![first];
        let _watch = Watch(self.lane.clone());
        let (mut race, mut copies) = (Race::new(self.inner().options.settle_for), 0);
        let mut lost = false;
        let tried = loop {
            let tried = self.try_batch(&mut batch, lost);
            lost = matches!(tried, Ok(Tried::Lost));
            let again = match tried {
                Ok(Tried::Again | Tried::Lost) => self.wait_for_turn(&mut race),
                Ok(Tried::Done(receipts, size, frame)) => break Ok((receipts, size, frame)),
                Err(_) if self.was_of_old_copy(&mut copies) => Ok(()),
                Err(error) => break Err(error),
            };
            if let Err(error) = again {
                break Err(error);
            }
        };
        let (receipts, size, frame) = match tried {
            Ok(done) => done,
            Err(error) => {
                for waiting in batch {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
                return;
            }
        };
        let answers = batch
            .into_iter()
            .zip(receipts)
            .map(|(waiting, receipts)| (waiting.answer, receipts.map(|events| Appended { events, size })));
        let answers: Vec<_> = answers.collect();
        let tell = move |answers: Vec<(Answer, Result<Appended>)>| {
            for (answer, result) in answers {
                let _ = answer.send(result);
            }
        };
        match (frame, &self.writing) {
            (Some(sequence), Some(writing)) => {
                let written = writing.documents.written(sequence, self.inner().options.documents_wait);
                self.inner().runtime.spawn(async move {
                    written.await;
                    tell(answers);
                });
            }
            _ => tell(answers),
        }
    }

    /// Drafts a frame on what is here, and commits it. An error is that of every append of the batch. One that has lost
    /// catches up first: behind the pause and not before it, or whoever never rests has gone on meanwhile.
    fn try_batch(&mut self, batch: &mut Vec<Waiting>, lost: bool) -> Result<Tried> {
        self.inner().check_writable()?;
        self.find_log()?;
        if lost && self.writing.is_some() {
            self.catch_up()?;
        }
        if let Some(writing) = &self.writing
            && writing.log.copy.load(Ordering::Acquire)
            && self.wait(writing.log.is_copy())?
        {
            return Err(is_copy(&self.lane.name));
        }
        self.check_home()?;
        let frame_bytes = self.inner().remote.frame_bytes().clamp(1, FRAME_BYTES_MAX);
        let (accept_clock, limits) = (self.inner().options.accept_clock, self.inner().limits.clone());
        let now = (self.inner().options.clock)();
        // The log that an append makes gets an id of its own; until then it is drafted on nothing.
        let mut unmade = (Drafts::default(), Recent::new(Recent::BYTES_MAX));
        let (base, history): (Arc<LogState>, Box<dyn History>) = match &self.writing {
            Some(writing) => {
                let base = writing.log.state()?;
                let history = writing.log.mirror.history(base.size())?;
                (base, Box::new(history))
            }
            None => (Arc::new(LogState::empty(LogId::random())), Box::new(Nothing)),
        };
        let clock = self.check_clock(now, base.last_time);
        if let Err(error) = &clock
            && !accept_clock
        {
            return Err(error.clone());
        }
        let log = self.writing.as_ref().map(|writing| writing.log.clone());
        let (drafts, recent) = match &mut self.writing {
            Some(writing) => {
                writing.prepare(&base)?;
                (&mut writing.drafts, &mut writing.recent)
            }
            None => (&mut unmade.0, &mut unmade.1),
        };
        let mut draft = Draft::new(&base, now, recent, drafts);
        let mut receipts: Vec<Result<Vec<Receipt>>> = Vec::with_capacity(batch.len());
        for waiting in batch.iter() {
            receipts.push(draft.add(waiting.prepared.clone(), &*history));
        }
        // Those that are refused count as well: drafted again on what is there, all of them may be recorded.
        let mut literal_max =
            batch.iter().fold(OVERHEAD_BYTES_MAX, |sum, waiting| sum + waiting.prepared.bytes_max());
        while let Some(waiting) = self.lane.next_append(|prepared| {
            literal_max + prepared.bytes_max() <= FRAME_BYTES_MAX
                && (draft.is_empty() || draft.len_max() + prepared.bytes_max() <= frame_bytes)
        }) {
            literal_max += waiting.prepared.bytes_max();
            receipts.push(draft.add(waiting.prepared.clone(), &*history));
            batch.push(waiting);
        }
        let mut accepted = None;
        if clock.is_err() && self.clock_accepted.is_none() && !draft.is_empty() {
            let event = clock_accepted(now, base.last_time, &limits)?;
            if draft.fits(&event, FRAME_BYTES_MAX) && draft.add(event, &*history).is_ok() {
                accepted = Some(draft.size());
            }
        }
        let size = draft.size();
        let damaged = |receipts: &Result<_>| receipts.as_ref().is_err_and(|e| e.kind() == ErrorKind::Damaged);
        if receipts.iter().any(damaged) && log.is_some_and(|log| log.doubt()) {
            return Ok(Tried::Again);
        }
        let Some(frame) = draft.finish(self.id, true) else {
            return self.without_frame(receipts, &base);
        };
        let frame = Frame::decode(frame.bytes.into())?;
        if self.writing.is_none() {
            // It is drafted once more on the log that is there now, whoever made it.
            self.make_log(base.log, false)?;
            return Ok(Tried::Again);
        }
        match self.commit(&frame) {
            Ok(true) => {
                self.clock_accepted = self.clock_accepted.or(accepted);
                self.recorded(&frame)?;
                Ok(Tried::Done(receipts, size, Some(frame.chained().sequence)))
            }
            Ok(false) => {
                self.give_up(base.size());
                Ok(Tried::Lost)
            }
            Err(error) => {
                self.give_up(base.size());
                // Whoever asked for what is recorded since long is not concerned.
                let told = receipts.into_iter().map(|receipts| match receipts {
                    Ok(receipts) if receipts.iter().all(|r| is_old(r, base.size())) => Ok(receipts),
                    Err(refused) if !could_differ(&refused) && !names_one_of(&refused, base.size()) => {
                        Err(refused)
                    }
                    _ => Err(error.clone()),
                });
                Ok(Tried::Done(told.collect(), base.size(), None))
            }
        }
    }

    /// Nothing is to be recorded. What is refused is refused only if there is no more than is here.
    fn without_frame(&mut self, receipts: Vec<Result<Vec<Receipt>>>, base: &LogState) -> Result<Tried> {
        let refused = receipts.iter().any(|receipts| receipts.as_ref().is_err_and(could_differ));
        let more = refused && self.writing.is_some() && self.is_behind(base)?;
        Ok(if more { Tried::Again } else { Tried::Done(receipts, base.size(), None) })
    }

    /// Commits a frame and waits until it is settled: `true` if it is there, `false` if another is.
    ///
    /// # Errors
    /// What the service says if it refuses it; `unknown` if it could not be settled, and `log_went_backwards`: then the
    /// handle has stopped.
    fn commit(&mut self, frame: &Frame) -> Result<bool> {
        let begun = Instant::now();
        let settled = self.settle(frame);
        self.committing = begun.elapsed();
        settled
    }

    fn settle(&self, frame: &Frame) -> Result<bool> {
        let writing = self.writing.as_ref().expect("a frame is committed to a log that was made");
        let (log, chained) = (&writing.log, frame.chained());
        let header_len = FrameHeader::decode(frame.bytes())?.edge_end();
        let commit = Commit {
            log: log.id,
            sequence: chained.sequence,
            id: chained.id,
            first: chained.first,
            count: chained.count,
            hash: chained.hash(),
            previous: chained.previous,
            header: frame.bytes().slice(..header_len),
            bytes: frame.bytes().clone(),
        };
        let deadline = Instant::now() + self.inner().options.settle_for;
        let mut pause = PAUSES.0;
        let mut in_doubt = false;
        loop {
            let unsettled = match self.wait(log.remote.commit(&commit)) {
                Outcome::Committed => return Ok(true),
                Outcome::Taken => return Ok(false),
                Outcome::Refused(error) if !in_doubt => return Err(error),
                // That it is refused now says nothing of the time before.
                Outcome::Refused(error) => error,
                Outcome::Gone(what) => {
                    let error = log.went_backwards(&what);
                    self.inner().stop(&error);
                    return Err(error);
                }
                Outcome::Unsettled(error) => error,
            };
            in_doubt = true;
            if Instant::now() + pause > deadline {
                let error = Error::new(
                    ErrorKind::Unknown,
                    format!(
                        "frame {} of log '{}' could not be settled within {} s: {unsettled}",
                        chained.sequence,
                        self.lane.name,
                        self.inner().options.settle_for.as_secs_f32()
                    ),
                );
                self.inner().stop(&error);
                return Err(error);
            }
            self.wait(async { tokio::time::sleep(pause).await });
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// A frame is there: it is put here too, and its documents are written.
    fn recorded(&mut self, frame: &Frame) -> Result<()> {
        let writing = self.writing.as_mut().expect("a frame was committed to it");
        let log = writing.log.clone();
        writing.seen = writing.seen.max(frame.chained().tree_size());
        let put = self.inner().runtime.block_on(log.put(vec![Mirrored::Frame(frame.clone())]));
        if let Err(error) = put {
            // It is recorded, whatever became of the copy here: nobody is told otherwise. What is asked next says it.
            tracing::error!(%error, "the local copy cannot be written");
        }
        let writing = self.writing.as_mut().expect("it was there a moment ago");
        drop(writing.drafts.recorded(frame.chained().tree_size()));
        writing.documents.add(frame.chained().sequence);
        Ok(())
    }

    /// What was drafted on the log of so many events is not recorded.
    fn give_up(&mut self, size: u64) {
        if let Some(writing) = &mut self.writing {
            writing.drafts.forget_from(Position(size));
            writing.recent.forget_from(Position(size));
        }
        self.clock_accepted = self.clock_accepted.filter(|end| *end <= size);
    }

    fn catch_up(&self) -> Result<bool> {
        let writing = self.writing.as_ref().expect("there is a log to catch up with");
        self.wait(writing.log.catch_up())
    }

    /// Catches up; answers whether there is more than `base` then. A reader may have fetched it since that was looked at.
    fn is_behind(&self, base: &LogState) -> Result<bool> {
        self.catch_up()?;
        let writing = self.writing.as_ref().expect("it was caught up with");
        Ok(writing.log.state()?.next_sequence > base.next_sequence)
    }

    /// Looks whether the log has been made, if it had not. A copy that is in doubt is let go first.
    fn find_log(&mut self) -> Result<()> {
        if self.writing.as_ref().is_some_and(|writing| writing.log.is_doubted())
            && let Some(doubted) = self.writing.take()
        {
            // What of the documents is not written, those who come after begin with.
            drop(doubted.documents);
        }
        if self.writing.is_none()
            && let Some(log) = self.wait(self.inner().find(&self.lane.name))?
        {
            self.wait(log.catch_up())?;
            self.writing = Some(Writing::new(self.inner(), log)?);
        }
        Ok(())
    }

    /// Makes the log, unless somebody else has made one meanwhile: then it is that one.
    fn make_log(&mut self, id: LogId, copy: bool) -> Result<()> {
        let (name, home) = (self.lane.name.clone(), self.inner().remote.region());
        self.wait(self.inner().remote.make_log(&name, LogRecord { id, copy, home }))?;
        self.find_log()?;
        if self.writing.is_none() {
            let message = format!("log '{name}' was made a moment ago and is not there");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(())
    }

    /// Refuses to write from another region than the log's.
    fn check_home(&self) -> Result<()> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let (home, here) = (&writing.log.home, self.inner().remote.region());
        if !home.is_empty() && !here.is_empty() && !same_region(home, &here) {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                format!(
                    "log '{}' has its home in region '{home}', and this handle writes to '{here}': two regions would both \
                     accept a frame, and one would be lost; write to it through '{home}'",
                    self.lane.name
                ),
            ));
        }
        Ok(())
    }

    /// Holds the clock against the log and against the service's.
    fn check_clock(&self, now: Time, last: Time) -> Result<()> {
        check_clock(now, last)?;
        let inner = self.inner();
        let clock = inner.remote.clock().filter(|_| inner.options.service_clock);
        let Some((there, heard)) = clock else { return Ok(()) };
        let since =
            Time::from_system(std::time::SystemTime::now()).as_micros().saturating_sub(heard.as_micros());
        let there = Time::from_micros(there.as_micros().saturating_add(since))?;
        if now.as_micros().abs_diff(there.as_micros()) > CLOCK_TOLERANCE_MICROS {
            return Err(Error::new(
                ErrorKind::Clock,
                format!(
                    "the clock says {now}, that of {} says {there}; set the clock, or accept it",
                    self.inner().remote.url()
                ),
            ));
        }
        Ok(())
    }

    /// Adds a frame of the original to a copy.
    fn put(&mut self, frame: &Frame) -> Result<()> {
        let mut copies = 0;
        loop {
            match self.put_once(frame) {
                Err(_) if self.was_of_old_copy(&mut copies) => {}
                put => return put,
            }
        }
    }

    fn put_once(&mut self, frame: &Frame) -> Result<()> {
        self.inner().check_writable()?;
        let chained = frame.chained();
        self.find_log()?;
        if self.writing.is_none() {
            // A frame that is refused makes no log.
            frame.check()?;
            let empty = LogState::empty(chained.log);
            empty.after(frame)?;
            check_copied(frame, &empty, &Nothing)?;
            self.make_log(chained.log, true)?;
        }
        let mut race = Race::new(self.inner().options.settle_for);
        loop {
            let writing = self.writing.as_mut().expect("it was found or made");
            let base = writing.log.state()?;
            if base.log != chained.log {
                return Err(Error::new(
                    ErrorKind::LogForked,
                    format!(
                        "log '{}' is {}, the frames are of log {}",
                        self.lane.name, base.log, chained.log
                    ),
                ));
            }
            if chained.sequence < base.next_sequence {
                return match writing.log.mirror.chained(chained.sequence)? == *chained {
                    true => Ok(()),
                    false => Err(forked(&base, chained)),
                };
            }
            // Another copier may have added those in between.
            if chained.sequence > base.next_sequence && self.is_behind(&base)? {
                continue;
            }
            let writing = self.writing.as_ref().expect("it was there a moment ago");
            let log = writing.log.clone();
            if !self.wait(log.is_copy())? {
                return Err(Error::new(
                    ErrorKind::ReadOnly,
                    format!(
                        "log '{}' is one of its own, not a copy: frames of another log cannot be added",
                        self.lane.name
                    ),
                ));
            }
            self.check_home()?;
            frame.check()?;
            let state = base.after(frame)?;
            check_copied(frame, &base, &log.mirror.history(base.size())?)?;
            let writing = self.writing.as_mut().expect("it was there a moment ago");
            writing.prepare(&base)?;
            // A frame may be as large as one can be without the edge.
            let edge_len = state.tree.edge().len() * precedent_core::Hash::LEN;
            let edge = (frame.bytes().len() + edge_len <= FRAME_BYTES_MAX).then_some(&state.tree);
            let encoded = frame.reencode(edge, &mut writing.recent);
            let committed = encoded.and_then(|bytes| {
                let frame = Frame::decode(Bytes::from(bytes))?;
                Ok(self.commit(&frame)?.then_some(frame))
            });
            match committed {
                Ok(Some(frame)) => return self.recorded(&frame),
                Ok(None) => {
                    self.give_up(base.size());
                    self.wait_for_turn(&mut race)?;
                    self.catch_up()?;
                }
                Err(error) => {
                    self.give_up(base.size());
                    return Err(error);
                }
            }
        }
    }
}

impl Writing {
    fn new(inner: &Inner, log: Arc<RemoteLog>) -> Result<Self> {
        let state = log.state()?;
        let documents = Documents::start(inner, log.clone());
        Ok(Self {
            recent: log.mirror.recall()?,
            log,
            documents,
            drafts: Drafts::default(),
            seen: state.size(),
            bucket: state.next_sequence / BUCKET_FRAMES,
            others_until: 0,
        })
    }

    /// Before a frame is drafted on `base`: what others have recorded is held against too, and nothing is referred to
    /// that lies below the bucket before.
    fn prepare(&mut self, base: &LogState) -> Result<()> {
        if self.seen < base.size() {
            // The tips of streams that are remembered are not the last ones any more.
            self.drafts = Drafts::default();
            self.log.mirror.recall_from(&mut self.recent, Position(self.seen))?;
            self.seen = base.size();
            self.others_until = base.next_sequence + OTHERS_FRAMES;
        }
        let bucket = base.next_sequence / BUCKET_FRAMES;
        if bucket != self.bucket {
            let oldest = (bucket - 1) * BUCKET_FRAMES;
            self.recent.forget_before(self.log.mirror.first_position(oldest)?);
            self.bucket = bucket;
        }
        Ok(())
    }
}

/// Region names are written with and without blanks and capitals.
fn same_region(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
    plain(one) == plain(other)
}

/// Whether an event was recorded before the log had `size` events.
fn is_old(receipt: &Receipt, size: u64) -> bool {
    receipt.status == Status::Existing && receipt.position.0 < size
}

/// Whether an error names an event from position `base` on.
fn names_one_of(error: &Error, base: u64) -> bool {
    error.conflicts().iter().filter_map(|conflict| conflict.position).any(|position| position.0 >= base)
}

/// Whether an append that was refused could have gone well on a longer log: half of a batch that is there may be all of
/// it by now.
fn could_differ(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::AlreadyExists)
}

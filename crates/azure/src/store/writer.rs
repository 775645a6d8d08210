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
//!   no timer.
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
use precedent_core::sequencer::{
    CLOCK_TOLERANCE_MICROS, Draft, History, LogState, Prepared, check_clock, check_copied, clock_accepted,
};
use precedent_core::store::{Receipt, Status};
use precedent_core::{
    Appended, Error, ErrorKind, FrameId, LogId, LogName, Position, Query, RecordedEvent, Result, Time,
};
use precedent_engine::Mirrored;

use super::documents::Documents;
use super::log::RemoteLog;
use super::{Inner, closed};
use crate::remote::{Commit, LogRecord, Outcome};

/// Frames whose number has the same quotient lie in one partition of the service: what is stored refers to nothing below
/// the one before.
pub const BUCKET_FRAMES: u64 = 4_096;
/// The first pause before a frame is sent again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Who is told what came of an append.
pub(super) type Answer = oneshot::Sender<Result<Appended>>;

/// Something for the writer to do.
pub(super) enum Job {
    Append(Box<Prepared>, Answer),
    /// Frames of the original of a copy.
    Put(Vec<Frame>, oneshot::Sender<Result<()>>),
}

/// The queue of a log, from its first append through this handle on.
pub(super) struct Lane {
    pub(super) name: LogName,
    inner: Arc<Inner>,
    queue: Mutex<Queue>,
    wake: Condvar,
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
        let lane = Arc::new(Self { name, inner, queue: Mutex::default(), wake: Condvar::new() });
        let writer =
            Writer { lane: lane.clone(), id: FrameId::random(), writing: None, clock_accepted: None };
        std::thread::Builder::new().name("precedent-remote".into()).spawn(move || writer.work())?;
        Ok(lane)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Queues a job; it comes back if the lane is closed.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        let mut queue = self.queue();
        if queue.closing {
            return Err(closed());
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
    fn next_append(&self, fits: impl Fn(&Prepared) -> bool) -> Option<(Box<Prepared>, Answer)> {
        let mut queue = self.queue();
        match queue.jobs.front() {
            Some(Job::Append(prepared, _)) if fits(prepared) => match queue.jobs.pop_front() {
                Some(Job::Append(prepared, answer)) => Some((prepared, answer)),
                _ => unreachable!("it was at the front"),
            },
            _ => None,
        }
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
}

/// How a try to record a batch ended.
enum Tried {
    /// Everybody can be told. With the frame that was committed, if one was.
    Done(Vec<Result<Vec<Receipt>>>, u64, Option<u64>),
    /// There is more than was here: again.
    Again,
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
                queue.jobs.clear();
                queue.ended.clear();
            }
        }
        let _over = Over(lane.clone());
        while let Some(job) = lane.next() {
            match job {
                Job::Append(prepared, answer) => self.append(*prepared, answer),
                Job::Put(frames, answer) => {
                    let put = frames.into_iter().try_for_each(|frame| self.put(&frame));
                    let _ = answer.send(put);
                }
            }
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

    /// Records this append and what else waits and fits beside it.
    fn append(&mut self, first: Prepared, answer: Answer) {
        let mut batch = vec![(first, answer)];
        let tried = loop {
            match self.try_batch(&mut batch) {
                Ok(Tried::Again) => {}
                Ok(Tried::Done(receipts, size, frame)) => break Ok((receipts, size, frame)),
                Err(error) => break Err(error),
            }
        };
        let (receipts, size, frame) = match tried {
            Ok(done) => done,
            Err(error) => {
                for (_, answer) in batch {
                    let _ = answer.send(Err(error.clone()));
                }
                return;
            }
        };
        let answers = batch
            .into_iter()
            .zip(receipts)
            .map(|((_, answer), receipts)| (answer, receipts.map(|events| Appended { events, size })));
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

    /// Drafts a frame on what is here, and commits it. An error is that of every append of the batch.
    fn try_batch(&mut self, batch: &mut Vec<(Prepared, Answer)>) -> Result<Tried> {
        self.inner().check_writable()?;
        self.find_log()?;
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
        for (prepared, _) in batch.iter() {
            receipts.push(draft.add(prepared.clone(), &*history));
        }
        // Those that are refused count as well: drafted again on what is there, all of them may be recorded.
        let mut literal_max = batch.iter().fold(OVERHEAD_BYTES_MAX, |sum, (p, _)| sum + p.bytes_max());
        while let Some((prepared, answer)) = self.lane.next_append(|prepared| {
            literal_max + prepared.bytes_max() <= FRAME_BYTES_MAX
                && (draft.is_empty() || draft.len_max() + prepared.bytes_max() <= frame_bytes)
        }) {
            literal_max += prepared.bytes_max();
            receipts.push(draft.add((*prepared).clone(), &*history));
            batch.push((*prepared, answer));
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
                self.catch_up()?;
                Ok(Tried::Again)
            }
            Err(error) => {
                self.give_up(base.size());
                // Whoever asked for what is recorded since long is not concerned.
                let told = receipts.into_iter().map(|receipts| match receipts {
                    Ok(receipts) if receipts.iter().all(|r| is_old(r, base.size())) => Ok(receipts),
                    Err(refused) if !depends_on_the_end(&refused) && !names_one_of(&refused, base.size()) => {
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
        // Half of a batch that is there may be all of it by now.
        let could_differ = |e: &Error| depends_on_the_end(e) || e.kind() == ErrorKind::AlreadyExists;
        let refused = receipts.iter().any(|receipts| receipts.as_ref().is_err_and(could_differ));
        let more = refused && self.writing.is_some() && self.is_behind(base)?;
        Ok(if more { Tried::Again } else { Tried::Done(receipts, base.size(), None) })
    }

    /// Commits a frame and waits until it is settled: `true` if it is there, `false` if another is.
    ///
    /// # Errors
    /// What the service says if it refuses it; `unknown` if it could not be settled, and `log_went_backwards`: then the
    /// handle has stopped.
    fn commit(&self, frame: &Frame) -> Result<bool> {
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
            doubted.documents.finish(&self.inner().runtime);
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

/// Whether an append that was refused could have gone well on a longer log.
fn depends_on_the_end(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
}

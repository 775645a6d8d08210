//! The documents of a log's events: written behind the frames, never before them, and never in their way.
//!
//! Whoever writes a frame writes its documents, and says so in the service: the frames whose documents are complete are
//! a set there, to which every writer adds its own. What a writer that died has left, the next one writes: everything
//! that is not in the set when it begins, and later on what has been missing there for a while.
//!
//! A document that cannot be written now holds up no other: it is tried again behind those that were not tried yet.
//!
//! *Invariant*: the set never names a frame before its documents were written or found there, or given up for good (a
//! partition at its ceiling, a document the service refuses): those are counted, and [`State::finding`] names them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use precedent_core::store::{Finding, Severity};
use precedent_core::{Error, ErrorKind, Position, Read, Result};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Inner;
use super::log::RemoteLog;
use crate::remote::{Document, FrameSet};

/// Documents that are written at once, and about how many bytes of data.
const BATCH: (usize, usize) = (100, 2 << 20);
/// What was written is said after so many frames …
const SAY_FRAMES: u64 = 64;
/// … or when it is so old.
const SAY_AFTER: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 5 });
/// How long after its last frame a writer looks what there is beside its own.
const IDLE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 2_000 });
/// Whoever wrote a frame has said so within this time after another saw it, or has gone.
const LEFT_AFTER: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 15_000 });
/// Frames of others that are looked after at a time.
const OTHERS_MAX: usize = 64;
/// The first pause after a failure that can pass, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long closing waits for what is to be written, at most: while that fails, not at all. What is not written then,
/// the next writer writes.
const CLOSING: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });

/// The documents of a log that is written to. Dropped, they end by themselves.
pub(super) struct Documents {
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// What is to be said of them.
#[derive(Debug, Default)]
pub(super) struct State {
    queue: Mutex<Queue>,
    /// There is something to do.
    work: Notify,
    /// Something has been done.
    done: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Frames whose documents are to be written.
    pending: BTreeSet<u64>,
    /// Those of which some could not be written when that was last tried.
    failed: BTreeSet<u64>,
    closing: bool,
    /// Whether nothing could be written when that was last tried: then nobody waits.
    lagging: bool,
    /// Documents that were given up, and why the first was.
    refused: u64,
    reason: Option<Error>,
    /// Why the last try failed, if it did.
    failure: Option<Error>,
}

impl State {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// What somebody who examines the log should know.
    pub(super) fn finding(&self) -> Vec<Finding> {
        let queue = self.queue();
        let mut findings = Vec::new();
        if let (refused @ 1.., Some(reason)) = (queue.refused, &queue.reason) {
            findings.push(Finding {
                code: "documents_refused",
                severity: Severity::Warning,
                message: format!("{refused} documents could not be written, the first because: {reason}"),
            });
        }
        if let Some(failure) = &queue.failure {
            let waiting = queue.pending.len() + queue.failed.len();
            let message = format!("the documents of {waiting} frames wait to be written: {failure}");
            findings.push(Finding { code: "documents_behind", severity: Severity::Warning, message });
        }
        findings
    }

    fn close(&self) {
        self.queue().closing = true;
        self.work.notify_one();
        self.done.notify_waiters();
    }
}

impl Documents {
    /// Begins with what is not written yet.
    pub(super) fn start(inner: &Inner, log: Arc<RemoteLog>) -> Self {
        let state = Arc::new(State::default());
        inner.documents.lock().unwrap_or_else(|p| p.into_inner()).insert(log.name.clone(), state.clone());
        let worker = Worker {
            log,
            state: state.clone(),
            inline_bytes_max: inner.options.inline_bytes_max,
            there: FrameSet::default(),
            unsaid: 0,
            said: Instant::now(),
            seen: (0, Instant::now()),
        };
        Self { state, task: inner.runtime.spawn(worker.work()) }
    }

    /// A frame has been recorded: its documents are to be written.
    pub(super) fn add(&self, sequence: u64) {
        self.state.queue().pending.insert(sequence);
        self.state.work.notify_one();
    }

    /// Waits until the documents of a frame are written, at most so long, and not at all while that fails.
    pub(super) fn written(
        &self,
        sequence: u64,
        at_most: Duration,
    ) -> impl Future<Output = ()> + Send + 'static {
        let state = self.state.clone();
        async move {
            let written = async {
                loop {
                    let done = state.done.notified();
                    let mut done = std::pin::pin!(done);
                    done.as_mut().enable();
                    let waits = {
                        let queue = state.queue();
                        queue.pending.contains(&sequence) && !queue.lagging && !queue.closing
                    };
                    if !waits {
                        return;
                    }
                    done.await;
                }
            };
            let _ = tokio::time::timeout(at_most, written).await;
        }
    }

    /// Writes what is left, within a bound.
    pub(super) fn finish(mut self, runtime: &Handle) {
        self.state.close();
        runtime.block_on(async {
            if tokio::time::timeout(CLOSING, &mut self.task).await.is_err() {
                self.task.abort();
            }
        });
    }
}

impl Drop for Documents {
    fn drop(&mut self) {
        self.state.close();
    }
}

struct Worker {
    log: Arc<RemoteLog>,
    state: Arc<State>,
    inline_bytes_max: usize,
    /// The frames whose documents are there, as far as is known here.
    there: FrameSet,
    /// Frames of these that were not said yet.
    unsaid: u64,
    /// When the others' were last heard.
    said: Instant,
    /// The end of the log when that was last noted, and when.
    seen: (u64, Instant),
}

/// How it went.
enum Step {
    Nothing,
    /// Some documents were written.
    Some,
    /// None could be, for now.
    Failed(Error),
}

impl Worker {
    async fn work(mut self) {
        /// Also if a defect of ours ends this: then nobody waits for it.
        struct Over(Arc<State>);
        impl Drop for Over {
            fn drop(&mut self) {
                let mut queue = self.0.queue();
                queue.closing = true;
                if std::thread::panicking() {
                    let error = Error::new(ErrorKind::Internal, "what writes documents panicked");
                    queue.failure = Some(error);
                }
                drop(queue);
                self.0.done.notify_waiters();
            }
        }
        let _over = Over(self.state.clone());
        let mut pause = PAUSES.0;
        let mut begun = false;
        loop {
            let step = if begun { self.step().await } else { self.begin().await.map(|()| Step::Some) };
            begun |= step.is_ok();
            let step = step.unwrap_or_else(Step::Failed);
            let closing = {
                let mut queue = self.state.queue();
                queue.lagging = matches!(step, Step::Failed(_));
                match &step {
                    Step::Failed(error) => queue.failure = Some(error.clone()),
                    _ if queue.failed.is_empty() => queue.failure = None,
                    _ => {}
                }
                queue.closing
            };
            self.state.done.notify_waiters();
            match step {
                Step::Some => pause = PAUSES.0,
                Step::Nothing if closing => break,
                Step::Nothing => self.rest().await,
                // What is not written now, the next writer writes.
                Step::Failed(_) if closing => break,
                Step::Failed(error) => {
                    tracing::warn!(%error, log = %self.log.name, "documents could not be written, trying again");
                    self.pause(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    if self.state.queue().closing {
                        break;
                    }
                }
            }
        }
        let _ = self.say().await;
    }

    /// Waits, but not for long once it is closed.
    async fn pause(&self, pause: Duration) {
        let closed = async {
            while !self.state.queue().closing {
                self.state.work.notified().await;
            }
        };
        let _ = tokio::time::timeout(pause, closed).await;
    }

    /// Finds out what is not written.
    async fn begin(&mut self) -> Result<()> {
        self.there = self.log.remote.documented(self.log.id).await?;
        let end = self.log.state()?.next_sequence;
        let missing = (self.there.through()..end).filter(|sequence| !self.there.contains(*sequence));
        self.state.queue().pending.extend(missing);
        self.seen = (end, Instant::now());
        Ok(())
    }

    /// Writes some documents: of frames that were not tried yet, and of the others once there are none of these.
    async fn step(&mut self) -> Result<Step> {
        let end = self.log.state()?.next_sequence;
        let frames: Vec<u64> = {
            let mut queue = self.state.queue();
            if queue.pending.range(..end).next().is_none() {
                let failed = std::mem::take(&mut queue.failed);
                queue.pending.extend(failed);
            }
            queue.pending.range(..end).copied().take(BATCH.0).collect()
        };
        if frames.is_empty() {
            return Ok(Step::Nothing);
        }
        let mut documents: Vec<(u64, Document)> = Vec::new();
        let mut read = Vec::new();
        let mut bytes = 0;
        for sequence in frames {
            if !read.is_empty() && (documents.len() >= BATCH.0 || bytes >= BATCH.1) {
                break;
            }
            for document in documents_of(&self.log, sequence, self.inline_bytes_max).await? {
                bytes += document.event.event.data().map_or(0, |data| data.len());
                documents.push((sequence, document));
            }
            read.push(sequence);
        }
        let mut waiting = BTreeSet::new();
        let mut failure = None;
        let (sequences, documents): (Vec<u64>, Vec<Document>) = documents.into_iter().unzip();
        for (chunk, sequences) in documents.chunks(BATCH.0).zip(sequences.chunks(BATCH.0)) {
            let answers = self.log.remote.put_documents(chunk).await;
            for (answer, sequence) in answers.into_iter().zip(sequences) {
                match answer {
                    Ok(()) => {}
                    Err(error) if can_pass(&error) => {
                        waiting.insert(*sequence);
                        failure.get_or_insert(error);
                    }
                    Err(error) => {
                        let mut queue = self.state.queue();
                        queue.refused += 1;
                        queue.reason.get_or_insert(error);
                    }
                }
            }
        }
        let tried = read.len();
        {
            let mut queue = self.state.queue();
            for sequence in read {
                queue.pending.remove(&sequence);
                if waiting.contains(&sequence) {
                    queue.failed.insert(sequence);
                } else {
                    self.there.insert(sequence);
                    self.unsaid += 1;
                }
            }
            if let Some(failure) = &failure {
                queue.failure = Some(failure.clone());
            }
        }
        if self.unsaid >= SAY_FRAMES || (self.unsaid > 0 && self.said.elapsed() >= SAY_AFTER) {
            self.say().await?;
            self.take_what_was_left()?;
        }
        match failure {
            Some(error) if waiting.len() == tried => Ok(Step::Failed(error)),
            _ => Ok(Step::Some),
        }
    }

    /// Waits for something to do. After a while it looks after what others have recorded and left.
    async fn rest(&mut self) {
        let state = self.state.clone();
        loop {
            if tokio::time::timeout(IDLE, state.work.notified()).await.is_ok() {
                return;
            }
            if self.say().await.is_err() {
                return;
            }
            match self.take_what_was_left() {
                Ok(0) => {}
                _ => return,
            }
            let Ok(end) = self.log.state().map(|state| state.next_sequence) else { return };
            if self.there.through() >= end {
                // There is nothing more to do until something is recorded.
                state.work.notified().await;
                return;
            }
        }
    }

    /// Takes on what was recorded a while ago and nobody has said the documents of; answers how much that is.
    fn take_what_was_left(&mut self) -> Result<usize> {
        let end = self.log.state()?.next_sequence;
        let (seen, since) = self.seen;
        if since.elapsed() < LEFT_AFTER {
            return Ok(0);
        }
        let mut queue = self.state.queue();
        let missing = (self.there.through()..seen).filter(|sequence| {
            !self.there.contains(*sequence)
                && !queue.pending.contains(sequence)
                && !queue.failed.contains(sequence)
        });
        let missing: Vec<u64> = missing.take(OTHERS_MAX).collect();
        if missing.is_empty() {
            self.seen = (end, Instant::now());
        }
        queue.pending.extend(&missing);
        Ok(missing.len())
    }

    /// Says what has been written, and hears what others have.
    async fn say(&mut self) -> Result<()> {
        let theirs = match self.unsaid {
            0 => self.log.remote.documented(self.log.id).await?,
            _ => self.log.remote.add_documented(self.log.id, &self.there).await?,
        };
        self.there.add(&theirs);
        (self.unsaid, self.said) = (0, Instant::now());
        Ok(())
    }
}

/// The documents of a frame. Events that cannot be read have none.
pub(super) async fn documents_of(
    log: &Arc<RemoteLog>,
    sequence: u64,
    inline_bytes_max: usize,
) -> Result<Vec<Document>> {
    log.here(move |log| read_documents(log, sequence, inline_bytes_max)).await
}

fn read_documents(log: &RemoteLog, sequence: u64, inline_bytes_max: usize) -> Result<Vec<Document>> {
    let chained = log.mirror.chained(sequence)?;
    let mut read = Read {
        after: chained.first.0.checked_sub(1).map(Position),
        before: Some(Position(chained.tree_size())),
        ..Read::default()
    };
    let mut documents = Vec::with_capacity(chained.count as usize);
    loop {
        let page = log.mirror.read(&read)?;
        documents.extend(page.events.into_iter().map(|event| Document {
            name: log.name.clone(),
            event,
            inline_bytes_max,
        }));
        match page.next {
            Some(covered) => read = read.continued(covered),
            None => return Ok(documents),
        }
    }
}

/// Whether a document that was refused now may be taken later.
fn can_pass(error: &Error) -> bool {
    use ErrorKind::{Io, NotFound, Overloaded, Unauthorized, Unavailable, Unknown};
    matches!(error.kind(), Io | NotFound | Overloaded | Unauthorized | Unavailable | Unknown)
}

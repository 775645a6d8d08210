//! The documents of a log's events: written behind the frames, never before them, and never in their way.
//!
//! Whoever writes a frame writes its documents. What nobody has written, because a writer died in between, the next one
//! writes: first everything from the frame on through which a register of the log says they are complete, and when
//! there is nothing else to do also what lies between its own frames.
//!
//! *Invariant*: the register never says that a frame's documents are there before they were written or found there, or
//! given up for good (a partition at its ceiling, a document the service refuses): those are counted, and
//! [`State::finding`] names them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use precedent_core::store::{Finding, Severity};
use precedent_core::{Error, ErrorKind, LogName, Position, Read, Result, Store};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Inner;
use super::log::RemoteLog;
use crate::remote::Document;

/// Documents that are written at once, and about how many bytes of data.
const BATCH: (usize, usize) = (100, 2 << 20);
/// The register is written after so many frames, and when there is nothing else to do.
const REGISTER_FRAMES: u64 = 64;
/// How long after the last frame of its own a writer looks after those of others.
const IDLE: Duration = Duration::from_secs(2);
/// Frames of others that are looked after at a time.
const OTHERS_MAX: u64 = 64;
/// The first pause after a failure that can pass, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long closing waits for what is to be written. What is not written then, the next writer writes.
const CLOSING: Duration = Duration::from_secs(10);

/// The documents of a log that is written to.
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
    closing: bool,
    /// Whether the last try failed: then nobody waits.
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
            let message =
                format!("the documents of {} frames wait to be written: {failure}", queue.pending.len());
            findings.push(Finding { code: "documents_behind", severity: Severity::Warning, message });
        }
        findings
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
            through: 0,
            said: 0,
            complete: BTreeSet::new(),
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
    pub(super) fn finish(self, runtime: &Handle) {
        self.state.queue().closing = true;
        self.state.work.notify_one();
        self.state.done.notify_waiters();
        let mut task = self.task;
        runtime.block_on(async {
            if tokio::time::timeout(CLOSING, &mut task).await.is_err() {
                task.abort();
            }
        });
    }
}

struct Worker {
    log: Arc<RemoteLog>,
    state: Arc<State>,
    inline_bytes_max: usize,
    /// The documents of all frames before this one are there.
    through: u64,
    /// What the register says.
    said: u64,
    /// Later frames whose documents are there.
    complete: BTreeSet<u64>,
}

impl Worker {
    async fn work(mut self) {
        let mut pause = PAUSES.0;
        let mut begun = false;
        loop {
            let step = match begun {
                true => self.step().await,
                false => self.begin().await.map(|()| {
                    begun = true;
                    true
                }),
            };
            let closing = {
                let mut queue = self.state.queue();
                queue.lagging = step.is_err();
                queue.failure = step.as_ref().err().cloned();
                queue.closing
            };
            self.state.done.notify_waiters();
            match step {
                Ok(true) => pause = PAUSES.0,
                Ok(false) if closing => break,
                Ok(false) => self.rest().await,
                // What is not written now, the next writer writes.
                Err(_) if closing => break,
                Err(error) => {
                    tracing::warn!(%error, log = %self.log.name, "documents could not be written, trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
        let _ = self.say().await;
    }

    /// Finds out what is not written.
    async fn begin(&mut self) -> Result<()> {
        self.through = self.log.remote.documents_through(self.log.id).await?;
        self.said = self.through;
        let end = self.log.state()?.next_sequence;
        self.state.queue().pending.extend(self.through..end);
        Ok(())
    }

    /// Writes some documents; answers whether there were any to write.
    async fn step(&mut self) -> Result<bool> {
        let end = self.log.state()?.next_sequence;
        let frames: Vec<u64> = {
            let queue = self.state.queue();
            queue.pending.iter().copied().take_while(|sequence| *sequence < end).take(BATCH.0).collect()
        };
        if frames.is_empty() {
            return Ok(false);
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
        for sequence in read.into_iter().filter(|sequence| !waiting.contains(sequence)) {
            self.state.queue().pending.remove(&sequence);
            if sequence >= self.through {
                self.complete.insert(sequence);
            }
        }
        while self.complete.remove(&self.through) {
            self.through += 1;
        }
        if self.through >= self.said + REGISTER_FRAMES {
            self.say().await?;
        }
        failure.map_or(Ok(true), Err)
    }

    /// Waits for something to do. After a while it looks after what others have recorded and left.
    async fn rest(&mut self) {
        let state = self.state.clone();
        if tokio::time::timeout(IDLE, state.work.notified()).await.is_ok() {
            return;
        }
        if self.say().await.is_err() {
            return;
        }
        let Ok(there) = self.log.remote.documents_through(self.log.id).await else { return };
        if there > self.through {
            self.through = there;
            self.complete = self.complete.split_off(&there);
        }
        let Ok(end) = self.log.state().map(|state| state.next_sequence) else { return };
        let others =
            (self.through..end.min(self.through + OTHERS_MAX)).filter(|s| !self.complete.contains(s));
        let others: Vec<u64> = others.collect();
        if others.is_empty() {
            // There is nothing more to do until something is recorded.
            state.work.notified().await;
            return;
        }
        state.queue().pending.extend(others);
    }

    /// Writes the register, if there is something to say.
    async fn say(&mut self) -> Result<()> {
        if self.through > self.said {
            self.log.remote.set_documents_through(self.log.id, self.through).await?;
            self.said = self.through;
        }
        Ok(())
    }
}

/// The documents of a frame. Events that cannot be read have none.
pub(super) async fn documents_of(
    log: &RemoteLog,
    sequence: u64,
    inline_bytes_max: usize,
) -> Result<Vec<Document>> {
    let chained = log.mirror.chained(sequence)?;
    let mut read = Read {
        after: chained.first.0.checked_sub(1).map(Position),
        before: Some(Position(chained.tree_size())),
        ..Read::default()
    };
    let mut documents = Vec::with_capacity(chained.count as usize);
    loop {
        let page = log.mirror.store().read(&LogName::default(), &read).await?;
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

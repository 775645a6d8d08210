//! A log on a service: the protocol, once, over [`Remote`].
//!
//! The log is its frames there. What is here, in a directory for caches, is a copy of them with an index
//! ([`Mirror`](precedent_engine::Mirror)): it is caught up before anybody relies on the log's end, and can be deleted.
//!
//! | module | responsible for |
//! |---|---|
//! | `options` | how a log is opened |
//! | `log` | what is there and what is here |
//! | `writer` | the next frame, and whose it is |
//! | `documents` | each event once more, for the tools of the service |
//! | `verify` | everything that is there, trusting nothing that is here |
//!
//! Invariants: an append is answered only when its frame is durable there; a read that reaches the end of what is here
//! looks whether there is more; nothing decides anything by a document.

mod documents;
mod log;
mod options;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::memory::{empty_head, no_log};
use precedent_core::prepared::Prepared;
use precedent_core::sequencer::CLOCK_TOLERANCE_MICROS;
use precedent_core::store::{Finding, Progress, Severity, Usage, beyond};
use precedent_core::verify::{Expect, Report, Verifier};
use precedent_core::{
    Append, Appended, Direction, Error, ErrorKind, ExpectedRegister, Head, Limits, LogName, Page, Pending,
    Position, Read, Register, RegisterName, Result, Store, Submitted,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;

use self::documents::State;
use self::log::RemoteLog;
use self::writer::{Job, Lane, Room, Waiting, units, units_of_frames};
use crate::remote::Remote;

pub use self::options::{Access, CACHE_VARIABLE, CatchingUp, Options};
pub use self::writer::BUCKET_FRAMES;

/// A store of logs on a service. Clones are one handle.
///
/// It keeps what it has opened: a copy of each log, with its index, as an embedded store keeps it (some open files, what
/// of the index is in memory, and two threads once something was fetched); and for each log that was written to one more
/// thread, one task and a queue of at most 64 MiB. Nothing of that is let go before the handle is closed or dropped.
#[derive(Clone)]
pub struct RemoteStore {
    inner: Arc<Owner>,
}

/// What all clones of a handle share. The lanes hold only what is inside: so this goes with the last clone, once, and
/// ends them.
struct Owner(Arc<Inner>);

impl std::ops::Deref for Owner {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Owner {
    /// The threads end by themselves when what is queued is done.
    fn drop(&mut self) {
        let lanes = {
            let mut logs = lock(&self.logs);
            logs.closed = true;
            std::mem::take(&mut logs.lanes)
        };
        for lane in lanes.into_values() {
            drop(lane.close());
        }
    }
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteStore({})", self.inner.remote.url())
    }
}

/// What readers and writers of all logs share.
struct Inner {
    remote: Arc<dyn Remote>,
    options: Options,
    limits: Limits,
    /// What writers wait on: they have threads of their own.
    runtime: Handle,
    logs: Mutex<Logs>,
    /// One opens a log at a time.
    opening: tokio::sync::Mutex<()>,
    /// What is to be said of the documents of the logs that are written to.
    documents: Mutex<BTreeMap<LogName, Arc<State>>>,
    /// Why nothing is written any more, after a failure that could not be settled.
    stopped: Mutex<Option<Error>>,
    /// Told when the handle stops or is closed.
    ended: Notify,
}

#[derive(Default)]
struct Logs {
    closed: bool,
    /// Whether the lanes have ended too.
    ended: bool,
    open: BTreeMap<LogName, Arc<RemoteLog>>,
    lanes: BTreeMap<LogName, Arc<Lane>>,
}

/// Copies of a log that are tried in a row, when each is given up while it is used.
const COPIES_MAX: u32 = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn closed() -> Error {
    Error::new(ErrorKind::Stopped, "the store has been closed")
}

impl Inner {
    /// Stops the whole handle: nothing is written any more, and everybody who waits is told.
    fn stop(&self, error: &Error) {
        lock(&self.stopped).get_or_insert_with(|| error.clone());
        self.ended.notify_waiters();
    }

    fn check_stopped(&self) -> Result<()> {
        match &*lock(&self.stopped) {
            Some(error) => Err(Error::new(
                ErrorKind::Stopped,
                format!("the store stopped after a failure, open it again: {error}"),
            )),
            None => Ok(()),
        }
    }

    fn check_open(&self) -> Result<()> {
        if lock(&self.logs).closed { Err(closed()) } else { Ok(()) }
    }

    fn check_writable(&self) -> Result<()> {
        if self.options.access == Access::ReadOnly {
            let message = format!("{} is open for reading only", self.remote.url());
            return Err(Error::new(ErrorKind::ReadOnly, message));
        }
        self.check_stopped()
    }

    /// The log of this name, if there is one.
    async fn find(&self, name: &LogName) -> Result<Option<Arc<RemoteLog>>> {
        let open = || lock(&self.logs).open.get(name).filter(|log| !log.is_doubted()).cloned();
        if let Some(log) = open() {
            return Ok(Some(log));
        }
        let _turn = self.opening.lock().await;
        if let Some(log) = open() {
            return Ok(Some(log));
        }
        let doubted = lock(&self.logs).open.remove(name);
        if let Some(log) = doubted {
            let copy = log.mirror.path().display();
            if log.is_damaged() {
                tracing::warn!(log = %name, %copy, "the local copy is damaged and made anew");
                log.here(|log| log.mirror.remove()).await?;
            } else {
                tracing::warn!(log = %name, %copy, "the local copy could not be written and is opened again");
                log.here(|log| log.mirror.give_up()).await?;
            }
        }
        let Some(record) = self.remote.log(name).await? else { return Ok(None) };
        let log = RemoteLog::open(self.remote.clone(), name.clone(), record, &self.options).await?;
        let mut logs = lock(&self.logs);
        if logs.ended {
            return Err(closed());
        }
        logs.open.insert(name.clone(), log.clone());
        Ok(Some(log))
    }

    /// A log that is there. `None` is `main` before its first append.
    async fn existing(&self, name: &LogName) -> Result<Option<Arc<RemoteLog>>> {
        self.check_open()?;
        match self.find(name).await? {
            None if name.as_str() != LogName::MAIN => Err(no_log(name)),
            found => Ok(found),
        }
    }

    /// Holds this machine's clock against the service's.
    fn clock_finding(&self) -> Option<Finding> {
        let (there, heard) = self.remote.clock()?;
        let off = there.as_micros().abs_diff(heard.as_micros());
        (off > CLOCK_TOLERANCE_MICROS).then(|| Finding {
            code: "clock_off",
            severity: Severity::Error,
            message: format!(
                "this machine's clock said {heard} when {} said {there}: appends are refused",
                self.remote.url()
            ),
        })
    }
}

impl RemoteStore {
    /// A store on this service. A runtime of tokio has to be entered: its threads speak with the service, whichever thread
    /// asks the store.
    ///
    /// A runtime of one thread does too, as long as somebody runs it and nobody blocks that thread with a
    /// [`Pending::wait`]; [`Store::append_blocking`] there is refused as `invalid`.
    ///
    /// # Errors
    /// Nothing is asked of the service here: whatever is wrong with it, it has said when it was connected to.
    pub fn open(remote: Arc<dyn Remote>, options: Options) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|_| {
            Error::new(ErrorKind::Internal, "a store on a service is opened in a runtime of tokio")
        })?;
        let limits = Limits::new(remote.durability());
        let inner = Inner {
            remote,
            options,
            limits,
            runtime,
            logs: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            documents: Mutex::default(),
            stopped: Mutex::default(),
            ended: Notify::new(),
        };
        Ok(Self { inner: Arc::new(Owner(Arc::new(inner))) })
    }

    /// The lane of a log, which is started by the first that is to be written there.
    fn lane(&self, name: &LogName) -> Result<Arc<Lane>> {
        let mut logs = lock(&self.inner.logs);
        if logs.closed {
            return Err(closed());
        }
        if let Some(lane) = logs.lanes.get(name) {
            return Ok(lane.clone());
        }
        let lane = Lane::start(self.inner.0.clone(), name.clone())?;
        logs.lanes.insert(name.clone(), lane.clone());
        Ok(lane)
    }

    /// Prepares an append on this thread, beside the writer: limits, salts, commitments.
    fn prepare(&self, append: Append) -> Result<Prepared> {
        self.inner.check_writable()?;
        Prepared::new(append, &self.inner.limits)
    }

    /// Queues an append.
    fn queue(lane: &Lane, prepared: Prepared, room: Room) -> Result<oneshot::Receiver<Result<Appended>>> {
        let (answer, answered) = oneshot::channel();
        lane.submit(Job::Append(Box::new(Waiting { prepared, answer, _room: room })))?;
        Ok(answered)
    }

    /// Queues an append if there is room for it.
    fn queue_now(&self, name: &LogName, append: Append) -> Result<oneshot::Receiver<Result<Appended>>> {
        let events = append.events.len();
        let prepared = self.prepare(append)?;
        let lane = self.lane(name)?;
        let room = lane.room_now(units(prepared.bytes_max(), events))?;
        Self::queue(&lane, prepared, room)
    }

    async fn append_now(&self, name: &LogName, append: Append) -> Result<Appended> {
        let events = append.events.len();
        let prepared = self.prepare(append)?;
        let lane = self.lane(name)?;
        let room = lane.room(units(prepared.bytes_max(), events)).await?;
        Self::answer(name, Self::queue(&lane, prepared, room)?).await
    }

    async fn answer<T>(name: &LogName, answered: oneshot::Receiver<Result<T>>) -> Result<T> {
        let gone = |_| {
            let message = format!("the writer of log '{name}' ended");
            Err(Error::new(ErrorKind::Stopped, message).maybe_written())
        };
        answered.await.unwrap_or_else(gone)
    }

    /// Runs something on a log that is there: again, on the next copy of it, if the one it ran on was given up meanwhile.
    async fn on<T, F>(&self, name: &LogName, run: impl Fn(Arc<RemoteLog>) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut copies = 0;
        loop {
            copies += 1;
            let Some(log) = self.inner.existing(name).await? else { return Ok(None) };
            match run(log.clone()).await {
                Err(_) if log.is_doubted() && copies < COPIES_MAX => {}
                done => return done.map(Some),
            }
        }
    }

    async fn read_page(&self, name: &LogName, read: &Read) -> Result<Page> {
        let page = self.on(name, |log| self.read_log(log, read)).await?;
        match (page, read.at_least) {
            (Some(page), _) => Ok(page),
            (None, Some(position)) => self.wait_for_log(name, read, position).await,
            (None, None) => {
                read.check(&self.inner.limits, 0)?;
                Ok(Page { events: Vec::new(), damaged: Vec::new(), next: None, size: 0 })
            }
        }
    }

    async fn read_log(&self, log: Arc<RemoteLog>, read: &Read) -> Result<Page> {
        if let Some(position) = read.at_least {
            self.wait_for(&log, position).await?;
        }
        let mut page = self.read_here(&log, read).await?;
        let damaged: Vec<Position> = page.damaged.iter().map(|damage| damage.position).collect();
        if log.doubt_of(damaged).await? {
            return Err(Error::damaged(format!("the local copy in {}", log.mirror.path().display())));
        }
        for damage in &mut page.damaged {
            if let Some(error) = log.damage_at(damage.position.0) {
                damage.error = error.context(format!("position {}", damage.position));
            }
        }
        Ok(page)
    }

    /// A page of what is here, after a look whether there is more if it reaches the end.
    async fn read_here(&self, log: &Arc<RemoteLog>, read: &Read) -> Result<Page> {
        let page_here = || {
            let here = Read { at_least: None, ..read.clone() };
            log.here(move |log| {
                let page = log.mirror.read(&here);
                if page.as_ref().is_err_and(|error| error.kind() == ErrorKind::Damaged) {
                    log.doubt();
                }
                page
            })
        };
        let size = log.state()?.size();
        let open_end = read.before.is_none_or(|before| before.0 > size);
        let mut fresh = false;
        if open_end && read.direction == Direction::Backward && !fresh {
            log.catch_up().await?;
            fresh = true;
        }
        let mut page = page_here().await;
        // A page that ends before the log does is one of a prefix, whatever has come since.
        let reaches_the_end = match &page {
            Ok(page) => open_end && page.next.is_none(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if reaches_the_end && !fresh {
            log.catch_up().await?;
            // Whoever fetched it, since the page was read.
            if log.state()?.size() > size {
                page = page_here().await;
            }
        }
        page
    }

    /// Waits a bounded time until the log holds this position.
    async fn wait_for(&self, log: &RemoteLog, position: Position) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.inner.options.at_least_wait;
        loop {
            if position.0 < log.state()?.size() {
                return Ok(());
            }
            log.catch_up().await?;
            let size = log.state()?.size();
            if position.0 < size {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(beyond(position, size));
            }
            let pause = self.inner.options.poll.min(self.inner.options.at_least_wait / 4);
            tokio::time::sleep(pause).await;
            self.inner.check_open()?;
        }
    }

    /// As [`Self::wait_for`], for a log that is not made yet.
    async fn wait_for_log(&self, name: &LogName, read: &Read, position: Position) -> Result<Page> {
        let deadline = tokio::time::Instant::now() + self.inner.options.at_least_wait;
        while self.inner.existing(name).await?.is_none() {
            if tokio::time::Instant::now() >= deadline {
                return Err(beyond(position, 0));
            }
            tokio::time::sleep(self.inner.options.poll).await;
        }
        Box::pin(self.read_page(name, read)).await
    }

    async fn head_now(&self, name: &LogName) -> Result<Head> {
        let head = self.on(name, |log| async move {
            log.catch_up().await?;
            head_of(&log)
        });
        Ok(head.await?.unwrap_or_else(empty_head))
    }

    /// Waits until the log has more than `size` events here, because this handle or another process recorded some.
    async fn grow(&self, name: &LogName, size: u64) -> Result<Head> {
        loop {
            self.inner.check_stopped()?;
            let ended = self.inner.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            let poll = self.inner.options.poll;
            let looked = self.on(name, |log| async move {
                let watch = log.watch();
                log.catch_up().await?;
                Ok((watch, head_of(&log)?))
            });
            let Some((mut watch, head)) = looked.await? else {
                tokio::select! {
                    () = &mut ended => self.inner.check_open()?,
                    () = tokio::time::sleep(poll) => {}
                }
                continue;
            };
            if head.size > size {
                return Ok(head);
            }
            tokio::select! {
                () = &mut ended => self.inner.check_open()?,
                _ = watch.wait_for(|here| *here > size) => {}
                () = tokio::time::sleep(poll) => {}
            }
        }
    }

    async fn examine_now(&self, name: &LogName) -> Result<(Usage, Vec<Finding>)> {
        Ok(self.on(name, |log| self.examine_log(name, log)).await?.unwrap_or_default())
    }

    async fn examine_log(&self, name: &LogName, log: Arc<RemoteLog>) -> Result<(Usage, Vec<Finding>)> {
        log.catch_up().await?;
        let (usage, mut findings) = log.here(|log| log.mirror.examine()).await?;
        findings.extend(self.inner.remote.examine(name, log.id).await?);
        findings.extend(self.inner.clock_finding());
        if let Err(error) = self.inner.check_stopped() {
            findings.push(Finding { code: "stopped", severity: Severity::Error, message: error.to_string() });
        }
        if let Some(state) = lock(&self.inner.documents).get(name) {
            findings.extend(state.finding());
        }
        let (through, frames) =
            (self.inner.remote.documented(log.id).await?.through(), log.state()?.next_sequence);
        findings.push(Finding {
            code: "documents",
            severity: Severity::Info,
            message: format!(
                "documents are complete through {through} of {frames} frames; verify compares them"
            ),
        });
        findings.push(Finding {
            code: "local_copy",
            severity: Severity::Info,
            message: format!(
                "the sizes are those of the local copy in {}, which can be deleted",
                log.mirror.path().display()
            ),
        });
        Ok((usage, findings))
    }
}

fn head_of(log: &RemoteLog) -> Result<Head> {
    let state = log.state()?;
    Ok(Head {
        log: Some(log.id),
        size: state.size(),
        root: state.tree.root(),
        frames: state.next_sequence,
        recorded: (state.size() > 0).then_some(state.last_time),
    })
}

impl Store for RemoteStore {
    fn limits(&self) -> Limits {
        self.inner.limits.clone()
    }

    fn url(&self) -> String {
        self.inner.remote.url()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        self.append_now(log, append).boxed()
    }

    fn append_blocking(&self, log: &LogName, append: Append) -> Result<Appended> {
        if Handle::try_current().is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::CurrentThread) {
            return Err(Error::invalid(
                "the runtime has this one thread, and blocking it would be for ever: await the append instead",
            ));
        }
        let (store, name) = (self.clone(), log.clone());
        Pending::new(async move { store.append_now(&name, append).await }).wait()
    }

    fn submit(&self, log: &LogName, append: Append) -> Submitted {
        let name = log.clone();
        match self.queue_now(log, append) {
            Ok(answered) => {
                Submitted::Queued(Pending::new(async move { Self::answer(&name, answered).await }))
            }
            Err(error) => Submitted::Refused(error),
        }
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        self.read_page(log, read).boxed()
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        self.head_now(log).boxed()
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        self.grow(log, size).boxed()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        async move {
            self.inner.check_open()?;
            let mut logs = self.inner.remote.logs().await?;
            logs.sort();
            Ok(logs)
        }
        .boxed()
    }

    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>> {
        async move {
            let frames = self.on(log, |log| async move {
                if from >= log.state()?.next_sequence {
                    log.catch_up().await?;
                }
                log.here(move |log| log.mirror.frames(from, bytes_max)).await
            });
            Ok(frames.await?.unwrap_or_default())
        }
        .boxed()
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        async move {
            self.inner.check_writable()?;
            if !frames.is_empty() {
                let (answer, answered) = oneshot::channel();
                let lane = self.lane(log)?;
                let room = lane.room(units_of_frames(&frames)).await?;
                lane.submit(Job::Put(frames, answer, room))?;
                Self::answer(log, answered).await?;
            }
            self.head_now(log).await
        }
        .boxed()
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        async move {
            self.inner.check_writable()?;
            let found = self.inner.existing(log).await?.ok_or_else(|| no_log(log))?;
            self.inner.remote.promote(log, found.id).await?;
            found.is_copy().await.map(drop)
        }
        .boxed()
    }

    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        async move {
            let inline_bytes_max = self.inner.options.inline_bytes_max;
            let verified = self
                .on(log, |log| async move { verify::verify(&log, inline_bytes_max, expect, progress).await });
            Ok(verified.await?.unwrap_or_else(|| Verifier::new(expect).finish()))
        }
        .boxed()
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        self.examine_now(log).boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move {
            self.inner.check_open()?;
            self.inner.remote.register(name).await
        }
        .boxed()
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        async move {
            self.inner.check_open()?;
            self.inner.check_writable()?;
            if value.len() as u64 > self.inner.limits.register_bytes_max {
                let (what, limit) =
                    (format!("the value of register '{name}'"), self.inner.limits.register_bytes_max);
                return Err(Error::limit(what, value.len() as u64, limit, "bytes"));
            }
            self.inner.remote.set_register(name, expected, value).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let lanes = {
                let mut logs = lock(&self.inner.logs);
                if std::mem::replace(&mut logs.closed, true) {
                    return Err(closed());
                }
                logs.lanes.values().cloned().collect::<Vec<_>>()
            };
            let ends: Vec<_> = lanes.iter().map(|lane| lane.close()).collect();
            for end in ends {
                let _ = end.await;
            }
            let open = {
                let mut logs = lock(&self.inner.logs);
                logs.lanes.clear();
                logs.ended = true;
                std::mem::take(&mut logs.open)
            };
            self.inner.ended.notify_waiters();
            for log in open.into_values() {
                log.here(|log| {
                    log.mirror.close();
                    Ok(())
                })
                .await?;
            }
            Ok(())
        }
        .boxed()
    }
}

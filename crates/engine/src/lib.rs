//! The embedded store of Precedent: one directory, one writer, one sync a frame.
//!
//! ```text
//! precedent.store          this directory is a store
//! lock                     held by the writer; says who it is
//! registers/NAME.reg       one file a register
//! logs/NAME/log            the log's id
//! logs/NAME/00000000.seg   segments: frames, one after the other
//! logs/NAME/00000000.map   where in its segment each frame lies (derived)
//! logs/NAME/*.pack         the frames of sealed segments, in their place
//! logs/NAME/index/*.run    which positions have a term (derived)
//! logs/NAME/published      how far readers in other processes may look
//! logs/NAME/clean          where the log ended when it was closed in good order
//! ```
//!
//! | module | responsible for |
//! |---|---|
//! | `io` | the few verbs asked of a file system; the tests' one loses what was not synced |
//! | `segment` | segment files, and where a frame lies |
//! | `pack` | sealed segments, compressed |
//! | `packer` | when and how they become packs |
//! | `reader` | events and frames, from wherever they are |
//! | `kept` | what was read lately, up to so many bytes |
//! | `index` | which positions have a term: runs, tables, cursors |
//! | `recovery` | finding the end of a log, torn or damaged, and where the writer goes on |
//! | `writer` | group commit: sequence, write, sync, publish, answer |
//! | `log` | what readers and the writer of one log share |
//! | `page` | the pages of a read, cut into shares that several threads read |
//! | `ahead` | pages that are begun before they are asked for |
//! | `helpers` | the threads that help: with long pages, and with large appends |
//! | `look` | the end of an existing log, while a writer may be at work |
//! | `verify` | every byte of the files, trusting nothing |
//! | `registers` | small values with compare-and-swap |
//! | `meta` | the small files |
//! | `mirror` | a log that is kept elsewhere, held in a directory as well |
//!
//! Invariants: a frame is written only after the sync of the one before it; nothing is published or answered
//! before its sync; whatever is derived is checked before it is believed, and can be deleted.

mod ahead;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
mod helpers;
mod index;
mod io;
mod kept;
mod log;
mod look;
mod meta;
mod mirror;
#[cfg(test)]
mod mirror_tests;
mod pack;
#[cfg(test)]
mod pack_tests;
mod packer;
#[cfg(test)]
mod packing_beside_tests;
mod page;
#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod read_tests;
mod reader;
mod recovery;
mod registers;
mod segment;
mod verify;
mod writer;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::memory::{Clock, no_log};
use precedent_core::prepared::{Batch, Prepared};
use precedent_core::sequencer::{History, LogState, StreamTip, check_copied};
use precedent_core::store::{Finding, Progress, Usage, beyond};
use precedent_core::verify::{Expect, Report};
use precedent_core::{
    Append, Appended, Durability, Error, ErrorKind, ExpectedRegister, Head, Limits, LogId, LogName, Page,
    Pending, Position, Query, Read, RecordedEvent, Register, RegisterName, Result, Store, Submitted, Time,
};

use crate::ahead::Readers;
use crate::io::{Io, LockKind, Mode, RealIo, read_file};
use crate::log::{Job, Log, closed};
use crate::meta::LogMeta;
use crate::registers::Registers;

pub use crate::mirror::{Blame, Hole, Mirror, MirrorHistory, MirrorOptions, Mirrored};

/// Whether a store is opened to be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Takes the lock; there is one such handle at a time.
    ReadWrite,
    /// Takes no lock and writes nothing. Beside a writer it sees what that has published.
    ReadOnly,
}

/// How a store is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Whether it may be written to.
    pub access: Access,
    /// Makes the store if the directory is empty or does not exist.
    pub create: bool,
    /// Goes on although the clock is behind the log by more than five minutes. The log records that.
    pub accept_clock: bool,
    /// What time it is.
    pub clock: Clock,
    /// A segment is sealed when the next frame would make it longer than this. The default is 64 MiB.
    pub segment_bytes: u64,
    /// An index run is written every so many bytes of log. The default is 16 MiB: opening replays no more.
    pub index_flush_bytes: u64,
    /// Whether sealed segments are packed: compressed, in the background. Without it a log stays as it was written.
    pub pack: bool,
    /// Whether index runs and packs are written by a thread of their own. Tests switch it off to be the same every time.
    pub background: bool,
    /// Whether it is a [`Mirror`]: then a frame of which only the beginning is known ends no log.
    pub(crate) is_mirror: bool,
    /// A frame of this size is written past the system's cache, if that can be had.
    pub(crate) direct_frame_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            create: true,
            accept_clock: false,
            clock: Arc::new(|| Time::from_system(std::time::SystemTime::now())),
            segment_bytes: 64 << 20,
            index_flush_bytes: 16 << 20,
            pack: true,
            background: true,
            is_mirror: false,
            direct_frame_bytes: DIRECT_FRAME_BYTES,
        }
    }
}

/// Copying a frame of this size into the system's cache costs as much as all of its hashes, and more where the pages of
/// the cache are new. Smaller ones are what many appenders make one event at a time: they are faster in zeroed space,
/// and somebody may wait to read them.
const DIRECT_FRAME_BYTES: u64 = 96 << 10;

/// The options as the logs of an open store see them.
pub(crate) struct Settings {
    access: Access,
    pub(crate) accept_clock: bool,
    pub(crate) clock: Clock,
    pub(crate) segment_bytes: u64,
    pub(crate) index_flush_bytes: u64,
    pub(crate) pack: bool,
    pub(crate) background: bool,
    pub(crate) is_mirror: bool,
    pub(crate) direct_frame_bytes: u64,
    pub(crate) limits: Limits,
    pub(crate) lock_path: PathBuf,
    /// Those who read page by page.
    pub(crate) readers: Readers,
    /// Why nothing is written any more, after a failure that could not be settled.
    stopped: Mutex<Option<Error>>,
    /// Those who are told of it.
    stop_waiters: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Settings {
    pub(crate) fn writes(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Stops the whole handle: every log and the registers. Everybody who waits is told.
    pub(crate) fn stop(&self, error: &Error) {
        lock(&self.stopped).get_or_insert_with(|| error.clone());
        lock(&self.stop_waiters).clear();
    }

    /// Told when the handle stops: then the sender is dropped.
    fn on_stop(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut waiters = lock(&self.stop_waiters);
        waiters.retain(|waiter| !waiter.is_canceled());
        waiters.push(tell);
        told
    }

    /// The error of everything after such a failure.
    pub(crate) fn check_stopped(&self) -> Result<()> {
        match &*lock(&self.stopped) {
            Some(error) => Err(Error::new(
                ErrorKind::Stopped,
                format!("the store stopped after a failure, open it again: {error}"),
            )),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const LOCK_FILE: &str = "lock";

/// How long opening waits for a lock that a reader holds for a moment to see whether there is a writer.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// How often a handle beside a writer looks for what that has published.
const POLL: Duration = Duration::from_millis(20);
/// How often a log is verified from its beginning because a writer in another process packed what was to be read.
const VERIFY_LOOKS_MAX: u32 = 8;
/// How long a read waits for its [`Read::at_least`].
const AT_LEAST_WAIT: Duration = Duration::from_secs(5);

/// Who has the lock of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process, if it is known.
    pub pid: Option<u32>,
    /// Where it serves the store over HTTP, if it does.
    pub url: Option<String>,
}

/// Who holds the lock of the store in this directory right now; `None` if nobody does.
///
/// # Errors
/// `not_a_store` if the directory is not one.
pub fn owner(path: &Path) -> Result<Option<Owner>> {
    owner_in(&RealIo, path)
}

fn owner_in(io: &dyn Io, path: &Path) -> Result<Option<Owner>> {
    check_is_store(io, path)?;
    let lock = path.join(LOCK_FILE);
    match io.lock(&lock, LockKind::Shared) {
        Ok(Some(_)) => return Ok(None),
        Ok(None) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::from(e).context(lock.display())),
    }
    let text = String::from_utf8(read_file(io, &lock)?).unwrap_or_default();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(Some(Owner { pid: field("pid").and_then(|p| p.parse().ok()), url: field("url").map(str::to_owned) }))
}

fn check_is_store(io: &dyn Io, path: &Path) -> Result<()> {
    meta::check_store(io, path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            let message = match io.list(path) {
                Ok(names) if names.is_empty() => {
                    format!("{} is empty: there is no store in it yet", path.display())
                }
                Ok(_) => format!("{} is not a store: it has no file '{}'", path.display(), meta::STORE_FILE),
                Err(_) => format!("{} does not exist: there is no store yet", path.display()),
            };
            Error::new(ErrorKind::NotAStore, message)
        }
        _ => e,
    })
}

/// The embedded store: a directory of logs. See the [crate documentation](crate).
pub struct EmbeddedStore {
    io: Arc<dyn Io>,
    path: PathBuf,
    settings: Arc<Settings>,
    registers: Registers,
    logs: Arc<Mutex<Logs>>,
    /// Held as long as the store is open for writing.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
}

/// The logs that have been asked for.
#[derive(Default)]
struct Logs {
    closed: bool,
    slots: BTreeMap<LogName, Arc<Mutex<Slot>>>,
}

/// The place of one log. Its lock is held while the log is opened, closed or replaced, so that none of these
/// happens twice at a time, and other logs do not wait.
#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    Open(Arc<Log>),
    /// The store has been closed.
    Closed,
}

impl std::fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedStore({})", self.path.display())
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory.
    ///
    /// # Errors
    /// `not_a_store` for a directory that holds something else; `locked` if another process writes to it;
    /// `unsupported_format` for one of a later version; `read_only` without permission to write.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::open_in(Arc::new(RealIo), path, options)
    }

    fn open_in(io: Arc<dyn Io>, path: &Path, options: Options) -> Result<Self> {
        let writes = options.access == Access::ReadWrite;
        let makes = writes && options.create && prepare(&*io, path)?;
        if !makes {
            check_is_store(&*io, path)?;
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = if writes { Some(take_lock(&*io, path, &lock_path)?) } else { None };
        if makes {
            make_store(&*io, path)?;
        }
        check_is_store(&*io, path)?;
        let settings = Settings {
            access: options.access,
            accept_clock: options.accept_clock,
            clock: options.clock,
            segment_bytes: options.segment_bytes,
            index_flush_bytes: options.index_flush_bytes,
            pack: options.pack,
            background: options.background,
            direct_frame_bytes: options.direct_frame_bytes,
            is_mirror: options.is_mirror,
            limits: Limits::new(Durability::Device),
            lock_path,
            readers: Readers::default(),
            stopped: Mutex::default(),
            stop_waiters: Mutex::default(),
        };
        let settings = Arc::new(settings);
        let store = Self {
            registers: Registers::new(io.clone(), path.join("registers"), settings.clone()),
            io,
            path: path.to_owned(),
            settings,
            logs: Arc::default(),
            lock: Mutex::new(lock),
        };
        if writes {
            store.write_owner(None)?;
            store.registers.settle()?;
        }
        // What can be wrong with the main log is said now, not at the first read.
        store.log(&LogName::default())?;
        if writes {
            // What a writer that died has left is settled, and readers in other processes told how far to look.
            store.settle_others()?;
        }
        Ok(store)
    }

    /// Settles the logs beside `main` that were not closed in good order. They are closed again, so that a store
    /// of many logs does not hold them all open; what is wrong with one of them is said when it is asked for.
    fn settle_others(&self) -> Result<()> {
        for name in self.names()?.into_iter().filter(|name| name.as_str() != LogName::MAIN) {
            if read_file(&*self.io, &self.log_dir(&name).join(meta::CLEAN_FILE)).is_ok() {
                continue;
            }
            if let Ok(log) = self.open_log(&name) {
                log.close();
            }
        }
        Ok(())
    }

    /// Tells other processes where this store is served, so that they ask there instead of being refused.
    pub fn publish_url(&self, url: &str) -> Result<()> {
        self.write_owner(Some(url))
    }

    fn write_owner(&self, url: Option<&str>) -> Result<()> {
        let mut text = format!("pid {}\n", std::process::id());
        if let Some(url) = url {
            text.push_str(&format!("url {url}\n"));
        }
        let file = self.io.open(&self.settings.lock_path, Mode::Write)?;
        file.set_len(0)?;
        file.write_at(text.as_bytes(), 0)?;
        Ok(())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_open(&self) -> Result<()> {
        if lock(&self.logs).closed { Err(closed()) } else { Ok(()) }
    }

    /// The place of a log, whether or not there is one.
    fn slot(&self, name: &LogName) -> Result<Arc<Mutex<Slot>>> {
        let mut logs = lock(&self.logs);
        if logs.closed {
            return Err(closed());
        }
        Ok(logs.slots.entry(name.clone()).or_default().clone())
    }

    /// The names of the logs on disk, those included of which nothing more can be read than that they are there.
    fn names(&self) -> Result<Vec<LogName>> {
        let mut names = Vec::new();
        for name in self.io.list(&self.path.join("logs"))? {
            if let Ok(name) = name.parse::<LogName>()
                && !LogMeta::read(&*self.io, &self.log_dir(&name)).is_ok_and(|meta| meta.is_none())
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn log_dir(&self, name: &LogName) -> PathBuf {
        self.path.join("logs").join(name.as_str())
    }

    /// The log, opened if it is not. One that does not exist is ready for its first append.
    fn log(&self, name: &LogName) -> Result<Arc<Log>> {
        let slot = self.slot(name)?;
        let mut slot = lock(&slot);
        match &*slot {
            Slot::Closed => Err(closed()),
            // One that was closed to be replaced, and then was not.
            Slot::Open(log) if log.is_closed() => {
                let log = self.open_log(name)?;
                *slot = Slot::Open(log.clone());
                Ok(log)
            }
            // A reader that looked before the log was made looks again.
            Slot::Open(log) if self.settings.writes() || log.published().size > 0 => Ok(log.clone()),
            Slot::Open(log) if LogMeta::read(&*self.io, &self.log_dir(name))?.is_none() => Ok(log.clone()),
            _ => {
                let log = self.open_log(name)?;
                *slot = Slot::Open(log.clone());
                Ok(log)
            }
        }
    }

    fn open_log(&self, name: &LogName) -> Result<Arc<Log>> {
        let read_only = (!self.settings.writes()).then(|| self.is_read_only());
        Log::open(self.io.clone(), self.log_dir(name), name.clone(), self.settings.clone(), read_only)
    }

    fn is_read_only(&self) -> Error {
        Error::new(ErrorKind::ReadOnly, format!("{} is open for reading only", self.path.display()))
    }

    /// A log that is there: asking for one that is not leaves nothing behind.
    fn existing_log(&self, name: &LogName) -> Result<Arc<Log>> {
        self.check_open()?;
        let known = lock(&self.logs).slots.contains_key(name) || name.as_str() == LogName::MAIN;
        if !known && LogMeta::read(&*self.io, &self.log_dir(name))?.is_none() {
            return Err(no_log(name));
        }
        let log = self.log(name)?;
        log.check_exists()?;
        Ok(log)
    }

    /// The log, after a look at what a writer in another process has published.
    fn fresh_log(&self, name: &LogName) -> Result<Arc<Log>> {
        let log = self.existing_log(name)?;
        log.refresh()?;
        Ok(log)
    }

    /// Hands a job to the writer of a log, to be waited for. `here`: as in [`Log::submit`].
    fn submit<T>(
        &self,
        name: &LogName,
        job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job,
        log: impl Fn() -> Result<Arc<Log>>,
        here: bool,
    ) -> Result<Answered<T>> {
        let (answer, answered) = oneshot::channel();
        self.hand_over([job(answer)], log, here)?;
        Ok(Answered { answered, log: name.clone() })
    }

    /// Hands jobs to the writer of a log. One that was closed meanwhile has been replaced, unless the store has been closed.
    fn hand_over<J: IntoIterator<Item = Job>>(
        &self,
        mut jobs: J,
        log: impl Fn() -> Result<Arc<Log>>,
        here: bool,
    ) -> Result<()> {
        loop {
            match log()?.submit(jobs, here) {
                Ok(()) => return Ok(()),
                Err((error, None)) => return Err(error),
                Err((_, Some(back))) => jobs = back,
            }
            self.check_open()?;
        }
    }

    /// Checks an append and makes it ready on this thread, others helping if it is much; then queues it. Where this thread
    /// will make the frame itself, because nothing else is under way, it drafts it meanwhile.
    fn queue_append(&self, name: &LogName, append: Append, here: bool) -> Result<QueuedAppend> {
        let prepared = Prepared::checked(append, &self.settings.limits)?;
        let _forget = self.if_unmade(name)?;
        let batch = prepared.batch().clone();
        ask_for_help(&prepared);
        if !here || prepared.bytes_max() > MEANWHILE_BYTES || !self.log(name)?.is_idle() {
            batch.make_ready();
        }
        let job = |answer| Job::Append(prepared, answer);
        let answered = self.submit(name, job, || self.log(name), here)?;
        // Somebody else was quicker, and drafts it.
        batch.make_ready();
        Ok(QueuedAppend { answered, _forget })
    }

    /// The same of several, which are in the queue before the first is taken from it.
    fn queue_appends(&self, name: &LogName, appends: Vec<Append>) -> Vec<Result<QueuedAppend>> {
        let mut jobs = Vec::with_capacity(appends.len());
        let mut queue = |append| {
            let prepared = Prepared::checked(append, &self.settings.limits)?;
            let _forget = self.if_unmade(name)?;
            ask_for_help(&prepared);
            prepared.batch().make_ready();
            let (answer, answered) = oneshot::channel();
            jobs.push(Job::Append(prepared, answer));
            Ok(QueuedAppend { answered: Answered { answered, log: name.clone() }, _forget })
        };
        let queued: Vec<Result<QueuedAppend>> = appends.into_iter().map(&mut queue).collect();
        if jobs.is_empty() {
            return queued;
        }
        match self.hand_over(jobs, || self.log(name), false) {
            Ok(()) => queued,
            Err(error) => queued.into_iter().map(|queued| queued.and(Err(error.clone()))).collect(),
        }
    }

    /// What lets go of the log again if it is not there and an append does not make it.
    fn if_unmade(&self, name: &LogName) -> Result<Option<Unmade>> {
        let unmade = self.log(name)?.check_exists().is_err();
        Ok(unmade.then(|| Unmade { logs: self.logs.clone(), name: name.clone() }))
    }

    /// Waits until the log holds more than `size` events or the time is up.
    async fn grow(&self, log: &Arc<Log>, size: u64, until: Option<Instant>) -> Result<()> {
        loop {
            let told = log.waiter();
            let stopped = self.settings.on_stop();
            self.settings.check_stopped()?;
            if log.published().size > size || log.refresh()? || log.was_made_since()? {
                return Ok(());
            }
            if self.settings.writes() && until.is_none() {
                // Whoever ends the wait without news has closed the log, or put a copy in its place.
                let news = futures_util::future::select(told, stopped).await;
                self.settings.check_stopped()?;
                if !matches!(news, futures_util::future::Either::Left((Ok(()), _))) {
                    self.check_open()?;
                    return Ok(());
                }
                continue;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            // Without a runtime there is no timer: a thread waits for us, a moment.
            let (wake, woken) = oneshot::channel();
            std::thread::Builder::new().name("precedent-poll".into()).spawn(move || {
                std::thread::sleep(POLL);
                let _ = wake.send(());
            })?;
            futures_util::future::select(told, woken).await;
            self.check_open()?;
        }
    }

    /// Answers whether it was open: of several calls one closes it, and lets the lock go when all is done.
    fn close_now(&self) -> bool {
        self.close_and(|| ()).is_some()
    }

    /// The same, with something to do at the end, before another process can have the lock.
    pub(crate) fn close_and<T>(&self, last: impl FnOnce() -> T) -> Option<T> {
        let slots = {
            let mut logs = lock(&self.logs);
            if std::mem::replace(&mut logs.closed, true) {
                return None;
            }
            std::mem::take(&mut logs.slots)
        };
        for slot in slots.into_values() {
            // Whoever opens a log at this moment is waited for; whoever comes later finds it closed.
            if let Slot::Open(log) = std::mem::replace(&mut *lock(&slot), Slot::Closed) {
                log.close();
            }
        }
        let done = last();
        // Only now may another process write.
        lock(&self.lock).take();
        Some(done)
    }

    /// Whether the lock that is held is that of the directory as it is now: not if it was deleted and made again.
    pub(crate) fn lock_is_in_place(&self) -> bool {
        let lock = lock(&self.lock);
        let held = lock.as_ref().and_then(|guard| (**guard).downcast_ref::<std::fs::File>());
        held.is_some_and(|held| is_same_file(held, &self.settings.lock_path))
    }
}

/// Making so much ready takes several times as long as waking somebody who helps.
const HELPED_BYTES: usize = 64 << 10;

/// What is larger is made ready before it is queued, also where nothing else is under way: whoever comes meanwhile would
/// wait for all of it.
const MEANWHILE_BYTES: usize = 2 << 20;

/// Asks others to help to make an append ready, if that is much.
fn ask_for_help(prepared: &Prepared) {
    let batch = prepared.batch();
    if prepared.bytes_max() >= HELPED_BYTES && batch.shares() > 1 && helpers::can_be() {
        helpers::ask(batch, batch.shares() / 2);
    }
}

impl helpers::Work for Batch {
    fn help(&self, _unpacker: &mut Option<pack::Unpacker>) {
        self.make_ready();
    }
}

/// What is recorded before the first frame of a log.
struct Nothing;

impl History for Nothing {
    fn by_key(&self, _source: &str, _id: &str) -> Result<Option<RecordedEvent>> {
        Ok(None)
    }

    fn stream_tip(&self, _stream: &str) -> Result<Option<StreamTip>> {
        Ok(None)
    }

    fn any_match(&self, _query: &Query, _after: Option<Position>) -> Result<Option<Position>> {
        Ok(None)
    }
}

/// The answer to something that the writer of a log was handed.
struct Answered<T> {
    answered: oneshot::Receiver<Result<T>>,
    log: LogName,
}

impl<T> Answered<T> {
    fn gone(log: &LogName) -> Error {
        Error::new(ErrorKind::Stopped, format!("the writer of log '{log}' ended")).maybe_written()
    }
}

impl<T> Future for Answered<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = std::task::ready!(self.answered.poll_unpin(cx));
        Poll::Ready(answer.unwrap_or_else(|_| Err(Self::gone(&self.log))))
    }
}

/// An append in the queue.
struct QueuedAppend {
    answered: Answered<Appended>,
    _forget: Option<Unmade>,
}

impl QueuedAppend {
    fn submitted(queued: Result<Self>) -> Submitted {
        match queued {
            Ok(queued) => Submitted::Queued(Pending::new(async move {
                let queued = queued;
                queued.answered.await
            })),
            Err(error) => Submitted::Refused(error),
        }
    }
}

/// Lets go of a log that an append was to make and did not, also if the append's future is dropped.
struct Unmade {
    logs: Arc<Mutex<Logs>>,
    name: LogName,
}

impl Drop for Unmade {
    fn drop(&mut self) {
        let slot = {
            let logs = lock(&self.logs);
            let Some(slot) = logs.slots.get(&self.name).filter(|_| !logs.closed) else { return };
            slot.clone()
        };
        let mut place = lock(&slot);
        if let Slot::Open(log) = &*place
            && log.check_exists().is_err()
        {
            log.close();
            *place = Slot::Empty;
            let mut logs = lock(&self.logs);
            // Nobody else holds the place but us and the map.
            if Arc::strong_count(&slot) == 2 {
                logs.slots.remove(&self.name);
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Prepares a directory that is to become a store, up to the lock file; answers whether there is none yet.
fn prepare(io: &dyn Io, path: &Path) -> Result<bool> {
    let context = |e: std::io::Error| Error::from(e).context(format!("making a store in {}", path.display()));
    io.create_dir_all(path).map_err(context)?;
    let names = io.list(path).map_err(context)?;
    if names.iter().any(|name| name == meta::STORE_FILE) {
        return Ok(false);
    }
    // A crash while the store was made leaves some of these, but never a log.
    let ours = [LOCK_FILE, "logs", "registers", "precedent.tmp"];
    if let Some(other) = names.iter().find(|name| !ours.contains(&name.as_str())) {
        let message = format!("{} is not a store and not empty: it holds '{other}'", path.display());
        return Err(Error::new(ErrorKind::NotAStore, message));
    }
    if io.list(&path.join("logs")).is_ok_and(|logs| !logs.is_empty())
        && read_file(io, &path.join(meta::STORE_FILE)).is_err()
    {
        let message = format!(
            "{} holds logs, but its file '{}' is missing: of what format they are is not known",
            path.display(),
            meta::STORE_FILE
        );
        return Err(Error::new(ErrorKind::NotAStore, message));
    }
    match io.open(&path.join(LOCK_FILE), Mode::Create) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(context(e)),
        _ => Ok(true),
    }
}

/// Makes the directory a store, under its lock, unless another process has done so meanwhile.
fn make_store(io: &dyn Io, path: &Path) -> Result<()> {
    let context = |e: std::io::Error| Error::from(e).context(format!("making a store in {}", path.display()));
    if read_file(io, &path.join(meta::STORE_FILE)).is_ok() {
        return Ok(());
    }
    io.create_dir_all(&path.join("logs")).map_err(context)?;
    io.create_dir_all(&path.join("registers")).map_err(context)?;
    meta::write_store(io, path).map_err(context)?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        io.sync_dir(parent).map_err(context)?;
    }
    Ok(())
}

/// Whether the file of this path is the one that is open.
#[cfg(unix)]
fn is_same_file(open: &std::fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (open, there) = (open.metadata().map(id), std::fs::metadata(path).map(id));
    matches!((open, there), (Ok(open), Ok(there)) if open == there)
}

/// What is open cannot be deleted there.
#[cfg(not(unix))]
fn is_same_file(_open: &std::fs::File, path: &Path) -> bool {
    path.is_file()
}

fn take_lock(io: &dyn Io, path: &Path, lock: &Path) -> Result<Box<dyn Any + Send + Sync>> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match io.lock(lock, LockKind::Exclusive) {
            Ok(Some(guard)) => return Ok(guard),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let owner = owner_in(io, path).ok().flatten();
                let who = owner.and_then(|o| o.pid).map_or(String::new(), |pid| format!(" (process {pid})"));
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!("{} is being written to by another process{who}", path.display()),
                ));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let _ = io.open(lock, Mode::Create);
                if io.open(lock, Mode::Write).is_err() {
                    return Err(Error::from(e).context(lock.display()));
                }
            }
            Err(e) => return Err(Error::from(e).context(lock.display())),
        }
    }
}

impl Store for EmbeddedStore {
    fn limits(&self) -> Limits {
        self.settings.limits.clone()
    }

    fn url(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        async move {
            let queued = self.queue_append(log, append, false)?;
            queued.answered.await
        }
        .boxed()
    }

    fn append_blocking(&self, log: &LogName, append: Append) -> Result<Appended> {
        let mut queued = self.queue_append(log, append, true)?;
        // Nearly always it is there: this thread has made the frame.
        match queued.answered.answered.try_recv() {
            Ok(Some(answer)) => answer,
            _ => Pending::new(queued.answered).wait(),
        }
    }

    fn appends_on_this_thread(&self) -> bool {
        true
    }

    fn submit(&self, log: &LogName, append: Append) -> Submitted {
        QueuedAppend::submitted(self.queue_append(log, append, false))
    }

    fn submit_all(&self, log: &LogName, appends: Vec<Append>) -> Vec<Submitted> {
        self.queue_appends(log, appends).into_iter().map(QueuedAppend::submitted).collect()
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            let name = log;
            let mut log = self.fresh_log(name)?;
            if let Some(position) = read.at_least
                && position.0 >= log.published().size
                && !self.settings.writes()
            {
                let until = Instant::now() + AT_LEAST_WAIT;
                while position.0 >= log.published().size && Instant::now() < until {
                    self.grow(&log, log.published().size, Some(until)).await?;
                    log = self.fresh_log(name)?;
                }
                let size = log.published().size;
                if position.0 >= size {
                    return Err(beyond(position, size));
                }
            }
            log.read(read)
        }
        .boxed()
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        async move { self.fresh_log(log)?.head() }.boxed()
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        async move {
            let mut log = self.fresh_log(log)?;
            log.check_exists()?;
            while log.published().size <= size {
                self.grow(&log, size, None).await?;
                log = self.fresh_log(&log.name.clone())?;
            }
            log.head()
        }
        .boxed()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        async move {
            self.check_open()?;
            self.names()
        }
        .boxed()
    }

    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>> {
        async move { self.fresh_log(log)?.frames(from, bytes_max) }.boxed()
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        async move {
            let Some(first) = frames.first().cloned() else { return self.fresh_log(log)?.head() };
            let target = || {
                self.copy_target(log, first.chained().log, || {
                    first.check()?;
                    let empty = LogState::empty(first.chained().log);
                    empty.after(&first)?;
                    check_copied(&first, &empty, &Nothing)
                })
            };
            self.submit(log, |answer| Job::PutFrames(frames, answer), target, false)?.await?;
            self.fresh_log(log)?.head()
        }
        .boxed()
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        async move { self.submit(log, Job::Promote, || self.existing_log(log), false)?.await }.boxed()
    }

    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        async move {
            let log = self.fresh_log(log)?;
            let published = log.published();
            let alive = || look::writer_is_alive(&*self.io, &self.settings);
            let mut looks = 0;
            loop {
                // Beside a writer, in this process or another, what it has published is verified, all of it.
                let beside = if self.settings.writes() { log.read_only.is_none() } else { alive() };
                let mark = recovery::highest_mark(&*self.io, &log.dir, log.id);
                let limit = match (self.settings.writes(), mark) {
                    (true, _) => published.frames,
                    (false, Some(mark)) => mark.frames,
                    (false, None) => published.frames,
                };
                let limit = beside.then_some(limit);
                // No file is replaced by a pack under it in this process; in another it may be, now and then.
                let _files = log.files.read().unwrap_or_else(|p| p.into_inner());
                looks += 1;
                let again = !self.settings.writes() && looks < VERIFY_LOOKS_MAX;
                let report =
                    verify::verify(&self.io, &log.dir, limit, published.size, expect, progress, again)?;
                let Some(report) = report else { continue };
                // A writer that came in the middle, or came and went, may have been seen at work.
                let same = !alive() && recovery::highest_mark(&*self.io, &log.dir, log.id) == mark;
                if report.is_ok() || beside || self.settings.writes() || same {
                    return Ok(report);
                }
            }
        }
        .boxed()
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        async move { self.fresh_log(log)?.examine() }.boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move {
            self.check_open()?;
            self.registers.get(name)
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
            self.check_open()?;
            if !self.settings.writes() {
                return Err(self.is_read_only());
            }
            self.registers.set(name, expected, value)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move { if self.close_now() { Ok(()) } else { Err(closed()) } }.boxed()
    }
}

impl EmbeddedStore {
    /// The log that frames of a copy go to: one that does not exist yet becomes a copy with the id of the original,
    /// if its first frame is what it has to be.
    fn copy_target(&self, name: &LogName, id: LogId, check: impl Fn() -> Result<()>) -> Result<Arc<Log>> {
        let exists = |log: &Log| log.exists.load(std::sync::atomic::Ordering::Acquire);
        let log = self.log(name)?;
        if exists(&log) || !self.settings.writes() {
            return Ok(log);
        }
        // A frame that is refused makes no log.
        check()?;
        let slot = self.slot(name)?;
        let mut slot = lock(&slot);
        match &*slot {
            Slot::Closed => return Err(closed()),
            // Another call has made it meanwhile.
            Slot::Open(log) if exists(log) => return Ok(log.clone()),
            // An append that is under way is finished here, and then it is a log of its own.
            Slot::Open(log) => log.close(),
            Slot::Empty => {}
        }
        // Whatever fails from here on, the closed log is out of the way.
        *slot = Slot::Empty;
        let dir = self.log_dir(name);
        if LogMeta::read(&*self.io, &dir)?.is_none() {
            self.io.create_dir_all(&dir)?;
            LogMeta { id, copy: true }.write(&*self.io, &dir)?;
            self.io.sync_dir(&self.path.join("logs"))?;
        }
        let log = self.open_log(name)?;
        *slot = Slot::Open(log.clone());
        Ok(log)
    }
}

//! The embedded store of Precedent: one directory, one writer, one sync a frame.
//!
//! ```text
//! precedent.store          this directory is a store
//! lock                     held by the writer; says who it is
//! registers/NAME.reg       one file a register
//! logs/NAME/log            the log's id
//! logs/NAME/00000000.seg   segments: frames, one after the other
//! logs/NAME/00000000.map   where in its segment each frame lies (derived)
//! logs/NAME/index/*.run    which positions have a term (derived)
//! logs/NAME/published      how far readers in other processes may look
//! logs/NAME/clean          where the log ended when it was closed in good order
//! ```
//!
//! | module | responsible for |
//! |---|---|
//! | `io` | the few verbs asked of a file system; the tests' one loses what was not synced |
//! | `segment` | segment files, and where a frame lies |
//! | `index` | which positions have a term: runs, tables, cursors |
//! | `recovery` | finding the end of a log, torn or damaged, and where the writer goes on |
//! | `writer` | group commit: sequence, write, sync, publish, answer |
//! | `log` | what readers and the writer of one log share; pages |
//! | `verify` | every byte of the files, trusting nothing |
//! | `registers` | small values with compare-and-swap |
//! | `meta` | the small files |
//!
//! Invariants: a frame is written only after the sync of the one before it; nothing is published or answered
//! before its sync; whatever is derived is checked before it is believed, and can be deleted.

#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod crash_tests;
mod index;
mod io;
mod log;
mod meta;
mod recovery;
mod registers;
mod segment;
mod verify;
mod writer;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::memory::Clock;
use precedent_core::sequencer::{LogState, Prepared};
use precedent_core::store::{Finding, Progress, Usage, beyond};
use precedent_core::verify::{Expect, Report};
use precedent_core::{
    Append, Appended, Durability, Error, ErrorKind, ExpectedRegister, Head, Limits, LogName, Page, Read,
    Register, RegisterName, Result, Store, Time,
};

use crate::io::{Io, LockKind, Mode, RealIo, read_file};
use crate::log::{Job, Log, closed};
use crate::meta::LogMeta;
use crate::registers::Registers;

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
    /// Whether index runs are written by a thread of their own. Tests switch it off to be the same every time.
    pub background: bool,
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
            background: true,
        }
    }
}

/// The options as the logs of an open store see them.
pub(crate) struct Settings {
    access: Access,
    pub(crate) accept_clock: bool,
    pub(crate) clock: Clock,
    pub(crate) segment_bytes: u64,
    pub(crate) index_flush_bytes: u64,
    pub(crate) background: bool,
    pub(crate) limits: Limits,
    pub(crate) lock_path: PathBuf,
    /// Why nothing is written any more, after a failure that could not be settled.
    pub(crate) stopped: Mutex<Option<Error>>,
}

impl Settings {
    pub(crate) fn writes(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Stops the whole handle: every log and the registers.
    pub(crate) fn stop(&self, error: &Error) {
        self.stopped.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert_with(|| error.clone());
    }

    /// The error of everything after such a failure.
    pub(crate) fn check_stopped(&self) -> Result<()> {
        match &*self.stopped.lock().unwrap_or_else(|p| p.into_inner()) {
            Some(error) => Err(Error::new(
                ErrorKind::Stopped,
                format!("the store stopped after a failure, open it again: {error}"),
            )),
            None => Ok(()),
        }
    }
}

const LOCK_FILE: &str = "lock";

/// How long opening waits for a lock that a reader holds for a moment to see whether there is a writer.
const LOCK_WAIT: Duration = Duration::from_millis(250);
/// How often a handle beside a writer looks for what that has published.
const POLL: Duration = Duration::from_millis(20);
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
    logs: Mutex<BTreeMap<LogName, Arc<Log>>>,
    /// Held as long as the store is open for writing.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    closed: std::sync::atomic::AtomicBool,
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
        if writes && options.create {
            make_store(&*io, path)?;
        }
        check_is_store(&*io, path)?;
        let lock_path = path.join(LOCK_FILE);
        let lock = if writes { Some(take_lock(&*io, path, &lock_path)?) } else { None };
        let settings = Settings {
            access: options.access,
            accept_clock: options.accept_clock,
            clock: options.clock,
            segment_bytes: options.segment_bytes,
            index_flush_bytes: options.index_flush_bytes,
            background: options.background,
            limits: Limits::new(Durability::Device),
            lock_path,
            stopped: Mutex::default(),
        };
        let settings = Arc::new(settings);
        let store = Self {
            registers: Registers::new(io.clone(), path.join("registers"), settings.clone()),
            io,
            path: path.to_owned(),
            settings,
            logs: Mutex::default(),
            lock: Mutex::new(lock),
            closed: false.into(),
        };
        if writes {
            store.write_owner(None)?;
            store.registers.settle()?;
        }
        // What can be wrong with the main log is said now, not at the first read.
        store.log(&LogName::default())?;
        Ok(store)
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

    fn logs_locked(&self) -> Result<MutexGuard<'_, BTreeMap<LogName, Arc<Log>>>> {
        if self.closed.load(std::sync::atomic::Ordering::Acquire) {
            return Err(closed());
        }
        Ok(self.logs.lock().unwrap_or_else(|p| p.into_inner()))
    }

    fn log_dir(&self, name: &LogName) -> PathBuf {
        self.path.join("logs").join(name.as_str())
    }

    fn log(&self, name: &LogName) -> Result<Arc<Log>> {
        let mut logs = self.logs_locked()?;
        if let Some(log) = logs.get(name) {
            // A reader that looked before the log was made looks again.
            let may_exist_now =
                !self.settings.writes() && log.check_exists().is_err() | (log.published().size == 0);
            if !may_exist_now || LogMeta::read(&*self.io, &self.log_dir(name))?.is_none() {
                return Ok(log.clone());
            }
        }
        let read_only = (!self.settings.writes()).then(|| {
            Error::new(ErrorKind::ReadOnly, format!("{} is open for reading only", self.path.display()))
        });
        let log =
            Log::open(self.io.clone(), self.log_dir(name), name.clone(), self.settings.clone(), read_only)?;
        logs.insert(name.clone(), log.clone());
        Ok(log)
    }

    /// The log, after a look at what a writer in another process has published.
    fn fresh_log(&self, name: &LogName) -> Result<Arc<Log>> {
        let log = self.log(name)?;
        log.refresh()?;
        Ok(log)
    }

    async fn submit<T>(&self, log: &Log, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        log.submit(job(answer))?;
        let gone = |_| Error::new(ErrorKind::Stopped, "the writer of the log ended").maybe_written();
        answered.await.map_err(gone)?
    }

    /// Waits until the log holds more than `size` events or the time is up.
    async fn grow(&self, log: &Arc<Log>, size: u64, until: Option<Instant>) -> Result<()> {
        loop {
            let told = log.waiter();
            if log.published().size > size || log.refresh()? {
                return Ok(());
            }
            if self.settings.writes() && until.is_none() {
                // Whoever ends the wait without news has closed the log, or put a copy in its place.
                if told.await.is_err() {
                    drop(self.logs_locked()?);
                    self.settings.check_stopped()?;
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
            if self.closed.load(std::sync::atomic::Ordering::Acquire) {
                return Err(closed());
            }
        }
    }

    fn close_now(&self) {
        if self.closed.swap(true, std::sync::atomic::Ordering::AcqRel) {
            return;
        }
        let logs = std::mem::take(&mut *self.logs.lock().unwrap_or_else(|p| p.into_inner()));
        for log in logs.into_values() {
            log.close();
        }
        self.lock.lock().unwrap_or_else(|p| p.into_inner()).take();
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Makes the directory a store if there is nothing in it.
fn make_store(io: &dyn Io, path: &Path) -> Result<()> {
    let context = |e: std::io::Error| Error::from(e).context(format!("making a store in {}", path.display()));
    io.create_dir_all(path).map_err(context)?;
    let names = io.list(path).map_err(context)?;
    if names.iter().any(|name| name == meta::STORE_FILE) {
        return Ok(());
    }
    // A crash while the store was made leaves some of these.
    let ours = [LOCK_FILE, "logs", "registers", "precedent.tmp"];
    if let Some(other) = names.iter().find(|name| !ours.contains(&name.as_str())) {
        let message = format!("{} is not a store and not empty: it holds '{other}'", path.display());
        return Err(Error::new(ErrorKind::NotAStore, message));
    }
    io.create_dir_all(&path.join("logs")).map_err(context)?;
    io.create_dir_all(&path.join("registers")).map_err(context)?;
    if !names.iter().any(|name| name == LOCK_FILE) {
        match io.open(&path.join(LOCK_FILE), Mode::Create) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(context(e)),
            _ => {}
        }
    }
    meta::write_store(io, path).map_err(context)?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        io.sync_dir(parent).map_err(context)?;
    }
    Ok(())
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
            // On this thread, beside the writer: the limits, the salts, the commitments.
            let prepared = Prepared::new(append, &self.settings.limits)?;
            let log = self.log(log)?;
            self.submit(&log, |answer| Job::Append(prepared, answer)).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            let log = self.fresh_log(log)?;
            if let Some(position) = read.at_least
                && position.0 >= log.published().size
                && !self.settings.writes()
            {
                let until = Instant::now() + AT_LEAST_WAIT;
                while position.0 >= log.published().size && Instant::now() < until {
                    self.grow(&log, log.published().size, Some(until)).await?;
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
            drop(self.logs_locked()?);
            let mut logs = Vec::new();
            for name in self.io.list(&self.path.join("logs"))? {
                if let Ok(name) = name.parse::<LogName>()
                    && LogMeta::read(&*self.io, &self.log_dir(&name)).is_ok_and(|meta| meta.is_some())
                {
                    logs.push(name);
                }
            }
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
        async move { self.fresh_log(log)?.frames(from, bytes_max) }.boxed()
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        async move {
            let Some(first) = frames.first() else { return self.fresh_log(log)?.head() };
            let log = self.copy_target(log, first)?;
            self.submit(&log, |answer| Job::PutFrames(frames, answer)).await?;
            log.head()
        }
        .boxed()
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        async move {
            let log = self.log(log)?;
            log.check_exists()?;
            self.submit(&log, Job::Promote).await
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
            let log = self.fresh_log(log)?;
            log.check_exists()?;
            let published = log.published();
            // Beside a writer, in this process or another, only what it has published is verified.
            let beside = self.settings.writes() || log::writer_is_alive(&*self.io, &self.settings);
            let limit = (beside && published.state.is_some()).then_some(published.frames);
            verify::verify(&self.io, &log.dir, limit, published.size, expect, progress)
        }
        .boxed()
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        async move { self.fresh_log(log)?.examine() }.boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move {
            drop(self.logs_locked()?);
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
            drop(self.logs_locked()?);
            if !self.settings.writes() {
                let message = format!("{} is open for reading only", self.path.display());
                return Err(Error::new(ErrorKind::ReadOnly, message));
            }
            self.registers.set(name, expected, value)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            drop(self.logs_locked()?);
            self.close_now();
            Ok(())
        }
        .boxed()
    }
}

impl EmbeddedStore {
    /// The log that frames of a copy go to: one that does not exist yet becomes a copy with the id of the original.
    fn copy_target(&self, name: &LogName, first: &Frame) -> Result<Arc<Log>> {
        let log = self.log(name)?;
        if log.exists.load(std::sync::atomic::Ordering::Acquire) || !self.settings.writes() {
            return Ok(log);
        }
        // A frame that is refused makes no log.
        first.check()?;
        LogState::empty(first.chained().log).after(first)?;
        log.close();
        let dir = self.log_dir(name);
        self.io.create_dir_all(&dir)?;
        LogMeta { id: first.chained().log, copy: true }.write(&*self.io, &dir)?;
        self.io.sync_dir(&self.path.join("logs"))?;
        self.logs_locked()?.remove(name);
        self.log(name)
    }
}

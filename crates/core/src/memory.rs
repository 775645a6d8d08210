//! A store in memory: the model that every other store is compared with.
//!
//! Everything is done the simple way: one lock, linear scans, no index. It keeps the frames exactly as the
//! other stores do, so logs can be copied to and from it. Nothing survives the process, and
//! [`Limits::durability`] says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{BoxFuture, FutureExt};

use crate::drafts::Drafts;
use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::extents::Recent;
use crate::frame::{Chained, Frame};
use crate::ids::{FrameId, LogId, LogName, Position, Time};
use crate::limits::{Durability, Limits};
use crate::log::Pending;
use crate::prepared::Prepared;
use crate::query::{Direction, Query};
use crate::sequencer::{Draft, History, LogState, StreamTip, check_clock, check_copied};
use crate::store::{
    Append, Appended, Damage, ExpectedRegister, Finding, Head, Page, Progress, Read, RecordedEvent, Register,
    RegisterName, Severity, Store, Submitted, Usage, beyond,
};
use crate::tree::Tree;
use crate::verify::{Expect, Report, Verifier};

/// The clock a store is given: the core has none of its own.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Events in a page at most.
const PAGE_EVENTS: usize = 1_000;

/// A store in memory. Clones are handles on the same store.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    clock: Clock,
    writer: FrameId,
}

#[derive(Default)]
struct Shared {
    logs: BTreeMap<LogName, LogData>,
    registers: BTreeMap<RegisterName, Register>,
    /// Those who wait for a log to grow: also for `main` before its first append, which makes it.
    waiting: BTreeMap<LogName, Vec<oneshot::Sender<()>>>,
    closed: bool,
}

impl Shared {
    fn wake(&mut self, name: &LogName) {
        for waiting in self.waiting.remove(name).unwrap_or_default() {
            let _ = waiting.send(());
        }
    }
}

struct LogData {
    state: LogState,
    frames: Vec<Frame>,
    events: Vec<RecordedEvent>,
    copy: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store, with the system's clock.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(|| Time::from_system(std::time::SystemTime::now())))
    }

    /// An empty store with a clock of your own.
    pub fn with_clock(clock: Clock) -> Self {
        Self { shared: Arc::default(), clock, writer: FrameId::random() }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Shared>> {
        let shared = self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if shared.closed {
            return Err(Error::new(ErrorKind::Stopped, "the store has been closed"));
        }
        Ok(shared)
    }

    fn append_now(&self, name: &LogName, append: Append) -> Result<Appended> {
        let prepared = Prepared::new(append, &self.limits())?;
        let mut shared = self.lock()?;
        let appended = match shared.logs.get_mut(name) {
            Some(log) if log.copy => return Err(is_copy(name)),
            Some(log) => log.append(prepared, (self.clock)(), self.writer)?,
            None => {
                // A log is made by its first append: one that fails makes none.
                let mut log = LogData::new(LogId::random());
                let appended = log.append(prepared, (self.clock)(), self.writer)?;
                shared.logs.insert(name.clone(), log);
                appended
            }
        };
        shared.wake(name);
        Ok(appended)
    }

    fn read_now(&self, name: &LogName, read: &Read) -> Result<Page> {
        let shared = self.lock()?;
        let empty;
        let log = match shared.logs.get(name) {
            Some(log) => log,
            None if name.as_str() == LogName::MAIN => {
                empty = LogData::new(LogId([0; 16]));
                &empty
            }
            None => return Err(no_log(name)),
        };
        log.read(read, &self.limits())
    }

    fn head_now(&self, name: &LogName) -> Result<Head> {
        match self.lock()?.logs.get(name) {
            Some(log) => Ok(log.head()),
            None if name.as_str() == LogName::MAIN => Ok(empty_head()),
            None => Err(no_log(name)),
        }
    }

    fn put_frames_now(&self, name: &LogName, frames: Vec<Frame>) -> Result<Head> {
        let mut shared = self.lock()?;
        for frame in frames {
            match shared.logs.get_mut(name) {
                Some(log) => log.put_frame(frame)?,
                None => {
                    // A frame that is refused makes no log.
                    let mut log = LogData::new(frame.chained().log);
                    log.copy = true;
                    log.put_frame(frame)?;
                    shared.logs.insert(name.clone(), log);
                }
            }
            shared.wake(name);
        }
        shared.logs.get(name).map(LogData::head).ok_or_else(|| no_log(name))
    }
}

/// The error for a log that does not exist.
pub fn no_log(name: &LogName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("there is no log '{name}' in this store; its first append makes it"),
    )
}

/// The head of the log `main` before anything was recorded in it.
pub fn empty_head() -> Head {
    Head { log: None, size: 0, root: Tree::new().root(), frames: 0, recorded: None }
}

/// The error for writing to a copy.
pub fn is_copy(name: &LogName) -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        format!(
            "log '{name}' is a copy and read-only: writing to it would fork its history; promote it first"
        ),
    )
}

impl LogData {
    fn new(id: LogId) -> Self {
        Self { state: LogState::empty(id), frames: Vec::new(), events: Vec::new(), copy: false }
    }

    fn head(&self) -> Head {
        Head {
            log: Some(self.state.log),
            size: self.state.size(),
            root: self.state.tree.root(),
            frames: self.state.next_sequence,
            recorded: self.events.last().map(|e| e.recorded),
        }
    }

    fn append(&mut self, prepared: Prepared, now: Time, writer: FrameId) -> Result<Appended> {
        check_clock(now, self.state.last_time)?;
        let state = self.state.clone();
        // Memory is not what this store saves.
        let (mut recent, mut drafts) = (Recent::new(0), Drafts::default());
        let mut draft = Draft::new(&state, now, &mut recent, &mut drafts);
        let receipts = draft.add(prepared, &*self)?;
        let size = draft.size();
        if let Some(drafted) = draft.finish(writer, true) {
            self.take(Frame::decode(drafted.bytes.into())?, drafted.state)?;
        }
        Ok(Appended { events: receipts, size })
    }

    fn put_frame(&mut self, frame: Frame) -> Result<()> {
        if let Some(ours) = usize::try_from(frame.chained().sequence).ok().and_then(|n| self.frames.get(n)) {
            return match ours.chained() == frame.chained() {
                true => Ok(()),
                false => Err(forked(&self.state, frame.chained())),
            };
        }
        if !self.copy {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the target log is one of its own, not a copy: frames of another log cannot be added to it",
            ));
        }
        frame.check()?;
        let state = self.state.after(&frame)?;
        check_copied(&frame, &self.state, &*self)?;
        self.take(frame, state)
    }

    fn take(&mut self, frame: Frame, state: LogState) -> Result<()> {
        let events = (0..frame.len()).map(|i| frame.event(i)?.decode()).collect::<Result<Vec<_>>>()?;
        self.events.extend(events);
        self.frames.push(frame);
        self.state = state;
        Ok(())
    }

    fn read(&self, read: &Read, limits: &Limits) -> Result<Page> {
        read.check(limits, self.state.size())?;
        let max = read.limit.unwrap_or(usize::MAX).min(PAGE_EVENTS);
        let wanted = |events: &mut dyn Iterator<Item = &RecordedEvent>| {
            events.filter(|e| read.wants(e)).take(max).cloned().collect::<Vec<_>>()
        };
        let events = match read.direction {
            Direction::Forward => wanted(&mut self.events.iter()),
            Direction::Backward => wanted(&mut self.events.iter().rev()),
        };
        let next = events.last().filter(|_| events.len() == max).map(|e| e.position);
        Ok(Page { events, damaged: Vec::<Damage>::new(), next, size: self.state.size() })
    }
}

/// The error for a frame that is not the one the log has at its place.
pub fn forked(state: &LogState, chained: &Chained) -> Error {
    let message =
        format!("log {} holds another frame {} than the one to be copied", state.log, chained.sequence);
    Error::new(ErrorKind::LogForked, message)
}

impl History for LogData {
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>> {
        Ok(self.events.iter().find(|e| e.event.source() == source && e.event.id() == id).cloned())
    }

    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>> {
        let last = self.events.iter().rev().find(|e| e.event.stream() == Some(stream));
        Ok(last.and_then(|e| Some(StreamTip { position: e.position, version: e.version?, leaf: e.leaf() })))
    }

    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>> {
        let after = |e: &&RecordedEvent| after.is_none_or(|after| e.position > after);
        Ok(self.events.iter().filter(after).find(|e| query.matches(&e.event)).map(|e| e.position))
    }
}

impl Store for MemoryStore {
    fn limits(&self) -> Limits {
        Limits::new(Durability::None)
    }

    fn url(&self) -> String {
        "memory:".to_owned()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        async move { self.append_now(log, append) }.boxed()
    }

    fn submit(&self, log: &LogName, append: Append) -> Submitted {
        Submitted::Queued(Pending::new(std::future::ready(self.append_now(log, append))))
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            if let Some(position) = read.at_least {
                let size = self.head_now(log)?.size;
                if position.0 >= size {
                    return Err(beyond(position, size));
                }
            }
            self.read_now(log, read)
        }
        .boxed()
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        async move { self.head_now(log) }.boxed()
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        async move {
            loop {
                let grown = {
                    let mut shared = self.lock()?;
                    match shared.logs.get(log) {
                        Some(data) if data.state.size() > size => return Ok(data.head()),
                        None if log.as_str() != LogName::MAIN => return Err(no_log(log)),
                        _ => {}
                    }
                    let (tell, grown) = oneshot::channel();
                    let waiting = shared.waiting.entry(log.clone()).or_default();
                    waiting.retain(|w| !w.is_canceled());
                    waiting.push(tell);
                    grown
                };
                let closed = |_| Error::new(ErrorKind::Stopped, "the store has been closed");
                grown.await.map_err(closed)?;
            }
        }
        .boxed()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        async move { Ok(self.lock()?.logs.keys().cloned().collect()) }.boxed()
    }

    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>> {
        async move {
            let shared = self.lock()?;
            let Some(data) = shared.logs.get(log) else {
                return if log.as_str() == LogName::MAIN { Ok(Vec::new()) } else { Err(no_log(log)) };
            };
            let mut bytes = 0;
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(data.frames.len());
            let fits = |frame: &&Frame| {
                let take = bytes < bytes_max.max(1);
                bytes += frame.bytes().len();
                take
            };
            Ok(data.frames[from..].iter().take_while(fits).cloned().collect())
        }
        .boxed()
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        async move { self.put_frames_now(log, frames) }.boxed()
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        async move { self.lock()?.logs.get_mut(log).map(|data| data.copy = false).ok_or_else(|| no_log(log)) }
            .boxed()
    }

    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        async move { verify_frames(self, log, expect, progress).await }.boxed()
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        async move {
            let shared = self.lock()?;
            let usage = match shared.logs.get(log) {
                Some(data) => Usage {
                    events: data.state.size(),
                    data_bytes: data.events.iter().map(|e| e.event.data().map_or(0, Bytes::len) as u64).sum(),
                    log_bytes: data.frames.iter().map(|f| f.bytes().len() as u64).sum(),
                    index_bytes: 0,
                },
                None if log.as_str() == LogName::MAIN => Usage::default(),
                None => return Err(no_log(log)),
            };
            let finding = Finding {
                code: "not_durable",
                severity: Severity::Warning,
                message: "the store is in memory: nothing survives the process".into(),
            };
            Ok((usage, vec![finding]))
        }
        .boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move { Ok(self.lock()?.registers.get(name).cloned()) }.boxed()
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        async move {
            let mut shared = self.lock()?;
            let revision = next_revision(name, shared.registers.get(name), expected, &value, &self.limits())?;
            let register = Register { value, revision };
            shared.registers.insert(name.clone(), register.clone());
            Ok(register)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut shared = self.lock()?;
            shared.closed = true;
            shared.waiting.clear();
            Ok(())
        }
        .boxed()
    }
}

/// The revision a register gets if it is as expected: the one decision of a compare-and-swap.
pub fn next_revision(
    name: &RegisterName,
    current: Option<&Register>,
    expected: ExpectedRegister,
    value: &Bytes,
    limits: &Limits,
) -> Result<u64> {
    if value.len() as u64 > limits.register_bytes_max {
        let what = format!("the value of register '{name}'");
        return Err(Error::limit(what, value.len() as u64, limits.register_bytes_max, "bytes"));
    }
    let revision = current.map_or(0, |r| r.revision);
    let wanted = match expected {
        ExpectedRegister::Absent => 0,
        ExpectedRegister::Revision(revision) => revision,
    };
    if revision != wanted {
        let words = |r: u64| if r == 0 { "not set".to_owned() } else { format!("at revision {r}") };
        let message = format!("register '{name}' is {}, expected {}", words(revision), words(wanted));
        return Err(Error::new(ErrorKind::Conflict, message).with_conflicts(Vec::<Conflict>::new()));
    }
    Ok(revision + 1)
}

/// Verifies a log of any store through [`Store::frames`].
pub async fn verify_frames(
    store: &dyn Store,
    log: &LogName,
    expect: Option<Expect>,
    progress: Progress<'_>,
) -> Result<Report> {
    const BYTES: usize = 4 << 20;
    let size = store.head(log).await?.size;
    let mut verifier = Verifier::new(expect);
    loop {
        let frames = store.frames(log, verifier.next_sequence(), BYTES).await?;
        if frames.is_empty() {
            break;
        }
        for frame in &frames {
            verifier.frame(frame, None);
        }
        progress(verifier.size(), size.max(verifier.size()));
    }
    Ok(verifier.finish())
}

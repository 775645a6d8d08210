//! The contract of a store.
//!
//! # The promises
//!
//! Every implementation of [`Store`] keeps them, and `conformance` tests them:
//!
//! 1. **Durable before it answers.** [`Store::append`] answers with positions after the batch is durable, or
//!    with an error that says whether it may have been written. [`Limits::durability`] says what durable means.
//! 2. **All or nothing.** No reader ever sees half a batch.
//! 3. **Dense.** Positions are dense and never reused; stream versions are dense. Readers see a prefix of the
//!    log, never a gap.
//! 4. **Conditions** are checked against everything before, including earlier batches of the same frame.
//!    Several may be given; all must hold. Of two concurrent appends with conflicting conditions exactly one
//!    wins. A conflict says which event is in the way.
//! 5. **Idempotent by key** (source and id), across restarts and processes. Keys are looked up *before*
//!    conditions, so a retry after a lost answer is never a conflict. All present with equal content: the
//!    first positions, nothing recorded. Some present: an unconditional append records the rest and answers
//!    [`Status::Recorded`] or [`Status::Existing`] for each; a conditional one fails `already_exists` with the
//!    positions. Other content under the same key: `already_exists`.
//! 6. **Two processes are safe.** The second writer is either fenced with a clear error, or both interleave.
//! 7. **Following misses nothing** and sees nothing twice, across the switch from catching up to live.
//! 8. **No error is swallowed.** After a failure that cannot be settled the handle stops and every waiter is told.
//! 9. **Damage is named** and never "repaired" silently. No read returns bytes that fail their check; damage
//!    hides only the events in the damaged block or referring to it, and each is named.
//! 10. **Limits are declared**, checked before anything is written, and named in the error with both numbers.
//! 11. **Registers**: linearizable compare-and-swap, durable before it answers, never copied with a log.
//! 12. **Reads never go backwards** on a handle and include its own appends; [`Read::at_least`] extends that
//!     to another process.
//! 13. **Dropping** an append's future leaves it whole or absent.
//!
//! Appends that are [submitted](crate::Log::submit) one after the other are recorded in that order.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::frame::Frame;
use crate::ids::{Hash, LogId, LogName, Position, Time, Version};
use crate::limits::Limits;
use crate::log::Pending;
use crate::query::{Condition, Direction, Query, TimeField};
use crate::tree::leaf_hash;
use crate::verify::{Expect, Report};

/// An event together with what the log added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// The log.
    pub log: LogId,
    /// The place in the log, from 0.
    pub position: Position,
    /// The place in the stream, from 0, if it has one.
    pub version: Option<Version>,
    /// When the log recorded it. Never goes backwards along a log.
    pub recorded: Time,
    /// What the producer sent.
    pub event: Event,
    /// Whether the data has been erased; then `event.data()` is `None`.
    pub erased: bool,
    /// The entry: the exact bytes of the Merkle leaf.
    pub entry: Bytes,
}

impl RecordedEvent {
    /// The hash of the event's leaf.
    pub fn leaf(&self) -> Hash {
        leaf_hash(&self.entry)
    }
}

/// What to append: the events of one batch, and what has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Append {
    /// Recorded next to each other in this order, or not at all.
    pub events: Vec<Event>,
    /// All have to hold.
    pub conditions: Vec<Condition>,
}

impl Append {
    /// These events, unconditionally.
    pub fn new(events: impl IntoIterator<Item = Event>) -> Self {
        Self { events: events.into_iter().collect(), conditions: Vec::new() }
    }

    /// The same append under one more condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }
}

impl From<Event> for Append {
    fn from(event: Event) -> Self {
        Self::new([event])
    }
}

/// Whether an append recorded an event or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The event is new in the log.
    Recorded,
    /// The same event was there already.
    Existing,
}

/// Where an event of an append stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// Its place in the log.
    pub position: Position,
    /// Its place in its stream.
    pub version: Option<Version>,
    /// Whether this append recorded it.
    pub status: Status,
}

/// The answer to an append: everything in it is durable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Appended {
    /// One receipt an event, in the order of the append.
    pub events: Vec<Receipt>,
    /// The number of events in the log after the frame that holds them.
    pub size: u64,
}

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The log's id; `None` as long as nothing has been recorded and no id was drawn.
    pub log: Option<LogId>,
    /// The number of events.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
    /// The number of frames.
    pub frames: u64,
    /// When the last event was recorded.
    pub recorded: Option<Time>,
}

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Which events.
    pub query: Query,
    /// Only events after this position. It has to be in the log.
    pub after: Option<Position>,
    /// Only events before this position.
    pub before: Option<Position>,
    /// Only events from this time on.
    pub since: Option<Time>,
    /// Only events before this time.
    pub until: Option<Time>,
    /// Which time `since` and `until` mean.
    pub by: TimeField,
    /// The order.
    pub direction: Direction,
    /// At most this many events in this page; a store may return fewer, see [`Page::next`].
    pub limit: Option<usize>,
    /// The handle has to see this position first: the read waits for it, a bounded time.
    pub at_least: Option<Position>,
}

impl Read {
    /// Every event that matches `query`.
    pub fn matching(query: Query) -> Self {
        Self { query, ..Self::default() }
    }

    /// Refuses what nobody could mean. `size` is the number of events in the log.
    pub fn check(&self, limits: &Limits, size: u64) -> Result<()> {
        self.query.check(limits)?;
        if let (Some(after), Some(before)) = (self.after, self.before)
            && before <= after
        {
            return Err(Error::invalid(format!("no position is after {after} and before {before}")));
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && until <= since
        {
            return Err(Error::invalid(format!("no time is at or after {since} and before {until}")));
        }
        if self.limit == Some(0) {
            return Err(Error::invalid("a limit of 0 asks for nothing; the least is 1"));
        }
        if let Some(after) = self.after
            && after.0 >= size
        {
            return Err(beyond(after, size));
        }
        Ok(())
    }

    /// Whether an event is within the bounds and matches.
    pub fn wants(&self, recorded: &RecordedEvent) -> bool {
        let in_time = || match self.by {
            TimeField::Recorded => self.in_time(recorded.recorded),
            TimeField::Produced => {
                (self.since.is_none() && self.until.is_none())
                    || recorded.event.time().is_some_and(|t| self.produced_in_time(t))
            }
        };
        self.after.is_none_or(|after| recorded.position > after)
            && self.before.is_none_or(|before| recorded.position < before)
            && in_time()
            && self.query.matches(&recorded.event)
    }

    /// A producer's time can lie before 1970, where no log was there to record anything.
    fn produced_in_time(&self, time: &str) -> bool {
        let Ok(time) = crate::ids::parse_rfc3339(time) else { return false };
        let micros = |bound: Time| i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
        self.since.is_none_or(|since| time.as_microsecond() >= micros(since))
            && self.until.is_none_or(|until| time.as_microsecond() < micros(until))
    }

    fn in_time(&self, time: Time) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    /// The same read, going on behind a page that was covered through `covered`.
    #[must_use]
    pub fn continued(mut self, covered: Position) -> Self {
        match self.direction {
            Direction::Forward => self.after = Some(covered),
            Direction::Backward => self.before = Some(covered),
        }
        self
    }
}

/// The error for a position that is not in the log.
pub fn beyond(position: Position, size: u64) -> Error {
    let holds = match size {
        0 => "which is empty".to_owned(),
        1 => "which holds 1 event, at position 0".to_owned(),
        n => format!("which holds {n} events, at positions 0 to {}", n - 1),
    };
    Error::new(crate::ErrorKind::NotFound, format!("position {position} is not in the log, {holds}"))
}

/// An event that could not be read.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The event.
    pub position: Position,
    /// What is wrong, and where: frame, file and offset as far as they are known.
    pub error: Error,
}

/// Some of the events a read asks for.
#[derive(Debug, Clone)]
pub struct Page {
    /// The events, in the order of the read.
    pub events: Vec<RecordedEvent>,
    /// Events in the part of the log this page covers that could not be read. They may or may not have matched.
    pub damaged: Vec<Damage>,
    /// Where to go on: everything up to here (from above, if backward) has been considered. `None`: there is no more.
    pub next: Option<Position>,
    /// The number of events in the log that this page was read from.
    pub size: u64,
}

/// The name of a register: 1 to 128 of `a-z`, `0-9`, `-`, `_`, `.` and `/`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegisterName(String);

impl RegisterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegisterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegisterName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_./".contains(&c);
        let first_fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if first_fits && name.len() <= 128 && name.bytes().all(fits) {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::invalid(format!(
            "'{}' cannot name a register: 1 to 128 of a-z, 0-9, '-', '_', '.' and '/', beginning with a letter or digit",
            crate::event::shown(name)
        )))
    }
}

/// The state of a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// The bytes.
    pub value: Bytes,
    /// How often the register has been set: 1 after the first time. It serves as the ETag.
    pub revision: u64,
}

/// What a register has to be for a compare-and-swap to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedRegister {
    /// It has never been set.
    Absent,
    /// It has this revision.
    Revision(u64),
}

/// What a store holds of a log, in bytes and events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Events in the log.
    pub events: u64,
    /// Bytes of data as sent.
    pub data_bytes: u64,
    /// Bytes used by frames and packs, without preallocation and index.
    pub log_bytes: u64,
    /// Bytes of the index.
    pub index_bytes: u64,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth doing something about.
    Warning,
    /// Something is wrong.
    Error,
}

impl Severity {
    /// The word in output: `info`, `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing an examination of a store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word for programs.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// A sentence for people.
    pub message: String,
}

/// Called while long work goes on: events done, events in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// What came of [`Store::submit`].
#[derive(Debug)]
pub enum Submitted {
    /// It is in the queue: it will be recorded, or its answer says why not.
    Queued(Pending),
    /// It is not within the limits, or the store takes none.
    Refused(Error),
    /// The store has no queue: here it is again.
    NoQueue(Append),
}

/// Polls a future on this thread, which sleeps until it is woken.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Where logs and registers are kept. The promises are in the [module documentation](self).
///
/// This is what a backend implements. People use [`Log`](crate::Log), which adds streams of events and following.
/// The futures of an embedded store do their reading on the thread that polls them.
pub trait Store: Send + Sync + 'static {
    /// The limits of this store.
    fn limits(&self) -> Limits;

    /// Where the store is, for messages: a URL without credentials.
    fn url(&self) -> String;

    /// Records events: all of them, next to each other, or none.
    ///
    /// # Errors
    /// `invalid` and `limit_exceeded` before anything is written; `conflict` and `already_exists` with
    /// [`Error::conflicts`]; `read_only`, `locked`, `full`, `clock`, `stopped`; `unknown` when it may have been written.
    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>>;

    /// Like [`Store::append`], for a thread that may wait: it returns with the answer. Never call it from an
    /// asynchronous task.
    ///
    /// As it comes it polls [`Store::append`] on the calling thread; where that needs a runtime, one has to be
    /// entered. A store that can do the work on the calling thread does, which saves waking others.
    fn append_blocking(&self, log: &LogName, append: Append) -> Result<Appended> {
        block_on(self.append(log, append))
    }

    /// Whether a page is read elsewhere once its [`Store::read`] was polled: then a stream over pages asks for the next one while
    /// those of the one before are given.
    fn reads_ahead(&self) -> bool {
        false
    }

    /// Whether [`Store::append_blocking`] does the work on the calling thread and waits for nothing but a device of this
    /// machine: then whoever has no other append to wait for is answered sooner that way.
    fn appends_on_this_thread(&self) -> bool {
        false
    }

    /// Queues an append behind those that were submitted before, and does not wait for it. What it answers says
    /// how it went. People use [`Log::submit`](crate::Log::submit), which keeps the order also for stores
    /// without a queue of their own, which is what a store has as it comes.
    fn submit(&self, log: &LogName, append: Append) -> Submitted {
        let _ = log;
        Submitted::NoQueue(append)
    }

    /// Submits several appends in their order, each for itself, as [`Self::submit`] does; the answers are in that order too. A
    /// store that can queues all of them before it takes the first, so that they are written together.
    fn submit_all(&self, log: &LogName, appends: Vec<Append>) -> Vec<Submitted> {
        appends.into_iter().map(|append| self.submit(log, append)).collect()
    }

    /// Reads a page of events. To go on, read again [`continued`](Read::continued) from [`Page::next`].
    ///
    /// # Errors
    /// `not_found` for a log that does not exist and for an `after` or `at_least` that is not in it. Damaged
    /// events are no error here: they are named in [`Page::damaged`].
    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>>;

    /// The end of the log, as this handle sees it.
    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>>;

    /// Waits until the log holds more than `size` events. Dropping the future ends the wait.
    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>>;

    /// The names of all logs.
    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>>;

    /// Whole frames, starting with the one of this sequence number: at least one if there is one, and about
    /// `bytes_max` bytes. Fewer than asked for means nothing; none means the end.
    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>>;

    /// Adds frames of a copied log, exactly as they are. The first makes the log, with the id of the
    /// original, and it stays read-only until [`Store::promote`]. Frames that are already there are passed over.
    ///
    /// # Errors
    /// `log_forked` if the log holds another history; `damaged` if a frame does not prove itself.
    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>>;

    /// Lets a copied log be written to. From then on it and the original are two histories with one past.
    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>>;

    /// Reads the whole log and checks everything that can be checked, trusting no index and no header.
    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>>;

    /// How large the log is, and what is to be said about its state.
    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>>;

    /// Reads a register; `None` if it has never been set.
    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>>;

    /// Sets a register if it is as expected, and answers its new state once that is durable.
    ///
    /// # Errors
    /// `conflict` if it is not as expected; nothing has changed then.
    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>>;

    /// Finishes what is under way and lets the store go. Everything afterwards is `stopped`.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}

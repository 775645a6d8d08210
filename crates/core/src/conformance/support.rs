//! What the tests are written with: a handle without `async`, threads that start together, numbers by chance.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;

use super::{Backend, Fixture, Unable};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventBuilder, Tag};
use crate::frame::Frame;
use crate::ids::{LogName, Position};
use crate::log::Log;
use crate::query::{Direction, Query};
use crate::store::{
    Append, Appended, ExpectedRegister, Head, Page, Read, Receipt, RecordedEvent, Register, RegisterName,
    Status, Store,
};
use crate::verify::{Expect, Report};

/// What a test answers.
pub(super) type Outcome = Result<(), Unable>;

/// The list of the tests of a module.
macro_rules! tests {
    ($($promises:expr => $name:ident),* $(,)?) => {
        pub(super) const TESTS: &[super::Test] =
            &[$(super::Test { promises: &$promises, name: stringify!($name), body: $name }),*];
    };
}
pub(super) use tests;

/// Where one test takes place.
pub struct Scene<'a> {
    backend: &'a dyn Backend,
    seed: u64,
    drawn: AtomicBool,
    given_up: AtomicBool,
    waiting: Mutex<HashMap<usize, Waker>>,
    waits: AtomicUsize,
}

impl<'a> Scene<'a> {
    pub(super) fn new(backend: &'a dyn Backend) -> Self {
        let given = std::env::var("PRECEDENT_CONFORMANCE_SEED").ok().and_then(|seed| seed.parse().ok());
        Self {
            backend,
            seed: given.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            drawn: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            waiting: Mutex::default(),
            waits: AtomicUsize::new(0),
        }
    }

    /// A new empty store of the backend.
    pub(super) fn create(&'a self) -> Result<Place<'a>, Unable> {
        Ok(Place { scene: self, fixture: self.backend.create()? })
    }

    /// A handle on the log `main` of a store that is there already.
    pub(super) fn handle(&'a self, store: Arc<dyn Store>) -> Handle<'a> {
        Handle { scene: self, log: Log::new(store, LogName::default()) }
    }

    /// The generator of this test: its seed is printed if the test fails.
    pub(super) fn chance(&self) -> Chance {
        self.drawn.store(true, Ordering::Relaxed);
        Chance(self.seed)
    }

    pub(super) fn drawn_seed(&self) -> Option<u64> {
        self.drawn.load(Ordering::Relaxed).then_some(self.seed)
    }

    /// Waits for a future, as long as the backend's patience lasts.
    pub(super) fn wait<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        let wait = self.waits.fetch_add(1, Ordering::Relaxed);
        let mut out = None;
        {
            let out = &mut out;
            self.backend.block_on(Box::pin(async move {
                let mut future = pin!(future);
                *out = Some(
                    poll_fn(|cx| {
                        self.waiting().insert(wait, cx.waker().clone());
                        assert!(
                            !self.given_up.load(Ordering::SeqCst),
                            "still waiting after {:?}",
                            self.backend.patience()
                        );
                        future.as_mut().poll(cx)
                    })
                    .await,
                );
            }));
        }
        self.waiting().remove(&wait);
        out.expect("block_on runs a future to its end")
    }

    /// Ends every wait of this test.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.waiting().drain().for_each(|(_, waker)| waker.wake());
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<usize, Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store of the backend, with its hooks.
pub(super) struct Place<'a> {
    scene: &'a Scene<'a>,
    pub(super) fixture: Box<dyn Fixture>,
}

impl<'a> Place<'a> {
    /// A handle on the log `main`.
    pub(super) fn main(&self) -> Handle<'a> {
        self.scene.handle(self.fixture.store())
    }

    /// A handle on the log `main` of the reopened store.
    pub(super) fn reopen(&self) -> Result<Handle<'a>, Unable> {
        Ok(self.scene.handle(self.fixture.reopen()?))
    }
}

/// One log, used without `async`.
#[derive(Clone)]
pub(super) struct Handle<'a> {
    scene: &'a Scene<'a>,
    pub(super) log: Log,
}

impl<'a> Handle<'a> {
    /// Another log of the same store.
    pub(super) fn log_named(&self, name: &str) -> Self {
        let name = name.parse().expect("the suite uses names that are allowed");
        Self { scene: self.scene, log: Log::new(self.log.store().clone(), name) }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &**self.log.store()
    }

    pub(super) fn name(&self) -> &LogName {
        self.log.name()
    }

    /// Waits for a future, as long as the backend's patience lasts.
    pub(super) fn wait<T: Send>(&self, future: impl Future<Output = T> + Send) -> T {
        self.scene.wait(future)
    }

    pub(super) fn append(&self, append: impl Into<Append>) -> Result<Appended> {
        self.scene.wait(self.store().append(self.name(), append.into()))
    }

    /// Appends `count` plain events, one by one, with ids from 0.
    pub(super) fn fill(&self, count: usize) -> Result<()> {
        (0..count).try_for_each(|i| self.append(event(i)).map(drop))
    }

    pub(super) fn head(&self) -> Result<Head> {
        self.scene.wait(self.log.head())
    }

    pub(super) fn size(&self) -> Result<u64> {
        Ok(self.head()?.size)
    }

    pub(super) fn page(&self, read: &Read) -> Result<Page> {
        self.scene.wait(self.log.page(read))
    }

    /// Everything a read asks for, through the stream of events.
    pub(super) fn read(&self, read: Read) -> Result<Vec<RecordedEvent>> {
        self.scene.wait(self.log.read(read).try_collect())
    }

    pub(super) fn all(&self) -> Result<Vec<RecordedEvent>> {
        self.read(Read::default())
    }

    /// Everything a read asks for, by going on from page to page; `limit` counts for each page.
    pub(super) fn pages(&self, mut read: Read) -> Result<Vec<RecordedEvent>> {
        let mut events = Vec::new();
        loop {
            let page = self.page(&read)?;
            assert!(page.damaged.is_empty(), "nothing was damaged");
            if let Some(limit) = read.limit {
                assert!(
                    page.events.len() <= limit,
                    "a page of {} events, at most {limit} asked for",
                    page.events.len()
                );
            }
            events.extend(page.events);
            let Some(covered) = page.next else { return Ok(events) };
            let on = read.clone().continued(covered);
            let advanced = match read.direction {
                Direction::Forward => on.after > read.after,
                Direction::Backward => read.before.is_none_or(|before| on.before < Some(before)),
            };
            assert!(advanced, "page after page covers the same");
            if on.before == Some(Position(0))
                || (on.after.is_some() && on.after >= on.before && on.before.is_some())
            {
                return Ok(events);
            }
            read = on;
        }
    }

    /// The first `count` events of a read that follows the log.
    pub(super) fn follow(&self, read: Read, count: usize) -> Result<Vec<RecordedEvent>> {
        use futures_util::stream::StreamExt;
        self.scene.wait(self.log.follow(read).take(count).try_collect())
    }

    pub(super) fn frames(&self, from: u64, bytes_max: usize) -> Result<Vec<Frame>> {
        self.scene.wait(self.store().frames(self.name(), from, bytes_max))
    }

    /// Every frame of the log.
    pub(super) fn all_frames(&self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        loop {
            let more = self.frames(frames.len() as u64, 1 << 20)?;
            if more.is_empty() {
                return Ok(frames);
            }
            frames.extend(more);
        }
    }

    pub(super) fn put_frames(&self, frames: Vec<Frame>) -> Result<Head> {
        self.scene.wait(self.store().put_frames(self.name(), frames))
    }

    pub(super) fn promote(&self) -> Result<()> {
        self.scene.wait(self.store().promote(self.name()))
    }

    pub(super) fn logs(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.scene.wait(self.store().logs())?.iter().map(ToString::to_string).collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn verify(&self, expect: Option<Expect>) -> Result<Report> {
        self.scene.wait(self.store().verify(self.name(), expect, &|_, _| {}))
    }

    pub(super) fn register(&self, name: &RegisterName) -> Result<Option<Register>> {
        self.scene.wait(self.store().register(name))
    }

    pub(super) fn set_register(
        &self,
        name: &RegisterName,
        expected: ExpectedRegister,
        value: impl Into<Bytes>,
    ) -> Result<Register> {
        self.scene.wait(self.store().set_register(name, expected, value.into()))
    }

    pub(super) fn grown(&self, size: u64) -> Result<Head> {
        self.scene.wait(self.store().grown(self.name(), size))
    }

    pub(super) fn close(&self) -> Result<()> {
        self.scene.wait(self.store().close())
    }

    /// Polls an append at most `polls` times and drops it then.
    pub(super) fn append_and_drop(&self, append: Append, polls: usize) -> Option<Result<Appended>> {
        self.scene.wait(polled(self.store().append(self.name(), append), polls))
    }

    /// Polls a wait for growth at most `polls` times and drops it then.
    pub(super) fn grown_and_drop(&self, size: u64, polls: usize) -> Option<Result<Head>> {
        self.scene.wait(polled(self.store().grown(self.name(), size), polls))
    }
}

async fn polled<F: Future + Unpin>(mut future: F, times: usize) -> Option<F::Output> {
    let mut polls = 0;
    poll_fn(move |cx| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match Pin::new(&mut future).poll(cx) {
            Poll::Ready(out) => Poll::Ready(Some(out)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(super) const SOURCE: &str = "urn:precedent:conformance";

/// Starts an event with the suite's source and the type `test.happened`.
pub(super) fn builder(id: impl ToString) -> EventBuilder {
    Event::builder(SOURCE, id.to_string(), "test.happened")
}

/// An event without anything.
pub(super) fn event(id: impl ToString) -> Event {
    built(builder(id))
}

/// An event of a stream.
pub(super) fn on(stream: &str, id: impl ToString) -> Event {
    built(builder(id).stream(stream))
}

/// An event with this tag.
pub(super) fn tagged(key: &str, value: &str, id: impl ToString) -> Event {
    built(builder(id).tag(key, value))
}

pub(super) fn built(builder: EventBuilder) -> Event {
    builder.build().expect("the suite builds events that are well formed")
}

pub(super) fn tag(text: &str) -> Tag {
    text.parse().expect("the suite uses tags that are well formed")
}

pub(super) fn register_name(text: &str) -> RegisterName {
    text.parse().expect("the suite uses names that are allowed")
}

pub(super) fn positions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|e| e.position.0).collect()
}

pub(super) fn ids(events: &[RecordedEvent]) -> Vec<&str> {
    events.iter().map(|e| e.event.id()).collect()
}

pub(super) fn receipts(appended: &Appended) -> Vec<(u64, Option<u64>, Status)> {
    appended.events.iter().map(receipt).collect()
}

pub(super) fn receipt(receipt: &Receipt) -> (u64, Option<u64>, Status) {
    (receipt.position.0, receipt.version.map(|v| v.0), receipt.status)
}

pub(super) fn in_stream(stream: &str) -> Read {
    Read::matching(Query::stream(stream))
}

/// The error of something that has to be refused in this way, with nothing written.
#[track_caller]
pub(super) fn refused<T: Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(value) => panic!("was not refused as {}: {value:?}", kind.code()),
        Err(error) => {
            assert_eq!(error.kind().code(), kind.code(), "refused otherwise: {error:?}");
            assert!(!error.may_have_been_written(), "nothing was written, and the error says so: {error:?}");
            assert!(!error.message().is_empty(), "an error says what is wrong");
            error
        }
    }
}

/// The same, and the message has these words in it.
#[track_caller]
pub(super) fn refused_naming<T: Debug>(result: Result<T>, kind: ErrorKind, words: &[&str]) -> Error {
    let error = refused(result, kind);
    for word in words {
        assert!(error.message().contains(word), "the message does not name '{word}': {error}");
    }
    error
}

/// Runs `work` on several threads that begin at the same moment.
pub(super) fn together<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> Result<T, Unable> + Sync,
) -> Result<Vec<T>, Unable> {
    let barrier = Barrier::new(threads);
    let (barrier, work) = (&barrier, &work);
    thread::scope(|scope| {
        let spawn = |i| {
            scope.spawn(move || {
                barrier.wait();
                work(i)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Says whether the writers of [`beside`] are still at work.
pub(super) struct Running(AtomicUsize);

impl Running {
    pub(super) fn still(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// Runs writers and readers at the same time; the readers can ask whether the writers are still at work.
pub(super) fn beside(
    writers: usize,
    write: impl Fn(usize) -> Outcome + Sync,
    readers: usize,
    read: impl Fn(usize, &Running) -> Outcome + Sync,
) -> Outcome {
    struct Done<'r>(&'r Running);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let running = Running(AtomicUsize::new(writers));
    together(writers + readers, |i| {
        if i >= writers {
            return read(i - writers, &running);
        }
        let _done = Done(&running);
        write(i)
    })
    .map(drop)
}

/// A small generator (splitmix64): the same numbers for the same seed, on every machine and in every version.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    pub(super) fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

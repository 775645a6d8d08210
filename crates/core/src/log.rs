//! One log of a store, as people use it: append, read, follow.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::{BoxFuture, FutureExt, Shared};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::{LogName, Position};
use crate::query::Direction;
use crate::store::{Append, Appended, Head, Page, Read, RecordedEvent, Store, Submitted, block_on};

/// One log of a store. Cheap to clone.
///
/// ```
/// use precedent_core::{Event, Log, MemoryStore, Query, Read};
/// use futures_util::{StreamExt, future};
/// # futures_executor_free::block_on(async {
/// let log = Log::new(std::sync::Arc::new(MemoryStore::new()), "main".parse()?);
/// let event = Event::builder("urn:example", "1", "ai.decision.made").stream("loan/42").build()?;
/// let appended = log.append(event).await?;
/// assert_eq!(appended.events[0].position.0, 0);
/// let mut events = log.read(Read::matching(Query::stream("loan/42"))).boxed();
/// assert_eq!(events.next().await.unwrap()?.event.id(), "1");
/// # Ok::<(), precedent_core::Error>(()) }).unwrap();
/// # mod futures_executor_free {
/// #     pub fn block_on<F: Future>(f: F) -> F::Output {
/// #         let mut f = std::pin::pin!(f);
/// #         let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #         loop { if let std::task::Poll::Ready(out) = f.as_mut().poll(&mut cx) { return out } }
/// #     }
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    store: Arc<dyn Store>,
    name: LogName,
    /// What was submitted to a store without a queue.
    line: Arc<Mutex<Line>>,
}

/// Appends in the order in which they were submitted. Whoever waits for one of them drives those before it.
#[derive(Default)]
struct Line {
    next: u64,
    waiting: VecDeque<(u64, Shared<BoxFuture<'static, Result<Appended>>>)>,
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The answer to an append that was [submitted](Log::submit). Dropping it leaves the append whole or absent.
#[must_use = "the answer says whether the append was recorded"]
pub struct Pending(BoxFuture<'static, Result<Appended>>);

impl Pending {
    /// An answer that comes.
    pub fn new(answer: impl Future<Output = Result<Appended>> + Send + 'static) -> Self {
        Self(answer.boxed())
    }

    /// Keeps this thread until the answer is there. Not for asynchronous tasks.
    pub fn wait(self) -> Result<Appended> {
        block_on(self.0)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}

impl Future for Pending {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({} in {})", self.name, self.store.url())
    }
}

impl Log {
    /// The log of this name. It is made by its first append.
    pub fn new(store: Arc<dyn Store>, name: LogName) -> Self {
        Self { store, name, line: Arc::default() }
    }

    /// The store the log is in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The log's name.
    pub fn name(&self) -> &LogName {
        &self.name
    }

    /// Records one event or an [`Append`]. See [`Store::append`].
    pub async fn append(&self, append: impl Into<Append>) -> Result<Appended> {
        self.store.append(&self.name, append.into()).await
    }

    /// Like [`Self::append`], for a thread that may wait. See [`Store::append_blocking`].
    pub fn append_blocking(&self, append: impl Into<Append>) -> Result<Appended> {
        self.store.append_blocking(&self.name, append.into())
    }

    /// Queues an append and does not wait for it, so that one task has many in flight.
    ///
    /// What is submitted to one `Log` and its clones is recorded in the order of these calls; each [`Pending`]
    /// answers for its own append, and they may be waited for in any order, or dropped. The embedded store has
    /// computed the commitments and queued the append when this returns. A store without a queue of its own
    /// begins when a `Pending` is polled, and then with the one that was submitted first. Whoever submits
    /// without end holds in memory what is not recorded yet: wait for the oldest.
    ///
    /// ```
    /// use precedent_core::{Event, Log, MemoryStore};
    /// let log = Log::new(std::sync::Arc::new(MemoryStore::new()), "main".parse()?);
    /// let mut pending = std::collections::VecDeque::new();
    /// for i in 0..100 {
    ///     let event = Event::builder("urn:example", i.to_string(), "ai.tool.called").build()?;
    ///     pending.push_back(log.submit(event)?);
    ///     if pending.len() == 4 {
    ///         // In a task: `.await`.
    ///         pending.pop_front().map(|oldest| oldest.wait()).transpose()?;
    ///     }
    /// }
    /// for (at, left) in (97..).zip(pending) {
    ///     assert_eq!(left.wait()?.events[0].position.0, at);
    /// }
    /// # Ok::<(), precedent_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// What can be said before it is queued: `invalid`, `limit_exceeded`, `read_only`, `stopped`.
    pub fn submit(&self, append: impl Into<Append>) -> Result<Pending> {
        let append = match self.store.submit(&self.name, append.into()) {
            Submitted::Queued(pending) => return Ok(pending),
            Submitted::Refused(error) => return Err(error),
            Submitted::NoQueue(append) => append,
        };
        let mut queue = lock(&self.line);
        let (store, name) = (self.store.clone(), self.name.clone());
        let own = async move { store.append(&name, append).await }.boxed().shared();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back((number, own.clone()));
        drop(queue);
        let line = self.line.clone();
        let answer = async move {
            loop {
                let first = lock(&line).waiting.front().filter(|(at, _)| *at <= number).cloned();
                let Some((at, first)) = first else { break };
                // It answers for itself.
                let _ = first.await;
                let mut line = lock(&line);
                if line.waiting.front().is_some_and(|(first, _)| *first == at) {
                    line.waiting.pop_front();
                }
            }
            own.await
        };
        Ok(Pending::new(answer))
    }

    /// The end of the log.
    pub async fn head(&self) -> Result<Head> {
        self.store.head(&self.name).await
    }

    /// One page of events. See [`Store::read`].
    pub async fn page(&self, read: &Read) -> Result<Page> {
        self.store.read(&self.name, read).await
    }

    /// All events a read asks for, up to where the log ended when the read began.
    ///
    /// An item that is an error of kind [`Damaged`](ErrorKind::Damaged) names one event that could not be read;
    /// the stream goes on behind it. Any other error is the last item.
    pub fn read(&self, read: Read) -> impl Stream<Item = Result<RecordedEvent>> + Send + use<> {
        self.pages(read, false)
    }

    /// All events a read asks for, and then those that are appended later, as they come. Nothing is missed and
    /// nothing comes twice. The read has to go forward; with a `before` or `limit` it ends there.
    pub fn follow(&self, read: Read) -> impl Stream<Item = Result<RecordedEvent>> + Send + use<> {
        self.pages(read, true)
    }

    fn pages(&self, read: Read, follow: bool) -> impl Stream<Item = Result<RecordedEvent>> + Send + use<> {
        let left = read.limit;
        let ahead = self.store.reads_ahead();
        let state = State { log: self.clone(), read, left, follow, seen: None };
        Events {
            items: Vec::new().into_iter(),
            next: Some(state.next().boxed()),
            arrived: None,
            ahead,
            given: 0,
        }
    }
}

/// The items of a page, and where the stream stands behind it; `None` at its end.
type Items = (Vec<Result<RecordedEvent>>, Option<State>);

/// The items of one page after the other. From a store that reads ahead the next page is asked for with the second item of the
/// one before: who wants only one costs no more than that.
struct Events {
    items: std::vec::IntoIter<Result<RecordedEvent>>,
    next: Option<BoxFuture<'static, Items>>,
    /// The next page, if it is there already. The one behind it is not asked for before this one is given.
    arrived: Option<Items>,
    ahead: bool,
    /// Items given of this page.
    given: usize,
}

/// So many items are given between two looks whether the next page has come.
const LOOK_ITEMS: usize = 64;

impl Events {
    fn go_on(&mut self, (items, state): Items) {
        self.items = items.into_iter();
        self.next = state.map(|state| state.next().boxed());
        self.given = 0;
    }
}

impl Stream for Events {
    type Item = Result<RecordedEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.ahead
                && self.arrived.is_none()
                && self.given % LOOK_ITEMS == 1
                && self.items.len() > 0
                && let Some(next) = &mut self.next
                && let Poll::Ready(page) = next.poll_unpin(cx)
            {
                (self.arrived, self.next) = (Some(page), None);
            }
            if let Some(item) = self.items.next() {
                self.given += 1;
                return Poll::Ready(Some(item));
            }
            let page = match (self.arrived.take(), &mut self.next) {
                (Some(page), _) => page,
                (None, Some(next)) => std::task::ready!(next.poll_unpin(cx)),
                (None, None) => return Poll::Ready(None),
            };
            self.go_on(page);
        }
    }
}

/// Where a stream over pages stands.
struct State {
    log: Log,
    read: Read,
    /// Events still wanted.
    left: Option<usize>,
    follow: bool,
    /// The size of the log the first page was read from: a read without follow ends there.
    seen: Option<u64>,
}

impl State {
    async fn next(mut self) -> (Vec<Result<RecordedEvent>>, Option<Self>) {
        if self.left == Some(0) && self.seen.is_some() {
            return (Vec::new(), None);
        }
        if self.follow && self.read.direction == Direction::Backward {
            let error = Error::invalid("only a read that goes forward can follow the log");
            return (vec![Err(error)], None);
        }
        self.read.limit = self.left;
        let page = match self.log.page(&self.read).await {
            Ok(page) => page,
            Err(error) => return (vec![Err(error)], None),
        };
        let size = *self.seen.get_or_insert(page.size);
        if !self.follow && self.read.direction == Direction::Forward {
            // Later pages may see a longer log; this read ends where the first page saw the end.
            self.read.before = Some(self.read.before.map_or(Position(size), |b| b.min(Position(size))));
        }
        self.left = self.left.map(|left| left.saturating_sub(page.events.len()));
        let items = in_order(page.events, page.damaged, self.read.direction);
        match page.next {
            Some(_) if self.left == Some(0) => (items, None),
            Some(covered) => {
                let done = self.read.before.is_some_and(|before| {
                    self.read.direction == Direction::Forward && covered.0.saturating_add(1) >= before.0
                });
                self.read = self.read.continued(covered);
                self.read.at_least = None;
                (items, (!done).then_some(self))
            }
            None if !self.follow || self.left == Some(0) => (items, None),
            None => {
                let ended = self.read.before.is_some_and(|before| before.0 <= page.size);
                if ended {
                    return (items, None);
                }
                if page.size > 0 {
                    self.read = self.read.continued(Position(page.size - 1));
                    self.read.at_least = None;
                }
                if !items.is_empty() {
                    return (items, Some(self));
                }
                match self.log.store.grown(&self.log.name, page.size).await {
                    Ok(_) => (Vec::new(), Some(self)),
                    Err(error) => (vec![Err(error)], None),
                }
            }
        }
    }
}

/// Events and damage in the order of the read.
fn in_order(
    events: Vec<RecordedEvent>,
    damaged: Vec<crate::store::Damage>,
    direction: Direction,
) -> Vec<Result<RecordedEvent>> {
    if damaged.is_empty() {
        return events.into_iter().map(Ok).collect();
    }
    let mut items: Vec<(Position, Result<RecordedEvent>)> =
        events.into_iter().map(|e| (e.position, Ok(e))).collect();
    items.extend(damaged.into_iter().map(|d| {
        debug_assert_eq!(d.error.kind(), ErrorKind::Damaged);
        (d.position, Err(d.error))
    }));
    items.sort_by_key(|(position, _)| *position);
    if direction == Direction::Backward {
        items.reverse();
    }
    items.into_iter().map(|(_, item)| item).collect()
}

//! Appends on their way from a request or a message into the store, and their answers on the way back.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use precedent_core::{Append, Appended, Error, ErrorKind, LogName, Pending, Result, Submitted};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, Busy};
use crate::problem::Problem;

/// Appends, and answers once it is recorded. Whoever stops waiting leaves it whole, and what is held until it is recorded.
pub(crate) async fn append(app: &Arc<App>, log: &LogName, append: Append, held: Held) -> Result<Appended> {
    // The other threads of the runtime do what comes meanwhile.
    let appended = if is_alone(app) && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        tokio::task::block_in_place(|| app.store.append_blocking(log, append))?
    } else {
        let submitted = app.store.submit(log, append);
        answer_of(app, log, submitted, held).await?
    };
    app.metrics.appended(&appended);
    Ok(appended)
}

/// Whether this is the only request, or append over a WebSocket, that is being answered. Then its thread does what there is to do, if
/// the store can use it: of the time of one append, waking a thread of the store and being woken by it is more than the work. Where
/// several come at once, one sync is for all of them.
pub(crate) fn is_alone(app: &App) -> bool {
    app.store.appends_on_this_thread() && app.metrics.requests_open.load(Ordering::Relaxed) <= 1
}

/// Submits several appends, those that could be read; what comes of each, in their order. All of them are in the store's queue
/// before the first is waited for: so they come into as few frames as they can.
pub(crate) fn submit_each(
    app: &Arc<App>,
    log: &LogName,
    appends: Vec<Result<Append>>,
    held: Held,
) -> Vec<BoxFuture<'static, Result<Appended>>> {
    let (mut fine, mut refused) = (Vec::with_capacity(appends.len()), Vec::new());
    for (at, append) in appends.into_iter().enumerate() {
        match append {
            Ok(append) => fine.push(append),
            Err(error) => refused.push((at, error)),
        }
    }
    let submitted = app.store.submit_all(log, fine).into_iter();
    let mut pending: Vec<_> =
        submitted.map(|submitted| answer_of(app, log, submitted, held.clone())).collect();
    for (at, error) in refused {
        pending.insert(at, Box::pin(ready(Err(error))));
    }
    pending
}

/// What came of one append, in JSON: what a request with it alone would have been answered.
pub(crate) fn answer_text(appended: Result<Appended>) -> String {
    let written = match appended {
        Ok(appended) => serde_json::to_string(&appended),
        Err(error) => serde_json::to_string(&Problem::from(error).line()),
    };
    written.expect("numbers and texts can be written as JSON")
}

/// What comes of an append that was submitted. Where the store has no queue it begins when this is awaited.
fn answer_of(
    app: &Arc<App>,
    log: &LogName,
    submitted: Submitted,
    held: Held,
) -> BoxFuture<'static, Result<Appended>> {
    match submitted {
        Submitted::Queued(pending) => Box::pin(HeardOut(Some((pending, held)))),
        Submitted::Refused(error) => Box::pin(ready(Err(error))),
        Submitted::NoQueue(append) => Box::pin(in_a_task(app.clone(), log.clone(), append, held)),
    }
}

/// What is given back when the appends of a request are done: a shutdown waits for the one, and the other is room in
/// memory.
#[derive(Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "it is held")] Arc<(Busy, Option<OwnedSemaphorePermit>)>);

impl Held {
    pub(crate) fn new(app: &Arc<App>, room: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new((app.busy(), room)))
    }
}

/// An append that begins when it is polled, in a task of its own: there it goes on whoever waits for it.
async fn in_a_task(app: Arc<App>, log: LogName, append: Append, held: Held) -> Result<Appended> {
    let task = app.runtime.clone().spawn(async move {
        let appended = app.store.append(&log, append).await;
        drop(held);
        appended
    });
    task.await.map_err(|e| {
        Error::new(ErrorKind::Internal, format!("the append was broken off: {e}")).maybe_written()
    })?
}

/// An append in the store's queue, where it goes on whoever waits for it. If this is dropped before the answer is there,
/// a task waits in its place, so that nothing is given back that the append still takes.
struct HeardOut(Option<(Pending, Held)>);

impl Future for HeardOut {
    type Output = Result<Appended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (pending, _) = self.0.as_mut().expect("a future is not polled again after its answer");
        let answer = std::task::ready!(Pin::new(pending).poll(cx));
        self.0 = None;
        Poll::Ready(answer)
    }
}

impl Drop for HeardOut {
    fn drop(&mut self) {
        // Without a runtime the process is about to end.
        if let Some((pending, held)) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = pending.await;
                drop(held);
            });
        }
    }
}

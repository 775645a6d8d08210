//! What all requests share: the store, the permits that bound the work, and the sign to stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use precedent_core::{Error, ErrorKind, Limits, Store, wire};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::capture::Capture;
use crate::config::{Config, ServerLimits};
use crate::guard::Guard;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::sockets::Sockets;

/// The state of a server.
pub(crate) struct App {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) store_limits: Limits,
    pub(crate) limits: ServerLimits,
    pub(crate) guard: Guard,
    pub(crate) metrics: Metrics,
    pub(crate) capture: Capture,
    pub(crate) sockets: Sockets,
    /// The runtime that the server was bound in.
    pub(crate) runtime: Handle,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    sockets_left: Arc<Semaphore>,
    pub(crate) bodies: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    /// Messages of the proxy that take much memory while they are recorded.
    pub(crate) recordings: Semaphore,
    pub(crate) stopping: watch::Sender<bool>,
    busy: watch::Sender<usize>,
}

impl App {
    pub(crate) fn new(store: Arc<dyn Store>, config: &Config) -> Self {
        let permits = |n: usize| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        let limits = config.limits.clone();
        Self {
            store_limits: store.limits(),
            store,
            guard: Guard::new(config),
            metrics: Metrics::default(),
            capture: Capture::new(&config.capture),
            sockets: Sockets::default(),
            runtime: Handle::current(),
            requests: permits(limits.requests_max),
            streams: permits(limits.streams_max),
            sockets_left: permits(limits.sockets_max),
            bodies: permits(limits.bodies_bytes_max.div_ceil(BODY_PERMIT_BYTES)),
            answers: permits(limits.answers_bytes_max.div_ceil(BODY_PERMIT_BYTES)),
            recordings: Semaphore::new(RECORDINGS_MAX),
            limits,
            stopping: watch::Sender::new(false),
            busy: watch::Sender::new(0),
        }
    }

    /// A place among the requests that are answered at once.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.requests.clone().try_acquire_owned().map_err(|_| {
            let max = self.limits.requests_max;
            Problem::http("overloaded", format!("{max} requests are under way, the limit is {max}"))
        })
    }

    /// A place among the reads, followers and long polls.
    pub(crate) fn admit_stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let max = self.limits.streams_max;
            Problem::http(
                "overloaded",
                format!("{max} reads and followers are under way, the limit is {max}"),
            )
        })
    }

    /// How many reads, followers and long polls are under way.
    pub(crate) fn streams_open(&self) -> usize {
        self.limits.streams_max.saturating_sub(self.streams.available_permits())
    }

    /// A place among the WebSockets.
    pub(crate) fn admit_socket(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.sockets_left.clone().try_acquire_owned().map_err(|_| {
            let max = self.limits.sockets_max;
            Problem::http("overloaded", format!("{max} WebSockets are open, the limit is {max}"))
        })
    }

    /// How many WebSockets are open.
    pub(crate) fn sockets_open(&self) -> usize {
        self.limits.sockets_max.saturating_sub(self.sockets_left.available_permits())
    }

    /// How many bytes bodies may have that are not in memory yet.
    pub(crate) fn body_bytes_left(&self) -> usize {
        self.bodies.available_permits() * BODY_PERMIT_BYTES
    }

    /// Waits for the room that so many bytes of bodies take, or for all the room there is.
    pub(crate) async fn room(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = bytes.min(self.limits.bodies_bytes_max).div_ceil(BODY_PERMIT_BYTES);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        self.bodies.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
    }

    /// How many bytes a message of a WebSocket may have.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.limits.body_bytes_max.min(wire::MESSAGE_BYTES_MAX)
    }

    /// Waits a while for the room that `bytes` of an answer take, or all the room there is. Nobody who waits
    /// here holds room already, so that all who wait together get on one after the other.
    pub(crate) async fn answer_room(&self, bytes: usize) -> Result<Room, Error> {
        let max = self.limits.answers_bytes_max;
        let permits = bytes.min(max).div_ceil(BODY_PERMIT_BYTES);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let patience = self.limits.answer_timeout;
        match tokio::time::timeout(patience, self.answers.clone().acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(Room(permit)),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "the answers on their way out take {max} bytes together, and for {:.1} seconds none was done",
                    patience.as_secs_f64()
                ),
            )),
        }
    }

    /// Says that something is under way that a shutdown should wait for.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.send_modify(|n| *n += 1);
        Busy(self.clone())
    }

    /// Waits until nothing is under way.
    pub(crate) async fn idle(&self) {
        // The sender lives in `self`, so the wait can only end with nothing under way.
        let _ = self.busy.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Waits until the server is to stop.
    pub(crate) async fn stopped(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// Bytes of a body or an answer for which one permit is taken.
pub(crate) const BODY_PERMIT_BYTES: usize = 64 << 10;

/// Large messages of the proxy that are recorded at once. Each is held, decoded and cut into events: at most three times the longest
/// body that is recorded.
const RECORDINGS_MAX: usize = 2;

/// Room among the bytes on their way out, given back when this is dropped.
pub(crate) struct Room(OwnedSemaphorePermit);

impl Room {
    /// Gives back what `bytes` do not take.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(bytes.div_ceil(BODY_PERMIT_BYTES));
        drop(self.0.split(surplus));
    }
}

/// Something under way; it ends when this is dropped.
pub(crate) struct Busy(Arc<App>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|n| *n -= 1);
    }
}

/// A store's future whose reading happens on the thread that polls it. Where the runtime has other threads,
/// they are given the other tasks meanwhile, so that a slow disk delays nobody else.
pub(crate) fn blocking<F: Future + Unpin>(future: F) -> Blocking<F> {
    Blocking(future)
}

pub(crate) struct Blocking<F>(F);

impl<F: Future + Unpin> Future for Blocking<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = Pin::new(&mut self.0);
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => tokio::task::block_in_place(|| future.poll(cx)),
            _ => future.poll(cx),
        }
    }
}

//! Appends on their way: what is appended while others are under way shares a request with them.
//!
//! A request costs both sides several times what an event does. So while [`REQUESTS_MAX`] requests of a log are
//! under way, what is appended meanwhile waits, and goes in one request when the first of them is answered. There is no timer: who
//! finds nothing under way goes at once. Each append stays one of its own, with its own conditions and its own answer.
//!
//! Large appends go by themselves, as many as there are: in them the request is the smaller part.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use precedent_core::{Append, Appended, Error, ErrorKind, LogName, Result, wire};
use reqwest::{Method, header};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::LIST_BYTES_MAX;
use super::connection::{Connection, Effect};

/// Requests with small appends that are under way to one log: while one is answered, the next is there already.
const REQUESTS_MAX: usize = 2;
/// An append with a larger body goes by itself.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// The body of a request that several share has at most so many bytes.
const SHARED_BYTES_MAX: usize = 1 << 20;

/// The appends of one store.
pub(super) struct Appends(Arc<Shared>);

struct Shared {
    connection: Arc<Connection>,
    runtime: Handle,
    request_bytes_max: u64,
    /// Of each log that requests are under way to.
    lanes: Mutex<HashMap<LogName, Lane>>,
}

#[derive(Default)]
struct Lane {
    /// How many requests are under way.
    requests: usize,
    waiting: VecDeque<Waiting>,
}

/// An append that waits for its request.
struct Waiting {
    body: Vec<u8>,
    answer: oneshot::Sender<Result<Appended>>,
}

impl Appends {
    pub(super) fn new(connection: Arc<Connection>, runtime: Handle, request_bytes_max: u64) -> Self {
        Self(Arc::new(Shared { connection, runtime, request_bytes_max, lanes: Mutex::default() }))
    }

    /// The most bytes that the body of a request can have.
    pub(super) fn request_bytes_max(&self) -> u64 {
        self.0.request_bytes_max
    }

    pub(super) async fn append(&self, log: &LogName, append: &Append) -> Result<Appended> {
        let shared = &self.0;
        let body = wire::write_append(append);
        if body.len() as u64 > shared.request_bytes_max {
            let (len, max) = (body.len() as u64, shared.request_bytes_max);
            return Err(Error::limit("the append", len, max, "bytes as a request"));
        }
        if body.len() > SMALL_BYTES_MAX {
            return shared.send_one(log, body).await;
        }
        let (answer, told) = oneshot::channel();
        let first = {
            let mut lanes = shared.lanes();
            let lane = lanes.entry(log.clone()).or_default();
            if lane.requests < REQUESTS_MAX {
                lane.requests += 1;
                Some(body)
            } else {
                lane.waiting.push_back(Waiting { body, answer });
                None
            }
        };
        match first {
            Some(body) => {
                // Whoever asked may give up in the middle of it; those who wait behind go on then too.
                let _next = Next { shared, log };
                shared.send_one(log, body).await
            }
            None => told.await.unwrap_or_else(|_| {
                let message = "the runtime that the store was connected in has ended";
                Err(Error::new(ErrorKind::Stopped, message).maybe_written())
            }),
        }
    }
}

/// A request under way, until this is dropped: then those who wait have its place.
struct Next<'a> {
    shared: &'a Arc<Shared>,
    log: &'a LogName,
}

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let mut batch = self.shared.next(self.log);
        if batch.is_empty() {
            return;
        }
        let (shared, log) = (self.shared.clone(), self.log.clone());
        self.shared.runtime.spawn(async move {
            while !batch.is_empty() {
                shared.send_all(&log, batch).await;
                // Whoever was answered has more to append, nearly always: then it goes with this request and not behind it.
                tokio::task::yield_now().await;
                batch = shared.next(&log);
            }
        });
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, HashMap<LogName, Lane>> {
        self.lanes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Those who wait and fit into one request; without any, the request that was under way is no more.
    fn next(&self, log: &LogName) -> Vec<Waiting> {
        let mut lanes = self.lanes();
        let Some(lane) = lanes.get_mut(log) else { return Vec::new() };
        let bytes_max = SHARED_BYTES_MAX.min(usize::try_from(self.request_bytes_max).unwrap_or(usize::MAX));
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < wire::APPENDS_MAX
            && let Some(waiting) = lane.waiting.pop_front()
        {
            // Nobody waits for it any more, and nothing of it has gone out.
            if waiting.answer.is_closed() {
                continue;
            }
            bytes += wire::APPEND_LENGTH_BYTES + waiting.body.len();
            if bytes > bytes_max && !batch.is_empty() {
                lane.waiting.push_front(waiting);
                break;
            }
            batch.push(waiting);
        }
        if batch.is_empty() {
            lane.requests -= 1;
            if lane.requests == 0 {
                lanes.remove(log);
            }
        }
        batch
    }

    async fn send_one(&self, log: &LogName, body: Vec<u8>) -> Result<Appended> {
        let request = self
            .connection
            .log_request(Method::POST, log, "append")
            .header(header::CONTENT_TYPE, wire::APPEND_MEDIA_TYPE)
            .body(body);
        let answer = self.connection.send(request, Effect::Writes, LIST_BYTES_MAX).await?;
        self.connection.appended(&answer.body)
    }

    /// Sends these in one request and tells each what came of it.
    async fn send_all(&self, log: &LogName, mut batch: Vec<Waiting>) {
        if batch.len() == 1 {
            let Waiting { body, answer } = batch.remove(0);
            let _ = answer.send(self.send_one(log, body).await);
            return;
        }
        let body = wire::join_appends(batch.iter().map(|waiting| &waiting.body[..]));
        let request = self
            .connection
            .log_request(Method::POST, log, "appends")
            .header(header::CONTENT_TYPE, wire::APPENDS_MEDIA_TYPE)
            .body(body);
        let answer = self.connection.send(request, Effect::Writes, LIST_BYTES_MAX).await;
        let answers = answer.and_then(|answer| self.connection.appended_each(&answer.body, batch.len()));
        match answers {
            Ok(answers) => {
                for (waiting, answer) in batch.into_iter().zip(answers) {
                    let _ = waiting.answer.send(answer);
                }
            }
            Err(error) => {
                for waiting in batch {
                    let _ = waiting.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

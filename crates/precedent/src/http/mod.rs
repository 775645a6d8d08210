//! A store behind a Precedent server.
//!
//! [`HttpStore`] speaks the HTTP interface of `docs/http.md`. It believes the server no more than it has to:
//! events come as the exact bytes of their entries, so leaves are computed here, and
//! [`verify`](Store::verify) reads the frames and recomputes everything on this side.
//!
//! **The token** goes to the one origin it was given for: redirects are not followed, and it is not sent in
//! the clear to another machine.
//!
//! **What is not known is said.** An append whose answer does not come is [`ErrorKind::Unknown`]; one that
//! never reached a server is [`ErrorKind::Unavailable`]. Sending either again is safe.

mod appends;
mod connection;
mod socket;
mod tls;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Usage};
use precedent_core::verify::{Expect, Report, Verifier};
use precedent_core::{
    Append, Appended, Direction, Error, ErrorKind, ExpectedRegister, Head, Limits, LogName, Page, Position,
    Read, Register, RegisterName, Result, Store, wire,
};
use reqwest::Method;
use reqwest::header;
use tokio::runtime::Handle;

use self::appends::Appends;
use self::connection::{Connection, Effect, SHORT_ANSWER_BYTES_MAX};

pub use self::tls::CA_FILE_VARIABLE;

const GROWN_WAIT_SECS: u64 = 30;
const FRAMES_BYTES_MAX: usize = 16 << 20;
/// Bytes of an answer that lists things.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a page, which has 4 MiB and one event of 15 MiB, and of frames, of which the last has up to 16 MiB.
const PAGE_BYTES_MAX: usize = 40 << 20;

/// A store behind a Precedent server.
///
/// Its futures may be polled from any thread, as long as the tokio runtime in which it was connected runs.
pub struct HttpStore {
    connection: Arc<Connection>,
    appends: Appends,
    limits: Limits,
    /// The largest size seen of each log: less is a log that went backwards.
    seen: Mutex<HashMap<LogName, u64>>,
    runtime: Handle,
}

impl fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpStore({})", self.connection.base)
    }
}

impl HttpStore {
    /// Connects to the server at `url`, `http://HOST[:PORT][/PATH]` or `https://…`, and asks for its limits.
    /// Has to be called inside a tokio runtime.
    ///
    /// # Errors
    /// `invalid` for another URL, and for a token that would go in the clear to another machine;
    /// `unavailable` if no server answers; `unauthorized` if it wants another token; `not_a_store` if what
    /// answers is no Precedent server.
    pub async fn connect(url: &str, token: Option<String>) -> Result<Self> {
        let runtime = Handle::try_current().map_err(|_| {
            Error::new(ErrorKind::Internal, "a server can only be connected to inside a tokio runtime")
        })?;
        let connection = Arc::new(Connection::new(url, token.as_deref())?);
        let answer = connection
            .send(connection.request(Method::GET, "/v1/limits"), Effect::Reads, SHORT_ANSWER_BYTES_MAX)
            .await?;
        let no_store = || {
            let message = format!("what answers at {} is no Precedent server", connection.base);
            Error::new(ErrorKind::NotAStore, message)
        };
        let limits: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| no_store())?;
        let request_bytes_max =
            limits.get("request_bytes_max").and_then(|n| n.as_u64()).ok_or_else(no_store)?;
        // A server of an earlier version has no WebSockets, and does not say so.
        let message_bytes_max = limits.get("message_bytes_max").and_then(|n| n.as_u64()).unwrap_or(0);
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let limits = serde_json::from_value(limits).map_err(|_| no_store())?;
        let appends = Appends::new(connection.clone(), runtime.clone(), request_bytes_max, message_bytes_max);
        Ok(Self { connection, appends, limits, seen: Mutex::default(), runtime })
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<LogName, u64>> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The size a log has at least, for an answer that is yet to come.
    fn floor(&self, log: &LogName) -> u64 {
        self.seen().get(log).copied().unwrap_or(0)
    }

    fn saw(&self, log: &LogName, size: u64, floor: u64) -> Result<()> {
        if size < floor {
            return Err(Error::new(
                ErrorKind::LogWentBackwards,
                format!("log '{log}' at {} had {floor} events and has {size} now", self.connection.base),
            ));
        }
        let mut seen = self.seen();
        match seen.get_mut(log) {
            Some(most) => *most = size.max(*most),
            None => {
                seen.insert(log.clone(), size);
            }
        }
        Ok(())
    }

    async fn head_at(&self, log: &LogName, path: &str) -> Result<Head> {
        let floor = self.floor(log);
        let answer = self
            .connection
            .send(self.connection.log_request(Method::GET, log, path), Effect::Reads, SHORT_ANSWER_BYTES_MAX)
            .await?;
        let head = wire::parse_head(&answer.body)?;
        self.saw(log, head.size, floor)?;
        Ok(head)
    }

    async fn frames_at(&self, log: &LogName, from: u64, bytes_max: usize) -> Result<Vec<Frame>> {
        let bytes = bytes_max.clamp(1, FRAMES_BYTES_MAX);
        let path = format!("frames?from={from}&bytes={bytes}");
        let answer = self
            .connection
            .send(self.connection.log_request(Method::GET, log, &path), Effect::Reads, PAGE_BYTES_MAX)
            .await?;
        wire::parse_frames(answer.body)
            .map_err(|e| Error::damaged(e.message()).context(format!("frames of log '{log}' from {from} on")))
    }

    async fn put_some_frames(&self, log: &LogName, body: Vec<u8>) -> Result<Head> {
        let request = self
            .connection
            .log_request(Method::POST, log, "frames")
            .header(header::CONTENT_TYPE, wire::FRAMES_MEDIA_TYPE)
            .body(body);
        wire::parse_head(&self.connection.send(request, Effect::Writes, SHORT_ANSWER_BYTES_MAX).await?.body)
    }

    async fn verify_here(
        &self,
        log: &LogName,
        expect: Option<Expect>,
        progress: Progress<'_>,
    ) -> Result<Report> {
        const BYTES: usize = 4 << 20;
        let head = self.head_at(log, "head").await?;
        let mut verifier = Verifier::new(expect);
        let mut bytes = BYTES;
        loop {
            match self.frames_at(log, verifier.next_sequence(), bytes).await {
                Ok(frames) if frames.is_empty() => break,
                Ok(frames) => {
                    for frame in &frames {
                        verifier.frame(frame, None);
                    }
                    progress(verifier.size(), head.size.max(verifier.size()));
                }
                // One frame at a time finds out which one it is; only that one is given up.
                Err(error) if error.kind() == ErrorKind::Damaged && bytes > 1 => bytes = 1,
                Err(error)
                    if error.kind() == ErrorKind::Damaged && verifier.next_sequence() < head.frames =>
                {
                    verifier.unreadable(None, error.message().to_owned());
                    bytes = BYTES;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(verifier.finish())
    }

    /// Runs a future of this store: its sockets and timers belong to the runtime it was connected in.
    fn run<'a, T: 'a>(&'a self, future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
        Box::pin(Entered { runtime: &self.runtime, future: Box::pin(future) })
    }
}

struct Entered<'a, T> {
    runtime: &'a Handle,
    future: BoxFuture<'a, T>,
}

impl<T> Future for Entered<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let _entered = self.runtime.enter();
        self.future.as_mut().poll(cx)
    }
}

/// A finding's code as a word of this program. Codes are few; a server that invents them without end gets `other`.
fn finding_code(code: &str) -> &'static str {
    static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut codes = CODES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match codes.get(code) {
        Some(known) => known,
        None if codes.len() < 256 && code.len() <= 64 => {
            let kept: &'static str = Box::leak(code.to_owned().into_boxed_str());
            codes.insert(kept);
            kept
        }
        None => "other",
    }
}

/// Refuses a page that does not answer the read.
fn check_page(read: &Read, page: &Page) -> Result<()> {
    let wrong = |at: Position, what: &str| {
        Err(Error::damaged(format!("the server answered with the event at position {at}, {what}")))
    };
    let mut last: Option<Position> = None;
    for event in &page.events {
        let in_order = last.is_none_or(|last| match read.direction {
            Direction::Forward => event.position > last,
            Direction::Backward => event.position < last,
        });
        if !in_order {
            return wrong(event.position, "which is out of order");
        }
        if !read.wants(event) {
            return wrong(event.position, "which was not asked for");
        }
        last = Some(event.position);
    }
    Ok(())
}

impl Store for HttpStore {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn url(&self) -> String {
        self.connection.base.clone()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        self.run(async move {
            let floor = self.floor(log);
            let appended = self.appends.append(log, &append).await?;
            self.saw(log, appended.size, floor)?;
            Ok(appended)
        })
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        self.run(async move {
            let floor = self.floor(log);
            let request = self
                .connection
                .log_request(Method::POST, log, "query")
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, wire::EVENTS_MEDIA_TYPE)
                .body(wire::write_read(read));
            let page =
                wire::parse_page(self.connection.send(request, Effect::Reads, PAGE_BYTES_MAX).await?.body)?;
            check_page(read, &page)?;
            self.saw(log, page.size, floor)?;
            Ok(page)
        })
    }

    fn reads_ahead(&self) -> bool {
        true
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        self.run(self.head_at(log, "head"))
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        self.run(async move {
            let path = format!("head?grown={size}&wait={GROWN_WAIT_SECS}");
            loop {
                let head = self.head_at(log, &path).await?;
                if head.size > size {
                    return Ok(head);
                }
            }
        })
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        self.run(async move {
            let answer = self
                .connection
                .send(self.connection.request(Method::GET, "/v1/logs"), Effect::Reads, LIST_BYTES_MAX)
                .await?;
            let bad = || Error::new(ErrorKind::Io, "the answer is not a list of logs");
            let value: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| bad())?;
            let names = value.get("logs").and_then(|names| names.as_array()).ok_or_else(bad)?;
            names.iter().map(|name| name.as_str().ok_or_else(bad)?.parse()).collect()
        })
    }

    fn frames<'a>(
        &'a self,
        log: &'a LogName,
        from: u64,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Vec<Frame>>> {
        self.run(self.frames_at(log, from, bytes_max))
    }

    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        self.run(async move {
            if frames.is_empty() {
                return self.head_at(log, "head").await;
            }
            let mut body = Vec::new();
            for frame in &frames {
                let full = body.len() + 4 + frame.bytes().len() > self.appends.request_bytes_max() as usize;
                if full && !body.is_empty() {
                    self.put_some_frames(log, std::mem::take(&mut body)).await?;
                }
                wire::write_frame(frame, &mut body);
            }
            self.put_some_frames(log, body).await
        })
    }

    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        self.run(async move {
            self.connection
                .send(
                    self.connection.log_request(Method::POST, log, "promote"),
                    Effect::Writes,
                    SHORT_ANSWER_BYTES_MAX,
                )
                .await?;
            Ok(())
        })
    }

    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        self.run(self.verify_here(log, expect, progress))
    }

    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        self.run(async move {
            let answer = self
                .connection
                .send(self.connection.log_request(Method::GET, log, "doctor"), Effect::Reads, LIST_BYTES_MAX)
                .await?;
            wire::parse_examination(&answer.body, finding_code)
        })
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        self.run(async move {
            match self
                .connection
                .send(
                    self.connection.request(Method::GET, &register_path(name)),
                    Effect::Reads,
                    SHORT_ANSWER_BYTES_MAX,
                )
                .await
            {
                Ok(answer) => {
                    let tag = answer.headers.get(header::ETAG).and_then(|v| v.to_str().ok());
                    let revision = tag.and_then(|tag| tag.trim_matches('"').parse().ok());
                    let revision = revision.ok_or_else(|| {
                        Error::new(ErrorKind::Io, format!("the answer for register '{name}' has no ETag"))
                    })?;
                    Ok(Some(Register { value: answer.body, revision }))
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        self.run(async move {
            let request = self.connection.request(Method::PUT, &register_path(name)).body(value.clone());
            let request = match expected {
                ExpectedRegister::Absent => request.header(header::IF_NONE_MATCH, "*"),
                ExpectedRegister::Revision(revision) => {
                    request.header(header::IF_MATCH, format!("\"{revision}\""))
                }
            };
            let answer = self.connection.send(request, Effect::Writes, SHORT_ANSWER_BYTES_MAX).await?;
            let json: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let revision = json.as_ref().and_then(|json| json.get("revision")?.as_u64());
            let revision = revision.ok_or_else(|| {
                Error::new(ErrorKind::Unknown, format!("the answer for register '{name}' is not understood"))
            })?;
            Ok(Register { value, revision })
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.run(async move {
            self.connection.close().await?;
            self.appends.leave();
            Ok(())
        })
    }
}

/// Slashes are encoded, so that a name such as `a/../b` reaches the server as it is.
fn register_path(name: &RegisterName) -> String {
    format!("/v1/registers/{}", name.as_str().replace('/', "%2F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_codes_stay_the_same_words() {
        assert_eq!(finding_code("not_durable"), "not_durable");
        assert!(std::ptr::eq(finding_code("not_durable"), finding_code("not_durable")));
        assert_eq!(finding_code(&"x".repeat(65)), "other");
    }
}

//! A server over a store that can be given troubles, and a client that sees every byte.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod browser;
pub mod otlp;
pub mod proxied;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Usage};
use precedent_core::verify::{Expect, Report};
use precedent_core::*;
use precedent_server::{Config, bind};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

/// What a test waits at most for something that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it has to happen soon")
}

/// Polls until `holds` is true.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// A memory store whose events can be damaged, and whose appends can be held up.
#[derive(Clone)]
pub struct Trouble {
    pub inner: MemoryStore,
    pub damaged: Arc<Mutex<BTreeSet<u64>>>,
    /// One permit lets one append through.
    pub gate: Arc<Semaphore>,
    pub appends_begun: Arc<AtomicUsize>,
    /// Whether whoever appends does it on its own thread.
    pub on_this_thread: Arc<AtomicBool>,
    pub waiting: Arc<AtomicUsize>,
    pub failing: Arc<Mutex<Option<Error>>>,
}

impl Trouble {
    pub fn none() -> Self {
        Self {
            inner: MemoryStore::new(),
            damaged: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            appends_begun: Arc::default(),
            on_this_thread: Arc::default(),
            waiting: Arc::default(),
            failing: Arc::default(),
        }
    }

    pub fn damage(&self, position: u64) {
        self.damaged.lock().unwrap().insert(position);
    }

    /// From now on appends wait for [`Self::let_through`].
    pub fn hold_appends(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub fn let_through(&self, appends: usize) {
        self.gate.add_permits(appends);
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store for Trouble {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn url(&self) -> String {
        self.inner.url()
    }
    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        async move {
            self.appends_begun.fetch_add(1, Ordering::SeqCst);
            if let Some(error) = self.failing.lock().unwrap().clone() {
                return Err(error);
            }
            self.gate.acquire().await.expect("the gate is never closed").forget();
            self.inner.append(log, append).await
        }
        .boxed()
    }
    fn appends_on_this_thread(&self) -> bool {
        self.on_this_thread.load(Ordering::SeqCst)
    }
    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            let mut page = self.inner.read(log, read).await?;
            let damaged = self.damaged.lock().unwrap();
            let (bad, good) = page.events.into_iter().partition(|e| damaged.contains(&e.position.0));
            page.events = good;
            let bad: Vec<RecordedEvent> = bad;
            page.damaged = bad
                .iter()
                .map(|e| Damage {
                    position: e.position,
                    error: Error::damaged(format!("the checksum of event {} does not match", e.position)),
                })
                .collect();
            Ok(page)
        }
        .boxed()
    }
    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        self.inner.head(log)
    }
    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        async move {
            let _waiting = Counted::new(&self.waiting);
            self.inner.grown(log, size).await
        }
        .boxed()
    }
    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        self.inner.logs()
    }
    fn frames<'a>(&'a self, log: &'a LogName, from: u64, max: usize) -> BoxFuture<'a, Result<Vec<Frame>>> {
        self.inner.frames(log, from, max)
    }
    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        self.inner.put_frames(log, frames)
    }
    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        self.inner.promote(log)
    }
    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        self.inner.verify(log, expect, progress)
    }
    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        self.inner.examine(log)
    }
    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        self.inner.register(name)
    }
    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        self.inner.set_register(name, expected, value)
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}

/// A server that runs until it is dropped or stopped.
pub struct Served {
    pub address: SocketAddr,
    pub url: String,
    pub store: Trouble,
    stop: Option<oneshot::Sender<()>>,
    pub running: JoinHandle<Result<()>>,
}

pub fn config() -> Config {
    Config::new("127.0.0.1:0".parse().unwrap())
}

pub async fn serve() -> Served {
    serve_with(config()).await
}

pub async fn serve_with(config: Config) -> Served {
    let store = Trouble::none();
    let server = bind(Arc::new(store.clone()), config).await.unwrap();
    let (address, url) = (server.local_addr(), server.url());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Served { address, url, store, stop: Some(stop), running }
}

impl Served {
    pub fn stop(&mut self) {
        self.stop.take();
    }

    pub async fn send(&self, request: Request<'_>) -> Reply {
        soon(async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            request.over(&mut stream, &self.address.to_string()).await
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::new("GET", path)).await
    }

    pub async fn accept(&self, path: &str, accept: &str) -> Reply {
        self.send(Request::new("GET", path).header("Accept", accept)).await
    }

    pub async fn post(&self, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(Request::new("POST", path).header("Content-Type", media_type).body(body)).await
    }

    pub async fn append(&self, body: Value) -> Reply {
        self.post("/v1/append", "application/json", body.to_string()).await
    }

    /// Appends `count` events `0`, `1`, … to the stream `s`.
    pub async fn fill(&self, count: usize) {
        let event = |i: usize| Event::builder("urn:test", i.to_string(), "t").stream("s").data("1").build();
        let events: Vec<Event> = (0..count).map(|i| event(i).unwrap()).collect();
        self.store.inner.append(&LogName::default(), Append::new(events)).await.unwrap();
    }

    /// A connection with a request sent on it, to read from as one likes.
    pub async fn open(&self, request: Request<'_>) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(&request.bytes(&self.address.to_string())).await.unwrap();
        stream
    }
}

pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self { method, path, headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        let has = |name: &str| self.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !has("host") {
            out.push_str(&format!("Host: {host}\r\n"));
        }
        if !self.body.is_empty() && !has("content-length") {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.body);
        out
    }

    pub async fn over(self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str) -> Reply {
        // A server may answer and hang up before it has read everything.
        let _ = stream.write_all(&self.bytes(host)).await;
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes).await;
        Reply::parse(&bytes, ended.is_ok())
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Reply {
    pub fn parse(bytes: &[u8], ended: bool) -> Self {
        let head_end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no HTTP answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = std::str::from_utf8(&bytes[..head_end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Self { status, headers, body: Vec::new(), complete: ended };
        let mut rest = &bytes[head_end + 4..];
        if reply.header("transfer-encoding") != Some("chunked") {
            reply.body = rest.to_vec();
            if let Some(len) = reply.header("content-length") {
                reply.complete = reply.body.len() == len.parse::<usize>().unwrap();
            }
            return reply;
        }
        reply.complete = false;
        while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
            let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            rest = &rest[line + 2..];
            if len == 0 {
                reply.complete = true;
                break;
            }
            let Some(chunk) = rest.get(..len) else { break };
            reply.body.extend_from_slice(chunk);
            rest = rest.get(len + 2..).unwrap_or(&[]);
        }
        reply
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The ids of the CloudEvents in lines of JSON.
    pub fn ids(&self) -> Vec<String> {
        self.text()
            .lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                event["id"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// Checks that this is a problem with this status and code whose detail holds all of `says`.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str, says: &[&str]) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].is_string() && problem["retryable"].is_boolean(), "{problem}");
        assert!(
            problem["may_have_been_written"].is_boolean() && problem["conflicts"].is_array(),
            "{problem}"
        );
        assert_eq!(problem["retryable"] == true, self.header("retry-after").is_some(), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        for word in says {
            assert!(detail.contains(word), "'{word}' is not in: {detail}");
        }
        problem
    }
}

/// Reads from a stream until it holds `needle`, and answers all of it.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), needle: &str) -> String {
    soon(async {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(needle) {
            let mut chunk = [0; 4096];
            let n = stream.read(&mut chunk).await.unwrap();
            assert!(n > 0, "ended before '{needle}': {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8(all).unwrap()
    })
    .await
}

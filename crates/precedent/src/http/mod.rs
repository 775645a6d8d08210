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

use std::collections::{BTreeSet, HashMap};
use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Usage};
use precedent_core::verify::{Expect, Report, Verifier};
use precedent_core::{
    Append, Appended, Direction, Error, ErrorKind, ExpectedRegister, Head, Limits, LogName, Page, Position,
    Read, Register, RegisterName, Result, Store, wire,
};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The environment variable that names a PEM file: its certificates are trusted, and no others.
pub const CA_FILE_VARIABLE: &str = "PRECEDENT_CA_FILE";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long is gone: it answers every wait within a minute.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);
/// Less than the server keeps an idle connection, so that none is closed while a request is on its way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const GROWN_WAIT_SECS: u64 = 30;
const FRAMES_BYTES_MAX: usize = 16 << 20;
/// Bytes of an answer that says one thing, and of every problem.
const SHORT_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that lists things.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a page, which has 4 MiB and one event of 15 MiB, and of frames, of which the last has up to 16 MiB.
const PAGE_BYTES_MAX: usize = 40 << 20;

/// A store behind a Precedent server.
///
/// Its futures may be polled from any thread, as long as the tokio runtime in which it was connected runs.
pub struct HttpStore {
    base: String,
    /// The same, taken apart once and not for every request.
    url: Url,
    client: Client,
    authorization: Option<HeaderValue>,
    limits: Limits,
    request_bytes_max: u64,
    /// The largest size seen of each log: less is a log that went backwards.
    seen: Mutex<HashMap<LogName, u64>>,
    closed: watch::Sender<bool>,
    /// Writes whose answer has not come: closing waits for them.
    writing: watch::Sender<usize>,
    runtime: Handle,
}

impl fmt::Debug for HttpStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpStore({})", self.base)
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
        let parsed = check_url(url, token.is_some())?;
        let authorization = token.map(|token| authorization(&token)).transpose()?;
        let secure = parsed.scheme() == "https";
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls_config(secure)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true)
            .user_agent(concat!("precedent/", env!("CARGO_PKG_VERSION")));
        if !secure {
            // A proxy would read what goes in the clear.
            client = client.no_proxy();
        }
        let client = client
            .build()
            .map_err(|e| Error::new(ErrorKind::Internal, format!("no HTTP client: {}", causes(&e))))?;
        let mut store = Self {
            base: parsed.as_str().trim_end_matches('/').to_owned(),
            url: parsed,
            client,
            authorization,
            limits: Limits::new(precedent_core::Durability::None),
            request_bytes_max: 0,
            seen: Mutex::default(),
            closed: watch::Sender::new(false),
            writing: watch::Sender::new(0),
            runtime,
        };
        let answer = store
            .send(store.request(Method::GET, "/v1/limits"), Effect::Reads, SHORT_ANSWER_BYTES_MAX)
            .await?;
        let no_store = || {
            let message = format!("what answers at {} is no Precedent server", store.base);
            Error::new(ErrorKind::NotAStore, message)
        };
        let limits: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|_| no_store())?;
        let request_bytes_max =
            limits.get("request_bytes_max").and_then(|n| n.as_u64()).ok_or_else(no_store)?;
        store.limits = serde_json::from_value(limits).map_err(|_| no_store())?;
        store.request_bytes_max = request_bytes_max;
        Ok(store)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        let request = self.client.request(method, url);
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }

    fn log_request(&self, method: Method, log: &LogName, path: &str) -> RequestBuilder {
        self.request(method, &format!("/v1/logs/{log}/{path}"))
    }

    /// Sends a request and reads the whole answer, which has at most `bytes_max`. A problem becomes the error it
    /// says.
    async fn send(&self, request: RequestBuilder, effect: Effect, bytes_max: usize) -> Result<Answer> {
        let mut closed = self.closed.subscribe();
        let stopped = || Error::new(ErrorKind::Stopped, "the store has been closed");
        // Counted before `closed` is looked at, so that closing either waits for this write or is seen by it.
        let _writing = (effect == Effect::Writes).then(|| Writing::begin(&self.writing));
        if *closed.borrow() {
            return Err(stopped());
        }
        let exchange = async {
            let mut response = request.send().await.map_err(|e| self.lost(&e, effect))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes_max = if status.is_success() { bytes_max } else { SHORT_ANSWER_BYTES_MAX };
            let announced = response.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let mut body = Vec::with_capacity(announced.min(bytes_max));
            while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(&e, effect))? {
                if body.len() + chunk.len() > bytes_max {
                    return Err(self.endless(bytes_max, effect));
                }
                body.extend_from_slice(&chunk);
            }
            Ok::<_, Error>(Answer { status, headers, body: body.into() })
        };
        let answer = match effect {
            Effect::Writes => exchange.await?,
            Effect::Reads => tokio::select! {
                answer = exchange => answer?,
                _ = closed.wait_for(|closed| *closed) => return Err(stopped()),
            },
        };
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(self.refused(&answer, effect)),
        }
    }

    /// The error for a request or an answer that was lost.
    fn lost(&self, error: &reqwest::Error, effect: Effect) -> Error {
        let causes = causes(error);
        if error.is_connect() || error.is_builder() {
            return Error::new(
                ErrorKind::Unavailable,
                format!("no server can be reached at {}: {causes}", self.base),
            );
        }
        match effect {
            Effect::Reads => {
                Error::new(ErrorKind::Unavailable, format!("the answer of {} broke off: {causes}", self.base))
            }
            Effect::Writes => Error::new(
                ErrorKind::Unknown,
                format!("the answer of {} did not come, it may have been written: {causes}", self.base),
            ),
        }
    }

    /// The error for an answer that is longer than any that a server gives.
    fn endless(&self, bytes_max: usize, effect: Effect) -> Error {
        let what = format!("the answer of {} is longer than {bytes_max} bytes", self.base);
        match effect {
            Effect::Reads => Error::new(ErrorKind::Io, what),
            Effect::Writes => Error::new(ErrorKind::Unknown, format!("{what}, and it may have been written")),
        }
    }

    /// The error for an answer that says no.
    fn refused(&self, answer: &Answer, effect: Effect) -> Error {
        let retry_after = answer.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let error = wire::parse_error(&answer.body, |code| kind_of(code, answer.status))
            .unwrap_or_else(|| self.not_a_problem(answer, effect));
        match retry_after {
            Some(secs) => error.retry_after(secs),
            None => error,
        }
    }

    /// The error for an answer of something that is not, or stands before, a Precedent server.
    fn not_a_problem(&self, answer: &Answer, effect: Effect) -> Error {
        let status = answer.status;
        let what = format!("{} answers {status}", self.base);
        if status.is_redirection() {
            let to = answer.headers.get(header::LOCATION).and_then(|v| v.to_str().ok()).unwrap_or("nowhere");
            let to = to.chars().take(256).collect::<String>();
            let message = format!("{what} and points to '{}': redirects are not followed", to.escape_debug());
            return Error::new(ErrorKind::NotAStore, message);
        }
        match (status.as_u16(), effect) {
            (401 | 403, _) => Error::new(ErrorKind::Unauthorized, what),
            (413, _) => Error::new(ErrorKind::LimitExceeded, what),
            (429, _) => Error::new(ErrorKind::Overloaded, what),
            // Whoever answers in the server's place may have passed the request on.
            (500.., Effect::Writes) => Error::new(ErrorKind::Unknown, what),
            (502..=504, Effect::Reads) => Error::new(ErrorKind::Unavailable, what),
            _ => Error::new(ErrorKind::NotAStore, format!("{what}, as no Precedent server does")),
        }
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
                format!("log '{log}' at {} had {floor} events and has {size} now", self.base),
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
            .send(self.log_request(Method::GET, log, path), Effect::Reads, SHORT_ANSWER_BYTES_MAX)
            .await?;
        let head = wire::parse_head(&answer.body)?;
        self.saw(log, head.size, floor)?;
        Ok(head)
    }

    async fn frames_at(&self, log: &LogName, from: u64, bytes_max: usize) -> Result<Vec<Frame>> {
        let bytes = bytes_max.clamp(1, FRAMES_BYTES_MAX);
        let path = format!("frames?from={from}&bytes={bytes}");
        let answer =
            self.send(self.log_request(Method::GET, log, &path), Effect::Reads, PAGE_BYTES_MAX).await?;
        wire::parse_frames(answer.body)
            .map_err(|e| Error::damaged(e.message()).context(format!("frames of log '{log}' from {from} on")))
    }

    async fn put_some_frames(&self, log: &LogName, body: Vec<u8>) -> Result<Head> {
        let request = self
            .log_request(Method::POST, log, "frames")
            .header(header::CONTENT_TYPE, wire::FRAMES_MEDIA_TYPE)
            .body(body);
        wire::parse_head(&self.send(request, Effect::Writes, SHORT_ANSWER_BYTES_MAX).await?.body)
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

/// Whether a request changes anything, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

/// A write under way, until this is dropped.
struct Writing<'a>(&'a watch::Sender<usize>);

impl<'a> Writing<'a> {
    fn begin(writing: &'a watch::Sender<usize>) -> Self {
        writing.send_modify(|n| *n += 1);
        Self(writing)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
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

fn check_url(url: &str, with_token: bool) -> Result<Url> {
    let bad = |why: &str| {
        let shown = url.chars().take(256).collect::<String>();
        Error::invalid(format!("'{}' is not the URL of a server: {why}", shown.escape_debug()))
    };
    let parsed = Url::parse(url).map_err(|e| bad(&e.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(bad("expected http:// or https://"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(Error::invalid(
            "a URL with a user or password: credentials go in the token, not in the URL",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    let host = parsed.host_str().ok_or_else(|| bad("it names no host"))?;
    if with_token && parsed.scheme() == "http" && !is_loopback(host) {
        return Err(Error::invalid(format!(
            "the token would go to {host} in the clear: use https://, or leave the token out"
        )));
    }
    Ok(parsed)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|a| a.is_loopback())
}

fn authorization(token: &str) -> Result<HeaderValue> {
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(
            "the token is empty or holds a space, a control character or one that is not ASCII",
        ));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| Error::invalid("the token cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls_config(used: bool) -> Result<rustls::ClientConfig> {
    let failed = |e: rustls::Error| Error::new(ErrorKind::Internal, format!("TLS cannot be used: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let file = std::env::var_os(CA_FILE_VARIABLE).filter(|file| used && !file.is_empty());
    if !used || file.is_some() {
        let mut roots = rustls::RootCertStore::empty();
        let mut named = Vec::new();
        if let Some(file) = file {
            let path = std::path::Path::new(&file);
            let unreadable = |e: &dyn fmt::Display| {
                Error::invalid(format!("{CA_FILE_VARIABLE} names {}: {e}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                named.push(certificate.clone());
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate"));
            }
        }
        if named.is_empty() {
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let issued = issued.map_err(|e| Error::invalid(format!("{CA_FILE_VARIABLE}: {e}")))?;
        let verifier = Arc::new(Named { issued, named });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    Ok(builder.with_platform_verifier().map_err(failed)?.with_no_client_auth())
}

/// Trusts what the certificates of a file have issued, and those certificates themselves. A certificate that
/// signs itself often says that it is an authority, and webpki refuses an authority as a server's own.
#[derive(Debug)]
struct Named {
    issued: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let issued =
            self.issued.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match issued {
            // webpki looks at the validity time before it looks for an authority; the name comes after both.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if other.to_string() == "CaUsedAsEndEntity" && self.named.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            issued => issued,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

/// An error and what it came from, without the URL, which may be long and is named elsewhere.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

/// The kind of a problem whose code only HTTP has.
fn kind_of(code: &str, status: StatusCode) -> ErrorKind {
    match code {
        "precondition_failed" => ErrorKind::Conflict,
        "store_unauthorized" => ErrorKind::Unauthorized,
        "request_timeout" => ErrorKind::Unavailable,
        "forbidden_origin" | "misdirected" => ErrorKind::Invalid,
        _ if status.is_server_error() => ErrorKind::Io,
        _ => ErrorKind::Internal,
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

/// An append as a body.
fn append_body(append: &Append, limit: u64) -> Result<Vec<u8>> {
    let body = wire::write_append(append);
    if body.len() as u64 > limit {
        return Err(Error::limit("the append", body.len() as u64, limit, "bytes as a request"));
    }
    Ok(body)
}

impl Store for HttpStore {
    fn limits(&self) -> Limits {
        self.limits.clone()
    }

    fn url(&self) -> String {
        self.base.clone()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        self.run(async move {
            let floor = self.floor(log);
            let request = self
                .log_request(Method::POST, log, "append")
                .header(header::CONTENT_TYPE, wire::APPEND_MEDIA_TYPE)
                .body(append_body(&append, self.request_bytes_max)?);
            let answer = self.send(request, Effect::Writes, LIST_BYTES_MAX).await?;
            let appended: Appended = serde_json::from_slice(&answer.body).map_err(|e| {
                let message = format!("the answer of {} to an append is not understood: {e}", self.base);
                Error::new(ErrorKind::Unknown, message)
            })?;
            self.saw(log, appended.size, floor)?;
            Ok(appended)
        })
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        self.run(async move {
            let floor = self.floor(log);
            let request = self
                .log_request(Method::POST, log, "query")
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, wire::EVENTS_MEDIA_TYPE)
                .body(wire::write_read(read));
            let page = wire::parse_page(self.send(request, Effect::Reads, PAGE_BYTES_MAX).await?.body)?;
            check_page(read, &page)?;
            self.saw(log, page.size, floor)?;
            Ok(page)
        })
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
            let answer =
                self.send(self.request(Method::GET, "/v1/logs"), Effect::Reads, LIST_BYTES_MAX).await?;
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
                let full = body.len() + 4 + frame.bytes().len() > self.request_bytes_max as usize;
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
            self.send(self.log_request(Method::POST, log, "promote"), Effect::Writes, SHORT_ANSWER_BYTES_MAX)
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
                .send(self.log_request(Method::GET, log, "doctor"), Effect::Reads, LIST_BYTES_MAX)
                .await?;
            wire::parse_examination(&answer.body, finding_code)
        })
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        self.run(async move {
            match self
                .send(self.request(Method::GET, &register_path(name)), Effect::Reads, SHORT_ANSWER_BYTES_MAX)
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
            let request = self.request(Method::PUT, &register_path(name)).body(value.clone());
            let request = match expected {
                ExpectedRegister::Absent => request.header(header::IF_NONE_MATCH, "*"),
                ExpectedRegister::Revision(revision) => {
                    request.header(header::IF_MATCH, format!("\"{revision}\""))
                }
            };
            let answer = self.send(request, Effect::Writes, SHORT_ANSWER_BYTES_MAX).await?;
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
            if self.closed.send_replace(true) {
                return Err(Error::new(ErrorKind::Stopped, "the store has been closed"));
            }
            // The sender is part of this store, so the wait only ends with nothing under way.
            let _ = self.writing.subscribe().wait_for(|n| *n == 0).await;
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
    fn a_token_goes_nowhere_in_the_clear_but_to_this_machine() {
        for fine in ["https://log.example", "http://127.0.0.1:7373", "http://[::1]:1", "http://localhost"] {
            check_url(fine, true).unwrap();
        }
        for bad in ["http://log.example", "http://10.0.0.1:7373", "http://localhost.evil.example"] {
            assert!(check_url(bad, true).unwrap_err().message().contains("in the clear"), "{bad}");
            check_url(bad, false).unwrap();
        }
        for bad in ["ftp://x", "http://user:pw@x", "http://x?log=a", "http://x#y", "x", "http://"] {
            assert!(check_url(bad, false).is_err(), "{bad}");
        }
        assert!(authorization("").is_err() && authorization("a b").is_err());
        assert!(!format!("{:?}", authorization("secret").unwrap()).contains("secret"));
    }

    #[test]
    fn a_named_certificate_that_is_an_authority_is_trusted_for_its_name_while_it_is_valid() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let make = |until: i32| {
            let mut made = rcgen::CertificateParams::new(vec!["log.example".to_owned()]).unwrap();
            made.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            made.not_before = rcgen::date_time_ymd(2020, 1, 1);
            made.not_after = rcgen::date_time_ymd(until, 1, 1);
            made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let (good, other, expired) = (make(2040), make(2040), make(2021));
        let named = vec![good.clone(), expired.clone()];
        let mut roots = rustls::RootCertStore::empty();
        named.iter().for_each(|c| roots.add(c.clone()).unwrap());
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = Named { issued, named };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let verify = |certificate: &CertificateDer<'_>, name: &'static str| {
            let name = ServerName::try_from(name).unwrap();
            verifier.verify_server_cert(certificate, &[], &name, &[], now)
        };
        verify(&good, "log.example").unwrap();
        for (certificate, name, says) in [
            (&good, "evil.example", "name"),
            (&other, "log.example", ""),
            (&expired, "log.example", "expired"),
        ] {
            let error = verify(certificate, name).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn finding_codes_stay_the_same_words() {
        assert_eq!(finding_code("not_durable"), "not_durable");
        assert!(std::ptr::eq(finding_code("not_durable"), finding_code("not_durable")));
        assert_eq!(finding_code(&"x".repeat(65)), "other");
    }
}

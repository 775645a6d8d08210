//! One request and its answer, and what is said when either is lost.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use precedent_core::{Appended, Error, ErrorKind, LogName, Result, wire};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Upgraded, Url};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::tls::tls_config;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that says nothing for this long is gone: it answers every wait within a minute.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);
/// Less than the server keeps an idle connection, so that none is closed while a request is on its way.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of an answer that says one thing, and of every problem.
pub(super) const SHORT_ANSWER_BYTES_MAX: usize = 1 << 20;

/// The way to one server.
pub(super) struct Connection {
    pub(super) base: String,
    /// The same, taken apart once and not for every request.
    url: Url,
    client: Client,
    authorization: Option<HeaderValue>,
    closed: watch::Sender<bool>,
    /// Writes whose answer has not come: closing waits for them.
    writing: watch::Sender<usize>,
}

impl Connection {
    /// The way to the server at `url`. Nothing is sent yet.
    pub(super) fn new(url: &str, token: Option<&str>) -> Result<Self> {
        let parsed = check_url(url, token.is_some())?;
        let authorization = token.map(authorization).transpose()?;
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
        Ok(Self {
            base: parsed.as_str().trim_end_matches('/').to_owned(),
            url: parsed,
            client,
            authorization,
            closed: watch::Sender::new(false),
            writing: watch::Sender::new(0),
        })
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
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

    pub(super) fn log_request(&self, method: Method, log: &LogName, path: &str) -> RequestBuilder {
        self.request(method, &format!("/v1/logs/{log}/{path}"))
    }

    /// Sends a request and reads the whole answer, which has at most `bytes_max`. A problem becomes the error it
    /// says.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        effect: Effect,
        bytes_max: usize,
    ) -> Result<Answer> {
        match effect {
            Effect::Writes => self.send_write(&self.writing()?, request, bytes_max).await,
            Effect::Reads => {
                let mut closed = self.closed.subscribe();
                if *closed.borrow() {
                    return Err(stopped());
                }
                tokio::select! {
                    answer = self.exchange(request, effect, bytes_max) => answer,
                    _ = closed.wait_for(|closed| *closed) => Err(stopped()),
                }
            }
        }
    }

    /// The same for a write that is under way already.
    pub(super) async fn send_write(
        &self,
        _writing: &Writing<'_>,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<Answer> {
        self.exchange(request, Effect::Writes, bytes_max).await
    }

    async fn exchange(&self, request: RequestBuilder, effect: Effect, bytes_max: usize) -> Result<Answer> {
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
        let answer = Answer { status, headers, body: body.into() };
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(self.refused(&answer, effect)),
        }
    }

    /// Says that a write is under way, until what this answers is dropped.
    ///
    /// # Errors
    /// `stopped` after [`Self::close`].
    pub(super) fn writing(&self) -> Result<Writing<'_>> {
        // Counted before `closed` is looked at, so that closing either waits for this write or is seen by it.
        let writing = Writing::begin(&self.writing);
        match *self.closed.borrow() {
            true => Err(stopped()),
            false => Ok(writing),
        }
    }

    /// Opens a WebSocket to the appends of a log, as RFC 6455 has it; `None` if the server, or something before it, answers
    /// with anything else.
    pub(super) async fn upgrade(&self, log: &LogName) -> Result<Option<Upgraded>> {
        let key = generate_key();
        let request = self
            .log_request(Method::GET, log, "appends")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await.map_err(|e| self.lost(&e, Effect::Reads))?;
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        let accepted = accept.is_some_and(|accept| *accept == derive_accept_key(key.as_bytes()));
        if response.status() != StatusCode::SWITCHING_PROTOCOLS || !accepted {
            return Ok(None);
        }
        response.upgrade().await.map(Some).map_err(|e| self.lost(&e, Effect::Reads))
    }

    /// The error for a write whose answer did not come.
    pub(super) fn unanswered(&self, why: &str) -> Error {
        Error::new(
            ErrorKind::Unknown,
            format!("the answer of {} did not come, it may have been written: {why}", self.base),
        )
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
            Effect::Writes => self.unanswered(&causes),
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
    pub(super) fn refused(&self, answer: &Answer, effect: Effect) -> Error {
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

    /// What the answer to an append says, which over a WebSocket may be a problem.
    pub(super) fn appended(&self, answer: &[u8]) -> Result<Appended> {
        serde_json::from_slice(answer).map_err(|unread| {
            wire::parse_error(answer, |code| kind_of(code, StatusCode::OK))
                .unwrap_or_else(|| self.not_understood(&unread.to_string()))
        })
    }

    fn not_understood(&self, why: &str) -> Error {
        let message = format!("the answer of {} to an append is not understood: {why}", self.base);
        Error::new(ErrorKind::Unknown, message)
    }

    /// Refuses what comes from now on, and waits for the writes that are under way.
    pub(super) async fn close(&self) -> Result<()> {
        if self.closed.send_replace(true) {
            return Err(stopped());
        }
        // The sender is part of this, so the wait only ends with nothing under way.
        let _ = self.writing.subscribe().wait_for(|n| *n == 0).await;
        Ok(())
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the store has been closed")
}

/// Whether a request changes anything, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Reads,
    Writes,
}

/// A write under way, until this is dropped.
pub(super) struct Writing<'a>(&'a watch::Sender<usize>);

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

/// An answer that came whole.
pub(super) struct Answer {
    status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
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
}

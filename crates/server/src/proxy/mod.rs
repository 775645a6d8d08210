//! The recording proxy: `/proxy/<name>/…` goes to the upstream of that name, and every call is recorded whole.
//!
//! ```text
//! application ── request ──►  tee ──────────────► upstream
//!                              └─► ai.model.requested, once the request is whole
//! application ◄── answer ───  tee ◄────────────── upstream
//!                              └─► ai.model.called, once the answer has ended, however it ended
//! ```
//!
//! Bytes pass through as they come, in both directions; what is recorded is a copy, within bounds. Fail-open, a call goes on
//! when it cannot be recorded, and a gap says so. Fail-closed, no byte of an answer leaves before the request is durable, and no answer
//! ends before it is durable itself.

mod client;
mod tee;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::body::Body as _;
use precedent_capture::Gap;
use precedent_capture::exchange::{self, CONTINUED, Call, Called, Headers, Recording, Requested};
use precedent_capture::gap::Reason;
use precedent_capture::view::Moment;
use precedent_core::{Error, ErrorKind};
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::time::timeout;

use crate::app::App;
use crate::body::drain;
use crate::capture::record;
use crate::config::Upstream;
use crate::metrics::counted;
use crate::otlp::blocking;
use crate::problem::Problem;
use client::Client;
use tee::{Copied, Kept, Tee};

/// Headers that concern one connection and not the message, by RFC 9110 section 7.6.1. `Trailer` is none of them: what an answer
/// announces goes on to an application that asks for it (`TE: trailers`).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What all calls through the proxy share.
struct Proxy {
    app: Arc<App>,
    client: Client,
    upstreams: Vec<Upstream>,
    fail_closed: bool,
}

/// The paths, or nothing if there is no upstream.
pub(crate) fn router(
    app: Arc<App>,
    upstreams: &[Upstream],
    fail_closed: bool,
) -> precedent_core::Result<Option<Router>> {
    if upstreams.is_empty() {
        return Ok(None);
    }
    let client = Client::new(upstreams.iter().any(Upstream::is_tls))?;
    let proxy = Arc::new(Proxy { app, client, upstreams: upstreams.to_vec(), fail_closed });
    let router = Router::new()
        .route("/proxy/{name}", any(handle))
        .route("/proxy/{name}/{*rest}", any(handle))
        .with_state(proxy);
    Ok(Some(router))
}

async fn handle(
    State(proxy): State<Arc<Proxy>>,
    Path(parts): Path<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let method = counted(request.method().as_str());
    let name = parts.first().map_or("", |(_, name)| name.as_str());
    let known = proxy.upstreams.iter().find(|upstream| upstream.name == name);
    // What a stranger writes must not grow the counters.
    let route = known.map_or("proxy".to_owned(), |upstream| format!("proxy/{}", upstream.name));
    let response = match proxy.app.guard.check(request.uri(), request.headers()) {
        Err(problem) => problem.into_response(),
        Ok(()) => match known {
            Some(upstream) => {
                let passed = pass(&proxy, upstream, request).await;
                passed.unwrap_or_else(IntoResponse::into_response)
            }
            None => {
                let names: Vec<&str> =
                    proxy.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
                let detail = format!(
                    "there is no upstream '{}', the proxy has {}",
                    name.chars().take(64).collect::<String>().escape_debug(),
                    names.join(", ")
                );
                Problem::from(Error::new(ErrorKind::NotFound, detail)).into_response()
            }
        },
    };
    proxy.app.metrics.answered(&route, method, response.status().as_u16());
    response
}

/// Passes a request on, and its answer back.
async fn pass(proxy: &Arc<Proxy>, upstream: &Upstream, request: Request) -> Result<Response, Problem> {
    let app = &proxy.app;
    let permit = app.admit_stream()?;
    let began = Instant::now();
    let started =
        SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| u64::try_from(d.as_nanos()).ok());
    let (head, body) = request.into_parts();
    let target = upstream.target(&head.uri).ok_or_else(|| {
        Error::invalid(format!("'{}' is no path of an upstream", head.uri.path().escape_debug()))
    })?;
    let mut call = Call {
        id: uuid::Uuid::now_v7().simple().to_string(),
        upstream: upstream.name.clone(),
        method: head.method.as_str().to_owned(),
        url: target.to_string(),
        started: started.map(Moment),
        ..Call::default()
    };
    for (name, value) in &head.headers {
        call.header(name.as_str(), value.as_bytes());
    }
    let headers = forwarded(&head.headers);
    let recorded_headers = copied(&headers);

    let announced = length_of(&head.headers);
    if proxy.fail_closed
        && let Some(len) = announced
    {
        // Only looked at: a client that announces much and sends nothing holds no room.
        if let Err(error) = Kept::new(app.clone()).expect(len) {
            drain(body).await;
            return Err(Problem::http("not_recorded", format!("the call is not passed on: {error}")));
        }
    }

    // The request is recorded in a task of its own, whatever becomes of this connection.
    let (copy, whole) = oneshot::channel();
    let tee = Tee::request(body, app.clone(), proxy.fail_closed, copy);
    let asked = tokio::spawn(record_request(app.clone(), call.clone(), recorded_headers, whole));
    let mut answering = Answering::new(proxy.clone(), call, began, asked);

    let mut outgoing = axum::http::Request::new(Body::new(tee));
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = target;
    *outgoing.headers_mut() = headers;
    let silence = app.limits.upstream_timeout;
    let answer = match timeout(silence, proxy.client.request(outgoing)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let detail = format!("the upstream '{}' cannot be asked: {error}", upstream.name);
            // It may have been broken off here, for want of room.
            if proxy.fail_closed
                && let Err(error) = answering.request_is_durable(silence).await
            {
                let detail = format!("the call is not recorded: {error}");
                answering.failed(&detail).await;
                return Err(Problem::http("not_recorded", detail));
            }
            answering.failed(&detail).await;
            return Err(Problem::http("upstream_failed", detail));
        }
        Err(_) => {
            let detail = format!(
                "the upstream '{}' did not begin to answer within {} seconds",
                upstream.name,
                silence.as_secs_f32()
            );
            answering.failed(&detail).await;
            return Err(Problem::http("upstream_timeout", detail));
        }
    };
    let (head, body) = answer.into_parts();
    answering.called.status = Some(head.status.as_u16());
    answering.called.head_us = Some(answering.elapsed_us());
    let headers = end_to_end(&head.headers);
    answering.called.headers = copied(&headers);
    // Nobody was asked for another protocol: what follows is not HTTP.
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let detail =
            format!("the upstream '{}' switches protocols, which it was not asked for", upstream.name);
        answering.failed(&detail).await;
        return Err(Problem::http("upstream_failed", detail));
    }
    if proxy.fail_closed
        && let Err(error) = answering.request_is_durable(silence).await
    {
        let detail = format!("the call is not recorded, so its answer is held back: {error}");
        answering.failed(&detail).await;
        return Err(Problem::http("not_recorded", detail));
    }
    let length = length_of(&head.headers);
    let mut copy = Kept::new(app.clone());
    if proxy.fail_closed
        && let Some(len) = length.filter(|_| !body.is_end_stream())
        && let Err(error) = copy.expect(len)
    {
        let detail = format!("the answer of {len} bytes is held back: {error}");
        answering.failed(&detail).await;
        return Err(Problem::http("not_recorded", detail));
    }
    let tee = Tee::answer(body, answering, copy, length, permit);
    let mut response = Response::new(Body::new(tee));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The headers that go on: without those of the connection, and without what was meant for the proxy.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut out = end_to_end(headers);
    let ours: Vec<HeaderName> =
        out.keys().filter(|name| name.as_str().starts_with("precedent-")).cloned().collect();
    ours.iter().for_each(|name| drop(out.remove(name)));
    // The client sets the host of the upstream, and the server has answered the expectation.
    out.remove(header::HOST);
    out.remove(header::EXPECT);
    // Its trailers stay here, since few servers take any.
    out.remove(header::TRAILER);
    out
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named.iter().map(String::as_str)) {
        out.remove(name);
    }
    out
}

fn copied(headers: &HeaderMap) -> Headers {
    let pair =
        |(name, value): (&HeaderName, &HeaderValue)| (name.as_str().to_owned(), value.as_bytes().to_vec());
    headers.iter().map(pair).collect()
}

/// What the recording of a request comes to: the call with its model, and the id of the event.
type Asked = (Call, Result<String, Error>);

async fn record_request(
    app: Arc<App>,
    mut call: Call,
    headers: Headers,
    whole: oneshot::Receiver<Copied>,
) -> Asked {
    let busy = app.busy();
    let copied = whole.await.unwrap_or_default();
    let Copied { body, room, no_room } = copied;
    let weight = weight(&headers, &body);
    let turn = turn(&app, weight).await;
    let requested = Requested { headers, body };
    let events = blocking(weight, || call.requested(requested, &app.capture.rules));
    let recorded = record_message(&app, weight, events).await;
    let recorded = match recorded {
        Ok(id) if no_room => Err(Error::new(
            ErrorKind::Overloaded,
            format!("there was no room for the whole request '{id}' in memory"),
        )),
        recorded => recorded,
    };
    drop((room, turn, busy));
    (call, recorded)
}

/// Bytes of a message that are recorded in one go, beside any number of others.
const LIGHT: usize = 1 << 20;

/// How much there is to look through, about: a body can be many times as long once it is decoded.
fn weight(headers: &Headers, body: &exchange::Body) -> usize {
    let coded = headers.iter().any(|(name, _)| name == header::CONTENT_ENCODING.as_str());
    body.bytes.len() * if coded { 64 } else { 1 }
}

/// Waits for a place among the few messages that are recorded at once, if this is one that takes much memory meanwhile.
async fn turn(app: &App, weight: usize) -> Option<SemaphorePermit<'_>> {
    match weight > LIGHT {
        true => app.recordings.acquire().await.ok(),
        false => None,
    }
}

/// Records the events of a message: the parts of its body as they are made, then the event itself, in one append with its gaps.
/// Answers the event's id.
async fn record_message(app: &Arc<App>, weight: usize, mut events: Recording<'_>) -> Result<String, Error> {
    let mut last = Vec::new();
    while let Some(event) = blocking(weight, || events.next()) {
        let event = event?;
        match event.event_type() == CONTINUED {
            true => drop(record(app, vec![event]).await?),
            false => last.push(event),
        }
    }
    let id = last.first().map(|event| event.id().to_owned()).unwrap_or_default();
    record(app, last).await?;
    Ok(id)
}

/// A call that is under way: it is recorded when the answer has ended, or when this is dropped before that.
struct Answering {
    proxy: Arc<Proxy>,
    call: Option<Call>,
    began: Instant,
    asked: Option<tokio::task::JoinHandle<Asked>>,
    /// What became of the request, once that is known.
    request: Option<Result<String, Error>>,
    called: Called,
    /// Whether this is what is being recorded. A runtime that ends drops it; then there is nobody left to record it.
    ending: bool,
}

impl Answering {
    fn new(proxy: Arc<Proxy>, call: Call, began: Instant, asked: tokio::task::JoinHandle<Asked>) -> Self {
        proxy.app.capture.counts.proxied.fetch_add(1, Ordering::Relaxed);
        Self {
            proxy,
            call: Some(call),
            began,
            asked: Some(asked),
            request: None,
            called: Called::default(),
            ending: false,
        }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Waits until the request is recorded.
    async fn request_is_durable(&mut self, patience: std::time::Duration) -> Result<(), Error> {
        if let Some(asked) = &mut self.asked {
            let asked = timeout(patience, asked).await;
            let asked = asked.map_err(|_| {
                Error::new(
                    ErrorKind::Unavailable,
                    format!("the request was not whole after {} seconds", patience.as_secs()),
                )
            })?;
            self.asked = None;
            match asked {
                Ok((call, recorded)) => {
                    self.call = Some(call);
                    self.request = Some(recorded);
                }
                Err(error) => self.request = Some(Err(Error::new(ErrorKind::Internal, error.to_string()))),
            }
        }
        match &self.request {
            Some(Err(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// There is no answer, or none that may be given.
    async fn failed(mut self, why: &str) {
        self.called.error = Some(why.to_owned());
        // The application is told in any case; it does not wait for the record of it.
        let recording = self.end();
        if self.proxy.fail_closed {
            let _ = recording.await;
        }
    }

    /// Records what became of the call, in a task of its own.
    fn end(&mut self) -> tokio::task::JoinHandle<Result<(), Error>> {
        self.called.ended_us = self.elapsed_us();
        let mut ended = Self {
            proxy: self.proxy.clone(),
            call: self.call.take(),
            began: self.began,
            asked: self.asked.take(),
            request: self.request.take(),
            called: std::mem::take(&mut self.called),
            ending: true,
        };
        let busy = self.proxy.app.busy();
        tokio::spawn(async move {
            let recorded = ended.record().await;
            drop(busy);
            recorded
        })
    }

    async fn record(&mut self) -> Result<(), Error> {
        let app = self.proxy.app.clone();
        let asked = self.request_is_durable(std::time::Duration::MAX).await;
        let Some(call) = self.call.take() else { return Ok(()) };
        self.called.request = self.request.as_ref().and_then(|request| request.as_ref().ok().cloned());
        if !self.called.complete {
            app.capture.counts.proxied_incomplete.fetch_add(1, Ordering::Relaxed);
        }
        let called = std::mem::take(&mut self.called);
        let weight = weight(&called.headers, &called.body);
        let turn = turn(&app, weight).await;
        let events = blocking(weight, || call.called(called, &app.capture.rules));
        let recorded = record_message(&app, weight, events).await.map(drop);
        drop(turn);
        for (what, outcome) in [("request", &asked), ("answer", &recorded)] {
            if let Err(error) = outcome {
                let gap = Gap {
                    reason: Reason::RecordingFailed,
                    producer: format!("proxy/{}", call.upstream),
                    count: Some(1),
                    unit: if what == "request" { "requests" } else { "answers" },
                    detail: format!("the {what} of a call could not be recorded: {error}"),
                    about: Some(call.id.clone()),
                    ..Gap::default()
                };
                app.capture.missed(&app, gap).await;
            }
        }
        asked.and(recorded)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Whoever has ended it has taken the call.
        if !self.ending && (self.call.is_some() || self.asked.is_some()) {
            self.called
                .error
                .get_or_insert_with(|| "the application went away before the answer had ended".to_owned());
            // Outside a runtime there is nobody left to record anything for.
            if tokio::runtime::Handle::try_current().is_ok() {
                drop(self.end());
            }
        }
    }
}

impl Upstream {
    fn is_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }

    /// Where a request to the proxy goes: the path behind the name, behind the upstream's own, byte for byte.
    fn target(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix("/proxy/")?;
        let rest = rest.find('/').map_or("", |at| &rest[at..]);
        let base = self.url.path().trim_end_matches('/');
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{base}{rest}{query}");
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

//! The table of paths, and the one way every request takes through it.
//!
//! [`ROUTES`] is the only list: the router and the OpenAPI document are both made from it.

mod append;
mod appends;
mod decisions;
mod doctor;
mod event;
mod frames;
mod head;
mod health;
mod limits;
mod logs;
mod metrics;
mod opa;
mod openapi;
mod page;
mod promote;
mod publish;
mod query;
mod read;
mod registers;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};
use futures_util::future::BoxFuture;
use precedent_core::{Append, Error, ErrorKind, LogName};
use serde_json::Value;

use crate::app::App;
use crate::append::Held;
use crate::body::Received;
use crate::call::{Call, Parameters};
use crate::metrics::{Open, counted};
use crate::problem::Problem;

/// The variable parts of a path, where they can be decoded.
type PathParts = Result<RawPathParams, RawPathParamsRejection>;

/// A JSON value a line.
const NDJSON: &str = "application/x-ndjson";

/// What a handler answers.
type Answer = Result<Response, Problem>;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// At the root, as orchestrators expect it.
    Root,
    /// Under `/v1`: it concerns the whole store.
    Store,
    /// Under `/v1` for the log `main`, and under `/v1/logs/{log}` for any.
    Log,
}

/// A query parameter, for the router that refuses others and for the OpenAPI document.
#[derive(Debug, Clone, Copy)]
struct Parameter {
    name: &'static str,
    kind: Kind,
    about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Texts,
    Number,
    /// A number that is at most this.
    UpTo(u64),
    /// A number from 1 on.
    Positive,
    /// Tags, `key=value`.
    Tags,
    Flag,
    Time,
}

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

/// A header a route looks at.
#[derive(Debug, Clone, Copy)]
struct HeaderUse {
    name: &'static str,
    about: &'static str,
}

/// One method of one path.
struct Route {
    method: Method,
    scope: Scope,
    path: &'static str,
    id: &'static str,
    about: &'static str,
    parameters: &'static [Parameter],
    headers: &'static [HeaderUse],
    /// Media types of the request's body.
    takes: &'static [&'static str],
    status: u16,
    /// Media types of the answer.
    gives: &'static [&'static str],
    /// Codes of the problems that are particular to this route.
    problems: &'static [&'static str],
    handle: fn(Call) -> BoxFuture<'static, Answer>,
}

static ROUTES: &[Route] = &[
    publish::ROUTE,
    append::ROUTE,
    appends::ROUTE,
    socket::ROUTE,
    opa::ROUTE,
    read::ROUTE,
    query::ROUTE,
    event::ROUTE,
    decisions::LIST,
    decisions::ONE,
    head::ROUTE,
    frames::GET,
    frames::POST,
    promote::ROUTE,
    doctor::ROUTE,
    limits::ROUTE,
    logs::ROUTE,
    registers::GET,
    registers::PUT,
    health::ROUTE,
    metrics::ROUTE,
    openapi::ROUTE,
    page::TIMELINE,
    page::DECISIONS,
    page::SHOW,
];

impl Route {
    /// The paths of the route, with variable parts as `{name}`.
    fn paths(&self) -> Vec<String> {
        match self.scope {
            Scope::Root => vec![self.path.to_owned()],
            Scope::Store => vec![format!("/v1{}", self.path)],
            Scope::Log => vec![format!("/v1{}", self.path), format!("/v1/logs/{{log}}{}", self.path)],
        }
    }
}

pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        for path in route.paths() {
            // The name of a register can have slashes.
            let path = path.replace("/registers/{name}", "/registers/{*name}");
            let filter = MethodFilter::try_from(route.method.clone()).expect("a route has a usual method");
            let handler = move |State(app): State<Arc<App>>, parts: PathParts, request: Request| {
                dispatch(route, app, parts, request)
            };
            router = router.route(&path, MethodRouter::new().on(filter, handler));
        }
    }
    let nothing = |request: Request| async move {
        Problem::from(Error::new(ErrorKind::NotFound, format!("there is no path '{}'", request.uri().path())))
    };
    let other_method = |request: Request| async move {
        let detail = format!("'{}' has no method {}", request.uri().path(), request.method());
        Problem::http("method_not_allowed", detail)
    };
    router
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

/// Around every request: who may ask, what is counted, and what every answer carries.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let _open = Open::new(&app, 1);
    // The route and not the path: what a stranger writes there must not grow the counters.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = counted(request.method().as_str());
    let mut response = match app.guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) if problem.status() == 401 && page::is_page(request.uri().path()) => {
            page::sign_in(problem)
        }
        Err(problem) => problem.into_response(),
    };
    for (name, value) in ALWAYS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.answered(route, method, response.status().as_u16());
    response
}

/// Headers of every answer: recorded text is never taken for a page, kept in a cache, or embedded elsewhere.
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn dispatch(route: &'static Route, app: Arc<App>, parts: PathParts, request: Request) -> Response {
    let answer = async {
        let permit = match route.scope {
            // How the server is has to be known most of all when it is busy.
            Scope::Root => None,
            _ => Some(app.admit()?),
        };
        let parts = parts.map_err(|_| Error::invalid("the path is not UTF-8 once decoded"))?;
        let path: Vec<(String, String)> = parts.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let log = path.iter().find(|(name, _)| name == "log");
        let log = log.map_or(Ok(LogName::default()), |(_, value)| value.parse())?;
        let known: Vec<&str> = route.parameters.iter().map(|p| p.name).collect();
        let query = Parameters::parse(request.uri().query().unwrap_or(""), &known)?;
        let (head, body) = request.into_parts();
        let Parts { method, headers, extensions, .. } = head;
        let call = Call { app, log, path, query, method, headers, extensions, body, permit };
        (route.handle)(call).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// An answer of JSON.
fn json(status: u16, value: &Value) -> Response {
    text(status, "application/json", value.to_string())
}

fn text(status: u16, media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = axum::http::StatusCode::from_u16(status).expect("a status of ours");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Refuses a body that says it is something else than `takes`, if it says anything.
fn expect_media_type(call: &Call, takes: &[&str]) -> Result<(), Problem> {
    match call.media_type() {
        Some(other) if !takes.contains(&other.as_str()) => Err(Problem::http(
            "unsupported_media_type",
            format!("the body is '{}', this path takes {}", other.escape_debug(), takes.join(" or ")),
        )),
        _ => check_charset(&call.headers),
    }
}

/// JSON is UTF-8; a body that says it is something else would be misread.
fn check_charset(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    for field in value.split(';').skip(1) {
        if let Some((name, charset)) = field.split_once('=')
            && name.trim().eq_ignore_ascii_case("charset")
            && !["utf-8", "us-ascii"]
                .contains(&charset.trim().trim_matches('"').to_ascii_lowercase().as_str())
        {
            let detail = format!("the charset is '{}', expected utf-8", charset.trim().escape_debug());
            return Err(Problem::http("unsupported_media_type", detail));
        }
    }
    Ok(())
}

/// Parses a body; a large one beside the other tasks of this thread.
fn parse<T>(
    bytes: &[u8],
    parse: impl FnOnce(&[u8]) -> precedent_core::Result<T>,
) -> precedent_core::Result<T> {
    const LARGE: usize = 256 << 10;
    let threads = tokio::runtime::Handle::current().runtime_flavor();
    if bytes.len() > LARGE && threads == tokio::runtime::RuntimeFlavor::MultiThread {
        return tokio::task::block_in_place(|| parse(bytes));
    }
    parse(bytes)
}

/// Records an append. A connection that is dropped leaves it whole, and what it holds until it is recorded.
async fn record(app: &Arc<App>, log: LogName, append: Append, received: Received) -> Answer {
    let Received { bytes, room } = received;
    drop(bytes);
    let appended = crate::append::append(app, &log, append, Held::new(app, room)).await?;
    let body = serde_json::to_vec(&appended).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
    Ok(text(200, "application/json", body))
}

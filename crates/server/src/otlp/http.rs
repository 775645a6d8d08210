//! OTLP over HTTP: `POST /v1/traces`, `/v1/logs`, `/v1/metrics`, as protobuf or JSON.
//!
//! Specification: <https://opentelemetry.io/docs/specs/otlp/#otlphttp>. An error is answered with a `google.rpc.Status` in the
//! encoding of the request; `Retry-After` stands beside one that passes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use precedent_capture::coding::codings;
use precedent_capture::otlp::{Encoding, Signal};
use precedent_capture::wire::{put_bytes, put_number};

use super::{Exported, Refused, decoded, export, turned_away};
use crate::app::App;
use crate::body::receive_coded;
use crate::guard::Guard;
use crate::problem::Problem;

/// The paths, for a listener whose visitors this guard checks.
pub(crate) fn router(app: Arc<App>, guard: Arc<Guard>) -> Router {
    let handler = |signal: Signal| {
        move |State((app, guard)): State<(Arc<App>, Arc<Guard>)>, request: Request| async move {
            answer(&app, &guard, signal, request).await
        }
    };
    Router::new()
        .route("/v1/traces", post(handler(Signal::Traces)))
        .route("/v1/logs", post(handler(Signal::Logs)))
        .route("/v1/metrics", post(handler(Signal::Metrics)))
        .with_state((app, guard))
}

async fn answer(app: &Arc<App>, guard: &Guard, signal: Signal, request: Request) -> Response {
    let encoding = encoding_of(request.headers());
    let announced = length_of(request.headers());
    let outcome = take(app, guard, signal, encoding, request).await;
    let encoding = encoding.unwrap_or(Encoding::Json);
    let response = match outcome {
        Ok(exported) => respond(200, encoding, exported.body(signal, encoding), None),
        Err(refused) => {
            turned_away(app, signal, &refused, announced).await;
            respond(refused.http_status, encoding, status(&refused, encoding), refused.retry_after)
        }
    };
    app.metrics.answered(&format!("otlp/{signal}"), "POST", response.status().as_u16());
    response
}

async fn take(
    app: &Arc<App>,
    guard: &Guard,
    signal: Signal,
    encoding: Option<Encoding>,
    request: Request,
) -> Result<Exported, Refused> {
    let told = |problem: Problem| Refused::from_problem(&problem);
    guard.check(request.uri(), request.headers()).map_err(told)?;
    let _permit = app.admit().map_err(told)?;
    let Some(encoding) = encoding else {
        let expected = "expected application/x-protobuf or application/json";
        return Err(Refused::bad(415, 3, format!("the body's media type is not understood: {expected}")));
    };
    let coded = request.headers().get(header::CONTENT_ENCODING).map_or("", |v| v.to_str().unwrap_or("?"));
    let coded = codings(coded).map_err(|error| Refused::bad(415, 3, error.message()))?;
    let (head, body) = request.into_parts();
    let mut received = receive_coded(app, &head.headers, body).await.map_err(told)?;
    for coding in coded.into_iter().rev() {
        received = decoded(app, coding, received).map_err(told)?;
    }
    export(app, signal, encoding, &received).await.map_err(told)
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    match value.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Some(Encoding::Protobuf),
        "application/json" => Some(Encoding::Json),
        _ => None,
    }
}

fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `google.rpc.Status`: code = 1, message = 2.
fn status(refused: &Refused, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => {
            let mut out = Vec::new();
            put_number(1, refused.grpc_status.into(), &mut out);
            put_bytes(2, refused.message.as_bytes(), &mut out);
            out
        }
        Encoding::Json => serde_json::json!({"code": refused.grpc_status, "message": refused.message})
            .to_string()
            .into_bytes(),
    }
}

fn respond(status: u16, encoding: Encoding, body: Vec<u8>, retry_after: Option<u32>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(secs) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

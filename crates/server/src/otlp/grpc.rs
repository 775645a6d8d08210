//! OTLP over gRPC: the three `Export` calls, each one message in and one message out.
//!
//! ```text
//! HTTP/2 POST /opentelemetry.proto.collector.trace.v1.TraceService/Export
//!   body:    1 byte whether it is compressed, 4 bytes of length, the request
//!   answer:  200, the response framed likewise, and the trailer grpc-status: 0
//!            or no body and the status in the header
//! ```
//!
//! Three unary calls are all of gRPC that OTLP has, so its framing is written out here; a generated server would decode the
//! request and lose the sender's bytes. Specification: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::{Buf, Bytes};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use precedent_capture::coding::Coding;
use precedent_capture::otlp::{Encoding, Signal};
use precedent_capture::wire::{put_bytes, put_number};

use super::{Refused, decoded, export, turned_away};
use crate::app::App;
use crate::body::{Received, receive_coded};
use crate::guard::Guard;
use crate::problem::Problem;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// What a status message escapes, by the protocol.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The calls, for a listener whose visitors this guard checks.
pub(crate) fn router(app: Arc<App>, guard: Arc<Guard>) -> Router {
    Router::new().fallback(handle).with_state((app, guard))
}

async fn handle(State((app, guard)): State<(Arc<App>, Arc<Guard>)>, mut request: Request) -> Response {
    let is_grpc =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(
            |value| {
                value == "application/grpc"
                    || value.starts_with("application/grpc+proto")
                    || value.starts_with("application/grpc;")
            },
        );
    if !is_grpc || request.method() != axum::http::Method::POST {
        let mut response =
            Response::new(Body::from("this port speaks OTLP over gRPC; OTLP over HTTP has another\n"));
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let signal = match request.uri().path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        other => {
            return failed(&Refused::bad(404, 12, format!("there is no call '{}'", other.escape_debug())));
        }
    };
    // HTTP/2 names the host elsewhere; the guard looks at the header.
    if !request.headers().contains_key(header::HOST)
        && let Some(host) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let outcome = take(&app, &guard, signal, request).await;
    let (code, response) = match outcome {
        Ok(body) => (200, succeeded(body)),
        Err((refused, bytes)) => {
            turned_away(&app, signal, &refused, bytes).await;
            (refused.http_status, failed(&refused))
        }
    };
    app.metrics.answered(&format!("otlp-grpc/{signal}"), "POST", code);
    response
}

/// Why a call failed, and how many bytes it had, if that is known.
type Failure = (Refused, Option<u64>);

async fn take(app: &Arc<App>, guard: &Guard, signal: Signal, request: Request) -> Result<Vec<u8>, Failure> {
    let told = |problem: Problem| (Refused::from_problem(&problem), None);
    guard.check(request.uri(), request.headers()).map_err(told)?;
    let _permit = app.admit().map_err(told)?;
    let coding = match request.headers().get(ENCODING).map(|value| value.to_str().unwrap_or("?")) {
        None | Some("identity") => None,
        Some(name) => Some(Coding::from_name(name).ok_or_else(|| {
            let message = format!(
                "the encoding is '{}', expected gzip, deflate, zstd or identity",
                name.escape_debug()
            );
            (Refused::bad(415, 12, message), None)
        })?),
    };
    let (head, body) = request.into_parts();
    let received = receive_coded(app, &head.headers, body).await.map_err(told)?;
    let len = Some(received.bytes.len() as u64);
    let (compressed, message) = unframed(&received.bytes).map_err(|refused| (refused, len))?;
    let told = |problem: Problem| (Refused::from_problem(&problem), len);
    let mut received = Received { bytes: message, room: received.room };
    if compressed {
        let coding = coding.ok_or_else(|| {
            (Refused::bad(400, 13, "the message is compressed, and no grpc-encoding says how"), len)
        })?;
        received = decoded(app, coding, received).map_err(told)?;
    }
    let exported = export(app, signal, Encoding::Protobuf, &received).await.map_err(told)?;
    Ok(exported.body(signal, Encoding::Protobuf))
}

/// The one message of a body, and whether it is compressed.
fn unframed(body: &Bytes) -> Result<(bool, Bytes), Refused> {
    let bad = |message: String| Refused::bad(400, 13, message);
    let mut rest = body.clone();
    if rest.len() < 5 {
        return Err(bad(format!("the body is {} bytes, and the head of a message has 5", rest.len())));
    }
    let (flag, len) = (rest.get_u8(), rest.get_u32());
    if flag > 1 {
        return Err(bad(format!("the flag of the message is {flag}, expected 0 or 1")));
    }
    if rest.len() as u64 > u64::from(len) {
        return Err(bad(format!(
            "the call takes one message, and {} bytes follow the one of {len} bytes",
            rest.len() as u64 - u64::from(len)
        )));
    }
    if (rest.len() as u64) < u64::from(len) {
        return Err(bad(format!("the message announces {len} bytes, and {} follow", rest.len())));
    }
    Ok((flag == 1, rest))
}

fn succeeded(message: Vec<u8>) -> Response {
    let mut framed = Vec::with_capacity(message.len() + 5);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
    let body = StreamBody::new(stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
    response
}

/// An answer that is only a status. One that passes carries the delay, without which OTLP does not let a sender retry
/// `RESOURCE_EXHAUSTED`.
fn failed(refused: &Refused) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity,gzip,deflate,zstd"));
    headers.insert(STATUS, HeaderValue::from(refused.grpc_status));
    let message = utf8_percent_encode(&refused.message, ESCAPED).to_string();
    headers.extend(HeaderValue::from_str(&message).ok().map(|message| (MESSAGE, message)));
    if let Some(secs) = refused.retry_after {
        use base64::Engine;
        let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(retry_details(refused, secs));
        headers.extend(HeaderValue::from_str(&details).ok().map(|details| (DETAILS, details)));
    }
    response
}

/// `google.rpc.Status` with a `google.rpc.RetryInfo`.
fn retry_details(refused: &Refused, secs: u32) -> Vec<u8> {
    let (mut duration, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_number(1, secs.into(), &mut duration);
    put_bytes(1, &duration, &mut info);
    put_bytes(1, b"type.googleapis.com/google.rpc.RetryInfo", &mut any);
    put_bytes(2, &info, &mut any);
    put_number(1, refused.grpc_status.into(), &mut status);
    put_bytes(2, refused.message.as_bytes(), &mut status);
    put_bytes(3, &any, &mut status);
    status
}

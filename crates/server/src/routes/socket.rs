//! `GET /v1/appends`: becomes a WebSocket, on which every message is an append, and every answer a message.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use precedent_core::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Answer, Route, Scope};
use crate::call::Call;
use crate::problem::Problem;
use crate::sockets;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/appends",
    id: "appendSocket",
    about: "Becomes a WebSocket: every message is an append, for itself, and is answered by a message in its turn.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 101,
    gives: &[],
    problems: &["upgrade_required"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    let accept = accept(&call.headers)?;
    if call.method != Method::GET || !call.body.is_end_stream() {
        return Err(Error::invalid("a WebSocket is asked for by GET, without a body").into());
    }
    let upgrade = call.extensions.remove::<OnUpgrade>().ok_or_else(asks_for_none)?;
    let place = call.app.admit_socket()?;
    sockets::open(&call.app, call.log, upgrade, place)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// What answers the key of a request that asks for a WebSocket, as section 4.2 of RFC 6455 has it.
fn accept(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let has = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") {
        return Err(asks_for_none());
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        let detail = "the version of WebSocket that is spoken here is 13";
        return Err(
            Problem::http("upgrade_required", detail).with_header(header::SEC_WEBSOCKET_VERSION, "13")
        );
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let key =
        key.ok_or_else(|| Error::invalid("'Sec-WebSocket-Key' is missing, or is not 16 bytes in base64"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Error::invalid("'Sec-WebSocket-Key' cannot be answered").into())
}

fn asks_for_none() -> Problem {
    let detail = "this path is a WebSocket: the request has to ask for an upgrade to it";
    Problem::http("upgrade_required", detail).with_header(header::UPGRADE, "websocket")
}

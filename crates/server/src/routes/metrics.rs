//! `GET /metrics`: counters in the Prometheus text format.

use axum::http::Method;
use precedent_core::ErrorKind;

use super::{Answer, Route, Scope, text};
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/metrics",
    id: "metrics",
    about: "Counters in the Prometheus text format.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["text/plain; version=0.0.4; charset=utf-8"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let mut sizes = Vec::new();
    for log in call.app.store.logs().await? {
        match call.app.store.head(&log).await {
            Ok(head) => sizes.push((log.to_string(), head.size)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut body = call.app.metrics.render(&sizes, call.app.streams_open(), call.app.sockets_open());
    body.push_str(&call.app.capture.render());
    Ok(text(200, "text/plain; version=0.0.4; charset=utf-8", body))
}

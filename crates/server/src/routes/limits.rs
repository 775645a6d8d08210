//! `GET /v1/limits`: what is accepted, declared before anything is sent.

use axum::http::Method;
use precedent_core::{Error, ErrorKind};
use serde_json::json as value;

use super::{Answer, Route, Scope, json};
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Store,
    path: "/limits",
    id: "limits",
    about: "The limits of the store and of this server, and what an acknowledgement means.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let limits = serde_json::to_value(&call.app.store_limits);
    let mut limits = limits.map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
    limits["request_bytes_max"] = value!(call.app.limits.body_bytes_max);
    limits["message_bytes_max"] = value!(call.app.message_bytes_max());
    Ok(json(200, &limits))
}

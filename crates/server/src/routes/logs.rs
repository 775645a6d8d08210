//! `GET /v1/logs`: the names of all logs.

use axum::http::Method;
use precedent_core::LogName;
use serde_json::json as value;

use super::{Answer, Route, Scope, json};
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Store,
    path: "/logs",
    id: "logs",
    about: "The names of all logs.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let logs = call.app.store.logs().await?;
    let names: Vec<&str> = logs.iter().map(LogName::as_str).collect();
    Ok(json(200, &value!({ "logs": names })))
}

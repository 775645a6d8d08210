//! `GET /v1/doctor`: how large the log is, and what is to be said about its state.

use axum::http::Method;
use precedent_core::wire;

use super::{Answer, Route, Scope, json};
use crate::app::blocking;
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/doctor",
    id: "doctor",
    about: "How large the log is, and what is to be said about its state.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let (usage, findings) = blocking(call.app.store.examine(&call.log)).await?;
    let store = call.app.store.url();
    Ok(json(200, &wire::examination_json(&store, &call.log, &usage, &findings)))
}

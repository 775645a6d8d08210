//! `POST /v1/promote`: lets a copied log be written to.

use axum::http::Method;
use precedent_core::wire;

use super::{Answer, Route, Scope, json};
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/promote",
    id: "promote",
    about: "Lets a copied log be written to. From then on it and the original are two histories with one past.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &["read_only", "full", "unknown"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    call.app.store.promote(&call.log).await?;
    let head = call.app.store.head(&call.log).await?;
    Ok(json(200, &wire::head_json(&call.log, &head)))
}

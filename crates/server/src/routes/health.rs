//! `GET /healthz`: whether the server answers. It needs no token and says nothing else.

use axum::http::Method;

use super::{Answer, Route, Scope, text};
use crate::call::Call;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/healthz",
    id: "health",
    about: "Whether the server answers. Needs no token.",
    parameters: &[],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["text/plain; charset=utf-8"],
    problems: &["stopped"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    // A store that has stopped answers this question with its error.
    call.app.store.logs().await?;
    Ok(text(200, "text/plain; charset=utf-8", "ok\n"))
}

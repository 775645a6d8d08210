//! `POST /v1/query`: events that match one of several items, with the bounds of `GET /v1/events`.

use axum::http::{Method, header};
use precedent_core::wire;

use super::read::{GIVES, READ_HEADERS, give};
use super::{Answer, Route, Scope, expect_media_type, parse};
use crate::body::receive_at_most;
use crate::call::Call;
use crate::pager::Form;

/// Bytes of a query at most: far more than the terms take that one can have.
const QUERY_BYTES_MAX: usize = 1 << 20;
const TAKES: &[&str] = &["application/json"];

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/query",
    id: "query",
    about: "Reads events that match one of several items.",
    parameters: &[],
    headers: READ_HEADERS,
    takes: TAKES,
    status: 200,
    gives: GIVES,
    problems: &["not_acceptable", "damaged", "unsupported_media_type"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    let form = Form::accepted(call.headers.get_all(header::ACCEPT).iter())?;
    expect_media_type(&call, TAKES)?;
    let body = call.take_body();
    let received = receive_at_most(&call.app, &call.headers, body, QUERY_BYTES_MAX).await?;
    let request = parse(&received.bytes, wire::parse_read)?;
    drop(received);
    give(call, request, form).await
}

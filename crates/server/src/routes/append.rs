//! `POST /v1/append`: events in the native shape or in binary form, under conditions.

use axum::http::Method;
use precedent_core::wire;

use super::{Answer, Route, Scope, expect_media_type, parse, record};
use crate::body::receive;
use crate::call::Call;

const TAKES: &[&str] = &["application/json", wire::APPEND_MEDIA_TYPE];

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/append",
    id: "append",
    about: "Records events next to each other, or none of them, if all conditions hold.",
    parameters: &[],
    headers: &[],
    takes: TAKES,
    status: 200,
    gives: &["application/json"],
    problems: &[
        "conflict",
        "already_exists",
        "read_only",
        "full",
        "clock",
        "unknown",
        "unsupported_media_type",
    ],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    expect_media_type(&call, TAKES)?;
    let binary = call.media_type().is_some_and(|media_type| media_type == wire::APPEND_MEDIA_TYPE);
    let body = call.take_body();
    let received = receive(&call.app, &call.headers, body).await?;
    let append = match binary {
        true => wire::parse_binary_append(received.bytes.clone())?,
        false => parse(&received.bytes, wire::parse_append)?,
    };
    record(&call.app, call.log, append, received).await
}

//! `POST /v1/appends`: several appends in one request, each for itself.

use axum::http::Method;
use bytes::Bytes;
use precedent_core::{Append, Error, Result, wire};

use super::{Answer, NDJSON, Route, Scope, expect_media_type, parse, text};
use crate::append::{Held, answer_text, submit_each};
use crate::body::{Received, receive};
use crate::call::Call;

const TAKES: &[&str] = &[wire::APPENDS_MEDIA_TYPE, NDJSON];

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/appends",
    id: "appends",
    about: "Records several appends, each for itself; the answer has a line for each.",
    parameters: &[],
    headers: &[],
    takes: TAKES,
    status: 200,
    gives: &[NDJSON],
    problems: &["unsupported_media_type"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    expect_media_type(&call, TAKES)?;
    let binary = call.media_type().is_some_and(|media_type| media_type == wire::APPENDS_MEDIA_TYPE);
    let body = call.take_body();
    let Received { bytes, room } = receive(&call.app, &call.headers, body).await?;
    let appends = parse(&bytes, |_| match binary {
        true => binary_appends(&bytes),
        false => json_appends(&bytes),
    })?;
    drop(bytes);
    let pending = submit_each(&call.app, &call.log, appends, Held::new(&call.app, room));
    let mut lines = String::with_capacity(pending.len() * 128);
    for append in pending {
        let appended = append.await;
        if let Ok(appended) = &appended {
            call.app.metrics.appended(appended);
        }
        lines.push_str(&answer_text(appended));
        lines.push('\n');
    }
    Ok(text(200, NDJSON, lines))
}

fn binary_appends(body: &Bytes) -> Result<Vec<Result<Append>>> {
    Ok(wire::split_appends(body.clone())?.into_iter().map(wire::parse_binary_append).collect())
}

fn json_appends(body: &[u8]) -> Result<Vec<Result<Append>>> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut appends = Vec::new();
    for line in lines {
        wire::check_appends(appends.len() + 1)?;
        appends.push(wire::parse_append(line));
    }
    match appends.is_empty() {
        true => Err(Error::invalid("no append stands in the body")),
        false => Ok(appends),
    }
}

//! `GET /v1/head`: the end of a log, now or once it has grown.

use std::time::Duration;

use axum::http::Method;
use precedent_core::{Error, wire};

use super::{Answer, Kind, Route, Scope, json, parameter};
use crate::call::{Call, named};

/// Seconds that a wait for growth takes, if not said, and at most.
const WAIT_SECS: u64 = 30;
const WAIT_SECS_MAX: u64 = 60;

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/head",
    id: "head",
    about: "The end of the log: its size and the root of the tree over it.",
    parameters: &[
        parameter(
            "grown",
            Kind::Number,
            "Answer once the log holds more than this many events, or the wait is over.",
        ),
        parameter("wait", Kind::UpTo(WAIT_SECS_MAX), "Seconds to wait for that: 30 if not said, 60 at most."),
    ],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    let (grown, wait) = (call.query.number("grown")?, call.query.number("wait")?);
    if let Some(size) = grown {
        let wait = wait.unwrap_or(WAIT_SECS);
        if wait > WAIT_SECS_MAX {
            return Err(Error::limit("query parameter 'wait'", wait, WAIT_SECS_MAX, "seconds").into());
        }
        let _permit = call.app.admit_stream()?;
        drop(call.permit.take());
        tokio::select! {
            head = call.app.store.grown(&call.log, size) => return Ok(json(200, &wire::head_json(&call.log, &head?))),
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
            () = call.app.stopped() => {}
        }
    } else if wait.is_some() {
        return Err(named("wait", &Error::invalid("it needs 'grown': there is nothing to wait for")).into());
    }
    let head = call.app.store.head(&call.log).await?;
    Ok(json(200, &wire::head_json(&call.log, &head)))
}

//! `POST /v1/opa/logs`: decision logs of the Open Policy Agent, as its plugin uploads them.

use axum::http::{HeaderValue, Method, header};
use precedent_capture::coding::codings;
use precedent_capture::gap::Reason;
use precedent_capture::{Gap, opa};
use precedent_core::Error;
use serde_json::json as value;
use std::sync::atomic::Ordering;

use super::{Answer, HeaderUse, Route, Scope, expect_media_type, json, parse};
use crate::body::receive_coded;
use crate::call::Call;
use crate::otlp::decoded;
use crate::problem::Problem;

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Store,
    path: "/opa/logs",
    id: "opaLogs",
    about: "Records decisions of the Open Policy Agent as ai.policy.evaluated. Its service URL ends in /v1/opa.",
    parameters: &[],
    headers: &[HeaderUse {
        name: "Content-Encoding",
        about: "gzip, as OPA sends it; deflate, zstd or none.",
    }],
    takes: &["application/json"],
    status: 200,
    gives: &["application/json"],
    problems: &["read_only", "full", "clock", "unknown", "unsupported_media_type", "request_timeout"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    expect_media_type(&call, &["application/json"])?;
    let coded = call.headers.get(header::CONTENT_ENCODING).map_or("", |v| v.to_str().unwrap_or("?"));
    let coded = codings(coded)
        .map_err(|error| Problem::http("unsupported_media_type", error.message().to_owned()))?;
    let body = call.take_body();
    let app = call.app.clone();
    let announced: Option<u64> =
        call.headers.get(header::CONTENT_LENGTH).and_then(|v: &HeaderValue| v.to_str().ok()?.parse().ok());
    let taken = async {
        let mut received = receive_coded(&app, &call.headers, body).await?;
        for coding in coded.into_iter().rev() {
            received = decoded(&app, coding, received)?;
        }
        let max = app.store_limits.data_bytes_max;
        let events = parse(&received.bytes, |body| {
            let decisions = opa::decisions(body)?;
            if let Some(large) = decisions.iter().find(|decision| decision.len() as u64 > max) {
                return Err(Error::limit("a decision", large.len() as u64, max, "bytes"));
            }
            decisions
                .into_iter()
                .map(|decision| opa::event(decision, &app.capture.rules))
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok::<_, Problem>((events, received))
    };
    let (events, received) = match taken.await {
        Ok(taken) => taken,
        Err(problem) => {
            // What is at fault itself will never be taken; everything else is sent again.
            if matches!(problem.status(), 400 | 413) {
                let gap = Gap {
                    reason: Reason::PayloadRejected,
                    producer: "opa".to_owned(),
                    count: Some(1),
                    unit: "requests",
                    bytes: announced,
                    detail: format!("a decision log was turned away: {}", problem.message()),
                    ..Gap::default()
                };
                app.capture.missed(&app, gap).await;
            }
            return Err(problem);
        }
    };
    let recorded = crate::capture::record(&app, events).await?;
    drop(received);
    app.capture.counts.decisions.fetch_add(recorded.new, Ordering::Relaxed);
    Ok(json(200, &value!({"recorded": recorded.new, "existing": recorded.existing})))
}

//! `GET /v1/events/{position}`: one event.

use std::sync::atomic::Ordering;

use axum::http::{Method, header};
use precedent_core::Position;
use precedent_core::cloudevents::{self, Shape};

use super::{Answer, HeaderUse, Route, Scope, text};
use crate::call::Call;
use crate::pager::{ANSWER_BYTES_MAX, event_at, held, size_of_event, written_max};
use crate::problem::Problem;

const CLOUDEVENT: &str = "application/cloudevents+json";
const NATIVE: &str = "application/json";

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/events/{position}",
    id: "readEvent",
    about: "The event at a position.",
    parameters: &[],
    headers: &[HeaderUse {
        name: "Accept",
        about: "application/json asks for the native shape; anything else gives a CloudEvent.",
    }],
    takes: &[],
    status: 200,
    gives: &[CLOUDEVENT, NATIVE],
    problems: &["damaged", "not_acceptable"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    let accept: Vec<String> = call
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|range| range.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
        .filter(|range| !range.is_empty())
        .collect();
    let wants = |name: &str| accept.iter().position(|range| range == name);
    let any = accept.is_empty() || accept.iter().any(|range| range == "*/*" || range == "application/*");
    let shape = match (wants(CLOUDEVENT), wants(NATIVE)) {
        (Some(event), Some(native)) if native < event => Shape::Native,
        (None, Some(_)) => Shape::Native,
        (None, None) if !any => {
            let detail = format!("an event can be given as {CLOUDEVENT} or {NATIVE}");
            return Err(Problem::http("not_acceptable", detail));
        }
        _ => Shape::CloudEvents,
    };
    let position: Position = call.part("position").parse()?;
    let permit = call.app.admit_stream()?;
    // From here on it counts among the reads.
    drop(call.permit.take());
    let mut room = call.app.answer_room(ANSWER_BYTES_MAX).await?;
    let event = event_at(&call.app, &call.log, position).await?;
    let mut out = Vec::with_capacity(written_max(&event));
    room.keep(size_of_event(&event) + out.capacity());
    cloudevents::write_event(&event, shape, &mut out);
    drop(event);
    out.shrink_to_fit();
    room.keep(out.capacity());
    call.app.metrics.event_bytes_sent.fetch_add(out.len() as u64, Ordering::Relaxed);
    let media_type = if shape == Shape::Native { NATIVE } else { CLOUDEVENT };
    Ok(text(200, media_type, held(out, (room, permit))))
}

//! `GET /v1/events`: events by stream, type, tag, position and time, in the form the client accepts.

use axum::http::{Method, header};
use precedent_core::wire::{self, ReadRequest};
use precedent_core::{Direction, Error, IndexedAttribute, Position, Query, QueryItem, Result, Tag, Time};

use super::{Answer, HeaderUse, Kind, Parameter, Route, Scope, parameter};
use crate::call::{Call, Parameters, named};
use crate::pager::{Form, respond};

pub(super) const GIVES: &[&str] = &[
    "application/x-ndjson",
    "application/cloudevents-batch+json",
    "application/json",
    "text/event-stream",
    wire::EVENTS_MEDIA_TYPE,
];

pub(super) const READ_HEADERS: &[HeaderUse] = &[
    HeaderUse { name: "Accept", about: "The form; application/x-ndjson if anything is accepted." },
    HeaderUse {
        name: "Last-Event-ID",
        about: "With text/event-stream: the last position that was received, in place of `after`.",
    },
];

const PARAMETERS: &[Parameter] = &[
    parameter("stream", Kind::Text, "Only events of this stream."),
    parameter("type", Kind::Texts, "Only events of one of these types."),
    parameter("tag", Kind::Tags, "Only events with all of these tags, `key=value`."),
    parameter("decisionid", Kind::Text, "Only events with this attribute."),
    parameter("correlationid", Kind::Text, "Only events with this attribute."),
    parameter("causationid", Kind::Text, "Only events with this attribute."),
    parameter("traceid", Kind::Text, "Only events whose `traceparent` has this trace id."),
    parameter("after", Kind::Number, "Only events after this position. It has to be in the log."),
    parameter("before", Kind::Number, "Only events before this position."),
    parameter("since", Kind::Time, "Only events from this time on."),
    parameter("until", Kind::Time, "Only events before this time."),
    parameter("by", Kind::Text, "Which time `since` and `until` mean: `recordedtime` (default) or `time`."),
    parameter("limit", Kind::Positive, "At most this many events, at least 1."),
    parameter("backward", Kind::Flag, "From the end to the start."),
    parameter("follow", Kind::Flag, "Go on with events that are appended later."),
    parameter("at_least", Kind::Number, "Answer only once this position can be seen, or say that it cannot."),
];

pub(super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/events",
    id: "read",
    about: "Reads events.",
    parameters: PARAMETERS,
    headers: READ_HEADERS,
    takes: &[],
    status: 200,
    gives: GIVES,
    problems: &["not_acceptable", "damaged"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let form = Form::accepted(call.headers.get_all(header::ACCEPT).iter())?;
    let request = request_of(&call.query)?;
    give(call, request, form).await
}

/// Answers a read, going on behind what an event stream's client says it has.
pub(super) async fn give(mut call: Call, mut request: ReadRequest, form: Form) -> Answer {
    if form == Form::EventStream
        && let Some(last) = call.headers.get("last-event-id")
    {
        let last = last.to_str().unwrap_or("").trim();
        let position = last.parse::<Position>();
        request.read.after = Some(position.map_err(|e| e.context("the header Last-Event-ID"))?);
    }
    // From here on it counts among the reads.
    drop(call.permit.take());
    respond(call.app, call.log, request, form).await
}

fn request_of(query: &Parameters) -> Result<ReadRequest> {
    let tag = |text: &str| text.parse::<Tag>().map_err(|e| named("tag", &e));
    let time = |name: &str| {
        let time = query.one(name)?.map(Time::parse);
        time.transpose().map_err(|e| named(name, &e))
    };
    let mut item = QueryItem {
        stream: query.one("stream")?.map(str::to_owned),
        types: query.all("type").map(str::to_owned).collect(),
        tags: query.all("tag").map(tag).collect::<Result<_>>()?,
        attributes: Vec::new(),
    };
    for attribute in IndexedAttribute::ALL {
        if let Some(value) = query.one(attribute.name())? {
            item.attributes.push((attribute, value.to_owned()));
        }
    }
    for (name, values) in [("stream", item.stream.as_slice()), ("type", &item.types)] {
        if values.iter().any(String::is_empty) {
            return Err(named(name, &Error::invalid("it is empty")));
        }
    }
    if let Some((name, _)) = item.attributes.iter().find(|(_, value)| value.is_empty()) {
        return Err(named(name.name(), &Error::invalid("it is empty")));
    }
    let mut request = ReadRequest { follow: query.flag("follow")?, ..ReadRequest::default() };
    let read = &mut request.read;
    if !item.is_empty() {
        read.query = Query { items: vec![item] };
    }
    read.after = query.parsed("after")?;
    read.before = query.parsed("before")?;
    read.since = time("since")?;
    read.until = time("until")?;
    if let Some(by) = query.one("by")? {
        read.by = wire::parse_time_field(by).map_err(|e| named("by", &e))?;
    }
    if query.flag("backward")? {
        read.direction = Direction::Backward;
    }
    read.limit = query.number("limit")?.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    read.at_least = query.parsed("at_least")?;
    if read.limit == Some(0) {
        return Err(named("limit", &Error::invalid("a limit of 0 asks for nothing; the least is 1")));
    }
    request.check()?;
    Ok(request)
}

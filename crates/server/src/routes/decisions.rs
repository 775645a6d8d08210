//! `GET /v1/decisions`: decisions, newest first; `GET /v1/decisions/{name}`: what belongs to one, as it was.

use axum::http::Method;
use precedent_core::{Error, ErrorKind, Log, Result, Tag, Time};
use precedent_decisions::list::{Filter, LIMIT_MAX, Listing, Wanted, list};
use precedent_decisions::{Ask, Bounds, Shown, show};
use serde::Serialize;

use super::{Answer, Kind, Parameter, Route, Scope, parameter, text};
use crate::app::{App, Room, blocking};
use crate::call::{Call, Parameters, named};
use crate::pager::held;
use crate::problem::Problem;

pub(super) const FILTERS: &[Parameter] = &[
    parameter("type", Kind::Texts, "Rows stand at events of one of these types, instead of decisions."),
    parameter("tag", Kind::Tags, "The event a row stands at has all of these tags, `key=value`."),
    parameter("model", Kind::Text, "Only those that name this model."),
    parameter(
        "outcome",
        Kind::Tags,
        "Only those with an outcome that says all of these, `name=value`; numbers are compared as numbers.",
    ),
    parameter("since", Kind::Time, "Only from this recorded time on."),
    parameter("until", Kind::Time, "Only before this recorded time."),
    parameter("before", Kind::Number, "Only before this position: where a page said to go on."),
    parameter("limit", Kind::UpTo(LIMIT_MAX as u64), "At most this many rows, at least 1; 20 if not said."),
];

pub(super) const LIST: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/decisions",
    id: "listDecisions",
    about: "Decisions, newest first, with what came of each.",
    parameters: FILTERS,
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(many(call)),
};

pub(super) const ONE: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/decisions/{name}",
    id: "showDecision",
    about: "What belongs to a decision, a correlation, a trace, a stream or the event at a position, as it is or as it was.",
    parameters: &[
        parameter(
            "as",
            Kind::Text,
            "Which of these the name is: `decision`, `correlation`, `trace`, `stream` or `position`.",
        ),
        parameter("at", Kind::Text, "A position, or an RFC 3339 time: as it was then, and nothing later."),
    ],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["application/json"],
    problems: &[],
    handle: |call| Box::pin(one(call)),
};

/// Bytes of events in one record, at most; it is in memory as events, as views, and as what goes out.
pub(super) const RECORD_BYTES_MAX: usize = 24 << 20;
/// What a record takes at most while it is made.
pub(super) const RECORD_ROOM: usize = 4 * RECORD_BYTES_MAX;

async fn many(mut call: Call) -> Answer {
    let filter = filter_of(&call.query)?;
    let permit = call.app.admit_stream()?;
    drop(call.permit.take());
    let mut room = call.app.answer_room(RECORD_ROOM).await?;
    let listing = listed(&call.app, &log_of(&call), &filter).await?;
    let body = written(&listing)?;
    room.keep(body.len());
    Ok(text(200, "application/json", held(body, (room, permit))))
}

async fn one(mut call: Call) -> Answer {
    let ask = ask_of(call.part("name"), &call.query)?;
    let permit = call.app.admit_stream()?;
    drop(call.permit.take());
    let (shown, mut room) = shown(&call.app, &log_of(&call), &ask).await?;
    let record = match shown {
        Shown::Record(record) => record,
        Shown::Nothing(nothing) => {
            return Err(match nothing.unreadable.first() {
                None => Error::new(ErrorKind::NotFound, nothing.message),
                Some(one) => Error::damaged(format!("{}; {}", nothing.message, one.detail)),
            }
            .into());
        }
    };
    let body = written(&record)?;
    drop(record);
    room.keep(body.len());
    Ok(text(200, "application/json", held(body, (room, permit))))
}

/// The log of a call.
pub(super) fn log_of(call: &Call) -> Log {
    Log::new(call.app.store.clone(), call.log.clone())
}

/// A page of decisions.
pub(super) async fn listed(_app: &App, log: &Log, filter: &Filter) -> Result<Listing> {
    blocking(Box::pin(list(log, filter))).await
}

/// What is asked for, and the room it takes.
pub(super) async fn shown(app: &App, log: &Log, ask: &Ask) -> Result<(Shown, Room)> {
    let room = app.answer_room(RECORD_ROOM).await?;
    Ok((blocking(Box::pin(show(log, ask))).await?, room))
}

/// The parameters of a listing.
pub(super) fn filter_of(query: &Parameters) -> Result<Filter> {
    let time = |name: &str| {
        let time = given(query, name)?.map(Time::parse);
        time.transpose().map_err(|error| named(name, &error))
    };
    let all = |name: &'static str| query.all(name).filter(|value| !value.is_empty());
    let limit = query.number("limit")?.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    match limit {
        Some(0) => {
            return Err(named("limit", &Error::invalid("a limit of 0 asks for nothing; the least is 1")));
        }
        Some(limit) if limit > LIMIT_MAX => {
            return Err(Error::limit("query parameter 'limit'", limit as u64, LIMIT_MAX as u64, "rows"));
        }
        _ => {}
    }
    Ok(Filter {
        types: all("type").map(str::to_owned).collect(),
        tags: all("tag").map(|t| t.parse::<Tag>().map_err(|e| named("tag", &e))).collect::<Result<_>>()?,
        model: given(query, "model")?.map(str::to_owned),
        outcomes: all("outcome")
            .map(|text| text.parse::<Wanted>().map_err(|e| named("outcome", &e)))
            .collect::<Result<_>>()?,
        since: time("since")?,
        until: time("until")?,
        before: query.parsed("before")?,
        limit: limit.unwrap_or_default(),
    })
}

/// What is to be shown, and as it was when.
pub(super) fn ask_of(what: &str, query: &Parameters) -> Result<Ask> {
    let by = given(query, "as")?.map(str::parse).transpose().map_err(|error| named("as", &error))?;
    let at =
        given(query, "at")?.map(|at| at.trim().parse()).transpose().map_err(|error| named("at", &error))?;
    let bounds = Bounds { bytes_max: RECORD_BYTES_MAX, events_max: 5_000, ..Bounds::default() };
    Ok(Ask { what: what.to_owned(), by, at, bounds })
}

/// The value of a parameter; an empty one, as forms send them, is none.
pub(super) fn given<'a>(query: &'a Parameters, name: &str) -> Result<Option<&'a str>> {
    Ok(query.one(name)?.filter(|value| !value.is_empty()))
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("the answer cannot be JSON: {error}")).into()
    })
}

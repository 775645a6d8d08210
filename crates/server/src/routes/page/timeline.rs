//! `GET /`: the newest events, what comes live, and how large the log is.

use axum::http::{Method, StatusCode};
use precedent_core::{Direction, Error, Log, LogName, Position, Query, QueryItem, Read, Result, Tag, Time};
use precedent_decisions::record::headline;

use super::super::decisions::given;
use super::super::{Answer, Kind, Parameter, Route, Scope, parameter};
use super::{Here, field, html, log_field, log_of, log_value, page, trouble, when};
use crate::app::{App, blocking};
use crate::call::{Call, Parameters, named};
use crate::pager::ANSWER_BYTES_MAX;
use crate::problem::Problem;

pub(in super::super) const PARAMETERS: &[Parameter] = &[
    parameter("type", Kind::Texts, "Only events of one of these types."),
    parameter("tag", Kind::Tags, "Only events with all of these tags, `key=value`."),
    parameter("stream", Kind::Text, "Only events of this stream."),
    parameter("since", Kind::Time, "Only events from this recorded time on."),
    parameter("before", Kind::Number, "Only events before this position."),
    parameter("log", Kind::Text, "The log; `main` if not said."),
];

pub(in super::super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/",
    id: "timelinePage",
    about: "The page: the newest events, and those that come.",
    parameters: PARAMETERS,
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["text/html"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

/// Events on a page.
const ROWS: usize = 50;

async fn handle(call: Call) -> Answer {
    let log = log_of(&call.query)?;
    Ok(render(&call.app, &call.query, &log).await.unwrap_or_else(|problem| trouble(problem, &log)))
}

async fn render(app: &App, query: &Parameters, name: &LogName) -> Answer {
    let _permit = app.admit_stream()?;
    let filter = filter_of(query)?;
    let mut room = app.answer_room(ANSWER_BYTES_MAX).await?;
    let log = Log::new(app.store.clone(), name.clone());
    let head = log.head().await?;
    let before = filter.before.filter(|before| before.0 < head.size);
    let end = before.unwrap_or(Position(head.size));
    let mut rows = String::new();
    let (mut count, mut damage) = (0, Vec::new());
    let mut read = Read {
        query: filter.query.clone(),
        before: Some(end),
        since: filter.since,
        direction: Direction::Backward,
        ..Read::default()
    };
    let mut next = None;
    // Large events are read a few at a time, and nothing of them is kept but a line.
    while end.0 > 0 && count < ROWS {
        read.limit = Some((ROWS - count).min(10));
        let page = blocking(log.store().read(name, &read)).await?;
        for event in &page.events {
            rows.push_str(&row(event, name));
        }
        count += page.events.len();
        damage.extend(page.damaged);
        next = page.next.filter(|next| next.0 > 0);
        match next {
            Some(covered) => read = read.continued(covered),
            None => break,
        }
        tokio::task::yield_now().await;
    }
    let text = |name: &str| given(query, name).ok().flatten().unwrap_or_default().to_owned();
    let (types, tags) = (joined(query, "type"), joined(query, "tag"));
    let mut main = format!(
        "<h1>Log {} <small>{}</small></h1>",
        html::text(name.as_str()),
        if filter.query.items.is_empty() && filter.since.is_none() { "everything" } else { "what matches" }
    );
    main.push_str(&format!(
        "<div class=facts id=facts><span>events <b>{}</b></span><span>root <b class=mono title={}>{}…</b></span>",
        head.size,
        html::attribute(&head.root.to_string()),
        &head.root.to_string()[..16],
    ));
    if let Some(recorded) = head.recorded {
        main.push_str(&format!("<span>last <b>{recorded}</b></span>"));
    }
    main.push_str("</div><form class=filters action=/>");
    main.push_str(&field("type", "Type", &types, "ai.decision.made"));
    main.push_str(&field("stream", "Stream", &text("stream"), "application/42"));
    main.push_str(&field("tag", "Tag", &tags, "model=risk-7"));
    main.push_str(&field("since", "Since", &text("since"), "2026-11-22T10:00:00Z"));
    main.push_str(&log_field(name));
    main.push_str("<button>Filter</button></form>");
    if before.is_none() {
        main.push_str("<span class=live role=status>not live</span>");
    }
    for one in damage {
        main.push_str(&format!(
            "<p class=\"l warning\"><span class=p>{}</span><span class=lab>unreadable</span><span class=t>{}</span></p>",
            one.position,
            html::text(one.error.message())
        ));
    }
    let last = head.size.checked_sub(1).map(|last| last.to_string()).unwrap_or_default();
    let live = match before {
        None => format!(" data-events={} data-last=\"{last}\"", html::attribute(&events_url(query, name))),
        Some(_) => String::new(),
    };
    main.push_str(&format!("<ol class=rows id=timeline{live}>{rows}</ol>"));
    if count == 0 {
        let what = match head.size {
            0 => "Nothing has been recorded yet. What comes shows up here.",
            _ => "No event matches.",
        };
        main.push_str(&format!("<p class=empty id=empty>{what}</p>"));
    }
    if let Some(next) = next.filter(|_| count >= ROWS) {
        let at = next.to_string();
        let href = with(query, "/", &[("before", &at)]);
        main.push_str(&format!("<p><a rel=next href={}>Earlier events</a></p>", html::attribute(&href)));
    }
    room.keep(main.len());
    Ok(page(StatusCode::OK, Here::Timeline, name, &format!("Log {name}"), &main))
}

fn row(event: &precedent_core::RecordedEvent, log: &LogName) -> String {
    let position = event.position.to_string();
    let href = html::url("/show", &[("of", &position), ("as", "position"), ("log", log_value(log))]);
    format!(
        "<li data-position=\"{position}\"><a href={}><span class=p>{position}</span>{}<span class=type>{}</span><span class=stream>{}</span><span class=what>{}</span></a></li>",
        html::attribute(&format!("{href}#p{position}")),
        when(&event.recorded.to_string()),
        html::text(event.event.event_type()),
        html::text(event.event.stream().unwrap_or("–")),
        html::text(&what(event)),
    )
}

/// Bytes of data that are read to say in a line what an event is about; a page of larger ones would take its time.
const READ_BYTES_MAX: usize = 256 << 10;

fn what(event: &precedent_core::RecordedEvent) -> String {
    match event.event.data().map(|data| data.len()).filter(|len| *len > READ_BYTES_MAX) {
        Some(len) => format!("({}, {len} bytes)", event.event.datacontenttype().unwrap_or("no media type")),
        None => headline(event).replace(['\n', '\r', '\t'], " "),
    }
}

struct Filter {
    query: Query,
    since: Option<Time>,
    before: Option<Position>,
}

fn filter_of(query: &Parameters) -> Result<Filter, Problem> {
    let all = |name: &'static str| {
        query.all(name).flat_map(|v| v.split([' ', ','])).filter(|value| !value.is_empty())
    };
    let item = QueryItem {
        types: all("type").map(str::to_owned).collect(),
        tags: query
            .all("tag")
            .filter(|tag| !tag.is_empty())
            .map(|tag| tag.parse::<Tag>().map_err(|error| named("tag", &error)))
            .collect::<Result<_>>()?,
        stream: given(query, "stream")?.map(str::to_owned),
        attributes: Vec::new(),
    };
    let since = given(query, "since")?.map(Time::parse).transpose();
    Ok(Filter {
        query: if item.is_empty() { Query::all() } else { Query { items: vec![item] } },
        since: since.map_err(|error| named("since", &error))?,
        before: match given(query, "before")? {
            Some(text) => Some(text.parse().map_err(|error: Error| named("before", &error))?),
            None => None,
        },
    })
}

/// Several values as one field has them.
fn joined(query: &Parameters, name: &str) -> String {
    query.all(name).filter(|value| !value.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The same page with other parameters.
pub(super) fn with(query: &Parameters, path: &str, other: &[(&str, &str)]) -> String {
    let kept = query.pairs().filter(|(name, _)| other.iter().all(|(changed, _)| changed != name));
    let all: Vec<(&str, &str)> = kept.chain(other.iter().copied()).collect();
    html::url(path, &all)
}

/// Where the same events come live, as the HTTP interface documents it.
fn events_url(query: &Parameters, log: &LogName) -> String {
    let path = match log_value(log) {
        "" => "/v1/events".to_owned(),
        log => format!("/v1/logs/{log}/events"),
    };
    let mut all = vec![("follow", "true")];
    for (name, value) in query.pairs() {
        match name {
            "type" => all.extend(value.split([' ', ',']).map(|value| (name, value))),
            "tag" | "stream" | "since" => all.push((name, value)),
            _ => {}
        }
    }
    html::url(&path, &all)
}

//! `GET /decisions`: decisions, newest first, with what came of each.

use axum::http::{Method, StatusCode};
use precedent_core::{Log, LogName};
use precedent_decisions::list::{Entry, Remark};

use super::super::decisions::{RECORD_ROOM, filter_of, listed};
use super::super::{Answer, Kind, Parameter, Route, Scope, parameter};
use super::timeline::with;
use super::{Here, field, html, log_field, log_of, log_value, page, trouble, when};
use crate::app::App;
use crate::call::{Call, Parameters};

const PARAMETERS: &[Parameter] = &[
    parameter("type", Kind::Texts, "As `/v1/decisions` has it."),
    parameter("tag", Kind::Tags, "As `/v1/decisions` has it."),
    parameter("model", Kind::Text, "As `/v1/decisions` has it."),
    parameter("outcome", Kind::Tags, "As `/v1/decisions` has it."),
    parameter("since", Kind::Time, "As `/v1/decisions` has it."),
    parameter("until", Kind::Time, "As `/v1/decisions` has it."),
    parameter("before", Kind::Number, "As `/v1/decisions` has it."),
    parameter("limit", Kind::Positive, "As `/v1/decisions` has it."),
    parameter("log", Kind::Text, "The log; `main` if not said."),
];

pub(in super::super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/decisions",
    id: "decisionsPage",
    about: "The page: decisions, newest first.",
    parameters: PARAMETERS,
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["text/html"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(call: Call) -> Answer {
    let log = log_of(&call.query)?;
    Ok(render(&call.app, &call.query, &log).await.unwrap_or_else(|problem| trouble(problem, &log)))
}

async fn render(app: &App, query: &Parameters, name: &LogName) -> Answer {
    let _permit = app.admit_stream()?;
    let filter = filter_of(query)?;
    let mut room = app.answer_room(RECORD_ROOM).await?;
    let log = Log::new(app.store.clone(), name.clone());
    let listing = listed(app, &log, &filter).await?;
    let value = |name: &str| query.all(name).filter(|value| !value.is_empty()).collect::<Vec<_>>().join(" ");
    let mut main =
        "<h1>Decisions <small>newest first</small></h1><form class=filters action=/decisions>".to_owned();
    main.push_str(&field("model", "Model", &value("model"), "risk-7"));
    main.push_str(&field("outcome", "Outcome", &value("outcome"), "reward=1"));
    main.push_str(&field("tag", "Tag", &value("tag"), "region=north"));
    main.push_str(&field("type", "Type", &value("type"), "ai.model.called"));
    main.push_str(&field("since", "Since", &value("since"), "2026-11-22T10:00:00Z"));
    main.push_str(&log_field(name));
    main.push_str("<button>Filter</button></form>");
    for one in &listing.unreadable {
        main.push_str(&format!(
            "<p class=\"l warning\"><span class=p>{}</span><span class=lab>unreadable</span><span class=t>{}</span></p>",
            one.position,
            html::text(&one.detail)
        ));
    }
    main.push_str("<ol class=rows>");
    for entry in &listing.decisions {
        main.push_str(&row(entry, name));
    }
    main.push_str("</ol>");
    if listing.decisions.is_empty() {
        let by_calls = html::attribute(&html::url(
            "/decisions",
            &[("type", "ai.model.called"), ("log", log_value(name))],
        ));
        let what = match (listing.size, listing.next) {
            (0, _) => "Nothing has been recorded yet.".to_owned(),
            (_, Some(_)) => "Nothing so far; there is more to look through.".to_owned(),
            _ => format!(
                "No decision, override, outcome or feedback matches. <a href={by_calls}>List by calls of models</a>"
            ),
        };
        main.push_str(&format!("<p class=empty>{what}</p>"));
    }
    if let Some(next) = listing.next {
        let href = with(query, "/decisions", &[("before", &next.to_string())]);
        main.push_str(&format!(
            "<p><a rel=next href={}>Go on before position {next}</a></p>",
            html::attribute(&href)
        ));
    }
    room.keep(main.len());
    Ok(page(StatusCode::OK, Here::Decisions, name, "Decisions", &main))
}

fn row(entry: &Entry, log: &LogName) -> String {
    let href = html::url(
        "/show",
        &[("of", &entry.key.value), ("as", entry.key.by.as_str()), ("log", log_value(log))],
    );
    let mut what = Vec::new();
    let first = entry.decision.as_ref().map(|remark| remark.what.as_str()).or(entry.what.as_deref());
    what.extend(first.map(|text| format!("<span class=more>{}</span>", html::text(text))));
    let told = |mark: &str, name: &str, remark: &Remark| {
        format!("<span class=more>{mark} {name} at {}: {}</span>", remark.position, html::text(&remark.what))
    };
    what.extend(entry.overrides.iter().map(|remark| told("◆", "overridden", remark)));
    what.extend(entry.outcomes.iter().map(|remark| told("★", "outcome", remark)));
    what.extend(entry.feedback.iter().map(|remark| told("★", "feedback", remark)));
    if entry.more {
        what.push("<span class=more>… perhaps more: open it</span>".to_owned());
    }
    format!(
        "<li><a href={}><span class=p>{}</span>{}<span class=type title={}>{}</span><span class=stream>{}</span><span class=more>{}</span></a></li>",
        html::attribute(&href),
        entry.position,
        when(&entry.recorded),
        html::attribute(entry.key.by.as_str()),
        html::text(&entry.key.value),
        html::text(entry.model.as_deref().unwrap_or("–")),
        what.join("<br>"),
    )
}

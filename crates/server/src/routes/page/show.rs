//! `GET /show`: a decision as `precedent show` gives it, now or as it was.

use axum::http::{Method, StatusCode};
use precedent_core::{Log, LogName, Position};
use precedent_decisions::story::{Line, Scene, Tone};
use precedent_decisions::{Record, Shown};

use super::super::decisions::{ask_of, given, shown};
use super::super::{Answer, Kind, Route, Scope, parameter};
use super::timeline::with;
use super::{Here, html, log_field, log_of, log_value, page, trouble, when};
use crate::app::App;
use crate::call::{Call, Parameters};

pub(in super::super) const ROUTE: Route = Route {
    method: Method::GET,
    scope: Scope::Root,
    path: "/show",
    id: "showPage",
    about: "The page: what belongs to a decision, as it is or as it was.",
    parameters: &[
        parameter("of", Kind::Text, "A decision, a correlation, a trace, a stream or a position."),
        parameter("as", Kind::Text, "Which of these it is."),
        parameter("at", Kind::Text, "A position, or an RFC 3339 time: as it was then, and nothing later."),
        parameter("whole", Kind::Text, "One line alone, whole: the number of its step and its own, `3.7`."),
        parameter("log", Kind::Text, "The log; `main` if not said."),
    ],
    headers: &[],
    takes: &[],
    status: 200,
    gives: &["text/html"],
    problems: &[],
    handle: |call| Box::pin(handle(call)),
};

/// Characters of a text that a page shows of it; the rest is a click away.
const CHARS_MAX: usize = 1_500;
/// Bytes of a page, near enough: beyond it, steps are shown as their title.
const PAGE_BYTES_MAX: usize = 4 << 20;

async fn handle(call: Call) -> Answer {
    let log = log_of(&call.query)?;
    Ok(render(&call.app, &call.query, &log).await.unwrap_or_else(|problem| trouble(problem, &log)))
}

async fn render(app: &App, query: &Parameters, name: &LogName) -> Answer {
    let of = given(query, "of")?.unwrap_or_default().trim();
    let ask = ask_of(of, query)?;
    let _permit = app.admit_stream()?;
    let log = Log::new(app.store.clone(), name.clone());
    let (shown, mut room) = shown(app, &log, &ask).await?;
    let record = match shown {
        Shown::Record(record) => record,
        Shown::Nothing(nothing) => {
            let mut main =
                format!("<h1>Nothing to show</h1><p class=empty>{}</p>", html::text(&nothing.message));
            for one in &nothing.unreadable {
                main.push_str(&format!("<p class=warning>{}</p>", html::text(&one.detail)));
            }
            return Ok(page(StatusCode::NOT_FOUND, Here::Other, name, "Nothing to show", &main));
        }
    };
    let title = format!("{} {}", record.key.by, record.key.value);
    let main = match given(query, "whole")? {
        Some(which) => whole(&record, which, query),
        None => whole_record(&record, query, name),
    };
    drop(record);
    room.keep(main.len());
    Ok(page(StatusCode::OK, Here::Other, name, &title, &main))
}

/// One line alone.
fn whole(record: &Record, which: &str, query: &Parameters) -> String {
    let numbers = which
        .split_once('.')
        .and_then(|(step, line)| Some((step.parse::<usize>().ok()?, line.parse::<usize>().ok()?)));
    let mut story = record.story();
    let line = match numbers {
        Some((0, line)) => (line < story.head.len()).then(|| story.head.swap_remove(line)),
        Some((step, line)) => story
            .scenes
            .get_mut(step - 1)
            .and_then(|scene| (line < scene.lines.len()).then(|| scene.lines.swap_remove(line))),
        None => None,
    };
    let back = html::attribute(&with(query, "/show", &[("whole", "")]));
    match line {
        Some(line) => {
            let at = line.position.map(|position| format!(" at position {position}")).unwrap_or_default();
            format!(
                "<p><a href={back}>Back to the record</a></p><h1>{}<small>{at}, {} characters</small></h1><pre class=t>{}</pre>",
                html::text(&line.label),
                line.text.chars().count(),
                html::text(&line.text)
            )
        }
        None => format!("<p class=empty>There is no such line. <a href={back}>The record</a></p>"),
    }
}

fn whole_record(record: &Record, query: &Parameters, name: &LogName) -> String {
    let story = record.story();
    let mut main =
        format!("<h1>{} <span class=mono>{}</span></h1>", record.key.by, html::text(&record.key.value));
    let at = given(query, "at").ok().flatten().unwrap_or_default();
    main.push_str(&moments(record, query, name, at));
    for (index, line) in story.head.iter().enumerate() {
        main.push_str(&one_line(line, (0, index), query, Some(record), name));
    }
    let mut left_out = 0;
    for (index, scene) in story.scenes.iter().enumerate() {
        match main.len() < PAGE_BYTES_MAX {
            true => main.push_str(&section(scene, index + 1, record, query, name)),
            false => left_out += 1,
        }
    }
    let json = json_url(record, name, at);
    if left_out > 0 {
        main.push_str(&format!(
            "<p class=warning>{left_out} more steps: this page would be too large. The JSON has them.</p>"
        ));
    }
    main.push_str(&format!("<p><a href={}>All of it as JSON</a></p>", html::attribute(&json)));
    main
}

/// Where the same record is for programs.
fn json_url(record: &Record, name: &LogName, at: &str) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let what = utf8_percent_encode(&record.key.value, NON_ALPHANUMERIC);
    let path = format!("/v1/logs/{}/decisions/{what}", name.as_str());
    html::url(&path, &[("as", record.key.by.as_str()), ("at", at)])
}

/// As it was at other moments: before and after what changed it.
fn moments(record: &Record, query: &Parameters, name: &LogName, at: &str) -> String {
    let mut out = String::new();
    if record.as_of.asked {
        let now = html::attribute(&with(query, "/show", &[("at", "")]));
        out.push_str(&format!(
            "<p class=was>As it was at position {}: nothing that came later is shown. <a href={now}>As it is now</a></p>",
            record.as_of.position
        ));
    }
    out.push_str("<form class=moments action=/show>");
    // The record by its own name: an event that it was found by may not have been there yet.
    let named = [("of", record.key.value.as_str()), ("as", record.key.by.as_str())];
    for (field, value) in named {
        out.push_str(&format!("<input type=hidden name={field} value={}>", html::attribute(value)));
    }
    out.push_str(&log_field(name));
    out.push_str(&format!(
        "<label>As it was at <input name=at size=18 value={} placeholder=\"position or time\"></label><button>Show</button>",
        html::attribute(at)
    ));
    let told = [
        ("decided", &record.milestones.decisions),
        ("overridden", &record.milestones.overrides),
        ("outcome", &record.milestones.outcomes),
    ];
    for (what, positions) in told {
        for position in positions.iter().take(4) {
            let position = position.to_string();
            let href = with(query, "/show", &[named[0], named[1], ("at", &position)]);
            out.push_str(&format!("<a href={}>when {what} ({position})</a>", html::attribute(&href)));
        }
    }
    out.push_str("</form>");
    out
}

fn section(scene: &Scene<'_>, number: usize, record: &Record, query: &Parameters, name: &LogName) -> String {
    let step = scene.step;
    let position = step.position;
    let kind = step.kind.as_str();
    let shown_kind = match kind {
        "other" => html::text(&step.events[0].event_type),
        kind => kind.to_owned(),
    };
    let opened = if record.opened == Some(position) { " opened" } else { "" };
    let mut out = format!(
        "<section class=\"step {kind}{opened}\" id=p{position} tabindex=-1><h2><a class=p href={}>{position}</a><span class=kind>{shown_kind}</span><span class=title>{}</span>",
        html::attribute(&event_url(position, name)),
        html::text(&scene.title),
    );
    if let Some(by) = scene.by {
        out.push_str(&format!("<span class=by>by its {by}</span>"));
    }
    out.push_str(&when(&step.recorded));
    out.push_str("</h2>");
    let mut details = String::new();
    for (index, line) in scene.lines.iter().enumerate() {
        let shown = one_line(line, (number, index), query, None, name);
        match line.detail {
            true => details.push_str(&shown),
            false => out.push_str(&shown),
        }
    }
    if !details.is_empty() {
        out.push_str(&format!("<details><summary>details</summary>{details}</details>"));
    }
    out.push_str("</section>");
    out
}

fn event_url(position: Position, name: &LogName) -> String {
    match log_value(name) {
        "" => format!("/v1/events/{position}"),
        log => format!("/v1/logs/{log}/events/{position}"),
    }
}

fn one_line(
    line: &Line<'_>,
    at: (usize, usize),
    query: &Parameters,
    head: Option<&Record>,
    name: &LogName,
) -> String {
    let tone = match line.tone {
        Tone::Content => "",
        Tone::About => " about",
        Tone::Warning => " warning",
    };
    let position = match (line.position, head) {
        // A step of the record is on this page; a version that was live is an event elsewhere.
        (Some(position), Some(record)) => {
            let here = record.steps.iter().any(|step| step.position == position);
            let href = match here {
                true => format!("#p{position}"),
                false => html::url(
                    "/show",
                    &[("of", &position.to_string()), ("as", "position"), ("log", log_value(name))],
                ),
            };
            format!("<a href={}>{position}</a>", html::attribute(&href))
        }
        (Some(position), None) => position.to_string(),
        (None, _) => String::new(),
    };
    let (text, left) = excerpt(&line.text);
    let mut shown = html::text(text);
    // What its events name besides leads on.
    if let (Some(record), true) = (head, line.tone == Tone::About)
        && let Some(key) =
            record.also.iter().find(|key| key.by.as_str() == line.label && key.value == line.text)
    {
        let href =
            html::url("/show", &[("of", &key.value), ("as", key.by.as_str()), ("log", log_value(name))]);
        shown = format!("<a href={}>{shown}</a>", html::attribute(&href));
    }
    if left > 0 {
        let which = format!("{}.{}", at.0, at.1);
        let href = html::attribute(&with(query, "/show", &[("whole", &which)]));
        shown.push_str(&format!(
            "<span class=cut>… <a href={href}>all of it, {left} more characters</a></span>"
        ));
    }
    format!(
        "<div class=\"l{tone}\"><span class=p>{position}</span><span class=lab>{}</span><pre class=t>{shown}</pre></div>",
        html::text(&line.label)
    )
}

/// The beginning of a text, and how many characters it leaves out.
fn excerpt(text: &str) -> (&str, usize) {
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => (&text[..end], text[end..].chars().count()),
        None => (text, 0),
    }
}

//! The page: `/` is the live timeline, `/decisions` lists decisions, `/show` opens one.
//!
//! Everything is rendered here, from what the HTTP interface gives too, and works without a script. The one script adds what comes live,
//! keys, and the token: a browser sends none when it opens a page, so a server with a token answers 401 with a form, and the script
//! repeats the request with the header `Authorization`. The token is kept by the tab, for this origin, and is never in a URL, a
//! cookie or an answer.
//!
//! **Invariant.** What was recorded is text: it goes through [`html::text`] or [`html::attribute`], and the policy of the page runs no
//! script and no style but the two that are named by their hash.

mod html;
mod list;
mod show;
mod timeline;

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use precedent_core::LogName;
use sha2::{Digest, Sha256};

pub(super) use list::ROUTE as DECISIONS;
pub(super) use show::ROUTE as SHOW;
pub(super) use timeline::ROUTE as TIMELINE;

use super::decisions::given;
use crate::call::Parameters;
use crate::problem::Problem;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the pages are, for the guard's answer.
pub(super) fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/decisions" | "/show")
}

/// Nothing but the style and the script of this page, and this server.
fn policy() -> &'static HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        HeaderValue::from_str(&policy).expect("base64 is ASCII")
    })
}

/// Which of the pages one is, for its navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Here {
    Timeline,
    Decisions,
    Other,
}

/// A page around its content, which is HTML.
fn page(status: StatusCode, here: Here, log: &LogName, title: &str, main: &str) -> Response {
    let of_log = match log.as_str() {
        LogName::MAIN => "",
        other => other,
    };
    let link = |id: &str, path: &str, name: &str, current: bool| {
        let current = if current { " aria-current=page" } else { "" };
        format!(
            "<a id={id} href={}{current}>{name}</a>",
            html::attribute(&html::url(path, &[("log", of_log)]))
        )
    };
    let hidden = match of_log {
        "" => String::new(),
        log => format!("<input type=hidden name=log value={}>", html::attribute(log)),
    };
    let body = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{title} · Precedent</title><link rel=icon href=\"data:,\"><style>{STYLE}</style></head><body>\
         <a class=skip href=\"#main\">To the content</a><header><span class=name>Precedent</span><nav>{}{}</nav>\
         <form action=/show role=search><input id=of name=of type=search required aria-label=\"A decision, a trace, a stream or a position\" \
         placeholder=\"decision, trace, stream or position\">{hidden}</form></header><main id=main tabindex=-1>{main}</main>\
         <footer><span class=keys><kbd>j</kbd> <kbd>k</kbd> move · <kbd>Enter</kbd> open · <kbd>/</kbd> find · <kbd>t</kbd> timeline · <kbd>d</kbd> decisions</span></footer>\
         <script>{SCRIPT}</script></body></html>",
        link("to-timeline", "/", "Timeline", here == Here::Timeline),
        link("to-decisions", "/decisions", "Decisions", here == Here::Decisions),
        title = html::text(title),
    );
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy().clone());
    response
}

/// The answer to a page that was asked for without the token: a form for it, and nothing of the log.
pub(super) fn sign_in(problem: Problem) -> Response {
    let wrong = match problem.message().contains("not the right one") {
        true => "The token is not the right one.",
        false => "",
    };
    let main = format!(
        "<div class=sign><h1>This server has a token</h1><p>It is kept by this tab until it is closed, and sent to this server only.</p>\
         <form id=sign method=post action=/><input name=token type=password autocomplete=off required autofocus aria-label=Token placeholder=Token><button>Open</button></form>\
         <p id=said class=warning role=status>{wrong}</p><noscript>Without scripts a browser cannot send it: use <code>precedent show</code>.</noscript></div>"
    );
    let problem = problem.into_response();
    let mut response = page(problem.status(), Here::Other, &LogName::default(), "Token", &main);
    for (name, value) in problem.headers() {
        if name == header::WWW_AUTHENTICATE {
            response.headers_mut().insert(name.clone(), value.clone());
        }
    }
    response
}

/// A problem, as a page.
fn trouble(problem: Problem, log: &LogName) -> Response {
    let message = html::text(problem.message());
    let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let main = format!("<h1>This cannot be shown</h1><p class=empty>{message}</p>");
    page(status, Here::Other, log, "Not shown", &main)
}

/// The log that the page is of.
fn log_of(query: &Parameters) -> Result<LogName, Problem> {
    let name = given(query, "log")?.map(str::parse).transpose();
    Ok(name.map_err(|error| crate::call::named("log", &error))?.unwrap_or_default())
}

/// An input of a form, under its label.
fn field(name: &str, label: &str, value: &str, hint: &str) -> String {
    format!(
        "<label>{label}<input name={name} value={} placeholder={}></label>",
        html::attribute(value),
        html::attribute(hint)
    )
}

/// The log as a hidden input, if it is not `main`.
fn log_field(log: &LogName) -> String {
    match log.as_str() {
        LogName::MAIN => String::new(),
        name => format!("<input type=hidden name=log value={}>", html::attribute(name)),
    }
}

/// The log as a parameter of a link.
fn log_value(log: &LogName) -> &str {
    match log.as_str() {
        LogName::MAIN => "",
        name => name,
    }
}

/// A time to the second, for people; the whole of it stands in the title.
fn when(recorded: &str) -> String {
    let short = recorded.get(..19).unwrap_or(recorded).replace('T', " ");
    format!("<span class=when title={}>{}</span>", html::attribute(recorded), html::text(&short))
}

//! A call that went through the proxy: the request, and what came of it, as two events.
//!
//! ```text
//! ai.model.requested   method, URL, headers, body                         recorded once the request is whole
//! ai.model.called      status, headers, body, each chunk with its time    recorded once the answer has ended, however it ended
//! ```
//!
//! Bodies are text where they are UTF-8 and base64 where not, byte for byte either way, but for what the rules of
//! redaction take out. The two events share their `correlationid`, the id of the call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use precedent_core::{AttributeValue, Error, Event, Result};
use serde::Serialize;

use crate::coding::{Coding, codings, decode_some};
use crate::funnel::{Draft, is_clean, seal, shortened, source, stream};
use crate::gap::{Gap, Reason};
use crate::json;
use crate::redact::{Form, Redacted, Rules};
use crate::view::Moment;

/// The schema of `ai.model.requested`.
pub(crate) const REQUEST_SCHEMA: &str = "urn:precedent:http:request:1";
/// The schema of `ai.model.called`, when it went through the proxy.
pub(crate) const CALL_SCHEMA: &str = "urn:precedent:http:call:1";

/// Bytes of a body that are recorded; what is longer is cut, and the event and a gap say so. As base64 this much still
/// fits into an event.
pub const BODY_BYTES_MAX: usize = 10 << 20;

/// Chunks of an answer that are recorded with a time of their own; what comes later counts as part of the last.
pub const CHUNKS_MAX: usize = 65_536;

/// Bytes of all headers of a message that are recorded.
const HEADERS_BYTES_MAX: usize = 256 << 10;

/// Header names and values, in their order.
pub type Headers = Vec<(String, Vec<u8>)>;

/// What is the same for the request and for what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// An id of its own.
    pub id: String,
    /// The name of the upstream, as the proxy was told it.
    pub upstream: String,
    /// The method.
    pub method: String,
    /// Where the request went.
    pub url: String,
    /// When it began, by the clock of the proxy.
    pub started: Option<Moment>,
    /// The conversation it belongs to (`Precedent-Session`).
    pub session: Option<String>,
    /// A surrogate of the person whose data it is (`Precedent-User`).
    pub user: Option<String>,
    /// The decision it belongs to (`Precedent-Decision`).
    pub decision: Option<String>,
    /// The prompt it was made with, `name@version` (`Precedent-Prompt`).
    pub prompt: Option<String>,
    /// The caller's trace context.
    pub traceparent: Option<String>,
    /// The model that was asked for, once the request is known.
    pub model: Option<String>,
}

/// A body, of which perhaps only the beginning was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// The bytes, at most [`BODY_BYTES_MAX`].
    pub bytes: Bytes,
    /// How many there were.
    pub len: u64,
}

/// The request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requested {
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Body,
}

/// What came of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    /// The id of the request's event.
    pub request: Option<String>,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// The headers of the answer.
    pub headers: Headers,
    /// The body of the answer.
    pub body: Body,
    /// Microseconds since the start, and bytes, of each chunk.
    pub chunks: Vec<(u64, u64)>,
    /// Microseconds from the start to the head of the answer.
    pub head_us: Option<u64>,
    /// Microseconds from the start to the end.
    pub ended_us: u64,
    /// Whether the answer came to its own end and went through whole.
    pub complete: bool,
    /// What went wrong, in a sentence.
    pub error: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    call: &'a str,
    upstream: &'a str,
    method: &'a str,
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_us: Option<u64>,
    headers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    body_bytes: u64,
    /// Present if the body is longer than what stands here.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_cut: Option<bool>,
    /// Present if the body stands here decoded from this coding, because something was taken out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_decoded_from: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    chunks: &'a [(u64, u64)],
}

impl Call {
    /// Takes over what a request's `Precedent-` headers and trace context say, if it can stand in an event.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        let Some(text) = std::str::from_utf8(value).ok().map(str::trim) else { return };
        if text.is_empty() || text.len() > 240 || !is_clean(text) {
            return;
        }
        let into = match name {
            "precedent-session" => &mut self.session,
            "precedent-user" => &mut self.user,
            "precedent-decision" => &mut self.decision,
            "precedent-prompt" => &mut self.prompt,
            "traceparent" => &mut self.traceparent,
            _ => return,
        };
        *into = Some(text.to_owned());
    }

    fn is_model_call(&self) -> bool {
        self.method == "POST"
    }

    fn draft(&self, kind: &str, event_type: &'static str, schema: &'static str) -> Draft {
        let trace = self.traceparent.as_deref().and_then(|parent| parent.split('-').nth(1));
        let in_session = self.session.as_deref().and_then(|session| stream("session", session));
        let in_trace = trace.filter(|trace| trace.len() == 32).and_then(|trace| stream("trace", trace));
        let mut attributes: Vec<(&'static str, AttributeValue)> =
            vec![("correlationid", self.id.as_str().into())];
        for (name, value) in
            [("traceparent", &self.traceparent), ("decisionid", &self.decision), ("dataperson", &self.user)]
        {
            attributes.extend(value.as_deref().map(|value| (name, value.into())));
        }
        let mut tags = vec![("upstream", self.upstream.clone())];
        tags.extend(self.model.clone().map(|model| ("model", model)));
        tags.extend(self.prompt.clone().map(|prompt| ("prompt", prompt)));
        Draft {
            source: source("proxy", Some(&self.upstream)),
            name: format!("{}-{kind}", self.id),
            event_type,
            stream: in_session.or(in_trace).or_else(|| stream("call", &self.id)),
            time: None,
            media_type: "application/json",
            schema,
            tags,
            attributes,
            data: Vec::new(),
            form: Form::Json,
            redacted: Redacted::default(),
        }
    }

    /// The event of the request, and a gap if its body was cut.
    ///
    /// # Errors
    /// `invalid` if an event cannot be built, which is a defect.
    pub fn requested(&mut self, requested: &Requested, rules: &Rules) -> Result<(Event, Option<Event>)> {
        let mut redacted = Redacted::default();
        let body = Shown::new(&requested.body, &requested.headers, rules, &mut redacted);
        if let Some(text) = body.text.as_deref() {
            self.model =
                json::is_json(text).then(|| json::member(text, "model").and_then(json::unquoted)).flatten();
        }
        let event_type = if self.is_model_call() { "ai.model.requested" } else { "http.request.sent" };
        let mut draft = self.draft("requested", event_type, REQUEST_SCHEMA);
        draft.time = self.started.map(|started| started.to_string());
        draft.data = self.data(&requested.headers, body, &requested.body, None, rules, &mut redacted)?;
        draft.redacted = redacted;
        let event = seal(draft, rules)?;
        let gap = self.cut("request", &requested.body, event.id(), rules)?;
        Ok((event, gap))
    }

    /// The event of what came of the request, and a gap if its body was cut.
    ///
    /// # Errors
    /// `invalid` if an event cannot be built, which is a defect.
    pub fn called(&self, called: &Called, rules: &Rules) -> Result<(Event, Option<Event>)> {
        let mut redacted = Redacted::default();
        let body = Shown::new(&called.body, &called.headers, rules, &mut redacted);
        let event_type = if self.is_model_call() { "ai.model.called" } else { "http.response.received" };
        let mut draft = self.draft("called", event_type, CALL_SCHEMA);
        draft.time = self.started.map(|started| Moment(started.0 + called.ended_us * 1_000).to_string());
        draft.tags.extend(called.status.map(|status| ("status", status.to_string())));
        let served = body.text.as_deref().filter(|text| json::is_json(text));
        let served = served.and_then(|text| json::member(text, "model").and_then(json::unquoted));
        if let Some(served) = served.filter(|served| Some(served) != self.model.as_ref()) {
            draft.tags.push(("model", served));
        }
        draft.attributes.extend(called.request.as_deref().map(|id| ("causationid", id.into())));
        draft.data = self.data(&called.headers, body, &called.body, Some(called), rules, &mut redacted)?;
        draft.redacted = redacted;
        let event = seal(draft, rules)?;
        let gap = self.cut("answer", &called.body, event.id(), rules)?;
        Ok((event, gap))
    }

    fn data(
        &self,
        headers: &Headers,
        shown: Shown,
        body: &Body,
        called: Option<&Called>,
        rules: &Rules,
        redacted: &mut Redacted,
    ) -> Result<Vec<u8>> {
        let url = rules.url(&self.url, redacted);
        let started = self.started;
        let headers = shown_headers(headers, rules, redacted);
        let mut written = Written {
            call: &self.id,
            upstream: &self.upstream,
            method: &self.method,
            url: &url,
            started,
            request: called.and_then(|called| called.request.as_deref()),
            status: called.and_then(|called| called.status),
            complete: called.map(|called| called.complete),
            error: called.and_then(|called| called.error.as_deref()),
            head_us: called.and_then(|called| called.head_us),
            ended_us: called.map(|called| called.ended_us),
            headers,
            body: shown.text.as_deref(),
            body_base64: None,
            body_bytes: body.len,
            body_cut: (body.len > body.bytes.len() as u64).then_some(true),
            body_decoded_from: shown.decoded.map(Coding::as_str),
            chunks: called.map_or(&[], |called| &called.chunks),
        };
        let json = |written: &Written<'_>| {
            serde_json::to_vec(written).map_err(|e| Error::invalid(format!("the call cannot be JSON: {e}")))
        };
        if written.body.is_none() {
            written.body_base64 = Some(STANDARD.encode(&shown.bytes));
        }
        let data = json(&written)?;
        // Text full of control characters grows six times as a string of JSON; as base64 it never outgrows an event.
        if data.len() > (14 << 20) && written.body.is_some() {
            written.body = None;
            written.body_base64 = Some(STANDARD.encode(&shown.bytes));
            return json(&written);
        }
        Ok(data)
    }

    fn cut(&self, what: &str, body: &Body, about: &str, rules: &Rules) -> Result<Option<Event>> {
        let missing = body.len - body.bytes.len() as u64;
        if missing == 0 {
            return Ok(None);
        }
        let gap = Gap {
            reason: Reason::ContentCut,
            producer: source("proxy", Some(&self.upstream)),
            count: Some(1),
            unit: "bodies",
            bytes: Some(missing),
            detail: format!(
                "the body of the {what} is {} bytes, of which {} are recorded",
                body.len,
                body.bytes.len()
            ),
            about: Some(about.to_owned()),
            ..Gap::default()
        };
        gap.event(rules).map(Some)
    }
}

/// A body as it is recorded.
struct Shown {
    /// The bytes, masked.
    bytes: Vec<u8>,
    /// The same as text, if they are UTF-8.
    text: Option<String>,
    /// The coding that was undone, which happens only if something had to be taken out inside it.
    decoded: Option<Coding>,
}

impl Shown {
    fn new(body: &Body, headers: &Headers, rules: &Rules, redacted: &mut Redacted) -> Self {
        let mut bytes = body.bytes.to_vec();
        let mut decoded = None;
        if let [coding] = codings_of(headers)[..]
            && let Ok((mut inside, _)) = decode_some(coding, &bytes, BODY_BYTES_MAX)
        {
            let mut found = Redacted::default();
            rules.mask(&mut inside, Form::Text, &mut found);
            if found.total() > 0 {
                redacted.merge(found);
                (bytes, decoded) = (inside, Some(coding));
            }
        }
        rules.mask(&mut bytes, Form::Text, redacted);
        let text = std::str::from_utf8(&bytes).ok().map(str::to_owned);
        Self { bytes, text, decoded }
    }
}

/// The codings of a body, as its headers say; none if they say something that is not understood.
fn codings_of(headers: &Headers) -> Vec<Coding> {
    let value = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
    let value = value.and_then(|(_, value)| std::str::from_utf8(value).ok());
    value.and_then(|value| codings(value).ok()).unwrap_or_default()
}

/// Headers as they are recorded: each byte one character, as HTTP once had them, and hidden ones masked.
fn shown_headers(headers: &Headers, rules: &Rules, redacted: &mut Redacted) -> Vec<(String, String)> {
    let mut left = HEADERS_BYTES_MAX;
    let mut shown = Vec::new();
    for (name, value) in headers {
        left = left.saturating_sub(name.len() + value.len());
        if left == 0 {
            break;
        }
        let value = match rules.hides_header(name) {
            true => {
                redacted.add("header");
                "***".to_owned()
            }
            false => value.iter().map(|&byte| char::from(byte)).collect(),
        };
        shown.push((name.clone(), value));
    }
    shown
}

/// A request or a call read back from its event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The id of the call.
    pub call: String,
    /// The name of the upstream.
    pub upstream: String,
    /// Where the request went.
    pub url: String,
    /// When it began: RFC 3339.
    pub started: Option<String>,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// Whether the answer went through whole; `None` for a request.
    pub complete: Option<bool>,
    /// What went wrong.
    pub error: Option<String>,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body's bytes as they were recorded.
    pub body: Vec<u8>,
    /// Whether the body was longer than what was recorded.
    pub cut: bool,
    /// Microseconds since the start, and bytes, of each chunk.
    pub chunks: Vec<(u64, u64)>,
    /// Microseconds from the start to the end.
    pub ended_us: Option<u64>,
    /// The coding the body was decoded from before it was recorded.
    pub decoded_from: Option<String>,
}

impl Read {
    /// Reads the event of a request or of a call that went through the proxy; `None` if it is neither.
    ///
    /// # Errors
    /// `invalid` if its data is not what the proxy writes.
    pub fn event(event: &Event) -> Option<Result<Self>> {
        let schema = event.dataschema()?;
        (schema == REQUEST_SCHEMA || schema == CALL_SCHEMA).then(|| {
            let data = event.data().and_then(|data| std::str::from_utf8(data).ok()).unwrap_or_default();
            Self::parse(data).ok_or_else(|| {
                Error::invalid(format!("the data of '{}' is no recorded call", shortened(event.id(), 64)))
            })
        })
    }

    fn parse(data: &str) -> Option<Self> {
        if !json::is_json(data) {
            return None;
        }
        let mut read = Self::default();
        for (name, value) in json::members(data) {
            match &*name {
                "call" => read.call = json::unquoted(value)?,
                "upstream" => read.upstream = json::unquoted(value)?,
                "url" => read.url = json::unquoted(value)?,
                "started" => read.started = json::unquoted(value),
                "status" => read.status = value.parse().ok(),
                "complete" => read.complete = value.parse().ok(),
                "error" => read.error = json::unquoted(value),
                "headers" => read.headers = serde_json::from_str(value).ok()?,
                "body" => read.body = json::unquoted(value)?.into_bytes(),
                "body_base64" => read.body = STANDARD.decode(json::unquoted(value)?).ok()?,
                "body_cut" => read.cut = value == "true",
                "chunks" => read.chunks = serde_json::from_str(value).ok()?,
                "ended_us" => read.ended_us = value.parse().ok(),
                "body_decoded_from" => read.decoded_from = json::unquoted(value),
                _ => {}
            }
        }
        (!read.call.is_empty()).then_some(read)
    }

    /// The body as text, decoded; `None` if it is no text or its coding is not understood. A body that was broken off is
    /// read as far as it goes.
    pub fn text(&self) -> Option<String> {
        let mut bytes = self.body.clone();
        if self.decoded_from.is_none() {
            let coding = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
            let list = coding.map_or(Ok(Vec::new()), |(_, value)| codings(value)).ok()?;
            for coding in list.into_iter().rev() {
                bytes = decode_some(coding, &bytes, 16 * BODY_BYTES_MAX).ok()?.0;
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            // What was broken off within a character is text up to there.
            Err(error) if error.utf8_error().error_len().is_none() => {
                let end = error.utf8_error().valid_up_to();
                String::from_utf8(error.into_bytes()[..end].to_vec()).ok()
            }
            Err(_) => None,
        }
    }
}

//! A call that went through the proxy: the request, and what came of it, as two events.
//!
//! ```text
//! ai.model.requested   method, URL, headers, body                         recorded once the request is whole
//! ai.model.called      status, headers, body, each chunk with its time    recorded once the answer has ended, however it ended
//! http.body.continued  a part of a long body, before the event it belongs to
//! ```
//!
//! Bodies are text where they are UTF-8 and base64 where not, byte for byte either way, but for what the rules of
//! redaction take out. All events of a call share their `correlationid`, the id of the call.
//!
//! A body of more than [`PART_BYTES`] is continued in events of its own, whose data are its bytes; the event it belongs to names them
//! in their order and is recorded behind them, so that a body is whole as soon as that event is there. Of a body of more than
//! [`BODY_BYTES_MAX`] the beginning, the length and the SHA-256 are recorded, and a gap.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use precedent_core::{AttributeValue, Error, Event, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::coding::{Coding, codings_passed, undo};
use crate::funnel::{Draft, is_clean, seal, shortened, source, stream};
use crate::gap::{Gap, Reason};
use crate::json;
use crate::redact::{Form, Redacted, Rules};
use crate::view::Moment;

/// The schema of `ai.model.requested`.
pub(crate) const REQUEST_SCHEMA: &str = "urn:precedent:http:request:1";
/// The schema of `ai.model.called`, when it went through the proxy.
pub(crate) const CALL_SCHEMA: &str = "urn:precedent:http:call:1";

/// The schema of `http.body.continued`.
pub(crate) const BODY_SCHEMA: &str = "urn:precedent:http:body:1";
/// The type of an event that holds a part of a long body.
pub const CONTINUED: &str = "http.body.continued";

/// Bytes of a body in one event; what is longer is continued in further events. As base64 this much still fits into one.
pub const PART_BYTES: usize = 10 << 20;

/// Bytes of a body that are recorded, in all its parts. Of a longer one the first [`PART_BYTES`] are, its length and its SHA-256.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Bytes of a body that is not recorded whole, to be held: a secret that lies across the cut is looked for there.
pub const BEGINNING_BYTES: usize = PART_BYTES + (64 << 10);

/// Bytes of data that the event of a message may have before its body is moved out of it.
const DATA_BYTES_MAX: usize = (15 << 20) - (64 << 10);

/// Chunks of an answer that are recorded with a time of their own; what comes later counts as part of the last.
pub const CHUNKS_MAX: usize = 65_536;

/// Bytes of all headers of a message that are recorded.
pub const HEADERS_BYTES_MAX: usize = 256 << 10;

/// Bytes that a body is decoded to for a view.
const DECODED_BYTES_MAX: usize = 160 << 20;

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
    /// The bytes: all of them up to [`BODY_BYTES_MAX`], or the beginning.
    pub bytes: Bytes,
    /// How many there were.
    pub len: u64,
    /// The SHA-256 of all of them, which has to be known of a body that is not kept whole.
    pub sha256: Option<[u8; 32]>,
}

impl Body {
    fn is_cut(&self) -> bool {
        self.len > self.bytes.len() as u64
    }
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
    /// Headers that came behind the body.
    pub trailers: Headers,
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
    /// Present if the headers are longer than what stands here: how many bytes they had.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers_cut_from: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    trailers: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    body_bytes: u64,
    /// Of a body that does not stand here whole: of its bytes as they passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_sha256: Option<String>,
    /// The ids of the events that hold the rest of the body, in their order.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    body_continued: &'a [String],
    /// Present if the body is longer than what is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_cut: Option<bool>,
    /// Present if the body stands here decoded from these codings, because something was taken out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_decoded_from: Option<&'a str>,
    /// Present if something was taken out of the body: how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_redacted: Option<u64>,
    /// Present if rules of redaction could not look at all of the body: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_unsearched: Option<&'a str>,
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

    /// The events of the request. The model it asks for is known from then on.
    pub fn requested<'a>(&'a mut self, requested: Requested, rules: &'a Rules) -> Recording<'a> {
        let Requested { headers, body } = requested;
        let mut redacted = Redacted::default();
        let shown = Shown::new(body, &headers, false, rules, &mut redacted);
        self.model = shown.model();
        let event_type = if self.is_model_call() { "ai.model.requested" } else { "http.request.sent" };
        let mut draft = self.draft("requested", event_type, REQUEST_SCHEMA);
        draft.time = self.started.map(|started| started.to_string());
        Recording::new(self, "request", draft, headers, shown, None, rules, redacted)
    }

    /// The events of what came of the request.
    pub fn called<'a>(&'a self, mut called: Called, rules: &'a Rules) -> Recording<'a> {
        let mut redacted = Redacted::default();
        let headers = std::mem::take(&mut called.headers);
        let shown = Shown::new(std::mem::take(&mut called.body), &headers, true, rules, &mut redacted);
        let event_type = if self.is_model_call() { "ai.model.called" } else { "http.response.received" };
        let mut draft = self.draft("called", event_type, CALL_SCHEMA);
        draft.time = self.started.map(|started| Moment(started.0 + called.ended_us * 1_000).to_string());
        draft.tags.extend(called.status.map(|status| ("status", status.to_string())));
        if let Some(served) = shown.model().filter(|served| Some(served) != self.model.as_ref()) {
            draft.tags.push(("model", served));
        }
        draft.attributes.extend(called.request.as_deref().map(|id| ("causationid", id.into())));
        Recording::new(self, "answer", draft, headers, shown, Some(called), rules, redacted)
    }
}

/// The events of one message, made one after the other, so that of a long one no more than one is in memory: the parts of its body,
/// the event it is, and gaps.
#[derive(Debug)]
pub struct Recording<'a> {
    call: &'a Call,
    /// `request` or `answer`.
    what: &'static str,
    rules: &'a Rules,
    draft: Draft,
    headers: Headers,
    called: Option<Called>,
    shown: Shown,
    redacted: Redacted,
    /// Up to where the body stands in the event itself.
    inside: usize,
    /// Whether it stands there as text.
    as_text: bool,
    /// How far the parts have come, and what they are called.
    at: usize,
    parts: Vec<String>,
    /// Gaps that are still to come, once the event is made.
    gaps: Option<Vec<Gap>>,
}

impl<'a> Recording<'a> {
    #[allow(clippy::too_many_arguments, reason = "it takes apart what its two callers have put together")]
    fn new(
        call: &'a Call,
        what: &'static str,
        draft: Draft,
        headers: Headers,
        shown: Shown,
        called: Option<Called>,
        rules: &'a Rules,
        redacted: Redacted,
    ) -> Self {
        let inside = shown.border(0);
        let as_text = shown.is_text;
        let (at, parts) = (inside, Vec::new());
        let mut made = Self {
            call,
            what,
            rules,
            draft,
            headers,
            called,
            shown,
            redacted,
            inside,
            as_text,
            at,
            parts,
            gaps: None,
        };
        // Text full of control characters grows six times as a string of JSON; as base64 it grows by a third. What does not fit even
        // then, beside headers and chunks, is continued from its beginning.
        if inside > DATA_BYTES_MAX / 8 {
            let fits = |made: &Self| {
                made.data(&mut Redacted::default()).is_ok_and(|data| data.len() <= DATA_BYTES_MAX)
            };
            made.as_text &= fits(&made);
            if !made.as_text && !fits(&made) {
                (made.inside, made.at) = (0, 0);
            }
        }
        made
    }

    /// The next part of the body, if there is one.
    fn part(&mut self) -> Option<Result<Event>> {
        if self.at >= self.shown.bytes.len() {
            return None;
        }
        let end = self.shown.border(self.at);
        let mut draft = self.draft.clone();
        draft.name = format!("{}-body-{}", draft.name, self.parts.len() + 1);
        draft.event_type = CONTINUED;
        draft.schema = BODY_SCHEMA;
        draft.media_type =
            if self.shown.is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
        draft.tags = vec![
            ("upstream", self.call.upstream.clone()),
            ("body", self.what.to_owned()),
            ("part", (self.parts.len() + 1).to_string()),
        ];
        draft.data = self.shown.bytes[self.at..end].to_vec();
        // It was masked before it was cut, when nothing lay across the cut.
        draft.form = Form::Masked;
        let event = seal(draft, self.rules);
        if let Ok(event) = &event {
            self.parts.push(event.id().to_owned());
        }
        self.at = end;
        Some(event)
    }

    fn event(&mut self) -> Result<Event> {
        let mut redacted = std::mem::take(&mut self.redacted);
        let mut draft = self.draft.clone();
        draft.data = self.data(&mut redacted)?;
        draft.redacted = redacted;
        let event = seal(draft, self.rules)?;
        let mut gaps = Vec::new();
        let gap = |unit, bytes, detail| Gap {
            reason: Reason::ContentCut,
            producer: source("proxy", Some(&self.call.upstream)),
            count: Some(1),
            unit,
            bytes,
            detail,
            about: Some(event.id().to_owned()),
            ..Gap::default()
        };
        if self.shown.is_cut {
            let (what, len, kept) = (self.what, self.shown.len, self.shown.bytes.len());
            let (missing, detail) = match &self.shown.decoded {
                None => (
                    len.checked_sub(kept as u64),
                    format!(
                        "the body of the {what} is {len} bytes, of which {kept} are recorded, and the SHA-256 of all"
                    ),
                ),
                Some(codings) => (
                    None,
                    format!(
                        "the body of the {what} is {len} bytes in {codings}, of which the first {kept} decoded are recorded, and the SHA-256 of all"
                    ),
                ),
            };
            gaps.push(gap("bodies", missing, detail));
        }
        let headers = headers_len(&self.headers);
        if headers > HEADERS_BYTES_MAX {
            let missing = (headers - HEADERS_BYTES_MAX) as u64;
            gaps.push(gap(
                "messages",
                Some(missing),
                format!(
                    "the headers of the {} are {headers} bytes, of which {HEADERS_BYTES_MAX} are recorded",
                    self.what
                ),
            ));
        }
        gaps.reverse();
        self.gaps = Some(gaps);
        Ok(event)
    }

    /// The data of the event of this message.
    fn data(&self, redacted: &mut Redacted) -> Result<Vec<u8>> {
        let url = self.rules.url(&self.call.url, redacted);
        let (headers, headers_cut_from) = shown_headers(&self.headers, self.rules, redacted);
        let called = self.called.as_ref();
        let trailers = called.map_or(&[][..], |called| &called.trailers);
        let (trailers, _) = shown_headers(trailers, self.rules, redacted);
        let inside = &self.shown.bytes[..self.inside];
        let text = self.as_text.then(|| std::str::from_utf8(inside).ok()).flatten();
        let written = Written {
            call: &self.call.id,
            upstream: &self.call.upstream,
            method: &self.call.method,
            url: &url,
            started: self.call.started,
            request: called.and_then(|called| called.request.as_deref()),
            status: called.and_then(|called| called.status),
            complete: called.map(|called| called.complete),
            error: called.and_then(|called| called.error.as_deref()),
            head_us: called.and_then(|called| called.head_us),
            ended_us: called.map(|called| called.ended_us),
            headers,
            headers_cut_from,
            trailers,
            body: text,
            body_base64: text.is_none().then(|| STANDARD.encode(inside)),
            body_bytes: self.shown.len,
            body_sha256: self.shown.sha256.map(hex),
            body_continued: &self.parts,
            body_cut: self.shown.is_cut.then_some(true),
            body_decoded_from: self.shown.decoded.as_deref(),
            body_redacted: (self.shown.redacted > 0).then_some(self.shown.redacted),
            body_unsearched: self.shown.unsearched.as_deref(),
            chunks: called.map_or(&[], |called| &called.chunks),
        };
        serde_json::to_vec(&written).map_err(|e| Error::invalid(format!("the call cannot be JSON: {e}")))
    }
}

impl Iterator for Recording<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        match &mut self.gaps {
            None => match self.part() {
                Some(part) => Some(part),
                None => {
                    let event = self.event();
                    self.gaps.get_or_insert_default();
                    Some(event)
                }
            },
            Some(gaps) => gaps.pop().map(|gap| gap.event(self.rules)),
        }
    }
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body as it is recorded.
#[derive(Debug)]
struct Shown {
    /// The bytes, masked.
    bytes: Vec<u8>,
    is_text: bool,
    /// How many there were, as they passed.
    len: u64,
    /// Whether some of them are not recorded.
    is_cut: bool,
    sha256: Option<[u8; 32]>,
    /// The codings that were undone, which happens only if something had to be taken out inside them.
    decoded: Option<String>,
    redacted: u64,
    unsearched: Option<String>,
}

impl Shown {
    fn new(body: Body, headers: &Headers, is_answer: bool, rules: &Rules, redacted: &mut Redacted) -> Self {
        let mut is_cut = body.is_cut();
        let Body { bytes, len, mut sha256 } = body;
        if bytes.len() > PART_BYTES {
            sha256 = sha256.or_else(|| Some(Sha256::digest(&bytes).into()));
        }
        // Whoever held them alone gives them away, and nothing is copied.
        let mut bytes = Vec::from(bytes);
        let form = match () {
            () if is_form(headers) => Form::Pairs,
            () if is_answer => Form::Stream,
            () => Form::Text,
        };
        let mut found = Redacted::default();
        let mut decoded = None;
        let mut unsearched = None;
        let codings = codings_of(headers);
        match &codings {
            Ok(codings) if codings.is_empty() => rules.mask(&mut bytes, form, &mut found),
            Ok(codings) => {
                let (mut inside, ended) = undo(codings, &bytes, BODY_BYTES_MAX);
                rules.mask(&mut inside, form, &mut found);
                if found.total() > 0 {
                    let names: Vec<&str> = codings.iter().map(|coding| coding.as_str()).collect();
                    decoded = Some(names.join(", "));
                    if !is_cut {
                        sha256 = sha256.or_else(|| Some(Sha256::digest(&bytes).into()));
                    }
                    is_cut |= inside.len() == BODY_BYTES_MAX && ended.is_some();
                    bytes = inside;
                } else if let Some(error) = ended {
                    // It may not be what its headers say.
                    rules.mask(&mut bytes, form, &mut found);
                    unsearched = (!is_cut).then(|| error.message().to_owned());
                }
            }
            Err(error) => {
                rules.mask(&mut bytes, form, &mut found);
                unsearched = Some(error.message().to_owned());
            }
        }
        // What was cut within a character is text up to there.
        let is_text = match std::str::from_utf8(&bytes) {
            Ok(_) => true,
            Err(error) => is_cut && error.error_len().is_none(),
        };
        if is_cut {
            let kept = bytes.len().min(PART_BYTES);
            bytes.truncate(if is_text { border(&bytes, kept) } else { kept });
        }
        let shown =
            Self { bytes, is_text, len, is_cut, sha256, decoded, redacted: found.total(), unsearched };
        redacted.merge(found);
        shown
    }

    /// Where the part that begins at `from` ends.
    fn border(&self, from: usize) -> usize {
        let end = self.bytes.len().min(from + PART_BYTES);
        if self.is_text { border(&self.bytes, end) } else { end }
    }

    /// The model that a document names.
    fn model(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.bytes).ok().filter(|text| json::is_json(text))?;
        json::member(text, "model").and_then(json::unquoted)
    }
}

/// The last border between two characters of a text that is not behind `end`.
fn border(text: &[u8], mut end: usize) -> usize {
    while end > 0 && text.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    end
}

fn header_values<'a>(headers: &'a Headers, name: &str) -> impl Iterator<Item = &'a str> {
    let found = headers.iter().filter(move |(of, _)| of.eq_ignore_ascii_case(name));
    found.map(|(_, value)| std::str::from_utf8(value).unwrap_or("?"))
}

/// The codings of a body, as its headers say.
fn codings_of(headers: &Headers) -> Result<Vec<Coding>> {
    codings_passed(&header_values(headers, "content-encoding").collect::<Vec<_>>().join(","))
}

fn is_form(headers: &Headers) -> bool {
    let mut types = header_values(headers, "content-type");
    types.any(|value| value.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded"))
}

fn headers_len(headers: &[(String, Vec<u8>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Headers as they are recorded: each byte one character, as HTTP once had them, and hidden ones masked. Beyond the limit a value is
/// cut and the rest left out; then all their bytes are answered too.
fn shown_headers(
    headers: &[(String, Vec<u8>)],
    rules: &Rules,
    redacted: &mut Redacted,
) -> (Vec<(String, String)>, Option<u64>) {
    let mut left = HEADERS_BYTES_MAX;
    let mut shown = Vec::new();
    for (name, value) in headers {
        if left <= name.len() {
            break;
        }
        left -= name.len();
        let value = match rules.hides_header(name) {
            true => {
                redacted.add("header");
                "***".to_owned()
            }
            false => {
                let mut text: String = value.iter().map(|&byte| char::from(byte)).collect();
                // Before it is cut, so that nothing lies across the cut.
                rules.text(&mut text, redacted);
                text.chars().take(left).collect()
            }
        };
        left = left.saturating_sub(value.len());
        shown.push((name.clone(), value));
    }
    let len = headers_len(headers);
    (shown, (len > HEADERS_BYTES_MAX).then_some(len as u64))
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
    /// How many bytes it had as it passed.
    pub body_bytes: u64,
    /// The SHA-256 of a body as it passed, in hexadecimal digits, if it is not recorded whole or in one event.
    pub body_sha256: Option<String>,
    /// The ids of the events that hold the rest of the body, until it is [joined](Self::join).
    pub continued: Vec<String>,
    /// Whether the body was longer than what was recorded.
    pub cut: bool,
    /// How much rules of redaction have taken out of the body.
    pub redacted: u64,
    /// Why rules of redaction could not look at all of the body, if so.
    pub unsearched: Option<String>,
    /// How many bytes the headers had, if they are not recorded whole.
    pub headers_cut_from: Option<u64>,
    /// Headers that came behind the body.
    pub trailers: Vec<(String, String)>,
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
                "body_bytes" => read.body_bytes = value.parse().ok()?,
                "body_sha256" => read.body_sha256 = json::unquoted(value),
                "body_continued" => read.continued = serde_json::from_str(value).ok()?,
                "body_redacted" => read.redacted = value.parse().ok()?,
                "body_unsearched" => read.unsearched = json::unquoted(value),
                "headers_cut_from" => read.headers_cut_from = value.parse().ok(),
                "trailers" => read.trailers = serde_json::from_str(value).ok()?,
                "body_cut" => read.cut = value == "true",
                "chunks" => read.chunks = serde_json::from_str(value).ok()?,
                "ended_us" => read.ended_us = value.parse().ok(),
                "body_decoded_from" => read.decoded_from = json::unquoted(value),
                _ => {}
            }
        }
        (!read.call.is_empty()).then_some(read)
    }

    /// The bytes of a part of a body; `None` if the event is none.
    pub fn part(event: &Event) -> Option<&[u8]> {
        (event.dataschema() == Some(BODY_SCHEMA)).then(|| event.data().map_or(&[][..], |data| &data[..]))
    }

    /// Puts the parts behind what the event itself holds of the body; `part` finds one by its id. The body ends where a part is missing,
    /// and those from there on stay in [`continued`](Self::continued).
    pub fn join<'a>(&mut self, mut part: impl FnMut(&str) -> Option<&'a [u8]>) {
        let mut joined = 0;
        for id in &self.continued {
            let Some(bytes) = part(id) else { break };
            self.body.extend_from_slice(bytes);
            joined += 1;
        }
        self.continued.drain(..joined);
    }

    /// Whether the body stands here as it passed, byte for byte.
    pub fn is_exact(&self) -> bool {
        !self.cut && self.continued.is_empty() && self.redacted == 0 && self.decoded_from.is_none()
    }

    /// The body as text, decoded; `None` if it is no text or its coding is not understood. A body that was broken off is
    /// read as far as it goes.
    pub fn text(&self) -> Option<String> {
        let list: Vec<&str> = match self.decoded_from {
            Some(_) => Vec::new(),
            None => self
                .headers
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"))
                .map(|(_, value)| value.as_str())
                .collect(),
        };
        let (bytes, _) = undo(&codings_passed(&list.join(",")).ok()?, &self.body, DECODED_BYTES_MAX);
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

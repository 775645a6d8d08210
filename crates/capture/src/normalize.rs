//! Recorded events into views: decode, join, map, and say what is missing.
//!
//! Everything here may be wrong about a sender and be made right later: it is run on every read and changes nothing that
//! is recorded. [`NORMALIZER`](crate::view::NORMALIZER) counts its versions.

pub mod stated;

use std::collections::BTreeMap;

use precedent_core::{Event, Position, Time};

use crate::dialect::{self, Slot, Speaker, To, Tokens, ToolSlot, place, table_of};
use crate::exchange;
use crate::json::{self, Json};
use crate::messages;
use crate::opa;
use crate::otlp::{self, Encoding, LOG_SCHEMA, Record, SPAN_SCHEMA, Signal};
use crate::provider;
use crate::value::Value;
use crate::view::*;

/// What belongs together: records of one span, or the two halves of a call through the proxy.
#[derive(Default)]
struct Group {
    spans: Vec<(EventRef, Record)>,
    logs: Vec<(EventRef, Record)>,
    request: Option<(EventRef, exchange::Read)>,
    call: Option<(EventRef, exchange::Read)>,
    /// Events that hold parts of their bodies.
    parts: Vec<EventRef>,
    /// Whether something was taken out of the content.
    redacted: bool,
    /// When the first of them was recorded, by the clock of the log.
    recorded: Option<Time>,
}

/// Events with where and when they were recorded.
pub(crate) type Source<'a> = (Option<(Position, Time)>, &'a Event);

pub(crate) fn view<'a>(events: impl Iterator<Item = Source<'a>>) -> View {
    let mut view = View::default();
    let mut order: Vec<Group> = Vec::new();
    let mut by_key: BTreeMap<(Vec<u8>, Vec<u8>), usize> = BTreeMap::new();
    let mut group = |order: &mut Vec<Group>, key: (Vec<u8>, Vec<u8>)| {
        *by_key.entry(key).or_insert_with(|| {
            order.push(Group::default());
            order.len() - 1
        })
    };
    let mut parts: BTreeMap<&str, (EventRef, &[u8])> = BTreeMap::new();
    for (place, event) in events {
        let position = place.map(|(position, _)| position);
        let recorded = place.map(|(_, recorded)| recorded);
        let reference = EventRef { position, id: event.id().to_owned() };
        let redacted = event.attribute("redactedby").is_some_and(takes_content);
        match event.dataschema() {
            Some(SPAN_SCHEMA | LOG_SCHEMA) => match record(event) {
                Ok(record) => {
                    // Without ids that are valid there is nothing to join by.
                    let key = match (record.trace(), record.span()) {
                        (Some(trace), Some(span)) => (trace.into_bytes(), span.into_bytes()),
                        _ => (Vec::new(), event.id().as_bytes().to_vec()),
                    };
                    let at = group(&mut order, key);
                    order[at].redacted |= redacted;
                    order[at].recorded = order[at].recorded.or(recorded);
                    match record.is_log {
                        true => order[at].logs.push((reference, record)),
                        false => order[at].spans.push((reference, record)),
                    }
                }
                Err(why) => view.unread.push(Unread { event: reference, why }),
            },
            Some(opa::SCHEMA) => view.activities.push(policy(reference, event)),
            Some(exchange::BODY_SCHEMA) => {
                parts.extend(exchange::Read::part(event).map(|bytes| (event.id(), (reference, bytes))));
            }
            _ => match exchange::Read::event(event) {
                Some(_) if !event.event_type().starts_with("ai.model.") => {}
                Some(Ok(read)) => {
                    let at = group(&mut order, (b"call".to_vec(), read.call.clone().into_bytes()));
                    order[at].redacted |= read.redacted > 0;
                    match event.event_type() {
                        "ai.model.requested" => order[at].request = Some((reference, read)),
                        _ => order[at].call = Some((reference, read)),
                    }
                }
                Some(Err(error)) => {
                    view.unread.push(Unread { event: reference, why: error.message().to_owned() });
                }
                None => {}
            },
        }
    }
    for mut group in order {
        let Group { request, call, parts: joined, .. } = &mut group;
        for (_, read) in [request, call].into_iter().flatten() {
            read.join(|id| {
                let (reference, bytes) = parts.get(id)?;
                joined.push(reference.clone());
                Some(*bytes)
            });
        }
        close(group, &mut view);
    }
    view
}

/// Whether more than headers were taken out.
fn takes_content(summary: &str) -> bool {
    summary.split(',').any(|rule| !rule.starts_with("header:"))
}

/// The one record of an event.
fn record(event: &Event) -> Result<Record, String> {
    let data = event.data().ok_or("it has no data")?;
    let signal = if event.dataschema() == Some(LOG_SCHEMA) { Signal::Logs } else { Signal::Traces };
    let encoding = if event.has_json_content_type() { Encoding::Json } else { Encoding::Protobuf };
    otlp::check(signal, encoding, data).map_err(|error| error.message().to_owned())?;
    let record = otlp::items(signal, encoding, data).next().ok_or("its data holds no record")?.record();
    Ok(record)
}

fn policy(reference: EventRef, event: &Event) -> Activity {
    let data = event.data().and_then(|data| std::str::from_utf8(data).ok()).unwrap_or("{}");
    let member = |name: &str| json::member(data, name).and_then(Json::parse);
    let mut activity = Activity::new(Dialect::OtherHttp, Kind::Policy);
    activity.name = member("path").and_then(|path| path.string());
    activity.call_id = member("decision_id").and_then(|id| id.string());
    activity.input = member("input");
    activity.output = member("result");
    activity.events.push(reference);
    activity
}

fn close(group: Group, view: &mut View) {
    if group.request.is_some() || group.call.is_some() {
        view.calls.push(from_http(group));
        return;
    }
    let Group { spans, mut logs, redacted, recorded, .. } = group;
    // A rating of a call is a thing of its own.
    let is_rating = |record: &Record| dialect::kind_of(record) == Some(Kind::Evaluation);
    let (ratings, rest): (Vec<_>, Vec<_>) = logs.drain(..).partition(|(_, record)| is_rating(record));
    let several = spans.len();
    for (reference, span) in spans {
        let described = otlp::describe(&span);
        let kind = described.map_or(Kind::Other, |mapped| mapped.kind);
        let records: Vec<&(EventRef, Record)> = rest.iter().collect();
        if kind == Kind::Model {
            let mut call = from_records(&[&(reference, span)], &records, redacted);
            clock(&mut call, recorded);
            if several > 1 {
                call.notes.push(format!("{several} spans with different content have this span's id"));
            }
            view.calls.push(call);
        } else {
            let others = records.into_iter().filter(|(_, log)| otlp::describe(log).is_some());
            let span = (reference, span);
            let all: Vec<&(EventRef, Record)> = std::iter::once(&span).chain(others).collect();
            view.activities.push(activity(kind, &all));
        }
    }
    if several == 0 && !rest.is_empty() {
        let kinds: Vec<Kind> =
            rest.iter().filter_map(|(_, log)| otlp::describe(log).map(|mapped| mapped.kind)).collect();
        let records: Vec<&(EventRef, Record)> = rest.iter().collect();
        if kinds.iter().any(|kind| matches!(kind, Kind::Model | Kind::Input)) {
            let mut call = from_records(&[], &records, redacted);
            clock(&mut call, recorded);
            view.calls.push(call);
        } else {
            view.activities.push(activity(kinds.first().copied().unwrap_or(Kind::Other), &records));
        }
    }
    for rating in &ratings {
        view.activities.push(activity(Kind::Evaluation, &[rating]));
    }
}

impl Activity {
    fn new(dialect: Dialect, kind: Kind) -> Self {
        Self {
            normalizer: NORMALIZER,
            dialect,
            kind,
            events: Vec::new(),
            trace: None,
            span: None,
            parent: None,
            operation: None,
            name: None,
            call_id: None,
            conversation: None,
            service: None,
            input: None,
            output: None,
            times: Times::default(),
            error: None,
            unmapped: BTreeMap::new(),
        }
    }
}

impl ModelCall {
    fn new(dialect: Dialect) -> Self {
        Self {
            normalizer: NORMALIZER,
            dialect,
            fidelity: Fidelity::MetadataOnly,
            missing: Vec::new(),
            events: Vec::new(),
            trace: None,
            span: None,
            parent: None,
            operation: None,
            provider: None,
            model_requested: None,
            model_served: None,
            response_id: None,
            conversation: None,
            user: None,
            service: None,
            server: None,
            system: None,
            messages: None,
            tools: None,
            parameters: BTreeMap::new(),
            output: None,
            finish_reasons: None,
            usage: Usage::default(),
            times: Times::default(),
            streamed: None,
            error: None,
            details: BTreeMap::new(),
            unmapped: BTreeMap::new(),
            notes: Vec::new(),
        }
    }
}

/// Messages in the forms they can come in, the best first.
#[derive(Default)]
struct Forms {
    structured: Option<Vec<Message>>,
    flat: BTreeMap<u32, Flat>,
    events: Vec<Message>,
    raw: Option<Vec<Message>>,
    whole: Option<String>,
}

impl Forms {
    fn best(self, role: &str) -> Option<Vec<Message>> {
        let flat = || (!self.flat.is_empty()).then(|| self.flat.into_values().map(Flat::message).collect());
        let events = (!self.events.is_empty()).then_some(self.events);
        let whole = self.whole.map(|content| {
            vec![Message { role: Some(role.to_owned()), name: None, parts: vec![Part::Text { content }] }]
        });
        self.structured.or_else(flat).or(events).or(self.raw).or(whole)
    }
}

/// A message that was taken apart into attributes.
#[derive(Default)]
struct Flat {
    role: Option<String>,
    name: Option<String>,
    content: Option<String>,
    answers: Option<String>,
    calls: BTreeMap<u32, ToolCall>,
    parts: BTreeMap<u32, FlatPart>,
}

/// A part of it: its type, its text, where its media are.
type FlatPart = (Option<String>, Option<String>, Option<String>);

impl Flat {
    fn set(&mut self, slot: Slot, at: u32, text: String) {
        let call = |calls: &mut BTreeMap<u32, ToolCall>, set: fn(&mut ToolCall, String), text| {
            let empty = || ToolCall { id: None, name: None, arguments: None };
            set(calls.entry(at).or_insert_with(empty), text);
        };
        match slot {
            Slot::Role => self.role = Some(text),
            Slot::Name => self.name = Some(text),
            Slot::Content => self.content = Some(text),
            Slot::ToolCallId => self.answers = Some(text),
            Slot::Finish => {}
            Slot::CallId => call(&mut self.calls, |call, text| call.id = Some(text), text),
            Slot::CallName => call(&mut self.calls, |call, text| call.name = Some(text), text),
            Slot::CallArguments => {
                let set = |call: &mut ToolCall, text: String| {
                    call.arguments = Some(messages::arguments_text(&text));
                };
                call(&mut self.calls, set, text);
            }
            Slot::PartType => self.parts.entry(at).or_default().0 = Some(text),
            Slot::PartText => self.parts.entry(at).or_default().1 = Some(text),
            Slot::PartMedia => self.parts.entry(at).or_default().2 = Some(text),
        }
    }

    fn message(self) -> Message {
        let mut parts = Vec::new();
        match self.content {
            Some(content) if self.role.as_deref() == Some("tool") => {
                parts.push(Part::ToolResult { id: self.answers, result: Json::text(&content) });
            }
            Some(content) => match listed_parts(&content) {
                Some(listed) => parts.extend(listed),
                None => parts.push(Part::Text { content }),
            },
            None => {}
        }
        for (modality, text, media) in self.parts.into_values() {
            parts.extend(text.map(|content| Part::Text { content }));
            parts.extend(media.map(|content| Part::Media { modality, mime_type: None, content }));
        }
        parts.extend(self.calls.into_values().map(Part::ToolCall));
        Message { role: self.role, name: self.name, parts }
    }
}

/// The parts of a content that is a list of parts, written down as text.
fn listed_parts(content: &str) -> Option<Vec<Part>> {
    if !content.starts_with("[{") || !json::is_json(content) {
        return None;
    }
    let is_part = |part| json::member(part, "type").is_some();
    json::elements(content).all(is_part).then(|| messages::parts(content))
}

/// A call while its records are read.
struct Building {
    call: ModelCall,
    input: Forms,
    output: Forms,
    tools: BTreeMap<u32, ToolDefinition>,
    finish: Vec<String>,
    port: Option<u64>,
    raw_request: Option<String>,
    raw_answer: Option<String>,
    /// For an activity.
    name: Option<String>,
    call_id: Option<String>,
    given: Option<Json>,
    result: Option<Json>,
}

/// The first value said stands; another one later is worth a note.
fn set<T: PartialEq + std::fmt::Display>(
    into: &mut Option<T>,
    value: T,
    what: &str,
    notes: &mut Vec<String>,
) {
    match into {
        Some(said) if *said != value => notes.push(format!("{what} is '{said}', and '{value}' elsewhere")),
        Some(_) => {}
        None => *into = Some(value),
    }
}

impl Building {
    fn new(dialect: Dialect) -> Self {
        Self {
            call: ModelCall::new(dialect),
            input: Forms::default(),
            output: Forms::default(),
            tools: BTreeMap::new(),
            finish: Vec::new(),
            port: None,
            raw_request: None,
            raw_answer: None,
            name: None,
            call_id: None,
            given: None,
            result: None,
        }
    }

    fn record(&mut self, reference: &EventRef, record: &Record) {
        let table = table_of(record);
        self.call.events.push(reference.clone());
        let call = &mut self.call;
        call.trace = call.trace.take().or_else(|| record.trace());
        call.span = call.span.take().or_else(|| record.span());
        call.parent = call.parent.take().or_else(|| record.parent());
        call.service = call.service.take().or_else(|| record.service().map(str::to_owned));
        if record.is_log {
            call.times.ended = call.times.ended.or(record.start.or(record.end).map(Moment));
        } else {
            call.times.started = record.start.map(Moment);
            call.times.ended = record.end.map(Moment);
        }
        if record.dropped_in_all() > 0 && !call.missing.contains(&Missing::DroppedAttributes) {
            call.missing.push(Missing::DroppedAttributes);
        }
        if record.unreadable {
            call.notes.push(
                "something in it cannot be read: it is malformed, not UTF-8 or nested too deeply".into(),
            );
        }
        if record.failed {
            let error = call.error.get_or_insert_default();
            error.message = error.message.take().or_else(|| record.status_message.clone());
        }
        let speaker = record.event_name().and_then(dialect::speaker);
        for (name, value) in &record.attributes {
            self.attribute(table, name, value);
        }
        if let (Some(speaker), Some(body)) = (speaker, &record.body) {
            self.spoken(speaker, body);
        } else if let Some(body) = &record.body
            && !matches!(body, Value::Empty)
        {
            self.call.unmapped.entry("body".to_owned()).or_insert_with(|| body.to_json());
        }
        for event in &record.events {
            match dialect::speaker(&event.name) {
                Some(speaker) => self.spoken(speaker, &Value::Map(event.attributes.clone())),
                None => event.attributes.iter().for_each(|(name, value)| self.attribute(table, name, value)),
            }
        }
    }

    /// A message that is the body of an event.
    fn spoken(&mut self, speaker: Speaker, body: &Value) {
        let json = body.to_json();
        match speaker {
            Speaker::Given(role) => {
                let mut message = match body {
                    Value::Map(_) => messages::message(&with_role(&json, role)),
                    _ => Message { role: None, name: None, parts: messages::parts(json.as_str()) },
                };
                message.role.get_or_insert_with(|| role.to_owned());
                self.input.events.push(message);
            }
            Speaker::Choice => {
                self.finish.extend(body.get("finish_reason").and_then(Value::text).map(str::to_owned));
                let message = body.get("message").unwrap_or(body).to_json();
                // What instrumentations put into attributes of span events is JSON in a string.
                let message = message.string().and_then(|text| Json::parse(&text)).unwrap_or(message);
                let mut message = messages::message(message.as_str());
                message.role.get_or_insert_with(|| "assistant".to_owned());
                self.output.events.push(message);
            }
        }
    }

    fn attribute(&mut self, table: &dialect::Table, name: &str, value: &Value) {
        let mapped = place(table, name).is_some_and(|(to, numbers)| self.apply(to, &numbers, value));
        if !mapped {
            self.call.unmapped.entry(name.to_owned()).or_insert_with(|| value.to_json());
        }
    }

    /// Whether the value could be put where the row says.
    fn apply(&mut self, to: To, numbers: &[u32], value: &Value) -> bool {
        let call = &mut self.call;
        let text = || value.text().map(str::to_owned);
        let at = |n: usize| numbers.get(n).copied().unwrap_or(0);
        macro_rules! put {
            ($field:expr, $what:literal, $value:expr) => {
                match $value {
                    Some(value) => {
                        set(&mut $field, value, $what, &mut call.notes);
                        true
                    }
                    None => false,
                }
            };
        }
        match to {
            To::Known | To::Decision => true,
            To::Operation => put!(call.operation, "the operation", text()),
            To::Provider => put!(call.provider, "the provider", text().map(|t| t.to_lowercase())),
            To::Requested => put!(call.model_requested, "the model asked for", text()),
            To::Served => put!(call.model_served, "the model served", text()),
            To::ResponseId => put!(call.response_id, "the answer's id", text()),
            To::Conversation => put!(call.conversation, "the conversation", text()),
            To::User => put!(call.user, "the user", text()),
            To::Server => put!(call.server, "the server", text()),
            To::Port => put!(self.port, "the port", value.count()),
            To::Streamed => match value {
                Value::Bool(streamed) => {
                    call.streamed.get_or_insert(*streamed);
                    true
                }
                _ => false,
            },
            To::FinishReasons => {
                let reasons: Vec<String> = match value {
                    Value::List(list) => list.iter().filter_map(|v| v.text().map(str::to_owned)).collect(),
                    Value::Text(text) => {
                        match Json::parse(text).filter(|json| json.as_str().starts_with('[')) {
                            Some(list) => json::elements(list.as_str()).filter_map(json::unquoted).collect(),
                            None => vec![text.clone()],
                        }
                    }
                    _ => return false,
                };
                let reasons = reasons.iter().map(|reason| FinishReason::new(reason)).collect();
                call.finish_reasons.get_or_insert(reasons);
                true
            }
            To::ErrorKind | To::ErrorMessage => {
                let Some(text) = text() else { return false };
                let error = call.error.get_or_insert_default();
                let into = if to == To::ErrorKind { &mut error.kind } else { &mut error.message };
                into.get_or_insert(text);
                true
            }
            To::FirstOutputSeconds => match (value, call.times.started) {
                (Value::Double(secs), Some(Moment(started))) if *secs >= 0.0 && *secs < 1e6 => {
                    call.times.first_output = Some(Moment(started.saturating_add((secs * 1e9) as u64)));
                    true
                }
                _ => false,
            },
            To::Count(tokens) => {
                let usage = &mut call.usage;
                let (into, what) = match tokens {
                    Tokens::Input => (&mut usage.input, "the count of input tokens"),
                    Tokens::Output => (&mut usage.output, "the count of output tokens"),
                    Tokens::Total => (&mut usage.total, "the count of all tokens"),
                    Tokens::CacheRead => (&mut usage.cache_read, "the count of cached tokens"),
                    Tokens::CacheWrite => (&mut usage.cache_write, "the count of tokens written to a cache"),
                    Tokens::Reasoning => (&mut usage.reasoning, "the count of reasoning tokens"),
                };
                // A count that cannot be read stays where it was sent, and is no zero.
                value.count().map(|n| set(into, n, what, &mut call.notes)).is_some()
            }
            To::Parameter(name) => {
                call.parameters.entry(name.to_owned()).or_insert_with(|| value.to_json());
                true
            }
            To::Parameters => {
                let Some(object) = value.to_structure() else { return false };
                for (name, value) in json::members(object.as_str()) {
                    match &*name {
                        "model" => {
                            if let Some(model) = json::unquoted(value) {
                                set(&mut call.model_requested, model, "the model asked for", &mut call.notes);
                            }
                        }
                        "stream" => call.streamed = call.streamed.or(value.parse().ok()),
                        "messages" | "tools" | "input" | "prompt" => {}
                        other => {
                            let value = Json::parse(value).filter(|value| !value.is_null());
                            let name = provider::parameter(other).to_owned();
                            if let Some(value) = value {
                                call.parameters.entry(name).or_insert(value);
                            }
                        }
                    }
                }
                true
            }
            To::Detail(name) => {
                call.details.entry(name.to_owned()).or_insert_with(|| value.to_json());
                true
            }
            To::Messages | To::Output => {
                let list = value.to_structure().and_then(|json| messages::messages(&json));
                let Some((list, finish)) = list else { return false };
                let into = if to == To::Messages { &mut self.input } else { &mut self.output };
                into.structured.get_or_insert(list);
                if to == To::Output && self.finish.is_empty() {
                    self.finish = finish;
                }
                true
            }
            To::System => {
                let parts = match value.to_structure() {
                    Some(json) => messages::parts(json.as_str()),
                    None => match text() {
                        Some(content) => vec![Part::Text { content }],
                        None => return false,
                    },
                };
                call.system.get_or_insert(parts);
                true
            }
            To::Tools => match value.to_structure().and_then(|json| messages::tools(&json)) {
                Some(tools) => {
                    call.tools.get_or_insert(tools);
                    true
                }
                None => false,
            },
            To::Prompt => text().map(|text| self.input.whole.get_or_insert(text)).is_some(),
            To::Completion => text().map(|text| self.output.whole.get_or_insert(text)).is_some(),
            To::In(slot) | To::Out(slot) => {
                let text = match value {
                    Value::Text(text) => text.clone(),
                    Value::Empty | Value::Unreadable => return false,
                    other => other.to_json().as_str().to_owned(),
                };
                let is_in = matches!(to, To::In(_));
                if slot == Slot::Finish {
                    self.finish.push(text);
                } else {
                    let forms = if is_in { &mut self.input } else { &mut self.output };
                    forms.flat.entry(at(0)).or_default().set(slot, at(1), text);
                }
                true
            }
            To::Tool(slot) => {
                let empty = || ToolDefinition {
                    name: None,
                    description: None,
                    parameters: None,
                    other: BTreeMap::new(),
                };
                let tool = self.tools.entry(at(0)).or_insert_with(empty);
                match slot {
                    ToolSlot::Schema => match value.to_structure() {
                        Some(json) => *tool = messages::tool(json.as_str()),
                        None => return false,
                    },
                    ToolSlot::Name => tool.name = text(),
                    ToolSlot::Description => tool.description = text(),
                    ToolSlot::Parameters => tool.parameters = value.to_structure(),
                }
                true
            }
            To::RawInput => text().map(|text| self.raw_request = Some(text)).is_some(),
            To::RawOutput => text().map(|text| self.raw_answer = Some(text)).is_some(),
            To::Name => put!(self.name, "the name", text()),
            To::CallId => put!(self.call_id, "the call's id", text()),
            To::Input => {
                self.given.get_or_insert(structure_or_text(value));
                true
            }
            To::Result => {
                self.result.get_or_insert(structure_or_text(value));
                true
            }
        }
    }

    /// What the provider's own JSON says beside the attributes.
    fn provider_json(&mut self) {
        let Some(text) = self.raw_request.take() else { return };
        let dialect = match json::is_json(&text) {
            true => provider::dialect_of(&text, None),
            false => Dialect::OtherHttp,
        };
        if dialect == Dialect::OtherHttp {
            // Not a request of a provider: the input as somebody wrote it.
            self.input.whole.get_or_insert(text);
            self.output.whole = self.output.whole.take().or(self.raw_answer.take());
            return;
        }
        let request = provider::request(dialect, &text);
        let call = &mut self.call;
        call.operation = call.operation.take().or(request.operation);
        call.model_requested = call.model_requested.take().or(request.model);
        call.system = call.system.take().or(request.system);
        call.streamed = call.streamed.or(request.streamed);
        self.input.raw = request.messages;
        if call.tools.is_none() && self.tools.is_empty() {
            call.tools = request.tools;
        }
        for (name, value) in request.parameters {
            call.parameters.entry(name).or_insert(value);
        }
        if let Some(answer) = self.raw_answer.take() {
            self.answer(provider::answer(dialect, &answer));
        }
    }

    fn answer(&mut self, answer: provider::Answer) {
        let call = &mut self.call;
        call.response_id = call.response_id.take().or(answer.id);
        call.model_served = call.model_served.take().or(answer.model);
        self.output.raw = answer.output;
        if self.finish.is_empty() {
            self.finish = answer.finish_reasons.unwrap_or_default();
        }
        let (usage, said) = (&mut call.usage, answer.usage);
        usage.input = usage.input.or(said.input);
        usage.output = usage.output.or(said.output);
        usage.total = usage.total.or(said.total);
        usage.cache_read = usage.cache_read.or(said.cache_read);
        usage.cache_write = usage.cache_write.or(said.cache_write);
        usage.reasoning = usage.reasoning.or(said.reasoning);
        for (name, value) in answer.details {
            call.details.entry(name).or_insert(value);
        }
        if let Some(said) = answer.error {
            let error = call.error.get_or_insert_default();
            error.kind = said.kind.or(error.kind.take());
            error.message = error.message.take().or(said.message);
        }
    }

    /// Puts the pieces together and says what is missing.
    fn finish(self) -> ModelCall {
        let Self { mut call, input, output, tools, finish, port, .. } = self;
        call.messages = input.best("user");
        call.output = output.best("assistant");
        if call.tools.is_none() && !tools.is_empty() {
            call.tools = Some(tools.into_values().collect());
        }
        if call.finish_reasons.is_none() && !finish.is_empty() {
            call.finish_reasons = Some(finish.iter().map(|reason| FinishReason::new(reason)).collect());
        }
        if let (Some(server), Some(port)) = (&mut call.server, port)
            && !server.contains("://")
        {
            server.push_str(&format!(":{port}"));
        }
        // Instructions are told apart from the conversation, wherever a sender puts them.
        if let Some(messages) = &mut call.messages {
            let is_system = |m: &Message| matches!(m.role.as_deref(), Some("system" | "developer"));
            let count = messages.iter().take_while(|message| is_system(message)).count();
            let parts: Vec<Part> = messages.drain(..count).flat_map(|message| message.parts).collect();
            if !parts.is_empty() {
                call.system.get_or_insert_default().extend(parts);
            }
        }
        if call.fidelity != Fidelity::Exact && call.messages.is_some() {
            call.fidelity = Fidelity::Reconstructable;
        }
        let calls_tools = |list: &Option<Vec<Message>>| {
            let mut parts = list.iter().flatten().flat_map(|message| &message.parts);
            parts.any(|part| matches!(part, Part::ToolCall(_)))
        };
        if call.messages.is_none() {
            call.missing.push(Missing::Messages);
        }
        if call.tools.is_none() && (calls_tools(&call.messages) || calls_tools(&call.output)) {
            call.missing.push(Missing::ToolDefinitions);
        }
        let is_embedding = call.operation.as_deref().is_some_and(|name| name.starts_with("embed"));
        if call.output.is_none() && call.error.is_none() && !is_embedding {
            call.missing.push(Missing::Output);
        }
        call.missing.sort_unstable();
        call.missing.dedup();
        if let (Some(started), Some(ended)) = (call.times.started, call.times.ended)
            && ended < started
        {
            call.notes
                .push(format!("by the sender's clock it ended at {ended}, before it began at {started}"));
        }
        call
    }
}

/// What has not happened yet when it is recorded was told by a clock that is off. A time long past may only be late.
fn clock(call: &mut ModelCall, recorded: Option<Time>) {
    const TOLERANCE_NANOS: u64 = 5 * 60 * 1_000_000_000;
    let (Some(recorded), Some(Moment(said))) = (recorded, call.times.ended.or(call.times.started)) else {
        return;
    };
    if said > recorded.as_micros().saturating_mul(1_000).saturating_add(TOLERANCE_NANOS) {
        call.notes.push(format!(
            "by the sender's clock it ended at {}, and it was recorded at {recorded}",
            Moment(said)
        ));
    }
}

/// The JSON of a message's body, with the role its event implies.
fn with_role(body: &Json, role: &str) -> String {
    match json::member(body.as_str(), "role") {
        Some(_) => body.as_str().to_owned(),
        None => {
            let rest = body.as_str().trim_start_matches('{');
            let comma = if rest.trim() == "}" { "" } else { "," };
            format!("{{\"role\":{}{comma}{rest}", Json::text(role))
        }
    }
}

fn structure_or_text(value: &Value) -> Json {
    value.to_structure().unwrap_or_else(|| value.to_json())
}

fn from_records(spans: &[&(EventRef, Record)], logs: &[&(EventRef, Record)], redacted: bool) -> ModelCall {
    let all = spans.iter().chain(logs);
    let dialects = all.clone().map(|(_, record)| table_of(record).dialect);
    // The span says it; without one, the log record that is not of the default.
    let first = spans.first().map(|(_, record)| table_of(record).dialect);
    let other = dialects.filter(|dialect| *dialect != Dialect::SemanticConventions).min();
    let mut building = Building::new(first.or(other).unwrap_or(Dialect::SemanticConventions));
    for (reference, record) in all {
        building.record(reference, record);
    }
    building.provider_json();
    let mut call = building.finish();
    if redacted {
        call.notes.push("something was taken out of its content by a rule of redaction".to_owned());
    }
    call
}

fn activity(kind: Kind, records: &[&(EventRef, Record)]) -> Activity {
    let dialect =
        records.first().map_or(Dialect::SemanticConventions, |(_, record)| table_of(record).dialect);
    let mut building = Building::new(dialect);
    for (reference, record) in records {
        building.record(reference, record);
    }
    let mut activity = Activity::new(dialect, kind);
    let raw = |text: String| {
        Json::parse(&text).filter(|_| text.starts_with(['{', '['])).unwrap_or_else(|| Json::text(&text))
    };
    activity.input = building.raw_request.take().map(raw).or(building.given);
    activity.output = building.raw_answer.take().map(raw).or(building.result);
    let span_name = records.first().map(|(_, record)| record.name.clone()).filter(|name| !name.is_empty());
    activity.name = building.name.or(span_name);
    activity.call_id = building.call_id;
    let call = building.call;
    activity.events = call.events;
    activity.trace = call.trace;
    activity.span = call.span;
    activity.parent = call.parent;
    activity.operation = call.operation;
    activity.conversation = call.conversation;
    activity.service = call.service;
    activity.times = call.times;
    activity.error = call.error;
    activity.unmapped = call.unmapped;
    activity
}

/// A call that went through the proxy.
fn from_http(group: Group) -> ModelCall {
    let Group { request, call: answer, parts, redacted, .. } = group;
    let first = request.as_ref().or(answer.as_ref()).map(|(_, read)| read.clone()).unwrap_or_default();
    let path = first.url.split('?').next().unwrap_or_default().to_owned();
    let text = request.as_ref().and_then(|(_, read)| read.text()).filter(|text| json::is_json(text));
    let dialect = provider::dialect_of(text.as_deref().unwrap_or("{}"), Some(&path));
    let mut building = Building::new(dialect);
    let call = &mut building.call;
    call.provider = Some(first.upstream.clone());
    call.server = path.split("://").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned);
    let started = first.started.as_deref().and_then(nanos);
    call.times.started = started;
    if let Some((reference, read)) = &request {
        call.events.push(reference.clone());
        call.fidelity = Fidelity::Exact;
        if let Some(note) = lacks("request", read) {
            call.notes.push(note);
            call.fidelity = Fidelity::MetadataOnly;
        } else if text.is_none() {
            call.notes
                .push("the body of the request is not JSON, or in a coding that cannot be undone".to_owned());
        }
    }
    if let Some(text) = &text {
        let request = provider::request(dialect, text);
        call.operation = request.operation;
        call.model_requested = request.model;
        call.system = request.system;
        call.tools = request.tools;
        call.parameters = request.parameters;
        call.streamed = request.streamed;
        call.conversation = request.conversation;
        building.input.raw = request.messages;
    }
    match answer {
        None => {
            building.call.missing.push(Missing::Output);
            building.call.notes.push("what came of the request is not recorded".to_owned());
        }
        Some((reference, read)) => {
            let call = &mut building.call;
            call.events.push(reference);
            let after =
                |us: u64| started.map(|Moment(nanos)| Moment(nanos.saturating_add(us.saturating_mul(1_000))));
            call.times.first_output = read.chunks.first().and_then(|(us, _)| after(*us));
            call.times.ended = read.ended_us.and_then(after);
            let failed = read.status.is_none_or(|status| status >= 400);
            match read.text() {
                Some(body) => building.answer(provider::answer(dialect, &body)),
                None => building.call.notes.push(
                    "the body of the answer is no text, or in a coding that cannot be undone".to_owned(),
                ),
            }
            let call = &mut building.call;
            let lacks = lacks("answer", &read);
            if read.complete == Some(false) || lacks.is_some() {
                call.missing.push(Missing::EndOfOutput);
            }
            call.notes.extend(lacks);
            if failed || read.error.is_some() {
                let error = call.error.get_or_insert_default();
                let status = read.status.map(|status| status.to_string());
                error.kind = error.kind.take().or(status);
                error.message = error.message.take().or(read.error);
            }
        }
    }
    building.call.events.extend(parts);
    let mut call = building.finish();
    if redacted {
        call.notes.push("something was taken out of its content by a rule of redaction".to_owned());
        call.fidelity = call.fidelity.min(Fidelity::Reconstructable);
    }
    call
}

/// What is missing of a body, if anything is.
fn lacks(what: &str, read: &exchange::Read) -> Option<String> {
    match read.continued.len() {
        0 => read.cut.then(|| {
            format!("the {what} is longer than what is recorded of it: it had {} bytes", read.body_bytes)
        }),
        n => Some(format!("parts of the body of the {what} are not among the events: {n}")),
    }
}

fn nanos(time: &str) -> Option<Moment> {
    let timestamp: jiff::Timestamp = time.parse().ok()?;
    u64::try_from(timestamp.as_nanosecond()).ok().map(Moment)
}

//! Calls and tools that an application states itself: events with no schema of capture, read into the same view.
//!
//! An `ai.model.called` recorded by hand, or imported, holds what was asked under `request` and what came back under
//! `response`, in the JSON of a provider or of the conventions; an `ai.model.requested` holds the request alone. An
//! `ai.tool.called` holds `call` and `result`, or `name`, `arguments` and `result`. What is not understood stays in `unmapped`, under
//! its own name.

use precedent_core::{Event, RecordedEvent};

use super::{Activity, Building, Kind, ModelCall, nanos};
use crate::json::{self, Json};
use crate::messages;
use crate::provider::{self, dialect_of};
use crate::view::{Dialect, EventRef, Message, Part, Usage};

/// The call of a model that an event states, if it states one.
pub fn call(recorded: &RecordedEvent) -> Option<ModelCall> {
    let event = &recorded.event;
    let called = match event.event_type() {
        "ai.model.called" => true,
        "ai.model.requested" => false,
        _ => return None,
    };
    let data = object(event)?;
    let asked = json::member(data, "request").filter(|value| value.starts_with('{'));
    let has = |name: &str| json::member(data, name).is_some();
    let whole = ["messages", "input", "prompt"].into_iter().any(has);
    let request = asked.or(whole.then_some(data));
    let answered = json::member(data, "response").or_else(|| json::member(data, "answer"));
    if request.is_none() && answered.is_none() {
        return None;
    }
    let dialect = match dialect_of(request.unwrap_or("{}"), None) {
        Dialect::AnthropicHttp => Dialect::AnthropicHttp,
        _ => Dialect::OpenAiHttp,
    };
    let mut building = Building::new(Dialect::Stated);
    building.call.events.push(EventRef { position: Some(recorded.position), id: event.id().to_owned() });
    if let Some(text) = request {
        let request = provider::request(dialect, text);
        let call = &mut building.call;
        call.operation = request.operation;
        call.model_requested = request.model;
        call.system = request.system;
        call.tools = request.tools;
        call.streamed = request.streamed;
        call.conversation = request.conversation;
        building.input.raw = request.messages;
        if asked.is_some() {
            call.parameters = request.parameters;
        }
    }
    if let Some(text) = answered.filter(|text| *text != "null") {
        let of = |name: &str| json::member(text, name).is_some();
        if of("choices") || of("output") || (of("content") && of("usage")) {
            building.answer(provider::answer(dialect, text));
        } else if text.starts_with('[') {
            building.output.raw = Some(json::elements(text).map(messages::message).map(assistant).collect());
        } else {
            building.output.raw = Some(vec![assistant(messages::message(text))]);
        }
    }
    let (of_request, of_answer) = (request == Some(data), ["request", "response", "answer"]);
    for (name, value) in json::members(data) {
        let text = || json::unquoted(value);
        let call = &mut building.call;
        match &*name {
            _ if value == "null" => {}
            name if of_answer.contains(&name) => {}
            "model" if of_request => {}
            "model" => call.model_requested = call.model_requested.take().or(text()),
            "model_served" => call.model_served = text(),
            "provider" => call.provider = text(),
            "conversation" => call.conversation = text(),
            "finish_reason" => building.finish.extend(text()),
            "usage" => building.call.usage = usage(value),
            "started" => call.times.started = text().as_deref().and_then(nanos),
            "ended" => call.times.ended = text().as_deref().and_then(nanos),
            "error" => call.error = Some(provider::error_of(value)),
            "messages" | "input" | "prompt" | "tools" | "functions" | "system" | "instructions"
            | "stream"
                if of_request => {}
            other => {
                call.unmapped.extend(Json::parse(value).map(|value| (other.to_owned(), value)));
            }
        }
    }
    let mut call = building.finish();
    if !called {
        // It only says what was asked.
        call.missing.retain(|missing| *missing != crate::view::Missing::Output);
    }
    Some(call)
}

/// The call of a tool that an event states, if it states one.
pub fn tool(recorded: &RecordedEvent) -> Option<Activity> {
    let event = &recorded.event;
    if event.event_type() != "ai.tool.called" {
        return None;
    }
    let data = object(event)?;
    let mut activity = Activity::new(Dialect::Stated, Kind::Tool);
    for (name, value) in json::members(data) {
        match &*name {
            "call" if value.starts_with('{') => {
                let call = messages::tool_call(value);
                activity.name = call.name.or(activity.name);
                activity.call_id = call.id.or(activity.call_id);
                activity.input = call.arguments.or(activity.input);
            }
            "name" | "tool" => activity.name = activity.name.take().or(json::unquoted(value)),
            "call_id" => activity.call_id = activity.call_id.take().or(json::unquoted(value)),
            "arguments" => activity.input = messages::arguments_of(value),
            "result" if json::member(value, "role").is_some() => {
                let message = messages::message(value);
                activity.name = activity.name.take().or(message.name.clone());
                let of_result = |part: &Part| match part {
                    Part::ToolResult { id, result } => Some((id.clone(), result.clone())),
                    Part::Text { content } => Some((None, Json::text(content))),
                    _ => None,
                };
                if let Some((id, result)) = message.parts.iter().find_map(of_result) {
                    activity.call_id = activity.call_id.take().or(id);
                    activity.output = Some(result);
                } else {
                    activity.output = Json::parse(value);
                }
            }
            "result" => activity.output = Json::parse(value),
            "error" => activity.error = Some(provider::error_of(value)),
            "started" => activity.times.started = json::unquoted(value).as_deref().and_then(nanos),
            "ended" => activity.times.ended = json::unquoted(value).as_deref().and_then(nanos),
            other => {
                activity.unmapped.extend(Json::parse(value).map(|value| (other.to_owned(), value)));
            }
        }
    }
    if activity.name.is_none() && activity.input.is_none() && activity.output.is_none() {
        return None;
    }
    activity.events.push(EventRef { position: Some(recorded.position), id: event.id().to_owned() });
    Some(activity)
}

/// The data of an event without a schema of capture, if it is an object of JSON.
fn object(event: &Event) -> Option<&str> {
    let captured = event.dataschema().is_some_and(|schema| schema.starts_with("urn:precedent:"));
    if captured || !event.has_json_content_type() {
        return None;
    }
    let text = std::str::from_utf8(event.data()?).ok()?.trim_ascii();
    (text.starts_with('{') && json::is_json(text)).then_some(text)
}

fn assistant(mut message: Message) -> Message {
    message.role.get_or_insert_with(|| "assistant".to_owned());
    message
}

/// Tokens, under any of the names they have. What is no whole number stays unsaid.
fn usage(text: &str) -> Usage {
    let count = |names: &[&str]| names.iter().find_map(|name| json::member(text, name)?.parse().ok());
    Usage {
        input: count(&["input", "input_tokens", "prompt_tokens"]),
        output: count(&["output", "output_tokens", "completion_tokens"]),
        total: count(&["total", "total_tokens"]),
        cache_read: count(&["cache_read", "cache_read_input_tokens"]),
        cache_write: count(&["cache_write", "cache_creation_input_tokens"]),
        reasoning: count(&["reasoning", "reasoning_tokens"]),
    }
}

/// A message in the JSON of a provider or of the conventions, however it is shaped.
pub fn message(json: &Json) -> Message {
    messages::message(json.as_str())
}

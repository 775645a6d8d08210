//! The HTTP of providers, read into views: requests, answers, and answers that were streamed.
//!
//! A provider is recognised by the shape of its JSON and not by its host, since many servers speak the HTTP of OpenAI. What is
//! read here comes from a recording of bytes, or from an instrumentation that keeps the provider's JSON.

mod anthropic;
mod openai;
mod sse;

use std::collections::BTreeMap;

use crate::json::{self, Json};
use crate::view::{CallError, Dialect, Message, Part, ToolDefinition, Usage};

pub(crate) use sse::events as sse_events;

/// What a request asks for.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) operation: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) system: Option<Vec<Part>>,
    pub(crate) messages: Option<Vec<Message>>,
    pub(crate) tools: Option<Vec<ToolDefinition>>,
    pub(crate) parameters: BTreeMap<String, Json>,
    pub(crate) streamed: Option<bool>,
    pub(crate) conversation: Option<String>,
}

/// What an answer says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) id: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) output: Option<Vec<Message>>,
    pub(crate) finish_reasons: Option<Vec<String>>,
    pub(crate) usage: Usage,
    pub(crate) details: BTreeMap<String, Json>,
    pub(crate) error: Option<CallError>,
}

/// Names of parameters that mean the same under another name of the semantic conventions.
const PARAMETERS: &[(&str, &str)] = &[
    ("stop", "stop_sequences"),
    ("n", "choice_count"),
    ("max_completion_tokens", "max_tokens"),
    ("max_output_tokens", "max_tokens"),
    ("max_tokens_to_sample", "max_tokens"),
    ("reasoning_effort", "reasoning_level"),
];

/// A parameter under its name in views.
pub(crate) fn parameter(name: &str) -> &str {
    PARAMETERS.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours)
}

/// Whose request this is, by its shape and the path it went to.
pub(crate) fn dialect_of(request: &str, path: Option<&str>) -> Dialect {
    let has = |name: &str| json::member(request, name).is_some();
    let ends = |end: &str| path.is_some_and(|path| path.trim_end_matches('/').ends_with(end));
    if ends("/messages") || ends("/complete") || has("max_tokens_to_sample") {
        Dialect::AnthropicHttp
    } else if ["/completions", "/responses", "/embeddings"].into_iter().any(ends) {
        Dialect::OpenAiHttp
    } else if path.is_none() && has("messages") {
        // Only Anthropic has the system prompt beside the messages, and demands a limit.
        let tool = json::member(request, "tools").and_then(|tools| json::elements(tools).next());
        let schema = tool.is_some_and(|tool| json::member(tool, "input_schema").is_some());
        if has("system") || schema { Dialect::AnthropicHttp } else { Dialect::OpenAiHttp }
    } else if path.is_none() && (has("input") || has("prompt")) && has("model") {
        Dialect::OpenAiHttp
    } else {
        Dialect::OtherHttp
    }
}

/// Reads a request of this dialect.
pub(crate) fn request(dialect: Dialect, text: &str) -> Request {
    match dialect {
        Dialect::AnthropicHttp => anthropic::request(text),
        Dialect::OpenAiHttp => openai::request(text),
        _ => Request::default(),
    }
}

/// Reads an answer of this dialect, whole or as server-sent events.
pub(crate) fn answer(dialect: Dialect, body: &str) -> Answer {
    let whole = json::is_json(body);
    let mut answer = match (dialect, whole) {
        (Dialect::AnthropicHttp, true) => anthropic::answer(body),
        (Dialect::AnthropicHttp, false) => anthropic::stream(body),
        (Dialect::OpenAiHttp, true) => openai::answer(body),
        (Dialect::OpenAiHttp, false) => openai::stream(body),
        _ => Answer::default(),
    };
    if whole && let Some(error) = json::member(body, "error").filter(|error| *error != "null") {
        answer.error = Some(error_of(error));
    }
    answer
}

/// The error object of a provider, or the text that stands in its place.
pub(crate) fn error_of(error: &str) -> CallError {
    let string = |name: &str| json::member(error, name).and_then(json::unquoted);
    CallError {
        kind: string("type").or_else(|| string("code")),
        message: string("message").or_else(|| json::unquoted(error)),
    }
}

/// A whole number from 0.
fn count(of: &str, name: &str) -> Option<u64> {
    json::member(of, name)?.parse().ok()
}

fn string(of: &str, name: &str) -> Option<String> {
    json::member(of, name).and_then(json::unquoted)
}

//! OpenAI's HTTP: chat completions, completions, responses, embeddings; and of those who speak it too.

use std::collections::BTreeMap;

use super::{Answer, Request, count, parameter, sse_events, string};
use crate::json::{self, Json};
use crate::messages::{self, arguments_text};
use crate::view::{CallError, Message, Part, ToolCall, Usage};

/// Members of a request that are neither content nor parameters.
const NOT_PARAMETERS: &[&str] = &["stream_options", "store", "metadata", "user"];

pub(super) fn request(text: &str) -> Request {
    let mut request = Request::default();
    for (name, value) in json::members(text) {
        match &*name {
            _ if value == "null" => {}
            "model" => request.model = json::unquoted(value),
            "messages" => {
                request.operation = Some("chat".to_owned());
                request.messages = Json::parse(value).and_then(|list| Some(messages::messages(&list)?.0));
            }
            "prompt" => {
                request.operation = Some("text_completion".to_owned());
                request.messages = Some(inputs(value));
            }
            "input" => {
                let is_chat = json::member(text, "instructions").is_some()
                    || json::elements(value).any(|item| item.starts_with('{'))
                    || json::member(text, "tools").is_some();
                let operation = request.operation.get_or_insert_with(|| "embeddings".to_owned());
                if is_chat {
                    *operation = "chat".to_owned();
                }
                request.messages = Some(inputs(value));
            }
            "instructions" => request.system = Some(messages::parts(value)),
            "tools" => request.tools = Json::parse(value).and_then(|list| messages::tools(&list)),
            "functions" => request.tools = Json::parse(value).and_then(|list| messages::tools(&list)),
            "stream" => request.streamed = value.parse().ok(),
            "conversation" => {
                request.conversation = json::unquoted(value).or_else(|| string(value, "id"));
            }
            other if NOT_PARAMETERS.contains(&other) => {}
            other => {
                request
                    .parameters
                    .extend(Json::parse(value).map(|value| (parameter(other).to_owned(), value)));
            }
        }
    }
    request
}

/// The input of completions, embeddings and responses: a text, a list of texts, or a list of items.
fn inputs(value: &str) -> Vec<Message> {
    let user = |parts| Message { role: Some("user".to_owned()), name: None, parts };
    match value.starts_with('[') {
        true => json::elements(value).map(item).collect(),
        false => vec![user(messages::parts(value))],
    }
}

/// One item of a conversation in OpenAI's second interface: a message, a call of a tool, its result.
fn item(text: &str) -> Message {
    if json::member(text, "role").is_some() {
        return messages::message(text);
    }
    let role = match string(text, "type").as_deref() {
        Some("function_call" | "reasoning") => "assistant",
        Some("function_call_output") => "tool",
        _ => "user",
    };
    Message { role: Some(role.to_owned()), name: None, parts: vec![messages::part(text)] }
}

pub(super) fn answer(text: &str) -> Answer {
    let mut answer = Answer {
        id: string(text, "id"),
        model: string(text, "model"),
        usage: json::member(text, "usage").map(usage).unwrap_or_default(),
        ..Answer::default()
    };
    details(text, &mut answer.details);
    if let Some(choices) = json::member(text, "choices").filter(|list| list.starts_with('[')) {
        let mut finish = Vec::new();
        let choice = |choice| {
            finish.extend(string(choice, "finish_reason"));
            match (json::member(choice, "message"), json::member(choice, "text")) {
                (Some(message), _) => messages::message(message),
                (None, Some(text)) => assistant(messages::parts(text)),
                (None, None) => assistant(Vec::new()),
            }
        };
        answer.output = Some(json::elements(choices).map(choice).collect());
        answer.finish_reasons = (!finish.is_empty()).then_some(finish);
    } else if let Some(items) = json::member(text, "output").filter(|list| list.starts_with('[')) {
        // The items of a response are one answer: what is thought, said and called.
        let parts = json::elements(items).flat_map(|text| match json::member(text, "content") {
            Some(content) if string(text, "type").as_deref() == Some("message") => messages::parts(content),
            _ => vec![messages::part(text)],
        });
        let parts: Vec<Part> = parts.collect();
        let calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
        let status = string(text, "status").map(|status| match status.as_str() {
            "completed" if calls => "tool_call".to_owned(),
            "incomplete" => json::member(text, "incomplete_details")
                .and_then(|details| string(details, "reason"))
                .unwrap_or(status),
            _ => status,
        });
        answer.output = Some(vec![assistant(parts)]);
        answer.finish_reasons = status.map(|status| vec![status]);
    }
    answer
}

fn assistant(parts: Vec<Part>) -> Message {
    Message { role: Some("assistant".to_owned()), name: None, parts }
}

fn usage(text: &str) -> Usage {
    let inner = |names: [&str; 2], count_name: &str| {
        names.into_iter().find_map(|name| count(json::member(text, name)?, count_name))
    };
    Usage {
        input: count(text, "prompt_tokens").or_else(|| count(text, "input_tokens")),
        output: count(text, "completion_tokens").or_else(|| count(text, "output_tokens")),
        total: count(text, "total_tokens"),
        cache_read: inner(["prompt_tokens_details", "input_tokens_details"], "cached_tokens"),
        cache_write: None,
        reasoning: inner(["completion_tokens_details", "output_tokens_details"], "reasoning_tokens"),
    }
}

fn details(text: &str, details: &mut BTreeMap<String, Json>) {
    for name in ["service_tier", "system_fingerprint"] {
        let value = json::member(text, name).and_then(Json::parse).filter(|value| !value.is_null());
        details.extend(value.map(|value| (name.to_owned(), value)));
    }
}

/// A choice that comes in pieces.
#[derive(Default)]
struct Choice {
    role: Option<String>,
    text: Option<String>,
    reasoning: Option<String>,
    refusal: Option<String>,
    calls: BTreeMap<u64, (ToolCall, String)>,
    finish: Option<String>,
}

impl Choice {
    fn add(&mut self, piece: &str) {
        self.finish = string(piece, "finish_reason").or(self.finish.take());
        if let Some(text) = string(piece, "text") {
            self.text.get_or_insert_default().push_str(&text);
        }
        let Some(delta) = json::member(piece, "delta") else { return };
        self.role = string(delta, "role").or(self.role.take());
        for (name, into) in [
            ("content", &mut self.text),
            ("reasoning_content", &mut self.reasoning),
            ("refusal", &mut self.refusal),
        ] {
            if let Some(text) = string(delta, name) {
                into.get_or_insert_default().push_str(&text);
            }
        }
        for call in json::member(delta, "tool_calls").map(json::elements).into_iter().flatten() {
            let at = count(call, "index").unwrap_or(self.calls.len() as u64);
            let empty = || (ToolCall { id: None, name: None, arguments: None }, String::new());
            let (known, arguments) = self.calls.entry(at).or_insert_with(empty);
            known.id = string(call, "id").filter(|id| !id.is_empty()).or(known.id.take());
            if let Some(function) = json::member(call, "function") {
                known.name = string(function, "name").filter(|n| !n.is_empty()).or(known.name.take());
                arguments.push_str(&string(function, "arguments").unwrap_or_default());
            }
        }
    }

    fn message(self) -> Message {
        let text = |content| Part::Text { content };
        let mut parts: Vec<Part> =
            self.reasoning.map(|content| Part::Reasoning { content }).into_iter().collect();
        // The first piece of an answer that calls tools has empty text.
        let said = self.text.filter(|t| !t.is_empty() || self.calls.is_empty());
        parts.extend(said.map(text));
        parts.extend(self.refusal.map(text));
        parts.extend(self.calls.into_values().map(|(mut call, arguments)| {
            call.arguments = (!arguments.is_empty()).then(|| arguments_text(&arguments));
            Part::ToolCall(call)
        }));
        Message { role: self.role.or_else(|| Some("assistant".to_owned())), name: None, parts }
    }
}

/// An answer in pieces: those of chat completions, or the events of responses, of which the last has everything.
pub(super) fn stream(body: &str) -> Answer {
    let mut whole = Answer::default();
    let mut choices: BTreeMap<u64, Choice> = BTreeMap::new();
    for data in sse_events(body) {
        if !json::is_json(&data) {
            continue;
        }
        if let Some(response) = json::member(&data, "response").filter(|r| r.starts_with('{')) {
            let kind = string(&data, "type").unwrap_or_default();
            if matches!(kind.as_str(), "response.completed" | "response.incomplete" | "response.failed") {
                whole = answer(response);
            } else {
                whole.id = string(response, "id").or(whole.id.take());
                whole.model = string(response, "model").or(whole.model.take());
            }
            continue;
        }
        if let Some(error) = json::member(&data, "error").filter(|error| *error != "null") {
            whole.error = Some(CallError { kind: string(error, "type"), message: string(error, "message") });
        }
        whole.id = string(&data, "id").filter(|id| !id.is_empty()).or(whole.id.take());
        whole.model = string(&data, "model").filter(|m| !m.is_empty()).or(whole.model.take());
        if let Some(counts) = json::member(&data, "usage").filter(|usage| usage.starts_with('{')) {
            whole.usage = usage(counts);
        }
        details(&data, &mut whole.details);
        for piece in json::member(&data, "choices").map(json::elements).into_iter().flatten() {
            choices.entry(count(piece, "index").unwrap_or(0)).or_default().add(piece);
        }
        // Pieces of the second interface, for an answer that was broken off before its last event.
        if string(&data, "type").as_deref() == Some("response.output_text.delta")
            && let Some(delta) = string(&data, "delta")
        {
            choices.entry(0).or_default().text.get_or_insert_default().push_str(&delta);
        }
    }
    if whole.output.is_none() && !choices.is_empty() {
        let finish: Vec<String> = choices.values().filter_map(|choice| choice.finish.clone()).collect();
        whole.finish_reasons = (!finish.is_empty()).then_some(finish);
        whole.output = Some(choices.into_values().map(Choice::message).collect());
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_pieces_is_the_answer() {
        let pieces = [
            r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"find","arguments":""}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}}]}"#,
            r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
            r#"{"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#,
        ];
        let body: String = pieces.iter().map(|p| format!("data: {p}\n\n")).collect();
        let streamed = stream(&(body + "data: [DONE]\n\n"));
        let whole = answer(
            r#"{"id":"c","model":"m","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,
                "tool_calls":[{"id":"t1","type":"function","function":{"name":"find","arguments":"{\"a\":1}"}}]}}],
                "usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#,
        );
        assert_eq!(streamed, whole);
        assert_eq!(whole.usage.input, Some(7));
        assert_eq!(whole.usage.cache_read, None);
    }

    #[test]
    fn the_second_interface_is_read_too() {
        let asked = request(
            r#"{"model":"m","instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"Hi"}]},
                {"type":"function_call","call_id":"t","name":"f","arguments":"{}"},
                {"type":"function_call_output","call_id":"t","output":"ok"}],"max_output_tokens":5}"#,
        );
        assert_eq!(asked.operation.as_deref(), Some("chat"));
        let messages = asked.messages.unwrap();
        assert_eq!(
            messages.iter().map(|m| m.role.as_deref().unwrap()).collect::<Vec<_>>(),
            ["user", "assistant", "tool"]
        );
        assert_eq!(asked.parameters["max_tokens"].as_str(), "5");
        let done = r#"{"type":"response.completed","response":{"id":"r","status":"completed","model":"m",
            "output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Hello"}]}],
            "usage":{"input_tokens":3,"output_tokens":1,"total_tokens":4}}}"#
            .replace('\n', " ");
        let answer = stream(&format!("event: response.completed\ndata: {done}\n\n"));
        assert_eq!(answer.output.unwrap()[0].text().as_deref(), Some("Hello"));
        assert_eq!(
            (answer.usage.input, answer.finish_reasons),
            (Some(3), Some(vec!["completed".to_owned()]))
        );
        assert_eq!(request(r#"{"model":"e","input":["a","b"]}"#).operation.as_deref(), Some("embeddings"));
    }
}

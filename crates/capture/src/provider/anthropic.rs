//! Anthropic's HTTP: messages, and the completions before them.

use std::collections::BTreeMap;

use super::{Answer, Request, count, error_of, parameter, sse_events, string};
use crate::json::{self, Json};
use crate::messages::{self, arguments_text};
use crate::view::{Message, Part, Usage};

/// Members of a request that are neither content nor parameters.
const NOT_PARAMETERS: &[&str] = &["metadata"];

pub(super) fn request(text: &str) -> Request {
    let mut request = Request::default();
    for (name, value) in json::members(text) {
        match &*name {
            _ if value == "null" => {}
            "model" => request.model = json::unquoted(value),
            "system" => request.system = Some(messages::parts(value)),
            "messages" => {
                request.operation = Some("chat".to_owned());
                request.messages = Json::parse(value).and_then(|list| Some(messages::messages(&list)?.0));
            }
            "prompt" => {
                request.operation = Some("text_completion".to_owned());
                let parts = messages::parts(value);
                request.messages = Some(vec![Message { role: Some("user".to_owned()), name: None, parts }]);
            }
            "tools" => request.tools = Json::parse(value).and_then(|list| messages::tools(&list)),
            "stream" => request.streamed = value.parse().ok(),
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

pub(super) fn answer(text: &str) -> Answer {
    let mut answer = head(text);
    if let Some(content) = json::member(text, "content").filter(|c| c.starts_with('[')) {
        let role = string(text, "role").or_else(|| Some("assistant".to_owned()));
        answer.output = Some(vec![Message { role, name: None, parts: messages::parts(content) }]);
    } else if let Some(completion) = string(text, "completion") {
        answer.output = Some(vec![said(completion)]);
    }
    answer.finish_reasons = string(text, "stop_reason").map(|reason| vec![reason]);
    answer
}

fn said(content: String) -> Message {
    Message { role: Some("assistant".to_owned()), name: None, parts: vec![Part::Text { content }] }
}

fn head(text: &str) -> Answer {
    let mut answer = Answer { id: string(text, "id"), model: string(text, "model"), ..Answer::default() };
    if let Some(counts) = json::member(text, "usage") {
        usage(counts, &mut answer.usage);
        let tier = json::member(counts, "service_tier").and_then(Json::parse).filter(|tier| !tier.is_null());
        answer.details.extend(tier.map(|tier| ("service_tier".to_owned(), tier)));
    }
    answer
}

/// Later counts of a stream replace earlier ones.
fn usage(text: &str, usage: &mut Usage) {
    let set = |into: &mut Option<u64>, name| *into = count(text, name).or(*into);
    set(&mut usage.input, "input_tokens");
    set(&mut usage.output, "output_tokens");
    set(&mut usage.cache_read, "cache_read_input_tokens");
    set(&mut usage.cache_write, "cache_creation_input_tokens");
}

/// A block of an answer that comes in pieces.
struct Block {
    start: String,
    text: String,
    arguments: String,
}

impl Block {
    fn part(self) -> Part {
        match messages::part(&self.start) {
            Part::ToolCall(mut call) => {
                if !self.arguments.is_empty() {
                    call.arguments = Some(arguments_text(&self.arguments));
                }
                Part::ToolCall(call)
            }
            Part::Text { content } => Part::Text { content: content + &self.text },
            Part::Reasoning { content } => Part::Reasoning { content: content + &self.text },
            other => other,
        }
    }
}

pub(super) fn stream(body: &str) -> Answer {
    let mut answer = Answer::default();
    let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
    let mut completion: Option<String> = None;
    let mut started = false;
    for data in sse_events(body) {
        if !json::is_json(&data) {
            continue;
        }
        let at = count(&data, "index").unwrap_or(0);
        match string(&data, "type").as_deref() {
            Some("message_start") => {
                started = true;
                answer = head(json::member(&data, "message").unwrap_or("{}"));
            }
            Some("content_block_start") => {
                let start = json::member(&data, "content_block").unwrap_or("{}").to_owned();
                blocks.insert(at, Block { start, text: String::new(), arguments: String::new() });
            }
            Some("content_block_delta") => {
                if let (Some(block), Some(delta)) = (blocks.get_mut(&at), json::member(&data, "delta")) {
                    for name in ["text", "thinking"] {
                        block.text.push_str(&string(delta, name).unwrap_or_default());
                    }
                    block.arguments.push_str(&string(delta, "partial_json").unwrap_or_default());
                }
            }
            Some("message_delta") => {
                if let Some(reason) = json::member(&data, "delta").and_then(|d| string(d, "stop_reason")) {
                    answer.finish_reasons = Some(vec![reason]);
                }
                if let Some(counts) = json::member(&data, "usage") {
                    usage(counts, &mut answer.usage);
                }
            }
            Some("error") => answer.error = json::member(&data, "error").map(error_of),
            Some("completion") | None => {
                if let Some(piece) = string(&data, "completion") {
                    completion.get_or_insert_default().push_str(&piece);
                    answer.id = string(&data, "id").or(answer.id.take());
                    answer.model = string(&data, "model").or(answer.model.take());
                    let reason = string(&data, "stop_reason").map(|reason| vec![reason]);
                    answer.finish_reasons = reason.or(answer.finish_reasons.take());
                }
            }
            _ => {}
        }
    }
    if let Some(completion) = completion {
        answer.output = Some(vec![said(completion)]);
    } else if started {
        let parts = blocks.into_values().map(Block::part).collect();
        answer.output = Some(vec![Message { role: Some("assistant".to_owned()), name: None, parts }]);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::ToolCall;

    #[test]
    fn an_answer_in_pieces_is_the_answer() {
        let pieces = [
            r#"{"type":"message_start","message":{"model":"m","id":"i","role":"assistant","content":[],"usage":{"input_tokens":7,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"I look."}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"find","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":": 1}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
            r#"{"type":"message_stop"}"#,
        ];
        let body: String = pieces.iter().map(|p| format!("event: x\ndata: {p}\n\n")).collect();
        let answer = stream(&body);
        assert_eq!((answer.usage.input, answer.usage.output), (Some(7), Some(9)));
        assert_eq!(answer.finish_reasons, Some(vec!["tool_use".to_owned()]));
        let call =
            ToolCall { id: Some("t".into()), name: Some("find".into()), arguments: Json::parse("{\"a\":1}") };
        let parts = vec![Part::Text { content: "I look.".into() }, Part::ToolCall(call)];
        assert_eq!(answer.output, Some(vec![Message { role: Some("assistant".into()), name: None, parts }]));
    }
}

//! Messages, parts and tool definitions out of the JSON they are sent as.
//!
//! One reader for the shapes there are: the parts of the semantic conventions, the messages of OpenAI, the blocks of
//! Anthropic. They differ in names and can be told apart by them, so a sender that mixes them is understood. What has no
//! place becomes [`Part::Other`] as it was sent.

use std::collections::BTreeMap;

use crate::json::{self, Json};
use crate::view::{Message, Part, ToolCall, ToolDefinition};

/// The messages of a list, and why each choice ended where that is said.
pub(crate) fn messages(list: &Json) -> Option<(Vec<Message>, Vec<String>)> {
    if !list.as_str().starts_with('[') {
        return None;
    }
    let mut finish = Vec::new();
    let messages = json::elements(list.as_str())
        .map(|text| {
            finish.extend(json::member(text, "finish_reason").and_then(json::unquoted));
            message(text)
        })
        .collect();
    Some((messages, finish))
}

/// One message.
pub(crate) fn message(text: &str) -> Message {
    let mut message = Message { role: None, name: None, parts: Vec::new() };
    if let Some(whole) = json::unquoted(text) {
        message.parts.push(Part::Text { content: whole });
        return message;
    }
    let mut result_of = None;
    let mut content = None;
    for (name, value) in json::members(text) {
        match &*name {
            "role" => message.role = json::unquoted(value),
            "name" => message.name = json::unquoted(value),
            "parts" => message.parts.extend(parts(value)),
            "content" | "contents" => content = Some(value),
            "reasoning_content" => {
                let reasoning = json::unquoted(value).map(|content| Part::Reasoning { content });
                message.parts.extend(reasoning);
            }
            // A tool's message names the call it answers.
            "tool_call_id" => result_of = json::unquoted(value),
            "id" if json::member(text, "parts").is_none() => result_of = result_of.or(json::unquoted(value)),
            _ => {}
        }
    }
    let is_tool = message.role.as_deref() == Some("tool");
    match content {
        None | Some("null") => {}
        Some(content) if is_tool => {
            let result = Json::parse(content).unwrap_or_else(|| Json::text(content));
            message.parts.push(Part::ToolResult { id: result_of, result });
        }
        Some(content) => message.parts.extend(parts(content)),
    }
    for name in ["tool_calls", "function_call", "refusal"] {
        match (name, json::member(text, name)) {
            ("tool_calls", Some(list)) => message.parts.extend(json::elements(list).map(part)),
            ("function_call", Some(call)) if call.starts_with('{') => {
                message.parts.push(Part::ToolCall(tool_call(call)));
            }
            ("refusal", Some(refusal)) => {
                message.parts.extend(json::unquoted(refusal).map(|content| Part::Text { content }));
            }
            _ => {}
        }
    }
    message
}

/// The parts of a message: a text, one object, or a list.
pub(crate) fn parts(value: &str) -> Vec<Part> {
    match value.as_bytes().first() {
        Some(b'"') => json::unquoted(value).map(|content| Part::Text { content }).into_iter().collect(),
        Some(b'[') => json::elements(value).map(part).collect(),
        Some(b'{') => vec![part(value)],
        _ => Vec::new(),
    }
}

/// One part, by its type.
pub(crate) fn part(text: &str) -> Part {
    let other = || Part::Other { content: Json::parse(text).unwrap_or_else(|| Json::text(text)) };
    if let Some(content) = json::unquoted(text) {
        return Part::Text { content };
    }
    let member = |name: &str| json::member(text, name).filter(|value| *value != "null");
    let string = |name: &str| member(name).and_then(json::unquoted);
    let json = |name: &str| member(name).and_then(Json::parse);
    let kind = string("type").unwrap_or_default();
    match kind.as_str() {
        "text" | "input_text" | "output_text" => match string("content").or_else(|| string("text")) {
            Some(content) => Part::Text { content },
            None => other(),
        },
        "reasoning" | "thinking" => match string("content").or_else(|| string("thinking")) {
            Some(content) => Part::Reasoning { content },
            None => other(),
        },
        "tool_call" | "tool_use" | "function" | "function_call" => Part::ToolCall(tool_call(text)),
        "tool_call_response" | "tool_result" | "function_call_output" => {
            let id = string("id").or_else(|| string("tool_use_id")).or_else(|| string("call_id"));
            let result = ["response", "result", "content", "output"].into_iter().find_map(json);
            match result {
                Some(result) => Part::ToolResult { id, result },
                None => other(),
            }
        }
        "image_url" | "input_image" => {
            let url = member("image_url").and_then(|value| {
                json::unquoted(value).or_else(|| json::member(value, "url").and_then(json::unquoted))
            });
            match url.or_else(|| string("file_id")) {
                Some(content) => Part::Media { modality: Some("image".to_owned()), mime_type: None, content },
                None => other(),
            }
        }
        "image" | "document" => {
            let source = member("source").unwrap_or("{}");
            let of_source = |name: &str| json::member(source, name).and_then(json::unquoted);
            match of_source("data").or_else(|| of_source("url")).or_else(|| of_source("file_id")) {
                Some(content) => {
                    Part::Media { modality: Some(kind), mime_type: of_source("media_type"), content }
                }
                None => other(),
            }
        }
        "blob" | "uri" | "file" => {
            let content = ["content", "uri", "file_id"].into_iter().find_map(string);
            match content {
                Some(content) => {
                    Part::Media { modality: string("modality"), mime_type: string("mime_type"), content }
                }
                None => other(),
            }
        }
        _ => other(),
    }
}

/// A tool call in any of its shapes: flat, or with its name and arguments under `function`.
pub(crate) fn tool_call(text: &str) -> ToolCall {
    let inner = json::member(text, "function").filter(|value| value.starts_with('{')).unwrap_or(text);
    let string = |of: &str, name: &str| json::member(of, name).and_then(json::unquoted);
    let arguments = json::member(inner, "arguments").or_else(|| json::member(inner, "input"));
    ToolCall {
        // In the answers of OpenAI's second interface `id` is that of the item, and `call_id` that of the call.
        id: string(text, "call_id").or_else(|| string(text, "id")),
        name: string(inner, "name"),
        arguments: arguments.filter(|value| *value != "null").and_then(arguments_of),
    }
}

/// Arguments that are an object, or a string that holds one.
pub(crate) fn arguments_of(value: &str) -> Option<Json> {
    match json::unquoted(value) {
        Some(text) => Some(arguments_text(&text)),
        None => Json::parse(value),
    }
}

/// Arguments as a model wrote them.
pub(crate) fn arguments_text(text: &str) -> Json {
    Json::parse(text).unwrap_or_else(|| Json::text(text))
}

/// The definitions of a list.
pub(crate) fn tools(list: &Json) -> Option<Vec<ToolDefinition>> {
    list.as_str().starts_with('[').then(|| json::elements(list.as_str()).map(tool).collect())
}

/// One definition: flat, or under `function`; its schema is `parameters` or `input_schema`.
pub(crate) fn tool(text: &str) -> ToolDefinition {
    let mut tool = ToolDefinition { name: None, description: None, parameters: None, other: BTreeMap::new() };
    for (name, value) in json::members(text) {
        match &*name {
            "function" if value.starts_with('{') => {
                let inner = self::tool(value);
                tool.name = inner.name.or(tool.name);
                tool.description = inner.description.or(tool.description);
                tool.parameters = inner.parameters.or(tool.parameters);
                tool.other.extend(inner.other);
            }
            "name" => tool.name = json::unquoted(value),
            "description" => tool.description = json::unquoted(value),
            "parameters" | "input_schema" => tool.parameters = Json::parse(value),
            // Every tool that is a function says so or does not.
            "type" if value == "\"function\"" || value == "\"custom\"" => {}
            _ => {
                tool.other
                    .extend(Json::parse(value).filter(|v| !v.is_null()).map(|v| (name.into_owned(), v)));
            }
        }
    }
    tool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_call_is_the_same_in_every_shape() {
        let expected = ToolCall {
            id: Some("c1".into()),
            name: Some("find".into()),
            arguments: Json::parse(r#"{"a":1.50}"#),
        };
        for text in [
            r#"{"type":"tool_call","id":"c1","name":"find","arguments":{"a":1.50}}"#,
            r#"{"type":"function","id":"c1","function":{"name":"find","arguments":"{\"a\": 1.50}"}}"#,
            r#"{"type":"tool_use","id":"c1","name":"find","input":{"a":1.50}}"#,
            r#"{"type":"function_call","id":"item","call_id":"c1","name":"find","arguments":"{\"a\":1.50}"}"#,
        ] {
            assert_eq!(part(text), Part::ToolCall(expected.clone()), "{text}");
        }
    }

    #[test]
    fn a_tools_answer_is_the_same_in_every_shape() {
        let expected = Part::ToolResult { id: Some("c1".into()), result: Json::text("ok") };
        for text in [
            r#"{"role":"tool","tool_call_id":"c1","content":"ok"}"#,
            r#"{"role":"tool","id":"c1","content":"ok"}"#,
            r#"{"role":"tool","parts":[{"type":"tool_call_response","id":"c1","response":"ok"}],"name":null}"#,
        ] {
            let message = message(text);
            assert_eq!(
                (message.role.as_deref(), &message.parts[..]),
                (Some("tool"), &[expected.clone()][..]),
                "{text}"
            );
        }
        let block = part(r#"{"type":"tool_result","tool_use_id":"c1","content":"ok"}"#);
        assert_eq!(block, expected);
    }

    #[test]
    fn what_is_not_known_is_kept_as_it_was() {
        let text = r#"{"type":"hologram","depth":1.0}"#;
        assert_eq!(part(text), Part::Other { content: Json::parse(text).unwrap() });
        assert_eq!(message(r#"{"role":"assistant","content":null}"#).parts, []);
        assert!(matches!(&part(r#"{"type":"text"}"#), Part::Other { .. }));
    }
}

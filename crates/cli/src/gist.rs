//! One line about an event, for people. Programs read the data itself.

use precedent::RecordedEvent;
use serde_json::Value;

use crate::text::{escaped, shortened};

/// Which places of an event's data say in a line what happened: the types this program knows itself. A type
/// that is not here, or data of another shape, is shown as its JSON.
const TELLING: &[(&str, &[&str])] = &[
    ("ai.input.received", &["/message/content", "/content", "/text"]),
    ("ai.retrieval.performed", &["/source", "/query"]),
    ("ai.model.requested", &["/model", "/purpose"]),
    ("ai.decision.made", &["/decision", "/reason"]),
    ("ai.decision.overridden", &["/decision", "/person", "/reason"]),
    ("ai.outcome.observed", &["/outcome", "/detail", "/reward"]),
    ("ai.feedback.received", &["/value", "/text"]),
];

/// At most `chars_max` characters that say what the event is about; safe to print.
pub(crate) fn gist(recorded: &RecordedEvent, chars_max: usize) -> String {
    let event = &recorded.event;
    let text = match event.data() {
        _ if recorded.erased => "(its data has been erased)".to_owned(),
        None => String::new(),
        Some(data) if !event.has_json_content_type() => {
            let media_type = event.datacontenttype().unwrap_or("no media type");
            format!("({media_type}, {} bytes)", data.len())
        }
        Some(data) => match serde_json::from_slice::<Value>(data) {
            // What nothing is known about is shown as it was written: numbers are not reformatted.
            Ok(value) => of_json(event.event_type(), &value)
                .unwrap_or_else(|| String::from_utf8_lossy(data).trim().to_owned()),
            Err(_) => format!("(not JSON, {} bytes)", data.len()),
        },
    };
    // A line break in recorded text would be shown as an escape; in a gist it reads better as a space.
    let line = text.split(['\n', '\r', '\t']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    shortened(&escaped(&line), chars_max).into_owned()
}

fn of_json(event_type: &str, data: &Value) -> Option<String> {
    let told = match event_type {
        "ai.model.called" => model_called(data),
        "ai.tool.called" => tool_called(data),
        _ => None,
    };
    told.or_else(|| {
        let (_, places) = TELLING.iter().find(|(name, _)| *name == event_type)?;
        let parts: Vec<String> =
            places.iter().filter_map(|place| data.pointer(place)).filter_map(plain).collect();
        (!parts.is_empty()).then(|| parts.join(" · "))
    })
}

/// Text as it is, anything else as JSON, nothing for null.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn model_called(data: &Value) -> Option<String> {
    let response = data.get("response")?;
    let calls = response.get("tool_calls").and_then(Value::as_array).into_iter().flatten();
    let calls: Vec<String> = calls.filter_map(|call| Some(format!("→ {}", function(call)?))).collect();
    let content = response.get("content").and_then(plain).filter(|content| !content.is_empty());
    let parts: Vec<String> = content.into_iter().chain(calls).collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn tool_called(data: &Value) -> Option<String> {
    let result = data.pointer("/result/content").and_then(plain)?;
    let call = data.get("call").and_then(function);
    let name = || data.pointer("/result/name").and_then(plain);
    Some(format!("{} → {result}", call.or_else(name).unwrap_or_else(|| "a tool".into())))
}

fn function(call: &Value) -> Option<String> {
    let name = call.pointer("/function/name").and_then(plain)?;
    let arguments = call.pointer("/function/arguments").and_then(plain).unwrap_or_default();
    Some(format!("{name}({arguments})"))
}

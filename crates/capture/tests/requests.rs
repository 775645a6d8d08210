//! What happens to requests that no capture has: regrouped, without ids, with unknown fields, flat, failed, hidden.

use precedent_capture::chain;
use precedent_capture::otlp::{self, Encoding, Signal};
use precedent_capture::redact::Rules;
use precedent_capture::view::*;
use precedent_capture::wire::{put_bytes, put_number};
use precedent_core::Event;
use serde_json::{Value, json};

fn written(signal: Signal, encoding: Encoding, body: &[u8]) -> Vec<Event> {
    otlp::check(signal, encoding, body).unwrap();
    let rules = Rules::default();
    let all = otlp::items(signal, encoding, body).map(|item| item.written(false, &rules).unwrap());
    all.flatten().flat_map(|written| std::iter::once(written.event).chain(written.gap)).collect()
}

fn any(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({"stringValue": text}),
        Value::Number(n) if n.is_f64() => json!({"doubleValue": n}),
        Value::Number(n) => json!({"intValue": n.to_string()}),
        Value::Bool(b) => json!({"boolValue": b}),
        Value::Array(list) => json!({"arrayValue": {"values": list.iter().map(any).collect::<Vec<_>>()}}),
        Value::Object(_) => json!({"kvlistValue": {"values": pairs(value)}}),
        Value::Null => json!({}),
    }
}

fn pairs(object: &Value) -> Vec<Value> {
    object.as_object().unwrap().iter().map(|(k, v)| json!({"key": k, "value": any(v)})).collect()
}

/// A span as OTLP/JSON: its number tells trace and span.
fn span(n: u32, attributes: Value) -> Value {
    json!({"traceId": format!("{n:032x}"), "spanId": format!("{n:016x}"), "name": "chat", "kind": 3,
        "startTimeUnixNano": (1_763_780_000_000_000_000u64 + u64::from(n)).to_string(),
        "endTimeUnixNano": 1_763_780_001_000_000_000u64, "attributes": pairs(&attributes), "status": {}})
}

fn request(spans: &[Value]) -> Vec<u8> {
    let resource = json!({"attributes": pairs(&json!({"service.name": "shop"})), "newMember": 1.10});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}]}]})
        .to_string()
        .into_bytes()
}

fn events_of(spans: &[Value]) -> Vec<Event> {
    written(Signal::Traces, Encoding::Json, &request(spans))
}

fn one_call(attributes: Value) -> ModelCall {
    let mut view = View::of_new(&events_of(&[span(1, attributes)]));
    assert_eq!(view.calls.len(), 1);
    view.calls.remove(0)
}

fn chat(content: &str) -> Value {
    json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
        "gen_ai.input.messages": json!([{"role": "user", "parts": [{"type": "text", "content": content}]}]).to_string()})
}

#[test]
fn a_resend_has_the_same_ids_however_it_is_grouped() {
    let spans: Vec<Value> = (1..4).map(|n| span(n, chat("hi"))).collect();
    let together = events_of(&spans);
    let alone: Vec<Event> = spans.iter().flat_map(|span| events_of(std::slice::from_ref(span))).collect();
    assert_eq!(together, alone);
    let changed = events_of(&[span(1, chat("ho"))]);
    let (id, other) = (together[0].id(), changed[0].id());
    assert_eq!(id[..id.len() - 16], other[..other.len() - 16]);
    assert_ne!(id, other);
    assert!(id.starts_with(&format!("{:032x}-{:016x}-", 1, 1)), "{id}");
}

#[test]
fn protobuf_is_regrouped_byte_for_byte_with_fields_nobody_knows() {
    let pair = |key: &str, text: &str| {
        let (mut any, mut pair) = (Vec::new(), Vec::new());
        put_bytes(1, text.as_bytes(), &mut any);
        put_bytes(1, key.as_bytes(), &mut pair);
        put_bytes(2, &any, &mut pair);
        pair
    };
    let span = |n: u8| {
        let mut span = Vec::new();
        put_bytes(1, &[n; 16], &mut span);
        put_bytes(2, &[n; 8], &mut span);
        put_bytes(9, &pair("gen_ai.request.model", "m"), &mut span);
        put_bytes(4000, b"from the future", &mut span);
        span
    };
    let request = |spans: &[Vec<u8>], split: bool| {
        let mut out = Vec::new();
        let mut resource = Vec::new();
        let mut inner = Vec::new();
        put_bytes(1, &pair("service.name", "shop"), &mut inner);
        put_bytes(1, &inner, &mut resource);
        put_number(99, 7, &mut resource);
        let scope = |spans: &[Vec<u8>]| {
            let mut scope = Vec::new();
            spans.iter().for_each(|span| put_bytes(2, span, &mut scope));
            put_bytes(3, b"https://schema", &mut scope);
            scope
        };
        match split {
            true => {
                spans.iter().for_each(|span| put_bytes(2, &scope(std::slice::from_ref(span)), &mut resource))
            }
            false => put_bytes(2, &scope(spans), &mut resource),
        }
        put_bytes(1, &resource, &mut out);
        out
    };
    let spans = [span(1), span(2)];
    let together = written(Signal::Traces, Encoding::Protobuf, &request(&spans, false));
    let apart = written(Signal::Traces, Encoding::Protobuf, &request(&spans, true));
    assert_eq!(together, apart);
    assert_eq!(together.len(), 2);
    for event in &together {
        let data = event.data().unwrap();
        assert!(data.windows(15).any(|w| w == b"from the future"), "unknown fields of the span stay");
        assert!(data.windows(3).any(|w| w == [0x98, 0x06, 7]), "unknown fields of the resource stay");
        let again = written(Signal::Traces, Encoding::Protobuf, data);
        assert_eq!(&again[0], event, "the data is a request that holds this span alone");
    }
}

#[test]
fn what_has_no_ids_and_no_times_is_recorded_as_what_it_is() {
    let mut bare = span(1, chat("hi"));
    for name in ["traceId", "spanId", "startTimeUnixNano", "endTimeUnixNano"] {
        bare.as_object_mut().unwrap().remove(name);
    }
    let mut odd = span(2, chat("hi"));
    odd["traceId"] = json!("beef");
    odd["endTimeUnixNano"] = json!("18446744073709551615");
    let events = events_of(&[bare, odd]);
    assert!(events[0].id().starts_with("none-none-"));
    assert_eq!(
        (events[0].time(), events[0].stream(), events[0].attribute("traceparent")),
        (None, None, None)
    );
    assert!(events[1].id().starts_with("beef-0000000000000002-"));
    assert_eq!(events[1].time(), Some("2554-07-21T23:34:33.709551615Z"));
    let view = View::of_new(&events);
    assert_eq!(view.calls.len(), 2);
    assert_eq!(view.calls[0].times, Times::default());
    assert_eq!(view.calls[0].trace, None);
}

#[test]
fn spans_without_ai_are_no_events_and_what_senders_drop_is_a_gap() {
    assert_eq!(events_of(&[span(1, json!({"http.method": "GET"}))]), []);
    let mut lossy = span(1, chat("hi"));
    lossy["droppedAttributesCount"] = json!(3);
    let events = events_of(&[lossy]);
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].event_type(), "ai.capture.gap_detected");
    let gap: Value = serde_json::from_slice(events[1].data().unwrap()).unwrap();
    assert_eq!(
        (&gap["reason"], &gap["count"], &gap["about"]),
        (&json!("sender_dropped"), &json!(3), &json!(events[0].id()))
    );
    assert_eq!(View::of_new(&events).calls[0].missing, [Missing::Output, Missing::DroppedAttributes]);
}

#[test]
fn the_kind_of_a_span_decides_its_type() {
    for (attributes, event_type) in [
        (chat("x"), "ai.model.called"),
        (json!({"gen_ai.operation.name": "embeddings"}), "ai.model.called"),
        (json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find"}), "ai.tool.called"),
        (json!({"gen_ai.operation.name": "invoke_agent"}), "ai.agent.invoked"),
        (json!({"gen_ai.operation.name": "retrieval"}), "ai.retrieval.performed"),
        (json!({"gen_ai.operation.name": "not yet known"}), "ai.agent.invoked"),
        (json!({"gen_ai.request.model": "m"}), "ai.model.called"),
        (json!({"openinference.span.kind": "TOOL"}), "ai.tool.called"),
        (json!({"openinference.span.kind": "GUARDRAIL"}), "ai.policy.evaluated"),
        (json!({"openinference.span.kind": "EVALUATOR"}), "ai.evaluation.recorded"),
        (json!({"traceloop.span.kind": "workflow"}), "ai.agent.invoked"),
        (json!({"traceloop.span.kind": "tool", "gen_ai.request.model": "m"}), "ai.tool.called"),
    ] {
        let events = events_of(&[span(1, attributes.clone())]);
        assert_eq!(events[0].event_type(), event_type, "{attributes}");
    }
}

#[test]
fn an_event_can_be_found_by_what_it_is_about() {
    let mut attributes = chat("x");
    attributes["gen_ai.response.model"] = json!("m-1");
    attributes["gen_ai.provider.name"] = json!("openai");
    attributes["gen_ai.conversation.id"] = json!("conv 1");
    attributes["precedent.decision.id"] = json!("d-7");
    let event = &events_of(&[span(1, attributes)])[0];
    let tags: Vec<&str> = event.tags().iter().map(|t| t.as_str()).collect();
    assert_eq!(tags, ["signal=span", "model=m", "model=m-1", "provider=openai", "service=shop"]);
    assert_eq!(event.stream(), Some("session/conv 1"));
    assert_eq!((event.source(), event.attribute("decisionid")), ("otlp/shop", Some("d-7")));
    assert_eq!(event.trace_id(), Some(format!("{:032x}", 1).as_str()));
    let mut attributes = chat("x");
    attributes["gen_ai.conversation.id"] = json!("line\nbreak");
    attributes["gen_ai.request.model"] = json!("m".repeat(4_000));
    let event = &events_of(&[span(1, attributes)])[0];
    assert_eq!(
        event.stream(),
        Some(format!("trace/{:032x}", 1).as_str()),
        "a name that cannot be one is not one"
    );
    assert_eq!(event.tags().len(), 2);
}

#[test]
fn the_old_flat_attributes_are_understood() {
    let call = one_call(json!({
        "gen_ai.system": "OpenAI", "llm.request.type": "chat", "gen_ai.request.model": "m",
        "gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "[{\"type\": \"text\", \"text\": \"Hi\"}]",
        "gen_ai.prompt.10.role": "tool", "gen_ai.prompt.10.content": "ok", "gen_ai.prompt.10.tool_call_id": "c",
        "gen_ai.prompt.2.role": "assistant", "gen_ai.prompt.2.tool_calls.0.id": "c",
        "gen_ai.prompt.2.tool_calls.0.name": "f", "gen_ai.prompt.2.tool_calls.0.arguments": "{\"a\": 1}",
        "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Hello",
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": "unknown",
        "llm.request.functions.0.name": "f", "llm.request.functions.0.parameters": "{\"type\":\"object\"}",
        "llm.is_streaming": false, "x.y": "kept",
    }));
    assert_eq!((call.dialect, call.fidelity), (Dialect::Flat, Fidelity::Reconstructable));
    let roles: Vec<_> = call.messages.iter().flatten().map(|m| m.role.as_deref().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool"], "by number and not by the order of digits");
    assert_eq!(call.system, Some(vec![Part::Text { content: "Be brief.".into() }]));
    assert_eq!(call.messages.as_ref().unwrap()[0].text().as_deref(), Some("Hi"));
    assert_eq!(
        (call.output_text().as_deref(), call.finish_reasons),
        (Some("Hello"), Some(vec![FinishReason::Stop]))
    );
    assert_eq!(call.tools.unwrap()[0].name.as_deref(), Some("f"));
    assert_eq!(call.provider.as_deref(), Some("openai"));
    assert_eq!(call.streamed, Some(false));
    assert_eq!(
        (call.usage.input, call.usage.output),
        (Some(7), None),
        "a count that is no number is no zero"
    );
    assert_eq!(call.unmapped.keys().collect::<Vec<_>>(), ["gen_ai.usage.completion_tokens", "x.y"]);
    assert_eq!(call.missing, []);
}

#[test]
fn a_call_without_content_says_so() {
    let call = one_call(
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "error.type": "Timeout"}),
    );
    assert_eq!((call.fidelity, &call.missing[..]), (Fidelity::MetadataOnly, &[Missing::Messages][..]));
    assert_eq!(call.error.unwrap().kind.as_deref(), Some("Timeout"));
    assert_eq!((call.messages, call.output, call.usage), (None, None, Usage::default()));
    let json = serde_json::to_string(&one_call(json!({"gen_ai.request.model": "m"}))).unwrap();
    assert!(!json.contains("null") && !json.contains("\"\""), "missing is missing: {json}");
}

#[test]
fn tools_and_agents_are_activities_with_what_they_were_given_and_gave() {
    let view = View::of_new(&events_of(&[
        span(
            1,
            json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find", "gen_ai.tool.call.id": "c",
            "gen_ai.tool.call.arguments": "{\"id\": 1}", "gen_ai.tool.call.result": "shipped"}),
        ),
        span(
            2,
            json!({"openinference.span.kind": "TOOL", "tool.name": "find", "input.value": "{\"id\": 1}",
            "output.value": "shipped", "input.mime_type": "application/json"}),
        ),
        span(
            3,
            json!({"traceloop.span.kind": "tool", "traceloop.entity.name": "find",
            "traceloop.entity.input": "{\"id\": 1}", "traceloop.entity.output": "shipped"}),
        ),
    ]));
    assert_eq!(view.calls, []);
    for activity in &view.activities {
        assert_eq!((activity.kind, activity.name.as_deref()), (Kind::Tool, Some("find")));
        assert_eq!(activity.input, Json::parse("{\"id\":1}"), "{}", activity.dialect);
        assert_eq!(activity.output, Some(Json::text("shipped")));
        assert!(activity.unmapped.is_empty());
    }
    assert_eq!(view.activities[0].call_id.as_deref(), Some("c"));
}

#[test]
fn keys_in_prompts_are_masked_and_the_event_says_so() {
    let key = "sk-proj-abcdefghijklmnopqrstuvwxyz";
    let events = events_of(&[span(1, chat(&format!("my key is {key}.")))]);
    let text = String::from_utf8(events[0].data().unwrap().to_vec()).unwrap();
    assert!(!text.contains(key) && text.contains(&format!("my key is {}.", "*".repeat(key.len()))));
    assert_eq!(events[0].attribute("redactedby"), Some("api_key:1"));
    let call = &View::of_new(&events).calls[0];
    assert!(call.notes[0].contains("taken out"));
}

#[test]
fn a_conversation_is_chained_and_its_neighbours_are_not() {
    let turn = |n: u32, messages: Value, answer: &str| {
        span(
            n,
            json!({"gen_ai.request.model": "m", "gen_ai.input.messages": messages.to_string(),
            "gen_ai.output.messages": json!([{"role": "assistant", "parts": [{"type": "text", "content": answer}]}]).to_string()}),
        )
    };
    let say = |role: &str, text: &str| json!({"role": role, "parts": [{"type": "text", "content": text}]});
    let view = View::of_new(&events_of(&[
        turn(1, json!([say("user", "a")]), "A"),
        turn(2, json!([say("user", "b")]), "B"),
        turn(3, json!([say("user", "a"), say("assistant", "A"), say("user", "c")]), "C"),
        // The same question, and another answer than the first had.
        turn(4, json!([say("user", "a"), say("assistant", "other"), say("user", "c")]), "D"),
        turn(
            5,
            json!([
                say("user", "a"),
                say("assistant", "A"),
                say("user", "c"),
                say("assistant", "C"),
                say("user", "e")
            ]),
            "E",
        ),
        // The same again: nobody can tell a second try from a second person.
        turn(6, json!([say("user", "b")]), "B"),
    ]));
    let found: Vec<Vec<usize>> = chain::conversations(&view.calls).into_iter().map(|c| c.calls).collect();
    assert_eq!(found, [vec![0, 2, 4], vec![1], vec![3], vec![5]]);
}

#[test]
fn metrics_are_counted_and_what_they_say_was_lost_is_a_gap() {
    let point = |value: u32, attributes: Value| json!({"asInt": value.to_string(), "startTimeUnixNano": "1", "attributes": pairs(&attributes)});
    let body = json!({"resourceMetrics": [{"resource": {"attributes": pairs(&json!({"service.name": "shop"}))}, "scopeMetrics": [{"metrics": [
        {"name": "gen_ai.client.token.usage", "histogram": {"dataPoints": [{}, {}]}},
        {"name": "otel.sdk.processor.span.processed", "sum": {"dataPoints": [
            point(100, json!({})), point(7, json!({"error.type": "queue_full"})), point(0, json!({"error.type": "x"}))]}},
    ]}]}]})
    .to_string();
    assert_eq!(otlp::check(Signal::Metrics, Encoding::Json, body.as_bytes()).unwrap(), 2);
    let rules = Rules::default();
    let counted: Vec<_> = otlp::items(Signal::Metrics, Encoding::Json, body.as_bytes())
        .map(|item| otlp::count(&item, &rules).unwrap())
        .collect();
    assert_eq!((counted[0].points, counted[0].gaps.len()), (2, 0));
    assert_eq!((counted[1].points, counted[1].gaps.len()), (3, 1));
    let gap: Value = serde_json::from_slice(counted[1].gaps[0].data().unwrap()).unwrap();
    assert_eq!(
        (&gap["count"], &gap["unit"], &gap["producer"]),
        (&json!(7), &json!("spans"), &json!("otlp/shop"))
    );
}

#[test]
fn what_is_no_request_is_refused_whole() {
    for (encoding, body, says) in [
        (Encoding::Protobuf, &b"\x0a\x05x"[..], "5 more bytes"),
        (Encoding::Protobuf, b"\x08\x01", "a message belongs"),
        (Encoding::Json, b"{\"resourceSpans\":[", "not JSON"),
        (Encoding::Json, b"[]", "'resourceSpans' holds something else"),
        (Encoding::Json, b"{\"resourceSpans\":{}}", "'resourceSpans' is no list"),
        (Encoding::Json, b"{\"resourceSpans\":[7]}", "something else than objects"),
        (Encoding::Json, b"\xff", "UTF-8"),
    ] {
        let error = otlp::check(Signal::Traces, encoding, body).unwrap_err();
        assert!(error.message().contains(says), "{error}");
    }
    assert_eq!(otlp::check(Signal::Traces, Encoding::Protobuf, b"").unwrap(), 0);
    assert_eq!(otlp::check(Signal::Traces, Encoding::Json, b"{}").unwrap(), 0);
    let deep = format!("{{\"resourceSpans\":{}{}}}", "[".repeat(300_000), "]".repeat(300_000));
    assert!(otlp::check(Signal::Traces, Encoding::Json, deep.as_bytes()).is_err());
}

//! The calls of the tau-bench runs as spans: what OpenTelemetry's instrumentation of OpenAI's client, told to record
//! content, sends of each. A call has all messages before it and the definitions of the tools, as it had when it was made.
//!
//! What the runs do not tell (tokens, the id and the exact model of an answer, times) is not made up, but for ids, which
//! are fresh, and times, which are now.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::otlp::{Span, Value, encoded, request};

/// So many runs go on at a time, one call of each in turn, as in a service with as many customers.
const RUNS_AT_ONCE: usize = 20;
/// What a run takes from one call to the next, in nanoseconds, and a call itself.
const CALL_EVERY: u64 = 2_000_000_000;
const CALL_TAKES: u64 = 1_000_000_000;

/// The spans of a request, and its bytes.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    pub(super) spans: usize,
    pub(super) body: Vec<u8>,
}

/// Everything that is sent.
#[derive(Debug, PartialEq)]
pub(super) struct Calls {
    pub(super) batches: Vec<Batch>,
    pub(super) runs: usize,
    /// The bytes of each span, in order of size.
    pub(super) sizes: Vec<usize>,
}

impl Calls {
    /// How many spans the first batches hold that hold at least `wanted`, and how many batches those are.
    pub(super) fn first(&self, wanted: usize) -> (usize, usize) {
        let mut spans = 0;
        for (at, batch) in self.batches.iter().enumerate() {
            spans += batch.spans;
            if spans >= wanted {
                return (spans, at + 1);
            }
        }
        (spans, self.batches.len())
    }
}

/// Where the runs are: beside the workspace, or where `PRECEDENT_SHARED_DATA` says.
pub(super) fn place(root: &Path) -> PathBuf {
    let named = std::env::var_os("PRECEDENT_SHARED_DATA").map(PathBuf::from);
    named.unwrap_or_else(|| root.join("../shared/data")).join("tau-bench")
}

/// Reads the runs that are at this place.
pub(super) fn load(place: &Path, batch: usize, now: u64) -> Result<Calls, String> {
    let read = |name: &str| {
        let file = place.join(name);
        let text = fs::read(&file).map_err(|e| {
            format!(
                "the calls to send are not there: {}: {e}; PRECEDENT_SHARED_DATA names the folder of tau-bench/",
                file.display()
            )
        })?;
        serde_json::from_slice::<Json>(&text).map_err(|e| format!("{}: {e}", file.display()))
    };
    made(&read("gpt-4o-airline.json")?, &read("airline-tools.json")?, batch, now)
}

/// Where and when a call was made, and what was said.
struct Call {
    run: usize,
    number: usize,
    input: String,
    output: String,
    finish: &'static str,
}

/// The spans of these runs in batches of `batch`, with times that begin at `now`, in nanoseconds since 1970. Ids come
/// from `now` too.
fn made(runs: &Json, tools: &Json, batch: usize, now: u64) -> Result<Calls, String> {
    let runs = runs.as_array().ok_or("the runs are not a list")?;
    let definitions = Json::Array(
        tools
            .as_array()
            .ok_or("the tools are not a list")?
            .iter()
            .map(definition)
            .collect::<Result<_, _>>()?,
    )
    .to_string();
    let mut calls = Vec::new();
    for (run, told) in runs.iter().enumerate() {
        calls.extend(calls_of(run, told).map_err(|e| format!("run {run}: {e}"))?);
    }
    calls.sort_by_key(|call| (call.run / RUNS_AT_ONCE, call.number, call.run));
    let mut random = Random(now);
    let traces: Vec<[u8; 16]> = runs.iter().map(|_| random.id()).collect();
    let spans: Vec<Vec<u8>> = calls
        .into_iter()
        .map(|call| {
            let start = now + call.number as u64 * CALL_EVERY;
            encoded(&Span {
                trace_id: traces[call.run],
                span_id: random.id(),
                name: "chat gpt-4o".to_owned(),
                start,
                end: start + CALL_TAKES,
                attributes: vec![
                    ("gen_ai.operation.name", Value::Text("chat".into())),
                    ("gen_ai.provider.name", Value::Text("openai".into())),
                    ("gen_ai.request.model", Value::Text("gpt-4o".into())),
                    ("gen_ai.response.finish_reasons", Value::Texts(vec![call.finish.to_owned()])),
                    ("gen_ai.input.messages", Value::Text(call.input)),
                    ("gen_ai.output.messages", Value::Text(call.output)),
                    ("gen_ai.tool.definitions", Value::Text(definitions.clone())),
                ],
            })
        })
        .collect();
    let mut sizes: Vec<usize> = spans.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    let batches = spans.chunks(batch).map(|spans| Batch {
        spans: spans.len(),
        body: request("airline-agent", "precedent.bench", spans.iter().map(Vec::as_slice)),
    });
    Ok(Calls { batches: batches.collect(), runs: runs.len(), sizes })
}

fn calls_of(run: usize, told: &Json) -> Result<Vec<Call>, String> {
    let turns = told["traj"].as_array().ok_or("it has no 'traj'")?;
    let messages: Vec<Json> = turns.iter().map(message).collect::<Result<_, _>>()?;
    let answers = turns.iter().enumerate().filter(|(_, turn)| turn["role"] == "assistant");
    Ok(answers
        .enumerate()
        .map(|(number, (at, answer))| {
            let finish = if answer["tool_calls"].is_array() { "tool_calls" } else { "stop" };
            let mut output = messages[at].clone();
            output["finish_reason"] = json!(finish);
            Call {
                run,
                number,
                input: Json::Array(messages[..at].to_vec()).to_string(),
                output: json!([output]).to_string(),
                finish,
            }
        })
        .collect())
}

/// A message of OpenAI's in the form of the semantic conventions: a role and parts.
fn message(turn: &Json) -> Result<Json, String> {
    let role = turn["role"].as_str().ok_or("a message has no 'role'")?;
    let mut parts = Vec::new();
    match (&turn["content"], &turn["tool_call_id"]) {
        (Json::String(content), Json::String(id)) => {
            parts.push(json!({"type": "tool_call_response", "id": id, "response": content}));
        }
        (Json::String(content), _) => parts.push(json!({"type": "text", "content": content})),
        (Json::Null, _) => {}
        (other, _) => return Err(format!("the content of a message is not text: {other}")),
    }
    for call in turn["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().ok_or("a tool is called without 'arguments'")?;
        // What a model made of them need not be JSON; then the text itself stands there.
        let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
        parts.push(json!({
            "type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments,
        }));
    }
    Ok(json!({"role": role, "parts": parts}))
}

fn definition(tool: &Json) -> Result<Json, String> {
    let mut function = tool["function"].as_object().ok_or("a tool has no 'function'")?.clone();
    function.insert("type".into(), json!("function"));
    Ok(Json::Object(function))
}

/// Numbers that look random and do not repeat (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn id<const N: usize>(&mut self) -> [u8; N] {
        let mut id = [0; N];
        for part in id.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_be_bytes()[..part.len()]);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value;
    use opentelemetry_proto::tonic::trace::v1::Span as Official;
    use prost::Message as _;

    use super::*;

    const NOW: u64 = 1_790_000_000_000_000_000;

    fn run(number: usize) -> Json {
        json!({"traj": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": format!("Where is order {number}?")},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{\"order\":7}"}},
                {"id": "c2", "type": "function", "function": {"name": "find", "arguments": "{broken"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "{\"state\": \"sent\"}"},
            {"role": "assistant", "content": "It was sent."},
        ]})
    }

    fn tools() -> Json {
        json!([{"type": "function", "function": {"name": "find", "description": "Finds", "parameters": {}}}])
    }

    fn spans(calls: &Calls) -> Vec<Official> {
        let read = calls.batches.iter().flat_map(|batch| {
            let read = ExportTraceServiceRequest::decode(batch.body.as_slice()).unwrap();
            let spans: Vec<Official> = read
                .resource_spans
                .into_iter()
                .flat_map(|of| of.scope_spans)
                .flat_map(|scoped| scoped.spans)
                .collect();
            assert_eq!(spans.len(), batch.spans);
            spans
        });
        read.collect()
    }

    fn text(span: &Official, name: &str) -> String {
        let found = span.attributes.iter().find(|kv| kv.key == name).and_then(|kv| kv.value.clone());
        match found.and_then(|any| any.value) {
            Some(any_value::Value::StringValue(text)) => text,
            other => panic!("{name} is {other:?}"),
        }
    }

    fn parsed(span: &Official, name: &str) -> Json {
        serde_json::from_str(&text(span, name)).unwrap()
    }

    #[test]
    fn a_call_has_what_was_said_before_it_what_it_answered_and_the_tools() {
        let calls = made(&json!([run(1)]), &tools(), 100, NOW).unwrap();
        let spans = spans(&calls);
        assert_eq!((spans.len(), calls.runs, calls.batches.len()), (2, 1, 1));
        let system = json!({"role": "system", "parts": [{"type": "text", "content": "Be kind."}]});
        let user = json!({"role": "user", "parts": [{"type": "text", "content": "Where is order 1?"}]});
        let asked = json!([
            {"type": "tool_call", "id": "c1", "name": "find", "arguments": {"order": 7}},
            {"type": "tool_call", "id": "c2", "name": "find", "arguments": "{broken"},
        ]);
        let told = json!({"type": "tool_call_response", "id": "c1", "response": "{\"state\": \"sent\"}"});
        let said = json!({"type": "text", "content": "It was sent."});
        assert_eq!(parsed(&spans[0], "gen_ai.input.messages"), json!([system, user]));
        assert_eq!(
            parsed(&spans[0], "gen_ai.output.messages"),
            json!([{"role": "assistant", "parts": asked, "finish_reason": "tool_calls"}])
        );
        assert_eq!(
            parsed(&spans[1], "gen_ai.input.messages"),
            json!([system, user, {"role": "assistant", "parts": asked}, {"role": "tool", "parts": [told]}])
        );
        assert_eq!(
            parsed(&spans[1], "gen_ai.output.messages"),
            json!([{"role": "assistant", "parts": [said], "finish_reason": "stop"}])
        );
        let tool = json!([{"type": "function", "name": "find", "description": "Finds", "parameters": {}}]);
        assert_eq!(parsed(&spans[1], "gen_ai.tool.definitions"), tool);
        assert_eq!(text(&spans[1], "gen_ai.operation.name"), "chat");
        assert_eq!(spans[0].trace_id, spans[1].trace_id);
        assert!(spans[0].end_time_unix_nano < spans[1].start_time_unix_nano);
        assert_eq!(calls.sizes.iter().sum::<usize>(), spans.iter().map(|s| s.encoded_len()).sum::<usize>());
    }

    #[test]
    fn runs_take_turns_ids_are_their_own_and_batches_have_one_size() {
        let runs = Json::Array((0..25).map(run).collect());
        let calls = made(&runs, &tools(), 7, NOW).unwrap();
        let spans = spans(&calls);
        assert_eq!(spans.len(), 50);
        // Twenty runs begin before the first goes on, and the last five begin when those are done.
        let traces: Vec<&Vec<u8>> = spans.iter().map(|span| &span.trace_id).collect();
        assert_eq!(traces[..20], traces[20..40]);
        assert_eq!(traces[40..45], traces[45..]);
        assert_eq!(traces.iter().collect::<BTreeSet<_>>().len(), 25);
        assert_eq!(spans.iter().map(|span| &span.span_id).collect::<BTreeSet<_>>().len(), 50);
        let counts: Vec<usize> = calls.batches.iter().map(|batch| batch.spans).collect();
        assert_eq!(counts, [7, 7, 7, 7, 7, 7, 7, 1]);
        assert_eq!((calls.first(1), calls.first(8), calls.first(49)), ((7, 1), (14, 2), (49, 7)));
        assert_eq!(calls.first(1_000), (50, 8));
        assert!(calls.sizes.is_sorted());
        // Another moment, other ids.
        let later = made(&runs, &tools(), 7, NOW + 1).unwrap();
        assert!(super::tests::spans(&later).iter().all(|span| !traces.contains(&&span.trace_id)));
    }

    #[test]
    fn runs_that_are_not_what_they_should_be_are_named() {
        for (runs, says) in [
            (json!({}), "not a list"),
            (json!([run(1), {}]), "run 1: it has no 'traj'"),
            (json!([{"traj": [{"content": "x"}]}]), "run 0: a message has no 'role'"),
            (json!([{"traj": [{"role": "user", "content": 7}]}]), "not text: 7"),
        ] {
            assert!(made(&runs, &tools(), 7, NOW).unwrap_err().contains(says), "{runs}");
        }
        assert!(made(&json!([]), &json!([{}]), 7, NOW).unwrap_err().contains("no 'function'"));
        let error = load(Path::new("nowhere"), 7, NOW).unwrap_err();
        assert!(
            error.contains("nowhere/gpt-4o-airline.json") && error.contains("PRECEDENT_SHARED_DATA"),
            "{error}"
        );
    }

    /// The data itself, where it is.
    #[test]
    fn the_tau_bench_runs_are_two_hundred_of_2454_calls() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        match load(&place(root), 100, NOW) {
            Ok(calls) => assert_eq!((calls.runs, calls.sizes.len(), calls.batches.len()), (200, 2_454, 25)),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

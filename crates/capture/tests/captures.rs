//! Requests as five instrumentations sent them for the same two calls: the same view, but for what a dialect does not send.
//!
//! The captures are not part of the repository; `PRECEDENT_SHARED_DATA` names the folder that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use precedent_capture::chain::{self, Evidence};
use precedent_capture::otlp::{self, Encoding, Signal};
use precedent_capture::redact::Rules;
use precedent_capture::view::*;
use precedent_capture::wire::Fields;
use precedent_core::Event;
use serde_json::Value;

/// The folder of captures, or nothing, and then it says so.
fn captures() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("PRECEDENT_SHARED_DATA").map_or(beside, PathBuf::from);
    let path = data.join("otlp-captures");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there; PRECEDENT_SHARED_DATA names the folder of the data", path.display());
    None
}

/// The events of one instrumentation's requests.
fn events(folder: &Path, encoding: Encoding) -> Vec<Event> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let rules = Rules::default();
    let mut events = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let signal = match name.contains("traces") {
            true => Signal::Traces,
            false => Signal::Logs,
        };
        let wanted = if encoding == Encoding::Json { ".otlp.json" } else { ".bin" };
        if !name.ends_with(wanted) {
            continue;
        }
        let body = std::fs::read(&file).unwrap();
        let count = otlp::check(signal, encoding, &body).unwrap();
        let items: Vec<_> = otlp::items(signal, encoding, &body).collect();
        assert_eq!(items.len() as u64, count);
        for item in items {
            let written = item.written(false, &rules).unwrap().expect("all of them are about AI");
            assert_eq!(written.gap, None);
            let data = written.event.data().unwrap();
            let holds = data.windows(item.raw().len()).any(|window| window == item.raw());
            assert!(holds, "the record's own bytes are in the data");
            events.push(written.event);
        }
    }
    events
}

const DIALECTS: [(&str, Dialect, bool); 5] = [
    ("genai_span", Dialect::SemanticConventions, true),
    ("genai_event", Dialect::SemanticConventions, true),
    ("tl", Dialect::OpenLlmetry, true),
    ("oi", Dialect::OpenInference, true),
    ("v2_content", Dialect::MessageEvents, false),
];

#[test]
fn five_dialects_give_one_view_but_for_what_they_do_not_send() {
    let Some(captures) = captures() else { return };
    let mut seen: Vec<(&str, Vec<ModelCall>)> = Vec::new();
    for (name, dialect, sends_tools) in DIALECTS {
        let mut of_encodings = Vec::new();
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let events = events(&captures.join(name), encoding);
            let view = View::of_new(&events);
            assert_eq!(view.unread, []);
            assert_eq!(view.activities, []);
            assert_eq!(view.calls.len(), 2, "{name}");
            for call in &view.calls {
                assert_eq!(call.dialect, dialect, "{name}");
                assert_eq!(call.fidelity, Fidelity::Reconstructable);
                assert_eq!(call.notes, [""; 0], "{name}");
                let missing = if sends_tools { vec![] } else { vec![Missing::ToolDefinitions] };
                assert_eq!(call.missing, missing, "{name}");
            }
            of_encodings.push(view.calls);
        }
        let json = of_encodings.pop().unwrap();
        let mut calls = of_encodings.pop().unwrap();
        for (call, other) in calls.iter_mut().zip(json) {
            // The events have other ids, since the bytes are others.
            call.events = other.events.clone();
            assert_eq!(*call, other, "{name}: protobuf and JSON");
        }
        seen.push((name, calls));
    }
    let (_, first) = &seen[0];
    assert_eq!(first[0].model_requested.as_deref(), Some("gpt-4o"));
    assert_eq!(first[0].model_served.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(first[0].tool_calls().count(), 1);
    assert_eq!(first[1].messages.as_ref().unwrap().len(), 3);
    assert_eq!(first[1].output_text().as_deref(), Some("Your order #W2378156 was shipped on 2024-05-14."));
    for (name, calls) in &seen {
        for (at, (call, expected)) in calls.iter().zip(first).enumerate() {
            let (fields, of_first) = (fields(call), fields(expected));
            let names: BTreeSet<&String> = fields.keys().chain(of_first.keys()).collect();
            let mut differs: Vec<String> = names
                .into_iter()
                .filter(|field| match (fields.get(*field), of_first.get(*field)) {
                    // Each capture is a run of its own: there these have to be, and not to be the same.
                    (Some(_), Some(_)) if OF_THE_RUN.contains(&field.as_str()) => false,
                    (one, other) => one != other,
                })
                .cloned()
                .collect();
            let mut excepted: Vec<&str> = EXCEPTIONS
                .iter()
                .filter(|(dialect, calls, ..)| dialect == name && calls.contains(&at))
                .map(|(_, _, field, _)| *field)
                .collect();
            differs.sort();
            excepted.sort_unstable();
            assert_eq!(differs, excepted, "{name}, call {at}: {fields:#?}\n{of_first:#?}");
        }
    }
}

/// What is of the run and not of the call.
const OF_THE_RUN: [&str; 6] = ["events", "trace", "span", "server", "times.started", "times.ended"];

/// Where the view of a capture differs from that of the first, in which of its calls, and why: nothing else may, and each of these does.
const EXCEPTIONS: &[(&str, &[usize], &str, &str)] = &[
    ("tl", &[0, 1], "dialect", "it is one of its own"),
    ("tl", &[0, 1], "streamed", "it says whether the answer was streamed, and the others do not"),
    ("tl", &[0, 1], "usage.reasoning", "it sends the count of reasoning tokens"),
    ("tl", &[0, 1], "usage.total", "it sends the total, which is not computed for the others"),
    ("oi", &[0, 1], "dialect", "it is one of its own"),
    ("oi", &[0, 1], "server", "it does not send the host that was called"),
    ("oi", &[0, 1], "usage.reasoning", "the provider's answer that it keeps has the count"),
    ("oi", &[0, 1], "usage.total", "it sends the total"),
    ("v2_content", &[0, 1], "dialect", "it is one of its own"),
    ("v2_content", &[0, 1], "details.system_fingerprint", "it does not send the fingerprint"),
    ("v2_content", &[0, 1], "missing", "it sends no definitions of tools"),
    ("v2_content", &[0, 1], "tools", "it sends no definitions of tools"),
    ("v2_content", &[0, 1], "usage.cache_read", "it sends no count of cached tokens"),
];

/// The fields of a view by name, with those within usage, times, details and parameters each on its own.
fn fields(call: &ModelCall) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    let Value::Object(all) = serde_json::to_value(call).unwrap() else { panic!("a view is an object") };
    for (name, value) in all {
        match value {
            Value::Object(inner) => {
                fields.extend(inner.into_iter().map(|(of, value)| (format!("{name}.{of}"), value)));
            }
            value => drop(fields.insert(name, value)),
        }
    }
    fields
}

#[test]
fn calls_with_traces_of_their_own_are_one_conversation_by_their_prefix() {
    let Some(captures) = captures() else { return };
    for (name, _, _) in DIALECTS {
        let events = events(&captures.join(name), Encoding::Protobuf);
        let calls = View::of_new(&events).calls;
        assert_ne!(calls[0].trace, calls[1].trace);
        let found = chain::conversations(&calls);
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!((found[0].evidence, &found[0].calls[..]), (Evidence::Prefix, &[0, 1][..]), "{name}");
    }
}

#[test]
fn hostile_changes_of_real_requests_are_errors_or_events_and_never_a_panic() {
    let Some(captures) = captures() else { return };
    let rounds: u64 = match std::env::var("PRECEDENT_FUZZ_ITERATIONS") {
        Ok(text) => text.parse().expect("PRECEDENT_FUZZ_ITERATIONS is a number"),
        Err(_) => 300,
    };
    let seed = 0x5eed_u64;
    println!("seed {seed:#x}, {rounds} rounds");
    let mut state = seed;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let rules = Rules::default();
    let mut recorded = 0;
    for (folder, file, signal, encoding) in [
        ("genai_event", "run-012_v1_logs.bin", Signal::Logs, Encoding::Protobuf),
        ("oi", "run-001_v1_traces.bin", Signal::Traces, Encoding::Protobuf),
        ("v2_content", "logs.otlp.json", Signal::Logs, Encoding::Json),
    ] {
        let original = std::fs::read(captures.join(folder).join(file)).unwrap();
        for _ in 0..rounds {
            let mut body = original.clone();
            for _ in 0..1 + random(4) {
                let at = random(body.len());
                match random(4) {
                    0 => body.truncate(at.max(1)),
                    1 => body[at] = random(256) as u8,
                    2 => body[at] ^= 1 << random(8),
                    _ => {
                        let end = (at + random(40)).min(body.len());
                        body.drain(at..end);
                        body.push(0);
                    }
                }
            }
            if otlp::check(signal, encoding, &body).is_err() {
                continue;
            }
            let mut events = Vec::new();
            for item in otlp::items(signal, encoding, &body) {
                if let Some(written) = item.written(true, &rules).unwrap() {
                    if encoding == Encoding::Protobuf {
                        let data = written.event.data().unwrap();
                        assert!(Fields::new(data).all(|field| field.is_ok()));
                    }
                    events.push(written.event);
                    recorded += 1;
                }
            }
            let view = View::of_new(&events);
            chain::conversations(&view.calls);
            serde_json::to_string(&view).unwrap();
        }
    }
    assert!(recorded > 0);
}

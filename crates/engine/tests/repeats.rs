//! Real agent runs, recorded as different recorders see them, in as little space as promised, and byte for byte.
//!
//! `cargo test -p precedent-engine --test repeats -- --nocapture` shows what the bytes are.

use std::path::Path;

use futures_util::future::BoxFuture;
use precedent_core::{Append, Direction, Event, LogName, Position, Read, Store};
use precedent_engine::{EmbeddedStore, Options};
use serde_json::{Value, json};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/tau-bench");

/// Nothing here waits for long: the engine answers from threads of its own.
fn block_on<T>(future: BoxFuture<'_, T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut future = future;
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn load(name: &str) -> Option<Value> {
    match std::fs::read(Path::new(DATA).join(name)) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).expect("the data is JSON")),
        Err(_) => {
            eprintln!("skipped: the agent runs ({name}) are not beside this repository");
            None
        }
    }
}

/// A model call: the run, its number in it, what it was given and what it answered.
struct Call<'a> {
    run: usize,
    number: usize,
    messages: &'a [Value],
    answer: &'a Value,
}

fn calls(runs: &[Value], interleaved: bool) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    for (run, value) in runs.iter().enumerate() {
        let turns = value["traj"].as_array().expect("a run has a trajectory");
        let answers = turns.iter().enumerate().filter(|(_, turn)| turn["role"] == "assistant");
        for (number, (at, answer)) in answers.enumerate() {
            calls.push(Call { run, number, messages: &turns[..at], answer });
        }
    }
    if interleaved {
        calls.sort_by_key(|call| (call.number, call.run));
    }
    calls
}

/// Records the events one append at a time, closes the log, reads all of it back, and answers how large it is.
fn record(what: &str, limit: u64, events: impl Iterator<Item = Event>) {
    let dir = tempfile::tempdir().expect("a directory");
    let name = LogName::default();
    let events: Vec<Event> = events.collect();
    let open = |pack: bool| {
        let mut options = Options::default();
        options.pack = pack;
        EmbeddedStore::open(&dir.path().join("store"), options).expect("opens")
    };
    let store = open(false);
    for event in &events {
        block_on(store.append(&name, Append::from(event.clone()))).expect("is recorded");
    }
    let plain = block_on(store.examine(&name)).expect("is examined").0;
    let frames = block_on(store.head(&name)).expect("has a head").frames;
    drop(store);
    // Written to once more, and closed: then what is sealed is packed.
    let store = open(true);
    let last = Event::builder("urn:test", "last", "test.ended").build().expect("an event");
    block_on(store.append(&name, last.into())).expect("is recorded");
    drop(store);
    let store = open(true);
    let (usage, findings) = block_on(store.examine(&name)).expect("is examined");
    assert!(findings.is_empty(), "{findings:?}");
    let (mut read, mut at, mut entries) = (Read::default(), 0, 0);
    loop {
        let page = block_on(store.read(&name, &read)).expect("is read");
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        for recorded in page.events {
            if let Some(event) = events.get(at) {
                assert!(recorded.event == *event, "{what}: event {at} came back other than it was sent");
            }
            entries += recorded.entry.len();
            at += 1;
        }
        match page.next {
            Some(next) => read = read.continued(next),
            None => break,
        }
    }
    assert_eq!(at, events.len() + 1);
    // Any one of them by itself.
    for position in (0..events.len()).step_by(97) {
        let read = Read {
            before: Some(Position(position as u64 + 1)),
            direction: Direction::Backward,
            limit: Some(1),
            ..Read::default()
        };
        let page = block_on(store.read(&name, &read)).expect("is read");
        assert!(page.events[0].event == events[position], "{what}: event {position} by itself");
    }
    let report = block_on(store.verify(&name, None, &|_, _| ())).expect("is verified");
    assert!(report.is_ok(), "{what}: {:?}", report.problems);
    let sent = usage.data_bytes;
    let (salts, headers) = (32 * events.len(), 184 * frames as usize + 10 * events.len());
    println!(
        "{what}: {} events, {sent} bytes as sent; before packing {} (entries {entries}, salts {salts}, headers about {headers}, \
         content and padding {}); packed {}",
        events.len(),
        plain.log_bytes,
        plain.log_bytes as usize - entries - salts - headers,
        usage.log_bytes
    );
    assert!(usage.log_bytes < limit, "{what}: {} bytes of log for {sent} as sent", usage.log_bytes);
    assert!(
        plain.log_bytes < sent / 4,
        "{what}: {} bytes before packing for {sent} as sent",
        plain.log_bytes
    );
}

fn native(call: &Call<'_>) -> Event {
    let Call { run, number, messages, answer } = call;
    Event::builder("urn:test", format!("{run}-{number}"), "ai.model.called")
        .stream(format!("run/{run}"))
        .json(&json!({"messages": messages, "response": answer}))
        .build()
        .expect("an event")
}

#[test]
fn two_hundred_runs_one_after_the_other_take_less_than_two_megabytes() {
    let Some(runs) = load("gpt-4o-airline.json") else { return };
    let runs = runs.as_array().expect("an array");
    record("one after the other", 2_000_000, calls(runs, false).iter().map(native));
}

#[test]
fn two_hundred_runs_interleaved_take_less_than_two_megabytes() {
    let Some(runs) = load("gpt-4o-airline.json") else { return };
    let runs = runs.as_array().expect("an array");
    record("all interleaved", 2_000_000, calls(runs, true).iter().map(native));
}

#[test]
fn calls_as_a_proxy_sees_them_take_less_than_two_and_a_half_megabytes() {
    let (Some(runs), Some(tools)) = (load("gpt-4o-airline.json"), load("airline-tools.json")) else { return };
    let runs = runs.as_array().expect("an array");
    let event = |call: &Call<'_>| {
        let Call { run, number, messages, answer } = call;
        let request = json!({"model": "gpt-4o", "messages": messages, "tools": tools, "temperature": 0.0});
        let response = json!({
            "id": format!("chatcmpl-{run:04}{number:04}"),
            "created": 1_790_000_000 + run * 100 + number,
            "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}],
        });
        Event::builder("urn:proxy", format!("{run}-{number}"), "ai.model.called")
            .json(&json!({"request": request, "response": response}))
            .build()
            .expect("an event")
    };
    record("as a proxy sees them", 2_500_000, calls(runs, true).iter().map(event));
}

#[test]
fn calls_as_spans_take_less_than_two_and_a_half_megabytes() {
    let (Some(runs), Some(tools)) = (load("gpt-4o-airline.json"), load("airline-tools.json")) else { return };
    let runs = runs.as_array().expect("an array");
    let event = |call: &Call<'_>| {
        let Call { run, number, messages, answer } = call;
        // Numbers that look random, and do not repeat.
        let random = |salt: u64| {
            (*run as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ (*number as u64 + salt).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        let (trace, span) = (format!("{:016x}{:016x}", random(1), random(2)), format!("{:016x}", random(3)));
        let text = |value: &Value| json!({"stringValue": value.to_string()});
        let data = json!({
            "a_traceId": trace, "a_spanId": span, "a_start": random(4).to_string(), "a_end": random(5).to_string(),
            "attributes": [
                {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                {"key": "gen_ai.input.messages", "value": text(&json!(messages))},
                {"key": "gen_ai.output.messages", "value": text(&json!([answer]))},
                {"key": "gen_ai.tool.definitions", "value": text(&tools)},
            ],
        });
        Event::builder("urn:otlp", format!("{trace}-{span}"), "ai.model.called")
            .json(&data)
            .build()
            .expect("an event")
    };
    record("as spans", 2_500_000, calls(runs, true).iter().map(event));
}

//! What it costs to look at decisions in a large log: `cargo run --release -p precedent-cli --example decisions -- DIR EVENTS`.
//!
//! Records so many events into DIR, unless a log of that size is there already: decisions of ten events each, of agents that work
//! beside each other by hundreds - what was asked, two calls of a model, what a tool gave, the decision, and later its outcome; every
//! tenth is overridden. Then shows one decision and lists the first page, in process. Medians, page cache warm. Figures of one
//! machine, for comparison in one run: `cargo xtask show` makes the directory, measures the binary on it too, and takes it away.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use precedent::{Append, Event, Log, OpenOptions, Result};
use precedent_decisions::list::{Filter, list};
use precedent_decisions::{Ask, Shown, facts, show};
use serde_json::{Value, json};

/// Events of one decision.
const STEPS: u64 = 10;
/// Agents that work beside each other.
const BESIDE: u64 = 100;
/// How often each look is measured.
const LOOKS: u64 = 101;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (Some(dir), Some(Ok(events))) = (args.first(), args.get(1).map(|text| text.parse::<u64>())) else {
        eprintln!("error: expected a directory and the number of events");
        return ExitCode::from(2);
    };
    match measure(dir, events).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(dir: &str, events: u64) -> Result<()> {
    let url = format!("file:{dir}");
    let round = STEPS * BESIDE;
    let rounds = events.div_ceil(round).max(1);
    let log = precedent::open(&url, OpenOptions::default()).await?;
    let had = log.head().await?.size;
    if had < rounds * round {
        let start = Instant::now();
        for n in had / round..rounds {
            log.append(Append::new(a_round(n)?)).await?;
        }
        println!("recorded   {} events in {:.1} s", rounds * round - had, start.elapsed().as_secs_f64());
    }
    log.store().close().await?;
    drop(log);

    let log = precedent::open(&url, OpenOptions::read()).await?;
    let decisions = rounds * BESIDE;
    let any = |n: u64| mixed(n) % decisions;
    let ask = |n: u64| Ask { what: name(any(n)), ..Ask::default() };
    let first = Instant::now();
    shown(&log, ask(7)).await?;
    println!("show       {} the first one, in process", time(first.elapsed()));
    let mut all = Vec::new();
    for n in 0..LOOKS {
        let start = Instant::now();
        shown(&log, ask(n)).await?;
        all.push(start.elapsed());
    }
    println!("show       {} one decision, in process", median(all));
    let pages = [
        ("the first page of decisions", Filter::default()),
        (
            "the first page with an outcome",
            Filter { outcomes: vec!["repaid=false".parse()?], ..Filter::default() },
        ),
        ("the first page of a model", Filter { model: Some("risk-3".into()), ..Filter::default() }),
    ];
    for (what, filter) in pages {
        let mut all = Vec::new();
        for _ in 0..LOOKS {
            let start = Instant::now();
            assert!(!list(&log, &filter).await?.decisions.is_empty());
            all.push(start.elapsed());
        }
        println!("decisions  {} {what}, in process", median(all));
    }
    Ok(())
}

async fn shown(log: &Log, ask: Ask) -> Result<()> {
    match show(log, &ask).await? {
        // The outcome of a decision that was made last can be missing.
        Shown::Record(record) => assert!(record.steps.len() as u64 >= STEPS / 2),
        Shown::Nothing(nothing) => panic!("{}", nothing.message),
    }
    Ok(())
}

fn name(decision: u64) -> String {
    format!("decision-{decision}")
}

/// The events of a hundred decisions, interleaved, and the outcomes of those made ten rounds before.
fn a_round(round: u64) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for step in 0..STEPS {
        for agent in 0..BESIDE {
            events.push(event(round * BESIDE + agent, step)?);
        }
    }
    Ok(events)
}

fn event(decision: u64, step: u64) -> Result<Event> {
    let (id, source) = (name(decision), "urn:example:agents");
    let stream = format!("application/{decision}");
    let asked =
        json!({"role": "user", "content": format!("Application {decision}: {}", words(decision, 60))});
    let system = json!({"role": "system", "content": "You assess loan applications by policy credit-policy@2026-10. Look up the score first."});
    let call = json!({"id": "c1", "type": "function", "function": {"name": "score", "arguments": format!("{{\"id\":{decision}}}")}});
    let asks = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let result = json!({"role": "tool", "tool_call_id": "c1", "content": words(decision + 1, 80)});
    let answer = json!({"role": "assistant", "content": words(decision + 2, 20)});
    let model = format!("risk-{}", decision % 7);
    let called = |messages: Value, response: &Value| json!({"request": {"model": model, "messages": messages}, "response": response, "usage": {"input": 812, "output": 21}});
    let trace = format!("00-{:032x}-{:016x}-01", decision + 1, step + 1);
    let plain = |kind: &str, data: Value| {
        let event = Event::builder(source, format!("{id}/{step}"), kind).json(&data).stream(&stream);
        event.attribute("decisionid", &*id).attribute("traceparent", &*trace).tag("model", &model)
    };
    let outcome = |decision: u64| {
        let event = facts::outcome(source, &format!("{}/repaid", name(decision)), &name(decision));
        event.value("repaid", !decision.is_multiple_of(10)).stream(&format!("application/{decision}")).build()
    };
    match step {
        0 => plain("ai.input.received", json!({"message": asked})).build(),
        1 => plain(
            "ai.retrieval.performed",
            json!({"query": "policy", "documents": [words(decision + 3, 60)]}),
        )
        .build(),
        2 => plain("ai.model.called", called(json!([system, asked]), &asks)).build(),
        3 => plain("ai.tool.called", json!({"call": call, "result": result})).build(),
        4 => plain("ai.model.called", called(json!([system, asked, asks, result]), &answer)).build(),
        5 => plain("ai.evaluation.recorded", json!({"name": "groundedness", "value": 0.9})).build(),
        6 => {
            let made = json!({"decision": "decline", "score": 0.31, "threshold": 0.5, "model": model});
            Event::builder(source, &*id, "ai.decision.made")
                .json(&made)
                .stream(&stream)
                .attribute("decisionid", &*id)
                .attribute("traceparent", &*trace)
                .tag("model", &model)
                .build()
        }
        7 if decision.is_multiple_of(10) => {
            let over = facts::overridden(source, &format!("{id}/override"), &id).person("officer-12");
            over.from("decline").to("approve").stream(&stream).build()
        }
        7 => plain("ai.policy.evaluated", json!({"policy": "credit", "result": "allow"})).build(),
        8 => plain("ai.feedback.received", json!({"value": 1})).build(),
        // What came of one that was made ten rounds earlier; the first have to wait for none.
        _ if decision >= 10 * BESIDE => outcome(decision - 10 * BESIDE),
        _ => plain("custom.note.taken", json!({"text": words(decision + 4, 20)})).build(),
    }
}

/// So many words that are the same every time, and another number's are others.
fn words(seed: u64, count: u64) -> String {
    const WORDS: [&str; 16] = [
        "income", "score", "bureau", "proof", "month", "arrears", "policy", "least", "declared", "employer",
        "since", "verified", "amount", "term", "rate", "account",
    ];
    let word =
        |n: u64| format!("{} {}", WORDS[(mixed(seed * 1_000 + n) % 16) as usize], mixed(seed + n) % 1_000);
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// The finalizer of SplitMix64: numbers that look random and are the same every time.
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn median(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    time(all[all.len() / 2])
}

fn time(duration: Duration) -> String {
    format!("{:>7.1} ms", duration.as_secs_f64() * 1e3)
}

//! A list tells of each decision what its record tells, by every way of belonging, and costs no more as the log grows.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use precedent_core::*;
use precedent_decisions::list::{Entry, Filter, Wanted, list};
use precedent_decisions::{Ask, Bounds, By, facts};
use serde_json::json;
use support::watched::Watched;
use support::{asked, log, of, put};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER_TRACE: &str = "00-aaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn at(remarks: &[precedent_decisions::list::Remark]) -> Vec<Position> {
    remarks.iter().map(|remark| remark.position).collect()
}

async fn rows(log: &Log, filter: Filter) -> Vec<Entry> {
    let page = list(log, &Filter { limit: 1_000, ..filter }).await.unwrap();
    assert_eq!(page.next, None);
    page.decisions
}

async fn with_outcome(log: &Log, wanted: &str) -> Vec<Entry> {
    rows(log, Filter { outcomes: vec![wanted.parse().unwrap()], ..Filter::default() }).await
}

fn keys(rows: &[Entry]) -> Vec<&str> {
    rows.iter().map(|row| row.key.value.as_str()).collect()
}

/// An outcome, an override or feedback that names what is given, and no decision.
fn loose(id: &str, event_type: &str, names: &[(&str, &str)]) -> Event {
    let mut event =
        Event::builder("urn:test", id, event_type).json(&json!({"reward": 1, "to": "x", "person": "p"}));
    for (name, value) in names {
        event = match *name {
            "stream" => event.stream(*value),
            name => event.attribute(name, *value),
        };
    }
    event.build().unwrap()
}

/// Each way in which an outcome belongs to a decision it does not name: what the decision, what a call, and what the outcome names.
type Names = &'static [(&'static str, &'static str)];
const WAYS: &[(&str, Names, Names, Names)] = &[
    ("by its correlation", &[("correlationid", "c")], &[], &[("correlationid", "c")]),
    ("by its trace", &[("traceparent", TRACE)], &[], &[("traceparent", TRACE)]),
    ("by its stream", &[("stream", "s")], &[], &[("stream", "s")]),
    (
        "by the trace of a call",
        &[],
        &[("decisionid", "d"), ("traceparent", TRACE)],
        &[("traceparent", TRACE)],
    ),
    (
        "by the correlation of a call",
        &[],
        &[("decisionid", "d"), ("correlationid", "c")],
        &[("correlationid", "c")],
    ),
    (
        "by the trace of a call of its correlation",
        &[("correlationid", "c")],
        &[("correlationid", "c"), ("traceparent", TRACE)],
        &[("traceparent", TRACE)],
    ),
    ("by the stream of a call", &[], &[("decisionid", "d"), ("stream", "s")], &[("stream", "s")]),
];

#[tokio::test]
async fn an_outcome_an_override_and_feedback_join_by_whatever_they_belong() {
    for (way, decision, call, outcome) in WAYS {
        let log = log();
        let other =
            facts::decision("urn:test", "other").decided("y").stream("elsewhere").traceparent(OTHER_TRACE);
        put(&log, other.build().unwrap()).await;
        let mut made = Event::builder("urn:test", "d", "ai.decision.made").attribute("decisionid", "d");
        for (name, value) in *decision {
            made = match *name {
                "stream" => made.stream(*value),
                name => made.attribute(name, *value),
            };
        }
        put(&log, made.json(&json!({"decision": "x"})).build().unwrap()).await;
        if !call.is_empty() {
            put(&log, loose("call", "ai.tool.called", call)).await;
        }
        for (id, kind) in
            [("o", "ai.outcome.observed"), ("v", "ai.decision.overridden"), ("f", "ai.feedback.received")]
        {
            put(&log, loose(id, kind, outcome)).await;
        }
        let record = of(&log, "d").await;
        let listed = rows(&log, Filter::default()).await;
        assert_eq!(keys(&listed), ["d", "other"], "{way}");
        let row = &listed[0];
        assert_eq!(
            [row.outcomes.len(), row.overrides.len(), row.feedback.len(), listed[1].outcomes.len()],
            [1, 1, 1, 0],
            "{way}"
        );
        assert_eq!(at(&row.outcomes), record.milestones.outcomes, "{way}");
        assert_eq!(at(&row.overrides), record.milestones.overrides, "{way}");
        assert_eq!(at(&row.feedback), record.milestones.feedback, "{way}");
        let found = with_outcome(&log, "reward=1").await;
        assert_eq!(keys(&found), ["d"], "{way}");
        assert_eq!(&found[0], row, "{way}");
        assert_eq!(with_outcome(&log, "reward=2").await, [], "{way}");
    }
}

#[tokio::test]
async fn an_outcome_of_a_trace_is_told_in_every_decision_of_it_and_one_that_names_a_decision_in_that_alone() {
    let log = log();
    for id in ["a", "b", "c"] {
        let made = facts::decision("urn:test", id).decided("x");
        let made = if id == "c" { made } else { made.traceparent(TRACE) };
        put(&log, made.build().unwrap()).await;
    }
    put(&log, loose("o", "ai.outcome.observed", &[("traceparent", TRACE)])).await;
    let named = facts::outcome("urn:test", "p", "a").value("reward", 2).traceparent(TRACE).build().unwrap();
    put(&log, named).await;
    assert_eq!(keys(&with_outcome(&log, "reward=1").await), ["a", "b"]);
    assert_eq!(keys(&with_outcome(&log, "reward=2").await), ["a"]);
    // One row a page asks for; those that one outcome belongs to stay together.
    let filter = Filter { outcomes: vec!["reward=1".parse().unwrap()], limit: 1, ..Filter::default() };
    let page = list(&log, &filter).await.unwrap();
    assert_eq!((keys(&page.decisions), page.decisions.len()), (vec!["a", "b"], 2));
    let rest = Filter { before: page.next, ..filter };
    assert!(page.next.is_none() || list(&log, &rest).await.unwrap().decisions.is_empty());
}

/// Numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const KINDS: [&str; 7] = [
    "ai.decision.made",
    "ai.decision.made",
    "ai.tool.called",
    "ai.model.called",
    "ai.decision.overridden",
    "ai.outcome.observed",
    "ai.feedback.received",
];

/// Events that name decisions, correlations, traces and streams as it happens.
async fn tangled(seed: u64) -> Log {
    let (log, mut numbers) = (log(), Numbers(seed));
    for n in 0..numbers.below(30) + 5 {
        let kind = KINDS[numbers.below(7) as usize];
        let mut event = Event::builder("urn:test", n.to_string(), kind)
            .json(&json!({"reward": numbers.below(3), "decision": "x", "to": "y", "person": "p", "name": "t", "result": n}));
        if numbers.below(3) == 0 {
            event = event.attribute("decisionid", format!("d{}", numbers.below(4)));
        }
        if numbers.below(4) == 0 {
            event = event.attribute("correlationid", format!("c{}", numbers.below(4)));
        }
        if numbers.below(4) == 0 {
            event =
                event.attribute("traceparent", format!("00-{:032x}-{:016x}-01", numbers.below(4) + 1, n + 1));
        }
        if numbers.below(4) == 0 {
            event = event.stream(format!("s{}", numbers.below(4)));
        }
        put(&log, event.build().unwrap()).await;
    }
    log
}

#[tokio::test]
async fn rows_of_tangled_logs_tell_what_their_records_tell() {
    let (mut compared, mut found) = (0, 0);
    for seed in 0..300 {
        let log = tangled(seed).await;
        let all = rows(&log, Filter::default()).await;
        let has_decisions = all.iter().any(|row| row.decision.is_some());
        for row in &all {
            let ask = Ask { what: row.key.value.clone(), by: Some(row.key.by), ..Ask::default() };
            let record = asked(&log, ask).await;
            // A record by a weaker name also shows what it has of decisions, which have rows of their own.
            if row.key.by == By::Decision || record.decisions.is_empty() {
                assert_eq!(at(&row.outcomes), record.milestones.outcomes, "seed {seed}: {row:#?}");
                assert_eq!(at(&row.overrides), record.milestones.overrides, "seed {seed}: {row:#?}");
                assert_eq!(at(&row.feedback), record.milestones.feedback, "seed {seed}: {row:#?}");
                compared += 1;
            }
        }
        // What is found by an outcome is what tells of one that says so.
        if !has_decisions {
            continue;
        }
        for wanted in ["reward=0", "reward=1"] {
            let says: Wanted = wanted.parse().unwrap();
            let page = log.page(&Read::default()).await.unwrap();
            let saying: BTreeSet<Position> = page
                .events
                .iter()
                .filter(|event| event.event.event_type() == "ai.outcome.observed" && says.matches(event))
                .map(|event| event.position)
                .collect();
            let tells = |row: &&Entry| at(&row.outcomes).iter().any(|position| saying.contains(position));
            let expected: BTreeSet<Position> = all.iter().filter(tells).map(|row| row.position).collect();
            let listed = with_outcome(&log, wanted).await;
            let made = listed.iter().filter(|row| row.decision.is_some());
            let positions: Vec<Position> = made.map(|row| row.position).collect();
            let once: BTreeSet<Position> = positions.iter().copied().collect();
            assert_eq!(once.len(), positions.len(), "seed {seed}, {wanted}: each once");
            assert_eq!(once, expected, "seed {seed}, {wanted}");
            // And none that says so is lost.
            let told: BTreeSet<Position> = listed.iter().flat_map(|row| at(&row.outcomes)).collect();
            assert!(told.is_superset(&saying), "seed {seed}, {wanted}: {saying:?} of {told:?}");
            found += once.len();
        }
    }
    assert!(compared > 500 && found > 100, "{compared} {found}");
}

/// So many decisions of one job and one stream, each with an outcome of its own, and one among them with one that names the job only.
async fn a_job(store: &Watched, decisions: usize) -> Log {
    let log = Log::new(Arc::new(store.clone()), LogName::default());
    for n in 0..decisions {
        let id = format!("d{n}");
        let made = facts::decision("urn:test", &id).decided("x").stream("scoring").correlation("job");
        let out = facts::outcome("urn:test", &format!("o{n}"), &id).value("reward", n % 2).stream("scoring");
        log.append(Append::new([made.build().unwrap(), out.build().unwrap()])).await.unwrap();
    }
    log
}

#[tokio::test]
async fn what_is_read_for_a_record_or_a_page_does_not_grow_with_the_log() {
    let mut costs = Vec::new();
    for decisions in [1_000, 4_000] {
        let store = Watched::new();
        let log = a_job(&store, decisions).await;
        store.read_since();
        let bounds = Bounds { stream_events_max: 100, linked_events_max: 100, ..Bounds::default() };
        let ask = Ask { what: format!("d{}", decisions / 2), bounds, ..Ask::default() };
        assert_eq!(asked(&log, ask).await.milestones.outcomes.len(), 1);
        let record = store.read_since();
        let page = list(&log, &Filter::default()).await.unwrap();
        assert!(page.decisions.len() == 20 && page.decisions.iter().all(|row| row.outcomes.len() == 1));
        let first = store.read_since();
        let outcomes = vec!["reward=1".parse().unwrap()];
        let page = list(&log, &Filter { outcomes, ..Filter::default() }).await.unwrap();
        assert_eq!(page.decisions.len(), 20);
        costs.push([record, first, store.read_since()]);
    }
    assert_eq!(costs[0], costs[1], "pages and events read of a log of 2,000 and one of 8,000 events");
    for (pages, events) in &costs[0] {
        assert!(*pages < 300 && *events < 6_000, "{costs:?}");
    }
}

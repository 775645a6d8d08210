//! What the tests of records and lists share.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use precedent_core::*;
use precedent_decisions::{Ask, At, Record, Shown, show};
use serde_json::Value;

pub(crate) fn log() -> Log {
    Log::new(Arc::new(MemoryStore::new()), LogName::default())
}

/// A log whose clock goes one second an append, from 2026-01-01T00:00:01Z.
pub(crate) fn ticking() -> Log {
    Log::new(Arc::new(ticking_store()), LogName::default())
}

pub(crate) fn ticking_store() -> MemoryStore {
    let start = Time::parse("2026-01-01T00:00:00Z").unwrap().as_micros();
    let count = AtomicU64::new(0);
    let clock =
        move || Time::from_micros(start + 1_000_000 * (1 + count.fetch_add(1, Ordering::SeqCst))).unwrap();
    MemoryStore::with_clock(Arc::new(clock))
}

pub(crate) async fn put(log: &Log, event: Event) -> Position {
    log.append(event).await.unwrap().events[0].position
}

pub(crate) fn event(id: &str, event_type: &str, decision: Option<&str>, data: Value) -> Event {
    let mut event = Event::builder("urn:test", id, event_type).json(&data);
    if let Some(decision) = decision {
        event = event.attribute("decisionid", decision);
    }
    event.build().unwrap()
}

pub(crate) async fn asked(log: &Log, ask: Ask) -> Record {
    match show(log, &ask).await.unwrap() {
        Shown::Record(record) => *record,
        Shown::Nothing(nothing) => panic!("{}", nothing.message),
    }
}

pub(crate) async fn of(log: &Log, what: &str) -> Record {
    asked(log, Ask { what: what.into(), ..Ask::default() }).await
}

pub(crate) async fn at(log: &Log, what: &str, at: &str) -> Record {
    asked(log, Ask { what: what.into(), at: Some(at.parse().unwrap()), ..Ask::default() }).await
}

pub(crate) async fn nothing(log: &Log, what: &str, at: Option<&str>) -> String {
    let at = at.map(|at| at.parse::<At>().unwrap());
    match show(log, &Ask { what: what.into(), at, ..Ask::default() }).await.unwrap() {
        Shown::Record(record) => panic!("{record:#?}"),
        Shown::Nothing(nothing) => nothing.message,
    }
}

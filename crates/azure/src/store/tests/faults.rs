//! Several processes on one log while answers are lost, commits refused and handles die, in random order: whatever
//! happens, what was acknowledged is there, and what was said not to be written is not.

use std::collections::{BTreeMap, BTreeSet};

use precedent_core::{
    Append, Appended, Condition, Error, ErrorKind, Event, ExpectedVersion, Log, Read, Result, Status, Version,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Scene;
use super::service::Fault;

const STREAMS: u32 = 3;
const IDS: u32 = 60;
const OPERATIONS: usize = 40;

/// More of them with `PRECEDENT_CRASH_ROUNDS`.
fn rounds() -> u64 {
    std::env::var("PRECEDENT_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8)
}

/// What has to be true of the log, from what callers were told.
#[derive(Default)]
struct Told {
    /// Where events are that were acknowledged.
    at: BTreeMap<u32, u64>,
    /// Events of which somebody was told that they are new.
    recorded: BTreeSet<u32>,
    /// Events that may be there although nobody was told so.
    perhaps: BTreeSet<u32>,
}

impl Told {
    fn hear(&mut self, ids: &[u32], expected: Option<Version>, answer: Result<Appended>) {
        let appended = match answer {
            Ok(appended) => appended,
            Err(error) => return self.hear_error(ids, &error),
        };
        let receipts = &appended.events;
        assert_eq!(receipts.len(), ids.len());
        for (id, receipt) in ids.iter().zip(receipts) {
            assert!(receipt.position.0 < appended.size, "{receipt:?} in a log of {} events", appended.size);
            let before = self.at.insert(*id, receipt.position.0);
            assert!(
                before.is_none_or(|before| before == receipt.position.0),
                "event {id} moved from {before:?}"
            );
            let twice = receipt.status == Status::Recorded && !self.recorded.insert(*id);
            assert!(!twice, "event {id} was recorded twice");
        }
        let recorded: Vec<_> = receipts.iter().filter(|receipt| receipt.status == Status::Recorded).collect();
        if let (Some(expected), Some(first)) = (expected, recorded.first()) {
            assert_eq!(recorded.len(), receipts.len(), "all of a conditional batch, or nothing");
            assert_eq!(first.version, Some(Version(expected.0 + 1)), "it was not the next of its stream");
        }
        let together = recorded.windows(2).all(|two| two[1].position.0 == two[0].position.0 + 1);
        assert!(together, "a batch is together: {receipts:?}");
    }

    fn hear_error(&mut self, ids: &[u32], error: &Error) {
        use ErrorKind::{AlreadyExists, Conflict, Full, Overloaded, Stopped, Unknown};
        let expected = [AlreadyExists, Conflict, Full, Overloaded, Stopped, Unknown];
        assert!(expected.contains(&error.kind()), "{error:?}");
        if error.may_have_been_written() {
            self.perhaps.extend(ids);
        }
    }
}

fn stream_of(id: u32) -> String {
    format!("stream/{}", id % STREAMS)
}

fn event(id: u32) -> Event {
    Event::builder("urn:test", id.to_string(), "test.happened")
        .stream(stream_of(id))
        .data(format!("data of {id} {}", "and on ".repeat(id as usize * 7)))
        .build()
        .expect("valid")
}

/// What a process does next.
fn append(random: &mut StdRng) -> (Vec<u32>, Option<Version>, Append) {
    let first = random.random_range(0..IDS);
    // Of one stream, so that a condition is about all of them.
    let ids: Vec<u32> = (0..random.random_range(1..4)).map(|i| (first + i * STREAMS) % IDS).collect();
    let ids: Vec<u32> = ids.into_iter().filter(|id| id % STREAMS == first % STREAMS).collect();
    let append = Append::new(ids.iter().map(|id| event(*id)));
    if random.random_bool(0.7) {
        return (ids, None, append);
    }
    let version = Version(random.random_range(0..6));
    let condition = Condition::Stream { stream: stream_of(first), expected: ExpectedVersion::Exact(version) };
    (ids, Some(version), append.when(condition))
}

fn fault(random: &mut StdRng) -> Fault {
    let written = random.random_bool(0.5);
    match random.random_range(0..6) {
        0 => Fault::Refuse,
        1 => Fault::NeverAnswer { written },
        _ => Fault::LoseAnswer { written },
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new();
    let mut told = Told::default();
    let mut processes: Vec<(usize, Log)> = (0..3).map(|at| (at, scene.machine(|_| {}))).collect();
    for _ in 0..OPERATIONS {
        for _ in 0..random.random_range(0..3) {
            scene.service.fault(fault(&mut random));
        }
        let count = random.random_range(1..=processes.len());
        let running: Vec<_> = processes[..count]
            .iter()
            .map(|(_, log)| {
                let (log, (ids, expected, append)) = (log.clone(), append(&mut random));
                (ids, expected, scene.runtime.spawn(async move { log.append(append).await }))
            })
            .collect();
        let mut stopped = false;
        for (ids, expected, answer) in running {
            let answer = scene.wait(answer).expect("the task ends");
            stopped |=
                answer.as_ref().is_err_and(|e| matches!(e.kind(), ErrorKind::Unknown | ErrorKind::Stopped));
            told.hear(&ids, expected, answer);
        }
        scene.service.answer();
        processes.rotate_left(1);
        // What has stopped is opened again, with its copy or without; now and then also what has not.
        for (cache, log) in &mut processes {
            let gone = stopped && scene.append(log, "alive?").is_err_and(|e| e.kind() == ErrorKind::Stopped);
            if gone || random.random_bool(0.1) {
                if random.random_bool(0.5) {
                    scene.close(log);
                }
                if random.random_bool(0.2) {
                    *cache = scene.caches.len();
                    scene.caches.push(tempfile::tempdir().expect("a directory for a test"));
                }
                *log = scene.handle(scene.caches[*cache].path(), |_| {});
            }
        }
    }
    scene.service.forget_faults();
    check(&mut scene, &told);
}

/// Holds what callers were told against the log as somebody new sees it.
fn check(scene: &mut Scene, told: &Told) {
    let log = scene.machine(|_| {});
    let (mut read, mut events) = (Read::default(), Vec::new());
    loop {
        let page = scene.wait(log.page(&read)).expect("it can be read");
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        events.extend(page.events);
        match page.next {
            Some(covered) => read = read.continued(covered),
            None => break,
        }
    }
    let mut there = BTreeMap::new();
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for (at, recorded) in (0..).zip(&events) {
        assert_eq!(recorded.position.0, at, "positions are dense");
        let stream = recorded.event.stream().expect("each has one").to_owned();
        let version = versions.entry(stream).or_default();
        assert_eq!(recorded.version, Some(Version(*version)), "versions are dense");
        *version += 1;
        let Ok(id) = recorded.event.id().parse::<u32>() else { continue };
        assert_eq!(recorded.event.data(), event(id).data(), "its content is what was sent");
        assert_eq!(there.insert(id, at), None, "event {id} is there twice");
    }
    for (id, position) in &told.at {
        assert_eq!(there.get(id), Some(position), "event {id} was acknowledged");
    }
    for id in there.keys().filter(|id| !told.at.contains_key(id)) {
        assert!(told.perhaps.contains(id), "event {id} is there, and everybody was told that it is not");
    }
    scene.verified(&log);
}

#[test]
fn whatever_is_lost_between_several_writers_the_promises_hold() {
    for seed in 0..rounds() {
        let outcome = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = outcome {
            eprintln!("with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

//! One frame is drafted while the one before it is written and synced: what then holds, also if that fails.
//!
//! The file system holds the device up at the moment that matters; nothing here waits for a clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use precedent_core::{
    Append, Appended, Condition, Error, ErrorKind, Event, ExpectedVersion, Log, LogName, Pending, Position,
    Result, Status, Store, Submitted, Version,
};

use crate::EmbeddedStore;
use crate::crash_tests::{append, block_on, event, open, read_all};
use crate::io::faults::{FaultyIo, Held, Random};

struct Stage {
    io: FaultyIo,
    store: Arc<EmbeddedStore>,
    log: Log,
}

impl Stage {
    /// A store with one event, in a segment with zeros ahead.
    fn new() -> Self {
        let io = FaultyIo::default();
        let store = Arc::new(open(&io).unwrap());
        append(&store, vec![event("first", vec![1; 10])]).unwrap();
        let log = Log::new(store.clone(), LogName::default());
        Self { io, store, log }
    }

    /// Submits an append and waits until its frame is held up at the device.
    fn held(&self, what: Held, append: impl Into<Append>) -> Pending {
        self.io.hold(what);
        let pending = self.log.submit(append).unwrap();
        self.io.await_held();
        pending
    }

    /// Submits an append while the device is held up, and waits until it is drafted. What is submitted after it
    /// joins the same frame when the device is free.
    fn drafted(&self, append: impl Into<Append>) -> Pending {
        let pending = self.log.submit(append).unwrap();
        let log = self.store.log(&LogName::default()).unwrap();
        // It is drafted by the thread that took it out of the queue, before that waits for the device again.
        while log.has_jobs() {
            std::thread::yield_now();
        }
        pending
    }
}

fn expecting(id: &str, version: u64) -> Append {
    let event =
        Event::builder("urn:test", id, "test.happened").stream("one").data(vec![7; 300]).build().unwrap();
    let expected =
        version.checked_sub(1).map_or(ExpectedVersion::None, |v| ExpectedVersion::Exact(Version(v)));
    Append::new([event]).when(Condition::Stream { stream: "one".into(), expected })
}

fn position(answer: Result<Appended>) -> u64 {
    answer.unwrap().events[0].position.0
}

#[test]
fn appends_submitted_together_are_one_frame_and_each_has_an_answer_of_its_own() {
    let stage = Stage::new();
    let name = LogName::default();
    let frames = |stage: &Stage| block_on(stage.log.head()).unwrap().frames;
    let before = frames(&stage);
    let nothing = Append::new([]);
    let appends =
        vec![expecting("a", 0), nothing, expecting("b", 1), expecting("late", 1), expecting("c", 2)];
    let mut answers = stage.store.submit_all(&name, appends).into_iter().map(|submitted| match submitted {
        Submitted::Queued(pending) => block_on(pending),
        Submitted::Refused(error) => Err(error),
        Submitted::NoQueue(_) => panic!("it has a queue"),
    });
    let mut next = || answers.next().expect("an answer for each");
    assert_eq!(position(next()), 1);
    assert_eq!(next().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(position(next()), 2);
    assert_eq!(next().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(position(next()), 3);
    assert_eq!(frames(&stage), before + 1, "all of them were in the queue before the first was taken");
    // A closed store refuses each of them.
    block_on(stage.store.close()).unwrap();
    let refused = stage.store.submit_all(&name, vec![expecting("d", 3), expecting("e", 4)]);
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|submitted| matches!(submitted, Submitted::Refused(_))));
}

#[test]
fn a_frame_is_drafted_while_another_is_synced_and_written_only_after_that() {
    let stage = Stage::new();
    let first = stage.held(Held::Syncs, expecting("a", 0));
    let operations = stage.io.operations();
    let second = stage.drafted(expecting("b", 1));
    let again = stage.log.submit(expecting("a", 0)).unwrap();
    let lost = stage.log.submit(expecting("c", 1)).unwrap();
    assert_eq!(stage.io.operations(), operations, "something was written before the sync returned");
    assert_eq!(read_all(&stage.store).len(), 1, "something was shown before its sync");
    stage.io.release();
    assert_eq!(position(block_on(first)), 1);
    assert_eq!(position(block_on(second)), 2);
    let again = block_on(again).unwrap().events[0];
    assert_eq!((again.position, again.status), (Position(1), Status::Existing));
    let lost = block_on(lost).unwrap_err();
    assert_eq!((lost.kind(), lost.conflicts()[0].position), (ErrorKind::Conflict, Some(Position(2))));
    assert_eq!(read_all(&stage.store).len(), 3);
    assert!(block_on(stage.store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
}

/// Small appends behind a large one would otherwise wait for its hashes with whoever drafts it.
#[test]
fn an_append_that_waits_beside_others_is_ready_before_it_is_queued() {
    let stage = Stage::new();
    let log = stage.store.log(&LogName::default()).unwrap();
    for round in 0..4 {
        let first = stage.held(Held::Syncs, event(&format!("first-{round}"), vec![1; 10]));
        let second = stage.drafted(event(&format!("second-{round}"), vec![1; 10]));
        // What comes now stays in the queue: it is not enough to be drafted at once. To make it ready takes many times as
        // long as it takes to look there.
        let large = (0..200).map(|n| event(&format!("{round}-{n}"), vec![round as u8; 40]));
        let large = Append::new(large.collect::<Vec<_>>());
        let store = stage.store.clone();
        let waiting = std::thread::spawn(move || match round % 2 {
            0 => store.append_blocking(&LogName::default(), large),
            _ => block_on(store.append(&LogName::default(), large)),
        });
        let ready = loop {
            let ready = log.ready_jobs();
            if !ready.is_empty() || waiting.is_finished() {
                break ready;
            }
            std::hint::spin_loop();
        };
        assert_eq!(ready, [true], "round {round}");
        stage.io.release();
        for pending in [first, second] {
            block_on(pending).unwrap();
        }
        assert_eq!(waiting.join().unwrap().unwrap().events.len(), 200);
    }
}

#[test]
fn a_crash_while_one_frame_is_synced_and_the_next_is_drafted_leaves_the_first_whole_or_absent() {
    let stage = Stage::new();
    let first = stage.held(Held::Syncs, expecting("a", 0));
    let second = stage.drafted(expecting("b", 1));
    let mut seen = [0; 2];
    for seed in 0..200 {
        let left = stage.io.after_crash(&mut Random::new(seed));
        let store = open(&left).unwrap();
        let events = read_all(&store);
        assert!((1..=2).contains(&events.len()), "seed {seed}: {} events", events.len());
        seen[events.len() - 1] += 1;
        assert_eq!(position(append(&store, vec![event("next", vec![1; 100])])), events.len() as u64);
        assert!(block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    stage.io.release();
    assert_eq!((position(block_on(first)), position(block_on(second))), (1, 2));
}

#[test]
fn a_failed_sync_fails_what_was_drafted_on_it_and_stops_the_handle() {
    let stage = Stage::new();
    let first = stage.held(Held::Syncs, expecting("a", 0));
    let second = stage.drafted(expecting("b", 1));
    stage.io.fail_next_sync(std::io::ErrorKind::Other);
    stage.io.release();
    let first = block_on(first).unwrap_err();
    assert!(first.may_have_been_written(), "{first}");
    assert_eq!(block_on(second).unwrap_err().to_string(), first.to_string());
    let later = block_on(stage.log.append(expecting("c", 1))).unwrap_err();
    assert_eq!((later.kind(), later.may_have_been_written()), (ErrorKind::Stopped, false));
    assert_eq!(read_all(&stage.store).len(), 1, "what is durable can still be read");
    drop((stage.log, stage.store));
    for seed in 0..20 {
        let store = open(&stage.io.after_crash(&mut Random::new(seed))).unwrap();
        assert_eq!(read_all(&store).len(), 1);
    }
}

#[test]
fn without_space_a_frame_and_what_was_drafted_on_it_are_refused_and_the_log_goes_on() {
    let stage = Stage::new();
    block_on(stage.log.append(expecting("a", 0))).unwrap();
    let first = stage.held(Held::Writes, expecting("b", 1));
    let on_it = stage.drafted(expecting("c", 2));
    let same = stage.log.submit(expecting("b", 1)).unwrap();
    let beaten_by_it = stage.log.submit(expecting("d", 1)).unwrap();
    let beaten_before = stage.log.submit(expecting("e", 0).when(Condition::stream_is_new("one"))).unwrap();
    let there_before = stage.log.submit(expecting("a", 0)).unwrap();
    stage.io.fail_next(std::io::ErrorKind::StorageFull);
    stage.io.release();
    let refused = |pending: Pending| -> Error { block_on(pending).unwrap_err() };
    let first = refused(first);
    assert_eq!((first.kind(), first.may_have_been_written()), (ErrorKind::Full, false));
    for (what, pending) in [("on it", on_it), ("the same", same), ("beaten by it", beaten_by_it)] {
        assert_eq!(refused(pending).to_string(), first.to_string(), "{what}");
    }
    // The last event of the stream, which was never written, is in the way of this one too.
    assert_eq!(refused(beaten_before).to_string(), first.to_string());
    // As does what needs nothing of it, but came into its frame.
    assert_eq!(refused(there_before).to_string(), first.to_string());
    assert_eq!(position(block_on(stage.log.append(expecting("d", 1)))), 2);
    assert_eq!(position(block_on(stage.log.append(expecting("e", 2)))), 3);
    let versions: Vec<Option<u64>> = (1..4)
        .map(|at| {
            let read = precedent_core::Read { after: Some(Position(at - 1)), ..Default::default() };
            let page = block_on(stage.store.read(&LogName::default(), &read)).unwrap();
            page.events[0].version.map(|v| v.0)
        })
        .collect();
    assert_eq!(versions, [Some(0), Some(1), Some(2)]);
    drop((stage.log, stage.store));
    let store = open(&stage.io).unwrap();
    assert_eq!(read_all(&store).len(), 4);
    assert!(block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
}

#[test]
fn a_caller_that_waits_makes_the_frame_itself_and_wakes_no_thread() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..50u64 {
        let append = Append::new([event(&format!("e{i}"), vec![1; 200])]);
        assert_eq!(position(store.append_blocking(&LogName::default(), append)), i);
    }
    assert_eq!(store.log(&LogName::default()).unwrap().threads(), 0);
    assert_eq!(read_all(&store).len(), 50);
    drop(store);
    assert_eq!(read_all(&open(&io).unwrap()).len(), 50);
}

#[test]
fn callers_that_wait_and_appends_that_are_submitted_share_one_order() {
    let stage = Stage::new();
    let done = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (stage, done) = (&stage, &done);
            scope.spawn(move || {
                for i in 0..40 {
                    let append = Append::new([event(&format!("{thread}/{i}"), vec![1; 60])]);
                    match thread % 2 {
                        0 => drop(stage.log.append_blocking(append).unwrap()),
                        _ => drop(block_on(stage.log.submit(append).unwrap()).unwrap()),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 160);
    let events = read_all(&stage.store);
    assert!(events.iter().enumerate().all(|(i, (position, _))| i as u64 == *position));
    assert_eq!(events.len(), 161);
    assert!(block_on(stage.store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
}

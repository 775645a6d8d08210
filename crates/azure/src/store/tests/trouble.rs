//! What goes wrong around a handle: a panic, a full queue, a copy that is lost under its readers, documents that cannot be
//! written, others who are always quicker.

use std::sync::{Arc, Barrier, Weak};
use std::time::{Duration, Instant};

use precedent_core::{
    Append, Condition, ErrorKind, ExpectedVersion, LogName, Position, Read, Status, Store, Submitted,
};

use super::service::{Fault, Service};
use super::{Scene, data_of, event, files_in, noise, options};
use crate::remote::Remote;
use crate::store::RemoteStore;
use crate::store::writer::QUEUE_BYTES;

/// Longer than anything takes that ends at all.
const LONG: Duration = Duration::from_secs(60);

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_panic_of_the_writer_stops_the_handle_and_everybody_is_told() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    let follower = scene.runtime.spawn({
        let log = log.clone();
        async move { log.store().grown(log.name(), 100).await }
    });
    let hold = scene.service.hold();
    scene.service.fault(Fault::Panic);
    let waiting: Vec<_> = (1..4).map(|i| log.submit(event(&i.to_string())).expect("there is room")).collect();
    drop(hold);
    for pending in waiting {
        let error = scene.wait(pending).expect_err("the writer is gone");
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
        assert!(error.may_have_been_written(), "{error:?}");
    }
    let other = precedent_core::Log::new(log.store().clone(), "other".parse().expect("a name"));
    for log in [&log, &other] {
        let error = scene.append(log, "4").expect_err("the handle has stopped");
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
        assert!(error.message().contains("panicked"), "{error}");
    }
    let followed = scene.wait(async { tokio::time::timeout(LONG, follower).await });
    let error = followed.expect("it is told").expect("the task ends").expect_err("the handle has stopped");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
    assert_eq!(scene.ids(&log), ["0"], "reads go on");
    scene.close(&log);
    let next = scene.machine(|_| {});
    assert_eq!(scene.append(&next, "4").expect("recorded").events[0].position.0, 1);
}

#[test]
fn the_last_of_clones_that_are_dropped_at_once_ends_the_writer() {
    let scene = Scene::new();
    let cache = tempfile::tempdir().expect("a directory for a test");
    let _entered = scene.runtime.enter();
    for round in 0..100 {
        let remote: Arc<dyn Remote> = Arc::new(scene.service.clone());
        let held: Weak<dyn Remote> = Arc::downgrade(&remote);
        let store = RemoteStore::open(remote, options(cache.path())).expect("opened");
        let name = LogName::default();
        scene.wait(store.append(&name, event(&round.to_string()).into())).expect("recorded");
        let barrier = Arc::new(Barrier::new(4));
        let drops: Vec<_> = (0..4)
            .map(|_| {
                let (store, barrier) = (store.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    drop(store);
                })
            })
            .collect();
        drop(store);
        drops.into_iter().for_each(|thread| thread.join().expect("it drops"));
        until("threads and tasks of the handle end", || held.strong_count() == 0);
    }
}

#[test]
fn what_was_submitted_is_recorded_although_the_handle_is_dropped() {
    let mut scene = Scene::new();
    let hold = scene.service.hold();
    let log = scene.machine(|_| {});
    let waiting: Vec<_> = (0..3).map(|i| log.submit(event(&i.to_string())).expect("there is room")).collect();
    drop(log);
    drop(hold);
    for (at, pending) in (0..).zip(waiting) {
        assert_eq!(scene.wait(pending).expect("recorded").events[0].position.0, at);
    }
}

#[test]
fn a_full_queue_refuses_what_is_submitted_and_lets_what_is_appended_wait() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "first").expect("recorded");
    let hold = scene.service.hold();
    let part = QUEUE_BYTES / 8;
    let mut queued = Vec::new();
    let refused = loop {
        let data = data_of(&format!("large {}", queued.len()), noise(queued.len() as u64, part));
        match log.store().submit(log.name(), data.into()) {
            Submitted::Queued(pending) => queued.push(pending),
            Submitted::Refused(error) => break error,
            Submitted::NoQueue(_) => panic!("it has one"),
        }
        assert!(queued.len() < 100, "the queue has no end");
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded, "{refused:?}");
    assert!(!refused.may_have_been_written() && refused.retry_after_secs().is_some(), "{refused:?}");
    assert!(refused.message().contains(&format!("{} MiB", QUEUE_BYTES >> 20)), "{refused}");
    let appends: Vec<_> = (0..3)
        .map(|i| {
            let log = log.clone();
            scene
                .runtime
                .spawn(async move { log.append(data_of(&format!("append {i}"), noise(100 + i, part))).await })
        })
        .collect();
    drop(hold);
    for (at, pending) in (1..).zip(queued) {
        assert_eq!(
            scene.wait(pending).expect("recorded").events[0].position.0,
            at,
            "in the order of submission"
        );
    }
    for append in appends {
        scene.wait(append).expect("the task ends").expect("there was room at last");
    }
    scene.verified(&log);
}

#[test]
fn whoever_waits_for_room_in_a_queue_is_told_when_the_handle_closes() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "first").expect("recorded");
    let hold = scene.service.hold();
    let first = log.submit(event("held")).expect("there is room");
    until("the writer has taken the first", || scene.service.tables().held > 0);
    let second = log.submit(data_of("second", noise(1, QUEUE_BYTES / 2))).expect("there is room");
    let waits = scene.runtime.spawn({
        let log = log.clone();
        async move { log.append(data_of("third", noise(2, 14 << 20))).await }
    });
    let closing = scene.runtime.spawn({
        let log = log.clone();
        async move { log.store().close().await }
    });
    let error = scene.wait(waits).expect("the task ends").expect_err("the handle closes");
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
    drop(hold);
    scene.wait(first).expect("recorded");
    scene.wait(second).expect("recorded");
    scene.wait(closing).expect("the task ends").expect("closed");
}

#[test]
fn a_writer_that_is_never_quick_enough_gives_up_within_its_bound() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    let before = scene.service.tables().commits;
    scene.service.tables().taken = true;
    let error = scene.append(&log, "1").expect_err("somebody else is always quicker");
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
    assert!(!error.may_have_been_written() && error.retry_after_secs().is_some(), "{error:?}");
    let tries = scene.service.tables().commits - before;
    assert!((3..200).contains(&tries), "{tries} tries");
    assert!(error.message().contains(&format!("{tries} times")), "{error}");
    scene.service.tables().taken = false;
    assert_eq!(scene.append(&log, "1").expect("the handle goes on").events[0].position.0, 1);
}

#[test]
fn somebody_new_gets_a_turn_beside_a_writer_that_never_rests() {
    let mut scene = Scene::new();
    let patient = |options: &mut super::Options| options.settle_for = LONG;
    let (busy, late) = (scene.machine(patient), scene.machine(patient));
    scene.append(&busy, "first").expect("recorded");
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let appenders: Vec<_> = (0..8)
        .map(|appender| {
            let (busy, done) = (busy.clone(), done.clone());
            scene.runtime.spawn(async move {
                for i in 0.. {
                    if done.load(std::sync::atomic::Ordering::SeqCst) {
                        break;
                    }
                    busy.append(event(&format!("{appender}/{i}"))).await.expect("recorded");
                }
            })
        })
        .collect();
    for i in 0..10 {
        scene.append(&late, &format!("late {i}")).expect("it gets a turn");
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    for appender in appenders {
        scene.wait(appender).expect("the task ends");
    }
    scene.verified(&late);
}

#[test]
fn a_refusal_of_the_service_lets_nobody_be_told_what_a_longer_log_would_not_say() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    scene.append(&other, "0").expect("it is there");
    scene.append(&one, "1").expect("recorded");
    // The other has half of this here, and all of it is there.
    let none = Condition::Stream { stream: "s".into(), expected: ExpectedVersion::None };
    let both = Append::new([event("0"), event("1")]).when(none);
    let (tell, told) = std::sync::mpsc::channel();
    scene.service.meanwhile({
        let (other, both) = (other.clone(), both.clone());
        move || drop(tell.send(other.store().submit(other.name(), both)))
    });
    scene.service.fault(Fault::Refuse);
    let refused = scene.append(&other, "x").expect_err("the service does not take it");
    assert_eq!(refused.kind(), ErrorKind::Full, "{refused:?}");
    let Submitted::Queued(retry) = told.recv().expect("it was submitted") else { panic!("it was refused") };
    let refused = scene.wait(retry).expect_err("nobody can say");
    assert_eq!(refused.kind(), ErrorKind::Full, "{refused:?}");
    let again = scene.wait(other.append(both)).expect("both are there");
    assert!(again.events.iter().all(|receipt| receipt.status == Status::Existing), "{again:?}");
}

#[test]
fn a_document_that_cannot_be_written_holds_up_no_other() {
    let mut scene = Scene::new();
    let log = scene.machine(|options| options.documents_wait = Duration::ZERO);
    // More frames than are looked at together.
    scene.service.tables().failing_documents = (0..130).map(Position).collect();
    for i in 0..130 {
        scene.append(&log, &i.to_string()).expect("recorded");
    }
    scene.append(&log, "later").expect("recorded");
    let is_there =
        |position| scene.service.tables().documents.keys().any(|(_, there)| *there == Position(position));
    until("the later document is written", || is_there(130));
    let (_, findings) = scene.wait(log.store().examine(log.name())).expect("it can be examined");
    assert!(findings.iter().any(|f| f.code == "documents_behind"), "{findings:?}");
    scene.service.tables().failing_documents.clear();
    until("and then the others", || (0..130).all(is_there));
    scene.verified(&log);
}

#[test]
fn closing_does_not_wait_for_documents_that_nobody_answers() {
    let mut scene = Scene::new();
    let log = scene.machine(|options| options.documents_wait = Duration::ZERO);
    scene.service.tables().documents_hang = true;
    scene.append(&log, "0").expect("recorded");
    let closed = scene.wait(async { tokio::time::timeout(LONG, log.store().close()).await });
    closed.expect("it ends").expect("closed");
    scene.service.tables().documents_hang = false;
    let next = scene.machine(|_| {});
    scene.append(&next, "1").expect("recorded");
    scene.close(&next);
    assert_eq!(scene.service.tables().documents.len(), 2, "the next one wrote it");
}

#[test]
fn what_two_writers_have_documented_comes_together() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    for i in 0..40 {
        scene.append(if i % 3 == 0 { &one } else { &other }, &i.to_string()).expect("recorded");
    }
    let documented = || {
        let id = scene.service.tables().logs[&LogName::default()].id;
        scene.wait(scene.service.documented(id)).expect("it answers").through()
    };
    let frames = scene.wait(one.head()).expect("it is there").frames;
    until("all of them are said to be there, though neither wrote all", || documented() == frames);
    assert_eq!(scene.service.tables().documents.len(), 40);
}

#[test]
fn what_a_dead_writer_left_another_that_is_at_work_writes() {
    let mut scene = Scene::new();
    let (one, other) =
        (scene.machine(|_| {}), scene.machine(|options| options.documents_wait = Duration::ZERO));
    scene.append(&one, "0").expect("recorded");
    scene.service.tables().failing_documents = [Position(1)].into();
    scene.append(&other, "1").expect("recorded");
    drop(other);
    scene.append(&one, "2").expect("recorded");
    scene.service.tables().failing_documents.clear();
    until("its document is written", || scene.service.tables().documents.len() == 3);
}

#[test]
fn a_copy_that_is_given_up_fails_nobody_who_reads_or_appends() {
    for round in 0..3 {
        let mut scene = Scene::new();
        let log = scene.machine(|_| {});
        for i in 0..60_u64 {
            scene.wait(log.append(data_of(&i.to_string(), noise(i, 4_000)))).expect("recorded");
        }
        scene.close(&log);
        let cache = scene.caches[0].path().to_owned();
        for path in files_in(&cache) {
            let mut bytes = std::fs::read(&path).expect("it can be read");
            let is_of_the_log = path.extension().is_some_and(|name| name == "seg" || name == "pack");
            if is_of_the_log && bytes.len() > 8_000 {
                let at = 2_000 + 500 * round;
                bytes[at] ^= 0x55;
                std::fs::write(&path, bytes).expect("it can be written");
            }
        }
        let handle = scene.handle(&cache, |_| {});
        let all: Vec<String> = (0..60).map(|i| i.to_string()).collect();
        let readers: Vec<_> = (0..16)
            .map(|reader| {
                let handle = handle.clone();
                scene.runtime.spawn(async move {
                    for _ in 0..4 {
                        if reader == 0 {
                            let again =
                                handle.append(data_of("7", noise(7, 4_000))).await.expect("it is there");
                            assert_eq!(again.events[0].status, Status::Existing);
                        }
                        let page = handle.page(&Read::default()).await.expect("it can be read");
                        let ids: Vec<String> =
                            page.events.iter().map(|event| event.event.id().to_owned()).collect();
                        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
                        assert_eq!(ids.len(), 60);
                        handle.head().await.expect("it is there");
                    }
                })
            })
            .collect();
        for reader in readers {
            scene.wait(reader).expect("nobody is told of it");
        }
        assert_eq!(scene.ids(&handle), all);
    }
}

#[test]
fn a_gap_that_the_copy_here_ends_before_is_named_and_never_taken_for_the_end() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    let behind = scene.machine(|_| {});
    assert_eq!(scene.ids(&behind), ["0"]);
    scene.close(&behind);
    for i in 1..4 {
        scene.append(&log, &i.to_string()).expect("recorded");
    }
    {
        let mut tables = scene.service.tables();
        let id = tables.logs[&LogName::default()].id;
        tables.frames.remove(&(id, 1)).expect("it was there");
    }
    let commits = scene.service.tables().commits;
    let behind = scene.handle(scene.caches[1].path(), |_| {});
    let error = scene.wait(behind.head()).expect_err("frame 1 is missing");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.message().contains("frame 1 ") && error.message().contains("frame 2"), "{error}");
    let error = scene.append(&behind, "4").expect_err("nothing is put into the gap");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_eq!(scene.service.tables().commits, commits);
}

#[test]
fn a_last_frame_that_cannot_be_read_does_not_have_everything_fetched_again() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    for i in 0..20 {
        scene.append(&log, &i.to_string()).expect("recorded");
    }
    scene.service.damage(&LogName::default(), Position(19));
    let reader = scene.machine(|_| {});
    let damaged = |scene: &Scene, log: &precedent_core::Log| {
        let page = scene.wait(log.page(&Read::default())).expect("it can be read");
        assert_eq!(page.events.len(), 19);
        let damaged: Vec<_> = page.damaged.iter().map(|damage| damage.position.0).collect();
        assert_eq!(damaged, [19]);
        assert!(page.damaged[0].error.message().contains("frame 19"), "{}", page.damaged[0].error);
    };
    damaged(&scene, &reader);
    scene.close(&reader);
    for _ in 0..2 {
        let before = scene.service.tables().fetched;
        let again = scene.handle(scene.caches[1].path(), |_| {});
        damaged(&scene, &again);
        let fetched = scene.service.tables().fetched - before;
        assert!(fetched <= 3, "{fetched} frames were fetched");
        scene.close(&again);
    }
    // Nobody can say whether an event is the one that cannot be read: and asking does not have everything fetched either.
    let before = scene.service.tables().fetched;
    let again = scene.handle(scene.caches[1].path(), |_| {});
    let refused = scene.append(&again, "20").expect_err("it may be there");
    assert_eq!(refused.kind(), ErrorKind::Damaged, "{refused:?}");
    assert!(scene.service.tables().fetched - before <= 3);
    assert_eq!(scene.append(&again, "3").expect("it is there").events[0].status, Status::Existing);
}

#[test]
fn a_copy_whose_directory_is_another_process_s_by_now_is_left_alone() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    let cache = scene.caches[0].path().to_owned();
    std::fs::remove_dir_all(&cache).expect("it can be deleted");
    // Another process makes its copy in the place that is free.
    let second = scene.handle(&cache, |_| {});
    scene.append(&second, "1").expect("recorded");
    for i in 2..20_u64 {
        let log = if i % 2 == 0 { &log } else { &second };
        scene.wait(log.append(data_of(&i.to_string(), noise(i, 40_000)))).expect("recorded");
        assert_eq!(scene.ids(log).len() as u64, i + 1);
    }
    scene.close(&log);
    scene.close(&second);
    let again = scene.handle(&cache, |_| {});
    assert_eq!(scene.ids(&again).len(), 20);
    scene.verified(&again);
}

#[test]
fn blocking_the_only_thread_of_a_runtime_is_refused_instead_of_waiting_for_ever() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cache = tempfile::tempdir().expect("a directory for a test");
    let store = runtime.block_on(async {
        let store = RemoteStore::open(Arc::new(Service::default()), options(cache.path())).expect("opened");
        let error = store.append_blocking(&LogName::default(), event("0").into()).expect_err("it would hang");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
        assert!(error.message().contains("await"), "{error}");
        store
    });
    // From another thread it works, as long as somebody runs the runtime.
    let name = LogName::default();
    let (blocking, told) = (store.clone(), Arc::new(tokio::sync::Notify::new()));
    let thread = std::thread::spawn({
        let (name, told) = (name.clone(), told.clone());
        move || {
            let appended = blocking.append_blocking(&name, event("0").into());
            told.notify_one();
            appended
        }
    });
    runtime.block_on(told.notified());
    assert_eq!(thread.join().expect("it ends").expect("recorded").events[0].position.0, 0);
    runtime.block_on(store.close()).expect("it was open");
}

//! The protocol on a service in memory that does what it is told to: loses answers, refuses, forgets, stands still.
//!
//! The conformance suite runs on the real adapters; here are the orders of events that those cannot bring about.

mod faults;
mod service;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use precedent_core::conformance::{Backend, Failure, Fixture, Unable, assert_conforms};
use precedent_core::{
    Append, Appended, Condition, Direction, ErrorKind, Event, ExpectedVersion, Log, LogId, LogName, Position,
    Read, Result, Status, Store, Submitted, Time, Version,
};
use tokio::runtime::Runtime;

use self::service::{Fault, Service};
use super::{Access, BUCKET_FRAMES, Options, RemoteStore};
use crate::remote::{Commit, LogRecord};

/// Tiny segments: sealing and packing of the local copy happen in the middle of everything.
fn options(cache: &std::path::Path) -> Options {
    let mut options = Options { cache: cache.to_owned(), ..Options::default() };
    options.mirror.segment_bytes = 64 << 10;
    options.mirror.index_flush_bytes = 8 << 10;
    options.poll = Duration::from_millis(20);
    options.settle_for = Duration::from_millis(300);
    options.at_least_wait = Duration::from_secs(1);
    options
}

struct OnService {
    runtime: Runtime,
}

impl OnService {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime: runtime.expect("a runtime") }
    }
}

impl Backend for OnService {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let cache = Arc::new(tempfile::tempdir()?);
        let runtime = self.runtime.handle().clone();
        let clock = Arc::new(AtomicU64::new(0));
        let place = Place { service: Service::default(), cache, runtime, clock, store: Default::default() };
        place.open();
        Ok(Box::new(place))
    }

    fn block_on(&self, future: futures_util::future::BoxFuture<'_, ()>) {
        self.runtime.block_on(future);
    }
}

struct Place {
    service: Service,
    cache: Arc<tempfile::TempDir>,
    runtime: tokio::runtime::Handle,
    clock: Arc<AtomicU64>,
    store: std::sync::Mutex<Option<Arc<RemoteStore>>>,
}

impl Place {
    fn handle(&self) -> Arc<RemoteStore> {
        let _entered = self.runtime.enter();
        let (clock, cache) = (self.clock.clone(), self.cache.clone());
        let mut options = options(self.cache.path());
        // The directory is there as long as somebody uses it.
        options.clock = Arc::new(move || match (&cache, clock.load(Ordering::SeqCst)).1 {
            0 => Time::from_system(std::time::SystemTime::now()),
            micros => Time::from_micros(micros).expect("a time that was set"),
        });
        Arc::new(RemoteStore::open(Arc::new(self.service.clone()), options).expect("a runtime is entered"))
    }

    fn open(&self) -> Arc<dyn Store> {
        let store = self.handle();
        *self.store.lock().expect("no test panics while it opens") = Some(store.clone());
        store
    }

    fn close(&self) {
        let store = self.store.lock().expect("no test panics while it closes").take();
        if let Some(store) = store {
            let _ = self.runtime.block_on(store.close());
        }
    }
}

impl Fixture for Place {
    fn store(&self) -> Arc<dyn Store> {
        self.store.lock().expect("no test panics here").clone().expect("it is open")
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        self.service.answer();
        Ok(self.open())
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        drop(self.store.lock().expect("no test panics here").take());
        self.service.answer();
        Ok(self.open())
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(Ok(self.handle()))
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        self.service.damage(log, position);
        // What is here is whole, and would go on being read.
        let _ = std::fs::remove_dir_all(self.cache.path());
        Ok(self.open())
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        self.service.fault(match failure {
            Failure::Write => Fault::Refuse,
            Failure::Sync => Fault::NeverAnswer { written: true },
        });
        Ok(())
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn the_protocol_keeps_the_promises() {
    assert_conforms(&OnService::new());
}

/// A service, and handles on it as processes of one machine or of several have them.
struct Scene {
    runtime: Runtime,
    service: Service,
    caches: Vec<tempfile::TempDir>,
}

impl Scene {
    fn new() -> Self {
        Self { runtime: OnService::new().runtime, service: Service::default(), caches: Vec::new() }
    }

    /// A handle with a copy of its own: another machine.
    fn machine(&mut self, change: impl FnOnce(&mut Options)) -> Log {
        let cache = tempfile::tempdir().expect("a directory for a test");
        let log = self.handle(cache.path(), change);
        self.caches.push(cache);
        log
    }

    fn handle(&self, cache: &std::path::Path, change: impl FnOnce(&mut Options)) -> Log {
        let _entered = self.runtime.enter();
        let mut options = options(cache);
        change(&mut options);
        let store = RemoteStore::open(Arc::new(self.service.clone()), options).expect("a runtime is entered");
        Log::new(Arc::new(store), LogName::default())
    }

    /// Frames of a log in another store.
    fn new_source() -> Vec<precedent_core::frame::Frame> {
        let mut scene = Self::new();
        let log = scene.machine(|_| {});
        for i in 0..6 {
            scene.append(&log, &i.to_string()).expect("recorded");
        }
        scene.wait(log.store().frames(log.name(), 0, usize::MAX)).expect("they can be read")
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn append(&self, log: &Log, id: &str) -> Result<Appended> {
        self.wait(log.append(event(id)))
    }

    fn ids(&self, log: &Log) -> Vec<String> {
        let read = Read::default();
        let page = self.wait(log.store().read(log.name(), &read)).expect("it can be read");
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        page.events.iter().map(|event| event.event.id().to_owned()).collect()
    }

    fn close(&self, log: &Log) {
        self.wait(log.store().close()).expect("it was open");
    }

    fn verified(&self, log: &Log) {
        let report = self.wait(log.store().verify(log.name(), None, &|_, _| {})).expect("it can be verified");
        assert!(report.is_ok(), "{:?}", report.problems);
    }
}

fn event(id: &str) -> Event {
    Event::builder("urn:test", id, "test.happened")
        .stream("s")
        .data(format!("data of {id}"))
        .build()
        .expect("valid")
}

fn data_of(id: &str, data: Vec<u8>) -> Event {
    Event::builder("urn:test", id, "test.happened").data(data).build().expect("valid")
}

#[test]
fn a_commit_whose_answer_is_lost_is_recorded_once_whether_it_was_written_or_not() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    for (round, written) in [true, false, true, true].into_iter().enumerate() {
        scene.service.fault(Fault::LoseAnswer { written });
        let appended = scene.append(&log, &round.to_string()).expect("it is settled");
        assert_eq!(appended.events[0].position.0, round as u64);
    }
    assert_eq!(scene.ids(&log), ["0", "1", "2", "3"]);
    scene.verified(&log);
}

#[test]
fn a_frame_that_somebody_else_was_quicker_with_is_drafted_again_behind_it() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    for i in 0..6 {
        let log = if i % 2 == 0 { &one } else { &other };
        // It drafts on what it has, and that is not what is there.
        assert_eq!(scene.append(log, &i.to_string()).expect("recorded").events[0].position.0, i);
    }
    assert_eq!(scene.ids(&one), scene.ids(&other));
    // Versions are those of the other's events too, and a retry through the other handle is recognised.
    let again = scene.append(&one, "5").expect("it is there");
    assert_eq!((again.events[0].status, again.events[0].version), (Status::Existing, Some(Version(5))));
    scene.verified(&other);
}

#[test]
fn a_condition_is_never_refused_by_what_is_here_alone() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    assert_eq!(scene.ids(&other), ["0"]);
    scene.append(&one, "1").expect("recorded");
    // The other still has one event here; the stream is at version 1 there.
    let exact = Condition::Stream { stream: "s".into(), expected: ExpectedVersion::Exact(Version(1)) };
    let append = Append::new([event("2")]).when(exact.clone());
    let appended = scene.wait(other.append(append)).expect("the condition holds");
    assert_eq!(appended.events[0].version, Some(Version(2)));
    let refused =
        scene.wait(one.append(Append::new([event("3")]).when(exact))).expect_err("it does not hold any more");
    assert_eq!(refused.conflicts()[0].position, Some(Position(2)), "{refused:?}");
}

#[test]
fn a_write_that_cannot_be_settled_is_unknown_and_found_by_the_next_handle() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    scene.service.fault(Fault::NeverAnswer { written: true });
    let unknown = scene.append(&log, "1").expect_err("nobody can know");
    assert!(unknown.may_have_been_written() && unknown.kind() == ErrorKind::Unknown, "{unknown:?}");
    scene.service.answer();
    let stopped = scene.append(&log, "2").expect_err("the handle has stopped");
    assert_eq!(stopped.kind(), ErrorKind::Stopped);
    assert_eq!(scene.ids(&log), ["0", "1"], "reads go on, and say what came of it");
    let next = scene.machine(|_| {});
    assert_eq!(scene.append(&next, "1").expect("it is there").events[0].status, Status::Existing);
    scene.verified(&next);
}

#[test]
fn a_refusal_after_a_lost_answer_settles_nothing() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    scene.service.fault(Fault::LoseAnswer { written: true });
    scene.service.fault(Fault::Refuse);
    assert_eq!(scene.append(&log, "1").expect("it was written").events[0].position.0, 1);
    scene.verified(&log);
}

#[test]
fn a_writer_that_slept_through_everything_goes_on_behind_the_others() {
    let mut scene = Scene::new();
    let (sleeper, other) =
        (scene.machine(|options| options.settle_for = Duration::from_secs(60)), scene.machine(|_| {}));
    scene.append(&sleeper, "0").expect("recorded");
    // Its frame is not written, and until it is sent again others write many.
    scene.service.fault(Fault::LoseAnswer { written: false });
    let waiting = scene.runtime.spawn({
        let sleeper = sleeper.clone();
        async move { sleeper.append(event("late")).await }
    });
    while scene.service.tables().commits < 2 {
        std::thread::yield_now();
    }
    for i in 1..20 {
        scene.append(&other, &i.to_string()).expect("recorded");
    }
    let late = scene.wait(waiting).expect("the task ends").expect("recorded");
    assert_eq!(scene.ids(&other)[late.events[0].position.0 as usize], "late");
    assert_eq!(scene.ids(&sleeper).len(), 21);
    scene.verified(&sleeper);
}

#[test]
fn a_log_that_was_emptied_under_an_open_handle_is_said_to_have_gone_backwards() {
    for made_again in [false, true] {
        let mut scene = Scene::new();
        let log = scene.machine(|_| {});
        scene.append(&log, "0").expect("recorded");
        scene.append(&log, "1").expect("recorded");
        let record = {
            let mut tables = scene.service.tables();
            tables.frames.clear();
            tables.logs.pop_first()
        };
        if made_again {
            // Under another id: whoever comes anew begins with an empty log.
            let (name, record) = record.expect("the log was there");
            let other = LogRecord { id: LogId::random(), ..record };
            scene.service.tables().logs.insert(name, other);
        }
        let error = scene.append(&log, "2").expect_err("there is nothing to go on from");
        assert_eq!(error.kind(), ErrorKind::LogWentBackwards, "{error:?}");
        assert!(error.message().contains("2 events"), "{error}");
        assert_eq!(scene.append(&log, "2").expect_err("it has stopped").kind(), ErrorKind::Stopped);
        assert!(scene.service.tables().frames.is_empty(), "nothing was written into the emptied log");
    }
}

#[test]
fn a_log_that_is_shorter_or_other_than_the_copy_here_is_refused_when_it_is_opened() {
    for other in [false, true] {
        let mut scene = Scene::new();
        let log = scene.machine(|_| {});
        for i in 0..3 {
            scene.append(&log, &i.to_string()).expect("recorded");
        }
        scene.close(&log);
        {
            let mut tables = scene.service.tables();
            let (key, last) = tables.frames.pop_last().expect("there are frames");
            if other {
                // What an unplanned failover leaves: another frame of that number.
                let before = tables.frames.last_entry().expect("there is one more").get().clone();
                tables.frames.insert(key, Commit { sequence: last.sequence, ..before });
            }
        }
        let again = scene.handle(scene.caches[0].path(), |_| {});
        let error = scene.wait(again.head()).expect_err("it is not the log that was seen");
        assert_eq!(error.kind(), ErrorKind::LogWentBackwards, "{error:?}");
        assert!(
            error.message().contains("3 events") && error.message().contains("delete the copy"),
            "{error}"
        );
        // Without the copy nothing is known of the past.
        let anew = scene.machine(|_| {});
        assert_eq!(scene.wait(anew.head()).is_ok(), !other);
    }
}

#[test]
fn the_copy_here_can_be_deleted_stale_damaged_or_of_another_log() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    for i in 0..30 {
        scene.append(&log, &i.to_string()).expect("recorded");
    }
    scene.close(&log);
    let cache = scene.caches[0].path().to_owned();
    // Stale: others went on.
    let other = scene.machine(|_| {});
    scene.append(&other, "30").expect("recorded");
    let all: Vec<String> = (0..31).map(|i| i.to_string()).collect();
    let handle = scene.handle(&cache, |_| {});
    assert_eq!(scene.ids(&handle), all);
    scene.close(&handle);
    // Damaged, wherever it is.
    for part in 0..3 {
        for path in files_in(&cache) {
            // A copy that was made anew has other files.
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            let at = match part {
                _ if bytes.is_empty() => continue,
                0 => 0,
                1 => bytes.len() / 2,
                _ => bytes.len() - 1,
            };
            bytes[at] ^= 0x55;
            std::fs::write(&path, bytes).expect("it can be written");
            let handle = scene.handle(&cache, |_| {});
            assert_eq!(scene.ids(&handle), all, "{} at {at}", path.display());
            let again = scene.append(&handle, "7").map(|appended| appended.events[0].status);
            assert_eq!(again.ok(), Some(Status::Existing), "{} at {at}", path.display());
            scene.close(&handle);
        }
    }
    // Of another log: the one there has been deleted and made again.
    {
        let mut tables = scene.service.tables();
        tables.frames.clear();
        tables.documents.clear();
        tables.logs.clear();
    }
    let handle = scene.handle(&cache, |_| {});
    assert_eq!(scene.append(&handle, "new").expect("a new log").events[0].position.0, 0);
    scene.verified(&handle);
    scene.close(&handle);
    // Deleted.
    std::fs::remove_dir_all(&cache).expect("it can be deleted");
    let handle = scene.handle(&cache, |_| {});
    assert_eq!(scene.ids(&handle), ["new"]);
}

fn files_in(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_in(&path)),
            path => files.push(path),
        }
    }
    files
}

#[test]
fn what_repeats_is_stored_once_and_never_refers_below_the_bucket_before() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    let shared: Vec<u8> = (0..20_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for i in 0..4 {
        let data = [&shared[..], format!("turn {i}").as_bytes()].concat();
        scene.wait(log.append(data_of(&i.to_string(), data))).expect("recorded");
    }
    let tables = scene.service.tables();
    let lengths: Vec<usize> = tables.frames.values().map(|commit| commit.bytes.len()).collect();
    assert!(lengths[0] > 80_000 && lengths[1..].iter().all(|len| *len < 2_000), "{lengths:?}");
    drop(tables);
    // Another machine holds new content against what the first recorded.
    let other = scene.machine(|_| {});
    let data = [&shared[..], b"and on"].concat();
    scene.wait(other.append(data_of("4", data.clone()))).expect("recorded");
    let last = scene.service.tables().frames.values().last().expect("there is one").bytes.len();
    assert!(last < 2_000, "{last} bytes");
    scene.verified(&other);
    // Past the end of the bucket it is stored again once the bucket before has none of it.
    for bucket in 1..=2 {
        let state_frames = scene.wait(log.head()).expect("it is there").frames;
        for i in state_frames..bucket * BUCKET_FRAMES {
            scene.wait(log.append(data_of(&format!("{bucket}/{i}"), vec![]))).expect("recorded");
        }
    }
    scene.wait(log.append(data_of("again", data))).expect("recorded");
    let again = scene.service.tables().frames.values().last().expect("there is one").clone();
    assert_eq!(again.sequence, 2 * BUCKET_FRAMES);
    assert!(again.bytes.len() > 80_000, "it refers to a bucket two before");
}

#[test]
fn documents_are_written_behind_the_frames_and_what_one_writer_left_the_next_one_writes() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    assert_eq!(scene.service.tables().documents.len(), 1, "an append waits for its document");
    // A document that cannot be written fails no append, and is named.
    scene.service.tables().refuse_documents = Some(ErrorKind::Overloaded);
    scene.append(&log, "1").expect("recorded all the same");
    let (_, findings) = scene.wait(log.store().examine(log.name())).expect("it can be examined");
    assert!(findings.iter().any(|f| f.code == "documents_behind"), "{findings:?}");
    scene.verified(&log);
    scene.close(&log);
    scene.service.tables().refuse_documents = None;
    assert_eq!(scene.service.tables().documents.len(), 1);
    let next = scene.machine(|_| {});
    scene.append(&next, "2").expect("recorded");
    scene.close(&next);
    assert_eq!(scene.service.tables().documents.len(), 3, "it wrote what was left");
    let reader = scene.machine(|options| options.access = Access::ReadOnly);
    scene.verified(&reader);
    // One that was changed is named, and so is one that is gone.
    {
        let mut tables = scene.service.tables();
        let mut documents = tables.documents.values_mut();
        documents.next().expect("there are three").event = event("changed");
        drop(documents);
        tables.documents.pop_last();
    }
    let report =
        scene.wait(reader.store().verify(reader.name(), None, &|_, _| {})).expect("it can be verified");
    let positions: Vec<_> = report.problems.iter().map(|problem| problem.position.map(|p| p.0)).collect();
    assert_eq!(positions, [Some(0), Some(2)], "{:?}", report.problems);
    let refused = scene.append(&reader, "3").expect_err("it is open for reading");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
}

#[test]
fn documents_that_are_refused_for_good_are_counted_and_do_not_hold_up_the_others() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.service.tables().refuse_documents = Some(ErrorKind::Full);
    for i in 0..3 {
        scene.append(&log, &i.to_string()).expect("recorded");
    }
    scene.service.tables().refuse_documents = None;
    scene.append(&log, "3").expect("recorded");
    assert_eq!(scene.service.tables().documents.len(), 1);
    let (_, findings) = scene.wait(log.store().examine(log.name())).expect("it can be examined");
    let refused = findings.iter().find(|finding| finding.code == "documents_refused").expect("it is said");
    assert!(refused.message.starts_with("3 documents"), "{}", refused.message);
}

#[test]
fn a_clock_that_is_off_the_service_s_is_refused_and_acceptance_is_recorded() {
    let mut scene = Scene::new();
    let now = Time::from_system(std::time::SystemTime::now());
    let ahead = Time::from_micros(now.as_micros() + 10 * 60 * 1_000_000).expect("a time");
    scene.service.tables().clock = Some((ahead, now));
    let log = scene.machine(|_| {});
    let refused = scene.append(&log, "0").expect_err("ten minutes off");
    assert_eq!(refused.kind(), ErrorKind::Clock);
    assert!(refused.message().contains("test:service"), "{refused}");
    let accepting = scene.machine(|options| options.accept_clock = true);
    scene.append(&accepting, "1").expect("it is accepted");
    let read = Read::default();
    let page = scene.wait(accepting.store().read(accepting.name(), &read)).expect("it can be read");
    let types: Vec<&str> = page.events.iter().map(|event| event.event.event_type()).collect();
    assert_eq!(types, ["test.happened", "~precedent.clock.accepted"]);
}

#[test]
fn a_second_region_is_refused_and_reads() {
    let mut scene = Scene::new();
    scene.service.tables().region = "West Europe".into();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    scene.service.tables().region = "westeurope".into();
    scene.append(&log, "1").expect("the same region, written otherwise");
    scene.service.tables().region = "North Europe".into();
    let refused = scene.append(&log, "2").expect_err("another region");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert!(
        refused.message().contains("West Europe") && refused.message().contains("North Europe"),
        "{refused}"
    );
    assert_eq!(scene.ids(&log), ["0", "1"]);
}

#[test]
fn reading_page_by_page_looks_at_the_end_of_the_log_only_at_its_end() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    let events = (0..300).map(|i| event(&i.to_string()));
    scene.wait(log.append(Append::new(events))).expect("recorded");
    let before = scene.service.tables().tail_checks;
    let mut read = Read { limit: Some(10), ..Read::default() };
    let mut pages = 0;
    while let Some(covered) = scene.wait(log.store().read(log.name(), &read)).expect("it can be read").next {
        read = read.continued(covered);
        pages += 1;
    }
    let looked = scene.service.tables().tail_checks - before;
    assert!(pages >= 29 && looked <= 2, "{looked} looks for {pages} pages");
}

#[test]
fn many_appenders_share_frames() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "first").expect("recorded");
    let appends = (0..200).map(|i| {
        let log = log.clone();
        scene.runtime.spawn(async move { log.append(event(&i.to_string())).await })
    });
    for append in appends.collect::<Vec<_>>() {
        scene.wait(append).expect("the task ends").expect("recorded");
    }
    let head = scene.wait(log.head()).expect("it is there");
    assert_eq!(head.size, 201);
    assert!(head.frames < 150, "{} frames", head.frames);
    scene.verified(&log);
}

#[test]
fn a_conflict_is_not_told_from_before_somebody_else_caught_up() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    scene.append(&other, "0").expect("it is there");
    scene.append(&one, "1").expect("recorded");
    // A reader of the same handle fetches what the draft below does not know of.
    scene.service.meanwhile({
        let (reader, runtime) = (other.clone(), scene.runtime.handle().clone());
        move || assert_eq!(runtime.block_on(reader.head()).expect("it can be read").size, 2)
    });
    let exact = Condition::Stream { stream: "s".into(), expected: ExpectedVersion::Exact(Version(1)) };
    let appended = scene.wait(other.append(Append::new([event("2")]).when(exact)));
    assert_eq!(appended.expect("the condition holds").events[0].version, Some(Version(2)));
}

/// Data in which nothing repeats.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(len).collect()
}

#[test]
fn appends_that_are_tried_again_together_still_fit_into_one_frame() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    scene.append(&other, "0").expect("it is there");
    scene.append(&one, "1").expect("recorded");
    // As far as the other knows the first of two is refused, and then there is room for the second. Both hold behind
    // what is there.
    let exact = Condition::Stream { stream: "s".into(), expected: ExpectedVersion::Exact(Version(1)) };
    let large = |seed: u64| data_of(&format!("large {seed}"), noise(seed, 9 << 20));
    let (tell, told) = std::sync::mpsc::channel();
    scene.service.meanwhile({
        let (other, second) = (other.clone(), large(2));
        move || drop(tell.send(other.store().submit(other.name(), second.into())))
    });
    let first = scene.wait(other.append(Append::new([large(1)]).when(exact)));
    assert_eq!(first.expect("the condition holds").events[0].position, Position(2));
    let Submitted::Queued(second) = told.recv().expect("it was submitted") else { panic!("it was refused") };
    assert_eq!(scene.wait(second).expect("recorded").events[0].position, Position(3));
    scene.verified(&one);
}

#[test]
fn a_copy_here_that_cannot_be_written_is_made_anew_and_nothing_is_lost() {
    let mut scene = Scene::new();
    let log = scene.machine(|_| {});
    scene.append(&log, "0").expect("recorded");
    std::fs::remove_dir_all(scene.caches[0].path()).expect("it can be deleted");
    for i in 1..8_u64 {
        // Each takes a segment of its own.
        let appended = scene.wait(log.append(data_of(&i.to_string(), noise(i, 80_000))));
        assert_eq!(appended.expect("it is durable there").events[0].position.0, i);
        let again = scene.wait(log.append(data_of(&i.to_string(), noise(i, 80_000))));
        assert_eq!(again.expect("it is there").events[0].status, Status::Existing);
        assert_eq!(scene.ids(&log).len() as u64, i + 1);
    }
    scene.verified(&log);
}

#[test]
fn verifying_ends_although_a_frame_is_in_the_place_of_another() {
    for damaged in [false, true] {
        let mut scene = Scene::new();
        let log = scene.machine(|_| {});
        for i in 0..4 {
            scene.append(&log, &i.to_string()).expect("recorded");
        }
        {
            let mut tables = scene.service.tables();
            let id = tables.logs[&LogName::default()].id;
            let before = tables.frames[&(id, 2)].clone();
            let place = tables.frames.get_mut(&(id, 3)).expect("it is there");
            *place = Commit { sequence: 3, ..before };
            if damaged {
                place.bytes = place.bytes.slice(..place.bytes.len() - 1);
            }
        }
        let looks = AtomicU64::new(0);
        let progress = |_, _| assert!(looks.fetch_add(1, Ordering::SeqCst) < 20, "it goes round in circles");
        let anew = scene.machine(|_| {});
        for log in [&log, &anew] {
            looks.store(0, Ordering::SeqCst);
            let report = scene.wait(log.store().verify(log.name(), None, &progress));
            assert!(!report.expect("it can be verified").is_ok());
        }
    }
}

#[test]
fn a_retry_is_not_told_that_half_of_it_is_there_by_what_is_here_alone() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    scene.append(&other, "0").expect("it is there");
    scene.append(&one, "1").expect("recorded");
    let none = Condition::Stream { stream: "s".into(), expected: ExpectedVersion::None };
    let again = scene.wait(other.append(Append::new([event("0"), event("1")]).when(none)));
    let again = again.expect("both are there");
    assert!(again.events.iter().all(|receipt| receipt.status == Status::Existing), "{again:?}");
}

#[test]
fn a_read_that_asks_for_at_least_what_is_here_looks_for_more_all_the_same() {
    let mut scene = Scene::new();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.append(&one, "0").expect("recorded");
    assert_eq!(scene.ids(&other), ["0"]);
    scene.append(&one, "1").expect("recorded");
    for (size, direction) in [(2, Direction::Forward), (3, Direction::Backward)] {
        let read = Read { at_least: Some(Position(0)), direction, ..Read::default() };
        let page = scene.wait(other.store().read(other.name(), &read)).expect("it can be read");
        assert_eq!(page.events.len(), size, "{direction:?}");
        scene.append(&one, &size.to_string()).expect("recorded");
    }
}

#[test]
fn a_copier_goes_on_behind_what_another_has_copied() {
    let mut scene = Scene::new();
    let source = Scene::new_source();
    let (one, other) = (scene.machine(|_| {}), scene.machine(|_| {}));
    scene.wait(other.store().put_frames(other.name(), source[..1].to_vec())).expect("copied");
    scene.wait(one.store().put_frames(one.name(), source[1..3].to_vec())).expect("copied");
    let head = scene.wait(other.store().put_frames(other.name(), source[3..].to_vec())).expect("copied");
    assert_eq!(head.frames, source.len() as u64);
    scene.verified(&one);
}

#[test]
fn a_runtime_of_one_thread_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cache = tempfile::tempdir().expect("a directory for a test");
    let service = Service::default();
    runtime.block_on(async {
        let store = RemoteStore::open(Arc::new(service.clone()), options(cache.path())).expect("opened");
        let log = Log::new(Arc::new(store.clone()), LogName::default());
        service.fault(Fault::LoseAnswer { written: true });
        log.append(event("0")).await.expect("recorded");
        assert_eq!(log.head().await.expect("it is there").size, 1);
        let late = store.submit(log.name(), event("1").into());
        store.close().await.expect("it was open");
        assert_eq!(store.close().await.expect_err("it is closed").kind(), ErrorKind::Stopped);
        let Submitted::Queued(late) = late else { panic!("it was refused") };
        late.await.expect("what was queued is recorded");
    });
}

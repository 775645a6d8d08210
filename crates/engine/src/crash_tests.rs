//! What is left after a crash, a full disk or a failing one, at every single operation of a workload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use precedent_core::frame::SECTOR_BYTES;
use precedent_core::{
    Append, Appended, Error, ErrorKind, Event, ExpectedRegister, LogName, Position, Query, Read,
    RegisterName, Result, Status, Store, Time,
};

use crate::io::faults::{Fault, FaultyIo, Random};
use crate::{Access, EmbeddedStore, Options};

const DIR: &str = "/store";

fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Tiny segments and runs, so that sealing, flushing and merging happen in the middle of everything.
fn options() -> Options {
    let ticks = AtomicU64::new(1_800_000_000_000_000);
    Options {
        segment_bytes: 6 << 10,
        index_flush_bytes: 2 << 10,
        background: false,
        clock: Arc::new(move || Time::from_micros(ticks.fetch_add(1_000, Ordering::Relaxed)).unwrap()),
        ..Options::default()
    }
}

fn open(io: &FaultyIo) -> Result<EmbeddedStore> {
    EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options())
}

fn event(id: &str, data: Vec<u8>) -> Event {
    Event::builder("urn:test", id, "test.happened")
        .stream(format!("s{}", id.len() % 3))
        .data(data)
        .build()
        .unwrap()
}

/// The appends of the workload: sizes around the sector, zeros, batches, a frame larger than a segment.
fn workload() -> Vec<Vec<Event>> {
    let mut appends = Vec::new();
    for i in 0..24usize {
        let size = [0, 1, 100, 300, 520, 1_100, 3_000, 9_000][i % 8];
        let fill = [0, 0xff, b'x'][i % 3];
        let events = (0..1 + i % 3).map(|j| event(&format!("{i}-{j}"), vec![fill; size + j])).collect();
        appends.push(events);
    }
    appends
}

/// What the workload was told.
#[derive(Default, Debug)]
struct Told {
    /// Batches that were acknowledged, by the position of their first event.
    acknowledged: BTreeMap<u64, Vec<Event>>,
    /// Batches whose fate is not known.
    unknown: Vec<Vec<Event>>,
    /// Batches that were refused with the promise that nothing was written.
    refused: Vec<Vec<Event>>,
    register: u64,
    register_unknown: bool,
}

fn append(store: &EmbeddedStore, events: Vec<Event>) -> Result<Appended> {
    block_on(store.append(&LogName::default(), Append::new(events)))
}

fn register() -> RegisterName {
    "cursor/a".parse().unwrap()
}

/// Runs the workload as far as it goes.
fn run(io: &FaultyIo, told: &mut Told) {
    let Ok(store) = open(io) else { return };
    for (i, events) in workload().into_iter().enumerate() {
        match append(&store, events.clone()) {
            Ok(appended) => {
                told.acknowledged.insert(appended.events[0].position.0, events);
            }
            Err(error) if error.may_have_been_written() => told.unknown.push(events),
            Err(_) => told.refused.push(events),
        }
        if i % 6 == 5 {
            let expected = match told.register {
                0 => ExpectedRegister::Absent,
                revision => ExpectedRegister::Revision(revision),
            };
            match block_on(store.set_register(&register(), expected, vec![i as u8].into())) {
                Ok(set) => (told.register, told.register_unknown) = (set.revision, false),
                Err(error) if error.kind() == ErrorKind::Conflict && told.register_unknown => {
                    told.register += 1;
                }
                Err(error) => told.register_unknown |= error.may_have_been_written(),
            }
        }
    }
}

fn read_all(store: &EmbeddedStore) -> Vec<(u64, Event)> {
    let mut read = Read::default();
    let mut events = Vec::new();
    loop {
        let page = block_on(store.read(&LogName::default(), &read)).unwrap();
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        events.extend(page.events.into_iter().map(|e| (e.position.0, e.event)));
        match page.next {
            Some(next) => read = read.continued(next),
            None => return events,
        }
    }
}

/// Opens what is left and checks it against what was told.
fn check(io: &FaultyIo, told: &Told, what: &str) {
    let store = match open(io) {
        Ok(store) => store,
        Err(error) => panic!("{what}: does not open: {error}"),
    };
    let log = store.log(&LogName::default()).unwrap();
    assert!(log.read_only.is_none(), "{what}: {:?}", log.read_only);
    let events = read_all(&store);
    let dense = events.iter().enumerate().all(|(i, (position, _))| i as u64 == *position);
    assert!(dense, "{what}: positions are not dense");
    for (first, batch) in &told.acknowledged {
        for (i, event) in batch.iter().enumerate() {
            let at = *first as usize + i;
            assert_eq!(
                events.get(at).map(|(_, e)| e),
                Some(event),
                "{what}: acknowledged position {at} is lost"
            );
        }
    }
    let count =
        |batch: &Vec<Event>| batch.iter().filter(|e| events.iter().any(|(_, there)| there == *e)).count();
    for batch in &told.unknown {
        assert!([0, batch.len()].contains(&count(batch)), "{what}: half a batch is there");
    }
    for batch in &told.refused {
        assert_eq!(count(batch), 0, "{what}: a batch is there that was promised not to be");
    }
    let known: usize = told.acknowledged.values().map(Vec::len).sum();
    let unknown: usize = told.unknown.iter().map(count).sum();
    assert_eq!(events.len(), known + unknown, "{what}: events nobody sent");
    let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
    assert!(report.is_ok(), "{what}: {:?}", report.problems);
    let revision = block_on(store.register(&register())).unwrap().map_or(0, |r| r.revision);
    let possible = told.register..=told.register + u64::from(told.register_unknown);
    assert!(possible.contains(&revision), "{what}: register at {revision}, expected {possible:?}");
    // The log goes on: keys are known, and new events are recorded.
    for (first, batch) in told.acknowledged.iter().take(3) {
        let again = append(&store, batch.clone()).unwrap();
        assert!(again.events.iter().all(|r| r.status == Status::Existing), "{what}");
        assert_eq!(again.events[0].position.0, *first, "{what}");
    }
    let next = append(&store, vec![event("next", vec![0; 700])]).unwrap();
    assert_eq!(next.events[0].position, Position(events.len() as u64), "{what}");
    drop(store);
    let store = open(io).unwrap();
    assert_eq!(read_all(&store).len(), events.len() + 1, "{what}: after one more append");
    let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
    assert!(report.is_ok(), "{what}: {:?}", report.problems);
}

/// The number of operations the workload takes when nothing fails, and that nothing is lost then.
fn operations() -> u64 {
    let io = FaultyIo::default();
    let mut told = Told::default();
    run(&io, &mut told);
    let operations = io.operations();
    assert_eq!(told.acknowledged.len(), workload().len());
    check(&io, &told, "without a fault");
    operations
}

/// How often each operation is struck, each time leaving something else.
fn rounds() -> u64 {
    std::env::var("PRECEDENT_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged_and_leaves_no_half_batch() {
    for at in 0..operations() {
        for round in 0..rounds() {
            let io = FaultyIo::default();
            io.plan(at, Fault::Crash);
            let mut told = Told::default();
            run(&io, &mut told);
            // A caller whose process died was told nothing.
            told.unknown.append(&mut told.refused);
            told.register_unknown = true;
            let left = io.after_crash(&mut Random::new(at * 1_000 + round));
            check(&left, &told, &format!("crash at operation {at}, round {round}"));
        }
    }
}

#[test]
fn a_second_crash_while_recovering_from_the_first_loses_nothing_either() {
    let count = operations();
    for at in (0..count).step_by(7) {
        let io = FaultyIo::default();
        io.plan(at, Fault::Crash);
        let mut told = Told::default();
        run(&io, &mut told);
        told.unknown.append(&mut told.refused);
        told.register_unknown = true;
        let mut random = Random::new(at);
        let left = io.after_crash(&mut random);
        for again in 0..12 {
            let copy = left.copy();
            copy.plan(again, Fault::Crash);
            drop(open(&copy));
            check(&copy.after_crash(&mut random), &told, &format!("crash at {at}, again at {again}"));
        }
    }
}

#[test]
fn a_full_disk_at_any_operation_is_an_error_and_not_a_broken_log() {
    for at in 0..operations() {
        let io = FaultyIo::default();
        io.plan(at, Fault::Error(std::io::ErrorKind::StorageFull));
        let mut told = Told::default();
        run(&io, &mut told);
        check(&io, &told, &format!("disk full at operation {at}"));
    }
}

#[test]
fn a_disk_that_stays_full_refuses_until_there_is_room_again() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1; 2_000])]).unwrap();
    io.set_capacity(Some(io.used() + 700));
    let mut refused = 0;
    for i in 0..20 {
        match append(&store, vec![event(&format!("n{i}"), vec![2; 3_000])]) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.may_have_been_written()),
                    (ErrorKind::Full, false),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    io.set_capacity(None);
    append(&store, vec![event("again", vec![3; 3_000])]).unwrap();
    drop(store);
    let store = open(&io).unwrap();
    assert_eq!(read_all(&store).len(), 22 - refused);
    assert!(block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
}

#[test]
fn a_failing_disk_stops_the_handle_and_every_waiter_is_told() {
    for at in 0..operations() {
        let io = FaultyIo::default();
        io.plan(at, Fault::Error(std::io::ErrorKind::Other));
        let mut told = Told::default();
        run(&io, &mut told);
        let left = io.after_crash(&mut Random::new(at));
        check(&left, &told, &format!("failed operation {at}"));
    }
}

#[test]
fn a_failed_sync_is_never_made_up_for_by_a_later_one() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1])]).unwrap();
    io.plan(io.operations() + 1, Fault::Error(std::io::ErrorKind::Other));
    let error = append(&store, vec![event("second", vec![2])]).unwrap_err();
    assert!(error.may_have_been_written(), "{error}");
    let error = append(&store, vec![event("third", vec![3])]).unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_written()), (ErrorKind::Stopped, false));
    // Reads of what is durable go on.
    assert_eq!(read_all(&store).len(), 1);
    drop(store);
    let left = io.after_crash(&mut Random::new(1));
    assert_eq!(read_all(&open(&left).unwrap()).len(), 1);
}

fn is_derived(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "run" || e == "map")
}

fn segment(io: &FaultyIo, number: u32) -> (PathBuf, Vec<u8>) {
    let path = Path::new(DIR).join("logs/main").join(crate::segment::file_name(number));
    let content = io.content(&path).unwrap();
    (path, content)
}

/// A log of two frames, left by a writer that died: the bytes of the last one in a segment of zeros.
fn two_frames(last: Vec<u8>) -> (FaultyIo, PathBuf, Vec<u8>, usize, usize) {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1; 10])]).unwrap();
    let (_, before) = segment(&io, 0);
    let start = before.iter().rposition(|b| *b != 0).unwrap() / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
    append(&store, vec![event("last", last)]).unwrap();
    let (path, content) = segment(&io, 0);
    let end = content.iter().rposition(|b| *b != 0).unwrap() / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
    let dead = io.copy();
    // They say that the last frame was durable; a writer that died in its sync has not written them.
    dead.remove_matching(|p| ["published", "clean"].iter().any(|n| p.ends_with(n)) || is_derived(p));
    (dead, path, content, start, end)
}

#[test]
fn any_set_of_sectors_of_an_unfinished_frame_is_torn_and_nothing_else_is() {
    for data in [vec![0; 1_500], vec![b'x'; 1_200]] {
        let (io, path, content, start, end) = two_frames(data);
        let sectors = (end - start) / SECTOR_BYTES;
        assert!((2..=6).contains(&sectors), "{sectors}");
        for kept in 0..1u32 << sectors {
            let mut left = content.clone();
            for sector in (0..sectors).filter(|s| kept & (1 << s) == 0) {
                let at = start + sector * SECTOR_BYTES;
                left[at..at + SECTOR_BYTES].fill(0);
            }
            let io = io.copy();
            io.set_content(&path, left);
            let store = open(&io).unwrap();
            let expected = if kept + 1 == 1 << sectors { 2 } else { 1 };
            assert_eq!(read_all(&store).len(), expected, "sectors {kept:b}");
            assert!(store.log(&LogName::default()).unwrap().read_only.is_none(), "sectors {kept:b}");
            append(&store, vec![event("next", vec![9; 100])]).unwrap();
            drop(store);
            assert_eq!(read_all(&open(&io).unwrap()).len(), expected + 1, "sectors {kept:b}");
        }
    }
}

#[test]
fn a_flipped_byte_in_the_last_frame_is_damage_and_never_taken_for_torn() {
    let (io, path, content, start, end) = two_frames(vec![b'x'; 1_200]);
    for at in start..end {
        let mut bad = content.clone();
        bad[at] ^= 0x21;
        let io = io.copy();
        io.set_content(&path, bad.clone());
        let store = open(&io).unwrap();
        let error = append(&store, vec![event("next", vec![9; 100])]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "byte {at}");
        let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
        assert!(!report.is_ok(), "byte {at}");
        drop(store);
        assert_eq!(segment(&io, 0).1, bad, "byte {at}: damage must not be touched");
    }
}

#[test]
fn a_log_that_lost_acknowledged_frames_is_damaged_and_not_shorter() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..4 {
        append(&store, vec![event(&format!("e{i}"), vec![1; 600])]).unwrap();
    }
    let last_two_frames = {
        let log = store.log(&LogName::default()).unwrap();
        log.segments.frame_number(2).unwrap().unwrap()
    };
    drop(store);
    let (path, mut content) = segment(&io, last_two_frames.segment);
    content.truncate(last_two_frames.offset as usize);
    io.set_content(&path, content);
    let store = open(&io).unwrap();
    let error = append(&store, vec![event("next", vec![1])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
    assert!(report.problems.iter().any(|p| p.message.contains("tail is missing")), "{:?}", report.problems);
}

#[test]
fn a_deleted_or_damaged_index_is_made_again() {
    let io = FaultyIo::default();
    let mut told = Told::default();
    run(&io, &mut told);
    let gone = io.copy();
    gone.remove_matching(is_derived);
    check(&gone, &told, "without index and maps");

    let derived: Vec<PathBuf> = {
        let dir = Path::new(DIR).join("logs/main");
        let list = |dir: &Path| {
            crate::io::Io::list(&io, dir).unwrap_or_default().into_iter().map(|n| dir.join(n)).collect()
        };
        let all: Vec<PathBuf> =
            [list(&dir), list(&dir.join("index"))].into_iter().flat_map(|v: Vec<PathBuf>| v).collect();
        all.into_iter().filter(|p| is_derived(p)).collect()
    };
    assert!(derived.len() > 4, "{derived:?}");
    let mut random = Random::new(7);
    for path in derived {
        for _ in 0..12 {
            let damaged = io.copy();
            let mut content = damaged.content(&path).unwrap();
            let at = random.below(content.len() as u64) as usize;
            content[at] ^= 1 << random.below(8);
            damaged.set_content(&path, content);
            check(&damaged, &told, &format!("{} flipped at {at}", path.display()));
            // Power failed while it was written: the end is missing, or zeros.
            let cut = io.copy();
            let mut content = cut.content(&path).unwrap();
            match random.coin() {
                true => content.truncate(at),
                false => content[at..].fill(0),
            }
            cut.set_content(&path, content);
            check(&cut, &told, &format!("{} cut at {at}", path.display()));
        }
    }
}

#[test]
fn one_append_takes_one_sync() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1; 10])]).unwrap();
    for i in 0..3 {
        let before = io.syncs();
        append(&store, vec![event(&format!("e{i}"), vec![1; 10])]).unwrap();
        assert_eq!(io.syncs() - before, 1);
    }
}

#[test]
fn a_second_writer_is_fenced_and_a_reader_sees_what_is_published() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1; 10])]).unwrap();
    let error = open(&io).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    let read_only = || {
        let options = Options { access: Access::ReadOnly, ..options() };
        EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap()
    };
    let reader = read_only();
    for i in 0..40 {
        append(&store, vec![event(&format!("more{i}"), vec![1; 500])]).unwrap();
        assert_eq!(read_all(&reader).len(), i + 2);
    }
    assert_eq!(read_all(&read_only()).len(), 41);
    let error: Error = append(&reader, vec![event("no", vec![])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(block_on(reader.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
}

/// Makes the checksums of a derived file good again, so that what is behind them is tried.
fn make_good(path: &Path, content: &mut [u8]) {
    let seal = |bytes: &mut [u8]| {
        if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(body).to_le_bytes();
        }
    };
    match path.extension().is_some_and(|e| e == "run") {
        true => content.chunks_mut(4096).for_each(seal),
        false => seal(content),
    }
}

/// Derived files that lie with good checksums: answers may be missing, but nothing panics, hangs, or is taken
/// for an event that it is not.
#[test]
fn hostile_runs_and_maps_do_no_harm() {
    let io = FaultyIo::default();
    run(&io, &mut Told::default());
    let dir = Path::new(DIR).join("logs/main");
    let list = |dir: &Path| crate::io::Io::list(&io, dir).unwrap().into_iter().map(|n| dir.join(n)).collect();
    let files: Vec<PathBuf> =
        [list(&dir), list(&dir.join("index"))].into_iter().flat_map(|v: Vec<_>| v).collect();
    let files: Vec<PathBuf> = files.into_iter().filter(|path| is_derived(path)).collect();
    let sent: Vec<Event> = workload().concat();
    let iterations = std::env::var("PRECEDENT_FUZZ_ITERATIONS").ok().and_then(|n| n.parse().ok());
    for seed in 0..iterations.unwrap_or(400_u64).min(20_000) {
        let mut random = Random::new(seed);
        let copy = io.copy();
        let path = &files[random.below(files.len() as u64) as usize];
        let mut content = copy.content(path).unwrap();
        for _ in 0..1 + random.below(3) {
            let within = if random.coin() { content.len() } else { content.len().min(160) };
            let at = random.below(within as u64) as usize;
            content[at] = [0, 1, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6) as usize];
        }
        make_good(path, &mut content);
        copy.set_content(path, content);
        let Ok(store) = open(&copy) else { continue };
        for query in [Query::all(), Query::stream("s0"), Query::event_type("test.happened")] {
            let mut read = Read::matching(query);
            while let Ok(page) = block_on(store.read(&LogName::default(), &read)) {
                assert!(page.events.iter().all(|e| sent.contains(&e.event)), "seed {seed}");
                let Some(next) = page.next else { break };
                read = read.continued(next);
            }
        }
        let _ = append(&store, vec![event("more", vec![1; 3_000])]);
    }
}

fn flip_byte(io: &FaultyIo, path: &Path, at: usize) {
    let mut content = io.content(path).unwrap();
    content[at] ^= 0x10;
    io.set_content(path, content);
}

fn beside(io: &FaultyIo) -> Result<EmbeddedStore> {
    let options = Options { access: Access::ReadOnly, ..options() };
    EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options)
}

/// Every event of a log, and every position that is named as damaged.
fn read_with_damage(store: &EmbeddedStore, mut read: Read) -> (Vec<u64>, Vec<u64>) {
    let (mut events, mut damaged) = (Vec::new(), Vec::new());
    loop {
        let page = block_on(store.read(&LogName::default(), &read)).unwrap();
        events.extend(page.events.iter().map(|e| e.position.0));
        damaged.extend(page.damaged.iter().map(|d| d.position.0));
        match page.next {
            Some(next) => read = read.continued(next),
            None => return (events, damaged),
        }
    }
}

#[test]
fn damage_beside_a_writer_is_found_and_hides_only_the_damaged_frame() {
    for at_byte in [60, 2, 200] {
        let io = FaultyIo::default();
        let store = open(&io).unwrap();
        for i in 0..20 {
            append(&store, vec![event(&format!("e{i}"), vec![1; 100])]).unwrap();
        }
        let early = beside(&io).unwrap();
        let place = store.log(&LogName::default()).unwrap().segments.frame_number(17).unwrap().unwrap();
        flip_byte(
            &io,
            &store.log(&LogName::default()).unwrap().segments.path(place.segment),
            place.offset as usize + at_byte,
        );
        for (who, handle) in
            [("writer", &store), ("reader from before", &early), ("reader", &beside(&io).unwrap())]
        {
            let report = block_on(handle.verify(&LogName::default(), None, &|_, _| ())).unwrap();
            assert!(!report.is_ok(), "{who}, byte {at_byte}");
            let (events, damaged) = read_with_damage(handle, Read::default());
            let expected: Vec<u64> = (0..20).filter(|p| *p != 17).collect();
            assert_eq!((events, damaged), (expected, vec![17]), "{who}, byte {at_byte}");
        }
    }
}

#[test]
fn a_log_cut_under_its_writer_is_not_verified() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..8 {
        append(&store, vec![event(&format!("e{i}"), vec![1; 100])]).unwrap();
    }
    let log = store.log(&LogName::default()).unwrap();
    let place = log.segments.frame_number(5).unwrap().unwrap();
    let path = log.segments.path(place.segment);
    io.set_content(&path, io.content(&path).unwrap()[..place.offset as usize].to_vec());
    let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
    assert!(report.problems.iter().any(|p| p.message.contains("tail is missing")), "{:?}", report.problems);
}

#[test]
fn a_reader_finds_the_whole_log_without_the_mark_of_its_writer() {
    let io = FaultyIo::default();
    for name in ["main", "other"] {
        let store = open(&io).unwrap();
        let name: LogName = name.parse().unwrap();
        for i in 0..5 {
            block_on(store.append(&name, event(&format!("e{i}"), vec![1; 100]).into())).unwrap();
        }
    }
    io.remove_matching(|path| path.ends_with("published"));
    let _writer = open(&io).unwrap();
    for name in ["main", "other"] {
        let head = block_on(beside(&io).unwrap().head(&name.parse().unwrap())).unwrap();
        assert_eq!(head.size, 5, "{name}");
    }
}

#[test]
fn a_reader_opened_while_a_segment_rolls_sees_everything() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..60u64 {
        append(&store, vec![event(&format!("e{i}"), vec![1; 900])]).unwrap();
        // The mark of the frame before, as a reader sees it that looks at this very moment.
        let log = store.log(&LogName::default()).unwrap();
        let mark = log.dir.join("published");
        let now = io.content(&mark).unwrap();
        if i > 0 {
            let older =
                crate::meta::Mark { frames: i, size: i, ..crate::meta::Mark::decode(&now, log.id).unwrap() };
            io.set_content(&mark, older.encode().to_vec());
        }
        let reader = beside(&io).unwrap();
        let _ = block_on(reader.head(&LogName::default()));
        io.set_content(&mark, now);
        assert_eq!(read_with_damage(&reader, Read::default()), ((0..=i).collect(), Vec::new()), "after {i}");
    }
}

#[test]
fn time_bounds_hide_neither_events_nor_damage() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for frame in 0..10 {
        let events = (0..100).map(|i| event(&format!("{frame}-{i}"), vec![1; 3])).collect();
        append(&store, events).unwrap();
    }
    let log = store.log(&LogName::default()).unwrap();
    let place = log.segments.frame_number(5).unwrap().unwrap();
    flip_byte(&io, &log.segments.path(place.segment), place.offset as usize + 200);
    let late = Time::parse("2200-01-01T00:00:00Z").unwrap();
    let read = Read { until: Some(late), ..Read::default() };
    let (events, damaged) = read_with_damage(&store, read);
    assert_eq!(events.len() + damaged.len(), 1_000);
    assert!(damaged.iter().all(|p| (500..600).contains(p)) && !damaged.is_empty());
}

#[test]
fn a_key_that_cannot_be_looked_up_is_never_taken_for_new() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..30 {
        append(&store, vec![event(&format!("e{i}"), vec![1; 600])]).unwrap();
    }
    let log = store.log(&LogName::default()).unwrap();
    let place = log.segments.frame_number(9).unwrap().unwrap();
    let path = log.segments.path(place.segment);
    drop(log);
    drop(store);
    flip_byte(&io, &path, place.offset as usize + 300);
    io.remove_matching(is_derived);
    let store = open(&io).unwrap();
    let error = append(&store, vec![event("e9", vec![1; 600])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert!(error.message().contains("position 9"), "{error}");
    // What can be looked up is.
    let again = append(&store, vec![event("e8", vec![1; 600])]).unwrap();
    assert_eq!(again.events[0].status, Status::Existing);
}

#[test]
fn an_accepted_clock_is_recorded_once_and_never_for_a_retry() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1])]).unwrap();
    drop(store);
    let past = Time::parse("2020-01-01T00:00:00Z").unwrap();
    let options = Options { clock: Arc::new(move || past), ..options() };
    let refused = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options.clone()).unwrap();
    assert_eq!(append(&refused, vec![event("second", vec![2])]).unwrap_err().kind(), ErrorKind::Clock);
    drop(refused);
    let options = Options { accept_clock: true, ..options };
    let store = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap();
    append(&store, vec![event("first", vec![1])]).unwrap();
    assert_eq!(read_all(&store).len(), 1);
    append(&store, vec![event("large", vec![7; 5 << 20])]).unwrap();
    append(&store, vec![event("third", vec![3])]).unwrap();
    let types: Vec<String> = read_all(&store).iter().map(|(_, e)| e.event_type().to_owned()).collect();
    assert_eq!(types, ["test.happened", "test.happened", "~precedent.clock.accepted", "test.happened"]);
}

#[test]
fn asking_for_logs_that_are_not_there_leaves_nothing_behind() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..50 {
        let name: LogName = format!("nolog{i}").parse().unwrap();
        assert_eq!(block_on(store.head(&name)).unwrap_err().kind(), ErrorKind::NotFound);
        let refused = Append::from(event("x", vec![])).when(precedent_core::Condition::stream_at("s", 7));
        assert_eq!(block_on(store.append(&name, refused)).unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert!(crate::lock(&store.logs).slots.len() <= 1);
}

#[test]
fn a_first_append_and_a_copy_into_the_same_log_never_lose_what_was_acknowledged() {
    let source = FaultyIo::default();
    let from = open(&source).unwrap();
    append(&from, vec![event("copied", vec![1])]).unwrap();
    let frames = block_on(from.frames(&LogName::default(), 0, 1 << 20)).unwrap();
    for _ in 0..60 {
        let io = FaultyIo::default();
        let store = open(&io).unwrap();
        let name: LogName = "target".parse().unwrap();
        let (appended, copied) = std::thread::scope(|scope| {
            let append = scope.spawn(|| block_on(store.append(&name, event("own", vec![2]).into())));
            let copies: Vec<_> =
                (0..3).map(|_| scope.spawn(|| block_on(store.put_frames(&name, frames.clone())))).collect();
            let copied: Vec<_> = copies.into_iter().map(|c| c.join().unwrap()).collect();
            (append.join().unwrap(), copied)
        });
        assert!(appended.is_ok() != copied.iter().any(Result::is_ok), "{appended:?} {copied:?}");
        drop(store);
        let store = open(&io).unwrap();
        let page = block_on(store.read(&name, &Read::default())).unwrap();
        let expected = if appended.is_ok() { "own" } else { "copied" };
        assert_eq!(page.events.iter().map(|e| e.event.id()).collect::<Vec<_>>(), [expected]);
        assert!(block_on(store.verify(&name, None, &|_, _| ())).unwrap().is_ok());
    }
}

#[test]
fn a_refusal_for_the_sake_of_an_event_that_was_not_written_is_not_a_conflict() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1; 10])]).unwrap();
    io.set_capacity(Some(io.used() + 600));
    let new_stream = |id: &str| {
        let event = Event::builder("urn:test", id, "test.happened")
            .stream("new")
            .data(vec![5; 200_000])
            .build()
            .unwrap();
        Append::from(event).when(precedent_core::Condition::stream_is_new("new"))
    };
    let name = LogName::default();
    std::thread::scope(|scope| {
        let both: Vec<_> = ["a", "b"]
            .map(|id| {
                scope.spawn({
                    let (store, name) = (&store, &name);
                    move || block_on(store.append(name, new_stream(id)))
                })
            })
            .into_iter()
            .collect();
        for one in both {
            assert_eq!(one.join().unwrap().unwrap_err().kind(), ErrorKind::Full);
        }
    });
}

#[test]
fn a_frame_as_large_as_can_be_is_copied_too() {
    use precedent_core::frame::{FRAME_BYTES_MAX, Frame};
    let source = FaultyIo::default();
    let from = open(&source).unwrap();
    append(&from, vec![event("small", vec![1])]).unwrap();
    let data = |len: usize| {
        Event::builder("urn:test", format!("{len}"), "test.large").data(vec![b'x'; len]).build().unwrap()
    };
    append(&from, vec![data(15 << 20), data(900_000)]).unwrap();
    let frames = block_on(from.frames(&LogName::default(), 0, 64 << 20)).unwrap();
    assert!(frames.iter().any(|f: &Frame| f.bytes().len() > FRAME_BYTES_MAX * 9 / 10));
    let to = open(&FaultyIo::default()).unwrap();
    let head = block_on(to.put_frames(&"copy".parse().unwrap(), frames)).unwrap();
    assert_eq!(head.root, block_on(from.head(&LogName::default())).unwrap().root);
}

#[test]
fn a_marker_that_is_gone_is_not_written_again() {
    let io = FaultyIo::default();
    drop(open(&io).unwrap());
    let store = open(&io).unwrap();
    append(&store, vec![event("first", vec![1])]).unwrap();
    drop(store);
    io.remove_matching(|path| path.ends_with("precedent.store"));
    assert_eq!(open(&io).unwrap_err().kind(), ErrorKind::NotAStore);
}

#[test]
fn the_first_frame_of_every_segment_carries_the_right_edge() {
    let io = FaultyIo::default();
    run(&io, &mut Told::default());
    let store = open(&io).unwrap();
    let log = store.log(&LogName::default()).unwrap();
    let segments = crate::segment::Segments::list(&io, &log.dir).unwrap();
    assert!(segments.len() > 4);
    for number in segments {
        let first = log.segments.step(number, 0, log.id).unwrap();
        let crate::segment::Step::Frame(header, 0) = first else {
            panic!("segment {number} begins with a frame")
        };
        assert!(header.has_edge(), "segment {number}");
    }
}

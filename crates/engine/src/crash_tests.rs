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

use crate::io::faults::{Direct, Fault, FaultyIo, Random};
use crate::{Access, EmbeddedStore, Options};

pub(crate) const DIR: &str = "/store";

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
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

thread_local! {
    /// Whether the stores that [`options`] opens pack their segments.
    static PACKS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs something with stores that pack their segments.
pub(crate) fn packing<T>(run: impl FnOnce() -> T) -> T {
    PACKS.set(true);
    let result = run();
    PACKS.set(false);
    result
}

/// Bytes without repeats, always the same.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.below(256) as u8).collect()
}

/// Tiny segments and runs, so that sealing, flushing and merging happen in the middle of everything.
pub(crate) fn options() -> Options {
    let ticks = AtomicU64::new(1_800_000_000_000_000);
    Options {
        segment_bytes: 6 << 10,
        index_flush_bytes: 2 << 10,
        pack: PACKS.get(),
        background: false,
        direct_frame_bytes: 2 << 10,
        clock: Arc::new(move || Time::from_micros(ticks.fetch_add(1_000, Ordering::Relaxed)).unwrap()),
        ..Options::default()
    }
}

pub(crate) fn open(io: &FaultyIo) -> Result<EmbeddedStore> {
    EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options())
}

pub(crate) fn event(id: &str, data: Vec<u8>) -> Event {
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
        // What is not one byte over and over is the same noise again and again, each time with another beginning.
        let data = |j: usize| match fill {
            b'x' => [vec![i as u8; size / 10], noise(1, size + j - size / 10)].concat(),
            _ => vec![fill; size + j],
        };
        let events = (0..1 + i % 3).map(|j| event(&format!("{i}-{j}"), data(j))).collect();
        appends.push(events);
    }
    appends
}

/// What the workload was told.
#[derive(Default, Debug)]
pub(crate) struct Told {
    /// Batches that were acknowledged, by the position of their first event.
    acknowledged: BTreeMap<u64, Vec<Event>>,
    /// Batches whose fate is not known.
    unknown: Vec<Vec<Event>>,
    /// Batches that were refused with the promise that nothing was written.
    refused: Vec<Vec<Event>>,
    register: u64,
    register_unknown: bool,
}

pub(crate) fn append(store: &EmbeddedStore, events: Vec<Event>) -> Result<Appended> {
    block_on(store.append(&LogName::default(), Append::new(events)))
}

fn register() -> RegisterName {
    "cursor/a".parse().unwrap()
}

/// Runs the workload as far as it goes.
pub(crate) fn run(io: &FaultyIo, told: &mut Told) {
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

pub(crate) fn read_all(store: &EmbeddedStore) -> Vec<(u64, Event)> {
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
pub(crate) fn a_crash_at_any_operation_loses_nothing_acknowledged_and_leaves_no_half_batch() {
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
pub(crate) fn a_second_crash_while_recovering_from_the_first_loses_nothing_either() {
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
pub(crate) fn a_full_disk_at_any_operation_is_an_error_and_not_a_broken_log() {
    for at in 0..operations() {
        let io = FaultyIo::default();
        io.plan(at, Fault::Error(std::io::ErrorKind::StorageFull));
        let mut told = Told::default();
        run(&io, &mut told);
        check(&io, &told, &format!("disk full at operation {at}"));
    }
}

#[test]
fn zeros_are_written_ahead_for_frames_that_use_them_and_for_no_others() {
    for direct_frame_bytes in [2 << 10, u64::MAX] {
        let io = FaultyIo::default();
        let options = Options { segment_bytes: 64 << 20, direct_frame_bytes, ..options() };
        let store = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap();
        let segment = Path::new(DIR).join("logs/main/00000000.seg");
        let mut ids = 0;
        // Appends a frame of about so many bytes; answers where it ends, and where the file does.
        let mut append_frame = |bytes: usize| {
            ids += 1;
            append(&store, vec![event(&format!("e{ids}"), noise(ids, bytes))]).unwrap();
            let content = io.content(&segment).unwrap();
            let last = content.iter().rposition(|byte| *byte != 0).unwrap();
            ((last + 1).next_multiple_of(SECTOR_BYTES), content.len())
        };
        let (end, len) = append_frame(9_000);
        assert!(end < 10_000 && len == 64 << 10, "{end} {len}");
        // A megabyte of them: the file grows a few times, by more each time.
        let mut lengths: Vec<usize> = (0..100).map(|_| append_frame(9_000).1).collect();
        lengths.dedup();
        assert!((3..=8).contains(&lengths.len()), "{lengths:?}");
        assert!(lengths.windows(3).all(|at| at[2] - at[1] > at[1] - at[0]), "{lengths:?}");
        // What is left of the zeros is used up. No more are written for frames that are large themselves …
        let left = lengths[lengths.len() - 1];
        for _ in 0..8 {
            let (end, len) = append_frame(300_000);
            assert_eq!(len, end.max(left), "behind a large frame");
        }
        // … or for those in between, which the next large one would overwrite.
        for _ in 0..4 {
            let (end, len) = append_frame(130_000);
            assert_eq!(len, end, "behind a frame of 130 KB between large ones");
            let (end, len) = append_frame(300_000);
            assert_eq!(len, end, "behind a large frame");
        }
        // Small ones have them at once again, and those of 130 KB from the second on.
        let (end, len) = append_frame(500);
        assert!((60_000..=64 << 10).contains(&(len - end)), "{}", len - end);
        append_frame(300_000);
        append_frame(130_000);
        let (end, len) = append_frame(130_000);
        assert!((130_000..140_000).contains(&(len - end)), "{}", len - end);
    }
}

#[test]
fn zeros_are_used_again_after_opening_and_end_with_the_segment() {
    // Zeros would reach beyond this, which is no whole number of sectors.
    const SEGMENT_BYTES: usize = (100 << 10) + 100;
    for direct_frame_bytes in [2 << 10, u64::MAX] {
        let io = FaultyIo::default();
        let open = || {
            let segment_bytes = SEGMENT_BYTES as u64;
            let options = Options { segment_bytes, direct_frame_bytes, ..options() };
            EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap()
        };
        let len = |number: u32| {
            let path = Path::new(DIR).join("logs/main").join(crate::segment::file_name(number));
            io.content(&path).map(|content| content.len())
        };
        append(&open(), vec![event("first", noise(0, 9_000))]).unwrap();
        assert_eq!(len(0), Some(64 << 10));
        let store = open();
        let mut lengths = Vec::new();
        for number in 1..10 {
            append(&store, vec![event(&format!("e{number}"), noise(number, 9_000))]).unwrap();
            lengths.extend(len(0));
        }
        assert_eq!(lengths[..5], [64 << 10; 5], "there are zeros from before");
        assert_eq!(lengths[5..], [SEGMENT_BYTES / SECTOR_BYTES * SECTOR_BYTES; 4], "it grows to its end");
        assert_eq!(len(1), None);
        append(&store, vec![event("next", noise(10, 9_000))]).unwrap();
        assert_eq!(len(0), Some(10 * 19 * SECTOR_BYTES), "cut to its frames when it is full");
        assert_eq!(
            len(1),
            Some(19 * SECTOR_BYTES + (64 << 10)),
            "a new one begins with zeros behind its first"
        );
    }
}

#[test]
fn large_frames_go_past_the_cache_and_where_they_cannot_they_are_recorded_all_the_same() {
    for (direct, expected) in [(Direct::Done, 3), (Direct::Unknown, 0), (Direct::Refused, 0)] {
        let io = FaultyIo::default();
        io.set_direct(direct);
        // One segment for all, so that small frames and zeros lie between large ones.
        let options = Options { segment_bytes: 1 << 20, ..options() };
        let store = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap();
        let sizes = [10, 9_000, 300, 0, 30_000, 2_500, 700];
        let events: Vec<Event> =
            (0..).zip(sizes).map(|(i, size)| event(&format!("e{i}"), noise(i, size))).collect();
        for event in &events {
            append(&store, vec![event.clone()]).unwrap();
        }
        assert_eq!(io.direct_writes(), expected, "{direct:?}");
        drop(store);
        let left = io.after_crash(&mut Random::new(1));
        let store = open(&left).unwrap();
        let found: Vec<Event> = read_all(&store).into_iter().map(|(_, event)| event).collect();
        assert_eq!(found, events, "{direct:?}");
        assert!(block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap().is_ok());
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
pub(crate) fn a_failing_disk_stops_the_handle_and_every_waiter_is_told() {
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

pub(crate) fn is_derived(path: &Path) -> bool {
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
pub(crate) fn a_deleted_or_damaged_index_is_made_again() {
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
        // A thread of the log that panics stops the log, and lets go of what it was to answer.
        let appended = append(&store, vec![event("more", vec![1; 3_000])]);
        let panicked = |error: &Error| matches!(error.kind(), ErrorKind::Internal | ErrorKind::Stopped);
        let failed = appended.err().filter(panicked);
        assert!(failed.is_none(), "seed {seed}: {failed:?}");
    }
}

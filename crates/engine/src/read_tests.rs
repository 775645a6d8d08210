//! Reads: what a place of a file that cannot be read hides, and when a page says that there is more.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use precedent_core::{Direction, Event, LogName, Position, Query, Read, Store, Time, TimeField};

use crate::crash_tests::{self, DIR, append, block_on, event, noise, packing};
use crate::helpers;
use crate::io::faults::FaultyIo;
use crate::io::{Io, IoFile, LockKind, Mode};
use crate::reader::FrameReader;
use crate::segment::EventPlace;
use crate::{Access, EmbeddedStore, Options};

/// A file system some bytes of which cannot be read: those of the files whose names end so.
struct Unreadable {
    io: FaultyIo,
    end: &'static str,
    bytes: Range<u64>,
    reads: Arc<AtomicUsize>,
}

struct UnreadableFile {
    file: Arc<dyn IoFile>,
    bytes: Range<u64>,
    /// How often such a file was read.
    reads: Arc<AtomicUsize>,
}

impl Io for Unreadable {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.io.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.io.list(path)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn IoFile>> {
        let file = self.io.open(path, mode)?;
        match path.to_string_lossy().ends_with(self.end) {
            true => {
                let (bytes, reads) = (self.bytes.clone(), self.reads.clone());
                Ok(Arc::new(UnreadableFile { file, bytes, reads }))
            }
            false => Ok(file),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.io.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.io.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.io.sync_dir(path)
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.io.lock(path, kind)
    }
}

impl IoFile for UnreadableFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match offset < self.bytes.end && offset + buffer.len() as u64 > self.bytes.start {
            true => Err(io::Error::other("a sector that cannot be read")),
            false => self.file.read_at(buffer, offset),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

fn open(io: Arc<dyn Io>, access: Access) -> EmbeddedStore {
    let options = Options { access, segment_bytes: 1 << 20, ..crash_tests::options() };
    EmbeddedStore::open_in(io, Path::new(DIR), options).unwrap()
}

const EVENTS: u64 = 200;
const BAD: u64 = 100;

/// A log of frames of so many events each, all of them in one file.
fn filled(batch: usize) -> FaultyIo {
    let io = FaultyIo::default();
    let store = open(Arc::new(io.clone()), Access::ReadWrite);
    let events: Vec<Event> = (0..EVENTS).map(|i| event(&format!("e{i}"), noise(i, 3_000))).collect();
    for events in events.chunks(batch) {
        append(&store, events.to_vec()).unwrap();
    }
    block_on(store.close()).unwrap();
    io
}

/// Reads everything where the stored bytes of one event cannot be read; answers the positions that are named.
fn named(io: &FaultyIo, packed: bool, read: &Read) -> Vec<u64> {
    let log = open(Arc::new(io.clone()), Access::ReadOnly).log(&LogName::default()).unwrap();
    let (end, at) = match log.segments.locate(BAD).unwrap() {
        EventPlace::Frame(place) => {
            let mut bytes = vec![0; 1 << 20];
            log.segments.file(place.segment).unwrap().read_at(&mut bytes, 0).unwrap();
            let data = noise(BAD, 3_000);
            let at = bytes.windows(64).position(|window| window == &data[1_000..1_064]);
            (".seg", at.expect("it is there") as u64)
        }
        EventPlace::Pack(pack) => {
            let open = log.segments.open_pack(&pack).unwrap();
            (".pack", open.block_offset(open.block_of(Position(BAD))) + 64)
        }
    };
    assert_eq!(end == ".pack", packed);
    drop(log);
    let store = open(
        Arc::new(Unreadable { io: io.clone(), end, bytes: at..at + 512, reads: Arc::default() }),
        Access::ReadOnly,
    );
    let page = block_on(store.read(&LogName::default(), read)).unwrap();
    assert_eq!(page.events.len() + page.damaged.len(), EVENTS as usize);
    assert!(page.damaged.iter().all(|damage| damage.error.message().contains(end)), "{:?}", page.damaged);
    page.damaged.iter().map(|damage| damage.position.0).collect()
}

#[test]
fn a_place_that_cannot_be_read_hides_no_event_before_it_or_behind_it() {
    let typed = Read::matching(Query::event_type("test.happened"));
    let backward = Read { direction: Direction::Backward, ..Read::default() };
    for batch in [1, 8, 150] {
        let io = filled(batch);
        for read in [&Read::default(), &typed, &backward] {
            assert_eq!(named(&io, false, read), [BAD], "frames of {batch} events, {read:?}");
        }
    }
}

#[test]
fn a_place_of_a_pack_that_cannot_be_read_hides_the_events_of_one_block() {
    let named = named(&packing(|| filled(1)), true, &Read::default());
    assert!(named.contains(&BAD) && named.len() <= 6, "{named:?}");
}

/// Frames of one and of many events, small and large ones, content that repeats, and events too large for many of them to
/// fit into a page.
fn mixed(seed: u64) -> (FaultyIo, Vec<Event>) {
    let io = FaultyIo::default();
    let store = open(Arc::new(io.clone()), Access::ReadWrite);
    let mut all = Vec::new();
    for (round, batch) in [1, 300, 2, 40, 700, 3, 9, 120, 5].into_iter().enumerate() {
        let first = all.len();
        let of_batch = (0..batch).map(|i| {
            let n = (first + i) as u64;
            let data = match (round, n % 5) {
                (2 | 5, _) => noise(seed + n, 900_000),
                (_, 0) => noise(seed, 2_000 + n as usize % 700),
                _ => noise(seed + n, n as usize % 1_300),
            };
            let ty = if n.is_multiple_of(3) { "test.third" } else { "test.other" };
            let event = Event::builder("urn:test", n.to_string(), ty).stream(format!("s{}", n % 2));
            event.data(data).build().unwrap()
        });
        let of_batch: Vec<_> = of_batch.collect();
        append(&store, of_batch.clone()).unwrap();
        all.extend(of_batch);
    }
    block_on(store.close()).unwrap();
    (io, all)
}

#[test]
fn pages_hold_the_same_whoever_helps_to_read_them() {
    let logs = [packing(|| mixed(0)), packing(|| mixed(10_000)), mixed(20_000)];
    // All are read at once, so that whoever helps one helps the others next.
    std::thread::scope(|scope| {
        for (number, (io, all)) in logs.iter().enumerate() {
            scope.spawn(move || {
                let store = open(Arc::new(io.clone()), Access::ReadOnly);
                let queries = [Query::all(), Query::event_type("test.third"), Query::stream("s1")];
                for (round, query) in queries.into_iter().cycle().take(12).enumerate() {
                    let direction = [Direction::Forward, Direction::Backward][round % 2];
                    let limit = [None, Some(129), Some(500)][round / 4 % 3];
                    let mut read = Read { direction, limit, ..Read::matching(query.clone()) };
                    let mut expected: Vec<_> = (0..).zip(all).filter(|(_, e)| query.matches(e)).collect();
                    if direction == Direction::Backward {
                        expected.reverse();
                    }
                    let mut expected = expected.into_iter();
                    loop {
                        let page = block_on(store.read(&LogName::default(), &read)).unwrap();
                        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
                        let bytes: usize = page.events.iter().map(|e| e.event.data().unwrap().len()).sum();
                        assert!(bytes < (4 << 20) + 1_000_000, "log {number}: a page of {bytes} bytes");
                        for recorded in &page.events {
                            let (position, event) = expected.next().unwrap();
                            assert_eq!(
                                (recorded.position.0, &recorded.event),
                                (position, event),
                                "log {number}"
                            );
                        }
                        match page.next {
                            Some(covered) => read = read.continued(covered),
                            None => break,
                        }
                    }
                    assert_eq!(expected.next(), None, "log {number}, round {round}");
                }
            });
        }
    });
}

/// Writes every frame of the segments anew as version 1 had it: all entries, then all parts. Answers how many there are.
fn as_version_1(io: &FaultyIo) -> usize {
    let mut frames = 0;
    let log = open(Arc::new(io.clone()), Access::ReadOnly).log(&LogName::default()).unwrap();
    let mut next = Some(0);
    while let Some(place) = next.and_then(|sequence| log.segments.frame_number(sequence).unwrap()) {
        let frame = FrameReader::new(&log.segments, true).frame(&place).unwrap();
        let bytes = frame.of_version_1().unwrap();
        let file = io.open(&log.segments.path(place.segment), Mode::Write).unwrap();
        file.write_at(&bytes, place.offset).unwrap();
        file.sync().unwrap();
        frames += 1;
        next = Some(place.sequence + 1);
    }
    frames
}

#[test]
fn a_log_of_frames_of_version_1_is_read_verified_appended_to_and_packed() {
    let (io, mut all) = mixed(30_000);
    assert_eq!(as_version_1(&io), 9);
    let check = |io: &FaultyIo, all: &[Event]| {
        let store = open(Arc::new(io.clone()), Access::ReadOnly);
        for query in [Query::all(), Query::event_type("test.third"), Query::stream("s1")] {
            for direction in [Direction::Forward, Direction::Backward] {
                let mut expected: Vec<_> = (0..).zip(all).filter(|(_, e)| query.matches(e)).collect();
                if direction == Direction::Backward {
                    expected.reverse();
                }
                let mut read = Read { direction, ..Read::matching(query.clone()) };
                let mut found = Vec::new();
                loop {
                    let page = block_on(store.read(&LogName::default(), &read)).unwrap();
                    assert!(page.damaged.is_empty(), "{:?}", page.damaged);
                    found.extend(page.events);
                    let Some(covered) = page.next else { break };
                    read = read.continued(covered);
                }
                let found: Vec<_> = found.iter().map(|e| (e.position.0, &e.event)).collect();
                assert!(found == expected, "{query:?}, {direction:?}");
            }
        }
        let report = block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
    };
    check(&io, &all);
    let mut append_one = |id: &str| {
        let store = open(Arc::new(io.clone()), Access::ReadWrite);
        all.push(event(id, noise(1, 2_000)));
        append(&store, vec![all.last().unwrap().clone()]).unwrap();
        block_on(store.close()).unwrap();
        all.clone()
    };
    check(&io, &append_one("later"));
    let all = packing(|| append_one("packed"));
    let files = io.list(&Path::new(DIR).join("logs/main")).unwrap();
    assert!(!files.iter().any(|name| name.ends_with(".seg")), "{files:?}");
    check(&io, &all);
}

#[test]
fn a_page_that_ends_with_the_last_match_says_that_there_is_no_more() {
    let io = FaultyIo::default();
    let store = open(Arc::new(io), Access::ReadWrite);
    let of = |stream: &str, id: u64| {
        Event::builder("urn:test", id.to_string(), "test.happened").stream(stream).build().unwrap()
    };
    for i in 0..60 {
        append(&store, vec![of(["a", "b", "c"][i as usize % 3], i)]).unwrap();
    }
    for (direction, last) in [(Direction::Forward, 58), (Direction::Backward, 1)] {
        for limit in 1..=20 {
            let read = Read { direction, limit: Some(limit), ..Read::matching(Query::stream("b")) };
            let page = block_on(store.read(&LogName::default(), &read)).unwrap();
            assert_eq!(page.events.len(), limit);
            let expected = page.events.last().map(|event| event.position).filter(|at| at.0 != last);
            assert_eq!(page.next, expected, "{direction:?}, {limit}");
        }
    }
}

#[test]
fn a_page_is_begun_ahead_for_whoever_reads_on_and_for_nobody_else() {
    if !helpers::can_be() {
        eprintln!("skipped: nobody helps where there is one processor");
        return;
    }
    let io = filled(EVENTS as usize);
    let store = open(Arc::new(io.clone()), Access::ReadWrite);
    let log = store.log(&LogName::default()).unwrap();
    let (segments, readers) = (&log.segments, &log.settings.readers);
    let page = |read: &Read| {
        let page = block_on(store.read(&LogName::default(), read)).unwrap();
        let positions: Vec<u64> = page.events.iter().map(|e| e.position.0).collect();
        (positions, page.next.map(|covered| read.clone().continued(covered)))
    };
    append(&store, (0..600).map(|i| event(&format!("small{i}"), noise(i, 300))).collect()).unwrap();
    let of = |first: u64, count: u64| (first..first + count).collect::<Vec<_>>();
    let begun = |read: &Read| readers.take(segments, read).map(|begun| begun.map(|b| b.positions().to_vec()));

    let first = Read { limit: Some(150), ..Read::default() };
    let (positions, second) = page(&first);
    assert_eq!(positions, of(0, 150));
    let second = second.unwrap();
    let (positions, third) = page(&second);
    assert_eq!(positions, of(150, 150));
    let third = third.unwrap();
    assert_eq!(begun(&third), Some(Some(of(300, 150))), "somebody has read on");
    assert_eq!(begun(&third), None, "it is there once");
    // Without what was begun it is read as ever, and then nobody is known to read on.
    let (positions, fourth) = page(&third);
    assert_eq!(positions, of(300, 150));
    assert_eq!(begun(&fourth.unwrap()), Some(None));
    // Nor is it for other pages, few events, the way back, or what the index finds.
    page(&first);
    page(&Read { limit: Some(151), ..second.clone() });
    assert!(!matches!(begun(&third), Some(Some(_))));
    for read in [
        Read { limit: Some(100), ..Read::default() },
        Read { direction: Direction::Backward, ..first.clone() },
        Read { limit: Some(150), ..Read::matching(Query::event_type(event("e", vec![]).event_type())) },
    ] {
        let (_, next) = page(&read);
        let (_, next) = page(&next.unwrap());
        assert_eq!(begun(&next.unwrap()), None, "{read:?}");
    }
    // What was recorded meanwhile belongs to the last page too.
    let mut next = Some(first);
    let mut all = Vec::new();
    while let Some(read) = next.take() {
        let (positions, behind) = page(&read);
        all.extend(positions);
        if all.len() == 600 {
            append(&store, vec![event("late", noise(9, 300))]).unwrap();
        }
        next = behind;
    }
    assert_eq!(all, of(0, 801));

    page(&page(&second).1.unwrap());
    block_on(store.close()).unwrap();
    assert_eq!(begun(&third), None);
    let start = Instant::now();
    while Arc::strong_count(segments) > 1 {
        assert!(start.elapsed().as_secs() < 30, "what was begun of a log outlives it");
        std::thread::yield_now();
    }
}

#[test]
fn damage_that_was_seen_while_a_page_was_begun_ahead_is_not_told_once_it_has_passed() {
    let io = filled(EVENTS as usize);
    let store = open(Arc::new(io.clone()), Access::ReadWrite);
    append(&store, (0..600).map(|i| event(&format!("small{i}"), noise(i, 300))).collect()).unwrap();
    let path = store.log(&LogName::default()).unwrap().segments.path(0);
    let good = io.content(&path).unwrap();
    let data = noise(200, 300);
    let at = good.windows(64).position(|window| window == &data[..64]).expect("it is there");
    let mut bad = good.clone();
    bad[at] ^= 1;
    let page = |read: &Read, content: &[u8]| {
        io.set_content(&path, content.to_vec());
        let page = block_on(store.read(&LogName::default(), read)).unwrap();
        let named: Vec<u64> = page.damaged.iter().map(|damage| damage.position.0).collect();
        (named, read.clone().continued(page.next.unwrap()))
    };
    let first = Read { limit: Some(150), ..Read::default() };
    // Position 400 is on the third page, which is begun with the second.
    let (named, second) = page(&first, &bad);
    assert_eq!(named, [] as [u64; 0]);
    let (named, third) = page(&second, &bad);
    assert_eq!(named, [] as [u64; 0]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(page(&third, &good).0, [] as [u64; 0], "what had failed may be read now");
    assert_eq!(page(&third, &bad).0, [400]);
}

/// Some events in a log of many, of which those produced early are wanted.
fn produced(first: usize, others: u64, io: &FaultyIo) -> Read {
    let make = |id: u64, early: bool, data: Vec<u8>| {
        let time = if early { "2026-01-01T00:00:00Z" } else { "2026-06-01T00:00:00Z" };
        let event = Event::builder("urn:test", id.to_string(), "test.happened").time(time);
        event.stream("s").data(data).build().unwrap()
    };
    let options = Options { segment_bytes: 64 << 20, ..crash_tests::options() };
    let store = EmbeddedStore::open_in(Arc::new(io.clone()), Path::new(DIR), options).unwrap();
    append(&store, vec![make(0, true, noise(0, first))]).unwrap();
    let ids: Vec<u64> = (1..others).collect();
    for batch in ids.chunks(200) {
        append(&store, batch.iter().map(|id| make(*id, id % 100 == 50, noise(*id, 200))).collect()).unwrap();
    }
    block_on(store.close()).unwrap();
    Read {
        by: TimeField::Produced,
        until: Some(Time::from_micros(1_772_323_200_000_000).unwrap()),
        ..Read::default()
    }
}

#[test]
fn a_page_that_is_nearly_full_is_not_finished_event_by_event() {
    let reads = |first| {
        let (io, reads) = (FaultyIo::default(), Arc::<AtomicUsize>::default());
        let read = produced(first, 4_000, &io);
        let io = Unreadable { io, end: ".seg", bytes: 0..0, reads: reads.clone() };
        let store = open(Arc::new(io), Access::ReadOnly);
        let mut all = 0;
        for query in [Query::all(), Query::stream("s"), Query::event_type("test.happened")] {
            let read = Read { query, ..read.clone() };
            let before = reads.load(Ordering::SeqCst);
            let page = block_on(store.read(&LogName::default(), &read)).unwrap();
            assert!(page.events.len() >= 2 && page.damaged.is_empty());
            all += reads.load(Ordering::SeqCst) - before;
        }
        all
    };
    let (small, large) = (reads(100), reads((4 << 20) - 1_000));
    assert!(large < small * 4, "{large} reads instead of {small}");
}

#[test]
fn an_event_of_a_page_holds_nothing_of_what_was_read_around_it() {
    let io = FaultyIo::default();
    let read = produced(100, 4_000, &io);
    let store = open(Arc::new(io), Access::ReadOnly);
    for query in [Query::all(), Query::event_type("test.happened")] {
        let page = block_on(store.read(&LogName::default(), &Read { query, ..read.clone() })).unwrap();
        assert_eq!(page.events.len(), 41);
        for recorded in page.events {
            let (position, data) = (recorded.position, recorded.event.data().unwrap().clone());
            drop(recorded);
            assert!(data.is_unique(), "position {position}");
        }
    }
}

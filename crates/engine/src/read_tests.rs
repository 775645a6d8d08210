//! Reads: what a place of a file that cannot be read hides, and when a page says that there is more.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use precedent_core::{Direction, Event, LogName, Position, Query, Read, Store};

use crate::crash_tests::{self, DIR, append, block_on, event, noise, packing};
use crate::io::faults::FaultyIo;
use crate::io::{Io, IoFile, LockKind, Mode};
use crate::segment::EventPlace;
use crate::{Access, EmbeddedStore, Options};

/// A file system some bytes of which cannot be read: those of the files whose names end so.
struct Unreadable {
    io: FaultyIo,
    end: &'static str,
    bytes: Range<u64>,
}

struct UnreadableFile {
    file: Arc<dyn IoFile>,
    bytes: Range<u64>,
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
            true => Ok(Arc::new(UnreadableFile { file, bytes: self.bytes.clone() })),
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

/// A log of frames of one event each, all of them in one file.
fn filled() -> FaultyIo {
    filled_from(0)
}

fn filled_from(seed: u64) -> FaultyIo {
    let io = FaultyIo::default();
    let store = open(Arc::new(io.clone()), Access::ReadWrite);
    for i in 0..EVENTS {
        append(&store, vec![event(&format!("e{i}"), noise(seed + i, 3_000))]).unwrap();
    }
    block_on(store.close()).unwrap();
    io
}

/// Reads everything where the stored bytes of one event cannot be read; answers the positions that are named.
fn named(io: &FaultyIo, packed: bool) -> Vec<u64> {
    let log = open(Arc::new(io.clone()), Access::ReadOnly).log(&LogName::default()).unwrap();
    let (end, at) = match log.segments.locate(BAD).unwrap() {
        EventPlace::Frame(place) => (".seg", place.offset + 1_024),
        EventPlace::Pack(pack) => {
            let open = log.segments.open_pack(&pack).unwrap();
            (".pack", open.block_offset(open.block_of(Position(BAD))) + 64)
        }
    };
    assert_eq!(end == ".pack", packed);
    drop(log);
    let store = open(Arc::new(Unreadable { io: io.clone(), end, bytes: at..at + 512 }), Access::ReadOnly);
    let page = block_on(store.read(&LogName::default(), &Read::default())).unwrap();
    assert_eq!(page.events.len() + page.damaged.len(), EVENTS as usize);
    assert!(page.damaged.iter().all(|damage| damage.error.message().contains(end)), "{:?}", page.damaged);
    page.damaged.iter().map(|damage| damage.position.0).collect()
}

#[test]
fn a_place_that_cannot_be_read_hides_no_event_before_it_or_behind_it() {
    assert_eq!(named(&filled(), false), [BAD]);
}

#[test]
fn a_place_of_a_pack_that_cannot_be_read_hides_the_events_of_one_block() {
    let named = named(&packing(filled), true);
    assert!(named.contains(&BAD) && named.len() <= 6, "{named:?}");
}

#[test]
fn blocks_that_are_unpacked_ahead_are_those_of_the_log_that_is_read() {
    let seeds = [0, 1_000];
    let logs = seeds.map(|seed| packing(|| filled_from(seed)));
    // Both are read at once, so that whoever unpacks for one does so for the other next.
    std::thread::scope(|scope| {
        for (seed, io) in seeds.into_iter().zip(&logs) {
            scope.spawn(move || {
                for round in 0..10 {
                    let store = open(Arc::new(io.clone()), Access::ReadOnly);
                    let query =
                        if round % 2 == 0 { Query::all() } else { Query::event_type("test.happened") };
                    let direction = if round % 3 == 0 { Direction::Backward } else { Direction::Forward };
                    let read = Read { direction, ..Read::matching(query) };
                    let page = block_on(store.read(&LogName::default(), &read)).unwrap();
                    assert_eq!((page.events.len(), page.damaged.len()), (EVENTS as usize, 0));
                    for event in page.events {
                        assert_eq!(event.event.data().unwrap()[..], noise(seed + event.position.0, 3_000));
                    }
                }
            });
        }
    });
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

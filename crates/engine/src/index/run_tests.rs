//! What runs promise: every term is found, nothing else is, in bounded memory, and a changed byte is noticed.

use std::any::Any;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use precedent_core::{Direction, Event, Position};

use super::super::cursor::Cursor;
use super::super::{Index, UNREADABLE};
use super::*;
use crate::io::LockKind;
use crate::io::faults::{FaultyIo, Random};

/// A file system that counts what is read, and remembers the most that was read or written at once.
#[derive(Clone, Default)]
struct Counting {
    inner: FaultyIo,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    most: AtomicU64,
}

struct CountingFile(Arc<dyn IoFile>, Arc<Counts>);

impl Counting {
    fn reads(&self) -> u64 {
        self.counts.reads.load(Ordering::Relaxed)
    }
}

impl Io for Counting {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn IoFile>> {
        Ok(Arc::new(CountingFile(self.inner.open(path, mode)?, self.counts.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        self.inner.lock(path, kind)
    }
}

impl IoFile for CountingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.reads.fetch_add(1, Ordering::Relaxed);
        self.1.most.fetch_max(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.most.fetch_max(bytes.len() as u64, Ordering::Relaxed);
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

const DIR: &str = "/index";
const LOG: LogId = LogId([7; 16]);

fn disk() -> Counting {
    let io = Counting::default();
    io.create_dir_all(Path::new(DIR)).unwrap();
    io
}

/// A run over positions from `first` on, of terms with positions relative to it.
fn run_of(io: &Counting, first: u64, len: u64, terms: impl IntoIterator<Item = (Term, u32)>) -> Run {
    let mut table = Table::new(first, first);
    for (term, position) in terms {
        table.insert(term, Position(first + u64::from(position)));
    }
    let coverage = Coverage {
        log: LOG,
        level: 0,
        first_sequence: first,
        end_sequence: first + len,
        first_position: first,
        end_position: first + len,
        last_frame: Hash::ZERO,
    };
    let path = write_table(io, Path::new(DIR), &table, &coverage).unwrap();
    Run::open(io, &path, LOG).unwrap().holding_filter(true)
}

fn positions(run: Arc<Run>, term: Term) -> Vec<u64> {
    let mut cursor = Cursor::of_run(&run, run.find(term).unwrap());
    let mut all = Vec::new();
    while let Some(found) = cursor.seek(all.last().map_or(0, |p| p + 1), Direction::Forward).unwrap() {
        all.push(found);
    }
    all
}

#[test]
fn every_term_of_a_run_is_found_in_two_pages_and_others_are_not() {
    let io = disk();
    let mut random = Random::new(1);
    let mut term = || random.next() << 32 ^ random.next();
    let terms: Vec<Term> = (0..70_000).map(|_| term()).collect();
    let run = run_of(&io, 0, 70_000, terms.iter().copied().zip(0..));
    assert_eq!(run.groups.len(), 3);
    terms.iter().for_each(|term| assert!(run.may_have(*term).unwrap()));
    let before = io.reads();
    for (position, term) in terms.iter().enumerate() {
        assert_eq!(run.find(*term).unwrap(), Found::One(position as u32), "term {term:#x}");
    }
    let reads = io.reads() - before;
    assert!(reads < 2 * 70_000, "{reads} pages for 70,000 terms");
    let others: Vec<Term> = (0..70_000).map(|_| term()).collect();
    let before = io.reads();
    let taken_for_there = others.iter().filter(|term| run.may_have(**term).unwrap()).count();
    assert_eq!(io.reads(), before, "the filter is in memory");
    assert!(taken_for_there < 70_000 * 3 / 100, "{taken_for_there} of 70,000");
    assert!(others.iter().all(|term| run.find(*term).unwrap() == Found::None));
}

#[test]
fn terms_that_lie_unevenly_are_found_too() {
    let io = disk();
    let close = (0..40_000u64).map(|n| n * n).chain([u64::MAX - 1, u64::MAX]);
    let terms: Vec<Term> = close.collect();
    let run = run_of(&io, 0, 70_000, terms.iter().copied().zip(0..));
    assert!(run.has_unreadable(), "term 0 is that of what cannot be read");
    for (position, term) in terms.iter().enumerate() {
        assert_eq!(run.find(*term).unwrap(), Found::One(position as u32), "term {term:#x}");
    }
    for term in [2, 3, 1_000_001, u64::MAX / 2, u64::MAX - 2] {
        assert_eq!(run.find(term).unwrap(), Found::None, "term {term:#x}");
    }
}

#[test]
fn a_merge_takes_the_memory_of_a_few_pages_however_much_one_term_has() {
    let io = disk();
    let len = 60_000u32;
    let runs: Vec<Arc<Run>> = (0..3)
        .map(|n| {
            let own = (0..len).map(|p| (mixed(u64::from(n * len + p)), p));
            let common = (0..len).map(|p| (u64::MAX / 2, p)).chain([(5 + u64::from(n), 9)]);
            Arc::new(run_of(&io, u64::from(n * len), len.into(), own.chain(common)))
        })
        .collect();
    io.counts.most.store(0, Ordering::Relaxed);
    let path = merge(&io, Path::new(DIR), &runs).unwrap();
    let most = io.counts.most.load(Ordering::Relaxed);
    assert!(most <= ((PAGES_AT_ONCE + 1) * PAGE) as u64, "{most} bytes at once");
    let merged = Arc::new(Run::open(&io, &path, LOG).unwrap());
    assert_eq!((merged.coverage.level, merged.coverage.end_position), (1, 3 * u64::from(len)));
    assert!(positions(merged.clone(), u64::MAX / 2).into_iter().eq(0..3 * u64::from(len)));
    assert_eq!(positions(merged.clone(), 6), [u64::from(len) + 9]);
    for n in (0..3 * len).step_by(97) {
        assert_eq!(positions(merged.clone(), mixed(n.into())), [u64::from(n)]);
    }
    // Nothing is written twice: the run is as long as what it holds.
    let pages = |n: u64, per: u64| n.div_ceil(per);
    let least = pages(3 * u64::from(len), 255) + pages(3 * u64::from(len), 1_023);
    assert!(merged.bytes / (PAGE as u64) < least + least / 8 + 8, "{} bytes", merged.bytes);
}

/// Different for every number, and even.
fn mixed(n: u64) -> Term {
    let n = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

#[test]
fn every_changed_byte_of_a_run_is_noticed_where_it_matters() {
    let io = disk();
    let terms: Vec<(Term, u32)> =
        (0..3_000).map(|n| (mixed(n.into()), n)).chain((0..3_000).map(|n| (77, n))).collect();
    let run = run_of(&io, 0, 3_000, terms.iter().copied());
    let (path, whole) = (run.path.clone(), run.bytes);
    let file = io.open(&path, Mode::Write).unwrap();
    let mut noticed = 0;
    for page in 0..whole / PAGE as u64 {
        let at = page * PAGE as u64 + 40 * page % PAGE as u64;
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 4], at).unwrap();
        let Some(bad) = Run::open(&io, &path, LOG) else {
            noticed += 1;
            file.write_at(&byte, at).unwrap();
            continue;
        };
        let bad = Arc::new(bad.holding_filter(true));
        let mut failed = false;
        for (term, position) in terms.iter().take(3_000) {
            match bad.find(*term) {
                Ok(found) => assert_eq!(found, Found::One(*position)),
                Err(_) => failed = true,
            }
        }
        let mut cursor = Cursor::of_run(&bad, bad.find(77).unwrap_or(Found::None));
        failed |= (0..3_000).any(|p| cursor.seek(p, Direction::Forward).is_err());
        assert!(failed, "page {page} of {} is checked by nobody", whole / PAGE as u64);
        noticed += 1;
        file.write_at(&byte, at).unwrap();
    }
    assert_eq!(noticed, whole / PAGE as u64);
    for len in [0, 1, PAGE as u64, whole - PAGE as u64, whole - 1] {
        file.set_len(len).unwrap();
        assert!(Run::open(&io, &path, LOG).is_none(), "{len} of {whole} bytes");
    }
}

/// An index of runs over ten events each, merged as they come.
fn index_of(io: &Counting, events: u64, filter_bytes_max: u64) -> Index {
    let mut index = Index::open(Arc::new(io.clone()), DIR.into(), LOG, true, |_| true).unwrap();
    index.filter_bytes_max = filter_bytes_max;
    for first in (0..events).step_by(10) {
        let events: Vec<(Position, Event)> = (first..first + 10).map(|n| (Position(n), event(n))).collect();
        index.add_frame(first / 10, 1, first + 10, events.iter().map(|(p, e)| (*p, e)));
        assert!(index.freeze(1, Hash::ZERO) && index.flush_one());
        while index.merge_once() {}
    }
    index
}

fn event(n: u64) -> Event {
    let event = Event::builder("s", n.to_string(), format!("t{}", n % 3));
    event.stream(format!("stream/{}", n / 2)).build().unwrap()
}

#[test]
fn a_new_key_reads_nothing_once_the_filters_are_there_and_a_known_one_is_never_missed() {
    let io = disk();
    let index = index_of(&io, 2_000, 1 << 20);
    let new = |n: u64| index.may_have_key("s", &format!("new-{n}"));
    (0..1_000).for_each(|n| _ = new(n));
    let before = io.reads();
    let taken_for_there = (1_000..3_000).filter(|n| new(*n)).count();
    assert_eq!(io.reads(), before);
    assert!(taken_for_there < 2_000 / 5, "{taken_for_there} of 2,000");
    assert!((0..2_000).all(|n| index.may_have_key("s", &n.to_string())));
    assert!((0..1_000).all(|n| index.may_have_stream(&format!("stream/{n}"))));
    // What has no index may have everything.
    let run = index.read().runs[0].clone();
    index.drop_run(&run.bad());
    assert!((0..100).all(new));
}

#[test]
fn of_many_keys_at_once_none_that_is_known_is_missed() {
    let io = disk();
    // Filters that are held and filters that are not, a table that waits and the active one.
    let index = index_of(&io, 20_000, 6 * PAGE as u64);
    let add = |first: u64| {
        let events: Vec<(Position, Event)> = (first..first + 10).map(|n| (Position(n), event(n))).collect();
        index.add_frame(first / 10, 1, first + 10, events.iter().map(|(p, e)| (*p, e)));
    };
    add(20_000);
    assert!(index.freeze(1, Hash::ZERO));
    add(20_010);
    // Known and new ones in turn, more than are fetched together and not a multiple of it.
    let events: Vec<Event> = (19_501..20_020)
        .flat_map(|n| [event(n), Event::builder("s", format!("new-{n}"), "t").build().unwrap()])
        .collect();
    let together = index.may_have_keys(events.iter());
    assert_eq!(together.len(), events.len());
    assert!(together.iter().step_by(2).all(|known| *known));
    let taken_for_there = together.iter().skip(1).step_by(2).filter(|new| **new).count();
    assert!(taken_for_there < 519 / 5, "{taken_for_there} of 519");
    // What has no index may have everything.
    let run = index.read().runs[0].clone();
    index.drop_run(&run.bad());
    assert!(index.may_have_keys(events.iter()).iter().all(|may| *may));
}

#[test]
fn filters_take_no_more_memory_than_they_may_and_answers_stay_the_same() {
    let io = disk();
    let room = 6 * PAGE as u64;
    let index = index_of(&io, 20_000, room);
    let state = |index: &Index| index.read().runs.clone();
    let all: u64 = state(&index).iter().map(|run| run.filter_pages()).sum();
    assert!(all > 2 * 6, "{all} pages of filters are not too many for the test");
    for n in 0..20_000 {
        assert!(index.may_have_key("s", &n.to_string()), "event {n}");
    }
    let held: u64 = state(&index).iter().map(|run| run.filter_pages_held()).sum();
    assert!((1..=6).contains(&held), "{held} pages of {all} in memory");
    // The smaller filters are those that are held.
    let largest_held = state(&index).iter().filter(|r| r.holds_filter()).map(|r| r.filter_pages()).max();
    let smallest_not = state(&index).iter().filter(|r| !r.holds_filter()).map(|r| r.filter_pages()).min();
    assert!(largest_held <= smallest_not, "{largest_held:?} {smallest_not:?}");
    assert!(!index.may_have_unreadable());
    let mut none = index.unreadable().unwrap();
    assert_eq!(none.seek(0, Direction::Forward).unwrap(), None);
    assert!((0..50).filter(|n| index.may_have_key("s", &format!("new-{n}"))).count() < 25);
}

#[test]
fn opening_reads_a_header_and_a_list_of_groups_a_run() {
    let io = disk();
    drop(index_of(&io, 20_000, 1 << 20));
    let before = io.reads();
    let index = Index::open(Arc::new(io.clone()), DIR.into(), LOG, false, |_| true).unwrap();
    let (runs, reads) = (index.read().runs.len() as u64, io.reads() - before);
    assert!(runs > 3 && reads <= 2 * runs, "{reads} reads for {runs} runs");
    assert_eq!(index.end(), (2_000, 20_000));
}

#[test]
fn what_could_not_be_read_is_known_after_opening_again() {
    let io = disk();
    let index = Index::open(Arc::new(io.clone()), DIR.into(), LOG, true, |_| true).unwrap();
    index.add_unreadable(3..5);
    index.add_frame(0, 1, 6, std::iter::empty());
    assert!(index.freeze(1, Hash::ZERO) && index.flush_one());
    let again = Index::open(Arc::new(io), DIR.into(), LOG, false, |_| true).unwrap();
    assert!(again.may_have_unreadable());
    assert_eq!(positions(again.read().runs[0].clone(), UNREADABLE), [3, 4]);
}

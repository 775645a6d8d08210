//! Packs and extents: that a packed log is the same log, whatever fails while it is packed, and that whatever is
//! put into one by hand is refused and named.

use std::path::{Path, PathBuf};

use precedent_core::commitment::{Salt, commit};
use precedent_core::entry::{DATA_PART, EncodedEnvelope, LogFields, Part};
use precedent_core::frame::{Chained, FrameBuilder};
use precedent_core::sequencer::LogState;
use precedent_core::tree::leaf_hash;
use precedent_core::verify::Report;
use precedent_core::{Event, FrameId, Hash, LogName, Position, Read, Store};

use crate::crash_tests::{self, DIR, append, block_on, event, noise, packing, read_all};
use crate::io::faults::{FaultyIo, Random};
use crate::io::{Io, Mode};
use crate::{Access, EmbeddedStore, Options, pack};

/// Segments small enough that there are many, and large enough that there is something to refer to.
fn options() -> Options {
    Options { segment_bytes: 24 << 10, ..crash_tests::options() }
}

fn open(io: &FaultyIo) -> precedent_core::Result<EmbeddedStore> {
    EmbeddedStore::open_in(std::sync::Arc::new(io.clone()), Path::new(DIR), options())
}

fn dir() -> PathBuf {
    Path::new(DIR).join("logs/main")
}

fn packs(io: &FaultyIo) -> Vec<PathBuf> {
    let names = io.list(&dir()).unwrap().into_iter().filter(|name| pack::range_of(name).is_some());
    let mut packs: Vec<PathBuf> = names.map(|name| dir().join(name)).collect();
    packs.sort();
    packs
}

fn verify(store: &EmbeddedStore) -> Report {
    block_on(store.verify(&LogName::default(), None, &|_, _| ())).unwrap()
}

fn read_only(io: &FaultyIo) -> EmbeddedStore {
    let options = Options { access: Access::ReadOnly, ..options() };
    EmbeddedStore::open_in(std::sync::Arc::new(io.clone()), Path::new(DIR), options).unwrap()
}

/// Rounds of a large event and a small one.
const ROUNDS: u64 = 240;

/// A log of many small segments with repeated content, packed or not.
fn filled(packed: bool) -> FaultyIo {
    let io = FaultyIo::default();
    let fill = || {
        let store = open(&io).unwrap();
        for i in 0..ROUNDS {
            let own = noise(100 + i, 400);
            let data = [own, noise(i % 4, 2_500)].concat();
            append(&store, vec![event(&format!("e{i}"), data), event(&format!("small{i}"), vec![b's'; 40])])
                .unwrap();
        }
    };
    if packed {
        packing(fill)
    } else {
        fill()
    }
    io
}

#[test]
fn a_crash_at_any_operation_while_packing_loses_nothing() {
    packing(crash_tests::a_crash_at_any_operation_loses_nothing_acknowledged_and_leaves_no_half_batch);
}

#[test]
fn a_second_crash_with_packs_loses_nothing_either() {
    packing(crash_tests::a_second_crash_while_recovering_from_the_first_loses_nothing_either);
}

#[test]
fn a_full_disk_while_packing_is_no_broken_log() {
    packing(crash_tests::a_full_disk_at_any_operation_is_an_error_and_not_a_broken_log);
}

#[test]
fn a_failing_disk_or_fault_while_packing_fails_no_append_falsely() {
    packing(crash_tests::a_failing_disk_stops_the_handle_and_every_waiter_is_told);
}

#[test]
fn an_index_is_made_again_from_packs() {
    packing(crash_tests::a_deleted_or_damaged_index_is_made_again);
}

#[test]
fn a_packed_log_is_the_same_log() {
    let (plain, packed) = (filled(false), filled(true));
    assert!(packs(&plain).is_empty());
    let there = packs(&packed);
    assert!((1..8).contains(&there.len()), "packs are merged: {there:?}");
    assert!(there.iter().any(|path| {
        let (first, last) = pack::range_of(path.file_name().unwrap().to_str().unwrap()).unwrap();
        last >= first + 7
    }));
    packing(|| {
        let (a, b) = (open(&plain).unwrap(), open(&packed).unwrap());
        assert_eq!(read_all(&a), read_all(&b));
        for store in [&a, &b] {
            let report = verify(store);
            assert!(report.is_ok(), "{:?}", report.problems);
            assert_eq!(report.size, 2 * ROUNDS);
            let head = block_on(store.head(&LogName::default())).unwrap();
            assert_eq!(report.root, Some(head.root));
            assert_eq!(report.frames, head.frames);
        }
        // Frames come out whole, wherever they were, and a copy has the same root.
        let frames = block_on(b.frames(&LogName::default(), 0, usize::MAX)).unwrap();
        assert_eq!(frames.len() as u64, ROUNDS);
        let copy_io = FaultyIo::default();
        let copy = open(&copy_io).unwrap();
        let name: LogName = "copy".parse().unwrap();
        for frame in frames {
            block_on(copy.put_frames(&name, vec![frame])).unwrap();
        }
        let (one, other) = (block_on(b.head(&LogName::default())), block_on(copy.head(&name)));
        assert_eq!(one.unwrap(), other.unwrap());
        assert!(block_on(copy.verify(&name, None, &|_, _| ())).unwrap().is_ok());
        // What can be read of one event by itself is read by itself.
        for position in (0..2 * ROUNDS).rev() {
            let read = Read { before: Some(Position(position + 1)), limit: Some(1), ..Read::default() };
            let read = Read { direction: precedent_core::Direction::Backward, ..read };
            let page = block_on(b.read(&LogName::default(), &read)).unwrap();
            assert_eq!(page.events[0].position, Position(position));
        }
    });
}

#[test]
fn a_packed_log_with_repeats_is_a_fraction_of_what_was_sent() {
    let usage = |io: &FaultyIo| {
        let store = open(io).unwrap();
        block_on(store.examine(&LogName::default())).unwrap().0
    };
    let (plain, packed) = (usage(&filled(false)), packing(|| usage(&filled(true))));
    assert_eq!((plain.events, plain.data_bytes), (packed.events, packed.data_bytes));
    assert_eq!(plain.data_bytes, ROUNDS * (400 + 2_500 + 40));
    // Noise does not compress: what is saved is what was there before, the frames' headers and the padding.
    assert!(plain.log_bytes < plain.data_bytes * 2 / 3, "{plain:?}");
    assert!(packed.log_bytes < plain.log_bytes * 3 / 4, "{packed:?} {plain:?}");
}

#[test]
fn a_reader_beside_the_writer_reads_on_while_segments_are_packed_under_it() {
    packing(|| {
        let io = FaultyIo::default();
        let store = open(&io).unwrap();
        append(&store, vec![event("first", noise(1, 2_000))]).unwrap();
        let reader = read_only(&io);
        let mut seen = 0;
        for i in 0..40 {
            append(&store, vec![event(&format!("e{i}"), noise(i % 3, 3_000))]).unwrap();
            if i % 7 == 0 {
                let events = read_all(&reader);
                assert!(events.len() > seen);
                assert_eq!(events.len() as u64, i + 2);
                seen = events.len();
            }
        }
        assert!(!packs(&io).is_empty());
        drop(store);
        assert_eq!(read_all(&reader).len(), 41);
        assert!(verify(&reader).is_ok());
        assert_eq!(read_all(&read_only(&io)).len(), 41);
    });
}

#[test]
fn a_flipped_byte_anywhere_in_a_pack_is_named_and_never_read() {
    let io = filled(true);
    let good = packing(|| read_all(&open(&io).unwrap()));
    let path = packs(&io).into_iter().next().unwrap();
    let content = io.content(&path).unwrap();
    let mut random = Random::new(7);
    // The footer and header byte by byte, the rest by chance.
    let ends = (0..40).chain(content.len() - 130..content.len());
    let some: Vec<usize> = (0..60).map(|_| random.below(content.len() as u64) as usize).collect();
    for at in ends.chain(some) {
        let mut bad = content.clone();
        bad[at] ^= 0x10;
        let io = io.copy();
        io.set_content(&path, bad.clone());
        let store = packing(|| open(&io));
        let store = match store {
            Ok(store) => store,
            // The version says that it is of a later one.
            Err(error) => {
                assert!((4..8).contains(&at), "byte {at}: {error}");
                continue;
            }
        };
        let report = block_on(store.verify(&LogName::default(), None, &|_, _| ()));
        match report {
            Ok(report) => assert!(!report.is_ok(), "byte {at} is not covered"),
            Err(error) => assert!((4..8).contains(&at), "byte {at}: {error}"),
        }
        let page = block_on(store.read(&LogName::default(), &Read::default())).unwrap();
        for event in &page.events {
            assert_eq!(good[event.position.0 as usize].1, event.event, "byte {at}");
        }
        let named = page.damaged.iter().map(|damage| damage.position.0);
        let mut all: Vec<u64> = page.events.iter().map(|e| e.position.0).chain(named).collect();
        all.sort_unstable();
        assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>(), "byte {at}: hidden in silence");
        drop(store);
        assert_eq!(io.content(&path).unwrap(), bad, "byte {at}: damage must not be touched");
    }
}

#[test]
fn a_damaged_segment_is_never_packed_and_says_so() {
    let io = filled(false);
    let path = dir().join(crate::segment::file_name(2));
    let mut content = io.content(&path).unwrap();
    // In the middle of its first event.
    content[1_500] ^= 1;
    io.set_content(&path, content.clone());
    packing(|| {
        let store = open(&io).unwrap();
        append(&store, vec![event("next", vec![1; 5_000])]).unwrap();
        append(&store, vec![event("more", vec![1; 5_000])]).unwrap();
        let findings = block_on(store.examine(&LogName::default())).unwrap().1;
        assert!(
            findings.iter().any(|f| f.code == "packing_failed" && f.message.contains("00000002")),
            "{findings:?}"
        );
        assert!(!verify(&store).is_ok());
    });
    assert_eq!(io.content(&path).unwrap(), content);
    assert!(!packs(&io).is_empty());
    assert!(packs(&io).iter().all(|path| {
        let (first, last) = pack::range_of(path.file_name().unwrap().to_str().unwrap()).unwrap();
        !(first..=last).contains(&2)
    }));
}

#[test]
fn a_panic_beside_the_writer_is_told_and_the_work_goes_on_afterwards() {
    let io = FaultyIo::default();
    let options = Options { background: true, pack: true, ..crash_tests::options() };
    let store = EmbeddedStore::open_in(std::sync::Arc::new(io.clone()), Path::new(DIR), options).unwrap();
    let start = std::time::Instant::now();
    let mut appended = 0;
    let mut append_until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(start.elapsed().as_secs() < 60, "nothing is packed");
            append(&store, vec![event(&format!("e{appended}"), noise(appended, 4_000))]).unwrap();
            appended += 1;
        }
    };
    io.panic_next(".pack.tmp");
    append_until(&|| !io.is_to_panic());
    append_until(&|| !packs(&io).is_empty());
    let findings = block_on(store.examine(&LogName::default())).unwrap().1;
    assert!(findings.iter().any(|f| f.code == "panicked" && f.message.contains("'main'")), "{findings:?}");
    assert!(verify(&store).is_ok());
    assert_eq!(read_all(&store).len() as u64, appended);
}

/// Replaces the first block of a pack, with checksums that match.
fn with_block(content: &[u8], block: &[u8], unpacked: u32) -> Vec<u8> {
    let footer_at = content.len() - 112;
    let number = |at: usize| u32::from_le_bytes(content[at..at + 4].try_into().unwrap());
    let index_at = u64::from_le_bytes(content[footer_at + 16..footer_at + 24].try_into().unwrap()) as usize;
    let end_position = u64::from_le_bytes(content[footer_at + 48..footer_at + 56].try_into().unwrap());
    let row_at = index_at + end_position.count_ones() as usize * Hash::LEN;
    let stored = number(row_at + 16) as usize;
    assert!(block.len() <= stored, "{} bytes do not fit where {stored} were", block.len());
    let mut bad = content.to_vec();
    let offset = u64::from_le_bytes(content[row_at + 8..row_at + 16].try_into().unwrap()) as usize;
    bad[offset..offset + block.len()].copy_from_slice(block);
    for (at, value) in [(16, block.len() as u32), (20, unpacked), (24, crc32fast::hash(block))] {
        bad[row_at + at..row_at + at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let index_crc = crc32fast::hash(&bad[index_at..footer_at]);
    bad[footer_at + 12..footer_at + 16].copy_from_slice(&index_crc.to_le_bytes());
    let crc = crc32fast::hash(&bad[footer_at..footer_at + 108]);
    bad[footer_at + 108..].copy_from_slice(&crc.to_le_bytes());
    bad
}

#[test]
fn a_decompression_bomb_in_a_pack_is_refused_without_being_unpacked() {
    let io = filled(true);
    let path = packs(&io).into_iter().next().unwrap();
    let content = io.content(&path).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 19).unwrap();
    for unpacked in [1, 1_000, 16 << 20] {
        io.set_content(&path, with_block(&content, &bomb, unpacked));
        let store = packing(|| open(&io)).unwrap();
        let report = verify(&store);
        let named = |p: &precedent_core::verify::Problem| p.message.contains("cannot be unpacked");
        assert!(report.problems.iter().any(named), "{:?}", report.problems);
        let page = block_on(store.read(&LogName::default(), &Read::default())).unwrap();
        assert!(!page.damaged.is_empty());
    }
    // More than any block holds is not even tried.
    io.set_content(&path, with_block(&content, &bomb, 256 << 20));
    let report = verify(&packing(|| open(&io)).unwrap());
    assert!(
        report.problems.iter().any(|p| p.message.contains("contradicts itself")),
        "{:?}",
        report.problems
    );
}

/// Builds a log frame by frame, its parts put together by hand, with everything else as it should be.
struct Forger {
    state: LogState,
    bytes: Vec<u8>,
}

impl Forger {
    fn event(
        &mut self,
        id: &str,
        person: Option<&str>,
        content: &[u8],
        stored: impl FnOnce(&Salt) -> Vec<u8>,
    ) {
        let salt = Salt([7; 32]);
        let mut event = Event::builder("s", id, "t.happened");
        if let Some(person) = person {
            event = event.attribute("dataperson", person.to_owned());
        }
        let part = Part {
            name: DATA_PART.into(),
            commitment: commit(&salt, content),
            length: content.len() as u64,
            scope: person.map(str::to_owned),
        };
        let envelope = EncodedEnvelope::new(&event.build().unwrap(), &[part]);
        let fields = LogFields {
            log: self.state.log,
            position: Position(self.state.size()),
            recorded: self.state.last_time,
            version: None,
        };
        let mut builder = FrameBuilder::default();
        let parts = stored(&salt);
        let leaf = leaf_hash(builder.push(|out| envelope.write(&fields, out), |out| out.extend(parts)));
        let first = Position(self.state.size());
        self.state.tree.push(leaf);
        let chained = Chained {
            log: self.state.log,
            id: FrameId::random(),
            writer: FrameId([1; 16]),
            sequence: self.state.next_sequence,
            first,
            count: 1,
            root: self.state.tree.root(),
            previous: self.state.last_frame,
        };
        let mut bytes = builder.encode(&chained, Some(&self.state.tree));
        bytes.pad();
        self.bytes.extend_from_slice(&bytes);
        (self.state.last_frame, self.state.next_sequence) = (chained.hash(), self.state.next_sequence + 1);
    }
}

fn literal(content: &[u8]) -> impl FnOnce(&Salt) -> Vec<u8> {
    move |salt| [&[0][..], &salt.0, content].concat()
}

/// One extent: its length, how many events back, and where.
fn extent(len: u16, back: u8, offset: u8) -> impl FnOnce(&Salt) -> Vec<u8> {
    let head = u32::from(len) << 1 | 1;
    let mut list = vec![1];
    list.extend([head as u8 & 0x7f | 0x80, (head >> 7) as u8 & 0x7f]);
    list.extend([back, offset]);
    move |salt| [&[1][..], &salt.0, &list[..]].concat()
}

/// What is wrong, whose the event is, how it is stored, and what is said of it.
type Case = (&'static str, Option<&'static str>, Box<dyn Fn(&Salt) -> Vec<u8>>, &'static str);

#[test]
fn extents_that_lie_hide_their_event_and_nothing_else_and_are_named() {
    let content = noise(1, 1_000);
    let part = &content[..500];
    // Events before the bad one, and how it is stored; what is said of it.
    let cases: [Case; 6] = [
        ("itself", None, Box::new(|salt| extent(500, 0, 0)(salt)), "names the event it belongs to"),
        ("before the log", None, Box::new(|salt| extent(500, 9, 0)(salt)), "reaches 9 events back"),
        ("out of range", None, Box::new(|salt| extent(1_000 - 500, 2, 120)(salt)), ""),
        ("behind the end", None, Box::new(|salt| extent(500, 1, 0)(salt)), "are there"),
        ("another person", Some("p1"), Box::new(|salt| extent(500, 2, 0)(salt)), "another scope"),
        (
            "a longer list",
            None,
            Box::new(|salt| [extent(500, 2, 0)(salt), vec![0]].concat()),
            "behind the parts",
        ),
    ];
    for (what, person, stored, says) in cases {
        let io = FaultyIo::default();
        drop(open(&io).unwrap());
        let mut forger = {
            let store = open(&io).unwrap();
            append(&store, vec![event("anchor", vec![1])]).unwrap();
            let log = store.log(&LogName::default()).unwrap();
            let state = LogState::clone(log.published().state.as_ref().unwrap());
            Forger { state, bytes: Vec::new() }
        };
        let path = dir().join(crate::segment::file_name(0));
        let before = forger.state.size();
        forger.event("source", None, &content, literal(&content));
        forger.event("small", None, b"x", literal(b"x"));
        // Its commitment is that of what an honest extent would name.
        let honest = if what == "out of range" { &content[120..620] } else { part };
        forger.event("bad", person, honest, stored);
        forger.event("after", None, b"y", literal(b"y"));
        let store = read_only(&io);
        drop(store);
        let mut all = io.content(&path).unwrap();
        let end = all.iter().rposition(|b| *b != 0).unwrap() / 512 * 512 + 512;
        all.truncate(end);
        all.extend(&forger.bytes);
        io.set_content(&path, all);
        io.remove_matching(|path| path.ends_with("clean") || path.ends_with("published"));
        let store = open(&io).unwrap();
        let page = block_on(store.read(&LogName::default(), &Read::default())).unwrap();
        let report = verify(&store);
        if says.is_empty() {
            assert!(report.is_ok() && page.damaged.is_empty(), "{what}: {:?}", report.problems);
            continue;
        }
        assert_eq!(page.events.len() as u64, before + 3, "{what}");
        assert_eq!(page.damaged.len(), 1, "{what}");
        let bad = Position(before + 2);
        assert_eq!(page.damaged[0].position, bad, "{what}");
        assert!(page.damaged[0].error.to_string().contains(says), "{what}: {}", page.damaged[0].error);
        assert_eq!(report.problem_count, 1, "{what}: {:?}", report.problems);
        assert_eq!(report.problems[0].position, Some(bad), "{what}");
        assert!(report.problems[0].message.contains(says), "{what}: {}", report.problems[0].message);
        // It is not packed, and frames that would carry it are refused.
        packing(|| {
            drop(store);
            let store = open(&io).unwrap();
            append(&store, vec![event("more", vec![1; 9_000])]).unwrap();
            append(&store, vec![event("still more", vec![1; 9_000])]).unwrap();
            assert!(io.content(&path).is_some(), "{what}: what does not check out stays as it is");
        });
    }
}

#[test]
fn damage_to_a_source_is_named_with_every_event_that_refers_to_it() {
    let io = FaultyIo::default();
    {
        let store = open(&io).unwrap();
        let shared = noise(1, 3_000);
        for i in 0..3u8 {
            append(&store, vec![event(&format!("e{i}"), [vec![i; 100], shared.clone()].concat())]).unwrap();
        }
        append(&store, vec![event("apart", noise(2, 100))]).unwrap();
    }
    let path = dir().join(crate::segment::file_name(0));
    let mut content = io.content(&path).unwrap();
    content[1_500] ^= 1;
    io.set_content(&path, content);
    let store = open(&io).unwrap();
    let page = block_on(store.read(&LogName::default(), &Read::default())).unwrap();
    assert_eq!(page.damaged.iter().map(|d| d.position.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(page.damaged[2].error.to_string().contains("refers to the event at position 0"));
    assert_eq!(page.events.len(), 1);
}

#[test]
fn what_a_crash_left_of_packing_is_removed_by_the_next_writer() {
    let io = filled(true);
    let pack = packs(&io).into_iter().next().unwrap();
    let (first, _) = pack::range_of(pack.file_name().unwrap().to_str().unwrap()).unwrap();
    // The segment a pack was made from, and a pack that was not finished.
    let segment = dir().join(crate::segment::file_name(first));
    let temporary = dir().join("00000900-00000900.pack.tmp");
    for path in [&segment, &temporary] {
        io.open(path, Mode::Create).unwrap().write_at(b"left over", 0).unwrap();
    }
    let count = packing(|| {
        let store = open(&io).unwrap();
        let count = read_all(&store).len();
        append(&store, vec![event("next", vec![1])]).unwrap();
        assert!(verify(&store).is_ok());
        count
    });
    assert_eq!(count as u64, 2 * ROUNDS);
    assert!(io.content(&segment).is_none() && io.content(&temporary).is_none());
}

#[test]
fn memory_for_repeats_is_found_again_when_a_log_is_opened() {
    let io = FaultyIo::default();
    let data = noise(1, 3_000);
    append(&open(&io).unwrap(), vec![event("a", data.clone())]).unwrap();
    append(&open(&io).unwrap(), vec![event("b", data)]).unwrap();
    let log = block_on(open(&io).unwrap().examine(&LogName::default())).unwrap().0;
    assert!(log.log_bytes < 3_000 + 2 * 1_024, "{log:?}");
}

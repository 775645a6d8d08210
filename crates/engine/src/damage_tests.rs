//! Damage, readers beside a writer, copies, clocks and closing: what each was once found to break on.

use std::path::Path;
use std::sync::Arc;

use precedent_core::sequencer::History;
use precedent_core::{Append, ErrorKind, Event, LogName, Position, Read, Result, Status, Store, Time};

use crate::crash_tests::{DIR, Told, append, block_on, event, is_derived, open, options, read_all, run};
use crate::index::run::{BadRun, range_of};
use crate::io::Io;
use crate::io::faults::{Fault, FaultyIo};
use crate::writer::history::Recorded;
use crate::{Access, EmbeddedStore, Options, recovery};

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
fn a_key_is_not_taken_for_new_while_its_event_becomes_unreadable() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    let known = |i: usize| event(&format!("e{i}"), vec![1; 100]);
    for i in 0..20 {
        append(&store, vec![known(i)]).unwrap();
    }
    let log = store.log(&LogName::default()).unwrap();
    let index = log.index();
    let place = log.segments.frame_number(3).unwrap().unwrap();
    flip_byte(&io, &log.segments.path(place.segment), place.offset as usize + 200);
    let runs = io.list(&log.dir.join("index")).unwrap();
    let (first_sequence, end_sequence) = runs
        .iter()
        .filter_map(|name| range_of(name))
        .find(|(first, end)| (*first..*end).contains(&3))
        .unwrap();
    let events = [known(3), event("new", vec![1; 100])];
    let recorded = Recorded::new(&log, 20);
    assert_eq!(recorded.may_have_keys(&mut events.iter()), [true, false]);
    // The run is found damaged, and made again without what cannot be read, just as somebody begins to ask.
    index.drop_run(&BadRun { first_sequence, end_sequence });
    let mut asked = Meanwhile {
        events: events.iter(),
        happens: Some(|| recovery::fill_gaps(&index, &log.segments, 2 << 10).unwrap()),
    };
    assert_eq!(recorded.may_have_keys(&mut asked), [true, true]);
    let error = append(&store, events.to_vec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(read_with_damage(&store, Read::default()).0.len(), 19, "nothing is recorded twice");
}

/// Something that happens when the first event is asked for.
struct Meanwhile<'e, F> {
    events: std::slice::Iter<'e, Event>,
    happens: Option<F>,
}

impl<'e, F: FnOnce()> Iterator for Meanwhile<'e, F> {
    type Item = &'e Event;

    fn next(&mut self) -> Option<&'e Event> {
        if let Some(happens) = self.happens.take() {
            happens();
        }
        self.events.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.events.size_hint()
    }
}

impl<F: FnOnce()> ExactSizeIterator for Meanwhile<'_, F> {}

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
    let segments = crate::segment::Segments::list(&io, &log.dir).unwrap().0;
    assert!(segments.len() > 4);
    for number in segments.iter().map(|unit| unit.first) {
        let first = log.segments.step(number, 0, log.id).unwrap();
        let crate::segment::Step::Frame(header, 0) = first else {
            panic!("segment {number} begins with a frame")
        };
        assert!(header.has_edge(), "segment {number}");
    }
}

#[test]
fn a_copy_that_could_not_be_made_is_not_in_the_way_of_what_comes_later() {
    let source = FaultyIo::default();
    let from = open(&source).unwrap();
    append(&from, vec![event("copied", vec![1])]).unwrap();
    let frames = block_on(from.frames(&LogName::default(), 0, 1 << 20)).unwrap();
    let name: LogName = "target".parse().unwrap();
    for failing in 0..6 {
        let io = FaultyIo::default();
        let store = open(&io).unwrap();
        let _ = block_on(store.head(&name));
        io.plan(io.operations() + failing, Fault::Error(std::io::ErrorKind::StorageFull));
        let put = block_on(store.put_frames(&name, frames.clone()));
        let later = block_on(store.put_frames(&name, frames.clone()));
        assert!(
            put.is_ok() || later.is_ok() || later.is_err_and(|e| e.kind() == ErrorKind::Stopped),
            "{failing}"
        );
    }
}

#[test]
fn a_reader_that_came_before_the_first_event_is_told_of_it() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    let reader = beside(&io).unwrap();
    let name = LogName::default();
    std::thread::scope(|scope| {
        let grown = scope.spawn(|| block_on(reader.grown(&name, 0)));
        append(&store, vec![event("first", vec![1])]).unwrap();
        assert_eq!(grown.join().unwrap().unwrap().size, 1);
    });
    let early = beside(&FaultyIo::default());
    assert_eq!(early.unwrap_err().kind(), ErrorKind::NotAStore);
    let read = Read { at_least: Some(Position(0)), ..Read::default() };
    assert_eq!(block_on(reader.read(&name, &read)).unwrap().events.len(), 1);
}

#[test]
fn one_damaged_log_leaves_the_others_writable_and_is_named() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    let other: LogName = "other".parse().unwrap();
    for i in 0..20 {
        append(&store, vec![event(&format!("e{i}"), vec![1; 900])]).unwrap();
        block_on(store.append(&other, event(&format!("e{i}"), vec![1; 900]).into())).unwrap();
    }
    drop(store);
    let gone = Path::new(DIR).join("logs/other/00000001.seg");
    io.remove_matching(|path| path == gone || path.ends_with("clean"));
    let store = open(&io).unwrap();
    append(&store, vec![event("more", vec![1])]).unwrap();
    let error = block_on(store.append(&other, event("more", vec![1]).into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    for handle in [&store, &beside(&io).unwrap()] {
        let page = block_on(handle.read(&other, &Read::default())).unwrap();
        assert!(!page.events.is_empty() && !page.damaged.is_empty());
        assert_eq!(page.events.len() + page.damaged.len(), 20);
        let report = block_on(handle.verify(&other, None, &|_, _| ())).unwrap();
        assert!(
            report.problems.iter().any(|p| p.message.contains("00000001.seg is missing")),
            "{:?}",
            report.problems
        );
    }
}

#[test]
fn many_logs_that_were_closed_in_good_order_are_not_opened_again() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    for i in 0..30 {
        let name: LogName = format!("log{i}").parse().unwrap();
        block_on(store.append(&name, event("e", vec![1]).into())).unwrap();
    }
    drop(store);
    let before = io.operations();
    let store = open(&io).unwrap();
    assert!(io.operations() - before < 30, "{}", io.operations() - before);
    assert!(crate::lock(&store.logs).slots.len() <= 1);
    assert_eq!(block_on(store.head(&"log7".parse().unwrap())).unwrap().size, 1);
}

#[test]
fn a_store_is_closed_once_and_by_one() {
    let store = open(&FaultyIo::default()).unwrap();
    append(&store, vec![event("e", vec![1])]).unwrap();
    let closed = std::thread::scope(|scope| {
        let closers: Vec<_> = (0..4).map(|_| scope.spawn(|| block_on(store.close()).is_ok())).collect();
        closers.into_iter().map(|c| c.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(closed, 1);
}

#[test]
fn a_log_whose_description_is_damaged_is_listed_and_named() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    let other: LogName = "other".parse().unwrap();
    block_on(store.append(&other, event("e", vec![1]).into())).unwrap();
    drop(store);
    flip_byte(&io, &Path::new(DIR).join("logs/other/log"), 40);
    let store = open(&io).unwrap();
    assert_eq!(block_on(store.logs()).unwrap(), std::slice::from_ref(&other));
    assert_eq!(block_on(store.head(&other)).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_reader_that_cannot_make_the_last_frame_durable_shows_nothing() {
    let io = FaultyIo::default();
    let store = open(&io).unwrap();
    append(&store, vec![event("e", vec![1])]).unwrap();
    // As its writer leaves it that is killed: no lock, no mark of good order.
    let dead = io.copy();
    dead.fail_next_sync(std::io::ErrorKind::Other);
    assert_eq!(beside(&dead).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(read_all(&beside(&dead).unwrap()).len(), 1);
}

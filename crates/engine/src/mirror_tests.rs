//! Mirrors and those who share a directory of them: what is deleted is deleted under the lock, and only by whoever has it.

use std::path::Path;

use bytes::Bytes;
use futures_util::FutureExt;
use precedent_core::frame::Frame;
use precedent_core::{Error, ErrorKind, Event, LogId, LogName, MemoryStore, Position, Read, Store};

use crate::meta::STORE_FILE;
use crate::{Blame, Hole, Mirror, MirrorOptions, Mirrored};

/// Frames of a log, one event each.
fn frames(count: usize) -> (LogId, Vec<Frame>) {
    let (store, name) = (MemoryStore::new(), LogName::default());
    for at in 0..count {
        let event = Event::builder("urn:test", at.to_string(), "test.happened").data(format!("data of {at}"));
        let appended = store.append(&name, event.build().expect("valid").into()).now_or_never();
        appended.expect("memory answers at once").expect("recorded");
    }
    let frames =
        store.frames(&name, 0, usize::MAX).now_or_never().expect("at once").expect("they can be read");
    (frames[0].chained().log, frames)
}

fn open(path: &Path, log: LogId) -> Result<Mirror, Error> {
    Mirror::open(path, log, &MirrorOptions::default())
}

fn put(mirror: &Mirror, frames: Vec<Mirrored>) {
    futures_block(mirror.put(frames)).expect("it follows");
}

/// The answer comes from a thread of the mirror's.
fn futures_block<T: Send + 'static>(
    future: impl Future<Output = Result<T, Error>> + Send,
) -> Result<T, Error> {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn whole(frames: &[Frame]) -> Vec<Mirrored> {
    frames.iter().cloned().map(Mirrored::Frame).collect()
}

fn ids(mirror: &Mirror) -> Vec<String> {
    let page = mirror.read(&Read::default()).expect("it can be read");
    assert!(page.damaged.is_empty(), "{:?}", page.damaged);
    page.events.iter().map(|event| event.event.id().to_owned()).collect()
}

/// A frame of which the body is lost.
fn hole(frame: &Frame) -> Mirrored {
    let header = precedent_core::frame::FrameHeader::decode(frame.bytes()).expect("a frame");
    Mirrored::Hole(Hole::new(&frame.bytes().slice(..header.edge_end())).expect("it carries its edge"))
}

#[test]
fn a_mirror_that_another_process_has_open_is_never_deleted_by_one_that_finds_it_damaged() {
    let dir = tempfile::tempdir().expect("a directory for a test");
    let (log, frames) = frames(3);
    let mirror = open(dir.path(), log).expect("it is made");
    put(&mirror, whole(&frames));
    for content in ["", "something else\n"] {
        std::fs::write(dir.path().join(STORE_FILE), content).expect("it can be written");
        let refused = open(dir.path(), log).expect_err("it is open");
        assert_eq!(refused.kind(), ErrorKind::Locked, "{refused:?}");
        assert_eq!(ids(&mirror), ["0", "1", "2"]);
        assert!(dir.path().join("logs/main/00000000.seg").is_file());
    }
    mirror.close();
    let again = open(dir.path(), log).expect("it is made anew");
    assert_eq!(again.state().expect("it is empty").size(), 0);
}

#[test]
fn a_mirror_of_another_log_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory for a test");
    let ((one, frames_of_one), (other, frames_of_other)) = (frames(3), frames(2));
    let mirror = open(dir.path(), one).expect("it is made");
    put(&mirror, whole(&frames_of_one));
    mirror.close();
    let mirror = open(dir.path(), other).expect("it is made anew");
    put(&mirror, whole(&frames_of_other));
    assert_eq!(ids(&mirror), ["0", "1"]);
}

#[test]
fn a_directory_that_was_deleted_and_made_again_by_another_process_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory for a test");
    let (log, frames) = frames(3);
    for give_up in [false, true] {
        let place = dir.path().join(give_up.to_string());
        let first = open(&place, log).expect("it is made");
        put(&first, whole(&frames));
        std::fs::remove_dir_all(&place).expect("it can be deleted");
        let second = open(&place, log).expect("the place is free");
        put(&second, whole(&frames[..2]));
        let gone = if give_up { first.give_up() } else { first.remove() };
        gone.expect("there is nothing of its own left");
        assert_eq!(ids(&second), ["0", "1"]);
        put(&second, whole(&frames[2..]));
        second.close();
        assert_eq!(ids(&open(&place, log).expect("it is whole")), ["0", "1", "2"]);
    }
}

#[test]
fn what_was_written_into_a_deleted_directory_does_not_stand_in_the_way() {
    let dir = tempfile::tempdir().expect("a directory for a test");
    let (log, frames) = frames(2);
    let place = dir.path().join("0");
    let mirror = open(&place, log).expect("it is made");
    put(&mirror, whole(&frames));
    std::fs::remove_dir_all(&place).expect("it can be deleted");
    std::fs::create_dir_all(place.join("logs/main")).expect("it can be made");
    mirror.give_up().expect("it is deleted");
    let again = open(&place, log).expect("the place is free");
    put(&again, whole(&frames));
    assert_eq!(ids(&again), ["0", "1"]);
    // A process that died has deleted nothing.
    let place = dir.path().join("1");
    std::fs::create_dir_all(place.join("logs/main")).expect("it can be made");
    std::fs::write(place.join("logs/main/00000001.seg"), [7; 1000]).expect("it can be written");
    let other = open(&place, log).expect("the place is free");
    assert_eq!(other.state().expect("it is empty").size(), 0);
    // What is no part of a store is never deleted.
    let place = dir.path().join("2");
    std::fs::create_dir_all(place.join("logs/main")).expect("it can be made");
    std::fs::write(place.join("notes.txt"), "mine").expect("it can be written");
    assert_eq!(open(&place, log).expect_err("it is no store").kind(), ErrorKind::NotAStore);
    assert!(place.join("notes.txt").is_file() && place.join("logs/main").is_dir());
}

#[test]
fn a_mirror_that_ends_with_a_hole_is_whole_when_it_is_opened_again() {
    let (log, frames) = frames(6);
    // The second of them, the last one, and two at the end.
    for holes in [vec![1], vec![3], vec![2, 3], vec![0, 1, 2, 3]] {
        let dir = tempfile::tempdir().expect("a directory for a test");
        let mirror = open(dir.path(), log).expect("it is made");
        let of = |at: usize| match holes.contains(&at) {
            true => hole(&with_edge(&frames, at)),
            false => Mirrored::Frame(frames[at].clone()),
        };
        put(&mirror, (0..4).map(of).collect());
        let state = mirror.state().expect("it has one");
        mirror.close();
        let again = open(dir.path(), log).expect("it is opened");
        let opened = again.state().expect("it has one");
        assert_eq!((opened.size(), opened.tree.root()), (4, state.tree.root()), "{holes:?}");
        assert_eq!(
            (opened.next_sequence, opened.last_frame, opened.last_time),
            (4, state.last_frame, state.last_time)
        );
        let page = again.read(&Read::default()).expect("it can be read");
        let damaged: Vec<usize> = page.damaged.iter().map(|damage| damage.position.0 as usize).collect();
        assert_eq!(damaged, holes);
        for at in &holes {
            let blame = again.blame(Position(*at as u64)).expect("it can be told");
            assert_eq!(blame, Blame::Hole(*at as u64));
        }
        put(&again, whole(&frames[4..]));
        again.close();
        let again = open(dir.path(), log).expect("it is opened");
        assert_eq!(again.state().expect("it has one").size(), 6, "{holes:?}");
    }
}

/// The frame with the tree's edge in it, as services keep it.
fn with_edge(frames: &[Frame], at: usize) -> Frame {
    let mut state = precedent_core::sequencer::LogState::empty(frames[0].chained().log);
    for frame in &frames[..=at] {
        state = state.after(frame).expect("it follows");
    }
    let bytes = frames[at].with_edge(Some(&state.tree)).expect("there is room");
    Frame::decode(Bytes::from(bytes)).expect("a frame")
}

#[test]
fn damage_of_the_mirror_itself_is_told_from_that_of_the_original() {
    let dir = tempfile::tempdir().expect("a directory for a test");
    let (log, frames) = frames(4);
    let mirror = open(dir.path(), log).expect("it is made");
    put(&mirror, vec![Mirrored::Frame(frames[0].clone()), hole(&with_edge(&frames, 1))]);
    put(&mirror, whole(&frames[2..]));
    let path = dir.path().join("logs/main/00000000.seg");
    let mut bytes = std::fs::read(&path).expect("it can be read");
    let data = b"data of 2";
    let at = bytes.windows(data.len()).position(|window| window == data);
    // Masked, it does not stand there as it is: then the middle of its frame will do.
    let at = at.unwrap_or_else(|| {
        let whole = |frame: &Frame| frame.bytes().len().next_multiple_of(512);
        whole(&frames[0]) + whole(&with_edge(&frames, 1)) + frames[2].bytes().len() - 4
    });
    bytes[at] ^= 0x55;
    std::fs::write(&path, bytes).expect("it can be written");
    let page = mirror.read(&Read::default()).expect("it can be read");
    let blamed: Vec<_> =
        page.damaged.iter().map(|damage| (damage.position.0, mirror.blame(damage.position))).collect();
    assert!(matches!(&blamed[..], [(1, Ok(Blame::Hole(1))), (2, Ok(Blame::Mirror))]), "{blamed:?}");
}

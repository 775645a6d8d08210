//! Large frames, which are written past the system's cache, on the file system of this machine.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use precedent_core::{Append, Event, LogName, Position, Read, Result, Store};
use precedent_engine::{Access, EmbeddedStore, Options};

fn open(path: &Path, access: Access) -> EmbeddedStore {
    let mut options = Options::default();
    options.access = access;
    options.pack = false;
    EmbeddedStore::open(path, options).unwrap()
}

/// Runs a future of the store: only an append waits, for the writer's thread.
fn done<T>(mut future: BoxFuture<'_, Result<T>>) -> T {
    loop {
        match (&mut future).now_or_never() {
            Some(result) => return result.unwrap(),
            None => std::thread::yield_now(),
        }
    }
}

/// Bytes that say which event they are of, and do not repeat.
fn content(n: u64, len: usize) -> Vec<u8> {
    let words = (0u64..).flat_map(|at| (n << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(len).collect()
}

fn append(store: &EmbeddedStore, n: u64, len: usize) {
    let event =
        Event::builder("urn:test", n.to_string(), "test.happened").data(content(n, len)).build().unwrap();
    done(store.append(&LogName::default(), Append::new([event])));
}

/// Reads on from a position. Answers where the next event will be.
fn read_on(store: &EmbeddedStore, mut next: u64) -> u64 {
    let mut read = Read { after: next.checked_sub(1).map(Position), ..Read::default() };
    loop {
        let page = done(store.read(&LogName::default(), &read));
        assert!(page.damaged.is_empty(), "{:?}", page.damaged);
        for event in &page.events {
            assert_eq!(event.position, Position(next));
            let data = event.event.data().unwrap();
            assert!(data[..] == content(next, data.len()), "the content of {next}, {} bytes", data.len());
            next += 1;
        }
        match page.next {
            Some(covered) => read = read.continued(covered),
            None => return next,
        }
    }
}

fn assert_sound(store: &EmbeddedStore) {
    let report = done(store.verify(&LogName::default(), None, &|_, _| ()));
    assert!(report.is_ok(), "{:?}", report.problems);
}

#[test]
fn what_is_written_past_the_cache_and_through_it_is_read_as_it_was_written_while_both_happen() {
    const APPENDS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Access::ReadWrite);
    append(&store, 0, 10);
    let beside = open(dir.path(), Access::ReadOnly);
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for store in [&store, &beside] {
            scope.spawn(|| {
                let mut next = 0;
                while !finished.load(Ordering::Acquire) {
                    next = read_on(store, next);
                }
                assert_eq!(read_on(store, next), APPENDS);
            });
        }
        for n in 1..APPENDS {
            let sizes = [10, 131_000, 700, 300_000, 4_000, 60_000, 128_500, 20, 600_000, 1];
            append(&store, n, sizes[n as usize * 7 % sizes.len()]);
        }
        finished.store(true, Ordering::Release);
    });
    assert_sound(&store);
}

#[test]
fn a_store_that_was_removed_while_it_was_open_writes_nothing_into_the_one_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let removed = open(&path, Access::ReadWrite);
    append(&removed, 0, 100);
    std::fs::remove_dir_all(&path).unwrap();
    let store = open(&path, Access::ReadWrite);
    (0..20).for_each(|n| append(&store, n, 1_000));
    // Whatever becomes of it.
    let large =
        Event::builder("urn:test", "large", "test.happened").data(content(1, 400_000)).build().unwrap();
    let name = LogName::default();
    let mut appended = removed.append(&name, Append::new([large]));
    while (&mut appended).now_or_never().is_none() {
        std::thread::yield_now();
    }
    drop(appended);
    assert_eq!(read_on(&store, 0), 20);
    assert_sound(&store);
}

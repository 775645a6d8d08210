//! What a released version wrote, this one opens: with its index and without, and goes on from there.

use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use precedent_core::verify::Expect;
use precedent_core::{Event, LogName, Query, Read, Result, Store};
use precedent_engine::{EmbeddedStore, Options};

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
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

fn check(store: &EmbeddedStore, heads: &str) {
    for line in heads.lines() {
        let (name, expect) = line.split_once(' ').unwrap();
        let (name, expect): (LogName, Expect) = (name.parse().unwrap(), expect.parse().unwrap());
        let report = done(store.verify(&name, Some(expect), &|_, _| ()));
        assert!(report.is_ok(), "{name}: {:?}", report.problems);
        let read = |query: Query| done(store.read(&name, &Read::matching(query))).events;
        let found = read(Query::tags(["number=17".parse().unwrap()]));
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0].event.data().unwrap(), r#"{"n":17.0,"ä":"\u00e9"}"#);
        let repeats = read(Query::event_type("fixture.repeats"));
        assert_eq!(repeats.len(), 40, "{name}");
        let tail = |event: &Event| event.data().unwrap().split(|b| *b == b':').nth(1).unwrap().to_vec();
        assert!(repeats.iter().all(|e| tail(&e.event) == tail(&repeats[0].event)), "{name}");
        assert!(tail(&repeats[0].event).len() > 2_000, "{name}");
        assert!(read(Query::stream("bare")).len() >= 40, "{name}");
        let zeros = read(Query::event_type("fixture.zeros"));
        assert_eq!(zeros.len(), 40, "{name}");
        assert!(zeros.iter().all(|e| e.event.data().is_some_and(|d| d.iter().all(|b| *b == 0))), "{name}");
    }
    let register = done(store.register(&"cursors/reader".parse().unwrap())).unwrap();
    assert_eq!((&register.value[..], register.revision), (&b"17"[..], 1));
}

#[test]
fn stores_written_by_released_versions_open_and_go_on() {
    let all = fixtures();
    assert!(!all.is_empty());
    for fixture in all {
        let heads = std::fs::read_to_string(fixture.with_extension("heads")).unwrap();
        for without_index in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            copy(&fixture, &path);
            if without_index {
                for name in ["main", "second"] {
                    std::fs::remove_dir_all(path.join("logs").join(name).join("index")).unwrap();
                }
            }
            let store = EmbeddedStore::open(&path, Options::default()).unwrap();
            check(&store, &heads);
            let event =
                Event::builder("urn:fixture", "later", "fixture.later").stream("bare").build().unwrap();
            let appended = done(store.append(&LogName::default(), event.into()));
            assert_eq!(appended.events[0].version.unwrap().0, 40);
            drop(store);
            check(&EmbeddedStore::open(&path, Options::default()).unwrap(), &heads);
        }
    }
}

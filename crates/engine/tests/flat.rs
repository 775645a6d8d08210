//! Memory and open files stay flat, however much is appended: segments are sealed, packed and merged, index runs
//! written and merged, and nothing of that stays.

use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use precedent_core::{Append, Event, LogName, Result, Store};
use precedent_engine::{EmbeddedStore, Options};

fn done<T>(mut future: BoxFuture<'_, Result<T>>) -> T {
    loop {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => return result.expect("works"),
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// Resident memory in KiB and the number of open files of this process, where the system tells.
fn usage() -> Option<(u64, usize)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let memory = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((memory, std::fs::read_dir("/proc/self/fd").ok()?.count()))
}

/// 32 segments and 32 packs that were read lately, seven index runs of each of four levels and one being written, and what a
/// process has open anyway.
const FILES_MAX: usize = 32 + 32 + 4 * 8 + 24;

#[test]
fn memory_and_open_files_stay_flat_while_a_log_grows() {
    if usage().is_none() {
        return eprintln!("skipped: this system does not tell how much memory a process has");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::default();
    // So small that as much happens as in a log a hundred times as large.
    options.segment_bytes = 512 << 10;
    options.index_flush_bytes = 128 << 10;
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    let name = LogName::default();
    let mut number = 0u64;
    let mut state = 1u64;
    let mut append = |batches: u64| {
        for _ in 0..batches {
            let events = (0..50).map(|_| {
                number += 1;
                let mut data = vec![0; 1_500];
                for chunk in data.chunks_mut(8) {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                    let bytes = (state ^ (state >> 29)).to_le_bytes();
                    chunk.copy_from_slice(&bytes[..chunk.len()]);
                }
                let event =
                    Event::builder("urn:test", number.to_string(), format!("t{}.happened", number % 7));
                event.stream(format!("stream/{}", number % 500)).data(data).build().unwrap()
            });
            done(store.append(&name, Append::new(events)));
        }
    };
    // Until everything that is bounded is full: what is remembered of recent content above all.
    append(450);
    let (memory, files) = usage().unwrap();
    for _ in 0..2 {
        append(300);
        let (now, open) = usage().unwrap();
        assert!(now < memory + (24 << 10), "{memory} KiB of memory became {now}");
        assert!(open <= FILES_MAX, "{files} open files became {open}");
    }
    let (usage, findings) = done(store.examine(&name));
    assert_eq!(usage.events, 50 * 1_050);
    assert!(findings.is_empty(), "{findings:?}");
}

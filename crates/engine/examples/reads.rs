//! What a read costs: `cargo run --release -p precedent-engine --example reads -- DIR EVENTS plain|packed WHAT TIMES`.
//!
//! Loads EVENTS events of 1 KiB into DIR, those of `precedent bench`, unless they are there already, and packs them if
//! that is asked for. Then reads WHAT (`stream`, `type`, `scan`, `open`: nothing) TIMES times and says what one of them
//! took: on the clock, and of the processor, which other programs of the machine change less. Under `strace -f -c`
//! and `valgrind --tool=callgrind` it tells calls and instructions; the difference of two TIMES is what the reads cost.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use precedent_core::{Append, Event, LogName, Query, Read, Result, Store};
use precedent_engine::{EmbeddedStore, Options};

#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../../cli/src/commands/bench/chats.rs"]
mod chats;

const BYTES: usize = 1024;
const BATCH: u64 = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, events, kind, what, times] = args.as_slice() else {
        eprintln!("error: expected DIR EVENTS plain|packed stream|type|scan|open TIMES");
        return ExitCode::from(2);
    };
    let (Ok(events), Ok(times)) = (events.parse::<u64>(), times.parse::<u64>()) else {
        eprintln!("error: EVENTS and TIMES are numbers");
        return ExitCode::from(2);
    };
    match measure(Path::new(dir), events.max(BATCH), kind == "packed", what, times) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(dir: &Path, events: u64, packed: bool, what: &str, times: u64) -> Result<()> {
    let name = LogName::default();
    let store = EmbeddedStore::open(dir, options(packed))?;
    let size = wait(store.head(&name))?.size;
    for first in (size..events).step_by(BATCH as usize) {
        let batch = (first..first + BATCH).map(|n| event(n, events)).collect::<Result<Vec<_>>>()?;
        wait(store.append(&name, Append::new(batch)))?;
    }
    if size < events {
        wait(store.close())?;
        println!("loaded; run it again");
        return Ok(());
    }
    if packed && files(dir, ".seg") > 1 {
        // A writer packs, and only a handle that appends is one.
        let other = Event::builder("urn:reads", "other", "reads.other").data("x").build()?;
        wait(store.append(&name, Append::new(vec![other])))?;
        while files(dir, ".seg") > 1 {
            std::thread::sleep(Duration::from_millis(100));
        }
        wait(store.close())?;
        println!("packed; run it again");
        return Ok(());
    }
    let rare = chats::rare(events);
    let (start, cpu) = (Instant::now(), processor());
    for n in 0..times {
        let number = n * 7_919 % chats::streams(events);
        let (query, expected) = match what {
            "stream" => (Query::stream(chats::stream_name(number)), chats::STREAM_EVENTS.min(events)),
            "type" => (Query::event_type(chats::RARE_TYPE), rare),
            "scan" => (Query::all(), size),
            _ => break,
        };
        let (count, bytes) = all(&store, &name, query)?;
        assert!(count == expected && bytes <= count * BYTES as u64, "{count} events of {bytes} bytes");
    }
    let each = |time: Duration| time.as_secs_f64() * 1e3 / times.max(1) as f64;
    println!("{what}: {:.3} ms, {:.3} ms of the processor", each(start.elapsed()), each(processor() - cpu));
    Ok(())
}

fn options(pack: bool) -> Options {
    let mut options = Options::default();
    options.pack = pack;
    options
}

fn event(n: u64, events: u64) -> Result<Event> {
    Event::builder("urn:precedent:bench", format!("loaded-{n}"), chats::event_type(n))
        .stream(chats::stream(n, events))
        .data(chats::chat(n, BYTES))
        .build()
}

/// Reads a query to its end; answers how many events there were, and how many bytes of data.
fn all(store: &EmbeddedStore, name: &LogName, query: Query) -> Result<(u64, u64)> {
    let mut read = Read::matching(query);
    let (mut count, mut bytes) = (0, 0);
    loop {
        let page = wait(store.read(name, &read))?;
        assert!(page.damaged.is_empty(), "nothing is damaged");
        count += page.events.len() as u64;
        bytes += page.events.iter().map(|e| e.event.data().map_or(0, |d| d.len() as u64)).sum::<u64>();
        match page.next {
            Some(covered) => read = read.continued(covered),
            None => return Ok((count, bytes)),
        }
    }
}

/// How long the processor has been at this process's first thread, where the system tells.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Files below a directory whose names end so.
fn files(dir: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => files(&path, end),
            path => usize::from(path.to_string_lossy().ends_with(end)),
        })
        .sum()
}

/// Runs a future to its end on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

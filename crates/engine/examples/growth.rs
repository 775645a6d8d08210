//! What a log costs as it grows: `cargo run --release -p precedent-engine --example growth -- DIR EVENTS [BYTES]`.
//!
//! Records events of BYTES (1024 unless said) in batches of 1,000 into DIR, unless a log of that size is there
//! already, then opens it and reads it. A thousand events a stream, interleaved in runs of ten, and a hundred types
//! of one in a hundred each; content that repeats nothing. Medians, page cache warm. Figures of one machine, for
//! comparison in one run: `cargo xtask growth` makes the directories and takes them away.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use precedent_core::{Append, Event, LogName, Position, Query, Read, Result, Store};
use precedent_engine::{EmbeddedStore, Options};

const BATCH: u64 = 1_000;
const STREAM_EVENTS: u64 = 1_000;
const STREAM_RUN: u64 = 10;
const TYPES: u64 = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| args.get(index).and_then(|text| text.parse::<u64>().ok());
    let (Some(dir), Some(events)) = (args.first(), number(1)) else {
        eprintln!("error: expected a directory and the number of events");
        return ExitCode::from(2);
    };
    match measure(Path::new(dir), events.max(BATCH), number(2).unwrap_or(1024) as usize) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(dir: &Path, events: u64, bytes: usize) -> Result<()> {
    let name = LogName::default();
    let streams = (events / STREAM_EVENTS).max(1);
    let store = EmbeddedStore::open(dir, plain())?;
    let size = wait(store.head(&name))?.size;
    if size < events {
        let start = Instant::now();
        for first in (size..events).step_by(BATCH as usize) {
            let batch =
                (first..first + BATCH).map(|n| event(n, streams, bytes)).collect::<Result<Vec<_>>>()?;
            wait(store.append(&name, Append::new(batch)))?;
        }
        let rate = (events - size) as f64 / start.elapsed().as_secs_f64();
        said("append", format!("{rate:.0} events/s, batches of {BATCH}, one after the other"));
        said("memory", format!("{} after the last append", resident()));
        let start = Instant::now();
        wait(store.close())?;
        said("close", shown(start.elapsed()));
    }
    drop(store);
    let (runs, index) = runs(&dir.join("logs"));
    said("index", format!("{index} bytes in {runs} runs, {:.1} an event", index as f64 / events as f64));

    let open = median(9, |_| {
        let store = EmbeddedStore::open(dir, plain())?;
        wait(store.head(&name))?;
        Ok(())
    })?;
    said("open", shown(open));

    let store = EmbeddedStore::open(dir, plain())?;
    said("memory", format!("{} after opening", resident()));
    let random = |n: u64| mixed(n) % events;
    let one = median(2_001, |n| {
        let read = Read { after: random(n).checked_sub(1).map(Position), limit: Some(1), ..Read::default() };
        wait(store.read(&name, &read)).map(|page| assert_eq!(page.events.len(), 1))
    })?;
    said("position", format!("{} an event", shown(one)));
    let stream = median(101, |n| {
        let query = Query::stream(format!("stream/{}", mixed(n) % streams));
        all(&store, &name, query).map(|n| assert_eq!(n, STREAM_EVENTS.min(events)))
    })?;
    said("stream", format!("{} for {} events", shown(stream), STREAM_EVENTS.min(events)));
    let mut count = 0;
    let kind = median(if events > 1_000_000 { 5 } else { 21 }, |n| {
        count = all(&store, &name, Query::event_type(format!("growth.type{}", n % TYPES)))?;
        Ok(())
    })?;
    said("type", format!("{} for {count} events, one in {TYPES}", shown(kind)));
    let unknown = median(2_001, |n| {
        all(&store, &name, Query::stream(format!("nowhere/{n}"))).map(|n| assert_eq!(n, 0))
    })?;
    said("unknown", format!("{} for a stream that is not there", shown(unknown)));
    said("memory", format!("{} after these", resident()));
    let mut count = 0;
    let scan = median(if events > 1_000_000 { 1 } else { 5 }, |_| {
        count = all(&store, &name, Query::all())?;
        Ok(())
    })?;
    said("scan", format!("{:.0} events/s, {count} of them", count as f64 / scan.as_secs_f64()));
    said("memory", format!("{} after everything", resident()));
    let start = Instant::now();
    for n in 0..1_000 {
        let event = Event::builder("urn:growth", format!("late-{}-{n}", std::process::id()), "growth.late");
        wait(store.append(&name, event.data("x").build()?.into()))?;
    }
    said(
        "append",
        format!("{} for one of a thousand single events, {} before", shown(start.elapsed() / 1_000), events),
    );
    wait(store.close())
}

/// Segments stay as they were written: what packs cost is another question.
fn plain() -> Options {
    let mut options = Options::default();
    options.pack = false;
    options
}

fn event(n: u64, streams: u64, bytes: usize) -> Result<Event> {
    let mut data = format!(r#"{{"n":{n},"text":""#);
    let mut word = n;
    while data.len() + 2 < bytes {
        word = mixed(word ^ n << 20);
        data.push_str(&format!("{word:016x}"));
    }
    data.truncate(bytes.saturating_sub(2));
    data.push_str(r#""}"#);
    Event::builder("urn:growth", n.to_string(), format!("growth.type{}", n % TYPES))
        .stream(format!("stream/{}", n / STREAM_RUN % streams))
        .datacontenttype("application/json")
        .data(data)
        .build()
}

/// Reads a query to its end; answers how many events there were.
fn all(store: &EmbeddedStore, name: &LogName, query: Query) -> Result<u64> {
    let mut read = Read::matching(query);
    let mut count = 0;
    loop {
        let page = wait(store.read(name, &read))?;
        assert!(page.damaged.is_empty(), "nothing is damaged");
        count += page.events.len() as u64;
        match page.next {
            Some(covered) => read = read.continued(covered),
            None => return Ok(count),
        }
    }
}

fn median(times: u64, mut once: impl FnMut(u64) -> Result<()>) -> Result<Duration> {
    let mut all = Vec::with_capacity(times as usize);
    for n in 0..times {
        let start = Instant::now();
        once(n)?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(all[all.len() / 2])
}

/// A number that looks random (the finalizer of MurmurHash3), the same every time.
fn mixed(n: u64) -> u64 {
    let n = (n ^ n >> 33).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let n = (n ^ n >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ n >> 33
}

/// Number and bytes of the runs below a directory.
fn runs(dir: &Path) -> (u64, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let (more, more_bytes) = runs(&path);
            (count, bytes) = (count + more, bytes + more_bytes);
        } else if path.extension().is_some_and(|extension| extension == "run") {
            count += 1;
            bytes += entry.metadata().map_or(0, |m| m.len());
        }
    }
    (count, bytes)
}

/// The resident set, where the system tells.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    match (field("VmRSS:"), field("VmHWM:")) {
        (Some(now), Some(peak)) => format!("{} MiB resident, {} at most so far", now / 1024, peak / 1024),
        _ => "unknown on this system".to_owned(),
    }
}

fn said(what: &str, figure: String) {
    println!("{what:<9} {figure}");
}

fn shown(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
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

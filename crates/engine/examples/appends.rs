//! What an append costs the processor: `cargo run --release -p precedent-engine --example appends -- DIR [EVENTS [BYTES [WORKLOAD …]]]`.
//!
//! A workload is APPENDERSxBATCHxIN_FLIGHT, as in `precedent bench`, of the same events: `1x1x1` is one thread that
//! waits for each answer, `64x1x1` as many futures at once, `1x1000x4` one appender with four batches under way. Of
//! each: events a second, and the time of all threads in microseconds an event, in the program and in the system.
//! Wall-clock time depends on what else the machine does; the processor's time hardly does. `PACK=0` in the
//! environment leaves packing out. For a profile: `perf record -g`, or `valgrind --tool=callgrind`.

use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use precedent_core::{Append, Event, LogName, Result, Store, Submitted};
use precedent_engine::{EmbeddedStore, Options};

#[allow(dead_code, unreachable_pub, reason = "made for the bench of the program, where all of it is used")]
#[path = "../../cli/src/commands/bench/chats.rs"]
mod chats;

const WORKLOADS: [&str; 6] = ["1x1x1", "64x1x1", "1x100x1", "1x100x4", "1x1000x1", "1x1000x4"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| args.get(index).and_then(|text| text.parse::<usize>().ok());
    let Some(dir) = args.first() else {
        eprintln!("error: expected a directory to make stores in");
        return ExitCode::from(2);
    };
    let (events, bytes) = (number(1).unwrap_or(100_000), number(2).unwrap_or(1024));
    let workloads: Vec<&str> = match args.get(3..) {
        Some(named) if !named.is_empty() => named.iter().map(String::as_str).collect(),
        _ => WORKLOADS.to_vec(),
    };
    for name in workloads {
        let numbers: Vec<usize> = name.split('x').filter_map(|part| part.parse().ok()).collect();
        let &[appenders, batch, in_flight] = &numbers[..] else {
            eprintln!("error: '{name}' is no workload: expected APPENDERSxBATCHxIN_FLIGHT");
            return ExitCode::from(2);
        };
        let events = if batch == 1 { events / 10 } else { events };
        let work = Work { appenders, batch, in_flight, events, bytes };
        if let Err(error) = work.measure(name, &Path::new(dir).join(format!("appends-{name}"))) {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

struct Work {
    appenders: usize,
    batch: usize,
    in_flight: usize,
    events: usize,
    bytes: usize,
}

impl Work {
    fn measure(&self, name: &str, dir: &Path) -> Result<()> {
        let data: Vec<Bytes> =
            (0..self.events).map(|n| Bytes::from(chats::chat(n as u64, self.bytes))).collect();
        let mut options = Options::default();
        options.pack = std::env::var_os("PACK").is_none_or(|value| value != "0");
        let store = EmbeddedStore::open(dir, options)?;
        let appends = data.chunks_exact(self.batch).enumerate().map(|(n, data)| append(n * self.batch, data));
        let before = cpu();
        let began = Instant::now();
        self.run(&store, appends)?;
        let took = began.elapsed();
        let after = cpu();
        wait(store.close())?;
        drop(store);
        std::fs::remove_dir_all(dir)?;
        let events = (self.events / self.batch * self.batch) as f64;
        let micros = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / events;
        println!(
            "{name:<9} {:>8.0} events/s  {:>6.2} us of processor an event: {:.2} program, {:.2} system",
            events / took.as_secs_f64(),
            micros(before.0, after.0) + micros(before.1, after.1),
            micros(before.0, after.0),
            micros(before.1, after.1),
        );
        Ok(())
    }

    fn run(&self, store: &EmbeddedStore, mut appends: impl Iterator<Item = Result<Append>>) -> Result<()> {
        let name = LogName::default();
        if self.appenders == 1 && self.in_flight == 1 {
            return appends.try_for_each(|append| store.append_blocking(&name, append?).map(drop));
        }
        if self.appenders == 1 {
            let mut pending = VecDeque::new();
            for append in appends {
                if pending.len() == self.in_flight
                    && let Some(oldest) = pending.pop_front()
                {
                    wait(oldest)?;
                }
                let Submitted::Queued(answer) = store.submit(&name, append?) else {
                    unreachable!("the embedded store has a queue");
                };
                pending.push_back(answer);
            }
            return pending.into_iter().try_for_each(|answer| wait(answer).map(drop));
        }
        wait(async {
            let mut pending = FuturesUnordered::new();
            loop {
                while pending.len() < self.appenders
                    && let Some(append) = appends.next()
                {
                    pending.push(store.append(&name, append?));
                }
                match pending.next().await {
                    Some(answer) => drop(answer?),
                    None => return Ok(()),
                }
            }
        })
    }
}

fn append(first: usize, data: &[Bytes]) -> Result<Append> {
    let event = |(n, data): (usize, &Bytes)| {
        let n = first + n;
        Event::builder("urn:precedent:bench", n.to_string(), "ai.model.called")
            .stream(format!("chat/{}", n % 1_000))
            .data(data.clone())
            .build()
    };
    Ok(Append::new(data.iter().enumerate().map(event).collect::<Result<Vec<_>>>()?))
}

/// What all threads have used so far, in the program and in the system; nothing where the system does not tell.
fn cpu() -> (Duration, Duration) {
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces.
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut next = || TICK * fields.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    (next(), next())
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

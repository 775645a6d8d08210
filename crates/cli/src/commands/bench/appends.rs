//! Appends to a new store for a while, in process or through the server.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use precedent::{Access, Append, Event, Log, OpenOptions};

use super::chats::chat;
use super::server::{Server, url};
use super::workload::{Appends, Samples};
use crate::failure::{Failure, Result};

/// Bytes of the data of one append at most: what a frame and the file of the bare loop hold with room to spare.
pub(super) const BYTES_MAX: u64 = 12 << 20;

/// The first appends of a store make the log and its first segment, and are not measured.
const FIRST: usize = 8;

/// The data of so many events, made by as many threads as there are cores.
pub(super) fn data(events: usize, event_bytes: usize) -> Vec<Bytes> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = events.div_ceil(threads);
    std::thread::scope(|scope| {
        let make = |part: usize| {
            let numbers = part * share..((part + 1) * share).min(events);
            move || numbers.map(|n| Bytes::from(chat(n as u64, event_bytes))).collect::<Vec<_>>()
        };
        let parts: Vec<_> = (0..threads).map(|part| scope.spawn(make(part))).collect();
        // A thread that broke is a defect of `chat`, and nothing can be measured without its data.
        parts.into_iter().flat_map(|part| part.join().expect("making text does not fail")).collect()
    })
}

/// What may be appended to one store, each event once.
#[derive(Clone)]
pub(super) struct Data {
    all: Arc<Vec<Bytes>>,
    events: usize,
    next: Arc<AtomicUsize>,
}

impl Data {
    pub(super) fn new(all: &Arc<Vec<Bytes>>, events: usize) -> Self {
        Self { all: all.clone(), events: events.min(all.len()), next: Arc::default() }
    }

    pub(super) fn all(&self) -> &[Bytes] {
        &self.all[..self.events]
    }

    /// The next batch; `None` when nothing is left that was not appended before.
    fn batch(&self, count: usize) -> Option<precedent::Result<Append>> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        let data = self.all().get(first..first + count)?;
        let event = |(n, data): (usize, &Bytes)| {
            let n = first + n;
            Event::builder("urn:precedent:bench", n.to_string(), "ai.model.called")
                .stream(format!("chat/{}", n % 1_000))
                .data(data.clone())
                .build()
        };
        Some(data.iter().enumerate().map(event).collect::<precedent::Result<Vec<_>>>().map(Append::new))
    }
}

/// Where the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In this process: one appender is a thread that waits, and several appends of one are in the store's queue.
    Process,
    /// Behind the server: several appends of one appender are several requests.
    Server,
}

/// To a store of this process.
pub(super) async fn in_process(
    folder: &Path,
    workload: Appends,
    data: Data,
    duration: Duration,
) -> Result<Samples> {
    let place = place(folder)?;
    let log = precedent::open(&url(place.path()), OpenOptions::default().access(Access::Own)).await?;
    let samples = measure(std::slice::from_ref(&log), Place::Process, workload, data, duration).await?;
    log.store().close().await?;
    Ok(samples)
}

/// To a store behind the server, through so many clients, which the appenders take in turn.
pub(super) async fn through_server(
    folder: &Path,
    workload: Appends,
    clients: usize,
    data: Data,
    duration: Duration,
) -> Result<Samples> {
    let place = place(folder)?;
    let (server, log) = Server::start(place.path()).await?;
    let mut logs = vec![log];
    while logs.len() < clients {
        logs.push(server.connect().await?);
    }
    let samples = measure(&logs, Place::Server, workload, data, duration).await?;
    server.kill();
    Ok(samples)
}

/// A directory for one store.
pub(super) fn place(folder: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("store-")
        .tempdir_in(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))
}

/// Appends for about so long, or until everything there is has been appended. The appenders take the handles in turn.
pub(super) async fn measure(
    logs: &[Log],
    place: Place,
    workload: Appends,
    data: Data,
    duration: Duration,
) -> Result<Samples> {
    for _ in 0..FIRST {
        if let Some(append) = data.batch(workload.batch) {
            logs[0].append(append?).await?;
        }
    }
    let began = Instant::now();
    let mut appenders = tokio::task::JoinSet::new();
    for log in logs.iter().cycle().take(workload.appenders) {
        let work = Work { log: log.clone(), workload, data: data.clone(), deadline: began + duration };
        match place {
            _ if workload.in_flight == 1 && workload.appenders > 1 => appenders.spawn(work.one_by_one()),
            Place::Process if workload.in_flight == 1 => appenders.spawn_blocking(|| work.waiting()),
            Place::Server if workload.in_flight == 1 => appenders.spawn(work.one_by_one()),
            Place::Process => appenders.spawn(work.queued()),
            Place::Server => appenders.spawn(work.requests()),
        };
    }
    let mut latencies = Vec::new();
    while let Some(done) = appenders.join_next().await {
        let done = done.map_err(|error| Failure::new(format!("an appender broke: {error}")))?;
        latencies.extend(done?);
    }
    let events = (latencies.len() * workload.batch) as u64;
    Ok(Samples::new(latencies, events, began.elapsed()))
}

/// What one appender does; each way of it answers with how long its appends took.
struct Work {
    log: Log,
    workload: Appends,
    data: Data,
    deadline: Instant,
}

impl Work {
    /// The next append, and when making it began.
    fn next(&self) -> Option<(Instant, precedent::Result<Append>)> {
        let began = Instant::now();
        match began < self.deadline {
            true => self.data.batch(self.workload.batch).map(|append| (began, append)),
            false => None,
        }
    }

    /// A thread that waits for each answer.
    fn waiting(self) -> precedent::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while let Some((began, append)) = self.next() {
            self.log.append_blocking(append?)?;
            latencies.push(began.elapsed());
        }
        Ok(latencies)
    }

    /// A task that awaits each answer.
    async fn one_by_one(self) -> precedent::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while let Some((began, append)) = self.next() {
            self.log.append(append?).await?;
            latencies.push(began.elapsed());
        }
        Ok(latencies)
    }

    /// A task that keeps some in the store's queue and awaits the oldest, which is answered first.
    async fn queued(self) -> precedent::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut pending = VecDeque::new();
        loop {
            while pending.len() < self.workload.in_flight
                && let Some((began, append)) = self.next()
            {
                pending.push_back((began, self.log.submit(append?)?));
            }
            let Some((began, oldest)) = pending.pop_front() else { return Ok(latencies) };
            oldest.await?;
            latencies.push(began.elapsed());
        }
    }

    /// A task that keeps some requests under way.
    async fn requests(self) -> precedent::Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        let mut pending = FuturesUnordered::new();
        loop {
            while pending.len() < self.workload.in_flight
                && let Some((began, append)) = self.next()
            {
                pending.push(one(&self.log, began, append));
            }
            match pending.next().await {
                Some(latency) => latencies.push(latency?),
                None => return Ok(latencies),
            }
        }
    }
}

async fn one(log: &Log, began: Instant, append: precedent::Result<Append>) -> precedent::Result<Duration> {
    log.append(append?).await.map(|_| began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_handed_out_once_and_then_is_at_its_end() {
        let all = Arc::new(data(25, 256));
        assert_eq!(all.len(), 25);
        assert!(all.iter().enumerate().all(|(n, data)| data[..] == chat(n as u64, 256)[..]));
        let data = Data::new(&all, 20);
        assert_eq!(data.batch(8).unwrap().unwrap().events[0].id(), "0");
        assert_eq!(data.batch(8).unwrap().unwrap().events[0].id(), "8");
        assert!(data.batch(8).is_none() && data.batch(1).is_none());
        assert!(Data::new(&all, 99).batch(26).is_none());
    }
}

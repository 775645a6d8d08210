//! The measurements themselves: threads that append for a while, reads of a loaded log in rounds, rows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;

use crate::System;
use crate::arguments::Arguments;
use crate::chats::{RARE_TYPE, STREAM_EVENTS, chat, event_type, rare, stream, stream_name, streams};
use crate::child;
use crate::disk::used;
use crate::peer::{Peer, Record, Result, What};
use crate::workload::{Appends, Reads, Samples, micros, quantile, rounded, sorted};

/// The first appends of a store make its files, and are not measured.
const FIRST: usize = 8;
/// Events of one append of the load, and how many are under way at once.
const LOAD_BATCH: u64 = 1_000;
const LOADING: u64 = 4;
/// Openings of one round.
const OPENINGS: usize = 5;
/// Bytes that are appended before the process is killed, as `precedent bench` does.
const KILLED_BYTES: u64 = 14 << 20;

/// `peers append`.
pub(crate) fn append(system: System, arguments: &Arguments) -> Result<()> {
    let name: String = arguments.get("workload")?;
    let workload = Appends::ALL.into_iter().find(|workload| workload.name() == name);
    let workload = workload.ok_or_else(|| format!("there is no workload '{name}'"))?;
    let event_bytes: usize = arguments.get("event-bytes")?;
    let duration = Duration::try_from_secs_f64(arguments.get("seconds")?)?;
    let data = data(workload.events_for(duration, event_bytes), event_bytes);
    let folder = folder(arguments)?;
    let peer = system.open(folder.path())?;
    let samples = appends(&*peer, workload, &data, duration)?;
    Rows { system, event_bytes }.print(&name, &[samples]);
    Ok(())
}

fn folder(arguments: &Arguments) -> Result<TempDir> {
    let dir: PathBuf = arguments.get("dir")?;
    Ok(tempfile::Builder::new().prefix(".precedent-peers-").tempdir_in(dir)?)
}

fn data(events: usize, event_bytes: usize) -> Vec<Bytes> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = events.div_ceil(threads);
    std::thread::scope(|scope| {
        let make = |part: usize| {
            let numbers = part * share..((part + 1) * share).min(events);
            move || numbers.map(|n| Bytes::from(chat(n as u64, event_bytes))).collect::<Vec<_>>()
        };
        let parts: Vec<_> = (0..threads).map(|part| scope.spawn(make(part))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("making text does not fail")).collect()
    })
}

/// Appends with as many threads as there are appends at once, for about so long or until the data is used up.
fn appends(peer: &dyn Peer, workload: Appends, data: &[Bytes], duration: Duration) -> Result<Samples> {
    let next = AtomicUsize::new(0);
    let batch = || {
        let first = next.fetch_add(workload.batch, Ordering::Relaxed);
        let data = data.get(first..first + workload.batch)?;
        let record = |(n, data): (usize, &Bytes)| Record {
            id: (first + n).to_string(),
            stream: format!("chat/{}", (first + n) % 1_000),
            event_type: "ai.model.called",
            data: data.clone(),
        };
        Some(data.iter().enumerate().map(record).collect::<Vec<_>>())
    };
    let mut appender = peer.appender()?;
    for _ in 0..FIRST {
        batch().map_or(Ok(()), |records| appender.append(records))?;
    }
    drop(appender);
    let mut appenders = (0..workload.at_once()).map(|_| Handed(peer)).collect::<Vec<_>>();
    let ready = std::sync::Barrier::new(workload.at_once() + 1);
    let (ready, batch) = (&ready, &batch);
    std::thread::scope(|scope| {
        let threads: Vec<_> = appenders
            .iter_mut()
            .map(|peer| {
                scope.spawn(move || -> Result<Vec<Duration>> {
                    let appender = peer.0.appender();
                    // Nobody waits for one that could not connect.
                    ready.wait();
                    let mut appender = appender?;
                    let deadline = Instant::now() + duration;
                    let mut latencies = Vec::new();
                    while Instant::now() < deadline {
                        let began = Instant::now();
                        let Some(records) = batch() else { break };
                        appender.append(records)?;
                        latencies.push(began.elapsed());
                    }
                    Ok(latencies)
                })
            })
            .collect();
        ready.wait();
        let began = Instant::now();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| "a thread broke")??);
        }
        let events = (latencies.len() * workload.batch) as u64;
        Ok(Samples::new(latencies, events, began.elapsed()))
    })
}

/// A peer, for one thread.
struct Handed<'a>(&'a dyn Peer);

/// The event with this number of a loaded log.
fn loaded(number: u64, events: u64, event_bytes: usize) -> Record {
    Record {
        id: format!("loaded-{number}"),
        stream: stream(number, events),
        event_type: event_type(number),
        data: chat(number, event_bytes).into(),
    }
}

/// `peers read`.
pub(crate) fn read(system: System, arguments: &Arguments) -> Result<()> {
    let events: u64 = arguments.get("events")?;
    let event_bytes: usize = arguments.get("event-bytes")?;
    let rounds: usize = arguments.get("rounds")?;
    let each = Duration::try_from_secs_f64(arguments.get("seconds")?)?;
    let folder = folder(arguments)?;
    let place = folder.path();
    let rows = Rows { system, event_bytes };
    let log = Loaded { events, event_bytes, rare: rare(events) };

    let peer = system.open(place)?;
    log.load(&*peer)?;
    for reads in [Reads::Stream, Reads::Type, Reads::Scan] {
        if reads == Reads::Type && !peer.reads_types() {
            continue;
        }
        let samples: Vec<_> =
            (0..rounds).map(|round| log.timed(&*peer, reads, round, each)).collect::<Result<_>>()?;
        rows.print(reads.name(), &samples);
    }
    drop(peer);
    rows.print_bytes(Reads::Disk.name(), used(place)? as f64 / events as f64);

    // A server is killed in any case; those that tell a clean end from a crash are stopped by nothing here.
    if !system.is_server() {
        let openings =
            |_| (0..OPENINGS).map(|_| opening(system, place)).collect::<Result<_>>().map(Samples::times);
        rows.print(Reads::OpenClean.name(), &(0..rounds).map(openings).collect::<Result<Vec<_>>>()?);
    }
    let killed = |round: usize| {
        let first = events * (2 + round as u64);
        match system.is_server() {
            true => append_until_killed(&*system.open(place)?, first, event_bytes)?,
            false => child::killed(system.name(), place, first, event_bytes)?,
        }
        Ok(Samples::times(vec![opening(system, place)?]))
    };
    rows.print(Reads::OpenKilled.name(), &(0..rounds).map(killed).collect::<Result<Vec<_>>>()?);
    Ok(())
}

/// From opening to the first answer.
fn opening(system: System, place: &Path) -> Result<Duration> {
    let began = Instant::now();
    let peer = system.open(place)?;
    peer.head()?;
    Ok(began.elapsed())
}

/// What is appended before a process is killed.
pub(crate) fn append_until_killed(peer: &dyn Peer, first: u64, event_bytes: usize) -> Result<()> {
    const BATCH: u64 = 100;
    let mut appender = peer.appender()?;
    for n in 0..KILLED_BYTES / (event_bytes as u64 * BATCH) {
        let numbers = first + n * BATCH..first + (n + 1) * BATCH;
        appender.append(numbers.map(|n| loaded(n, 1_000_000, event_bytes)).collect())?;
    }
    Ok(())
}

/// The log that is read.
struct Loaded {
    events: u64,
    event_bytes: usize,
    rare: u64,
}

impl Loaded {
    fn load(&self, peer: &dyn Peer) -> Result<()> {
        let next = std::sync::atomic::AtomicU64::new(0);
        let next = &next;
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                let mut appender = peer.appender()?;
                loop {
                    let first = next.fetch_add(LOAD_BATCH, Ordering::Relaxed);
                    if first >= self.events {
                        return Ok(());
                    }
                    let numbers = first..(first + LOAD_BATCH).min(self.events);
                    appender.append(numbers.map(|n| loaded(n, self.events, self.event_bytes)).collect())?;
                }
            };
            let threads: Vec<_> = (0..LOADING).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread broke")?)
        })
    }

    /// Reads again and again for about so long, at least once, and counts what comes.
    fn timed(&self, peer: &dyn Peer, reads: Reads, round: usize, duration: Duration) -> Result<Samples> {
        let streams = streams(self.events);
        let mut latencies = Vec::new();
        let mut events = 0;
        let began = Instant::now();
        loop {
            let stream = stream_name((latencies.len() as u64 * 7_919 + round as u64) % streams);
            let (what, expected) = match reads {
                Reads::Stream => (What::Stream(&stream), STREAM_EVENTS.min(self.events)),
                Reads::Type => (What::Type(RARE_TYPE), self.rare),
                _ => (What::All { streams }, self.events),
            };
            let (mut count, mut bytes) = (0, 0);
            let at = Instant::now();
            peer.read(what, &mut |data| {
                count += 1;
                bytes += data.len();
            })?;
            latencies.push(at.elapsed());
            if count != expected || bytes as u64 != expected * self.event_bytes as u64 {
                let what = format!("'{}' answered with {count} events of {bytes} bytes", reads.name());
                return Err(format!("{what}; {expected} were recorded").into());
            }
            events += count;
            if began.elapsed() >= duration {
                return Ok(Samples::new(latencies, events, began.elapsed()));
            }
        }
    }
}

/// Rows of one system.
struct Rows {
    system: System,
    event_bytes: usize,
}

impl Rows {
    fn print(&self, workload: &str, rounds: &[Samples]) {
        let rates = sorted(rounds.iter().map(|samples| samples.rate));
        let times = sorted(rounds.iter().flat_map(|samples| samples.latencies.iter().map(micros)));
        let rate = quantile(&rates, 0.5);
        if rate > 0.0 {
            self.row(workload, "events/s", rounds.len(), rate, quantile(&rates, 0.01));
        }
        self.row(workload, "us", rounds.len(), quantile(&times, 0.5), quantile(&times, 0.99));
    }

    fn print_bytes(&self, workload: &str, bytes: f64) {
        self.row(workload, "bytes", 1, bytes, bytes);
    }

    fn row(&self, workload: &str, unit: &str, rounds: usize, median: f64, p99: f64) {
        println!(
            "{}",
            json!({
                "system": self.system.name(), "workload": workload, "event_bytes": self.event_bytes,
                "durability": "device", "tree": false, "rounds": rounds, "median": rounded(median),
                "p99": rounded(p99), "ratio_to_bare": null, "unit": unit,
            })
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_store_records_and_finds_what_is_measured() {
        for system in [System::Sqlite, System::Fjall, System::Tephra] {
            let folder = tempfile::tempdir().unwrap();
            let log = Loaded { events: 3_000, event_bytes: 256, rare: rare(3_000) };
            let peer = system.open(folder.path()).unwrap();
            log.load(&*peer).unwrap();
            for reads in [Reads::Stream, Reads::Type, Reads::Scan] {
                let samples = log.timed(&*peer, reads, 1, Duration::ZERO).unwrap();
                assert_eq!(samples.latencies.len(), 1, "{}", system.name());
            }
            let data = data(200, 256);
            let samples = appends(&*peer, Appends::ALL[1], &data, Duration::from_secs(60)).unwrap();
            assert_eq!(samples.latencies.len(), 200 - FIRST, "{}", system.name());
            drop(peer);
            assert!(used(folder.path()).unwrap() > 3_000 * 256);
            opening(system, folder.path()).unwrap();
        }
    }

    #[test]
    fn a_read_that_finds_too_little_is_an_error_and_no_measurement() {
        let folder = tempfile::tempdir().unwrap();
        let peer = System::Sqlite.open(folder.path()).unwrap();
        let log = Loaded { events: 1_000, event_bytes: 256, rare: rare(1_000) };
        let error = log.timed(&*peer, Reads::Scan, 0, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("0 events of 0 bytes; 1000 were recorded"), "{error}");
    }
}

//! Reads of a loaded log, how long it takes to open, and what it takes up.
//!
//! One log is loaded and then goes through what a log goes through: it is read where it was written, closed,
//! opened and packed, read again, served, killed. Every read counts what it gets, and one that gets too little
//! is an error and no measurement.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use precedent::{Access, Append, Event, Log, OpenOptions, Query, Read};

use super::chats::{RARE_TYPE, STREAM_EVENTS, chat, event_type, rare, stream, stream_name, streams};
use super::disk::{each, used};
use super::server::{Server, url};
use super::workload::{Appends, Reads, Samples};
use super::{Cell, Plan, System, Workload, appends, blocking};
use crate::failure::{Failure, Result};
use crate::output::say;

/// Bytes of the data of one append of the load.
const LOAD_BYTES: u64 = 1 << 20;
/// Openings of one round: one alone says little.
const OPENINGS: u32 = 5;
/// Bytes that are appended before the process is killed: somewhat less than a run of the index holds, so that about
/// as much as ever has to be read again.
const KILLED_BYTES: u64 = 14 << 20;
/// How long packing may take.
const PACKED_WITHIN: Duration = Duration::from_secs(300);
/// How the names of segments end. Where all is packed the one is left that is written to.
const SEGMENT: &str = ".seg";
/// How the names of packs end, and of those in the making: docs/format.md.
const PACK: &str = ".pack";
const UNFINISHED: &str = ".pack.tmp";

/// The log that is read.
#[derive(Debug, Clone, Copy)]
struct Loaded {
    events: u64,
    event_bytes: u32,
    rare: u64,
}

/// All of it, for one size of event.
pub(super) async fn measure(
    plan: &Plan,
    events: u64,
    event_bytes: u32,
    folder: &Path,
    progress: &ProgressBar,
) -> Result<Vec<Cell>> {
    let loaded = Loaded { events, event_bytes, rare: blocking(move || rare(events)).await? };
    let place = appends::place(folder)?;
    let place = place.path();
    let mut found = Found { plan, loaded, progress, cells: Vec::new() };

    let log = open_without_packing(place).await?;
    progress.set_message("loading");
    load(&log, loaded, progress).await?;
    if plan.in_process {
        found.disk(System::Precedent, disk(&log, place).await?);
        warm(place).await?;
        found.reads(System::Precedent, &log).await?;
    }
    log.store().close().await?;

    if plan.in_process && plan.packing {
        found.beside_packing(folder, place).await?;
    }
    progress.set_message("packing");
    let is_packed = pack(place, loaded).await?;
    let log = open(place).await?;
    if is_packed && plan.in_process {
        found.disk(System::Packed, disk(&log, place).await?);
        found.reads(System::Packed, &log).await?;
    }
    log.store().close().await?;
    if plan.in_process && plan.reads.contains(&Reads::OpenClean) {
        found.openings(place).await?;
    }
    if plan.server {
        found.served(place).await?;
    }
    if plan.reads.contains(&Reads::OpenKilled) {
        found.killed(place).await?;
    }
    Ok(found.cells)
}

async fn open(place: &Path) -> Result<Log> {
    Ok(precedent::open(&url(place), OpenOptions::default().access(Access::Own)).await?)
}

/// So that it stays as it is.
async fn open_without_packing(place: &Path) -> Result<Log> {
    let options = OpenOptions { pack: false, ..OpenOptions::default() };
    Ok(precedent::open(&url(place), options.access(Access::Own)).await?)
}

/// Brings what lies on the disk into the page cache: large appends go past it.
async fn warm(path: &Path) -> Result<()> {
    let place = path.to_owned();
    let read = move || {
        each(&place, &mut |path, _| {
            std::io::copy(&mut std::fs::File::open(path)?, &mut std::io::sink())?;
            Ok(())
        })
    };
    blocking(read).await?.map_err(|error| unreadable(path, &error))
}

/// Records the events; four appends are under way at once.
async fn load(log: &Log, loaded: Loaded, progress: &ProgressBar) -> Result<()> {
    let Loaded { events, event_bytes, .. } = loaded;
    let batch = (LOAD_BYTES / u64::from(event_bytes)).clamp(1, 1_000);
    stream::iter((0..events.div_ceil(batch)).map(|n| n * batch))
        .map(async |first| {
            let numbers = first..(first + batch).min(events);
            blocking(move || numbers.map(|n| loaded.event(n)).collect::<precedent::Result<Vec<_>>>()).await
        })
        .buffered(4)
        .map(async |made| {
            let made = made??;
            progress.inc(made.len() as u64);
            log.append(Append::new(made)).await?;
            Ok(())
        })
        .buffered(4)
        .try_collect()
        .await
}

impl Loaded {
    /// An event that no stream and no type that is read gets.
    fn other(self, number: u64) -> precedent::Result<Event> {
        Event::builder("urn:precedent:bench", format!("other-{number}"), "ai.model.called")
            .stream(format!("other/{}", number % 1_000))
            .data(Bytes::from(chat(number, self.event_bytes as usize)))
            .build()
    }

    fn event(self, number: u64) -> precedent::Result<Event> {
        Event::builder("urn:precedent:bench", format!("loaded-{number}"), event_type(number))
            .stream(stream(number, self.events))
            .data(Bytes::from(chat(number, self.event_bytes as usize)))
            .build()
    }
}

/// What the files take up, an event; `path` is that of the store.
async fn disk(log: &Log, path: &Path) -> Result<f64> {
    let (place, events) = (path.to_owned(), log.head().await?.size);
    let bytes = blocking(move || used(&place)).await?.map_err(|error| unreadable(path, &error))?;
    Ok(bytes as f64 / events.max(1) as f64)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// The packs of a store with their lengths, those in the making included.
fn packs(path: &Path) -> Result<BTreeSet<(PathBuf, u64)>> {
    let mut found = BTreeSet::new();
    let looked = each(path, &mut |path, metadata| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(PACK) || name.ends_with(UNFINISHED) {
            found.insert((path.to_owned(), metadata.len()));
        }
        Ok(())
    });
    looked.map(|()| found).map_err(|error| unreadable(path, &error))
}

/// Has the log packed, all of it: by a writer, and one that writes nothing is none. Answers whether there are packs.
async fn pack(place: &Path, loaded: Loaded) -> Result<bool> {
    let log = open(place).await?;
    log.append(loaded.other(loaded.events)?).await?;
    // Closing goes on with it for a moment only.
    packed(place).await?;
    log.store().close().await?;
    packed(place).await
}

/// Waits until all is packed that can be; answers whether there are packs.
async fn packed(path: &Path) -> Result<bool> {
    let deadline = Instant::now() + PACKED_WITHIN;
    while segments(path)? > 1 {
        if Instant::now() > deadline {
            let seconds = PACKED_WITHIN.as_secs();
            let left = segments(path)? - 1;
            let what = format!("{}: {left} segments are not packed after {seconds} s", path.display());
            return Err(Failure::new(what));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(!packs(path)?.is_empty())
}

/// How many segments of a store are not packed.
fn segments(path: &Path) -> Result<usize> {
    let mut found = 0;
    let looked = each(path, &mut |path, _| {
        found += usize::from(path.to_string_lossy().ends_with(SEGMENT));
        Ok(())
    });
    looked.map(|()| found).map_err(|error| unreadable(path, &error))
}

/// What has been measured so far.
struct Found<'a> {
    plan: &'a Plan,
    loaded: Loaded,
    progress: &'a ProgressBar,
    cells: Vec<Cell>,
}

impl Found<'_> {
    fn cell(&mut self, system: System, workload: Workload) -> &mut Cell {
        let event_bytes = self.loaded.event_bytes;
        let known = self.cells.iter().position(|cell| cell.system == system && cell.workload == workload);
        let at = known.unwrap_or(self.cells.len());
        if known.is_none() {
            self.cells.push(Cell::new(system, workload, event_bytes));
        }
        &mut self.cells[at]
    }

    fn add(&mut self, system: System, reads: Reads, samples: Samples) {
        self.cell(system, Workload::Reads(reads)).samples.push(samples);
    }

    fn disk(&mut self, system: System, bytes: f64) {
        if self.plan.reads.contains(&Reads::Disk) {
            self.cell(system, Workload::Reads(Reads::Disk)).bytes = Some(bytes);
        }
    }

    /// Every timed read, in rounds.
    async fn reads(&mut self, system: System, log: &Log) -> Result<()> {
        for round in 0..self.plan.rounds {
            for reads in [Reads::Stream, Reads::Type, Reads::Scan] {
                if self.plan.reads.contains(&reads) {
                    self.progress.set_message(format!("{}, {}", reads.name(), system.name()));
                    let samples = timed(log, reads, self.loaded, round, self.plan.each).await?;
                    self.add(system, reads, samples);
                }
            }
        }
        Ok(())
    }

    /// Opens and closes it, in process.
    async fn openings(&mut self, place: &Path) -> Result<()> {
        for _ in 0..self.plan.rounds {
            let mut times = Vec::new();
            for _ in 0..OPENINGS {
                let (log, took) = opening(place).await?;
                times.push(took);
                log.store().close().await?;
            }
            self.add(System::Precedent, Reads::OpenClean, Samples::times(times));
        }
        Ok(())
    }

    /// Starts the server on it, and reads through it.
    async fn served(&mut self, place: &Path) -> Result<()> {
        if self.plan.reads.contains(&Reads::OpenClean) {
            for _ in 0..self.plan.rounds {
                // A server that was killed leaves no clean end.
                open(place).await?.store().close().await?;
                let took = starting(place).await?.1;
                self.add(System::Server, Reads::OpenClean, Samples::times(vec![took]));
            }
        }
        let ((server, log), _) = starting(place).await?;
        self.reads(System::Server, &log).await?;
        server.kill();
        Ok(())
    }

    /// Kills a server in the middle of appends, again and again, and opens what it left.
    async fn killed(&mut self, place: &Path) -> Result<()> {
        let event_bytes = u64::from(self.loaded.event_bytes);
        let batch = (LOAD_BYTES / event_bytes).clamp(1, 100);
        let batches = (KILLED_BYTES / (event_bytes * batch)).max(1);
        for round in 0..self.plan.rounds {
            for system in [System::Precedent, System::Server] {
                let wanted = if system == System::Server { self.plan.server } else { self.plan.in_process };
                if !wanted {
                    continue;
                }
                self.progress.set_message(format!("killed, {}", system.name()));
                let (server, log) = Server::start(place).await?;
                let first =
                    self.loaded.events * (2 + u64::from(round) * 2 + u64::from(system == System::Server));
                for n in 0..batches {
                    let numbers = first + n * batch..first + (n + 1) * batch;
                    let events = numbers.map(|n| self.loaded.other(n));
                    let events = events.collect::<precedent::Result<Vec<_>>>()?;
                    log.append(Append::new(events)).await?;
                }
                server.kill();
                let took = match system {
                    System::Server => starting(place).await?.1,
                    _ => {
                        let (log, took) = opening(place).await?;
                        log.store().close().await?;
                        took
                    }
                };
                self.add(system, Reads::OpenKilled, Samples::times(vec![took]));
            }
        }
        Ok(())
    }

    /// Appends to a copy of the log while it is packed. What counts is a measurement during which packs grew.
    async fn beside_packing(&mut self, folder: &Path, original: &Path) -> Result<()> {
        let copy = appends::place(folder)?;
        let (from, to) = (original.to_owned(), copy.path().to_owned());
        blocking(move || copied(&from, &to)).await?.map_err(|error| unreadable(copy.path(), &error))?;
        let event_bytes = self.loaded.event_bytes as usize;
        let each = self.plan.each;
        let workloads: Vec<Appends> = Appends::ALL.into_iter().filter(|w| w.batch == 1).collect();
        let wanted = workloads.iter().map(|w| w.events_for(each, event_bytes)).sum();
        let data = Arc::new(blocking(move || appends::data(wanted, event_bytes)).await?);
        let data = appends::Data::new(&data, wanted);
        let log = open(copy.path()).await?;
        let mut found = false;
        for workload in workloads {
            let before = packs(copy.path())?;
            let samples = appends::measure(
                std::slice::from_ref(&log),
                appends::Place::Process,
                workload,
                data.clone(),
                each,
            )
            .await?;
            if packs(copy.path())? != before {
                found = true;
                self.cell(System::Packing, Workload::Appends(workload)).samples.push(samples);
            }
        }
        if !found {
            say(format_args!("nothing was packed while events were appended: no row says what that costs"));
        }
        log.store().close().await?;
        Ok(())
    }
}

/// Opens the store in this process, up to its first answer.
async fn opening(place: &Path) -> Result<(Log, Duration)> {
    let began = Instant::now();
    let log = open(place).await?;
    let head = log.head().await?;
    let took = began.elapsed();
    match head.size {
        0 => Err(Failure::new("the log that was loaded is empty")),
        _ => Ok((log, took)),
    }
}

/// Starts a server, up to its first answer.
async fn starting(place: &Path) -> Result<((Server, Log), Duration)> {
    let began = Instant::now();
    let (server, log) = Server::start(place).await?;
    let head = log.head().await?;
    let took = began.elapsed();
    match head.size {
        0 => Err(Failure::new("the log that was loaded is empty behind the server")),
        _ => Ok(((server, log), took)),
    }
}

/// Reads again and again for about so long, at least once.
async fn timed(log: &Log, reads: Reads, loaded: Loaded, round: u32, duration: Duration) -> Result<Samples> {
    let size = log.head().await?.size;
    let streams = streams(loaded.events);
    let mut latencies = Vec::new();
    let mut events = 0;
    let began = Instant::now();
    loop {
        // Every read another stream, in an order without neighbours: 7,919 is prime.
        let number = (latencies.len() as u64 * 7_919 + u64::from(round)) % streams;
        let (query, expected) = match reads {
            Reads::Stream => (Query::stream(stream_name(number)), STREAM_EVENTS.min(loaded.events)),
            Reads::Type => (Query::event_type(RARE_TYPE), loaded.rare),
            _ => (Query::all(), size),
        };
        let at = Instant::now();
        let (count, bytes) = counted(log, query).await?;
        latencies.push(at.elapsed());
        if count != expected || bytes != expected * u64::from(loaded.event_bytes) {
            let what = format!("'{}' answered with {count} events of {bytes} bytes", reads.name());
            return Err(Failure::new(format!("{what}; {expected} were recorded")));
        }
        events += count;
        if began.elapsed() >= duration {
            return Ok(Samples::new(latencies, events, began.elapsed()));
        }
        // A store of this process may never wait; whoever interrupts is to be heard all the same.
        tokio::task::yield_now().await;
    }
}

/// Reads to the end: how many events there are, and how many bytes of data.
async fn counted(log: &Log, query: Query) -> Result<(u64, u64)> {
    let mut events = pin!(log.read(Read::matching(query)));
    let (mut count, mut bytes) = (0, 0);
    while let Some(recorded) = events.next().await {
        count += 1;
        bytes += recorded?.event.data().map_or(0, |data| data.len() as u64);
        if count % 65_536 == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok((count, bytes))
}

/// Copies a directory.
fn copied(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let to = to.join(item.file_name());
        match item.file_type()?.is_dir() {
            true => copied(&item.path(), &to)?,
            false => std::fs::copy(item.path(), &to).map(drop)?,
        }
    }
    Ok(())
}

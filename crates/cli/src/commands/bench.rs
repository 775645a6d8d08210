//! `bench`: appends on this machine, beside a bare loop of writes and syncs in the same run.
//!
//! Every round measures every system once, in turn, so that what the machine does besides falls on all of
//! them. The bare loop writes the same number of bytes into a file that was filled with zeros before and calls
//! `fdatasync`; it hashes, indexes and checks nothing. It is the bound, not a competitor. With several
//! appenders there are two of it: one where whoever syncs takes the others' bytes along, as the store does,
//! and one where each appender syncs for itself.

mod bare;
mod report;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use precedent::{Access, Append, Event, Log, OpenOptions};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, say};
use bare::{Bare, Syncs};
use report::Table;
use workload::{Samples, Workload, chats};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory beside which the stores are made, and removed again: on the device to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Bytes of an event's data; several may be given
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1024",
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    event_bytes: Vec<u32>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// About how long it takes in all
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Precedent,
    Bare(Syncs),
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Precedent => "precedent",
            Self::Bare(Syncs::Shared) => "bare",
            Self::Bare(Syncs::Own) => "bare-own-syncs",
        }
    }

    fn of(workload: Workload) -> &'static [Self] {
        match workload {
            Workload::Appenders(n) if n > 1 => {
                &[Self::Bare(Syncs::Shared), Self::Precedent, Self::Bare(Syncs::Own)]
            }
            _ => &[Self::Bare(Syncs::Shared), Self::Precedent],
        }
    }
}

/// One system under one workload: the samples of all rounds.
struct Cell {
    system: System,
    workload: Workload,
    event_bytes: u32,
    samples: Vec<Samples>,
}

/// Everything that is measured lies in it. It goes when the measurement ends, however that ends: what an
/// interrupt leaves at work may make files for a moment longer, so that one try to remove it is not enough.
struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < deadline {
            // An error says little: a file that was renamed meanwhile is one. Whether it is gone, a look says.
            let _ = std::fs::remove_dir_all(self.path());
            if self.path().try_exists().is_ok_and(|there| !there) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    if cfg!(debug_assertions) {
        say(format_args!(
            "this program was built without optimisation: build it with --release to measure it"
        ));
    }
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", args.dir.display()));
    let folder =
        tempfile::Builder::new().prefix(".precedent-bench-").tempdir_in(&args.dir).map_err(failed)?;
    let folder = Folder(folder);
    let mut cells: Vec<Cell> = Vec::new();
    for &event_bytes in &args.event_bytes {
        for workload in Workload::ALL {
            for &system in System::of(workload) {
                cells.push(Cell { system, workload, event_bytes, samples: Vec::new() });
            }
        }
    }
    let measurements = cells.len() as u32 * args.rounds;
    let each = (Duration::from_secs(args.seconds.into()) / measurements).max(Duration::from_millis(20));
    let place = folder.path().to_owned();
    let filled = tokio::task::spawn_blocking(move || Bare::new(&place)).await;
    let filled = filled.map_err(|error| Failure::new(format!("the bare loop broke: {error}")))?;
    let bare = Arc::new(filled.map_err(failed)?);
    for _ in 0..args.rounds {
        let mut chat = (0, Arc::new(Vec::new()));
        for cell in &mut cells {
            if chat.0 != cell.event_bytes {
                chat = (cell.event_bytes, Arc::new(chats(cell.event_bytes as usize)));
            }
            let data = chat.1.clone();
            let workload = cell.workload;
            let samples = match cell.system {
                System::Precedent => appends(folder.path(), workload, data, each).await?,
                System::Bare(syncs) => {
                    let bare = bare.clone();
                    let work = move || bare.measure(workload, syncs, &data, each);
                    let done = tokio::task::spawn_blocking(work).await;
                    done.map_err(|error| Failure::new(format!("the bare loop broke: {error}")))?
                        .map_err(|error| Failure::new(format!("the bare loop: {error}")))?
                }
            };
            cell.samples.push(samples);
        }
    }
    let table = Table::of(&cells, args.rounds);
    let mut out = Output::stdout();
    match global.json {
        true => table.rows.iter().try_for_each(|row| out.json(row))?,
        false => table.lines().iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()
}

/// Appends to a new store for about so long.
async fn appends(
    folder: &Path,
    workload: Workload,
    data: Arc<Vec<bytes::Bytes>>,
    duration: Duration,
) -> Result<Samples> {
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    let place = tempfile::Builder::new().prefix("store-").tempdir_in(folder).map_err(failed)?;
    let url = format!("file:{}", place.path().display());
    let log = precedent::open(&url, OpenOptions::default().access(Access::Own)).await?;
    let ids = Arc::new(AtomicU64::new(0));
    // The first appends make the log and its first segment.
    for _ in 0..8 {
        append(&log, workload.batch(), &data, &ids).await?;
    }
    let began = Instant::now();
    let deadline = began + duration;
    let mut appenders = tokio::task::JoinSet::new();
    for _ in 0..workload.appenders() {
        let (log, data, ids) = (log.clone(), data.clone(), ids.clone());
        appenders.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < deadline {
                let began = Instant::now();
                append(&log, workload.batch(), &data, &ids).await?;
                latencies.push(began.elapsed());
            }
            Ok::<_, precedent::Error>(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = appenders.join_next().await {
        let done = done.map_err(|error| Failure::new(format!("an appender broke: {error}")))?;
        latencies.extend(done?);
    }
    let took = began.elapsed();
    log.store().close().await?;
    Ok(Samples::new(latencies, workload.batch(), took))
}

async fn append(log: &Log, batch: usize, data: &[bytes::Bytes], ids: &AtomicU64) -> precedent::Result<()> {
    let first = ids.fetch_add(batch as u64, Ordering::Relaxed);
    let event = |n: u64| {
        Event::builder("urn:precedent:bench", n.to_string(), "ai.model.called")
            .stream(format!("session/{}", n % 1_000))
            .data(data[(n % data.len() as u64) as usize].clone())
            .build()
    };
    let events = (first..first + batch as u64).map(event).collect::<precedent::Result<Vec<_>>>()?;
    log.append(Append::new(events)).await.map(drop)
}

//! `bench`: appends and reads on this machine, in process and through the server, beside a bare loop of writes
//! and syncs in the same run.
//!
//! Every round measures every system once, in turn, so that what the machine does besides falls on all of
//! them. The bare loop writes the same number of bytes into a file that was filled with zeros before and calls
//! `fdatasync`; it hashes, indexes and checks nothing. It is the bound, not a competitor. With several
//! appends at once there are three of it: one with a thread for each, where whoever syncs takes the others'
//! bytes along; one where each of the threads syncs for itself; and one with tasks and a thread that writes, which is
//! how the store does it. Waking threads is dear: the store may pass the first two, and not the third.
//!
//! The server is this program in a process of its own, `precedent serve` on loopback; it and its client share
//! the machine. Nothing that is appended comes twice in a store: see [`chats`].
//!
//! What is measured, the data and the arithmetic ([`workload`], [`chats`]) are the same for the peers in `bench/`.

mod appends;
mod bare;
mod chats;
mod disk;
mod folder;
mod hashes;
mod reads;
mod report;
mod server;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, say};
use crate::progress::{self, Clearing};
use bare::{Bare, Syncs};
use folder::Folder;
use report::Table;
use workload::{Appends, Reads, Samples};

/// What to measure.
#[derive(clap::Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) struct Args {
    /// The directory beside which the stores are made, and removed again: on the device to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Bytes of an event's data; several may be given, with commas
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "1024",
        value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    event_bytes: Vec<u32>,
    /// Events of the log that is read [default: 100000, or as many as 512 MiB hold]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: Option<u64>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// About how long the measurements take in all; making and loading the stores comes on top
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Only these: 'appends', 'reads', or the name of one as the table has it; may be repeated
    #[arg(long, value_name = "NAME")]
    workload: Vec<String>,
    /// Only these: precedent, precedent-server; may be repeated. The bare loop is always there
    #[arg(long, value_name = "NAME")]
    system: Vec<String>,
}

/// The name of the measurement of appends beside packing.
const PACKING: &str = "packing";

const HELP: &str = "\
Appends, each answered after a sync to the device:
  1 appender                        one event after the other, by a thread that waits for each
  16 appenders, 64 appenders        the same by so many tasks at once
  batches of 100, batches of 1000   one appender, all events of a batch or none
  …, 4 in flight                    the same with four batches under way at once
Reads of a loaded log (--events), from a warm page cache:
  stream of 1000   one stream, scattered over the whole log in runs of ten
  type at 1 %      all events of one type, a hundredth of the log
  scan             everything
  open, clean      from opening the store to its first answer; 'open, killed' after SIGKILL while appending
  bytes an event   what the files take up, the index included, without space that is only reserved
  packing          1, 16 and 64 appenders while the loaded log is packed
Systems:
  bare               writes and syncs the same bytes, for all that wait at once, and does nothing else
  bare-own-syncs     the same, a sync for each append
  bare-tasks         the same, a sync for all that wait, by one thread for tasks: the bound of many appends
  hashes             commitments and tree of the same events, by one thread, and nothing is recorded
  precedent          in this process
  precedent-packed   the same log after it was packed; precedent-packing: while it is
  precedent-server   'precedent serve' in a process of its own, on loopback; all appenders have one client and one
                     WebSocket, batches of more than 256 KiB are requests. precedent-server-each: a client for each

--json prints a row a line: {system, workload, event_bytes, durability, tree, rounds, median, p99, ratio_to_bare,
unit}. 'events/s': the median of the rounds and what 99 % of them reach. 'us': of all appends or reads, in
microseconds. 'bytes': of an event. ratio_to_bare is null where the bare loop has nothing to be compared with.
The data is invented chat JSON that no two events share; docs/performance.md says how it is made.";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Precedent,
    /// The log after its segments were packed.
    Packed,
    /// The log while its segments are packed.
    Packing,
    Server,
    /// The same, with a client and a connection for each appender.
    ServerEach,
    Bare(Syncs),
    /// Commitments and tree, and nothing else.
    Hashes,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Precedent if cfg!(precedent_unhashed) => "precedent-unhashed",
            Self::Precedent => "precedent",
            Self::Packed => "precedent-packed",
            Self::Packing => "precedent-packing",
            Self::Server => "precedent-server",
            Self::ServerEach => "precedent-server-each",
            Self::Hashes => "hashes",
            Self::Bare(Syncs::Shared) => "bare",
            Self::Bare(Syncs::Own) => "bare-own-syncs",
            Self::Bare(Syncs::Tasks) => "bare-tasks",
        }
    }

    /// Whether commitments and the Merkle tree are computed. The store has no way to leave them out. What they cost is
    /// [`Self::Hashes`], and what appends were without them shows a program compiled with `--cfg precedent_unhashed`, which does
    /// nothing but measure.
    fn tree(self) -> bool {
        !matches!(self, Self::Bare(_)) && !cfg!(precedent_unhashed)
    }

    /// What an answer means.
    fn durability(self) -> &'static str {
        if self == Self::Hashes { "none" } else { "device" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Appends(Appends),
    Reads(Reads),
}

impl Workload {
    fn name(self) -> String {
        match self {
            Self::Appends(appends) => appends.name(),
            Self::Reads(reads) => reads.name().to_owned(),
        }
    }
}

/// One system under one workload: the samples of all rounds, or what it takes up.
#[derive(Debug)]
struct Cell {
    system: System,
    workload: Workload,
    event_bytes: u32,
    samples: Vec<Samples>,
    /// Bytes an event, for [`Reads::Disk`].
    bytes: Option<f64>,
}

impl Cell {
    fn new(system: System, workload: Workload, event_bytes: u32) -> Self {
        Self { system, workload, event_bytes, samples: Vec::new(), bytes: None }
    }
}

/// What was asked for.
struct Plan {
    appends: Vec<Appends>,
    reads: Vec<Reads>,
    /// Whether appends are measured beside packing too.
    packing: bool,
    in_process: bool,
    server: bool,
    rounds: u32,
    /// How long one measurement takes.
    each: Duration,
}

impl Plan {
    fn of(args: &Args) -> Result<Self> {
        let wanted = |group: &str, name: &str| {
            args.workload.is_empty() || args.workload.iter().any(|wanted| wanted == group || wanted == name)
        };
        let appends = Appends::ALL.iter().map(|w| w.name());
        let reads = Reads::ALL.iter().map(|w| w.name().to_owned());
        let groups = ["appends", "reads", PACKING].map(str::to_owned);
        let known: Vec<String> = groups.into_iter().chain(appends).chain(reads).collect();
        if let Some(name) = args.workload.iter().find(|name| !known.contains(name)) {
            let known = known.join("', '");
            return Err(
                Failure::new(format!("there is no workload '{name}'")).hint(format!("there are '{known}'"))
            );
        }
        let systems = [System::Precedent.name(), System::Server.name()];
        if let Some(name) = args.system.iter().find(|name| !systems.contains(&name.as_str())) {
            let known = systems.join(" and ");
            return Err(Failure::new(format!("there is no system '{name}' to be chosen; there are {known}")));
        }
        let chosen =
            |system: System| args.system.is_empty() || args.system.iter().any(|n| n == system.name());
        let mut plan = Self {
            appends: Appends::ALL.into_iter().filter(|w| wanted("appends", &w.name())).collect(),
            reads: Reads::ALL.into_iter().filter(|w| wanted("reads", w.name())).collect(),
            packing: wanted("reads", PACKING),
            in_process: chosen(System::Precedent),
            server: chosen(System::Server),
            rounds: args.rounds,
            each: Duration::ZERO,
        };
        let appends: usize = plan.appends.iter().map(|w| plan.systems(*w).len()).sum();
        let timed =
            plan.reads.iter().filter(|w| matches!(w, Reads::Stream | Reads::Type | Reads::Scan)).count();
        let cells = appends + timed * (2 * usize::from(plan.in_process) + usize::from(plan.server));
        let measurements = (cells * args.event_bytes.len()).max(1) as u32 * args.rounds;
        plan.each = (Duration::from_secs(args.seconds.into()) / measurements).max(Duration::from_millis(20));
        Ok(plan)
    }

    fn systems(&self, workload: Appends) -> Vec<System> {
        let mut systems = vec![System::Bare(Syncs::Shared)];
        systems.extend(self.in_process.then_some(System::Precedent));
        systems.extend(self.server.then_some(System::Server));
        systems.extend((self.server && workload.appenders > 1).then_some(System::ServerEach));
        let hashes = self.in_process && workload.batch > 1 && !cfg!(precedent_unhashed);
        systems.extend(hashes.then_some(System::Hashes));
        if workload.at_once() > 1 {
            systems.extend([Syncs::Own, Syncs::Tasks].map(System::Bare));
        }
        systems
    }
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let plan = Plan::of(&args)?;
    if cfg!(debug_assertions) {
        say(format_args!(
            "this program was built without optimisation: build it with --release to measure it"
        ));
    }
    let folder =
        Folder::new(&args.dir).map_err(|error| Failure::new(format!("{}: {error}", args.dir.display())))?;
    let progress = progress::events("measuring", None);
    let _clearing = Clearing(&progress);
    let mut cells = Vec::new();
    if !plan.appends.is_empty() {
        cells.extend(all_appends(&plan, &args.event_bytes, &folder, &progress).await?);
    }
    if !plan.reads.is_empty() || plan.packing {
        for &event_bytes in &args.event_bytes {
            let events = args.events.unwrap_or(((512 << 20) / u64::from(event_bytes)).min(100_000)) / 1_000;
            let events = events.max(1) * 1_000;
            cells.extend(reads::measure(&plan, events, event_bytes, folder.path(), &progress).await?);
        }
    }
    drop(_clearing);
    let table = Table::of(&cells, args.rounds);
    let mut out = Output::stdout();
    match global.json {
        true => table.rows.iter().try_for_each(|row| out.json(row))?,
        false => table.lines().iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()
}

/// Every append workload with every system, in rounds.
async fn all_appends(
    plan: &Plan,
    event_bytes: &[u32],
    folder: &Folder,
    progress: &indicatif::ProgressBar,
) -> Result<Vec<Cell>> {
    let mut cells: Vec<Cell> = Vec::new();
    for &bytes in event_bytes {
        for &workload in &plan.appends {
            let append_bytes = workload.batch as u64 * u64::from(bytes);
            if append_bytes > appends::BYTES_MAX {
                say(format_args!(
                    "'{}' left out: {append_bytes} bytes of data in one append, the limit here is {}",
                    workload.name(),
                    appends::BYTES_MAX
                ));
                continue;
            }
            let systems = plan.systems(workload).into_iter();
            cells.extend(systems.map(|system| Cell::new(system, Workload::Appends(workload), bytes)));
        }
    }
    let place = folder.path().to_owned();
    let bare = blocking(move || Bare::new(&place)).await?;
    let bare = Arc::new(bare.map_err(|error| bare_failed(folder.path(), &error))?);
    for _ in 0..plan.rounds {
        let mut data: (u32, Arc<Vec<Bytes>>) = (0, Arc::default());
        for cell in &mut cells {
            let Workload::Appends(workload) = cell.workload else { continue };
            if data.0 != cell.event_bytes {
                let bytes = cell.event_bytes as usize;
                // What is no longer needed goes before there is more.
                data = (cell.event_bytes, Arc::default());
                let wanted = plan.appends.iter().map(|w| w.events_for(plan.each, bytes)).max().unwrap_or(1);
                data.1 = Arc::new(blocking(move || appends::data(wanted, bytes)).await?);
            }
            let events = workload.events_for(plan.each, cell.event_bytes as usize);
            let data = appends::Data::new(&data.1, events);
            progress.set_message(format!("{}, {}", cell.workload.name(), cell.system.name()));
            let samples = match cell.system {
                System::Bare(Syncs::Tasks) => {
                    let done = bare.measure_tasks(workload, data, plan.each).await;
                    done.map_err(|error| bare_failed(folder.path(), &error))?
                }
                System::Bare(syncs) => {
                    let (bare, each) = (bare.clone(), plan.each);
                    let done = blocking(move || bare.measure(workload, syncs, data.all(), each)).await?;
                    done.map_err(|error| bare_failed(folder.path(), &error))?
                }
                System::Hashes => {
                    let each = plan.each;
                    blocking(move || hashes::measure(workload, data.all(), each)).await?
                }
                System::Server => {
                    appends::through_server(folder.path(), workload, 1, data, plan.each).await?
                }
                System::ServerEach => {
                    let clients = workload.appenders;
                    appends::through_server(folder.path(), workload, clients, data, plan.each).await?
                }
                System::Precedent | System::Packed | System::Packing => {
                    appends::in_process(folder.path(), workload, data, plan.each).await?
                }
            };
            progress.inc(samples.latencies.len() as u64 * workload.batch as u64);
            cell.samples.push(samples);
        }
    }
    Ok(cells)
}

fn bare_failed(folder: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("the bare loop in {}: {error}", folder.display()))
}

/// Runs what would keep a thread of the runtime from others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::new(format!("a measurement broke: {error}")))
}

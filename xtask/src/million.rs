//! `cargo xtask million`: what a large log costs to open and to read, with the real binary.
//!
//! Records events of 1 KiB, then measures opening after a clean stop and after SIGKILL in the middle of an import,
//! and how much memory a read of everything takes. Figures of one machine, for comparison in one run.
//!
//! `cargo xtask growth`: what of that grows with the log, and how. The engine's example `growth` measures a log in
//! process, one a tenth as long first.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::output::run;
use crate::workspace::{BINARY, BINARY_PACKAGE, Workspace};

/// How often each opening is measured; the median is said.
const OPENINGS: usize = 9;

/// Runs it with this many events; answers whether everything went well.
pub(crate) fn million(workspace: &Workspace, events: u64) -> bool {
    match measure(workspace, events) {
        Ok(()) => true,
        Err(message) => {
            eprintln!("{message}");
            false
        }
    }
}

/// Bytes of data an event has where its number is what matters.
const SMALL_EVENT_BYTES: &str = "256";

/// Measures a log of a tenth of the events, then one of all; takes about 600 bytes of disk an event meanwhile.
pub(crate) fn growth(workspace: &Workspace, events: u64) -> bool {
    let result = growing(workspace, events);
    if let Err(message) = &result {
        eprintln!("{message}");
    }
    result.is_ok()
}

fn growing(workspace: &Workspace, events: u64) -> Result<(), String> {
    let package = ["--release", "--package", "precedent-engine", "--example", "growth"];
    run(workspace.cargo(&["build"]).args(package))?;
    let binary = workspace.root().join("target/release/examples/growth");
    let dir = workspace.root().join("target/growth");
    for events in [events / 10, events] {
        let _ = std::fs::remove_dir_all(&dir);
        println!("\n{events} events of {SMALL_EVENT_BYTES} bytes");
        let mut command = Command::new(&binary);
        let measured = run(command.arg(&dir).args([&events.to_string(), SMALL_EVENT_BYTES]));
        let _ = std::fs::remove_dir_all(&dir);
        measured?;
    }
    Ok(())
}

fn measure(workspace: &Workspace, events: u64) -> Result<(), String> {
    run(&mut workspace.cargo(&["build", "--release", "--package", BINARY_PACKAGE]))?;
    let binary = workspace.root().join("target/release").join(BINARY);
    let dir = workspace.root().join("target/million");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let result = with_binary(&binary, &dir, events);
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn with_binary(binary: &Path, dir: &Path, events: u64) -> Result<(), String> {
    let precedent = |args: &[&str]| {
        let mut command = Command::new(binary);
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let start = Instant::now();
    let mut import = importer(&mut precedent(&["import", "-"]))?;
    feed(&mut import, 0, events).map_err(|e| format!("import ended early: {e}"))?;
    ended_well(import, "import")?;
    let seconds = start.elapsed().as_secs_f64();
    println!("recorded  {events} events of 1 KiB in {seconds:.1} s, through JSON on standard input");

    let none = median(|| ended_well(spawn(&mut precedent(&["--version"]))?, "--version"))?;
    println!("process   {} for a process that opens nothing", shown(none));
    let clean = median(|| ended_well(spawn(&mut precedent(&["head"]))?, "head"))?;
    println!("open      {} after a clean stop, process included", shown(clean));

    let mut killed = importer(&mut precedent(&["import", "-"]))?;
    // Whatever is recorded when it dies: it takes about a hundred bytes a line less than a run of the index holds.
    let fed = feed(&mut killed, events, events + 12_000);
    killed.kill().map_err(|e| format!("the import cannot be killed: {e}"))?;
    let _ = killed.wait();
    fed.map_err(|e| format!("the import ended early: {e}"))?;
    let beside = median(|| ended_well(spawn(&mut precedent(&["head"]))?, "head"))?;
    println!("open      {} for reading after SIGKILL, process included", shown(beside));
    let start = Instant::now();
    let mut append = precedent(&["append", "--type", "test.opened", "--data", "{}"]);
    ended_well(spawn(&mut append)?, "append")?;
    println!("open      {} for writing after SIGKILL: recovered, one append, closed", shown(start.elapsed()));

    let start = Instant::now();
    let mut read = spawn(&mut precedent(&["--json", "read"]))?;
    let peak = peak_memory(&mut read);
    ended_well(read, "read")?;
    let peak = peak.map_or("unknown on this system".to_owned(), |kib| format!("{} MiB", kib / 1024));
    println!("read      everything in {:.1} s; peak memory {peak}", start.elapsed().as_secs_f64());
    let start = Instant::now();
    ended_well(spawn(&mut precedent(&["verify"]))?, "verify")?;
    println!("verify    everything in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    command.spawn().map_err(|e| format!("the binary does not start: {e}"))
}

fn importer(command: &mut Command) -> Result<Child, String> {
    spawn(command.stdin(Stdio::piped()))
}

fn ended_well(mut child: Child, what: &str) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what}: {status}")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// Writes events with these numbers to the child's standard input, and closes it unless it is to be killed.
fn feed(child: &mut Child, from: u64, to: u64) -> std::io::Result<()> {
    let mut input = BufWriter::new(child.stdin.take().expect("it was asked for"));
    let text = "the quick brown fox jumps over the lazy dog and the log remembers every one of its steps, "
        .repeat(10);
    for n in from..to {
        writeln!(
            input,
            r#"{{"specversion":"1.0","id":"{n}","source":"urn:million","type":"test.type{}","subject":"stream/{}","data":{{"n":{n},"text":"{text}"}}}}"#,
            n % 100,
            n / 10 % 1_000
        )?;
    }
    input.flush()
}

fn median(mut once: impl FnMut() -> Result<(), String>) -> Result<Duration, String> {
    let mut all = Vec::with_capacity(OPENINGS);
    for _ in 0..OPENINGS {
        let start = Instant::now();
        once()?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(all[OPENINGS / 2])
}

fn shown(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// The highest resident set of a process while it runs, in KiB, where the system tells.
fn peak_memory(child: &mut Child) -> Option<u64> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = None;
    while matches!(child.try_wait(), Ok(None)) {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).or(peak);
        std::thread::sleep(Duration::from_millis(5));
    }
    peak
}

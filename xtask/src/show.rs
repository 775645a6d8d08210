//! `cargo xtask show`: what it costs to look at decisions in a large log: in process, with the real binary, and on the page.
//!
//! The example `decisions` of the command line records the log and measures in process. Figures of one machine, for comparison in
//! one run; docs/performance.md has some.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::output::run;
use crate::workspace::{BINARY, BINARY_PACKAGE, Workspace};

/// How often each look is measured; the median is said.
const LOOKS: usize = 15;
/// Events of one decision of the example.
const EVENTS_OF_ONE: u64 = 10;

/// Runs it with this many events; answers whether everything went well.
pub(crate) fn show(workspace: &Workspace, events: u64) -> bool {
    let result = measure(workspace, events);
    if let Err(message) = &result {
        eprintln!("{message}");
    }
    result.is_ok()
}

fn measure(workspace: &Workspace, events: u64) -> Result<(), String> {
    let package = ["--release", "--package", BINARY_PACKAGE, "--bins", "--example", "decisions"];
    run(workspace.cargo(&["build"]).args(package))?;
    let release = workspace.root().join("target/release");
    let dir = workspace.root().join("target/show");
    let _ = std::fs::remove_dir_all(&dir);
    let example = release.join("examples/decisions");
    let result = run(Command::new(example).arg(&dir).arg(events.to_string()))
        .and_then(|()| with_binary(&release.join(BINARY), &dir, events));
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn with_binary(binary: &Path, dir: &Path, events: u64) -> Result<(), String> {
    let store = format!("file:{}", dir.display());
    let precedent = |args: &[&str]| {
        let mut command = Command::new(binary);
        command
            .args(args)
            .args(["--store", &store])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    // Some in the middle, where nothing of it is recent.
    let decision = format!("decision-{}", events / EVENTS_OF_ONE / 2);
    for (what, args) in [
        ("show       one decision", vec!["show", &decision]),
        ("decisions  the first page", vec!["decisions", "--limit", "20"]),
        (
            "decisions  the first page with an outcome",
            vec!["decisions", "--limit", "20", "--outcome", "repaid=false"],
        ),
    ] {
        let took = median(|| {
            let status = precedent(&args).status().map_err(|e| format!("the binary does not start: {e}"))?;
            if status.success() { Ok(()) } else { Err(format!("{}: {status}", args.join(" "))) }
        })?;
        println!("{}, the process included: {}", what, shown(took));
    }
    let mut serve = precedent(&[
        "--json",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--otlp-grpc",
        "off",
        "--otlp-http",
        "off",
    ]);
    let mut server =
        serve.stdout(Stdio::piped()).spawn().map_err(|e| format!("the binary does not start: {e}"))?;
    let result = pages(&mut server, &decision);
    let _ = server.kill();
    let _ = server.wait();
    result
}

fn pages(server: &mut Child, decision: &str) -> Result<(), String> {
    let mut line = String::new();
    let output = server.stdout.take().ok_or("the server has no output")?;
    BufReader::new(output).read_line(&mut line).map_err(|e| format!("the server says nothing: {e}"))?;
    let said: serde_json::Value =
        serde_json::from_str(&line).map_err(|e| format!("serve --json said '{line}': {e}"))?;
    let url = ["listening", "url"].iter().find_map(|name| said[name].as_str());
    let host =
        url.ok_or(format!("serve --json said '{line}'"))?.trim_start_matches("http://").trim_end_matches('/');
    let show = format!("/show?of={decision}");
    for path in ["/", "/decisions", &show] {
        let start = Instant::now();
        let bytes = get(host, path)?;
        let first = start.elapsed();
        let took = median(|| get(host, path).map(drop))?;
        println!("page       {path}: {} the first time, {} then, {bytes} bytes", shown(first), shown(took));
    }
    Ok(())
}

/// Bytes of the answer, which has to be 200.
fn get(host: &str, path: &str) -> Result<usize, String> {
    let told = |e: std::io::Error| format!("{path}: {e}");
    let mut stream = TcpStream::connect(host).map_err(told)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").map_err(told)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(told)?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(answer.len()),
        false => Err(format!("{path}: {}", String::from_utf8_lossy(&answer[..answer.len().min(200)]))),
    }
}

fn median(mut once: impl FnMut() -> Result<(), String>) -> Result<Duration, String> {
    let mut all = Vec::with_capacity(LOOKS);
    for _ in 0..LOOKS {
        let start = Instant::now();
        once()?;
        all.push(start.elapsed());
    }
    all.sort_unstable();
    Ok(all[LOOKS / 2])
}

fn shown(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

//! Azurite, the emulator of Azure Storage, from npm, as a process of its own on a free loopback port.
//!
//! It is installed once, into the target folder, from the lock file in `tests/azurite/`. It keeps everything in memory
//! and ends with the process that started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long packages may take to be installed, the first time.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
/// How long the emulator may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// The account that it has; Microsoft publishes the name and the key.
pub const ACCOUNT: &str = "devstoreaccount1";
/// The key of the account.
pub const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running table service, with no table.
#[derive(Debug)]
pub struct Azurite {
    port: u16,
}

impl Azurite {
    /// Installs it under `folder` unless it is there, and starts it. Without Node.js, npm or the package index the reason
    /// is said on stderr and there is none: the tests of whoever asked count as skipped.
    pub fn start(folder: &Path) -> Option<Self> {
        let started = start(folder);
        if let Err(why) = &started {
            // Not through `eprintln!`, which a test harness keeps to itself as long as nothing fails.
            let told = format!("skipped: Table Storage is not tried against Azurite: {why}\n");
            let _ = std::io::stderr().write_all(told.as_bytes());
        }
        started.ok()
    }

    /// Its endpoint, with a `/` at the end.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}/", self.port)
    }

    /// The URL of a table, which need not be there.
    pub fn url(&self, table: &str) -> String {
        format!("table+http://127.0.0.1:{}/{ACCOUNT}/{table}", self.port)
    }

    /// A table name that nobody else in this process has.
    pub fn fresh_name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

fn start(folder: &Path) -> Result<Azurite, String> {
    let place = install(folder)?;
    let script = root().join("tests/azurite/table.js");
    let mut child = Command::new("node")
        .arg(script)
        .args(["--tableHost", "127.0.0.1", "--tablePort", "0", "--inMemoryPersistence", "--disableTelemetry"])
        .arg("--skipApiVersionCheck")
        .current_dir(place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("Node.js does not start: {error}"))?;
    let output = child.stdout.take().expect("it is piped");
    let (said, says) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let deadline = std::time::Instant::now() + START_PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        match says.recv_timeout(left) {
            Ok(line) => {
                let port = line.strip_prefix("port ");
                if let Some(port) = port.and_then(|port| port.trim().parse().ok()) {
                    // It ends when its standard input does, which this keeps open as long as the process lives.
                    std::mem::forget(child);
                    return Ok(Azurite { port });
                }
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("it did not say that it listens".to_owned());
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where it is installed.
fn install(folder: &Path) -> Result<PathBuf, String> {
    let wanted = root().join("tests/azurite");
    let lock = std::fs::read(wanted.join("package-lock.json")).map_err(|error| error.to_string())?;
    let place = folder.join("azurite");
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    // Tests run side by side, in processes of their own too: one installs, the others wait for it.
    let guard = std::fs::File::create(place.join("installing")).map_err(|error| error.to_string())?;
    guard.lock().map_err(|error| error.to_string())?;
    let ready = place.join("ready");
    if std::fs::read(&ready).is_ok_and(|had| had == lock) {
        return Ok(place);
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(wanted.join(file), place.join(file)).map_err(|error| error.to_string())?;
    }
    let child = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"])
        .current_dir(&place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("npm does not start: {error}"))?;
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(INSTALL_PATIENCE) else {
        let _ = Command::new("kill").arg(pid.to_string()).status();
        return Err(format!("npm was not done after {} seconds", INSTALL_PATIENCE.as_secs()));
    };
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("npm cannot install it: {}", text.lines().next().unwrap_or("no reason given")));
    }
    std::fs::write(ready, lock).map_err(|error| error.to_string())?;
    Ok(place)
}

//! Azurite, the emulator of Azure Storage, from npm: one table service for each test binary, on a free loopback port.
//!
//! It is installed once, into the target folder, from the lock file in `tests/azurite/`. Without Node.js, npm or the
//! package index the reason is said, and whoever asked counts as skipped. It keeps everything in memory and ends with
//! the process that started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use azure_core::http::policies::Policy;
use precedent_azure::cloud::CLOUDS;
use precedent_azure::table::client::Retries;
use precedent_azure::table::{Options, Settings, TableRemote};

/// How long packages may take to be installed, the first time.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
/// How long the emulator may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Tries of a call of a remote that was made here. On this machine nothing is worth a longer wait.
pub(crate) const TRIES: usize = 4;
const ACCOUNT: &str = "devstoreaccount1";

/// A running emulator.
pub(crate) struct Azurite {
    port: u16,
}

/// The emulator of this test binary, or `None` after the reason was said.
pub(crate) fn azurite() -> Option<&'static Azurite> {
    static STARTED: OnceLock<Result<Azurite, String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let started = start();
        if let Err(why) = &started {
            // Not through `eprintln!`, which a test harness keeps to itself as long as nothing fails.
            let told = format!("skipped: Table Storage is not tried against Azurite: {why}\n");
            let _ = std::io::stderr().write_all(told.as_bytes());
        }
        started
    });
    started.as_ref().ok()
}

impl Azurite {
    /// The URL of a table, which need not be there.
    pub(crate) fn url(&self, table: &str) -> String {
        format!("table+http://127.0.0.1:{}/{ACCOUNT}/{table}", self.port)
    }

    /// A table name that no other test of this binary has.
    pub(crate) fn fresh_name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("t{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The settings of a table. What this machine's environment says is left out.
    pub(crate) fn settings(&self, table: &str, options: Options) -> Settings {
        let settings = Settings::parse_with(&self.url(table), options, CLOUDS[0], |_| None);
        let retries = Retries {
            tries_max: TRIES as u32,
            first_wait: Duration::from_millis(1),
            wait_max: Duration::from_millis(2),
            ..Retries::default()
        };
        Settings { retries, ..settings.expect("the URL of an emulator") }
    }

    /// A new, empty table.
    pub(crate) async fn fresh(&self) -> TableRemote {
        self.fresh_with(Options::default(), Vec::new()).await
    }

    /// A new, empty table, with options and policies.
    pub(crate) async fn fresh_with(&self, options: Options, policies: Vec<Arc<dyn Policy>>) -> TableRemote {
        let settings = self.settings(&self.fresh_name(), options);
        let remote = TableRemote::with_policies(&settings, policies).expect("a remote");
        assert!(remote.client().create_table().await.expect("a table"), "the name is a new one");
        remote
    }
}

fn start() -> Result<Azurite, String> {
    let place = install()?;
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
fn install() -> Result<PathBuf, String> {
    let wanted = root().join("tests/azurite");
    let lock = std::fs::read(wanted.join("package-lock.json")).map_err(|error| error.to_string())?;
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("azurite");
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

//! What the tests of the binary share: running it in a directory of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A directory in which the binary runs, as on a machine of its own.
pub(crate) struct Place {
    dir: TempDir,
    environment: Vec<(OsString, OsString)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(Vec::new())
    }

    /// With variables that the binary finds there.
    pub(crate) fn with(environment: Vec<(OsString, OsString)>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn command<I: IntoIterator<Item = impl AsRef<OsStr>>>(&self, arguments: I) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_precedent"));
        command.current_dir(self.path()).args(arguments);
        for variable in ["PRECEDENT_URL", "PRECEDENT_TOKEN", "PRECEDENT_CA_FILE", "CARGO"] {
            command.env_remove(variable);
        }
        for (variable, _) in azure_variables() {
            command.env_remove(variable);
        }
        command.env("PRECEDENT_CACHE", self.path().join("cache"));
        command.envs(self.environment.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Runs it to its end; `line` is split at blanks.
    pub(crate) fn run(&self, line: &str) -> Done {
        self.run_with(line.split_whitespace(), b"")
    }

    pub(crate) fn run_with<I: IntoIterator<Item = impl AsRef<OsStr>>>(
        &self,
        arguments: I,
        input: &[u8],
    ) -> Done {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // Beside it, so that neither waits for the other; one that reads no input closes it.
        let feeding = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        Done(output)
    }
}

/// What this process is told of Azure.
pub(crate) fn azure_variables() -> Vec<(OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AZURE_")).collect()
}

/// How a run ended.
pub(crate) struct Done(Output);

impl Done {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Asserts the exit code, and shows everything if it is another one.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "stdout:\n{}\nstderr:\n{}", self.out(), self.err());
        self
    }

    /// Asserts that stderr says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err().contains(text), "'{text}' is not in stderr:\n{}", self.err());
        self
    }

    /// stdout as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.out()))
    }

    /// stdout as one JSON value a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out().lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

/// A process that is killed, by its id, when the test ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Asks it to end, as Ctrl-C does.
    #[cfg(unix)]
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Sends it a signal, by its name without `SIG`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code, once it has ended.
    pub(crate) fn end(&mut self) -> i32 {
        within(|| self.0.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

/// A server on this machine over the store of a place; it is killed, by its id, when the test ends.
pub(crate) struct Server {
    _running: Running,
    /// Host and port.
    pub(crate) http: String,
    /// Host and port of OTLP over HTTP.
    pub(crate) otlp: String,
}

pub(crate) fn serve(place: &Place, arguments: &[&str]) -> Server {
    let mut command = place.command([
        "--json",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--otlp-grpc",
        "off",
        "--otlp-http",
        "127.0.0.1:0",
    ]);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let host = |name: &str| said[name].as_str().unwrap_or_default().trim_start_matches("http://").to_owned();
    let http = host(if said["listening"].is_string() { "listening" } else { "url" });
    Server { _running: running, http, otlp: host("otlp_http") }
}

/// Asks again and again, a bounded time.
#[track_caller]
pub(crate) fn within<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "nothing came within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The agent runs the project is tested with; `None`, said loudly, if they are not there.
pub(crate) fn agent_runs() -> Option<PathBuf> {
    let named = std::env::var_os("PRECEDENT_SHARED_DATA").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = named.unwrap_or(beside).join("tau-bench/gpt-4o-airline.json");
    if path.exists() {
        return path.canonicalize().ok();
    }
    eprintln!("skipped: {} is not there; PRECEDENT_SHARED_DATA names the folder of the data", path.display());
    None
}

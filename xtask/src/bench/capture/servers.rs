//! The three servers: how each is started on loopback over an empty directory, asked what it shows, and stopped.
//!
//! Each runs under `bench/capture-peers/guard.py`, which ends it when this process closes the pipe between them or is no
//! more, whatever the reason: an interrupt, a failure, a kill.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

use super::python::ended;
use super::sender::{Endpoint, client};
use crate::output::capture;

/// Until a server that was started answers, and until one that was stopped is gone.
const START_PATIENCE: Duration = Duration::from_secs(180);
const STOP_PATIENCE: Duration = Duration::from_secs(90);
/// For a question.
const ASK_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at whether something is there.
const PAUSE: Duration = Duration::from_millis(20);
/// No answer to a question is longer.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Of traces whose spans are asked for at once: they are named in a URL.
const TRACES_AT_ONCE: usize = 20;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    Precedent,
    Phoenix,
    Mlflow,
}

impl System {
    pub(super) const ALL: [Self; 3] = [Self::Precedent, Self::Phoenix, Self::Mlflow];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Precedent => "precedent",
            Self::Phoenix => "phoenix",
            Self::Mlflow => "mlflow",
        }
    }

    /// The database of a peer, below its directory.
    fn database(self) -> Option<&'static str> {
        match self {
            Self::Precedent => None,
            Self::Phoenix => Some("phoenix.db"),
            Self::Mlflow => Some("mlflow.db"),
        }
    }
}

/// The programs that are needed.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) precedent: PathBuf,
    /// The Python in which the peers are.
    pub(super) python: PathBuf,
    /// The directory of `guard.py` and `settings.py`.
    pub(super) scripts: PathBuf,
    /// How many processes MLflow's server gets.
    pub(super) workers: usize,
}

/// A server that runs. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    system: System,
    guard: Child,
    log: PathBuf,
    /// Where it answers questions.
    url: String,
    /// Where it takes spans.
    pub(super) endpoint: Endpoint,
    client: Agent,
}

/// What lies on the disk when a server has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remains {
    pub(super) bytes: u64,
    /// How a peer opens its database, as it says itself.
    pub(super) settings: Option<Settings>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) journal_mode: String,
    pub(super) synchronous: u64,
    pub(super) sqlite: String,
}

impl Server {
    /// Starts it over an empty directory, and waits until it answers. With `syncs` it runs under strace, which writes
    /// there every call that forces a file to the device.
    pub(super) fn start(
        tools: &Tools,
        system: System,
        dir: &Path,
        syncs: Option<&Path>,
    ) -> Result<Self, String> {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let log = dir.with_extension("log");
        let written = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let also = written.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        let (asked, taken, unused) = (free_port()?, free_port()?, free_port()?);
        let mut command = Command::new(&tools.python);
        command.arg(tools.scripts.join("guard.py"));
        if let Some(syncs) = syncs {
            command.args([
                "strace",
                "-f",
                "--seccomp-bpf",
                "-e",
                "trace=fsync,fdatasync,sync,syncfs,msync",
                "-o",
            ]);
            command.arg(syncs);
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["PRECEDENT_", "PHOENIX_", "MLFLOW_"].iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        let spans_at = match system {
            System::Precedent => {
                command.arg(&tools.precedent).arg("serve").arg("--store").arg(store_url(dir));
                command.args(["--listen", &local(asked), "--otlp-http", &local(taken), "--otlp-grpc", "off"]);
                taken
            }
            System::Phoenix => {
                command.arg(&tools.python).args(["-m", "phoenix.server.main", "serve"]);
                command.env("PHOENIX_WORKING_DIR", dir).env("PHOENIX_HOST", "127.0.0.1");
                command.env("PHOENIX_PORT", asked.to_string()).env("PHOENIX_GRPC_PORT", unused.to_string());
                // It is here to store spans, and tells nobody.
                command
                    .env("PHOENIX_TELEMETRY_ENABLED", "false")
                    .env("PHOENIX_ALLOW_EXTERNAL_RESOURCES", "false");
                asked
            }
            System::Mlflow => {
                let mut database = OsString::from("sqlite:///");
                database.push(dir.join("mlflow.db"));
                command
                    .arg(&tools.python)
                    .args(["-m", "mlflow", "server", "--backend-store-uri"])
                    .arg(database);
                command.arg("--artifacts-destination").arg(dir.join("artifacts"));
                command.args(["--host", "127.0.0.1", "--port", &asked.to_string()]);
                command.args(["--workers", &tools.workers.to_string()]);
                // Its processes for other jobs would take time from the one that is measured.
                command
                    .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
                    .env("MLFLOW_DISABLE_TELEMETRY", "true");
                asked
            }
        };
        command.env("DO_NOT_TRACK", "1").current_dir(dir);
        command.stdin(Stdio::piped()).stdout(written).stderr(also);
        let guard = command.spawn().map_err(|e| format!("{} does not start: {e}", system.name()))?;
        let headers = match system {
            // The experiment that every store has.
            System::Mlflow => vec![("x-mlflow-experiment-id", "0")],
            _ => Vec::new(),
        };
        let mut server = Self {
            system,
            guard,
            log,
            url: format!("http://{}", local(asked)),
            endpoint: Endpoint { url: format!("http://{}/v1/traces", local(spans_at)), headers },
            client: client(ASK_PATIENCE),
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let url = match self.system {
            System::Phoenix => format!("{}/readyz", self.url),
            System::Precedent => format!("{}/healthz", self.url),
            System::Mlflow => format!("{}/health", self.url),
        };
        let began = Instant::now();
        loop {
            if self.client.get(&url).call().is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            let name = self.system.name();
            if let Ok(Some(status)) = self.guard.try_wait() {
                return Err(format!("{name} ended with {status} before it answered{}", tail(&self.log)));
            }
            if began.elapsed() > START_PATIENCE {
                let seconds = START_PATIENCE.as_secs();
                return Err(format!("{name} did not answer within {seconds} s{}", tail(&self.log)));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// How many of the spans that were sent a query finds.
    pub(super) fn visible(&self) -> Result<usize, String> {
        match self.system {
            System::Precedent => self.events(),
            System::Phoenix => {
                let query = json!({"query": "{ projects { edges { node { recordCount } } } }"});
                let answer = self.post(&format!("{}/graphql", self.url), &query)?;
                records(&answer).ok_or_else(|| format!("phoenix counts nothing: {answer}"))
            }
            System::Mlflow => {
                let query = json!({"max_results": 500, "locations":
                    [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]});
                let found = self.post(&format!("{}/api/3.0/mlflow/traces/search", self.url), &query)?;
                let traces = trace_ids(&found)?;
                let mut spans = 0;
                for some in traces.chunks(TRACES_AT_ONCE) {
                    let named: Vec<String> = some.iter().map(|id| format!("trace_ids={id}")).collect();
                    let url = format!("{}/api/3.0/mlflow/traces/batchGet?{}", self.url, named.join("&"));
                    spans += spans_of(&self.get(&url)?)?;
                }
                Ok(spans)
            }
        }
    }

    /// Reads every event of a call's span, whole, as any client would, and counts them.
    fn events(&self) -> Result<usize, String> {
        let url = format!("{}/v1/events?type=ai.model.called&tag=signal%3Dspan", self.url);
        let failed = |e: &dyn std::fmt::Display| format!("GET {url}: {e}");
        let answer = self.client.get(&url).header("accept", "application/x-ndjson").call();
        let answer = answer.map_err(|e| failed(&e))?;
        if answer.status() != 200 {
            return Err(failed(&answer.status()));
        }
        let mut lines =
            BufReader::new(answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).reader());
        let (mut events, mut line) = (0, Vec::new());
        while lines.read_until(b'\n', &mut line).map_err(|e| failed(&e))? > 0 {
            events += 1;
            line.clear();
        }
        Ok(events)
    }

    fn get(&self, url: &str) -> Result<Value, String> {
        answered(url, self.client.get(url).call())
    }

    fn post(&self, url: &str, question: &Value) -> Result<Value, String> {
        let request = self.client.post(url).header("content-type", "application/json");
        answered(url, request.send(question.to_string().as_bytes()))
    }

    /// Stops it as one stops a service, and waits until it is gone.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.end()
    }

    fn end(&mut self) -> Result<(), String> {
        drop(self.guard.stdin.take());
        let began = Instant::now();
        // Killing the guard would leave the server behind.
        while self.guard.try_wait().map_err(|e| format!("{}: {e}", self.system.name()))?.is_none() {
            if began.elapsed() > STOP_PATIENCE {
                let (name, seconds) = (self.system.name(), STOP_PATIENCE.as_secs());
                return Err(format!("{name} did not end within {seconds} s{}", tail(&self.log)));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

/// What a server that has ended has left in its directory: of Precedent what `doctor` counts, frames and index, without
/// space that is only reserved; of a peer all its files, when the write-ahead log is emptied into the database.
pub(super) fn remains(tools: &Tools, system: System, dir: &Path) -> Result<Remains, String> {
    let Some(database) = system.database() else {
        let mut doctor = Command::new(&tools.precedent);
        doctor.args(["doctor", "--json", "--store"]).arg(store_url(dir));
        let said = capture(&mut doctor, ASK_PATIENCE).and_then(ended)?;
        let found: Value = serde_json::from_str(&said).map_err(|e| format!("doctor: {e}: {said}"))?;
        let bytes =
            |name: &str| found[name].as_u64().ok_or_else(|| format!("doctor names no {name}: {said}"));
        return Ok(Remains { bytes: bytes("log_bytes")? + bytes("index_bytes")?, settings: None });
    };
    let mut settings = Command::new(&tools.python);
    settings.arg(tools.scripts.join("settings.py")).arg(system.name()).arg(dir.join(database));
    let said = capture(&mut settings, ASK_PATIENCE).and_then(ended)?;
    let last = said.lines().last().unwrap_or_default();
    let found: Value = serde_json::from_str(last).map_err(|e| format!("settings.py: {e}: {said}"))?;
    let text = |name: &str| found[name].as_str().map(str::to_owned).ok_or(format!("no {name} in {last}"));
    let settings = Settings {
        journal_mode: text("journal_mode")?,
        synchronous: found["synchronous"].as_u64().ok_or(format!("no synchronous in {last}"))?,
        sqlite: text("sqlite")?,
    };
    Ok(Remains { bytes: file_bytes(dir)?, settings: Some(settings) })
}

fn store_url(dir: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(dir);
    url
}

/// The lengths of all files of a directory and those below it.
fn file_bytes(dir: &Path) -> Result<u64, String> {
    let named = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut bytes = 0;
    for item in fs::read_dir(dir).map_err(named)? {
        let item = item.map_err(named)?;
        let about = item.metadata().map_err(named)?;
        bytes += if about.is_dir() { file_bytes(&item.path())? } else { about.len() };
    }
    Ok(bytes)
}

/// A port that nobody has now. It may be taken until it is used; then the server says so and the run fails.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| format!("there is no free port: {e}"))?;
    Ok(listener.local_addr().map_err(|e| format!("there is no free port: {e}"))?.port())
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn answered(
    url: &str,
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Value, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let mut answer = answer.map_err(|e| failed(&e))?;
    let text =
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|e| failed(&e))?;
    match answer.status().as_u16() {
        200 => serde_json::from_slice(&text).map_err(|e| failed(&e)),
        status => {
            Err(failed(&format!("{status}: {}", String::from_utf8_lossy(&text[..text.len().min(500)]))))
        }
    }
}

/// The spans of all projects in Phoenix's answer. It has no project before the first span is stored.
fn records(answer: &Value) -> Option<usize> {
    let projects = answer["data"]["projects"]["edges"].as_array()?;
    let counts = projects.iter().map(|edge| edge["node"]["recordCount"].as_u64());
    counts.sum::<Option<u64>>().map(|count| count as usize)
}

/// The traces in MLflow's answer. An answer that does not hold all of them is not counted as if it did.
fn trace_ids(answer: &Value) -> Result<Vec<&str>, String> {
    if answer["next_page_token"].as_str().is_some_and(|token| !token.is_empty()) {
        return Err("mlflow has more traces than one answer holds".into());
    }
    // Protobuf's JSON leaves an empty list out.
    let traces = answer["traces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id =
        |trace: &Value| trace["trace_id"].as_str().map(|_| ()).ok_or(format!("a trace without id: {trace}"));
    traces.iter().try_for_each(id)?;
    Ok(traces.iter().filter_map(|trace| trace["trace_id"].as_str()).collect())
}

/// The spans of the traces in MLflow's answer, each counted.
fn spans_of(answer: &Value) -> Result<usize, String> {
    let traces = answer["traces"].as_array().ok_or_else(|| format!("mlflow knows no traces: {answer}"))?;
    let spans = traces.iter().map(|trace| trace["spans"].as_array().map_or(0, Vec::len));
    Ok(spans.sum())
}

/// How many calls that force a file to the device have ended well by now, in what strace wrote.
pub(super) fn syncs(written: &str) -> usize {
    written.lines().filter(|line| line.contains("sync") && line.trim_end().ends_with("= 0")).count()
}

/// The last lines a server wrote, to stand behind what went wrong.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    format!("; it wrote to {}:\n{last}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_counted_as_each_peer_tells_them() {
        let phoenix = json!({"data": {"projects": {"edges":
            [{"node": {"recordCount": 40}}, {"node": {"recordCount": 2}}]}}});
        assert_eq!(records(&phoenix), Some(42));
        assert_eq!(records(&json!({"data": {"projects": {"edges": []}}})), Some(0));
        // A number that is missing is not a zero.
        assert_eq!(records(&json!({"data": {"projects": {"edges": [{"node": {}}]}}})), None);
        assert_eq!(records(&json!({"errors": ["x"]})), None);

        assert_eq!(trace_ids(&json!({})).unwrap(), Vec::<&str>::new());
        let two = json!({"traces": [{"trace_id": "a"}, {"trace_id": "b"}], "next_page_token": ""});
        assert_eq!(trace_ids(&two).unwrap(), ["a", "b"]);
        let more = json!({"traces": [{"trace_id": "a"}], "next_page_token": "x"});
        assert!(trace_ids(&more).unwrap_err().contains("more traces"));
        assert!(trace_ids(&json!({"traces": [{}]})).unwrap_err().contains("without id"));
        let spans = json!({"traces": [{"spans": [{}, {}, {}]}, {"trace_info": {}}, {"spans": [{}]}]});
        assert_eq!(spans_of(&spans).unwrap(), 4);
        assert!(spans_of(&json!({"error": "x"})).is_err());
    }

    #[test]
    fn a_sync_counts_once_it_has_ended_well() {
        let written = "12 fsync(5)                          = 0\n\
                       13 fdatasync(7 <unfinished ...>\n\
                       12 msync(0x7f0000000000, 4096, MS_SYNC) = 0\n\
                       13 <... fdatasync resumed>)           = 0\n\
                       14 fsync(9)                          = -1 EIO (Input/output error)\n\
                       14 fdatasync(9 <unfinished ...>\n\
                       12 +++ exited with 0 +++\n";
        assert_eq!(syncs(written), 3);
        assert_eq!(syncs(""), 0);
    }

    #[test]
    fn all_files_count_wherever_they_lie() {
        let dir = std::env::temp_dir().join(format!("precedent-file-bytes-{}", std::process::id()));
        fs::create_dir_all(dir.join("below/it")).unwrap();
        fs::write(dir.join("a"), [0; 100]).unwrap();
        fs::write(dir.join("below/it/b"), [0; 23]).unwrap();
        let bytes = file_bytes(&dir);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(bytes, Ok(123));
        assert!(file_bytes(&dir).is_err());
    }

    /// A process tells its id and sleeps for a day, under the guard; when the pipe is closed it is gone.
    #[test]
    fn a_server_ends_with_the_pipe_of_whoever_started_it() {
        let python = std::env::var_os("PRECEDENT_PYTHON").unwrap_or_else(|| "python3".into());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/capture-peers");
        let told = "import os, time; print(os.getpid(), flush=True); time.sleep(86400)";
        let guard = Command::new(&python)
            .arg(scripts.join("guard.py"))
            .arg(&python)
            .args(["-c", told])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut guard = match guard {
            Ok(guard) => guard,
            Err(error) => return eprintln!("skipped: Python is not there: {error}"),
        };
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let process = PathBuf::from(format!("/proc/{}", line.trim().parse::<u32>().unwrap()));
        if !Path::new("/proc/self").exists() {
            eprintln!("not looked at: whether the process is gone, which this system does not tell");
        } else {
            assert!(process.exists());
        }
        drop(guard.stdin.take());
        // The guard ends when the process has.
        let status = guard.wait().unwrap();
        assert_eq!(status.code(), Some(128 + 15));
        assert!(!process.exists());
    }
}

//! `import`: records events from a file. Doing it again records nothing new.

mod openai_messages;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use precedent::{Durability, Limits, Log};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::{Clock, Global, read_failed};
use crate::json_values::JsonValues;
use crate::output::{Output, say};
use crate::progress;
use crate::recorder::{Recorder, Tally};
use crate::text::{counted, escaped};

use super::append::{parse_any, value_bytes_max};
use openai_messages::{Run, Trials};

/// The most bytes of one run in a file of runs.
const RUN_BYTES_MAX: usize = 256 << 20;

/// What to read.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What the file holds
    #[arg(long, value_enum, default_value_t = Format::Cloudevents)]
    format: Format,
    /// The file; - is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    clock: Clock,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// CloudEvents in JSON, or events in the native shape: one a line, or one array
    Cloudevents,
    /// Agent runs with their messages as OpenAI has them: one array, or one run a line
    OpenaiMessages,
}

/// What came of it.
#[derive(Default)]
struct Imported {
    tally: Tally,
    runs: Option<u64>,
    /// Members of runs that have no place in the events.
    passed_over: BTreeSet<String>,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let (input, length) = open(&args.file)?;
    let log = global.log_for_writing(args.clock).await?;
    let bar = progress::bytes("importing", length);
    let imported = {
        let _clearing = progress::Clearing(&bar);
        match args.format {
            Format::Cloudevents => cloudevents(input, &log, &bar).await,
            Format::OpenaiMessages => openai_messages(input, &log, &bar).await,
        }
    };
    let head = log.head().await;
    let closed = log.store().close().await;
    let imported = imported?;
    closed?;
    let head = head?;
    let mut out = Output::stdout();
    let Imported { tally, runs, passed_over } = imported;
    if !passed_over.is_empty() {
        let names: Vec<&str> = passed_over.iter().map(String::as_str).collect();
        say(format_args!("not part of the events, members of the runs: {}", escaped(&names.join(", "))));
    }
    if global.json {
        let mut answer = json!({
            "recorded": tally.recorded,
            "existing": tally.existing,
            "types": tally.types,
            "size": head.size,
            "root": head.root.to_string(),
        });
        if let Some(runs) = runs {
            answer["runs"] = runs.into();
        }
        out.json(&answer)?;
    } else {
        for (event_type, count) in &tally.types {
            out.line(format!("{count:>9}  {}", escaped(event_type)))?;
        }
        let from = runs.map_or(String::new(), |runs| format!(" of {}", counted(runs, "run")));
        out.line(match tally.recorded {
            0 if tally.existing > 0 => {
                format!("nothing new: all {}{from} were there already", counted(tally.existing, "event"))
            }
            n => format!("recorded {}{from}; {} there already", counted(n, "event"), tally.existing),
        })?;
        out.line(format!("the log holds {}, root {}", counted(head.size, "event"), head.root))?;
    }
    out.flush()
}

fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    const BUFFER_BYTES: usize = 1 << 20;
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, std::io::stdin())), None));
    }
    let failed = |error: std::io::Error| read_failed(path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::new(format!("{} is a directory, expected a file", path.display())));
    }
    Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), metadata.is_file().then_some(metadata.len())))
}

/// A line of the file.
struct Line(u64);

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}", self.0)
    }
}

async fn cloudevents(input: Box<dyn BufRead + Send>, log: &Log, bar: &ProgressBar) -> Result<Imported> {
    let limits = Limits::new(Durability::None);
    let mut values = JsonValues::new(input, value_bytes_max(&limits));
    let mut recorder = Recorder::new(log.clone());
    loop {
        let value = match values.next_value() {
            Ok(Some(value)) => value,
            Ok(None) => break,
            Err(failure) => return recorder.flush_and_fail(failure).await,
        };
        match parse_any(&value.bytes) {
            Ok(event) => recorder.push(event, Line(value.line)).await?,
            Err(error) => {
                let failure = Failure::from(error).context(Line(value.line));
                return recorder.flush_and_fail(failure).await;
            }
        }
        bar.set_position(values.consumed());
    }
    recorder.flush().await?;
    Ok(Imported { tally: recorder.tally().clone(), ..Imported::default() })
}

async fn openai_messages(input: Box<dyn BufRead + Send>, log: &Log, bar: &ProgressBar) -> Result<Imported> {
    let mut values = JsonValues::new(input, RUN_BYTES_MAX);
    let mut recorder = Recorder::new(log.clone());
    let mut imported = Imported::default();
    let mut trials = Trials::default();
    let mut runs = 0;
    loop {
        let value = match values.next_value() {
            Ok(Some(value)) => value,
            Ok(None) => break,
            Err(failure) => return recorder.flush_and_fail(failure).await,
        };
        let mut run = match Run::parse(&value.bytes, runs, &mut trials) {
            Ok(run) => run,
            Err(message) => {
                let failure = Failure::new(format!("run {runs} (line {}): {message}", value.line));
                return recorder.flush_and_fail(failure).await;
            }
        };
        drop(value);
        imported.passed_over.extend(run.take_passed_over());
        while let Some(step) = run.next_event() {
            match step {
                (Ok(event), place) => recorder.push(event, place).await?,
                (Err(error), place) => {
                    let failure = Failure::from(error).context(place);
                    return recorder.flush_and_fail(failure).await;
                }
            }
        }
        runs += 1;
        bar.set_position(values.consumed());
    }
    recorder.flush().await?;
    if runs == 0 {
        return Err(Failure::new("the file holds no runs"));
    }
    imported.tally = recorder.tally().clone();
    imported.runs = Some(runs);
    Ok(imported)
}

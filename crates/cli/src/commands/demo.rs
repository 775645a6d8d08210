//! `demo`: records a small agent run that this program acts out, shows it, verifies it.
//!
//! No model is called and nothing is fetched: a loan agent, its tool, the person who overrides it and the
//! outcome are played by the lines below. What happens to them is real: they are recorded one after the other,
//! each only if nothing else came in between, read back from the log, and verified.

use std::path::PathBuf;

use futures_util::StreamExt;
use precedent::{
    Access, Append, Condition, ErrorKind, Event, Log, OpenOptions, Position, Query, Read, RecordedEvent, Time,
};
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::gist::gist;
use crate::global::{Clock, DEFAULT_STORE, Global, open, writing};
use crate::output::{Output, has_colours, say};
use crate::text::{counted, escaped};

/// Who produced the events of a demo: also how one recognises them.
const SOURCE: &str = "urn:precedent:demo";

/// Where the demo goes when the store it would have used holds other things.
const OTHER_STORE: &str = "file:./precedent-demo";

/// Where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of the store [default: that of --store, or ./precedent-demo if that holds other events]
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let (url, log) = place(args, &global).await?;
    let story = Story::new();
    record(&log, &story).await?;
    let mut events = Vec::new();
    let mut recorded = log.read(Read::matching(Query::stream(&story.stream))).boxed();
    while let Some(event) = recorded.next().await {
        events.push(event?);
    }
    drop(recorded);
    let report = log.store().verify(log.name(), None, &|_, _| {}).await?;
    log.store().close().await?;
    let Some(root) = report.root.filter(|_| report.is_ok()) else {
        return Err(Failure::new(format!(
            "the log does not verify: {}",
            counted(report.problem_count, "problem")
        ))
        .hint("'precedent verify' lists them"));
    };
    let mut out = Output::stdout();
    if global.json {
        out.json(&json!({
            "store": url,
            "stream": story.stream,
            "decision": story.decision,
            "recorded": events.len(),
            "size": report.size,
            "root": root.to_string(),
            "verified": true,
        }))?;
        return out.flush();
    }
    let style = Style::new();
    let Style { bold, dim, plain } = style;
    out.line(format!("{bold}A loan agent declines, a person overrides it, and time tells.{plain}"))?;
    out.line(format!(
        "{dim}stream {}, {} in {url}{plain}",
        story.stream,
        counted(events.len() as u64, "event")
    ))?;
    out.line("")?;
    for recorded in &events {
        out.line(style.timeline(recorded))?;
    }
    out.line("")?;
    out.line(format!(
        "{bold}Verified{plain}  {}: every entry, commitment, link and root recomputed",
        counted(report.size, "event")
    ))?;
    out.line(format!("          root {root}"))?;
    out.line("")?;
    out.line(format!("{bold}Next{plain}"))?;
    let made = events.iter().find(|event| event.event.event_type() == "ai.decision.made");
    for (command, what) in
        next(&url, &story, made.map(|event| event.position), report.size, &root.to_string())
    {
        out.line(format!("  {command}\n      {dim}{what}{plain}"))?;
    }
    out.flush()
}

/// The store: the one that was named on the command line, whatever it holds; else one that holds nothing but demos.
async fn place(args: Args, global: &Global) -> Result<(String, Log)> {
    if let Some(dir) = args.dir {
        let url = format!("file:{}", dir.display());
        let log = open(&url, writing(Clock::default())).await?;
        return Ok((url, log));
    }
    if let Some(url) = &global.store {
        return Ok((url.clone(), open(url, writing(Clock::default())).await?));
    }
    let usual = global.url();
    if only_demos(&usual).await? {
        let log = open(&usual, writing(Clock::default())).await?;
        return Ok((usual, log));
    }
    say(format_args!("{} holds events that are not from a demo, and keeps to them", escaped(&usual)));
    if only_demos(OTHER_STORE).await? {
        return Ok((OTHER_STORE.to_owned(), open(OTHER_STORE, writing(Clock::default())).await?));
    }
    Err(Failure::new(format!("{OTHER_STORE} holds events that are not from a demo either"))
        .hint("--dir names a directory for the demo"))
}

/// Whether the log is empty or begins with a demo. An event is looked at without making anything.
async fn only_demos(url: &str) -> Result<bool> {
    let empty_folder = |path: &str| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if url.strip_prefix("file:").is_some_and(empty_folder) {
        return Ok(true);
    }
    let log = match precedent::open(url, OpenOptions::read().access(Access::Read)).await {
        Ok(log) => log,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    match log.page(&Read { limit: Some(1), ..Read::default() }).await {
        Ok(page) => Ok(page.size == 0 || page.events.first().is_some_and(|e| e.event.source() == SOURCE)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What happens in the demo.
struct Story {
    stream: String,
    decision: String,
    steps: Vec<(&'static str, Value)>,
}

impl Story {
    fn new() -> Self {
        let id = uuid::Uuid::now_v7();
        let short: String = id.simple().to_string().chars().skip(20).collect();
        let system = json!({"role": "system", "content":
            "You assess loan applications by policy credit-policy@2026-10. Look up the bureau score first."});
        let application =
            json!({"role": "user", "content": "Application for 12,000 over 36 months, income 3,400 a month"});
        let call = json!({"id": "call_1", "type": "function",
            "function": {"name": "bureau_score", "arguments": "{\"id\":\"A-7731\"}"}});
        let asks = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let result = json!({"role": "tool", "tool_call_id": "call_1", "name": "bureau_score",
            "content": "{\"score\":548,\"as_of\":\"2024\"}"});
        let answer =
            json!({"role": "assistant", "content": "Decline: the bureau score of 548 is below 580."});
        let first = json!([system, application]);
        let second = json!([system, application, asks, result]);
        let steps = vec![
            ("ai.input.received", json!({"message": application})),
            (
                "ai.retrieval.performed",
                json!({"source": "credit-policy@2026-10", "query": "minimum score, unsecured loan",
                    "documents": [{"id": "section-4.2", "score": 0.91, "text": "Unsecured loans need a bureau score of at least 580."}]}),
            ),
            (
                "ai.model.requested",
                json!({"model": "loan-agent-1", "purpose": "assess the application", "messages": first}),
            ),
            (
                "ai.model.called",
                json!({"request": {"model": "loan-agent-1", "messages": first}, "response": asks}),
            ),
            ("ai.tool.called", json!({"call": call, "result": result})),
            (
                "ai.model.requested",
                json!({"model": "loan-agent-1", "purpose": "decide with the bureau score", "messages": second}),
            ),
            (
                "ai.model.called",
                json!({"request": {"model": "loan-agent-1", "messages": second}, "response": answer}),
            ),
            (
                "ai.decision.made",
                json!({"decision": "decline", "reason": "bureau score 548, policy asks for 580", "score": 548,
                    "threshold": 580, "automated": true, "model": "loan-agent-1"}),
            ),
            (
                "ai.decision.overridden",
                json!({"decision": "decline → approve", "person": "officer-12",
                    "reason": "the score was from 2024, now it is 655",
                    "from": "decline", "to": "approve"}),
            ),
            (
                "ai.outcome.observed",
                json!({"outcome": "repaid in full", "detail": "36 of 36 instalments on time", "label": 1}),
            ),
        ];
        Self { stream: format!("application/{short}"), decision: format!("decision-{id}"), steps }
    }
}

/// Records the story event by event. Each is recorded only if the stream stands where the one before left it.
async fn record(log: &Log, story: &Story) -> Result<()> {
    let mut condition = Condition::stream_is_new(&story.stream);
    let mut cause: Option<String> = None;
    for (index, (event_type, data)) in story.steps.iter().enumerate() {
        let id = format!("{}/{index}", story.stream);
        let now = Time::from_system(std::time::SystemTime::now());
        let mut event = Event::builder(SOURCE, &id, *event_type)
            .stream(&story.stream)
            .at(now)
            .tag("agent", "loan-agent")
            .attribute("decisionid", &*story.decision)
            .json(data);
        if let Some(cause) = cause {
            event = event.attribute("causationid", cause);
        }
        let appended = log.append(Append::new([event.build()?]).when(condition)).await?;
        let version = appended.events.first().and_then(|receipt| receipt.version).unwrap_or_default();
        condition = Condition::stream_at(&story.stream, version);
        cause = Some(id);
    }
    Ok(())
}

/// What to try after the demo.
fn next(url: &str, story: &Story, made: Option<Position>, size: u64, root: &str) -> Vec<(String, String)> {
    // Whoever started this through cargo most likely has no 'precedent' on the path yet.
    let program = match std::env::var_os("CARGO") {
        None => "precedent",
        Some(_) => "cargo run --release --",
    };
    let store = match url {
        DEFAULT_STORE => String::new(),
        other => format!(" --store {}", quoted(other)),
    };
    let command = |rest: &str| format!("{program} {rest}{store}");
    let then = made.map_or_else(String::new, |position| format!("; --at {position}, as it was then"));
    let next = [
        (command("serve"), "the same log over HTTP and in the browser, on this machine only".to_owned()),
        (
            command(&format!("show {}", story.decision)),
            format!("what the model saw, what it decided, and what came of it{then}"),
        ),
        (command("read --follow"), "every event as it comes".to_owned()),
        (
            command(&format!("verify --expect {size}:{root}")),
            "later: that nothing was changed or cut off since".to_owned(),
        ),
    ];
    next.into()
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/:._-+=@%".contains(c);
    match text.chars().all(harmless) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[derive(Clone, Copy)]
struct Style {
    bold: &'static str,
    dim: &'static str,
    plain: &'static str,
}

impl Style {
    fn new() -> Self {
        match has_colours() {
            true => Self { bold: "\u{1b}[1m", dim: "\u{1b}[2m", plain: "\u{1b}[0m" },
            false => Self { bold: "", dim: "", plain: "" },
        }
    }

    fn timeline(self, recorded: &RecordedEvent) -> String {
        let Self { bold, dim, plain } = self;
        let mark = match recorded.event.event_type() {
            "ai.decision.made" | "ai.decision.overridden" => '◆',
            "ai.outcome.observed" => '★',
            _ => '│',
        };
        let time = recorded.recorded.to_string();
        // The time of day, to the millisecond.
        let time = time.get(11..23).unwrap_or(&time);
        let event_type = escaped(recorded.event.event_type()).into_owned();
        let (position, gist) = (recorded.position, gist(recorded, 80));
        format!("{position:>4}  {dim}{time}{plain}  {mark} {bold}{event_type:<22}{plain}  {gist}")
    }
}

//! `append`: records events, from flags or as JSON, all of them or none.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use precedent::cloudevents::{Shape, parse_event};
use precedent::{Append, Appended, Condition, Event, ExpectedVersion, Limits, Log, Status, Tag, Version};
use serde_json::value::RawValue;

use crate::failure::{Failure, Result};
use crate::global::{Clock, Global, read_failed};
use crate::input;
use crate::json_values::JsonValues;
use crate::output::Output;
use crate::text::escaped;

/// Who records what is typed by hand.
const SOURCE: &str = "urn:precedent:cli";

/// What to record.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of events as JSON, CloudEvents or native, a line each or one array; - is stdin
    #[arg(value_name = "FILE", conflicts_with = "event")]
    file: Option<PathBuf>,
    #[command(flatten)]
    event: OneEvent,
    /// Record only if the stream has no events (none), or its last event has this version
    #[arg(long, value_name = "none|VERSION", value_parser = expected_version, allow_hyphen_values = true)]
    expect_version: Option<Expected>,
    #[command(flatten)]
    clock: Clock,
}

/// One event, from flags.
#[derive(clap::Args)]
#[group(id = "event", multiple = true)]
struct OneEvent {
    /// The event's type, such as ai.decision.made; without it events are read as JSON
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Who produced it: a URI
    #[arg(long, value_name = "URI", default_value = SOURCE, requires = "event_type")]
    source: String,
    /// The stream it belongs to
    #[arg(long, value_name = "STREAM", requires = "event_type")]
    stream: Option<String>,
    /// Its id, unique within the source [default: a UUIDv7]
    #[arg(long, value_name = "ID", requires = "event_type")]
    id: Option<String>,
    /// When it happened, in RFC 3339
    #[arg(long, value_name = "TIME", requires = "event_type")]
    time: Option<String>,
    /// A tag; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", requires = "event_type")]
    tags: Vec<Tag>,
    /// An extension attribute, such as decisionid=42; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", requires = "event_type", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// The media type of the data
    #[arg(long, value_name = "TYPE", default_value = "application/json", requires = "data")]
    content_type: String,
    /// The data: JSON, @FILE, or - for stdin. White space around JSON is not part of it
    #[arg(long, value_name = "JSON|@FILE|-", requires = "event_type", allow_hyphen_values = true)]
    data: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Expected(ExpectedVersion);

fn expected_version(text: &str) -> Result<Expected, String> {
    match text {
        "none" => Ok(Expected(ExpectedVersion::None)),
        _ => Version::from_str(text)
            .map(|version| Expected(ExpectedVersion::Exact(version)))
            .map_err(|_| "expected 'none' or a whole number from 0".to_owned()),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let limits = Limits::new(precedent::Durability::None);
    if args.event.event_type.is_some() && args.event.data.is_none() && input::is_waiting().await {
        return Err(Failure::new("stdin has data, and --type alone would record none of it")
            .hint("--data - records what comes on stdin; for an event without data, add '</dev/null'"));
    }
    let events = match args.event.event_type.is_some() {
        true => vec![one(args.event, &limits)?],
        false => many(args.file.as_deref(), &limits)?,
    };
    let mut append = Append::new(events);
    if let Some(Expected(expected)) = args.expect_version {
        let stream = the_stream(&append.events)?;
        append = append.when(Condition::Stream { stream, expected });
    }
    let ids: Vec<String> = append.events.iter().map(|event| event.id().to_owned()).collect();
    let log = global.log_for_writing(args.clock).await?;
    let appended = log.append(append).await;
    finish(&log, appended, &ids, global.json).await
}

async fn finish(log: &Log, appended: precedent::Result<Appended>, ids: &[String], json: bool) -> Result<()> {
    let closed = log.store().close().await;
    let appended = appended?;
    let mut out = Output::stdout();
    if json {
        out.json(&appended)?;
    } else {
        for (receipt, id) in appended.events.iter().zip(ids) {
            let status = match receipt.status {
                Status::Recorded => "recorded",
                Status::Existing => "existing",
            };
            let version = receipt.version.map_or(String::new(), |version| format!("  version {version}"));
            out.line(format!("{status}  position {}{version}  {}", receipt.position, escaped(id)))?;
        }
    }
    out.flush()?;
    Ok(closed?)
}

/// The stream a condition on versions means: the one all the events belong to.
fn the_stream(events: &[Event]) -> Result<String> {
    let unclear = |what: &str| Failure::new(format!("--expect-version needs events of one stream: {what}"));
    let mut streams = events.iter().map(Event::stream);
    let first = streams.next().flatten().ok_or_else(|| unclear("the first event has none"))?;
    match streams.find(|stream| *stream != Some(first)) {
        None => Ok(first.to_owned()),
        Some(None) => Err(unclear("one event has none")),
        Some(Some(other)) => Err(unclear(&format!("there are '{first}' and '{other}'"))),
    }
}

fn one(flags: OneEvent, limits: &Limits) -> Result<Event> {
    let id = flags.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let mut event = Event::builder(flags.source, id, flags.event_type.unwrap_or_default()).tags(flags.tags);
    if let Some(stream) = flags.stream {
        event = event.stream(stream);
    }
    if let Some(time) = flags.time {
        event = event.time(time);
    }
    for (name, value) in flags.attributes {
        event = event.attribute(name, value);
    }
    if let Some(text) = flags.data {
        let data = data(&text, limits.data_bytes_max)?;
        event = event.datacontenttype(&flags.content_type);
        let as_json = event.clone().build()?.has_json_content_type();
        event = event.data(if as_json { json(&data)? } else { data });
    }
    Ok(event.build()?)
}

/// The data a flag names, of at most so many bytes.
fn data(text: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut read = |input: &mut dyn Read, name: &Path| {
        let read = input.take(bytes_max + 1).read_to_end(&mut data);
        match read.map_err(|error| read_failed(name, &error))? as u64 > bytes_max {
            true => Err(Failure::new(format!(
                "{}: more than {bytes_max} bytes, the limit of an event's data",
                name.display()
            ))),
            false => Ok(()),
        }
    };
    match text.strip_prefix('@') {
        Some(path) => {
            let path = Path::new(path);
            let mut file = std::fs::File::open(path).map_err(|error| read_failed(path, &error))?;
            read(&mut file, path)?;
        }
        None if text == "-" => {
            read(&mut std::io::stdin().lock(), Path::new("stdin"))?;
        }
        None => data.extend_from_slice(text.as_bytes()),
    }
    Ok(data)
}

fn json(data: &[u8]) -> Result<Vec<u8>> {
    let value: &RawValue = serde_json::from_slice(data).map_err(|error| {
        Failure::new(format!("the data is not JSON: {error}"))
            .hint("--content-type text/plain, or whatever it is, takes data of any kind")
    })?;
    Ok(value.get().as_bytes().to_vec())
}

fn many(file: Option<&Path>, limits: &Limits) -> Result<Vec<Event>> {
    let input: Box<dyn BufRead> = match file.filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| read_failed(path, &error))?;
            Box::new(BufReader::new(file))
        }
        None if file.is_none() && std::io::stdin().is_terminal() => {
            return Err(Failure::new("nothing to record").hint(
                "give one event with --type, or events as JSON in a file or on stdin; see 'precedent append --help'",
            ));
        }
        None => Box::new(std::io::stdin().lock()),
    };
    let mut values = JsonValues::new(input, value_bytes_max(limits));
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(value) = values.next_value()? {
        let event = parse_any(&value.bytes)
            .map_err(|error| Failure::from(error).context(format!("line {}", value.line)))?;
        bytes += event.data().map_or(0, |data| data.len() as u64);
        events.push(event);
        // One append is one batch. What cannot be one is not read to its end.
        let (count, max) = (events.len() as u64, limits.batch_events_max);
        let beyond = match () {
            () if count > max => format!("more than {max} events, the limit of a batch"),
            () if bytes > limits.frame_bytes_max => {
                format!("more than {} bytes of data, the limit of a batch", limits.frame_bytes_max)
            }
            () => continue,
        };
        return Err(Failure::new(format!("line {}: {beyond}", value.line))
            .hint("an append records everything or nothing; 'precedent import' records in batches"));
    }
    match events.is_empty() {
        true => Err(Failure::new("nothing to record: the input has no events")),
        false => Ok(events),
    }
}

/// Room for the largest event in JSON: data as base64, or as text with every character escaped.
pub(crate) fn value_bytes_max(limits: &Limits) -> usize {
    usize::try_from(limits.data_bytes_max.saturating_mul(6) + (1 << 20)).unwrap_or(usize::MAX)
}

/// An event in either shape: one that has a `specversion` is a CloudEvent.
pub(crate) fn parse_any(json: &[u8]) -> precedent::Result<Event> {
    #[derive(serde::Deserialize)]
    struct Mark<'a> {
        #[serde(borrow)]
        specversion: Option<&'a RawValue>,
    }
    let is_cloudevent = serde_json::from_slice::<Mark<'_>>(json).is_ok_and(|mark| mark.specversion.is_some());
    parse_event(json, if is_cloudevent { Shape::CloudEvents } else { Shape::Native })
}

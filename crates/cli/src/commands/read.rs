//! `read`: prints events, and follows the log as it grows.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use precedent::cloudevents::{Shape, write_event};
use precedent::{
    Direction, Error, ErrorKind, IndexedAttribute, Log, LogId, OpenOptions, Position, Query, QueryItem, Read,
    RecordedEvent, Tag, Time, TimeField,
};

use crate::failure::{Failure, Result};
use crate::gist::gist;
use crate::global::Global;
use crate::output::{Output, reader_gone, say};
use crate::text::{counted, escaped};

/// Which events.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only events of this stream
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
    /// Only events of this type; several are alternatives
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events with this tag; several have to be there together
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// Only events with this decisionid
    #[arg(long, value_name = "ID")]
    decision: Option<String>,
    /// Only events with this correlationid
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
    /// Only events with this causationid
    #[arg(long, value_name = "ID")]
    causation: Option<String>,
    /// Only events whose traceparent has this trace id
    #[arg(long, value_name = "ID")]
    trace: Option<String>,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    after: Option<Position>,
    /// Only events before this position
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    before: Option<Position>,
    /// Only events from this time on, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    since: Option<Time>,
    /// Only events before this time, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Time::parse, conflicts_with = "follow")]
    until: Option<Time>,
    /// Which time --since and --until mean: when the log recorded an event, or when its producer says it happened
    #[arg(long, value_name = "WHICH", default_value = "recordedtime")]
    by: By,
    /// At most this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// From the end of the log to its beginning
    #[arg(long, conflicts_with = "follow")]
    backward: bool,
    /// Go on with the events that are recorded later, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

/// Which time bounds mean.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum By {
    /// When the log recorded it
    #[value(name = "recordedtime", alias = "recorded")]
    Recorded,
    /// When it happened, as its producer says
    #[value(name = "time")]
    Produced,
}

impl Args {
    fn read(&self) -> Read {
        let attributes = [
            (IndexedAttribute::DecisionId, &self.decision),
            (IndexedAttribute::CorrelationId, &self.correlation),
            (IndexedAttribute::CausationId, &self.causation),
            (IndexedAttribute::TraceId, &self.trace),
        ];
        let item = QueryItem {
            types: self.types.clone(),
            tags: self.tags.clone(),
            stream: self.stream.clone(),
            attributes: attributes
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.clone()?)))
                .collect(),
        };
        Read {
            query: if item.is_empty() { Query::all() } else { Query { items: vec![item] } },
            after: self.after,
            before: self.before,
            since: self.since,
            until: self.until,
            by: match self.by {
                By::Recorded => TimeField::Recorded,
                By::Produced => TimeField::Produced,
            },
            direction: if self.backward { Direction::Backward } else { Direction::Forward },
            limit: self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            at_least: None,
        }
    }
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let log = global.log().await?;
    let mut read = args.read();
    let mut events = match args.follow {
        true => log.follow(read.clone()).boxed(),
        false => log.read(read.clone()).boxed(),
    };
    let mut followed = None;
    let mut interrupted = pin!(async {
        match args.follow {
            true => tokio::signal::ctrl_c().await.unwrap_or(()),
            false => std::future::pending().await,
        }
    });
    let mut unread = pin!(async {
        match args.follow {
            true => reader_gone().await,
            false => std::future::pending().await,
        }
    });
    let mut out = Output::stdout();
    let mut lines = Lines::default();
    let mut damaged = 0;
    loop {
        // While there are events they are written in large pieces; before a wait, all that is there goes out.
        let event = match events.next().now_or_never() {
            Some(event) => event,
            None => {
                out.flush()?;
                tokio::select! {
                    event = events.next() => event,
                    () = &mut interrupted => break,
                    () = &mut unread => return Err(Failure::nobody_reads()),
                }
            }
        };
        match event {
            None => break,
            Some(Ok(recorded)) => {
                out.line(lines.of(&recorded, global.json))?;
                followed = Some(recorded.log);
                read.after = Some(recorded.position);
                read.limit = read.limit.map(|limit| limit.saturating_sub(1));
            }
            Some(Err(error)) if error.kind() == ErrorKind::Damaged => {
                damaged += 1;
                out.flush()?;
                say(format_args!("damaged: {}", escaped(error.message())));
            }
            Some(Err(error)) if args.follow && error.kind() == ErrorKind::Unavailable => {
                out.flush()?;
                let log = tokio::select! {
                    log = reached_again(&global, followed, error) => log?,
                    () = &mut interrupted => break,
                    () = &mut unread => return Err(Failure::nobody_reads()),
                };
                events = log.follow(read.clone()).boxed();
            }
            Some(Err(error)) => {
                out.flush()?;
                return Err(error.into());
            }
        }
        // A store that is here never waits: so that an interrupt is heeded.
        tokio::task::coop::consume_budget().await;
    }
    out.flush()?;
    match damaged {
        0 => Ok(()),
        n => Err(Failure::new(format!("{} could not be read", counted(n, "damaged event")))),
    }
}

/// The log, once its server is there again. It has to be the one that was followed: what comes after a position
/// in another log is something else.
async fn reached_again(global: &Global, followed: Option<LogId>, lost: Error) -> Result<Log> {
    say(format_args!("{}; trying again for {} seconds", escaped(lost.message()), PATIENCE.as_secs()));
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(RETRY).await;
        let reached = async {
            let log = precedent::open(&global.url(), OpenOptions::read()).await?;
            let head = log.head().await?;
            Ok::<_, Error>((log, head.log))
        };
        match reached.await {
            Ok((log, id)) if followed.is_none_or(|followed| id == Some(followed)) => return Ok(log),
            Ok((log, _)) => {
                let name = log.name();
                return Err(Failure::new(format!(
                    "log '{name}' is another log now than the one that was followed"
                )));
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long a follower waits for its server: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
const RETRY: Duration = Duration::from_millis(500);

/// Events as lines; in text the columns widen as wider values come.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    widths: [usize; 3],
}

impl Lines {
    fn of(&mut self, recorded: &RecordedEvent, json: bool) -> &[u8] {
        self.buffer.clear();
        match json {
            true => write_event(recorded, Shape::CloudEvents, &mut self.buffer),
            false => {
                let line = self.text(recorded);
                self.buffer.extend_from_slice(line.trim_end().as_bytes());
            }
        }
        &self.buffer
    }

    fn text(&mut self, recorded: &RecordedEvent) -> String {
        let event = &recorded.event;
        let stream = match (event.stream(), recorded.version) {
            (Some(stream), Some(version)) => format!("{}@{version}", escaped(stream)),
            _ => "-".to_owned(),
        };
        let cells = [recorded.position.to_string(), escaped(event.event_type()).into_owned(), stream];
        for ((width, cell), (least, most)) in
            self.widths.iter_mut().zip(&cells).zip([(4, 20), (22, 40), (12, 48)])
        {
            *width = (*width).max(cell.chars().count()).clamp(least, most);
        }
        let [position, event_type, stream] = cells;
        let [a, b, c] = self.widths;
        let time = recorded.recorded.to_string();
        // Whole milliseconds: 2026-11-22T10:00:00.123
        let time = time.get(..23).unwrap_or(&time).replace('T', " ");
        format!("{position:>a$}  {time}  {event_type:<b$}  {stream:<c$}  {}", gist(recorded, 100))
    }
}

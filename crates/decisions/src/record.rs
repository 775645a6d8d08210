//! The record of a decision: what was asked, what the model saw, what it called and decided, who overrode it, what came of it.
//!
//! [`show`] finds what is meant, gathers what belongs together, and makes one [`Step`] of each thing that happened; the records of
//! one call are one step, whatever the way they came in. A step names its position and every event it was made of.

use std::str::FromStr;

use precedent_capture::json::{self, Json};
use precedent_capture::view::{Activity, Kind, Message, ModelCall, Part, View};
use precedent_capture::{stated, view};
use precedent_core::store::beyond;
use precedent_core::{Error, Log, Position, Read, RecordedEvent, Result, Time};
use serde::Serialize;

use crate::gather::{Bounds, Gathered, LeftOut, Member, Unreadable, first, last_at};
use crate::key::{By, Key};
use crate::live::{self, Governs, Live, Names};
use crate::types;

/// A moment of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// When the event at this position had just been recorded.
    Position(Position),
    /// This time, by the clock of the log.
    Time(Time),
}

impl FromStr for At {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match is_position(text) {
            true => text.parse().map(Self::Position),
            false => Time::parse(text).map(Self::Time).map_err(|error| {
                Error::invalid(format!("{}; a position is a whole number", error.message()))
            }),
        }
    }
}

/// Whether a text is a number as positions are written: no sign, no zeros in front.
fn is_position(text: &str) -> bool {
    text == "0" || (!text.starts_with('0') && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

/// What is to be shown.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// A decision, a correlation, a trace, a stream, or a position.
    pub what: String,
    /// Which of them; without it, what is there decides.
    pub by: Option<By>,
    /// As it was then; without it, as it is now.
    pub at: Option<At>,
    /// How much of it at most.
    pub bounds: Bounds,
}

/// What came of [`show`].
#[derive(Debug)]
pub enum Shown {
    /// The record.
    Record(Box<Record>),
    /// There is no such thing, as far as the moment that was asked for knows.
    Nothing(Nothing),
}

/// There is nothing to show.
#[derive(Debug, Clone)]
pub struct Nothing {
    /// Why, in one sentence.
    pub message: String,
    /// Events that may have been meant and could not be read.
    pub unreadable: Vec<Unreadable>,
}

impl Nothing {
    fn shown(message: impl Into<String>) -> Shown {
        Shown::Nothing(Self { message: message.into(), unreadable: Vec::new() })
    }
}

/// The moment a record is of: everything up to here, and nothing later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AsOf {
    /// The last position that was considered.
    pub position: Position,
    /// Whether this moment was asked for; otherwise it is the end of the log when the record was made.
    pub asked: bool,
}

/// What belongs to one decision, in the order in which it was recorded.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// The log.
    pub log: String,
    /// What the events belong to.
    pub key: Key,
    /// The position that was asked for, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened: Option<Position>,
    /// Up to where.
    pub as_of: AsOf,
    /// The decision ids its events name.
    pub decisions: Vec<String>,
    /// Where decisions, overrides, outcomes and feedback stand.
    pub milestones: Milestones,
    /// Which versions were live then.
    pub live: Live,
    /// What happened.
    pub steps: Vec<Step>,
    /// Sums over the calls of models.
    pub totals: Totals,
    /// What its events name besides: correlations, traces, streams; the first 64.
    pub also: Vec<Key>,
    /// How many more its events name.
    #[serde(skip_serializing_if = "is_zero")]
    pub also_more: usize,
    /// Other decisions in the same correlation, trace or stream; they are not shown. The first 256.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// How many more there are where events were looked at; 10,000 in all are counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub others_more: usize,
    /// Events that could not be read. They may or may not belong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
    /// What was not looked through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Where the things stand that decide how a record is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Milestones {
    /// Decisions made.
    pub decisions: Vec<Position>,
    /// Overrides.
    pub overrides: Vec<Position>,
    /// Outcomes.
    pub outcomes: Vec<Position>,
    /// Feedback.
    pub feedback: Vec<Position>,
}

/// What kind of thing a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Something was given.
    Input,
    /// A model was asked; what came of it is a step of its own.
    Request,
    /// A model was called.
    Call,
    /// A tool was called.
    Tool,
    /// Something was looked up.
    Retrieval,
    /// An agent, or a step of one.
    Agent,
    /// A policy was asked.
    Policy,
    /// Something was rated by a program.
    Evaluation,
    /// A decision.
    Decision,
    /// An override.
    Override,
    /// An outcome.
    Outcome,
    /// Feedback.
    Feedback,
    /// A version was registered, put in place or retired.
    Version,
    /// Something is known not to have been recorded.
    Gap,
    /// Anything else.
    Other,
}

/// The kind of each type of the vocabulary.
const KINDS: &[(&str, StepKind)] = &[
    ("ai.input.received", StepKind::Input),
    ("ai.model.requested", StepKind::Request),
    ("ai.model.called", StepKind::Call),
    ("ai.tool.called", StepKind::Tool),
    ("ai.retrieval.performed", StepKind::Retrieval),
    ("ai.agent.invoked", StepKind::Agent),
    ("ai.policy.evaluated", StepKind::Policy),
    ("ai.evaluation.recorded", StepKind::Evaluation),
    (types::DECISION, StepKind::Decision),
    (types::OVERRIDE, StepKind::Override),
    (types::OUTCOME, StepKind::Outcome),
    (types::FEEDBACK, StepKind::Feedback),
    ("ai.model.registered", StepKind::Version),
    ("ai.model.deployed", StepKind::Version),
    ("ai.model.retired", StepKind::Version),
    ("ai.prompt.published", StepKind::Version),
    ("ai.prompt.retired", StepKind::Version),
    ("ai.policy.published", StepKind::Version),
    ("ai.policy.retired", StepKind::Version),
    ("ai.capture.gap_detected", StepKind::Gap),
];

impl StepKind {
    /// The kind of an event of this type.
    pub fn of(event_type: &str) -> Self {
        KINDS.iter().find(|(name, _)| *name == event_type).map_or(Self::Other, |(_, kind)| *kind)
    }

    /// The name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Request => "request",
            Self::Call => "call",
            Self::Tool => "tool",
            Self::Retrieval => "retrieval",
            Self::Agent => "agent",
            Self::Policy => "policy",
            Self::Evaluation => "evaluation",
            Self::Decision => "decision",
            Self::Override => "override",
            Self::Outcome => "outcome",
            Self::Feedback => "feedback",
            Self::Version => "version",
            Self::Gap => "gap",
            Self::Other => "other",
        }
    }
}

/// An event a step was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Where it is.
    pub position: Position,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its producer's id.
    pub id: String,
    /// Its producer.
    pub source: String,
    /// By what it belongs.
    pub by: By,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Every attribute that no name of ours explains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Where it begins: the first of its events.
    pub position: Position,
    /// When the log recorded that event.
    pub recorded: String,
    /// When it happened, as the producer of that event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What kind of thing.
    pub kind: StepKind,
    /// The events, in the order of their positions.
    pub events: Vec<Source>,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a step is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A call of a model, and how much of what it was given stood in the record before.
    Call {
        /// The call, in the one view.
        #[serde(flatten)]
        call: Box<ModelCall>,
        /// What of its messages is repeated.
        #[serde(skip_serializing_if = "Option::is_none")]
        repeats: Option<Repeats>,
    },
    /// A tool, an agent, a retrieval, in the one view.
    Activity(Box<Activity>),
    /// What an application said itself: its data.
    Said(Said),
    /// Data that is no JSON.
    Opaque {
        /// Its media type, as it was sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
        /// Its length.
        bytes: usize,
        /// The data, if it is text.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Why it was not read, if somebody should have been able to.
        #[serde(skip_serializing_if = "Option::is_none")]
        unread: Option<String>,
    },
    /// There is no data.
    #[serde(rename = "no_data")]
    Empty(True),
    /// The data has been erased.
    Erased(True),
}

/// `true`, for members that are there or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct True;

impl Serialize for True {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

/// The messages of a call that stood in the record before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Repeats {
    /// So many of the first messages.
    pub messages: usize,
    /// Whether the system instructions are the same too.
    pub system: bool,
    /// Whether the tool definitions are the same too.
    pub tools: bool,
    /// They stand with the step at this position.
    pub position: Position,
}

/// What an application said itself.
#[derive(Debug, Clone, Serialize)]
pub struct Said {
    /// In a line, where the type is known and the data has what it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headline: Option<String>,
    /// Members of the data that the headline holds.
    #[serde(skip)]
    pub told: Vec<&'static str>,
    /// The message it holds, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// The data, as it was sent.
    pub data: Json,
}

/// A sum, and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// The sum of what was said.
    pub sum: u64,
    /// How many calls said it. The others said nothing, which is no zero.
    pub calls: usize,
}

/// Sums over the calls of models. What no call says is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Calls of models.
    pub calls: usize,
    /// Of those, calls that ended in an error.
    pub failed: usize,
    /// Tokens given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<Sum>,
    /// Tokens answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<Sum>,
    /// Tokens in all, where calls say that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<Sum>,
    /// Tokens read from a cache, of those given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<Sum>,
    /// Microseconds from the start to the end, by the clocks of the senders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_us: Option<Sum>,
}

impl Totals {
    fn of(steps: &[Step]) -> Self {
        let mut totals = Self::default();
        let add = |into: &mut Option<Sum>, value: Option<u64>| {
            let Some(value) = value else { return };
            let sum = into.get_or_insert(Sum { sum: 0, calls: 0 });
            // No provider counts that far; a sender that does is wrong, and the sum stays at the end of what can be said.
            sum.sum = sum.sum.saturating_add(value);
            sum.calls += 1;
        };
        for step in steps.iter().filter(|step| step.kind == StepKind::Call) {
            totals.calls += 1;
            let Content::Call { call, .. } = &step.content else { continue };
            totals.failed += usize::from(call.error.is_some());
            add(&mut totals.input_tokens, call.usage.input);
            add(&mut totals.output_tokens, call.usage.output);
            add(&mut totals.total_tokens, call.usage.total);
            add(&mut totals.cache_read_tokens, call.usage.cache_read);
            add(&mut totals.model_us, duration_us(&call.times));
        }
        totals
    }
}

/// Microseconds from the start to the end, if both were said and the clock went forward.
pub fn duration_us(times: &view::Times) -> Option<u64> {
    Some(times.ended?.0.checked_sub(times.started?.0)? / 1_000)
}

/// Microseconds from the start to the first output, if both were said.
pub fn first_output_us(times: &view::Times) -> Option<u64> {
    Some(times.first_output?.0.checked_sub(times.started?.0)? / 1_000)
}

/// Shows what belongs to a decision, as it was.
///
/// # Errors
/// `invalid` for what can mean two things, naming both; those of the store. That there is no such thing is no error.
pub async fn show(log: &Log, ask: &Ask) -> Result<Shown> {
    if ask.what.is_empty() {
        return Err(Error::invalid(
            "nothing is named: a decision, a trace, a stream or a position is to be shown",
        ));
    }
    let size = log.head().await?.size;
    let mut behind = Vec::new();
    let before = match ask.at {
        None => size,
        Some(At::Position(position)) if position.0 >= size => {
            return Ok(Nothing::shown(beyond(position, size).message()));
        }
        Some(At::Position(position)) => position.0 + 1,
        Some(At::Time(time)) => {
            let (last, damaged) = last_at(log, time, size).await?;
            behind = damaged;
            for one in &mut behind {
                one.detail.push_str(&format!("; it may have been recorded by {time}, or later"));
            }
            match last {
                Some(position) => position.0 + 1,
                None => {
                    let what = if behind.is_empty() { "nothing" } else { "nothing that can be read" };
                    let message = format!("{what} was recorded at or before {time}");
                    return Ok(Shown::Nothing(Nothing { message, unreadable: behind }));
                }
            }
        }
    };
    if before == 0 {
        return Ok(Nothing::shown("the log is empty"));
    }
    let before = Position(before);
    let as_of = AsOf { position: Position(before.0 - 1), asked: ask.at.is_some() };
    let (key, opened, mut unreadable) = match found(log, ask, before).await? {
        Found::Key(key) => (key, None, Vec::new()),
        Found::Position(position, key) => (key, Some(position), Vec::new()),
        Found::Unreadable(position, detail) => {
            (Key::at(position), Some(position), vec![Unreadable { position, detail }])
        }
        Found::Nothing(mut nothing) => {
            nothing.unreadable.extend(behind);
            return Ok(Shown::Nothing(nothing));
        }
    };
    unreadable.extend(behind);
    let mut gathered = Gathered::of(log, &key, before, ask.bounds).await?;
    unreadable.retain(|one| !gathered.unreadable.contains_key(&one.position));
    gathered.unreadable.extend(unreadable.into_iter().map(|one| (one.position, one.detail)));
    let mut record = Record::of(log, key, opened, as_of, gathered);
    let then = record.milestones.decisions.first().copied();
    let then = then.or(record.steps.last().map(|step| step.position));
    if let Some(then) = then {
        record.live = live::live(log, then, &record.names()).await?;
    }
    Ok(Shown::Record(Box::new(record)))
}

enum Found {
    Key(Key),
    Position(Position, Key),
    Unreadable(Position, String),
    Nothing(Nothing),
}

/// What is meant, among the events before `before`.
async fn found(log: &Log, ask: &Ask, before: Position) -> Result<Found> {
    let moment = match ask.at.is_some() {
        true => format!(" up to position {}", before.0 - 1),
        false => String::new(),
    };
    let shown: String = ask.what.chars().take(128).collect();
    let shown = shown.escape_debug();
    let name_bytes_max = log.store().limits().name_bytes_max;
    let mut unreadable = Vec::new();
    let mut named = None;
    let wanted = |by: By| ask.by.is_none_or(|wanted| wanted == by);
    for by in [By::Decision, By::Correlation, By::Trace, By::Stream].into_iter().filter(|by| wanted(*by)) {
        let key = Key::new(by, ask.what.as_str());
        let Some(item) = key.item() else { continue };
        if by == By::Stream && ask.what.len() as u64 > name_bytes_max {
            continue;
        }
        let query = precedent_core::Query { items: vec![item] };
        let (event, damaged) = first(log, Read { before: Some(before), ..Read::matching(query) }).await?;
        if event.is_some() {
            named = Some(key);
            break;
        }
        unreadable.extend(damaged.into_iter().map(Unreadable::from));
    }
    let number = wanted(By::Position) && is_position(&ask.what);
    // A number that no position can be is a name like any other.
    let position = if number { ask.what.parse::<Position>().ok() } else { None };
    match (named, position) {
        (Some(key), Some(position)) if position < before => Err(Error::invalid(format!(
            "'{shown}' is a position, and a {} has that name too: say as which it is to be shown",
            key.by
        ))),
        (Some(key), _) => Ok(Found::Key(key)),
        (None, Some(position)) if position < before => {
            let read = Read {
                after: position.0.checked_sub(1).map(Position),
                before: Some(Position(position.0 + 1)),
                ..Read::default()
            };
            let (event, damaged) = first(log, read).await?;
            match (event, damaged.into_iter().next()) {
                (Some(event), _) => Ok(Found::Position(position, Key::of(&event))),
                (None, Some(damage)) => Ok(Found::Unreadable(position, damage.error.message().to_owned())),
                (None, None) => Ok(Found::Nothing(Nothing {
                    message: format!("there is no event at position {position}"),
                    unreadable,
                })),
            }
        }
        _ => {
            let what = match ask.by {
                Some(By::Position) | None if position.is_some() && ask.at.is_none() => {
                    let beyond = beyond(position.unwrap_or_default(), before.0);
                    match ask.by {
                        Some(_) => beyond.message().to_owned(),
                        None => {
                            let beyond = beyond.message();
                            format!("'{shown}' is no decision, correlation, trace or stream, and {beyond}")
                        }
                    }
                }
                Some(By::Position) => format!("'{shown}' is not the position of an event{moment}"),
                Some(by) => format!("no event{moment} names the {by} '{shown}'"),
                None => {
                    format!("no event{moment} has '{shown}' as its decision, correlation, trace or stream")
                }
            };
            unreadable.sort_by_key(|one| one.position);
            unreadable.dedup();
            Ok(Found::Nothing(Nothing { message: what, unreadable }))
        }
    }
}

/// How many of what its events name besides a record names, and of the other decisions near it.
const ALSO_MAX: usize = 64;
const OTHERS_SHOWN: usize = 256;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Record {
    fn of(log: &Log, key: Key, opened: Option<Position>, as_of: AsOf, gathered: Gathered) -> Self {
        let Gathered { members, unreadable, left_out, decisions, others, .. } = gathered;
        let mut also: Vec<Key> = members.values().flat_map(|m| Key::all_of(&m.event)).collect();
        also.sort();
        also.dedup();
        also.retain(|other| *other != key);
        // A session of proxied calls names thousands; they are reached by the steps.
        let also_more = also.len().saturating_sub(ALSO_MAX);
        also.truncate(ALSO_MAX);
        let others_more = others.len().saturating_sub(OTHERS_SHOWN);
        let members: Vec<Member> = members.into_values().collect();
        let steps = steps(&members);
        let mut record = Self {
            log: log.name().to_string(),
            key,
            opened,
            as_of,
            decisions: decisions.into_iter().collect(),
            milestones: Milestones::default(),
            live: Live::default(),
            totals: Totals::of(&steps),
            steps,
            also,
            also_more,
            others: others.into_iter().take(OTHERS_SHOWN).collect(),
            others_more,
            unreadable: unreadable
                .into_iter()
                .map(|(position, detail)| Unreadable { position, detail })
                .collect(),
            left_out,
            notes: Vec::new(),
        };
        let at = |kind: StepKind| -> Vec<Position> {
            record.steps.iter().filter(|step| step.kind == kind).map(|step| step.position).collect()
        };
        record.milestones = Milestones {
            decisions: at(StepKind::Decision),
            overrides: at(StepKind::Override),
            outcomes: at(StepKind::Outcome),
            feedback: at(StepKind::Feedback),
        };
        record.notes = record.remarks(&members);
        record
    }

    fn remarks(&self, members: &[Member]) -> Vec<String> {
        let mut notes = Vec::new();
        let listed = |at: &[Position]| at.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for id in &self.decisions {
            let made = members.iter().any(|member| {
                member.event.event.event_type() == types::DECISION
                    && By::Decision.of(&member.event) == Some(id)
            });
            if !made {
                notes.push(format!(
                    "no ai.decision.made of decision '{id}' is recorded up to position {}",
                    self.as_of.position
                ));
            }
        }
        if self.milestones.overrides.len() > 1 {
            notes.push(format!(
                "it was overridden {} times, at {}; each is shown as it was said",
                self.milestones.overrides.len(),
                listed(&self.milestones.overrides)
            ));
        }
        if self.milestones.decisions.len() > 1 {
            notes.push(format!(
                "{} decisions are recorded here, at {}; versions are those live at the first",
                self.milestones.decisions.len(),
                listed(&self.milestones.decisions)
            ));
        }
        if !self.others.is_empty() {
            let names: Vec<&str> = self.others.iter().take(5).map(String::as_str).collect();
            let more = match self.others.len() + self.others_more - names.len() {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            notes.push(format!(
                "events of other decisions name the same correlation, trace or stream and are not shown: {}{more}",
                names.join(", ")
            ));
        }
        notes
    }

    /// The models, prompts and policies it names.
    fn names(&self) -> Names {
        let mut names = Names::new();
        let kinds = [Governs::Model, Governs::Prompt, Governs::Policy];
        for step in &self.steps {
            for tag in step.events.iter().flat_map(|event| &event.tags) {
                for kind in kinds {
                    if let Some(value) =
                        tag.strip_prefix(kind.as_str()).and_then(|rest| rest.strip_prefix('='))
                    {
                        add(&mut names, kind, value);
                    }
                }
            }
            match &step.content {
                Content::Call { call, .. } => {
                    for model in [&call.model_requested, &call.model_served].into_iter().flatten() {
                        add(&mut names, Governs::Model, model);
                    }
                }
                Content::Said(said) => {
                    for kind in kinds {
                        let Some(value) = json::member(said.data.as_str(), kind.as_str()) else { continue };
                        let name = json::unquoted(value)
                            .or_else(|| json::member(value, "name").and_then(json::unquoted));
                        if let Some(name) = name {
                            add(&mut names, kind, &name);
                        }
                    }
                }
                _ => {}
            }
        }
        names
    }
}

/// A name, and what stands before the version in it.
fn add(names: &mut Names, kind: Governs, name: &str) {
    names.insert((kind, name.to_owned()));
    if let Some((before, _)) = name.split_once('@') {
        names.insert((kind, before.to_owned()));
    }
}

/// Attributes that are shown elsewhere, or say nothing to a reader of a record.
const EXPLAINED: &[&str] = &["decisionid", "correlationid", "causationid", "traceparent", "tracestate"];

fn source(member: &Member) -> Source {
    let Member { event: recorded, by } = member;
    let event = &recorded.event;
    Source {
        position: recorded.position,
        event_type: event.event_type().to_owned(),
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        by: *by,
        tags: event.tags().iter().map(|tag| tag.as_str().to_owned()).collect(),
        attributes: event
            .attributes()
            .iter()
            .filter(|(name, _)| !EXPLAINED.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
    }
}

/// One step for each thing that happened.
fn steps(members: &[Member]) -> Vec<Step> {
    let events: Vec<RecordedEvent> = members.iter().map(|member| member.event.clone()).collect();
    let View { calls, activities, unread } = View::of(&events);
    drop(events);
    let mut taken = vec![false; members.len()];
    let mut steps = Vec::new();
    // A step of the events at these positions.
    let step = |refs: &[view::EventRef], kind: StepKind, content: Content, taken: &mut [bool]| {
        let mut own: Vec<usize> = refs
            .iter()
            .filter_map(|event| {
                members.binary_search_by_key(&event.position?, |member| member.event.position).ok()
            })
            .collect();
        own.sort_unstable();
        own.dedup();
        own.iter().for_each(|at| taken[*at] = true);
        let first = members.get(*own.first()?)?;
        Some(Step {
            position: first.event.position,
            recorded: first.event.recorded.to_string(),
            time: first.event.event.time().map(str::to_owned),
            kind,
            events: own.iter().map(|at| source(&members[*at])).collect(),
            content,
            notes: Vec::new(),
        })
    };
    for call in calls {
        let refs = call.events.clone();
        let content = Content::Call { call: Box::new(call), repeats: None };
        if let Some(mut step) = step(&refs, StepKind::Call, content, &mut taken) {
            let signals = |signal: &str| {
                step.events.iter().filter(|event| event.tags.iter().any(|tag| tag == signal)).count()
            };
            if signals("signal=log") > 0 && signals("signal=span") == 0 {
                step.notes.push(
                    "only log records of this call are recorded, its span is not: what a span says is missing".into(),
                );
            }
            steps.push(step);
        }
    }
    for activity in activities {
        let kind = match activity.kind {
            Kind::Model => StepKind::Call,
            Kind::Input => StepKind::Input,
            Kind::Tool => StepKind::Tool,
            Kind::Retrieval => StepKind::Retrieval,
            Kind::Agent => StepKind::Agent,
            Kind::Evaluation => StepKind::Evaluation,
            Kind::Policy => StepKind::Policy,
            Kind::Other => StepKind::Other,
        };
        let refs = activity.events.clone();
        steps.extend(step(&refs, kind, Content::Activity(Box::new(activity)), &mut taken));
    }
    let why = |position: Position| {
        unread.iter().find(|one| one.event.position == Some(position)).map(|one| one.why.clone())
    };
    for at in 0..members.len() {
        if taken[at] {
            continue;
        }
        let recorded = &members[at].event;
        let kind = StepKind::of(recorded.event.event_type());
        let content = content(recorded, why(recorded.position));
        steps.push(Step {
            position: recorded.position,
            recorded: recorded.recorded.to_string(),
            time: recorded.event.time().map(str::to_owned),
            kind,
            events: vec![source(&members[at])],
            content,
            notes: Vec::new(),
        });
    }
    steps.sort_by_key(|step| step.position);
    repeats(&mut steps);
    steps
}

/// What an event that no view was made of holds.
fn content(recorded: &RecordedEvent, unread: Option<String>) -> Content {
    let event = &recorded.event;
    if recorded.erased {
        return Content::Erased(True);
    }
    let Some(data) = event.data() else { return Content::Empty(True) };
    if unread.is_none() {
        if let Some(call) = stated::call(recorded) {
            return Content::Call { call: Box::new(call), repeats: None };
        }
        if let Some(tool) = stated::tool(recorded) {
            return Content::Activity(Box::new(tool));
        }
        let json = std::str::from_utf8(data).ok().filter(|_| event.has_json_content_type());
        if let Some(data) = json.and_then(Json::parse) {
            return Content::Said(said(event.event_type(), data));
        }
    }
    let text = std::str::from_utf8(data).ok().map(str::to_owned);
    let media_type = event.datacontenttype().map(str::to_owned);
    let not_json = (unread.is_none() && event.has_json_content_type())
        .then(|| "its media type says JSON, and it is none".to_owned());
    Content::Opaque { media_type, bytes: data.len(), text, unread: unread.or(not_json) }
}

/// Which members of the data say in a line what happened.
const TELLING: &[(&str, &[&str])] = &[
    ("ai.input.received", &["content", "text"]),
    ("ai.retrieval.performed", &["query", "source"]),
    (types::DECISION, &["decision", "score", "reason"]),
    (types::OUTCOME, &["outcome", "reward", "label", "detail"]),
    (types::FEEDBACK, &["value", "rater", "text"]),
    ("ai.model.deployed", &["model", "version", "environment"]),
    ("ai.model.retired", &["model", "version", "environment"]),
    ("ai.prompt.published", &["prompt", "version"]),
    ("ai.policy.published", &["policy", "version"]),
    ("ai.capture.gap_detected", &["reason", "count", "unit", "detail"]),
];

fn said(event_type: &str, data: Json) -> Said {
    let text = data.as_str();
    let plain = |name: &str| {
        let value = json::member(text, name).filter(|value| *value != "null")?;
        Some(json::unquoted(value).unwrap_or_else(|| value.to_owned()))
    };
    // Objects and lists are shown as themselves.
    let short = |name: &&'static str| {
        json::member(text, name).is_some_and(|value| !value.starts_with(['{', '[']) && value != "null")
    };
    let message = (event_type == "ai.input.received")
        .then(|| json::member(text, "message").filter(|value| value.starts_with('{')))
        .flatten()
        .and_then(Json::parse)
        .map(|json| stated::message(&json));
    let (headline, told): (Option<String>, Vec<&'static str>) = if message.is_some() {
        (None, vec!["message"])
    } else if event_type == types::OVERRIDE && short(&"to") {
        let arrow = match plain("from") {
            Some(from) => format!("{from} → {}", plain("to").unwrap_or_default()),
            None => format!("→ {}", plain("to").unwrap_or_default()),
        };
        let more = ["person", "reason"].into_iter().filter(short);
        let rest = more.clone().filter_map(plain);
        let line = std::iter::once(arrow).chain(rest).collect::<Vec<_>>().join(" · ");
        let from = Some("from").filter(short);
        (Some(line), from.into_iter().chain(["to"]).chain(more).collect())
    } else {
        let names = TELLING.iter().find(|(name, _)| *name == event_type).map_or(&[][..], |(_, names)| names);
        let told: Vec<&'static str> = names.iter().copied().filter(short).collect();
        // A bare number says nothing without its name.
        let one = |name: &&'static str| {
            let value = plain(name).unwrap_or_default();
            match json::member(text, name).is_some_and(|value| value.starts_with('"')) {
                true => value,
                false => format!("{name} {value}"),
            }
        };
        let line = told.iter().map(one).collect::<Vec<_>>().join(" · ");
        (Some(line).filter(|line| !line.is_empty()), told)
    };
    Said { headline, told, message, data }
}

/// How many of the latest calls a call is held against: agents that work beside each other interleave theirs.
const CALLS_COMPARED: usize = 16;

/// Says of each call which of its messages stood in the record before: given to an earlier call, or answered by it.
fn repeats(steps: &mut [Step]) {
    let mut seen: Vec<usize> = Vec::new();
    for at in 0..steps.len() {
        let (earlier, rest) = steps.split_at_mut(at);
        let Content::Call { call, repeats } = &mut rest[0].content else { continue };
        let mut best: Option<Repeats> = None;
        for other in seen.iter().rev().take(CALLS_COMPARED) {
            let Content::Call { call: before, .. } = &earlier[*other].content else { continue };
            let messages = common(call, before);
            let system = call.system.is_some() && call.system == before.system;
            let tools = call.tools.is_some() && call.tools == before.tools;
            let found = Repeats { messages, system, tools, position: earlier[*other].position };
            let weight = |found: &Repeats| (found.messages, found.system, found.tools);
            if (messages > 0 || system) && best.is_none_or(|best| weight(&found) > weight(&best)) {
                best = Some(found);
            }
        }
        *repeats = best;
        seen.push(at);
    }
}

/// How many of the first messages of a call are those an earlier one was given, and then its answer.
fn common(call: &ModelCall, before: &ModelCall) -> usize {
    let answer = before.output.iter().flatten().take(1);
    let history = before.messages.iter().flatten().chain(answer);
    call.messages.iter().flatten().zip(history).take_while(|(one, other)| is_same(one, other)).count()
}

/// Whether two messages say the same: reasoning is seldom sent back, and some send an empty text beside tool calls.
fn is_same(one: &Message, other: &Message) -> bool {
    let telling = |part: &&Part| match part {
        Part::Reasoning { .. } => false,
        Part::Text { content } => !content.is_empty(),
        _ => true,
    };
    one.role == other.role && one.parts.iter().filter(telling).eq(other.parts.iter().filter(telling))
}

/// Characters of data that stand for an event whose shape is not known.
const GIST_CHARS: usize = 120;

/// What an event says, in a line.
pub fn headline(recorded: &RecordedEvent) -> String {
    match content(recorded, None) {
        Content::Erased(_) => "(its data has been erased)".to_owned(),
        Content::Empty(_) => "(no data)".to_owned(),
        Content::Opaque { bytes, media_type, .. } => {
            format!("({}, {bytes} bytes)", media_type.as_deref().unwrap_or("no media type"))
        }
        Content::Call { call, .. } => {
            let model = call.model_served.as_deref().or(call.model_requested.as_deref());
            let tools: Vec<String> = call
                .tool_calls()
                .map(|call| format!("→ {}", call.name.as_deref().unwrap_or("a tool")))
                .collect();
            let parts = model.map(str::to_owned).into_iter().chain(call.output_text()).chain(tools);
            shortened(&parts.collect::<Vec<_>>().join(" · "), GIST_CHARS)
        }
        Content::Activity(activity) => {
            let output =
                activity.output.as_ref().map(|json| json.string().unwrap_or_else(|| json.to_string()));
            let name = activity.name.clone().unwrap_or_else(|| "a tool".to_owned());
            shortened(&[Some(name), output].into_iter().flatten().collect::<Vec<_>>().join(" → "), GIST_CHARS)
        }
        Content::Said(said) => {
            let message = || said.message.as_ref().and_then(Message::text);
            let line = said.headline.clone().or_else(message).unwrap_or_else(|| said.data.to_string());
            shortened(&line, GIST_CHARS)
        }
    }
}

/// At most so many characters, the last an ellipsis if some are missing.
pub fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => {
            let end = text.char_indices().nth(chars_max.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", &text[..end])
        }
    }
}

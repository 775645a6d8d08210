//! Which version of a model, prompt or policy was live at a position.
//!
//! Deployments and publications are events like others, recorded before what they govern. What was live is read backward from
//! the position: for each name and environment the newest version that was put in place and had not been retired by then.

use std::collections::{BTreeMap, BTreeSet};

use precedent_capture::json::{self, Json};
use precedent_core::{Direction, Log, Position, Query, QueryItem, Read, RecordedEvent, Result};
use serde::Serialize;

use crate::gather::{Unreadable, pages};

/// What has versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Governs {
    /// A model.
    Model,
    /// A prompt.
    Prompt,
    /// A policy.
    Policy,
}

impl Governs {
    /// The name in output; also the member of the data that has the name, beside `name`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Prompt => "prompt",
            Self::Policy => "policy",
        }
    }
}

/// Each type that says something about it, what of, and whether it puts a version in place or ends one.
pub const TYPES: &[(&str, Governs, bool)] = &[
    ("ai.model.deployed", Governs::Model, true),
    ("ai.model.retired", Governs::Model, false),
    ("ai.prompt.published", Governs::Prompt, true),
    ("ai.prompt.retired", Governs::Prompt, false),
    ("ai.policy.published", Governs::Policy, true),
    ("ai.policy.retired", Governs::Policy, false),
];

/// Events of these types that are looked at; a log with more deployments than that says so.
const LOOKED_AT_MAX: usize = 1_000;
/// Versions that are named; the newest are.
const LIVE_MAX: usize = 100;

/// A version that was live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Of what.
    pub of: Governs,
    /// Its name, where the event says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its version, where the event says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it was put in place, if the event says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The event that put it in place.
    pub since: Position,
    /// When that was recorded.
    pub recorded: String,
    /// Whether the record names it: its model, prompt or policy is this.
    pub named: bool,
}

/// What was live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Live {
    /// The position that is meant by *then*.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Position>,
    /// Versions, those first that the record names, then the newest.
    pub versions: Vec<Version>,
    /// What was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
    /// Events about versions that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
}

/// One statement about a version.
struct Statement {
    of: Governs,
    in_place: bool,
    name: Option<String>,
    version: Option<String>,
    environment: Option<String>,
}

impl Statement {
    fn of(event: &RecordedEvent) -> Option<Self> {
        let event = &event.event;
        let (_, of, in_place) = TYPES.iter().find(|(name, _, _)| *name == event.event_type())?;
        let data = event.data().filter(|_| event.has_json_content_type());
        let data = data.and_then(|data| std::str::from_utf8(data).ok()).filter(|text| json::is_json(text));
        let member = |name: &str| {
            let value = json::member(data?, name).filter(|value| *value != "null")?;
            // A version that is a number is shown as it was written.
            json::unquoted(value).or_else(|| Json::parse(value).map(|json| json.to_string()))
        };
        let tag =
            || event.tags().iter().find(|tag| tag.key() == of.as_str()).map(|tag| tag.value().to_owned());
        let mut name = member(of.as_str()).or_else(|| member("name")).or_else(tag);
        let mut version = member("version").or_else(|| member("revision"));
        // A tag has it as `name@version`.
        if version.is_none()
            && let Some((before, after)) = name.as_deref().and_then(|name| name.split_once('@'))
        {
            (name, version) = (Some(before.to_owned()), Some(after.to_owned()));
        }
        Some(Self { of: *of, in_place: *in_place, name, version, environment: member("environment") })
    }
}

/// What a record names: models, prompts and policies, as `name`, `version` or `name@version`.
pub type Names = BTreeSet<(Governs, String)>;

/// What was live before `before`, which is where the decision stands.
pub async fn live(log: &Log, before: Position, names: &Names) -> Result<Live> {
    let mut live = Live { at: Some(before), ..Live::default() };
    if before.0 == 0 {
        return Ok(live);
    }
    let types = TYPES.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    let read = Read {
        before: Some(before),
        direction: Direction::Backward,
        limit: Some(256),
        ..Read::matching(Query { items: vec![QueryItem { types, ..QueryItem::default() }] })
    };
    type Name = (Governs, Option<String>, Option<String>);
    let mut settled: BTreeSet<Name> = BTreeSet::new();
    let mut retired: BTreeMap<Name, BTreeSet<Option<String>>> = BTreeMap::new();
    let mut looked_at = 0;
    let left_at = pages(log, read, |page| {
        looked_at += page.events.len();
        let unreadable = page.damaged.into_iter();
        live.unreadable.extend(
            unreadable.map(|d| Unreadable { position: d.position, detail: d.error.message().to_owned() }),
        );
        for event in &page.events {
            let Some(said) = Statement::of(event) else { continue };
            let name = (said.of, said.name.clone(), said.environment.clone());
            if settled.contains(&name) {
                continue;
            }
            let gone = retired.entry(name.clone()).or_default();
            // One that is retired without its version is retired whatever it was.
            let is_gone = gone.contains(&said.version) || gone.contains(&None);
            match said.in_place {
                false => {
                    gone.insert(said.version);
                }
                true if is_gone => {}
                true => {
                    settled.insert(name);
                    live.versions.push(Version {
                        named: is_named(&said, names),
                        of: said.of,
                        name: said.name,
                        version: said.version,
                        environment: said.environment,
                        since: event.position,
                        recorded: event.recorded.to_string(),
                    });
                }
            }
        }
        looked_at < LOOKED_AT_MAX
    })
    .await?;
    if let Some(at) = left_at {
        live.left_out = Some(format!("deployments and publications before position {at} were not looked at"));
    }
    // Stable: within both, the newest first.
    live.versions.sort_by_key(|version| !version.named);
    if live.versions.len() > LIVE_MAX {
        let more = live.versions.len() - LIVE_MAX;
        live.versions.truncate(LIVE_MAX);
        live.left_out.get_or_insert_with(|| format!("{more} more versions that were live are not named"));
    }
    Ok(live)
}

fn is_named(said: &Statement, names: &Names) -> bool {
    let has = |text: &str| names.contains(&(said.of, text.to_owned()));
    let name = said.name.as_deref();
    let version = said.version.as_deref();
    name.is_some_and(&has)
        || matches!((name, version), (Some(name), Some(version)) if has(&format!("{name}@{version}")) || has(&format!("{name}-{version}")))
}

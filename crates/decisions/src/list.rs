//! Lists decisions, newest first, page by page.
//!
//! A row is what belongs together by one [`Key`]. It stands where its decision was made. In a log in which nobody ever said that a
//! decision was made, such as one of imported runs, it stands at the first override, outcome or feedback; and other types can be named.
//!
//! **Invariant.** A row stands on one page only, whatever comes between two pages, and no page looks at more than
//! [`LOOKED_AT_MAX`] events: one that found little says where to go on.

use std::str::FromStr;

use precedent_capture::json;
use precedent_core::{
    Direction, Error, Log, Position, Query, QueryItem, Read, RecordedEvent, Result, Tag, Time,
};
use serde::Serialize;

use crate::belonging::{Belonging, keys_of};
use crate::gather::{Unreadable, first};
use crate::key::{By, Key};
use crate::record::headline;
use crate::types;

/// Rows of a page, if nothing else is asked for, and at most.
pub const LIMIT_DEFAULT: usize = 20;
/// The most rows of a page.
pub const LIMIT_MAX: usize = 1_000;
/// Events a page looks at, at most.
pub const LOOKED_AT_MAX: usize = 10_000;
/// Rows a page looks up, at most: those it lists, and those it finds to stand elsewhere.
const LOOKUPS_MAX: usize = 400;
/// Candidates of one read.
const CANDIDATES: usize = 64;

/// The types that are read of a row; the first is the one it stands at, if it can.
const ANCHORS: [&str; 4] = [types::DECISION, types::OVERRIDE, types::OUTCOME, types::FEEDBACK];

/// What an outcome has to say: a member of its data, and its value. Numbers are compared as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The member; dots lead into objects.
    pub name: String,
    /// Its value: the content of a string, or the JSON of anything else.
    pub value: String,
}

impl FromStr for Wanted {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => {
                let shown: String = text.chars().take(64).collect();
                Err(Error::invalid(format!(
                    "'{}' is not an outcome: expected name=value with neither side empty, such as reward=1",
                    shown.escape_debug()
                )))
            }
        }
    }
}

impl Wanted {
    /// Whether an event's data says this.
    pub fn matches(&self, event: &RecordedEvent) -> bool {
        let data = event.event.data().filter(|_| event.event.has_json_content_type());
        let text = data.and_then(|data| std::str::from_utf8(data).ok());
        let Some(mut value) = text.filter(|text| json::is_json(text)) else { return false };
        // A member whose name has dots goes before a way through objects.
        if let Some(whole) = json::member(value, &self.name) {
            return is_value(whole, &self.value);
        }
        for name in self.name.split('.') {
            match json::member(value, name) {
                Some(inner) => value = inner,
                None => return false,
            }
        }
        is_value(value, &self.value)
    }
}

fn is_value(json_text: &str, wanted: &str) -> bool {
    if json_text == wanted || json::unquoted(json_text).is_some_and(|text| text == wanted) {
        return true;
    }
    match (number(json_text), number(wanted)) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// A number as JSON has them.
fn number(text: &str) -> Option<f64> {
    let is_one = text.strip_prefix('-').unwrap_or(text).starts_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|_| is_one)
}

/// Which decisions.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Rows stand at events of these types; none means decisions or, in a log without any, overrides, outcomes and feedback.
    pub types: Vec<String>,
    /// An event the row stands at has all of these.
    pub tags: Vec<Tag>,
    /// The model: a tag `model`, or the member `model` of the data, of an event that belongs to the row.
    pub model: Option<String>,
    /// One of its outcomes says all of these.
    pub outcomes: Vec<Wanted>,
    /// Rows that stand at or after this recorded time.
    pub since: Option<Time>,
    /// Rows that stand before this recorded time.
    pub until: Option<Time>,
    /// Only what stands before this position: where a page said to go on.
    pub before: Option<Position>,
    /// At most so many rows; 0 means [`LIMIT_DEFAULT`].
    pub limit: usize,
}

/// Something that was said about a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// Where.
    pub position: Position,
    /// In a line; the data itself, shortened, if its shape is not known.
    pub what: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// When that was recorded.
    pub recorded: String,
    /// What its events belong to.
    pub key: Key,
    /// The type of the event it stands at.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The stream of that event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The model, where that event says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The decision; none if nobody recorded one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Remark>,
    /// What the event says that it stands at, if that is no decision, override, outcome or feedback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Overrides.
    pub overrides: Vec<Remark>,
    /// Outcomes.
    pub outcomes: Vec<Remark>,
    /// Feedback.
    pub feedback: Vec<Remark>,
    /// Whether there may be more of them: the row has more events than were looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Some of the decisions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Listing {
    /// The types of the events that rows stand at.
    pub by: Vec<String>,
    /// The rows, newest first.
    pub decisions: Vec<Entry>,
    /// Where to go on, as [`Filter::before`]; none means the end.
    pub next: Option<Position>,
    /// The number of events in the log.
    pub size: u64,
    /// Events that could not be read, and may have been rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<Unreadable>,
}

/// Lists a page of decisions.
///
/// # Errors
/// `invalid` for bounds that exclude each other; those of the store.
pub async fn list(log: &Log, filter: &Filter) -> Result<Listing> {
    let size = log.head().await?.size;
    let mut listing = Listing { size, ..Listing::default() };
    let end = Position(filter.before.map_or(size, |before| before.0.min(size)));
    if end.0 == 0 {
        return Ok(listing);
    }
    if let (Some(since), Some(until)) = (filter.since, filter.until)
        && until <= since
    {
        return Err(Error::invalid(format!("no time is at or after {since} and before {until}")));
    }
    let limit = if filter.limit == 0 { LIMIT_DEFAULT } else { filter.limit.min(LIMIT_MAX) };
    let by_outcome = !filter.outcomes.is_empty();
    let item = candidates(log, filter, size).await?;
    listing.by = item.types.clone();
    let mut read = Read {
        before: Some(end),
        direction: Direction::Backward,
        limit: Some(CANDIDATES),
        ..Read::matching(Query { items: vec![item.clone()] })
    };
    if !by_outcome {
        (read.since, read.until) = (filter.since, filter.until);
    }
    let (mut looked_at, mut lookups) = (0, 0);
    loop {
        let page = log.page(&read).await?;
        listing.unreadable.extend(page.damaged.into_iter().map(Unreadable::from));
        for candidate in page.events {
            if looked_at >= LOOKED_AT_MAX
                || lookups >= LOOKUPS_MAX.max(limit)
                || listing.decisions.len() >= limit
            {
                // It has not been considered: the next page begins with it.
                listing.next = Some(Position(candidate.position.0 + 1));
                return Ok(listing);
            }
            looked_at += 1;
            if !filter.outcomes.iter().all(|wanted| wanted.matches(&candidate)) {
                continue;
            }
            let Listing { decisions, unreadable, .. } = &mut listing;
            lookups += rows(log, filter, &item, &candidate, size, decisions, unreadable).await?;
        }
        let Some(covered) = page.next.filter(|covered| covered.0 > 0) else { return Ok(listing) };
        read = read.continued(covered);
        if looked_at >= LOOKED_AT_MAX || lookups >= LOOKUPS_MAX.max(limit) || listing.decisions.len() >= limit
        {
            listing.next = Some(covered);
            return Ok(listing);
        }
    }
}

/// The events a row can be found by.
async fn candidates(log: &Log, filter: &Filter, size: u64) -> Result<QueryItem> {
    let of = |types: &[&str]| types.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    if !filter.outcomes.is_empty() {
        return Ok(QueryItem { types: of(&[types::OUTCOME]), ..QueryItem::default() });
    }
    let types = match filter.types.is_empty() {
        // Where there are decisions, what else there is may be a thousand times as much, and stands with them.
        true => {
            let decisions = Query::event_type(types::DECISION);
            let (one, damaged) =
                first(log, Read { before: Some(Position(size)), ..Read::matching(decisions) }).await?;
            match one.is_some() || !damaged.is_empty() {
                true => of(&ANCHORS[..1]),
                false => of(&ANCHORS[1..]),
            }
        }
        false => filter.types.clone(),
    };
    Ok(QueryItem { types, tags: filter.tags.clone(), ..QueryItem::default() })
}

/// Adds the rows that stand at this event; answers how many were looked up.
async fn rows(
    log: &Log,
    filter: &Filter,
    item: &QueryItem,
    candidate: &RecordedEvent,
    size: u64,
    decisions: &mut Vec<Entry>,
    unreadable: &mut Vec<Unreadable>,
) -> Result<usize> {
    if filter.outcomes.is_empty() {
        let key = Key::of(candidate);
        decisions.extend(row(log, filter, item, candidate, key, size, unreadable).await?.entry);
        return Ok(1);
    }
    // An outcome that names no decision can belong to several, by their correlation, trace or stream.
    let keys = keys_of(log, candidate, Position(size)).await?;
    let (mut looked_up, mut belongs) = (0, false);
    for key in keys {
        let found = row(log, filter, item, candidate, key, size, unreadable).await?;
        looked_up += 1;
        belongs |= found.has_candidate;
        decisions.extend(found.entry.filter(|_| found.is_first));
    }
    // One of a decision that never was is kept, and stands by itself.
    if !belongs {
        let key = Key::of(candidate);
        let found = row(log, filter, item, candidate, key, size, unreadable).await?;
        looked_up += 1;
        // An earlier one with its name stands for both, unless that is told with a decision.
        let mut alone = None;
        for other in found.earlier {
            looked_up += 1;
            if !is_told_with_a_decision(log, filter, &other, size).await? {
                alone = Some(other.position);
                break;
            }
        }
        decisions.extend(found.entry.filter(|_| alone.is_none()));
    }
    Ok(looked_up)
}

/// Whether an outcome belongs to a row of a decision.
async fn is_told_with_a_decision(
    log: &Log,
    filter: &Filter,
    outcome: &RecordedEvent,
    size: u64,
) -> Result<bool> {
    for key in keys_of(log, outcome, Position(size)).await? {
        let belonging = Belonging::of(log, &key, outcome, kinds(filter), Position(size)).await?;
        if belonging.events.contains_key(&outcome.position) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The types that are read of a row.
fn kinds(filter: &Filter) -> Vec<String> {
    let others = filter.types.iter().filter(|name| !ANCHORS.contains(&name.as_str()));
    ANCHORS.iter().map(|&name| name.to_owned()).chain(others.cloned()).collect()
}

/// What was found where an event may belong to a row.
struct Found {
    /// Whether it does.
    has_candidate: bool,
    /// Whether none before it is found by the same outcome.
    is_first: bool,
    /// Those of them that have no stronger name than the row's.
    earlier: Vec<RecordedEvent>,
    /// The row, if it stands at this event; by an outcome, also where it is not the first.
    entry: Option<Entry>,
}

/// The row of this key, if it stands at this event.
async fn row(
    log: &Log,
    filter: &Filter,
    item: &QueryItem,
    candidate: &RecordedEvent,
    key: Key,
    size: u64,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Found> {
    let by_outcome = !filter.outcomes.is_empty();
    let belonging = Belonging::of(log, &key, candidate, kinds(filter), Position(size)).await?;
    for one in belonging.unreadable {
        if unreadable.iter().all(|other| other.position != one.position) {
            unreadable.push(one);
        }
    }
    let has_candidate = belonging.events.contains_key(&candidate.position);
    let not_here = Ok(Found { has_candidate, is_first: false, earlier: Vec::new(), entry: None });
    let (more, own_more) = (belonging.more, belonging.own_more);
    let events: Vec<RecordedEvent> = belonging.events.into_values().collect();
    // A row stands at what names its key; what belongs to it by another name is told in it.
    let own = |event: &&RecordedEvent| Key::of(event) == key;
    let is_made = |event: &RecordedEvent| event.event.event_type() == types::DECISION;
    let in_time = |event: &RecordedEvent| {
        filter.since.is_none_or(|since| event.recorded >= since)
            && filter.until.is_none_or(|until| event.recorded < until)
    };
    let matches = |event: &&RecordedEvent| {
        item.matches(&event.event)
            && match by_outcome {
                true => filter.outcomes.iter().all(|wanted| wanted.matches(event)),
                false => in_time(event),
            }
    };
    let made = events.iter().filter(own).find(|event| is_made(event));
    let first_match = match by_outcome {
        true => events.iter().find(matches),
        false => {
            let of_decision = events.iter().filter(own).filter(|e| is_made(e)).find(matches);
            of_decision.or_else(|| events.iter().filter(own).find(matches))
        }
    };
    let is_first = first_match.is_none_or(|event| event.position == candidate.position);
    let earlier: Vec<RecordedEvent> = match by_outcome {
        true => {
            let earlier = events.iter().take_while(|event| event.position < candidate.position);
            earlier.filter(own).filter(matches).cloned().collect()
        }
        false => Vec::new(),
    };
    let stands_here = match (first_match, own_more) {
        _ if by_outcome && has_candidate => true,
        (Some(event), _) => event.position == candidate.position,
        // Too much lies before it to have been read: the first of its kind stands for all.
        (None, true) => match key.item() {
            Some(of_key) => {
                let item = QueryItem { attributes: of_key.attributes, stream: of_key.stream, ..item.clone() };
                let read =
                    Read { before: Some(Position(size)), ..Read::matching(Query { items: vec![item] }) };
                first(log, read).await?.0.is_some_and(|event| event.position == candidate.position)
            }
            None => true,
        },
        (None, false) => false,
    };
    if !stands_here {
        return not_here;
    }
    if by_outcome {
        let anchor = made.unwrap_or(candidate);
        let tagged = |tag: &Tag| events.iter().any(|event| event.event.has_tag(tag));
        let types = &filter.types;
        let typed =
            types.is_empty() || events.iter().any(|e| types.iter().any(|t| t == e.event.event_type()));
        if !in_time(anchor) || !typed || !filter.tags.iter().all(tagged) {
            return not_here;
        }
    }
    if let Some(model) = &filter.model
        && !names_model(log, &key, &events, model, size).await?
    {
        return not_here;
    }
    let anchor = made.unwrap_or(candidate);
    let remarks = |kind: &str| -> Vec<Remark> {
        events.iter().filter(|event| event.event.event_type() == kind).map(remark).collect()
    };
    let event_type = anchor.event.event_type().to_owned();
    let entry = Entry {
        position: anchor.position,
        recorded: anchor.recorded.to_string(),
        stream: anchor.event.stream().map(str::to_owned),
        model: model_of(anchor),
        decision: made.map(remark),
        what: (!ANCHORS.contains(&event_type.as_str())).then(|| remark(anchor).what),
        overrides: remarks(types::OVERRIDE),
        outcomes: remarks(types::OUTCOME),
        feedback: remarks(types::FEEDBACK),
        key: key.clone(),
        event_type,
        more,
    };
    Ok(Found { has_candidate, is_first, earlier, entry: Some(entry) })
}

fn remark(event: &RecordedEvent) -> Remark {
    Remark { position: event.position, what: headline(event) }
}

/// The model an event says: in its data, or as a tag.
fn model_of(event: &RecordedEvent) -> Option<String> {
    let data = event.event.data().filter(|_| event.event.has_json_content_type());
    let text = data.and_then(|data| std::str::from_utf8(data).ok()).filter(|text| json::is_json(text));
    let said = text.and_then(|text| json::member(text, "model")).and_then(|value| {
        json::unquoted(value).or_else(|| json::member(value, "name").and_then(json::unquoted))
    });
    said.or_else(|| {
        event.event.tags().iter().find(|tag| tag.key() == "model").map(|tag| tag.value().to_owned())
    })
}

/// Whether an event that belongs to the row names the model.
async fn names_model(log: &Log, key: &Key, events: &[RecordedEvent], model: &str, size: u64) -> Result<bool> {
    let tag = Tag::new("model", model).map_err(|error| error.context("the model"))?;
    if events.iter().any(|e| e.event.has_tag(&tag) || model_of(e).as_deref() == Some(model)) {
        return Ok(true);
    }
    let Some(item) = key.item() else { return Ok(false) };
    let mut items = vec![QueryItem { tags: vec![tag.clone()], ..item }];
    // The calls of a decision may name its trace, and not the decision.
    let linked =
        events.iter().flat_map(Key::all_of).filter(|other| matches!(other.by, By::Correlation | By::Trace));
    let mut linked: Vec<Key> = linked.collect();
    linked.sort();
    linked.dedup();
    let linked = linked.iter().take(16).filter_map(Key::item);
    items.extend(linked.map(|item| QueryItem { tags: vec![tag.clone()], ..item }));
    let read = Read { before: Some(Position(size)), ..Read::matching(Query { items }) };
    Ok(first(log, read).await?.0.is_some())
}

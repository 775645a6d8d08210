//! Which events are meant: queries as DCB has them, bounds, and the conditions of an append.
//!
//! The shape follows the [Dynamic Consistency Boundary specification](https://dcb.events/specification/):
//! items are OR'd; within an item types are OR'd and tags are AND'd; beyond it, an item can name one stream
//! and values of the indexed attributes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::{Event, Tag};
use crate::ids::{Position, Version};
use crate::limits::Limits;

/// A well-known attribute that is indexed like a tag and never copied into the tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexedAttribute {
    /// The extension attribute `decisionid`.
    DecisionId,
    /// The extension attribute `correlationid`.
    CorrelationId,
    /// The extension attribute `causationid`.
    CausationId,
    /// The trace id inside the extension attribute `traceparent`, named `traceid` in queries.
    TraceId,
}

impl IndexedAttribute {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DecisionId, Self::CorrelationId, Self::CausationId, Self::TraceId];

    /// The name in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::DecisionId => "decisionid",
            Self::CorrelationId => "correlationid",
            Self::CausationId => "causationid",
            Self::TraceId => "traceid",
        }
    }

    /// The value an event has for it.
    pub fn of(self, event: &Event) -> Option<&str> {
        match self {
            Self::TraceId => event.trace_id(),
            _ => event.attribute(self.name()),
        }
    }
}

impl fmt::Display for IndexedAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for IndexedAttribute {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| {
            Error::invalid(format!(
                "'{}' is not indexed: queries take decisionid, correlationid, causationid and traceid",
                crate::event::shown(name)
            ))
        })
    }
}

/// One alternative of a query. An event matches when it has one of the types (if any are named), all of the
/// tags, the stream (if named) and all of the attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryItem {
    /// OR'd; empty means every type.
    pub types: Vec<String>,
    /// AND'd; empty means every event.
    pub tags: Vec<Tag>,
    /// The one stream, if named.
    pub stream: Option<String>,
    /// AND'd: indexed attributes and their values.
    pub attributes: Vec<(IndexedAttribute, String)>,
}

impl QueryItem {
    /// Whether the item names nothing, which nobody could mean.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && self.tags.is_empty() && self.stream.is_none() && self.attributes.is_empty()
    }

    /// How many types, tags, streams and attributes it names.
    fn terms(&self) -> usize {
        self.types.len() + self.tags.len() + usize::from(self.stream.is_some()) + self.attributes.len()
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &Event) -> bool {
        (self.types.is_empty() || self.types.iter().any(|t| t == event.event_type()))
            && self.stream.as_deref().is_none_or(|s| event.stream() == Some(s))
            && self.tags.iter().all(|tag| event.has_tag(tag))
            && self.attributes.iter().all(|(name, value)| name.of(event) == Some(value))
    }
}

/// Which events are meant: those that match at least one item. A query without items means every event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// OR'd.
    pub items: Vec<QueryItem>,
}

impl Query {
    /// Every event.
    pub fn all() -> Self {
        Self::default()
    }

    /// The events of one stream.
    pub fn stream(stream: impl Into<String>) -> Self {
        Self { items: vec![QueryItem { stream: Some(stream.into()), ..QueryItem::default() }] }
    }

    /// The events of one type.
    pub fn event_type(event_type: impl Into<String>) -> Self {
        Self { items: vec![QueryItem { types: vec![event_type.into()], ..QueryItem::default() }] }
    }

    /// The events with all of these tags.
    pub fn tags(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self { items: vec![QueryItem { tags: tags.into_iter().collect(), ..QueryItem::default() }] }
    }

    /// Whether `event` matches.
    pub fn matches(&self, event: &Event) -> bool {
        self.items.is_empty() || self.items.iter().any(|item| item.matches(event))
    }

    /// Refuses what nobody could mean and what is larger than the limits.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        let count = |what: String, n: usize| match n as u64 > limits.query_items_max {
            true => Err(Error::limit(what, n as u64, limits.query_items_max, "entries")),
            false => Ok(()),
        };
        count("the query".into(), self.items.len())?;
        let terms: usize = self.items.iter().map(QueryItem::terms).sum();
        if terms as u64 > limits.query_terms_max {
            return Err(Error::limit("the query", terms as u64, limits.query_terms_max, "terms"));
        }
        for (index, item) in self.items.iter().enumerate() {
            if item.is_empty() {
                return Err(Error::invalid(format!(
                    "query item {index} names no type, tag, stream or attribute: a query without items means every event"
                )));
            }
            count(format!("the list of types of query item {index}"), item.types.len())?;
            count(format!("the list of tags of query item {index}"), item.tags.len())?;
            count(format!("the list of attributes of query item {index}"), item.attributes.len())?;
            for (what, text) in
                item.types.iter().map(|t| ("type", t)).chain(item.stream.iter().map(|s| ("stream", s)))
            {
                if text.is_empty() {
                    return Err(Error::invalid(format!("query item {index} has an empty {what}")));
                }
                if text.len() as u64 > limits.name_bytes_max {
                    let what = format!("the {what} of query item {index}");
                    return Err(Error::limit(what, text.len() as u64, limits.name_bytes_max, "bytes"));
                }
            }
            if let Some((name, _)) = item.attributes.iter().find(|(_, value)| value.is_empty()) {
                return Err(Error::invalid(format!("query item {index} has an empty {name}")));
            }
        }
        Ok(())
    }
}

/// The state a stream has to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// Any: always holds.
    Any,
    /// The stream has no events.
    None,
    /// The last event of the stream has this version.
    Exact(Version),
}

/// What has to hold for an append to be recorded. Of several conditions all have to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The stream is in this state.
    Stream {
        /// The stream's name.
        stream: String,
        /// Its state.
        expected: ExpectedVersion,
    },
    /// No event matching the query stands after this position (anywhere in the log if there is none).
    FailIf {
        /// The events that must not be there.
        query: Query,
        /// The last position the caller has seen.
        after: Option<Position>,
    },
}

impl Condition {
    /// The stream has no events yet.
    pub fn stream_is_new(stream: impl Into<String>) -> Self {
        Self::Stream { stream: stream.into(), expected: ExpectedVersion::None }
    }

    /// The last event of the stream has this version.
    pub fn stream_at(stream: impl Into<String>, version: impl Into<Version>) -> Self {
        Self::Stream { stream: stream.into(), expected: ExpectedVersion::Exact(version.into()) }
    }

    /// No event matching `query` stands after `after`.
    pub fn fail_if(query: Query, after: Option<Position>) -> Self {
        Self::FailIf { query, after }
    }
}

/// The order of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From lower positions to higher.
    #[default]
    Forward,
    /// From higher positions to lower.
    Backward,
}

/// Which time the bounds of a read mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeField {
    /// `recordedtime`: when the log recorded the event. It never goes backwards along the log.
    #[default]
    Recorded,
    /// `time`: when it happened, as its producer says. Events without one are not within any bounds.
    Produced,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::builder("s", "i", "a")
            .stream("x")
            .tag("k", "1")
            .tag("l", "2")
            .attribute("decisionid", "d")
            .build()
            .unwrap()
    }

    #[test]
    fn types_are_alternatives_and_tags_add_up() {
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let item = |types: &[&str], tags: &[&str]| QueryItem {
            types: types.iter().map(|&t| t.to_owned()).collect(),
            tags: tags.iter().map(|t| tag(t)).collect(),
            ..QueryItem::default()
        };
        assert!(item(&["b", "a"], &[]).matches(&event()));
        assert!(!item(&["b"], &[]).matches(&event()));
        assert!(item(&[], &["k=1", "l=2"]).matches(&event()));
        assert!(!item(&[], &["k=1", "l=3"]).matches(&event()));
        assert!(Query { items: vec![item(&["b"], &[]), item(&["a"], &["k=1"])] }.matches(&event()));
        let decision = QueryItem {
            attributes: vec![(IndexedAttribute::DecisionId, "d".into())],
            ..QueryItem::default()
        };
        assert!(decision.matches(&event()));
        assert!(Query::all().matches(&event()));
    }

    #[test]
    fn queries_nobody_could_mean_are_refused() {
        let limits = Limits::new(crate::Durability::None);
        let empty = Query { items: vec![QueryItem::default()] };
        assert!(empty.check(&limits).unwrap_err().message().contains("query item 0"));
        assert!(Query::stream("").check(&limits).is_err());
        let long = Query::event_type("t".repeat(513)).check(&limits).unwrap_err();
        assert!(long.message().contains("513") && long.message().contains("512"), "{long}");
    }
}

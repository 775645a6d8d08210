//! What holds events together.
//!
//! An event belongs to its `decisionid`, else its `correlationid`, else the trace of its `traceparent`, else its stream. One that
//! has none of them stands alone, at its position.

use std::fmt;
use std::str::FromStr;

use precedent_core::{Error, IndexedAttribute, Position, QueryItem, RecordedEvent};
use serde::{Serialize, Serializer};

/// By what events belong together, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The same `decisionid`.
    Decision,
    /// The same `correlationid`.
    Correlation,
    /// The same trace in `traceparent`.
    Trace,
    /// The same stream.
    Stream,
    /// Nothing but its own position.
    Position,
}

impl By {
    /// All of them, the strongest first.
    pub const ALL: [Self; 5] = [Self::Decision, Self::Correlation, Self::Trace, Self::Stream, Self::Position];

    /// The name in output and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Correlation => "correlation",
            Self::Trace => "trace",
            Self::Stream => "stream",
            Self::Position => "position",
        }
    }

    fn attribute(self) -> Option<IndexedAttribute> {
        match self {
            Self::Decision => Some(IndexedAttribute::DecisionId),
            Self::Correlation => Some(IndexedAttribute::CorrelationId),
            Self::Trace => Some(IndexedAttribute::TraceId),
            Self::Stream | Self::Position => None,
        }
    }

    /// What an event has of this kind.
    pub fn of(self, event: &RecordedEvent) -> Option<&str> {
        match self {
            Self::Stream => event.event.stream(),
            Self::Position => None,
            _ => self.attribute()?.of(&event.event),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for By {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|by| by.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Error::invalid(format!(
                "'{}' is not what something can be shown as: decision, correlation, trace, stream or position",
                shown.escape_debug()
            ))
        })
    }
}

/// One thing that events belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What kind of thing.
    pub by: By,
    /// Its id, its name, or the position as a number.
    pub value: String,
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut key = serializer.serialize_struct("Key", 2)?;
        key.serialize_field("by", self.by.as_str())?;
        key.serialize_field("value", &self.value)?;
        key.end()
    }
}

impl Key {
    /// A key.
    pub fn new(by: By, value: impl Into<String>) -> Self {
        Self { by, value: value.into() }
    }

    /// What an event belongs to: the strongest it has.
    pub fn of(event: &RecordedEvent) -> Self {
        Self::all_of(event).next().unwrap_or_else(|| Self::at(event.position))
    }

    /// Everything an event names that others can name too, the strongest first.
    pub fn all_of(event: &RecordedEvent) -> impl Iterator<Item = Self> {
        // An empty value can be recorded and names nothing.
        By::ALL.into_iter().filter_map(|by| Some(Self::new(by, by.of(event).filter(|v| !v.is_empty())?)))
    }

    /// The key of an event by itself.
    pub fn at(position: Position) -> Self {
        Self::new(By::Position, position.to_string())
    }

    /// The query item that finds the events of this key; none for a position.
    pub fn item(&self) -> Option<QueryItem> {
        match self.by {
            By::Position => None,
            By::Stream => Some(QueryItem { stream: Some(self.value.clone()), ..QueryItem::default() }),
            _ => Some(QueryItem {
                attributes: vec![(self.by.attribute()?, self.value.clone())],
                ..QueryItem::default()
            }),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.by, self.value)
    }
}

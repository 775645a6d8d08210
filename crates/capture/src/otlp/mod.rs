//! OTLP export requests: cut into spans and log records whose bytes are the sender's own.
//!
//! ```text
//! request
//!   resource_spans*      resource, schema URL, what we do not know   ─┐ kept around
//!     scope_spans*       scope, schema URL, what we do not know      ─┤ each of its
//!       spans*           the bytes of one span ───────────────────────┘ spans
//! ```
//!
//! [`check`] refuses what is not a request at all. [`items`] goes through a request that was checked and gives every
//! [`Item`]: the span or record with the bytes around it, [`Item::data`], which is again a request of OTLP, holding
//! this one alone. So whoever can read OTLP can read what was recorded; and however a sender regroups its batches, the
//! data of a span is the same.

mod decode;
mod event;
mod metrics;
mod split;

use std::fmt;

pub use decode::{Record, Resource, ScopeInfo, SpanEvent};
pub(crate) use event::{LOG_SCHEMA, SPAN_SCHEMA};
pub use event::{Mapped, Written, describe};
pub use metrics::{Counted, count};
pub use split::{Item, Items, check, items};

/// What a request exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics, which are counted and not recorded.
    Metrics,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Signal; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// What the request consists of, in the plural.
    pub fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Logs => "log records",
            Self::Metrics => "data points",
        }
    }

    /// The names of the three lists in OTLP/JSON, from the outside in.
    fn json_names(self) -> [&'static str; 3] {
        match self {
            Self::Traces => ["resourceSpans", "scopeSpans", "spans"],
            Self::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
            Self::Metrics => ["resourceMetrics", "scopeMetrics", "metrics"],
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        })
    }
}

/// How a request is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Protocol Buffers.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

impl Encoding {
    /// The media type of a request and of its answer.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

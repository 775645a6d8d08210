//! The conventions of version 1.30 and around: a log record, or an event of the span, for each message.
//!
//! The span itself has the attributes of [`semconv`](super::semconv); `gen_ai.system` gives its age away. Each message is
//! the body of a record, or the attributes of a span event, whose name says who speaks.

use super::{Row, Table, To};
use crate::view::{Dialect, Kind};

pub(super) static TABLE: Table =
    Table { dialect: Dialect::MessageEvents, marks: MARKS, rows: ROWS, kinds: KINDS };

const MARKS: &[&str] = &[
    "gen_ai.system",
    "gen_ai.user.message",
    "gen_ai.assistant.message",
    "gen_ai.tool.message",
    "gen_ai.choice",
];

/// Of span events, as a tracer of OpenLIT wrote them.
const ROWS: &[Row] = &[("gen_ai.prompt", To::Prompt), ("gen_ai.completion", To::Completion)];

const KINDS: &[(&str, &str, Kind)] = &[
    ("event.name", "gen_ai.system.message", Kind::Input),
    ("event.name", "gen_ai.user.message", Kind::Input),
    ("event.name", "gen_ai.assistant.message", Kind::Input),
    ("event.name", "gen_ai.tool.message", Kind::Input),
    ("event.name", "gen_ai.choice", Kind::Model),
];

/// Whose message an event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// A message the model was given, by somebody in this role unless the body names another.
    Given(&'static str),
    /// A choice of the model's answer.
    Choice,
}

/// Who speaks in an event of this name.
pub(crate) fn speaker(event: &str) -> Option<Speaker> {
    const SPEAKERS: &[(&str, Speaker)] = &[
        ("gen_ai.system.message", Speaker::Given("system")),
        ("gen_ai.user.message", Speaker::Given("user")),
        ("gen_ai.assistant.message", Speaker::Given("assistant")),
        ("gen_ai.tool.message", Speaker::Given("tool")),
        ("gen_ai.choice", Speaker::Choice),
    ];
    SPEAKERS.iter().find(|(name, _)| *name == event).map(|(_, speaker)| *speaker)
}

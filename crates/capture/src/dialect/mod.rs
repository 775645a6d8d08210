//! The dialects of telemetry about AI: one file each, a row for each attribute.
//!
//! A row says where an attribute goes ([`To`]); in a name, `#` stands for a number. A span is read by the table of its own
//! dialect first and by the others after it, since real senders mix them. Nothing here is code that a new name of an
//! attribute would need: it gets a row.

mod events;
mod flat;
mod openinference;
mod openllmetry;
mod semconv;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::otlp::Record;
use crate::value::Value;
use crate::view::{Dialect, Kind};

pub(crate) use events::{Speaker, speaker};

/// Where an attribute goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Operation,
    Provider,
    Requested,
    Served,
    ResponseId,
    Conversation,
    User,
    Decision,
    Server,
    Port,
    Streamed,
    FinishReasons,
    ErrorKind,
    ErrorMessage,
    /// Milliseconds or seconds are not told apart by name alone; this one is in seconds from the start.
    FirstOutputSeconds,
    Count(Tokens),
    /// A parameter under this name.
    Parameter(&'static str),
    /// An object of parameters; its member `model` is the model that was asked for.
    Parameters,
    /// A detail under this name.
    Detail(&'static str),
    /// Messages in the JSON of the conventions, or a structure.
    Messages,
    Output,
    System,
    Tools,
    /// One text that is the whole prompt or the whole answer.
    Prompt,
    Completion,
    /// One piece of a message; the first number in the name is the message's.
    In(Slot),
    Out(Slot),
    /// One tool definition in JSON; the number is its place.
    Tool(ToolSlot),
    /// The request or the answer as the provider has them, if it is that.
    RawInput,
    RawOutput,
    /// What an activity is, was given, and gave.
    Name,
    CallId,
    Input,
    Result,
    /// Known, and said elsewhere too.
    Known,
}

/// Which count of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    Input,
    Output,
    Total,
    CacheRead,
    CacheWrite,
    Reasoning,
}

/// A piece of a message; numbers beyond the message's own name the tool call or the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Role,
    Name,
    Content,
    ToolCallId,
    Finish,
    CallId,
    CallName,
    CallArguments,
    PartType,
    PartText,
    PartMedia,
}

/// A piece of a tool's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToolSlot {
    Schema,
    Name,
    Description,
    Parameters,
}

pub(crate) type Row = (&'static str, To);

/// One dialect.
pub(crate) struct Table {
    pub(crate) dialect: Dialect,
    /// Names, or beginnings of names, of attributes that only this dialect has.
    marks: &'static [&'static str],
    rows: &'static [Row],
    /// Attributes and values that tell what kind of thing a span is.
    kinds: &'static [(&'static str, &'static str, Kind)],
}

/// In the order in which their marks are looked for; the last one needs none.
static TABLES: [&Table; 5] =
    [&openinference::TABLE, &flat::TABLE, &openllmetry::TABLE, &events::TABLE, &semconv::TABLE];

/// Beginnings of the names of attributes that are content of AI.
const MARKS: &[&str] = &["gen_ai.", "llm.", "openinference.", "traceloop."];

/// Whether a span or record says anything about AI.
pub(crate) fn is_about_ai(record: &Record) -> bool {
    let marked = |name: &str| MARKS.iter().any(|mark| name.starts_with(mark));
    record.attributes.iter().any(|(name, _)| marked(name))
        || record.event_name().is_some_and(marked)
        || record
            .events
            .iter()
            .any(|event| marked(&event.name) || event.attributes.iter().any(|(name, _)| marked(name)))
}

/// The dialect of a record.
pub(crate) fn table_of(record: &Record) -> &'static Table {
    let has = |mark: &str| {
        record.attributes.iter().any(|(name, _)| name.starts_with(mark))
            || record.events.iter().any(|event| event.name.starts_with(mark))
            || record.event_name().is_some_and(|name| name.starts_with(mark))
    };
    TABLES.into_iter().find(|table| table.marks.iter().any(|mark| has(mark))).unwrap_or(&semconv::TABLE)
}

/// What kind of thing a record is, by whatever says so first.
pub(crate) fn kind_of(record: &Record) -> Option<Kind> {
    let own = table_of(record);
    let others = TABLES.into_iter().filter(|table| table.dialect != own.dialect);
    for table in std::iter::once(own).chain(others) {
        for (name, value, kind) in table.kinds {
            let says = |sent: &Value| sent.text().is_some_and(|text| text.eq_ignore_ascii_case(value));
            let event = *name == "event.name" && record.event_name() == Some(value);
            if event || record.attribute(name).is_some_and(says) {
                return Some(*kind);
            }
        }
    }
    None
}

/// Where an attribute of this dialect goes, and the numbers in its name.
pub(crate) fn place(table: &Table, name: &str) -> Option<(To, Vec<u32>)> {
    let index = Index::get();
    let (pattern, numbers) = pattern_of(name);
    let pattern = pattern.as_deref().unwrap_or(name);
    index
        .rows
        .get(&(Some(table.dialect), pattern))
        .or_else(|| index.rows.get(&(None, pattern)))
        .map(|to| (*to, numbers))
}

/// The name with its numbers replaced by `#`, if it has any.
fn pattern_of(name: &str) -> (Option<String>, Vec<u32>) {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    if !name.split('.').any(|part| number(part).is_some()) {
        return (None, Vec::new());
    }
    let mut numbers = Vec::new();
    let parts: Vec<&str> = name
        .split('.')
        .map(|part| match number(part) {
            Some(n) => {
                numbers.push(n);
                "#"
            }
            None => part,
        })
        .collect();
    (Some(parts.join(".")), numbers)
}

/// All rows: those of each dialect, and for each name the first that has it.
struct Index {
    rows: HashMap<(Option<Dialect>, &'static str), To>,
}

impl Index {
    fn get() -> &'static Self {
        static INDEX: OnceLock<Index> = OnceLock::new();
        INDEX.get_or_init(|| {
            let mut rows = HashMap::new();
            // The conventions first: what several dialects have means what it means there.
            for table in TABLES.into_iter().rev() {
                for (name, to) in table.rows {
                    rows.insert((Some(table.dialect), *name), *to);
                    rows.entry((None, *name)).or_insert(*to);
                }
            }
            Self { rows }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stands_once_in_its_table() {
        for table in TABLES {
            for (at, (name, _)) in table.rows.iter().enumerate() {
                let again = table.rows[at + 1..].iter().find(|(other, _)| other == name);
                assert_eq!(again, None, "{name} in {}", table.dialect);
            }
        }
    }

    #[test]
    fn numbers_in_names_are_places() {
        let (to, numbers) =
            place(&openinference::TABLE, "llm.input_messages.12.message.tool_calls.3.tool_call.id").unwrap();
        assert_eq!((to, numbers), (To::In(Slot::CallId), vec![12, 3]));
        assert!(place(&semconv::TABLE, "gen_ai.prompt.0.content").is_some(), "tables help each other out");
        assert_eq!(place(&semconv::TABLE, "something.else"), None);
        assert_eq!(place(&semconv::TABLE, "gen_ai.prompt.99999999999.content"), None);
    }
}

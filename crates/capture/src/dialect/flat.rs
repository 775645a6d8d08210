//! The old flat attributes, one for each piece of each message: `gen_ai.prompt.0.content`.
//!
//! OpenLLMetry wrote them until March 2026, and applications that were not updated still do.

use super::{Row, Slot, Table, To, ToolSlot};
use crate::view::Dialect;

pub(super) static TABLE: Table = Table {
    dialect: Dialect::Flat,
    marks: &["gen_ai.prompt.", "gen_ai.completion.", "llm.prompts.", "llm.completions."],
    rows: ROWS,
    kinds: &[],
};

const ROWS: &[Row] = &[
    ("gen_ai.prompt.#.role", To::In(Slot::Role)),
    ("gen_ai.prompt.#.name", To::In(Slot::Name)),
    ("gen_ai.prompt.#.content", To::In(Slot::Content)),
    ("gen_ai.prompt.#.tool_call_id", To::In(Slot::ToolCallId)),
    ("gen_ai.prompt.#.tool_calls.#.id", To::In(Slot::CallId)),
    ("gen_ai.prompt.#.tool_calls.#.name", To::In(Slot::CallName)),
    ("gen_ai.prompt.#.tool_calls.#.arguments", To::In(Slot::CallArguments)),
    ("gen_ai.completion.#.role", To::Out(Slot::Role)),
    ("gen_ai.completion.#.content", To::Out(Slot::Content)),
    ("gen_ai.completion.#.finish_reason", To::Out(Slot::Finish)),
    ("gen_ai.completion.#.tool_calls.#.id", To::Out(Slot::CallId)),
    ("gen_ai.completion.#.tool_calls.#.name", To::Out(Slot::CallName)),
    ("gen_ai.completion.#.tool_calls.#.arguments", To::Out(Slot::CallArguments)),
    ("llm.prompts.#.role", To::In(Slot::Role)),
    ("llm.prompts.#.content", To::In(Slot::Content)),
    ("llm.completions.#.role", To::Out(Slot::Role)),
    ("llm.completions.#.content", To::Out(Slot::Content)),
    ("llm.completions.#.finish_reason", To::Out(Slot::Finish)),
    ("llm.request.functions.#.name", To::Tool(ToolSlot::Name)),
    ("llm.request.functions.#.description", To::Tool(ToolSlot::Description)),
    ("llm.request.functions.#.parameters", To::Tool(ToolSlot::Parameters)),
];

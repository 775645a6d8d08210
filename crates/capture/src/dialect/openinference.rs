//! OpenInference, by Arize: every message taken apart into attributes, and the whole request beside them.
//!
//! `input.value` and `output.value` of a model call are the provider's JSON as a rule; what the other attributes leave out
//! (the answer's id, its fingerprint) is read there. Source: `openinference-semantic-conventions` 0.1.

use super::{Row, Slot, Table, To, Tokens, ToolSlot};
use crate::view::{Dialect, Kind};

pub(super) static TABLE: Table = Table {
    dialect: Dialect::OpenInference,
    marks: &["openinference.", "llm.input_messages.", "llm.output_messages.", "llm.model_name"],
    rows: ROWS,
    kinds: KINDS,
};

const ROWS: &[Row] = &[
    ("openinference.span.kind", To::Known),
    ("llm.system", To::Provider),
    ("llm.provider", To::Provider),
    ("llm.model_name", To::Served),
    ("llm.finish_reason", To::FinishReasons),
    ("llm.invocation_parameters", To::Parameters),
    ("embedding.model_name", To::Served),
    ("embedding.invocation_parameters", To::Parameters),
    ("session.id", To::Conversation),
    ("user.id", To::User),
    ("exception.type", To::ErrorKind),
    ("exception.message", To::ErrorMessage),
    // Tokens.
    ("llm.token_count.prompt", To::Count(Tokens::Input)),
    ("llm.token_count.completion", To::Count(Tokens::Output)),
    ("llm.token_count.total", To::Count(Tokens::Total)),
    ("llm.token_count.prompt_details.cache_read", To::Count(Tokens::CacheRead)),
    ("llm.token_count.prompt_details.cache_write", To::Count(Tokens::CacheWrite)),
    ("llm.token_count.completion_details.reasoning", To::Count(Tokens::Reasoning)),
    // The request and the answer.
    ("input.value", To::RawInput),
    ("output.value", To::RawOutput),
    ("input.mime_type", To::Known),
    ("output.mime_type", To::Known),
    // Messages.
    ("llm.input_messages.#.message.role", To::In(Slot::Role)),
    ("llm.input_messages.#.message.name", To::In(Slot::Name)),
    ("llm.input_messages.#.message.content", To::In(Slot::Content)),
    ("llm.input_messages.#.message.tool_call_id", To::In(Slot::ToolCallId)),
    ("llm.input_messages.#.message.tool_calls.#.tool_call.id", To::In(Slot::CallId)),
    ("llm.input_messages.#.message.tool_calls.#.tool_call.function.name", To::In(Slot::CallName)),
    ("llm.input_messages.#.message.tool_calls.#.tool_call.function.arguments", To::In(Slot::CallArguments)),
    ("llm.input_messages.#.message.contents.#.message_content.type", To::In(Slot::PartType)),
    ("llm.input_messages.#.message.contents.#.message_content.text", To::In(Slot::PartText)),
    ("llm.input_messages.#.message.contents.#.message_content.image.image.url", To::In(Slot::PartMedia)),
    ("llm.output_messages.#.message.role", To::Out(Slot::Role)),
    ("llm.output_messages.#.message.name", To::Out(Slot::Name)),
    ("llm.output_messages.#.message.content", To::Out(Slot::Content)),
    ("llm.output_messages.#.message.finish_reason", To::Out(Slot::Finish)),
    ("llm.output_messages.#.message.tool_calls.#.tool_call.id", To::Out(Slot::CallId)),
    ("llm.output_messages.#.message.tool_calls.#.tool_call.function.name", To::Out(Slot::CallName)),
    ("llm.output_messages.#.message.tool_calls.#.tool_call.function.arguments", To::Out(Slot::CallArguments)),
    ("llm.output_messages.#.message.contents.#.message_content.type", To::Out(Slot::PartType)),
    ("llm.output_messages.#.message.contents.#.message_content.text", To::Out(Slot::PartText)),
    ("llm.output_messages.#.message.contents.#.message_content.image.image.url", To::Out(Slot::PartMedia)),
    ("llm.tools.#.tool.json_schema", To::Tool(ToolSlot::Schema)),
    ("llm.tools.#.tool.name", To::Tool(ToolSlot::Name)),
    ("llm.tools.#.tool.description", To::Tool(ToolSlot::Description)),
    // Tools and agents.
    ("tool.name", To::Name),
    ("tool.id", To::CallId),
    ("tool_call.id", To::CallId),
    ("tool.parameters", To::Input),
    ("agent.name", To::Name),
    ("graph.node.name", To::Known),
];

const KINDS: &[(&str, &str, Kind)] = &[
    ("openinference.span.kind", "LLM", Kind::Model),
    ("openinference.span.kind", "EMBEDDING", Kind::Model),
    ("openinference.span.kind", "TOOL", Kind::Tool),
    ("openinference.span.kind", "AGENT", Kind::Agent),
    ("openinference.span.kind", "CHAIN", Kind::Agent),
    ("openinference.span.kind", "PROMPT", Kind::Agent),
    ("openinference.span.kind", "RETRIEVER", Kind::Retrieval),
    ("openinference.span.kind", "RERANKER", Kind::Retrieval),
    ("openinference.span.kind", "GUARDRAIL", Kind::Policy),
    ("openinference.span.kind", "EVALUATOR", Kind::Evaluation),
];

//! OpenLLMetry, by Traceloop: the conventions, with attributes of its own beside them.
//!
//! Before March 2026 it wrote the [flat](super::flat) attributes. Source: `opentelemetry-semantic-conventions-ai`.

use super::{Row, Table, To, Tokens};
use crate::view::{Dialect, Kind};

pub(super) static TABLE: Table =
    Table { dialect: Dialect::OpenLlmetry, marks: MARKS, rows: ROWS, kinds: KINDS };

const MARKS: &[&str] = &[
    "traceloop.",
    "gen_ai.is_streaming",
    "gen_ai.openai.api_",
    "gen_ai.usage.total_tokens",
    "llm.is_streaming",
];

const ROWS: &[Row] = &[
    ("gen_ai.is_streaming", To::Streamed),
    ("llm.is_streaming", To::Streamed),
    ("gen_ai.openai.api_base", To::Server),
    ("llm.openai.api_base", To::Server),
    ("gen_ai.usage.reasoning_tokens", To::Count(Tokens::Reasoning)),
    ("llm.usage.reasoning_tokens", To::Count(Tokens::Reasoning)),
    ("llm.usage.total_tokens", To::Count(Tokens::Total)),
    ("gen_ai.usage.cache_read_input_tokens", To::Count(Tokens::CacheRead)),
    ("gen_ai.usage.cache_creation_input_tokens", To::Count(Tokens::CacheWrite)),
    ("llm.request.type", To::Operation),
    ("llm.frequency_penalty", To::Parameter("frequency_penalty")),
    ("llm.presence_penalty", To::Parameter("presence_penalty")),
    ("llm.chat.stop_sequences", To::Parameter("stop_sequences")),
    ("llm.top_k", To::Parameter("top_k")),
    ("gen_ai.request.reasoning_effort", To::Parameter("reasoning_level")),
    ("traceloop.entity.name", To::Name),
    ("traceloop.entity.input", To::Input),
    ("traceloop.entity.output", To::Result),
    ("traceloop.association.properties.session_id", To::Conversation),
    ("traceloop.association.properties.conversation_id", To::Conversation),
    ("traceloop.association.properties.user_id", To::User),
    ("traceloop.span.kind", To::Known),
];

const KINDS: &[(&str, &str, Kind)] = &[
    ("traceloop.span.kind", "workflow", Kind::Agent),
    ("traceloop.span.kind", "task", Kind::Agent),
    ("traceloop.span.kind", "agent", Kind::Agent),
    ("traceloop.span.kind", "tool", Kind::Tool),
    ("llm.request.type", "chat", Kind::Model),
    ("llm.request.type", "completion", Kind::Model),
    ("llm.request.type", "embedding", Kind::Model),
    ("llm.request.type", "rerank", Kind::Retrieval),
];

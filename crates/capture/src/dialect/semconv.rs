//! The GenAI semantic conventions of OpenTelemetry, as they are now and as they were called before.
//!
//! Source: <https://github.com/open-telemetry/semantic-conventions-genai>, all of it in development; names that were
//! replaced stay in the table, since senders are updated when they are.

use super::{Row, Table, To, Tokens};
use crate::view::{Dialect, Kind};

pub(super) static TABLE: Table =
    Table { dialect: Dialect::SemanticConventions, marks: &[], rows: ROWS, kinds: KINDS };

const ROWS: &[Row] = &[
    ("gen_ai.operation.name", To::Operation),
    ("gen_ai.provider.name", To::Provider),
    ("gen_ai.system", To::Provider),
    ("gen_ai.request.model", To::Requested),
    ("gen_ai.response.model", To::Served),
    ("gen_ai.response.id", To::ResponseId),
    ("gen_ai.response.finish_reasons", To::FinishReasons),
    ("gen_ai.response.time_to_first_chunk", To::FirstOutputSeconds),
    ("gen_ai.conversation.id", To::Conversation),
    ("user.id", To::User),
    ("enduser.id", To::User),
    ("enduser.pseudo.id", To::User),
    ("precedent.decision.id", To::Decision),
    ("server.address", To::Server),
    ("server.port", To::Port),
    ("error.type", To::ErrorKind),
    ("exception.type", To::ErrorKind),
    ("exception.message", To::ErrorMessage),
    // Parameters.
    ("gen_ai.request.temperature", To::Parameter("temperature")),
    ("gen_ai.request.top_p", To::Parameter("top_p")),
    ("gen_ai.request.top_k", To::Parameter("top_k")),
    ("gen_ai.request.max_tokens", To::Parameter("max_tokens")),
    ("gen_ai.request.frequency_penalty", To::Parameter("frequency_penalty")),
    ("gen_ai.request.presence_penalty", To::Parameter("presence_penalty")),
    ("gen_ai.request.stop_sequences", To::Parameter("stop_sequences")),
    ("gen_ai.request.seed", To::Parameter("seed")),
    ("gen_ai.request.choice.count", To::Parameter("choice_count")),
    ("gen_ai.request.encoding_formats", To::Parameter("encoding_formats")),
    ("gen_ai.request.reasoning.level", To::Parameter("reasoning_level")),
    ("gen_ai.request.previous_response.id", To::Parameter("previous_response_id")),
    ("gen_ai.request.stream", To::Streamed),
    ("gen_ai.request.is_stream", To::Streamed),
    ("gen_ai.output.type", To::Parameter("output_type")),
    ("gen_ai.embeddings.dimension.count", To::Parameter("dimensions")),
    // Tokens.
    ("gen_ai.usage.input_tokens", To::Count(Tokens::Input)),
    ("gen_ai.usage.output_tokens", To::Count(Tokens::Output)),
    ("gen_ai.usage.prompt_tokens", To::Count(Tokens::Input)),
    ("gen_ai.usage.completion_tokens", To::Count(Tokens::Output)),
    ("gen_ai.usage.total_tokens", To::Count(Tokens::Total)),
    ("gen_ai.usage.cache_read.input_tokens", To::Count(Tokens::CacheRead)),
    ("gen_ai.usage.cache_write.input_tokens", To::Count(Tokens::CacheWrite)),
    ("gen_ai.usage.cache_creation.input_tokens", To::Count(Tokens::CacheWrite)),
    ("gen_ai.usage.reasoning.output_tokens", To::Count(Tokens::Reasoning)),
    // Content.
    ("gen_ai.input.messages", To::Messages),
    ("gen_ai.output.messages", To::Output),
    ("gen_ai.system_instructions", To::System),
    ("gen_ai.tool.definitions", To::Tools),
    // Tools, agents, retrievals, evaluations.
    ("gen_ai.tool.name", To::Name),
    ("gen_ai.tool.call.id", To::CallId),
    ("gen_ai.tool.call.arguments", To::Input),
    ("gen_ai.tool.call.result", To::Result),
    ("gen_ai.agent.name", To::Name),
    ("gen_ai.workflow.name", To::Name),
    ("gen_ai.retrieval.query.text", To::Input),
    ("gen_ai.retrieval.documents", To::Result),
    ("gen_ai.evaluation.name", To::Name),
    // Details of single providers.
    ("openai.response.service_tier", To::Detail("service_tier")),
    ("gen_ai.openai.response.service_tier", To::Detail("service_tier")),
    ("openai.response.system_fingerprint", To::Detail("system_fingerprint")),
    ("gen_ai.openai.response.system_fingerprint", To::Detail("system_fingerprint")),
    ("openai.request.service_tier", To::Parameter("service_tier")),
    ("gen_ai.openai.request.service_tier", To::Parameter("service_tier")),
    ("openai.request.response_format", To::Parameter("response_format")),
    ("gen_ai.openai.request.response_format", To::Parameter("response_format")),
    ("gen_ai.openai.request.seed", To::Parameter("seed")),
    ("event.name", To::Known),
];

const KINDS: &[(&str, &str, Kind)] = &[
    ("event.name", "gen_ai.evaluation.result", Kind::Evaluation),
    ("event.name", "gen_ai.client.inference.operation.details", Kind::Model),
    ("event.name", "gen_ai.client.operation.exception", Kind::Model),
    ("event.name", "gen_ai.execute_tool.exception", Kind::Tool),
    ("gen_ai.operation.name", "chat", Kind::Model),
    ("gen_ai.operation.name", "generate_content", Kind::Model),
    ("gen_ai.operation.name", "text_completion", Kind::Model),
    ("gen_ai.operation.name", "completion", Kind::Model),
    ("gen_ai.operation.name", "responses", Kind::Model),
    ("gen_ai.operation.name", "embeddings", Kind::Model),
    ("gen_ai.operation.name", "execute_tool", Kind::Tool),
    ("gen_ai.operation.name", "retrieval", Kind::Retrieval),
    ("gen_ai.operation.name", "search_memory", Kind::Retrieval),
    ("gen_ai.operation.name", "create_agent", Kind::Agent),
    ("gen_ai.operation.name", "invoke_agent", Kind::Agent),
    ("gen_ai.operation.name", "invoke_workflow", Kind::Agent),
    ("gen_ai.operation.name", "plan", Kind::Agent),
];

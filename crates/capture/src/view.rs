//! What a model call was, whatever the dialect it came in.
//!
//! [`View::of`] reads recorded events and gives a [`ModelCall`] for each call, and an [`Activity`] for everything else
//! that was captured: tools, agents, retrievals. The events stay what they are; this is a projection, made anew by every
//! reader, and [`NORMALIZER`] says by which rules.
//!
//! ```
//! use precedent_capture::view::View;
//! # let events: Vec<precedent_core::RecordedEvent> = Vec::new();
//! for call in &View::of(&events).calls {
//!     let model = call.model_served.as_deref().or(call.model_requested.as_deref()).unwrap_or("an unnamed model");
//!     println!("{model}: {} ({})", call.output_text().unwrap_or_default(), call.fidelity);
//! }
//! ```
//!
//! **Missing is missing.** `None` means that the sender said nothing. No zero and no empty text stands in its place,
//! and what could not be mapped is in [`ModelCall::unmapped`].

use std::collections::BTreeMap;
use std::fmt;

use precedent_core::{Event, Position, RecordedEvent};
use serde::{Serialize, Serializer};

pub use crate::json::Json;

/// The version of the rules by which events become views. It grows with every change that shows.
pub const NORMALIZER: u32 = 1;

/// What was captured, in the order of the events.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct View {
    /// The calls of models.
    pub calls: Vec<ModelCall>,
    /// Everything else: tools, agents, retrievals, steps of a workflow.
    pub activities: Vec<Activity>,
    /// Records of capture that could not be read, and why. Events that capture did not write are not listed.
    pub unread: Vec<Unread>,
}

impl View {
    /// Reads events. What belongs to one call is joined: spans and log records by trace and span id, requests and
    /// answers that went through the proxy by their call. Events that were not captured are passed over.
    pub fn of(events: &[RecordedEvent]) -> Self {
        crate::normalize::view(events.iter().map(|e| (Some((e.position, e.recorded)), &e.event)))
    }

    /// As [`of`](Self::of), for events that no log has recorded yet.
    pub fn of_new<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        crate::normalize::view(events.into_iter().map(|event| (None, event)))
    }
}

/// An event that a view was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventRef {
    /// Where it is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Its producer's id.
    pub id: String,
}

/// A captured event that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Which.
    pub event: EventRef,
    /// What is wrong with it.
    pub why: String,
}

/// In which form a call was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// The GenAI conventions of OpenTelemetry as they are now: `gen_ai.input.messages`.
    SemanticConventions,
    /// Those of version 1.30 and around: one log record a message.
    MessageEvents,
    /// OpenLLMetry (Traceloop).
    #[serde(rename = "openllmetry")]
    OpenLlmetry,
    /// OpenInference (Arize).
    #[serde(rename = "openinference")]
    OpenInference,
    /// The old flat attributes: `gen_ai.prompt.0.content`.
    Flat,
    /// The HTTP of OpenAI, and of the many servers that speak it.
    #[serde(rename = "openai_http")]
    OpenAiHttp,
    /// The HTTP of Anthropic.
    AnthropicHttp,
    /// HTTP of somebody else.
    OtherHttp,
    /// Nobody's telemetry: the application recorded the event itself, or it was imported.
    Stated,
}

impl Dialect {
    /// The name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SemanticConventions => "semantic_conventions",
            Self::MessageEvents => "message_events",
            Self::OpenLlmetry => "openllmetry",
            Self::OpenInference => "openinference",
            Self::Flat => "flat",
            Self::OpenAiHttp => "openai_http",
            Self::AnthropicHttp => "anthropic_http",
            Self::OtherHttp => "other_http",
            Self::Stated => "stated",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much of a call was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// Only what is around the conversation: names, counts, times.
    MetadataOnly,
    /// The conversation, told by an instrumentation: a request of the same meaning can be made of it, except for what
    /// [`ModelCall::missing`] names.
    Reconstructable,
    /// The bytes of the request and of the answer as they went over the wire.
    Exact,
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MetadataOnly => "metadata only",
            Self::Reconstructable => "reconstructable",
            Self::Exact => "exact",
        })
    }
}

/// Something a call must have had and nobody sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The messages the model was given.
    Messages,
    /// The definitions of tools: tools were called, so there were some.
    ToolDefinitions,
    /// What the model answered, although nothing says that it failed.
    Output,
    /// The end of an answer that was broken off.
    EndOfOutput,
    /// Attributes, span events or links that the sender says it dropped.
    DroppedAttributes,
}

/// One call of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelCall {
    /// [`NORMALIZER`]: the rules this was made by.
    pub normalizer: u32,
    /// In which form it was sent.
    pub dialect: Dialect,
    /// How much of it was captured.
    pub fidelity: Fidelity,
    /// What it must have had and nobody sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// The events this was made of.
    pub events: Vec<EventRef>,
    /// The trace, as 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The span, as 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// The span around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What was asked for: `chat`, `embeddings`, `text_completion`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Whose model it is: `openai`, `anthropic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_requested: Option<String>,
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_served: Option<String>,
    /// The provider's id of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// The conversation, where the sender names it. See [`chain`](crate::chain) for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The user, where the sender names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The service that called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The host that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Instructions that stood before the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Vec<Part>>,
    /// The conversation the model was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    /// The tools it could call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolDefinition>>,
    /// Temperature and the like, by the names of the semantic conventions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Json>,
    /// What it answered: one message a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<Message>>,
    /// Why it stopped, one a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reasons: Option<Vec<FinishReason>>,
    /// Tokens.
    pub usage: Usage,
    /// When.
    pub times: Times,
    /// Whether the answer was streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streamed: Option<bool>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// More about the answer under one name: `service_tier`, `system_fingerprint`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Json>,
    /// What was sent and has no place above, under its own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unmapped: BTreeMap<String, Json>,
    /// What a reader should know: values that contradict each other, clocks that are off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ModelCall {
    /// The tool calls of the answer.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        let parts = self.output.iter().flatten().flat_map(|message| &message.parts);
        parts.filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }

    /// The text of the answer's first choice, if there is any.
    pub fn output_text(&self) -> Option<String> {
        self.output.as_ref()?.first()?.text()
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `user`, `assistant`, `tool`, `system`, or what else the sender says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The name of whoever speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it consists of.
    pub parts: Vec<Part>,
}

impl Message {
    /// Its text, joined; `None` if it has none.
    pub fn text(&self) -> Option<String> {
        let texts: Vec<&str> = self.parts.iter().filter_map(Part::text).collect();
        (!texts.is_empty()).then(|| texts.concat())
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        content: String,
    },
    /// What a reasoning model shows of its reasoning.
    Reasoning {
        /// The text.
        content: String,
    },
    /// The model calls a tool.
    ToolCall(ToolCall),
    /// What a tool answered.
    ToolResult {
        /// The id of the call.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// The result; text is a string.
        result: Json,
    },
    /// An image, a sound, a file: where it is, or its content.
    Media {
        /// `image`, `audio`, `file`.
        #[serde(skip_serializing_if = "Option::is_none")]
        modality: Option<String>,
        /// Its media type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime_type: Option<String>,
        /// A URL, a data URL, the id of a file, or base64.
        content: String,
    },
    /// Something else, as it was sent.
    Other {
        /// As it was sent.
        content: Json,
    },
}

impl Part {
    /// Its text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text { content } => Some(content),
            _ => None,
        }
    }
}

/// A model's wish to call a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// The id the result will name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The arguments: an object as a rule, a string if what the model wrote is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Json>,
}

/// A tool a model can call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolDefinition {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Json>,
    /// What else was sent of it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Json>,
}

/// Why a model stopped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FinishReason {
    /// It was done.
    Stop,
    /// It calls tools.
    ToolCall,
    /// It reached the limit of tokens.
    Length,
    /// A filter stopped it.
    ContentFilter,
    /// What the sender says.
    Other(String),
}

impl FinishReason {
    /// The reason under any of the names it has.
    pub fn new(name: &str) -> Self {
        match name {
            "stop" | "end_turn" | "stop_sequence" | "completed" => Self::Stop,
            "tool_call" | "tool_calls" | "tool_use" | "function_call" => Self::ToolCall,
            "length" | "max_tokens" | "max_output_tokens" => Self::Length,
            "content_filter" | "refusal" | "safety" => Self::ContentFilter,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The name in output.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::ToolCall => "tool_call",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Other(name) => name,
        }
    }
}

impl Serialize for FinishReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Tokens, as the provider counted them. Nothing is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    /// Answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// Both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of those given, read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<u64>,
    /// Of those given, written to a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<u64>,
    /// Of those answered, spent on reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

/// A moment by the sender's clock: nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(self.0.into()) {
            Ok(timestamp) => write!(f, "{timestamp:.9}"),
            // 2^64 nanoseconds end in the year 2554, which jiff can write.
            Err(_) => write!(f, "{} ns after 1970", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// When, by the sender's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// It began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Moment>,
    /// The first piece of the answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_output: Option<Moment>,
    /// It ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
}

/// What went wrong in a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallError {
    /// The class of the error: an exception, a status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What kind of thing was captured. Each has an event type of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A model was called.
    Model,
    /// A message that a model was given, in a record of its own.
    Input,
    /// A tool was called.
    Tool,
    /// Something was looked up.
    Retrieval,
    /// An agent, a workflow or a step of one.
    Agent,
    /// An answer was rated.
    Evaluation,
    /// A guardrail or policy was asked.
    Policy,
    /// A span or record without any content of AI, kept because all are.
    Other,
}

impl Kind {
    /// The type of the event.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Model => "ai.model.called",
            Self::Input => "ai.input.received",
            Self::Tool => "ai.tool.called",
            Self::Retrieval => "ai.retrieval.performed",
            Self::Agent => "ai.agent.invoked",
            Self::Evaluation => "ai.evaluation.recorded",
            Self::Policy => "ai.policy.evaluated",
            Self::Other => "otel.record.received",
        }
    }
}

/// Something that was captured and is no call of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activity {
    /// [`NORMALIZER`]: the rules this was made by.
    pub normalizer: u32,
    /// In which form it was sent.
    pub dialect: Dialect,
    /// What kind of thing.
    pub kind: Kind,
    /// The events this was made of.
    pub events: Vec<EventRef>,
    /// The trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// The span around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The operation, where the sender names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The tool, the agent, the workflow, the metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The id of the tool call it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The conversation, where the sender names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Arguments or input; text is a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// Result or output; text is a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// When.
    pub times: Times,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// What was sent and has no place above, under its own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unmapped: BTreeMap<String, Json>,
}

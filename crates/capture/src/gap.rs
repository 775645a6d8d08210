//! What is known not to have been recorded, as an event: `ai.capture.gap_detected`.
//!
//! A log that never says that something is missing cannot say that it is complete. Gaps have many sources and one form.

use precedent_core::{AttributeValue, Event, Result};
use serde_json::{Map, Value, json};

use crate::funnel::{Draft, seal, stream};
use crate::redact::{Form, Redacted, Rules};

/// The schema of a gap's data.
pub(crate) const SCHEMA: &str = "urn:precedent:gap:1";

/// The type of a gap's event.
pub const EVENT_TYPE: &str = "ai.capture.gap_detected";

/// Why something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Reason {
    /// The sender says that it dropped something.
    #[default]
    SenderDropped,
    /// Numbers of a sequence are missing.
    SequenceGap,
    /// Something was sent that could not be taken.
    PayloadRejected,
    /// Something was taken and could not be recorded.
    RecordingFailed,
    /// Content was longer than an event can be, and was cut.
    ContentCut,
}

impl Reason {
    /// The word in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SenderDropped => "sender_dropped",
            Self::SequenceGap => "sequence_gap",
            Self::PayloadRejected => "payload_rejected",
            Self::RecordingFailed => "recording_failed",
            Self::ContentCut => "content_cut",
        }
    }
}

/// Something that is known to be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: Reason,
    /// Whose it was: the source of the events that are missing.
    pub producer: String,
    /// How many are missing, if that is known.
    pub count: Option<u64>,
    /// Of what: `spans`, `requests`.
    pub unit: &'static str,
    /// How many bytes they had, if that is known.
    pub bytes: Option<u64>,
    /// What happened, in a sentence.
    pub detail: String,
    /// The first and the last number that is missing, of a sequence.
    pub from_to: Option<(u64, u64)>,
    /// The trace, if there is one.
    pub trace: Option<String>,
    /// The id of the event that something is missing of, if there is one.
    pub about: Option<String>,
    /// When, by the clock of whoever noticed: RFC 3339.
    pub noticed: Option<String>,
}

impl Gap {
    /// The event. A gap that is noticed again in the same words is the same event.
    ///
    /// # Errors
    /// `invalid` if the event cannot be built, which is a defect.
    pub fn event(&self, rules: &Rules) -> Result<Event> {
        let mut data = Map::new();
        let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
        put("reason", json!(self.reason.as_str()));
        put("producer", json!(self.producer));
        if let Some(count) = self.count {
            put("count", json!(count));
        }
        put("unit", json!(self.unit));
        if let Some(bytes) = self.bytes {
            put("bytes", json!(bytes));
        }
        if let Some((from, to)) = self.from_to {
            put("from", json!(from));
            put("to", json!(to));
        }
        for (name, value) in [("trace", &self.trace), ("about", &self.about), ("noticed", &self.noticed)] {
            if let Some(value) = value {
                put(name, json!(value));
            }
        }
        put("detail", json!(self.detail));
        let attributes: Vec<(&'static str, AttributeValue)> =
            self.about.iter().map(|id| ("causationid", id.as_str().into())).collect();
        let draft = Draft {
            source: "capture".to_owned(),
            name: format!("gap-{}", self.reason.as_str()),
            event_type: EVENT_TYPE,
            stream: self.trace.as_deref().and_then(|trace| stream("trace", trace)),
            time: self.noticed.clone(),
            media_type: "application/json",
            schema: SCHEMA,
            tags: vec![("reason", self.reason.as_str().to_owned())],
            attributes,
            data: Value::Object(data).to_string().into_bytes(),
            form: Form::Json,
            redacted: Redacted::default(),
        };
        seal(draft, rules)
    }
}

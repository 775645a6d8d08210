//! A span or log record as an event: what it is, where it belongs, and its bytes.
//!
//! Little is decided here, because an event never changes: its type, its stream, its time, and a few tags to find it by. All
//! else is read from the data, by a normalizer that can be made better.

use precedent_core::{Event, Result};

use super::{Encoding, Item, Record};
use crate::dialect::{self, To, place, table_of};
use crate::funnel::{Draft, seal, source, stream};
use crate::gap::{self, Gap};
use crate::redact::{Form, Redacted, Rules};
use crate::value::Value;
use crate::view::{Kind, Moment};

/// The schema of an event whose data is a trace request of OTLP with one span.
pub(crate) const SPAN_SCHEMA: &str = "urn:precedent:otlp:span:1";
/// The schema of an event whose data is a logs request of OTLP with one record.
pub(crate) const LOG_SCHEMA: &str = "urn:precedent:otlp:log:1";

/// What the envelope of a record's event says.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// What kind of thing it is.
    pub kind: Kind,
    /// The conversation it belongs to, where one is named.
    pub conversation: Option<String>,
    /// The decision it belongs to, where one is named.
    pub decision: Option<String>,
    /// The models named in it: asked for, and served.
    pub models: Vec<String>,
    /// Whose model.
    pub provider: Option<String>,
    /// The tool, for one.
    pub tool: Option<String>,
}

/// The events of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The record.
    pub event: Event,
    /// What the sender says it dropped of it.
    pub gap: Option<Event>,
}

/// Says what a record is, or that it has nothing to do with AI.
pub fn describe(record: &Record) -> Option<Mapped> {
    if !dialect::is_about_ai(record) {
        return None;
    }
    let table = table_of(record);
    let mut mapped = Mapped {
        kind: Kind::Other,
        conversation: None,
        decision: None,
        models: Vec::new(),
        provider: None,
        tool: None,
    };
    let mut name = None;
    for (attribute, value) in &record.attributes {
        let Some(text) = value.text() else { continue };
        match place(table, attribute).map(|(to, _)| to) {
            Some(To::Conversation) => mapped.conversation = Some(text.to_owned()),
            Some(To::Decision) => mapped.decision = Some(text.to_owned()),
            // One asked for and one served; an event does not have room for as many as a stranger can name.
            Some(To::Requested | To::Served)
                if mapped.models.len() < 4 && !mapped.models.iter().any(|m| m == text) =>
            {
                mapped.models.push(text.to_owned());
            }
            Some(To::Provider) => mapped.provider = Some(text.to_lowercase()),
            Some(To::Name) => name = Some(text.to_owned()),
            _ => {}
        }
    }
    mapped.kind = dialect::kind_of(record).unwrap_or(match mapped.models.is_empty() {
        // A span that names a model and no operation is a call of it; without a model it is a step of something.
        false => Kind::Model,
        true => Kind::Agent,
    });
    mapped.tool = name.filter(|_| mapped.kind == Kind::Tool);
    Some(mapped)
}

impl Item<'_> {
    /// The event of this span or log record; `None` if it is not about AI, unless all are kept.
    ///
    /// # Errors
    /// `invalid` if the event cannot be built, which is a defect.
    pub fn written(&self, keep_all: bool, rules: &Rules) -> Result<Option<Written>> {
        let record = self.record();
        let mapped = match describe(&record) {
            Some(mapped) => mapped,
            None if keep_all => Mapped {
                kind: Kind::Other,
                conversation: None,
                decision: None,
                models: Vec::new(),
                provider: None,
                tool: None,
            },
            None => return Ok(None),
        };
        let trace = record.trace();
        let names = format!("{}-{}", Record::sent_id(&record.trace_id), Record::sent_id(&record.span_id));
        let conversation = mapped.conversation.as_deref().and_then(|id| stream("session", id));
        let in_trace = trace.as_deref().and_then(|trace| stream("trace", trace));
        let mut attributes = Vec::new();
        if let (Some(trace), Some(span)) = (&trace, record.span()) {
            let parent = format!("00-{trace}-{span}-{:02x}", record.flags & 0xff);
            attributes.push(("traceparent", parent.into()));
        }
        if let Some(decision) = mapped.decision.filter(|id| stream("", id).is_some()) {
            attributes.push(("decisionid", decision.into()));
        }
        let mut tags = vec![("signal", if record.is_log { "log" } else { "span" }.to_owned())];
        tags.extend(mapped.models.into_iter().map(|model| ("model", model)));
        tags.extend(mapped.provider.map(|provider| ("provider", provider)));
        tags.extend(mapped.tool.map(|tool| ("tool", tool)));
        tags.extend(record.service().map(|service| ("service", service.to_owned())));
        let event = seal(
            Draft {
                source: source("otlp", record.service()),
                name: names.clone(),
                event_type: mapped.kind.event_type(),
                stream: conversation.or(in_trace),
                time: record
                    .end
                    .filter(|_| !record.is_log)
                    .or(record.start)
                    .or(record.end)
                    .map(|t| Moment(t).to_string()),
                media_type: self.encoding().media_type(),
                schema: if record.is_log { LOG_SCHEMA } else { SPAN_SCHEMA },
                tags,
                attributes,
                data: self.data(),
                form: match self.encoding() {
                    Encoding::Protobuf => Form::Otlp,
                    Encoding::Json => Form::Json,
                },
                redacted: Redacted::default(),
            },
            rules,
        )?;
        let dropped = record.dropped_in_all();
        let gap = (dropped > 0).then(|| {
            let what = if record.is_log { "log record" } else { "span" };
            let gap = Gap {
                reason: gap::Reason::SenderDropped,
                producer: event.source().to_owned(),
                count: Some(dropped),
                unit: "attributes, span events and links",
                detail: format!("the sender dropped {dropped} of the {what} {names}"),
                trace: trace.clone(),
                about: Some(event.id().to_owned()),
                ..Gap::default()
            };
            gap.event(rules)
        });
        Ok(Some(Written { event, gap: gap.transpose()? }))
    }
}

/// The text of an attribute of the resource.
pub(super) fn resource_text<'a>(attributes: &'a [(String, Value)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(n, _)| n == name).and_then(|(_, value)| value.text())
}

//! Spans, log records, resources and scopes, read from protobuf or OTLP/JSON into one shape.
//!
//! What is read here is for deciding and for showing; what is recorded are the bytes. Field numbers are those of
//! <https://github.com/open-telemetry/opentelemetry-proto> v1.9.

use std::sync::Arc;

use super::{Encoding, Signal};
use crate::json;
use crate::value::{self, Attributes, Value};
use crate::wire::{Field, Fields, Wire};

/// Ids are 16 and 8 bytes; of something longer no more than this is looked at.
const ID_BYTES_MAX: usize = 32;

/// What sent the telemetry.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resource {
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that the sender says it dropped.
    pub dropped: u64,
    /// The schema URL beside it.
    pub schema_url: Option<String>,
}

/// Which instrumentation wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScopeInfo {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Attributes that the sender says it dropped.
    pub dropped: u64,
    /// The schema URL beside it.
    pub schema_url: Option<String>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanEvent {
    /// When, in nanoseconds since 1970; `None` if the sender said nothing.
    pub time: Option<u64>,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// Attributes that the sender says it dropped.
    pub dropped: u64,
}

/// A span or a log record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Whether it is a log record.
    pub is_log: bool,
    /// The trace, empty if the sender said nothing readable.
    pub trace_id: Vec<u8>,
    /// The span, or the span a log record belongs to.
    pub span_id: Vec<u8>,
    /// The span around it.
    pub parent_id: Vec<u8>,
    /// The trace flags.
    pub flags: u32,
    /// The span's name, or the event name of a log record.
    pub name: String,
    /// When the span began or the record was written, in nanoseconds since 1970.
    pub start: Option<u64>,
    /// When the span ended or the record was observed.
    pub end: Option<u64>,
    /// The attributes.
    pub attributes: Attributes,
    /// The body of a log record.
    pub body: Option<Value>,
    /// What happened within a span.
    pub events: Vec<SpanEvent>,
    /// Whether the span's status is that of an error.
    pub failed: bool,
    /// What the status says.
    pub status_message: Option<String>,
    /// Attributes, span events and links that the sender says it dropped.
    pub dropped: [u64; 3],
    /// Whether something in it could not be read.
    pub unreadable: bool,
    /// What sent it.
    pub resource: Arc<Resource>,
    /// Which instrumentation wrote it.
    pub scope: Arc<ScopeInfo>,
}

/// A time, where zero means that there is none.
fn time(nanos: Option<u64>) -> Option<u64> {
    nanos.filter(|&n| n != 0)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn valid(id: &[u8], len: usize) -> Option<String> {
    (id.len() == len && id.iter().any(|&b| b != 0)).then(|| hex(id))
}

impl Record {
    /// The trace id as 32 hexadecimal digits, if it is a valid one.
    pub fn trace(&self) -> Option<String> {
        valid(&self.trace_id, 16)
    }

    /// The span id as 16 hexadecimal digits, if it is a valid one.
    pub fn span(&self) -> Option<String> {
        valid(&self.span_id, 8)
    }

    /// The id of the span around it, if it is a valid one.
    pub fn parent(&self) -> Option<String> {
        valid(&self.parent_id, 8)
    }

    /// An id as it was sent, valid or not; `none` if nothing was sent.
    pub fn sent_id(id: &[u8]) -> String {
        if id.is_empty() { "none".to_owned() } else { hex(id) }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The name of a log record's event: its own field, or the attribute that older senders have.
    pub fn event_name(&self) -> Option<&str> {
        match self.is_log {
            true if !self.name.is_empty() => Some(&self.name),
            true => self.attribute("event.name").and_then(Value::text),
            false => None,
        }
    }

    /// The name of the service that sent it.
    pub fn service(&self) -> Option<&str> {
        let attributes = &self.resource.attributes;
        attributes.iter().find(|(n, _)| n == "service.name").and_then(|(_, v)| v.text())
    }

    /// Everything the sender says it dropped: of the record, its span events, its scope and its resource.
    pub fn dropped_in_all(&self) -> u64 {
        let events = self.events.iter().map(|event| event.dropped);
        let around = [self.resource.dropped, self.scope.dropped];
        self.dropped.into_iter().chain(events).chain(around).fold(0, u64::saturating_add)
    }

    pub(super) fn read(
        signal: Signal,
        encoding: Encoding,
        raw: &[u8],
        resource: Arc<Resource>,
        scope: Arc<ScopeInfo>,
    ) -> Self {
        let is_log = signal == Signal::Logs;
        let mut record = Self { is_log, resource, scope, ..Self::default() };
        match encoding {
            Encoding::Protobuf => {
                for field in Fields::new(raw) {
                    match field {
                        Ok(field) if is_log => record.log_field(field),
                        Ok(field) => record.span_field(field),
                        Err(_) => record.unreadable = true,
                    }
                }
            }
            Encoding::Json => {
                for (name, text) in json::members(std::str::from_utf8(raw).unwrap_or_default()) {
                    match is_log {
                        true => record.log_member(&name, text),
                        false => record.span_member(&name, text),
                    }
                }
            }
        }
        record
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        std::str::from_utf8(bytes).map(str::to_owned).unwrap_or_else(|_| {
            self.unreadable = true;
            String::from_utf8_lossy(bytes).into_owned()
        })
    }

    fn push(&mut self, (name, value): (String, Value)) {
        self.unreadable |= value == Value::Unreadable;
        self.attributes.push((name, value));
    }

    fn span_field(&mut self, field: Field<'_>) {
        let id = |bytes: &[u8]| bytes[..bytes.len().min(ID_BYTES_MAX)].to_vec();
        match (field.number, field.value) {
            (1, Wire::Bytes(bytes)) => self.trace_id = id(bytes),
            (2, Wire::Bytes(bytes)) => self.span_id = id(bytes),
            (4, Wire::Bytes(bytes)) => self.parent_id = id(bytes),
            (5, Wire::Bytes(bytes)) => self.name = self.text(bytes),
            (7, value) => self.start = time(value.number()),
            (8, value) => self.end = time(value.number()),
            (9, Wire::Bytes(bytes)) => self.push(value::pair(bytes)),
            (10, Wire::Varint(n)) => self.dropped[0] = n,
            (11, Wire::Bytes(bytes)) => self.events.push(SpanEvent::read(bytes)),
            (12, Wire::Varint(n)) => self.dropped[1] = n,
            (14, Wire::Varint(n)) => self.dropped[2] = n,
            (15, Wire::Bytes(bytes)) => {
                for field in Fields::new(bytes).flatten() {
                    match (field.number, field.value) {
                        (2, Wire::Bytes(text)) => self.status_message = Some(self.text(text)),
                        (3, Wire::Varint(code)) => self.failed = code == 2,
                        _ => {}
                    }
                }
            }
            (16, value) => self.flags = value.number().unwrap_or(0) as u32,
            _ => {}
        }
    }

    fn log_field(&mut self, field: Field<'_>) {
        let id = |bytes: &[u8]| bytes[..bytes.len().min(ID_BYTES_MAX)].to_vec();
        match (field.number, field.value) {
            (1, value) => self.start = time(value.number()),
            (5, Wire::Bytes(bytes)) => self.body = Some(Value::from_protobuf(bytes)),
            (6, Wire::Bytes(bytes)) => self.push(value::pair(bytes)),
            (7, Wire::Varint(n)) => self.dropped[0] = n,
            (8, value) => self.flags = value.number().unwrap_or(0) as u32,
            (9, Wire::Bytes(bytes)) => self.trace_id = id(bytes),
            (10, Wire::Bytes(bytes)) => self.span_id = id(bytes),
            (11, value) => self.end = time(value.number()),
            (12, Wire::Bytes(bytes)) => self.name = self.text(bytes),
            _ => {}
        }
    }

    fn span_member(&mut self, name: &str, text: &str) {
        match name {
            "traceId" => self.trace_id = unhex(text),
            "spanId" => self.span_id = unhex(text),
            "parentSpanId" => self.parent_id = unhex(text),
            "flags" => self.flags = value::number(text).unwrap_or(0),
            "name" => self.name = json::unquoted(text).unwrap_or_default(),
            "startTimeUnixNano" => self.start = time(value::number(text)),
            "endTimeUnixNano" => self.end = time(value::number(text)),
            "attributes" => value::pairs_json(text).into_iter().for_each(|pair| self.push(pair)),
            "droppedAttributesCount" => self.dropped[0] = value::number(text).unwrap_or(0),
            "droppedEventsCount" => self.dropped[1] = value::number(text).unwrap_or(0),
            "droppedLinksCount" => self.dropped[2] = value::number(text).unwrap_or(0),
            "events" => self.events.extend(json::elements(text).map(SpanEvent::read_json)),
            "status" => {
                self.failed = json::member(text, "code").and_then(value::number) == Some(2u32);
                self.status_message = json::member(text, "message").and_then(json::unquoted);
            }
            _ => {}
        }
    }

    fn log_member(&mut self, name: &str, text: &str) {
        match name {
            "traceId" => self.trace_id = unhex(text),
            "spanId" => self.span_id = unhex(text),
            "flags" => self.flags = value::number(text).unwrap_or(0),
            "timeUnixNano" => self.start = time(value::number(text)),
            "observedTimeUnixNano" => self.end = time(value::number(text)),
            "eventName" => self.name = json::unquoted(text).unwrap_or_default(),
            "body" => self.body = Some(Value::from_json(text)),
            "attributes" => value::pairs_json(text).into_iter().for_each(|pair| self.push(pair)),
            "droppedAttributesCount" => self.dropped[0] = value::number(text).unwrap_or(0),
            _ => {}
        }
    }
}

/// The bytes of a hexadecimal id; none if it is something else.
fn unhex(text: &str) -> Vec<u8> {
    let digits = json::unquoted(text).unwrap_or_default();
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * ID_BYTES_MAX {
        return Vec::new();
    }
    let digit = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    digits.chunks_exact(2).map(byte).collect::<Option<_>>().unwrap_or_default()
}

impl SpanEvent {
    fn read(message: &[u8]) -> Self {
        let mut event = Self::default();
        for field in Fields::new(message).flatten() {
            match (field.number, field.value) {
                (1, value) => event.time = time(value.number()),
                (2, Wire::Bytes(text)) => event.name = String::from_utf8_lossy(text).into_owned(),
                (3, Wire::Bytes(pair)) => event.attributes.push(value::pair(pair)),
                (4, Wire::Varint(n)) => event.dropped = n,
                _ => {}
            }
        }
        event
    }

    fn read_json(text: &str) -> Self {
        let member = |name: &str| json::member(text, name);
        Self {
            time: time(member("timeUnixNano").and_then(value::number)),
            name: member("name").and_then(json::unquoted).unwrap_or_default(),
            attributes: member("attributes").map(value::pairs_json).unwrap_or_default(),
            dropped: member("droppedAttributesCount").and_then(value::number).unwrap_or(0),
        }
    }
}

impl Resource {
    /// Reads what stands beside the scopes of a resource.
    pub(super) fn read(encoding: Encoding, message: &[u8]) -> Self {
        let mut resource = Self::default();
        match encoding {
            Encoding::Protobuf => {
                for field in Fields::new(message).flatten() {
                    match (field.number, field.value) {
                        (1, Wire::Bytes(bytes)) => {
                            for field in Fields::new(bytes).flatten() {
                                match (field.number, field.value) {
                                    (1, Wire::Bytes(pair)) => resource.attributes.push(value::pair(pair)),
                                    (2, Wire::Varint(n)) => resource.dropped = n,
                                    _ => {}
                                }
                            }
                        }
                        (3, Wire::Bytes(url)) => resource.schema_url = known(url),
                        _ => {}
                    }
                }
            }
            Encoding::Json => {
                let text = std::str::from_utf8(message).unwrap_or_default();
                let inner = json::member(text, "resource").unwrap_or("{}");
                resource.attributes =
                    json::member(inner, "attributes").map(value::pairs_json).unwrap_or_default();
                resource.dropped =
                    json::member(inner, "droppedAttributesCount").and_then(value::number).unwrap_or(0);
                resource.schema_url = json::member(text, "schemaUrl").and_then(json::unquoted);
            }
        }
        resource
    }
}

/// Text, if there is any and it is UTF-8.
fn known(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

impl ScopeInfo {
    /// Reads what stands beside the records of a scope.
    pub(super) fn read(encoding: Encoding, message: &[u8]) -> Self {
        let mut scope = Self::default();
        match encoding {
            Encoding::Protobuf => {
                for field in Fields::new(message).flatten() {
                    match (field.number, field.value) {
                        (1, Wire::Bytes(bytes)) => {
                            for field in Fields::new(bytes).flatten() {
                                match (field.number, field.value) {
                                    (1, Wire::Bytes(name)) => scope.name = known(name),
                                    (2, Wire::Bytes(version)) => scope.version = known(version),
                                    (4, Wire::Varint(n)) => scope.dropped = n,
                                    _ => {}
                                }
                            }
                        }
                        (3, Wire::Bytes(url)) => scope.schema_url = known(url),
                        _ => {}
                    }
                }
            }
            Encoding::Json => {
                let text = std::str::from_utf8(message).unwrap_or_default();
                let inner = json::member(text, "scope").unwrap_or("{}");
                scope.name = json::member(inner, "name").and_then(json::unquoted);
                scope.version = json::member(inner, "version").and_then(json::unquoted);
                scope.dropped =
                    json::member(inner, "droppedAttributesCount").and_then(value::number).unwrap_or(0);
                scope.schema_url = json::member(text, "schemaUrl").and_then(json::unquoted);
            }
        }
        scope
    }
}

//! One immutable fact, as its producer sent it.
//!
//! [`Event`] is a CloudEvents 1.0 event: the required attributes, the optional ones, extension attributes,
//! tags, and data of any bytes. An `Event` that exists is well formed; whether it is within the limits of a
//! store is checked by the store. What the *log* adds (position, version, recorded time) is in
//! [`RecordedEvent`](crate::RecordedEvent).
//!
//! An event that was read from a log shares the bytes of its entry and finds its attributes there: reading one
//! copies no text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::cbor::{Kind, Reader, Span};
use crate::error::{Error, Result};
use crate::ids::{self, Time};
use crate::limits::Limits;

/// The value of an extension attribute: the three of CloudEvents' types that its JSON format can tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number of 32 bits, as CloudEvents has them.
    Integer(i32),
    /// Text, without control characters. URIs, times and binary values are text in JSON.
    String(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
        }
    }
}

impl From<&str> for AttributeValue {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for AttributeValue {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<i32> for AttributeValue {
    fn from(value: i32) -> Self {
        Self::Integer(value)
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

/// An indexed label `key=value`, split at the first `=`; neither side is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag `key=value`. The key holds no `=`; neither side is empty.
    pub fn new(key: &str, value: &str) -> Result<Self> {
        if key.contains('=') {
            return Err(Error::invalid(format!("the tag key '{}' contains '='", shown(key))));
        }
        format!("{key}={value}").parse()
    }

    /// The whole tag, `key=value`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The side before the first `=`.
    pub fn key(&self) -> &str {
        self.0.split_once('=').map_or("", |(key, _)| key)
    }

    /// The side after the first `=`.
    pub fn value(&self) -> &str {
        self.0.split_once('=').map_or("", |(_, value)| value)
    }
}

impl Tag {
    /// Whether a text is a tag.
    pub(crate) fn check(text: &str) -> Result<()> {
        let limit = Limits::new(crate::Durability::None).tag_bytes_max;
        if text.len() as u64 > limit {
            return Err(Error::limit(
                format!("the tag '{}'", shown(text)),
                text.len() as u64,
                limit,
                "bytes",
            ));
        }
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok(()),
            _ => Err(Error::invalid(format!(
                "'{}' is not a tag: expected key=value with neither side empty",
                shown(text)
            ))),
        }
    }
}

impl FromStr for Tag {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text of a stranger as it may stand in a message: at most 64 characters, control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(64).collect::<String>().escape_debug().to_string();
    if text.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

/// One immutable fact, as its producer sent it.
///
/// ```
/// use precedent_core::Event;
/// let event = Event::builder("https://loans.example/scoring", "decision-42", "ai.decision.made")
///     .stream("application/42")
///     .tag("model", "risk-7")
///     .json(&serde_json::json!({"approve": false, "score": 0.31}))
///     .build()?;
/// assert_eq!(event.stream(), Some("application/42"));
/// # Ok::<(), precedent_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Event {
    envelope: Envelope,
    pub(crate) data: Option<Bytes>,
}

/// Everything about an event but its data.
#[derive(Clone)]
enum Envelope {
    /// Made here.
    Built(Built),
    /// Read from a log.
    Recorded(Recorded),
}

/// Attributes as they were given, those that every event can have in one piece of memory: many events are made.
#[derive(Clone, Default)]
struct Built {
    /// All texts, one behind the other.
    texts: String,
    id: Place,
    source: Place,
    event_type: Place,
    stream: Option<Place>,
    time: Option<Place>,
    datacontenttype: Option<Place>,
    dataschema: Option<Place>,
    /// Tags and attributes, if there are any.
    listed: Option<Box<Listed>>,
}

/// Where a text lies among [`Built::texts`].
#[derive(Clone, Copy, Default)]
struct Place {
    at: u32,
    len: u32,
}

impl Built {
    /// Adds a text. What is beyond 4 GiB is cut off, which [`Self::check`] finds.
    fn put(&mut self, text: &str) -> Place {
        let place = |at: usize| u32::try_from(at).ok();
        let at = self.texts.len();
        match (place(at), place(text.len()), place(at + text.len())) {
            (Some(at), Some(len), Some(_)) => {
                self.texts.push_str(text);
                Place { at, len }
            }
            _ => Place { at: 0, len: u32::MAX },
        }
    }

    fn text(&self, place: Place) -> &str {
        let at = place.at as usize;
        self.texts.get(at..at + place.len as usize).unwrap_or_default()
    }

    fn listed(&self) -> &Listed {
        static NONE: Listed = Listed { tags: Vec::new(), attributes: BTreeMap::new() };
        self.listed.as_deref().unwrap_or(&NONE)
    }

    fn listed_mut(&mut self) -> &mut Listed {
        self.listed.get_or_insert_default()
    }
}

/// What has as many values as the producer likes.
#[derive(Clone, Default)]
struct Listed {
    tags: Vec<Tag>,
    attributes: BTreeMap<String, AttributeValue>,
}

/// Where the attributes of an event are in its entry.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(crate) struct Spans {
    pub(crate) id: Span,
    pub(crate) source: Span,
    pub(crate) event_type: Span,
    pub(crate) stream: Span,
    pub(crate) time: Span,
    pub(crate) datacontenttype: Span,
    pub(crate) dataschema: Span,
    /// How many tags, and where the first begins.
    pub(crate) tags: (u16, u16),
    /// How many attributes, those above included, and where the first begins.
    pub(crate) attributes: (u16, u16),
    /// Whether there are others than those above.
    pub(crate) has_extensions: bool,
}

#[derive(Clone)]
struct Recorded {
    entry: Bytes,
    spans: Spans,
    /// Taken out of the entry when somebody asks for all tags or all attributes.
    listed: OnceLock<Box<Listed>>,
}

/// The entry was checked when the event was made of it, and shared bytes do not change.
const CHECKED: &str = "the entry of a recorded event was checked when it was decoded";

impl Recorded {
    fn text(&self, span: Span) -> Option<&str> {
        span.text(&self.entry)
    }

    fn tags(&self) -> impl Iterator<Item = &str> {
        let (count, at) = self.spans.tags;
        let mut reader = Reader::at(&self.entry, usize::from(at));
        (0..count).map(move |_| {
            let tag = reader.text().expect(CHECKED);
            reader.text_of(tag)
        })
    }

    /// Calls `each` for every extension attribute until it answers something.
    fn find_attribute<'a, T>(&'a self, mut each: impl FnMut(&'a str, Value<'a>) -> Option<T>) -> Option<T> {
        if !self.spans.has_extensions {
            return None;
        }
        let (count, at) = self.spans.attributes;
        let mut reader = Reader::at(&self.entry, usize::from(at));
        for _ in 0..count {
            let name = reader.text().expect(CHECKED);
            let name = reader.text_of(name);
            let value = match reader.kind().expect(CHECKED) {
                Kind::Text => {
                    let text = reader.text().expect(CHECKED);
                    Value::Text(reader.text_of(text))
                }
                Kind::Bool => Value::Other(AttributeValue::Boolean(reader.bool().expect(CHECKED))),
                Kind::Other => Value::Other(AttributeValue::Integer(reader.i32().expect(CHECKED))),
            };
            if !IN_ENTRY.contains(&name)
                && let Some(found) = each(name, value)
            {
                return Some(found);
            }
        }
        None
    }

    fn listed(&self) -> &Listed {
        self.listed.get_or_init(|| {
            let mut listed =
                Listed { tags: self.tags().map(|tag| Tag(tag.to_owned())).collect(), ..Listed::default() };
            self.find_attribute(|name, value| {
                let value = match value {
                    Value::Text(text) => AttributeValue::String(text.to_owned()),
                    Value::Other(value) => value,
                };
                listed.attributes.insert(name.to_owned(), value);
                None::<()>
            });
            Box::new(listed)
        })
    }
}

/// The value of an attribute where it lies.
enum Value<'a> {
    Text(&'a str),
    Other(AttributeValue),
}

/// The attributes that have a field of their own.
const IN_ENTRY: &[&str] = &["id", "source", "subject", "time", "datacontenttype", "dataschema"];

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.same_envelope(other) && self.attributes() == other.attributes() && self.data == other.data
    }
}

impl Eq for Event {}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("source", &self.source())
            .field("event_type", &self.event_type())
            .field("stream", &self.stream())
            .field("time", &self.time())
            .field("datacontenttype", &self.datacontenttype())
            .field("dataschema", &self.dataschema())
            .field("tags", &self.tags())
            .field("attributes", self.attributes())
            .field("data", &self.data)
            .finish()
    }
}

impl Event {
    /// Starts an event from what every event has. `source` and `id` together are its key: an append that
    /// repeats them with the same content records nothing new.
    pub fn builder(
        source: impl AsRef<str>,
        id: impl AsRef<str>,
        event_type: impl AsRef<str>,
    ) -> EventBuilder {
        /// Room for a stream and a media type.
        const ROOM: usize = 64;
        let (source, id, event_type) = (source.as_ref(), id.as_ref(), event_type.as_ref());
        let room = source.len() + id.len() + event_type.len() + ROOM;
        let built = Built { texts: String::with_capacity(room), ..Built::default() };
        EventBuilder { built, data: None, failed: None }.named(source, id, event_type)
    }

    /// The event of an entry with these bytes, which were found to be one, its attributes at these places.
    pub(crate) fn recorded(entry: Bytes, spans: Spans) -> Self {
        Self { envelope: Envelope::Recorded(Recorded { entry, spans, listed: OnceLock::new() }), data: None }
    }

    fn text(
        &self,
        place: impl FnOnce(&Built) -> Option<Place>,
        span: impl FnOnce(&Spans) -> Span,
    ) -> Option<&str> {
        match &self.envelope {
            Envelope::Built(event) => place(event).map(|place| event.text(place)),
            Envelope::Recorded(event) => event.text(span(&event.spans)),
        }
    }

    /// The producer's id, unique within its source.
    pub fn id(&self) -> &str {
        self.text(|built| Some(built.id), |spans| spans.id).expect(CHECKED)
    }

    /// Who produced the event: a URI reference.
    pub fn source(&self) -> &str {
        self.text(|built| Some(built.source), |spans| spans.source).expect(CHECKED)
    }

    /// What kind of fact this is, such as `ai.decision.made`.
    pub fn event_type(&self) -> &str {
        self.text(|built| Some(built.event_type), |spans| spans.event_type).expect(CHECKED)
    }

    /// The stream the event belongs to: `subject` in CloudEvents.
    pub fn stream(&self) -> Option<&str> {
        self.text(|built| built.stream, |spans| spans.stream)
    }

    /// When it happened, as the producer wrote it (RFC 3339).
    pub fn time(&self) -> Option<&str> {
        self.text(|built| built.time, |spans| spans.time)
    }

    /// The media type of the data; none means JSON.
    pub fn datacontenttype(&self) -> Option<&str> {
        self.text(|built| built.datacontenttype, |spans| spans.datacontenttype)
    }

    /// The schema the data follows.
    pub fn dataschema(&self) -> Option<&str> {
        self.text(|built| built.dataschema, |spans| spans.dataschema)
    }

    /// The tags, in the producer's order.
    pub fn tags(&self) -> &[Tag] {
        match &self.envelope {
            Envelope::Built(event) => &event.listed().tags,
            Envelope::Recorded(event) if event.spans.tags.0 == 0 => &[],
            Envelope::Recorded(event) => &event.listed().tags,
        }
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &Tag) -> bool {
        match &self.envelope {
            Envelope::Built(event) => event.listed().tags.contains(tag),
            Envelope::Recorded(event) => event.tags().any(|other| other == tag.as_str()),
        }
    }

    /// The extension attributes, by name.
    pub fn attributes(&self) -> &BTreeMap<String, AttributeValue> {
        static NONE: BTreeMap<String, AttributeValue> = BTreeMap::new();
        match &self.envelope {
            Envelope::Built(event) => &event.listed().attributes,
            Envelope::Recorded(event) if !event.spans.has_extensions => &NONE,
            Envelope::Recorded(event) => &event.listed().attributes,
        }
    }

    /// The text of an extension attribute, if it is there and is text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match &self.envelope {
            Envelope::Built(event) => match event.listed().attributes.get(name) {
                Some(AttributeValue::String(value)) => Some(value),
                _ => None,
            },
            Envelope::Recorded(event) => event.find_attribute(|other, value| match value {
                Value::Text(text) if other == name => Some(text),
                _ => None,
            }),
        }
    }

    /// The data, byte for byte as it was sent. No data and empty data are different things.
    pub fn data(&self) -> Option<&Bytes> {
        self.data.as_ref()
    }

    /// The trace id of a W3C `traceparent` attribute: 32 hexadecimal digits, not all zero.
    pub fn trace_id(&self) -> Option<&str> {
        let mut fields = self.attribute("traceparent")?.split('-');
        let (version, trace) = (fields.next()?, fields.next()?);
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (version.len() == 2 && trace.len() == 32 && hex(trace) && trace.bytes().any(|b| b != b'0'))
            .then_some(trace)
    }

    /// Whether the data's media type says JSON; no media type means JSON too.
    pub fn has_json_content_type(&self) -> bool {
        self.datacontenttype().is_none_or(is_json_media_type)
    }

    /// Whether `other` is the same fact, for idempotency: the same attributes except `traceparent` and
    /// `tracestate`, and the same data. `erased` says that this event's data is gone; then it compares equal.
    pub fn same_content(&self, other: &Event, erased: bool) -> bool {
        fn without_trace(event: &Event) -> impl Iterator<Item = (&String, &AttributeValue)> {
            event.attributes().iter().filter(|(name, _)| *name != "traceparent" && *name != "tracestate")
        }
        self.same_envelope(other)
            && without_trace(self).eq(without_trace(other))
            && (erased || self.data == other.data)
    }

    /// Whether everything but extension attributes and data is the same.
    fn same_envelope(&self, other: &Event) -> bool {
        self.id() == other.id()
            && self.source() == other.source()
            && self.event_type() == other.event_type()
            && self.stream() == other.stream()
            && self.time() == other.time()
            && self.datacontenttype() == other.datacontenttype()
            && self.dataschema() == other.dataschema()
            && self.tags() == other.tags()
    }

    /// A builder that starts from this event.
    pub fn into_builder(self) -> EventBuilder {
        // Anew: texts that were replaced are left behind.
        let mut builder = Self::builder(self.source(), self.id(), self.event_type());
        let built = &mut builder.built;
        built.stream = self.stream().map(|stream| built.put(stream));
        built.time = self.time().map(|time| built.put(time));
        built.datacontenttype = self.datacontenttype().map(|media_type| built.put(media_type));
        built.dataschema = self.dataschema().map(|schema| built.put(schema));
        built.listed = match self.envelope {
            Envelope::Built(built) => built.listed,
            Envelope::Recorded(event) if event.spans.has_extensions || event.spans.tags.0 > 0 => {
                event.listed();
                event.listed.into_inner()
            }
            Envelope::Recorded(_) => None,
        };
        builder.data = self.data;
        builder
    }
}

impl Built {
    /// Checks what CloudEvents asks of an event: no attribute is empty, none holds control characters,
    /// names of attributes are lowercase letters and digits, `time` is RFC 3339.
    fn check(&self) -> Result<()> {
        let required = [("id", self.id), ("source", self.source), ("type", self.event_type)];
        let optional = [
            ("subject", self.stream),
            ("time", self.time),
            ("datacontenttype", self.datacontenttype),
            ("dataschema", self.dataschema),
        ];
        let optional = optional.into_iter().filter_map(|(name, place)| Some((name, place?)));
        for (name, place) in required.into_iter().chain(optional) {
            if place.len == u32::MAX {
                return Err(Error::invalid(format!("attribute '{name}' is too long: it ends beyond 4 GiB")));
            }
            check_text(name, self.text(place))?;
        }
        if let Some(time) = self.time {
            ids::parse_rfc3339(self.text(time)).map_err(|e| e.context("attribute 'time'"))?;
        }
        let Some(listed) = &self.listed else { return Ok(()) };
        for tag in &listed.tags {
            check_characters("tags", tag.as_str())?;
        }
        for (name, value) in &listed.attributes {
            check_attribute_name(name)?;
            if let AttributeValue::String(value) = value {
                check_characters(name, value)?;
            }
        }
        Ok(())
    }
}

/// `application/json`, `text/json` and anything that ends in `+json`, with or without parameters.
pub(crate) fn is_json_media_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/json")
        || (essence.contains('/') && essence.ends_with("+json"))
}

/// The attributes CloudEvents defines itself, `data` included: no extension can have their names.
const DEFINED: &[&str] = &[
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "tags",
];

fn check_attribute_name(name: &str) -> Result<()> {
    let limit = Limits::new(crate::Durability::None).attribute_name_bytes_max;
    if name.len() as u64 > limit {
        return Err(Error::limit(
            format!("the attribute name '{}'", shown(name)),
            name.len() as u64,
            limit,
            "bytes",
        ));
    }
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(Error::invalid(format!(
            "'{}' cannot name an attribute: CloudEvents allows a-z and 0-9 only",
            shown(name)
        )));
    }
    if DEFINED.contains(&name) {
        return Err(Error::invalid(format!(
            "'{name}' is defined by CloudEvents and cannot be an extension attribute"
        )));
    }
    Ok(())
}

fn check_text(name: &str, value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(Error::invalid(format!("attribute '{name}' is empty")));
    }
    check_characters(name, value)
}

/// CloudEvents strings hold no control characters and no noncharacters (section 2.4 of its specification).
fn check_characters(name: &str, value: &str) -> Result<()> {
    // Nearly every text is of these, and every event has several: all bytes are looked at, many at a time.
    if !value.bytes().fold(false, |other, byte| other | !(0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let forbidden =
        |c: char| c.is_control() || (c as u32 & 0xfffe) == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
    match value.char_indices().find(|(_, c)| forbidden(*c)) {
        Some((at, c)) => Err(Error::invalid(format!(
            "attribute '{name}' holds the character U+{:04X} at byte {at}, which CloudEvents forbids",
            c as u32
        ))),
        None => Ok(()),
    }
}

/// Builds an [`Event`] and checks it once, at the end.
#[derive(Clone)]
#[must_use]
pub struct EventBuilder {
    built: Built,
    data: Option<Bytes>,
    failed: Option<Error>,
}

impl EventBuilder {
    /// The stream the event belongs to.
    pub fn stream(mut self, stream: impl AsRef<str>) -> Self {
        self.built.stream = Some(self.built.put(stream.as_ref()));
        self
    }

    /// When it happened, in RFC 3339; kept as written.
    pub fn time(mut self, time: impl AsRef<str>) -> Self {
        self.built.time = Some(self.built.put(time.as_ref()));
        self
    }

    /// When it happened.
    pub fn at(self, time: Time) -> Self {
        self.time(time.to_string())
    }

    /// The media type of the data.
    pub fn datacontenttype(mut self, media_type: impl AsRef<str>) -> Self {
        self.built.datacontenttype = Some(self.built.put(media_type.as_ref()));
        self
    }

    /// The schema the data follows.
    pub fn dataschema(mut self, schema: impl AsRef<str>) -> Self {
        self.built.dataschema = Some(self.built.put(schema.as_ref()));
        self
    }

    /// Adds the tag `key=value`.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        match Tag::new(key, value) {
            Ok(tag) => self.built.listed_mut().tags.push(tag),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Adds tags.
    pub fn tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        let mut tags = tags.into_iter().peekable();
        if tags.peek().is_some() {
            self.built.listed_mut().tags.extend(tags);
        }
        self
    }

    /// Sets an extension attribute.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.built.listed_mut().attributes.insert(name.into(), value.into());
        self
    }

    /// The data, kept byte for byte.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// The data as JSON, with `application/json` as its media type.
    pub fn json(mut self, data: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(data) {
            Ok(data) => self.data = Some(data.into()),
            Err(error) => {
                self.failed =
                    self.failed.or(Some(Error::invalid(format!("the data cannot be JSON: {error}"))));
            }
        }
        self.datacontenttype("application/json")
    }

    /// The builder, unless a step failed.
    pub(crate) fn checked_so_far(mut self) -> Result<Self> {
        self.failed.take().map_or(Ok(self), Err)
    }

    /// Sets what every event has, for a codec that learns it last.
    pub(crate) fn named(mut self, source: &str, id: &str, event_type: &str) -> Self {
        let built = &mut self.built;
        (built.source, built.id, built.event_type) =
            (built.put(source), built.put(id), built.put(event_type));
        self
    }

    /// The event, if it is well formed: otherwise what is wrong with it first.
    pub fn build(self) -> Result<Event> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.built.check()?;
        Ok(Event { envelope: Envelope::Built(self.built), data: self.data })
    }
}

impl fmt::Debug for EventBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = Event { envelope: Envelope::Built(self.built.clone()), data: self.data.clone() };
        f.debug_struct("EventBuilder").field("event", &event).field("failed", &self.failed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> EventBuilder {
        Event::builder("s", "i", "t")
    }

    #[test]
    fn a_tag_splits_at_the_first_equals_sign() {
        let tag: Tag = "k=v=w".parse().unwrap();
        assert_eq!((tag.key(), tag.value()), ("k", "v=w"));
        for bad in ["", "=", "k=", "=v", "kv"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
        let error = "k=".parse::<Tag>().unwrap_err();
        assert!(error.message().contains("k="), "{error}");
        assert!(format!("k={}", "v".repeat(254)).parse::<Tag>().is_ok());
        let error = format!("k={}", "v".repeat(255)).parse::<Tag>().unwrap_err();
        assert!(error.message().contains("257") && error.message().contains("256"), "{error}");
    }

    #[test]
    fn what_cloudevents_forbids_is_refused_by_name() {
        for (bad, named) in [
            (Event::builder("", "i", "t"), "source"),
            (Event::builder("s", "", "t"), "id"),
            (Event::builder("s", "i", ""), "type"),
            (builder().stream(""), "subject"),
            (builder().stream("a\u{1b}[31m"), "U+001B"),
            (builder().time("noon"), "time"),
            (builder().attribute("Upper", "x"), "Upper"),
            (builder().attribute("under_score", "x"), "under_score"),
            (builder().attribute("data", "x"), "data"),
            (builder().attribute("a", "x\ny"), "U+000A"),
        ] {
            let error = bad.build().unwrap_err();
            assert!(error.message().contains(named), "{error}");
        }
    }

    #[test]
    fn a_retry_with_another_trace_is_the_same_fact() {
        let one = builder().attribute("traceparent", "a").data("x").build().unwrap();
        let two = builder().attribute("tracestate", "b").data("x").build().unwrap();
        let three = builder().data("y").build().unwrap();
        assert!(one.same_content(&two, false));
        assert!(!one.same_content(&three, false));
        assert!(one.same_content(&three, true));
        assert!(!builder().build().unwrap().same_content(&builder().data("").build().unwrap(), false));
    }

    #[test]
    fn the_trace_id_is_taken_from_a_well_formed_traceparent_only() {
        let trace = |parent: &str| {
            builder().attribute("traceparent", parent).build().unwrap().trace_id().map(str::to_owned)
        };
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(good).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(trace("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
        assert_eq!(trace("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"), None);
        assert_eq!(trace("nonsense"), None);
    }
}

//! CloudEvents JSON and the native JSON shape, in and out; nothing is lost and nothing invented.
//!
//! | | CloudEvents ([JSON format 1.0.2](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md)) | native |
//! |---|---|---|
//! | `specversion` | required, `1.0` | not needed |
//! | the stream | `subject` | `stream` (`subject` is understood) |
//! | `tags` | one string, comma-separated, `%` `,` and control characters percent-encoded | a list of strings (the string is understood) |
//! | `position`, `version` | strings: its integers have 32 bits | numbers |
//!
//! **Data** is kept byte for byte. It is written as `data` if its media type is JSON (or none is given) and it
//! is valid JSON without line breaks and outer white space, and as `data_base64` otherwise. On reading, the text of
//! `data` is taken exactly as it stands; only under a media type that is not JSON does a string mean its content.
//!
//! **What the log added** goes out as the attributes `position`, `version`, `recordedtime`, `leafhash` and
//! `precedentlog`, the log's id. Reading drops them again where `precedentlog` stands. A producer's own
//! attribute of such a name, or of the name `stream`, goes out with `producer` in front, and loses it again on
//! the way in.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::event::{AttributeValue, Event, Tag, is_json_media_type, shown};
use crate::limits::{Durability, Limits};
use crate::store::RecordedEvent;

/// Which of the two JSON shapes is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// CloudEvents 1.0, structured mode.
    CloudEvents,
    /// Our own: numbers are numbers and tags are a list.
    Native,
}

/// The attributes the log adds.
pub const LOG_ATTRIBUTES: [&str; 5] = ["position", "version", "recordedtime", "leafhash", LOG_MARK];

/// The attribute that says an event was written out by a log: its id.
const LOG_MARK: &str = "precedentlog";

/// What the native shape calls `subject`: an attribute of that name cannot stand beside it.
const STREAM: &str = "stream";

/// What is put in front of a producer's attribute that has the name of one of ours.
const ESCAPE: &str = "producer";

const TAG_ESCAPES: &AsciiSet = &CONTROLS.add(b'%').add(b',');

/// The tags as the value of the CloudEvents attribute `tags`.
pub fn encode_tags(tags: &[Tag]) -> String {
    let mut out = String::new();
    for (i, tag) in tags.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.extend(utf8_percent_encode(tag.as_str(), TAG_ESCAPES));
    }
    out
}

/// Reads the value of the CloudEvents attribute `tags`.
pub fn decode_tags(text: &str) -> Result<Vec<Tag>> {
    let decode = |part: &str| {
        let text = percent_decode_str(part).decode_utf8();
        text.map_err(|_| Error::invalid(format!("the tag '{}' is not UTF-8 once decoded", shown(part))))?
            .parse()
    };
    let (count, max) = (text.split(',').count() as u64, tags_max());
    if count > max {
        return Err(too_many_tags(count, max));
    }
    text.split(',').map(decode).collect()
}

fn tags_max() -> u64 {
    Limits::new(Durability::None).tags_max
}

fn too_many_tags(count: u64, max: u64) -> Error {
    Error::limit("the list of tags", count, max, "tags")
}

/// A JSON list of which no more than a limit is kept; the rest is counted. However many elements a body has, it
/// takes little more memory than its bytes.
pub(crate) struct Bounded<'a> {
    pub(crate) items: Vec<&'a RawValue>,
    pub(crate) count: u64,
}

/// Reads a [`Bounded`] list of `what`, of which `max` elements are kept.
#[derive(Clone, Copy)]
pub(crate) struct AtMost {
    pub(crate) max: u64,
    pub(crate) what: &'static str,
}

impl AtMost {
    /// Reads a list that is a JSON text of its own.
    pub(crate) fn read(self, json: &str) -> serde_json::Result<Bounded<'_>> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let list = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(list)
    }
}

impl<'de> DeserializeSeed<'de> for AtMost {
    type Value = Bounded<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Bounded<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.what)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Bounded { items: Vec::new(), count: 0 };
        while list.count < self.max {
            let Some(item) = seq.next_element()? else { return Ok(list) };
            list.items.push(item);
            list.count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            list.count += 1;
        }
        Ok(list)
    }
}

/// The name under which a producer's attribute goes out, or comes in if `outward` is false.
fn escaped(name: &str, outward: bool) -> Cow<'_, str> {
    let mut bare = name;
    while let Some(rest) = bare.strip_prefix(ESCAPE) {
        bare = rest;
    }
    match (bare == STREAM || LOG_ATTRIBUTES.contains(&bare), outward) {
        (true, true) => Cow::Owned(format!("{ESCAPE}{name}")),
        (true, false) => Cow::Borrowed(name.strip_prefix(ESCAPE).unwrap_or(name)),
        (false, _) => Cow::Borrowed(name),
    }
}

/// Makes an event of its attributes, those of CloudEvents included, and its data. This is the one way in for
/// JSON and for HTTP headers. Attributes that a log added are dropped, as the module documentation says.
pub fn assemble(attributes: Vec<(String, AttributeValue)>, data: Option<Bytes>) -> Result<Event> {
    let ours = attributes.iter().any(|(name, _)| name == LOG_MARK);
    let (mut id, mut source, mut event_type) = (None, None, None);
    let mut event = Event::builder("", "", "");
    let text = |name: &str, value: AttributeValue| match value {
        AttributeValue::String(text) => Ok(text),
        other => Err(Error::invalid(format!("attribute '{name}' is {other}, expected a string"))),
    };
    for (name, value) in attributes {
        if ours && LOG_ATTRIBUTES.contains(&name.as_str()) {
            continue;
        }
        event = match name.as_str() {
            "specversion" => match value {
                AttributeValue::String(version) if version == "1.0" => event,
                other => {
                    return Err(Error::invalid(format!(
                        "specversion is '{}', expected '1.0'",
                        shown(&other.to_string())
                    )));
                }
            },
            "id" => {
                id = Some(text(&name, value)?);
                event
            }
            "source" => {
                source = Some(text(&name, value)?);
                event
            }
            "type" => {
                event_type = Some(text(&name, value)?);
                event
            }
            "subject" => event.stream(text(&name, value)?),
            "time" => event.time(text(&name, value)?),
            "datacontenttype" => event.datacontenttype(text(&name, value)?),
            "dataschema" => event.dataschema(text(&name, value)?),
            "tags" => event.tags(decode_tags(&text(&name, value)?)?),
            _ if ours => event.attribute(escaped(&name, false), value),
            _ => event.attribute(name, value),
        };
    }
    if let Some(data) = data {
        event = event.data(data);
    }
    let missing = |name: &str| Error::invalid(format!("the attribute '{name}' is missing"));
    let event = event.checked_so_far()?;
    let (id, source) = (id.ok_or_else(|| missing("id"))?, source.ok_or_else(|| missing("source"))?);
    event.named(&source, &id, &event_type.ok_or_else(|| missing("type"))?).build()
}

/// The most members an event can have: more than any has, and few enough to be looked through.
pub(crate) const MEMBERS_MAX: u64 = 1_024;

/// The members of a JSON object in their order, their values unparsed.
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    if members.len() as u64 >= MEMBERS_MAX {
                        let message = format!("an object with more than {MEMBERS_MAX} members");
                        return Err(serde::de::Error::custom(message));
                    }
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(serde::de::Error::custom(format!("'{}' stands twice", shown(&name))));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

fn json_error(error: &serde_json::Error) -> Error {
    Error::invalid(format!("not the JSON of an event: {error}"))
}

/// Reads one event.
///
/// # Errors
/// `invalid`, naming the attribute or the place in the text.
pub fn parse_event(json: &[u8], shape: Shape) -> Result<Event> {
    let members: Members<'_> = serde_json::from_slice(json).map_err(|e| json_error(&e))?;
    event_of(members, shape)
}

/// Reads a JSON array of events.
pub fn parse_batch(json: &[u8], shape: Shape) -> Result<Vec<Event>> {
    let events: Vec<&RawValue> = serde_json::from_slice(json).map_err(|e| json_error(&e))?;
    let parse = |(index, event): (usize, &&RawValue)| {
        parse_event(event.get().as_bytes(), shape).map_err(|e| e.context(format!("event {index}")))
    };
    events.iter().enumerate().map(parse).collect()
}

fn event_of(Members(members): Members<'_>, shape: Shape) -> Result<Event> {
    let ours = members.iter().any(|(name, _)| name == LOG_MARK);
    let mut attributes = Vec::with_capacity(members.len());
    let (mut data, mut base64, mut tags) = (None, None, None);
    for (name, value) in members {
        let text = value.get();
        match &*name {
            "data" => data = Some(text),
            "data_base64" if text != "null" => base64 = Some(text),
            _ if text == "null" => {}
            _ if ours && LOG_ATTRIBUTES.contains(&&*name) && name != LOG_MARK => {}
            "tags" if text.starts_with('[') => {
                let bad = |_| Error::invalid("'tags' is a list of something other than strings");
                let max = tags_max();
                let list = AtMost { max, what: "tags" }.read(text).map_err(bad)?;
                if list.count > max {
                    return Err(too_many_tags(list.count, max));
                }
                let tag = |tag: &&RawValue| {
                    let text: Cow<'_, str> = serde_json::from_str(tag.get()).map_err(bad)?;
                    text.parse()
                };
                tags = Some(list.items.iter().map(tag).collect::<Result<Vec<Tag>>>()?);
            }
            "stream" if shape == Shape::Native => {
                attributes.push(("subject".to_owned(), attribute_of(&name, text)?))
            }
            _ => attributes.push((name.clone().into_owned(), attribute_of(&name, text)?)),
        }
    }
    if shape == Shape::CloudEvents && !attributes.iter().any(|(name, _)| name == "specversion") {
        return Err(Error::invalid("the attribute 'specversion' is missing"));
    }
    if attributes.iter().filter(|(name, _)| name == "subject").count() > 1 {
        return Err(Error::invalid("'stream' and 'subject' are the same thing, and both are there"));
    }
    let is_json = attributes.iter().all(|(name, value)| match value {
        AttributeValue::String(media_type) if name == "datacontenttype" => is_json_media_type(media_type),
        _ => true,
    });
    let data = match (data, base64) {
        (Some(_), Some(_)) => return Err(Error::invalid("both 'data' and 'data_base64' are there")),
        (None, None) => None,
        (Some(text), None) if !is_json && text.starts_with('"') => {
            let content: String = serde_json::from_str(text)
                .map_err(|e| Error::invalid(format!("'data' is not a string of Unicode characters: {e}")))?;
            Some(Bytes::from(content))
        }
        (Some(text), None) => Some(Bytes::copy_from_slice(text.as_bytes())),
        (None, Some(text)) => {
            let bad = || Error::invalid("'data_base64' is not a string of base64");
            let content: String = serde_json::from_str(text).map_err(|_| bad())?;
            Some(STANDARD.decode(content).map_err(|_| bad())?.into())
        }
    };
    let event = assemble(attributes, data)?;
    match tags {
        Some(tags) => event.into_builder().tags(tags).build(),
        None => Ok(event),
    }
}

fn attribute_of(name: &str, text: &str) -> Result<AttributeValue> {
    let value = match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(AttributeValue::String).ok(),
        Some(b't' | b'f') => serde_json::from_str(text).map(AttributeValue::Boolean).ok(),
        _ => serde_json::from_str(text).map(AttributeValue::Integer).ok(),
    };
    value.ok_or_else(|| {
        Error::invalid(format!(
            "attribute '{}' is {}: CloudEvents has strings, booleans and whole numbers of 32 bits",
            shown(name),
            shown(text)
        ))
    })
}

/// Writes an event as one line of JSON, without a line break.
pub fn write_event(recorded: &RecordedEvent, shape: Shape, out: &mut Vec<u8>) {
    let mut object = ObjectWriter::new(out);
    let event = &recorded.event;
    write_attributes(event, shape, true, &mut object);
    let number = |object: &mut ObjectWriter<'_>, name, number: u64| match shape {
        Shape::CloudEvents => object.text(name, &number.to_string()),
        Shape::Native => object.raw(name, number.to_string().as_bytes()),
    };
    number(&mut object, "position", recorded.position.0);
    if let Some(version) = recorded.version {
        number(&mut object, "version", version.0);
    }
    object.text("recordedtime", &recorded.recorded.to_string());
    object.text("leafhash", &recorded.leaf().to_string());
    object.text(LOG_MARK, &recorded.log.to_string());
    write_data(event, &mut object);
    object.finish();
}

/// Writes an event that no log has recorded yet, as one line of JSON. Reading it gives the same event.
pub fn write_new_event(event: &Event, shape: Shape, out: &mut Vec<u8>) {
    let mut object = begin_new_event(event, shape, out);
    write_data(event, &mut object);
    object.finish();
}

/// As [`write_new_event`], without the data.
pub(crate) fn write_new_envelope(event: &Event, shape: Shape, out: &mut Vec<u8>) {
    begin_new_event(event, shape, out).finish();
}

fn begin_new_event<'a>(event: &Event, shape: Shape, out: &'a mut Vec<u8>) -> ObjectWriter<'a> {
    let mut object = ObjectWriter::new(out);
    // A producer's own `precedentlog` would be taken for a log's, and its `stream` for ours: then the names
    // are escaped, and a mark says so.
    let taken = |name: &str| event.attributes().contains_key(name);
    let marked = taken(LOG_MARK) || (shape == Shape::Native && taken(STREAM));
    write_attributes(event, shape, marked, &mut object);
    if marked {
        object.text(LOG_MARK, "");
    }
    object
}

/// Writes what the producer sent, without the data; `marked` says that a mark of a log follows.
fn write_attributes(event: &Event, shape: Shape, marked: bool, object: &mut ObjectWriter<'_>) {
    if shape == Shape::CloudEvents {
        object.text("specversion", "1.0");
    }
    object.text("id", event.id());
    object.text("source", event.source());
    object.text("type", event.event_type());
    let stream = if shape == Shape::CloudEvents { "subject" } else { "stream" };
    for (name, value) in [
        (stream, event.stream()),
        ("time", event.time()),
        ("datacontenttype", event.datacontenttype()),
        ("dataschema", event.dataschema()),
    ] {
        if let Some(value) = value {
            object.text(name, value);
        }
    }
    if !event.tags().is_empty() {
        match shape {
            Shape::CloudEvents => object.text("tags", &encode_tags(event.tags())),
            Shape::Native => {
                let tags: Vec<&str> = event.tags().iter().map(Tag::as_str).collect();
                object.raw("tags", &serde_json::to_vec(&tags).expect("strings are JSON"));
            }
        }
    }
    for (name, value) in event.attributes() {
        let name = if marked { escaped(name, true) } else { Cow::Borrowed(name.as_str()) };
        match value {
            AttributeValue::String(text) => object.text(&name, text),
            other => object.raw(&name, other.to_string().as_bytes()),
        }
    }
}

fn write_data(event: &Event, object: &mut ObjectWriter<'_>) {
    if let Some(data) = event.data() {
        match event.has_json_content_type() && is_one_line_of_json(data) {
            true => object.raw("data", data),
            false => object.base64("data_base64", data),
        }
    }
}

/// Whether the data can stand in a line of JSON exactly as it is.
fn is_one_line_of_json(data: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    !blank(data.first())
        && !blank(data.last())
        && !data.iter().any(|b| matches!(b, b'\n' | b'\r'))
        && serde_json::from_slice::<&RawValue>(data).is_ok()
}

struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        serde_json::to_writer(&mut *self.out, name).expect("a vector takes everything");
        self.out.push(b':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        serde_json::to_writer(&mut *self.out, value).expect("a vector takes everything");
    }

    /// Encodes in place: beside 15 MiB of data there is no room for two copies of 20.
    fn base64(&mut self, name: &str, data: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + data.len().div_ceil(3) * 4, 0);
        STANDARD
            .encode_slice(data, &mut self.out[start..])
            .expect("base64 has four characters for three bytes");
        self.out.push(b'"');
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    fn finish(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogId, Position, Time, Version};
    use proptest::prelude::*;

    fn recorded(event: Event) -> RecordedEvent {
        let version = event.stream().map(|_| Version(3));
        RecordedEvent {
            log: LogId([5; 16]),
            position: Position(u64::MAX),
            version,
            recorded: Time::from_micros(1_800_000_000_000_000).unwrap(),
            event,
            erased: false,
            entry: Bytes::from_static(b"entry"),
        }
    }

    fn there_and_back(event: &Event, shape: Shape) -> Event {
        let mut out = Vec::new();
        write_event(&recorded(event.clone()), shape, &mut out);
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice::<&RawValue>(&out).expect("what we write is JSON");
        let mut new = Vec::new();
        write_new_event(event, shape, &mut new);
        assert_eq!(&parse_event(&new, shape).unwrap(), event, "as a new event");
        parse_event(&out, shape).unwrap()
    }

    #[test]
    fn data_comes_back_byte_for_byte() {
        for (media_type, data) in [
            (None, r#"{"b":1.0,"a":1e400,"a":"\u00e9","n":9007199254740993}"#),
            (None, "{\n}"),
            (None, " {}"),
            (None, ""),
            (None, "null"),
            (Some("application/json"), "[1.10]"),
            (Some("application/problem+json; charset=utf-8"), "\"x\""),
            (Some("text/plain"), "\"quoted\""),
            (Some("text/plain"), "123"),
            (Some("text/xml"), "<a/>"),
            (None, "not json"),
        ] {
            let mut event = Event::builder("s", "i", "t").data(data);
            if let Some(media_type) = media_type {
                event = event.datacontenttype(media_type);
            }
            let event = event.build().unwrap();
            for shape in [Shape::CloudEvents, Shape::Native] {
                assert_eq!(there_and_back(&event, shape), event, "{data}");
            }
        }
        let text = br#"{"specversion":"1.0","id":"i","source":"s","type":"t","data": { "a" : 1.00 } }"#;
        let event = parse_event(text, Shape::CloudEvents).unwrap();
        assert_eq!(event.data().unwrap(), r#"{ "a" : 1.00 }"#);
        let text = br#"{"specversion":"1.0","id":"i","source":"s","type":"t","datacontenttype":"text/xml","data":"<a\/>"}"#;
        assert_eq!(parse_event(text, Shape::CloudEvents).unwrap().data().unwrap(), "<a/>");
    }

    #[test]
    fn our_attributes_are_dropped_on_the_way_in_and_the_producers_are_not() {
        let event = Event::builder("s", "i", "t")
            .attribute("position", "mine")
            .attribute("producerposition", 7)
            .attribute("producer", true)
            .attribute("version", "2")
            .build()
            .unwrap();
        for shape in [Shape::CloudEvents, Shape::Native] {
            assert_eq!(there_and_back(&event, shape), event);
        }
        let mut out = Vec::new();
        write_event(&recorded(event), Shape::CloudEvents, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["producerposition"], "mine");
        assert_eq!(json["producerproducerposition"], 7);
        assert_eq!(json["position"], u64::MAX.to_string());
    }

    #[test]
    fn bad_events_are_refused_with_what_is_wrong() {
        for (bad, says) in [
            (r#"[]"#, "object"),
            (r#"{"#, "line 1"),
            (r#"{"id":"i","source":"s","type":"t"}"#, "specversion"),
            (r#"{"specversion":"0.3","id":"i","source":"s","type":"t"}"#, "0.3"),
            (r#"{"specversion":"1.0","source":"s","type":"t"}"#, "'id' is missing"),
            (r#"{"specversion":"1.0","id":7,"source":"s","type":"t"}"#, "'id' is 7"),
            (r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#, "'id' is empty"),
            (r#"{"specversion":"1.0","id":"i","id":"j","source":"s","type":"t"}"#, "twice"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","x":1.5}"#, "1.5"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","x":3000000000}"#, "3000000000"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","x":{}}"#, "'x'"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","data":1,"data_base64":""}"#, "both"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","data_base64":"?"}"#, "base64"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","tags":"a"}"#, "'a' is not a tag"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","tags":["a=1",2]}"#, "tags"),
            (r#"{"specversion":"1.0","id":"i","source":"s","type":"t","time":"now"}"#, "RFC 3339"),
        ] {
            let error = parse_event(bad.as_bytes(), Shape::CloudEvents).unwrap_err();
            assert!(error.message().contains(says), "{bad}: {error}");
        }
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[ -~äöü€\u{1f600}]{1,24}").unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_event_survives_both_shapes(
            id in text(), source in text(), event_type in text(), stream in proptest::option::of(text()),
            tags in proptest::collection::vec((text(), text()), 0..4),
            names in proptest::collection::btree_map("(producer){0,2}(position|version|stream|precedentlog|[a-z0-9]{1,8})", -5i32..5, 0..4),
            data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
            media_type in proptest::option::of(Just("text/plain".to_owned())),
        ) {
            let mut event = Event::builder(source, id, event_type);
            if let Some(stream) = stream { event = event.stream(stream); }
            if let Some(media_type) = media_type { event = event.datacontenttype(media_type); }
            if let Some(data) = data { event = event.data(data); }
            for (key, value) in &tags { event = event.tag(&key.replace('=', "-"), value); }
            for (name, value) in names { event = event.attribute(name, value); }
            let Ok(event) = event.build() else { return Ok(()) };
            for shape in [Shape::CloudEvents, Shape::Native] {
                prop_assert_eq!(&there_and_back(&event, shape), &event);
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_event(&bytes, Shape::CloudEvents);
            let _ = parse_batch(&bytes, Shape::Native);
        }
    }
}

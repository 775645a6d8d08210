//! The canonical bytes of an event's envelope, with commitments to its data: the Merkle leaf.
//!
//! An entry is deterministic CBOR (RFC 8949 section 4.2.1), written once and hashed exactly as stored:
//!
//! ```text
//! { 0: 1,                     entry version
//!   1: h'…16 bytes…',         log id
//!   2: position,
//!   3: recorded time          microseconds since the Unix epoch
//!   4: "type",
//!   5: { "id": …, "source": …, "subject"?, "time"?, … },   the producer's attributes
//!   6: [ "key=value", … ],    tags, if there are any
//!   7: version,               if there is a subject
//!   8: h'…32 bytes…',         leaf hash of the stream's previous event, if version > 0
//!   9: [ { 0: "data", 1: 1, 2: h'…32 bytes…', 3: length, 4?: "scope" }, … ] }   parts, if there are any
//! ```
//!
//! What is *not* here: the frame, the codec, where anything is stored. So an event keeps its leaf when the
//! log is packed or copied.

use std::borrow::Cow;

use bytes::Bytes;

use crate::cbor::{Bad, Kind, Reader, Span, Writer};
use crate::cloudevents::MEMBERS_MAX;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{AttributeValue, Event, Spans, Tag};
use crate::ids::{Hash, LogId, Position, Time, Version};
use crate::limits::{Durability, Limits};
use crate::store::RecordedEvent;
use crate::usual;

/// The version of the entry format that this program writes.
pub const ENTRY_VERSION: u64 = 1;

/// The most bytes an entry can have: C2SP entry bundles have a length of 16 bits.
pub const ENTRY_BYTES_MAX: usize = 65_535;

/// The most bytes that the fields the log adds can take.
const LOG_FIELDS_BYTES_MAX: usize = 1 + 2 + 18 + 10 + 10 + 10 + 35;

/// The commitment algorithm HMAC-SHA256 with the part's salt.
const HMAC_SHA256: u64 = 1;

/// The name of the part that holds an event's data.
pub const DATA_PART: &str = "data";

/// What an entry says about a piece of content that is stored beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is: [`DATA_PART`].
    pub name: Cow<'static, str>,
    /// `HMAC-SHA256(salt, content)`.
    pub commitment: Hash,
    /// Bytes of the content.
    pub length: u64,
    /// Whose data it is (`dataperson`), which decides what can be erased together.
    pub scope: Option<String>,
}

/// A decoded entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The log this is an entry of.
    pub log: LogId,
    /// The place in the log.
    pub position: Position,
    /// When the log recorded it.
    pub recorded: Time,
    /// The place in the stream, if there is one.
    pub version: Option<Version>,
    /// The leaf hash of the stream's previous event.
    pub previous: Option<Hash>,
    /// The event; its data is with the parts, not here.
    pub event: Event,
    /// What is stored beside the entry.
    pub parts: Vec<Part>,
}

/// The fields that the log adds when it knows the position.
#[derive(Debug, Clone, Copy)]
pub struct LogFields {
    /// The log.
    pub log: LogId,
    /// The place in the log.
    pub position: Position,
    /// When it is recorded.
    pub recorded: Time,
    /// The place in the stream and the leaf hash of the event before it.
    pub version: Option<(Version, Option<Hash>)>,
}

/// The producer's part of an entry, encoded once; positions come later and may change.
#[derive(Debug, Clone)]
pub struct EncodedEnvelope {
    bytes: Vec<u8>,
    parts_at: usize,
    has_tags: bool,
}

impl EncodedEnvelope {
    /// Encodes what the producer sent, and the parts.
    pub fn new(event: &Event, parts: &[Part]) -> Self {
        // Room for the usual envelope, so that it is allocated once.
        let mut bytes = Vec::with_capacity(256);
        let parts_at = encode_envelope(event, parts, &mut bytes);
        Self { bytes, parts_at, has_tags: !event.tags().is_empty() }
    }

    /// The most bytes the entry can have, whatever its position.
    pub fn entry_bytes_max(&self) -> usize {
        entry_bytes_max(self.bytes.len())
    }

    /// Appends the entry to `out`.
    pub fn write(&self, fields: &LogFields, out: &mut Vec<u8>) {
        let Self { bytes, parts_at, has_tags } = self;
        EnvelopeRef { bytes, parts_at: *parts_at, has_tags: *has_tags }.write(fields, out);
    }
}

/// The most bytes an entry can have whose envelope has so many, whatever its position.
pub(crate) fn entry_bytes_max(envelope_len: usize) -> usize {
    LOG_FIELDS_BYTES_MAX + envelope_len
}

/// The producer's part of an entry, wherever it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnvelopeRef<'a> {
    /// Fields 4 to 6, then field 9.
    pub(crate) bytes: &'a [u8],
    /// Where field 9 begins.
    pub(crate) parts_at: usize,
    pub(crate) has_tags: bool,
}

impl EnvelopeRef<'_> {
    /// Appends the entry to `out`.
    pub(crate) fn write(&self, fields: &LogFields, out: &mut Vec<u8>) {
        let (middle, parts) = self.bytes.split_at(self.parts_at);
        let count = 6
            + u64::from(self.has_tags)
            + u64::from(!parts.is_empty())
            + fields.version.map_or(0, |(_, previous)| 1 + u64::from(previous.is_some()));
        Writer::new(out)
            .map(count)
            .uint(0)
            .uint(ENTRY_VERSION)
            .uint(1)
            .bytes(&fields.log.0)
            .uint(2)
            .uint(fields.position.0)
            .uint(3)
            .uint(fields.recorded.as_micros());
        out.extend_from_slice(middle);
        if let Some((version, previous)) = fields.version {
            let mut writer = Writer::new(out);
            writer.uint(7).uint(version.0);
            if let Some(previous) = previous {
                writer.uint(8).bytes(&previous.0);
            }
        }
        out.extend_from_slice(parts);
    }
}

/// Appends fields 4 to 6 and field 9 to `out`; answers where in them field 9 begins.
pub(crate) fn encode_envelope(event: &Event, parts: &[Part], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    encode_middle(event, out);
    let parts_at = out.len() - start;
    if !parts.is_empty() {
        encode_parts(parts, out);
    }
    parts_at
}

/// Appends what the producer sent, without the data, as it travels: a map of fields 4 to 6.
pub(crate) fn put_attributes(event: &Event, out: &mut Vec<u8>) {
    Writer::new(out).map(if event.tags().is_empty() { 2 } else { 3 });
    encode_middle(event, out);
}

/// Reads what [`put_attributes`] wrote, at most [`ENTRY_BYTES_MAX`] bytes of it, and checks it as everything a producer sends.
///
/// # Errors
/// `invalid`, or `limit_exceeded` for more than an event can have: before anything is made of it.
pub(crate) fn parse_attributes(bytes: &Bytes) -> Result<Event> {
    let refused = |problem: Problem| match problem {
        Problem::Bad(bad) => Error::invalid(format!("attributes in CBOR that are not valid: {bad}")),
        Problem::Other(error) => error,
    };
    if bytes.len() > ENTRY_BYTES_MAX {
        return Err(Error::limit("the attributes", bytes.len() as u64, ENTRY_BYTES_MAX as u64, "bytes"));
    }
    let spans = attribute_spans(&mut Reader::new(bytes)).map_err(refused)?;
    let (tags, tags_max) = (u64::from(spans.tags.0), Limits::new(Durability::None).tags_max);
    if tags > tags_max {
        return Err(Error::limit("the list of tags", tags, tags_max, "tags"));
    }
    // Type and tags are members too, as in JSON.
    let members = u64::from(spans.attributes.0) + 1 + u64::from(tags > 0);
    if members > MEMBERS_MAX {
        return Err(Error::limit("the event", members, MEMBERS_MAX, "members"));
    }
    Event::recorded(bytes.clone(), spans).into_builder().build()
}

fn attribute_spans(r: &mut Reader<'_>) -> Result<Spans, Problem> {
    let fields = r.map()?;
    let mut spans = Spans::default();
    if !(2..=3).contains(&fields) || r.uint()? != 4 {
        return Err(malformed("no type"));
    }
    spans.event_type = r.text()?;
    if r.uint()? != 5 {
        return Err(malformed("no attributes"));
    }
    attributes(r, &mut spans)?;
    if fields == 3 {
        if r.uint()? != 6 {
            return Err(malformed("an unknown field"));
        }
        tags(r, &mut spans)?;
        if spans.tags.0 == 0 {
            return Err(malformed("an empty list of tags"));
        }
    }
    if r.rest() > 0 {
        return Err(malformed("bytes behind them"));
    }
    Ok(spans)
}

/// Bytes that [`encode_envelope`] makes of an event and its data, if it has any.
pub(crate) fn envelope_len(event: &Event) -> usize {
    use crate::cbor::{head_len, text_len};
    let defined = defined(event);
    let others = event.attributes();
    let mut len = 1 + text_len(event.event_type());
    len += 1 + head_len((defined.clone().count() + others.len()) as u64);
    len += defined.map(|(name, value)| text_len(name) + text_len(value)).sum::<usize>();
    for (name, value) in others {
        len += text_len(name);
        len += match value {
            AttributeValue::String(text) => text_len(text),
            AttributeValue::Boolean(_) => 1,
            // As it is, or what -1 is more than it.
            AttributeValue::Integer(value) => head_len(u64::from((*value).max(!*value) as u32)),
        };
    }
    let tags = event.tags();
    if !tags.is_empty() {
        len += 1 + head_len(tags.len() as u64);
        len += tags.iter().map(|tag| text_len(tag.as_str())).sum::<usize>();
    }
    if let Some(data) = event.data() {
        // A list of one, a map, and what it says of name, algorithm, commitment and length.
        len += 1 + 1 + 1 + (1 + text_len(DATA_PART)) + (1 + 1) + (1 + 2 + Hash::LEN);
        len += 1 + head_len(data.len() as u64);
        len += event.attribute("dataperson").map_or(0, |scope| 1 + text_len(scope));
    }
    len
}

/// The attributes that CloudEvents defines and that an event has. Deterministic CBOR orders keys by their encoded bytes,
/// which for text means by length first.
fn defined(event: &Event) -> impl Iterator<Item = (&'static str, &str)> + Clone {
    let all = [
        ("id", Some(event.id())),
        ("time", event.time()),
        ("source", Some(event.source())),
        ("subject", event.stream()),
        ("dataschema", event.dataschema()),
        ("datacontenttype", event.datacontenttype()),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

/// Fields 4 to 6.
fn encode_middle(event: &Event, out: &mut Vec<u8>) {
    let defined = defined(event);
    let mut others: Vec<(&str, &AttributeValue)> =
        event.attributes().iter().map(|(name, value)| (name.as_str(), value)).collect();
    others.sort_unstable_by_key(|(name, _)| (name.len(), *name));
    let mut writer = Writer::new(out);
    writer.uint(4).text(event.event_type());
    writer.uint(5).map((defined.clone().count() + others.len()) as u64);
    let mut defined = defined.peekable();
    for (name, value) in others {
        while let Some((first, text)) =
            defined.next_if(|(first, _)| (first.len(), *first) < (name.len(), name))
        {
            writer.text(first).text(text);
        }
        match value {
            AttributeValue::String(text) => writer.text(name).text(text),
            AttributeValue::Boolean(value) => writer.text(name).bool(*value),
            AttributeValue::Integer(value) => writer.text(name).i32(*value),
        };
    }
    for (name, text) in defined {
        writer.text(name).text(text);
    }
    if !event.tags().is_empty() {
        writer.uint(6).array(event.tags().len() as u64);
        for tag in event.tags() {
            writer.text(tag.as_str());
        }
    }
}

/// Field 9.
fn encode_parts(parts: &[Part], out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.uint(9).array(parts.len() as u64);
    for part in parts {
        writer.map(4 + u64::from(part.scope.is_some()));
        writer.uint(0).text(&part.name);
        writer.uint(1).uint(HMAC_SHA256);
        writer.uint(2).bytes(&part.commitment.0);
        writer.uint(3).uint(part.length);
        if let Some(scope) = &part.scope {
            writer.uint(4).text(scope);
        }
    }
}

impl Entry {
    /// Decodes an entry. Bytes that are not one are [`ErrorKind::Damaged`]; an entry of a later version is
    /// [`ErrorKind::UnsupportedFormat`]. Allocates no more than a small multiple of `bytes.len()`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_shared(&Bytes::copy_from_slice(bytes))
    }

    /// As [`Self::decode`]; the event keeps hold of `bytes` and finds its attributes there.
    pub fn decode_shared(bytes: &Bytes) -> Result<Self> {
        let outline = Outline::of(bytes)?;
        let parts = outline.parts(bytes)?;
        Ok(Self {
            log: outline.log,
            position: outline.position,
            recorded: outline.recorded,
            version: outline.version,
            previous: Hash::from_slice(outline.previous.of(bytes)),
            event: Event::recorded(bytes.clone(), outline.spans),
            parts,
        })
    }

    /// Whether `bytes`, from which this entry was decoded, are the one canonical encoding of it.
    pub fn is_canonical(&self, bytes: &[u8]) -> bool {
        let mut again = Vec::with_capacity(bytes.len());
        let fields = LogFields {
            log: self.log,
            position: self.position,
            recorded: self.recorded,
            version: self.version.map(|version| (version, self.previous)),
        };
        EncodedEnvelope::new(&self.event, &self.parts).write(&fields, &mut again);
        again == bytes
    }
}

/// An entry of which every byte was looked at, its texts and parts left where they are: what a read needs, found
/// without allocating.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) struct Outline {
    pub(crate) log: LogId,
    pub(crate) position: Position,
    pub(crate) recorded: Time,
    pub(crate) version: Option<Version>,
    /// Where the leaf hash of the stream's previous event is, if there is one.
    pub(crate) previous: Span,
    pub(crate) spans: Spans,
    /// The number of parts, and where the first begins.
    pub(crate) parts: (u16, u16),
    /// The length of the one part there is, if it is the data.
    pub(crate) only_data: Option<u64>,
}

/// What an entry stores beside itself, as far as the common cases go.
pub(crate) enum Content {
    /// Nothing.
    None,
    /// Data of this many bytes.
    Data(u64),
    /// Something else, or more.
    Other,
}

impl Outline {
    /// Checks that `bytes` are an entry, and finds what is where in them.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Error::damaged(format!(
                "an entry of {} bytes, at most {ENTRY_BYTES_MAX}",
                bytes.len()
            )));
        }
        match usual::outline(bytes) {
            Some(outline) => Ok(outline),
            None => Self::of_any(bytes),
        }
    }

    /// As [`Self::of`], of whatever an entry can be, and with the reason why it is none.
    pub(crate) fn of_any(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let outline = outline(&mut reader).map_err(|problem| match problem {
            Problem::Bad(bad) => Error::damaged(format!("an entry that is not valid: {bad}")),
            Problem::Other(error) => error,
        })?;
        match reader.rest() {
            0 => Ok(outline),
            rest => Err(Error::damaged(format!("an entry followed by {rest} bytes that are not part of it"))),
        }
    }

    /// The event of this entry, which has these bytes, with its data.
    pub(crate) fn recorded(self, entry: Bytes, data: Option<Bytes>) -> RecordedEvent {
        let mut event = Event::recorded(entry.clone(), self.spans);
        event.data = data;
        RecordedEvent {
            log: self.log,
            position: self.position,
            version: self.version,
            recorded: self.recorded,
            event,
            erased: false,
            entry,
        }
    }

    /// The place in the log.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// What the entry says is stored beside it.
    pub(crate) fn content(&self) -> Content {
        match (self.parts, self.only_data) {
            ((0, _), _) => Content::None,
            (_, Some(length)) => Content::Data(length),
            _ => Content::Other,
        }
    }

    /// The parts, from the bytes this is the outline of.
    fn parts(&self, bytes: &[u8]) -> Result<Vec<Part>> {
        let (count, at) = self.parts;
        let mut reader = Reader::at(bytes, usize::from(at));
        let checked = || Error::damaged("an entry whose parts are not valid");
        // Every part takes more than a byte, so this is bounded by the entry.
        let mut parts = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let part = part(&mut reader).map_err(|_| checked())?;
            let text = |span: Span| span.text(bytes).ok_or_else(checked);
            let name = match text(part.name)? {
                DATA_PART => Cow::Borrowed(DATA_PART),
                other => Cow::Owned(other.to_owned()),
            };
            let scope = part.scope.map(|scope| text(scope).map(str::to_owned)).transpose()?;
            if parts.iter().any(|other: &Part| other.name == name) {
                return Err(Error::damaged(format!("an entry with two parts named '{name}'")));
            }
            parts.push(Part { name, commitment: part.commitment, length: part.length, scope });
        }
        Ok(parts)
    }
}

enum Problem {
    Bad(Bad),
    Other(Error),
}

impl From<Bad> for Problem {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn malformed(what: &'static str) -> Problem {
    Problem::Bad(Bad(what))
}

fn hash(r: &mut Reader<'_>) -> Result<Hash, Problem> {
    Hash::from_slice(r.bytes()?).ok_or_else(|| malformed("a hash that has not 32 bytes"))
}

fn outline(r: &mut Reader<'_>) -> Result<Outline, Problem> {
    let fields = r.map()?;
    if fields == 0 || r.uint()? != 0 {
        return Err(malformed("no version"));
    }
    let version = r.uint()?;
    if version != ENTRY_VERSION {
        let message = format!("an entry of version {version}; this program reads version {ENTRY_VERSION}");
        return Err(Error::new(ErrorKind::UnsupportedFormat, message).into());
    }
    let (mut log, mut position, mut recorded) = (None, None, None);
    let (mut stream_version, mut previous) = (None, Span::default());
    let (mut spans, mut parts, mut only_data) = (Spans::default(), (0, 0), None);
    let mut last_key = 0;
    for _ in 1..fields {
        let key = r.uint()?;
        if key <= last_key {
            return Err(malformed("fields out of order"));
        }
        last_key = key;
        match key {
            1 => {
                let id = LogId::from_slice(r.bytes()?);
                log = Some(id.ok_or_else(|| malformed("a log id that has not 16 bytes"))?);
            }
            2 => position = Some(Position(r.uint()?)),
            3 => recorded = Some(Time::from_micros(r.uint()?)?),
            4 => spans.event_type = r.text()?,
            5 => attributes(r, &mut spans)?,
            6 => {
                let invalid = |e| Problem::from(Error::context(e, "an entry that is not valid"));
                tags(r, &mut spans).map_err(|problem| match problem {
                    Problem::Other(error) => invalid(error),
                    bad => bad,
                })?;
            }
            7 => stream_version = Some(Version(r.uint()?)),
            8 => {
                hash(r)?;
                previous = Span::new(r.position() - Hash::LEN, Hash::LEN);
            }
            9 => {
                parts = counted(r.array()?, r);
                for _ in 0..parts.0 {
                    let part = part(r)?;
                    only_data = (parts.0 == 1 && r.bytes_of(part.name) == DATA_PART.as_bytes())
                        .then_some(part.length);
                }
            }
            _ => return Err(malformed("an unknown field")),
        }
    }
    let missing = || malformed("a field is missing");
    if spans.event_type.is_none() || spans.id.is_none() {
        return Err(missing());
    }
    if stream_version.is_some() == spans.stream.is_none() || (!previous.is_none() && stream_version.is_none())
    {
        return Err(malformed("a version without a stream, or a stream without a version"));
    }
    Ok(Outline {
        log: log.ok_or_else(missing)?,
        position: position.ok_or_else(missing)?,
        recorded: recorded.ok_or_else(missing)?,
        version: stream_version,
        previous,
        spans,
        parts,
        only_data,
    })
}

/// So many items that follow, which take no less than a byte each, and where they begin.
fn counted(count: u64, r: &Reader<'_>) -> (u16, u16) {
    (count as u16, r.position() as u16)
}

fn tags(r: &mut Reader<'_>, spans: &mut Spans) -> Result<(), Problem> {
    spans.tags = counted(r.array()?, r);
    for _ in 0..spans.tags.0 {
        let tag = r.text()?;
        Tag::check(r.text_of(tag))?;
    }
    Ok(())
}

fn attributes(r: &mut Reader<'_>, spans: &mut Spans) -> Result<(), Problem> {
    let count = r.map()?;
    let mut last: &[u8] = &[];
    spans.attributes = counted(count, r);
    for _ in 0..count {
        let name = r.text()?;
        let name = r.bytes_of(name);
        if (last.len(), last) >= (name.len(), name) {
            return Err(malformed("attributes that are out of order, or there twice"));
        }
        last = name;
        match name {
            b"id" => spans.id = r.text()?,
            b"source" => spans.source = r.text()?,
            b"subject" => spans.stream = r.text()?,
            b"time" => spans.time = r.text()?,
            b"datacontenttype" => spans.datacontenttype = r.text()?,
            b"dataschema" => spans.dataschema = r.text()?,
            _ => {
                spans.has_extensions = true;
                match r.kind()? {
                    Kind::Text => drop(r.text()?),
                    Kind::Bool => drop(r.bool()?),
                    _ => drop(r.i32()?),
                }
            }
        }
    }
    if spans.id.is_none() {
        return Err(malformed("no id"));
    }
    if spans.source.is_none() {
        return Err(malformed("no source"));
    }
    Ok(())
}

/// A part, its texts left where they are.
struct PartOutline {
    name: Span,
    commitment: Hash,
    length: u64,
    scope: Option<Span>,
}

fn part(r: &mut Reader<'_>) -> Result<PartOutline, Problem> {
    let (mut name, mut algorithm, mut commitment, mut length, mut scope) = (None, None, None, None, None);
    let mut next_key = 0;
    for _ in 0..r.map()? {
        let key = r.uint()?;
        if key < next_key {
            return Err(malformed("fields of a part out of order"));
        }
        next_key = key.saturating_add(1);
        match key {
            0 => name = Some(r.text()?),
            1 => algorithm = Some(r.uint()?),
            2 => commitment = Some(hash(r)?),
            3 => length = Some(r.uint()?),
            4 => scope = Some(r.text()?),
            _ => return Err(malformed("an unknown field of a part")),
        }
    }
    if algorithm != Some(HMAC_SHA256) {
        return Err(malformed("an unknown commitment algorithm"));
    }
    let missing = || malformed("a field of a part is missing");
    Ok(PartOutline {
        name: name.ok_or_else(missing)?,
        commitment: commitment.ok_or_else(missing)?,
        length: length.ok_or_else(missing)?,
        scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> (Event, Vec<Part>, LogFields) {
        let event = Event::builder("urn:s", "1", "ai.decision.made")
            .stream("loan/1")
            .time("2026-11-22T10:00:00+01:00")
            .tag("model", "risk-7")
            .attribute("zebra", 7)
            .attribute("ab", true)
            .attribute("traceparent", "x")
            .build()
            .unwrap();
        let parts = vec![Part {
            name: DATA_PART.into(),
            commitment: Hash([7; 32]),
            length: 12,
            scope: Some("person-1".into()),
        }];
        let fields = LogFields {
            log: LogId([1; 16]),
            position: Position(300),
            recorded: Time::from_micros(1_800_000_000_000_000).unwrap(),
            version: Some((Version(2), Some(Hash([9; 32])))),
        };
        (event, parts, fields)
    }

    fn encode(event: &Event, parts: &[Part], fields: &LogFields) -> Vec<u8> {
        let mut bytes = Vec::new();
        let envelope = EncodedEnvelope::new(event, parts);
        envelope.write(fields, &mut bytes);
        assert!(bytes.len() <= envelope.entry_bytes_max());
        bytes
    }

    #[test]
    fn an_entry_comes_back_as_it_was_and_is_canonical() {
        let (event, parts, fields) = sample();
        let bytes = encode(&event, &parts, &fields);
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!((&entry.event, &entry.parts), (&event, &parts));
        assert_eq!((entry.version, entry.previous), (Some(Version(2)), Some(Hash([9; 32]))));
        assert!(entry.is_canonical(&bytes));

        let plain = Event::builder("s", "i", "t").build().unwrap();
        let bytes = encode(&plain, &[], &LogFields { version: None, ..fields });
        assert_eq!(Entry::decode(&bytes).unwrap().event, plain);
    }

    #[test]
    fn the_length_of_an_envelope_is_known_before_it_is_encoded() {
        let numbers = [0, 23, 24, 255, 256, 65_535, 65_536, i32::MAX, -1, -24, -25, -256, -257, i32::MIN];
        let lengths = [0, 1, 23, 24, 255, 256, 70_000];
        for (number, len) in numbers.into_iter().flat_map(|number| lengths.map(|len| (number, len))) {
            let text = "x".repeat(len);
            let base = Event::builder("s", format!("i{text}"), "t").attribute("number", number);
            let full = base.clone().stream("s").time("2026-11-22T10:00:00Z").dataschema("d").json(&text);
            let full = full.tag("k", "v").attribute("text", text.as_str()).attribute("dataperson", "p");
            let tags = (0..len.min(300)).fold(base.clone(), |event, n| event.tag("k", &n.to_string()));
            let none = base.clone().attribute("no", false);
            for event in [base.data(text), full, tags, none].map(|event| event.build().unwrap()) {
                let part = event.data().map(|data| Part {
                    name: DATA_PART.into(),
                    commitment: Hash::ZERO,
                    length: data.len() as u64,
                    scope: event.attribute("dataperson").map(str::to_owned),
                });
                let mut out = Vec::new();
                encode_envelope(&event, part.as_slice(), &mut out);
                assert_eq!(envelope_len(&event), out.len(), "{event:?}");
            }
        }
    }

    #[test]
    fn mutated_entries_are_refused_or_decode_without_harm() {
        let (event, parts, fields) = sample();
        let bytes = encode(&event, &parts, &fields);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                if let Ok(entry) = Entry::decode(&bad) {
                    assert!(!entry.is_canonical(&bytes), "byte {at} does not matter");
                }
            }
            assert!(Entry::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(Entry::decode(&long).is_err());
        // A length that claims far more than there is allocates nothing.
        assert!(Entry::decode(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}

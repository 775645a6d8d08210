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

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use crate::error::{Error, ErrorKind, Result};
use crate::event::{AttributeValue, Event, Tag};
use crate::ids::{Hash, LogId, Position, Time, Version};

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
    pub name: String,
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

/// The producer's part of an entry, encoded once on the caller's thread; positions come later and may change.
#[derive(Debug, Clone)]
pub struct EncodedEnvelope {
    /// Fields 4 to 6.
    middle: Vec<u8>,
    /// Field 9.
    parts: Vec<u8>,
    has_tags: bool,
    has_parts: bool,
}

impl EncodedEnvelope {
    /// Encodes what the producer sent, and the parts.
    pub fn new(event: &Event, parts: &[Part]) -> Self {
        let mut middle = Encoder::new(Vec::with_capacity(256));
        encode_middle(&mut middle, event).expect("a vector takes everything");
        let mut encoded_parts = Encoder::new(Vec::with_capacity(64));
        if !parts.is_empty() {
            encode_parts(&mut encoded_parts, parts).expect("a vector takes everything");
        }
        Self {
            middle: middle.into_writer(),
            parts: encoded_parts.into_writer(),
            has_tags: !event.tags.is_empty(),
            has_parts: !parts.is_empty(),
        }
    }

    /// The most bytes the entry can have, whatever its position.
    pub fn entry_bytes_max(&self) -> usize {
        LOG_FIELDS_BYTES_MAX + self.middle.len() + self.parts.len()
    }

    /// Appends the entry to `out`.
    pub fn write(&self, fields: &LogFields, out: &mut Vec<u8>) {
        let count = 6
            + u64::from(self.has_tags)
            + u64::from(self.has_parts)
            + fields.version.map_or(0, |(_, previous)| 1 + u64::from(previous.is_some()));
        let infallible = "a vector takes everything";
        let mut e = Encoder::new(&mut *out);
        e.map(count).expect(infallible);
        e.u8(0).and_then(|e| e.u64(ENTRY_VERSION)).expect(infallible);
        e.u8(1).and_then(|e| e.bytes(&fields.log.0)).expect(infallible);
        e.u8(2).and_then(|e| e.u64(fields.position.0)).expect(infallible);
        e.u8(3).and_then(|e| e.u64(fields.recorded.as_micros())).expect(infallible);
        out.extend_from_slice(&self.middle);
        if let Some((version, previous)) = fields.version {
            let mut e = Encoder::new(&mut *out);
            e.u8(7).and_then(|e| e.u64(version.0)).expect(infallible);
            if let Some(previous) = previous {
                e.u8(8).and_then(|e| e.bytes(&previous.0)).expect(infallible);
            }
        }
        out.extend_from_slice(&self.parts);
    }
}

type EncodeResult = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn encode_middle(e: &mut Encoder<Vec<u8>>, event: &Event) -> EncodeResult {
    e.u8(4)?.str(&event.event_type)?;
    let defined = [
        ("id", Some(&event.id)),
        ("source", Some(&event.source)),
        ("subject", event.stream.as_ref()),
        ("time", event.time.as_ref()),
        ("datacontenttype", event.datacontenttype.as_ref()),
        ("dataschema", event.dataschema.as_ref()),
    ];
    enum Value<'a> {
        Text(&'a str),
        Other(&'a AttributeValue),
    }
    let mut all: Vec<(&str, Value<'_>)> = defined
        .into_iter()
        .filter_map(|(name, value)| Some((name, Value::Text(value?))))
        .chain(event.attributes.iter().map(|(name, value)| (name.as_str(), Value::Other(value))))
        .collect();
    // Deterministic CBOR orders keys by their encoded bytes, which for text means by length first.
    all.sort_unstable_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
    e.u8(5)?.map(all.len() as u64)?;
    for (name, value) in all {
        e.str(name)?;
        match value {
            Value::Text(text) => e.str(text)?,
            Value::Other(AttributeValue::String(text)) => e.str(text)?,
            Value::Other(AttributeValue::Boolean(value)) => e.bool(*value)?,
            Value::Other(AttributeValue::Integer(value)) => e.i32(*value)?,
        };
    }
    if !event.tags.is_empty() {
        e.u8(6)?.array(event.tags.len() as u64)?;
        for tag in &event.tags {
            e.str(tag.as_str())?;
        }
    }
    Ok(())
}

fn encode_parts(e: &mut Encoder<Vec<u8>>, parts: &[Part]) -> EncodeResult {
    e.u8(9)?.array(parts.len() as u64)?;
    for part in parts {
        e.map(4 + u64::from(part.scope.is_some()))?;
        e.u8(0)?.str(&part.name)?;
        e.u8(1)?.u64(HMAC_SHA256)?;
        e.u8(2)?.bytes(&part.commitment.0)?;
        e.u8(3)?.u64(part.length)?;
        if let Some(scope) = &part.scope {
            e.u8(4)?.str(scope)?;
        }
    }
    Ok(())
}

impl Entry {
    /// Decodes an entry. Bytes that are not one are [`ErrorKind::Damaged`]; an entry of a later version is
    /// [`ErrorKind::UnsupportedFormat`]. Allocates no more than a small multiple of `bytes.len()`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Error::damaged(format!(
                "an entry of {} bytes, at most {ENTRY_BYTES_MAX}",
                bytes.len()
            )));
        }
        let mut decoder = Decoder::new(bytes);
        let entry = decode(&mut decoder).map_err(|problem| match problem {
            Problem::Cbor(e) => Error::damaged(format!("an entry that is not valid: {e}")),
            Problem::Other(e) => e,
        })?;
        if decoder.position() != bytes.len() {
            let rest = bytes.len() - decoder.position();
            return Err(Error::damaged(format!("an entry followed by {rest} bytes that are not part of it")));
        }
        Ok(entry)
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

enum Problem {
    Cbor(minicbor::decode::Error),
    Other(Error),
}

impl From<minicbor::decode::Error> for Problem {
    fn from(e: minicbor::decode::Error) -> Self {
        Self::Cbor(e)
    }
}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

fn malformed(what: &str) -> Problem {
    Problem::Other(Error::damaged(format!("an entry that is not valid: {what}")))
}

/// The length of a map or array; one of indefinite length is not deterministic.
fn definite(len: Option<u64>) -> Result<u64, Problem> {
    len.ok_or_else(|| malformed("indefinite length"))
}

fn hash(d: &mut Decoder<'_>) -> Result<Hash, Problem> {
    Hash::from_slice(d.bytes()?).ok_or_else(|| malformed("a hash that has not 32 bytes"))
}

fn decode(d: &mut Decoder<'_>) -> Result<Entry, Problem> {
    let fields = definite(d.map()?)?;
    if fields == 0 || d.u64()? != 0 {
        return Err(malformed("no version"));
    }
    let version = d.u64()?;
    if version != ENTRY_VERSION {
        let message = format!("an entry of version {version}; this program reads version {ENTRY_VERSION}");
        return Err(Error::new(ErrorKind::UnsupportedFormat, message).into());
    }
    let (mut log, mut position, mut recorded, mut event_type) = (None, None, None, None);
    let (mut event, mut tags, mut stream_version, mut previous, mut parts) =
        (None, Vec::new(), None, None, Vec::new());
    let mut last_key = 0;
    for _ in 1..fields {
        let key = d.u64()?;
        if key <= last_key {
            return Err(malformed("fields out of order"));
        }
        last_key = key;
        match key {
            1 => {
                log = Some(
                    LogId::from_slice(d.bytes()?)
                        .ok_or_else(|| malformed("a log id that has not 16 bytes"))?,
                )
            }
            2 => position = Some(Position(d.u64()?)),
            3 => recorded = Some(Time::from_micros(d.u64()?)?),
            4 => event_type = Some(d.str()?.to_owned()),
            5 => event = Some(decode_attributes(d)?),
            6 => {
                for _ in 0..definite(d.array()?)? {
                    tags.push(d.str()?.parse::<Tag>().map_err(|e| malformed(e.message()))?);
                }
            }
            7 => stream_version = Some(Version(d.u64()?)),
            8 => previous = Some(hash(d)?),
            9 => {
                for _ in 0..definite(d.array()?)? {
                    parts.push(decode_part(d)?);
                }
            }
            other => return Err(malformed(&format!("unknown field {other}"))),
        }
    }
    let missing = || malformed("a field is missing");
    let mut event: Event = event.ok_or_else(missing)?;
    event.event_type = event_type.ok_or_else(missing)?;
    event.tags = tags;
    if stream_version.is_some() != event.stream.is_some() || (previous.is_some() && stream_version.is_none())
    {
        return Err(malformed("a version without a stream, or a stream without a version"));
    }
    Ok(Entry {
        log: log.ok_or_else(missing)?,
        position: position.ok_or_else(missing)?,
        recorded: recorded.ok_or_else(missing)?,
        version: stream_version,
        previous,
        event,
        parts,
    })
}

fn decode_attributes(d: &mut Decoder<'_>) -> Result<Event, Problem> {
    let (mut id, mut source) = (None, None);
    let (mut stream, mut time, mut datacontenttype, mut dataschema) = (None, None, None, None);
    let mut attributes = BTreeMap::new();
    for _ in 0..definite(d.map()?)? {
        let name = d.str()?;
        match name {
            "id" => id = Some(d.str()?.to_owned()),
            "source" => source = Some(d.str()?.to_owned()),
            "subject" => stream = Some(d.str()?.to_owned()),
            "time" => time = Some(d.str()?.to_owned()),
            "datacontenttype" => datacontenttype = Some(d.str()?.to_owned()),
            "dataschema" => dataschema = Some(d.str()?.to_owned()),
            _ => {
                let value = match d.datatype()? {
                    Type::Bool => AttributeValue::Boolean(d.bool()?),
                    Type::String => AttributeValue::String(d.str()?.to_owned()),
                    _ => AttributeValue::Integer(d.i32()?),
                };
                if attributes.insert(name.to_owned(), value).is_some() {
                    return Err(malformed("an attribute twice"));
                }
            }
        }
    }
    Ok(Event {
        id: id.ok_or_else(|| malformed("no id"))?,
        source: source.ok_or_else(|| malformed("no source"))?,
        event_type: String::new(),
        stream,
        time,
        datacontenttype,
        dataschema,
        tags: Vec::new(),
        attributes,
        data: None,
    })
}

fn decode_part(d: &mut Decoder<'_>) -> Result<Part, Problem> {
    let (mut name, mut algorithm, mut commitment, mut length, mut scope) = (None, None, None, None, None);
    for _ in 0..definite(d.map()?)? {
        match d.u64()? {
            0 => name = Some(d.str()?.to_owned()),
            1 => algorithm = Some(d.u64()?),
            2 => commitment = Some(hash(d)?),
            3 => length = Some(d.u64()?),
            4 => scope = Some(d.str()?.to_owned()),
            other => return Err(malformed(&format!("unknown field {other} of a part"))),
        }
    }
    if algorithm != Some(HMAC_SHA256) {
        return Err(malformed("an unknown commitment algorithm"));
    }
    let missing = || malformed("a field of a part is missing");
    Ok(Part {
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

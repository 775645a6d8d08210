//! The texts in a document: strings of JSON, texts of an OTLP request, and the strings of a stream that continue each other.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Rules;
use super::joined::Joined;
use crate::json;
use crate::wire::{Fields, Wire};

/// How deep messages are followed; the text of what is deeper is looked at as one.
const DEPTH_MAX: usize = 100;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The name of something. Only patterns apply, since hiding it would change the structure.
    Name,
    /// Any text.
    Text,
    /// The query of a URL.
    Query,
    /// The value of a hidden header.
    Header,
}

/// The contents of the strings of a JSON document, without their quotes.
pub(super) fn of_json(data: &[u8], rules: &Rules) -> Vec<(Range<usize>, Holds)> {
    let mut texts: Vec<(Range<usize>, Holds)> = Vec::new();
    let mut at = 0usize;
    // For each object and list around this place: the first of its texts, and what it holds.
    let mut around: Vec<(usize, Holds)> = Vec::new();
    let mut member: Option<Range<usize>> = None;
    while let Some(&byte) = data.get(at) {
        let holds = around.last().map_or(Holds::Text, |(_, holds)| *holds);
        match byte {
            b'"' => {
                let start = at + 1;
                let mut end = start;
                while let Some(&b) = data.get(end) {
                    match b {
                        b'"' => break,
                        b'\\' => end += 2,
                        _ => end += 1,
                    }
                }
                let end = end.min(data.len());
                at = end + 1;
                let after = data.get(at..).unwrap_or_default();
                if after.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':') {
                    member = Some(start..end);
                    texts.push((start..end, Holds::Name));
                    continue;
                }
                let name = member.take().map(|name| &data[name]);
                let own = if name.is_some_and(|name| rules.hides_name(name)) { Holds::Header } else { holds };
                texts.push((start..end, own));
                // An attribute of OTLP names itself beside its value, before or after it.
                if name == Some(b"key".as_slice())
                    && holds == Holds::Text
                    && let Some((first, around)) = around.last_mut()
                {
                    *around = rules.attribute_holds(&data[start..end]);
                    if *around != Holds::Text {
                        let last = texts.len() - 1;
                        texts[*first..last]
                            .iter_mut()
                            .filter(|(_, of)| *of == Holds::Text)
                            .for_each(|(_, of)| *of = *around);
                        texts[last].1 = Holds::Name;
                    }
                }
                continue;
            }
            b'[' => {
                let named = member.take().is_some_and(|name| rules.hides_name(&data[name]));
                around.push((texts.len(), if named { Holds::Header } else { holds }));
            }
            b'{' => {
                // The list of a header's values holds texts; an object of that name is something else, such as a schema.
                member = None;
                around.push((texts.len(), holds));
            }
            b'}' | b']' => {
                around.pop();
                member = None;
            }
            b',' => member = None,
            _ => {}
        }
        at += 1;
    }
    texts
}

/// The messages of OTLP that hold text, or hold one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    OfResource,
    Resource,
    OfScope,
    Scope,
    Record,
    Event,
    Link,
    Status,
    KeyValue,
    Any,
    ArrayValue,
    KvList,
}

enum Child {
    Message(Message),
    Text,
    /// Bytes that are no text: ids.
    Skip,
}

impl Message {
    /// What a field of this message holds. Spans and log records have no number in common that means two different
    /// kinds of thing, but for 5 and 9: name and body, attributes and trace id.
    fn child(self, number: u32, bytes: &[u8]) -> Child {
        use Child::{Message as M, Skip, Text};
        match (self, number) {
            (Self::Request, 1) => M(Self::OfResource),
            (Self::OfResource, 1) => M(Self::Resource),
            (Self::OfResource, 2) => M(Self::OfScope),
            (Self::OfScope, 1) => M(Self::Scope),
            (Self::OfScope, 2) => M(Self::Record),
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Event, 3) => M(Self::KeyValue),
            (Self::Link, 4) => M(Self::KeyValue),
            (Self::Link, 1 | 2) => Skip,
            (Self::Record, 1 | 2 | 4 | 10) => Skip,
            (Self::Record, 5) if is_any(bytes) => M(Self::Any),
            (Self::Record, 6) => M(Self::KeyValue),
            (Self::Record, 9) if bytes.len() != 16 || is_pair(bytes) => M(Self::KeyValue),
            (Self::Record, 9) => Skip,
            (Self::Record, 11) => M(Self::Event),
            (Self::Record, 13) => M(Self::Link),
            (Self::Record, 15) => M(Self::Status),
            (Self::KeyValue, 2) => M(Self::Any),
            (Self::Any, 5) => M(Self::ArrayValue),
            (Self::Any, 6) => M(Self::KvList),
            (Self::ArrayValue, 1) => M(Self::Any),
            (Self::KvList, 1) => M(Self::KeyValue),
            _ => Text,
        }
    }
}

/// Whether these bytes are an `AnyValue` rather than a name.
fn is_any(bytes: &[u8]) -> bool {
    let mut fields = Fields::new(bytes);
    fields.all(|field| field.is_ok_and(|f| (1..=8).contains(&f.number)))
}

/// Whether these bytes are a `KeyValue` rather than an id.
fn is_pair(bytes: &[u8]) -> bool {
    let mut fields = Fields::new(bytes);
    fields.all(|field| field.is_ok_and(|f| f.number <= 2 && f.value.bytes().is_some()))
}

/// What the value of a `KeyValue` holds, by its key, wherever that stands in it.
fn named(rules: &Rules, pair: &[u8]) -> Holds {
    let keys = Fields::new(pair).flatten().filter(|field| field.number == 1);
    let last = keys.filter_map(|field| field.value.bytes()).last();
    last.map_or(Holds::Text, |key| rules.attribute_holds(key))
}

/// The ranges of all texts in a message.
pub(super) fn of_otlp(
    rules: &Rules,
    data: &[u8],
    range: Range<usize>,
    message: Message,
    holds: Holds,
    depth: usize,
    out: &mut Vec<(Range<usize>, Holds)>,
) {
    let mut at = range.start;
    let holds = match (message, holds) {
        (Message::KeyValue, Holds::Text) => named(rules, &data[range.clone()]),
        (_, holds) => holds,
    };
    for field in Fields::new(&data[range]) {
        let Ok(field) = field else { return };
        at += field.raw.len();
        let Wire::Bytes(bytes) = field.value else { continue };
        let inner = at - bytes.len()..at;
        match message.child(field.number, bytes) {
            Child::Skip => {}
            Child::Message(child) if depth < DEPTH_MAX => {
                of_otlp(rules, data, inner, child, holds, depth + 1, out);
            }
            Child::Message(_) | Child::Text => {
                let is_key = message == Message::KeyValue && field.number == 1;
                out.push((inner, if is_key { Holds::Name } else { holds }));
            }
        }
    }
}

/// Members of the pieces of a stream that say the same in every piece.
const REPEATED: [&str; 9] =
    ["id", "item_id", "model", "modelVersion", "object", "obfuscation", "role", "system_fingerprint", "type"];

/// How deep the documents of a stream are followed.
const STREAM_DEPTH_MAX: usize = 24;

/// Bytes of a stream that are looked at in one go, and how far two such looks overlap.
const STREAM_BYTES: usize = 4 << 20;
const STREAM_OVERLAP: usize = 256 << 10;

/// The texts of a streamed body that continue each other: strings at the same place of one document after the other, be they events,
/// lines or elements of a list. Lists count as one place, unless their elements say their `index`. Answers where to go on, too; a
/// single document is looked at only if it is no longer than one look.
pub(super) fn of_stream(data: &[u8], from: usize) -> (Vec<Joined>, Option<usize>) {
    let mut found: BTreeMap<u64, Joined> = BTreeMap::new();
    let mut document = |range: Range<usize>| {
        let Ok(text) = std::str::from_utf8(&data[range.clone()]) else { return };
        let start = range.start + (text.len() - text.trim_ascii_start().len());
        let text = text.trim_ascii();
        if text.starts_with(['{', '[']) && json::is_json(text) {
            follow(text, start, 0, 0, &mut |place, range| found.entry(place).or_default().add(data, range));
        }
    };
    let is_end = |b: &u8| *b == b'\n' || *b == b'\r';
    let first = data[from..].iter().find(|b| !b.is_ascii_whitespace());
    // A list goes over lines; objects do too, but then they are one answer and no stream.
    if from == 0 && data.len() <= STREAM_BYTES && first == Some(&b'[') {
        document(0..data.len());
    } else {
        let mut at = from;
        while at < data.len() {
            let end = data[at..].iter().position(is_end).map_or(data.len(), |len| at + len);
            let field = if data[at..end].starts_with(b"data:") { 5 } else { 0 };
            document(at + field..end);
            at = end + 1;
            if at < data.len() && at - from >= STREAM_BYTES {
                let back = at - STREAM_OVERLAP;
                let line = data[back..at].iter().position(is_end).map_or(at, |len| back + len + 1);
                return (found.into_values().collect(), Some(line));
            }
        }
    }
    (found.into_values().collect(), None)
}

fn follow(value: &str, offset: usize, place: u64, depth: usize, found: &mut dyn FnMut(u64, Range<usize>)) {
    let inner = |part: &str| offset + (part.as_ptr() as usize - value.as_ptr() as usize);
    match value.as_bytes().first() {
        Some(b'"') if value.len() > 2 => found(place, offset + 1..offset + value.len() - 1),
        Some(b'[') if depth < STREAM_DEPTH_MAX => {
            json::elements(value)
                .for_each(|element| follow(element, inner(element), place, depth + 1, found));
        }
        Some(b'{') if depth < STREAM_DEPTH_MAX => {
            let mut place = place;
            for (name, number) in json::members(value) {
                if matches!(&*name, "index" | "output_index" | "content_index" | "summary_index") {
                    place = mixed(mixed(place, name.as_bytes()), number.as_bytes());
                }
            }
            for (name, member) in json::members(value).filter(|(name, _)| !REPEATED.contains(&&**name)) {
                follow(member, inner(member), mixed(place, name.as_bytes()), depth + 1, found);
            }
        }
        _ => {}
    }
}

/// FNV-1a. Two places that fall together only mean that their texts are looked at together.
fn mixed(place: u64, bytes: &[u8]) -> u64 {
    let start = place ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start.wrapping_mul(0x0100_0000_01b3), |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

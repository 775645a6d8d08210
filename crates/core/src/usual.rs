//! The quick way through an entry as nearly all are: every text ASCII, every attribute a text, no part but the data.
//!
//! Its fields can only come in one order, so that this is compared and not searched. Of whatever is different nothing is
//! said: then the entry is looked at item by item, which also tells what is wrong. What is found here, that finds too.

use crate::cbor::Span;
use crate::entry::Outline;
use crate::event::{Spans, Tag};
use crate::ids::{Hash, LogId, Position, Time, Version};

const ARRAY: u8 = 0x80;
const MAP: u8 = 0xa0;

/// What [`Outline::of`] finds in at most 65,535 bytes, if they are a usual entry.
pub(crate) fn outline(bytes: &[u8]) -> Option<Outline> {
    let mut r = Usual { bytes, at: 0 };
    let fields = r.count(MAP)?;
    // The version of the entry; a log id of 16 bytes.
    r.next(&[0, 1, 1, 0x50])?;
    let log = LogId(*r.take()?);
    r.next(&[2])?;
    let position = Position(r.uint()?);
    r.next(&[3])?;
    let recorded = Time::from_micros(r.uint()?).ok()?;
    r.next(&[4])?;
    let texts_at = r.at;
    let mut spans = Spans { event_type: r.text()?, ..Spans::default() };
    r.all_ascii(texts_at)?;
    r.next(&[5])?;
    attributes(&mut r, &mut spans)?;
    let mut seen = 6;
    if r.next(&[6]).is_some() {
        seen += 1;
        spans.tags = (r.count(ARRAY)?, r.at as u16);
        for _ in 0..spans.tags.0 {
            Tag::check(r.text()?.text(bytes)?).ok()?;
        }
        r.all_ascii(usize::from(spans.tags.1))?;
    }
    let (mut version, mut previous) = (None, Span::default());
    if r.next(&[7]).is_some() {
        seen += 1;
        version = Some(Version(r.uint()?));
        if r.next(&[8]).is_some() {
            seen += 1;
            previous = r.hash()?;
        }
    }
    let (mut parts, mut only_data) = ((0, 0), None);
    if r.next(&[9, ARRAY | 1]).is_some() {
        seen += 1;
        parts = (1, r.at as u16);
        let members = r.count(MAP)?;
        r.next(b"\x00\x64data\x01\x01\x02")?;
        r.hash()?;
        r.next(&[3])?;
        only_data = Some(r.uint()?);
        match members {
            4 => {}
            5 => {
                r.next(&[4])?;
                let texts_at = r.at;
                r.text()?;
                r.all_ascii(texts_at)?;
            }
            _ => return None,
        }
    }
    let whole = r.at == bytes.len() && seen == fields && version.is_some() != spans.stream.is_none();
    whole.then_some(Outline { log, position, recorded, version, previous, spans, parts, only_data })
}

fn attributes(r: &mut Usual<'_>, spans: &mut Spans) -> Option<()> {
    let count = r.count(MAP)?;
    spans.attributes = (count, r.at as u16);
    let mut last: &[u8] = &[];
    for _ in 0..count {
        let name = r.text()?.of(r.bytes);
        if (last.len(), last) >= (name.len(), name) {
            return None;
        }
        last = name;
        let value = r.text()?;
        match name {
            b"id" => spans.id = value,
            b"source" => spans.source = value,
            b"subject" => spans.stream = value,
            b"time" => spans.time = value,
            b"datacontenttype" => spans.datacontenttype = value,
            b"dataschema" => spans.dataschema = value,
            _ => spans.has_extensions = true,
        }
    }
    r.all_ascii(usize::from(spans.attributes.1))?;
    (!spans.id.is_none() && !spans.source.is_none()).then_some(())
}

/// Goes through bytes that are expected to be what they usually are.
struct Usual<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Usual<'_> {
    /// Goes over these bytes, if they come next.
    #[inline(always)]
    fn next(&mut self, expected: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(expected).then(|| self.at += expected.len())
    }

    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<&[u8; N]> {
        let taken = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(taken)
    }

    /// The number of a few items or pairs.
    #[inline(always)]
    fn count(&mut self, kind: u8) -> Option<u16> {
        let [head] = *self.take()?;
        Some(u16::from(head ^ kind)).filter(|count| *count < 24)
    }

    /// A whole number from 0 in its shortest form.
    #[inline(always)]
    fn uint(&mut self) -> Option<u64> {
        let [head] = *self.take()?;
        let (value, least) = match head {
            0..24 => (u64::from(head), 0),
            24 => (u64::from(u8::from_be_bytes(*self.take()?)), 24),
            25 => (u64::from(u16::from_be_bytes(*self.take()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(*self.take()?)), 1 << 16),
            27 => (u64::from_be_bytes(*self.take()?), 1 << 32),
            _ => return None,
        };
        Some(value).filter(|value| *value >= least)
    }

    /// A text of at most 127 bytes, which [`Self::all_ascii`] has to look at.
    #[inline(always)]
    fn text(&mut self) -> Option<Span> {
        let [head] = *self.take()?;
        let len = match head {
            0x60..0x78 => head - 0x60,
            0x78 => Some(self.take::<1>()?[0]).filter(|len| (24..0x80).contains(len))?,
            _ => return None,
        };
        let (at, len) = (self.at, usize::from(len));
        self.at += len;
        (self.at <= self.bytes.len()).then(|| Span::new(at, len))
    }

    /// Whether the texts that were passed since `from` are ASCII. Their heads are, so all is looked at as one.
    #[inline(always)]
    fn all_ascii(&self, from: usize) -> Option<()> {
        self.bytes.get(from..self.at)?.is_ascii().then_some(())
    }

    /// A hash of 32 bytes.
    #[inline(always)]
    fn hash(&mut self) -> Option<Span> {
        self.next(&[0x58, Hash::LEN as u8])?;
        let at = self.at;
        self.take::<{ Hash::LEN }>()?;
        Some(Span::new(at, Hash::LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EncodedEnvelope, LogFields, Part};
    use crate::event::{Event, EventBuilder};

    fn entry(event: EventBuilder, part: Option<Part>, version: Option<(u64, bool)>) -> Vec<u8> {
        let fields = LogFields {
            log: LogId([1; 16]),
            position: Position(300),
            recorded: Time::from_micros(1_800_000_000_000_000).unwrap(),
            version: version.map(|(at, later)| (Version(at), later.then_some(Hash([9; 32])))),
        };
        let mut out = Vec::new();
        EncodedEnvelope::new(&event.build().unwrap(), part.as_slice()).write(&fields, &mut out);
        out
    }

    fn data(length: u64, scope: Option<&str>) -> Option<Part> {
        let scope = scope.map(str::to_owned);
        Some(Part { name: "data".into(), commitment: Hash([7; 32]), length, scope })
    }

    fn usual_entries() -> Vec<Vec<u8>> {
        let plain = || Event::builder("urn:s", "1", "ai.decision.made");
        let full = plain()
            .stream("loan/1")
            .time("2026-11-22T10:00:00+01:00")
            .tag("model", "risk-7")
            .tag("k", "v")
            .attribute("traceparent", "x")
            .attribute("ab", "a text of more than twenty-three bytes");
        vec![
            entry(plain(), None, None),
            entry(plain(), data(1 << 40, None), None),
            entry(plain().stream("s"), data(24, Some("person-1")), Some((0, false))),
            entry(full, data(70_000, None), Some((1 << 20, true))),
        ]
    }

    #[test]
    fn usual_entries_are_found_to_be_what_they_are_item_by_item() {
        for bytes in usual_entries() {
            assert_eq!(outline(&bytes).unwrap(), Outline::of_any(&bytes).unwrap());
        }
    }

    #[test]
    fn whatever_is_taken_for_usual_is_the_same_item_by_item() {
        let mut usual = 0;
        for bytes in usual_entries() {
            for at in 0..bytes.len() {
                for value in 0..=u8::MAX {
                    let mut other = bytes.clone();
                    other[at] = value;
                    if let Some(found) = outline(&other) {
                        assert_eq!(found, Outline::of_any(&other).unwrap(), "byte {at} is {value}");
                        usual += 1;
                    }
                }
                assert_eq!(outline(&bytes[..at]), None, "cut at {at}");
                let left_out = [&bytes[..at], &bytes[at + 1..]].concat();
                let twice = [&bytes[..=at], &bytes[at..]].concat();
                for other in [left_out, twice] {
                    if let Some(found) = outline(&other) {
                        assert_eq!(found, Outline::of_any(&other).unwrap(), "around byte {at}");
                    }
                }
            }
        }
        assert!(usual > 10_000, "{usual} are too few to say anything");
    }

    #[test]
    fn what_is_unusual_is_left_to_whoever_looks_at_every_item() {
        let plain = || Event::builder("urn:s", "1", "ai.decision.made");
        let other = Part { name: "private".into(), ..data(1, None).unwrap() };
        for bytes in [
            entry(plain().attribute("n", 7), None, None),
            entry(plain().attribute("n", "ä"), None, None),
            entry(plain().stream("x".repeat(200)), None, Some((0, false))),
            entry(plain(), Some(other), None),
        ] {
            assert_eq!(outline(&bytes), None);
            assert!(Outline::of(&bytes).is_ok());
        }
    }
}

//! Deterministic CBOR (RFC 8949 section 4.2.1): reads it where it lies, and writes it; numbers, texts and bytes, no
//! allocation.
//!
//! What is not in its shortest form, or of indefinite length, is refused. [`Span`]s name texts by where they are, so
//! that whoever shares the bytes needs no copy of them. Both are on the way of every event.

use std::fmt;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Where a text lies in at most 65,535 bytes. A text has a head before it, so none begins at 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u16,
    len: u16,
}

impl Span {
    /// So many bytes from there on; both are less than 65,536.
    pub(crate) fn new(at: usize, len: usize) -> Self {
        Self { at: at as u16, len: len as u16 }
    }

    /// Whether there is no such text.
    pub(crate) fn is_none(self) -> bool {
        self.at == 0
    }

    /// The bytes of the text; none if there is no such text.
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.at)..usize::from(self.at) + usize::from(self.len)).unwrap_or(&[])
    }

    /// The text, if there is one and it is valid UTF-8.
    pub(crate) fn text(self, bytes: &[u8]) -> Option<&str> {
        if self.is_none() { None } else { std::str::from_utf8(self.of(bytes)).ok() }
    }
}

/// What the next item is, as far as anybody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// Anything else.
    Other,
}

/// Whether no byte is beyond ASCII. Texts of entries are short, and eight of their bytes are looked at together.
#[inline]
fn is_ascii(text: &[u8]) -> bool {
    const BEYOND: u64 = 0x8080_8080_8080_8080;
    match text.last_chunk::<8>() {
        // What is left over behind whole chunks is in the last one, which may overlap.
        Some(last) => {
            let chunks =
                text.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
            chunks.fold(u64::from_le_bytes(*last), |seen, chunk| seen | chunk) & BEYOND == 0
        }
        None => text.iter().fold(0, |seen, byte| seen | byte) < 0x80,
    }
}

/// Goes through bytes item by item.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: Bad = Bad("it ends too early");
const OTHER: Bad = Bad("an item of another kind than expected");

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Bytes behind what was read.
    pub(crate) fn rest(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// How far it was read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline(always)]
    fn head(&mut self, major: u8) -> Result<u64, Bad> {
        let first = *self.bytes.get(self.at).ok_or(SHORT)?;
        if first >> 5 != major {
            return Err(OTHER);
        }
        self.at += 1;
        match first & 31 {
            small @ 0..=23 => Ok(u64::from(small)),
            24 => {
                let value = u64::from(*self.bytes.get(self.at).ok_or(SHORT)?);
                self.at += 1;
                if value < 24 { Err(Bad("a number that is not in its shortest form")) } else { Ok(value) }
            }
            more => self.long(more),
        }
    }

    #[inline(never)]
    fn long(&mut self, more: u8) -> Result<u64, Bad> {
        let len = match more {
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err(Bad("indefinite length")),
            _ => return Err(OTHER),
        };
        let bytes = self.bytes.get(self.at..self.at + len).ok_or(SHORT)?;
        self.at += len;
        let value = bytes.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
        // The shortest form has something in its upper half.
        if value >> (len * 4) == 0 {
            Err(Bad("a number that is not in its shortest form"))
        } else {
            Ok(value)
        }
    }

    /// A whole number from 0.
    #[inline]
    pub(crate) fn uint(&mut self) -> Result<u64, Bad> {
        self.head(0)
    }

    /// Bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let len = self.head(2)?;
        self.take(len)
    }

    #[inline(always)]
    fn take(&mut self, len: u64) -> Result<&'a [u8], Bad> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(SHORT)?;
        self.at += taken.len();
        Ok(taken)
    }

    /// Where a text is, checked to be UTF-8. The bytes are at most 65,535.
    #[inline]
    pub(crate) fn text(&mut self) -> Result<Span, Bad> {
        let len = self.head(3)?;
        let at = self.at as u16;
        let text = self.take(len)?;
        // Nearly every text is ASCII, and that is quickly told.
        if !is_ascii(text) && std::str::from_utf8(text).is_err() {
            return Err(Bad("a text that is not UTF-8"));
        }
        Ok(Span { at, len: text.len() as u16 })
    }

    /// The bytes of the text at a span that [`Self::text`] answered.
    #[inline]
    pub(crate) fn bytes_of(&self, span: Span) -> &'a [u8] {
        span.of(self.bytes)
    }

    /// The text at a span that [`Self::text`] answered.
    pub(crate) fn text_of(&self, span: Span) -> &'a str {
        span.text(self.bytes).unwrap_or_default()
    }

    /// The number of pairs of a map.
    #[inline]
    pub(crate) fn map(&mut self) -> Result<u64, Bad> {
        self.counted(5)
    }

    /// The number of items of an array.
    #[inline]
    pub(crate) fn array(&mut self) -> Result<u64, Bad> {
        self.counted(4)
    }

    #[inline]
    fn counted(&mut self, major: u8) -> Result<u64, Bad> {
        let count = self.head(major)?;
        if count > self.rest() as u64 { Err(SHORT) } else { Ok(count) }
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool, Bad> {
        let value = match self.bytes.get(self.at).ok_or(SHORT)? {
            0xf4 => false,
            0xf5 => true,
            _ => return Err(OTHER),
        };
        self.at += 1;
        Ok(value)
    }

    /// A whole number of 32 bits with its sign.
    pub(crate) fn i32(&mut self) -> Result<i32, Bad> {
        let negative = self.bytes.get(self.at).ok_or(SHORT)? >> 5 == 1;
        let value = self.head(u8::from(negative))?;
        let value = i32::try_from(value).map_err(|_| Bad("a number of more than 32 bits"))?;
        Ok(if negative { -1 - value } else { value })
    }

    /// What comes next.
    pub(crate) fn kind(&self) -> Result<Kind, Bad> {
        let first = *self.bytes.get(self.at).ok_or(SHORT)?;
        Ok(match (first >> 5, first) {
            (3, _) => Kind::Text,
            (_, 0xf4 | 0xf5) => Kind::Bool,
            _ => Kind::Other,
        })
    }
}

/// Bytes of the head of an item.
pub(crate) fn head_len(value: u64) -> usize {
    match value {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}

/// Bytes of a text with its head.
pub(crate) fn text_len(text: &str) -> usize {
    head_len(text.len() as u64) + text.len()
}

/// Appends items to `out`, each in its shortest form.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Nearly all of an entry's heads are one byte, most of them known when this is compiled.
    #[inline(always)]
    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        if value < 24 {
            self.out.push(major << 5 | value as u8);
            return self;
        }
        self.long_head(major << 5, value)
    }

    fn long_head(&mut self, kind: u8, value: u64) -> &mut Self {
        if let Ok(value) = u8::try_from(value) {
            self.out.extend_from_slice(&[kind | 24, value]);
        } else if let Ok(value) = u16::try_from(value) {
            let [a, b] = value.to_be_bytes();
            self.out.extend_from_slice(&[kind | 25, a, b]);
        } else if let Ok(value) = u32::try_from(value) {
            let [a, b, c, d] = value.to_be_bytes();
            self.out.extend_from_slice(&[kind | 26, a, b, c, d]);
        } else {
            self.out.push(kind | 27);
            self.out.extend_from_slice(&value.to_be_bytes());
        }
        self
    }

    pub(crate) fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    pub(crate) fn i32(&mut self, value: i32) -> &mut Self {
        match u64::try_from(value) {
            Ok(value) => self.head(0, value),
            // -1 is 0, -2 is 1.
            Err(_) => self.head(1, u64::from(!value as u32)),
        }
    }

    pub(crate) fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xf5 } else { 0xf4 });
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64).out.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.head(3, text.len() as u64).out.extend_from_slice(text.as_bytes());
        self
    }

    /// So many items follow.
    pub(crate) fn array(&mut self, items: u64) -> &mut Self {
        self.head(4, items)
    }

    /// So many pairs of items follow.
    pub(crate) fn map(&mut self, pairs: u64) -> &mut Self {
        self.head(5, pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        out
    }

    #[test]
    fn what_is_written_is_what_another_implementation_writes() {
        let sizes = [0, 1, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
        for value in sizes {
            assert_eq!(written(|w| _ = w.uint(value)), minicbor::to_vec(value).unwrap(), "{value}");
            let mut other = minicbor::Encoder::new(Vec::new());
            other.map(value).unwrap().array(value).unwrap();
            assert_eq!(written(|w| _ = w.map(value).array(value)), other.into_writer(), "{value}");
        }
        for value in [0, -1, 23, -24, 24, -25, 300, -300, i32::MAX, i32::MIN] {
            assert_eq!(written(|w| _ = w.i32(value)), minicbor::to_vec(value).unwrap(), "{value}");
        }
        for len in [0, 1, 23, 24, 300, 70_000] {
            let text = "x".repeat(len);
            assert_eq!(written(|w| _ = w.text(&text)), minicbor::to_vec(&text).unwrap(), "{len}");
            let mut other = minicbor::Encoder::new(Vec::new());
            other.bytes(text.as_bytes()).unwrap().bool(true).unwrap().bool(false).unwrap();
            let ours = written(|w| _ = w.bytes(text.as_bytes()).bool(true).bool(false));
            assert_eq!(ours, other.into_writer(), "{len}");
        }
    }

    #[test]
    fn numbers_come_back_and_only_their_shortest_form_is_read() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            let encoded = minicbor::to_vec(value).unwrap();
            assert_eq!(Reader::new(&encoded).uint(), Ok(value));
            assert!((0..encoded.len()).all(|cut| Reader::new(&encoded[..cut]).uint().is_err()), "{value}");
        }
        for value in [0, -1, 24, -25, 300, -300, i32::MAX, i32::MIN] {
            assert_eq!(Reader::new(&minicbor::to_vec(value).unwrap()).i32(), Ok(value));
        }
        for value in [1 << 31, u64::MAX] {
            assert!(Reader::new(&minicbor::to_vec(value).unwrap()).i32().is_err());
        }
        for long in [&[0x18, 23][..], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1f], &[0x1c]] {
            assert!(Reader::new(long).uint().is_err(), "{long:?}");
        }
    }

    #[test]
    fn texts_are_utf_8_and_end_where_the_bytes_end() {
        let text = "Grüße, and more than twenty-three bytes";
        let encoded = minicbor::to_vec(text).unwrap();
        let mut reader = Reader::new(&encoded);
        let span = reader.text().unwrap();
        assert_eq!((reader.text_of(span), reader.rest()), (text, 0));
        assert!(Reader::new(&encoded[..encoded.len() - 1]).text().is_err());
        assert!(Reader::new(&[0x61, 0xff]).text().is_err());
        assert!(Reader::new(&[0x7f, 0x61, b'a', 0xff]).text().is_err());
        assert!(Reader::new(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]).array().is_err());
        assert_eq!(Span::default().text(b"abc"), None);
    }
}

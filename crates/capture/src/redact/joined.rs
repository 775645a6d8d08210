//! Text that does not stand in one piece in the data: with its escapes undone, or put together from pieces of a stream.
//!
//! ```text
//! data      … "k":"a\u0026api_key=b\/c" …
//! text              a     &api_key=b /c          what patterns are looked for in
//! pieces            |--|--|--------|-|           which bytes of the data each stretch of it came from
//! ```
//!
//! Escapes are undone as JSON has them, however many backslashes stand before them: a document within a string of a document is read
//! like the document itself.

use std::ops::Range;

/// How much text is looked at in one go: undone escapes take up to twelve times their length in memory.
const WINDOW: usize = 1 << 20;
/// How far two such looks overlap: the longest secret that is found across their border.
const OVERLAP: usize = 64 << 10;

/// A stretch of the text, and where it came from. If both have one length it stands there as it is, otherwise it is an escape.
#[derive(Debug)]
struct Piece {
    at: usize,
    from: Range<usize>,
}

/// The text, and the way back.
#[derive(Debug, Default)]
pub(super) struct Joined {
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Joined {
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    fn push(&mut self, from: Range<usize>, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.pieces.push(Piece { at: self.text.len(), from });
        self.text.extend_from_slice(text);
    }

    /// Adds what stands in this range, its escapes undone.
    pub(super) fn add(&mut self, data: &[u8], range: Range<usize>) {
        self.add_until(data, range, usize::MAX);
    }

    /// As [`add`](Self::add), until the text is this long or a little longer; answers up to where it came.
    fn add_until(&mut self, data: &[u8], range: Range<usize>, len: usize) -> usize {
        let mut at = range.start;
        while at < range.end && self.text.len() < len {
            let end = range.end.min(at.saturating_add(len - self.text.len()));
            let rest = &data[at..end];
            let plain = rest.iter().position(|&b| b == b'\\').unwrap_or(rest.len());
            self.push(at..at + plain, &rest[..plain]);
            at += plain;
            if plain < rest.len() {
                let (len, character) = escape(&data[at..range.end]);
                self.push(at..at + len, character.encode_utf8(&mut [0; 4]).as_bytes());
                at += len;
            }
        }
        at
    }

    /// The text of a range from `at` on, as much as is looked at in one go, and where to go on: some way before its end, so that
    /// nothing is missed that lies across it. `None` at the end.
    pub(super) fn window(data: &[u8], range: Range<usize>) -> (Self, Option<usize>) {
        let mut joined = Self::default();
        let came_to = joined.add_until(data, range.clone(), WINDOW);
        if came_to == range.end {
            return (joined, None);
        }
        let from = joined.text.len() - OVERLAP;
        let at = joined.pieces.partition_point(|piece| piece.at <= from).saturating_sub(1);
        let piece = &joined.pieces[at];
        let end = joined.pieces.get(at + 1).map_or(joined.text.len(), |next| next.at);
        let within = if end - piece.at == piece.from.len() { from - piece.at } else { 0 };
        let next = piece.from.start + within;
        (joined, Some(next))
    }

    /// Where a stretch of the text stands in the data, in its order.
    pub(super) fn places(&self, found: Range<usize>) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        let first = self.pieces.partition_point(|piece| piece.at <= found.start).saturating_sub(1);
        for (i, piece) in self.pieces.iter().enumerate().skip(first) {
            if piece.at >= found.end {
                break;
            }
            let end = self.pieces.get(i + 1).map_or(self.text.len(), |next| next.at);
            if end - piece.at != piece.from.len() {
                places.push(piece.from.clone());
                continue;
            }
            let (start, end) = (found.start.max(piece.at), found.end.min(end));
            if start < end {
                places.push(piece.from.start + start - piece.at..piece.from.start + end - piece.at);
            }
        }
        places
    }
}

/// The length of the escape at the beginning, and the character it stands for.
fn escape(bytes: &[u8]) -> (usize, char) {
    let run = bytes.iter().take_while(|&&b| b == b'\\').count();
    let simple = match bytes.get(run) {
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b' | b'f') => ' ',
        Some(&c @ (b'"' | b'/' | b'\'')) => char::from(c),
        Some(b'u') => match unit(&bytes[run..]) {
            Some(high @ 0xd800..0xdc00) => {
                let rest = &bytes[run + 5..];
                let again = rest.iter().take_while(|&&b| b == b'\\').count();
                return match rest.get(again..).filter(|_| again > 0).and_then(unit) {
                    Some(low @ 0xdc00..0xe000) => {
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        (run + 5 + again + 5, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
                    }
                    _ => (run + 5, char::REPLACEMENT_CHARACTER),
                };
            }
            Some(code) => return (run + 5, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
            None => return (run, '\\'),
        },
        _ => return (run, '\\'),
    };
    (run + 1, simple)
}

/// The number behind a `u`.
fn unit(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(1..5).filter(|_| bytes[0] == b'u')?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(data: &str) -> Joined {
        let mut joined = Joined::default();
        joined.add(data.as_bytes(), 0..data.len());
        joined
    }

    #[test]
    fn escapes_are_undone_at_any_depth_and_found_again_whole() {
        for (data, text) in [
            (r"a\u0026b", "a&b"),
            (r"a\\\\u0026b\/", "a&b/"),
            (r#"\\\"k\\\": \t"#, "\"k\": \t"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!\udc00", "\u{fffd}!\u{fffd}"),
            (r"C:\x \u12 \", r"C:\x \u12 \"),
            ("", ""),
        ] {
            let joined = joined(data);
            assert_eq!(std::str::from_utf8(joined.text()).unwrap(), text);
            let all = joined.places(0..joined.text().len());
            let covered: usize = all.iter().map(ExactSizeIterator::len).sum();
            assert_eq!(covered, data.len(), "{data}");
        }
        let joined = joined(r"ab\u0026cd");
        assert_eq!(joined.places(1..4), [1..2, 2..8, 8..9]);
        assert!(joined.places(3..5).into_iter().eq(std::iter::once(8..10)));
        assert!(joined.places(2..3).into_iter().eq(std::iter::once(2..8)));
    }

    #[test]
    fn a_long_text_is_looked_at_in_windows_that_begin_and_end_at_whole_escapes() {
        for unit in [r"\u0026", "x", r"ab\\n"] {
            let data = unit.repeat(7 * WINDOW / unit.len());
            let (mut at, mut windows, mut covered) = (0, 0, 0);
            loop {
                let (joined, next) = Joined::window(data.as_bytes(), at..data.len());
                let places = joined.places(0..joined.text().len());
                assert!(places[0].start == at && at <= covered, "{unit}");
                covered = places.last().unwrap().end;
                windows += 1;
                match next {
                    Some(next) => at = next,
                    None => break,
                }
            }
            assert_eq!(covered, data.len());
            assert!(windows < 12, "{windows}");
        }
    }
}

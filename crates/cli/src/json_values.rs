//! One JSON value after the other out of a file: a line each, or the elements of one array.
//!
//! Which of the two it is, the first character says. A value may span lines. Only one value is in memory at a
//! time, and none larger than the reader's bound. Here values are only told apart: whether one is valid JSON
//! is decided by whoever parses it.

use std::io::BufRead;

use crate::failure::{Failure, Result};

/// One value, exactly as it stands in the file.
pub(crate) struct JsonValue {
    /// The line it begins on, from 1.
    pub(crate) line: u64,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    Lines,
    Array { first: bool },
    Ended,
}

/// Reads values. After an error nothing more comes.
pub(crate) struct JsonValues<R> {
    input: R,
    form: Form,
    line: u64,
    consumed: u64,
    bytes_max: usize,
}

impl<R: BufRead> JsonValues<R> {
    /// Values of at most `bytes_max` bytes each.
    pub(crate) fn new(input: R, bytes_max: usize) -> Self {
        Self { input, form: Form::Unknown, line: 1, consumed: 0, bytes_max }
    }

    /// Bytes of the file read so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Whether the file is one array.
    pub(crate) fn is_array(&self) -> bool {
        matches!(self.form, Form::Array { .. } | Form::Ended)
    }

    /// The next value, or `None` at the end.
    pub(crate) fn next_value(&mut self) -> Result<Option<JsonValue>> {
        if self.form == Form::Unknown {
            self.skip_byte_order_mark()?;
            self.form = match self.skip_blank()? {
                Some(b'[') => {
                    self.take(1);
                    Form::Array { first: true }
                }
                _ => Form::Lines,
            };
        }
        let next = self.skip_blank()?;
        match (self.form, next) {
            (Form::Lines | Form::Ended, None) => return Ok(None),
            (Form::Array { .. }, None) => {
                return Err(self.failure("the array does not end: the file may have been cut off"));
            }
            (Form::Ended, Some(_)) => return Err(self.failure("text after the end of the array")),
            (Form::Array { .. }, Some(b']')) => {
                self.take(1);
                self.form = Form::Ended;
                return self.next_value();
            }
            (Form::Array { first: false }, Some(b',')) => {
                self.take(1);
                match self.skip_blank()? {
                    None => return self.next_value(),
                    Some(b']') => return Err(self.failure("a ',' without a value behind it")),
                    Some(_) => {}
                }
            }
            (Form::Array { first: false }, Some(_)) => {
                return Err(self.failure("values of an array without a ',' between them"));
            }
            _ => {}
        }
        if let Form::Array { first } = &mut self.form {
            *first = false;
        }
        self.value().map(Some)
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(format!("line {}: {what}", self.line))
    }

    fn fill(&mut self) -> Result<&[u8]> {
        let line = self.line;
        self.input.fill_buf().map_err(|error| Failure::new(format!("line {line}: {error}")))
    }

    fn take(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.consumed += bytes as u64;
    }

    /// Windows programs put one in front of UTF-8.
    fn skip_byte_order_mark(&mut self) -> Result<()> {
        if self.fill()?.starts_with(b"\xef\xbb\xbf") {
            self.take(3);
        }
        Ok(())
    }

    /// The next byte that is not blank; it is not taken.
    fn skip_blank(&mut self) -> Result<Option<u8>> {
        loop {
            let buffer = self.fill()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let blank = buffer.iter().take_while(|b| b.is_ascii_whitespace()).count();
            let lines = buffer[..blank].iter().filter(|&&b| b == b'\n').count();
            let next = buffer.get(blank).copied();
            self.line += lines as u64;
            self.take(blank);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    fn value(&mut self) -> Result<JsonValue> {
        let started = self.line;
        let in_array = self.is_array();
        let mut bytes = Vec::new();
        let mut scan = Scan::default();
        loop {
            let max = self.bytes_max;
            let buffer = self.fill()?;
            if buffer.is_empty() {
                return match scan.may_end() {
                    true => Ok(JsonValue { line: started, bytes }),
                    false => Err(Failure::new(format!(
                        "line {started}: a JSON value that does not end: the file may have been cut off"
                    ))),
                };
            }
            let (used, ended) = scan.through(buffer, in_array);
            if bytes.len() + used > max {
                return Err(Failure::new(format!(
                    "line {started}: a JSON value of more than {max} bytes, the limit"
                )));
            }
            let lines = buffer[..used].iter().filter(|&&b| b == b'\n').count();
            bytes.extend_from_slice(&buffer[..used]);
            self.take(used);
            self.line += lines as u64;
            if scan.broken_string {
                return Err(Failure::new(format!(
                    "line {started}: not JSON: a string that does not end before its line does"
                )));
            }
            if ended {
                return Ok(JsonValue { line: started, bytes });
            }
        }
    }
}

/// How far into a value the bytes so far lead.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escape: bool,
    /// A number, a word, or nonsense: it ends where something else begins.
    bare: bool,
    begun: bool,
    broken_string: bool,
}

impl Scan {
    fn may_end(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }

    /// How many of the bytes belong to the value, and whether it ends with them.
    fn through(&mut self, bytes: &[u8], in_array: bool) -> (usize, bool) {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.bare {
                let ends = if in_array {
                    byte.is_ascii_whitespace() || matches!(byte, b',' | b']')
                } else {
                    byte == b'\n'
                };
                if ends {
                    return (at, true);
                }
                continue;
            }
            if self.in_string {
                match byte {
                    _ if self.escape => self.escape = false,
                    b'\\' => self.escape = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (at + 1, true);
                        }
                    }
                    b'\n' => {
                        self.broken_string = true;
                        return (at, true);
                    }
                    _ => {}
                }
                continue;
            }
            let first = !std::mem::replace(&mut self.begun, true);
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                _ if first => self.bare = true,
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn values(text: &str) -> (Vec<(u64, String)>, Option<String>) {
        // A tiny buffer, so that every value is met in pieces.
        let mut reader = JsonValues::new(BufReader::with_capacity(3, text.as_bytes()), 64);
        let mut found = Vec::new();
        loop {
            match reader.next_value() {
                Ok(Some(value)) => found.push((value.line, String::from_utf8(value.bytes).unwrap())),
                Ok(None) => return (found, None),
                Err(failure) => return (found, Some(format!("{failure:?}"))),
            }
        }
    }

    #[test]
    fn lines_arrays_and_values_over_several_lines_are_told_apart() {
        let one = |line, text: &str| (line, text.to_owned());
        for (text, expected) in [
            ("", vec![]),
            (" \n\n", vec![]),
            ("{\"a\":1}\n\n{\"b\":\"}\\\"{\"}", vec![one(1, "{\"a\":1}"), one(3, "{\"b\":\"}\\\"{\"}")]),
            ("\u{feff}{\n\"a\": [1,\n2]}\n{}", vec![one(1, "{\n\"a\": [1,\n2]}"), one(4, "{}")]),
            ("{}{}", vec![one(1, "{}"), one(1, "{}")]),
            ("[ {\"a\":[]} ,\n 7, \"x,]\"\n]\n", vec![one(1, "{\"a\":[]}"), one(2, "7"), one(2, "\"x,]\"")]),
            ("[]", vec![]),
            ("nonsense here\n{}", vec![one(1, "nonsense here"), one(2, "{}")]),
            ("}\n{}", vec![one(1, "}"), one(2, "{}")]),
        ] {
            assert_eq!(values(text), (expected, None), "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_named_with_the_line_it_began_on() {
        for (text, count, says) in [
            ("{}\n{\"a\":\n1", 1, "line 2: a JSON value that does not end"),
            ("{}\n{\"a\":\"x\n{}", 1, "line 2: not JSON"),
            ("[{},\n{}", 2, "line 2: the array does not end"),
            ("[{},]", 1, "line 1: a ','"),
            ("[{} {}]", 1, "without a ','"),
            ("[]\n{}", 0, "line 2: text after"),
        ] {
            let (found, failure) = values(text);
            assert_eq!(found.len(), count, "{text}");
            assert!(failure.as_ref().is_some_and(|f| f.contains(says)), "{text}: {failure:?}");
        }
        let (_, failure) = values(&format!("\"{}\"", "x".repeat(80)));
        assert!(failure.unwrap().contains("more than 64 bytes"));
    }
}

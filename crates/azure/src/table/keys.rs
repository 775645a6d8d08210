//! Where everything stands in the table: PartitionKey and RowKey.
//!
//! | what | PartitionKey | RowKey |
//! |---|---|---|
//! | the logs | `~logs` | the log's name |
//! | the registers | `~registers` | the register's name, escaped |
//! | the frames whose documents are complete | `~documents` | log id |
//! | a bucket: its head | `~log:` log id `:` bucket, 16 digits | `head` |
//! | a bucket: a frame, over one to three rows | the same | `frame:` number, 20 digits `:` row, 2 digits |
//! | the parts of a frame too long for that | `~part:` log id `:` frame id | part, 4 digits |
//! | an event, by type | `type:` type, escaped | log's name `,` log id `,` position, 20 digits |
//! | an event, by stream | `stream:` stream, escaped | log's name `,` log id `,` version, 20 digits |
//!
//! Numbers are padded with zeros, so the order of the rows, which is that of their text, is the order of the numbers.
//! In a bucket the head comes after the frames, so that reading on to the end of the partition reads it too.
//! The name of the log comes first in an event's RowKey, for people; its id makes sure that a log which is made
//! again under a name that was used before does not meet the events of the former one.
//!
//! *Escaping.* A key must not hold `/ \ # ?` and control characters, has trouble with `%` and `'` on the way, and has
//! at most 1 KiB, which is 512 units of UTF-16. Letters and digits of every script and `- _ . :` stay what they are;
//! of everything else each byte becomes `=` and two hexadecimal digits: `application/42` is `application=2F42`. What
//! is too long then is cut, and `==` and the SHA-256 of the whole take the place of the rest.
//!
//! *Invariant*: two things never have the same key. The words before the first `:` are different, escaping can be
//! undone, what was cut is told from what was not by `==`, and the hash stands for what was cut off.

use std::fmt::Write as _;

use precedent_core::store::RegisterName;
use precedent_core::{FrameId, LogId, LogName, Position, Version};
use sha2::{Digest, Sha256};

/// The most UTF-16 units that a PartitionKey or RowKey has: 1 KiB.
pub const KEY_UNITS_MAX: usize = 512;

/// Digits of a position or version at the end of an event's RowKey.
pub(crate) const NUMBER_DIGITS: usize = 20;

/// The RowKey of a bucket's head.
pub(crate) const HEAD: &str = "head";
/// The partition of the logs.
pub(crate) const LOGS: &str = "~logs";

/// Where an entity stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// PartitionKey.
    pub partition: String,
    /// RowKey.
    pub row: String,
}

impl Key {
    /// The entity in this partition, in this row.
    pub fn new(partition: impl Into<String>, row: impl Into<String>) -> Self {
        Self { partition: partition.into(), row: row.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {}, row {}", self.partition.escape_debug(), self.row.escape_debug())
    }
}

/// A log by its name.
pub(crate) fn log(name: &LogName) -> Key {
    Key::new(LOGS, name.as_str())
}

/// A register.
pub(crate) fn register(name: &RegisterName) -> Key {
    Key::new("~registers", escaped(name.as_str(), KEY_UNITS_MAX))
}

/// The frames of a log whose documents are complete.
pub(crate) fn documented(log: LogId) -> Key {
    Key::new("~documents", log.to_string())
}

/// A bucket of frames.
pub(crate) fn bucket(log: LogId, bucket: u64) -> String {
    format!("~log:{log}:{bucket:016}")
}

/// One of the rows of a frame.
pub(crate) fn frame_row(sequence: u64, row: usize) -> String {
    format!("frame:{sequence:020}:{row:02}")
}

/// Which frame and which of its rows a RowKey of a bucket names, if it names one.
pub(crate) fn parse_frame_row(row: &str) -> Option<(u64, usize)> {
    let (sequence, index) = row.strip_prefix("frame:")?.split_once(':')?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(sequence, 20) && digits(index, 2)).then(|| Some((sequence.parse().ok()?, index.parse().ok()?)))?
}

/// The partition of a frame's parts.
pub(crate) fn parts(log: LogId, frame: FrameId) -> String {
    format!("~part:{log}:{frame}")
}

/// One of a frame's parts.
pub(crate) fn part_row(part: usize) -> String {
    format!("{part:04}")
}

/// An event among those of its type.
pub fn by_type(name: &LogName, log: LogId, event_type: &str, position: Position) -> Key {
    Key::new(prefixed("type:", event_type), format!("{name},{log},{:020}", position.0))
}

/// An event among those of its stream.
pub fn by_stream(name: &LogName, log: LogId, stream: &str, version: Version) -> Key {
    Key::new(prefixed("stream:", stream), format!("{name},{log},{:020}", version.0))
}

fn prefixed(prefix: &str, text: &str) -> String {
    format!("{prefix}{}", escaped(text, KEY_UNITS_MAX - prefix.len()))
}

/// A text as a part of a key with at most `units_max` units of UTF-16.
fn escaped(text: &str, units_max: usize) -> String {
    const MARK: &str = "==";
    let mut out = String::with_capacity(text.len());
    let mut units = 0;
    let mut cut = 0;
    let room = units_max - MARK.len() - 2 * Sha256::output_size();
    for c in text.chars() {
        if c.is_alphanumeric() || "-_.:".contains(c) {
            out.push(c);
            units += c.len_utf16();
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(out, "={byte:02X}").expect("a String takes whatever is written");
                units += 3;
            }
        }
        if units <= room {
            cut = out.len();
        }
    }
    if units <= units_max {
        return out;
    }
    out.truncate(cut);
    out.push_str(MARK);
    for byte in Sha256::digest(text) {
        write!(out, "{byte:02x}").expect("a String takes whatever is written");
    }
    out
}

/// Why a key cannot be one, if so.
pub(crate) fn refused(key: &str) -> Option<String> {
    let units = key.encode_utf16().count();
    if units > KEY_UNITS_MAX {
        return Some(format!("has {units} UTF-16 units, the limit is {KEY_UNITS_MAX}"));
    }
    let bad = key.chars().find(|c| c.is_control() || "/\\#?".contains(*c))?;
    Some(format!("holds '{}', which no key may", bad.escape_debug()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn nasty() -> Vec<String> {
        let mut all: Vec<String> =
            ["", "a/b", "a\\b", "a#b", "a?b", "a%2Fb", "a=2Fb", "a==b", "it's", "\0", "\u{7f}\u{85}"]
                .into_iter()
                .map(str::to_owned)
                .collect();
        all.extend(
            ["ü", "日本語", "🦀", "\u{2028}", "\u{fffe}", "a b", "type:x", "head", "a", "A"]
                .map(str::to_owned),
        );
        for piece in ["x", "/", "ü", "日", "🦀"] {
            for bytes in [430, 431, 440, 506, 507, 508, 509, 510, 511, 512] {
                all.push(piece.repeat(bytes / piece.len()));
            }
            all.push(format!("{}a", piece.repeat(508 / piece.len())));
            all.push(format!("{}b", piece.repeat(508 / piece.len())));
        }
        all
    }

    #[test]
    fn whatever_a_type_or_stream_is_called_its_key_is_one_and_nobody_elses() {
        let name = LogName::default();
        let log = LogId([7; 16]);
        let mut seen = BTreeMap::new();
        for text in nasty() {
            let by_type = by_type(&name, log, &text, Position(1));
            let by_stream = by_stream(&name, log, &text, Version(1));
            for key in [by_type, by_stream] {
                assert_eq!(refused(&key.partition), None, "{key}");
                assert_eq!(refused(&key.row), None, "{key}");
                let kind = key.partition.split(':').next().expect("a prefix").to_owned();
                if let Some(before) = seen.insert(key.partition.clone(), (kind.clone(), text.clone())) {
                    assert_eq!(before, (kind, text.clone()), "{key}");
                }
            }
        }
        assert!(seen.keys().any(|key| key.contains("==")), "some were cut");
    }

    #[test]
    fn the_order_of_rows_is_the_order_of_numbers_and_the_head_is_last() {
        let rows: Vec<String> = [0, 9, 10, 4095, 1 << 40, u64::MAX].map(|n| frame_row(n, 0)).into();
        assert!(rows.is_sorted());
        assert!(rows.iter().all(|row| row.as_str() < HEAD));
        assert!(frame_row(5, 2) < frame_row(6, 0));
        let log = LogId([1; 16]);
        assert!(bucket(log, 9) < bucket(log, 10));
    }

    #[test]
    fn a_row_of_a_frame_is_read_back_and_nothing_else_is_taken_for_one() {
        assert_eq!(parse_frame_row(&frame_row(u64::MAX, 2)), Some((u64::MAX, 2)));
        for other in
            ["head", "frame:", "frame:1:0", "frame:99999999999999999999:00", "frame:0000000000000000000１:00"]
        {
            assert_eq!(parse_frame_row(other), None, "{other}");
        }
    }

    #[test]
    fn a_readable_name_stays_readable() {
        let name = LogName::default();
        let key = by_type(&name, LogId([0; 16]), "ai.decision.made", Position(42));
        assert_eq!(key.partition, "type:ai.decision.made");
        assert_eq!(key.row, "main,00000000000000000000000000000000,00000000000000000042");
        let key = by_stream(&name, LogId([0; 16]), "application/42", Version(0));
        assert_eq!(key.partition, "stream:application=2F42");
    }
}

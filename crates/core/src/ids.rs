//! Positions, versions, ids, hashes and times, each a type of its own.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                text.parse().map(Self).map_err(|_| {
                    Error::invalid(format!("'{text}' is not a {}: expected a whole number from 0", stringify!($name).to_lowercase()))
                })
            }
        }
    };
}

number! {
    /// The place of an event in its log: dense, from 0. It is also the event's leaf index in the tree.
    Position
}
number! {
    /// The place of an event in its stream: dense, from 0.
    Version
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The number of bytes.
            pub const LEN: usize = $len;

            /// The value with these bytes, if there are exactly as many as it has.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let bad = || {
                    Error::invalid(format!(
                        "'{text}' is not a {}: expected {} hexadecimal digits",
                        stringify!($name),
                        $len * 2
                    ))
                };
                if text.len() != $len * 2 || !text.is_ascii() {
                    return Err(bad());
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let digit = |d: u8| (d as char).to_digit(16).ok_or_else(bad);
                    *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
                }
                Ok(Self(bytes))
            }
        }
    };
}

bytes_id! {
    /// The random id of a log. Copies of a log keep it.
    LogId, 16
}
bytes_id! {
    /// The random id of a frame, by which a writer knows its own.
    FrameId, 16
}
bytes_id! {
    /// A SHA-256 hash.
    Hash, 32
}

impl LogId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl FrameId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl Hash {
    /// Thirty-two zero bytes: the hash before the first frame of a log.
    pub const ZERO: Hash = Hash([0; 32]);
}

/// The name of a log in a store: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(String);

impl LogName {
    /// The log that is meant when none is named.
    pub const MAIN: &'static str = "main";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogName {
    fn default() -> Self {
        Self(Self::MAIN.to_owned())
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let first_fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let all_fit = name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.'));
        if first_fits && all_fit && name.len() <= 63 {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::invalid(format!(
            "'{}' cannot name a log: 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
            name.escape_debug()
        )))
    }
}

/// A moment: whole microseconds since the Unix epoch, before the year 10000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The last moment that can be written as RFC 3339.
    const MAX_MICROS: u64 = 253_402_207_200_000_000;

    /// The moment this many microseconds after 1970-01-01T00:00:00Z; one past the year 9999 is an error.
    pub fn from_micros(micros: u64) -> Result<Self> {
        if micros > Self::MAX_MICROS {
            return Err(Error::invalid(format!("{micros} microseconds lie past the year 9999")));
        }
        Ok(Self(micros))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn as_micros(self) -> u64 {
        self.0
    }

    /// What `std::time::SystemTime` says, cut to the range that can be written.
    pub fn from_system(time: std::time::SystemTime) -> Self {
        let micros = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
        Self(u64::try_from(micros).unwrap_or(u64::MAX).min(Self::MAX_MICROS))
    }

    /// Parses an RFC 3339 time with an offset, such as `2026-11-22T10:00:00.5Z`. Digits beyond the
    /// microsecond are cut off; a time before 1970 is an error.
    pub fn parse(text: &str) -> Result<Self> {
        let timestamp = parse_rfc3339(text)?;
        u64::try_from(timestamp.as_microsecond())
            .map_err(|_| Error::invalid(format!("the time '{text}' lies before 1970")))
            .and_then(Self::from_micros)
    }
}

/// Parses what RFC 3339 allows and nothing more: jiff also reads other ISO 8601 forms.
pub(crate) fn parse_rfc3339(text: &str) -> Result<jiff::Timestamp> {
    let bad = || {
        Error::invalid(format!(
            "'{}' is not an RFC 3339 time such as 2026-11-22T10:00:00Z",
            text.chars().take(64).collect::<String>().escape_debug()
        ))
    };
    let b = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| b.get(range).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let shape = digits(0..4)
        && b.get(4) == Some(&b'-')
        && digits(5..7)
        && b.get(7) == Some(&b'-')
        && digits(8..10)
        && matches!(b.get(10), Some(b'T' | b't' | b' '))
        && digits(11..13)
        && b.get(13) == Some(&b':')
        && digits(14..16)
        && b.get(16) == Some(&b':')
        && digits(17..19);
    if !shape {
        return Err(bad());
    }
    let mut rest = &b[19..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
        if len == 0 {
            return Err(bad());
        }
        rest = &fraction[len..];
    }
    let offset_fits = matches!(rest, b"Z" | b"z")
        || (rest.len() == 6
            && matches!(rest[0], b'+' | b'-')
            && rest[3] == b':'
            && [1, 2, 4, 5].iter().all(|&i| rest[i].is_ascii_digit()));
    if !offset_fits {
        return Err(bad());
    }
    // More than nine digits of a second are allowed by RFC 3339 and too many for jiff: they are cut.
    let fraction_len = b.len() - 19 - rest.len();
    if fraction_len > 10 {
        let cut = format!("{}{}", &text[..29], &text[b.len() - rest.len()..]);
        return cut.parse().map_err(|_| bad());
    }
    text.parse().map_err(|_| bad())
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = i64::try_from(self.0).ok().and_then(|m| jiff::Timestamp::from_microsecond(m).ok());
        let timestamp = timestamp.expect("a Time is before the year 10000, which jiff can write");
        write!(f, "{timestamp:.6}")
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_rfc_3339_and_written_with_six_digits() {
        let time = Time::parse("2026-11-22T10:00:00.123456789+02:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T08:00:00.123456Z");
        assert_eq!(Time::parse("2026-11-22t10:00:00z").unwrap().to_string(), "2026-11-22T10:00:00.000000Z");
        assert!(Time::parse("2026-11-22T10:00:00.1234567890123Z").is_ok());
        Time::from_micros(Time::MAX_MICROS).unwrap().to_string();
        for bad in [
            "",
            "yesterday",
            "2026-11-22",
            "2026-11-22T10:00:00",
            "20261122T100000Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00+0200",
            "２026-11-22T10:00:00Z",
        ] {
            assert!(Time::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn log_names_are_safe_as_file_names() {
        for good in ["main", "a", "0", "team-1.eu_west"] {
            good.parse::<LogName>().unwrap();
        }
        let long = "a".repeat(64);
        for bad in ["", ".", "..", "-x", "A", "a/b", "a b", "ä", long.as_str()] {
            assert!(bad.parse::<LogName>().is_err(), "{bad}");
        }
    }
}

//! Keys in the queries of URLs, wherever a URL stands.
//!
//! ```text
//! https://h/v1/x?a=1&api%2Dkey=SECRET#top        ?name=value&name=value
//! /login?to=https%3A%2F%2Fh%3Ftoken%3DSECRET     the same within a value, percent-encoded
//! ```
//!
//! A pair begins with `?`, `&` or `#` (a fragment can hold tokens), its name is compared once decoded. Within text a value ends
//! where a URL in text ends: at white space, quotes and angle brackets, without the punctuation that closes a sentence.

use std::ops::Range;

use percent_encoding::percent_decode;

/// What a pair begins with, up to its value. The name is the first group, what stands for `=` the second.
pub(super) const PAIR: &str =
    r"(?:[?&#]|%(?:25)*(?:3[Ff]|2[36]))(?:amp;)?([A-Za-z0-9_.$~+%\[\]-]{1,96}?)(=|%(?:25)*3[Dd])";

/// Whether there is anything like a pair in a text. Without the bound of the name's length, which costs nothing where nothing is cut out.
pub(super) const ANY_PAIR: &str =
    r"(?:[?&#]|%(?:25)*(?:3[Ff]|2[36]))(?:amp;)?[A-Za-z0-9_.$~+%\[\]-]+(?:=|%(?:25)*3[Dd])";

/// How often a name is decoded at most.
const DECODED_MAX: usize = 4;

/// Where a text is cut into pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// Anywhere in text.
    Text,
    /// A URL, or something of one, and nothing else.
    Url,
    /// The query alone, without its question mark.
    Query,
}

/// The name as it is compared: decoded, in lower case, with hyphens.
pub(super) fn folded(name: &[u8]) -> Vec<u8> {
    let mut name = name.to_ascii_lowercase();
    for _ in 0..DECODED_MAX {
        let decoded: Vec<u8> = percent_decode(&name).collect();
        if decoded == name {
            break;
        }
        name = decoded.to_ascii_lowercase();
    }
    name.iter().map(|&b| if b == b'_' { b'-' } else { b }).collect()
}

/// The value that begins at `at`; `level` says how often what separates it from the next pair is encoded.
pub(super) fn value(text: &[u8], at: usize, level: usize, context: Context) -> Range<usize> {
    let mut end = at;
    while let Some(&byte) = text.get(end) {
        let ends = match byte {
            b'&' | b'#' => true,
            b'%' => separator_level(&text[end..]).is_some_and(|found| found <= level),
            b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\' => context == Context::Text,
            byte => byte <= b' ' && context == Context::Text,
        };
        if ends {
            break;
        }
        end += 1;
    }
    if context == Context::Text {
        while end > at && b")]}.,;:!?*".contains(&text[end - 1]) {
            end -= 1;
        }
    }
    at..end
}

/// How often an encoded separator is encoded; `None` if this is none.
fn separator_level(text: &[u8]) -> Option<usize> {
    let (level, rest) = unwrapped(text)?;
    matches!(rest.get(..2)?, b"26" | b"23").then_some(level)
}

/// How often what a pair begins with, or what stands for its `=`, is encoded: 0 if it is plain.
pub(super) fn level(sign: &[u8]) -> usize {
    unwrapped(sign).map_or(0, |(level, _)| level)
}

fn unwrapped(text: &[u8]) -> Option<(usize, &[u8])> {
    let mut rest = text.strip_prefix(b"%")?;
    let mut level = 1;
    while let Some(inner) = rest.strip_prefix(b"25") {
        (rest, level) = (inner, level + 1);
    }
    Some((level, rest))
}

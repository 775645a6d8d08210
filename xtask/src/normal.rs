//! Makes two outputs of the same command comparable: what is different every time becomes a word for it.
//!
//! | what | becomes |
//! |---|---|
//! | `2026-11-22T18:44:00.123Z`, with any offset, or a blank for the `T` | `<time>` |
//! | `18:44:00`, `18:44:00.123` | `<clock>` |
//! | a UUID, or 8 and more hexadecimal digits, or 4 and more before `…` | `<hex>` |
//! | `12 ms`, `3.4 s`, `190 µs`, `2 min` | `<duration>` |
//! | `1,234 bytes`, `2.6 MB`, `64 KiB`, `4 GB/s` | `<size>` |
//! | `5,000/s`, `5,000 events/s` | `<rate>` |
//! | `412 tests` | `<count> tests` |
//! | a path in the system's directory for temporary files | `<path>` |
//!
//! Blanks in a row count as one, as do dashes of a ruler, since columns move with what stands in them.

/// The units of a duration.
const DURATIONS: &[&str] = &["ns", "µs", "us", "ms", "s", "min", "h"];
/// The units of a size.
const SIZES: &[&str] = &[
    "B", "bytes", "byte", "kB", "KB", "KiB", "MB", "MiB", "GB", "GiB", "MB/s", "MiB/s", "GB/s", "GiB/s",
    "kB/s", "KiB/s", "B/s",
];
/// The units of a rate.
const RATES: &[&str] = &["/s", "events/s", "appends/s", "frames/s"];
/// The characters rulers are made of.
const RULERS: &[char] = &['─', '━', '═', '-', '='];

/// The text with everything that is volatile replaced, and trailing blanks gone.
pub(crate) fn normal(text: &str) -> String {
    let temp = std::env::temp_dir().to_string_lossy().trim_end_matches('/').to_owned();
    let mut out = String::with_capacity(text.len());
    for line in text.trim_end().lines() {
        out.push_str(line_of(line, &[&temp, "/tmp"]).trim_end());
        out.push('\n');
    }
    out
}

fn line_of(line: &str, temps: &[&str]) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let in_word = out.chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_');
        let replaced = match c {
            _ if in_word => None,
            '0'..='9' | 'a'..='f' => token(rest),
            '/' => temps.iter().find_map(|temp| path(rest, temp)),
            _ => None,
        };
        if let Some((len, word)) = replaced {
            out.push_str(word);
            rest = &rest[len..];
            continue;
        }
        let again = out.ends_with(c) && (c == ' ' && !out.trim_end().is_empty() || RULERS.contains(&c));
        if !again {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// A volatile token at the start of `text`: its length and what stands for it.
fn token(text: &str) -> Option<(usize, &'static str)> {
    time(text)
        .map(|len| (len, "<time>"))
        .or_else(|| clock(text).map(|len| (len, "<clock>")))
        .or_else(|| uuid(text).map(|len| (len, "<hex>")))
        .or_else(|| measure(text))
        .or_else(|| hex(text).map(|len| (len, "<hex>")))
        .filter(|(len, _)| !text[*len..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The length of what has the shape: `0` is a digit, `x` a hexadecimal digit, `T` a `T` or a blank, anything
/// else itself.
fn shape(text: &str, shape: &str) -> Option<usize> {
    let bytes = text.as_bytes().get(..shape.len())?;
    let fits = |(byte, shape): (&u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'x' => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        other => *byte == other,
    };
    bytes.iter().zip(shape.bytes()).all(fits).then_some(shape.len())
}

/// The length of a fraction `.123` at the start of the text, or 0.
fn fraction(text: &str) -> usize {
    let digits = text.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if digits == 0 { 0 } else { digits + 1 }
}

fn time(text: &str) -> Option<usize> {
    let mut len = shape(text, "0000-00-00T00:00:00")?;
    len += fraction(&text[len..]);
    let rest = &text[len..];
    let offset = if rest.starts_with(['Z', 'z']) {
        1
    } else {
        shape(rest, "+00:00").or_else(|| shape(rest, "-00:00")).unwrap_or(0)
    };
    Some(len + offset)
}

fn clock(text: &str) -> Option<usize> {
    let len = shape(text, "00:00:00")?;
    Some(len + fraction(&text[len..]))
}

fn uuid(text: &str) -> Option<usize> {
    shape(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
}

fn hex(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)).count();
    let has_number = text[..digits].bytes().any(|b| b.is_ascii_digit());
    let rest = &text[digits..];
    if rest.starts_with('…') && digits >= 4 {
        return Some(digits + '…'.len_utf8());
    }
    (digits >= 8 && has_number).then_some(digits)
}

/// A number, perhaps with separators and a fraction, with a unit behind it.
fn measure(text: &str) -> Option<(usize, &'static str)> {
    let number = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b',').count();
    if number == 0 || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = number + fraction(&text[number..]);
    let rest = &text[number..];
    let blank = usize::from(rest.starts_with(' '));
    let unit = &rest[blank..];
    let unit_len = unit.find(|c: char| !c.is_alphabetic() && c != '/').unwrap_or(unit.len());
    let unit = &unit[..unit_len];
    if unit == "tests" || unit == "test" {
        return Some((number, "<count>"));
    }
    let kinds = [(DURATIONS, "<duration>"), (SIZES, "<size>"), (RATES, "<rate>")];
    let word = kinds.iter().find(|(units, _)| units.contains(&unit))?.1;
    Some((number + blank + unit_len, word))
}

fn path(text: &str, temp: &str) -> Option<(usize, &'static str)> {
    let rest = text.strip_prefix(temp)?;
    if temp.is_empty() || !rest.starts_with('/') {
        return None;
    }
    let end = rest.find(|c: char| c.is_whitespace() || "'\"`)],;".contains(c)).unwrap_or(rest.len());
    Some((temp.len() + end, "<path>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        line_of(text, &["/tmp", "/var/folders/x"])
    }

    #[test]
    fn what_changes_from_run_to_run_does_not_matter() {
        for (text, expected) in [
            ("at 2026-11-22T18:44:00.123456Z: ok", "at <time>: ok"),
            ("at 2026-11-22 18:44:00+01:00", "at <time>"),
            ("18:44:00.1  decision", "<clock> decision"),
            ("id 0198c0de-1234-7abc-8def-0123456789ab,", "id <hex>,"),
            ("root e3b0c44298fc1c14", "root <hex>"),
            ("root e3b0c4… and 9afb…", "root <hex> and <hex>"),
            ("took 12.5 ms, then 3s", "took <duration>, then <duration>"),
            ("190 µs", "<duration>"),
            ("2.6 MB in 1,234 bytes", "<size> in <size>"),
            ("12,345/s and 5,000 events/s", "<rate> and <rate>"),
            ("412 tests", "<count> tests"),
            ("in /tmp/precedent-demo-x1/log.", "in <path>"),
            ("'/var/folders/x/a' and '/tmp/b'", "'<path>' and '<path>'"),
            ("a ─────── b ---- c", "a ─ b - c"),
        ] {
            assert_eq!(line(text), expected);
        }
    }

    #[test]
    fn what_means_something_is_left_alone() {
        for text in [
            "position 7, version 2",
            "8 events, 3 streams",
            "loan/42 approve 0.31",
            "ai.decision.made",
            "facade decade",
            "precedent 0.1.0",
            "6 passed, 0 failed",
            "127.0.0.1:7373",
            "/tmpfile",
            "effaced",
            "v8a12345678",
        ] {
            assert_eq!(line(text), text);
        }
        assert_ne!(line("8 events"), line("9 events"));
    }

    #[test]
    fn the_indent_of_a_line_matters_and_trailing_blanks_do_not() {
        assert_eq!(normal("  a  b  \n\n"), "  a b\n");
    }
}

//! Recorded text on a terminal: control characters and what reorders text are shown, never obeyed.

use std::borrow::Cow;

use precedent_decisions::text::{is_dangerous, push_named};

/// The text with every dangerous character written as `\u{…}`, line breaks and tabs included.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_dangerous(c) {
            true => push_named(c, &mut out),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// At most `chars_max` characters of the text, the last an ellipsis if some are missing.
pub(crate) fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let end = text.char_indices().nth(chars_max.saturating_sub(1)).map_or(0, |(at, _)| at);
            Cow::Owned(format!("{}…", &text[..end]))
        }
    }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 event`, `2 events`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        n => format!("{} {noun}s", grouped(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_recorded_reaches_the_terminal_as_a_command() {
        assert_eq!(escaped("plain ä €"), "plain ä €");
        assert_eq!(escaped("\u{1b}[31mred\u{7}\n"), "\\u{1b}[31mred\\u{7}\\n");
        assert_eq!(escaped("a\u{202e}b\u{2066}c\u{9b}"), "a\\u{202e}b\\u{2066}c\\u{9b}");
    }

    #[test]
    fn shortened_text_has_at_most_so_many_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("x", 0), "…");
    }

    #[test]
    fn numbers_are_grouped_and_counted() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
        assert_eq!(counted(1, "event"), "1 event");
        assert_eq!(counted(2454, "event"), "2,454 events");
    }
}

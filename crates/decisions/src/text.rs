//! Recorded text that is safe to show: what could move a cursor, change colours, or reorder text is named, never obeyed.

use std::fmt::Write;

/// Whether a character could make text look like other text, on a terminal or in a page.
pub fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Adds a dangerous character as it is shown: `\n`, `\u{202e}`.
pub fn push_named(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => write!(out, "\\u{{{:x}}}", c as u32).expect("a string takes everything"),
    }
}

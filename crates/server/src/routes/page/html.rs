//! HTML out of recorded text: markup is text, and what would move or reorder text is named.

use precedent_decisions::text::{is_dangerous, push_named};

/// Text between tags; line breaks and tabs stay.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16 + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if is_dangerous(c) => {
                out.push_str("<b class=x>");
                push_named(c, &mut out);
                out.push_str("</b>");
            }
            c => out.push(c),
        }
    }
    out
}

/// The value of an attribute, with its quotes.
pub(super) fn attribute(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if is_dangerous(c) => push_named(c, &mut out),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A path with a query, for `href`; parameters that are empty are left out.
pub(super) fn url(path: &str, parameters: &[(&str, &str)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(separator);
        out.push_str(name);
        out.push('=');
        out.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        separator = '&';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_recorded_becomes_markup_or_reorders_text() {
        assert_eq!(
            text("<script>alert('&')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"
        );
        assert_eq!(text("a\u{202e}b\u{1b}[31m\n"), "a<b class=x>\\u{202e}</b>b<b class=x>\\u{1b}</b>[31m\n");
        assert_eq!(attribute("\" onload=\"x\n"), "\"&quot; onload=&quot;x\\n\"");
        assert_eq!(url("/show", &[("of", "a/b?c=d&e"), ("at", "")]), "/show?of=a%2Fb%3Fc%3Dd%26e");
    }
}

//! What is taken out of captured content before it is recorded.
//!
//! [`Rules`] come from a file of lines (`rules/default.rules` is the one built in). Every byte that is taken out becomes
//! `*`, so the structure around it stays what it was: the lengths of a protobuf message, the borders of chunks, the offsets in a
//! stream. What was taken out is counted by rule in [`Redacted`], and the event says so.
//!
//! **Invariant.** A mask lies within one text: one string of a JSON document, one text of an OTLP message, one body. So
//! no rule can break the structure of what it is applied to.

use std::collections::BTreeMap;
use std::ops::Range;

use precedent_core::{Error, Result};
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::wire::{Fields, Wire};

/// What a masked byte becomes.
const MASK: u8 = b'*';

/// Headers that are never recorded, whatever the rules say.
const ALWAYS: [&str; 4] = ["authorization", "proxy-authorization", "x-api-key", "api-key"];

/// Bytes that the compiled patterns may take, all together.
const PATTERNS_BYTES_MAX: usize = 16 << 20;

/// How deep messages are followed; the text of what is deeper is looked at as one.
const DEPTH_MAX: usize = 100;

/// How often each rule has taken something out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redacted(BTreeMap<String, u64>);

impl Redacted {
    /// Counts one more.
    pub fn add(&mut self, rule: &str) {
        *self.0.entry(rule.to_owned()).or_default() += 1;
    }

    /// Adds what another count has.
    pub fn merge(&mut self, other: Redacted) {
        for (rule, count) in other.0 {
            *self.0.entry(rule).or_default() += count;
        }
    }

    /// How much was taken out in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// By rule, in the order of their names.
    pub fn by_rule(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(rule, count)| (rule.as_str(), *count))
    }

    /// As it stands in an event: `api_key:2,header:1`.
    pub fn summary(&self) -> String {
        let rows: Vec<String> = self.0.iter().map(|(rule, count)| format!("{rule}:{count}")).collect();
        rows.join(",")
    }
}

/// How a text is written down, which says where a mask may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One text.
    Text,
    /// A JSON document.
    Json,
    /// A request of OTLP in protobuf.
    Otlp,
}

/// Which headers, query keys and patterns are taken out.
#[derive(Debug, Clone)]
pub struct Rules {
    headers: Vec<String>,
    queries: Vec<String>,
    patterns: Vec<(String, Regex)>,
    /// Whether any pattern matches, in one pass over the text.
    any: RegexSet,
    /// Whether an attribute could hold a header.
    headers_in_attributes: Regex,
}

impl Default for Rules {
    /// The rules built in.
    fn default() -> Self {
        Self::parse(include_str!("../rules/default.rules"), "the default rules")
            .expect("a test parses the rules built in")
    }
}

impl Rules {
    /// Reads rules, one a line; `place` names them in errors.
    ///
    /// # Errors
    /// `invalid` with the line that is no rule.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let mut headers: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
        let mut queries = Vec::new();
        let mut patterns: Vec<(String, Regex)> = Vec::new();
        let mut sources = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |what: String| Error::invalid(format!("{place}, line {}: {what}", at + 1));
            let (kind, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            if rest.is_empty() {
                return Err(bad(format!("'{}' is no rule: it names nothing", kind.escape_debug())));
            }
            match kind {
                "header" => headers.push(rest.to_ascii_lowercase()),
                "query" => queries.push(rest.to_ascii_lowercase()),
                "pattern" => {
                    let (name, source) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    let source = source.trim();
                    if source.is_empty() {
                        return Err(bad("a pattern has a name and a regular expression".to_owned()));
                    }
                    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                        return Err(bad(format!("'{}' cannot name a pattern", name.escape_debug())));
                    }
                    let built =
                        RegexBuilder::new(source).unicode(false).size_limit(PATTERNS_BYTES_MAX).build();
                    let regex = built.map_err(|e| bad(e.to_string().replace('\n', " ")))?;
                    if regex.is_match(b"") {
                        return Err(bad(format!(
                            "the pattern '{name}' matches nothing at all, so it matches everywhere"
                        )));
                    }
                    patterns.push((name.to_owned(), regex));
                    sources.push(source.to_owned());
                }
                other => {
                    return Err(bad(format!(
                        "'{}' is no kind of rule: expected header, query or pattern",
                        other.escape_debug()
                    )));
                }
            }
        }
        let any = RegexSetBuilder::new(&sources).unicode(false).size_limit(PATTERNS_BYTES_MAX).build();
        let any = any.map_err(|e| Error::invalid(format!("{place}: {e}")))?;
        let headers_in_attributes =
            Regex::new(r"header\.|metadata\.").map_err(|e| Error::invalid(e.to_string()))?;
        Ok(Self { headers, queries, patterns, any, headers_in_attributes })
    }

    /// Whether the value of this header is not recorded.
    pub fn hides_header(&self, name: &str) -> bool {
        self.headers.iter().any(|hidden| hidden.eq_ignore_ascii_case(name))
    }

    /// Whether an attribute holds the value of such a header: `http.request.header.authorization`.
    fn hides_attribute(&self, name: &[u8]) -> bool {
        let Ok(name) = std::str::from_utf8(name) else { return false };
        let header = ["http.request.header.", "http.response.header.", "rpc.request.metadata."]
            .into_iter()
            .find_map(|before| name.strip_prefix(before));
        header.is_some_and(|header| self.hides_header(&header.replace('_', "-")))
    }

    /// Masks the values of query keys in a path or URL, and what patterns match in it.
    pub fn url(&self, url: &str, redacted: &mut Redacted) -> String {
        let mut out = match url.split_once('?') {
            None => url.to_owned(),
            Some((path, query)) => {
                let pairs: Vec<String> = query
                    .split('&')
                    .map(|pair| match pair.split_once('=') {
                        Some((name, value)) if self.queries.iter().any(|q| q.eq_ignore_ascii_case(name)) => {
                            redacted.add("query");
                            format!("{name}={}", "*".repeat(value.len()))
                        }
                        _ => pair.to_owned(),
                    })
                    .collect();
                format!("{path}?{}", pairs.join("&"))
            }
        };
        self.text(&mut out, redacted);
        out
    }

    /// Masks what patterns match in a text.
    pub fn text(&self, text: &mut String, redacted: &mut Redacted) {
        if self.any.is_match(text.as_bytes()) {
            let mut bytes = std::mem::take(text).into_bytes();
            self.mask(&mut bytes, Form::Text, redacted);
            // A mask covers whole characters, so this changes nothing.
            *text = String::from_utf8(bytes)
                .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        }
    }

    /// Masks what patterns match, and the values of hidden headers in attributes.
    pub fn mask(&self, data: &mut [u8], form: Form, redacted: &mut Redacted) {
        match form {
            Form::Text => {
                if self.any.is_match(data) {
                    let len = data.len();
                    self.mask_range(data, 0..len, false, redacted);
                }
            }
            Form::Json => {
                if self.headers_in_attributes.is_match(data) || self.any.is_match(data) {
                    for (range, hidden) in json_texts(data, self) {
                        self.mask_or_hide(data, range, hidden, true, redacted);
                    }
                }
            }
            Form::Otlp => {
                if self.headers_in_attributes.is_match(data) || self.any.is_match(data) {
                    let mut texts = Vec::new();
                    otlp_texts(self, data, 0..data.len(), Message::Request, false, 0, &mut texts);
                    for (range, hidden) in texts {
                        self.mask_or_hide(data, range, hidden, false, redacted);
                    }
                }
            }
        }
    }

    fn mask_or_hide(
        &self,
        data: &mut [u8],
        range: Range<usize>,
        hidden: bool,
        json: bool,
        redacted: &mut Redacted,
    ) {
        if hidden {
            redacted.add("header");
            data[range].fill(MASK);
        } else {
            self.mask_range(data, range, json, redacted);
        }
    }

    fn mask_range(&self, data: &mut [u8], range: Range<usize>, json: bool, redacted: &mut Redacted) {
        for at in self.any.matches(&data[range.clone()]) {
            let (name, regex) = &self.patterns[at];
            let found: Vec<Range<usize>> = regex
                .captures_iter(&data[range.clone()])
                .filter_map(|c| c.get(1).or_else(|| c.get(0)).map(|m| m.range()))
                .filter(|found| !found.is_empty())
                .collect();
            for found in found {
                let found = range.start + found.start..range.start + found.end;
                let found = whole_characters(data, found, &range);
                let found = if json { whole_escapes(data, found, &range) } else { found };
                if data[found.clone()].iter().any(|&b| b != MASK) {
                    redacted.add(name);
                    data[found].fill(MASK);
                }
            }
        }
    }
}

/// The range, grown to whole characters of UTF-8 where it begins or ends within one.
fn whole_characters(data: &[u8], found: Range<usize>, within: &Range<usize>) -> Range<usize> {
    let continues = |b: u8| b & 0xc0 == 0x80;
    let (mut start, mut end) = (found.start, found.end);
    while start > within.start && continues(data[start]) {
        start -= 1;
    }
    if end > start && !data[end - 1].is_ascii() {
        while end < within.end && continues(data[end]) {
            end += 1;
        }
    }
    start..end
}

/// The range, grown to whole escapes of a JSON string where it begins or ends within one.
fn whole_escapes(data: &[u8], found: Range<usize>, within: &Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (found.start, found.end);
    let mut at = within.start;
    while at < within.end && at < end {
        let len = match (data[at], data.get(at + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            _ => 1,
        };
        let unit = at..(at + len).min(within.end);
        if unit.contains(&start) {
            start = unit.start;
        }
        if unit.start < end && end < unit.end {
            end = unit.end;
        }
        at += len;
    }
    start..end
}

/// The contents of the strings of a JSON document, without their quotes; `true` for those that hold a hidden header.
fn json_texts(data: &[u8], rules: &Rules) -> Vec<(Range<usize>, bool)> {
    let mut texts = Vec::new();
    let (mut at, mut depth) = (0usize, 0usize);
    // The last string that named a member, and the depth inside which a header's value is hidden.
    let mut member: Option<Range<usize>> = None;
    let mut hiding: Option<usize> = None;
    while let Some(&byte) = data.get(at) {
        match byte {
            b'"' => {
                let start = at + 1;
                let mut end = start;
                while let Some(&b) = data.get(end) {
                    match b {
                        b'"' => break,
                        b'\\' => end += 2,
                        _ => end += 1,
                    }
                }
                let end = end.min(data.len());
                at = end + 1;
                let names =
                    data[at.min(data.len())..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':');
                if names {
                    member = Some(start..end);
                    // A name can hold a key too, and hiding it would change the structure; patterns apply.
                    texts.push((start..end, false));
                    continue;
                }
                let is_key = member.take().is_some_and(|name| &data[name] == b"key");
                if is_key && rules.hides_attribute(&data[start..end]) {
                    hiding = Some(depth);
                    continue;
                }
                texts.push((start..end, hiding.is_some()));
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                if hiding.is_some_and(|from| depth <= from) {
                    hiding = None;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    texts
}

/// The messages of OTLP that hold text, or hold one that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Request,
    OfResource,
    Resource,
    OfScope,
    Scope,
    Record,
    Event,
    Link,
    Status,
    KeyValue,
    Any,
    ArrayValue,
    KvList,
}

enum Child {
    Message(Message),
    Text,
    /// Bytes that are no text: ids.
    Skip,
}

impl Message {
    /// What a field of this message holds. Spans and log records have no number in common that means two different
    /// kinds of thing, but for 5 and 9: name and body, attributes and trace id.
    fn child(self, number: u32, bytes: &[u8]) -> Child {
        use Child::{Message as M, Skip, Text};
        match (self, number) {
            (Self::Request, 1) => M(Self::OfResource),
            (Self::OfResource, 1) => M(Self::Resource),
            (Self::OfResource, 2) => M(Self::OfScope),
            (Self::OfScope, 1) => M(Self::Scope),
            (Self::OfScope, 2) => M(Self::Record),
            (Self::Resource, 1) | (Self::Scope, 3) | (Self::Event, 3) => M(Self::KeyValue),
            (Self::Link, 4) => M(Self::KeyValue),
            (Self::Link, 1 | 2) => Skip,
            (Self::Record, 1 | 2 | 4 | 10) => Skip,
            (Self::Record, 5) if is_any(bytes) => M(Self::Any),
            (Self::Record, 6) => M(Self::KeyValue),
            (Self::Record, 9) if bytes.len() != 16 || is_pair(bytes) => M(Self::KeyValue),
            (Self::Record, 9) => Skip,
            (Self::Record, 11) => M(Self::Event),
            (Self::Record, 13) => M(Self::Link),
            (Self::Record, 15) => M(Self::Status),
            (Self::KeyValue, 2) => M(Self::Any),
            (Self::Any, 5) => M(Self::ArrayValue),
            (Self::Any, 6) => M(Self::KvList),
            (Self::ArrayValue, 1) => M(Self::Any),
            (Self::KvList, 1) => M(Self::KeyValue),
            _ => Text,
        }
    }
}

/// Whether these bytes are an `AnyValue` rather than a name.
fn is_any(bytes: &[u8]) -> bool {
    let mut fields = Fields::new(bytes);
    fields.all(|field| field.is_ok_and(|f| (1..=8).contains(&f.number)))
}

/// Whether these bytes are a `KeyValue` rather than an id.
fn is_pair(bytes: &[u8]) -> bool {
    let mut fields = Fields::new(bytes);
    fields.all(|field| field.is_ok_and(|f| f.number <= 2 && f.value.bytes().is_some()))
}

/// The ranges of all texts in a message; `true` for those that hold a hidden header.
fn otlp_texts(
    rules: &Rules,
    data: &[u8],
    range: Range<usize>,
    message: Message,
    hidden: bool,
    depth: usize,
    out: &mut Vec<(Range<usize>, bool)>,
) {
    let base = range.start;
    let mut at = base;
    let mut hidden = hidden;
    for field in Fields::new(&data[range]) {
        let Ok(field) = field else { return };
        at += field.raw.len();
        let Wire::Bytes(bytes) = field.value else { continue };
        let inner = at - bytes.len()..at;
        match message.child(field.number, bytes) {
            Child::Skip => {}
            Child::Message(child) if depth < DEPTH_MAX => {
                otlp_texts(rules, data, inner, child, hidden, depth + 1, out);
            }
            Child::Message(_) | Child::Text => {
                let is_key = message == Message::KeyValue && field.number == 1;
                if is_key && rules.hides_attribute(bytes) {
                    hidden = true;
                } else {
                    out.push((inner, hidden && !is_key));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_bytes;

    const KEY: &str = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789";

    fn masked(text: &str, form: Form) -> (String, String) {
        let mut data = text.as_bytes().to_vec();
        let mut redacted = Redacted::default();
        Rules::default().mask(&mut data, form, &mut redacted);
        assert_eq!(data.len(), text.len());
        (String::from_utf8(data).unwrap(), redacted.summary())
    }

    #[test]
    fn keys_and_tokens_are_masked_and_counted() {
        let (text, summary) =
            masked(&format!("use {KEY} or Bearer 0123456789012345678901==, please"), Form::Text);
        assert_eq!(text, format!("use {} or Bearer {}, please", "*".repeat(KEY.len()), "*".repeat(24)));
        assert_eq!(summary, "api_key:1,bearer_token:1");
        assert_eq!(masked("sk-short", Form::Text), ("sk-short".to_owned(), String::new()));
    }

    #[test]
    fn a_mask_stays_within_its_string_of_json() {
        let rules = Rules::parse("pattern wide [^ ]{8,}\npattern n [a-z]{6}", "test").unwrap();
        for json in [r#"{"a":"x\nabcdefgh","b":["\u00e9abcdefgh"," "]}"#, r#"{"":"éééééééé\"\\"}"#] {
            let mut data = json.as_bytes().to_vec();
            let mut redacted = Redacted::default();
            rules.mask(&mut data, Form::Json, &mut redacted);
            assert!(redacted.total() > 0);
            serde_json::from_slice::<serde_json::Value>(&data)
                .unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(&data)));
        }
    }

    #[test]
    fn headers_in_attributes_are_hidden_and_their_neighbours_are_not() {
        let json = r#"{"attributes":[{"key":"http.request.header.authorization","value":{"arrayValue":{"values":[{"stringValue":"secret"}]}}},{"key":"a","value":{"stringValue":"open"}}]}"#;
        let (text, summary) = masked(json, Form::Json);
        assert_eq!(text, json.replace("secret", "******"));
        assert_eq!(summary, "header:1");
    }

    #[test]
    fn a_mask_in_protobuf_leaves_lengths_and_neighbours_alone() {
        let pair = |key: &str, value: &str| {
            let mut any = Vec::new();
            put_bytes(1, value.as_bytes(), &mut any);
            let mut pair = Vec::new();
            put_bytes(1, key.as_bytes(), &mut pair);
            put_bytes(2, &any, &mut pair);
            pair
        };
        let request = |secret: &str, header: &str| {
            let mut span = Vec::new();
            put_bytes(1, &[0x41; 16], &mut span);
            // The tag of an attribute is 'J', a letter that a pattern without borders would run into.
            put_bytes(9, &pair("gen_ai.x", secret), &mut span);
            put_bytes(9, &pair("http.request.header.api_key", header), &mut span);
            put_bytes(9, &pair("k", "open"), &mut span);
            let (mut scope, mut resource, mut out) = (Vec::new(), Vec::new(), Vec::new());
            put_bytes(2, &span, &mut scope);
            put_bytes(2, &scope, &mut resource);
            put_bytes(1, &resource, &mut out);
            out
        };
        let mut data = request(KEY, "hush");
        let mut redacted = Redacted::default();
        Rules::default().mask(&mut data, Form::Otlp, &mut redacted);
        assert_eq!(data, request(&"*".repeat(KEY.len()), "****"));
        assert_eq!(redacted.summary(), "api_key:1,header:1");
    }

    #[test]
    fn urls_lose_the_keys_in_their_query() {
        let mut redacted = Redacted::default();
        let url = Rules::default().url("https://h/v1/x?a=1&KEY=abc&sig=&b", &mut redacted);
        assert_eq!(url, "https://h/v1/x?a=1&KEY=***&sig=&b");
        assert_eq!(redacted.total(), 2);
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused_with_their_line() {
        for (bad, says) in [
            ("\nheader", "line 2: 'header' is no rule"),
            ("pattern x", "a name and a regular"),
            ("pattern x (", "line 1"),
            ("pattern x a*", "matches everywhere"),
            ("forbid x", "'forbid'"),
        ] {
            let error = Rules::parse(bad, "file").unwrap_err();
            assert!(error.message().contains(says), "{bad}: {error}");
        }
        let none = Rules::parse("# nothing", "file").unwrap();
        assert!(
            none.hides_header("Authorization") && none.hides_header("X-API-Key") && !none.hides_header("x")
        );
    }

    #[test]
    fn hostile_bytes_are_masked_without_a_panic() {
        let rules = Rules::parse("pattern any [^z]{2}", "test").unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for len in 0..300 {
            let mut bytes = |b: &mut u8| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *b = (seed >> 56) as u8 & 0x7f | (seed >> 40) as u8 & 0x80;
            };
            let mut data = vec![0u8; len];
            data.iter_mut().for_each(&mut bytes);
            for form in [Form::Text, Form::Json, Form::Otlp] {
                rules.mask(&mut data.clone(), form, &mut Redacted::default());
            }
        }
    }
}

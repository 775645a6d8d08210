//! What is taken out of captured content before it is recorded.
//!
//! [`Rules`] come from a file of lines (`rules/default.rules` is the one built in). Every byte that is taken out becomes
//! `*`, so the structure around it stays what it was: the lengths of a protobuf message, the borders of chunks, the offsets in a
//! stream. What was taken out is counted by rule in [`Redacted`], and the event says so.
//!
//! Text is looked at as it stands, and once more with its escapes undone (`joined`), so that a key is found in JSON within JSON too.
//! Queries of URLs are cut into pairs by `query`, documents into texts by `texts`.
//!
//! **Invariant.** A mask lies within texts: strings of a JSON document, texts of an OTLP message, one body. So no rule can break the
//! structure of what it is applied to.

mod joined;
mod query;
mod texts;

use std::collections::BTreeMap;
use std::ops::Range;

use precedent_core::{Error, Result};
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use joined::Joined;
use query::Context;
use texts::{Holds, Message};

/// What a masked byte becomes.
const MASK: u8 = b'*';

/// Headers that are never recorded, whatever the rules say.
const ALWAYS: [&str; 4] = ["authorization", "proxy-authorization", "x-api-key", "api-key"];

/// Bytes that the compiled patterns may take, all together.
const PATTERNS_BYTES_MAX: usize = 16 << 20;

/// The name under which values of query keys are counted.
const QUERY: &str = "query";

/// Attributes that hold the query of a URL without the URL.
const QUERIES: [&str; 3] = ["url.query", "http.query", "http.query_string"];

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
    /// An answer that may have come in pieces: events, lines or a list of documents, whose strings continue each other.
    Stream,
    /// Pairs of names and values, as forms send them.
    Pairs,
    /// A piece of something that was masked whole: in a piece, other things seem to begin.
    Masked,
}

/// Which headers, query keys and patterns are taken out.
#[derive(Debug, Clone)]
pub struct Rules {
    /// In lower case, with hyphens.
    headers: Vec<String>,
    /// Likewise.
    queries: Vec<Vec<u8>>,
    patterns: Vec<(String, Regex)>,
    /// Whether any pattern matches, or the one behind them: a pair of a query; in one pass over the text.
    any: RegexSet,
    pair: Regex,
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
                "header" => headers.push(rest.to_ascii_lowercase().replace('_', "-")),
                "query" => queries.push(query::folded(rest.as_bytes())),
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
        if !queries.is_empty() {
            sources.push(query::ANY_PAIR.to_owned());
        }
        let any = RegexSetBuilder::new(&sources).unicode(false).size_limit(PATTERNS_BYTES_MAX).build();
        let any = any.map_err(|e| Error::invalid(format!("{place}: {e}")))?;
        let pair = RegexBuilder::new(query::PAIR).unicode(false).build();
        let pair = pair.map_err(|e| Error::invalid(e.to_string()))?;
        Ok(Self { headers, queries, patterns, any, pair })
    }

    /// Whether the value of this header is not recorded.
    pub fn hides_header(&self, name: &str) -> bool {
        self.hides_name(name.as_bytes())
    }

    /// Whether something of this name holds such a value; attributes have `_` for `-`.
    fn hides_name(&self, name: &[u8]) -> bool {
        let folded = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
        self.headers
            .iter()
            .any(|hidden| hidden.len() == name.len() && hidden.bytes().eq(name.iter().map(folded)))
    }

    /// What the value of an attribute holds, by the attribute's name: `http.request.header.authorization`, `url.query`.
    fn attribute_holds(&self, name: &[u8]) -> Holds {
        let last = name.rsplit(|&b| b == b'.').next().unwrap_or_default();
        if self.hides_name(last) {
            Holds::Header
        } else if QUERIES.iter().any(|query| query.as_bytes() == name) {
            Holds::Query
        } else {
            Holds::Text
        }
    }

    /// Masks the values of query keys in a path or URL, and what patterns match in it.
    pub fn url(&self, url: &str, redacted: &mut Redacted) -> String {
        let mut bytes = url.as_bytes().to_vec();
        let len = bytes.len();
        self.mask_pairs(&mut bytes, 0..len, Context::Url, redacted);
        let mut out = text_of(bytes);
        self.text(&mut out, redacted);
        out
    }

    /// Masks what patterns match in a text, and the values of query keys.
    pub fn text(&self, text: &mut String, redacted: &mut Redacted) {
        if self.finds(text.as_bytes()) {
            let mut bytes = std::mem::take(text).into_bytes();
            self.mask(&mut bytes, Form::Text, redacted);
            *text = text_of(bytes);
        }
    }

    /// Masks what patterns match, the values of query keys in URLs, and the values of hidden headers in attributes.
    pub fn mask(&self, data: &mut [u8], form: Form, redacted: &mut Redacted) {
        let len = data.len();
        match form {
            Form::Masked => {}
            Form::Text => self.mask_text(data, 0..len, false, redacted),
            Form::Pairs => {
                self.mask_pairs(data, 0..len, Context::Query, redacted);
                self.mask_text(data, 0..len, false, redacted);
            }
            Form::Stream => {
                self.mask_text(data, 0..len, false, redacted);
                let mut next = Some(0);
                while let Some(at) = next {
                    let (texts, more) = texts::of_stream(data, at);
                    for joined in texts {
                        self.mask_joined(data, &joined, redacted);
                    }
                    next = more;
                }
            }
            Form::Json => {
                let texts = texts::of_json(data, self);
                self.mask_texts(data, texts, true, redacted);
            }
            Form::Otlp => {
                let mut texts = Vec::new();
                texts::of_otlp(self, data, 0..len, Message::Request, Holds::Text, 0, &mut texts);
                self.mask_texts(data, texts, false, redacted);
            }
        }
    }

    /// Whether a pattern matches in a text, or something that could be a pair of a query.
    fn finds(&self, text: &[u8]) -> bool {
        let mut next = text.contains(&b'\\').then_some(0);
        self.any.is_match(text)
            || std::iter::from_fn(|| {
                let (joined, more) = Joined::window(text, next?..text.len());
                next = more;
                Some(joined)
            })
            .any(|joined| self.any.is_match(joined.text()))
    }

    fn mask_texts(
        &self,
        data: &mut [u8],
        texts: Vec<(Range<usize>, Holds)>,
        json: bool,
        redacted: &mut Redacted,
    ) {
        // Most records hold nothing of interest: all their texts are looked at in one pass, with something between them that is
        // part of none.
        let mut all = Vec::with_capacity(data.len());
        for (range, _) in &texts {
            all.extend_from_slice(&data[range.clone()]);
            all.push(0);
        }
        let found = self.finds(&all);
        drop(all);
        for (range, holds) in texts {
            match holds {
                Holds::Header => {
                    if !range.is_empty() {
                        redacted.add("header");
                        data[range].fill(MASK);
                    }
                    continue;
                }
                Holds::Query => self.mask_pairs(data, range.clone(), Context::Query, redacted),
                Holds::Name | Holds::Text => {}
            }
            if found {
                self.mask_text(data, range, json, redacted);
            }
        }
    }

    /// Masks within one text: as it stands, and with its escapes undone.
    fn mask_text(&self, data: &mut [u8], range: Range<usize>, json: bool, redacted: &mut Redacted) {
        if self.any.is_match(&data[range.clone()]) {
            for (rule, found) in self.found(&data[range.clone()]) {
                let found = range.start + found.start..range.start + found.end;
                let found = whole_characters(data, found, &range);
                let found = if json { whole_escapes(data, found, &range) } else { found };
                hide(data, &[found], rule, redacted);
            }
        }
        let mut next = data[range.clone()].contains(&b'\\').then_some(range.start);
        while let Some(at) = next {
            let (joined, more) = Joined::window(data, at..range.end);
            self.mask_joined(data, &joined, redacted);
            next = more;
        }
    }

    fn mask_joined(&self, data: &mut [u8], joined: &Joined, redacted: &mut Redacted) {
        let text = joined.text();
        if self.any.is_match(text) {
            for (rule, found) in self.found(text) {
                let found = whole_characters(text, found, &(0..text.len()));
                hide(data, &joined.places(found), rule, redacted);
            }
        }
    }

    /// What patterns match in a text, and the values of query keys, with the names of their rules.
    fn found(&self, text: &[u8]) -> Vec<(&str, Range<usize>)> {
        let mut found = Vec::new();
        for at in self.any.matches(text) {
            match self.patterns.get(at) {
                Some((name, regex)) => {
                    let matches = regex.captures_iter(text);
                    let ranges = matches.filter_map(|c| c.get(1).or_else(|| c.get(0)).map(|m| m.range()));
                    found
                        .extend(ranges.filter(|range| !range.is_empty()).map(|range| (name.as_str(), range)));
                }
                None => found.extend(self.pairs(text, Context::Text).into_iter().map(|range| (QUERY, range))),
            }
        }
        found
    }

    fn mask_pairs(&self, data: &mut [u8], range: Range<usize>, context: Context, redacted: &mut Redacted) {
        for found in self.pairs(&data[range.clone()], context) {
            let found = range.start + found.start..range.start + found.end;
            hide(data, &[whole_characters(data, found, &range)], QUERY, redacted);
        }
    }

    /// The values of query keys in a text.
    fn pairs(&self, text: &[u8], context: Context) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let hides = |name: &[u8]| {
            let name = query::folded(name);
            self.queries.contains(&name)
        };
        if context == Context::Query {
            let name = text.iter().take_while(|b| !b"=&#".contains(b)).count();
            if text.get(name) == Some(&b'=') && hides(&text[..name]) {
                found.push(query::value(text, name + 1, 0, context));
            }
        }
        let mut at = 0;
        while let Some(pair) = self.pair.captures_at(text, at) {
            let (Some(whole), Some(name), Some(equals)) = (pair.get(0), pair.get(1), pair.get(2)) else {
                break;
            };
            at = whole.start() + 1;
            // Two of them compare something, in a program.
            if !hides(name.as_bytes()) || context == Context::Text && text.get(whole.end()) == Some(&b'=') {
                continue;
            }
            let level = query::level(whole.as_bytes()).max(query::level(equals.as_bytes()));
            let value = query::value(text, whole.end(), level, context);
            at = value.end.max(at);
            found.push(value);
        }
        found.retain(|value| !value.is_empty());
        found
    }
}

/// Masks these places, which one rule has found together.
fn hide(data: &mut [u8], places: &[Range<usize>], rule: &str, redacted: &mut Redacted) {
    if places.iter().any(|place| data[place.clone()].iter().any(|&b| b != MASK)) {
        redacted.add(rule);
        places.iter().for_each(|place| data[place.clone()].fill(MASK));
    }
}

/// Masked text. A mask covers whole characters, so this changes nothing.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
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
        let url = Rules::default()
            .url("https://h/v1/x?a=1&KEY=a'b\")&sig=&b&api%2Dkey=c&api_key=d#token=e", &mut redacted);
        assert_eq!(url, "https://h/v1/x?a=1&KEY=*****&sig=&b&api%2Dkey=*&api_key=*#token=*");
        assert_eq!(redacted.summary(), "query:4");
    }

    #[test]
    fn the_values_of_query_keys_go_wherever_a_url_stands() {
        for (text, expected) in [
            ("see https://h/a?x=1&token=abc.def, or", "see https://h/a?x=1&token=*******, or"),
            ("[it](/a?sig=abc%2Bd%26e)!", "[it](/a?sig=***********)!"),
            ("'https://h/?code=abc' 1", "'https://h/?code=***' 1"),
            ("/a?Access_Token=abc&b=2", "/a?Access_Token=***&b=2"),
            ("/a?b=2&amp;key=abc&amp;c=3", "/a?b=2&amp;key=***&amp;c=3"),
            ("/a?api%252Dkey=abc&%61pikey=def", "/a?api%252Dkey=***&%61pikey=***"),
            ("/cb#access_token=abc&type=bearer", "/cb#access_token=***&type=bearer"),
            ("/to?u=https%3A%2F%2Fh%3Fkey%3Dabc%26b%3D1&c", "/to?u=https%3A%2F%2Fh%3Fkey%3D***%26b%3D1&c"),
            ("/to?u=%253Fkey%253Dabc%2525%2526b&c", "/to?u=%253Fkey%253D********%2526b&c"),
            (
                r#"{"u":"https:\/\/h\/?key=ab\u002Bc\u0026b=1"}"#,
                r#"{"u":"https:\/\/h\/?key=*********\u0026b=1"}"#,
            ),
            (r#""{\"u\":\"/a?b\\u0026sig=abc\"}""#, r#""{\"u\":\"/a?b\\u0026sig=***\"}""#),
            // What compares or only looks similar stays.
            ("a ? key = b : c; x?key==1; &token", "a ? key = b : c; x?key==1; &token"),
            ("monkey=1 ?monkey=1 ?keys=2 ?key= &key=&", "monkey=1 ?monkey=1 ?keys=2 ?key= &key=&"),
        ] {
            assert_eq!(masked(text, Form::Text).0, expected);
        }
    }

    #[test]
    fn the_query_of_a_url_is_one_where_an_attribute_says_so() {
        let json = |before: &str, after: &str| {
            format!(
                r#"{{"attributes":[{{{before}"key":"url.query"{after}}},{{"key":"other","value":{{"stringValue":"token=a"}}}}]}}"#
            )
        };
        let value = |text: &str| format!(r#""value":{{"stringValue":"{text}"}}"#);
        for (before, after) in [(true, false), (false, true)] {
            let place = |text: &str| {
                let value = value(text);
                json(
                    &if before { format!("{value},") } else { String::new() },
                    &if after { format!(",{value}") } else { String::new() },
                )
            };
            let (text, summary) = masked(&place("token=a b&x=1&sig=c"), Form::Json);
            assert_eq!((text, summary.as_str()), (place("token=***&x=1&sig=*"), "query:2"));
        }
        let pair = |key: &str, value: &str| {
            let (mut any, mut pair) = (Vec::new(), Vec::new());
            put_bytes(1, value.as_bytes(), &mut any);
            // The value stands before its name.
            put_bytes(2, &any, &mut pair);
            put_bytes(1, key.as_bytes(), &mut pair);
            pair
        };
        let request = |values: [&str; 5]| {
            let mut span = Vec::new();
            for (key, value) in
                ["url.full", "url.query", "http.url", "http.target", "db.api_key"].iter().zip(values)
            {
                put_bytes(9, &pair(key, value), &mut span);
            }
            let (mut scope, mut resource, mut out) = (Vec::new(), Vec::new(), Vec::new());
            put_bytes(2, &span, &mut scope);
            put_bytes(2, &scope, &mut resource);
            put_bytes(1, &resource, &mut out);
            out
        };
        let mut data =
            request(["https://h/?api%2Dkey=abc", "key=abc&b=1", "http://h?a&code=x", "/t?token=x", "abc"]);
        let mut redacted = Redacted::default();
        Rules::default().mask(&mut data, Form::Otlp, &mut redacted);
        assert_eq!(
            data,
            request(["https://h/?api%2Dkey=***", "key=***&b=1", "http://h?a&code=*", "/t?token=*", "***"])
        );
        assert_eq!(redacted.summary(), "header:1,query:4");
    }

    #[test]
    fn the_keys_of_providers_are_found_and_what_looks_similar_is_not() {
        let hex = "0123456789abcdef0123456789abcdef";
        let azure = "3Fh2k9LmPq8RsTuVwXyZ0123456789AbCdEfGhIjKlMnOpQrStUvWxYzJQQJ99BCACYeBjFXJ3w3AAABACOG";
        let account = format!(
            "{}==",
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeks".to_owned()
        );
        for (before, secret, after) in [
            ("key ", "sk-proj-Abc_def-0123456789abcdefghij", "."),
            (r#"{"content":"it is:\n"#, "sk-ant-api03-Abc_def-0123456789abcdefghijAA", r#"\n"}"#),
            ("%20", "sk-or-v1-0123456789abcdef0123456789abcdef", "%20"),
            ("x=", "AIzaSyA-0123456789_abcdefghijklmnopqrstu", ""),
            ("(", "AKIAIOSFODNN7EXAMPLE", ")"),
            ("", "ghp_0123456789abcdefghijABCDEFGHIJ012345", ""),
            ("", "github_pat_11ABCDEFG0123456789_abcdef", ""),
            ("", "xoxb-123456789012-123456789012-abcDEF", ""),
            ("", "gsk_0123456789abcdefghijABCDEFGHIJ0123456789abcdefghijAB", ""),
            ("", "hf_0123456789abcdefghijABCDEFGHIJ0123", ""),
            (
                "Authorization: Bearer ",
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
                "\n",
            ),
            (r#""Authorization": "Basic "#, "dXNlcjpwYXNz", "\""),
            ("api-key: ", hex, "\r\n"),
            (r#"{\"api_key\": \""#, azure, r#"\"}"#),
            ("AZURE_OPENAI_API_KEY=", azure, "\n"),
            ("Ocp-Apim-Subscription-Key: ", hex, ""),
            (
                "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=",
                &account,
                ";EndpointSuffix=core.windows.net",
            ),
            (
                "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=",
                "0123456789abcdefghijABCDEFGHIJ0123456789abc=",
                "",
            ),
            ("Server=db;User Id=sa;Password=", "hunter2!x", ";"),
            ("postgres://app:", "s3cr$t", "@db:5432/x"),
            (
                "",
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A\n\nMIIE+/=\n-----END RSA PRIVATE KEY-----",
                ".",
            ),
        ] {
            let (text, summary) = masked(&format!("{before}{secret}{after}"), Form::Text);
            assert_eq!(text, format!("{before}{}{after}", "*".repeat(secret.len())), "{summary}");
            assert!(!summary.is_empty());
            // The same as a string of a JSON document.
            let document = serde_json::to_string(&[format!("{before}{secret}{after}")]).unwrap();
            let (text, summary) = masked(&document, Form::Json);
            serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let there = serde_json::to_string(secret).unwrap();
            assert!(!text.contains(there.trim_matches('"')) && !summary.is_empty(), "{text}");
        }
        for open in [
            "risk-management-framework-for-banks, task-oriented-dialogue-systems, disk-usage-analyzer-for-linux",
            "the api key is 32 characters long, api_key = settings.production_api_key_of_the_service",
            "iVBORw0KGgoAAAAAIzaSyA0123456789abcdefghijklmnopqrstuvwAKIAIOSFODNN7EXAMPLE+/",
            "see https://example.com:8443/a@b, mail to a:b@example.com, sha256:0123456789abcdef0123456789abcdef",
            "call_abc123 chatcmpl-0123456789abcdefghijABCDEFGHIJ toolu_0123456789abcdefghijABCD msg_0123456789abcdefghij",
            "Bearer tokens are sent as Authorization: Bearer <token>; Basic auth is base64 of user:password",
            r"C:\new\table\u0026 and \d+ in a regular expression",
        ] {
            assert_eq!(masked(open, Form::Text), (open.to_owned(), String::new()));
        }
    }

    #[test]
    fn a_key_that_comes_in_pieces_is_masked_in_each_of_them() {
        let piece = |index: u32, text: &str| {
            format!(
                "data: {{\"id\":\"c-1\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}},\"index\":{index}}}]}}\r\n\r\n"
            )
        };
        let openai = [
            piece(0, "use s"),
            piece(1, "näher"),
            piece(0, "k-proj-0123456789"),
            piece(1, "-dran"),
            piece(0, "abcdefghij kein\\n"),
        ];
        let anthropic = ["{\\\"api_ke", "y\\\":\\\"0123456789abc", "def0123456789abcdef\\\"}"]
            .map(|text| format!("event: content_block_delta\ndata:{{\"index\":1,\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":\"{text}\"}}}}\n\n"));
        let gemini =
            "[{\"a\":[{\"text\":\"AKIAIOSF\"}]},\n{\"a\":[{\"text\":\"ODNN7EXAMPLE.\"}]}]".to_owned();
        let ollama = "{\"message\":{\"content\":\"ghp_0123456789abcdefghij\"}}\n{\"message\":{\"content\":\"ABCDEFGHIJ012345\"}}\n".to_owned();
        for (body, pieces) in [
            (openai.concat(), &["sk-proj-0123456789abcdefghij", "k-proj-0123456789", "abcdefghij"][..]),
            (anthropic.concat(), &["0123456789abc", "def0123456789abcdef"]),
            (gemini, &["AKIAIOSF", "ODNN7EXAMPLE"]),
            (ollama, &["ghp_0123456789abcdefghij", "ABCDEFGHIJ012345"]),
        ] {
            let (text, summary) = masked(&body, Form::Stream);
            assert!(pieces.iter().all(|piece| !text.contains(piece)), "{text}");
            assert_eq!(summary.split(':').nth(1), Some("1"), "it is one secret: {summary}");
            let unchanged = text.bytes().zip(body.bytes()).all(|(a, b)| a == b || a == b'*');
            assert!(unchanged && text.len() == body.len());
            for line in text.lines().filter_map(|line| line.strip_prefix("data:")) {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            }
        }
        assert!(masked(&openai.concat(), Form::Stream).0.contains("näher"));
    }

    #[test]
    fn members_of_a_document_that_are_headers_are_hidden_and_schemas_are_not() {
        let (text, summary) = masked(
            r#"{"http":{"headers":{"Authorization":"Basic x","api_key":["a","b"],"cookie":null,"x":"y"}},"properties":{"api_key":{"type":"string"}}}"#,
            Form::Json,
        );
        assert_eq!(
            text,
            r#"{"http":{"headers":{"Authorization":"*******","api_key":["*","*"],"cookie":null,"x":"y"}},"properties":{"api_key":{"type":"string"}}}"#
        );
        assert_eq!(summary, "header:3");
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
        let rules = Rules::parse("query a\npattern any [^z]{2}", "test").unwrap();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for len in 0..300 {
            let mut bytes = |b: &mut u8| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *b = (seed >> 56) as u8 & 0x7f | (seed >> 40) as u8 & 0x80;
            };
            let mut data = vec![0u8; len];
            data.iter_mut().for_each(&mut bytes);
            for form in [Form::Text, Form::Json, Form::Otlp, Form::Stream, Form::Pairs] {
                rules.mask(&mut data.clone(), form, &mut Redacted::default());
            }
        }
    }
}

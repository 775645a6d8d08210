//! JSON text that is looked into without being changed.
//!
//! [`Json`] is a value of the views: compact text in which numbers stand as they were sent. [`members`] and
//! [`elements`] cut a text at its values, so that the parts of a request can be recorded as the bytes they came as.
//!
//! **Invariant.** Cutting neither allocates for what it passes over nor recurses: however deep or wide a text is,
//! it costs its length.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value as compact text. Numbers and strings are spelled as they were sent, members are in their order.
///
/// Two are equal if they mean the same: the order of members and the spelling of strings do not count.
#[derive(Clone)]
pub struct Json(String);

impl Json {
    /// The value of a JSON text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        is_json(text).then(|| Self(compact(text)))
    }

    /// A string.
    pub fn text(text: &str) -> Self {
        Self(serde_json::to_string(text).expect("a string is JSON"))
    }

    /// A value built here.
    pub fn of(value: &impl Serialize) -> Self {
        // What we serialize has string keys and no maps of other kinds.
        Self(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()))
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, taken apart; `None` if it is nested deeper than 128 levels.
    pub fn value(&self) -> Option<Value> {
        serde_json::from_str(&self.0).ok()
    }

    /// The content, if it is a string.
    pub fn string(&self) -> Option<String> {
        serde_json::from_str(&self.0).ok()
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.value().is_some_and(|value| other.value() == Some(value))
    }
}

impl Eq for Json {}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_str::<&RawValue>(&self.0) {
            Ok(raw) => raw.serialize(serializer),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

/// Whether the text is one JSON value, however deep.
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Takes the white space between values out of a valid text.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', ' ', '\n', '\r', '\t']) {
        out.push_str(&rest[..at]);
        let len = match rest.as_bytes()[at] {
            b'"' => {
                let len = string_len(&rest.as_bytes()[at..]).unwrap_or(rest.len() - at);
                out.push_str(&rest[at..at + len]);
                len
            }
            _ => 1,
        };
        rest = &rest[at + len..];
    }
    out.push_str(rest);
    out
}

/// The length of the string that begins here, both quotes included.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The length of the value that begins here, in a valid text.
fn value_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut depth = 0usize;
    loop {
        match bytes.get(at)? {
            b'"' => at += string_len(bytes.get(at..)?)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                at += 1;
                continue;
            }
            _ => {
                let scalar = |b: &&u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
                let len = bytes.get(at..)?.iter().take_while(scalar).count();
                // Nothing else begins a value, so the text is not valid.
                at += (len > 0).then_some(len)?;
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The values inside a valid object or list, one after the other.
#[derive(Debug, Clone)]
pub struct Cut<'a> {
    rest: &'a str,
}

impl<'a> Cut<'a> {
    fn new(text: &'a str, open: char) -> Self {
        Self { rest: text.trim_ascii_start().strip_prefix(open).unwrap_or_default() }
    }

    fn value(&mut self) -> Option<&'a str> {
        let between = |c: char| c.is_ascii_whitespace() || c == ',' || c == ':';
        let rest = self.rest.trim_start_matches(between);
        if rest.starts_with(['}', ']']) {
            return None;
        }
        let (value, rest) = rest.split_at_checked(value_len(rest.as_bytes())?)?;
        self.rest = rest;
        Some(value)
    }
}

/// The elements of a list.
#[derive(Debug, Clone)]
pub struct Elements<'a>(Cut<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        self.0.value()
    }
}

/// The members of an object: name and value.
#[derive(Debug, Clone)]
pub struct Members<'a>(Cut<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.value()?;
        let value = self.0.value()?;
        let plain = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
        let name = match plain.filter(|n| !n.contains('\\')) {
            Some(plain) => Cow::Borrowed(plain),
            None => Cow::Owned(serde_json::from_str(name).ok()?),
        };
        Some((name, value))
    }
}

/// The elements of a list in a valid text; none if it is no list.
pub fn elements(text: &str) -> Elements<'_> {
    Elements(Cut::new(text, '['))
}

/// The members of an object in a valid text; none if it is no object.
pub fn members(text: &str) -> Members<'_> {
    Members(Cut::new(text, '{'))
}

/// The member of this name; the last one, if there are several.
pub fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    members(text).filter(|(n, _)| n == name).last().map(|(_, value)| value)
}

/// The content of a string; `None` if the text is something else.
pub fn unquoted(text: &str) -> Option<String> {
    text.starts_with('"').then(|| serde_json::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_is_cut_at_its_values_and_not_inside_them() {
        let text = r#" { "a" : [1, {"x":"}]\""}, -2.50e1 ] ,"b\u0063":{},"":null , "d":"" }"#;
        let cut: Vec<_> = members(text).map(|(n, v)| (n.into_owned(), v)).collect();
        assert_eq!(
            cut,
            [
                ("a".to_owned(), r#"[1, {"x":"}]\""}, -2.50e1 ]"#),
                ("bc".to_owned(), "{}"),
                (String::new(), "null"),
                ("d".to_owned(), "\"\""),
            ]
        );
        assert_eq!(elements(cut[0].1).collect::<Vec<_>>(), ["1", r#"{"x":"}]\""}"#, "-2.50e1"]);
        assert_eq!(elements("[]").count() + members("{}").count() + elements("7").count(), 0);
        assert_eq!(member(r#"{"a":1,"a":2}"#, "a"), Some("2"));
    }

    #[test]
    fn numbers_stay_as_they_were_spelled() {
        let json = Json::parse("{ \"b\" : 1.10, \"a\": [ 1e400 , \" x \" ] }").unwrap();
        assert_eq!(json.as_str(), r#"{"b":1.10,"a":[1e400," x "]}"#);
        assert_eq!(Json::parse(r#"{"a":1,"b":"é"}"#), Json::parse(r#"{"b":"\u00e9","a":1}"#));
        assert_ne!(Json::parse("1"), Json::parse("2"));
        assert_eq!(Json::parse("{"), None);
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(is_json(&deep));
        assert_eq!(elements(&deep).count(), 1);
        assert_eq!(Json::parse(&deep).unwrap().value(), None);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn cutting_agrees_with_the_parser(value in any_json(), pretty in any::<bool>()) {
            let text = match pretty {
                true => serde_json::to_string_pretty(&value).unwrap(),
                false => value.to_string(),
            };
            let compacted = Json::parse(&text).unwrap();
            prop_assert_eq!(compacted.as_str(), value.to_string());
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            match &value {
                Value::Array(list) => {
                    prop_assert_eq!(&elements(&text).map(parsed).collect::<Vec<_>>(), list);
                }
                Value::Object(map) => {
                    let cut: serde_json::Map<_, _> =
                        members(&text).map(|(n, v)| (n.into_owned(), parsed(v))).collect();
                    prop_assert_eq!(&cut, map);
                }
                _ => prop_assert_eq!(elements(&text).count(), 0),
            }
        }

        #[test]
        fn hostile_text_ends(text in "[\\[\\]{}\",:\\\\ 0-9a-z\u{e9}-]{0,40}") {
            prop_assert!(elements(&text).count() <= text.len());
            prop_assert!(members(&text).count() <= text.len());
        }
    }
}

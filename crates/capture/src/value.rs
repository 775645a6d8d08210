//! An attribute's value as OTLP has them (`AnyValue`), read from protobuf or from OTLP/JSON.
//!
//! **Invariant.** What cannot be read is [`Value::Unreadable`], and text that is not UTF-8 is [`Value::Bytes`]:
//! neither becomes an empty string or a zero. Values are read to a depth of [`DEPTH_MAX`]; the bytes of what is
//! deeper are recorded like all others and only not looked into.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use precedent_core::Result;

use crate::json::{self, Json};
use crate::wire::{Fields, Wire};

/// How deep lists and maps are looked into.
pub const DEPTH_MAX: usize = 48;

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is none: the sender said null.
    Empty,
    /// Text.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Bytes, or text that is not UTF-8.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// Named values, in their order.
    Map(Attributes),
    /// Something that is malformed, unknown to this version or nested too deeply.
    Unreadable,
}

/// Named values, in their order.
pub type Attributes = Vec<(String, Value)>;

impl Value {
    /// The text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole number from 0; text and floats of one count, as some senders have them.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Int(n) => u64::try_from(*n).ok(),
            Self::Double(n) if *n >= 0.0 && n.fract() == 0.0 && *n < 9e15 => Some(*n as u64),
            Self::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value of a map's member.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(members) => members.iter().find(|(n, _)| n == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value as JSON; bytes are base64, as in OTLP/JSON. Text is a string, even if it holds JSON.
    pub fn to_json(&self) -> Json {
        let mut out = String::new();
        self.write(&mut out);
        Json::parse(&out).unwrap_or_else(|| Json::text(&out))
    }

    /// The value as JSON, where a sender has put JSON into a string because its attributes hold nothing else.
    pub fn to_structure(&self) -> Option<Json> {
        match self {
            Self::Text(text) => Json::parse(text),
            Self::List(_) | Self::Map(_) => Some(self.to_json()),
            _ => None,
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Empty | Self::Unreadable => out.push_str("null"),
            Self::Text(text) => out.push_str(Json::text(text).as_str()),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Double(value) if value.is_finite() => {
                let _ = write!(out, "{value:?}");
            }
            Self::Double(value) => out.push_str(Json::text(&value.to_string()).as_str()),
            Self::Bytes(bytes) => out.push_str(Json::text(&STANDARD.encode(bytes)).as_str()),
            Self::List(values) => {
                out.push('[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Map(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    out.push_str(Json::text(name).as_str());
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Reads a protobuf `AnyValue`.
    pub fn from_protobuf(message: &[u8]) -> Self {
        read(message, 0).unwrap_or(Self::Unreadable)
    }

    /// Reads an OTLP/JSON `AnyValue` out of a valid text.
    pub fn from_json(value: &str) -> Self {
        read_json(value, 0).unwrap_or(Self::Unreadable)
    }
}

/// Text, or bytes where it is not UTF-8.
pub(crate) fn text_of(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Bytes(bytes.to_vec()),
    }
}

fn read(message: &[u8], depth: usize) -> Result<Value> {
    if depth > DEPTH_MAX {
        return Ok(Value::Unreadable);
    }
    let mut value = Value::Empty;
    for field in Fields::new(message) {
        let field = field?;
        value = match (field.number, field.value) {
            (1, Wire::Bytes(text)) => text_of(text),
            (2, Wire::Varint(n)) => Value::Bool(n != 0),
            (3, Wire::Varint(n)) => Value::Int(n as i64),
            (4, Wire::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
            (5, Wire::Bytes(list)) => {
                let mut values = Vec::new();
                for item in Fields::new(list) {
                    let item = item?;
                    if let (1, Wire::Bytes(any)) = (item.number, item.value) {
                        values.push(read(any, depth + 1).unwrap_or(Value::Unreadable));
                    }
                }
                Value::List(values)
            }
            (6, Wire::Bytes(list)) => {
                let mut members = Attributes::new();
                for item in Fields::new(list) {
                    let item = item?;
                    if let (1, Wire::Bytes(pair)) = (item.number, item.value) {
                        members.push(pair_at(pair, depth + 1));
                    }
                }
                Value::Map(members)
            }
            (7, Wire::Bytes(bytes)) => Value::Bytes(bytes.to_vec()),
            _ => Value::Unreadable,
        };
    }
    Ok(value)
}

/// Reads a protobuf `KeyValue`.
pub(crate) fn pair(message: &[u8]) -> (String, Value) {
    pair_at(message, 0)
}

fn pair_at(message: &[u8], depth: usize) -> (String, Value) {
    let (mut name, mut value) = (String::new(), Value::Empty);
    for field in Fields::new(message) {
        match field.map(|f| (f.number, f.value)) {
            Ok((1, Wire::Bytes(text))) => name = String::from_utf8_lossy(text).into_owned(),
            Ok((2, Wire::Bytes(any))) => value = read(any, depth).unwrap_or(Value::Unreadable),
            Ok(_) => {}
            Err(_) => value = Value::Unreadable,
        }
    }
    (name, value)
}

fn read_json(value: &str, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let mut members = json::members(value);
    let Some((name, content)) = members.next() else {
        return (value.trim() == "{}" || value.trim() == "null").then_some(Value::Empty);
    };
    Some(match &*name {
        "stringValue" => Value::Text(json::unquoted(content)?),
        "boolValue" => Value::Bool(serde_json::from_str(content).ok()?),
        // 64 bits are a string in the JSON of protobuf; numbers are understood too.
        "intValue" => Value::Int(number(content)?),
        "doubleValue" => Value::Double(match content.strip_prefix('"') {
            Some(quoted) => quoted.strip_suffix('"')?.parse().ok()?,
            None => content.parse().ok()?,
        }),
        "bytesValue" => Value::Bytes(STANDARD.decode(json::unquoted(content)?).ok()?),
        "arrayValue" => {
            let list = json::member(content, "values").unwrap_or("[]");
            let item = |item| read_json(item, depth + 1).unwrap_or(Value::Unreadable);
            Value::List(json::elements(list).map(item).collect())
        }
        "kvlistValue" => {
            let list = json::member(content, "values").unwrap_or("[]");
            Value::Map(json::elements(list).map(|pair| pair_json(pair, depth + 1)).collect())
        }
        _ => return None,
    })
}

/// A whole number, or a string of one.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?.parse().ok(),
        None => text.parse().ok(),
    }
}

/// Reads an OTLP/JSON list of `KeyValue`.
pub(crate) fn pairs_json(list: &str) -> Attributes {
    json::elements(list).map(|pair| pair_json(pair, 0)).collect()
}

fn pair_json(text: &str, depth: usize) -> (String, Value) {
    let (mut name, mut value) = (String::new(), Value::Empty);
    for (member, content) in json::members(text) {
        match &*member {
            "key" => name = json::unquoted(content).unwrap_or_default(),
            "value" => value = read_json(content, depth).unwrap_or(Value::Unreadable),
            _ => {}
        }
    }
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::put_bytes;

    #[test]
    fn json_values_are_read_as_senders_spell_them() {
        for (text, value) in [
            (r#"{"stringValue":"a\nb"}"#, Value::Text("a\nb".into())),
            (r#"{"intValue":"-7"}"#, Value::Int(-7)),
            (r#"{"intValue":9007199254740993}"#, Value::Int(9_007_199_254_740_993)),
            (r#"{"doubleValue":0.5}"#, Value::Double(0.5)),
            (r#"{"doubleValue":"Infinity"}"#, Value::Double(f64::INFINITY)),
            (r#"{"boolValue":true}"#, Value::Bool(true)),
            (r#"{"bytesValue":"AP8="}"#, Value::Bytes(vec![0, 255])),
            ("{}", Value::Empty),
            (r#"{"arrayValue":{}}"#, Value::List(vec![])),
            (
                r#"{"kvlistValue":{"values":[{"key":"name"},{"key":"n","value":{"intValue":1}}]}}"#,
                Value::Map(vec![("name".into(), Value::Empty), ("n".into(), Value::Int(1))]),
            ),
            (r#"{"intValue":1.5}"#, Value::Unreadable),
            (r#"{"newValue":1}"#, Value::Unreadable),
            ("7", Value::Unreadable),
        ] {
            assert_eq!(Value::from_json(text), value, "{text}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_is_bytes_and_not_mended() {
        let mut any = Vec::new();
        put_bytes(1, b"caf\xe9", &mut any);
        assert_eq!(Value::from_protobuf(&any), Value::Bytes(b"caf\xe9".to_vec()));
        assert_eq!(Value::from_protobuf(&[]), Value::Empty);
        assert_eq!(Value::from_protobuf(&[0x0a, 9]), Value::Unreadable);
    }

    #[test]
    fn hostile_depth_ends_at_the_depth_that_is_looked_into() {
        let (mut any, mut json) = (Vec::new(), r#"{"intValue":1}"#.to_owned());
        for _ in 0..5_000 {
            let mut list = Vec::new();
            put_bytes(1, &any, &mut list);
            any.clear();
            put_bytes(5, &list, &mut any);
            json = format!(r#"{{"arrayValue":{{"values":[{json}]}}}}"#);
        }
        for value in [Value::from_protobuf(&any), Value::from_json(&json)] {
            let mut depth = 0;
            let mut value = &value;
            while let Value::List(list) = value {
                (value, depth) = (&list[0], depth + 1);
            }
            assert_eq!((value, depth), (&Value::Unreadable, DEPTH_MAX + 1));
        }
    }
}

//! An entity: properties with types, how large it is, and its JSON.
//!
//! The limits are those of the service, counted as it counts: the emulator lets some of them through, so they are
//! checked here, before anything is sent. Sources: *Understanding the Table service data model* (limits), *Payload
//! format for Table service operations* (JSON), *Understanding Azure Storage billing* (sizes).
//!
//! *Invariant*: an [`Entity`] that passes [`Entity::check`] is one the service takes.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use precedent_core::{Error, Result};
use serde_json::{Map, Value as Json};

use super::keys::{self, Key};

/// The most bytes of an entity, counted as [`Entity::size`] counts.
pub const ENTITY_BYTES_MAX: usize = 1 << 20;
/// The most properties of an entity besides PartitionKey, RowKey and Timestamp.
pub const PROPERTIES_MAX: usize = 252;
/// The most bytes of a property's value; of text, of its UTF-16.
pub const PROPERTY_BYTES_MAX: usize = 64 << 10;
/// The most UTF-16 units of a property's name.
pub const PROPERTY_NAME_UNITS_MAX: usize = 255;

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `Edm.String`.
    Text(String),
    /// `Edm.Binary`.
    Binary(Bytes),
    /// `Edm.Int32`.
    Int32(i32),
    /// `Edm.Int64`.
    Int64(i64),
    /// `Edm.Boolean`.
    Boolean(bool),
    /// `Edm.DateTime`: in UTC, from the year 1601 on, in steps of 100 nanoseconds.
    DateTime(String),
}

impl Value {
    /// The type, where JSON does not say it by itself.
    fn annotation(&self) -> Option<&'static str> {
        match self {
            Self::Text(_) | Self::Int32(_) | Self::Boolean(_) => None,
            Self::Binary(_) => Some("Edm.Binary"),
            Self::Int64(_) => Some("Edm.Int64"),
            Self::DateTime(_) => Some("Edm.DateTime"),
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Text(text) | Self::DateTime(text) => Json::from(text.as_str()),
            Self::Binary(bytes) => Json::from(STANDARD.encode(bytes)),
            Self::Int32(number) => Json::from(*number),
            Self::Int64(number) => Json::from(number.to_string()),
            Self::Boolean(value) => Json::from(*value),
        }
    }

    /// Bytes of the value alone.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => units(text) * 2,
            Self::Binary(bytes) => bytes.len(),
            Self::Int32(_) => 4,
            Self::Int64(_) | Self::DateTime(_) => 8,
            Self::Boolean(_) => 1,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// UTF-16 units of a text.
pub(crate) fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

/// An entity that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Where it stands.
    pub key: Key,
    /// Its properties, in the order in which tools show them first.
    pub properties: Vec<(Cow<'static, str>, Value)>,
}

impl Entity {
    /// An entity without properties.
    pub fn new(key: Key) -> Self {
        Self { key, properties: Vec::new() }
    }

    /// The same entity with one more property.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// The same entity with one more `Edm.Int64`.
    ///
    /// # Errors
    /// `limit_exceeded` for a number of which the service has no representation.
    pub fn with_number(self, name: &'static str, number: u64) -> Result<Self> {
        let number = i64::try_from(number).map_err(|_| {
            Error::limit(format!("the number of {name}"), number, i64::MAX.unsigned_abs(), "at most")
        })?;
        Ok(self.with(name, Value::Int64(number)))
    }

    /// Bytes that the service counts for it.
    pub fn size(&self) -> usize {
        let keys = 4 + 2 * (units(&self.key.partition) + units(&self.key.row));
        let each = self.properties.iter().map(|(name, value)| {
            let prefix = if matches!(value, Value::Text(_) | Value::Binary(_)) { 4 } else { 0 };
            8 + 2 * units(name) + prefix + value.bytes()
        });
        keys + each.sum::<usize>()
    }

    /// Refuses what the service does not take.
    ///
    /// # Errors
    /// `limit_exceeded` and `invalid`, naming the entity and both numbers.
    pub fn check(&self) -> Result<()> {
        for (what, key) in [("PartitionKey", &self.key.partition), ("RowKey", &self.key.row)] {
            if let Some(why) = keys::refused(key) {
                return Err(Error::invalid(format!("the {what} '{}' {why}", key.escape_debug())));
            }
        }
        if self.properties.len() > PROPERTIES_MAX {
            let what = format!("the entity in {}", self.key);
            return Err(Error::limit(
                what,
                self.properties.len() as u64,
                PROPERTIES_MAX as u64,
                "properties",
            ));
        }
        for (index, (name, value)) in self.properties.iter().enumerate() {
            let system = matches!(&**name, "PartitionKey" | "RowKey" | "Timestamp");
            let mut characters = name.chars();
            let fits = characters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && characters.all(|c| c.is_alphanumeric() || c == '_')
                && units(name) <= PROPERTY_NAME_UNITS_MAX;
            if system || !fits {
                return Err(Error::invalid(format!(
                    "'{}' cannot name a property of the entity in {}",
                    name.escape_debug(),
                    self.key
                )));
            }
            if self.properties[..index].iter().any(|(other, _)| other == name) {
                return Err(Error::invalid(format!("the entity in {} has two properties {name}", self.key)));
            }
            if value.bytes() > PROPERTY_BYTES_MAX {
                let what = format!("the property {name} of the entity in {}", self.key);
                return Err(Error::limit(what, value.bytes() as u64, PROPERTY_BYTES_MAX as u64, "bytes"));
            }
        }
        if self.size() > ENTITY_BYTES_MAX {
            let what = format!("the entity in {}", self.key);
            return Err(Error::limit(what, self.size() as u64, ENTITY_BYTES_MAX as u64, "bytes"));
        }
        Ok(())
    }

    /// The body that writes it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("PartitionKey".into(), Json::from(self.key.partition.as_str()));
        map.insert("RowKey".into(), Json::from(self.key.row.as_str()));
        for (name, value) in &self.properties {
            if let Some(annotation) = value.annotation() {
                map.insert(format!("{name}@odata.type"), Json::from(annotation));
            }
            map.insert(name.to_string(), value.json());
        }
        serde_json::to_vec(&map).expect("a map of text, numbers and booleans is JSON")
    }
}

/// An entity that was read. What it holds is somebody else's until it is looked at: every getter says what is missing.
#[derive(Debug, Clone)]
pub struct Row {
    /// Where it stands.
    pub key: Key,
    /// Its ETag, if the service said it.
    pub etag: Option<String>,
    fields: Map<String, Json>,
}

impl Row {
    /// The entity that a JSON object describes.
    ///
    /// # Errors
    /// `damaged` if it has no PartitionKey or RowKey.
    pub fn from_json(mut fields: Map<String, Json>, etag: Option<String>) -> Result<Self> {
        let mut key = |name: &str| match fields.remove(name) {
            Some(Json::String(text)) => Ok(text),
            _ => Err(Error::damaged(format!("an entity without a {name}"))),
        };
        let key = Key { partition: key("PartitionKey")?, row: key("RowKey")? };
        let listed = match fields.remove("odata.etag") {
            Some(Json::String(etag)) => Some(etag),
            _ => None,
        };
        Ok(Self { key, etag: etag.or(listed), fields })
    }

    /// The names of its properties, without what the service adds.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let ours = |name: &&str| !name.contains("odata.") && *name != "Timestamp";
        self.fields.keys().map(String::as_str).filter(ours)
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let what = if self.fields.contains_key(name) { "is not" } else { "is not there: expected" };
        Error::damaged(format!("{}: the property {name} {what} {expected}", self.key))
    }

    /// A text.
    ///
    /// # Errors
    /// `damaged` if there is none.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.fields.get(name).and_then(Json::as_str).ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A whole number from 0, as an `Edm.Int64` or `Edm.Int32`.
    ///
    /// # Errors
    /// `damaged` if there is none.
    pub fn number(&self, name: &str) -> Result<u64> {
        let number = match self.fields.get(name) {
            Some(Json::String(text)) => text.parse().ok(),
            Some(Json::Number(number)) => number.as_u64(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(name, "a whole number from 0"))
    }

    /// A truth value.
    ///
    /// # Errors
    /// `damaged` if there is none.
    pub fn boolean(&self, name: &str) -> Result<bool> {
        self.fields.get(name).and_then(Json::as_bool).ok_or_else(|| self.wrong(name, "a truth value"))
    }

    /// Bytes.
    ///
    /// # Errors
    /// `damaged` if there are none.
    pub fn binary(&self, name: &str) -> Result<Bytes> {
        let text = self.fields.get(name).and_then(Json::as_str);
        let bytes = text.and_then(|text| STANDARD.decode(text).ok());
        bytes.map(Bytes::from).ok_or_else(|| self.wrong(name, "binary"))
    }

    /// Something that is written as hexadecimal text.
    ///
    /// # Errors
    /// `damaged` if it is not there or not that.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| self.wrong(name, "what it has to be"))
    }

    /// Whether a property is there and has this value and type. The row has to have been read with types.
    pub fn has(&self, name: &str, expected: &Value) -> bool {
        let Some(found) = self.fields.get(name) else { return false };
        let annotation = self.fields.get(&format!("{name}@odata.type")).and_then(Json::as_str);
        // A default type may be named or not.
        let annotation = annotation.filter(|a| !matches!(*a, "Edm.String" | "Edm.Int32" | "Edm.Boolean"));
        if annotation != expected.annotation() {
            return false;
        }
        match expected {
            Value::DateTime(expected) => {
                let moment = |text: &str| text.parse::<jiff::Timestamp>().ok();
                let found = found.as_str().and_then(moment);
                found.is_some() && found == moment(expected)
            }
            expected => *found == expected.json(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity() -> Entity {
        Entity::new(Key::new("p", "r"))
    }

    #[test]
    fn the_size_is_what_the_service_counts() {
        // 4 + 2 * (1 + 1) for the keys.
        assert_eq!(entity().size(), 8);
        // For each property 8 + 2 * name, and 4 + 2 * units of text, 4 + bytes, 4, 8, 1, 8.
        assert_eq!(entity().with("ab", "🦀").size(), 8 + 8 + 4 + 4 + 4);
        assert_eq!(entity().with("a", Bytes::from_static(b"xyz")).size(), 8 + 8 + 2 + 4 + 3);
        assert_eq!(entity().with("a", Value::Int32(1)).size(), 8 + 8 + 2 + 4);
        assert_eq!(entity().with("a", Value::Int64(1)).size(), 8 + 8 + 2 + 8);
        assert_eq!(entity().with("a", Value::Boolean(true)).size(), 8 + 8 + 2 + 1);
        let time = Value::DateTime("2026-11-22T10:00:00Z".into());
        assert_eq!(entity().with("a", time).size(), 8 + 8 + 2 + 8);
    }

    #[test]
    fn what_the_service_does_not_take_is_refused_with_both_numbers() {
        let text = |units: usize| Value::from("x".repeat(units));
        entity().with("a", text(32_768)).check().expect("64 KiB of UTF-16");
        let error = entity().with("a", text(32_769)).check().expect_err("more");
        assert!(error.message().contains("65538") && error.message().contains("65536"), "{error}");
        let bytes = |len: usize| Value::from(Bytes::from(vec![0; len]));
        entity().with("a", bytes(65_536)).check().expect("64 KiB");
        entity().with("a", bytes(65_537)).check().expect_err("more");

        let with = |count: usize, value: &dyn Fn(usize) -> Value| {
            let name = |i: usize| format!("p{i}");
            (0..count).fold(entity(), |entity, i| entity.with(name(i), value(i)))
        };
        with(252, &|_| Value::Int32(0)).check().expect("252 properties");
        let error = with(253, &|_| Value::Int32(0)).check().expect_err("one more");
        assert!(error.message().contains("253") && error.message().contains("252"), "{error}");
        with(15, &|_| bytes(65_536)).check().expect("under 1 MiB");
        let error = with(16, &|_| bytes(65_536)).check().expect_err("over it");
        assert!(error.message().contains("1048576"), "{error}");

        for name in ["", "PartitionKey", "Timestamp", "a-b", "1a", "a b"] {
            entity().with(name, "x").check().expect_err(name);
        }
        entity().with("a", "x").with("a", "y").check().expect_err("twice the same");
        for key in ["a/b", "a\\b", "a#b", "a?b", "a\0b", "a\u{9f}b"] {
            Entity::new(Key::new(key, "r")).check().expect_err(key);
            Entity::new(Key::new("p", key)).check().expect_err(key);
        }
        Entity::new(Key::new("x".repeat(512), "r")).check().expect("1 KiB");
        let error = Entity::new(Key::new("p", "x".repeat(513))).check().expect_err("more");
        assert!(error.message().contains("513") && error.message().contains("512"), "{error}");
    }

    #[test]
    fn what_is_written_reads_back_with_its_type() {
        let time = Value::DateTime("2026-11-22T10:00:00.000001Z".into());
        let written = entity()
            .with("text", "\"ü🦀\u{1}")
            .with("binary", Bytes::from_static(&[0, 255]))
            .with("small", Value::Int32(-1))
            .with("large", Value::Int64(i64::MAX))
            .with("truth", Value::Boolean(true))
            .with("time", time);
        let fields = serde_json::from_slice(&written.to_json()).expect("JSON");
        let row = Row::from_json(fields, None).expect("an entity");
        assert_eq!(row.key, written.key);
        for (name, value) in &written.properties {
            assert!(row.has(name, value), "{name}");
            assert!(!row.has(name, &Value::from("other")), "{name}");
        }
        assert!(!row.has("large", &Value::from(i64::MAX.to_string())), "the type differs");
        assert_eq!(row.number("large").expect("a number"), i64::MAX.unsigned_abs());
        assert_eq!(row.binary("binary").expect("bytes"), [0, 255][..]);
        for error in [row.number("text"), row.number("nothing"), row.number("small")] {
            assert!(error.expect_err("not that").message().starts_with("partition p, row r: "));
        }
        assert_eq!(row.names().count(), 6);
    }
}

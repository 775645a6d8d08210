//! Queries, reads and conditions in JSON.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::limits;
use crate::cloudevents::{AtMost, Members};
use crate::error::{Error, Result};
use crate::event::{Tag, shown};
use crate::ids::{Position, Time, Version};
use crate::limits::Limits;
use crate::query::{Condition, Direction, ExpectedVersion, IndexedAttribute, Query, QueryItem, TimeField};
use crate::store::Read;

/// A read as a client asks for it: once, or going on with what is appended later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// What to read.
    pub read: Read,
    /// Whether to go on at the end of the log.
    pub follow: bool,
}

impl ReadRequest {
    /// Refuses to follow where there is nothing to follow.
    pub fn check(&self) -> Result<()> {
        if self.follow && self.read.direction == Direction::Backward {
            return Err(Error::invalid(
                "'follow' and 'backward' contradict each other: what comes later lies ahead",
            ));
        }
        if self.follow && self.read.until.is_some() {
            return Err(Error::invalid(
                "'follow' and 'until' contradict each other: following never ends by time",
            ));
        }
        Ok(())
    }
}

/// The elements of the list `name`, called `what` when it has more than `max`.
pub(super) fn list<'a>(value: &'a RawValue, name: &str, what: &str, max: u64) -> Result<Vec<&'a RawValue>> {
    let bad = |_| Error::invalid(format!("'{name}' is {}, expected a list", brief(value)));
    let list = AtMost { max, what: "values" }.read(value.get()).map_err(bad)?;
    match list.count > max {
        true => Err(Error::limit(what, list.count, max, "entries")),
        false => Ok(list.items),
    }
}

/// The members of the object `what`.
fn members<'a>(value: &'a RawValue, what: &str) -> Result<Vec<(Cow<'a, str>, &'a RawValue)>> {
    if !value.get().starts_with('{') {
        return Err(Error::invalid(format!("{what} is {}, expected an object", brief(value))));
    }
    let members = serde_json::from_str::<Members<'a>>(value.get());
    members.map(|members| members.0).map_err(|e| Error::invalid(format!("{what} cannot be read: {e}")))
}

fn text(value: &RawValue, name: &str) -> Result<String> {
    let error = |_| Error::invalid(format!("'{name}' is {}, expected a string", brief(value)));
    serde_json::from_str(value.get()).map_err(error)
}

fn number(value: &RawValue, name: &str) -> Result<u64> {
    let error = |_| Error::invalid(format!("'{name}' is {}, expected a whole number from 0", brief(value)));
    serde_json::from_str(value.get()).map_err(error)
}

fn flag(value: &RawValue, name: &str) -> Result<bool> {
    let error = |_| Error::invalid(format!("'{name}' is {}, expected true or false", brief(value)));
    serde_json::from_str(value.get()).map_err(error)
}

pub(super) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// A stranger's value as it may stand in a message.
fn brief(value: &RawValue) -> String {
    match value.get().as_bytes().first() {
        Some(b'[') => "a list".to_owned(),
        Some(b'{') => "an object".to_owned(),
        _ => match serde_json::from_str::<String>(value.get()) {
            Ok(text) => format!("\"{}\"", shown(&text)),
            Err(_) => shown(value.get()),
        },
    }
}

pub(super) fn unknown(name: &str, what: &str, known: &str) -> Error {
    Error::invalid(format!("'{}' is no member of {what}: it has {known}", shown(name)))
}

pub(super) fn condition_of(value: &RawValue) -> Result<Condition> {
    const KNOWN: &str = "'stream' with 'version', or 'fail_if' with 'after'";
    let (mut stream, mut version, mut fail_if, mut after) = (None, None, None, None);
    for (name, value) in members(value, "a condition")? {
        match &*name {
            "stream" => stream = Some(value),
            "version" => version = Some(value),
            "fail_if" => fail_if = Some(value),
            "after" => after = Some(value),
            _ => return Err(unknown(&name, "a condition", KNOWN)),
        }
    }
    match (fail_if, stream) {
        (None, Some(stream)) if after.is_none() => {
            let bad = |is: &str| {
                Error::invalid(format!("'version' is {is}, expected \"any\", \"none\" or a number"))
            };
            let version = version.ok_or_else(|| bad("missing"))?;
            let expected = match (version.get(), number(version, "version")) {
                ("\"any\"", _) => ExpectedVersion::Any,
                ("\"none\"", _) => ExpectedVersion::None,
                (_, Ok(version)) => ExpectedVersion::Exact(Version(version)),
                _ => return Err(bad(&brief(version))),
            };
            Ok(Condition::Stream { stream: text(stream, "stream")?, expected })
        }
        (Some(query), None) if version.is_none() => {
            let mut items = None;
            for (name, value) in members(query, "'fail_if'")? {
                match &*name {
                    "items" => items = Some(value),
                    _ => return Err(unknown(&name, "'fail_if'", "'items'")),
                }
            }
            let items = items.ok_or_else(|| Error::invalid("'fail_if' has no 'items'"))?;
            let after = after.filter(|after| !is_null(after));
            let after = after.map(|after| number(after, "after").map(Position)).transpose()?;
            Ok(Condition::FailIf { query: query_of(items)?, after })
        }
        _ => Err(Error::invalid(format!("a condition has {KNOWN}"))),
    }
}

pub(super) fn condition_json(condition: &Condition) -> Value {
    match condition {
        Condition::Stream { stream, expected } => {
            let version = match expected {
                ExpectedVersion::Any => json!("any"),
                ExpectedVersion::None => json!("none"),
                ExpectedVersion::Exact(version) => json!(version.0),
            };
            json!({"stream": stream, "version": version})
        }
        Condition::FailIf { query, after } => {
            let mut value = json!({"fail_if": {"items": items_json(query)}});
            if let Some(after) = after {
                value["after"] = json!(after.0);
            }
            value
        }
    }
}

/// Reads the items of a query: `[{"types":[…],"tags":[…],"stream":…,"decisionid":…}, …]`. Reading stops where
/// the limits are passed, not behind it.
fn query_of(items: &RawValue) -> Result<Query> {
    let Limits { query_items_max, query_terms_max, .. } = limits();
    let mut query = Query::default();
    let mut terms = 0;
    for (index, item) in list(items, "items", "the query", query_items_max)?.into_iter().enumerate() {
        let item = item_of(item).map_err(|e| e.context(format!("query item {index}")))?;
        terms += item.types.len() + item.tags.len() + item.attributes.len();
        if terms as u64 > query_terms_max {
            return Err(Error::limit("the query", terms as u64, query_terms_max, "terms"));
        }
        query.items.push(item);
    }
    Ok(query)
}

fn item_of(value: &RawValue) -> Result<QueryItem> {
    let mut item = QueryItem::default();
    let max = limits().query_items_max;
    for (name, value) in members(value, "it")? {
        if is_null(value) {
            continue;
        }
        match &*name {
            "types" => {
                let types = list(value, "types", "the list of types", max)?.into_iter();
                item.types = types.map(|t| text(t, "types")).collect::<Result<_>>()?;
            }
            "tags" => {
                let tags = list(value, "tags", "the list of tags", max)?.into_iter();
                item.tags = tags.map(|t| text(t, "tags")?.parse()).collect::<Result<_>>()?;
            }
            "stream" => item.stream = Some(text(value, "stream")?),
            _ => {
                let attribute: IndexedAttribute = name.parse().map_err(|_| {
                    unknown(
                        &name,
                        "a query item",
                        "types, tags, stream, decisionid, correlationid, causationid and traceid",
                    )
                })?;
                item.attributes.push((attribute, text(value, &name)?));
            }
        }
    }
    Ok(item)
}

fn items_json(query: &Query) -> Value {
    let item = |item: &QueryItem| {
        let mut members = Map::new();
        if !item.types.is_empty() {
            members.insert("types".into(), json!(item.types));
        }
        if !item.tags.is_empty() {
            let tags: Vec<&str> = item.tags.iter().map(Tag::as_str).collect();
            members.insert("tags".into(), json!(tags));
        }
        if let Some(stream) = &item.stream {
            members.insert("stream".into(), json!(stream));
        }
        for (attribute, value) in &item.attributes {
            members.insert(attribute.name().into(), json!(value));
        }
        Value::Object(members)
    };
    query.items.iter().map(item).collect()
}

/// Reads which time the bounds of a read mean: `recordedtime` or `time`.
pub fn parse_time_field(name: &str) -> Result<TimeField> {
    match name {
        "recordedtime" => Ok(TimeField::Recorded),
        "time" => Ok(TimeField::Produced),
        _ => Err(Error::invalid(format!("'by' is '{}', expected recordedtime or time", shown(name)))),
    }
}

/// Reads a query with its bounds: the body of `POST /v1/query`.
pub fn parse_read(json: &[u8]) -> Result<ReadRequest> {
    let value: &RawValue =
        serde_json::from_slice(json).map_err(|e| Error::invalid(format!("not the JSON of a query: {e}")))?;
    let mut request = ReadRequest::default();
    let read = &mut request.read;
    for (name, value) in members(value, "the query")? {
        if is_null(value) {
            continue;
        }
        let position = || number(value, &name).map(|n| Some(Position(n)));
        let time = || Time::parse(&text(value, &name)?).map(Some).map_err(|e| e.context(format!("'{name}'")));
        match &*name {
            "items" => read.query = query_of(value)?,
            "after" => read.after = position()?,
            "before" => read.before = position()?,
            "since" => read.since = time()?,
            "until" => read.until = time()?,
            "by" => read.by = parse_time_field(&text(value, &name)?)?,
            "backward" => {
                read.direction = if flag(value, &name)? { Direction::Backward } else { Direction::Forward }
            }
            "limit" => read.limit = Some(usize::try_from(number(value, &name)?).unwrap_or(usize::MAX)),
            "follow" => request.follow = flag(value, &name)?,
            "at_least" => read.at_least = position()?,
            _ => {
                return Err(unknown(
                    &name,
                    "a query",
                    "items, after, before, since, until, by, backward, limit, follow and at_least",
                ));
            }
        }
    }
    request.check()?;
    Ok(request)
}

/// Writes a read as [`parse_read`] reads it.
pub fn write_read(read: &Read) -> Vec<u8> {
    let mut members = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    let time = |time: Option<Time>| time.map(|t| json!(t.to_string()));
    set("items", (!read.query.items.is_empty()).then(|| items_json(&read.query)));
    set("after", read.after.map(|p| json!(p.0)));
    set("before", read.before.map(|p| json!(p.0)));
    set("since", time(read.since));
    set("until", time(read.until));
    set("by", (read.by == TimeField::Produced).then(|| json!("time")));
    set("backward", (read.direction == Direction::Backward).then_some(json!(true)));
    set("limit", read.limit.map(|n| json!(n)));
    set("at_least", read.at_least.map(|p| json!(p.0)));
    Value::Object(members).to_string().into_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    /// A query that asks for something of every kind.
    pub(crate) fn sample() -> Query {
        let item = QueryItem {
            types: vec!["t".into()],
            tags: vec!["k=v".parse().unwrap()],
            stream: Some("x".into()),
            attributes: vec![(IndexedAttribute::DecisionId, "d".into())],
        };
        Query { items: vec![item] }
    }

    #[test]
    fn a_read_comes_back_as_it_was() {
        let read = Read {
            query: sample(),
            after: Some(Position(1)),
            before: Some(Position(9)),
            since: Some(Time::from_micros(5).unwrap()),
            until: Some(Time::from_micros(6).unwrap()),
            by: TimeField::Produced,
            direction: Direction::Backward,
            limit: Some(3),
            at_least: Some(Position(2)),
        };
        assert_eq!(parse_read(&write_read(&read)).unwrap(), ReadRequest { read, follow: false });
        assert_eq!(parse_read(&write_read(&Read::default())).unwrap(), ReadRequest::default());
    }

    #[test]
    fn what_nobody_could_mean_is_refused_by_name() {
        for (bad, says) in [
            ("7", "the query is 7"),
            (r#"{"item":[]}"#, "'item'"),
            (r#"{"limit":-1}"#, "'limit' is -1"),
            (r#"{"since":"noon"}"#, "'since'"),
            (r#"{"by":"size"}"#, "'by' is 'size'"),
            (r#"{"follow":true,"backward":true}"#, "'backward'"),
            (r#"{"follow":true,"until":"2026-11-22T10:00:00Z"}"#, "'until'"),
        ] {
            let error = parse_read(bad.as_bytes()).unwrap_err();
            assert!(error.message().contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn lists_are_read_no_further_than_their_limits_and_counted_to_their_end() {
        let many = |element: &str, n: usize| vec![element; n].join(",");
        let item = format!(r#"{{"types":[{}]}}"#, many(r#""t""#, 256));
        for (bad, numbers) in [
            (format!(r#"{{"items":[{}]}}"#, many("{}", 257)), ["257", "256"]),
            (format!(r#"{{"items":[{{"types":[{}]}}]}}"#, many("1", 257)), ["257", "256"]),
            (format!(r#"{{"items":[{{"tags":[{}]}}]}}"#, many("1", 1_000)), ["1000", "256"]),
            (format!(r#"{{"items":[{}]}}"#, many(&item, 5)), ["1280", "1024"]),
        ] {
            let error = parse_read(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
            assert!(numbers.iter().all(|n| error.message().contains(n)), "{error}");
        }
    }

    #[test]
    fn a_stranger_s_text_is_quoted_once() {
        let error = parse_read(br#"{"limit":"ten"}"#).unwrap_err();
        assert!(error.message().contains(r#"'limit' is "ten","#), "{error}");
        let error = parse_read(br#"{"items":"x"}"#).unwrap_err();
        assert!(error.message().contains(r#"'items' is "x","#), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_read(&bytes);
        }
    }
}

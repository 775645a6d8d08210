//! What a server and its client say to each other: the JSON shapes and the binary bodies, in and out.
//!
//! The shapes are those of the HTTP interface, described in `docs/http.md`. Both directions stand here side
//! by side, so that they cannot drift apart; nothing in this module knows HTTP itself.
//!
//! **Events, binary.** The entry goes over as its exact bytes, so that a client computes the leaf itself:
//!
//! ```text
//! "PRE1", then records, each beginning with one byte:
//!   1  an event    entry length u16 | entry | data: 0 none, 1 follows, 2 erased | length u32 | data
//!   2  damage      position u64 | length u32 | message, UTF-8
//!   0  the end     next: 0 none, 1 follows | next u64 | size u64
//! ```
//!
//! **An append, binary.** The data goes over as it is, neither escaped nor looked at:
//!
//! ```text
//! "PRA1" | length u32 | conditions, the JSON list of an append, or nothing
//!   then for every event: length u32 | attributes | data: 0 none, 1 follows: length u32 | data
//! ```
//!
//! The attributes are a JSON object in the native shape without data, or, which is read several times as quickly, a map in
//! deterministic CBOR: fields 4 to 6 as they stand in an [entry](crate::entry). The first byte tells them apart.
//!
//! **Several appends, binary.** For every append its length as u32, and its binary form.
//!
//! **Frames, binary.** For every frame its length as u32, and its bytes. Numbers are little-endian.

use std::borrow::Cow;
use std::fmt;

use bytes::{Buf, Bytes};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cloudevents::{self, AtMost, Bounded, Members, Name, Shape};
use crate::entry::{
    Content, DATA_PART, ENTRY_BYTES_MAX, Entry, Outline, entry_bytes_max, envelope_len, parse_attributes,
    put_attributes,
};
use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::event::{Event, Tag, shown};
use crate::frame::{FRAME_BYTES_MAX, Frame};
use crate::ids::{LogName, Position, Time, Version};
use crate::limits::{Durability, Limits};
use crate::query::{Condition, Direction, ExpectedVersion, IndexedAttribute, Query, QueryItem, TimeField};
use crate::store::{Append, Damage, Finding, Head, Page, Read, RecordedEvent, Severity, Usage};

/// The media type of events in binary form.
pub const EVENTS_MEDIA_TYPE: &str = "application/vnd.precedent.events";
/// The media type of an append in binary form.
pub const APPEND_MEDIA_TYPE: &str = "application/vnd.precedent.append";
/// The media type of several appends in binary form.
pub const APPENDS_MEDIA_TYPE: &str = "application/vnd.precedent.appends";
/// The media type of frames.
pub const FRAMES_MEDIA_TYPE: &str = "application/vnd.precedent.frames";

/// The most appends that go over together.
pub const APPENDS_MAX: usize = 1024;
/// The most bytes that an append has as a message of a WebSocket. It is in memory before anything can be said of it.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Bytes before each of them.
pub const APPEND_LENGTH_BYTES: usize = 4;

const EVENTS_MAGIC: &[u8; 4] = b"PRE1";
const APPEND_MAGIC: &[u8; 4] = b"PRA1";
const RECORD_END: u8 = 0;
const RECORD_EVENT: u8 = 1;
const RECORD_DAMAGE: u8 = 2;
const DATA_NONE: u8 = 0;
const DATA_PRESENT: u8 = 1;
const DATA_ERASED: u8 = 2;

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

fn limits() -> Limits {
    Limits::new(Durability::None)
}

fn events_list() -> AtMost {
    AtMost { max: limits().batch_events_max, what: "events" }
}

fn events_of(list: &Bounded<'_>, shape: Shape) -> Result<Vec<Event>> {
    let max = limits().batch_events_max;
    if list.count > max {
        return Err(Error::limit("the batch", list.count, max, "events"));
    }
    let parse = |(index, event): (usize, &&RawValue)| {
        cloudevents::parse_event(event.get().as_bytes(), shape)
            .map_err(|e| e.context(format!("event {index}")))
    };
    list.items.iter().enumerate().map(parse).collect()
}

/// Reads a CloudEvents JSON batch that is to be appended: no more events than one append can have.
pub fn parse_batch(json: &[u8]) -> Result<Vec<Event>> {
    let bad = |e: serde_json::Error| Error::invalid(format!("not a JSON batch of CloudEvents: {e}"));
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let list = events_list().deserialize(&mut deserializer).map_err(bad)?;
    deserializer.end().map_err(bad)?;
    events_of(&list, Shape::CloudEvents)
}

/// The two members of an append. Events are many and large: they are found in the one pass over the body.
struct AppendJson<'a> {
    events: Bounded<'a>,
    conditions: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for AppendJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AppendVisitor;
        impl<'de> Visitor<'de> for AppendVisitor {
            type Value = AppendJson<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with 'events'")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut events, mut conditions) = (None, None);
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    let again = match &*name {
                        "events" => events.replace(map.next_value_seed(events_list())?).is_some(),
                        "conditions" => conditions.replace(map.next_value::<&RawValue>()?).is_some(),
                        _ => {
                            let error = unknown(&name, "an append", "'events' and 'conditions'");
                            return Err(serde::de::Error::custom(error.message()));
                        }
                    };
                    if again {
                        return Err(serde::de::Error::custom(format!("'{name}' stands twice")));
                    }
                }
                let events = events.ok_or_else(|| serde::de::Error::custom("'events' is missing"))?;
                Ok(AppendJson { events, conditions })
            }
        }
        deserializer.deserialize_map(AppendVisitor)
    }
}

/// Reads an append: `{"events":[…],"conditions":[…]}`.
pub fn parse_append(json: &[u8]) -> Result<Append> {
    let append: AppendJson<'_> = serde_json::from_slice(json)
        .map_err(|e| Error::invalid(format!("not the JSON of an append: {e}")))?;
    let conditions = append.conditions.map_or(Ok(Vec::new()), conditions_of)?;
    Ok(Append { events: events_of(&append.events, Shape::Native)?, conditions })
}

fn conditions_of(conditions: &RawValue) -> Result<Vec<Condition>> {
    if is_null(conditions) {
        return Ok(Vec::new());
    }
    let list = list(conditions, "conditions", "the list of conditions", limits().conditions_max)?;
    let parse = |(index, condition): (usize, &&RawValue)| {
        condition_of(condition).map_err(|e| e.context(format!("condition {index}")))
    };
    list.iter().enumerate().map(parse).collect()
}

/// Writes an append in binary form.
pub fn write_append(append: &Append) -> Vec<u8> {
    /// About what the attributes of an event take.
    const ENVELOPE_BYTES: usize = 256;
    let data: usize = append.events.iter().map(|event| event.data().map_or(0, Bytes::len)).sum();
    let mut out = Vec::with_capacity(data + ENVELOPE_BYTES * (append.events.len() + 1));
    out.extend_from_slice(APPEND_MAGIC);
    put_sized(&mut out, |out| {
        if !append.conditions.is_empty() {
            let conditions: Vec<Value> = append.conditions.iter().map(condition_json).collect();
            out.extend_from_slice(Value::from(conditions).to_string().as_bytes());
        }
    });
    for event in &append.events {
        put_sized(&mut out, |out| match entry_bytes_max(envelope_len(event)) <= ENTRY_BYTES_MAX {
            true => put_attributes(event, out),
            // More than an entry can hold: whoever keeps the limits says so.
            false => cloudevents::write_new_envelope(event, Shape::Native, out),
        });
        out.push(if event.data().is_some() { DATA_PRESENT } else { DATA_NONE });
        if let Some(data) = event.data() {
            put_sized(&mut out, |out| out.extend_from_slice(data));
        }
    }
    out
}

/// Appends what `put` appends, behind its length.
fn put_sized(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// Reads an append in binary form. The data of its events shares the memory of `body`.
pub fn parse_binary_append(mut body: Bytes) -> Result<Append> {
    let max = limits().batch_events_max;
    if take(&mut body, 4).is_none_or(|magic| magic[..] != APPEND_MAGIC[..]) {
        return Err(Error::invalid("no append in binary form begins here"));
    }
    let conditions = take_sized(&mut body).ok_or_else(|| cut_off("the list of conditions"))?;
    let conditions = match conditions.is_empty() {
        true => Vec::new(),
        false => conditions_of(
            serde_json::from_slice(&conditions)
                .map_err(|e| Error::invalid(format!("the list of conditions is not JSON: {e}")))?,
        )?,
    };
    let (mut events, mut count) = (Vec::new(), 0);
    while !body.is_empty() {
        let cut = || cut_off(&format!("event {count}"));
        let attributes = take_sized(&mut body).ok_or_else(cut)?;
        let data = match take(&mut body, 1).ok_or_else(cut)?[0] {
            DATA_NONE => None,
            DATA_PRESENT => Some(take_sized(&mut body).ok_or_else(cut)?),
            other => return Err(Error::invalid(format!("event {count}: data of kind {other}"))),
        };
        if count < max {
            let event = with_data(&attributes, data).map_err(|e| e.context(format!("event {count}")))?;
            events.push(event);
        }
        count += 1;
    }
    match count > max {
        true => Err(Error::limit("the batch", count, max, "events")),
        false => Ok(Append { events, conditions }),
    }
}

/// Puts appends in binary form together, each as [`write_append`] wrote it.
pub fn join_appends<'a>(appends: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let bytes = appends.clone().map(|append| APPEND_LENGTH_BYTES + append.len()).sum();
    let mut out = Vec::with_capacity(bytes);
    for append in appends {
        put_sized(&mut out, |out| out.extend_from_slice(append));
    }
    out
}

/// Takes several appends in binary form apart; each is yet to be [read](parse_binary_append).
///
/// # Errors
/// `invalid` if there is none, or the last is cut off; `limit_exceeded` if there are more than [`APPENDS_MAX`].
pub fn split_appends(mut body: Bytes) -> Result<Vec<Bytes>> {
    let mut appends = Vec::new();
    while !body.is_empty() {
        let append = take_sized(&mut body).ok_or_else(|| cut_off(&format!("append {}", appends.len())))?;
        appends.push(append);
        check_appends(appends.len())?;
    }
    match appends.is_empty() {
        true => Err(Error::invalid("no append stands in the body")),
        false => Ok(appends),
    }
}

/// Refuses more than [`APPENDS_MAX`].
pub fn check_appends(count: usize) -> Result<()> {
    match count > APPENDS_MAX {
        true => Err(Error::limit("the list of appends", count as u64, APPENDS_MAX as u64, "appends")),
        false => Ok(()),
    }
}

fn with_data(attributes: &Bytes, data: Option<Bytes>) -> Result<Event> {
    /// A map in CBOR begins with these bits.
    const MAP: u8 = 0b101;
    let mut event = match attributes.first().is_some_and(|first| first >> 5 == MAP) {
        true => parse_attributes(attributes)?,
        false => cloudevents::parse_event(attributes, Shape::Native)?,
    };
    if event.data.is_some() {
        return Err(Error::invalid("data stands among the attributes; in binary form it stands behind them"));
    }
    event.data = data;
    Ok(event)
}

fn cut_off(what: &str) -> Error {
    Error::invalid(format!("an append in binary form that ends in the middle of {what}"))
}

fn take(body: &mut Bytes, len: usize) -> Option<Bytes> {
    (body.len() >= len).then(|| body.split_to(len))
}

/// What stands behind its length.
fn take_sized(body: &mut Bytes) -> Option<Bytes> {
    let len = take(body, 4)?.get_u32_le();
    take(body, len as usize)
}

/// The elements of the list `name`, called `what` when it has more than `max`.
fn list<'a>(value: &'a RawValue, name: &str, what: &str, max: u64) -> Result<Vec<&'a RawValue>> {
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

fn is_null(value: &RawValue) -> bool {
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

fn unknown(name: &str, what: &str, known: &str) -> Error {
    Error::invalid(format!("'{}' is no member of {what}: it has {known}", shown(name)))
}

fn condition_of(value: &RawValue) -> Result<Condition> {
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

fn condition_json(condition: &Condition) -> Value {
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

/// Writes the end of a log.
pub fn head_json(name: &LogName, head: &Head) -> Value {
    json!({
        "log": name.as_str(),
        "id": head.log.map(|id| id.to_string()),
        "size": head.size,
        "root": head.root.to_string(),
        "frames": head.frames,
        "recordedtime": head.recorded.map(|t| t.to_string()),
    })
}

/// What is wrong with an answer that is not what this program's server would say.
fn not_an_answer(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the answer is not {what}"))
}

/// Reads the end of a log.
pub fn parse_head(json: &[u8]) -> Result<Head> {
    let bad = || not_an_answer("the head of a log");
    let value: Value = serde_json::from_slice(json).map_err(|_| bad())?;
    let optional = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(text) => text.as_str().map(Some).ok_or_else(bad),
    };
    let number = |name: &str| value.get(name).and_then(Value::as_u64).ok_or_else(bad);
    Ok(Head {
        log: optional("id")?.map(|id| id.parse().map_err(|_| bad())).transpose()?,
        size: number("size")?,
        root: optional("root")?.ok_or_else(bad)?.parse().map_err(|_| bad())?,
        frames: number("frames")?,
        recorded: optional("recordedtime")?.map(|t| Time::parse(t).map_err(|_| bad())).transpose()?,
    })
}

/// Writes what an examination found: the shape of `precedent doctor --json`.
pub fn examination_json(store: &str, log: &LogName, usage: &Usage, findings: &[Finding]) -> Value {
    let finding =
        |f: &Finding| json!({"code": f.code, "severity": f.severity.as_str(), "message": f.message});
    json!({
        "store": store,
        "log": log.as_str(),
        "events": usage.events,
        "data_bytes": usage.data_bytes,
        "log_bytes": usage.log_bytes,
        "index_bytes": usage.index_bytes,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Reads what an examination found. `known` gives the code of a finding its place in this program.
pub fn parse_examination(
    json: &[u8],
    mut known: impl FnMut(&str) -> &'static str,
) -> Result<(Usage, Vec<Finding>)> {
    let bad = || not_an_answer("an examination");
    let value: Value = serde_json::from_slice(json).map_err(|_| bad())?;
    let number = |name: &str| value.get(name).and_then(Value::as_u64).ok_or_else(bad);
    let usage = Usage {
        events: number("events")?,
        data_bytes: number("data_bytes")?,
        log_bytes: number("log_bytes")?,
        index_bytes: number("index_bytes")?,
    };
    let findings = value.get("findings").and_then(Value::as_array).ok_or_else(bad)?;
    let finding = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).ok_or_else(bad);
        let severity = match text("severity")? {
            "info" => Severity::Info,
            "warning" => Severity::Warning,
            "error" => Severity::Error,
            _ => return Err(bad()),
        };
        Ok(Finding { code: known(text("code")?), severity, message: text("message")?.to_owned() })
    };
    Ok((usage, findings.iter().map(finding).collect::<Result<_>>()?))
}

/// The members by which a problem says what an [`Error`] says: all but the HTTP status and the title.
pub fn error_members(error: &Error) -> Map<String, Value> {
    let conflict = |c: &Conflict| json!({"index": c.index, "position": c.position});
    let mut members = Map::new();
    members.insert("code".into(), json!(error.kind().code()));
    members.insert("detail".into(), json!(error.message()));
    members.insert("retryable".into(), json!(error.is_retryable()));
    members.insert("may_have_been_written".into(), json!(error.may_have_been_written()));
    members.insert("conflicts".into(), error.conflicts().iter().map(conflict).collect());
    members
}

/// Reads a problem. `kind_of` answers for codes that are not an [`ErrorKind`]'s. `None` if it is no problem at all.
pub fn parse_error(json: &[u8], kind_of: impl FnOnce(&str) -> ErrorKind) -> Option<Error> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let code = value.get("code")?.as_str()?;
    let detail = value.get("detail").and_then(Value::as_str).unwrap_or(code);
    let kind = ErrorKind::from_code(code).unwrap_or_else(|| kind_of(code));
    let conflict = |value: &Value| {
        Some(Conflict {
            index: usize::try_from(value.get("index")?.as_u64()?).ok()?,
            position: value.get("position").and_then(Value::as_u64).map(Position),
        })
    };
    let conflicts = value.get("conflicts").and_then(Value::as_array);
    let conflicts = conflicts.map(|list| list.iter().filter_map(conflict).collect()).unwrap_or_default();
    let retry_after = value.get("retry_after").and_then(|secs| u32::try_from(secs.as_u64()?).ok());
    let error = Error::new(kind, detail).with_conflicts(conflicts);
    let error = match retry_after {
        Some(secs) => error.retry_after(secs),
        None => error,
    };
    match value.get("may_have_been_written").and_then(Value::as_bool) {
        Some(true) => Some(error.maybe_written()),
        _ => Some(error),
    }
}

/// Begins a binary page.
pub fn begin_events(out: &mut Vec<u8>) {
    out.extend_from_slice(EVENTS_MAGIC);
}

/// Adds an event to a binary page.
pub fn write_event(event: &RecordedEvent, out: &mut Vec<u8>) {
    let data = event.event.data();
    let state = match data {
        Some(_) => DATA_PRESENT,
        None if event.erased => DATA_ERASED,
        None => DATA_NONE,
    };
    let data = data.map_or(&[][..], |data| data);
    out.push(RECORD_EVENT);
    out.extend_from_slice(&(event.entry.len() as u16).to_le_bytes());
    out.extend_from_slice(&event.entry);
    out.push(state);
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    out.extend_from_slice(data);
}

/// Adds an event that could not be read to a binary page.
pub fn write_damage(damage: &Damage, out: &mut Vec<u8>) {
    let message = damage.error.message();
    out.push(RECORD_DAMAGE);
    out.extend_from_slice(&damage.position.0.to_le_bytes());
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// Ends a binary page.
pub fn end_events(next: Option<Position>, size: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[RECORD_END, u8::from(next.is_some())]);
    out.extend_from_slice(&next.map_or(0, |p| p.0).to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
}

/// Reads a binary page. What is cut off or does not agree with itself is [`ErrorKind::Damaged`].
pub fn parse_page(mut body: Bytes) -> Result<Page> {
    let cut = || Error::damaged("a page of events that ends too early");
    let mut take = |len: usize| (body.len() >= len).then(|| body.split_to(len)).ok_or_else(cut);
    if take(4)?[..] != EVENTS_MAGIC[..] {
        return Err(Error::damaged("no page of events begins here"));
    }
    let (mut events, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match take(1)?.get_u8() {
            RECORD_EVENT => {
                let entry_len = take(2)?.get_u16_le();
                let entry = take(entry_len.into())?;
                let state = take(1)?.get_u8();
                let data_len = take(4)?.get_u32_le();
                let data = take(data_len as usize)?;
                events.push(event_of(entry, state, data)?);
            }
            RECORD_DAMAGE => {
                let position = Position(take(8)?.get_u64_le());
                let len = take(4)?.get_u32_le();
                let message = take(len as usize)?;
                damaged.push(Damage { position, error: Error::damaged(String::from_utf8_lossy(&message)) });
            }
            RECORD_END => {
                let more = take(1)?.get_u8() != 0;
                let (next, size) = (take(8)?.get_u64_le(), take(8)?.get_u64_le());
                if !body.is_empty() {
                    let message = format!("{} bytes behind the end of a page of events", body.len());
                    return Err(Error::damaged(message));
                }
                return Ok(Page { events, damaged, next: more.then_some(Position(next)), size });
            }
            other => return Err(Error::damaged(format!("a page of events with a record of kind {other}"))),
        }
    }
}

fn event_of(bytes: Bytes, state: u8, data: Bytes) -> Result<RecordedEvent> {
    let outline = Outline::of(&bytes)?;
    let position = outline.position();
    let promised = match outline.content() {
        Content::None => None,
        Content::Data(length) => Some(length),
        Content::Other => {
            let parts = Entry::decode_shared(&bytes)?.parts;
            parts.iter().find(|part| part.name == DATA_PART).map(|part| part.length)
        }
    };
    let data = match (state, promised) {
        (DATA_PRESENT, Some(length)) if length == data.len() as u64 => Some(data),
        (DATA_ERASED, Some(_)) | (DATA_NONE, None) if data.is_empty() => None,
        _ => {
            return Err(Error::damaged(format!(
                "the data sent for position {position} is not what its entry names"
            )));
        }
    };
    let mut recorded = outline.recorded(bytes, data);
    recorded.erased = state == DATA_ERASED;
    Ok(recorded)
}

/// Adds a frame to a body of frames.
pub fn write_frame(frame: &Frame, out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.bytes().len() as u32).to_le_bytes());
    out.extend_from_slice(frame.bytes());
}

/// Reads a body of frames.
pub fn parse_frames(mut body: Bytes) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let number = frames.len();
        let short = |needs: usize, left: usize| {
            Error::invalid(format!("frame {number} of the body needs {needs} bytes, {left} are left"))
        };
        if body.len() < 4 {
            return Err(short(4, body.len()));
        }
        let len = body.get_u32_le() as usize;
        if len > FRAME_BYTES_MAX {
            let what = format!("frame {number} of the body");
            return Err(Error::limit(what, len as u64, FRAME_BYTES_MAX as u64, "bytes"));
        }
        if body.len() < len {
            return Err(short(len, body.len()));
        }
        let frame = Frame::decode(body.split_to(len));
        frames.push(frame.map_err(|e| e.context(format!("frame {number} of the body")))?);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;
    use crate::store::Store;
    use futures_util::FutureExt;
    use proptest::prelude::*;

    fn page_of(events: Vec<Event>) -> Page {
        let (store, log) = (MemoryStore::new(), LogName::default());
        store.append(&log, Append::new(events)).now_or_never().unwrap().unwrap();
        store.read(&log, &Read::default()).now_or_never().unwrap().unwrap()
    }

    fn encoded(page: &Page) -> Vec<u8> {
        let mut out = Vec::new();
        begin_events(&mut out);
        page.events.iter().for_each(|e| write_event(e, &mut out));
        page.damaged.iter().for_each(|d| write_damage(d, &mut out));
        end_events(page.next, page.size, &mut out);
        out
    }

    fn sample() -> Page {
        let event = |id: &str| Event::builder("s", id, "t").stream("x").tag("k", "v");
        let mut page = page_of(vec![
            event("1").data("[1]").build().unwrap(),
            event("2").data("").build().unwrap(),
            event("3").attribute("stream", "mine").attribute("n", 7).build().unwrap(),
        ]);
        page.damaged.push(Damage { position: Position(9), error: Error::damaged("frame 3 is damaged") });
        page.next = Some(Position(2));
        page
    }

    #[test]
    fn a_page_of_events_comes_back_byte_for_byte() {
        let page = sample();
        let again = parse_page(encoded(&page).into()).unwrap();
        assert_eq!(again.events, page.events);
        assert_eq!((again.next, again.size), (page.next, page.size));
        assert_eq!(again.damaged[0].position, Position(9));
        assert_eq!(again.damaged[0].error.message(), "frame 3 is damaged");
    }

    #[test]
    fn a_page_that_is_cut_off_anywhere_is_damaged() {
        let bytes = Bytes::from(encoded(&sample()));
        for cut in 0..bytes.len() {
            assert_eq!(
                parse_page(bytes.slice(..cut)).unwrap_err().kind(),
                ErrorKind::Damaged,
                "cut at {cut}"
            );
        }
    }

    /// An append as other programs write it.
    fn append_json(append: &Append) -> Vec<u8> {
        let mut out = b"{\"events\":[".to_vec();
        for (index, event) in append.events.iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"," } else { b"" });
            cloudevents::write_new_event(event, Shape::Native, &mut out);
        }
        let conditions: Value = append.conditions.iter().map(condition_json).collect();
        out.extend_from_slice(format!("],\"conditions\":{conditions}}}").as_bytes());
        out
    }

    #[test]
    fn data_in_a_binary_append_is_any_bytes_and_none_and_empty_are_different() {
        let event = |id: &str| Event::builder("s", id, "t").stream("x").tag("k", "v");
        let data = Bytes::from((0..=255u8).cycle().take(100_000).collect::<Vec<_>>());
        let append = Append::new(vec![
            event("1").build().unwrap(),
            event("2").data("").build().unwrap(),
            event("3").data(data.clone()).datacontenttype("text/plain").build().unwrap(),
            event("4").attribute("stream", "mine").attribute("data1", 7).build().unwrap(),
        ]);
        let again = parse_binary_append(write_append(&append).into()).unwrap();
        assert_eq!(again.events, append.events);
        assert_eq!(again.events[2].data(), Some(&data));
        assert!(again.conditions.is_empty());
    }

    #[test]
    fn a_binary_append_that_is_cut_off_or_not_one_says_so_and_names_the_event() {
        let event = |id: &str| Event::builder("s", id, "t").data("[1]").build().unwrap();
        let append = Append::new(vec![event("1"), event("2")]).when(Condition::stream_is_new("x"));
        let bytes = write_append(&append);
        let mut whole = 0;
        for cut in 0..bytes.len() {
            match parse_binary_append(Bytes::copy_from_slice(&bytes[..cut])) {
                // Between two events there is nothing to be seen of the rest: who sends it says how long it is.
                Ok(part) => whole += part.events.len() + 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "cut at {cut}"),
            }
        }
        assert_eq!(whole, 3, "it can end before an event, and nowhere else");
        let refused = |bytes: &[u8], says: &str| {
            let error = parse_binary_append(Bytes::copy_from_slice(bytes)).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        };
        refused(b"{\"events\":[]}", "no append in binary form");
        refused(&bytes[..bytes.len() - 1], "in the middle of event 1");
        refused(b"PRA1\x09\0\0\0[]", "in the middle of the list of conditions");
        refused(b"PRA1\x02\0\0\0{}", "'conditions' is an object");
        refused(b"PRA1\0\0\0\0\x02\0\0\0{}\x02", "event 0: data of kind 2");
        refused(b"PRA1\0\0\0\0\x02\0\0\0{}\x00", "event 0: the attribute 'id' is missing");
        let mut inside = b"PRA1\0\0\0\0".to_vec();
        put_sized(&mut inside, |out| {
            out.extend_from_slice(br#"{"id":"i","source":"s","type":"t","data":1}"#)
        });
        inside.push(DATA_NONE);
        refused(&inside, "event 0: data stands among the attributes");
        let mut many = b"PRA1\0\0\0\0".to_vec();
        let one = write_append(&Append::from(event("1")))[8..].to_vec();
        (0..10_002).for_each(|_| many.extend_from_slice(&one));
        let error = parse_binary_append(many.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.message().contains("10002") && error.message().contains("10000"), "{error}");
    }

    #[test]
    fn attributes_of_a_binary_append_are_json_or_cbor_and_mean_the_same() {
        let sent = |attributes: &[u8]| {
            let mut body = b"PRA1\0\0\0\0".to_vec();
            put_sized(&mut body, |out| out.extend_from_slice(attributes));
            body.push(DATA_NONE);
            parse_binary_append(body.into())
        };
        let event = Event::builder("urn:s", "1", "ai.decision.made")
            .stream("loan/1")
            .time("2026-11-22T10:00:00+01:00")
            .datacontenttype("text/plain")
            .dataschema("urn:schema")
            .tag("model", "risk-7")
            .attribute("zebra", 7)
            .attribute("ab", true)
            .attribute("dataperson", "ü")
            .build()
            .unwrap();
        let (mut json, mut cbor) = (Vec::new(), Vec::new());
        cloudevents::write_new_envelope(&event, Shape::Native, &mut json);
        put_attributes(&event, &mut cbor);
        assert_eq!(sent(&json).unwrap().events, std::slice::from_ref(&event));
        assert_eq!(sent(&cbor).unwrap().events, [event]);

        for cut in 0..cbor.len() {
            assert_eq!(sent(&cbor[..cut]).unwrap_err().kind(), ErrorKind::Invalid, "cut at {cut}");
        }
        let refused = |attributes: &[u8], says: &str| {
            let error = sent(attributes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.message().contains("event 0") && error.message().contains(says), "{error}");
        };
        refused(&[&cbor[..], b"\0"].concat(), "bytes behind");
        refused(b"\xa2\x04\x61t\x05\xa1\x62id\x61i", "no source");
        refused(b"\xa2\x04\x61t\x05\xa2\x62id\x60\x66source\x61s", "'id' is empty");
        refused(b"\xa2\x04\x61t\x05\xa2\x66source\x61s\x62id\x61i", "out of order");
        refused(b"\xa2\x04\x61t\x05\xa3\x62ID\x61i\x62id\x61i\x66source\x61s", "'ID' cannot name");
        refused(b"\xa3\x04\x61t\x05\xa2\x62id\x61i\x66source\x61s\x06\x81\x61t", "not a tag");
        refused(b"\xa3\x04\x61t\x05\xa2\x62id\x61i\x66source\x61s\x06\x80", "an empty list of tags");
        // Nothing is made of more tags or attributes than an event can have.
        let event = |tags: usize, attributes: usize| {
            let event =
                Event::builder("s", "i", "t").tags((0..tags).map(|n| Tag::new("k", &n.to_string()).unwrap()));
            let add = |event: crate::EventBuilder, n: usize| event.attribute(format!("a{n}"), true);
            let mut out = Vec::new();
            put_attributes(&(0..attributes).fold(event, add).build().unwrap(), &mut out);
            out
        };
        assert!(sent(&event(128, 1_020)).is_ok());
        for (attributes, counted) in [(event(129, 0), "129 tags"), (event(0, 1_022), "1025 members")] {
            let error = sent(&attributes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
            assert!(error.message().contains(counted), "{error}");
        }
        // What no entry can hold goes over too, to be refused by the limit it breaks.
        let long = Event::builder("s", "i", "t").attribute("long", "x".repeat(70_000)).build().unwrap();
        assert_eq!(
            parse_binary_append(write_append(&Append::from(long.clone())).into()).unwrap().events,
            [long]
        );
    }

    #[test]
    fn an_append_and_a_read_come_back_as_they_were() {
        let event = Event::builder("s", "i", "t").attribute("stream", "a").attribute("precedentlog", "b");
        let item = QueryItem {
            types: vec!["t".into()],
            tags: vec!["k=v".parse().unwrap()],
            stream: Some("x".into()),
            attributes: vec![(IndexedAttribute::DecisionId, "d".into())],
        };
        let query = Query { items: vec![item] };
        let append = Append::from(event.stream("x").data(vec![0, 1]).build().unwrap())
            .when(Condition::stream_is_new("x"))
            .when(Condition::stream_at("y", 7))
            .when(Condition::Stream { stream: "z".into(), expected: ExpectedVersion::Any })
            .when(Condition::fail_if(query.clone(), None))
            .when(Condition::fail_if(Query::all(), Some(Position(4))));
        for again in [parse_append(&append_json(&append)), parse_binary_append(write_append(&append).into())]
        {
            let again = again.unwrap();
            assert_eq!((&again.events, &again.conditions), (&append.events, &append.conditions));
        }
        let read = Read {
            query,
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
            ("[]", "append"),
            ("{}", "events"),
            (r#"{"events":[],"condition":[]}"#, "condition"),
            (r#"{"events":[7]}"#, "event 0"),
            (r#"{"events":[],"conditions":{}}"#, "'conditions' is an object"),
            (r#"{"events":[],"conditions":[{}]}"#, "condition 0"),
            (r#"{"events":[],"conditions":[{"stream":"s"}]}"#, "'version' is missing"),
            (r#"{"events":[],"conditions":[{"stream":"s","version":-1}]}"#, "-1"),
            (r#"{"events":[],"conditions":[{"stream":"s","version":1,"after":1}]}"#, "condition 0"),
            (r#"{"events":[],"conditions":[{"fail_if":{"item":[]}}]}"#, "'item'"),
            (r#"{"events":[],"conditions":[{"fail_if":{"items":[{"type":"t"}]}}]}"#, "query item 0: 'type'"),
            (r#"{"events":[],"conditions":[{"fail_if":{"items":[]},"after":"x"}]}"#, "'after'"),
        ] {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert!(error.message().contains(says), "{bad}: {error}");
        }
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
        let many = format!("{{\"events\":[{}0]}}", "0,".repeat(10_000));
        let error = parse_append(many.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.message().contains("10001") && error.message().contains("10000"), "{error}");
    }

    #[test]
    fn lists_are_read_no_further_than_their_limits_and_counted_to_their_end() {
        let many = |element: &str, n: usize| vec![element; n].join(",");
        let event = r#"{"id":"i","source":"s","type":"t"}"#;
        for (bad, numbers) in [
            (format!(r#"{{"events":[{event}],"conditions":[{}]}}"#, many("{}", 65)), ["65", "64"]),
            (
                format!(r#"{{"events":[],"conditions":[{{"fail_if":{{"items":[{}]}}}}]}}"#, many("[]", 300)),
                ["300", "256"],
            ),
            (
                format!(r#"{{"events":[{{"id":"i","source":"s","type":"t","tags":[{}]}}]}}"#, many("7", 500)),
                ["500", "128"],
            ),
            (
                format!(
                    r#"{{"events":[{{"id":"i","source":"s","type":"t","tags":"{}"}}]}}"#,
                    many("a=b", 129)
                ),
                ["129", "128"],
            ),
        ] {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
            assert!(numbers.iter().all(|n| error.message().contains(n)), "{error}");
        }
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
    fn an_append_is_an_object_and_no_message_names_this_program_s_types() {
        for bad in
            [r#"[[],[]]"#, "7", r#"{"events":7}"#, r#"{"events":[[]]}"#, r#"{"events":[],"events":[]}"#]
        {
            let error = parse_append(bad.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            for name in ["Json", "struct", "Append", "Bounded", "Members", "RawValue"] {
                assert!(!error.message().contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_stranger_s_text_is_quoted_once() {
        let error = parse_read(br#"{"limit":"ten"}"#).unwrap_err();
        assert!(error.message().contains(r#"'limit' is "ten","#), "{error}");
        let error = parse_read(br#"{"items":"x"}"#).unwrap_err();
        assert!(error.message().contains(r#"'items' is "x","#), "{error}");
    }

    #[test]
    fn errors_come_back_with_everything_they_say() {
        for kind in ErrorKind::ALL {
            let conflicts = vec![Conflict { position: Some(Position(3)), index: 1 }];
            let error = Error::new(*kind, "why").with_conflicts(conflicts.clone());
            let json = Value::Object(error_members(&error)).to_string();
            let again = parse_error(json.as_bytes(), |_| ErrorKind::Internal).unwrap();
            assert_eq!((again.kind(), again.message()), (*kind, "why"));
            assert_eq!(again.conflicts(), conflicts);
            assert_eq!(again.may_have_been_written(), error.may_have_been_written());
        }
        assert!(parse_error(b"<html>", |_| ErrorKind::Internal).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_append(&bytes);
            let _ = parse_binary_append([&b"PRA1\0\0\0\0"[..], &bytes].concat().into());
            let _ = parse_read(&bytes);
            let _ = parse_head(&bytes);
            let _ = parse_page(Bytes::from(bytes.clone()));
            let _ = parse_frames(Bytes::from(bytes));
        }

        #[test]
        fn a_page_with_a_changed_byte_never_panics(at in 0usize..600, bits in 1u8..) {
            let mut bytes = encoded(&sample());
            let at = at % bytes.len();
            bytes[at] ^= bits;
            let _ = parse_page(bytes.into());
        }
    }
}

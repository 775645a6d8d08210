//! The events as entities, for the tools of the service: each by its type, and by its stream if it has one.
//!
//! | property | type | what |
//! |---|---|---|
//! | `eventType`, `eventId`, `source` | text | as the producer sent them |
//! | `stream`, `version` | text, Int64 | its stream, and its place there |
//! | `position` | Int64 | its place in the log |
//! | `time` | DateTime, or text where that loses something | when the producer says it was |
//! | `recordedtime` | DateTime | when the log recorded it |
//! | `tags` | text | `key=value`, comma-separated, `%` `,` and control characters percent-encoded |
//! | `log` | text | the log's name |
//! | `datacontenttype`, `dataschema` | text | as the producer sent them |
//! | `attributes` | text | other attributes, a JSON object |
//! | `databytes` | Int64 | how long the data is |
//! | `data` | text, or binary where it is not text or too long for one | the data, if it fits a property and is to be held here |
//! | `dataref`, `excerpt` | text | else where it is, `precedent:` log `/` position, and how it begins |
//! | `erased` | Boolean | true if the data was erased |
//!
//! What an event has not, its entity has not either. The query for a type is
//! `PartitionKey eq 'type:ai.decision.made'`, in the order of positions.
//!
//! *Invariant*: nothing reads an entity to decide anything; and an event always makes the same ones, so that what
//! [`TableRemote::compare_documents`] finds was changed by somebody else.

use std::collections::{BTreeMap, HashMap};

use futures_util::{StreamExt as _, stream};
use precedent_core::cloudevents::encode_tags;
use precedent_core::{AttributeValue, Error, ErrorKind, Result};
use serde_json::{Map, Value as Json};

use super::TableRemote;
use super::batch::{BODY_BYTES_MAX, OPERATIONS_MAX, Operation};
use super::client::{Query, Transaction};
use super::entity::{Entity, PROPERTY_BYTES_MAX, Row, Value};
use super::keys::{self, Key};
use crate::remote::{Document, IS_MISSING, dataref};

/// Characters of data that a document shows where it does not hold it.
const EXCERPT_CHARS: usize = 1024;
/// Bytes of a transaction around each entity, amply.
const OPERATION_BYTES: usize = 2048;
/// Calls under way at the same time.
const CALLS: usize = 8;
/// Among how many rows one that is asked for may be: more are not read with it.
const SPARSE: u64 = 64;
/// The first moment the service has.
const FIRST_YEAR: i16 = 1601;

/// The entities of an event: by type, and by stream if it has one.
fn entities(document: &Document, inline_bytes: Option<usize>) -> Result<Vec<Entity>> {
    let Document { name, event: recorded, inline_bytes_max } = document;
    let event = &recorded.event;
    let mut keys = vec![keys::by_type(name, recorded.log, event.event_type(), recorded.position)];
    if let (Some(stream), Some(version)) = (event.stream(), recorded.version) {
        keys.push(keys::by_stream(name, recorded.log, stream, version));
    }
    let mut entity = Entity::new(Key::new("", ""))
        .with("eventType", event.event_type())
        .with("eventId", event.id())
        .with("source", event.source());
    if let (Some(stream), Some(version)) = (event.stream(), recorded.version) {
        entity = entity.with("stream", stream).with_number("version", version.0)?;
    }
    entity = entity.with_number("position", recorded.position.0)?;
    if let Some(time) = event.time() {
        entity = entity.with("time", moment(time));
    }
    entity = entity.with("recordedtime", moment(&recorded.recorded.to_string()));
    if !event.tags().is_empty() {
        entity = entity.with("tags", fitting(&encode_tags(event.tags())));
    }
    entity = entity.with("log", name.as_str());
    for (name, value) in [("datacontenttype", event.datacontenttype()), ("dataschema", event.dataschema())] {
        if let Some(value) = value {
            entity = entity.with(name, fitting(value));
        }
    }
    if !event.attributes().is_empty() {
        let json = |value: &AttributeValue| match value {
            AttributeValue::Boolean(value) => Json::from(*value),
            AttributeValue::Integer(value) => Json::from(*value),
            AttributeValue::String(value) => Json::from(value.as_str()),
        };
        let map: Map<String, Json> = event.attributes().iter().map(|(n, v)| (n.clone(), json(v))).collect();
        entity = entity.with("attributes", fitting(&Json::Object(map).to_string()));
    }
    if let Some(data) = event.data() {
        entity = entity.with_number("databytes", data.len() as u64)?;
        let text = std::str::from_utf8(data).ok().filter(|text| is_plain(text));
        let max = inline_bytes.unwrap_or(usize::MAX).min(*inline_bytes_max);
        let held = match text {
            _ if data.len() > max || data.len() > PROPERTY_BYTES_MAX => None,
            Some(text) if fits(text) => Some(Value::from(text)),
            _ => Some(Value::Binary(data.clone())),
        };
        match held {
            Some(value) => entity = entity.with("data", value),
            None => {
                entity = entity.with("dataref", dataref(name, recorded.position));
                if let Some(text) = text {
                    entity = entity.with("excerpt", text.chars().take(EXCERPT_CHARS).collect::<String>());
                }
            }
        }
    }
    if recorded.erased {
        entity = entity.with("erased", Value::Boolean(true));
    }
    Ok(keys.into_iter().map(|key| Entity { key, ..entity.clone() }).collect())
}

/// Whether a text is one for people: without control characters but those of lines and columns.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

fn fits(text: &str) -> bool {
    super::entity::units(text) * 2 <= PROPERTY_BYTES_MAX
}

/// The text, or as much of it as a property holds.
fn fitting(text: &str) -> String {
    if fits(text) {
        return text.to_owned();
    }
    let mut units = 0;
    let room = PROPERTY_BYTES_MAX / 2 - 1;
    let mut cut: String = text
        .chars()
        .take_while(|c| {
            units += c.len_utf16();
            units <= room
        })
        .collect();
    cut.push('…');
    cut
}

/// A time as a DateTime, if that loses nothing of the moment; else as it is.
fn moment(text: &str) -> Value {
    let fits = |time: &jiff::Timestamp| {
        time.subsec_nanosecond() % 100 == 0 && time.to_zoned(jiff::tz::TimeZone::UTC).year() >= FIRST_YEAR
    };
    match text.parse::<jiff::Timestamp>().ok().filter(fits) {
        Some(time) => Value::DateTime(time.to_string()),
        None => Value::from(fitting(text)),
    }
}

/// Whether an error is about the service, so that asking for one entity after the other would only repeat it.
fn is_for_all(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unauthorized
            | ErrorKind::Unavailable
            | ErrorKind::Overloaded
            | ErrorKind::NotFound
            | ErrorKind::Full
            | ErrorKind::NotAStore
    )
}

impl TableRemote {
    /// What is there is not written again: first all at once, and where one is there already one by one.
    pub(super) async fn write_documents(&self, documents: &[Document]) -> Vec<Result<()>> {
        let mut answers: Vec<Result<()>> = documents.iter().map(|_| Ok(())).collect();
        let mut partitions: BTreeMap<String, Vec<(usize, Entity)>> = BTreeMap::new();
        for (index, document) in documents.iter().enumerate() {
            let entities = entities(document, self.options.inline_bytes)
                .and_then(|all| all.iter().try_for_each(Entity::check).map(|()| all));
            match entities {
                Ok(entities) => entities.into_iter().for_each(|entity| {
                    partitions.entry(entity.key.partition.clone()).or_default().push((index, entity));
                }),
                Err(error) => answers[index] = Err(error),
            }
        }
        let batches: Vec<_> = partitions.into_values().flat_map(batches).collect();
        let mut written =
            stream::iter(batches.into_iter().map(|batch| self.write_batch(batch))).buffer_unordered(CALLS);
        while let Some(failed) = written.next().await {
            for (index, error) in failed {
                answers[index] = Err(error);
            }
        }
        answers
    }

    /// Writes entities of one partition; answers which documents could not be written.
    async fn write_batch(&self, batch: Vec<(usize, Entity)>) -> Vec<(usize, Error)> {
        let mut failed = Vec::new();
        if batch.len() > 1 {
            let operations: Vec<_> =
                batch.iter().map(|(_, entity)| Operation::Insert(entity.clone())).collect();
            match self.client.transact(&operations).await {
                Ok(written) if matches!(written.outcome, Transaction::Done(_)) => return failed,
                Err(error) if is_for_all(&error) => {
                    return batch.iter().map(|(index, _)| (*index, error.clone())).collect();
                }
                _ => {}
            }
        }
        let singly = batch.into_iter().map(|(index, entity)| async move {
            // One that is there is as good as one that was written: whether it agrees is what a check is for.
            self.client.insert(&entity).await.err().map(|error| (index, error))
        });
        let mut singly = stream::iter(singly).buffer_unordered(CALLS);
        while let Some(answer) = singly.next().await {
            failed.extend(answer);
        }
        failed
    }

    pub(super) async fn compare_documents(&self, documents: &[Document]) -> Result<Vec<Option<String>>> {
        let mut expected = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            expected.extend(
                entities(document, self.options.inline_bytes)?.into_iter().map(|entity| (index, entity)),
            );
        }
        let mut series: BTreeMap<(&str, &str), Vec<&Key>> = BTreeMap::new();
        for (_, entity) in &expected {
            let (begins, _) = numbered(&entity.key.row);
            series.entry((&entity.key.partition, begins)).or_default().push(&entity.key);
        }
        let reads: Vec<Reading> = series.into_values().flat_map(readings).collect();
        let reads = reads.into_iter().map(|reading| self.read_entities(reading));
        let mut reads = stream::iter(reads).buffer_unordered(CALLS);
        let mut found: HashMap<Key, Row> = HashMap::new();
        while let Some(rows) = reads.next().await {
            found.extend(rows?.into_iter().map(|row| (row.key.clone(), row)));
        }
        let mut answers: Vec<Option<String>> = vec![None; documents.len()];
        for (index, entity) in &expected {
            let difference = match found.get(&entity.key) {
                None => Some(IS_MISSING.to_owned()),
                Some(row) => difference(entity, row),
            };
            if let Some(difference) = difference {
                answers[*index].get_or_insert(format!("{difference}, at {}", entity.key));
            }
        }
        Ok(answers)
    }

    async fn read_entities(&self, reading: Reading) -> Result<Vec<Row>> {
        let mut query = match reading {
            Reading::Range(query) => query,
            Reading::One(key) => return Ok(self.client.get(&key, &[]).await?.into_iter().collect()),
        };
        let mut rows = Vec::new();
        let mut next = None;
        loop {
            let page = match self.client.query(&query, next.as_ref()).await {
                // Many long entities: fewer in a page.
                Err(error) if error.kind() == ErrorKind::LimitExceeded && query.top != Some(1) => {
                    query.top = Some((query.top.unwrap_or(1000) / 4).max(1));
                    continue;
                }
                page => page?,
            };
            rows.extend(page.rows);
            next = page.next;
            if next.is_none() {
                return Ok(rows);
            }
        }
    }
}

/// How entities are read.
enum Reading {
    /// All in one range of rows.
    Range(Query),
    /// One.
    One(Key),
}

/// What a row begins with, and the number at its end.
fn numbered(row: &str) -> (&str, u64) {
    let at = row.len().saturating_sub(keys::NUMBER_DIGITS);
    let (begins, number) = row.split_at_checked(at).unwrap_or((row, ""));
    (begins, number.parse().unwrap_or_default())
}

/// How the entities of one log in one partition are read: in one range, unless far more others would be read with them.
fn readings(mut keys: Vec<&Key>) -> Vec<Reading> {
    keys.sort();
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Vec::new() };
    let span = numbered(&last.row).1 - numbered(&first.row).1;
    if span > SPARSE * keys.len() as u64 {
        return keys.into_iter().map(|key| Reading::One(key.clone())).collect();
    }
    // Up to the last row and what would begin like it.
    let below = format!("{}!", last.row);
    vec![Reading::Range(Query::range(&first.partition, &first.row, Some(&below)))]
}

/// Entities of one partition in transactions, none of which is too large.
fn batches(entities: Vec<(usize, Entity)>) -> Vec<Vec<(usize, Entity)>> {
    let mut batches: Vec<Vec<(usize, Entity)>> = Vec::new();
    let mut bytes = 0;
    for (index, entity) in entities {
        // In JSON a character can take six bytes, which is far from what the service counts.
        let more = entity.to_json().len() + OPERATION_BYTES;
        let fits = batches.last().is_some_and(|batch| {
            batch.len() < OPERATIONS_MAX
                && bytes + more <= BODY_BYTES_MAX - OPERATION_BYTES
                && batch.iter().all(|(_, other)| other.key != entity.key)
        });
        if !fits {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        batches.last_mut().expect("one was pushed if there was none").push((index, entity));
    }
    batches
}

/// What differs, if something does.
fn difference(expected: &Entity, found: &Row) -> Option<String> {
    for (name, value) in &expected.properties {
        if !found.has(name, value) {
            let what = if found.names().any(|other| other == name) { "has another" } else { "has no" };
            return Some(format!("{what} {name}"));
        }
    }
    let known = |name: &str| expected.properties.iter().any(|(known, _)| known == name);
    found.names().find(|name| !known(name)).map(|name| {
        let shown: String = name.chars().take(64).collect();
        format!("has a property {} that no event has", shown.escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use precedent_core::{Event, LogId, LogName, Position, RecordedEvent, Time, Version};

    fn document(event: Event) -> Document {
        let version = event.stream().map(|_| Version(3));
        Document {
            name: LogName::default(),
            event: RecordedEvent {
                log: LogId([7; 16]),
                position: Position(42),
                version,
                recorded: Time::parse("2026-11-22T10:00:00.000001Z").expect("a time"),
                event,
                erased: false,
                entry: Bytes::new(),
            },
            inline_bytes_max: 100_000,
        }
    }

    fn value<'a>(entity: &'a Entity, name: &str) -> Option<&'a Value> {
        entity.properties.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    #[test]
    fn an_event_is_readable_by_the_tools_of_the_service() {
        let event = Event::builder("https://loans.example", "d-42", "ai.decision.made")
            .stream("application/42")
            .time("2026-11-22T11:00:00.5+01:00")
            .tag("model", "risk,7")
            .attribute("correlationid", "c1")
            .json(&serde_json::json!({"approve": false}))
            .build()
            .expect("an event");
        let all = entities(&document(event), None).expect("entities");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].properties, all[1].properties);
        all[0].check().expect("within the limits");
        let has = |name, expected: Value| assert_eq!(value(&all[0], name), Some(&expected), "{name}");
        has("eventType", "ai.decision.made".into());
        has("eventId", "d-42".into());
        has("source", "https://loans.example".into());
        has("stream", "application/42".into());
        has("version", Value::Int64(3));
        has("position", Value::Int64(42));
        has("time", Value::DateTime("2026-11-22T10:00:00.5Z".into()));
        has("recordedtime", Value::DateTime("2026-11-22T10:00:00.000001Z".into()));
        has("tags", "model=risk%2C7".into());
        has("log", "main".into());
        has("attributes", r#"{"correlationid":"c1"}"#.into());
        has("data", r#"{"approve":false}"#.into());
        has("databytes", Value::Int64(17));
    }

    #[test]
    fn data_is_held_where_it_fits_and_named_where_not() {
        let of = |data: Vec<u8>, inline: Option<usize>| {
            let event = Event::builder("s", "i", "t").data(data).build().expect("an event");
            let all = entities(&document(event), inline).expect("entities");
            assert_eq!(all.len(), 1, "no stream");
            all[0].check().expect("within the limits");
            all.into_iter().next().expect("one")
        };
        let held = |entity: &Entity| value(entity, "data").cloned();
        assert_eq!(held(&of(b"text".to_vec(), None)), Some("text".into()));
        assert_eq!(held(&of(vec![0, 1], None)), Some(Value::Binary(Bytes::from_static(&[0, 1]))));
        assert_eq!(held(&of(vec![0xff; 65_536], None)), Some(Value::Binary(vec![0xff; 65_536].into())));
        // As text it would be too long, as bytes it fits.
        assert!(matches!(held(&of(vec![b'x'; 40_000], None)), Some(Value::Binary(_))));
        for (data, inline) in [(vec![b'x'; 65_537], None), (vec![b'x'; 11], Some(10))] {
            let entity = of(data, inline);
            assert_eq!(held(&entity), None);
            assert_eq!(value(&entity, "dataref"), Some(&"precedent:main/42".into()));
            assert!(matches!(value(&entity, "excerpt"), Some(Value::Text(text)) if text.starts_with("xxxx")));
        }
        assert_eq!(value(&of(vec![0xff; 65_537], None), "excerpt"), None, "not text");
    }

    #[test]
    fn a_time_stays_what_it_is() {
        assert_eq!(moment("1600-12-31T00:00:00Z"), "1600-12-31T00:00:00Z".into());
        assert_eq!(moment("2026-11-22T10:00:00.123456789Z"), "2026-11-22T10:00:00.123456789Z".into());
        assert_eq!(moment("1601-01-01T00:00:00Z"), Value::DateTime("1601-01-01T00:00:00Z".into()));
    }

    #[test]
    fn what_is_too_long_for_a_property_is_cut_and_says_so() {
        let cut = fitting(&"🦀".repeat(40_000));
        assert!(fits(&cut) && cut.ends_with('…'));
        assert_eq!(fitting("short"), "short");
    }

    #[test]
    fn what_is_far_apart_is_not_read_with_all_that_lies_between() {
        let key = |position| keys::by_type(&LogName::default(), LogId([7; 16]), "t", Position(position));
        let reads = |positions: &[u64]| {
            let keys: Vec<Key> = positions.iter().copied().map(key).collect();
            readings(keys.iter().collect()).len()
        };
        assert_eq!(reads(&[]), 0);
        assert_eq!(reads(&[7]), 1);
        assert_eq!(reads(&[30, 10, 20]), 1);
        assert_eq!(reads(&[u64::MAX, 0, 20]), 3);
    }

    #[test]
    fn batches_are_whole_and_within_the_limits() {
        let entity = |row: usize, bytes: usize| {
            let chunk = |entity: Entity, i: usize| entity.with(format!("d{i}"), Bytes::from(vec![1; 60_000]));
            (row, (0..bytes / 60_000).fold(Entity::new(Key::new("p", row.to_string())), chunk))
        };
        let many: Vec<_> = (0..250).map(|row| entity(row, 0)).collect();
        assert_eq!(batches(many).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
        let large: Vec<_> = (0..10).map(|row| entity(row, 900_000)).collect();
        let batches_of_large = batches(large);
        assert!(batches_of_large.iter().all(|batch| batch.len() <= 3), "under 4 MiB");
        assert_eq!(batches_of_large.iter().flatten().count(), 10);
        let twice = vec![entity(1, 0), entity(1, 0)];
        assert_eq!(batches(twice).len(), 2, "one transaction takes no entity twice");
    }
}

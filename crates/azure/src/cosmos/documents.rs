//! Events as documents, for Azure's own tools: an export, never read to decide anything.

use std::collections::BTreeMap;

use azure_data_cosmos::TransactionalBatch;
use base64::prelude::{BASE64_STANDARD, Engine};
use precedent_core::{AttributeValue, Error, LogId, Result};
use serde_json::{Map, Value, json};

use super::CosmosRemote;
use crate::remote::{Document, FrameSet, IS_MISSING, dataref};

const PROGRESS: &str = "~documents";
/// Documents of one transaction: the service takes 100 operations and 2 MB.
const BATCH_MAX: usize = 100;
const BATCH_BYTES_MAX: usize = 1_500_000;
/// Characters of the data that a document shows where it does not hold it.
const EXCERPT_CHARS: usize = 256;
/// The deepest JSON that is stored as JSON; the service's own limit is not far above.
const DEPTH_MAX: usize = 64;
/// The largest whole number that every reader of JSON has exactly.
const INTEGER_MAX: u64 = 1 << 53;

fn id(document: &Document) -> String {
    format!("{}-{:020}", document.event.log, document.event.position.0)
}

/// The month in which the event was recorded: the second level of a hierarchical key.
fn period(document: &Document) -> String {
    document.event.recorded.to_string().chars().take(7).collect()
}

fn fields(document: &Document) -> Value {
    let (recorded, event) = (&document.event, &document.event.event);
    let mut attributes = Map::new();
    for (name, value) in event.attributes() {
        let value = match value {
            AttributeValue::Boolean(value) => json!(value),
            AttributeValue::Integer(value) => json!(value),
            AttributeValue::String(value) => json!(value),
        };
        attributes.insert(name.clone(), value);
    }
    let tags: Vec<_> = event.tags().iter().map(|tag| tag.as_str()).collect();
    let mut fields = json!({
        "log": document.name.as_str(), "eventId": event.id(), "source": event.source(),
        "position": recorded.position.0, "recordedtime": recorded.recorded.to_string(),
        "tags": tags, "attributes": attributes,
    });
    let optional = [
        ("stream", event.stream().map(Value::from)),
        ("version", recorded.version.map(|version| version.0.into())),
        ("time", event.time().map(Value::from)),
        ("datacontenttype", event.datacontenttype().map(Value::from)),
        ("dataschema", event.dataschema().map(Value::from)),
        ("erased", recorded.erased.then(|| true.into())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            fields[name] = value;
        }
    }
    let Some(data) = event.data() else { return fields };
    let text = std::str::from_utf8(data);
    if data.len() > document.inline_bytes_max {
        fields["dataref"] = dataref(&document.name, recorded.position).into();
        fields["databytes"] = data.len().into();
        if let Ok(text) = text {
            fields["excerpt"] = text.chars().take(EXCERPT_CHARS).collect::<String>().into();
        }
    } else {
        match text {
            Ok(text) => fields["data"] = survives(text).unwrap_or_else(|| text.into()),
            Err(_) => fields["data_base64"] = BASE64_STANDARD.encode(data).into(),
        }
    }
    fields
}

/// The JSON that the text is, if a reader that knows nothing of its author gets the same values from it: no number is
/// rounded, no text written another way, no name stands twice.
fn survives(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (plain(&value, DEPTH_MAX) && tokens(text) == tokens(&value.to_string())).then_some(value)
}

/// The names, values and signs of a JSON text, sorted: names come out in another order than they went in, so what is
/// compared is which there are.
fn tokens(json: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, byte) in json.bytes().enumerate() {
        if quoted {
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
        } else if b" \t\r\n{}[],:".contains(&byte) {
            tokens.push(&json[start..at]);
            start = at + 1;
            if !byte.is_ascii_whitespace() {
                tokens.push(&json[at..start]);
            }
        } else {
            quoted = byte == b'"';
        }
    }
    tokens.push(&json[start..]);
    tokens.retain(|token| !token.is_empty());
    tokens.sort_unstable();
    tokens
}

fn plain(value: &Value, depth: usize) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64()
                || number.as_u64().is_some_and(|n| n <= INTEGER_MAX)
                || number.as_i64().is_some_and(|n| n.unsigned_abs() <= INTEGER_MAX)
        }
        Value::Array(values) => depth > 0 && values.iter().all(|value| plain(value, depth - 1)),
        Value::Object(values) => depth > 0 && values.values().all(|value| plain(value, depth - 1)),
        _ => true,
    }
}

impl CosmosRemote {
    fn document(&self, document: &Document) -> Value {
        let mut fields = fields(document);
        if self.hierarchical {
            fields["period"] = period(document).into();
        }
        self.item(document.event.event.event_type(), &id(document), fields)
    }

    pub(super) async fn write_documents(&self, documents: &[Document]) -> Vec<Result<()>> {
        let mut answers: Vec<Result<()>> = documents.iter().map(|_| Ok(())).collect();
        let mut partitions: BTreeMap<(&str, String), Vec<usize>> = BTreeMap::new();
        for (index, document) in documents.iter().enumerate() {
            let place = (document.event.event.event_type(), period(document));
            partitions.entry(place).or_default().push(index);
        }
        for ((event_type, period), indexes) in partitions {
            let mut some = Vec::new();
            let mut bytes = 0;
            for index in indexes {
                let item = self.document(&documents[index]);
                let length = item.to_string().len();
                if some.len() == BATCH_MAX || (bytes + length > BATCH_BYTES_MAX && !some.is_empty()) {
                    self.write_some(event_type, &period, &some, &mut answers).await;
                    some.clear();
                    bytes = 0;
                }
                bytes += length;
                some.push((index, item));
            }
            self.write_some(event_type, &period, &some, &mut answers).await;
        }
        answers
    }

    /// Writes documents of one partition together, or one by one if some are there or one of them cannot be written.
    async fn write_some(
        &self,
        event_type: &str,
        period: &str,
        some: &[(usize, Value)],
        answers: &mut [Result<()>],
    ) {
        let key = self.key(event_type, period);
        if some.len() > 1 {
            let batch = TransactionalBatch::new(key.clone());
            let batch = some.iter().try_fold(batch, |batch, (_, item)| batch.create_item(item));
            if let Ok(batch) = batch {
                match self.container.execute_transactional_batch(batch, None).await {
                    Ok(answer) => {
                        self.charge(answer.headers());
                        if u16::from(answer.status().status_code()) == 200 {
                            return;
                        }
                    }
                    Err(error) => self.charge_failed(&error),
                }
            }
        }
        for (index, item) in some {
            let id = item["id"].as_str().unwrap_or_default();
            let written = self.create_at(key.clone(), id, item, &format!("writing the document {id}")).await;
            answers[*index] = written.map(|_| ());
        }
    }

    pub(super) async fn compare_documents(&self, documents: &[Document]) -> Result<Vec<Option<String>>> {
        let mut answers = Vec::with_capacity(documents.len());
        for document in documents {
            let (id, wanted) = (id(document), self.document(document));
            let key = self.key(document.event.event.event_type(), &period(document));
            let Some((found, _)) = self.read_at(key, &id, &format!("reading the document {id}")).await?
            else {
                answers.push(Some(IS_MISSING.to_owned()));
                continue;
            };
            answers.push(differs(&wanted, &found));
        }
        Ok(answers)
    }

    pub(super) async fn read_documented(&self, log: LogId) -> Result<FrameSet> {
        match self.read(PROGRESS, &log.to_string()).await? {
            Some((item, _)) => documented(log, &item),
            None => Ok(FrameSet::default()),
        }
    }

    pub(super) async fn raise_documented(&self, log: LogId, frames: &FrameSet) -> Result<FrameSet> {
        let id = log.to_string();
        let fields = |set: &FrameSet| json!({ "kind": "progress", "frames": set.through(), "ranges": set.to_string() });
        loop {
            let Some((item, etag)) = self.read(PROGRESS, &id).await? else {
                if self.create(PROGRESS, &id, fields(frames)).await? {
                    return Ok(frames.clone());
                }
                continue;
            };
            let there = documented(log, &item)?;
            if there.covers(frames) {
                return Ok(there);
            }
            let mut both = there;
            both.add(frames);
            if self.replace(PROGRESS, &id, &self.item(PROGRESS, &id, fields(&both)), &etag).await? {
                return Ok(both);
            }
        }
    }
}

/// The frames that an item of progress names.
fn documented(log: LogId, item: &Value) -> Result<FrameSet> {
    let ranges = item["ranges"].as_str().and_then(|ranges| ranges.parse().ok());
    ranges.ok_or_else(|| Error::damaged(format!("{PROGRESS}/{log} does not say which frames")))
}

/// What of a document is not as the event has it; what the service adds begins with `_`.
fn differs(wanted: &Value, found: &Value) -> Option<String> {
    let empty = Map::new();
    let (wanted, found) = (wanted.as_object().unwrap_or(&empty), found.as_object().unwrap_or(&empty));
    let same_as_found =
        |name: &String, value: &Value| found.get(name).is_some_and(|there| same(value, there));
    let other = wanted.iter().filter(|(name, value)| !same_as_found(name, value)).map(|(name, _)| name);
    let more = found.keys().filter(|name| !name.starts_with('_') && !wanted.contains_key(*name));
    let names: Vec<&str> = other.chain(more).map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("has another {}", names.join(", ")))
}

/// Whether two values are the same to those who read numbers as doubles: the service answers `0` for `0.0`.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use bytes::Bytes;
    use precedent_core::{Event, LogId, LogName, Position, RecordedEvent, Time, Version};

    use super::{differs, fields, survives};
    use crate::remote::Document;

    #[test]
    fn what_the_container_indexes_is_what_documents_and_frames_are_asked_by() {
        let event = Event::builder("s", "i", "t").stream("s").time("2026-11-22T10:00:00Z");
        let event = event.tags(["a=b".parse().expect("a tag")]).build().expect("an event");
        let document = Document {
            name: LogName::default(),
            event: RecordedEvent {
                log: LogId::random(),
                position: Position(0),
                version: Some(Version(0)),
                recorded: Time::parse("2026-11-22T10:00:00Z").expect("a time"),
                event,
                erased: false,
                entry: Bytes::new(),
            },
            inline_bytes_max: 0,
        };
        let fields = fields(&document);
        // Those that are no field of a document stand in every item, and in every frame.
        let elsewhere = ["eventType", "sequence"];
        for path in crate::provision::INDEXED {
            let name = path.split('/').nth(1).expect("a path begins with /");
            assert!(fields.get(name).is_some() || elsewhere.contains(&name), "{path} is in no item");
        }
    }

    #[test]
    fn a_number_that_comes_back_written_otherwise_is_the_same_and_another_is_named() {
        let wanted = json!({"data": {"reward": [0.0, 1.0]}, "position": 7});
        assert_eq!(differs(&wanted, &json!({"data": {"reward": [0, 1]}, "position": 7, "_ts": 1})), None);
        let other = differs(&wanted, &json!({"data": {"reward": [0, 2]}, "position": 7}));
        assert_eq!(other.as_deref(), Some("has another data"));
    }

    #[test]
    fn only_json_that_every_reader_understands_alike_is_stored_as_json() {
        for good in [r#"{"b":1, "a":[true,null,"x y\n"]}"#, "0.25", "9007199254740992", r#""é""#] {
            assert!(survives(good).is_some(), "{good}");
        }
        let permuted = r#"{"a":12,"b":21}"#;
        assert_eq!(survives(permuted).map(|value| value.to_string()).as_deref(), Some(permuted));
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a\"":"\u00e9"}"#,
            "9007199254740993",
            "1e400",
            "0.10",
            "1.00000000000000000001",
            "{",
            "-0",
        ] {
            assert!(survives(bad).is_none(), "{bad}");
        }
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(survives(&deep).is_none(), "deeply nested");
    }
}

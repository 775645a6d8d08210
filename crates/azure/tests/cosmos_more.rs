//! What else is promised of a log in Cosmos DB: documents for other people's tools, what an operation costs, what is
//! tried again and what is refused. On the emulator in this process.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use azure_data_cosmos::models::{ContainerProperties, TimeToLive};
use azure_data_cosmos::options::{MaxItemCountHint, QueryOptions};
use azure_data_cosmos::{ContainerClient, FeedScope, PartitionKey, Query};
use bytes::Bytes;
use futures_util::StreamExt as _;
use precedent_azure::cosmos::{CosmosRemote, KEY_VARIABLE, Options, Settings, Transport};
use precedent_azure::remote::{Commit, Document, FrameSet, IS_MISSING, LogRecord, Outcome, Remote};
use precedent_core::ErrorKind;
use precedent_core::store::ExpectedRegister;
use precedent_core::{
    Event, EventBuilder, FrameId, Hash, LogId, LogName, Position, RecordedEvent, Result, Time, Version,
};
use precedent_emulators::cosmos::{Account, Container, Emulator, FaultRule, KEY, Operation, answer, delay};
use serde_json::{Value, json};

const DATABASE: &str = "eventSourcingDb";
const CONTAINER: &str = "eventsContainer";
/// Buckets of four frames, so that tests reach their boundaries.
const BUCKET_BITS: u32 = 2;

fn emulator(container: &Container) -> Emulator {
    let emulator = Emulator::new(Account::default());
    emulator.create_database(DATABASE);
    emulator.create_container(DATABASE, CONTAINER, container);
    emulator
}

async fn open(emulator: &Emulator, rules: Vec<Arc<FaultRule>>) -> CosmosRemote {
    try_open(emulator, rules).await.expect("the container can be opened")
}

async fn try_open(emulator: &Emulator, rules: Vec<Arc<FaultRule>>) -> Result<CosmosRemote> {
    let url = format!("cosmos://{}/{DATABASE}/{CONTAINER}", emulator.host());
    let settings = Settings::new(&url, |name| (name == KEY_VARIABLE).then(|| KEY.to_owned())).expect("a URL");
    let transport = Transport { runtime: Some(emulator.runtime(rules).await), http: Some(emulator.http()) };
    let remote = CosmosRemote::connect_through(settings, Options::default(), transport).await?;
    Ok(remote.with_bucket_bits(BUCKET_BITS))
}

/// The container as anybody sees it who has the SDK and not us.
async fn plainly(emulator: &Emulator) -> ContainerClient {
    let database = emulator.client().await.database_client(DATABASE);
    database.container_client(CONTAINER, None).await.expect("it is there")
}

fn event(number: u64, event_type: &str) -> EventBuilder {
    Event::builder("https://loans.example", format!("event-{number}"), event_type)
}

fn document(log: LogId, position: u64, event: EventBuilder) -> Document {
    let event = event.build().expect("an event");
    Document {
        name: LogName::default(),
        event: RecordedEvent {
            log,
            position: Position(position),
            version: event.stream().map(|_| Version(position)),
            recorded: Time::parse("2026-11-22T10:00:00.000001Z").expect("a time"),
            event,
            erased: false,
            entry: Bytes::new(),
        },
        inline_bytes_max: 32 << 10,
    }
}

fn id(document: &Document) -> String {
    format!("{}-{:020}", document.event.log, document.event.position.0)
}

async fn put(remote: &CosmosRemote, documents: &[Document]) {
    let answers = remote.put_documents(documents).await;
    assert_eq!(answers.len(), documents.len());
    for (answer, document) in answers.into_iter().zip(documents) {
        answer.unwrap_or_else(|error| panic!("{}: {error}", document.event.position));
    }
}

async fn agree(remote: &CosmosRemote, documents: &[Document]) {
    let answers = remote.check_documents(documents).await.expect("answers");
    assert_eq!(answers, vec![None; documents.len()]);
}

async fn item(container: &ContainerClient, key: impl Into<PartitionKey>, id: &str) -> Value {
    let answer = container.read_item(key, id, None).await.expect("the item is there");
    answer.into_model().expect("it is JSON")
}

/// The rows of a query, a few a page, so that there are several.
async fn rows(container: &ContainerClient, query: &str, scope: FeedScope) -> Vec<Value> {
    let few = MaxItemCountHint::Limit(NonZeroU32::new(7).expect("not zero"));
    let options = QueryOptions::default().with_max_item_count(few);
    let pages = container.query_items::<Value>(Query::from(query), scope, Some(options)).await;
    let mut pages = pages.expect("the query is one").into_pages();
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await {
        rows.extend(page.expect("a page").into_items());
    }
    rows
}

#[tokio::test]
async fn whoever_asks_for_a_type_gets_its_events_in_order_without_us() {
    for partition_key in [vec!["/eventType"], vec!["/eventType", "/period"]] {
        let emulator = emulator(&Container { partition_key, ..Container::default() });
        let remote = open(&emulator, Vec::new()).await;
        let log = LogId::random();
        // Backwards, so that the order is not the one they were written in.
        let documents: Vec<Document> = (0..250)
            .rev()
            .map(|i| {
                let event_type = if i % 6 == 5 { "ai.decision.made" } else { "ai.tool.called" };
                let data = json!({"n": i, "approved": i % 2 == 0});
                document(log, i, event(i, event_type).stream(format!("run/{}", i % 2)).json(&data))
            })
            .collect();
        put(&remote, &documents[..150]).await;
        // Some are there already, some are not.
        put(&remote, &documents[100..]).await;
        agree(&remote, &documents).await;

        let container = plainly(&emulator).await;
        // The service takes a text in either kind of quotes; the emulator takes double ones for a name.
        let by_type = "SELECT * FROM c WHERE c.eventType = 'ai.decision.made' ORDER BY c.position";
        let found = rows(&container, by_type, FeedScope::partition("ai.decision.made")).await;
        let positions: Vec<u64> = found.iter().filter_map(|row| row["position"].as_u64()).collect();
        assert_eq!(positions, (0..250).filter(|i| i % 6 == 5).collect::<Vec<_>>(), "each of them once");
        assert_eq!(found[0]["data"], json!({"n": 5, "approved": false}));
        assert_eq!(found[0]["eventId"], "event-5");
        let by_data = "SELECT VALUE c.position FROM c WHERE c.data.n >= 240 AND c.data.approved";
        let found = rows(&container, by_data, FeedScope::partition("ai.tool.called")).await;
        assert_eq!(found.len(), 5, "what is JSON can be asked for: {found:?}");
    }
}

#[tokio::test]
async fn data_of_every_kind_is_readable_or_named() {
    let emulator = emulator(&Container::default());
    let remote = open(&emulator, Vec::new()).await;
    let log = LogId::random();
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    // What was recorded, under what name it stands in the document, and as what.
    let long = "x".repeat(32 << 10);
    let cases: Vec<(Bytes, &str, Value)> = vec![
        (
            r#"{"b": 1, "a": [true, null, 1.0, 0.25, "ü🦀"]}"#.into(),
            "data",
            json(r#"{"a":[true,null,1,0.25,"ü🦀"],"b":1}"#),
        ),
        ("9007199254740992".into(), "data", json("9007199254740992")),
        ("9007199254740993".into(), "data", "9007199254740993".into()),
        (r#"{"a":1,"a":2}"#.into(), "data", r#"{"a":1,"a":2}"#.into()),
        (
            "0.1000000000000000055511151231257827".into(),
            "data",
            "0.1000000000000000055511151231257827".into(),
        ),
        ("no JSON".into(), "data", "no JSON".into()),
        (Bytes::new(), "data", "".into()),
        (Bytes::from_static(b"\0\x01\xff"), "data_base64", "AAH/".into()),
        (long.clone().into(), "data", long.clone().into()),
        (format!("{long}x").into(), "excerpt", "x".repeat(256).into()),
    ];
    let mut documents: Vec<Document> = (0..)
        .zip(&cases)
        .map(|(i, (data, ..))| document(log, i, event(i, "t.t").stream("s").data(data.clone())))
        .collect();
    let full = event(90, "t.t")
        .time("2026-11-22T10:00:00.123456789+05:30")
        .datacontenttype("text/plain")
        .dataschema("https://example.com/schema")
        .attribute("correlationid", "c")
        .attribute("flag", true)
        .attribute("number", 7)
        .tags((0..100).map(|i| format!("key{i}={}", ",".repeat(200)).parse().expect("a tag")));
    documents.push(document(log, 90, full));
    documents.push(document(log, 91, event(91, "t.t")));
    put(&remote, &documents).await;
    put(&remote, &documents).await;
    agree(&remote, &documents).await;

    let container = plainly(&emulator).await;
    for (document, (data, name, wanted)) in documents.iter().zip(&cases) {
        let found = item(&container, "t.t", &id(document)).await;
        let same = match (&found[*name], wanted) {
            (Value::Number(found), Value::Number(wanted)) => found.as_f64() == wanted.as_f64(),
            (Value::Object(found), Value::Object(_)) => {
                found["a"][2].as_f64() == Some(1.0)
                    && found["a"][4] == "ü🦀"
                    && found["b"].as_u64() == Some(1)
            }
            (found, wanted) => found == wanted,
        };
        assert!(same, "{:.60}: {:.200}", String::from_utf8_lossy(data), found.to_string());
        let is_named = data.len() > 32 << 10;
        assert_eq!(found.get("dataref").is_some(), is_named);
        assert_eq!(found["databytes"].as_u64(), is_named.then_some(data.len() as u64));
        assert_eq!(found.get("data").is_some(), *name == "data");
    }
    let without = item(&container, "t.t", &id(&documents[documents.len() - 1])).await;
    for name in ["data", "data_base64", "dataref", "stream", "version", "time"] {
        assert!(without.get(name).is_none(), "an event without {name} has none");
    }
}

#[tokio::test]
async fn whatever_a_type_or_stream_is_called_its_events_are_kept_apart() {
    let names: Vec<String> = [
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a%2Fb",
        "it's",
        "a b",
        "a+b",
        "a&b",
        "ü",
        "日本語",
        "🦀",
        "\u{2028}",
        "A",
        "a",
        "a\"b",
        "--a",
        "[1]",
        "null",
        "1",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(["x".repeat(512), format!("{}y", "x".repeat(511)), "/".repeat(512), "🦀".repeat(128)])
    .collect();
    let emulator = emulator(&Container { partitions: 3, ..Container::default() });
    let remote = open(&emulator, Vec::new()).await;
    let log = LogId::random();
    let documents: Vec<Document> = (0..)
        .zip(&names)
        .map(|(i, name)| {
            let event = Event::builder(name.as_str(), name.as_str(), name.as_str());
            document(log, i, event.stream(name.as_str()).data(name.clone()))
        })
        .collect();
    put(&remote, &documents).await;
    agree(&remote, &documents).await;
    let container = plainly(&emulator).await;
    for (name, document) in names.iter().zip(&documents) {
        let found = rows(&container, "SELECT * FROM c", FeedScope::partition(name.clone())).await;
        assert_eq!(found.len(), 1, "{name}");
        assert_eq!(found[0]["id"], id(document));
        for field in ["eventType", "eventId", "source", "stream"] {
            assert_eq!(found[0][field], name.as_str(), "{field}");
        }
    }
}

#[tokio::test]
async fn a_document_changed_behind_our_back_is_named() {
    let emulator = emulator(&Container::default());
    let remote = open(&emulator, Vec::new()).await;
    let (log, event_type) = (LogId::random(), "ai.decision.made");
    let documents: Vec<Document> = (0..9)
        .map(|i| document(log, i, event(i, event_type).stream("run/1").data(r#"{"approved":false}"#)))
        .collect();
    put(&remote, &documents).await;
    let container = plainly(&emulator).await;
    let change = async |at: usize, name: &str, value: Option<Value>| {
        let id = id(&documents[at]);
        let mut found = item(&container, event_type, &id).await;
        let fields = found.as_object_mut().expect("a document is an object");
        match value {
            Some(value) => fields.insert(name.to_owned(), value),
            None => fields.remove(name),
        };
        container.replace_item(event_type, &id, &found, None).await.expect("replaced");
    };
    change(1, "data", Some(json!({"approved": true}))).await;
    change(2, "data", None).await;
    change(3, "note", Some("by hand".into())).await;
    // The same digits, as text.
    change(4, "position", Some("4".into())).await;
    change(5, "recordedtime", Some("2026-11-22T10:00:00.000002Z".into())).await;
    // What does not change it: the same written again.
    change(6, "eventId", Some("event-6".into())).await;
    container.delete_item(event_type, &id(&documents[7]), None).await.expect("deleted");

    let answers = remote.check_documents(&documents).await.expect("answers");
    let named = [(1, "data"), (2, "data"), (3, "note"), (4, "position"), (5, "recordedtime")];
    for (at, answer) in answers.iter().enumerate() {
        match (named.iter().find(|(named, _)| *named == at), answer) {
            (Some((_, what)), Some(answer)) => assert!(answer.contains(what), "{at}: {answer}"),
            (None, Some(answer)) => assert!(at == 7 && answer.starts_with(IS_MISSING), "{at}: {answer}"),
            (None, None) => assert_ne!(at, 7),
            (Some(_), None) => panic!("{at} is said to be as it was"),
        }
    }
    // Writing again fills the gap and changes nothing that is there.
    put(&remote, &documents).await;
    let answers = remote.check_documents(&documents).await.expect("answers");
    let differing: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_some()).collect();
    assert_eq!(differing, [1, 2, 3, 4, 5]);
}

async fn log(remote: &CosmosRemote) -> LogId {
    let record = LogRecord { id: LogId::random(), copy: false, home: remote.region() };
    remote.make_log(&LogName::default(), record).await.expect("a log can be made").id
}

fn hash(sequence: u64) -> Hash {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&sequence.to_le_bytes());
    Hash(hash)
}

fn frame(log: LogId, sequence: u64, bytes: Bytes) -> Commit {
    let previous = sequence.checked_sub(1).map_or(Hash::ZERO, hash);
    let (id, first) = (FrameId::random(), Position(sequence));
    let header = bytes.slice(..bytes.len().min(precedent_core::frame::HEADER_BYTES));
    Commit { log, sequence, id, first, count: 1, hash: hash(sequence), previous, header, bytes }
}

#[track_caller]
fn assert_committed(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Committed), "{outcome:?}");
}

fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| step()).collect::<Vec<_>>().into()
}

/// What a frame of so many events is like to the service: 500 bytes an event that cannot be compressed.
fn events(count: usize) -> Bytes {
    noise(500 * count)
}

/// The charges of the emulator follow a simple model: they are no price list, but they grow when an operation takes more
/// requests. In a transaction it charges each item the same, however long, and for a read of what is not there nothing.
#[tokio::test]
async fn no_operation_costs_more_request_units_than_it_did() {
    let emulator = emulator(&Container::default());
    let remote = open(&emulator, Vec::new()).await;
    let mut before = 0.0;
    let mut table: Vec<(&str, f64, f64)> = Vec::new();
    let mut cost = || {
        let used = remote.request_units().used();
        used - std::mem::replace(&mut before, used)
    };
    table.push(("opening", cost(), 1.0));
    let log = log(&remote).await;
    table.push(("making a log", cost(), 15.9));

    for (count, commit, documents) in [
        (1, "append of 1: commit", "append of 1: documents"),
        (100, "append of 100: commit", "append of 100: documents"),
    ] {
        // The first frames of the log; the cost of an anchor is the next bucket's.
        let sequence = if count == 1 { 0 } else { 1 };
        cost();
        assert_committed(&remote.commit(&frame(log, sequence, events(count))).await);
        table.push((commit, cost(), 3.72));
        let of_frame: Vec<Document> = (0..count as u64)
            .map(|i| {
                let data = json!({"n": i + 100, "text": "x".repeat(400)});
                document(
                    log,
                    sequence * 100 + i,
                    event(i + 100, "ai.tool.called").stream("run/1").json(&data),
                )
            })
            .collect();
        put(&remote, &of_frame).await;
        table.push((documents, cost(), if count == 1 { 10.0 } else { 124.0 }));
        if count == 1 {
            put(&remote, &of_frame).await;
            table.push(("a document that is there", cost(), 1.0));
        }
    }
    assert!(!remote.has_frame(log, 2).await.expect("it answers"));
    table.push(("tail check", cost(), 0.0));
    assert_eq!(remote.frames(log, 1, 1).await.expect("it answers").len(), 1);
    table.push(("the frame of one event", cost(), 1.0));

    let bytes = 50_000;
    for sequence in 2..23 {
        assert_committed(&remote.commit(&frame(log, sequence, noise(bytes))).await);
    }
    cost();
    let frames = remote.frames(log, 2, 1 << 20).await.expect("it answers");
    let read: usize = frames.iter().map(|frame| frame.bytes.as_ref().expect("undamaged").len()).sum();
    assert!((1 << 20..(1 << 20) + bytes).contains(&read));
    table.push(("catching up, a MB", cost() / read as f64 * 1e6, 5.71));

    for (what, units, at_most) in &table {
        println!("{what:<24} {units:>8.2} RU, at most {at_most:.2}");
    }
    for (what, units, at_most) in table {
        assert!(units > 0.0 || what == "tail check", "{what}: nothing was counted");
        assert!(units <= at_most * 1.02, "{what}: {units:.2} RU, it was {at_most:.2}");
    }
}

#[tokio::test]
async fn whatever_is_asked_to_be_tried_again_is() {
    let operations = [
        Operation::ReadItem,
        Operation::CreateItem,
        Operation::ReplaceItem,
        Operation::QueryItem,
        Operation::BatchItem,
    ];
    for (status, substatus) in [(449, 0), (410, 1002), (429, 3200), (503, 0)] {
        let emulator = emulator(&Container::default());
        let rules: Vec<_> = operations
            .into_iter()
            .enumerate()
            .map(|(i, operation)| answer(&format!("rule {i}"), operation, status, substatus, 1))
            .collect();
        let remote = open(&emulator, rules.clone()).await;
        let name = LogName::default();
        let record = LogRecord { id: LogId::random(), copy: true, home: remote.region() };
        let log = remote.make_log(&name, record).await.expect("made").id;
        for sequence in 0..6 {
            assert_committed(&remote.commit(&frame(log, sequence, noise(100))).await);
        }
        let frames = remote.frames(log, 0, 1 << 20).await.expect("read");
        let numbers: Vec<u64> = frames.iter().map(|frame| frame.sequence).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "{status}: each of them once");
        remote.promote(&name, log).await.expect("promoted");
        assert!(!remote.log(&name).await.expect("it answers").expect("there").copy);
        assert_eq!(remote.logs().await.expect("listed"), [name]);
        let register = "cursors/a".parse().expect("a name");
        for (revision, expected) in [(1, ExpectedRegister::Absent), (2, ExpectedRegister::Revision(1))] {
            let set = remote.set_register(&register, expected, Bytes::from_static(b"x")).await;
            assert_eq!(set.expect("as expected").revision, revision);
        }
        remote.add_documented(log, &FrameSet::before(2)).await.expect("set");
        remote.add_documented(log, &FrameSet::before(3)).await.expect("raised");
        for rule in rules {
            assert_eq!(rule.hit_count(), 1, "{status}: {} was answered so", rule.id());
        }
    }
}

#[tokio::test]
async fn each_place_that_replaces_or_queries_tries_again() {
    for (status, substatus) in [(449, 0), (410, 1002)] {
        let emulator = emulator(&Container::default());
        let plain = open(&emulator, Vec::new()).await;
        let name = LogName::default();
        let record = LogRecord { id: LogId::random(), copy: true, home: plain.region() };
        let log = plain.make_log(&name, record).await.expect("made").id;
        assert_committed(&plain.commit(&frame(log, 0, noise(100))).await);
        let register = "cursors/a".parse().expect("a name");
        plain.set_register(&register, ExpectedRegister::Absent, Bytes::new()).await.expect("set");
        plain.add_documented(log, &FrameSet::before(1)).await.expect("set");

        let rule = |operation| answer("again", operation, status, substatus, 2);
        let replaces = || rule(Operation::ReplaceItem);
        let remote = open(&emulator, vec![replaces()]).await;
        remote.promote(&name, log).await.expect("promoted");
        let remote = open(&emulator, vec![replaces()]).await;
        let expected = ExpectedRegister::Revision(1);
        remote.set_register(&register, expected, Bytes::new()).await.expect("set");
        let remote = open(&emulator, vec![replaces()]).await;
        remote.add_documented(log, &FrameSet::before(2)).await.expect("raised");
        let queries = || rule(Operation::QueryItem);
        let remote = open(&emulator, vec![queries()]).await;
        assert_eq!(remote.logs().await.expect("listed"), [name]);
        let remote = open(&emulator, vec![queries()]).await;
        assert_eq!(remote.frames(log, 0, 1).await.expect("read").len(), 1);
    }
}

#[tokio::test]
async fn a_split_under_load_loses_nothing_and_repeats_nothing() {
    let emulator = emulator(&Container { throughput: 10_000, ..Container::default() });
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    for sequence in 0..40 {
        if sequence % 10 == 5 {
            emulator.split(DATABASE, CONTAINER, sequence as u32 / 10, Duration::from_millis(100));
        }
        let commit = frame(log, sequence, noise(100));
        let of_frame = [document(log, sequence, event(sequence, "ai.tool.called").data("{}"))];
        let (committed, documents, frames) = tokio::join!(
            remote.commit(&commit),
            remote.put_documents(&of_frame),
            remote.frames(log, 0, 1 << 20)
        );
        assert_committed(&committed);
        documents.into_iter().for_each(|answer| answer.expect("written"));
        let numbers: Vec<u64> = frames.expect("read").iter().map(|frame| frame.sequence).collect();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() as u64 >= sequence);
    }
    assert_eq!(remote.frames(log, 0, 1 << 20).await.expect("read").len(), 40);
}

#[tokio::test]
async fn who_is_throttled_beyond_the_bound_is_told_when_to_come_again() {
    let emulator = emulator(&Container::default());
    let quiet = open(&emulator, Vec::new()).await;
    let log = log(&quiet).await;
    assert_committed(&quiet.commit(&frame(log, 0, noise(100))).await);
    for (status, substatus, kind) in [(429, 3200, ErrorKind::Overloaded), (503, 0, ErrorKind::Unavailable)] {
        let operations = [Operation::BatchItem, Operation::ReadItem, Operation::QueryItem];
        let rules = operations.into_iter().enumerate();
        let rules: Vec<_> =
            rules.map(|(i, op)| answer(&format!("rule {i}"), op, status, substatus, u32::MAX)).collect();
        let remote = open(&emulator, rules.clone()).await;
        let mut errors = vec![
            remote.has_frame(log, 0).await.expect_err("no answer"),
            remote.frames(log, 0, 1).await.expect_err("no answer"),
        ];
        match remote.commit(&frame(log, 1, noise(100))).await {
            Outcome::Refused(error) => errors.push(error),
            // Whether a 503 was sent before or after the transaction, nobody says.
            Outcome::Unsettled(error) if status == 503 => assert!(error.may_have_been_written()),
            other => panic!("{status}: {other:?}"),
        }
        for error in errors {
            assert_eq!(error.kind(), kind, "{error:?}");
            assert_eq!(error.retry_after_secs().is_some(), status == 429, "{error:?}");
        }
        for rule in rules {
            assert!((1..=32).contains(&rule.hit_count()), "{}: {} tries", rule.id(), rule.hit_count());
        }
    }
    assert!(!quiet.has_frame(log, 1).await.expect("it answers"), "nothing was written");
}

#[tokio::test]
async fn a_gap_is_never_taken_for_the_end() {
    let emulator = emulator(&Container { partitions: 3, ..Container::default() });
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    for sequence in 0..18 {
        assert_committed(&remote.commit(&frame(log, sequence, noise(100))).await);
    }
    let container = plainly(&emulator).await;
    // From the middle of one bucket to the middle of another, with whole buckets and their links in between.
    for sequence in 2..15_u64 {
        let partition = format!("~log/{log}/{}", sequence >> BUCKET_BITS);
        for row in rows(&container, "SELECT * FROM c", FeedScope::partition(partition.clone())).await {
            let id = row["id"].as_str().expect("an id");
            let is_of_frame = row["sequence"].as_u64() == Some(sequence);
            if is_of_frame || (row["sequence"].is_null() && (4..12).contains(&sequence)) {
                container.delete_item(partition.clone(), id, None).await.expect("deleted");
            }
        }
    }
    let mut numbers: Vec<u64> = Vec::new();
    loop {
        let next = numbers.last().map_or(0, |last| last + 1);
        let frames = remote.frames(log, next, 1 << 20).await.expect("read");
        if frames.is_empty() {
            break;
        }
        numbers.extend(frames.iter().map(|frame| frame.sequence));
    }
    assert_eq!(numbers, [0, 1, 15, 16, 17]);
    assert!(
        remote.frames(LogId::random(), 0, 1).await.expect("read").is_empty(),
        "another log's are not ours"
    );
}

#[tokio::test]
async fn what_is_committed_while_the_end_of_a_bucket_is_read_is_no_gap() {
    let emulator = emulator(&Container::default());
    let writer = open(&emulator, Vec::new()).await;
    let log = log(&writer).await;
    let last_of_bucket = (1 << BUCKET_BITS) - 1;
    for sequence in 0..last_of_bucket {
        assert_committed(&writer.commit(&frame(log, sequence, noise(100))).await);
    }
    let slow = delay("slow queries", Operation::QueryItem, Duration::from_millis(500));
    let reader = open(&emulator, vec![slow.clone()]).await;
    let before = slow.hit_count();
    let read = reader.frames(log, last_of_bucket, 1 << 20);
    let commit = async {
        // The bucket has been read, and whether there is anything behind it is being asked.
        while slow.hit_count() < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for sequence in last_of_bucket..last_of_bucket + 3 {
            assert_committed(&writer.commit(&frame(log, sequence, noise(100))).await);
        }
    };
    let (frames, ()) = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(read, commit) })
        .await
        .expect("both end");
    let numbers: Vec<u64> = frames.expect("read").iter().map(|frame| frame.sequence).collect();
    assert_eq!(numbers.first(), Some(&last_of_bucket), "{numbers:?}");
}

#[tokio::test]
async fn a_container_that_deletes_items_by_age_is_no_store() {
    let emulator = emulator(&Container::default());
    let container = plainly(&emulator).await;
    let answer = container.read(None).await.expect("it is there");
    let mut properties: ContainerProperties = answer.into_model().expect("a container");
    properties.default_ttl = TimeToLive::Seconds(3600);
    container.replace(properties, None).await.expect("replaced");
    let error = try_open(&emulator, Vec::new()).await.expect_err("events would vanish");
    assert_eq!(error.kind(), ErrorKind::NotAStore, "{error:?}");
    assert!(error.message().contains("3600 seconds") && error.message().contains("time to live"), "{error}");
}

#[tokio::test]
async fn a_handle_to_a_container_that_was_made_again_writes_nothing_into_it() {
    let emulator = emulator(&Container::default());
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    assert_committed(&remote.commit(&frame(log, 0, noise(100))).await);
    let client = emulator.client().await;
    plainly(&emulator).await.delete(None).await.expect("deleted");
    emulator.create_container(DATABASE, CONTAINER, &Container::default());
    drop(client);
    for sequence in [1, 4] {
        let outcome = remote.commit(&frame(log, sequence, noise(100))).await;
        assert!(matches!(outcome, Outcome::Gone(_)), "{sequence}: {outcome:?}");
    }
    let again = open(&emulator, Vec::new()).await;
    assert!(again.logs().await.expect("it answers").is_empty());
    assert!(!again.has_frame(log, 1).await.expect("it answers"), "nothing was written");
}

#[tokio::test]
async fn a_damaged_row_or_part_is_named_and_its_header_kept() {
    let emulator = emulator(&Container { throughput: 100_000, ..Container::default() });
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    // The last one has parts.
    let frames: Vec<Commit> =
        [400, 400, 400, 4_000_000].into_iter().zip(0..).map(|(len, at)| frame(log, at, noise(len))).collect();
    for frame in &frames {
        assert_committed(&remote.commit(frame).await);
    }
    let container = plainly(&emulator).await;
    let bucket = format!("~log/{log}/0");
    let found =
        rows(&container, "SELECT * FROM c WHERE c.sequence >= 0", FeedScope::partition(bucket.clone())).await;
    let change = async |sequence: u64, name: &str, value: Value| {
        let row = found.iter().find(|row| row["sequence"].as_u64() == Some(sequence)).expect("a frame");
        let mut row = row.clone();
        row[name] = value;
        let id = row["id"].as_str().expect("an id").to_owned();
        container.replace_item(bucket.clone(), &id, &row, None).await.expect("replaced");
    };
    change(0, "body", "AAAA".into()).await;
    change(1, "crc", 7.into()).await;
    let parts = format!("~part/{log}/{}", frames[3].id);
    let part = rows(&container, "SELECT * FROM c", FeedScope::partition(parts.clone())).await.remove(1);
    container.delete_item(parts, part["id"].as_str().expect("an id"), None).await.expect("deleted");

    let read = remote.frames(log, 0, 16 << 20).await.expect("what is there is read");
    assert_eq!(read.len(), 4);
    for (stored, frame) in read.iter().zip(&frames) {
        assert_eq!(stored.header.as_ref(), Some(&frame.header), "its header is there");
        match (&stored.bytes, stored.sequence) {
            (Ok(bytes), 2) => assert_eq!(bytes, &frame.bytes),
            (Err(error), 0 | 1 | 3) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
                assert!(error.message().contains(&bucket), "the place is named: {error}");
                assert_eq!(error.message().contains("~part/"), stored.sequence == 3, "{error}");
            }
            (other, sequence) => panic!("{sequence}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_examines_a_container_hears_its_throughput_and_region() {
    let emulator = emulator(&Container { throughput: 700, ..Container::default() });
    let remote = open(&emulator, Vec::new()).await;
    let log = log(&remote).await;
    let findings = remote.examine(&LogName::default(), log).await.expect("it answers");
    let says = |code: &str, what: &str| {
        let message = findings.iter().find(|finding| finding.code == code).map(|finding| &finding.message);
        assert!(message.is_some_and(|message| message.contains(what)), "{code}: {message:?}");
    };
    says("cosmos_throughput", "provisioned are 700 request units");
    says("cosmos_region", "East US");
    says("cosmos_partition_key", "/eventType");
    let is_snake_case = |code: &str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(findings.iter().all(|finding| is_snake_case(finding.code)), "{findings:?}");
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_is_named_and_nobody_trusts_it() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a configuration");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            assert!(acceptor.accept(stream).await.is_err(), "nobody may trust it");
        }
    });
    let settings =
        Settings::new("cosmos://account/db/c", |name| (name == KEY_VARIABLE).then(|| KEY.to_owned()));
    let endpoint = format!("https://127.0.0.1:{port}/").parse().expect("a URL");
    let settings = Settings { endpoint, ..settings.expect("a URL") };
    let error = CosmosRemote::connect(settings, Options::default()).await.expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("127.0.0.1") && error.message().contains("certificate"), "{error}");
    assert!(!format!("{error:?}").contains(KEY));
    assert!(!server.is_finished());
    server.abort();
}

//! Events as entities: written, compared, and found by whoever asks the table.

use bytes::Bytes;
use precedent_azure::remote::{Document, Remote};
use precedent_azure::table::client::{Query, Write};
use precedent_azure::table::entity::{Entity, Row, Value};
use precedent_azure::table::{Options, TableRemote, keys};
use precedent_core::{Event, EventBuilder, LogId, LogName, Position, RecordedEvent, Time, Version};

use crate::{all_rows, azurite, noise};

fn document(log: LogId, position: u64, version: u64, event: EventBuilder) -> Document {
    let event = event.build().expect("an event");
    Document {
        name: LogName::default(),
        event: RecordedEvent {
            log,
            position: Position(position),
            version: event.stream().map(|_| Version(version)),
            recorded: Time::parse("2026-11-22T10:00:00.000001Z").expect("a time"),
            event,
            erased: false,
            entry: Bytes::new(),
        },
        inline_bytes_max: 256 << 10,
    }
}

fn event(number: u64, event_type: &str) -> EventBuilder {
    Event::builder("https://loans.example", format!("event-{number}"), event_type)
}

async fn put(remote: &TableRemote, documents: &[Document]) {
    let answers = remote.put_documents(documents).await;
    assert_eq!(answers.len(), documents.len());
    for (answer, document) in answers.into_iter().zip(documents) {
        answer.unwrap_or_else(|error| panic!("{}: {error}", document.event.position));
    }
}

async fn agree(remote: &TableRemote, documents: &[Document]) {
    let answers = remote.check_documents(documents).await.expect("answers");
    assert_eq!(answers, vec![None; documents.len()]);
}

#[tokio::test]
async fn events_are_there_by_type_and_by_stream_for_whoever_asks_the_table() {
    let remote = azurite!().fresh().await;
    let log = LogId::random();
    let mut documents: Vec<Document> = (0..1234)
        .map(|i| {
            let event_type = if i % 6 == 5 { "ai.decision.made" } else { "ai.tool.called" };
            let event =
                event(i, event_type).stream(format!("run/{}", i % 2)).json(&serde_json::json!({"n": i}));
            document(log, i, i / 2, event)
        })
        .collect();
    put(&remote, &documents[..1000]).await;
    // Some are there already, some are not.
    put(&remote, &documents[900..]).await;
    agree(&remote, &documents).await;

    let read = async |filter: &str| {
        let query = Query { filter: filter.to_owned(), ..Query::default() };
        let (mut rows, mut next) = (Vec::new(), None);
        loop {
            let page = remote.client().query(&query, next.as_ref()).await.expect("a page");
            rows.extend(page.rows);
            next = page.next;
            if next.is_none() {
                return rows;
            }
        }
    };
    let decisions = read("PartitionKey eq 'type:ai.decision.made' and position ge 600L").await;
    let positions: Vec<u64> = decisions.iter().map(|row| row.number("position").expect("a number")).collect();
    assert_eq!(positions, (600..1234).filter(|i| i % 6 == 5).collect::<Vec<_>>());
    assert_eq!(decisions[0].text("data").expect("text"), "{\"n\":605}");
    let run = read("PartitionKey eq 'stream:run=2F1'").await;
    let versions: Vec<u64> = run.iter().map(|row| row.number("version").expect("a number")).collect();
    assert_eq!(versions, (0..617).collect::<Vec<_>>());
    let recent = read("recordedtime ge datetime'2026-11-22T10:00:00Z' and eventId eq 'event-7'").await;
    assert_eq!(recent.len(), 2, "by type and by stream");

    // Twice the same in one call is no mistake.
    documents.truncate(3);
    documents.push(documents[0].clone());
    put(&remote, &documents).await;
}

#[tokio::test]
async fn whatever_a_type_or_stream_is_called_its_events_are_kept_apart() {
    let remote = azurite!().fresh().await;
    let log = LogId::random();
    let mut names: Vec<String> = [
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a%2Fb",
        "a=2Fb",
        "it's",
        "a''b",
        "a b",
        "a+b",
        "a&b",
        "ü",
        "日本語",
        "🦀",
        "\u{2028}",
        "A",
        "a",
        "a,b",
        "a\"b",
        "--a",
        "a(b)",
    ]
    .map(str::to_owned)
    .into();
    names.extend([
        "x".repeat(512),
        format!("{}y", "x".repeat(511)),
        "/".repeat(512),
        "日".repeat(170),
        "🦀".repeat(128),
    ]);
    let documents: Vec<Document> = names
        .iter()
        .enumerate()
        .map(|(i, name)| document(log, i as u64, 0, event(i as u64, name).stream(name).data(name.clone())))
        .collect();
    put(&remote, &documents).await;
    agree(&remote, &documents).await;
    let rows = all_rows(&remote).await;
    assert_eq!(rows.len(), 2 * names.len());
    for (name, document) in names.iter().zip(&documents) {
        let key = keys::by_stream(&document.name, log, name, Version(0));
        let row =
            remote.client().get(&key, &[]).await.expect("an answer").unwrap_or_else(|| panic!("{name}"));
        assert_eq!(row.text("stream").expect("text"), name);
        assert_eq!(row.text("eventType").expect("text"), name);
    }
}

#[tokio::test]
async fn data_of_every_kind_is_readable_or_named() {
    let options = Options { inline_bytes: Some(70_000), ..Options::default() };
    let remote = azurite!().fresh_with(options, Vec::new()).await;
    let log = LogId::random();
    let data: [Bytes; 8] = [
        Bytes::new(),
        Bytes::from_static("{\"text\": \"ü🦀\",\r\n\t\"n\": 1.0}".as_bytes()),
        Bytes::from_static(b"\0\x01\xff"),
        Bytes::from(vec![b'x'; 32_768]),
        Bytes::from(vec![b'x'; 32_769]),
        noise(65_536, 1),
        noise(65_537, 2),
        Bytes::from(vec![b'x'; 1 << 20]),
    ];
    let mut documents: Vec<Document> = data
        .iter()
        .enumerate()
        .map(|(i, data)| {
            document(log, i as u64, i as u64, event(i as u64, "t.t").stream("s").data(data.clone()))
        })
        .collect();
    documents.push(document(log, 8, 0, event(8, "t.t")));
    let full = event(9, "t.t")
        .time("2026-11-22T10:00:00.123456789+05:30")
        .datacontenttype("text/plain")
        .dataschema("https://example.com/schema")
        .attribute("correlationid", "c")
        .attribute("flag", true)
        .attribute("number", 7)
        .tags((0..100).map(|i| format!("key{i}={}", ",".repeat(200)).parse().expect("a tag")));
    documents.push(document(log, 9, 0, full));
    documents.push(document(log, 10, 0, event(10, "t.t").time("1999-12-31T23:59:59.5-01:00")));
    put(&remote, &documents).await;
    agree(&remote, &documents).await;
    let row = async |position: u64| {
        let key = keys::by_type(&LogName::default(), log, "t.t", Position(position));
        remote.client().get(&key, &[]).await.expect("an answer").expect("there")
    };
    assert_eq!(row(1).await.text("data").expect("text").as_bytes(), data[1]);
    assert_eq!(row(2).await.binary("data").expect("binary"), data[2]);
    assert_eq!(row(3).await.text("data").expect("text").as_bytes(), data[3]);
    assert_eq!(row(5).await.binary("data").expect("binary"), data[5]);
    for position in [6, 7] {
        let row = row(position).await;
        assert_eq!(row.text("dataref").expect("text"), format!("precedent:main/{position}"));
        assert_eq!(row.number("databytes").expect("a number"), data[position as usize].len() as u64);
        assert_eq!(row.text("excerpt").is_ok(), position == 7);
        row.text("data").expect_err("it is not there");
    }
    assert!(!row(8).await.names().any(|name| name.starts_with("data") || name == "stream"));
}

/// The same entity with one property changed, added or, without a value, taken away.
fn changed(row: &Row, name: &str, value: Option<Value>) -> Entity {
    let mut entity = Entity::new(row.key.clone());
    for other in row.names().filter(|other| *other != name) {
        let kept = match other {
            "position" | "version" | "databytes" => Value::Int64(row.number(other).expect("a number") as i64),
            "recordedtime" => Value::DateTime(row.text(other).expect("a time").to_owned()),
            _ => Value::from(row.text(other).expect("text")),
        };
        entity = entity.with(other.to_owned(), kept);
    }
    match value {
        Some(value) => entity.with(name.to_owned(), value),
        None => entity,
    }
}

#[tokio::test]
async fn a_document_changed_behind_our_back_is_named() {
    let remote = azurite!().fresh().await;
    let log = LogId::random();
    let documents: Vec<Document> = (0..12)
        .map(|i| {
            document(log, i, i, event(i, "ai.decision.made").stream("run/1").data("{\"approve\":false}"))
        })
        .collect();
    put(&remote, &documents).await;
    let key = |i: u64| keys::by_type(&LogName::default(), log, "ai.decision.made", Position(i));
    let change = async |i: u64, name: &str, value: Option<Value>| {
        let row = remote.client().get(&key(i), &[]).await.expect("an answer").expect("there");
        let etag = row.etag.clone().expect("an ETag");
        let written = remote.client().replace(&changed(&row, name, value), &etag).await.expect("replaced");
        assert!(matches!(written.outcome, Write::Done(Some(_))));
    };
    change(1, "data", Some("{\"approve\":true}".into())).await;
    change(2, "data", None).await;
    change(3, "note", Some("by hand".into())).await;
    // The same digits, as text.
    change(4, "position", Some("4".into())).await;
    change(5, "recordedtime", Some(Value::DateTime("2026-11-22T10:00:00.000002Z".into()))).await;
    change(6, "eventType", Some("ai.decision.undone".into())).await;
    // What does not change it: the same written again.
    change(7, "eventId", Some("event-7".into())).await;
    remote.client().delete(&key(8)).await.expect("deleted");
    let by_stream = keys::by_stream(&LogName::default(), log, "run/1", Version(9));
    remote.client().delete(&by_stream).await.expect("deleted");
    let answers = remote.check_documents(&documents).await.expect("answers");
    let expected = [
        (1, "has another data, at partition type:ai.decision.made"),
        (2, "has no data"),
        (3, "has a property note that no event has"),
        (4, "has another position"),
        (5, "has another recordedtime"),
        (6, "has another eventType"),
        (8, "is missing, at partition type:ai.decision.made"),
        (9, "is missing, at partition stream:run=2F1"),
    ];
    for (i, answer) in answers.iter().enumerate() {
        match (expected.iter().find(|(at, _)| *at == i), answer) {
            (None, None) => {}
            (Some((_, expected)), Some(answer)) => assert!(answer.starts_with(expected), "{i}: {answer}"),
            other => panic!("{i}: {other:?}"),
        }
    }
    // Writing again fills the gaps and changes nothing that is there.
    put(&remote, &documents).await;
    let answers = remote.check_documents(&documents).await.expect("answers");
    let differing: Vec<usize> = (0..answers.len()).filter(|i| answers[*i].is_some()).collect();
    assert_eq!(differing, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_document_that_cannot_be_written_fails_alone() {
    let remote = azurite!().fresh().await;
    let log = LogId::random();
    let mut documents: Vec<Document> =
        (0..3).map(|i| document(log, i, i, event(i, "t").stream("s"))).collect();
    documents[1].event.position = Position(u64::MAX);
    let answers = remote.put_documents(&documents).await;
    assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok(), "{answers:?}");
    agree(&remote, &[documents[0].clone(), documents[2].clone()]).await;
    let settings = azurite!().settings("missing", Options::default());
    let nowhere = TableRemote::new(&settings).expect("a remote");
    for answer in nowhere.put_documents(&documents[..1]).await {
        let error = answer.expect_err("there is no table");
        assert!(error.message().contains("precedent provision table up"), "{error}");
    }
}

//! Promise 1: durable before it answers; and what was sent is what is kept.

use super::support::*;
use crate::entry::Entry;
use crate::error::ErrorKind;
use crate::event::{AttributeValue, Event};
use crate::ids::{Position, Time, Version};
use crate::sequencer::CLOCK_TOLERANCE_MICROS;
use crate::store::{Append, Read, Status};
use crate::tree::leaf_hash;

tests! {
    [1, 3] => an_answer_has_a_receipt_for_every_event_in_the_order_of_the_append,
    [1] => every_attribute_comes_back_as_it_was_sent,
    [1] => data_comes_back_byte_for_byte,
    [1, 10] => data_of_the_largest_size_comes_back_byte_for_byte,
    [1] => the_entry_of_an_event_says_what_was_read,
    [1] => acknowledged_events_are_there_after_reopening,
    [1] => acknowledged_events_survive_the_death_of_the_process,
    [1] => the_store_says_where_it_is_without_saying_a_secret,
    [3] => recorded_times_never_go_backwards_even_if_the_clock_does,
    [10] => a_clock_more_than_five_minutes_behind_the_log_is_refused,
}

fn an_answer_has_a_receipt_for_every_event_in_the_order_of_the_append(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let first = log.append(Append::new([on("a", 0), event(1), on("b", 2), on("a", 3)]))?;
    let new = Status::Recorded;
    assert_eq!(receipts(&first), [(0, Some(0), new), (1, None, new), (2, Some(0), new), (3, Some(1), new)]);
    assert!(first.size >= 4, "the size {} includes the events of the append", first.size);
    let second = log.append(on("b", 4))?;
    assert_eq!(receipts(&second), [(4, Some(1), new)]);
    assert_eq!(log.size()?, 5);
    Ok(())
}

/// An event that has everything an event can have.
fn full(id: &str) -> Event {
    let text = "naïve ✓ \u{1f600} \"quoted\" \\ , % = / ~ <b>";
    built(
        Event::builder(
            format!("https://example.test/ä?x=1&y=%20#{id}"),
            format!("{id} {text}"),
            "Type.of/ours+x",
        )
        .stream(format!("stream {text}"))
        .time("2026-11-22T10:00:00.123456789012+05:30")
        .datacontenttype("application/vnd.x+json; charset=\"utf-8\"")
        .dataschema("urn:schema:1#frag")
        .tag("key", "value=with=equals")
        .tag("kéy with space", "a,b%2C")
        .tag("key", "value=with=equals")
        .attribute("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .attribute("tracestate", "a=1,b=2")
        .attribute("correlationid", "c")
        .attribute("yes", true)
        .attribute("no", false)
        .attribute("least", i32::MIN)
        .attribute("most", i32::MAX)
        .attribute("empty", "")
        .attribute("text", text)
        .attribute("looksnumeric", "007")
        .attribute("position", "the producer's own")
        .attribute("producerversion", AttributeValue::Integer(3))
        .attribute("precedentlog", "not ours")
        .attribute("z".repeat(20), "x".repeat(3_000))
        .data(r#"{"b":1.0,"a":1e400,"a":"\u00e9"}"#),
    )
}

fn every_attribute_comes_back_as_it_was_sent(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let sent = [
        full("1"),
        event("bare"),
        on("s", "with a stream"),
        built(builder("typed").datacontenttype("text/plain").data("\"quoted\"")),
        built(builder("lower case z").time("2026-11-22t10:00:00z")),
        built(builder("early").time("0001-01-01T00:00:00Z")),
    ];
    for event in &sent {
        log.append(event.clone())?;
    }
    let read = log.all()?;
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(read.event, *sent);
        assert!(!read.erased, "nothing was erased");
    }
    let backward = log.read(Read { direction: crate::Direction::Backward, ..Read::default() })?;
    assert!(backward.iter().rev().eq(&read), "both directions return the same");
    Ok(())
}

fn data_comes_back_byte_for_byte(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut all: Vec<Option<Vec<u8>>> = vec![None];
    all.extend(
        [
            &b""[..],
            b" ",
            b"\n",
            b"null",
            b"\0",
            b"{\"n\":1.10,\"big\":123456789012345678901234567890.5e-7,\"a\":1,\"a\":2}",
            b" { \"spaced\" : [ ] } ",
            b"{\r\n}",
            b"{\"unpaired\":\"\\ud800\"}",
            b"{not json",
            b"\xff\xfe\x00",
            b"\xef\xbb\xbf{}",
            &[0; 512],
            &[0; 4_096],
            &[0; 70_000],
            &[0xff; 5_000],
            &every_byte,
            &every_byte.repeat(300),
            b"PRF1PFC1\xf1END",
        ]
        .map(|data| Some(data.to_vec())),
    );
    let with = |id: String, data: &Option<Vec<u8>>, media_type: Option<&str>| {
        let mut event = builder(id);
        if let Some(data) = data {
            event = event.data(data.clone());
        }
        if let Some(media_type) = media_type {
            event = event.datacontenttype(media_type);
        }
        built(event)
    };
    let mut sent = Vec::new();
    for (m, media_type) in
        [None, Some("application/json"), Some("text/plain"), Some("x/y")].iter().enumerate()
    {
        sent.extend(all.iter().enumerate().map(|(i, data)| with(format!("{m}/{i}"), data, *media_type)));
    }
    // One by one, and then the same data once more in one batch.
    for event in &sent {
        log.append(event.clone())?;
    }
    let again: Vec<Event> =
        all.iter().enumerate().map(|(i, data)| with(format!("again/{i}"), data, None)).collect();
    log.append(Append::new(again.clone()))?;
    sent.extend(again);
    for (read, sent) in log.all()?.iter().zip(&sent) {
        assert_eq!(read.event.data(), sent.data(), "event {}", sent.id());
    }
    assert_eq!(log.size()?, sent.len() as u64);
    Ok(())
}

fn data_of_the_largest_size_comes_back_byte_for_byte(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let len = log.store().limits().data_bytes_max as usize;
    let mut chance = scene.chance();
    let random = chance.bytes(len);
    for (id, data) in [("zeros", vec![0; len].into()), ("random", random.clone()), ("repeated", random)] {
        let sent = built(builder(id).datacontenttype("application/octet-stream").data(data));
        let at = log.append(sent.clone())?.events[0].position;
        let after = at.0.checked_sub(1).map(Position);
        let read = log.read(Read { after, limit: Some(1), ..Read::default() })?;
        assert!(read[0].event == sent, "the data of '{id}' differs");
    }
    Ok(())
}

fn the_entry_of_an_event_says_what_was_read(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let person = built(builder("p").attribute("dataperson", "surrogate-1").data("x").stream("s"));
    log.append(Append::new([full("1"), on("s", 2), event(3), person]))?;
    let head = log.head()?;
    let mut last_in_s = None;
    for read in log.all()? {
        let entry = Entry::decode(&read.entry)?;
        assert!(entry.is_canonical(&read.entry), "an entry has one encoding");
        assert_eq!(Some(entry.log), head.log);
        assert_eq!((entry.log, entry.position, entry.version), (read.log, read.position, read.version));
        assert_eq!(entry.recorded, read.recorded);
        let mut envelope = read.event.clone();
        envelope.data = None;
        assert_eq!(entry.event, envelope, "the envelope is in the entry, the data is not");
        let lengths: Vec<u64> = entry.parts.iter().map(|p| p.length).collect();
        let expected: Vec<u64> = read.event.data().iter().map(|d| d.len() as u64).collect();
        assert_eq!(lengths, expected, "the entry commits to the data");
        assert_eq!(read.leaf(), leaf_hash(&read.entry));
        if read.event.stream() == Some("s") {
            assert_eq!(entry.previous, last_in_s, "an entry names the one before it in its stream");
            last_in_s = Some(read.leaf());
        }
        if read.event.id() == "p" {
            assert_eq!(entry.parts[0].scope.as_deref(), Some("surrogate-1"));
            assert_eq!(read.version, Some(Version(1)));
        }
    }
    Ok(())
}

fn acknowledged_events_are_there_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    kept(&place, |place| place.reopen())
}

fn acknowledged_events_survive_the_death_of_the_process(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    kept(&place, |place| Ok(scene.handle(place.fixture.crash()?)))
}

/// Three times: append on several threads, end the handle, and find everything that was acknowledged.
fn kept<'a>(place: &Place<'a>, again: impl Fn(&Place<'a>) -> Result<Handle<'a>, super::Unable>) -> Outcome {
    let mut acknowledged = Vec::new();
    let mut before = Vec::new();
    for round in 0..3 {
        let log = place.main();
        let answers = together(4, |thread| {
            let mut mine = Vec::new();
            for i in 0..10 {
                let batch = (0..3).map(|k| {
                    let id = format!("{round}/{thread}/{i}/{k}");
                    built(builder(&id).stream(format!("s{k}")).data(vec![thread as u8; 700 * i]))
                });
                let appended = log.append(Append::new(batch))?;
                mine.extend(
                    appended
                        .events
                        .iter()
                        .enumerate()
                        .map(|(k, e)| (e.position, format!("{round}/{thread}/{i}/{k}"))),
                );
            }
            Ok(mine)
        })?;
        acknowledged.extend(answers.into_iter().flatten());
        let head = log.head()?;
        let log = again(place)?;
        assert_eq!(log.head()?, head, "the head after opening again, in round {round}");
        let events = log.all()?;
        assert_eq!(events.len(), acknowledged.len());
        for (position, id) in &acknowledged {
            assert_eq!(events[position.0 as usize].event.id(), id);
        }
        assert_eq!(events[..before.len()], before[..], "what was there before is what it was");
        assert!(log.verify(None)?.is_ok());
        before = events;
    }
    Ok(())
}

fn the_store_says_where_it_is_without_saying_a_secret(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let url = log.store().url();
    assert!(url.contains(':'), "'{url}' is a URL");
    for secret in ["AccountKey", "SharedAccess", "sig=", "password"] {
        assert!(!url.contains(secret), "the URL holds {secret}");
    }
    Ok(())
}

fn recorded_times_never_go_backwards_even_if_the_clock_does(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let noon = Time::parse("2030-01-01T12:00:00Z")?;
    let seconds = |s: i64| Time::from_micros(noon.as_micros().saturating_add_signed(s * 1_000_000));
    for (i, (clock, recorded)) in
        [(0, 0), (-60, 0), (-299, 0), (10, 10), (9, 10), (3_600, 3_600)].into_iter().enumerate()
    {
        place.fixture.set_clock(seconds(clock)?)?;
        log.append(on("s", i))?;
        let last = log.all()?.pop().map(|e| e.recorded);
        assert_eq!(last, Some(seconds(recorded)?), "with the clock at {clock} seconds");
        assert_eq!(log.head()?.recorded, last);
    }
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn a_clock_more_than_five_minutes_behind_the_log_is_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let noon = Time::parse("2030-01-01T12:00:00Z")?;
    place.fixture.set_clock(noon)?;
    log.append(event(0))?;
    let behind = Time::from_micros(noon.as_micros() - CLOCK_TOLERANCE_MICROS - 1)?;
    place.fixture.set_clock(behind)?;
    refused_naming(log.append(event(1)), ErrorKind::Clock, &[&noon.to_string(), &behind.to_string()]);
    assert_eq!(log.size()?, 1);
    place.fixture.set_clock(Time::from_micros(noon.as_micros() - CLOCK_TOLERANCE_MICROS)?)?;
    log.append(event(1))?;
    assert_eq!(log.all()?[1].recorded, noon);
    Ok(())
}

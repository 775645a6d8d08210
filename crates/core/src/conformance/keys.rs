//! Promise 5: appends are idempotent by key.

use super::Unable;
use super::support::*;
use crate::error::ErrorKind;
use crate::event::{Event, EventBuilder};
use crate::query::{Condition, Query};
use crate::store::{Append, Status};

tests! {
    [5] => an_exact_retry_answers_the_first_positions_and_records_nothing,
    [4, 5] => keys_come_before_conditions,
    [5] => an_unconditional_append_records_what_is_missing,
    [5] => a_conditional_append_of_which_some_is_there_is_refused,
    [5] => other_content_under_the_same_key_is_refused,
    [5] => a_retry_under_another_trace_is_the_same_event,
    [5] => no_data_and_empty_data_are_different_content,
    [5] => the_key_is_source_and_id_together,
    [5] => an_event_that_stands_twice_in_an_append_is_recorded_once,
    [5] => one_append_cannot_hold_two_contents_for_one_key,
    [5] => of_concurrent_identical_appends_one_records,
    [5] => of_concurrent_contents_for_one_key_one_wins,
    [5, 2] => overlapping_concurrent_batches_record_every_event_once,
    [5] => retries_are_recognised_after_reopening,
    [5] => a_retry_of_every_append_changes_nothing,
    [5] => every_log_has_keys_of_its_own,
}

const NEW: Status = Status::Recorded;
const OLD: Status = Status::Existing;

fn an_exact_retry_answers_the_first_positions_and_records_nothing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(on("s", "before"))?;
    let batch = || Append::new([on("s", 0), built(builder(1).data("x").tag("k", "v")), on("t", 2)]);
    let first = log.append(batch())?;
    log.append(on("s", "between"))?;
    let head = log.head()?;
    for _ in 0..3 {
        let again = log.append(batch())?;
        assert_eq!(receipts(&again), [(1, Some(1), OLD), (2, None, OLD), (3, Some(0), OLD)]);
        assert!(again.events.iter().zip(&first.events).all(|(a, b)| a.position == b.position));
        assert_eq!(again.size, head.size);
    }
    // A part of it, and in another order, is a retry too.
    let turned = log.append(Append::new([on("t", 2), on("s", 0)]))?;
    assert_eq!(receipts(&turned), [(3, Some(0), OLD), (1, Some(1), OLD)]);
    assert_eq!(log.head()?, head);
    Ok(())
}

fn keys_come_before_conditions(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let append = || {
        Append::new([on("s", 0), on("s", 1)])
            .when(Condition::stream_is_new("s"))
            .when(Condition::fail_if(Query::stream("s"), None))
    };
    log.append(append())?;
    log.append(on("s", "later"))?;
    assert_eq!(receipts(&log.append(append())?), [(0, Some(0), OLD), (1, Some(1), OLD)]);
    // Even conditions that never held do not turn a retry into a conflict.
    let retry = Append::new([on("s", 0)]).when(Condition::stream_at("s", 77));
    assert_eq!(receipts(&log.append(retry)?), [(0, Some(0), OLD)]);
    Ok(())
}

fn an_unconditional_append_records_what_is_missing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([on("s", 1), on("s", 3)]))?;
    let appended = log.append(Append::new((0..5).map(|i| on("s", i))))?;
    let expected =
        [(2, Some(2), NEW), (0, Some(0), OLD), (3, Some(3), NEW), (1, Some(1), OLD), (4, Some(4), NEW)];
    assert_eq!(receipts(&appended), expected);
    assert_eq!(ids(&log.all()?), ["1", "3", "0", "2", "4"]);
    Ok(())
}

fn a_conditional_append_of_which_some_is_there_is_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([on("s", 1), on("s", 3)]))?;
    let head = log.head()?;
    // Whether its condition holds or not.
    for condition in [Condition::stream_at("s", 1), Condition::stream_is_new("s")] {
        let append = Append::new((0..5).map(|i| on("s", i))).when(condition);
        let error = refused(log.append(append), ErrorKind::AlreadyExists);
        let named: Vec<_> = error.conflicts().iter().map(|c| (c.index, c.position.map(|p| p.0))).collect();
        assert_eq!(named, [(1, Some(0)), (3, Some(1))]);
    }
    assert_eq!(log.head()?, head);
    Ok(())
}

fn other_content_under_the_same_key_is_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let base = |event_type: &str| {
        Event::builder(SOURCE, "k", event_type)
            .stream("s")
            .time("2026-11-22T10:00:00Z")
            .datacontenttype("application/json")
            .dataschema("urn:x")
            .tag("a", "1")
            .tag("b", "2")
            .attribute("n", 1)
            .data("{}")
    };
    log.append(event("before"))?;
    log.append(built(base("t")))?;
    let head = log.head()?;
    let others: Vec<EventBuilder> = vec![
        base("u"),
        base("t").stream("s2"),
        base("t").time("2026-11-22T10:00:00.0Z"),
        base("t").datacontenttype("text/json"),
        base("t").dataschema("urn:y"),
        base("t").tag("c", "3"),
        base("t").attribute("n", 2),
        base("t").attribute("n", "1"),
        base("t").attribute("m", true),
        base("t").data("{ }"),
        base("t").data(""),
        Event::builder(SOURCE, "k", "t"),
    ];
    for (i, other) in others.into_iter().enumerate() {
        let append = Append::new([event(format!("new {i}")), built(other)]);
        let error = refused(log.append(append), ErrorKind::AlreadyExists);
        let named: Vec<_> = error.conflicts().iter().map(|c| (c.index, c.position.map(|p| p.0))).collect();
        assert_eq!(named, [(1, Some(1))], "variant {i}");
    }
    assert_eq!(log.head()?, head);
    assert_eq!(receipts(&log.append(built(base("t")))?), [(1, Some(0), OLD)]);
    Ok(())
}

fn a_retry_under_another_trace_is_the_same_event(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let parent = |n: u32| format!("00-0af7651916cd43dd8448eb211c8031{n:02}-b7ad6b7169203331-01");
    let first =
        built(builder(0).attribute("traceparent", parent(1)).attribute("tracestate", "a=1").data("x"));
    log.append(first.clone())?;
    for other in [
        builder(0).data("x"),
        builder(0).attribute("traceparent", parent(2)).data("x"),
        builder(0).attribute("tracestate", "b=2").data("x"),
    ] {
        assert_eq!(receipts(&log.append(built(other))?), [(0, None, OLD)]);
    }
    assert_eq!(log.all()?[0].event, first, "the first trace is the one that is kept");
    let error = log.append(built(builder(0).attribute("tracing", "x").data("x")));
    refused(error, ErrorKind::AlreadyExists);
    Ok(())
}

fn no_data_and_empty_data_are_different_content(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([event("none"), built(builder("empty").data(""))]))?;
    refused(log.append(built(builder("none").data(""))), ErrorKind::AlreadyExists);
    refused(log.append(event("empty")), ErrorKind::AlreadyExists);
    let data: Vec<_> = log.all()?.iter().map(|e| e.event.data().map(|d| d.len())).collect();
    assert_eq!(data, [None, Some(0)]);
    Ok(())
}

fn the_key_is_source_and_id_together(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let keyed = |source: &str, id: &str| built(Event::builder(source, id, "t"));
    let keys =
        [("a", "b"), ("b", "a"), ("a", "a"), ("ab", "c"), ("a", "bc"), ("A", "b"), ("a", "b "), ("a ", "b")];
    log.append(Append::new(keys.map(|(source, id)| keyed(source, id))))?;
    assert_eq!(log.size()?, keys.len() as u64, "none of these keys is another's");
    for (i, (source, id)) in keys.into_iter().enumerate() {
        assert_eq!(receipts(&log.append(keyed(source, id))?), [(i as u64, None, OLD)]);
    }
    Ok(())
}

fn an_event_that_stands_twice_in_an_append_is_recorded_once(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let traced = built(builder(0).stream("s").attribute("traceparent", "x"));
    let appended = log.append(Append::new([on("s", 0), on("s", 1), traced, on("s", 1)]))?;
    assert_eq!(
        receipts(&appended),
        [(0, Some(0), NEW), (1, Some(1), NEW), (0, Some(0), OLD), (1, Some(1), OLD)]
    );
    assert_eq!(log.size()?, 2);
    let conditional = Append::new([on("t", 2), on("t", 2)]).when(Condition::stream_is_new("t"));
    assert_eq!(receipts(&log.append(conditional)?), [(2, Some(0), NEW), (2, Some(0), OLD)]);
    Ok(())
}

fn one_append_cannot_hold_two_contents_for_one_key(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let append = Append::new([event(0), event(1), built(builder(0).data("x"))]);
    refused_naming(log.append(append), ErrorKind::Invalid, &["events 0 and 2"]);
    assert_eq!(log.size()?, 0);
    Ok(())
}

fn of_concurrent_identical_appends_one_records(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10_u64 {
        let answers = together(8, |_| {
            let batch = Append::new((0..3).map(|i| on("s", format!("{round}/{i}"))));
            // Half of the rounds under a condition, which a loser finds broken unless keys come first.
            let batch = match round % 2 {
                0 => batch,
                _ => batch.when(Condition::stream_at("s", round * 3 - 1)),
            };
            Ok(log.append(batch)?)
        })?;
        let recorded = answers.iter().filter(|a| a.events.iter().all(|e| e.status == NEW)).count();
        let existing = answers.iter().filter(|a| a.events.iter().all(|e| e.status == OLD)).count();
        assert_eq!((recorded, existing), (1, 7), "in round {round}");
        let expected: Vec<u64> = (round * 3..round * 3 + 3).collect();
        for answer in answers {
            assert_eq!(answer.events.iter().map(|e| e.position.0).collect::<Vec<_>>(), expected);
        }
    }
    assert_eq!(log.size()?, 30);
    Ok(())
}

fn of_concurrent_contents_for_one_key_one_wins(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10_u64 {
        let answers =
            together(6, |thread| match log.append(built(builder(round).data(vec![thread as u8]))) {
                Ok(appended) => Ok(Some((thread, appended.events[0].position.0))),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    assert_eq!(error.conflicts()[0].position.map(|p| p.0), Some(round));
                    Ok(None)
                }
                Err(error) => Err(Unable::from(error)),
            })?;
        let winners: Vec<_> = answers.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "winners of round {round}");
        let (thread, position) = winners[0];
        assert_eq!(position, round);
        assert_eq!(log.all()?[position as usize].event.data().map(|d| d.to_vec()), Some(vec![thread as u8]));
    }
    Ok(())
}

fn overlapping_concurrent_batches_record_every_event_once(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let answers = together(6, |thread| {
        let mut got = Vec::new();
        for i in 0..12 {
            let from = i * 3 + thread;
            let appended = log.append(Append::new((from..from + 6).map(|n| on("s", n))))?;
            got.extend(
                appended.events.iter().zip(from..).map(|(e, n)| (n.to_string(), e.position, e.status)),
            );
        }
        Ok(got)
    })?;
    let events = log.all()?;
    let mut recorded = 0;
    for (id, position, status) in answers.into_iter().flatten() {
        assert_eq!(events[position.0 as usize].event.id(), id, "every answer names where the event is");
        recorded += usize::from(status == NEW);
    }
    let mut once: Vec<_> = ids(&events);
    once.sort_unstable();
    once.dedup();
    assert_eq!((once.len(), recorded), (events.len(), events.len()), "recorded once, and said once");
    Ok(())
}

fn retries_are_recognised_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let batch = |n: usize| {
        Append::new((0..3).map(|i| built(builder(format!("{n}/{i}")).stream("s").data(vec![n as u8; n]))))
    };
    for n in 0..20 {
        log.append(batch(n))?;
    }
    let head = log.head()?;
    for _ in 0..2 {
        let log = place.reopen()?;
        for n in (0..20).rev() {
            let answer = log.append(batch(n).when(Condition::stream_is_new("s")))?;
            let at = n as u64 * 3;
            assert_eq!(
                receipts(&answer),
                [(at, Some(at), OLD), (at + 1, Some(at + 1), OLD), (at + 2, Some(at + 2), OLD)]
            );
        }
        refused(log.append(built(builder("7/1").stream("s").data("other"))), ErrorKind::AlreadyExists);
        assert_eq!(log.head()?, head);
    }
    Ok(())
}

fn a_retry_of_every_append_changes_nothing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    // Clients that send everything twice, at the same time as others do.
    together(6, |thread| {
        for i in 0..15 {
            let batch = || Append::new((0..=i % 3).map(|k| on("s", format!("{thread}/{i}/{k}"))));
            let first = log.append(batch())?;
            let again = log.append(batch())?;
            assert!(first.events.iter().all(|e| e.status == NEW));
            for (first, again) in first.events.iter().zip(&again.events) {
                assert_eq!(
                    (again.position, again.version, again.status),
                    (first.position, first.version, OLD)
                );
            }
        }
        Ok(())
    })?;
    assert_eq!(log.size()?, 6 * 5 * (1 + 2 + 3));
    Ok(())
}

fn every_log_has_keys_of_its_own(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let (one, two) = (place.main().log_named("one"), place.main().log_named("two"));
    assert_eq!(receipts(&one.append(event(0))?), [(0, None, NEW)]);
    assert_eq!(receipts(&two.append(built(builder(0).data("other")))?), [(0, None, NEW)]);
    assert_eq!(receipts(&one.append(event(0))?), [(0, None, OLD)]);
    Ok(())
}

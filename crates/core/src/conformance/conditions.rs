//! Promise 4: conditions are checked against everything before.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Unable;
use super::support::*;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::ids::Position;
use crate::query::{Condition, ExpectedVersion, IndexedAttribute, Query, QueryItem};
use crate::store::{Append, Appended, Read};

tests! {
    [4] => the_expected_version_of_a_stream_is_checked,
    [4] => of_concurrent_appends_that_expect_one_version_exactly_one_wins,
    [4] => counters_with_optimistic_concurrency_lose_no_step,
    [4] => all_of_several_conditions_have_to_hold,
    [4] => fail_if_looks_only_behind_the_position_it_names,
    [4] => fail_if_takes_types_as_alternatives_and_adds_tags_up,
    [4] => fail_if_finds_streams_and_indexed_attributes,
    [4] => fail_if_without_items_means_any_event,
    [4] => fail_if_does_not_look_at_its_own_batch,
    [4] => of_concurrent_appends_with_one_boundary_exactly_one_wins,
    [4] => a_boundary_over_tags_is_never_overrun,
    [4] => of_two_appends_that_exclude_each_other_exactly_one_wins,
    [4] => a_conflict_names_the_event_in_the_way_and_the_condition,
    [4] => a_position_that_is_not_in_the_log_cannot_be_a_condition,
    [4] => conditions_do_not_see_other_logs,
    [4] => conditions_hold_across_reopening,
    [2, 4] => a_condition_sees_the_whole_of_an_earlier_batch,
}

fn when(event: Event, condition: Condition) -> Append {
    Append::from(event).when(condition)
}

fn expecting(stream: &str, expected: ExpectedVersion) -> Condition {
    Condition::Stream { stream: stream.to_owned(), expected }
}

/// Whether an append won: it is an error if it failed for another reason than a conflict.
fn won(result: Result<Appended, Error>) -> Result<Option<Appended>, Unable> {
    match result {
        Ok(appended) => Ok(Some(appended)),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn the_expected_version_of_a_stream_is_checked(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let exact = |v: u64| ExpectedVersion::Exact(v.into());
    let mut next = 0;
    let mut try_with = |expected, holds: bool| -> Outcome {
        next += 1;
        let result = log.append(when(on("s", next), expecting("s", expected)));
        if holds {
            result?;
        } else {
            refused(result, ErrorKind::Conflict);
        }
        Ok(())
    };
    try_with(exact(0), false)?;
    try_with(ExpectedVersion::None, true)?;
    try_with(ExpectedVersion::None, false)?;
    try_with(exact(1), false)?;
    try_with(exact(0), true)?;
    try_with(exact(0), false)?;
    try_with(exact(2), false)?;
    try_with(exact(u64::MAX), false)?;
    try_with(exact(1), true)?;
    try_with(ExpectedVersion::Any, true)?;
    try_with(exact(3), true)?;
    assert_eq!(log.read(in_stream("s"))?.len(), 5);
    // A condition may be about a stream that the append does not write to.
    log.append(when(event("x"), expecting("s", exact(4))))?;
    log.append(when(event("y"), expecting("never", ExpectedVersion::None)))?;
    log.append(when(event("z"), expecting("never", ExpectedVersion::Any)))?;
    refused(log.append(when(event("w"), expecting("s", exact(3)))), ErrorKind::Conflict);
    Ok(())
}

fn of_concurrent_appends_that_expect_one_version_exactly_one_wins(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..12_u64 {
        let condition = match round.checked_sub(1) {
            None => Condition::stream_is_new("s"),
            Some(version) => Condition::stream_at("s", version),
        };
        let wins = together(8, |thread| {
            won(log.append(when(on("s", format!("{round}/{thread}")), condition.clone())))
        })?;
        let wins: Vec<_> = wins.into_iter().flatten().collect();
        assert_eq!(wins.len(), 1, "winners of round {round}");
        assert_eq!(wins[0].events[0].version.map(|v| v.0), Some(round));
    }
    assert_eq!(log.size()?, 12);
    Ok(())
}

fn counters_with_optimistic_concurrency_lose_no_step(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let attempts = AtomicU64::new(0);
    let wins = together(6, |thread| {
        let mut wins = 0_u64;
        while wins < 6 {
            let last = log.read(Read {
                direction: crate::Direction::Backward,
                limit: Some(1),
                ..in_stream("counter")
            })?;
            let (value, condition) = match last.first() {
                None => (0, Condition::stream_is_new("counter")),
                Some(last) => {
                    let value: u64 =
                        last.event.attribute("value").and_then(|v| v.parse().ok()).unwrap_or(u64::MAX);
                    (value, Condition::stream_at("counter", last.version.unwrap_or_default()))
                }
            };
            let attempt = attempts.fetch_add(1, Ordering::SeqCst);
            let next = builder(format!("{thread}/{attempt}"))
                .stream("counter")
                .attribute("value", (value + 1).to_string());
            wins += u64::from(won(log.append(when(built(next), condition)))?.is_some());
        }
        Ok(wins)
    })?;
    let events = log.read(in_stream("counter"))?;
    assert_eq!(events.len() as u64, wins.iter().sum::<u64>(), "every win is an event");
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event.event.attribute("value"), Some((i + 1).to_string().as_str()), "no step was lost");
    }
    Ok(())
}

fn all_of_several_conditions_have_to_hold(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(on("a", 0))?;
    let holds = [
        Condition::stream_at("a", 0),
        Condition::stream_is_new("b"),
        Condition::fail_if(Query::tags([tag("k=1")]), None),
        Condition::fail_if(Query::stream("a"), Some(Position(0))),
    ];
    let fails = [
        Condition::stream_at("a", 1),
        Condition::stream_at("b", 0),
        Condition::fail_if(Query::event_type("test.happened"), None),
        Condition::fail_if(Query::stream("a"), None),
    ];
    for bad in 0..4 {
        let mut conditions = holds.to_vec();
        conditions[bad] = fails[bad].clone();
        let error = refused(log.append(Append { events: vec![event("x")], conditions }), ErrorKind::Conflict);
        let named: Vec<usize> = error.conflicts().iter().map(|c| c.index).collect();
        assert_eq!(named, [bad], "the condition that does not hold");
    }
    log.append(Append { events: vec![event("x")], conditions: holds.to_vec() })?;
    Ok(())
}

fn fail_if_looks_only_behind_the_position_it_names(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for i in 0..6 {
        log.append(tagged("k", if i % 2 == 0 { "even" } else { "odd" }, i))?;
    }
    let even = Query::tags([tag("k=even")]);
    for (after, holds) in
        [(None, false), (Some(0), false), (Some(3), false), (Some(4), true), (Some(5), true)]
    {
        let append =
            when(event(format!("after {after:?}")), Condition::fail_if(even.clone(), after.map(Position)));
        match holds {
            true => drop(log.append(append)?),
            false => {
                let error = refused(log.append(append), ErrorKind::Conflict);
                let at = error.conflicts()[0].position.map_or(u64::MAX, |p| p.0);
                assert!(
                    [0, 2, 4].contains(&at) && after.is_none_or(|after| at > after),
                    "names {at} after {after:?}"
                );
            }
        }
    }
    Ok(())
}

fn item(types: &[&str], tags: &[&str]) -> QueryItem {
    QueryItem {
        types: types.iter().map(|&t| t.to_owned()).collect(),
        tags: tags.iter().map(|t| tag(t)).collect(),
        ..QueryItem::default()
    }
}

/// Appends a probe under `fail_if` for each query, and looks whether it was refused exactly when it should be.
fn probe(log: &Handle<'_>, probes: &[(Query, Option<u64>)]) -> Outcome {
    for (i, (query, in_the_way)) in probes.iter().enumerate() {
        let probe = built(Event::builder("urn:probe", i.to_string(), "probe"));
        let result = log.append(when(probe, Condition::fail_if(query.clone(), None)));
        match in_the_way {
            None => drop(result?),
            Some(position) => {
                let error = refused(result, ErrorKind::Conflict);
                let named = error.conflicts().first().and_then(|c| c.position);
                assert_eq!(named, Some(Position(*position)), "probe {i}");
            }
        }
    }
    Ok(())
}

fn fail_if_takes_types_as_alternatives_and_adds_tags_up(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let typed = |event_type: &str, tags: &[&str], id: u32| {
        built(Event::builder(SOURCE, id.to_string(), event_type).tags(tags.iter().map(|t| tag(t))))
    };
    log.append(Append::new([
        typed("a", &["x=1", "y=1"], 0),
        typed("b", &["x=2", "z=1"], 1),
        typed("c", &["y=2"], 2),
    ]))?;
    let any = |items: &[QueryItem]| Query { items: items.to_vec() };
    probe(
        &log,
        &[
            (any(&[item(&["a", "d"], &[])]), Some(0)),
            (any(&[item(&["d", "e"], &[])]), None),
            (any(&[item(&[], &["x=1", "y=1"])]), Some(0)),
            (any(&[item(&[], &["x=1", "y=2"])]), None),
            (any(&[item(&[], &["x=2", "z=1"])]), Some(1)),
            (any(&[item(&["a"], &["x=2"])]), None),
            (any(&[item(&["a", "b"], &["x=2"])]), Some(1)),
            (any(&[item(&["a"], &["x=2"]), item(&["c"], &["y=2"])]), Some(2)),
            (any(&[item(&["a"], &["x=2"]), item(&["c"], &["y=1"])]), None),
            (any(&[item(&[], &["x=3"]), item(&["d"], &[])]), None),
            (any(&[item(&["A"], &[])]), None),
            (any(&[item(&[], &["x=1x"])]), None),
            (any(&[item(&["a", "a"], &["x=1", "x=1"])]), Some(0)),
        ],
    )
}

fn fail_if_finds_streams_and_indexed_attributes(scene: &Scene<'_>) -> Outcome {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([
        on("s/1", 0),
        built(builder(1).attribute("decisionid", "d-1").attribute("correlationid", "c-1")),
        built(builder(2).attribute("causationid", "c-1").stream("s/2").tag("k", "v")),
        built(builder(3).attribute("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))),
        built(builder(4).attribute("decisionid", 7)),
    ]))?;
    let of = |attribute, value: &str| QueryItem {
        attributes: vec![(attribute, value.to_owned())],
        ..QueryItem::default()
    };
    let one = |item: QueryItem| Query { items: vec![item] };
    let in_s2 = |tags: &[&str]| QueryItem { stream: Some("s/2".into()), ..item(&[], tags) };
    use IndexedAttribute::{CausationId, CorrelationId, DecisionId, TraceId};
    let both = QueryItem {
        attributes: vec![(DecisionId, "d-1".into()), (CorrelationId, "c-1".into())],
        ..QueryItem::default()
    };
    let contradiction = QueryItem {
        attributes: vec![(DecisionId, "d-1".into()), (CorrelationId, "c-2".into())],
        ..QueryItem::default()
    };
    probe(
        &log,
        &[
            (Query::stream("s/1"), Some(0)),
            (Query::stream("s/"), None),
            (one(in_s2(&["k=v"])), Some(2)),
            (one(in_s2(&["k=w"])), None),
            (one(of(DecisionId, "d-1")), Some(1)),
            (one(of(DecisionId, "d-2")), None),
            (one(of(CorrelationId, "c-1")), Some(1)),
            (one(of(CausationId, "c-1")), Some(2)),
            (one(of(CausationId, "d-1")), None),
            (one(of(TraceId, TRACE)), Some(3)),
            (one(of(TraceId, "00000000000000000000000000000000")), None),
            (one(of(DecisionId, "7")), None),
            (one(both), Some(1)),
            (one(contradiction), None),
        ],
    )
}

fn fail_if_without_items_means_any_event(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(when(event(0), Condition::fail_if(Query::all(), None)))?;
    refused(log.append(when(event(1), Condition::fail_if(Query::all(), None))), ErrorKind::Conflict);
    log.append(when(event(1), Condition::fail_if(Query::all(), Some(Position(0)))))?;
    refused(
        log.append(when(event(2), Condition::fail_if(Query::all(), Some(Position(0))))),
        ErrorKind::Conflict,
    );
    Ok(())
}

fn fail_if_does_not_look_at_its_own_batch(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let append = Append::new((0..5).map(|i| built(builder(i).stream("s").tag("k", "v"))))
        .when(Condition::fail_if(Query::tags([tag("k=v")]), None))
        .when(Condition::stream_is_new("s"));
    assert_eq!(log.append(append)?.events.len(), 5);
    Ok(())
}

fn of_concurrent_appends_with_one_boundary_exactly_one_wins(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10 {
        let name = format!("name-{round}");
        let unique = Condition::fail_if(Query::tags([tag(&format!("username={name}"))]), None);
        let wins = together(8, |thread| {
            won(log.append(when(tagged("username", &name, format!("{round}/{thread}")), unique.clone())))
        })?;
        assert_eq!(wins.iter().flatten().count(), 1, "winners of '{name}'");
    }
    assert_eq!(log.size()?, 10);
    Ok(())
}

fn a_boundary_over_tags_is_never_overrun(scene: &Scene<'_>) -> Outcome {
    const SEATS: usize = 10;
    let place = scene.create()?;
    let log = place.main();
    let bookings = || Query::tags([tag("course=rust")]);
    let booked = together(6, |thread| {
        let mut booked = 0;
        for attempt in 0..500 {
            // What is known ends at the size the page was read from, not at the last event that matches.
            let page = log.page(&Read::matching(bookings()))?;
            if page.events.len() >= SEATS {
                return Ok(booked);
            }
            let condition = Condition::fail_if(bookings(), page.size.checked_sub(1).map(Position));
            let booking = tagged("course", "rust", format!("{thread}/{attempt}"));
            booked += usize::from(won(log.append(when(booking, condition)))?.is_some());
        }
        panic!("500 attempts, and seats are still free")
    })?;
    assert_eq!(booked.iter().sum::<usize>(), SEATS, "every booking that was answered, and not one more");
    assert_eq!(log.read(Read::matching(bookings()))?.len(), SEATS);
    Ok(())
}

fn of_two_appends_that_exclude_each_other_exactly_one_wins(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..15 {
        let side = |n: usize| tag(&format!("side-{round}={n}"));
        let wins = together(2, |me| {
            let mine = built(builder(format!("{round}/{me}")).tags([side(me)]));
            won(log.append(when(mine, Condition::fail_if(Query::tags([side(1 - me)]), None))))
        })?;
        assert_eq!(wins.iter().flatten().count(), 1, "winners of round {round}");
    }
    Ok(())
}

fn a_conflict_names_the_event_in_the_way_and_the_condition(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([on("a", 0), on("b", 1), on("a", 2), tagged("k", "v", 3)]))?;
    let any = || Condition::Stream { stream: "a".into(), expected: ExpectedVersion::Any };
    let cases = [
        (Condition::stream_is_new("a"), Some(2), "'a'"),
        (Condition::stream_at("a", 0), Some(2), "version 1"),
        (Condition::stream_at("b", 5), Some(1), "version 5"),
        (Condition::stream_at("new", 0), None, "'new'"),
        (Condition::fail_if(Query::tags([tag("k=v")]), None), Some(3), "position 3"),
        (Condition::fail_if(Query::tags([tag("k=v")]), Some(Position(2))), Some(3), "after position 2"),
    ];
    for (i, (condition, position, word)) in cases.into_iter().enumerate() {
        let append = Append { events: vec![event("x"), event("y")], conditions: vec![any(), condition] };
        let error = refused_naming(log.append(append), ErrorKind::Conflict, &[word]);
        assert!(!error.is_retryable(), "the same append conflicts again");
        let named: Vec<_> = error.conflicts().iter().map(|c| (c.position.map(|p| p.0), c.index)).collect();
        assert_eq!(named, [(position, 1)], "case {i}");
    }
    Ok(())
}

fn a_position_that_is_not_in_the_log_cannot_be_a_condition(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let append = |after: u64| when(event("x"), Condition::fail_if(Query::stream("s"), Some(Position(after))));
    refused_naming(log.append(append(0)), ErrorKind::NotFound, &["position 0", "empty"]);
    assert_eq!(log.size()?, 0);
    log.fill(3)?;
    refused_naming(log.append(append(3)), ErrorKind::NotFound, &["position 3", "3 events"]);
    refused_naming(log.append(append(u64::MAX)), ErrorKind::NotFound, &[&u64::MAX.to_string()]);
    log.append(append(2))?;
    Ok(())
}

fn conditions_do_not_see_other_logs(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let (one, two) = (place.main().log_named("one"), place.main().log_named("two"));
    one.append(built(builder(0).stream("s").tag("k", "v")))?;
    let new = || when(built(builder(0).stream("s").tag("k", "v")), Condition::stream_is_new("s"));
    two.append(new().when(Condition::fail_if(Query::tags([tag("k=v")]), None)))?;
    refused(one.append(when(event(9), Condition::stream_is_new("s"))), ErrorKind::Conflict);
    Ok(())
}

fn conditions_hold_across_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([on("s", 0), tagged("k", "v", 1), on("s", 2)]))?;
    let log = place.reopen()?;
    let error = refused(log.append(when(event("x"), Condition::stream_at("s", 0))), ErrorKind::Conflict);
    assert_eq!(error.conflicts()[0].position, Some(Position(2)));
    let boundary = |after: Option<u64>| Condition::fail_if(Query::tags([tag("k=v")]), after.map(Position));
    let error = refused(log.append(when(event("x"), boundary(None))), ErrorKind::Conflict);
    assert_eq!(error.conflicts()[0].position, Some(Position(1)));
    log.append(when(on("s", 3), Condition::stream_at("s", 1)).when(boundary(Some(1))))?;
    Ok(())
}

fn a_condition_sees_the_whole_of_an_earlier_batch(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    // Every batch writes `first`, then `last`, and expects `last` to be at version n: seeing half of another
    // batch would let it in.
    for round in 0..10_u64 {
        let condition = match round.checked_sub(1) {
            None => Condition::stream_is_new("last"),
            Some(version) => Condition::stream_at("last", version),
        };
        let wins = together(6, |thread| {
            let id = |k: usize| format!("{round}/{thread}/{k}");
            let append = Append::new([on("first", id(0)), event(id(1)), on("last", id(2))]);
            won(log.append(append.when(condition.clone())))
        })?;
        assert_eq!(wins.iter().flatten().count(), 1);
        assert_eq!(log.size()?, (round + 1) * 3);
    }
    Ok(())
}

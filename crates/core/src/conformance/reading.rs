//! Promise 12: reads never go backwards and include what the handle appended; and they return exactly what is asked.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Unable;
use super::support::*;
use crate::event::Event;
use crate::ids::{Position, Time};
use crate::query::{Direction, IndexedAttribute, Query, QueryItem, TimeField};
use crate::store::{Append, Read, RecordedEvent};

tests! {
    [12] => a_read_after_an_answer_includes_the_append,
    [12] => reads_on_several_threads_never_go_backwards,
    [12, 3] => a_read_ends_where_the_log_ended_when_it_began,
    [12] => pages_of_every_size_continue_exactly,
    [12] => bounds_by_position_are_exclusive,
    [12] => bounds_by_recorded_time_include_their_beginning_and_not_their_end,
    [12] => bounds_by_produced_time_count_what_the_producer_wrote,
    [12] => a_query_returns_what_matches_and_nothing_else,
    [12] => a_limit_ends_a_read_exactly,
    [12] => reading_changes_nothing,
}

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

fn a_read_after_an_answer_includes_the_append(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(6, |thread| {
        for i in 0..15 {
            let stream = format!("s{thread}");
            let receipt = log.append(on(&stream, format!("{thread}/{i}")))?.events[0];
            assert!(log.size()? > receipt.position.0);
            let at_least = Read { at_least: Some(receipt.position), ..in_stream(&stream) };
            assert_eq!(log.read(at_least)?.last().map(|e| e.position), Some(receipt.position));
            let last = Read { direction: Direction::Backward, limit: Some(1), ..in_stream(&stream) };
            let page = log.page(&last)?;
            assert_eq!(
                page.events.first().map(|e| (e.position, e.version)),
                Some((receipt.position, receipt.version))
            );
        }
        Ok(())
    })
    .map(drop)
}

fn reads_on_several_threads_never_go_backwards(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let seen = AtomicU64::new(0);
    beside(
        3,
        |thread| Ok((0..40).try_for_each(|i| log.append(event(format!("{thread}/{i}"))).map(drop))?),
        4,
        |reader, running| {
            while running.still() {
                let before = seen.load(Ordering::SeqCst);
                let size = match reader % 2 {
                    0 => log.size()?,
                    _ => {
                        let read = Read { direction: Direction::Backward, limit: Some(1), ..Read::default() };
                        let page = log.page(&read)?;
                        let last = page.events.first().map_or(0, |e| e.position.0 + 1);
                        assert_eq!(last, page.size, "a page is read from one state of the log");
                        page.size
                    }
                };
                assert!(size >= before, "{size} events, {before} have been seen before");
                seen.fetch_max(size, Ordering::SeqCst);
            }
            Ok(())
        },
    )
}

fn a_read_ends_where_the_log_ended_when_it_began(scene: &Scene<'_>) -> Outcome {
    use futures_util::stream::StreamExt;
    let place = scene.create()?;
    let log = place.main();
    // More than fits in a page, as far as one can tell from outside.
    log.append(Append::new((0..3_000).map(event)))?;
    let mut events = Box::pin(log.log.read(Read::default()));
    let first = scene.wait(events.next());
    assert!(first.is_some_and(|e| e.is_ok()));
    log.append(Append::new((3_000..4_000).map(event)))?;
    let rest = scene.wait(events.collect::<Vec<_>>());
    assert_eq!(rest.len(), 2_999, "what came later is not part of the read");
    let rest = rest.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert!(positions(&rest).into_iter().eq(1..3_000));
    Ok(())
}

/// A log whose events differ in everything a query can name.
fn varied(log: &Handle<'_>, count: usize) -> Result<Vec<RecordedEvent>, Unable> {
    let make = |i: usize| {
        let mut event = Event::builder(SOURCE, i.to_string(), format!("type-{}", i % 5))
            .tag("third", &(i % 3).to_string())
            .tag("seventh", &(i % 7).to_string());
        if !i.is_multiple_of(4) {
            event = event.stream(format!("s{}", i % 4));
        }
        if i.is_multiple_of(6) {
            event = event.attribute("decisionid", (i % 12).to_string());
        }
        if !i.is_multiple_of(5) {
            event = event.time(format!("2026-01-01T00:{:02}:00Z", (i * 37) % 60));
        }
        built(event.data(vec![i as u8; i % 50]))
    };
    for i in (0..count).step_by(3) {
        log.append(Append::new((i..count.min(i + 3)).map(make)))?;
    }
    let all = log.all()?;
    assert_eq!(all.len(), count);
    Ok(all)
}

/// What a read has to return, in its order.
fn expected(all: &[RecordedEvent], read: &Read, wanted: impl Fn(&RecordedEvent) -> bool) -> Vec<u64> {
    let mut positions: Vec<u64> = all.iter().filter(|e| wanted(e)).map(|e| e.position.0).collect();
    if read.direction == Direction::Backward {
        positions.reverse();
    }
    positions
}

fn pages_of_every_size_continue_exactly(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 40)?;
    for direction in BOTH {
        for limit in (1..=8).chain([13, 39, 40, 41, 1_000]) {
            for (query, stream) in [(Query::all(), None), (Query::stream("s1"), Some("s1"))] {
                let read = Read { query, direction, limit: Some(limit), ..Read::default() };
                let wanted = |e: &RecordedEvent| stream.is_none_or(|s| e.event.stream() == Some(s));
                let read_back = log.pages(read.clone())?;
                assert_eq!(positions(&read_back), expected(&all, &read, wanted), "{direction:?} by {limit}");
                assert!(
                    read_back.iter().all(|e| *e == all[e.position.0 as usize]),
                    "an event is always the same"
                );
            }
        }
    }
    Ok(())
}

fn bounds_by_position_are_exclusive(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 12)?;
    let lower = (0..12).map(Some).chain([None]);
    for after in lower {
        for before in (after.map_or(0, |a| a + 1)..14).map(Some).chain([None]) {
            for direction in BOTH {
                let read = Read {
                    after: after.map(Position),
                    before: before.map(Position),
                    direction,
                    ..Read::default()
                };
                let wanted = |e: &RecordedEvent| {
                    after.is_none_or(|a| e.position.0 > a) && before.is_none_or(|b| e.position.0 < b)
                };
                assert_eq!(
                    positions(&log.page(&read)?.events),
                    expected(&all, &read, wanted),
                    "{after:?} to {before:?}"
                );
            }
        }
    }
    Ok(())
}

fn bounds_by_recorded_time_include_their_beginning_and_not_their_end(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 30)?;
    let shifted = |time: Time, by: i64| Time::from_micros(time.as_micros().saturating_add_signed(by));
    for direction in BOTH {
        for (since, until) in
            [(Some(0), None), (Some(7), Some(20)), (None, Some(15)), (Some(29), None), (None, Some(0))]
        {
            for by in [-1, 0, 1] {
                let at = |i: Option<usize>| i.map(|i| shifted(all[i].recorded, by)).transpose();
                let read = Read { since: at(since)?, until: at(until)?, direction, ..Read::default() };
                if read.since.is_some() && read.since >= read.until && read.until.is_some() {
                    continue;
                }
                let wanted = |e: &RecordedEvent| {
                    read.since.is_none_or(|s| e.recorded >= s) && read.until.is_none_or(|u| e.recorded < u)
                };
                assert_eq!(
                    positions(&log.pages(read.clone())?),
                    expected(&all, &read, wanted),
                    "{since:?} to {until:?}, {by}"
                );
            }
        }
    }
    let future = Read { since: Some(shifted(all[29].recorded, 1)?), ..Read::default() };
    assert!(log.read(future)?.is_empty());
    Ok(())
}

fn bounds_by_produced_time_count_what_the_producer_wrote(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 60)?;
    log.append(built(builder("other offset").time("2026-01-01T02:30:00+02:00")))?;
    log.append(built(builder("ancient").time("1950-01-01T00:00:00Z")))?;
    let all = [all, log.read(Read { after: Some(Position(59)), ..Read::default() })?].concat();
    let minute = |m: u64| Time::parse(&format!("2026-01-01T00:{m:02}:00Z"));
    for direction in BOTH {
        for (since, until) in
            [(Some(0), None), (Some(10), Some(31)), (None, Some(30)), (Some(30), None), (Some(59), None)]
        {
            let read = Read {
                since: since.map(minute).transpose()?,
                until: until.map(minute).transpose()?,
                by: TimeField::Produced,
                direction,
                ..Read::default()
            };
            let wanted = |e: &RecordedEvent| {
                let Some(time) = e.event.time() else { return false };
                // What lies before 1970 is before any bound that can be given.
                let Ok(time) = Time::parse(time) else { return read.since.is_none() };
                read.since.is_none_or(|s| time >= s) && read.until.is_none_or(|u| time < u)
            };
            assert_eq!(
                positions(&log.pages(read.clone())?),
                expected(&all, &read, wanted),
                "{since:?} to {until:?}"
            );
        }
    }
    let everything = Read { by: TimeField::Produced, ..Read::default() };
    assert_eq!(log.read(everything)?.len(), 62, "without bounds, events without a time count too");
    Ok(())
}

fn a_query_returns_what_matches_and_nothing_else(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 120)?;
    let types = |of: &[usize]| of.iter().map(|i| format!("type-{i}")).collect::<Vec<_>>();
    let decision = |id: &str| vec![(IndexedAttribute::DecisionId, id.to_owned())];
    let item = QueryItem::default;
    let one = |item: QueryItem| Query { items: vec![item] };
    type Wanted = fn(usize) -> bool;
    let cases: Vec<(Query, Wanted)> = vec![
        (Query::all(), |_| true),
        (Query::stream("s1"), |i| i % 4 == 1),
        (Query::stream("s0"), |_| false),
        (Query::event_type("type-2"), |i| i % 5 == 2),
        (one(QueryItem { types: types(&[1, 3, 9]), ..item() }), |i| i % 5 == 1 || i % 5 == 3),
        (Query::tags([tag("third=1")]), |i| i % 3 == 1),
        (Query::tags([tag("third=1"), tag("seventh=2")]), |i| i % 3 == 1 && i % 7 == 2),
        (Query::tags([tag("third=1"), tag("third=2")]), |_| false),
        (one(QueryItem { attributes: decision("6"), ..item() }), |i| i % 12 == 6),
        (one(QueryItem { attributes: decision("0"), stream: Some("s2".into()), ..item() }), |_| false),
        (
            one(QueryItem {
                types: types(&[0, 1]),
                tags: vec![tag("third=0")],
                stream: Some("s3".into()),
                ..item()
            }),
            |i| i % 5 < 2 && i % 3 == 0 && i % 4 == 3,
        ),
        (
            Query {
                items: vec![
                    QueryItem { stream: Some("s1".into()), ..item() },
                    QueryItem { types: types(&[2]), ..item() },
                    QueryItem { tags: vec![tag("seventh=0")], stream: Some("s1".into()), ..item() },
                    QueryItem { attributes: decision("6"), ..item() },
                ],
            },
            |i| i % 4 == 1 || i % 5 == 2 || i % 12 == 6,
        ),
        (
            Query {
                items: vec![
                    QueryItem { types: types(&[8]), ..item() },
                    QueryItem { stream: Some("x".into()), ..item() },
                ],
            },
            |_| false,
        ),
    ];
    for (n, (query, matches)) in cases.into_iter().enumerate() {
        for direction in BOTH {
            for limit in [None, Some(7)] {
                let read = Read { query: query.clone(), direction, limit, ..Read::default() };
                let wanted = |e: &RecordedEvent| matches(e.position.0 as usize);
                assert_eq!(positions(&log.pages(read.clone())?), expected(&all, &read, wanted), "query {n}");
            }
            let bounded = Read {
                query: query.clone(),
                direction,
                after: Some(Position(30)),
                before: Some(Position(90)),
                ..Read::default()
            };
            let wanted =
                |e: &RecordedEvent| matches(e.position.0 as usize) && (31..90).contains(&e.position.0);
            assert_eq!(
                positions(&log.read(bounded.clone())?),
                expected(&all, &bounded, wanted),
                "query {n}, bounded"
            );
        }
    }
    Ok(())
}

fn a_limit_ends_a_read_exactly(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new((0..2_500).map(|i| on(&format!("s{}", i % 2), i))))?;
    for limit in [1, 2, 999, 1_000, 1_001, 2_499, 2_500, 9_999] {
        for direction in BOTH {
            let read = Read { limit: Some(limit), direction, ..Read::default() };
            assert_eq!(log.read(read)?.len(), limit.min(2_500), "{direction:?}");
            let read = Read { limit: Some(limit), direction, ..in_stream("s1") };
            assert_eq!(log.read(read)?.len(), limit.min(1_250), "{direction:?}, one stream");
        }
    }
    Ok(())
}

fn reading_changes_nothing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let all = varied(&log, 20)?;
    let head = log.head()?;
    let seen = together(4, |_| {
        log.verify(None)?;
        log.frames(0, usize::MAX)?;
        Ok(log.all()?)
    })?;
    assert!(seen.iter().all(|events| *events == all), "every reader sees the same");
    assert_eq!(log.head()?, head);
    Ok(())
}

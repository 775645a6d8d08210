//! Promise 2: all or nothing.

use std::collections::HashSet;

use super::support::*;
use crate::error::ErrorKind;
use crate::ids::Position;
use crate::query::{Condition, Direction, Query};
use crate::store::{Append, Read};

tests! {
    [2] => a_batch_stands_together_in_the_order_it_was_given,
    [2, 3] => batches_of_concurrent_appenders_never_interleave,
    [2, 3] => concurrent_readers_never_see_half_a_batch,
    [2] => a_batch_with_one_refused_event_leaves_nothing_behind,
    [2, 4] => a_batch_whose_condition_fails_leaves_nothing_behind,
    [2] => a_batch_over_many_streams_is_one_batch,
}

/// The events of a batch: their ids say which batch and which place in it.
fn batch(name: &str, len: usize) -> Append {
    Append::new((0..len).map(|i| on(&format!("s{}", i % 3), format!("{name}/{i}"))))
}

fn a_batch_stands_together_in_the_order_it_was_given(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut expected = Vec::new();
    for len in [1, 2, 17, 500] {
        let appended = log.append(batch(&len.to_string(), len))?;
        let first = expected.len() as u64;
        assert!(appended.events.iter().map(|e| e.position.0).eq(first..first + len as u64));
        expected.extend((0..len).map(|i| format!("{len}/{i}")));
    }
    assert_eq!(ids(&log.all()?), expected);
    Ok(())
}

fn batches_of_concurrent_appenders_never_interleave(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let answers = together(8, |thread| {
        let mut firsts = Vec::new();
        for i in 0..12 {
            let len = 1 + (thread + i) % 7;
            let appended = log.append(batch(&format!("{thread}/{i}/{len}"), len))?;
            let first = appended.events[0].position.0;
            assert!(
                appended.events.iter().map(|e| e.position.0).eq(first..first + len as u64),
                "in one piece"
            );
            firsts.push((first, format!("{thread}/{i}/{len}"), len));
        }
        Ok(firsts)
    })?;
    let events = log.all()?;
    let mut at = 0;
    let mut batches: Vec<_> = answers.into_iter().flatten().collect();
    batches.sort();
    for (first, name, len) in batches {
        assert_eq!(first, at, "batches follow each other without a gap");
        for i in 0..len {
            assert_eq!(events[first as usize + i].event.id(), format!("{name}/{i}"));
        }
        at += len as u64;
    }
    assert_eq!(events.len() as u64, at);
    Ok(())
}

fn concurrent_readers_never_see_half_a_batch(scene: &Scene<'_>) -> Outcome {
    const LEN: usize = 7;
    let place = scene.create()?;
    let log = place.main();
    beside(
        4,
        |thread| {
            for i in 0..20 {
                log.append(batch(&format!("{thread}/{i}"), LEN))?;
            }
            Ok(())
        },
        3,
        |reader, running| {
            loop {
                let last_round = !running.still();
                let whole = |size: u64| assert_eq!(size % LEN as u64, 0, "a size of {size} cuts a batch");
                whole(log.size()?);
                let events = match reader {
                    0 => log.all()?,
                    1 => {
                        let mut events =
                            log.read(Read { direction: Direction::Backward, ..Read::default() })?;
                        events.reverse();
                        events
                    }
                    _ => {
                        let page = log.page(&Read { query: Query::stream("s0"), ..Read::default() })?;
                        whole(page.size);
                        let batches = page.events.chunks(3);
                        for of_one_batch in batches.filter(|_| page.next.is_none()) {
                            assert_eq!(of_one_batch.len(), 3, "a batch has three events of this stream");
                        }
                        Vec::new()
                    }
                };
                whole(events.len() as u64);
                assert!(positions(&events).into_iter().eq(0..events.len() as u64), "a prefix without a gap");
                for of_one_batch in events.chunks(LEN) {
                    let name = |id: &str| id.rsplit_once('/').map(|(name, _)| name.to_owned());
                    let names: HashSet<_> = of_one_batch.iter().map(|e| name(e.event.id())).collect();
                    assert_eq!(names.len(), 1, "events of several batches between each other: {names:?}");
                }
                if last_round {
                    return Ok(());
                }
            }
        },
    )
}

fn a_batch_with_one_refused_event_leaves_nothing_behind(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(event("before"))?;
    let head = log.head()?;
    for bad in [0, 3, 6] {
        let mut events: Vec<_> = (0..7).map(|i| on("s", format!("{bad}/{i}"))).collect();
        events[bad] = on(&"s".repeat(513), "bad");
        let error = refused(log.append(Append::new(events.clone())), ErrorKind::LimitExceeded);
        assert!(error.message().contains(&format!("event {bad}")), "the event is named: {error}");
        assert_eq!(log.head()?, head);
    }
    log.append(event("after"))?;
    assert_eq!(ids(&log.all()?), ["before", "after"]);
    Ok(())
}

fn a_batch_whose_condition_fails_leaves_nothing_behind(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(on("taken", 0))?;
    let head = log.head()?;
    let append = batch("x", 9).when(Condition::stream_is_new("free")).when(Condition::stream_is_new("taken"));
    refused(log.append(append), ErrorKind::Conflict);
    assert_eq!(log.head()?, head);
    assert!(log.read(in_stream("s0"))?.is_empty());
    let appended = log.append(batch("x", 9).when(Condition::stream_is_new("free")))?;
    assert_eq!(appended.events[0].position, Position(1), "the refused batch used no position");
    assert_eq!(appended.events[0].version.map(|v| v.0), Some(0), "and no version");
    Ok(())
}

fn a_batch_over_many_streams_is_one_batch(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..3 {
        let events = (0..200).map(|i| on(&format!("stream/{}", i % 100), format!("{round}/{i}")));
        let appended = log.append(Append::new(events))?;
        for (i, receipt) in appended.events.iter().enumerate() {
            let version = 2 * round + i as u64 / 100;
            assert_eq!(
                (receipt.position.0, receipt.version.map(|v| v.0)),
                (round * 200 + i as u64, Some(version))
            );
        }
    }
    let one = log.read(in_stream("stream/42"))?;
    assert_eq!(positions(&one), [42, 142, 242, 342, 442, 542]);
    Ok(())
}

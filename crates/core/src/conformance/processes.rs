//! Promise 6: two processes on one store are safe; promise 12: what a second one sees.

use super::Unable;
use super::support::*;
use crate::error::ErrorKind;
use crate::ids::Position;
use crate::query::Condition;
use crate::store::{Append, ExpectedRegister, Read, Status};

tests! {
    [6] => a_second_writer_is_kept_away_or_works_along,
    [6] => a_second_writer_that_was_kept_away_has_changed_nothing,
    [6] => the_store_can_be_written_again_once_the_first_writer_has_closed,
    [6, 4] => two_writers_of_one_stream_never_both_win,
    [6, 5] => a_retry_in_another_process_is_recognised,
    [6, 2] => a_reader_in_another_process_sees_whole_batches_and_no_gap,
    [12] => a_reader_in_another_process_waits_for_the_position_it_asks_for,
    [12] => a_position_that_never_comes_is_waited_for_a_bounded_time,
    [6, 11] => two_processes_share_registers,
}

/// The two writers, or a skip if the store fences the second.
fn two_writers<'a>(scene: &'a Scene<'a>, place: &Place<'a>) -> Result<[Handle<'a>; 2], Unable> {
    match place.fixture.second_handle()? {
        Ok(second) => Ok([place.main(), scene.handle(second)]),
        Err(error) => Err(Unable::cannot(format!("a second writer is kept away: {error}"))),
    }
}

fn a_second_writer_is_kept_away_or_works_along<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(3)?;
    let expected = match place.fixture.second_handle()? {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Locked, "a clear error: {error:?}");
            assert!(!error.may_have_been_written());
            3
        }
        Ok(second) => {
            let second = scene.handle(second);
            let handles = [log.clone(), second];
            together(4, |thread| {
                for i in 0..10 {
                    let batch = (0..3).map(|k| on("s", format!("{thread}/{i}/{k}")));
                    let appended = handles[thread % 2].append(Append::new(batch))?;
                    let first = appended.events[0].position.0;
                    assert!(appended.events.iter().map(|e| e.position.0).eq(first..first + 3));
                }
                Ok(())
            })?;
            123
        }
    };
    let at_least = Some(Position(expected - 1));
    let events = log.read(Read { at_least, ..Read::default() })?;
    assert!(positions(&events).into_iter().eq(0..expected));
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn a_second_writer_that_was_kept_away_has_changed_nothing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(2)?;
    for i in 2..6 {
        let second = place.fixture.second_handle()?;
        log.append(event(i))?;
        drop(second);
        log.append(event(format!("after {i}")))?;
    }
    assert_eq!(log.size()?, 10);
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn the_store_can_be_written_again_once_the_first_writer_has_closed(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    place.main().fill(2)?;
    let old = place.main();
    let log = place.reopen()?;
    log.append(event("next"))?;
    refused(old.append(event("too late")), ErrorKind::Stopped);
    assert_eq!(ids(&log.all()?), ["0", "1", "next"]);
    Ok(())
}

fn two_writers_of_one_stream_never_both_win<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let handles = two_writers(scene, &place)?;
    for round in 0..10_u64 {
        let condition = match round.checked_sub(1) {
            None => Condition::stream_is_new("s"),
            Some(version) => Condition::stream_at("s", version),
        };
        let wins = together(2, |me| {
            let append = Append::from(on("s", format!("{round}/{me}"))).when(condition.clone());
            match handles[me].append(append) {
                Ok(_) => Ok(1),
                Err(error) if error.kind() == ErrorKind::Conflict => Ok(0),
                Err(error) => Err(Unable::from(error)),
            }
        })?;
        assert_eq!(wins.iter().sum::<i32>(), 1, "winners of round {round}");
    }
    Ok(())
}

fn a_retry_in_another_process_is_recognised<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let [one, two] = two_writers(scene, &place)?;
    let batch = |n: u32| Append::new((0..3).map(|k| on(&format!("s{n}"), format!("{n}/{k}"))));
    for n in 0..5 {
        let condition = Condition::stream_is_new(format!("s{n}"));
        let first = one.append(batch(n).when(condition.clone()))?;
        let again = two.append(batch(n).when(condition))?;
        assert!(again.events.iter().all(|e| e.status == Status::Existing));
        assert!(again.events.iter().zip(&first.events).all(|(a, b)| a.position == b.position));
    }
    assert_eq!(two.size()?, 15);
    Ok(())
}

fn a_reader_in_another_process_sees_whole_batches_and_no_gap<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new((0..4).map(|k| event(format!("first/{k}")))))?;
    let reader = scene.handle(place.fixture.second_reader()?);
    beside(
        3,
        |thread| {
            for i in 0..15 {
                log.append(Append::new((0..4).map(|k| event(format!("{thread}/{i}/{k}")))))?;
            }
            Ok(())
        },
        1,
        |_, running| {
            let mut seen = 0;
            loop {
                let last_round = !running.still();
                let at_least = last_round.then_some(Position(4 + 3 * 15 * 4 - 1));
                let events = reader.read(Read { at_least, ..Read::default() })?;
                assert_eq!(events.len() % 4, 0, "half a batch");
                assert!(positions(&events).into_iter().eq(0..events.len() as u64));
                assert!(events.len() >= seen, "the reader went backwards");
                seen = events.len();
                if last_round {
                    assert_eq!(seen, 4 + 3 * 15 * 4);
                    return Ok(());
                }
            }
        },
    )
}

fn a_reader_in_another_process_waits_for_the_position_it_asks_for<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(event("first"))?;
    let reader = scene.handle(place.fixture.second_reader()?);
    for i in 0..20 {
        let position = log.append(event(i))?.events[0].position;
        let read = Read { at_least: Some(position), ..Read::default() };
        let page = reader.page(&read)?;
        assert!(page.size > position.0, "the page was read from {} events", page.size);
        assert_eq!(page.events.last().map(|e| e.position), Some(position));
        assert!(reader.size()? > position.0, "and it stays so");
    }
    Ok(())
}

fn a_position_that_never_comes_is_waited_for_a_bounded_time(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(2)?;
    let read = Read { at_least: Some(Position(99)), ..Read::default() };
    refused_naming(log.page(&read), ErrorKind::NotFound, &["99", "2 events"]);
    assert_eq!(log.page(&Read { at_least: Some(Position(1)), ..Read::default() })?.events.len(), 2);
    Ok(())
}

fn two_processes_share_registers<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let [one, two] = two_writers(scene, &place)?;
    let name = register_name("shared");
    one.set_register(&name, ExpectedRegister::Absent, "1")?;
    refused(two.set_register(&name, ExpectedRegister::Absent, "2"), ErrorKind::Conflict);
    assert_eq!(two.set_register(&name, ExpectedRegister::Revision(1), "2")?.revision, 2);
    assert_eq!(one.register(&name)?.map(|r| r.value), Some("2".into()));
    Ok(())
}

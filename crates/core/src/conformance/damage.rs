//! Promise 9: damage is named and never repaired in silence.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::stream::StreamExt;

use super::support::*;
use crate::error::ErrorKind;
use crate::ids::Position;
use crate::query::Direction;
use crate::store::{Page, Read};

tests! {
    [9] => a_sound_log_verifies,
    [9] => verifying_names_the_damage,
    [9] => reads_name_the_damaged_event_and_return_every_other,
    [9] => pages_around_damage_neither_stop_nor_skip,
    [9] => a_stream_of_events_goes_on_behind_damage,
    [9] => damage_is_still_named_after_reopening,
    [9, 8] => the_first_and_the_last_event_can_be_the_damaged_one,
}

const COUNT: u64 = 12;

/// Events of 200 KiB that nothing can make smaller, each in a write of its own.
fn filled<'a>(scene: &'a super::Scene<'a>) -> Result<(Place<'a>, Vec<Bytes>), super::Unable> {
    let place = scene.create()?;
    let mut chance = scene.chance();
    let data: Vec<Bytes> = (0..COUNT).map(|_| chance.bytes(200 << 10)).collect();
    for (i, data) in data.iter().enumerate() {
        place.main().append(built(builder(i).stream(format!("s{}", i % 2)).data(data.clone())))?;
    }
    Ok((place, data))
}

/// Checks a page, or all pages put together: nothing false, nothing unnamed, and no more hidden than the event and
/// what shares a block with it.
fn check(page: &Page, data: &[Bytes], damaged: u64) {
    for read in &page.events {
        assert!(
            read.event.data() == Some(&data[read.position.0 as usize]),
            "wrong data at position {}",
            read.position
        );
        assert_eq!(read.event.id(), read.position.to_string());
    }
    let named: BTreeSet<u64> = page.damaged.iter().map(|d| d.position.0).collect();
    assert_eq!(named.len(), page.damaged.len(), "each damaged event is named once");
    for damage in &page.damaged {
        assert_eq!(damage.error.kind(), ErrorKind::Damaged, "{:?}", damage.error);
    }
    let read: BTreeSet<u64> = page.events.iter().map(|e| e.position.0).collect();
    assert!(read.is_disjoint(&named), "an event is read or named as damaged, not both");
    assert!(read.union(&named).copied().eq(0..COUNT), "every event is read or named as damaged");
    assert!(named.contains(&damaged), "the damage at {damaged} is not named, only {named:?}");
    assert!(named.iter().all(|p| p.abs_diff(damaged) <= 1), "damage at {damaged} hides {named:?}");
}

fn a_sound_log_verifies(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let report = log.verify(None)?;
    assert!(report.is_ok() && report.size == 0, "an empty log verifies");
    for i in 0..30 {
        log.append(built(builder(i).stream(format!("s{}", i % 4)).tag("k", "v").data(vec![0; i * 100])))?;
    }
    let (report, head) = (log.verify(None)?, log.head()?);
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!((report.log, report.size, report.events), (head.log, 30, 30));
    assert_eq!((report.root, report.frames), (Some(head.root), head.frames));
    Ok(())
}

fn verifying_names_the_damage<'a>(scene: &'a Scene<'a>) -> Outcome {
    let (place, _) = filled(scene)?;
    let log = scene.handle(place.fixture.damage(place.main().name(), Position(5))?);
    let report = log.verify(None)?;
    assert!(!report.is_ok(), "a flipped byte went unnoticed");
    let near =
        |p: &crate::verify::Problem| p.position.is_some_and(|p| p.0.abs_diff(5) <= 1) || p.frame.is_some();
    assert!(report.problems.iter().any(near), "the place is named: {:?}", report.problems);
    assert!(report.problems.iter().all(|p| !p.message.is_empty()));
    Ok(())
}

fn reads_name_the_damaged_event_and_return_every_other<'a>(scene: &'a Scene<'a>) -> Outcome {
    let (place, data) = filled(scene)?;
    let log = scene.handle(place.fixture.damage(place.main().name(), Position(5))?);
    for direction in [Direction::Forward, Direction::Backward] {
        check(&together_from_pages(&log, direction, None)?, &data, 5);
    }
    Ok(())
}

/// All pages of the log as if they were one.
fn together_from_pages(
    log: &Handle<'_>,
    direction: Direction,
    limit: Option<usize>,
) -> Result<Page, super::Unable> {
    let mut read = Read { direction, limit, ..Read::default() };
    let mut all = log.page(&read)?;
    while let Some(covered) = all.next {
        read = read.continued(covered);
        if read.before == Some(Position(0)) {
            break;
        }
        let page = log.page(&read)?;
        all.events.extend(page.events);
        all.damaged.extend(page.damaged);
        assert!(page.next.is_none_or(|next| next != covered), "page after page covers the same");
        all.next = page.next;
    }
    let order: Vec<u64> = positions(&all.events);
    let sorted = match direction {
        Direction::Forward => order.is_sorted(),
        Direction::Backward => order.iter().rev().is_sorted(),
    };
    assert!(sorted, "in the order of the read: {order:?}");
    Ok(all)
}

fn pages_around_damage_neither_stop_nor_skip<'a>(scene: &'a Scene<'a>) -> Outcome {
    let (place, data) = filled(scene)?;
    let log = scene.handle(place.fixture.damage(place.main().name(), Position(6))?);
    for limit in [1, 2, 3, 5, 11, 12] {
        for direction in [Direction::Forward, Direction::Backward] {
            check(&together_from_pages(&log, direction, Some(limit))?, &data, 6);
        }
    }
    Ok(())
}

fn a_stream_of_events_goes_on_behind_damage<'a>(scene: &'a Scene<'a>) -> Outcome {
    let (place, _) = filled(scene)?;
    let log = scene.handle(place.fixture.damage(place.main().name(), Position(7))?);
    let items = scene.wait(log.log.read(Read::default()).collect::<Vec<_>>());
    assert_eq!(items.len() as u64, COUNT, "an item for every event");
    for (i, item) in items.iter().enumerate() {
        match item {
            Ok(event) => assert_eq!(event.position.0, i as u64),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
                assert!((6..=8).contains(&i), "position {i}: {error:?}");
            }
        }
    }
    assert!(items[7].is_err(), "the damaged event was returned");
    Ok(())
}

fn damage_is_still_named_after_reopening<'a>(scene: &'a Scene<'a>) -> Outcome {
    let (place, data) = filled(scene)?;
    place.fixture.damage(place.main().name(), Position(4))?;
    for _ in 0..2 {
        let log = place.reopen()?;
        check(&together_from_pages(&log, Direction::Forward, None)?, &data, 4);
        assert!(!log.verify(None)?.is_ok(), "the damage was repaired in silence");
    }
    Ok(())
}

fn the_first_and_the_last_event_can_be_the_damaged_one<'a>(scene: &'a Scene<'a>) -> Outcome {
    for position in [0, COUNT - 1] {
        let (place, data) = filled(scene)?;
        let log = scene.handle(place.fixture.damage(place.main().name(), Position(position))?);
        check(&together_from_pages(&log, Direction::Forward, None)?, &data, position);
        assert!(!log.verify(None)?.is_ok());
    }
    Ok(())
}

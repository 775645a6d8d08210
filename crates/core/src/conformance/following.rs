//! Promise 7: following misses nothing and sees nothing twice.

use std::collections::BTreeSet;

use super::support::*;
use crate::error::ErrorKind;
use crate::ids::Position;
use crate::query::{Direction, Query};
use crate::store::{Append, Read};

tests! {
    [7] => following_goes_from_catching_up_to_live_without_loss_or_repetition,
    [7] => followers_that_begin_anywhere_see_the_rest,
    [7] => following_with_a_query_delivers_all_that_matches_and_nothing_else,
    [7] => following_an_empty_log_delivers_its_first_event,
    [7] => waiting_for_the_first_event_makes_no_log,
    [7] => following_ends_at_its_limit_and_at_its_bound,
    [7, 12] => an_append_wakes_everyone_who_waits_for_the_log_to_grow,
    [7] => a_log_that_has_already_grown_is_not_waited_for,
    [7, 13] => a_wait_that_is_dropped_harms_nobody,
    [7] => only_what_goes_forward_can_be_followed,
    [7] => a_log_that_does_not_exist_cannot_be_followed,
    [7] => following_one_log_does_not_deliver_another,
}

fn following_goes_from_catching_up_to_live_without_loss_or_repetition(scene: &Scene<'_>) -> Outcome {
    const BEFORE: usize = 150;
    const WRITERS: usize = 4;
    const EACH: usize = 30;
    const ALL: usize = BEFORE + WRITERS * EACH * 2;
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new((0..BEFORE).map(|i| event(format!("before/{i}")))))?;
    let followed = together(WRITERS + 4, |thread| {
        if thread >= WRITERS {
            return Ok(log.follow(Read::default(), ALL)?);
        }
        for i in 0..EACH {
            log.append(Append::new((0..2).map(|k| on("s", format!("{thread}/{i}/{k}")))))?;
        }
        Ok(Vec::new())
    })?;
    let all = log.all()?;
    assert_eq!(all.len(), ALL);
    for seen in followed.iter().skip(WRITERS) {
        assert_eq!(positions(seen), positions(&all), "every position once, in order");
        assert!(*seen == all, "followers see what readers read");
    }
    Ok(())
}

fn followers_that_begin_anywhere_see_the_rest(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(20)?;
    let followed = together(6, |thread| match thread.checked_sub(1) {
        None => {
            (20..60).try_for_each(|i| log.append(event(i)).map(drop))?;
            Ok((0, Vec::new()))
        }
        Some(follower) => {
            let after = [0, 5, 18, 19, 10][follower];
            let read = Read { after: Some(Position(after)), ..Read::default() };
            Ok((after, log.follow(read, 59 - after as usize)?))
        }
    })?;
    for (after, seen) in followed.into_iter().skip(1) {
        assert!(positions(&seen).into_iter().eq(after + 1..60), "behind {after}");
    }
    Ok(())
}

fn following_with_a_query_delivers_all_that_matches_and_nothing_else(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let followed = together(5, |thread| {
        if thread >= 3 {
            let query = if thread == 3 { Query::stream("s1") } else { Query::tags([tag("k=1")]) };
            return Ok(log.follow(Read::matching(query), 60)?);
        }
        for i in 0..60 {
            let stream = format!("s{}", i % 3);
            log.append(built(
                builder(format!("{thread}/{i}")).stream(stream).tag("k", &(i % 3).to_string()),
            ))?;
        }
        Ok(Vec::new())
    })?;
    let expected = log.read(in_stream("s1"))?;
    assert_eq!(expected.len(), 60);
    assert!(followed[3] == expected && followed[4] == expected);
    Ok(())
}

fn following_an_empty_log_delivers_its_first_event(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let followed = together(4, |thread| {
        if thread > 0 {
            return Ok(log.follow(Read::default(), 3)?);
        }
        for i in 0..3 {
            // Lets the followers come to wait, without relying on it.
            log.grown_and_drop(i, 1);
            log.append(event(i))?;
        }
        Ok(Vec::new())
    })?;
    for seen in followed.iter().skip(1) {
        assert_eq!(ids(seen), ["0", "1", "2"]);
    }
    Ok(())
}

fn waiting_for_the_first_event_makes_no_log(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    assert!(log.grown_and_drop(0, 1).is_none(), "nothing has been recorded");
    assert!(log.logs()?.is_empty(), "waiting has made {:?}", log.logs()?);
    // So a copy can still be put there.
    let original = scene.create()?.main();
    original.fill(3)?;
    assert_eq!(log.put_frames(original.all_frames()?)?.root, original.head()?.root);
    Ok(())
}

fn following_ends_at_its_limit_and_at_its_bound(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(5)?;
    let seen = together(3, |thread| match thread {
        0 => {
            (5..20).try_for_each(|i| log.append(event(i)).map(drop))?;
            Ok(Vec::new())
        }
        1 => Ok(log.follow(Read { limit: Some(12), ..Read::default() }, usize::MAX)?),
        _ => Ok(log.follow(Read { before: Some(Position(12)), ..Read::default() }, usize::MAX)?),
    })?;
    assert!(positions(&seen[1]).into_iter().eq(0..12), "a limit of 12 events");
    assert!(positions(&seen[2]).into_iter().eq(0..12), "what stands before position 12");
    // What has been reached already ends at once.
    assert_eq!(log.follow(Read { limit: Some(20), ..Read::default() }, usize::MAX)?.len(), 20);
    assert_eq!(log.follow(Read { before: Some(Position(20)), ..Read::default() }, usize::MAX)?.len(), 20);
    let nothing = Read { before: Some(Position(4)), ..in_stream("none") };
    assert!(log.follow(nothing, usize::MAX)?.is_empty());
    Ok(())
}

fn an_append_wakes_everyone_who_waits_for_the_log_to_grow(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10_u64 {
        let heads = together(5, |thread| {
            if thread > 0 {
                return Ok(log.grown(round)?.size);
            }
            log.append(event(round))?;
            Ok(round + 1)
        })?;
        assert_eq!(heads, [round + 1; 5]);
    }
    Ok(())
}

fn a_log_that_has_already_grown_is_not_waited_for(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(4)?;
    let head = log.head()?;
    for size in 0..4 {
        assert_eq!(log.grown(size)?, head);
    }
    assert!(log.grown_and_drop(4, 1).is_none(), "it holds four events, not more");
    Ok(())
}

fn a_wait_that_is_dropped_harms_nobody(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(1)?;
    let sizes = together(4, |thread| {
        match thread {
            0 => (1..30).try_for_each(|i| log.append(event(i)).map(drop))?,
            1 => (0..100).for_each(|polls| drop(log.grown_and_drop(20 + polls % 10, polls as usize % 3))),
            _ => assert!(log.grown(29)?.size >= 30),
        }
        Ok(log.size()?)
    })?;
    assert!(sizes.iter().all(|size| *size <= 30));
    Ok(())
}

fn only_what_goes_forward_can_be_followed(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(3)?;
    let backward = Read { direction: Direction::Backward, ..Read::default() };
    refused_naming(log.follow(backward, 1), ErrorKind::Invalid, &["forward"]);
    Ok(())
}

fn a_log_that_does_not_exist_cannot_be_followed(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main().log_named("nowhere");
    refused_naming(log.follow(Read::default(), 1), ErrorKind::NotFound, &["nowhere"]);
    refused_naming(log.grown(0), ErrorKind::NotFound, &["nowhere"]);
    Ok(())
}

fn following_one_log_does_not_deliver_another(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let logs = [place.main().log_named("one"), place.main().log_named("two")];
    logs[0].append(event("one/0"))?;
    logs[1].append(event("two/0"))?;
    let seen = together(4, |thread| {
        let log = &logs[thread % 2];
        if thread >= 2 {
            return Ok(log.follow(Read::default(), 21)?);
        }
        for i in 1..=20 {
            log.append(event(format!("{}/{i}", log.name())))?;
        }
        Ok(Vec::new())
    })?;
    for (log, seen) in logs.iter().zip(&seen[2..]) {
        let expected: BTreeSet<String> = (0..=20).map(|i| format!("{}/{i}", log.name())).collect();
        assert_eq!(seen.iter().map(|e| e.event.id().to_owned()).collect::<BTreeSet<_>>(), expected);
    }
    Ok(())
}

//! Promise 8: no error is swallowed, and every waiter is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::*;
use super::{Failure, Unable};
use crate::error::{Error, ErrorKind};
use crate::store::{Append, Appended, ExpectedRegister, Read, Status};

tests! {
    [8] => after_a_failed_sync_the_handle_stops_and_says_so,
    [8, 1] => what_a_failed_sync_left_is_whole_or_absent_after_reopening,
    [8, 1] => a_refused_write_is_reported_and_loses_nothing_acknowledged,
    [8] => after_a_failure_every_waiting_appender_is_told,
    [8, 7] => after_a_failure_everyone_who_waits_for_the_log_to_grow_is_told,
    [8, 5] => what_failed_can_be_sent_again_and_is_recorded_once,
    [8] => a_closed_store_answers_that_it_stopped,
    [8, 7] => closing_ends_every_wait,
    [8, 1] => what_was_acknowledged_while_closing_is_there_after_reopening,
}

fn batch(name: &str) -> Append {
    Append::new((0..5).map(|i| built(builder(format!("{name}/{i}")).stream("s").data(vec![7; 100]))))
}

/// Looks at the reopened store: everything acknowledged is there, `failed` is whole or absent, and nothing else.
/// What may have been written may be there; what was said not to have been written is not.
fn check_after(log: &Handle<'_>, acknowledged: &[Appended], failed: &Error) -> Outcome {
    let events = log.all()?;
    assert!(positions(&events).into_iter().eq(0..events.len() as u64));
    for receipt in acknowledged.iter().flat_map(|a| &a.events) {
        assert!(receipt.position.0 < events.len() as u64, "position {} was acknowledged", receipt.position);
    }
    let of_failed = events.iter().filter(|e| e.event.id().starts_with("failed/")).count();
    assert!([0, 5].contains(&of_failed), "{of_failed} of the 5 events of the failed append are there");
    assert!(
        of_failed == 0 || failed.may_have_been_written(),
        "the error promised that nothing was written: {failed:?}"
    );
    assert!(log.verify(None)?.is_ok(), "what is there verifies");
    Ok(())
}

fn after_a_failed_sync_the_handle_stops_and_says_so(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(batch("a"))?;
    place.fixture.fail_next(Failure::Sync)?;
    let failed = match log.append(batch("failed")) {
        Ok(appended) => panic!("acknowledged although nothing made it durable: {appended:?}"),
        Err(error) => error,
    };
    assert!(failed.may_have_been_written(), "nobody can know whether it was written: {failed:?}");
    for _ in 0..3 {
        let error = log.append(event("later")).expect_err("the handle has stopped");
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
        assert!(!error.may_have_been_written(), "what came later was not tried: {error:?}");
    }
    assert!(
        log.set_register(&register_name("r"), ExpectedRegister::Absent, "x").is_err(),
        "no register either"
    );
    Ok(())
}

fn what_a_failed_sync_left_is_whole_or_absent_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let acknowledged = (0..10).map(|i| log.append(batch(&i.to_string()))).collect::<Result<Vec<_>, _>>()?;
    place.fixture.fail_next(Failure::Sync)?;
    let failed = log.append(batch("failed")).expect_err("the sync failed");
    let log = place.reopen()?;
    check_after(&log, &acknowledged, &failed)?;
    log.append(batch("after"))?;
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn a_refused_write_is_reported_and_loses_nothing_acknowledged(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut acknowledged =
        (0..10).map(|i| log.append(batch(&i.to_string()))).collect::<Result<Vec<_>, _>>()?;
    place.fixture.fail_next(Failure::Write)?;
    let failed = log.append(batch("failed")).expect_err("the write was refused");
    // A handle that can settle it goes on; one that cannot has stopped. Both keep their word.
    match log.append(batch("next")) {
        Ok(appended) => acknowledged.push(appended),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}"),
    }
    let log = place.reopen()?;
    check_after(&log, &acknowledged, &failed)?;
    log.append(batch("after"))?;
    Ok(())
}

fn after_a_failure_every_waiting_appender_is_told(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(batch("first"))?;
    place.fixture.fail_next(Failure::Sync)?;
    let answers = together(8, |thread| {
        let mut acknowledged = Vec::new();
        for i in 0..5 {
            match log.append(batch(&format!("{thread}/{i}"))) {
                Ok(appended) => acknowledged.push(appended),
                Err(error) => return Ok((acknowledged, Some(error))),
            }
        }
        Ok((acknowledged, None))
    })?;
    assert!(answers.iter().any(|(_, error)| error.is_some()), "someone was told");
    let log = place.reopen()?;
    let size = log.size()?;
    for receipt in answers.iter().flat_map(|(acknowledged, _)| acknowledged).flat_map(|a| &a.events) {
        assert!(receipt.position.0 < size, "position {} was acknowledged", receipt.position);
    }
    assert_eq!(size % 5, 0, "whole batches only");
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn after_a_failure_everyone_who_waits_for_the_log_to_grow_is_told(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(batch("first"))?;
    place.fixture.fail_next(Failure::Sync)?;
    let told = together(3, |thread| {
        if thread == 0 {
            return Ok(log.append(batch("failed")).err());
        }
        // More than will ever be there.
        Ok(log.grown(1_000).err())
    })?;
    assert!(told.iter().all(Option::is_some), "nobody waits for a handle that has stopped: {told:?}");
    Ok(())
}

fn what_failed_can_be_sent_again_and_is_recorded_once(scene: &Scene<'_>) -> Outcome {
    for failure in [Failure::Sync, Failure::Write] {
        let place = scene.create()?;
        place.main().append(batch("first"))?;
        place.fixture.fail_next(failure)?;
        let failed = place.main().append(batch("failed")).expect_err("it failed");
        let log = place.reopen()?;
        let again = log.append(batch("failed"))?;
        let existing = again.events.iter().filter(|e| e.status == Status::Existing).count();
        assert!([0, 5].contains(&existing), "half a batch was left");
        assert!(existing == 0 || failed.may_have_been_written(), "{failed:?}");
        let versions: Vec<_> = again.events.iter().map(|e| e.version.map_or(0, |v| v.0)).collect();
        assert_eq!(versions, [5, 6, 7, 8, 9]);
        assert_eq!(log.size()?, 10);
    }
    Ok(())
}

fn a_closed_store_answers_that_it_stopped(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(2)?;
    log.close()?;
    let name = register_name("r");
    refused(log.append(event("x")), ErrorKind::Stopped);
    refused(log.page(&Read::default()), ErrorKind::Stopped);
    refused(log.head(), ErrorKind::Stopped);
    refused(log.grown(0), ErrorKind::Stopped);
    refused(log.grown(2), ErrorKind::Stopped);
    refused(log.logs(), ErrorKind::Stopped);
    refused(log.frames(0, 1 << 20), ErrorKind::Stopped);
    refused(log.verify(None), ErrorKind::Stopped);
    refused(log.register(&name), ErrorKind::Stopped);
    refused(log.set_register(&name, ExpectedRegister::Absent, "x"), ErrorKind::Stopped);
    refused(log.follow(Read::default(), 1), ErrorKind::Stopped);
    Ok(())
}

fn closing_ends_every_wait(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(2)?;
    let begun = AtomicUsize::new(0);
    let ended = together(4, |thread| {
        begun.fetch_add(1, Ordering::SeqCst);
        match thread {
            0 => {
                while begun.load(Ordering::SeqCst) < 4 {
                    std::thread::yield_now();
                }
                // Time enough for them to wait; that they do is not needed, only likely.
                (0..2_000).for_each(|_| std::thread::yield_now());
                log.close()?;
                Ok(None)
            }
            1 => Ok(log.follow(Read::default(), 3).err()),
            _ => Ok(log.grown(2).err()),
        }
    })?;
    for error in &ended[1..] {
        let kind = error.as_ref().map(Error::kind);
        assert_eq!(kind, Some(ErrorKind::Stopped), "{error:?}");
    }
    Ok(())
}

fn what_was_acknowledged_while_closing_is_there_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let acknowledged = together(5, |thread| {
        let mut mine = Vec::new();
        for i in 0..20 {
            if thread == 0 && i == 5 {
                log.close()?;
                break;
            }
            match log.append(batch(&format!("{thread}/{i}"))) {
                Ok(appended) => mine.extend(appended.events),
                Err(error) if error.kind() == ErrorKind::Stopped && !error.may_have_been_written() => break,
                Err(error) => return Err(Unable::from(error)),
            }
        }
        Ok(mine)
    })?;
    let log = place.reopen()?;
    let size = log.size()?;
    let acknowledged: usize = acknowledged.iter().map(Vec::len).sum();
    assert_eq!(size, acknowledged as u64, "all that was acknowledged, and nothing that was not");
    Ok(())
}

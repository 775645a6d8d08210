//! Promise 13: dropping an append leaves it whole or absent.

use super::support::*;
use crate::store::{Append, Status};

tests! {
    [13, 2] => an_append_dropped_at_any_poll_is_whole_or_absent,
    [13] => appends_dropped_among_others_leave_whole_batches,
    [13, 5] => what_was_dropped_can_be_sent_again_and_is_recorded_once,
    [13] => an_append_that_was_never_polled_records_nothing,
    [13, 1] => dropped_appends_are_whole_or_absent_after_reopening,
}

const LEN: usize = 5;

fn batch(name: &str) -> Append {
    Append::new(
        (0..LEN).map(|i| built(builder(format!("{name}/{i}")).stream(format!("s{i}")).data(vec![1; 300]))),
    )
}

/// Sends the batch again: it is all new or all there. Answers which.
fn settle(log: &Handle<'_>, name: &str) -> Result<Status, super::Unable> {
    let again = log.append(batch(name))?;
    let status = again.events[0].status;
    assert!(
        again.events.iter().all(|e| e.status == status),
        "half of batch '{name}' was recorded: {again:?}"
    );
    let first = again.events[0].position.0;
    assert!(again.events.iter().map(|e| e.position.0).eq(first..first + LEN as u64));
    Ok(status)
}

fn an_append_dropped_at_any_poll_is_whole_or_absent(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10 {
        for polls in 0..6 {
            let name = format!("{round}/{polls}");
            let answer = log.append_and_drop(batch(&name), polls);
            let status = settle(&log, &name)?;
            if let Some(answer) = answer {
                answer?;
                assert_eq!(status, Status::Existing, "what was acknowledged is there");
            }
        }
    }
    assert_eq!(log.size()?, 10 * 6 * LEN as u64, "nothing is recorded twice");
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn appends_dropped_among_others_leave_whole_batches(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(6, |thread| {
        for i in 0..15 {
            let name = format!("{thread}/{i}");
            match thread % 2 {
                0 => drop(log.append(batch(&name))?),
                _ => drop(log.append_and_drop(batch(&name), i % 4)),
            }
        }
        Ok(())
    })?;
    // An append goes behind whatever is still under way.
    log.append(batch("last"))?;
    let events = log.all()?;
    assert_eq!(events.len() % LEN, 0);
    for of_one_batch in events.chunks(LEN) {
        let first = of_one_batch[0].event.id();
        let name = first.strip_suffix("/0").unwrap_or(first);
        for (i, event) in of_one_batch.iter().enumerate() {
            assert_eq!(event.event.id(), format!("{name}/{i}"));
        }
    }
    let kept = events.iter().filter(|e| matches!(e.event.id().as_bytes()[0], b'0' | b'2' | b'4')).count();
    assert_eq!(kept, 3 * 15 * LEN, "appends that were waited for are all there");
    Ok(())
}

fn what_was_dropped_can_be_sent_again_and_is_recorded_once(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(4, |thread| {
        for i in 0..10 {
            let name = format!("{thread}/{i}");
            for polls in 0..3 {
                drop(log.append_and_drop(batch(&name), polls));
            }
            settle(&log, &name)?;
            assert_eq!(settle(&log, &name)?, Status::Existing);
        }
        Ok(())
    })?;
    assert_eq!(log.size()?, 4 * 10 * LEN as u64);
    Ok(())
}

fn an_append_that_was_never_polled_records_nothing(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for i in 0..10 {
        assert!(log.append_and_drop(batch(&i.to_string()), 0).is_none());
    }
    assert_eq!(settle(&log, "3")?, Status::Recorded);
    assert_eq!(log.size()?, LEN as u64);
    Ok(())
}

fn dropped_appends_are_whole_or_absent_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(batch("kept"))?;
    for i in 0..10 {
        drop(log.append_and_drop(batch(&i.to_string()), 1 + i % 2));
    }
    let log = place.reopen()?;
    assert_eq!(log.size()? % LEN as u64, 0);
    for i in 0..10 {
        settle(&log, &i.to_string())?;
    }
    assert_eq!(log.size()?, 11 * LEN as u64);
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

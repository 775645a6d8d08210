//! Promises 1, 3, 4, 5 and 13 for appends that are submitted without waiting for them.

use futures_util::future::join_all;

use super::support::*;
use crate::error::ErrorKind;
use crate::ids::{Position, Version};
use crate::log::Pending;
use crate::query::{Condition, ExpectedVersion};
use crate::store::{Append, Status};

tests! {
    [1, 3] => submitted_appends_are_recorded_in_their_order_whoever_is_waited_for_first,
    [4, 5] => a_submitted_append_sees_those_submitted_before_it,
    [8, 4] => every_submitted_append_answers_for_itself,
    [13, 2] => submitted_appends_that_are_dropped_are_whole_or_absent,
    [1, 3] => several_threads_submit_each_in_its_own_order,
    [10] => what_is_not_within_the_limits_is_refused_and_leaves_the_others_alone,
}

fn batch(name: &str, len: usize) -> Append {
    Append::new(
        (0..len)
            .map(|i| built(builder(format!("{name}/{i}")).stream(format!("s{}", i % 3)).data(vec![1; 200]))),
    )
}

fn submitted_appends_are_recorded_in_their_order_whoever_is_waited_for_first(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut expected = 0;
    for round in 0..6 {
        let lengths: Vec<usize> = (0..25).map(|i| 1 + (i + round) % 4).collect();
        let mut pending = Vec::new();
        for (i, len) in lengths.iter().enumerate() {
            let first = expected + lengths[..i].iter().sum::<usize>() as u64;
            pending.push((first, log.log.submit(batch(&format!("{round}/{i}"), *len))?));
        }
        match round % 3 {
            0 => {}
            1 => pending.reverse(),
            _ => pending.swap(3, 20),
        }
        for (first, pending) in pending {
            let appended = log.wait(pending)?;
            let positions = appended.events.iter().map(|e| e.position.0);
            assert!(
                positions.eq(first..first + appended.events.len() as u64),
                "not at {first}: {appended:?}"
            );
            assert!(appended.size >= first + appended.events.len() as u64);
            assert!(log.size()? >= appended.size, "what is answered can be read");
        }
        expected += lengths.iter().sum::<usize>() as u64;
    }
    assert_eq!(log.size()?, expected);
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn a_submitted_append_sees_those_submitted_before_it(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut pending = Vec::new();
    for version in 0..40u64 {
        let expected = match version.checked_sub(1) {
            Some(before) => ExpectedVersion::Exact(Version(before)),
            None => ExpectedVersion::None,
        };
        let event = built(builder(version.to_string()).stream("one"));
        let append = Append::new([event]).when(Condition::Stream { stream: "one".into(), expected });
        pending.push(log.log.submit(append.clone())?);
        // Again, as after a lost answer: its key comes before its condition.
        pending.push(log.log.submit(append)?);
    }
    let answers = log.wait(join_all(pending));
    for (i, answer) in answers.into_iter().enumerate() {
        let receipt = answer?.events[0];
        assert_eq!(receipt.position, Position(i as u64 / 2));
        assert_eq!(receipt.version.map(|v| v.0), Some(i as u64 / 2));
        assert_eq!(receipt.status, [Status::Recorded, Status::Existing][i % 2]);
    }
    assert_eq!(log.size()?, 40);
    Ok(())
}

fn every_submitted_append_answers_for_itself(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let on_empty = |id: String| {
        let condition = Condition::Stream { stream: "gate".into(), expected: ExpectedVersion::None };
        Append::new([built(builder(id).stream("gate"))]).when(condition)
    };
    let mut pending = Vec::new();
    for i in 0..30 {
        pending.push(log.log.submit(on_empty(format!("gate/{i}")))?);
        pending.push(log.log.submit(batch(&format!("free/{i}"), 2))?);
    }
    let answers = log.wait(join_all(pending));
    for (i, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(_) => assert!(i == 0 || i % 2 == 1, "append {i} was recorded"),
            Err(error) => {
                assert!(i > 0 && i % 2 == 0, "append {i}: {error}");
                assert_eq!(error.kind(), ErrorKind::Conflict);
                assert_eq!(error.conflicts()[0].position, Some(Position(0)));
            }
        }
    }
    assert_eq!(log.size()?, 1 + 30 * 2);
    Ok(())
}

fn submitted_appends_that_are_dropped_are_whole_or_absent(scene: &Scene<'_>) -> Outcome {
    const LEN: usize = 4;
    let place = scene.create()?;
    let log = place.main();
    let mut kept: Vec<(usize, Pending)> = Vec::new();
    for i in 0..60 {
        let pending = log.log.submit(batch(&i.to_string(), LEN))?;
        if i % 3 == 0 {
            kept.push((i, pending));
        } else {
            drop(pending);
        }
    }
    let mut last = None;
    for (i, pending) in kept {
        let first = log.wait(pending)?.events[0].position;
        assert!(last < Some(first), "append {i} is not behind those before it");
        last = Some(first);
    }
    let events = log.all()?;
    assert_eq!(events.len() % LEN, 0, "half a batch");
    for of_one_batch in events.chunks(LEN) {
        let name = of_one_batch[0].event.id().trim_end_matches("/0").to_owned();
        for (i, event) in of_one_batch.iter().enumerate() {
            assert_eq!(event.event.id(), format!("{name}/{i}"));
        }
    }
    for i in 0..60 {
        let again = log.append(batch(&i.to_string(), LEN))?;
        let status = again.events[0].status;
        assert!(again.events.iter().all(|e| e.status == status), "half of batch {i} was recorded");
        assert!(i % 3 != 0 || status == Status::Existing, "what was acknowledged is there");
    }
    assert_eq!(log.size()?, 60 * LEN as u64);
    Ok(())
}

fn several_threads_submit_each_in_its_own_order(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(4, |thread| {
        let stream = format!("t{thread}");
        let event = |i: usize| built(builder(format!("{thread}/{i}")).stream(stream.as_str()));
        let pending = (0..50).map(|i| log.log.submit(event(i))).collect::<crate::Result<Vec<_>>>()?;
        for (i, answer) in log.wait(join_all(pending)).into_iter().enumerate() {
            assert_eq!(answer?.events[0].version.map(|v| v.0), Some(i as u64));
        }
        Ok(())
    })?;
    assert_eq!(log.size()?, 200);
    assert!(log.verify(None)?.is_ok());
    Ok(())
}

fn what_is_not_within_the_limits_is_refused_and_leaves_the_others_alone(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let first = log.log.submit(batch("first", 2))?;
    let refused = match log.log.submit(Append::default()) {
        Ok(pending) => log.wait(pending).map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(refused.expect_err("an append without events").kind(), ErrorKind::Invalid);
    let second = log.log.submit(batch("second", 1))?;
    assert_eq!(log.wait(second)?.events[0].position, Position(2));
    assert_eq!(log.wait(first)?.events[0].position, Position(0));
    Ok(())
}

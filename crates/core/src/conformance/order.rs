//! Promise 3: positions and versions are dense, and readers see a prefix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::support::*;
use crate::error::ErrorKind;
use crate::ids::Hash;
use crate::query::Condition;
use crate::store::{Append, Read};
use crate::tree::Tree;
use crate::verify::Expect;

tests! {
    [3] => positions_are_dense_under_concurrent_appenders,
    [3] => versions_of_every_stream_are_dense_under_concurrent_appenders,
    [3] => an_append_that_begins_after_an_answer_stands_behind_it,
    [3, 12] => readers_see_a_prefix_that_only_grows,
    [3] => refused_and_repeated_appends_use_no_position,
    [3] => events_without_a_stream_have_no_version,
    [3] => positions_and_versions_go_on_after_reopening,
    [3, 9] => the_root_is_that_of_the_leaves_that_are_read,
    [3] => every_size_the_log_had_can_be_proved_by_its_root,
}

fn positions_are_dense_under_concurrent_appenders(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let answers = together(16, |thread| {
        let append = |i| {
            Ok((log.append(event(format!("{thread}/{i}")))?.events[0].position.0, format!("{thread}/{i}")))
        };
        (0..20).map(append).collect::<Result<Vec<_>, super::Unable>>()
    })?;
    let by_position: BTreeMap<u64, String> = answers.into_iter().flatten().collect();
    assert!(by_position.keys().copied().eq(0..320), "every position is given once");
    assert!(ids(&log.all()?).into_iter().eq(by_position.values()), "and holds the event it was given to");
    Ok(())
}

fn versions_of_every_stream_are_dense_under_concurrent_appenders(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(8, |thread| {
        for i in 0..20 {
            let stream = |k: usize| format!("s{}", (thread + i + k) % 5);
            log.append(Append::new((0..3).map(|k| on(&stream(k), format!("{thread}/{i}/{k}")))))?;
        }
        Ok(())
    })?;
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for event in log.all()? {
        let next = versions.entry(event.event.stream().unwrap_or_default().to_owned()).or_default();
        assert_eq!(event.version.map(|v| v.0), Some(*next), "at position {}", event.position);
        *next += 1;
    }
    assert_eq!(versions.values().sum::<u64>(), 8 * 20 * 3);
    for (stream, count) in versions {
        let read = log.read(in_stream(&stream))?;
        assert!(read.iter().map(|e| e.version.map_or(u64::MAX, |v| v.0)).eq(0..count));
    }
    Ok(())
}

fn an_append_that_begins_after_an_answer_stands_behind_it(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let answered = AtomicU64::new(0);
    together(8, |thread| {
        for i in 0..20 {
            let size_before = answered.load(Ordering::SeqCst);
            let position = log.append(event(format!("{thread}/{i}")))?.events[0].position.0;
            assert!(
                position >= size_before,
                "position {position}, but {size_before} events were answered before"
            );
            answered.fetch_max(position + 1, Ordering::SeqCst);
        }
        Ok(())
    })
    .map(drop)
}

fn readers_see_a_prefix_that_only_grows(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    beside(
        4,
        |thread| {
            (0..40)
                .try_for_each(|i| log.append(on("s", format!("{thread}/{i}"))).map(drop))
                .map_err(Into::into)
        },
        3,
        |_, running| {
            let mut seen: Vec<Hash> = Vec::new();
            loop {
                let last_round = !running.still();
                let leaves: Vec<Hash> = log.all()?.iter().map(|e| e.leaf()).collect();
                assert!(leaves.starts_with(&seen), "what was seen is still there, in the same order");
                seen = leaves;
                if last_round {
                    assert_eq!(seen.len(), 160);
                    return Ok(());
                }
            }
        },
    )
}

fn refused_and_repeated_appends_use_no_position(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for i in 0..10_u64 {
        let appended = log.append(on("s", i))?;
        assert_eq!((appended.events[0].position.0, appended.events[0].version.map(|v| v.0)), (i, Some(i)));
        refused(
            log.append(Append::new([on("s", "no")]).when(Condition::stream_is_new("s"))),
            ErrorKind::Conflict,
        );
        refused(log.append(built(builder(i).stream("s").data("other"))), ErrorKind::AlreadyExists);
        refused(log.append(on(&"s".repeat(513), "no")), ErrorKind::LimitExceeded);
        refused(log.append(Append::new([])), ErrorKind::Invalid);
        log.append(on("s", i))?;
    }
    assert_eq!(log.size()?, 10);
    Ok(())
}

fn events_without_a_stream_have_no_version(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.append(Append::new([event(0), on("s", 1), event(2), on("s", 3)]))?;
    let versions: Vec<_> = log.all()?.iter().map(|e| e.version.map(|v| v.0)).collect();
    assert_eq!(versions, [None, Some(0), None, Some(1)]);
    Ok(())
}

fn positions_and_versions_go_on_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    for round in 0..4_u64 {
        let log = if round == 0 { place.main() } else { place.reopen()? };
        for i in 0..5 {
            let receipt = log.append(on("s", format!("{round}/{i}")))?.events[0];
            assert_eq!(
                (receipt.position.0, receipt.version.map(|v| v.0)),
                (round * 5 + i, Some(round * 5 + i))
            );
        }
    }
    assert!(place.main().verify(None)?.is_ok());
    Ok(())
}

fn the_root_is_that_of_the_leaves_that_are_read(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut tree = Tree::new();
    assert_eq!(log.head()?.root, tree.root(), "the root of the empty log");
    for round in 0..20 {
        log.append(Append::new((0..=round % 4).map(|i| on("s", format!("{round}/{i}")))))?;
        let after = tree.size().checked_sub(1).map(crate::Position);
        log.read(Read { after, ..Read::default() })?.iter().for_each(|e| tree.push(e.leaf()));
        let head = log.head()?;
        assert_eq!((head.size, head.root), (tree.size(), tree.root()));
    }
    let report = log.verify(None)?;
    assert_eq!((report.size, report.root, report.is_ok()), (tree.size(), Some(tree.root()), true));
    Ok(())
}

fn every_size_the_log_had_can_be_proved_by_its_root(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let mut heads = vec![log.head()?];
    for i in 0..12 {
        log.append(event(i))?;
        heads.push(log.head()?);
    }
    for head in &heads {
        let report = log.verify(Some(Expect { size: head.size, root: head.root }))?;
        assert!(report.is_ok(), "size {}: {:?}", head.size, report.problems);
    }
    let wrong = Expect { size: 5, root: heads[6].root };
    let report = log.verify(Some(wrong))?;
    assert!(!report.is_ok() && report.problems[0].message.contains('5'), "{:?}", report.problems);
    let cut = Expect { size: 13, root: heads[12].root };
    let report = log.verify(Some(cut))?;
    let named = |p: &crate::verify::Problem| p.message.contains("13") && p.message.contains("12");
    assert!(report.problems.iter().any(named), "a missing tail is named: {:?}", report.problems);
    Ok(())
}

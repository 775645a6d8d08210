//! Several logs in a store: each is an order, a consistency and a proof of its own.

use std::collections::BTreeSet;

use super::support::*;
use crate::error::ErrorKind;
use crate::query::Condition;
use crate::store::{Append, Read};
use crate::tree::Tree;

tests! {
    [3] => logs_of_a_store_are_independent,
    [3] => the_log_main_reads_as_empty_before_its_first_append,
    [3] => a_log_that_does_not_exist_is_named,
    [2, 3] => a_refused_first_append_makes_no_log,
    [3] => concurrent_first_appends_make_one_log,
    [3, 1] => all_logs_are_there_after_reopening,
}

fn logs_of_a_store_are_independent(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let names = ["main", "a", "team-1.eu_west", "0", "a.b"];
    let logs: Vec<_> = names.iter().map(|name| place.main().log_named(name)).collect();
    together(5, |i| {
        for n in 0..12 {
            let stream = format!("s{}", n % 2);
            let receipt = logs[i].append(on(&stream, format!("{}/{n}", names[i])))?.events[0];
            assert_eq!(
                (receipt.position.0, receipt.version.map(|v| v.0)),
                (n, Some(n / 2)),
                "in '{}'",
                names[i]
            );
        }
        Ok(())
    })?;
    let mut ids_seen = BTreeSet::new();
    for (log, name) in logs.iter().zip(names) {
        let head = log.head()?;
        assert_eq!(head.size, 12);
        ids_seen.insert(head.log);
        let events = log.all()?;
        assert!(
            events.iter().all(|e| e.event.id().starts_with(&format!("{name}/")) && Some(e.log) == head.log)
        );
        assert!(log.verify(None)?.is_ok());
    }
    assert_eq!(ids_seen.len(), 5, "every log has an id of its own");
    let mut sorted = names.map(str::to_owned);
    sorted.sort();
    assert_eq!(place.main().logs()?, sorted);
    Ok(())
}

fn the_log_main_reads_as_empty_before_its_first_append(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let head = log.head()?;
    assert_eq!((head.size, head.frames, head.recorded), (0, 0, None));
    assert_eq!(head.root, Tree::new().root(), "the root of the empty tree");
    for direction in [crate::Direction::Forward, crate::Direction::Backward] {
        let page = log.page(&Read { direction, ..Read::default() })?;
        assert!(page.events.is_empty() && page.damaged.is_empty());
        assert_eq!((page.next, page.size), (None, 0));
    }
    assert!(log.all_frames()?.is_empty());
    let report = log.verify(None)?;
    assert!(report.is_ok());
    assert_eq!((report.size, report.root), (0, Some(head.root)));
    let (usage, _) = scene.wait(log.store().examine(log.name()))?;
    assert_eq!((usage.events, usage.data_bytes), (0, 0));
    assert!(log.logs()?.is_empty(), "reading has made {:?}", log.logs()?);
    Ok(())
}

fn a_log_that_does_not_exist_is_named(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    place.main().append(event(0))?;
    let log = place.main().log_named("nowhere");
    let not_found = ErrorKind::NotFound;
    refused_naming(log.page(&Read::default()), not_found, &["'nowhere'"]);
    refused_naming(log.all(), not_found, &["'nowhere'"]);
    refused_naming(log.head(), not_found, &["'nowhere'"]);
    refused_naming(log.frames(0, 1), not_found, &["'nowhere'"]);
    refused_naming(log.verify(None), not_found, &["'nowhere'"]);
    refused_naming(log.promote(), not_found, &["'nowhere'"]);
    refused_naming(scene.wait(log.store().examine(log.name())), not_found, &["'nowhere'"]);
    assert_eq!(log.logs()?, ["main"]);
    Ok(())
}

fn a_refused_first_append_makes_no_log(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main().log_named("new");
    refused(log.append(Append::new([])), ErrorKind::Invalid);
    refused(log.append(on(&"s".repeat(513), "x")), ErrorKind::LimitExceeded);
    refused(log.append(Append::from(event("x")).when(Condition::stream_at("s", 0))), ErrorKind::Conflict);
    assert!(log.logs()?.is_empty(), "{:?}", log.logs()?);
    refused(log.head(), ErrorKind::NotFound);
    assert_eq!(log.append(event("x"))?.events[0].position.0, 0);
    assert_eq!(log.logs()?, ["new"]);
    Ok(())
}

fn concurrent_first_appends_make_one_log(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    for round in 0..5 {
        let log = place.main().log_named(&format!("log-{round}"));
        let mut positions = together(6, |thread| Ok(log.append(event(thread))?.events[0].position.0))?;
        positions.sort_unstable();
        assert_eq!(positions, [0, 1, 2, 3, 4, 5]);
        let ids: BTreeSet<_> = log.all()?.iter().map(|e| e.log).collect();
        assert_eq!(ids.len(), 1, "one log, one id");
        let winner = Append::from(event("new")).when(Condition::stream_is_new("s"));
        log.append(winner)?;
    }
    Ok(())
}

fn all_logs_are_there_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let names = ["a", "b", "c"];
    for round in 0..3_u64 {
        let log = if round == 0 { place.main() } else { place.reopen()? };
        for name in names {
            let log = log.log_named(name);
            let receipt = log.append(on("s", round))?.events[0];
            assert_eq!(
                (receipt.position.0, receipt.version.map(|v| v.0)),
                (round, Some(round)),
                "in '{name}'"
            );
        }
        assert_eq!(log.logs()?, names);
    }
    for name in names {
        assert!(place.main().log_named(name).verify(None)?.is_ok());
    }
    Ok(())
}

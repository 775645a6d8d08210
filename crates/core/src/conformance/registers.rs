//! Promise 11: registers are set by compare-and-swap, and are durable.

use super::Unable;
use super::support::*;
use crate::error::ErrorKind;
use crate::store::{ExpectedRegister, Register};

tests! {
    [11] => a_register_is_absent_until_it_is_set,
    [11] => a_register_is_set_only_as_expected,
    [11] => concurrent_increments_all_count,
    [11] => of_concurrent_first_sets_exactly_one_wins,
    [11, 12] => a_register_never_goes_back,
    [11] => registers_do_not_touch_each_other_or_the_log,
    [11] => registers_hold_any_bytes,
    [11, 1] => registers_are_there_after_reopening,
    [11, 1] => registers_survive_the_death_of_the_process,
    [11] => registers_are_not_copied_with_a_log,
}

use ExpectedRegister::{Absent, Revision};

fn a_register_is_absent_until_it_is_set(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let name = register_name("cursor/a");
    assert_eq!(log.register(&name)?, None);
    let set = log.set_register(&name, Absent, "value")?;
    assert_eq!(set, Register { value: "value".into(), revision: 1 });
    assert_eq!(log.register(&name)?, Some(set));
    assert_eq!(log.register(&register_name("cursor/b"))?, None);
    Ok(())
}

fn a_register_is_set_only_as_expected(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let name = register_name("r");
    refused_naming(log.set_register(&name, Revision(1), "x"), ErrorKind::Conflict, &["'r'", "1"]);
    assert_eq!(log.register(&name)?, None, "a refused set makes no register");
    for revision in 1..6_u64 {
        let expected = if revision == 1 { Absent } else { Revision(revision - 1) };
        assert_eq!(log.set_register(&name, expected, revision.to_string())?.revision, revision);
        for wrong in [Absent, Revision(revision + 1), Revision(u64::MAX)] {
            refused(log.set_register(&name, wrong, "wrong"), ErrorKind::Conflict);
        }
        if revision > 1 {
            refused(log.set_register(&name, expected, "again"), ErrorKind::Conflict);
        }
        assert_eq!(log.register(&name)?, Some(Register { value: revision.to_string().into(), revision }));
    }
    // The same value is a set all the same.
    assert_eq!(log.set_register(&name, Revision(5), "5")?.revision, 6);
    Ok(())
}

/// Adds one to the number in a register, against others who do the same.
fn increment(log: &Handle<'_>, name: &str) -> Outcome {
    let name = register_name(name);
    loop {
        let (expected, value) = match log.register(&name)? {
            None => (Absent, 0),
            Some(Register { value, revision }) => {
                let text = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
                (
                    Revision(revision),
                    text.ok_or_else(|| Unable::Failed("the register holds no number".into()))?,
                )
            }
        };
        match log.set_register(&name, expected, (value + 1).to_string()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn concurrent_increments_all_count(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    together(6, |_| (0..15).try_for_each(|_| increment(&log, "counter")))?;
    let expected = Register { value: "90".into(), revision: 90 };
    assert_eq!(log.register(&register_name("counter"))?, Some(expected));
    Ok(())
}

fn of_concurrent_first_sets_exactly_one_wins(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for round in 0..10 {
        let name = register_name(&format!("lease/{round}"));
        let wins = together(6, |thread| match log.set_register(&name, Absent, thread.to_string()) {
            Ok(_) => Ok(Some(thread)),
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(None),
            Err(error) => Err(Unable::from(error)),
        })?;
        let winners: Vec<usize> = wins.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "winners of round {round}");
        let value = log.register(&name)?.map(|r| r.value);
        assert_eq!(value, Some(winners[0].to_string().into()), "the value is the winner's");
    }
    Ok(())
}

fn a_register_never_goes_back(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let name = register_name("counter");
    beside(
        3,
        |_| (0..15).try_for_each(|_| increment(&log, "counter")),
        2,
        |_, running| {
            let mut seen = 0;
            loop {
                let last_round = !running.still();
                let Register { value, revision } =
                    log.register(&name)?.unwrap_or(Register { value: "0".into(), revision: 0 });
                assert_eq!(value, revision.to_string(), "value and revision belong together");
                assert!(revision >= seen, "revision {revision} after {seen}");
                seen = revision;
                if last_round {
                    assert_eq!(seen, 45);
                    return Ok(());
                }
            }
        },
    )
}

fn registers_do_not_touch_each_other_or_the_log(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(2)?;
    let head = log.head()?;
    let names: Vec<_> =
        ["a", "a/b", "a.b", "a-b", "a_b", "ab", "0", "main", "a/"].map(register_name).to_vec();
    for (i, name) in names.iter().enumerate() {
        log.set_register(name, Absent, i.to_string())?;
    }
    for (i, name) in names.iter().enumerate() {
        assert_eq!(log.register(name)?, Some(Register { value: i.to_string().into(), revision: 1 }));
    }
    assert_eq!(log.head()?, head, "registers are not events");
    assert_eq!(log.logs()?, ["main"], "nor logs");
    Ok(())
}

fn registers_hold_any_bytes(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let every_byte: Vec<u8> = (0..=255).collect();
    for (i, value) in [vec![], vec![0; 600], every_byte, b"\"quoted\"\r\n".to_vec()].into_iter().enumerate() {
        let name = register_name(&format!("r{i}"));
        log.set_register(&name, Absent, value.clone())?;
        assert_eq!(log.register(&name)?, Some(Register { value: value.into(), revision: 1 }));
    }
    Ok(())
}

fn registers_are_there_after_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    kept(&place, |place| place.reopen())
}

fn registers_survive_the_death_of_the_process(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    kept(&place, |place| Ok(scene.handle(place.fixture.crash()?)))
}

fn kept<'a>(place: &Place<'a>, again: impl Fn(&Place<'a>) -> Result<Handle<'a>, Unable>) -> Outcome {
    for round in 0..3_u64 {
        let log = place.main();
        log.append(event(round))?;
        for i in 0..4 {
            let name = register_name(&format!("r{i}"));
            let expected = if round == 0 { Absent } else { Revision(round) };
            log.set_register(&name, expected, format!("{round}/{i}"))?;
        }
        let log = again(place)?;
        for i in 0..4 {
            let expected = Register { value: format!("{round}/{i}").into(), revision: round + 1 };
            assert_eq!(log.register(&register_name(&format!("r{i}")))?, Some(expected));
        }
        refused(log.set_register(&register_name("r0"), Absent, "x"), ErrorKind::Conflict);
    }
    Ok(())
}

fn registers_are_not_copied_with_a_log(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(3)?;
    log.set_register(&register_name("lease"), Absent, "mine")?;
    let target = scene.create()?.main();
    target.put_frames(log.all_frames()?)?;
    assert_eq!(target.register(&register_name("lease"))?, None);
    Ok(())
}

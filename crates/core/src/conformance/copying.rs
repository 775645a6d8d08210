//! Copying a log keeps its history what it was: promises 3, 5, 9 and 11 for frames that come from elsewhere.

use std::sync::Arc;

use super::support::*;
use crate::error::ErrorKind;
use crate::frame::{Chained, Frame, FrameBuilder};
use crate::ids::{Hash, Position};
use crate::memory::MemoryStore;
use crate::query::Condition;
use crate::store::{Append, ExpectedRegister, Status};
use crate::tree::{Tree, leaf_hash};
use crate::verify::Verifier;

tests! {
    [3, 9] => frames_hold_the_log_in_order_and_chain_up,
    [3] => a_copy_has_the_same_events_and_the_same_root,
    [3] => a_copy_made_in_pieces_is_the_same_copy,
    [3, 6] => a_copy_is_read_only_until_it_is_promoted,
    [3, 5] => a_promoted_copy_goes_on_where_the_original_was,
    [3] => frames_that_are_already_there_are_passed_over,
    [3, 9] => a_fork_is_refused,
    [9] => a_tampered_frame_is_refused,
    [9, 2] => a_frame_that_does_not_follow_is_refused,
    [9] => a_refused_frame_makes_no_log,
    [6] => frames_cannot_be_added_to_a_log_of_its_own,
    [1, 3] => a_copy_is_still_a_copy_after_reopening,
    [7] => a_copy_can_be_followed_while_it_grows,
}

/// Fills a log with events of all kinds, in several frames.
fn filled(log: &Handle<'_>, frames: usize) -> Outcome {
    for i in 0..frames {
        let batch = (0..=i % 4).map(|k| {
            let event = builder(format!("{i}/{k}")).stream(format!("s{k}")).tag("k", &k.to_string());
            built(if k == 2 { event } else { event.data(vec![i as u8; i * 40]) })
        });
        log.append(Append::new(batch))?;
    }
    Ok(())
}

fn same(one: &Handle<'_>, other: &Handle<'_>) -> Outcome {
    assert_eq!(one.head()?, other.head()?);
    assert!(one.all()? == other.all()?, "the events differ");
    assert_eq!(one.read(in_stream("s1"))?, other.read(in_stream("s1"))?);
    let (a, b) = (one.verify(None)?, other.verify(None)?);
    assert!(a.is_ok() && b.is_ok(), "{:?} {:?}", a.problems, b.problems);
    assert_eq!(a.root, b.root);
    Ok(())
}

fn in_memory<'a>(scene: &'a Scene<'a>) -> Handle<'a> {
    scene.handle(Arc::new(MemoryStore::new()))
}

fn frames_hold_the_log_in_order_and_chain_up(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    assert!(log.frames(0, 1 << 20)?.is_empty(), "an empty log has no frames");
    filled(&log, 20)?;
    let head = log.head()?;
    let frames = log.all_frames()?;
    assert_eq!(frames.len() as u64, head.frames);
    let mut verifier = Verifier::new(None);
    let (mut previous, mut first) = (Hash::ZERO, 0);
    for (i, frame) in frames.iter().enumerate() {
        let chained = frame.chained();
        assert_eq!((chained.sequence, chained.first.0, chained.previous), (i as u64, first, previous));
        (previous, first) = (chained.hash(), chained.tree_size());
        verifier.frame(frame, None);
    }
    let report = verifier.finish();
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!((report.size, report.root), (head.size, Some(head.root)));
    let mut events = Vec::new();
    for frame in &frames {
        for i in 0..frame.len() {
            events.push(frame.event(i)?.decode()?);
        }
    }
    assert!(events == log.all()?, "frames and reads hold the same events");
    for from in 0..frames.len() as u64 {
        let one = log.frames(from, 1)?;
        assert_eq!(
            one.first().map(|f| f.chained().sequence),
            Some(from),
            "at least one frame, if there is one"
        );
    }
    assert!(log.frames(frames.len() as u64, 1 << 20)?.is_empty());
    assert!(log.frames(u64::MAX, 1 << 20)?.is_empty());
    Ok(())
}

fn a_copy_has_the_same_events_and_the_same_root<'a>(scene: &'a Scene<'a>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    filled(&log, 25)?;
    let (memory, other) = (in_memory(scene), scene.create()?);
    memory.put_frames(log.all_frames()?)?;
    same(&log, &memory)?;
    // And back, under another name.
    let copy = other.main().log_named("copy");
    let head = copy.put_frames(memory.all_frames()?)?;
    assert_eq!(head, log.head()?);
    same(&log, &copy)?;
    assert_eq!(copy.logs()?, ["copy"]);
    Ok(())
}

fn a_copy_made_in_pieces_is_the_same_copy(scene: &Scene<'_>) -> Outcome {
    let (place, other) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), other.main());
    for round in 0..4 {
        for i in 0..5 {
            log.append(Append::new((0..=i).map(|k| on(&format!("s{k}"), format!("{round}/{i}/{k}")))))?;
        }
        let mut from = if round == 0 { 0 } else { copy.head()?.frames };
        loop {
            let frames = log.frames(from, 2_000)?;
            if frames.is_empty() {
                break;
            }
            from += frames.len() as u64;
            copy.put_frames(frames)?;
        }
        same(&log, &copy)?;
    }
    Ok(())
}

fn a_copy_is_read_only_until_it_is_promoted(scene: &Scene<'_>) -> Outcome {
    let (place, other) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), other.main().log_named("copy"));
    filled(&log, 5)?;
    copy.put_frames(log.all_frames()?)?;
    let head = copy.head()?;
    refused_naming(copy.append(event("x")), ErrorKind::ReadOnly, &["'copy'"]);
    assert_eq!(copy.head()?, head);
    // Other logs of the store, and its registers, can be written.
    copy.log_named("own").append(event("x"))?;
    copy.set_register(&register_name("r"), ExpectedRegister::Absent, "x")?;
    copy.promote()?;
    assert_eq!(copy.append(event("x"))?.events[0].position, Position(head.size));
    Ok(())
}

fn a_promoted_copy_goes_on_where_the_original_was(scene: &Scene<'_>) -> Outcome {
    let (place, other) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), other.main());
    filled(&log, 9)?;
    copy.put_frames(log.all_frames()?)?;
    copy.promote()?;
    let last = log.read(in_stream("s0"))?.len() as u64 - 1;
    let first = log.all()?[0].event.clone();
    assert_eq!(receipts(&copy.append(first)?), [(0, Some(0), Status::Existing)], "keys are known");
    refused(
        copy.append(Append::from(event("x")).when(Condition::stream_at("s0", last + 1))),
        ErrorKind::Conflict,
    );
    let appended = copy.append(Append::from(on("s0", "x")).when(Condition::stream_at("s0", last)))?;
    assert_eq!(receipts(&appended), [(log.size()?, Some(last + 1), Status::Recorded)]);
    assert!(copy.verify(None)?.is_ok());
    Ok(())
}

fn frames_that_are_already_there_are_passed_over(scene: &Scene<'_>) -> Outcome {
    let (place, other) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), other.main());
    filled(&log, 8)?;
    let frames = log.all_frames()?;
    copy.put_frames(frames[..5].to_vec())?;
    copy.put_frames(frames[..5].to_vec())?;
    copy.put_frames(frames[2..3].to_vec())?;
    assert_eq!(copy.head()?.frames, 5);
    copy.put_frames(frames.clone())?;
    same(&log, &copy)?;
    // Putting them where they came from changes nothing either.
    let head = log.head()?;
    assert_eq!(log.put_frames(frames)?, head);
    log.append(event("it can still be written"))?;
    Ok(())
}

fn a_fork_is_refused(scene: &Scene<'_>) -> Outcome {
    let (one, two, target) = (scene.create()?, scene.create()?, scene.create()?);
    let (one, two, copy) = (one.main(), two.main(), target.main());
    filled(&one, 4)?;
    filled(&two, 6)?;
    copy.put_frames(one.all_frames()?)?;
    let head = copy.head()?;
    refused(copy.put_frames(two.all_frames()?), ErrorKind::LogForked);
    assert_eq!(copy.head()?, head);
    // Two histories with one past.
    copy.promote()?;
    copy.append(event("here"))?;
    one.append(event("there"))?;
    let head = copy.head()?;
    refused(copy.put_frames(one.all_frames()?), ErrorKind::LogForked);
    assert_eq!(copy.head()?, head);
    assert!(copy.verify(None)?.is_ok());
    Ok(())
}

/// A frame as the original is, but for what `change` does to the stored bytes of its events and to the header.
/// Checksums are made anew, as somebody would who wants to be believed.
fn forged(
    original: &Frame,
    events: impl Fn(usize, &mut Vec<u8>, &mut Vec<u8>),
    header: impl Fn(&mut Chained, Hash),
    before: &Tree,
) -> Result<Frame, super::Unable> {
    let mut builder = FrameBuilder::default();
    let mut tree = before.clone();
    for i in 0..original.len() {
        let stored = original.event(i)?;
        let (mut entry, mut parts) = (stored.entry.to_vec(), stored.parts.to_vec());
        events(i, &mut entry, &mut parts);
        tree.push(leaf_hash(&entry));
        builder.push_stored(&entry, &parts);
    }
    let mut chained = original.chained().clone();
    header(&mut chained, tree.root());
    Ok(Frame::decode(builder.encode(&chained, None).into())?)
}

fn a_tampered_frame_is_refused(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), target.main());
    log.append(Append::new([event("before")]))?;
    let before = log.all()?.iter().fold(Tree::new(), |mut tree, e| {
        tree.push(e.leaf());
        tree
    });
    log.append(Append::new([on("s", 0), built(builder("data").data("the loan is denied")), on("s", 2)]))?;
    let frames = log.all_frames()?;
    copy.put_frames(frames[..1].to_vec())?;
    let head = copy.head()?;
    let keep = |_: usize, _: &mut Vec<u8>, _: &mut Vec<u8>| {};
    let same_header = |_: &mut Chained, _: Hash| {};
    let flip_last = |bytes: &mut Vec<u8>| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
    };
    let replace = |bytes: &mut Vec<u8>, what: &[u8], with: &[u8]| {
        let at = bytes.windows(what.len()).position(|w| w == what);
        let at = at.expect("the bytes to be replaced are there");
        bytes[at..at + with.len()].copy_from_slice(with);
    };
    let data = |i: usize, _: &mut Vec<u8>, parts: &mut Vec<u8>| {
        if i == 1 {
            flip_last(parts)
        }
    };
    let envelope = |i: usize, entry: &mut Vec<u8>, _: &mut Vec<u8>| {
        if i == 1 {
            replace(entry, b"test.happened", b"test.hAppened");
        }
    };
    let new_root = |chained: &mut Chained, root: Hash| chained.root = root;
    let forgeries = [
        ("other data under the same commitment", forged(&frames[1], data, same_header, &before)?),
        ("another envelope under the same root", forged(&frames[1], envelope, same_header, &before)?),
        (
            "another root over the same entries",
            forged(&frames[1], keep, |c, _| c.root = Hash([7; 32]), &before)?,
        ),
        ("events without their data", forged(&frames[1], |_, _, parts| parts.clear(), same_header, &before)?),
        (
            "entries of another position",
            forged(
                &frames[1],
                |i, entry, _| {
                    if i == 0 {
                        replace(entry, &[2, 1, 3], &[2, 9, 3])
                    }
                },
                new_root,
                &before,
            )?,
        ),
    ];
    for (what, frame) in forgeries {
        let error = refused_as(copy.put_frames(vec![frame]), what);
        assert!([ErrorKind::Damaged, ErrorKind::LogForked].contains(&error.kind()), "{what}: {error:?}");
        assert_eq!(copy.head()?, head, "{what} left something behind");
    }
    copy.put_frames(frames[1..].to_vec())?;
    same(&log, &copy)
}

fn refused_as(result: Result<crate::Head, crate::Error>, what: &str) -> crate::Error {
    match result {
        Ok(head) => panic!("{what} was taken: {head:?}"),
        Err(error) => error,
    }
}

fn a_frame_that_does_not_follow_is_refused(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), target.main());
    filled(&log, 6)?;
    let frames = log.all_frames()?;
    copy.put_frames(frames[..2].to_vec())?;
    let head = copy.head()?;
    let error = refused_as(copy.put_frames(frames[3..].to_vec()), "a gap");
    assert!([ErrorKind::Damaged, ErrorKind::LogForked].contains(&error.kind()), "{error:?}");
    assert_eq!(copy.head()?, head);
    let elsewhere = forged(&frames[2], |_, _, _| {}, |c, _| c.previous = Hash([3; 32]), &Tree::new())?;
    let error = refused_as(copy.put_frames(vec![elsewhere]), "another chain");
    assert!([ErrorKind::Damaged, ErrorKind::LogForked].contains(&error.kind()), "{error:?}");
    copy.put_frames(frames[2..].to_vec())?;
    same(&log, &copy)
}

fn a_refused_frame_makes_no_log(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), target.main().log_named("copy"));
    filled(&log, 3)?;
    refused_as(copy.put_frames(log.all_frames()?[1..].to_vec()), "frames without their beginning");
    assert!(copy.logs()?.is_empty(), "{:?}", copy.logs()?);
    refused_naming(copy.head(), ErrorKind::NotFound, &["copy"]);
    copy.append(event(0))?;
    Ok(())
}

fn frames_cannot_be_added_to_a_log_of_its_own(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let (log, own) = (place.main(), target.main());
    filled(&log, 4)?;
    own.append(event("mine"))?;
    let head = own.head()?;
    let error = refused_as(own.put_frames(log.all_frames()?), "the frames of another log");
    assert!([ErrorKind::ReadOnly, ErrorKind::LogForked].contains(&error.kind()), "{error:?}");
    // Nor can those a promoted copy has not seen.
    let promoted = target.main().log_named("promoted");
    promoted.put_frames(log.all_frames()?)?;
    promoted.promote()?;
    log.append(event("later"))?;
    let error = refused_as(promoted.put_frames(log.all_frames()?), "frames for a promoted copy");
    assert!([ErrorKind::ReadOnly, ErrorKind::LogForked].contains(&error.kind()), "{error:?}");
    assert_eq!(own.head()?, head);
    Ok(())
}

fn a_copy_is_still_a_copy_after_reopening(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let log = place.main();
    filled(&log, 6)?;
    let frames = log.all_frames()?;
    target.main().put_frames(frames[..4].to_vec())?;
    let copy = target.reopen()?;
    refused(copy.append(event("x")), ErrorKind::ReadOnly);
    copy.put_frames(frames)?;
    same(&log, &copy)?;
    copy.promote()?;
    let copy = target.reopen()?;
    copy.append(event("x"))?;
    Ok(())
}

fn a_copy_can_be_followed_while_it_grows(scene: &Scene<'_>) -> Outcome {
    let (place, target) = (scene.create()?, scene.create()?);
    let (log, copy) = (place.main(), target.main());
    filled(&log, 10)?;
    let size = log.size()? as usize;
    let seen = together(3, |thread| {
        if thread > 0 {
            return Ok(copy.follow(crate::Read::default(), size)?);
        }
        for frame in log.all_frames()? {
            copy.put_frames(vec![frame])?;
        }
        Ok(Vec::new())
    })?;
    let all = log.all()?;
    assert!(seen[1] == all && seen[2] == all);
    Ok(())
}

//! Promise 10: limits are declared, checked before anything is written, and named with both numbers.

use super::support::*;
use crate::entry::EncodedEnvelope;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Tag};
use crate::frame::OVERHEAD_BYTES_MAX;
use crate::ids::{LogName, Position, Time};
use crate::limits::Limits;
use crate::prepared::Prepared;
use crate::query::{Condition, IndexedAttribute, Query, QueryItem};
use crate::store::{Append, Appended, ExpectedRegister, Read, RegisterName};

tests! {
    [10] => names_can_be_as_long_as_declared_and_no_longer,
    [10] => data_can_be_as_large_as_declared_and_no_larger,
    [10] => an_envelope_can_be_as_large_as_declared_and_no_larger,
    [10] => a_batch_can_hold_as_many_events_as_declared_and_no_more,
    [10] => a_batch_can_hold_as_many_bytes_as_declared_and_no_more,
    [10] => an_event_can_have_as_many_tags_as_declared_and_no_more,
    [10] => as_many_conditions_as_declared_can_be_given_and_no_more,
    [10] => queries_can_be_as_large_as_declared_and_no_larger,
    [10, 11] => registers_can_be_as_large_as_declared_and_no_larger,
    [10] => types_of_the_log_itself_are_refused,
    [10] => an_append_without_events_is_refused,
    [10] => reads_nobody_could_mean_are_refused,
    [10] => positions_that_are_not_in_the_log_are_named,
    [10] => every_store_accepts_what_every_other_accepts,
}

/// Where what a limit allows is tried, and what it does not allow.
struct Edge<'a> {
    log: Handle<'a>,
    limits: Limits,
}

impl<'a> Edge<'a> {
    fn new(place: &Place<'a>) -> Self {
        let log = place.main();
        let limits = log.store().limits();
        Self { log, limits }
    }

    #[track_caller]
    fn accepts(&self, append: impl Into<Append>) -> Result<Appended, super::Unable> {
        let append = append.into();
        let (count, before) = (append.events.len() as u64, self.log.size()?);
        let appended = self.log.append(append)?;
        assert_eq!(self.log.size()?, before + count);
        Ok(appended)
    }

    /// The append is refused, both numbers are named, and the log is as it was.
    #[track_caller]
    fn refuses(&self, append: impl Into<Append>, actual: u64, limit: u64) -> Outcome {
        let before = self.log.head()?;
        self.named(self.log.append(append), actual, limit);
        assert_eq!(self.log.head()?, before, "something was written");
        Ok(())
    }

    #[track_caller]
    fn named<T: std::fmt::Debug>(&self, result: Result<T, Error>, actual: u64, limit: u64) {
        refused_naming(result, ErrorKind::LimitExceeded, &[&actual.to_string(), &limit.to_string()]);
    }
}

fn names_can_be_as_long_as_declared_and_no_longer(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let Limits { name_bytes_max, source_bytes_max, .. } = edge.limits;
    let (name, source) = (name_bytes_max as usize, source_bytes_max as usize);
    let of = |source: String, id: String, event_type: String, stream: String| {
        built(Event::builder(source, id, event_type).stream(stream))
    };
    let s = |len: usize| "x".repeat(len);
    let sent = [
        of(s(source), "1".into(), "t".into(), "s".into()),
        of("s".into(), s(name), "t".into(), "s".into()),
        of("s".into(), "2".into(), s(name), "s".into()),
        of("s".into(), "3".into(), "t".into(), s(name)),
        // Bytes count, not characters.
        of("s".into(), "ä".repeat(name / 2), "t".into(), "ä".repeat(name / 2)),
    ];
    for event in &sent {
        edge.accepts(event.clone())?;
    }
    assert!(edge.log.all()?.iter().map(|e| &e.event).eq(&sent), "they come back as they were sent");
    assert_eq!(edge.log.read(in_stream(&s(name)))?.len(), 1);
    let (name_max, source_max) = (name_bytes_max, source_bytes_max);
    edge.refuses(of(s(source + 1), "1".into(), "t".into(), "s".into()), source_max + 1, source_max)?;
    edge.refuses(of("s".into(), s(name + 1), "t".into(), "s".into()), name_max + 1, name_max)?;
    edge.refuses(of("s".into(), "4".into(), s(name + 1), "s".into()), name_max + 1, name_max)?;
    edge.refuses(of("s".into(), "4".into(), "t".into(), s(name + 1)), name_max + 1, name_max)?;
    edge.refuses(of("s".into(), "ä".repeat(name / 2 + 1), "t".into(), "s".into()), name_max + 2, name_max)?;
    Ok(())
}

fn data_can_be_as_large_as_declared_and_no_larger(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.data_bytes_max;
    let data = vec![b'x'; max as usize + 1];
    let with = |id: u32, len: u64| {
        built(builder(id).datacontenttype("text/plain").data(data[..len as usize].to_vec()))
    };
    edge.refuses(with(0, max + 1), max + 1, max)?;
    edge.accepts(with(1, max))?;
    let read = edge.log.all()?;
    assert!(read[0].event == with(1, max), "the data differs");
    Ok(())
}

fn an_envelope_can_be_as_large_as_declared_and_no_larger(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.entry_bytes_max as usize;
    let with = |id: u32, len: usize| built(builder(id).stream("s").attribute("long", "x".repeat(len)));
    let around = EncodedEnvelope::new(&with(0, 60_000), &[]).entry_bytes_max() - 60_000;
    let fits = max - around;
    edge.refuses(with(0, fits + 1), max as u64 + 1, max as u64)?;
    edge.accepts(with(1, fits))?;
    // With an event of the stream before it, which its entry names.
    edge.accepts(with(2, fits))?;
    edge.refuses(with(3, 1 << 20), (1 << 20) + around as u64 + 2, max as u64)?;
    assert!(edge.log.all()?.iter().all(|e| e.event.attribute("long").is_some_and(|v| v.len() == fits)));
    assert!(edge.log.verify(None)?.is_ok());
    Ok(())
}

fn a_batch_can_hold_as_many_events_as_declared_and_no_more(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.batch_events_max;
    let batch = |count: u64| Append::new((0..count).map(event));
    edge.refuses(batch(max + 1), max + 1, max)?;
    let appended = edge.accepts(batch(max))?;
    assert!(appended.events.iter().map(|e| e.position.0).eq(0..max));
    assert!(positions(&edge.log.all()?).into_iter().eq(0..max));
    Ok(())
}

fn a_batch_can_hold_as_many_bytes_as_declared_and_no_more(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.frame_bytes_max;
    let batch = |id: u32, len: usize| {
        let part = |half: u32, len: usize| {
            built(
                builder(format!("{id}/{half}"))
                    .datacontenttype("application/octet-stream")
                    .data(vec![half as u8; len]),
            )
        };
        Append::new([part(0, 2 << 20), part(1, len)])
    };
    let guess = 13 << 20;
    let around = Prepared::new(batch(1, guess), &edge.limits)?.bytes_max() - guess;
    let fits = max as usize - OVERHEAD_BYTES_MAX - around;
    edge.refuses(batch(1, fits + 1), max + 1, max)?;
    edge.accepts(batch(1, fits))?;
    let read = edge.log.all()?;
    assert!(read.iter().map(|e| &e.event).eq(&batch(1, fits).events), "they come back as they were sent");
    Ok(())
}

fn an_event_can_have_as_many_tags_as_declared_and_no_more(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let Limits { tags_max, tag_bytes_max, .. } = edge.limits;
    let with = |id: u32, count: u64| built(builder(id).tags((0..count).map(|i| tag(&format!("k{i}=v")))));
    edge.refuses(with(0, tags_max + 1), tags_max + 1, tags_max)?;
    edge.accepts(with(1, tags_max))?;
    let last = tag(&format!("k{}=v", tags_max - 1));
    assert_eq!(edge.log.read(Read::matching(Query::tags([last])))?.len(), 1);
    let long = |len: u64| format!("k={}", "v".repeat(len as usize - 2)).parse::<Tag>();
    edge.named(long(tag_bytes_max + 1), tag_bytes_max + 1, tag_bytes_max);
    let longest = long(tag_bytes_max)?;
    edge.accepts(built(builder(2).tags([longest.clone()])))?;
    assert_eq!(ids(&edge.log.read(Read::matching(Query::tags([longest])))?), ["2"]);
    Ok(())
}

fn as_many_conditions_as_declared_can_be_given_and_no_more(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.conditions_max;
    let under = |id: u32, count: u64| {
        (0..count)
            .fold(Append::from(event(id)), |append, i| append.when(Condition::stream_is_new(format!("s{i}"))))
    };
    edge.refuses(under(0, max + 1), max + 1, max)?;
    edge.accepts(under(1, max))?;
    edge.log.append(on(&format!("s{}", max - 1), "taken"))?;
    let error = refused(edge.log.append(under(2, max)), ErrorKind::Conflict);
    assert_eq!(error.conflicts()[0].index as u64, max - 1, "the last condition counts too");
    Ok(())
}

fn queries_can_be_as_large_as_declared_and_no_larger(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let Limits { query_items_max: max, name_bytes_max, .. } = edge.limits;
    edge.log
        .append(built(Event::builder(SOURCE, "0", "type-0").tags((0..8).map(|i| tag(&format!("k{i}=v"))))))?;
    let stream_item = |i: u64| QueryItem { stream: Some(format!("s{i}")), ..QueryItem::default() };
    let items = |count: u64| Query { items: (0..count).map(stream_item).collect() };
    let types = |count: u64| Query {
        items: vec![QueryItem {
            types: (0..count).rev().map(|i| format!("type-{i}")).collect(),
            ..QueryItem::default()
        }],
    };
    let tags = |count: u64| Query::tags((0..count).map(|i| tag(&format!("k{}=v", i % 8))));
    for (query, found) in [(items(max), 0), (types(max), 1), (tags(max), 1)] {
        assert_eq!(edge.log.read(Read::matching(query.clone()))?.len(), found);
        let probe = Append::from(event("probe")).when(Condition::fail_if(query, Some(Position(0))));
        edge.log.append(probe)?;
    }
    for query in [items(max + 1), types(max + 1), tags(max + 1)] {
        edge.named(edge.log.page(&Read::matching(query.clone())), max + 1, max);
        edge.refuses(Append::from(event("x")).when(Condition::fail_if(query, None)), max + 1, max)?;
    }
    let name = |len: u64| "x".repeat(len as usize);
    for query in [Query::stream(name(name_bytes_max + 1)), Query::event_type(name(name_bytes_max + 1))] {
        edge.named(edge.log.page(&Read::matching(query)), name_bytes_max + 1, name_bytes_max);
    }
    let long = Append::from(event("x")).when(Condition::stream_is_new(name(name_bytes_max + 1)));
    edge.refuses(long, name_bytes_max + 1, name_bytes_max)?;
    assert!(edge.log.read(in_stream(&name(name_bytes_max)))?.is_empty());
    Ok(())
}

fn registers_can_be_as_large_as_declared_and_no_larger(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let edge = Edge::new(&place);
    let max = edge.limits.register_bytes_max;
    let name = register_name("r");
    let value = |len: u64| vec![0xfe; len as usize];
    edge.named(edge.log.set_register(&name, ExpectedRegister::Absent, value(max + 1)), max + 1, max);
    assert_eq!(edge.log.register(&name)?, None);
    let set = edge.log.set_register(&name, ExpectedRegister::Absent, value(max))?;
    edge.named(edge.log.set_register(&name, ExpectedRegister::Revision(1), value(max + 1)), max + 1, max);
    assert_eq!(edge.log.register(&name)?, Some(set));
    let longest = register_name(&"r".repeat(128));
    edge.log.set_register(&longest, ExpectedRegister::Absent, "x")?;
    assert!(edge.log.register(&longest)?.is_some());
    for bad in ["", "/a", "-a", ".", "A", "a b", "ä", &"r".repeat(129)] {
        refused(bad.parse::<RegisterName>(), ErrorKind::Invalid);
    }
    for bad in ["", ".", "..", "a/b", "A", "ä", &"l".repeat(64)] {
        refused(bad.parse::<LogName>(), ErrorKind::Invalid);
    }
    Ok(())
}

fn types_of_the_log_itself_are_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    for event_type in ["~", "~precedent.checkpoint"] {
        let append = Append::new([event(0), built(Event::builder(SOURCE, "1", event_type))]);
        refused_naming(log.append(append), ErrorKind::Invalid, &["~", "reserved"]);
    }
    log.append(built(Event::builder(SOURCE, "2", "a~b")))?;
    assert_eq!(log.size()?, 1);
    Ok(())
}

fn an_append_without_events_is_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    refused(log.append(Append::new([])), ErrorKind::Invalid);
    refused(log.append(Append::new([]).when(Condition::stream_is_new("s"))), ErrorKind::Invalid);
    assert_eq!(log.size()?, 0);
    Ok(())
}

fn reads_nobody_could_mean_are_refused(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    log.fill(5)?;
    let with = |query: Query| Read::matching(query);
    let item = QueryItem::default;
    let at = |s: u64| Time::from_micros(1_800_000_000_000_000 + s * 1_000_000);
    let bad = [
        with(Query { items: vec![item()] }),
        with(Query { items: vec![QueryItem { stream: Some("s".into()), ..item() }, item()] }),
        with(Query::stream("")),
        with(Query::event_type("")),
        with(Query {
            items: vec![QueryItem {
                attributes: vec![(IndexedAttribute::DecisionId, String::new())],
                ..item()
            }],
        }),
        Read { after: Some(Position(3)), before: Some(Position(3)), ..Read::default() },
        Read { after: Some(Position(3)), before: Some(Position(1)), ..Read::default() },
        Read { since: Some(at(1)?), until: Some(at(1)?), ..Read::default() },
        Read { since: Some(at(2)?), until: Some(at(1)?), ..Read::default() },
        Read { limit: Some(0), ..Read::default() },
    ];
    for read in &bad {
        refused(log.page(read), ErrorKind::Invalid);
        refused(log.read(read.clone()), ErrorKind::Invalid);
        let append = Append::from(event("x")).when(Condition::fail_if(read.query.clone(), None));
        if !read.query.items.is_empty() {
            refused_naming(log.append(append), ErrorKind::Invalid, &["condition 0"]);
        }
    }
    refused(log.append(Append::from(event("x")).when(Condition::stream_is_new(""))), ErrorKind::Invalid);
    // What is odd and still means something.
    let between = Read { after: Some(Position(2)), before: Some(Position(3)), ..Read::default() };
    assert!(log.pages(between)?.is_empty());
    let all = Read { before: Some(Position(u64::MAX)), limit: Some(1_000_000), ..Read::default() };
    assert_eq!(log.pages(all)?.len(), 5);
    assert!(log.pages(Read { before: Some(Position(0)), ..Read::default() })?.is_empty());
    Ok(())
}

fn positions_that_are_not_in_the_log_are_named(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let after = |p: u64| Read { after: Some(Position(p)), ..Read::default() };
    refused_naming(log.page(&after(0)), ErrorKind::NotFound, &["position 0", "empty"]);
    log.fill(5)?;
    refused_naming(log.page(&after(5)), ErrorKind::NotFound, &["position 5", "5 events", "0 to 4"]);
    refused_naming(log.page(&after(u64::MAX)), ErrorKind::NotFound, &[&u64::MAX.to_string()]);
    let backward = Read { direction: crate::Direction::Backward, ..after(7) };
    refused_naming(log.page(&backward), ErrorKind::NotFound, &["position 7"]);
    assert!(log.page(&after(4))?.events.is_empty(), "behind the last event there is nothing yet");
    Ok(())
}

fn every_store_accepts_what_every_other_accepts(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let limits = place.main().store().limits();
    assert_eq!(limits, Limits::new(limits.durability), "any log can be copied to any store");
    Ok(())
}

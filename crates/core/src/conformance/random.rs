//! Random operations compared with a model that is as naive as can be: a list, and loops over it.
//!
//! The model is written from the promises alone and shares nothing with the stores, so that what they share among
//! each other (the sequencer, the query's `matches`) is tested too.

use super::Unable;
use super::support::*;
use crate::error::ErrorKind;
use crate::event::{AttributeValue, Event};
use crate::ids::{Position, Time};
use crate::query::{Condition, Direction, ExpectedVersion, IndexedAttribute, Query, QueryItem, TimeField};
use crate::store::{Append, Read, RecordedEvent, Status};
use crate::tree::Tree;

tests! {
    [3, 4, 5, 12] => a_naive_model_agrees_with_random_operations,
    [1, 3, 4, 5] => a_naive_model_agrees_across_reopening,
    [2, 3, 4, 5] => concurrent_random_operations_could_have_happened_one_after_the_other,
}

/// An event as the model knows it.
#[derive(Clone)]
struct Known {
    event: Event,
    version: Option<u64>,
    recorded: Option<Time>,
}

#[derive(Default, Clone)]
struct Model {
    events: Vec<Known>,
}

type Receipts = Vec<(u64, Option<u64>, Status)>;

/// How the model refuses: the kind, and what the conflicts have to be.
#[derive(Debug)]
enum Refusal {
    Invalid,
    /// A condition names a position beyond the log.
    NotFound,
    /// These conditions do not hold.
    Conflict(Vec<usize>),
    /// Index in the append, and position.
    AlreadyExists(Vec<(usize, u64)>),
}

fn same_fact(a: &Event, b: &Event) -> bool {
    let attributes = |e: &Event| {
        let kept = e.attributes().iter().filter(|(name, _)| *name != "traceparent" && *name != "tracestate");
        kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    (a.source(), a.id(), a.event_type(), a.stream(), a.time())
        == (b.source(), b.id(), b.event_type(), b.stream(), b.time())
        && (a.datacontenttype(), a.dataschema(), a.tags()) == (b.datacontenttype(), b.dataschema(), b.tags())
        && attributes(a) == attributes(b)
        && a.data() == b.data()
}

fn attribute_of(event: &Event, name: IndexedAttribute) -> Option<String> {
    let text = |name: &str| match event.attributes().get(name) {
        Some(AttributeValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match name {
        IndexedAttribute::DecisionId => text("decisionid"),
        IndexedAttribute::CorrelationId => text("correlationid"),
        IndexedAttribute::CausationId => text("causationid"),
        IndexedAttribute::TraceId => {
            text("traceparent").filter(|p| p.len() == 55).map(|p| p[3..35].to_owned())
        }
    }
}

fn matches(query: &Query, event: &Event) -> bool {
    if query.items.is_empty() {
        return true;
    }
    for item in &query.items {
        let mut all = item.types.is_empty();
        for t in &item.types {
            all |= t == event.event_type();
        }
        for t in &item.tags {
            all &= event.tags().iter().any(|other| other.as_str() == t.as_str());
        }
        if let Some(stream) = &item.stream {
            all &= event.stream() == Some(stream.as_str());
        }
        for (name, value) in &item.attributes {
            all &= attribute_of(event, *name).as_ref() == Some(value);
        }
        if all {
            return true;
        }
    }
    false
}

impl Model {
    fn position_of(&self, event: &Event) -> Option<usize> {
        self.events
            .iter()
            .position(|known| known.event.source() == event.source() && known.event.id() == event.id())
    }

    fn versions_in(&self, stream: &str) -> u64 {
        self.events.iter().filter(|known| known.event.stream() == Some(stream)).count() as u64
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Stream { expected: ExpectedVersion::Any, .. } => true,
            Condition::Stream { stream, expected: ExpectedVersion::None } => self.versions_in(stream) == 0,
            Condition::Stream { stream, expected: ExpectedVersion::Exact(version) } => {
                self.versions_in(stream) == version.0.saturating_add(1)
            }
            Condition::FailIf { query, after } => {
                let from = after.map_or(0, |after| after.0 as usize + 1);
                !self.events[from.min(self.events.len())..].iter().any(|known| matches(query, &known.event))
            }
        }
    }

    fn append(&mut self, append: &Append) -> Result<Receipts, Refusal> {
        for (i, event) in append.events.iter().enumerate() {
            for other in &append.events[..i] {
                let same_key = event.source() == other.source() && event.id() == other.id();
                if same_key && !same_fact(event, other) {
                    return Err(Refusal::Invalid);
                }
            }
        }
        let mut differing = Vec::new();
        let mut present = Vec::new();
        for (i, event) in append.events.iter().enumerate() {
            if let Some(at) = self.position_of(event) {
                present.push((i, at as u64));
                if !same_fact(&self.events[at].event, event) {
                    differing.push((i, at as u64));
                }
            }
        }
        if !differing.is_empty() {
            return Err(Refusal::AlreadyExists(differing));
        }
        if present.len() < append.events.len() && !append.conditions.is_empty() {
            if !present.is_empty() {
                return Err(Refusal::AlreadyExists(present));
            }
            let size = self.events.len() as u64;
            let beyond =
                |c: &Condition| matches!(c, Condition::FailIf { after: Some(after), .. } if after.0 >= size);
            let failing: Vec<usize> =
                (0..append.conditions.len()).filter(|i| !self.holds(&append.conditions[*i])).collect();
            let first_beyond = append.conditions.iter().position(beyond);
            match (first_beyond, failing.first()) {
                (Some(beyond), first) if first.is_none_or(|first| beyond < *first) => {
                    return Err(Refusal::NotFound);
                }
                (_, Some(_)) => return Err(Refusal::Conflict(failing)),
                _ => {}
            }
        }
        let mut receipts = Vec::new();
        for event in &append.events {
            if let Some(at) = self.position_of(event) {
                receipts.push((at as u64, self.events[at].version, Status::Existing));
                continue;
            }
            let version = event.stream().map(|stream| self.versions_in(stream));
            receipts.push((self.events.len() as u64, version, Status::Recorded));
            self.events.push(Known { event: event.clone(), version, recorded: None });
        }
        Ok(receipts)
    }

    fn read(&self, read: &Read) -> Vec<u64> {
        let in_time = |known: &Known| {
            if read.since.is_none() && read.until.is_none() {
                return true;
            }
            let time = match read.by {
                TimeField::Recorded => known.recorded,
                TimeField::Produced => known.event.time().and_then(|t| Time::parse(t).ok()),
            };
            time.is_some_and(|t| read.since.is_none_or(|s| s <= t) && read.until.is_none_or(|u| t < u))
        };
        let mut found = Vec::new();
        for (position, known) in self.events.iter().enumerate() {
            let position = position as u64;
            if read.after.is_none_or(|after| after.0 < position)
                && read.before.is_none_or(|before| position < before.0)
                && in_time(known)
                && matches(&read.query, &known.event)
            {
                found.push(position);
            }
        }
        if read.direction == Direction::Backward {
            found.reverse();
        }
        found
    }

    /// The whole log is what the model says, and the model learns when it was recorded.
    fn compare(&mut self, log: &Handle<'_>) -> Outcome {
        let events = log.all()?;
        assert_eq!(events.len(), self.events.len());
        let mut tree = Tree::new();
        let mut last = Time::default();
        for (i, (read, known)) in events.iter().zip(&mut self.events).enumerate() {
            assert_eq!(read.position.0, i as u64);
            assert_eq!(read.version.map(|v| v.0), known.version);
            assert_eq!(read.event, known.event);
            assert!(read.recorded >= last, "recorded times go forward");
            assert!(
                known.recorded.is_none_or(|before| before == read.recorded),
                "recorded once, and for ever"
            );
            last = read.recorded;
            known.recorded = Some(last);
            tree.push(read.leaf());
        }
        let head = log.head()?;
        assert_eq!((head.size, head.root), (tree.size(), tree.root()));
        Ok(())
    }
}

const STREAMS: [&str; 4] = ["s1", "s2", "loan/42", "ströme"];
const TYPES: [&str; 3] = ["ai.input.received", "ai.decision.made", "x"];
const TAGS: [&str; 5] = ["k=1", "k=2", "model=risk-7", "a=b=c", "k=1,2"];

fn random_event(chance: &mut Chance, ids: usize) -> Event {
    let id = chance.below(ids);
    // Mostly the content is a function of the key, so that retries occur; sometimes it is not.
    let mut content = Chance(id as u64);
    if chance.one_in(12) {
        content = Chance(chance.next());
    }
    let c = &mut content;
    let mut event = Event::builder(*c.pick(&["urn:a", "urn:b"]), id.to_string(), *c.pick(&TYPES));
    if !c.one_in(4) {
        event = event.stream(*c.pick(&STREAMS));
    }
    event = event.tags((0..c.below(3)).map(|_| tag(c.pick::<&str>(&TAGS))).collect::<Vec<_>>());
    if c.one_in(3) {
        event = event.attribute("decisionid", format!("d{}", c.below(4)));
    }
    if c.one_in(5) {
        event = event.attribute("correlationid", format!("d{}", c.below(4)));
    }
    if c.one_in(3) {
        event = event.time(format!("2026-01-01T00:00:{:02}Z", c.below(60)));
    }
    if !c.one_in(4) {
        let len = c.below(200);
        event = event.data(c.bytes(len)).datacontenttype("application/octet-stream");
    }
    if chance.one_in(4) {
        event =
            event.attribute("traceparent", format!("00-{:032x}-b7ad6b7169203331-01", 1 + chance.below(3)));
    }
    built(event)
}

fn random_query(chance: &mut Chance) -> Query {
    let mut items = Vec::new();
    for _ in 0..chance.below(3) {
        let mut item = QueryItem::default();
        for _ in 0..chance.below(3) {
            item.types.push((*chance.pick(&TYPES)).to_owned());
        }
        for _ in 0..chance.below(2) {
            item.tags.push(tag(chance.pick::<&str>(&TAGS)));
        }
        if chance.one_in(3) {
            item.stream = Some((*chance.pick(&STREAMS)).to_owned());
        }
        if chance.one_in(4) {
            let value = format!("d{}", chance.below(4));
            item.attributes.push((
                *chance.pick(&[IndexedAttribute::DecisionId, IndexedAttribute::CorrelationId]),
                value,
            ));
        }
        if chance.one_in(10) {
            item.attributes.push((IndexedAttribute::TraceId, format!("{:032x}", 1 + chance.below(3))));
        }
        if !item.is_empty() {
            items.push(item);
        }
    }
    Query { items }
}

fn random_append(chance: &mut Chance, ids: usize, size: usize) -> Append {
    let mut append =
        Append::new((0..1 + chance.below(4)).map(|_| random_event(chance, ids)).collect::<Vec<_>>());
    for _ in 0..chance.below(6).saturating_sub(3) {
        let near = (size + 1).saturating_sub(chance.below(12)) as u64;
        append.conditions.push(if chance.one_in(2) {
            let stream = (*chance.pick(&STREAMS)).to_owned();
            let expected = match chance.below(4) {
                0 => ExpectedVersion::Any,
                1 => ExpectedVersion::None,
                _ => ExpectedVersion::Exact(((size / 5).saturating_sub(chance.below(6)) as u64).into()),
            };
            Condition::Stream { stream, expected }
        } else {
            let after = (!chance.one_in(4)).then_some(Position(near));
            Condition::fail_if(random_query(chance), after)
        });
    }
    append
}

fn random_read(chance: &mut Chance, model: &Model) -> Read {
    let size = model.events.len();
    let mut read = Read { query: random_query(chance), ..Read::default() };
    if chance.one_in(2) {
        read.direction = Direction::Backward;
    }
    if chance.one_in(3) && size > 0 {
        read.after = Some(Position(chance.below(size) as u64));
    }
    if chance.one_in(3) {
        read.before = Some(Position(read.after.map_or(0, |a| a.0 + 1) + chance.below(size + 2) as u64));
    }
    if chance.one_in(3) {
        read.by = if chance.one_in(2) { TimeField::Recorded } else { TimeField::Produced };
        let mut times = Vec::new();
        for _ in 0..2 {
            let known = (size > 0).then(|| &model.events[chance.below(size)]);
            times.extend(known.and_then(|known| match read.by {
                TimeField::Recorded => known.recorded,
                TimeField::Produced => known.event.time().and_then(|t| Time::parse(t).ok()),
            }));
        }
        times.sort();
        times.dedup();
        let mut times = times.into_iter();
        if !chance.one_in(3) {
            read.since = times.next();
        }
        read.until = times.next();
    }
    if !chance.one_in(3) {
        read.limit = Some(1 + chance.below(20));
    }
    read
}

/// Appends to both, and holds the answers against each other.
fn append_to_both(log: &Handle<'_>, model: &mut Model, append: Append) -> Outcome {
    let before = model.clone();
    let expected = model.append(&append);
    let answer = log.append(append.clone());
    match (expected, answer) {
        (Ok(expected), Ok(answer)) => {
            assert_eq!(receipts(&answer), expected, "for {append:?}");
            assert!(answer.size <= model.events.len() as u64);
        }
        (Err(Refusal::Invalid), answer) => drop(refused(answer, ErrorKind::Invalid)),
        (Err(Refusal::NotFound), answer) => drop(refused(answer, ErrorKind::NotFound)),
        (Err(Refusal::AlreadyExists(expected)), answer) => {
            let error = refused(answer, ErrorKind::AlreadyExists);
            let named: Vec<_> =
                error.conflicts().iter().map(|c| (c.index, c.position.map_or(u64::MAX, |p| p.0))).collect();
            assert_eq!(named, expected);
        }
        (Err(Refusal::Conflict(failing)), answer) => {
            let error = refused(answer, ErrorKind::Conflict);
            let [conflict] = error.conflicts() else {
                panic!("one conflict is named: {:?}", error.conflicts())
            };
            assert!(failing.contains(&conflict.index), "condition {} holds", conflict.index);
            check_in_the_way(&before, &append.conditions[conflict.index], conflict.position);
        }
        (Ok(expected), Err(error)) => panic!("should be {expected:?}, but: {error:?}, for {append:?}"),
    }
    Ok(())
}

/// The event that a conflict names is in the way.
fn check_in_the_way(model: &Model, condition: &Condition, position: Option<Position>) {
    let named = position.and_then(|p| model.events.get(p.0 as usize));
    match condition {
        Condition::Stream { stream, .. } => {
            let last = model.events.iter().rposition(|known| known.event.stream() == Some(stream));
            assert_eq!(position.map(|p| p.0 as usize), last, "the last event of the stream is in the way");
        }
        Condition::FailIf { query, after } => {
            assert!(named.is_some_and(|known| matches(query, &known.event)), "it does not match");
            assert!(after.is_none_or(|after| position > Some(after)), "it is not behind the position");
        }
    }
}

fn a_naive_model_agrees_with_random_operations(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    random_operations(scene, 6, || Ok(place.main()))
}

fn a_naive_model_agrees_across_reopening(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    random_operations(scene, 6, || place.reopen())
}

fn random_operations<'a>(
    scene: &Scene<'_>,
    rounds: usize,
    handle: impl Fn() -> Result<Handle<'a>, Unable>,
) -> Outcome {
    let mut chance = scene.chance();
    let mut model = Model::default();
    for round in 1..=rounds {
        let log = handle()?;
        for _ in 0..60 {
            let append = random_append(&mut chance, round * 120, model.events.len());
            append_to_both(&log, &mut model, append)?;
        }
        model.compare(&log)?;
        for _ in 0..50 {
            let read = random_read(&mut chance, &model);
            let expected = model.read(&read);
            let mut by_pages = log.pages(read.clone())?;
            assert_eq!(positions(&by_pages), expected, "page by page: {read:?}");
            let streamed = log.read(read.clone())?;
            by_pages.truncate(read.limit.unwrap_or(usize::MAX));
            assert_eq!(streamed, by_pages, "as a stream: {read:?}");
        }
        assert!(log.verify(None)?.is_ok());
    }
    Ok(())
}

fn concurrent_random_operations_could_have_happened_one_after_the_other(scene: &Scene<'_>) -> Outcome {
    let place = scene.create()?;
    let log = place.main();
    let seed = scene.chance().next();
    let answers = together(5, |thread| {
        let mut chance = Chance(seed.wrapping_add(thread as u64));
        let mut done = Vec::new();
        for _ in 0..40 {
            let append = random_append(&mut chance, 300, log.size()? as usize);
            let size_before = log.size()?;
            let answer = log.append(append.clone());
            done.push((append, size_before, answer));
        }
        Ok(done)
    })?;
    let events = log.all()?;
    let mut recorded: Vec<(Receipts, Append)> = Vec::new();
    for (append, size_before, answer) in answers.into_iter().flatten() {
        match answer {
            Ok(answer) => {
                let receipts = receipts(&answer);
                for ((position, version, _), event) in receipts.iter().zip(&append.events) {
                    let there: &RecordedEvent = &events[*position as usize];
                    assert!(same_fact(&there.event, event), "position {position} holds another event");
                    assert_eq!(there.version.map(|v| v.0), *version);
                }
                recorded.push((receipts, append));
            }
            Err(error) => {
                assert!(!error.may_have_been_written(), "{error:?}");
                let size_after = events.len() as u64;
                let named = error.conflicts().iter().filter_map(|c| c.position);
                named
                    .for_each(|p| assert!(p.0 < size_after, "position {p} is in the way and not in the log"));
                let expected =
                    [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::AlreadyExists];
                assert!(expected.contains(&error.kind()), "{error:?} at a size of {size_before}");
            }
        }
    }
    // One after the other, in the order of what they recorded, the model gives every append the same answer.
    let first_new = |receipts: &Receipts| receipts.iter().find(|r| r.2 == Status::Recorded).map(|r| r.0);
    recorded.retain(|(receipts, _)| first_new(receipts).is_some());
    recorded.sort_by_key(|(receipts, _)| first_new(receipts));
    let mut model = Model::default();
    for (receipts, append) in &recorded {
        match model.append(append) {
            Ok(expected) => assert_eq!(*receipts, expected, "for {append:?}"),
            Err(refusal) => panic!("was recorded as {receipts:?}, but {refusal:?}: {append:?}"),
        }
    }
    model.compare(&log)
}

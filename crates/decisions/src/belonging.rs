//! What was said of a decision, found as a record finds it, within the bounds of a row.
//!
//! [`Belonging::of`] follows the same names in the same order as [`Gathered`](crate::gather::Gathered) - what names the key, then its
//! correlations, its traces and its streams - but keeps only the types a row tells of. [`keys_of`] goes the other way: from an
//! outcome that names no decision to those it may belong to; whoever calls it holds each against [`Belonging::of`].
//!
//! **Invariant.** What a row costs does not grow with the log: [`EVENTS`] of each name are read, of [`BYTES`] in all; beyond them
//! only events of the types a row tells of, as many again; and a row that is not all there says so.

use std::collections::{BTreeMap, BTreeSet};

use precedent_core::{Log, Page, Position, Query, QueryItem, Read, RecordedEvent, Result};

use crate::gather::{STREAM_EVENTS_MAX, Unreadable, both_ways, decision_of, not_of_another, pages, size_of};
use crate::key::{By, Key};
use crate::types;

/// Events that are read by one kind of name.
const EVENTS: usize = 64;
/// Bytes of them, near enough.
const BYTES: usize = 1 << 20;
/// Events of one read: most decisions have no more.
const PAGE_EVENTS: usize = 16;
/// Names of one kind that are followed.
const TERMS: usize = 16;
/// How often names lead from an outcome to further names.
const STEPS: usize = 3;

/// What belongs to one row.
pub(crate) struct Belonging {
    /// Events of the types that were asked for.
    pub(crate) events: BTreeMap<Position, RecordedEvent>,
    /// Whether more events name the key than were read.
    pub(crate) own_more: bool,
    /// Whether there may be more of those types, by the key or by another name.
    pub(crate) more: bool,
    /// Events that could not be read, and may be some of these.
    pub(crate) unreadable: Vec<Unreadable>,
    kinds: Vec<String>,
    before: Position,
    names: BTreeMap<By, BTreeSet<String>>,
    /// The last place of the decision's own in each of its streams: position and version.
    streams: BTreeMap<String, (Position, u64)>,
}

impl Belonging {
    /// What belongs to `key` of these types, before this position. `candidate` stands for the key of a position.
    pub(crate) async fn of(
        log: &Log,
        key: &Key,
        candidate: &RecordedEvent,
        kinds: Vec<String>,
        before: Position,
    ) -> Result<Self> {
        let mut all = Self {
            events: BTreeMap::new(),
            own_more: false,
            more: false,
            unreadable: Vec::new(),
            kinds,
            before,
            names: BTreeMap::new(),
            streams: BTreeMap::new(),
        };
        let Some(item) = key.item() else {
            all.events.insert(candidate.position, candidate.clone());
            return Ok(all);
        };
        // What names a decision is told in the row of that decision, whatever else it names.
        let mine: BTreeSet<String> =
            (key.by == By::Decision).then(|| key.value.clone()).into_iter().collect();
        all.own_more = all.take(log, vec![item], &mine).await?;
        all.more = all.own_more;
        for by in [By::Correlation, By::Trace] {
            let names = all.names.get(&by).cloned().unwrap_or_default();
            if by == key.by || names.is_empty() {
                continue;
            }
            all.more |= names.len() > TERMS;
            let items = names.into_iter().take(TERMS).filter_map(|name| Key::new(by, name).item()).collect();
            all.more |= all.take(log, items, &mine).await?;
        }
        let streams = std::mem::take(&mut all.streams);
        all.more |= streams.len() > TERMS;
        for (stream, (last, version)) in streams.into_iter().take(TERMS) {
            all.stream(log, &stream, last, version, &mine).await?;
        }
        Ok(all)
    }

    /// Reads what matches and belongs; answers whether there is more of the types that are kept.
    async fn take(&mut self, log: &Log, items: Vec<QueryItem>, mine: &BTreeSet<String>) -> Result<bool> {
        let (mut count, mut bytes) = (0, 0);
        let mut last = None;
        let read = Read {
            before: Some(self.before),
            limit: Some(PAGE_EVENTS),
            ..Read::matching(Query { items: items.clone() })
        };
        let left = pages(log, read, |page| {
            count += page.events.len();
            bytes += page.events.iter().map(size_of).sum::<usize>();
            last = page.events.last().map(|event| event.position).or(last);
            self.put(page, mine, |event| not_of_another(event, mine));
            count < EVENTS && bytes < BYTES
        })
        .await?;
        if left.is_none() {
            return Ok(false);
        }
        let kinds = || self.kinds.clone();
        let items = items.into_iter().map(|item| QueryItem { types: kinds(), ..item }).collect();
        let read = Read {
            after: last,
            before: Some(self.before),
            limit: Some(EVENTS),
            ..Read::matching(Query { items })
        };
        let mut count = 0;
        let left = pages(log, read, |page| {
            count += page.events.len();
            self.put(page, mine, |event| not_of_another(event, mine));
            count < EVENTS
        })
        .await?;
        Ok(left.is_some())
    }

    /// What was said in a stream of the decision and names no decision, as far around it as a record looks.
    async fn stream(
        &mut self,
        log: &Log,
        stream: &str,
        last: Position,
        version: u64,
        mine: &BTreeSet<String>,
    ) -> Result<()> {
        // Other decisions in the stream have rows of their own.
        let types = self.kinds.iter().filter(|kind| *kind != types::DECISION).cloned().collect();
        let item = QueryItem { types, stream: Some(stream.to_owned()), ..QueryItem::default() };
        let query = Query { items: vec![item] };
        for read in both_ways(last, self.before) {
            let read = Read { query: query.clone(), limit: Some(PAGE_EVENTS), ..read };
            let (mut count, mut beyond) = (0, false);
            let near = |event: &RecordedEvent| {
                event.version.is_some_and(|other| other.0.abs_diff(version) <= STREAM_EVENTS_MAX as u64)
            };
            let left = pages(log, read, |page| {
                count += page.events.len();
                beyond = page.events.last().is_some_and(|event| !near(event));
                self.put(page, mine, |event| near(event) && not_of_another(event, mine));
                count < EVENTS && !beyond
            })
            .await?;
            self.more |= left.is_some() && !beyond;
        }
        Ok(())
    }

    fn put(&mut self, page: Page, mine: &BTreeSet<String>, belongs: impl Fn(&RecordedEvent) -> bool) {
        self.unreadable.extend(page.damaged.into_iter().map(Unreadable::from));
        for event in page.events.into_iter().filter(belongs) {
            for key in Key::all_of(&event) {
                let names = self.names.entry(key.by).or_default();
                // One more than are followed, so that it can be said.
                if names.len() <= TERMS {
                    names.insert(key.value);
                }
            }
            let is_mine = decision_of(&event).is_some_and(|id| mine.contains(id));
            if let (Some(stream), Some(version), true) = (event.event.stream(), event.version, is_mine)
                && (self.streams.len() <= TERMS || self.streams.contains_key(stream))
            {
                self.streams.insert(stream.to_owned(), (event.position, version.0));
            }
            if self.kinds.iter().any(|kind| kind == event.event.event_type()) {
                self.events.insert(event.position, event);
            }
        }
    }
}

/// The rows that an outcome may be told in: that of the decision it names or, if it names none, those of decisions with a correlation,
/// a trace or a stream that lead from it to them. The nearest [`TERMS`] of each name are considered.
pub(crate) async fn keys_of(log: &Log, outcome: &RecordedEvent, before: Position) -> Result<BTreeSet<Key>> {
    if let Some(key) = Key::all_of(outcome).find(|key| key.by == By::Decision) {
        return Ok(BTreeSet::from([key]));
    }
    let mut keys = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut names: Vec<Key> = Key::all_of(outcome).collect();
    for step in 0..STEPS {
        names.retain(|name| seen.insert(name.clone()));
        names.truncate(TERMS);
        let (streams, linked): (Vec<Key>, Vec<Key>) = names.drain(..).partition(|name| name.by == By::Stream);
        let made = |item: QueryItem| QueryItem { types: vec![types::DECISION.to_owned()], ..item };
        let mut meet = |page: Page| {
            for event in &page.events {
                match Key::all_of(event).next() {
                    Some(key) if key.by == By::Decision => {
                        keys.insert(key);
                    }
                    Some(key) if event.event.event_type() == types::DECISION => {
                        keys.insert(key);
                        names.extend(Key::all_of(event));
                    }
                    _ => names.extend(Key::all_of(event)),
                }
            }
        };
        let items: Vec<QueryItem> = linked.iter().filter_map(Key::item).collect();
        if !items.is_empty() {
            let read = Read { before: Some(before), ..Read::default() };
            let decisions = items.iter().cloned().map(made).collect();
            near(log, read.clone(), decisions, TERMS, &mut meet).await?;
            near(log, read, items, EVENTS, &mut meet).await?;
        }
        // A stream can be the whole log: what is nearest to the outcome.
        let items: Vec<QueryItem> = streams.iter().filter_map(Key::item).collect();
        for read in both_ways(outcome.position, before).into_iter().filter(|_| !items.is_empty()) {
            let decisions = items.iter().cloned().map(made).collect();
            near(log, read.clone(), decisions, TERMS, &mut meet).await?;
            if step == 0 {
                near(log, read, items.clone(), EVENTS, &mut meet).await?;
            }
        }
    }
    Ok(keys)
}

/// Reads the first events that match, a bounded number of them.
async fn near(
    log: &Log,
    read: Read,
    items: Vec<QueryItem>,
    events_max: usize,
    each: &mut impl FnMut(Page),
) -> Result<()> {
    let (mut count, mut bytes) = (0, 0);
    let read = Read { query: Query { items }, limit: Some(PAGE_EVENTS.min(events_max)), ..read };
    pages(log, read, |page| {
        count += page.events.len();
        bytes += page.events.iter().map(size_of).sum::<usize>();
        each(page);
        count < events_max && bytes < BYTES
    })
    .await?;
    Ok(())
}

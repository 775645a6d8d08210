//! Finds the events of one key, and what belongs to them, within bounds.
//!
//! First the events that name the key itself. If they are those of one decision, then what names what *they* name and no
//! other decision: its correlations, its traces, and the streams it is in. Each event says by what it belongs.
//!
//! **Invariant.** Every read has the bound `before`: an event recorded later is neither found, nor counted, nor felt.

use std::collections::{BTreeMap, BTreeSet};

use precedent_core::{
    Direction, Error, Log, Page, Position, Query, QueryItem, Read, RecordedEvent, Result, Time,
};
use serde::Serialize;

use crate::key::{By, Key};

/// Bytes an event takes in memory, near enough.
pub(crate) fn size_of(event: &RecordedEvent) -> usize {
    2 * event.entry.len() + event.event.data().map_or(0, |data| data.len())
}

/// How much one record holds at most: what is beyond is named, and left out.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Events.
    pub events_max: usize,
    /// Bytes of them. The last event may go beyond it.
    pub bytes_max: usize,
    /// Events of a decision's stream that are looked at in each direction, since a stream can hold the whole log.
    pub stream_events_max: usize,
    /// Events of its correlations, and of its traces, that are looked at in each direction: a job can give all its decisions one.
    pub linked_events_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            events_max: 10_000,
            bytes_max: 256 << 20,
            stream_events_max: STREAM_EVENTS_MAX,
            linked_events_max: 10_000,
        }
    }
}

/// What [`Bounds::stream_events_max`] is unless said.
pub(crate) const STREAM_EVENTS_MAX: usize = 1_000;

/// Other decisions that are remembered; they are counted, and the first of them named.
const OTHERS_MAX: usize = 10_000;

/// Terms of one kind that are followed; a record that names more says so.
const TERMS_MAX: usize = 256;

/// Events a page asks for.
const PAGE_EVENTS: usize = 256;

/// An event that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Which.
    pub position: Position,
    /// What is wrong with it.
    pub detail: String,
}

impl From<precedent_core::Damage> for Unreadable {
    fn from(damage: precedent_core::Damage) -> Self {
        Self { position: damage.position, detail: damage.error.message().to_owned() }
    }
}

/// Something that was not looked through to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What.
    pub by: By,
    /// What of it is missing, and why.
    pub detail: String,
}

/// An event of a record.
#[derive(Debug, Clone)]
pub struct Member {
    /// The event.
    pub event: RecordedEvent,
    /// By what it belongs.
    pub by: By,
}

/// The events that belong together.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// By position.
    pub members: BTreeMap<Position, Member>,
    /// Events that could not be read. They may or may not belong.
    pub unreadable: BTreeMap<Position, String>,
    /// What was not looked through.
    pub left_out: Vec<LeftOut>,
    /// The decision ids of the events that name the key itself.
    pub decisions: BTreeSet<String>,
    /// Other decisions that name the same correlation, trace or stream, and are not shown.
    pub others: BTreeSet<String>,
    bytes: usize,
}

/// Reads pages until `each` has enough; answers how far it came, if not to the end.
pub(crate) async fn pages(
    log: &Log,
    mut read: Read,
    mut each: impl FnMut(Page) -> bool,
) -> Result<Option<Position>> {
    loop {
        let page = log.page(&read).await?;
        let next = page.next;
        let go_on = each(page);
        let Some(covered) = next else { return Ok(None) };
        let at_end = match read.direction {
            Direction::Forward => read.before.is_some_and(|before| covered.0.saturating_add(1) >= before.0),
            Direction::Backward => {
                covered.0 == 0 || read.after.is_some_and(|after| covered.0 <= after.0.saturating_add(1))
            }
        };
        if at_end {
            return Ok(None);
        }
        if !go_on {
            return Ok(Some(covered));
        }
        read = read.continued(covered);
    }
}

/// The two reads that lead away from a position, without one that could find nothing.
pub(crate) fn both_ways(position: Position, before: Position) -> Vec<Read> {
    let mut reads = Vec::new();
    if position.0 > 0 {
        let direction = Direction::Backward;
        reads.push(Read { before: Some(position), direction, ..Read::default() });
    }
    if position.0 + 1 < before.0 {
        reads.push(Read { after: Some(position), before: Some(before), ..Read::default() });
    }
    reads
}

/// The first event of a read, and what could not be read before it was found.
pub(crate) async fn first(
    log: &Log,
    mut read: Read,
) -> Result<(Option<RecordedEvent>, Vec<precedent_core::Damage>)> {
    read.limit = Some(1);
    let (mut found, mut damaged) = (None, Vec::new());
    pages(log, read, |page| {
        damaged.extend(page.damaged);
        found = page.events.into_iter().next();
        found.is_none()
    })
    .await?;
    Ok((found, damaged))
}

impl Gathered {
    /// Gathers what belongs to `key`, of the events before `before`.
    ///
    /// # Errors
    /// Those of the store. Damaged events are no error: they are in [`Self::unreadable`].
    pub async fn of(log: &Log, key: &Key, before: Position, bounds: Bounds) -> Result<Self> {
        let mut all = Self::default();
        if before.0 == 0 {
            return Ok(all);
        }
        match key.item() {
            Some(item) => all.take(log, vec![item], key.by, before, bounds).await?,
            None => {
                let position: Position = key.value.parse()?;
                all.alone(log, position, before).await?;
            }
        }
        let named = |all: &Self| -> BTreeSet<String> {
            all.members.values().filter_map(|m| decision_of(&m.event).map(str::to_owned)).collect()
        };
        all.decisions = match key.by {
            By::Decision => BTreeSet::from([key.value.clone()]),
            _ => named(&all),
        };
        if key.by != By::Decision
            && let [one] = &all.decisions.iter().cloned().collect::<Vec<_>>()[..]
            && let Some(item) = Key::new(By::Decision, one).item()
        {
            all.take(log, vec![item], By::Decision, before, bounds).await?;
        }
        let mine = all.decisions.clone();
        for by in [By::Correlation, By::Trace] {
            if by == key.by {
                continue;
            }
            let terms: BTreeSet<String> = all
                .members
                .values()
                .filter_map(|m| by.of(&m.event).filter(|value| !value.is_empty()).map(str::to_owned))
                .collect();
            if terms.len() > TERMS_MAX {
                all.left_out.push(LeftOut {
                    by,
                    detail: format!(
                        "{} of the {} that its events name were not followed",
                        terms.len() - TERMS_MAX,
                        terms.len()
                    ),
                });
            }
            let items: Vec<QueryItem> =
                terms.into_iter().take(TERMS_MAX).filter_map(|value| Key::new(by, value).item()).collect();
            // From the decision outwards or, where none is named, from what names the key.
            let last = all.last_of(&mine).or_else(|| all.members.keys().next_back().copied());
            if let Some(last) = last.filter(|_| !items.is_empty()) {
                let left =
                    all.around(log, items, by, last, before, bounds, bounds.linked_events_max, &mine).await?;
                for (side, at) in left {
                    all.left_out.push(LeftOut {
                            by,
                            detail: format!(
                                "its {by} goes on {side} position {at}: what is there and names no decision is not shown"
                            ),
                        });
                }
            }
        }
        if !mine.is_empty() && key.by != By::Stream {
            all.streams(log, &mine, before, bounds).await?;
        }
        all.others.retain(|id| !mine.contains(id));
        Ok(all)
    }

    /// The event at a position that names nothing others could name.
    async fn alone(&mut self, log: &Log, position: Position, before: Position) -> Result<()> {
        if position >= before {
            return Ok(());
        }
        let read = Read {
            after: position.0.checked_sub(1).map(Position),
            before: Some(Position(position.0.saturating_add(1))),
            ..Read::default()
        };
        let (event, damaged) = first(log, read).await?;
        self.damaged(damaged);
        if let Some(event) = event {
            self.put(event, By::Position);
        }
        Ok(())
    }

    /// What is in the streams of the decision and names no other decision. A stream can be the whole log, so it is
    /// looked through from the decision's own events outwards, and not without end.
    async fn streams(
        &mut self,
        log: &Log,
        mine: &BTreeSet<String>,
        before: Position,
        bounds: Bounds,
    ) -> Result<()> {
        let mut streams: BTreeMap<String, Position> = BTreeMap::new();
        for member in self.members.values() {
            let is_mine = decision_of(&member.event).is_some_and(|id| mine.contains(id));
            if let Some(stream) = member.event.event.stream().filter(|_| is_mine) {
                streams.insert(stream.to_owned(), member.event.position);
            }
        }
        for (stream, last) in streams.into_iter().take(TERMS_MAX) {
            let items = Query::stream(stream.as_str()).items;
            let left = self
                .around(log, items, By::Stream, last, before, bounds, bounds.stream_events_max, mine)
                .await?;
            for (side, at) in left {
                self.left_out.push(LeftOut {
                    by: By::Stream,
                    detail: format!(
                        "stream '{stream}' goes on {side} position {at}: what is there and names no decision is not shown"
                    ),
                });
            }
        }
        Ok(())
    }

    /// The last event that names one of these decisions.
    fn last_of(&self, mine: &BTreeSet<String>) -> Option<Position> {
        let is_mine = |member: &&Member| decision_of(&member.event).is_some_and(|id| mine.contains(id));
        self.members.values().rev().find(is_mine).map(|member| member.event.position)
    }

    /// Takes what matches and names no other decision, from a position outwards; answers where it stopped, if before the end.
    #[allow(clippy::too_many_arguments, reason = "what, where from, and how far")]
    async fn around(
        &mut self,
        log: &Log,
        items: Vec<QueryItem>,
        by: By,
        from: Position,
        before: Position,
        bounds: Bounds,
        events_max: usize,
        mine: &BTreeSet<String>,
    ) -> Result<Vec<(&'static str, Position)>> {
        let query = Query { items };
        let limit = Some(PAGE_EVENTS.min(events_max.max(1)));
        let mut left = Vec::new();
        for read in both_ways(from, before) {
            let read = Read { query: query.clone(), limit, ..read };
            let (mut looked_at, mut cut) = (0, None);
            let side = if read.direction == Direction::Backward { "before" } else { "after" };
            let left_at = pages(log, read, |page| {
                looked_at += page.events.len();
                self.damaged(page.damaged);
                for event in page.events {
                    if self.is_full(bounds) {
                        cut = Some(event.position);
                        return false;
                    }
                    match not_of_another(&event, mine) {
                        true => self.put(event, by),
                        false => self.notice(&event),
                    }
                }
                looked_at < events_max
            })
            .await?;
            left.extend(cut.or(left_at).map(|at| (side, at)));
        }
        Ok(left)
    }

    /// Takes what matches, as far as there is room.
    async fn take(
        &mut self,
        log: &Log,
        items: Vec<QueryItem>,
        by: By,
        before: Position,
        bounds: Bounds,
    ) -> Result<()> {
        if self.is_full(bounds) {
            self.left_out.push(LeftOut {
                by,
                detail: format!("what belongs by its {by} is not shown: {}", self.fullness()),
            });
            return Ok(());
        }
        let read = Read { before: Some(before), limit: Some(PAGE_EVENTS), ..Read::matching(Query { items }) };
        let (mut last, mut cut) = (None, false);
        let left_at = pages(log, read, |page| {
            self.damaged(page.damaged);
            for event in page.events {
                if self.is_full(bounds) {
                    cut = true;
                    return false;
                }
                last = Some(event.position);
                self.put(event, by);
            }
            !self.is_full(bounds)
        })
        .await?;
        if cut || left_at.is_some() {
            let at = last.map_or_else(|| "its first event".to_owned(), |at| format!("position {at}"));
            self.left_out.push(LeftOut {
                by,
                detail: format!(
                    "what belongs by its {by} and comes after {at} is not shown: {}",
                    self.fullness()
                ),
            });
        }
        Ok(())
    }

    /// Remembers which other decisions are near, a bounded number of them.
    fn notice(&mut self, event: &RecordedEvent) {
        if self.others.len() < OTHERS_MAX
            && let Some(id) = decision_of(event)
        {
            self.others.insert(id.to_owned());
        }
    }

    fn put(&mut self, event: RecordedEvent, by: By) {
        let bytes = size_of(&event);
        let position = event.position;
        let mut new = false;
        let member = self.members.entry(position).or_insert_with(|| {
            new = true;
            Member { event, by }
        });
        member.by = member.by.min(by);
        if new {
            self.bytes += bytes;
        }
    }

    fn damaged(&mut self, damaged: Vec<precedent_core::Damage>) {
        self.unreadable.extend(damaged.into_iter().map(|d| (d.position, d.error.message().to_owned())));
    }

    fn is_full(&self, bounds: Bounds) -> bool {
        self.members.len() >= bounds.events_max || self.bytes >= bounds.bytes_max
    }

    fn fullness(&self) -> String {
        format!("the record holds {} events of {} bytes already", self.members.len(), self.bytes)
    }
}

/// Whether an event names no decision, or one of these.
pub(crate) fn not_of_another(event: &RecordedEvent, mine: &BTreeSet<String>) -> bool {
    decision_of(event).is_none_or(|id| mine.contains(id))
}

/// The decision an event names. An empty name can be recorded, and names none.
pub(crate) fn decision_of(event: &RecordedEvent) -> Option<&str> {
    By::Decision.of(event).filter(|id| !id.is_empty())
}

/// The position of the last event that was recorded at or before a moment and can be read, if there is one; and the damaged ones
/// behind it, which may have been recorded by then or later.
pub(crate) async fn last_at(log: &Log, time: Time, size: u64) -> Result<(Option<Position>, Vec<Unreadable>)> {
    if size == 0 {
        return Ok((None, Vec::new()));
    }
    let until = Time::from_micros(time.as_micros().saturating_add(1))
        .map_err(|_: Error| Error::invalid("the year 9999 is the last that can be asked for"))?;
    let read = Read {
        before: Some(Position(size)),
        until: Some(until),
        direction: Direction::Backward,
        ..Read::default()
    };
    // A damaged event may have been recorded later, so that it bounds nothing.
    let (last, damaged) = first(log, read).await?;
    let last = last.map(|event| event.position);
    let behind = damaged.into_iter().filter(|damage| last.is_none_or(|last| damage.position > last));
    Ok((last, behind.map(Unreadable::from).collect()))
}

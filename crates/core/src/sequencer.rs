//! How appends become the next frame: keys first, then conditions, then positions and versions.
//!
//! This is the one place that decides promises 3, 4 and 5, for every backend. It does no I/O: what is
//! already recorded it asks a [`History`].
//!
//! 1. On the caller's thread an append is checked against the limits. Salts, commitments and the producer's part of every
//!    entry are computed before it is drafted or meanwhile, by whoever has time: [`Prepared`].
//! 2. The one writer makes a [`Draft`] from the [`LogState`], adds appends while they fit, and gets a frame.
//!    An append that fails leaves the draft as it was.

use std::collections::HashMap;
use std::sync::Arc;

use crate::drafts::{ByKey, Drafts, FirstUse};
use crate::entry::LogFields;
use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::event::{Event, shown};
use crate::extents::Recent;
use crate::frame::{Chained, EncodedFrame, Frame, FrameBuilder, OVERHEAD_BYTES_MAX};
use crate::ids::{FrameId, Hash, LogId, Position, Time, Version};
use crate::limits::Limits;
use crate::prepared::{Batch, CheckedEvent, Prepared};
use crate::query::{Condition, ExpectedVersion, Query};
use crate::store::{Receipt, RecordedEvent, Status};
use crate::tree::{Tree, leaf_hash};

/// How far a clock may be behind the log, or off the service's: five minutes.
pub const CLOCK_TOLERANCE_MICROS: u64 = 5 * 60 * 1_000_000;

/// The last event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTip {
    /// Its place in the log.
    pub position: Position,
    /// Its place in the stream.
    pub version: Version,
    /// The hash of its leaf.
    pub leaf: Hash,
}

/// What is already recorded, as far as the next frame has to know it. It covers everything before the draft.
pub trait History {
    /// The event with this source and id.
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>>;

    /// Which of these events' keys there may be an event with, in their order: false only where [`Self::by_key`] would answer
    /// that there is none, and no error either. Asked of many at once it may cost less than asking for each.
    fn may_have_keys(&self, events: &mut dyn ExactSizeIterator<Item = &Event>) -> Vec<bool> {
        vec![true; events.len()]
    }

    /// The last event of the stream.
    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>>;

    /// Some event after `after` that matches; the first, where that costs nothing.
    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>>;
}

/// Where the log stands: all that the next frame builds on.
#[derive(Debug, Clone)]
pub struct LogState {
    /// The log's id.
    pub log: LogId,
    /// The sequence number of the next frame.
    pub next_sequence: u64,
    /// The tree over everything so far.
    pub tree: Tree,
    /// The hash of the last frame's chained part.
    pub last_frame: Hash,
    /// The recorded time of the last event.
    pub last_time: Time,
}

impl LogState {
    /// The state of an empty log.
    pub fn empty(log: LogId) -> Self {
        Self { log, next_sequence: 0, tree: Tree::new(), last_frame: Hash::ZERO, last_time: Time::default() }
    }

    /// The number of events.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The state after `frame`, which has to be the next one of this log: every link of the chain, every
    /// position and the root are checked.
    ///
    /// # Errors
    /// `log_forked` if the frame belongs to another history; `damaged` if it contradicts itself.
    pub fn after(&self, frame: &Frame) -> Result<Self> {
        let chained = frame.chained();
        self.check_link(chained)?;
        let mut state = Self { log: chained.log, ..self.clone() };
        for index in 0..frame.len() {
            let entry = frame.event(index)?.entry;
            let decoded = crate::entry::Entry::decode(&entry)?;
            state.last_time = state.last_time.max(decoded.recorded);
            state.tree.push(leaf_hash(&entry));
        }
        if state.tree.root() != chained.root {
            return Err(Error::damaged(named(chained, "its root does not match its entries")));
        }
        state.next_sequence += 1;
        state.last_frame = chained.hash();
        Ok(state)
    }

    /// The state after a frame of which nothing but its header and the tree's edge can be read. What its events were, and
    /// when they were recorded, is not known; that it is the next frame of this log is checked, and that `tree` has the
    /// root in its header.
    ///
    /// # Errors
    /// As [`Self::after`].
    pub fn past(&self, chained: &Chained, tree: Tree) -> Result<Self> {
        self.check_link(chained)?;
        if tree.size() != chained.tree_size() || tree.root() != chained.root {
            return Err(Error::damaged(named(chained, "the right edge beside it is not that of its root")));
        }
        Ok(Self {
            log: chained.log,
            next_sequence: self.next_sequence + 1,
            tree,
            last_frame: chained.hash(),
            last_time: self.last_time,
        })
    }

    /// Whether a frame is the next one of this log, as far as its header says.
    fn check_link(&self, chained: &Chained) -> Result<()> {
        let name = |what: &str| named(chained, what);
        if self.next_sequence > 0 && chained.log != self.log {
            return Err(Error::new(ErrorKind::LogForked, name(&format!("this log is {}", self.log))));
        }
        if chained.sequence != self.next_sequence || chained.first.0 != self.size() {
            return Err(Error::damaged(name(&format!(
                "begins at position {}, expected frame {} at position {}",
                chained.first,
                self.next_sequence,
                self.size()
            ))));
        }
        if chained.previous != self.last_frame {
            return Err(Error::new(ErrorKind::LogForked, name("does not follow the frame before it")));
        }
        Ok(())
    }
}

fn named(chained: &Chained, what: &str) -> String {
    format!("frame {} of log {}: {what}", chained.sequence, chained.log)
}

/// An event of a draft, for the index.
#[derive(Clone)]
pub struct DraftedEvent {
    batch: Arc<Batch>,
    /// Its place in the batch.
    index: usize,
    /// Its place in the log.
    pub position: Position,
    /// Its place in the stream.
    pub version: Option<Version>,
    /// The hash of its leaf.
    pub leaf: Hash,
}

impl DraftedEvent {
    /// What the producer sent.
    pub fn event(&self) -> &Event {
        &self.batch.events[self.index].event
    }
}

impl std::fmt::Debug for DraftedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the batch: every one of its events would show all of them.
        f.debug_struct("DraftedEvent")
            .field("event", self.event())
            .field("position", &self.position)
            .field("version", &self.version)
            .field("leaf", &self.leaf)
            .finish()
    }
}

/// A frame that is ready to be written.
#[derive(Debug)]
pub struct DraftedFrame {
    /// The chained part of its header.
    pub chained: Chained,
    /// The encoded frame, without padding.
    pub bytes: EncodedFrame,
    /// The state of the log once it is written.
    pub state: LogState,
    /// Its events.
    pub events: Arc<Vec<DraftedEvent>>,
    /// What it was built with, to be used again.
    pub builder: FrameBuilder,
}

/// The next frame while appends are added to it.
#[derive(Debug)]
pub struct Draft<'a> {
    base: &'a LogState,
    tree: Tree,
    time: Time,
    builder: FrameBuilder,
    /// What the content of its events is held against.
    recent: &'a mut Recent,
    /// Bytes the frame would have, at most, with all its content literally.
    bytes_max: usize,
    drafts: &'a mut Drafts,
    events: Vec<DraftedEvent>,
    by_key: ByKey,
}

impl<'a> Draft<'a> {
    /// An empty draft on top of `base`. Its events get the recorded time `now`, or that of the log's last
    /// event if the clock is behind it. `drafts` holds what `base` has beyond the history, and the content of the
    /// events is held against what `recent` remembers. If the frame is not written, both have to
    /// [forget](Drafts::forget_from) what comes from the size of `base` on.
    pub fn new(base: &'a LogState, now: Time, recent: &'a mut Recent, drafts: &'a mut Drafts) -> Self {
        Self::with_builder(base, now, recent, drafts, FrameBuilder::default())
    }

    /// Like [`Self::new`], with the memory of an earlier frame's builder; see [`FrameBuilder::recycle`].
    pub fn with_builder(
        base: &'a LogState,
        now: Time,
        recent: &'a mut Recent,
        drafts: &'a mut Drafts,
        builder: FrameBuilder,
    ) -> Self {
        Self {
            base,
            tree: base.tree.clone(),
            time: now.max(base.last_time),
            builder,
            recent,
            bytes_max: OVERHEAD_BYTES_MAX,
            drafts,
            events: Vec::new(),
            by_key: ByKey::default(),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether an append can be added without the frame growing past `bytes_max`, with all its content literally: as
    /// it travels between stores. One always fits an empty draft.
    pub fn fits(&self, prepared: &Prepared, bytes_max: usize) -> bool {
        self.is_empty() || self.bytes_max + prepared.bytes_max() <= bytes_max
    }

    /// Bytes the frame would have, at most.
    pub fn len_max(&self) -> usize {
        self.builder.len_max()
    }

    /// Bytes it would have, at most, with all its content literally.
    pub fn literal_len_max(&self) -> usize {
        self.bytes_max
    }

    /// Adds an append, or says why not, and then the draft is as before. The answer holds once the frame is
    /// durable, not earlier; its `size` is filled in by [`Draft::size`].
    pub fn add(&mut self, prepared: Prepared, history: &dyn History) -> Result<Vec<Receipt>> {
        let receipts = self.add_prepared(&prepared, history);
        // Whoever still makes it ready does so for nobody.
        prepared.batch.leave();
        receipts
    }

    fn add_prepared(&mut self, prepared: &Prepared, history: &dyn History) -> Result<Vec<Receipt>> {
        let known = self.look_up_keys(prepared, history)?;
        if let Known::All(receipts) = known {
            return Ok(receipts);
        }
        for (index, condition) in prepared.conditions.iter().enumerate() {
            self.check(index, condition, history)?;
        }
        let Known::Some(known) = known else { unreachable!("the other variant returned above") };
        let bytes_max = prepared.bytes_max();
        let receipts = self.record(&prepared.batch, known, history)?;
        self.bytes_max += bytes_max;
        Ok(receipts)
    }

    /// The number of events in the log after this frame.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    fn look_up_keys(&self, prepared: &Prepared, history: &dyn History) -> Result<Known> {
        let events = &prepared.batch.events;
        let mut known: Vec<Option<Receipt>> = Vec::with_capacity(events.len());
        let mut differing = Vec::new();
        let several = events.len() > 1;
        let may_be_recorded =
            several.then(|| history.may_have_keys(&mut events.iter().map(|checked| &checked.event)));
        let mut first_use = FirstUse::with_capacity(if several { events.len() } else { 0 });
        for (index, CheckedEvent { event, key_hash, .. }) in events.iter().enumerate() {
            if several
                && let Some(first) = first_use.of(*key_hash, index, event, |i| &events[i].event)
                && !events[first].event.same_content(event, false)
            {
                return Err(Error::invalid(format!(
                    "events {first} and {index} of the append have the same source and id '{}' and different content",
                    shown(event.id())
                )));
            }
            let receipt = |position, version| Receipt { position, version, status: Status::Existing };
            let (same, found) = if let Some(drafted) = self.drafted(*key_hash, event) {
                (drafted.event().same_content(event, false), receipt(drafted.position, drafted.version))
            } else if may_be_recorded.as_ref().is_none_or(|may| may[index])
                && let Some(recorded) = history.by_key(event.source(), event.id())?
            {
                (
                    recorded.event.same_content(event, recorded.erased),
                    receipt(recorded.position, recorded.version),
                )
            } else {
                known.push(None);
                continue;
            };
            if !same {
                differing.push(Conflict { position: Some(found.position), index });
            }
            known.push(Some(found));
        }
        if let Some(first) = differing.first() {
            let id = shown(events[first.index].event.id());
            let at = first.position.unwrap_or_default();
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("an event with source and id '{id}' and other content is already at position {at}"),
            )
            .with_conflicts(differing));
        }
        if known.iter().all(Option::is_some) {
            return Ok(Known::All(known.into_iter().flatten().collect()));
        }
        let present: Vec<Conflict> = known
            .iter()
            .enumerate()
            .filter_map(|(index, found)| Some(Conflict { position: Some(found.as_ref()?.position), index }))
            .collect();
        if !prepared.conditions.is_empty() && !present.is_empty() {
            let (some, all) = (present.len(), known.len());
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{some} of the {all} events of a conditional append are already in the log"),
            )
            .with_conflicts(present));
        }
        Ok(Known::Some(known))
    }

    /// The event with the key of this one, if it is drafted and not recorded yet.
    fn drafted(&self, key_hash: u64, event: &Event) -> Option<&DraftedEvent> {
        let here = self.by_key.get(key_hash, event, &self.events).map(|index| &self.events[index]);
        here.or_else(|| self.drafts.by_key(key_hash, event))
    }

    fn tip(&self, stream: &str, history: &dyn History) -> Result<Option<StreamTip>> {
        match self.drafts.tip(stream) {
            Some(tip) => Ok(Some(tip)),
            None => history.stream_tip(stream),
        }
    }

    fn check(&self, index: usize, condition: &Condition, history: &dyn History) -> Result<()> {
        let conflict = |position, message: String| {
            Err(Error::new(ErrorKind::Conflict, message).with_conflicts(vec![Conflict { position, index }]))
        };
        match condition {
            Condition::Stream { expected: ExpectedVersion::Any, .. } => Ok(()),
            Condition::Stream { stream, expected } => {
                let tip = self.tip(stream, history)?;
                let wanted = match expected {
                    ExpectedVersion::Exact(version) => Some(*version),
                    _ => None,
                };
                if tip.map(|t| t.version) == wanted {
                    return Ok(());
                }
                let is = tip.map_or("has no events".to_owned(), |t| format!("is at version {}", t.version));
                let should = wanted.map_or("no events".to_owned(), |v| format!("version {v}"));
                conflict(
                    tip.map(|t| t.position),
                    format!("stream '{}' {is}, expected {should}", shown(stream)),
                )
            }
            Condition::FailIf { query, after } => {
                if let Some(after) = after
                    && after.0 >= self.base.size()
                {
                    let size = self.base.size();
                    return Err(crate::store::beyond(*after, size).context(format!("condition {index}")));
                }
                let recorded = history.any_match(query, *after)?;
                let drafted = || self.events.iter().find(|e| query.matches(e.event())).map(|e| e.position);
                match recorded.or_else(|| self.drafts.first_match(query, *after)).or_else(drafted) {
                    None => Ok(()),
                    Some(at) => {
                        let after = after.map_or(String::new(), |after| format!(" after position {after}"));
                        conflict(
                            Some(at),
                            format!(
                                "the event at position {at} matches the query of condition {index}{after}"
                            ),
                        )
                    }
                }
            }
        }
    }

    /// Gives positions and versions. Whatever can fail is done before anything of the draft changes.
    fn record(
        &mut self,
        batch: &Arc<Batch>,
        known: Vec<Option<Receipt>>,
        history: &dyn History,
    ) -> Result<Vec<Receipt>> {
        let size = self.base.size();
        let mut new_streams: HashMap<u64, &str> = HashMap::new();
        for (CheckedEvent { event, stream_hash, .. }, found) in batch.events.iter().zip(&known) {
            let (Some(stream), None) = (event.stream(), found) else { continue };
            let tip = match self.drafts.tip_hashed(*stream_hash, stream) {
                Some(tip) => tip,
                None if new_streams.get(stream_hash) == Some(&stream) => continue,
                None => match history.stream_tip(stream)? {
                    Some(tip) => {
                        self.drafts.set_tip_hashed(*stream_hash, stream, tip, size);
                        tip
                    }
                    None => {
                        new_streams.insert(*stream_hash, stream);
                        continue;
                    }
                },
            };
            if tip.version.0 >= u64::MAX - limits_of_a_batch() {
                let message = format!("stream '{}' has no versions left", shown(stream));
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
        }
        let mut receipts = Vec::with_capacity(batch.events.len());
        self.events.reserve(batch.events.len());
        self.by_key.reserve(batch.events.len());
        for (index, found) in known.into_iter().enumerate() {
            let CheckedEvent { event, key_hash, stream_hash, .. } = &batch.events[index];
            // An event that stands twice in this append was not known when it was looked up; it is now.
            let found = found.or_else(|| {
                let drafted = &self.events[self.by_key.get(*key_hash, event, &self.events)?];
                Some(Receipt {
                    position: drafted.position,
                    version: drafted.version,
                    status: Status::Existing,
                })
            });
            if let Some(found) = found {
                receipts.push(found);
                continue;
            }
            let position = Position(self.tree.size());
            let tip = event.stream().map(|stream| self.drafts.tip_hashed(*stream_hash, stream));
            let version = tip.map(|tip| match tip {
                Some(tip) => (Version(tip.version.0 + 1), Some(tip.leaf)),
                None => (Version(0), None),
            });
            let fields = LogFields { log: self.base.log, position, recorded: self.time, version };
            let scope = event.attribute("dataperson");
            if let Some(behind) = batch.share_from(index) {
                let scope_of = |index: usize| batch.events[index].event.attribute("dataperson");
                self.recent.fetch((index..behind).map(|index| (scope_of(index), batch.ready(index).anchors)));
            }
            let ready = batch.ready(index);
            let recent = &mut *self.recent;
            let entry = self.builder.push(
                |out| ready.envelope.write(&fields, out),
                |out| {
                    if let Some(content) = event.data() {
                        recent.put_part(position, scope, ready.salt, content, ready.anchors, out);
                    }
                },
            );
            let leaf = leaf_hash(entry);
            self.tree.push(leaf);
            let version = version.map(|(version, _)| version);
            if let (Some(stream), Some(version)) = (event.stream(), version) {
                self.drafts.set_tip_hashed(*stream_hash, stream, StreamTip { position, version, leaf }, size);
            }
            self.events.push(DraftedEvent { batch: batch.clone(), index, position, version, leaf });
            self.by_key.add_last(*key_hash, &self.events);
            receipts.push(Receipt { position, version, status: Status::Recorded });
        }
        Ok(receipts)
    }

    /// The frame, written by `writer`; `with_edge` puts the tree's right edge into it. `None` if nothing was added.
    pub fn finish(mut self, writer: FrameId, with_edge: bool) -> Option<DraftedFrame> {
        if self.is_empty() {
            return None;
        }
        let chained = Chained {
            log: self.base.log,
            id: FrameId::random(),
            writer,
            sequence: self.base.next_sequence,
            first: Position(self.base.size()),
            count: self.builder.count(),
            root: self.tree.root(),
            previous: self.base.last_frame,
        };
        let bytes = self.builder.encode(&chained, with_edge.then_some(&self.tree));
        let state = LogState {
            log: self.base.log,
            next_sequence: self.base.next_sequence + 1,
            tree: self.tree,
            last_frame: chained.hash(),
            last_time: self.time,
        };
        let events = Arc::new(self.events);
        self.drafts.push(events.clone(), self.by_key, state.size());
        Some(DraftedFrame { chained, bytes, state, events, builder: self.builder })
    }
}

enum Known {
    /// Every event of the append is there already.
    All(Vec<Receipt>),
    /// Those that are.
    Some(Vec<Option<Receipt>>),
}

fn key(event: &Event) -> (String, String) {
    (event.source().to_owned(), event.id().to_owned())
}

/// More events than one frame can hold.
fn limits_of_a_batch() -> u64 {
    u64::from(u32::MAX)
}

/// Checks what a frame of a copied log says about the log before it, which [`Frame::check`] and
/// [`LogState::after`] cannot see: recorded times, stream versions and links, keys, canonical entries.
///
/// # Errors
/// `damaged`, naming the event, for a frame that no log of ours can hold at this place.
pub fn check_copied(frame: &Frame, state: &LogState, history: &dyn History) -> Result<()> {
    let mut last_time = state.last_time;
    let mut tips: HashMap<String, StreamTip> = HashMap::new();
    let mut keys = std::collections::HashSet::new();
    for index in 0..frame.len() {
        let stored = frame.event(index)?;
        let entry = crate::entry::Entry::decode(&stored.entry)?;
        let wrong = |what: &str| Err(Error::damaged(format!("event {}: {what}", entry.position)));
        if !entry.is_canonical(&stored.entry) {
            return wrong("the entry is not in its canonical encoding");
        }
        if entry.recorded < last_time {
            return wrong("recorded before the event before it");
        }
        last_time = entry.recorded;
        let event = &entry.event;
        if !keys.insert(key(event)) || history.by_key(event.source(), event.id())?.is_some() {
            return wrong("its source and id are those of an earlier event");
        }
        if let (Some(stream), Some(version)) = (event.stream(), entry.version) {
            let tip = match tips.get(stream) {
                Some(tip) => Some(*tip),
                None => history.stream_tip(stream)?,
            };
            let expected = tip.map_or(Some(0), |tip| tip.version.0.checked_add(1));
            if Some(version.0) != expected || entry.previous != tip.map(|tip| tip.leaf) {
                return wrong("it does not follow the previous event of its stream");
            }
            let leaf = leaf_hash(&stored.entry);
            tips.insert(stream.to_owned(), StreamTip { position: entry.position, version, leaf });
        }
    }
    Ok(())
}

/// The event by which a log records that a clock was accepted although it is off: `last` is when the log's last event
/// was recorded.
pub fn clock_accepted(now: Time, last: Time, limits: &Limits) -> Result<Prepared> {
    let event =
        Event::builder("urn:precedent:log", FrameId::random().to_string(), "~precedent.clock.accepted")
            .datacontenttype("application/json")
            .data(format!(r#"{{"clock":"{now}","lastrecorded":"{last}"}}"#))
            .build()?;
    Prepared::internal(event, limits)
}

/// Checks the writer's clock against the log: [`ErrorKind::Clock`] if it is behind the last event by more
/// than [`CLOCK_TOLERANCE_MICROS`].
pub fn check_clock(now: Time, last: Time) -> Result<()> {
    if now.as_micros().saturating_add(CLOCK_TOLERANCE_MICROS) < last.as_micros() {
        return Err(Error::new(
            ErrorKind::Clock,
            format!(
                "the clock says {now}, but the log's last event was recorded at {last}; set the clock, or accept it"
            ),
        ));
    }
    Ok(())
}

//! What the sequencer remembers from one frame to the next: what has been drafted and is not yet recorded, and
//! where recent streams end.
//!
//! While one frame is written the next is drafted on top of it. Until the [`History`](crate::sequencer::History)
//! covers a frame, its keys and contents are here. A frame that is given up is forgotten together with
//! everything drafted on it.
//!
//! Texts are looked up by a hash whose key is drawn anew in every process, so that nobody can send texts that
//! collide; two texts with one hash are told apart by comparing them.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::event::Event;
use crate::hashed::HashedMap;
use crate::ids::Position;
use crate::query::Query;
use crate::sequencer::{DraftedEvent, StreamTip};

static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of a key.
pub(crate) fn hash_of_key(source: &str, id: &str) -> u64 {
    KEYS.hash_one((source, id))
}

/// The hash of a stream's name.
pub(crate) fn hash_of_stream(stream: &str) -> u64 {
    KEYS.hash_one(stream)
}

/// Streams whose last event is remembered.
const TIPS_MAX: usize = 100_000;

/// Values by the hash of a text that can be had from them.
#[derive(Debug)]
struct ByText<V>(HashedMap<V>);

impl<V> Default for ByText<V> {
    fn default() -> Self {
        Self(HashedMap::default())
    }
}

impl<V> ByText<V> {
    /// The place of the value that `is` the one looked for, or else where it would be.
    fn place(&self, mut hash: u64, is: impl Fn(&V) -> bool) -> u64 {
        while self.0.get(&hash).is_some_and(|value| !is(value)) {
            hash = hash.wrapping_add(1);
        }
        hash
    }

    fn get(&self, hash: u64, is: impl Fn(&V) -> bool) -> Option<&V> {
        self.0.get(&self.place(hash, is))
    }
}

/// The events of one frame by their keys.
#[derive(Debug, Default)]
pub(crate) struct ByKey(ByText<u32>);

fn has_key(event: &Event, source: &str, id: &str) -> bool {
    event.id() == id && event.source() == source
}

impl ByKey {
    /// The index of the event with this key among `events`.
    pub(crate) fn get(&self, hash: u64, event: &Event, events: &[DraftedEvent]) -> Option<usize> {
        if self.0.0.is_empty() {
            return None;
        }
        let is = |index: &u32| has_key(events[*index as usize].event(), event.source(), event.id());
        self.0.get(hash, is).map(|index| *index as usize)
    }

    /// Adds the last of `events`, whose key no other has.
    pub(crate) fn add_last(&mut self, hash: u64, events: &[DraftedEvent]) {
        let place = self.0.place(hash, |_| false);
        self.0.0.insert(place, events.len() as u32 - 1);
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.0.0.reserve(more);
    }
}

/// Where each key stands first in one append.
pub(crate) struct FirstUse(ByText<usize>);

impl FirstUse {
    pub(crate) fn with_capacity(events: usize) -> Self {
        Self(ByText(HashedMap::with_capacity_and_hasher(events, Default::default())))
    }

    /// The index of an earlier event with the same key, if there is one; otherwise this one is the first.
    pub(crate) fn of<'e>(
        &mut self,
        hash: u64,
        index: usize,
        event: &Event,
        events: impl Fn(usize) -> &'e Event,
    ) -> Option<usize> {
        let place = self.0.place(hash, |first| has_key(events(*first), event.source(), event.id()));
        match self.0.0.entry(place) {
            std::collections::hash_map::Entry::Occupied(first) => Some(*first.get()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(index);
                None
            }
        }
    }
}

/// A frame that has been drafted.
#[derive(Debug)]
struct DraftedKeys {
    events: Arc<Vec<DraftedEvent>>,
    by_key: ByKey,
    /// The position behind it.
    end: u64,
}

/// What [`Drafts::recorded`] has let go of.
#[derive(Debug)]
pub struct Freed(#[expect(dead_code, reason = "it is only held")] Vec<DraftedKeys>);

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub struct Drafts {
    frames: VecDeque<DraftedKeys>,
    tips: ByText<(Box<str>, StreamTip)>,
}

impl Drafts {
    /// Lets go of frames that the history covers: it holds `size` events. Their memory is in the answer, to be freed
    /// where that keeps nobody waiting.
    pub fn recorded(&mut self, size: u64) -> Freed {
        let covered = self.frames.iter().take_while(|frame| frame.end <= size).count();
        Freed(self.frames.drain(..covered).collect())
    }

    /// The number of events the history has to cover: what comes after is here. `size` is that of the log with
    /// everything drafted.
    pub fn recorded_size(&self, size: u64) -> u64 {
        self.frames.front().and_then(|frame| frame.events.first()).map_or(size, |event| event.position.0)
    }

    /// A frame was given up that was to begin at this position, and with it all that were drafted on it.
    pub fn forget_from(&mut self, position: Position) {
        self.frames.retain(|frame| frame.end <= position.0);
        self.tips.0.clear();
    }

    /// The last event of a stream, if it is remembered.
    pub fn tip(&self, stream: &str) -> Option<StreamTip> {
        self.tip_hashed(hash_of_stream(stream), stream)
    }

    pub(crate) fn tip_hashed(&self, hash: u64, stream: &str) -> Option<StreamTip> {
        self.tips.get(hash, |(name, _)| **name == *stream).map(|(_, tip)| *tip)
    }

    /// Remembers the last event of a stream. `size`: the number of events before the frame that is being drafted.
    pub fn set_tip(&mut self, stream: &str, tip: StreamTip, size: u64) {
        self.set_tip_hashed(hash_of_stream(stream), stream, tip, size);
    }

    pub(crate) fn set_tip_hashed(&mut self, hash: u64, stream: &str, tip: StreamTip, size: u64) {
        let mut place = self.tips.place(hash, |(name, _)| **name == *stream);
        if let Some((_, known)) = self.tips.0.get_mut(&place) {
            *known = tip;
            return;
        }
        if self.tips.0.len() >= TIPS_MAX {
            self.forget_recorded_tips(size);
            place = self.tips.place(hash, |_| false);
        }
        self.tips.0.insert(place, (stream.into(), tip));
    }

    /// Makes room: the history knows the ends of streams too, only not of what is drafted.
    fn forget_recorded_tips(&mut self, size: u64) {
        let recorded = self.recorded_size(size);
        let kept: Vec<_> = self.tips.0.drain().filter(|(_, (_, tip))| tip.position.0 >= recorded).collect();
        for (_, (stream, tip)) in kept {
            let place = self.tips.place(hash_of_stream(&stream), |(name, _)| *name == stream);
            self.tips.0.insert(place, (stream, tip));
        }
    }

    pub(crate) fn push(&mut self, events: Arc<Vec<DraftedEvent>>, by_key: ByKey, end: u64) {
        self.frames.push_back(DraftedKeys { events, by_key, end });
    }

    /// The drafted event with the key of this one.
    pub(crate) fn by_key(&self, hash: u64, event: &Event) -> Option<&DraftedEvent> {
        self.frames.iter().find_map(|frame| {
            let index = frame.by_key.get(hash, event, &frame.events)?;
            Some(&frame.events[index])
        })
    }

    /// The first drafted event after `after` that matches.
    pub(crate) fn first_match(&self, query: &Query, after: Option<Position>) -> Option<Position> {
        let events = self.frames.iter().flat_map(|frame| frame.events.iter());
        let behind = |event: &&DraftedEvent| after.is_none_or(|after| event.position > after);
        events.filter(behind).find(|event| query.matches(event.event())).map(|event| event.position)
    }
}

//! An append on its way to a frame, as far as no position is needed.
//!
//! First it is [checked](Prepared::checked) against the limits: from then on nothing about it can fail. Then its events are
//! *made ready*: salts, commitments and the producer's part of every entry, and where repeats can be found in
//! the data. That is half of what an append costs the processor, so it is done in shares of some events, by any
//! thread that has time ([`Batch::make_ready`]), and by the one that makes the frame, which computes what nobody has begun.
//! What comes of a share is there once, whoever made it: an append that is drafted again has the same salts.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::commitment::{Salt, commit_each};
use crate::drafts::{hash_of_key, hash_of_stream};
use crate::entry::{DATA_PART, EnvelopeRef, Part, encode_envelope, entry_bytes_max, envelope_len};
use crate::error::{Error, Result};
use crate::event::{Event, shown};
use crate::extents::{Anchor, anchors_about, put_anchors};
use crate::frame::{EVENT_OVERHEAD_BYTES, OVERHEAD_BYTES_MAX};
use crate::limits::Limits;
use crate::query::{Condition, Query};
use crate::store::Append;

/// An append that is within the limits. A clone has the same salts and commitments: it is for those whose frame can lose a
/// race, and is then drafted again.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) batch: Arc<Batch>,
    pub(crate) conditions: Vec<Condition>,
    bytes_max: usize,
}

impl Prepared {
    /// Checks an append and makes it ready, all on this thread.
    ///
    /// # Errors
    /// `invalid` or `limit_exceeded`, naming the event or condition.
    pub fn new(append: Append, limits: &Limits) -> Result<Self> {
        let prepared = Self::checked(append, limits)?;
        prepared.batch.make_ready();
        Ok(prepared)
    }

    /// Checks an append. What is not [made ready](Batch::make_ready) until it is drafted is made ready then.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn checked(append: Append, limits: &Limits) -> Result<Self> {
        Self::check(append, limits, false)
    }

    /// Like [`Self::checked`] for an event of the log's own, whose type begins with `~`.
    pub fn internal(event: Event, limits: &Limits) -> Result<Self> {
        Self::check(event.into(), limits, true)
    }

    fn check(append: Append, limits: &Limits, internal: bool) -> Result<Self> {
        let Append { events, conditions } = append;
        let count = events.len();
        if count == 0 {
            return Err(Error::invalid("an append without events"));
        }
        if count as u64 > limits.batch_events_max {
            return Err(Error::limit("the batch", count as u64, limits.batch_events_max, "events"));
        }
        check_conditions(&conditions, limits)?;
        let mut bytes_max = 0;
        let mut checked = Vec::with_capacity(count);
        for (index, event) in events.into_iter().enumerate() {
            let envelope_len = check_event(&event, limits, internal)
                .map_err(|error| if count == 1 { error } else { error.context(format!("event {index}")) })?;
            let data_len = event.data().map_or(0, Bytes::len);
            bytes_max += entry_bytes_max(envelope_len) + EVENT_OVERHEAD_BYTES + data_len;
            let key_hash = hash_of_key(event.source(), event.id());
            let stream_hash = event.stream().map_or(0, hash_of_stream);
            checked.push(CheckedEvent { event, key_hash, stream_hash, envelope_len });
        }
        let frame_bytes = (bytes_max + OVERHEAD_BYTES_MAX) as u64;
        if frame_bytes > limits.frame_bytes_max {
            return Err(Error::limit(
                "the batch with its envelopes",
                frame_bytes,
                limits.frame_bytes_max,
                "bytes",
            ));
        }
        let batch = Arc::new(Batch::new(checked, bytes_max));
        Ok(Self { batch, conditions, bytes_max })
    }

    /// Bytes this append adds to a frame, at most.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Its events.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }
}

/// The events of an append.
#[derive(Debug)]
pub struct Batch {
    pub(crate) events: Vec<CheckedEvent>,
    /// So many of them are a share.
    share_events: usize,
    /// Of a single event there is no other.
    first: Share,
    others: Vec<Share>,
    /// All before this share have been begun.
    next: AtomicUsize,
}

/// An event that is within the limits.
#[derive(Debug)]
pub(crate) struct CheckedEvent {
    pub(crate) event: Event,
    pub(crate) key_hash: u64,
    pub(crate) stream_hash: u64,
    envelope_len: usize,
}

/// So many events are made ready at once, or fewer if they have more than so many bytes on average: it is over before
/// anybody who waits for it would have gone to sleep, and is much more than it costs to ask for it.
const SHARE_EVENTS: usize = 16;
const SHARE_BYTES: usize = 32 << 10;

#[derive(Debug, Default)]
struct Share {
    /// Whether somebody has begun.
    taken: AtomicBool,
    ready: OnceLock<Ready>,
}

impl Share {
    /// Whether nobody has begun it so far; from now on somebody has.
    fn take(&self) -> bool {
        !self.taken.load(Ordering::Relaxed) && !self.taken.swap(true, Ordering::Relaxed)
    }
}

/// What comes of a share: of all of its events in one piece of memory each.
#[derive(Debug)]
struct Ready {
    envelopes: Vec<u8>,
    anchors: Vec<Anchor>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    envelope: Range<usize>,
    /// Where in the envelope its parts begin.
    parts_at: usize,
    anchors: Range<usize>,
    salt: Salt,
}

/// What of an event needs no position.
pub(crate) struct ReadyEvent<'a> {
    pub(crate) envelope: EnvelopeRef<'a>,
    /// Of its data, if there is any: drawn for all.
    pub(crate) salt: &'a Salt,
    /// Where in the data repeats can be found.
    pub(crate) anchors: &'a [Anchor],
}

impl Batch {
    fn new(events: Vec<CheckedEvent>, bytes: usize) -> Self {
        let share_events = match (SHARE_BYTES * events.len() / bytes.max(1)).min(SHARE_EVENTS) {
            0 | 1 => 1,
            // An even number, since commitments are computed two at a time.
            several => several - several % 2,
        };
        let others = events.len().div_ceil(share_events) - 1;
        let others = std::iter::repeat_with(Share::default).take(others).collect();
        Self { events, share_events, first: Share::default(), others, next: AtomicUsize::new(0) }
    }

    fn share(&self, number: usize) -> Option<&Share> {
        number.checked_sub(1).map_or(Some(&self.first), |behind| self.others.get(behind))
    }

    /// The number of events.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// So many threads can make it ready at once.
    pub fn shares(&self) -> usize {
        1 + self.others.len()
    }

    /// Whether all of it is ready.
    pub fn is_ready(&self) -> bool {
        std::iter::once(&self.first).chain(&self.others).all(|share| share.ready.get().is_some())
    }

    /// Makes events ready until none are left that nobody has begun. Several threads can do so at once.
    pub fn make_ready(&self) {
        while self.make_one_ready() {}
    }

    /// The same of the first share that nobody has begun, if there is one.
    fn make_one_ready(&self) -> bool {
        let from = self.next.load(Ordering::Relaxed);
        let mut numbers = from..self.shares();
        let free = numbers.find(|number| self.share(*number).is_some_and(Share::take));
        self.next.store(free.map_or(self.shares(), |number| number + 1), Ordering::Relaxed);
        free.inspect(|number| self.compute(*number)).is_some()
    }

    /// Nobody has to make the rest ready any more: it was needed in vain, or is not needed at all.
    pub(crate) fn leave(&self) {
        self.next.store(self.shares(), Ordering::Relaxed);
    }

    fn compute(&self, number: usize) {
        let share = self.share(number).expect("there are as many shares as are counted");
        // If somebody else was quicker, that is what counts.
        drop(share.ready.set(self.computed(number)));
    }

    /// The event behind the share that begins with this one, if one of several events does.
    pub(crate) fn share_from(&self, index: usize) -> Option<usize> {
        let behind = (index + self.share_events).min(self.events.len());
        (index.is_multiple_of(self.share_events) && behind > index + 1).then_some(behind)
    }

    /// What is ready of an event. If it is not, it is made so by this thread: a thread that has begun may be slow.
    pub(crate) fn ready(&self, index: usize) -> ReadyEvent<'_> {
        let (number, at) = (index / self.share_events, index % self.share_events);
        let share = self.share(number).expect("every event is in a share");
        while share.ready.get().is_none() && !share.take() {
            // Somebody is at it, and will be done once one of the next is.
            if !self.make_one_ready() {
                break;
            }
        }
        if share.ready.get().is_none() {
            self.compute(number);
        }
        let ready = share.ready.get().expect("it was computed by this thread or another");
        let Row { envelope, parts_at, anchors, salt } = &ready.rows[at];
        ReadyEvent {
            envelope: EnvelopeRef {
                bytes: &ready.envelopes[envelope.clone()],
                parts_at: *parts_at,
                has_tags: !self.events[index].event.tags().is_empty(),
            },
            salt,
            anchors: &ready.anchors[anchors.clone()],
        }
    }

    fn computed(&self, number: usize) -> Ready {
        let events = self.events.iter().skip(number * self.share_events).take(self.share_events);
        let data_lens = events.clone().map(|event| event.event.data().map_or(0, Bytes::len));
        let mut anchors = Vec::with_capacity(data_lens.map(anchors_about).sum());
        // First, since it reads the data quickest: from here on it is in the cache.
        let anchored = events.clone().map(|event| {
            let from = anchors.len();
            event.event.data().inspect(|data| put_anchors(data, &mut anchors));
            (Salt::random(), from..anchors.len())
        });
        let anchored: Vec<(Salt, Range<usize>)> = anchored.collect();
        let contents = events.clone().zip(&anchored);
        let contents = contents.filter_map(|(event, (salt, _))| Some((*salt, event.event.data()?.as_ref())));
        let mut commitments = commit_each(&contents.collect::<Vec<_>>()).into_iter();
        let mut envelopes = Vec::with_capacity(events.clone().map(|event| event.envelope_len).sum());
        let rows = events.zip(anchored).map(|(CheckedEvent { event, envelope_len, .. }, (salt, anchors))| {
            let part = event.data().map(|data| Part {
                name: DATA_PART.into(),
                commitment: commitments.next().expect("there is one of every data"),
                length: data.len() as u64,
                scope: event.attribute("dataperson").map(str::to_owned),
            });
            let from = envelopes.len();
            let parts_at = encode_envelope(event, part.as_slice(), &mut envelopes);
            debug_assert_eq!(envelopes.len() - from, *envelope_len, "limits were checked against it");
            Row { envelope: from..envelopes.len(), parts_at, anchors, salt }
        });
        let rows = rows.collect();
        Ready { envelopes, anchors, rows }
    }
}

fn check_conditions(conditions: &[Condition], limits: &Limits) -> Result<()> {
    if conditions.len() as u64 > limits.conditions_max {
        return Err(Error::limit(
            "the list of conditions",
            conditions.len() as u64,
            limits.conditions_max,
            "entries",
        ));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let checked = match condition {
            Condition::Stream { stream, .. } => Query::stream(stream.as_str()).check(limits),
            Condition::FailIf { query, .. } => query.check(limits),
        };
        checked.map_err(|e| e.context(format!("condition {index}")))?;
    }
    Ok(())
}

/// Checks an event; answers how many bytes its envelope has.
fn check_event(event: &Event, limits: &Limits, internal: bool) -> Result<usize> {
    if event.event_type().starts_with('~') && !internal {
        let event_type = shown(event.event_type());
        return Err(Error::invalid(format!(
            "the type '{event_type}' begins with '~', which is reserved for the log itself"
        )));
    }
    let length = |what: &str, text: &str, limit: u64| match text.len() as u64 > limit {
        true => Err(Error::limit(format!("the {what} '{}'", shown(text)), text.len() as u64, limit, "bytes")),
        false => Ok(()),
    };
    length("id", event.id(), limits.name_bytes_max)?;
    length("type", event.event_type(), limits.name_bytes_max)?;
    length("stream", event.stream().unwrap_or_default(), limits.name_bytes_max)?;
    length("source", event.source(), limits.source_bytes_max)?;
    if event.tags().len() as u64 > limits.tags_max {
        return Err(Error::limit("the list of tags", event.tags().len() as u64, limits.tags_max, "tags"));
    }
    let data_len = event.data().map_or(0, Bytes::len) as u64;
    if data_len > limits.data_bytes_max {
        return Err(Error::limit("the data", data_len, limits.data_bytes_max, "bytes"));
    }
    let envelope_len = envelope_len(event);
    let entry_bytes = entry_bytes_max(envelope_len);
    if entry_bytes as u64 > limits.entry_bytes_max {
        return Err(Error::limit(
            "the envelope of the event",
            entry_bytes as u64,
            limits.entry_bytes_max,
            "bytes",
        ));
    }
    Ok(envelope_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize, kind: &str) -> Event {
        Event::builder("s", n.to_string(), kind).stream("s/1").data(vec![b'x'; 1_000]).build().unwrap()
    }

    fn batch(events: usize) -> Arc<Batch> {
        let limits = Limits::new(crate::Durability::None);
        let append = Append::new((0..events).map(|n| event(n, "t")));
        Prepared::checked(append, &limits).unwrap().batch.clone()
    }

    fn salts(batch: &Batch) -> Vec<Salt> {
        (0..batch.len()).map(|index| *batch.ready(index).salt).collect()
    }

    #[test]
    fn what_is_ready_is_the_same_for_everybody_and_stays_so() {
        for events in [1, SHARE_EVENTS, 5 * SHARE_EVENTS + 3] {
            let batch = batch(events);
            let all: Vec<Vec<Salt>> = std::thread::scope(|scope| {
                let helping = [0; 2].map(|_| scope.spawn(|| batch.make_ready()));
                let reading = [0; 2].map(|_| scope.spawn(|| salts(&batch)));
                helping.into_iter().for_each(|thread| thread.join().unwrap());
                reading.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(all[0], all[1], "{events} events");
            assert_eq!(all[0], salts(&batch), "{events} events");
            let mut different = all[0].clone();
            different.sort_unstable_by_key(|salt| salt.0);
            different.dedup();
            assert_eq!(different.len(), events, "every event has a salt of its own");
        }
    }

    #[test]
    fn every_event_has_the_commitment_to_its_own_data() {
        let limits = Limits::new(crate::Durability::None);
        let event = |n: usize| {
            let event = Event::builder("s", n.to_string(), "t");
            let data = vec![n as u8; n * 97 % 1_500];
            if n % 3 == 1 { event } else { event.data(data) }.build().unwrap()
        };
        let append = Append::new((0..2 * SHARE_EVENTS + 3).map(event));
        let batch = Prepared::new(append, &limits).unwrap().batch.clone();
        for (index, CheckedEvent { event, .. }) in batch.events.iter().enumerate() {
            let ready = batch.ready(index);
            let part = |data: &Bytes| Part {
                name: DATA_PART.into(),
                commitment: crate::commitment::commit(ready.salt, data),
                length: data.len() as u64,
                scope: None,
            };
            let mut envelope = Vec::new();
            encode_envelope(event, event.data().map(part).as_slice(), &mut envelope);
            assert_eq!(ready.envelope.bytes, envelope, "event {index}");
        }
    }

    #[test]
    fn a_share_that_somebody_began_and_never_finishes_is_made_ready_by_who_needs_it() {
        let batch = batch(3 * SHARE_EVENTS);
        assert!(batch.others[0].take() && !batch.others[0].take());
        assert!(batch.ready(SHARE_EVENTS).salt != batch.ready(0).salt);
        assert!((0..3).all(|number| batch.share(number).unwrap().ready.get().is_some()));
    }

    #[test]
    fn large_events_are_shared_out_one_by_one() {
        let limits = Limits::new(crate::Durability::None);
        let large = |n: usize| {
            let data = vec![b'x'; if n == 0 { 0 } else { 1 << 20 }];
            Event::builder("s", n.to_string(), "t").data(data).build().unwrap()
        };
        let prepared = Prepared::checked(Append::new((0..4).map(large)), &limits).unwrap();
        assert_eq!((prepared.batch.shares(), salts(&prepared.batch).len()), (4, 4));
        // Three of these would be in a share: two are, which are committed to together.
        let large =
            |n: usize| Event::builder("s", n.to_string(), "t").data(vec![b'x'; 9_500]).build().unwrap();
        let prepared = Prepared::checked(Append::new((0..6).map(large)), &limits).unwrap();
        assert_eq!(prepared.batch.shares(), 3);
    }

    #[test]
    fn a_batch_names_the_event_that_is_wrong() {
        let limits = Limits::new(crate::Durability::None);
        let mut events: Vec<Event> = (0..500).map(|n| event(n, "t")).collect();
        events[321] = event(321, "~ours");
        let error = Prepared::checked(Append::new(events), &limits).unwrap_err();
        assert!(error.to_string().contains("event 321"), "{error}");
    }
}

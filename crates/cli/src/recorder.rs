//! Records many events in batches, for `import`: idempotent, and exact about what was done when it fails.
//!
//! *Invariant*: events are recorded in the order they come in, and each is in one batch that is recorded
//! whole or not at all. After a failure everything before the named place is recorded, nothing behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use precedent::{Append, Appended, Error, ErrorKind, Event, Log, Status};

use crate::failure::{Failure, Result};
use crate::text::counted;

/// Where a batch ends: far below what a frame may hold, so that one event more always fits.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_EVENTS: usize = 1_000;

/// How often a store that has too much to do is asked again.
const TRIES_MAX: u32 = 8;

/// Collects events and records them batch by batch.
pub(crate) struct Recorder<P> {
    log: Log,
    events: Vec<Event>,
    places: Vec<P>,
    bytes: usize,
    tally: Tally,
}

/// What was done so far.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub(crate) struct Tally {
    /// Events that are new in the log.
    pub(crate) recorded: u64,
    /// Events that were there already.
    pub(crate) existing: u64,
    /// Both, by type.
    pub(crate) types: BTreeMap<String, u64>,
}

impl<P: std::fmt::Display> Recorder<P> {
    /// Records into `log`.
    pub(crate) fn new(log: Log) -> Self {
        Self { log, events: Vec::new(), places: Vec::new(), bytes: 0, tally: Tally::default() }
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes one event; `place` says where it comes from. Records the batch when it is full.
    pub(crate) async fn push(&mut self, event: Event, place: P) -> Result<()> {
        self.bytes += 512 + event.data().map_or(0, bytes::Bytes::len);
        self.events.push(event);
        self.places.push(place);
        match self.bytes >= BATCH_BYTES || self.events.len() >= BATCH_EVENTS {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Records what has been collected.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        let events = std::mem::take(&mut self.events);
        let places = std::mem::take(&mut self.places);
        if events.is_empty() {
            return Ok(());
        }
        match self.append(events.clone()).await {
            Ok(()) => Ok(()),
            // One of the events cannot be recorded, and the batch with it. Alone each says whether it is the one.
            Err(error) if events.len() > 1 && is_of_one_event(&error) => {
                for (event, place) in events.into_iter().zip(places) {
                    if let Err(error) = self.append(vec![event]).await {
                        return Err(self.failed(error, &place));
                    }
                }
                Ok(())
            }
            Err(error) => Err(self.failed(error, &places[0])),
        }
    }

    /// Records what has been collected, and then fails with `failure`: what stands before a bad place is good.
    pub(crate) async fn flush_and_fail<T>(&mut self, failure: Failure) -> Result<T> {
        self.flush().await?;
        Err(failure.adding(self.so_far()))
    }

    fn failed(&self, error: Error, place: &P) -> Failure {
        let of_event = is_of_one_event(&error);
        let failure = Failure::from(error).adding(self.so_far());
        if of_event { failure.context(place) } else { failure }
    }

    fn so_far(&self) -> String {
        let Tally { recorded, existing, .. } = self.tally;
        let existing = match existing {
            0 => String::new(),
            n => format!(", {} already there", counted(n, "event")),
        };
        format!("{} recorded before it{existing}", counted(recorded, "event"))
    }

    async fn append(&mut self, events: Vec<Event>) -> precedent::Result<()> {
        let appended = self.append_patiently(&events).await?;
        for (event, receipt) in events.iter().zip(&appended.events) {
            match receipt.status {
                Status::Recorded => self.tally.recorded += 1,
                Status::Existing => self.tally.existing += 1,
            }
            match self.tally.types.get_mut(event.event_type()) {
                Some(count) => *count += 1,
                None => {
                    self.tally.types.insert(event.event_type().to_owned(), 1);
                }
            }
        }
        Ok(())
    }

    /// Waits where the store asks for it.
    async fn append_patiently(&self, events: &[Event]) -> precedent::Result<Appended> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.log.append(Append::new(events.to_vec())).await {
                Err(error) if error.kind() == ErrorKind::Overloaded && tries < TRIES_MAX => {
                    let secs = error.retry_after_secs().unwrap_or(1).clamp(1, 30);
                    tokio::time::sleep(Duration::from_secs(secs.into())).await;
                }
                other => return other,
            }
        }
    }
}

/// Whether it is one of the events that is refused, rather than the store that cannot.
fn is_of_one_event(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::LimitExceeded | ErrorKind::AlreadyExists)
}

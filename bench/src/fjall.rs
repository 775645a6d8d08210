//! fjall: events by position, and a key for each event under its stream and under its type, in one durable batch.

use std::path::Path;

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::group::{Engine, Group};
use crate::peer::{Appender, Peer, Record, Result, Sink, What};

pub(crate) struct Fjall(Group<Store>);

struct Store {
    next: u64,
    events: Keyspace,
    streams: Keyspace,
    types: Keyspace,
    // The last to be dropped: it ends what works for the others.
    database: Database,
}

impl Fjall {
    pub(crate) fn open(place: &Path) -> Result<Self> {
        let database = Database::builder(place.join("fjall")).open()?;
        let keyspace = |name: &str| database.keyspace(name, KeyspaceCreateOptions::default);
        let (events, streams, types) = (keyspace("events")?, keyspace("streams")?, keyspace("types")?);
        let last = events.last_key_value().map(|guard| guard.key()).transpose()?;
        let next = last.map_or(Ok(0), |key| position(&key).map(|last| last + 1))?;
        Ok(Self(Group::new(Store { next, events, streams, types, database })))
    }
}

/// The last eight bytes of a key.
fn position(key: &[u8]) -> Result<u64> {
    let bytes = key.last_chunk::<8>().ok_or("a key is shorter than a position")?;
    Ok(u64::from_be_bytes(*bytes))
}

fn under(name: &str, position: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 9);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key.extend_from_slice(&position.to_be_bytes());
    key
}

/// What is not data, with its length in front.
fn encoded(record: &Record) -> Vec<u8> {
    let head = format!("{}\n{}\n{}", record.id, record.stream, record.event_type);
    let mut value = Vec::with_capacity(2 + head.len() + record.data.len());
    value.extend_from_slice(&(head.len() as u16).to_be_bytes());
    value.extend_from_slice(head.as_bytes());
    value.extend_from_slice(&record.data);
    value
}

fn data(value: &[u8]) -> Result<&[u8]> {
    let (length, rest) = value.split_first_chunk::<2>().ok_or("an event is shorter than its head")?;
    rest.get(usize::from(u16::from_be_bytes(*length))..)
        .ok_or_else(|| "an event is shorter than its head".into())
}

impl Engine for Store {
    fn commit(&mut self, records: Vec<Record>) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for record in &records {
            batch.insert(&self.events, self.next.to_be_bytes(), encoded(record));
            batch.insert(&self.streams, under(&record.stream, self.next), []);
            batch.insert(&self.types, under(record.event_type, self.next), []);
            self.next += 1;
        }
        Ok(batch.commit()?)
    }
}

impl Peer for Fjall {
    fn appender(&self) -> Result<Box<dyn Appender + '_>> {
        Ok(Box::new(&self.0))
    }

    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
        let store = self.0.engine();
        let (index, name) = match what {
            What::Stream(stream) => (&store.streams, stream),
            What::Type(event_type) => (&store.types, event_type),
            What::All { .. } => {
                for guard in store.events.iter() {
                    sink(data(&guard.value()?)?);
                }
                return Ok(());
            }
        };
        for guard in index.prefix([name.as_bytes(), &[0]].concat()) {
            let at = position(&guard.key()?)?.to_be_bytes();
            let value = store.events.get(at)?.ok_or("an event that is indexed is missing")?;
            sink(data(&value)?);
        }
        Ok(())
    }

    fn head(&self) -> Result<()> {
        self.0.engine().events.last_key_value().map(|guard| guard.key()).transpose()?;
        Ok(())
    }
}

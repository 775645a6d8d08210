//! Tephra, embedded and behind its own server, with its defaults: the stream of an event is a tag.

use std::path::Path;

use ::tephra::{
    Event, EventType, Position, Query, QueryItem, SegmentConfig, SegmentSet, Tag, Tags, WriteCoordinator,
    WriteHandle, WriterConfig,
};

use crate::peer::{Appender, Peer, Record, Result, Sink, What};

/// What its server's settings begin with.
const SEGMENT_BYTES: usize = 256 << 20;

pub(crate) struct Tephra {
    handle: WriteHandle,
    coordinator: Option<WriteCoordinator>,
}

fn start(place: &Path) -> Result<(WriteCoordinator, WriteHandle)> {
    let set = SegmentSet::open(place.join("tephra"), SegmentConfig::new(SEGMENT_BYTES))?;
    Ok(WriteCoordinator::start(set, WriterConfig::default())?)
}

impl Tephra {
    pub(crate) fn open(place: &Path) -> Result<Self> {
        let (coordinator, handle) = start(place)?;
        Ok(Self { handle, coordinator: Some(coordinator) })
    }
}

impl Drop for Tephra {
    fn drop(&mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.shutdown();
        }
    }
}

fn query(what: What<'_>) -> Result<Query> {
    Ok(match what {
        What::Stream(stream) => Query::item(QueryItem::with_tags(Tags::new([Tag::new(stream)?])?)),
        What::Type(event_type) => Query::item(QueryItem::of_types(vec![EventType::new(event_type)?])),
        What::All { .. } => Query::all(),
    })
}

struct Embedded(WriteHandle);

impl Appender for Embedded {
    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        let event = |record: &Record| -> Result<Event> {
            let tags = Tags::new([Tag::new(record.stream.as_str())?])?;
            Ok(Event::new(&EventType::new(record.event_type)?, &tags, &record.data)?)
        };
        self.0.append(records.iter().map(event).collect::<Result<_>>()?, None)?;
        Ok(())
    }
}

impl Peer for Tephra {
    fn appender(&self) -> Result<Box<dyn Appender + '_>> {
        Ok(Box::new(Embedded(self.handle.clone())))
    }

    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
        let mut reads = self.handle.read(&query(what)?, Position::ZERO, None);
        while let Some(sequenced) = reads.next() {
            sink(sequenced?.event.data());
        }
        Ok(())
    }

    fn head(&self) -> Result<()> {
        self.handle.head();
        Ok(())
    }
}

#[cfg(feature = "tephra-server")]
pub(crate) mod served {
    //! The server, and its own blocking client.

    use std::sync::{Mutex, PoisonError};

    use tephra_client::Client;
    use tephra_server::{Server, ServerConfig};

    use super::*;
    use crate::child::Child;

    /// Serves until it is killed.
    pub(crate) fn serve(place: &Path, address: &str) -> Result<()> {
        let (_coordinator, handle) = start(place)?;
        Ok(Server::bind(address, handle, ServerConfig::default())?.run()?)
    }

    pub(crate) struct TephraServer {
        child: Child,
        reader: Mutex<Client>,
    }

    impl TephraServer {
        pub(crate) fn start(place: &Path) -> Result<Self> {
            let child = Child::serve("tephra-server", place)?;
            let reader = Mutex::new(Client::connect(child.address())?);
            Ok(Self { child, reader })
        }
    }

    struct Connection(Client);

    impl Appender for Connection {
        fn append(&mut self, records: Vec<Record>) -> Result<()> {
            let event = |record: &Record| {
                tephra_client::Event::new(record.event_type, [record.stream.as_str()], &record.data[..])
            };
            self.0.append(records.iter().map(event).collect::<Result<Vec<_>, _>>()?, None)?;
            Ok(())
        }
    }

    impl Peer for TephraServer {
        fn appender(&self) -> Result<Box<dyn Appender + '_>> {
            Ok(Box::new(Connection(Client::connect(self.child.address())?)))
        }

        fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            for sequenced in reader.read(query(what)?, Position::ZERO, None)? {
                sink(sequenced?.event().payload());
            }
            Ok(())
        }

        fn head(&self) -> Result<()> {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.stats()?;
            Ok(())
        }
    }
}

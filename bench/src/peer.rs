//! What a store has to be able to do to be measured.

use bytes::Bytes;

/// Whatever goes wrong ends the measurement; nobody asks for more than what it says.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// An event, as every store here records it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) stream: String,
    pub(crate) event_type: &'static str,
    pub(crate) data: Bytes,
}

/// Which events are read, in their order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum What<'a> {
    Stream(&'a str),
    Type(&'a str),
    /// Everything; a store without an order over all streams reads one after the other.
    All {
        streams: u64,
    },
}

/// Is given the data of every event that is read.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// A store under measurement. It ends when it is dropped: an embedded one cleanly, a server is killed.
pub(crate) trait Peer: Send + Sync {
    /// What one thread appends with: a connection of its own, if the store is a server.
    fn appender(&self) -> Result<Box<dyn Appender + '_>>;
    /// Reads; an error if the store offers no such read.
    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()>;
    /// Whether it can read by type.
    fn reads_types(&self) -> bool {
        true
    }
    /// Any answer that the store gives about its end.
    fn head(&self) -> Result<()>;
}

/// Appends of one thread.
pub(crate) trait Appender {
    /// Records all of them or none, durable when it returns.
    fn append(&mut self, records: Vec<Record>) -> Result<()>;
}

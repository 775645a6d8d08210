//! The core of Precedent: what an event is, how a log is written down, and what a store promises.
//!
//! Nothing here knows a disk, a network or a runtime, and a clock is given to whoever needs one (only
//! [`MemoryStore::new`] takes the system's). The modules, from the inside out:
//!
//! | module | responsible for |
//! |---|---|
//! | [`event`] | one immutable fact as its producer sent it |
//! | [`cloudevents`] | CloudEvents JSON and the native JSON shape, in and out, nothing lost |
//! | [`query`] | which events are meant: queries, bounds, append conditions |
//! | [`entry`] | the canonical bytes of an event's envelope: the Merkle leaf |
//! | [`commitment`] | salted commitments to an event's data |
//! | `sha256` | hashes of several messages side by side |
//! | [`tree`] | the RFC 6962 Merkle tree over the entries |
//! | [`hashed`] | tables whose keys are hashes already |
//! | [`extents`] | content that repeats earlier content, stored once |
//! | [`stored`] | one event as it is stored: entry and parts |
//! | [`frame`] | what one durable write holds, byte for byte |
//! | [`prepared`] | an append on its way to a frame: checked, its commitments made by whoever has time |
//! | [`drafts`] | what the sequencer remembers from one frame to the next |
//! | [`sequencer`] | how appends become the next frame: keys, conditions, positions, versions |
//! | [`verify`] | checks a sequence of frames, trusting nobody |
//! | [`store`] | the [`Store`] trait and its promises |
//! | [`log`] | [`Log`]: one log of a store, with streams that read and follow |
//! | [`wire`] | what a server and its client say to each other |
//! | [`memory`] | [`MemoryStore`]: the model every other store is compared with |
//! | `conformance` | the promises as tests, behind the feature of that name |
//!
//! The bytes are described in `docs/format.md`, the words in `docs/glossary.md`.

mod cbor;
pub mod cloudevents;
pub mod commitment;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod drafts;
pub mod entry;
pub mod error;
pub mod event;
pub mod extents;
pub mod frame;
pub mod hashed;
pub mod ids;
pub mod limits;
pub mod log;
pub mod memory;
pub mod prepared;
pub mod query;
pub mod sequencer;
mod sha256;
pub mod store;
pub mod stored;
pub mod tree;
mod usual;
pub mod verify;
pub mod wire;

pub use error::{Conflict, Error, ErrorKind, Result};
pub use event::{AttributeValue, Event, EventBuilder, Tag};
pub use ids::{FrameId, Hash, LogId, LogName, Position, Time, Version};
pub use limits::{Durability, Limits};
pub use log::{Log, Pending};
pub use memory::MemoryStore;
pub use query::{Condition, Direction, ExpectedVersion, IndexedAttribute, Query, QueryItem, TimeField};
pub use store::{
    Append, Appended, Damage, ExpectedRegister, Head, Page, Read, Receipt, RecordedEvent, Register,
    RegisterName, Status, Store, Submitted,
};

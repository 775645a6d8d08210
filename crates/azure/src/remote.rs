//! What a service has to be able to do so that a log can be kept in it.
//!
//! The protocol of a log is the same on every service, and is written once, over these verbs:
//! *put the next frame, if there is none of that number and the one before it is there*. A [`Remote`] translates them
//! into the transactions of its service and its failures into [`Outcome`]s. It decides nothing: not what goes into a
//! frame, not what to do when somebody else was quicker, not how long to go on trying.
//!
//! Frames are opaque here. How they are packed into items (compressed, as text, in parts) is the service's business;
//! what comes back are the bytes that were given, or an error of kind `damaged`.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName};
use precedent_core::{Durability, FrameId, Hash, LogId, LogName, Position, RecordedEvent, Result, Time};

pub use crate::frame_set::FrameSet;

/// What is known of a log besides its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The log's id. Everything about the log is kept under it, so that a log that is made again after everything
    /// was deleted cannot be mistaken for the one before.
    pub id: LogId,
    /// Whether it is a copy that has not been promoted: then only frames of its original may be added.
    pub copy: bool,
    /// The region that all frames are written to, as the service names it; empty where a service has but one.
    pub home: String,
}

/// A frame that is to be the next one of its log.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The log.
    pub log: LogId,
    /// The frame's number.
    pub sequence: u64,
    /// Its random id, by which a frame that is there already is recognised as the one that was sent.
    pub id: FrameId,
    /// The position of its first event.
    pub first: Position,
    /// How many events it has.
    pub count: u32,
    /// The hash of its chained header.
    pub hash: Hash,
    /// The hash of the frame before it; zero for the first.
    pub previous: Hash,
    /// The first bytes of the frame, its header and the tree's edge: they are kept by themselves as well.
    pub header: Bytes,
    /// The encoded frame, without padding.
    pub bytes: Bytes,
}

/// What came of an attempt to commit a frame.
#[derive(Debug)]
pub enum Outcome {
    /// It is durable: by this attempt, or by an earlier one whose answer was lost.
    Committed,
    /// Another frame has this number. Nothing was written.
    Taken,
    /// The frame before it is not there. Nothing was written.
    Gone(String),
    /// The service did not take it, and says so: nothing was written, and nothing will be.
    Refused(precedent_core::Error),
    /// Nobody can say. It has to be sent again, byte for byte, at the same number.
    Unsettled(precedent_core::Error),
}

/// A frame as it is stored.
#[derive(Debug, Clone)]
pub struct StoredFrame {
    /// Its number.
    pub sequence: u64,
    /// [`Commit::header`], which is kept once more by itself, so that a frame whose body is damaged still says
    /// which events it had; `None` if not even that can be read.
    pub header: Option<Bytes>,
    /// Its bytes, exactly as committed; `damaged`, with the place (partition, item, part), if they are not there, cannot
    /// be unpacked or fail the checksum kept beside them.
    pub bytes: Result<Bytes>,
}

/// An event as a document for the tools of the service. It is an export: nothing reads it to decide anything.
#[derive(Debug, Clone)]
pub struct Document {
    /// The log's name.
    pub name: LogName,
    /// The event.
    pub event: RecordedEvent,
    /// Its data is longer than this many bytes: then the document names it, with an excerpt, instead of holding it.
    pub inline_bytes_max: usize,
}

/// How a document names the data that it does not hold, on every service: `precedent:`, the log's name, `/`, and the
/// position of the event in it.
pub fn dataref(log: &LogName, position: Position) -> String {
    format!("precedent:{log}/{position}")
}

/// How what [`Remote::check_documents`] says of a document that is not there begins; where it should be may follow.
pub const IS_MISSING: &str = "is missing";

/// A service that logs can be kept in.
///
/// What every method answers when the service says no: `unauthorized` for credentials that are missing or refused,
/// `not_found` for an account, database, container or table that is not there (naming the `provision` command that
/// makes it), `overloaded` once retries of a throttled call are used up, `unavailable` if the service does not answer
/// and nothing was written, `full` for a partition at its ceiling, `not_a_store` for a container or table that is
/// made otherwise than a log needs it. No message ever holds a credential.
pub trait Remote: Send + Sync + std::fmt::Debug + 'static {
    /// The store, for messages: a URL without credentials.
    fn url(&self) -> String;

    /// What names the store for good, wherever the URL says it from: the local copy is kept under it.
    fn identity(&self) -> String;

    /// What durable means here.
    fn durability(&self) -> Durability;

    /// How long the encoded frame is at most that one item of the service takes comfortably. A longer one is
    /// committed too, but in parts.
    fn frame_bytes(&self) -> usize;

    /// The region a new log has its home in.
    fn region(&self) -> String;

    /// What time it is there, as the service last said: its time, and this machine's when it was heard.
    fn clock(&self) -> Option<(Time, Time)>;

    /// The names of all logs.
    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>>;

    /// The log of this name.
    fn log<'a>(&'a self, name: &'a LogName) -> BoxFuture<'a, Result<Option<LogRecord>>>;

    /// Makes a log if there is none of this name, and answers the one that is there then.
    fn make_log<'a>(&'a self, name: &'a LogName, record: LogRecord) -> BoxFuture<'a, Result<LogRecord>>;

    /// Makes a copy a log that can be written to. Once it is one, nothing happens.
    fn promote<'a>(&'a self, name: &'a LogName, id: LogId) -> BoxFuture<'a, Result<()>>;

    /// Whether there is a frame of this number: one cheap read.
    fn has_frame(&self, log: LogId, sequence: u64) -> BoxFuture<'_, Result<bool>>;

    /// The frames from this number on that are there: about `bytes_max` bytes of them and at least one, if there is one.
    ///
    /// In the order of their numbers, each once, none below `from`. A number that is left out between two of them, or
    /// before the first, is one whose frame is not there: a gap is never taken for the end. None at all means that no
    /// frame from `from` on was there when this was asked; that is the only way to say so. Fewer bytes than asked for
    /// mean nothing. A frame that was committed before the call, by whoever, is seen; one that is committed meanwhile may
    /// be, and then so are all before it.
    fn frames(&self, log: LogId, from: u64, bytes_max: usize) -> BoxFuture<'_, Result<Vec<StoredFrame>>>;

    /// Tries to commit a frame, once or as often as the service's own retries have it. Parts are written before the
    /// item that commits them, and never twice.
    fn commit<'a>(&'a self, commit: &'a Commit) -> BoxFuture<'a, Outcome>;

    /// Reads a register: linearizable, also across processes.
    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>>;

    /// Sets a register if it is as expected; `conflict` if it is not, `unknown` if nobody can say.
    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>>;

    /// The frames of a log whose documents are complete, as far as writers have said so.
    fn documented(&self, log: LogId) -> BoxFuture<'_, Result<FrameSet>>;

    /// Says that the documents of these frames are there. What others have said stays; answers both together.
    fn add_documented<'a>(&'a self, log: LogId, frames: &'a FrameSet) -> BoxFuture<'a, Result<FrameSet>>;

    /// Writes documents that are not there; those that are stay. One answer a document: a failure is that document's
    /// alone, and never a failure of the log.
    fn put_documents<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, Vec<Result<()>>>;

    /// Compares documents with what is there: `None` where they agree, else what differs, in a sentence: [`IS_MISSING`],
    /// or such as `has other data`. [`Document::inline_bytes_max`] has to be what they were written with.
    fn check_documents<'a>(&'a self, documents: &'a [Document])
    -> BoxFuture<'a, Result<Vec<Option<String>>>>;

    /// What is to be said about the service: partition sizes, throughput, region, clock, indexing.
    fn examine<'a>(&'a self, name: &'a LogName, log: LogId) -> BoxFuture<'a, Result<Vec<Finding>>>;
}

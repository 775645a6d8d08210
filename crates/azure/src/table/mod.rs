//! Azure Table Storage: a log in one table.
//!
//! | module | responsible for |
//! |---|---|
//! | `settings` | which table, and who we are to it |
//! | `client` | calls of the service: signed, bounded, tried again |
//! | `entity`, `batch` | what an entity and a transaction are, and their limits |
//! | `keys` | where everything stands |
//! | `frames` | how a frame is committed and read |
//! | `records` | logs, registers, and the frames whose documents are complete |
//! | `documents` | the events as entities, for the tools of the service |
//!
//! [`TableRemote`] is the [`Remote`] of the protocol. Reads are strongly consistent within the primary region, where
//! all of them go; a transaction is held by a quorum of replicas there before it is answered. One table is enough, with
//! nothing else in it that begins with `~`, `type:` or `stream:`.

pub mod batch;
pub mod client;
mod documents;
pub mod entity;
mod frames;
pub mod keys;
mod records;
pub mod settings;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use azure_core::http::policies::Policy;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName};
use precedent_core::{Durability, FrameId, LogId, LogName, Result, Time};

use crate::remote::{Commit, Document, FrameSet, LogRecord, Outcome, Remote, StoredFrame};
use client::Client;
use frames::Head;
pub use settings::{Credential, Options, Settings};

/// Frames of a bucket: two to this.
const BUCKET_BITS: u32 = 12;
/// The encoded frame that is written comfortably: packed it is one or two rows, far from the limits of a transaction.
const FRAME_BYTES: usize = 512 << 10;

/// A table that logs are kept in.
pub struct TableRemote {
    client: Client,
    url: String,
    identity: String,
    options: Options,
    bucket_bits: u32,
    kept: Mutex<Kept>,
}

/// What is remembered so that it need not be asked. Nothing depends on it being right.
#[derive(Default)]
struct Kept {
    heads: HashMap<LogId, Head>,
    /// The frame whose parts were written last.
    parts: Option<FrameId>,
}

impl fmt::Debug for TableRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableRemote({}, {:?})", self.url, self.client)
    }
}

impl TableRemote {
    /// The table of these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// `unauthorized` if there is no credential.
    pub fn new(settings: &Settings) -> Result<Self> {
        Self::with_policies(settings, Vec::new())
    }

    /// Like [`TableRemote::new`], with policies that see each try, after it was signed.
    ///
    /// # Errors
    /// As [`TableRemote::new`].
    pub fn with_policies(settings: &Settings, policies: Vec<Arc<dyn Policy>>) -> Result<Self> {
        let client = Client::new(settings, policies)?;
        let endpoint = &settings.endpoint;
        let identity =
            format!("{}{}{}", endpoint.authority(), endpoint.path(), settings.table.to_lowercase());
        Ok(Self {
            client,
            url: settings.url.clone(),
            identity,
            options: settings.options,
            bucket_bits: BUCKET_BITS,
            kept: Mutex::default(),
        })
    }

    /// The same table with smaller buckets, two to `bits` frames each, so that a test gets to a boundary. Who reads a
    /// log has to have the buckets it was written with.
    #[doc(hidden)]
    #[must_use]
    pub fn with_bucket_bits(mut self, bits: u32) -> Self {
        self.bucket_bits = bits.min(BUCKET_BITS);
        self
    }

    /// The client, for what is not a log's business.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_head(&self, log: LogId) -> Option<Head> {
        self.kept().heads.get(&log).cloned()
    }

    fn remember_head(&self, log: LogId, head: Option<Head>) {
        let mut kept = self.kept();
        match head {
            Some(head) => kept.heads.insert(log, head),
            None => kept.heads.remove(&log),
        };
    }

    fn has_parts_of(&self, frame: FrameId) -> bool {
        self.kept().parts == Some(frame)
    }

    fn remember_parts_of(&self, frame: FrameId) {
        self.kept().parts = Some(frame);
    }
}

impl Remote for TableRemote {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn durability(&self) -> Durability {
        Durability::RegionQuorum
    }

    fn frame_bytes(&self) -> usize {
        self.options.item_bytes.unwrap_or(FRAME_BYTES)
    }

    /// A table is written in one region only, which need not be named.
    fn region(&self) -> String {
        String::new()
    }

    fn clock(&self) -> Option<(Time, Time)> {
        self.client.clock()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        self.list_logs().boxed()
    }

    fn log<'a>(&'a self, name: &'a LogName) -> BoxFuture<'a, Result<Option<LogRecord>>> {
        self.read_log(name).boxed()
    }

    fn make_log<'a>(&'a self, name: &'a LogName, record: LogRecord) -> BoxFuture<'a, Result<LogRecord>> {
        self.write_log(name, record).boxed()
    }

    fn promote<'a>(&'a self, name: &'a LogName, id: LogId) -> BoxFuture<'a, Result<()>> {
        self.promote_log(name, id).boxed()
    }

    fn has_frame(&self, log: LogId, sequence: u64) -> BoxFuture<'_, Result<bool>> {
        self.has(log, sequence).boxed()
    }

    fn frames(&self, log: LogId, from: u64, bytes_max: usize) -> BoxFuture<'_, Result<Vec<StoredFrame>>> {
        self.read(log, from, bytes_max).boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> BoxFuture<'a, Outcome> {
        self.put(commit).boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        self.read_register(name).boxed()
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        self.write_register(name, expected, value).boxed()
    }

    fn documented(&self, log: LogId) -> BoxFuture<'_, Result<FrameSet>> {
        self.read_documented(log).boxed()
    }

    fn add_documented<'a>(&'a self, log: LogId, frames: &'a FrameSet) -> BoxFuture<'a, Result<FrameSet>> {
        self.write_documented(log, frames).boxed()
    }

    fn put_documents<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, Vec<Result<()>>> {
        self.write_documents(documents).boxed()
    }

    fn check_documents<'a>(
        &'a self,
        documents: &'a [Document],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>>> {
        self.compare_documents(documents).boxed()
    }

    fn examine<'a>(&'a self, name: &'a LogName, log: LogId) -> BoxFuture<'a, Result<Vec<Finding>>> {
        self.findings(name, log).boxed()
    }
}

//! Azure Cosmos DB for NoSQL as a [`Remote`].
//!
//! Everything is an item of one container with the partition key `/eventType`, or `["/eventType", "/period"]`:
//!
//! | `eventType` | items | id |
//! |---|---|---|
//! | `~logs` | one a log | its name |
//! | `~log/LOG/BUCKET` | a frame, and its link | number; number and hash |
//! | `~part/LOG/FRAME` | what of a frame does not fit one item | number |
//! | `~registers` | one a register | its name, escaped |
//! | `~documents` | the frames of a log whose documents are complete | log |
//! | the type of an event | its document | log and position |
//!
//! *Invariant*: a frame and its link are created in the same transaction that reads the link of the frame before it, so
//! a frame is there only if the very frame it follows was. A link is an item of nothing but an id, because the id alone
//! is what a transaction can hold a hash against: reading the predecessor itself would say too late that it is another.

mod connect;
mod documents;
mod errors;
mod examine;
mod frames;
mod logs;
mod registers;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use azure_data_cosmos::diagnostics::DiagnosticsContext;
use azure_data_cosmos::models::ResponseHeaders;
use azure_data_cosmos::options::{ItemWriteOptions, Precondition, Region};
use azure_data_cosmos::{ContainerClient, CosmosError, PartitionKey};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName};
use precedent_core::{Durability, Error, ErrorKind, FrameId, LogId, LogName, Result, Time};
use serde_json::Value;

pub use connect::Transport;
pub use settings::{
    CONNECTION_STRING_VARIABLE, Credential, ENDPOINT_VARIABLE, KEY_VARIABLE, Options, Settings,
};

use crate::remote::{Commit, Document, FrameSet, LogRecord, Outcome, Remote, StoredFrame};

/// Frames of a bucket, as a power of two: 4,096 frames of at most 2 MB stay under the 20 GB of a logical partition.
const BUCKET_BITS: u32 = 12;
/// The `period` of everything that is not an event.
const PERIOD: &str = "-";
/// Attempts of a call whose partition is being split or asks for another try.
const ATTEMPTS: u32 = 8;
/// How long to wait before the second of them; each later wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// An item's size where the throughput is not known or 400 RU/s.
const ITEM_BYTES: usize = 80_000;
/// An item's size where there is room for it. The service's limit is 2 MB for it, and for the transaction.
const ITEM_BYTES_MAX: usize = 1_500_000;
/// What an item of a frame holds besides the frame.
const ITEM_OVERHEAD: usize = 2048;

/// The request units that a handle has used, in hundredths.
#[derive(Debug, Default)]
pub struct RequestUnits(AtomicU64);

impl RequestUnits {
    /// Request units so far.
    pub fn used(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 100.0
    }

    fn add(&self, units: f64) {
        self.0.fetch_add((units * 100.0).round() as u64, Ordering::Relaxed);
    }
}

/// A container that logs are kept in.
pub struct CosmosRemote {
    container: ContainerClient,
    settings: Settings,
    region: String,
    several_write_regions: bool,
    hierarchical: bool,
    throughput: Option<u64>,
    autoscale: bool,
    item_bytes: usize,
    bucket_bits: u32,
    clock: Option<(Time, Time)>,
    units: RequestUnits,
    throttled: AtomicU64,
    homes: Mutex<HashMap<LogId, String>>,
    /// The frame whose parts are there already, so that sending it again does not send them again.
    parts: Mutex<Option<FrameId>>,
}

impl fmt::Debug for CosmosRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CosmosRemote").field("url", &self.url()).field("region", &self.region).finish()
    }
}

impl CosmosRemote {
    /// Opens a container.
    ///
    /// # Errors
    /// `unauthorized`, `unavailable`, `not_found`, `not_a_store` and `invalid`, as [`Remote`] says.
    pub async fn connect(settings: Settings, options: Options) -> Result<Self> {
        Self::connect_through(settings, options, Transport::default()).await
    }

    /// Opens a container through a transport of the caller's.
    ///
    /// # Errors
    /// As [`CosmosRemote::connect`].
    pub async fn connect_through(settings: Settings, options: Options, transport: Transport) -> Result<Self> {
        let opened = connect::open(&settings, &options, transport).await?;
        let item_bytes = options.item_bytes.unwrap_or_else(|| item_bytes_for(opened.throughput));
        if item_bytes < 2 * ITEM_OVERHEAD || (options.item_bytes.is_some() && item_bytes > ITEM_BYTES_MAX) {
            let least = 2 * ITEM_OVERHEAD;
            return Err(Error::invalid(format!(
                "item_bytes is {item_bytes}: at least {least} and at most {ITEM_BYTES_MAX}"
            )));
        }
        let units = RequestUnits::default();
        units.add(opened.units);
        Ok(Self {
            container: opened.container,
            settings,
            region: opened.region,
            several_write_regions: opened.several_write_regions,
            hierarchical: opened.hierarchical,
            throughput: opened.throughput,
            autoscale: opened.autoscale,
            item_bytes,
            bucket_bits: BUCKET_BITS,
            clock: opened.clock,
            units,
            throttled: AtomicU64::new(0),
            homes: Mutex::default(),
            parts: Mutex::default(),
        })
    }

    /// The same with buckets of `1 << bits` frames, for tests of what happens at their boundaries. Every handle of a
    /// container needs the same.
    #[doc(hidden)]
    #[must_use]
    pub fn with_bucket_bits(mut self, bits: u32) -> Self {
        self.bucket_bits = bits;
        self
    }

    /// What this handle has used so far.
    pub fn request_units(&self) -> &RequestUnits {
        &self.units
    }

    fn key(&self, partition: &str, period: &str) -> PartitionKey {
        if self.hierarchical {
            PartitionKey::from((partition.to_owned(), period.to_owned()))
        } else {
            PartitionKey::from(partition.to_owned())
        }
    }

    fn own_key(&self, partition: &str) -> PartitionKey {
        self.key(partition, PERIOD)
    }

    /// An item of ours: what every item has, and these fields.
    fn item(&self, partition: &str, id: &str, mut fields: Value) -> Value {
        fields["id"] = id.into();
        fields["eventType"] = partition.into();
        fields["ttl"] = (-1).into();
        if self.hierarchical && fields.get("period").is_none() {
            fields["period"] = PERIOD.into();
        }
        fields
    }

    /// The error for a call that failed for good; its charge is counted.
    fn failed(&self, error: &CosmosError, what: &str) -> Error {
        self.charge_failed(error);
        if error.status().is_throttled() {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        }
        errors::from_cosmos(error, what, self.settings.credential.kind())
    }

    fn charge(&self, headers: &ResponseHeaders) -> f64 {
        let units = headers.request_charge().map_or(0.0, |charge| charge.value());
        self.units.add(units);
        units
    }

    /// What fails costs too: a read of what is not there, a conflict, every try of a call that went wrong.
    fn charge_failed(&self, error: &CosmosError) {
        self.units.add(errors::charged(error));
    }

    /// Refuses what another region answered: what it says may be old.
    fn check_answered_at_home(&self, diagnostics: &DiagnosticsContext, what: &str) -> Result<()> {
        let home = Region::from(self.region.clone());
        match diagnostics.responded_regions().into_iter().find(|region| **region != home) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "{what}: answered by the region {other}, not by {}: open the store again",
                    self.region
                ),
            )),
        }
    }

    /// Reads an item, with its ETag; `None` if it is not there.
    async fn read(&self, partition: &str, id: &str) -> Result<Option<(Value, String)>> {
        self.read_at(self.own_key(partition), id, &format!("reading {partition}/{id}")).await
    }

    async fn read_at(&self, key: PartitionKey, id: &str, what: &str) -> Result<Option<(Value, String)>> {
        let mut tries = Tries::new();
        loop {
            match self.container.read_item(key.clone(), id, None).await {
                Ok(answer) => {
                    self.charge(answer.headers());
                    self.check_answered_at_home(&answer.diagnostics(), what)?;
                    let etag = answer.headers().etag().map(ToString::to_string).unwrap_or_default();
                    return Ok(Some((answer.into_model().map_err(|e| self.failed(&e, what))?, etag)));
                }
                // 404 with sub-status 0 is the item; any other is the container, or a session that is not there yet.
                Err(error) if item_is_missing(&error) => {
                    self.charge_failed(&error);
                    return Ok(None);
                }
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => return Err(self.failed(&error, what)),
            }
        }
    }

    /// Creates an item: `false` if there is one of this id. That may be our own, from an attempt whose answer was lost.
    async fn create(&self, partition: &str, id: &str, fields: Value) -> Result<bool> {
        let item = self.item(partition, id, fields);
        self.create_at(self.own_key(partition), id, &item, &format!("writing {partition}/{id}")).await
    }

    async fn create_at(&self, key: PartitionKey, id: &str, item: &Value, what: &str) -> Result<bool> {
        let mut tries = Tries::new();
        loop {
            match self.container.create_item(key.clone(), id, item, None).await {
                Ok(answer) => {
                    self.charge(answer.headers());
                    return Ok(true);
                }
                Err(error) if error.status().is_conflict() => {
                    self.charge_failed(&error);
                    return Ok(false);
                }
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => {
                    let told = self.failed(&error, what);
                    return Err(if tries.nothing_written(&error) { told } else { told.maybe_written() });
                }
            }
        }
    }

    /// Replaces an item that is still the one of the ETag: `false` if it is not. That may be our own doing, by an
    /// attempt whose answer was lost.
    async fn replace(&self, partition: &str, id: &str, item: &Value, etag: &str) -> Result<bool> {
        let (key, what) = (self.own_key(partition), format!("writing {partition}/{id}"));
        let mut tries = Tries::new();
        loop {
            let unchanged = Precondition::if_match(etag.to_owned());
            let options = ItemWriteOptions::default().with_precondition(unchanged);
            match self.container.replace_item(key.clone(), id, item, Some(options)).await {
                Ok(answer) => {
                    self.charge(answer.headers());
                    return Ok(true);
                }
                Err(error) if error.status().is_precondition_failed() => {
                    self.charge_failed(&error);
                    return Ok(false);
                }
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => {
                    let told = self.failed(&error, &what);
                    return Err(if tries.nothing_written(&error) { told } else { told.maybe_written() });
                }
            }
        }
    }
}

/// How large an item is in a container of this throughput. Writing costs about 1 RU for 200 bytes or more: so one item
/// takes at most a quarter of a second's throughput.
fn item_bytes_for(throughput: Option<u64>) -> usize {
    throughput.map_or(ITEM_BYTES, |units| {
        let units = usize::try_from(units).unwrap_or(ITEM_BYTES_MAX);
        units.saturating_mul(ITEM_BYTES / 400).min(ITEM_BYTES_MAX)
    })
}

/// The tries of a call whose partition may be moving.
struct Tries {
    left: u32,
    wait: Duration,
    /// Whether one of them may have written something.
    in_doubt: bool,
}

impl Tries {
    fn new() -> Self {
        Self { left: ATTEMPTS - 1, wait: FIRST_WAIT, in_doubt: false }
    }

    /// Waits before the next one, if this failure asks for another and there is one left. A failure that is not
    /// final is counted here; of the last one its charge is the caller's to count.
    async fn again(&mut self, remote: &CosmosRemote, error: &CosmosError) -> bool {
        if self.left == 0 || !wants_another_try(error) {
            return false;
        }
        remote.charge_failed(error);
        self.in_doubt |= !errors::nothing_written(error);
        self.pause().await;
        true
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.wait).await;
        self.wait *= 2;
        self.left = self.left.saturating_sub(1);
    }

    /// Whether none of them wrote anything, this last one included.
    fn nothing_written(&self, error: &CosmosError) -> bool {
        !self.in_doubt && errors::nothing_written(error)
    }
}

/// Whether the service says that the item is not there, and nothing else is missing.
fn item_is_missing(error: &CosmosError) -> bool {
    let status = error.status();
    status.is_not_found() && status.sub_status().is_none_or(|sub| sub.value() == 0)
}

/// Whether the partition moved (410) or the service asks for another try (449): nothing was written.
fn wants_another_try(error: &CosmosError) -> bool {
    error.status().is_gone() || error.status().is_retry_with()
}

impl Remote for CosmosRemote {
    fn url(&self) -> String {
        let Settings { endpoint, database, container, .. } = &self.settings;
        let scheme = if endpoint.scheme() == "http" { "cosmos+http" } else { "cosmos" };
        let host = endpoint.host_str().unwrap_or_default();
        let port = endpoint.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}/{database}/{container}")
    }

    fn identity(&self) -> String {
        self.url()
    }

    fn durability(&self) -> Durability {
        Durability::RegionQuorum
    }

    fn frame_bytes(&self) -> usize {
        (self.item_bytes - ITEM_OVERHEAD) / 4 * 3
    }

    fn region(&self) -> String {
        self.region.clone()
    }

    fn clock(&self) -> Option<(Time, Time)> {
        self.clock
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        Box::pin(self.list_logs())
    }

    fn log<'a>(&'a self, name: &'a LogName) -> BoxFuture<'a, Result<Option<LogRecord>>> {
        Box::pin(self.read_log(name))
    }

    fn make_log<'a>(&'a self, name: &'a LogName, record: LogRecord) -> BoxFuture<'a, Result<LogRecord>> {
        Box::pin(self.create_log(name, record))
    }

    fn promote<'a>(&'a self, name: &'a LogName, id: LogId) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.promote_log(name, id))
    }

    fn has_frame(&self, log: LogId, sequence: u64) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.frame_is_there(log, sequence))
    }

    fn frames(&self, log: LogId, from: u64, bytes_max: usize) -> BoxFuture<'_, Result<Vec<StoredFrame>>> {
        Box::pin(self.read_frames(log, from, bytes_max))
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> BoxFuture<'a, Outcome> {
        Box::pin(self.commit_frame(commit))
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        Box::pin(self.read_register(name))
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        Box::pin(self.swap_register(name, expected, value))
    }

    fn documented(&self, log: LogId) -> BoxFuture<'_, Result<FrameSet>> {
        Box::pin(self.read_documented(log))
    }

    fn add_documented<'a>(&'a self, log: LogId, frames: &'a FrameSet) -> BoxFuture<'a, Result<FrameSet>> {
        Box::pin(self.raise_documented(log, frames))
    }

    fn put_documents<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(self.write_documents(documents))
    }

    fn check_documents<'a>(
        &'a self,
        documents: &'a [Document],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>>> {
        Box::pin(self.compare_documents(documents))
    }

    fn examine<'a>(&'a self, name: &'a LogName, log: LogId) -> BoxFuture<'a, Result<Vec<Finding>>> {
        Box::pin(self.look(name, log))
    }
}

#[cfg(test)]
mod tests {
    use super::item_bytes_for;

    #[test]
    fn an_item_is_as_large_as_the_throughput_has_room_for() {
        for (throughput, bytes) in [
            (None, 80_000),
            (Some(400), 80_000),
            (Some(1_000), 200_000),
            (Some(4_000), 800_000),
            (Some(u64::MAX), 1_500_000),
        ] {
            assert_eq!(item_bytes_for(throughput), bytes, "{throughput:?}");
        }
    }
}

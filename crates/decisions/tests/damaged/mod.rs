//! A store in memory, one of whose events fails its check.

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Usage};
use precedent_core::verify::{Expect, Report};
use precedent_core::*;

pub(crate) struct Damaged {
    inner: MemoryStore,
    position: u64,
}

impl Damaged {
    pub(crate) fn new(position: u64) -> Self {
        Self { inner: MemoryStore::new(), position }
    }
}

impl Store for Damaged {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }
    fn url(&self) -> String {
        self.inner.url()
    }
    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        self.inner.append(log, append)
    }
    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            let mut page = self.inner.read(log, read).await?;
            let (bad, good) = page.events.into_iter().partition(|event| event.position.0 == self.position);
            let bad: Vec<RecordedEvent> = bad;
            page.events = good;
            page.damaged = bad
                .iter()
                .map(|event| Damage {
                    position: event.position,
                    error: Error::damaged(format!("the checksum of event {} does not match", event.position)),
                })
                .collect();
            Ok(page)
        }
        .boxed()
    }
    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        self.inner.head(log)
    }
    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        self.inner.grown(log, size)
    }
    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        self.inner.logs()
    }
    fn frames<'a>(&'a self, log: &'a LogName, from: u64, max: usize) -> BoxFuture<'a, Result<Vec<Frame>>> {
        self.inner.frames(log, from, max)
    }
    fn put_frames<'a>(&'a self, log: &'a LogName, frames: Vec<Frame>) -> BoxFuture<'a, Result<Head>> {
        self.inner.put_frames(log, frames)
    }
    fn promote<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<()>> {
        self.inner.promote(log)
    }
    fn verify<'a>(
        &'a self,
        log: &'a LogName,
        expect: Option<Expect>,
        progress: Progress<'a>,
    ) -> BoxFuture<'a, Result<Report>> {
        self.inner.verify(log, expect, progress)
    }
    fn examine<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<(Usage, Vec<Finding>)>> {
        self.inner.examine(log)
    }
    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        self.inner.register(name)
    }
    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        self.inner.set_register(name, expected, value)
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}

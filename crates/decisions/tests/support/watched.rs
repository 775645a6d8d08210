//! A store in memory that counts what is read of it, and one of whose events may fail its check.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::frame::Frame;
use precedent_core::store::{Finding, Progress, Usage};
use precedent_core::verify::{Expect, Report};
use precedent_core::*;

#[derive(Clone)]
pub(crate) struct Watched {
    inner: Arc<MemoryStore>,
    damaged: Option<u64>,
    pages: Arc<AtomicUsize>,
    events: Arc<AtomicUsize>,
}

impl Watched {
    pub(crate) fn new() -> Self {
        Self {
            inner: Arc::new(MemoryStore::new()),
            damaged: None,
            pages: Arc::default(),
            events: Arc::default(),
        }
    }

    /// The event at this position fails its check.
    pub(crate) fn damaged(position: u64, inner: MemoryStore) -> Self {
        Self { inner: Arc::new(inner), damaged: Some(position), ..Self::new() }
    }

    /// Pages and events that were read since this was asked last.
    pub(crate) fn read_since(&self) -> (usize, usize) {
        (self.pages.swap(0, Ordering::SeqCst), self.events.swap(0, Ordering::SeqCst))
    }
}

impl Store for Watched {
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
            let (bad, good): (_, Vec<RecordedEvent>) =
                page.events.into_iter().partition(|event| Some(event.position.0) == self.damaged);
            let bad: Vec<RecordedEvent> = bad;
            self.pages.fetch_add(1, Ordering::SeqCst);
            self.events.fetch_add(good.len() + bad.len(), Ordering::SeqCst);
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

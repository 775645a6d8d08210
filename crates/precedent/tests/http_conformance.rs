//! A store behind a server keeps the promises of the store: client, wire and server, end to end over loopback.
//!
//! The store behind the server is one in memory, to which damage and failures are added here: what is tested
//! is that they arrive at the client as what they are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent::conformance::{Backend, Failure, Fixture, Unable, assert_conforms};
use precedent::frame::Frame;
use precedent::store::{Finding, Progress, Usage};
use precedent::verify::{Expect, Report};
use precedent::{
    Append, Appended, Damage, Error, ErrorKind, ExpectedRegister, Head, HttpStore, Limits, LogName,
    MemoryStore, Page, Position, Read, Register, RegisterName, Result, Store, Time,
};
use precedent_server::Config;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{oneshot, watch};

struct Http {
    runtime: Runtime,
    /// Dropping one stops its server. They run as long as the suite: some handles outlive what made them.
    servers: Mutex<Vec<oneshot::Sender<()>>>,
}

/// A server of its own with an empty store, and the handles on it.
struct Served {
    runtime: Handle,
    url: String,
    clock: Arc<AtomicU64>,
    behind: Arc<Troubled>,
    handle: Mutex<Arc<dyn Store>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl Backend for Http {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let clock = Arc::new(AtomicU64::new(0));
        let read = clock.clone();
        let now = move || match read.load(Ordering::SeqCst) {
            0 => Time::from_system(std::time::SystemTime::now()),
            set => Time::from_micros(set).expect("the suite sets times that can be written"),
        };
        let behind = Arc::new(Troubled::new(MemoryStore::with_clock(Arc::new(now))));
        let (stop, stopped) = oneshot::channel::<()>();
        let listen = "127.0.0.1:0".parse().expect("an address");
        let (url, store) = self.runtime.block_on(async {
            let server = precedent_server::bind(behind.clone(), Config::new(listen)).await?;
            let url = server.url();
            tokio::spawn(server.run(async {
                let _ = stopped.await;
            }));
            let store: Arc<dyn Store> = Arc::new(HttpStore::connect(&url, None).await?);
            Ok::<_, Error>((url, store))
        })?;
        let runtime = self.runtime.handle().clone();
        lock(&self.servers).push(stop);
        Ok(Box::new(Served { runtime, url, clock, behind, handle: Mutex::new(store) }))
    }

    fn block_on(&self, future: BoxFuture<'_, ()>) {
        self.runtime.block_on(future);
    }
}

impl Served {
    fn connect(&self) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(self.runtime.block_on(HttpStore::connect(&self.url, None))?))
    }

    fn replace(&self) -> Result<Arc<dyn Store>, Unable> {
        self.behind.stopped.send_replace(false);
        let new = self.connect()?;
        *lock(&self.handle) = new.clone();
        Ok(new)
    }
}

impl Fixture for Served {
    fn store(&self) -> Arc<dyn Store> {
        lock(&self.handle).clone()
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        // A test may have closed it already.
        let _ = self.runtime.block_on(self.store().close());
        self.replace()
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        self.replace()
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(self.connect())
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        lock(&self.behind.damaged).insert((log.clone(), position));
        self.replace()
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        *lock(&self.behind.failure) = Some(failure);
        Ok(())
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

/// A memory store with damaged events, whose writes can fail as a device's do.
struct Troubled {
    inner: MemoryStore,
    damaged: Mutex<BTreeSet<(LogName, Position)>>,
    failure: Mutex<Option<Failure>>,
    stopped: watch::Sender<bool>,
}

impl Troubled {
    fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            damaged: Mutex::default(),
            failure: Mutex::default(),
            stopped: watch::Sender::new(false),
        }
    }

    fn running(&self) -> Result<()> {
        match *self.stopped.borrow() {
            true => Err(stopped()),
            false => Ok(()),
        }
    }

    /// The frame as a device with a flipped byte gives it.
    fn flipped(&self, log: &LogName, frame: Frame) -> Result<Frame> {
        let damaged = lock(&self.damaged);
        let first = frame.chained().first.0;
        let mut bytes = frame.bytes().to_vec();
        for (index, place) in frame.directory.places.iter().enumerate() {
            if damaged.contains(&(log.clone(), Position(first + index as u64))) {
                bytes[place.entry_at as usize] ^= 1;
            }
        }
        Frame::decode(bytes.into())
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the store stopped after a write that failed")
}

impl Store for Troubled {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn append<'a>(&'a self, log: &'a LogName, append: Append) -> BoxFuture<'a, Result<Appended>> {
        async move {
            self.running()?;
            let failure = lock(&self.failure).take();
            match failure {
                None => self.inner.append(log, append).await,
                Some(Failure::Write) => Err(Error::new(ErrorKind::Io, "the device refused the bytes")),
                Some(Failure::Sync) => {
                    self.stopped.send_replace(true);
                    self.inner.append(log, append).await?;
                    Err(Error::new(ErrorKind::Io, "the device failed to sync").maybe_written())
                }
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, log: &'a LogName, read: &'a Read) -> BoxFuture<'a, Result<Page>> {
        async move {
            let mut page = self.inner.read(log, read).await?;
            let damaged = lock(&self.damaged);
            let is_damaged = |position| damaged.contains(&(log.clone(), position));
            for event in page.events.iter().filter(|event| is_damaged(event.position)) {
                let error = Error::damaged(format!("the event at position {} is damaged", event.position));
                page.damaged.push(Damage { position: event.position, error });
            }
            page.events.retain(|event| !is_damaged(event.position));
            Ok(page)
        }
        .boxed()
    }

    fn head<'a>(&'a self, log: &'a LogName) -> BoxFuture<'a, Result<Head>> {
        self.inner.head(log)
    }

    fn grown<'a>(&'a self, log: &'a LogName, size: u64) -> BoxFuture<'a, Result<Head>> {
        async move {
            let mut told = self.stopped.subscribe();
            tokio::select! {
                grown = self.inner.grown(log, size) => grown,
                _ = told.wait_for(|stopped| *stopped) => Err(stopped()),
            }
        }
        .boxed()
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        self.inner.logs()
    }

    fn frames<'a>(&'a self, log: &'a LogName, from: u64, max: usize) -> BoxFuture<'a, Result<Vec<Frame>>> {
        async move {
            let frames = self.inner.frames(log, from, max).await?;
            frames.into_iter().map(|frame| self.flipped(log, frame)).collect()
        }
        .boxed()
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
        async move {
            self.running()?;
            self.inner.set_register(name, expected, value).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.close()
    }
}

#[test]
fn a_store_behind_a_server_keeps_the_promises() {
    let runtime = Runtime::new().expect("a runtime");
    assert_conforms(&Http { runtime, servers: Mutex::default() });
}

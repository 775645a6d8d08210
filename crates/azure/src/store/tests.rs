//! The protocol on a service in memory that does what it is told to: loses answers, refuses, forgets, stands still.
//!
//! The conformance suite runs on the real adapters; here are the orders of events that those cannot bring about.

mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use precedent_core::conformance::{Backend, Failure, Fixture, Unable, assert_conforms};
use precedent_core::{LogName, Position, Result, Store, Time};
use tokio::runtime::Runtime;

use self::service::{Fault, Service};
use super::{Options, RemoteStore};

/// Tiny segments: sealing and packing of the local copy happen in the middle of everything.
fn options(cache: &std::path::Path) -> Options {
    let mut options = Options { cache: cache.to_owned(), ..Options::default() };
    options.mirror.segment_bytes = 64 << 10;
    options.mirror.index_flush_bytes = 8 << 10;
    options.poll = Duration::from_millis(20);
    options.settle_for = Duration::from_millis(300);
    options.at_least_wait = Duration::from_secs(1);
    options
}

struct OnService {
    runtime: Runtime,
}

impl OnService {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime: runtime.expect("a runtime") }
    }
}

impl Backend for OnService {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let cache = Arc::new(tempfile::tempdir()?);
        let runtime = self.runtime.handle().clone();
        let clock = Arc::new(AtomicU64::new(0));
        let place = Place { service: Service::default(), cache, runtime, clock, store: Default::default() };
        place.open();
        Ok(Box::new(place))
    }

    fn block_on(&self, future: futures_util::future::BoxFuture<'_, ()>) {
        self.runtime.block_on(future);
    }
}

struct Place {
    service: Service,
    cache: Arc<tempfile::TempDir>,
    runtime: tokio::runtime::Handle,
    clock: Arc<AtomicU64>,
    store: std::sync::Mutex<Option<Arc<RemoteStore>>>,
}

impl Place {
    fn handle(&self) -> Arc<RemoteStore> {
        let _entered = self.runtime.enter();
        let (clock, cache) = (self.clock.clone(), self.cache.clone());
        let mut options = options(self.cache.path());
        // The directory is there as long as somebody uses it.
        options.clock = Arc::new(move || match (&cache, clock.load(Ordering::SeqCst)).1 {
            0 => Time::from_system(std::time::SystemTime::now()),
            micros => Time::from_micros(micros).expect("a time that was set"),
        });
        Arc::new(RemoteStore::open(Arc::new(self.service.clone()), options).expect("a runtime is entered"))
    }

    fn open(&self) -> Arc<dyn Store> {
        let store = self.handle();
        *self.store.lock().expect("no test panics while it opens") = Some(store.clone());
        store
    }

    fn close(&self) {
        let store = self.store.lock().expect("no test panics while it closes").take();
        if let Some(store) = store {
            let _ = self.runtime.block_on(store.close());
        }
    }
}

impl Fixture for Place {
    fn store(&self) -> Arc<dyn Store> {
        self.store.lock().expect("no test panics here").clone().expect("it is open")
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        self.service.answer();
        Ok(self.open())
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        drop(self.store.lock().expect("no test panics here").take());
        self.service.answer();
        Ok(self.open())
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(Ok(self.handle()))
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        self.service.damage(log, position);
        // What is here is whole, and would go on being read.
        let _ = std::fs::remove_dir_all(self.cache.path());
        Ok(self.open())
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        self.service.fault(match failure {
            Failure::Write => Fault::Refuse,
            Failure::Sync => Fault::NeverAnswer { written: true },
        });
        Ok(())
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn the_protocol_keeps_the_promises() {
    assert_conforms(&OnService::new());
}

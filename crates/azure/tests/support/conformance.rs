//! The conformance suite on a service: what is the same for each of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use precedent_azure::remote::Remote;
use precedent_azure::{Options, RemoteStore};
use precedent_core::conformance::{Backend, Failure, Fixture, Unable};
use precedent_core::{LogName, Position, Result, Store, Time};
use tokio::runtime::{Handle, Runtime};

/// An empty place on a service, and what can be done to it from outside.
pub(crate) trait Service: Send + Sync + 'static {
    /// Connects to it, as one more process would.
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Remote>>>;

    /// Makes the next commit fail.
    fn fail_next(&self, failure: Failure);

    /// Everything works again.
    fn recover(&self);

    /// Flips a byte of the frame that holds this event, where it is stored. The first frame of that log holds position 0
    /// and each frame one event.
    fn damage<'a>(&'a self, log: &'a LogName, position: Position) -> BoxFuture<'a, ()>;
}

/// Stores on places that `make` makes.
pub(crate) struct OnService<F> {
    pub(crate) runtime: Runtime,
    pub(crate) make: F,
}

impl<F> OnService<F> {
    pub(crate) fn new(make: F) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), make }
    }
}

impl<F, S> Backend for OnService<F>
where
    F: AsyncFn() -> S + Send + Sync,
    S: Service,
{
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let service = self.runtime.block_on((self.make)());
        let place = Place {
            service: Arc::new(service),
            cache: Arc::new(tempfile::tempdir()?),
            runtime: self.runtime.handle().clone(),
            clock: Arc::default(),
            store: Mutex::default(),
        };
        place.open()?;
        Ok(Box::new(place))
    }

    fn block_on(&self, future: BoxFuture<'_, ()>) {
        self.runtime.block_on(future);
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(180)
    }
}

struct Place {
    service: Arc<dyn Service>,
    cache: Arc<tempfile::TempDir>,
    runtime: Handle,
    clock: Arc<AtomicU64>,
    store: Mutex<Option<Arc<RemoteStore>>>,
}

impl Place {
    fn handle(&self) -> Result<Arc<RemoteStore>> {
        let remote = self.runtime.block_on(self.service.connect())?;
        let (clock, cache) = (self.clock.clone(), self.cache.clone());
        let mut options = Options::default();
        options.cache = self.cache.path().to_owned();
        // The directory is there as long as somebody uses it.
        options.clock = Arc::new(move || match (&cache, clock.load(Ordering::SeqCst)).1 {
            0 => Time::from_system(std::time::SystemTime::now()),
            micros => Time::from_micros(micros).expect("a time that was set"),
        });
        options.service_clock = false;
        options.mirror.segment_bytes = 64 << 10;
        options.mirror.index_flush_bytes = 8 << 10;
        options.poll = Duration::from_millis(50);
        options.settle_for = Duration::from_millis(500);
        options.at_least_wait = Duration::from_secs(2);
        let _entered = self.runtime.enter();
        Ok(Arc::new(RemoteStore::open(remote, options)?))
    }

    fn open(&self) -> Result<Arc<dyn Store>> {
        let store = self.handle()?;
        *self.store.lock().expect("no test panics here") = Some(store.clone());
        Ok(store)
    }

    fn close(&self) {
        let store = self.store.lock().expect("no test panics here").take();
        if let Some(store) = store {
            let _ = self.runtime.block_on(store.close());
        }
        self.service.recover();
    }
}

impl Fixture for Place {
    fn store(&self) -> Arc<dyn Store> {
        self.store.lock().expect("no test panics here").clone().expect("it is open")
    }

    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        Ok(self.open()?)
    }

    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        drop(self.store.lock().expect("no test panics here").take());
        self.service.recover();
        Ok(self.open()?)
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Ok(Ok(self.handle()?))
    }

    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        self.close();
        self.runtime.block_on(self.service.damage(log, position));
        // What is here is whole, and would go on being read.
        let _ = std::fs::remove_dir_all(self.cache.path());
        Ok(self.open()?)
    }

    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        self.service.fail_next(failure);
        Ok(())
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

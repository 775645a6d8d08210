//! The memory store keeps the promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use precedent_core::conformance::{Backend, Fixture, Unable, assert_conforms};
use precedent_core::{Error, MemoryStore, Result, Store, Time};

struct Memory;

struct InMemory {
    store: MemoryStore,
    /// Microseconds; 0 is the system's clock.
    clock: Arc<AtomicU64>,
}

impl Backend for Memory {
    fn create(&self) -> Result<Box<dyn Fixture>> {
        let clock = Arc::new(AtomicU64::new(0));
        let read = clock.clone();
        let now = move || match read.load(Ordering::SeqCst) {
            0 => Time::from_system(std::time::SystemTime::now()),
            set => Time::from_micros(set).expect("the suite sets times that can be written"),
        };
        Ok(Box::new(InMemory { store: MemoryStore::with_clock(Arc::new(now)), clock }))
    }
}

impl Fixture for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn second_handle(&self) -> Result<Result<Arc<dyn Store>, Error>, Unable> {
        Ok(Ok(self.store()))
    }

    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        self.clock.store(now.as_micros(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn the_memory_store_keeps_the_promises() {
    assert_conforms(&Memory);
}

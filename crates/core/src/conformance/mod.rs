//! The promises of [`Store`] as tests.
//!
//! The suite owns its list ([`tests`]); a [`Backend`] supplies how to make an empty store, and a [`Fixture`] a few
//! hooks on that store: reopen it, open it a second time, damage it, make it fail, set its clock. A test added
//! here reaches every backend the day it is written. A hook that a backend does not have makes the tests that
//! need it *skipped*: reported by name and with the reason, never passed in silence.
//!
//! ```
//! use precedent_core::conformance::{Backend, Fixture};
//! use precedent_core::{MemoryStore, Result, Store};
//! use std::sync::Arc;
//!
//! struct Memory;
//! impl Backend for Memory {
//!     fn create(&self) -> Result<Box<dyn Fixture>> {
//!         Ok(Box::new(InMemory(Arc::new(MemoryStore::new()))))
//!     }
//! }
//! struct InMemory(Arc<MemoryStore>);
//! impl Fixture for InMemory {
//!     fn store(&self) -> Arc<dyn Store> {
//!         self.0.clone()
//!     }
//! }
//! precedent_core::conformance::run(&Memory, Some("a_register_is_absent")).assert_passed();
//! ```
//!
//! A test file of a backend is that, and one call of [`assert_conforms`]. Two environment variables serve the
//! person in front of a failure: `PRECEDENT_CONFORMANCE` runs only the tests whose name contains it (or, as in `=5`,
//! those of one promise), and `PRECEDENT_CONFORMANCE_SEED` repeats what a failed test drew.

use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::error::{Error, Result};
use crate::ids::{LogName, Position, Time};
use crate::store::Store;

mod batches;
mod conditions;
mod copying;
mod damage;
mod dropping;
mod durable;
mod failures;
mod following;
mod keys;
mod limits;
mod logs;
mod order;
mod processes;
mod random;
mod reading;
mod registers;
mod submitting;
mod support;

pub use support::Scene;

/// A kind of store: what the suite needs to know about it.
pub trait Backend: Send + Sync {
    /// Makes a new, empty store and opens it. Nothing of an earlier one may be visible in it, and several exist
    /// at the same time.
    fn create(&self) -> Result<Box<dyn Fixture>>;

    /// Runs a future to its end on this thread; several threads do so at once. A backend whose futures need a
    /// runtime uses that one's.
    fn block_on(&self, future: BoxFuture<'_, ()>) {
        park_until_done(future);
    }

    /// How long one test may take before whatever it still waits for is given up and it has failed.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// One store under test, and what can be done to it from outside. Dropping it clears the store away.
///
/// A hook that cannot be had answers [`Unable::cannot`], which is what the default implementations do.
pub trait Fixture: Send + Sync {
    /// The handle in use: that of `create`, and after `reopen`, `crash` or `damage` the one they answered.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the handle in use and opens the same store again.
    fn reopen(&self) -> Result<Arc<dyn Store>, Unable> {
        Err(Unable::cannot("the store cannot be reopened"))
    }

    /// Ends the handle in use as the death of its process would, without closing it, and opens the store again.
    /// What was not durable may be lost.
    fn crash(&self) -> Result<Arc<dyn Store>, Unable> {
        Err(Unable::cannot("the death of a process cannot be imitated"))
    }

    /// Opens the store a second time for writing, as another process would: the handle, or the error by which
    /// it is kept away. The first handle stays in use.
    fn second_handle(&self) -> Result<Result<Arc<dyn Store>>, Unable> {
        Err(Unable::cannot("the store cannot be opened a second time"))
    }

    /// Opens the store a second time for reading, as another process would.
    fn second_reader(&self) -> Result<Arc<dyn Store>, Unable> {
        self.second_handle()?.map_err(|e| Unable::cannot(format!("nobody can read beside the writer: {e}")))
    }

    /// Flips a byte of what is stored of the event at this position, its entry or its data, and answers a handle
    /// that reads the damaged bytes. Handles from before are not used again.
    fn damage(&self, log: &LogName, position: Position) -> Result<Arc<dyn Store>, Unable> {
        let _ = (log, position);
        Err(Unable::cannot("stored bytes cannot be damaged from outside"))
    }

    /// Makes the next write of the handle in use fail in this way, once.
    fn fail_next(&self, failure: Failure) -> Result<(), Unable> {
        let _ = failure;
        Err(Unable::cannot("no failure can be brought about"))
    }

    /// Sets the clock of the handle in use; it stands still from then on.
    fn set_clock(&self, now: Time) -> Result<(), Unable> {
        let _ = now;
        Err(Unable::cannot("the clock cannot be set"))
    }
}

/// A way for a write to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The device or service refuses the bytes.
    Write,
    /// The bytes were taken; the step that makes them durable fails, and it cannot be found out what is left.
    Sync,
}

/// Why a test or a hook did not get to its end.
#[derive(Debug, Clone)]
pub enum Unable {
    /// The backend cannot do what the test needs: the test is skipped for this reason.
    Cannot(String),
    /// It should have worked: the test has failed.
    Failed(String),
}

impl Unable {
    /// The backend cannot do this, for this reason.
    pub fn cannot(reason: impl Into<String>) -> Self {
        Self::Cannot(reason.into())
    }
}

impl From<Error> for Unable {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::Failed(format!("{error:?}, at {}", std::panic::Location::caller()))
    }
}

/// One test of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// The promises it holds a store to, by the numbers in the documentation of [`crate::store`].
    pub promises: &'static [u8],
    /// What is promised, as a sentence.
    pub name: &'static str,
    /// The test itself: it panics or answers an error where a promise is broken.
    pub body: fn(&Scene<'_>) -> Result<(), Unable>,
}

/// Every test, in the order of the promises.
pub fn tests() -> Vec<Test> {
    [
        durable::TESTS,
        batches::TESTS,
        order::TESTS,
        conditions::TESTS,
        keys::TESTS,
        processes::TESTS,
        following::TESTS,
        failures::TESTS,
        damage::TESTS,
        limits::TESTS,
        registers::TESTS,
        reading::TESTS,
        dropping::TESTS,
        submitting::TESTS,
        copying::TESTS,
        logs::TESTS,
        random::TESTS,
    ]
    .concat()
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The tests whose promise held.
    pub passed: Vec<&'static str>,
    /// The tests the backend has no hook for, and the reason.
    pub skipped: Vec<(&'static str, String)>,
    /// The tests whose promise did not hold, and what was seen.
    pub failed: Vec<(&'static str, String)>,
}

impl Summary {
    /// Panics with the names of the failures, if there are any.
    #[track_caller]
    pub fn assert_passed(&self) {
        let failures: Vec<String> =
            self.failed.iter().map(|(name, message)| format!("\n  {name}: {message}")).collect();
        assert!(failures.is_empty(), "{} promises are not kept:{}", failures.len(), failures.concat());
        assert!(!self.passed.is_empty() || !self.skipped.is_empty(), "no test has the name asked for");
    }
}

/// Runs the suite, prints a line for each test, and panics with the names of those that failed.
#[track_caller]
pub fn assert_conforms(backend: &dyn Backend) {
    run(backend, None).assert_passed();
}

/// Runs the tests whose name contains `filter`, or those of promise 5 if it is `=5`. Without a filter that of the
/// environment variable `PRECEDENT_CONFORMANCE` counts, if it is set.
pub fn run(backend: &dyn Backend, filter: Option<&str>) -> Summary {
    let from_environment = std::env::var("PRECEDENT_CONFORMANCE").ok();
    let filter = filter.or(from_environment.as_deref()).unwrap_or("");
    let wanted = |test: &Test| match filter.strip_prefix('=') {
        Some(promise) => test.promises.iter().any(|p| p.to_string() == promise),
        None => test.name.contains(filter),
    };
    let mut summary = Summary::default();
    for test in tests().into_iter().filter(wanted) {
        let name = test.name;
        match run_one(backend, &test) {
            Ok(()) => {
                println!("ok       {name}");
                summary.passed.push(name);
            }
            Err(Unable::Cannot(reason)) => {
                println!("skipped  {name}: {reason}");
                summary.skipped.push((name, reason));
            }
            Err(Unable::Failed(message)) => {
                println!("FAILED   {name}: {message}");
                summary.failed.push((name, message));
            }
        }
    }
    let Summary { passed, skipped, failed } = &summary;
    let mut closing =
        format!("{} passed, {} failed, {} skipped\n", passed.len(), failed.len(), skipped.len());
    for (name, reason) in skipped {
        closing.push_str(&format!("  skipped {name}: {reason}\n"));
    }
    // Not through `print!`, which a test harness keeps to itself as long as nothing fails: skips are to be seen.
    let _ = std::io::stderr().write_all(closing.as_bytes());
    summary
}

fn run_one(backend: &dyn Backend, test: &Test) -> Result<(), Unable> {
    let scene = Scene::new(backend);
    let outcome = std::thread::scope(|scope| {
        let (finished, watch) = mpsc::channel::<()>();
        let scene = &scene;
        scope.spawn(move || {
            if watch.recv_timeout(backend.patience()) == Err(mpsc::RecvTimeoutError::Timeout) {
                scene.give_up();
            }
        });
        let outcome = catch_unwind(AssertUnwindSafe(|| (test.body)(scene)));
        drop(finished);
        outcome
    });
    let failed = match outcome {
        Ok(Err(Unable::Failed(message))) => message,
        Ok(other) => return other,
        Err(panic) => match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => panic.downcast_ref::<&str>().map_or("panicked", |m| m).to_owned(),
        },
    };
    Err(Unable::Failed(match scene.drawn_seed() {
        Some(seed) => format!("{failed} (PRECEDENT_CONFORMANCE_SEED={seed})"),
        None => failed,
    }))
}

/// Polls a future on this thread, which sleeps until it is woken.
fn park_until_done(future: impl Future<Output = ()>) {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    while future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        std::thread::park();
    }
}

#[cfg(test)]
mod own_tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_promise_has_several_tests_and_every_name_is_used_once() {
        let tests = tests();
        for promise in 1..=13 {
            let count = tests.iter().filter(|t| t.promises.contains(&promise)).count();
            assert!(count >= 4, "promise {promise} has {count} tests");
        }
        assert_eq!(tests.iter().map(|t| t.name).collect::<BTreeSet<_>>().len(), tests.len());
    }
}

//! Threads that help whoever reads or appends much.
//!
//! Whoever does takes shares of the work and never waits for the others: they *help*, and what they have begun and
//! not finished is done once more. So where the processor is busy nothing is lost. There are a few helpers in a
//! process, which come when there is something to do and go when there is not; starting them for each read would cost as
//! much as they give.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pack::Unpacker;

/// A helper whom nobody has asked for so long is gone.
const HELPER_WAITS: Duration = Duration::from_secs(1);
/// So long one stays awake when there is nothing to do.
const HELPER_LOOKS: Duration = Duration::from_micros(60);

/// Work that several threads can do at once.
pub(crate) trait Work: Send + Sync {
    /// Does shares of it until all are taken. The unpacker, if there is one, has been used for other work.
    fn help(&self, unpacker: &mut Option<Unpacker>);

    /// Whether more of it comes soon after, as the next page does to who reads all: then a helper stays awake for a moment.
    fn goes_on(&self) -> bool {
        false
    }
}

struct Helpers {
    asked: VecDeque<Arc<dyn Work>>,
    running: usize,
    idle: usize,
}

static HELPERS: Mutex<Helpers> = Mutex::new(Helpers { asked: VecDeque::new(), running: 0, idle: 0 });
static ASKED: Condvar = Condvar::new();
/// How much of what was asked for nobody has begun.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// There are fewer helpers than processors.
static HELPERS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors - 1).min(3)
});

fn lock() -> MutexGuard<'static, Helpers> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there can be help at all.
pub(crate) fn can_be() -> bool {
    *HELPERS_MAX > 0
}

/// Asks up to so many to help, as far as they have nothing else to do.
pub(crate) fn ask(work: &Arc<impl Work + 'static>, wanted: usize) {
    let mut helpers = lock();
    for _ in 0..wanted {
        if helpers.idle <= helpers.asked.len() {
            if helpers.running >= *HELPERS_MAX {
                return;
            }
            let name = "precedent-help".to_owned();
            if std::thread::Builder::new().name(name).spawn(help).is_err() {
                return;
            }
            helpers.running += 1;
            helpers.idle += 1;
        }
        helpers.asked.push_back(work.clone());
        WAITING.store(helpers.asked.len(), Ordering::Relaxed);
        ASKED.notify_one();
    }
}

/// Waits a moment for somebody to ask, without going to sleep: whoever reads on does so at once, and waking a thread takes as long
/// as reading a fifth of a page.
fn look() {
    let start = Instant::now();
    while WAITING.load(Ordering::Relaxed) == 0 && start.elapsed() < HELPER_LOOKS {
        std::thread::yield_now();
    }
}

/// Helps until nobody has asked for a while.
fn help() {
    let mut unpacker = None;
    // Whether it has looked for more already, or need not.
    let mut looked = true;
    let mut helpers = lock();
    loop {
        if let Some(work) = helpers.asked.pop_front() {
            WAITING.store(helpers.asked.len(), Ordering::Relaxed);
            helpers.idle -= 1;
            looked = !work.goes_on();
            drop(helpers);
            // Whoever asked does it once more, and whoever asks next is helped.
            if catch_unwind(AssertUnwindSafe(|| work.help(&mut unpacker))).is_err() {
                unpacker = None;
            }
            drop(work);
            helpers = lock();
            helpers.idle += 1;
            continue;
        }
        if !looked {
            drop(helpers);
            looked = true;
            look();
            helpers = lock();
            continue;
        }
        let (guard, waited) =
            ASKED.wait_timeout(helpers, HELPER_WAITS).unwrap_or_else(PoisonError::into_inner);
        helpers = guard;
        if waited.timed_out() && helpers.asked.is_empty() {
            helpers.running -= 1;
            helpers.idle -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    struct Panics;

    impl Work for Panics {
        fn help(&self, _: &mut Option<Unpacker>) {
            panic!("as a defect would");
        }
    }

    struct Done(AtomicBool);

    impl Work for Done {
        fn help(&self, _: &mut Option<Unpacker>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_helps_survives_a_panic() {
        if !can_be() {
            eprintln!("skipped: nobody helps where there is one processor");
            return;
        }
        for _ in 0..8 {
            ask(&Arc::new(Panics), 3);
            std::thread::sleep(Duration::from_millis(20));
        }
        let (done, start) = (Arc::new(Done(AtomicBool::new(false))), Instant::now());
        while !done.0.load(Ordering::SeqCst) {
            assert!(start.elapsed() < Duration::from_secs(30), "nobody helps any more");
            ask(&done, 1);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

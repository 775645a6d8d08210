//! The thread of a log that writes and merges index runs and packs, and seals the segment of a log that rests.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use precedent_core::Result;

use super::Writer;
use crate::log::Log;
use crate::recovery;

/// A log to which nothing was appended for so long, or twice that, rests: its segment is sealed and packed.
const REST: Duration = Duration::from_secs(1);
/// Packing works so long at a time, or as long as one frame takes, and waits before it goes on if events were appended
/// meanwhile: see [`wait_for`].
const SPELL: Duration = Duration::from_millis(2);
/// While it waits it looks so often whether events still are appended, and whether the log is being closed.
const GLANCE: Duration = Duration::from_millis(10);
/// Closing a log takes no longer for packing than this; what is left is packed when the log is written to again.
const CLOSING: Duration = Duration::from_secs(5);

pub(super) struct Background {
    wake: Sender<()>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// Whether the thread waits without a time limit: whoever appends wakes it.
    resting: AtomicBool,
    /// Whether the log is being closed: what is at work is given up.
    ending: AtomicBool,
}

impl Background {
    pub(super) fn start(log: &Arc<Log>, writer: Weak<Writer>) -> Result<Self> {
        let (wake, woken) = channel();
        let shared = Arc::new(Shared::default());
        let (log, ours) = (log.clone(), shared.clone());
        let name = format!("precedent-{}-index", log.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let mut seen = u64::MAX;
            loop {
                let woken = match ours.resting.load(Ordering::Acquire) {
                    true => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    false => woken.recv_timeout(REST),
                };
                match woken {
                    Ok(()) => maintain_or_tell(&log, &ours),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        let size = log.recorded_size();
                        if std::mem::replace(&mut seen, size) != size {
                            continue;
                        }
                        let sealed = writer.upgrade().is_some_and(|writer| writer.idle());
                        if sealed {
                            maintain_or_tell(&log, &ours);
                        }
                        ours.resting.store(true, Ordering::SeqCst);
                        fence(Ordering::SeqCst);
                        // What came between looking and resting woke nobody.
                        if log.recorded_size() != size {
                            ours.resting.store(false, Ordering::Release);
                        }
                    }
                }
            }
        })?;
        Ok(Self { wake, shared, thread })
    }

    /// There is something to do.
    pub(super) fn wake(&self) {
        self.shared.resting.store(false, Ordering::Release);
        let _ = self.wake.send(());
    }

    /// Events were appended.
    pub(super) fn stir(&self) {
        fence(Ordering::SeqCst);
        if self.shared.resting.swap(false, Ordering::SeqCst) {
            let _ = self.wake.send(());
        }
    }

    pub(super) fn end(self) {
        self.shared.ending.store(true, Ordering::Release);
        drop(self.wake);
        let _ = self.thread.join();
    }
}

/// A panic is a defect of ours: it becomes a finding, and what is to be done is tried again when there is more of it. Nothing of the log
/// depends on it.
fn maintain_or_tell(log: &Arc<Log>, shared: &Shared) {
    if catch_unwind(AssertUnwindSafe(|| maintain(log, shared))).is_err() {
        log.found_panic();
    }
}

fn maintain(log: &Arc<Log>, shared: &Shared) {
    let index = log.index();
    while index.flush_one() {}
    while index.merge_once() {}
    if log.settings.pack {
        crate::packer::pack(log, &pace(log, shared));
    }
    // A run that failed its check and was let go. What fails here is tried again next time.
    let _ = recovery::fill_gaps(&index, &log.segments, log.settings.index_flush_bytes);
}

/// How long packing waits after it has worked for so long, while events are appended and so many sealed segments wait
/// for it. It takes processor time and memory bandwidth that whoever appends would miss: so a tenth of a thread at first.
/// The more is waiting, the larger its share, up to all of it: what is not packed yet is bounded.
fn wait_for(worked: Duration, segments: usize) -> Duration {
    let times = match segments {
        0..=8 => 9,
        9..=32 => 3,
        33..=128 => 1,
        _ => 0,
    };
    worked * times
}

/// Lets packing go on at once while nothing is appended, and a part of the time while something is. Index runs are
/// written and merged in between.
fn pace<'p>(log: &'p Log, shared: &'p Shared) -> impl Fn() -> bool + 'p {
    let index = log.index();
    let since = Cell::new(Instant::now());
    let size = Cell::new(log.recorded_size());
    let ending = || shared.ending.load(Ordering::Acquire);
    let appended = move || size.replace(log.recorded_size()) != log.recorded_size();
    move || {
        let worked = since.get().elapsed();
        if worked >= SPELL && !ending() {
            // Whoever appends would have to write the runs itself if they waited until all is packed, and those
            // that are not merged keep a file open each.
            while index.flush_one() {}
            while index.merge_once() {}
            let until = Instant::now() + wait_for(worked, log.segments.sealed().len());
            while appended() && !ending() {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::sleep(left.min(GLANCE));
            }
            since.set(Instant::now());
        }
        !ending()
    }
}

/// For packing while a log is closed.
pub(super) fn while_closing() -> impl Fn() -> bool {
    let end = Instant::now() + CLOSING;
    move || Instant::now() < end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_takes_a_small_share_while_little_waits_and_all_of_a_thread_before_it_is_too_much() {
        assert!((0..=8).all(|segments| wait_for(SPELL, segments) >= 9 * SPELL), "a tenth of a thread");
        assert!((0..1_000).all(|segments| wait_for(SPELL, segments) >= wait_for(SPELL, segments + 1)));
        assert!(wait_for(SPELL, 129).is_zero());
        // A frame that takes long to pack is followed by a wait as much longer.
        assert_eq!(wait_for(10 * SPELL, 1), 10 * wait_for(SPELL, 1));
    }
}

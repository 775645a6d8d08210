//! Blocks of packs that will be asked for next, unpacked before they are, by several threads.
//!
//! Unpacking is nearly all that reading from packs takes, and no block needs another. Whoever reads unpacks what it will
//! need and never waits for the others: they *help*, and what they have begun and not finished is done once more. So where
//! the processor is busy nothing is lost. There are a few helpers in a process, which come when something is read
//! and go when nothing is; starting them for each read would cost as much as they give.
//!
//! What cannot be read or unpacked is left out: whoever asks for it by itself hears why.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use precedent_core::Result;

use crate::pack::{Block, BlockKey, OpenPack, Unpacker};

/// Blocks are unpacked ahead up to so many bytes: a page of a scan, nearly always.
pub(crate) const AHEAD_BYTES_MAX: usize = 2 << 20;
/// Nobody is asked to help with fewer blocks than this: a block takes several times as long as it takes to wake somebody.
const HELPER_BLOCKS: usize = 8;
/// Blocks that are taken at a time.
const SHARE: usize = 4;
/// A helper whom nobody has asked for so long is gone.
const HELPER_WAITS: Duration = Duration::from_secs(1);

/// What is unpacked ahead, and what unpacks it.
pub(crate) struct Ahead {
    sequential: bool,
    unpacker: Option<Unpacker>,
    /// In the order in which they will be asked for.
    blocks: VecDeque<(BlockKey, Arc<Block>)>,
}

impl Ahead {
    /// `sequential`: the blocks behind one will be wanted too.
    pub(crate) fn new(sequential: bool) -> Self {
        Self { sequential, unpacker: None, blocks: VecDeque::new() }
    }

    /// Whether nothing is left of what was unpacked ahead.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Lets go of what was unpacked ahead: something else will be asked for.
    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
    }

    /// A block, if it was unpacked ahead. Those before it were passed over.
    pub(crate) fn take(&mut self, key: BlockKey) -> Option<Arc<Block>> {
        let at = self.blocks.iter().position(|(other, _)| *other == key)?;
        self.blocks.drain(..=at).next_back().map(|(_, block)| block)
    }

    /// Unpacks one block on this thread.
    pub(crate) fn block(&mut self, pack: &OpenPack, number: usize) -> Result<Block> {
        pack.block(number, self.unpacker()?)
    }

    fn unpacker(&mut self) -> Result<&mut Unpacker> {
        if self.unpacker.is_none() {
            self.unpacker = Some(Unpacker::new(self.sequential)?);
        }
        Ok(self.unpacker.as_mut().expect("it was just made"))
    }

    /// Unpacks these blocks of a pack, which will be asked for in this order, if they are enough to be helped with.
    pub(crate) fn unpack(&mut self, pack: &Arc<OpenPack>, numbers: Vec<usize>) -> Result<()> {
        let wanted = numbers.len() / HELPER_BLOCKS;
        if wanted == 0 {
            return Ok(());
        }
        let done = numbers.iter().map(|_| OnceLock::new()).collect();
        let (pack, next) = (pack.clone(), AtomicUsize::new(0));
        let work = Arc::new(Work { pack: pack.clone(), sequential: self.sequential, numbers, next, done });
        ask(&work, wanted);
        let unpacker = self.unpacker()?;
        work.go_on(unpacker);
        // All have been taken, and some of those that a helper took are not done.
        for (at, number) in work.numbers.iter().enumerate() {
            unpacker.read_through(&pack, *number);
            work.one(at, unpacker);
        }
        unpacker.read_through(&pack, usize::MAX);
        let blocks = work.numbers.iter().zip(&work.done);
        self.blocks = blocks
            .filter_map(|(number, done)| Some((pack.block_key(*number), done.get()?.clone()?)))
            .collect();
        Ok(())
    }
}

/// Blocks that are to be unpacked.
struct Work {
    pack: Arc<OpenPack>,
    sequential: bool,
    numbers: Vec<usize>,
    /// The first that nobody has taken.
    next: AtomicUsize,
    /// What came of each: nothing, if it could not be unpacked.
    done: Vec<OnceLock<Option<Arc<Block>>>>,
}

impl Work {
    /// Unpacks until all are taken.
    fn go_on(&self, unpacker: &mut Unpacker) {
        loop {
            let at = self.next.fetch_add(SHARE, Ordering::Relaxed);
            let end = (at + SHARE).min(self.numbers.len());
            if at >= end {
                return;
            }
            if self.sequential {
                // Somebody else reads what lies behind these.
                unpacker.read_through(&self.pack, self.numbers[end - 1]);
            }
            (at..end).for_each(|at| self.one(at, unpacker));
        }
    }

    /// Unpacks one, unless that is done.
    fn one(&self, at: usize, unpacker: &mut Unpacker) {
        if self.done[at].get().is_none() {
            if !self.sequential {
                unpacker.read_through(&self.pack, self.numbers[at]);
            }
            let block = self.pack.block(self.numbers[at], unpacker).ok().map(Arc::new);
            let _ = self.done[at].set(block);
        }
    }
}

/// Those who help, whatever is read in this process.
struct Helpers {
    asked: VecDeque<Arc<Work>>,
    running: usize,
    idle: usize,
}

static HELPERS: Mutex<Helpers> = Mutex::new(Helpers { asked: VecDeque::new(), running: 0, idle: 0 });
static ASKED: Condvar = Condvar::new();

/// Whether there can be help at all.
pub(crate) fn is_helped() -> bool {
    *HELPERS_MAX > 0
}

/// There are fewer helpers than processors.
static HELPERS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors - 1).min(3)
});

fn lock() -> MutexGuard<'static, Helpers> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks up to so many to help, as far as they have nothing else to do.
fn ask(work: &Arc<Work>, wanted: usize) {
    let mut helpers = lock();
    for _ in 0..wanted {
        if helpers.idle <= helpers.asked.len() {
            if helpers.running >= *HELPERS_MAX {
                return;
            }
            let name = "precedent-unpack".to_owned();
            if std::thread::Builder::new().name(name).spawn(help).is_err() {
                return;
            }
            helpers.running += 1;
            helpers.idle += 1;
        }
        helpers.asked.push_back(work.clone());
        ASKED.notify_one();
    }
}

/// Helps until nobody has asked for a while.
fn help() {
    let mut unpacker = Unpacker::new(true).ok();
    let mut helpers = lock();
    loop {
        if let Some(work) = helpers.asked.pop_front() {
            helpers.idle -= 1;
            drop(helpers);
            if let Some(unpacker) = &mut unpacker {
                unpacker.forget();
                work.go_on(unpacker);
            }
            drop(work);
            helpers = lock();
            helpers.idle += 1;
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

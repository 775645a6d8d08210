//! Pages that are begun before they are asked for.
//!
//! Who reads everything, page by page, does something with a page before it asks for the next. Meanwhile helpers begin with
//! that: once somebody has asked for a page that goes on from the one before, so that of who wants one page one is read. What
//! was begun for somebody who does not come is let go when others who read on take its place, or the log is closed.
//!
//! Events that are found by the index are not read ahead: of these, which lie scattered, two threads read no more than memory
//! yields, and it was as quick without.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use precedent_core::Read;

use crate::page::Shares;
use crate::segment::Segments;

/// Readers of a store for whom it is remembered how they go on.
const READERS_MAX: usize = 4;

/// How somebody probably goes on.
struct Ahead {
    segments: Weak<Segments>,
    read: Read,
    begun: Option<Arc<Shares>>,
}

impl Ahead {
    fn is_of(&self, segments: &Arc<Segments>) -> bool {
        std::ptr::eq(self.segments.as_ptr(), Arc::as_ptr(segments))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(shares) = self.begun.take() {
            shares.give_up();
        }
    }
}

/// Those who read the logs of a store, as far as it is remembered.
#[derive(Default)]
pub(crate) struct Readers(Mutex<VecDeque<Ahead>>);

impl Readers {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Ahead>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody goes on like this, and what was begun of it.
    pub(crate) fn take(&self, segments: &Arc<Segments>, read: &Read) -> Option<Option<Arc<Shares>>> {
        let mut readers = self.lock();
        let index = readers.iter().position(|ahead| ahead.is_of(segments) && ahead.read == *read)?;
        readers.remove(index).map(|mut ahead| ahead.begun.take())
    }

    /// Remembers how somebody probably goes on, and what was begun of it.
    pub(crate) fn put(&self, segments: &Arc<Segments>, read: Read, begun: Option<Arc<Shares>>) {
        let ahead = Ahead { segments: Arc::downgrade(segments), read, begun };
        let mut readers = self.lock();
        let mut first = None;
        if readers.len() == READERS_MAX {
            // Who has read one page probably reads no other.
            let index = readers.iter().position(|ahead| ahead.begun.is_none()).unwrap_or(0);
            first = readers.remove(index);
        }
        readers.push_back(ahead);
        drop(readers);
        // What it holds is freed without the lock.
        drop(first);
    }

    /// Lets go of what was begun of a log that is closed.
    pub(crate) fn forget(&self, segments: &Arc<Segments>) {
        let mut readers = self.lock();
        let (of_log, others) = readers.drain(..).partition(|ahead| ahead.is_of(segments));
        *readers = others;
        drop(readers);
        drop::<VecDeque<Ahead>>(of_log);
    }
}

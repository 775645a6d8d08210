//! One commit for all that wait, for stores that do not group the commits of several threads by themselves.
//!
//! Whoever finds no commit under way takes along what the others have brought. It is what a program that uses such a
//! store for this purpose would do; without it they sync once for every event.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::peer::{Appender, Record, Result};

/// A store that one thread at a time writes to.
pub(crate) trait Engine: Send {
    /// Records all of them in one durable commit.
    fn commit(&mut self, records: Vec<Record>) -> Result<()>;
}

/// The queue in front of it.
pub(crate) struct Group<E> {
    state: Mutex<State>,
    committed: Condvar,
    engine: Mutex<E>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Record>,
    /// The commit that takes what is waiting now.
    generation: u64,
    done: u64,
    busy: bool,
    failed: Option<String>,
}

impl<E: Engine> Group<E> {
    pub(crate) fn new(engine: E) -> Self {
        let state = State { generation: 1, ..State::default() };
        Self { state: Mutex::new(state), committed: Condvar::new(), engine: Mutex::new(engine) }
    }

    /// The store itself, for reads.
    pub(crate) fn engine(&self) -> MutexGuard<'_, E> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, records: Vec<Record>) -> Result<()> {
        let mut state = self.lock();
        state.waiting.extend(records);
        let mine = state.generation;
        loop {
            if let Some(failed) = &state.failed {
                return Err(failed.clone().into());
            }
            if state.done >= mine {
                return Ok(());
            }
            if state.busy {
                state = self.committed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.busy = true;
            let generation = state.generation;
            state.generation += 1;
            let records = std::mem::take(&mut state.waiting);
            drop(state);
            let committed = self.engine().commit(records);
            state = self.lock();
            state.busy = false;
            state.done = generation;
            state.failed = committed.err().map(|error| error.to_string());
            self.committed.notify_all();
        }
    }
}

impl<E: Engine> Appender for &Group<E> {
    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        Group::append(self, records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting {
        commits: Vec<usize>,
    }

    impl Engine for Counting {
        fn commit(&mut self, records: Vec<Record>) -> Result<()> {
            if records.iter().any(|record| record.id == "bad") {
                return Err("refused".into());
            }
            self.commits.push(records.len());
            Ok(())
        }
    }

    fn record(id: &str) -> Record {
        Record { id: id.into(), stream: "s".into(), event_type: "t", data: bytes::Bytes::new() }
    }

    #[test]
    fn every_event_is_committed_once_and_a_failure_is_told_to_whoever_comes() {
        let group = Group::new(Counting { commits: Vec::new() });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| group.append(vec![record("x"), record("y")]).unwrap()));
            }
        });
        let commits = group.engine().commits.clone();
        assert_eq!(commits.iter().sum::<usize>(), 800);
        assert!(commits.iter().all(|events| events % 2 == 0));
        assert!(group.append(vec![record("bad")]).is_err());
        assert!(group.append(vec![record("x")]).is_err());
    }
}

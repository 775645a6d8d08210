//! A service in memory, with one table of everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::memory::next_revision;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName};
use precedent_core::{
    Durability, Error, ErrorKind, Limits, LogId, LogName, Position, RecordedEvent, Result, Time,
};

use crate::remote::{Commit, Document, FrameSet, IS_MISSING, LogRecord, Outcome, Remote, StoredFrame};

/// What happens to the next commit.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It is refused, and nothing is written.
    Refuse,
    /// The answer is lost, once.
    LoseAnswer { written: bool },
    /// No answer comes, to this commit and whenever it is sent again.
    NeverAnswer { written: bool },
    /// A defect of ours: it panics.
    Panic,
}

/// Handles on one service are clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Service(Arc<Mutex<Tables>>, Meanwhile, Arc<tokio::sync::RwLock<()>>);

/// What happens, once, when a writer next asks for the service's clock: behind its look at what is here, and before it
/// drafts a frame on that.
#[derive(Clone, Default)]
struct Meanwhile(Arc<Mutex<Option<Happening>>>);

type Happening = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) logs: BTreeMap<LogName, LogRecord>,
    pub(super) frames: BTreeMap<(LogId, u64), Commit>,
    pub(super) documents: BTreeMap<(LogId, Position), RecordedEvent>,
    registers: BTreeMap<RegisterName, Register>,
    documented: BTreeMap<LogId, FrameSet>,
    faults: VecDeque<Fault>,
    silent: bool,
    pub(super) commits: u64,
    pub(super) tail_checks: u64,
    pub(super) clock: Option<(Time, Time)>,
    /// Commits that have come, those included that are held.
    pub(super) held: u64,
    /// Every commit is told that its number is taken.
    pub(super) taken: bool,
    /// Frames that were read.
    pub(super) fetched: u64,
    pub(super) refuse_documents: Option<ErrorKind>,
    /// Documents that cannot be written for now.
    pub(super) failing_documents: BTreeSet<Position>,
    /// Whether documents get no answer.
    pub(super) documents_hang: bool,
    pub(super) region: String,
}

impl Service {
    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(|p| p.into_inner())
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.tables().faults.push_back(fault);
    }

    /// Lets something happen while the next frame is drafted.
    pub(super) fn meanwhile(&self, happens: impl FnOnce() + Send + 'static) {
        *self.1.0.lock().unwrap_or_else(|p| p.into_inner()) = Some(Box::new(happens));
    }

    /// Whatever was to happen to later commits does not.
    pub(super) fn forget_faults(&self) {
        self.tables().faults.clear();
        self.answer();
    }

    /// No commit goes on before what this answers is dropped.
    pub(super) fn hold(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.2.clone().try_write_owned().expect("nothing is committed at the moment")
    }

    /// Answers again, after [`Fault::NeverAnswer`].
    pub(super) fn answer(&self) {
        self.tables().silent = false;
    }

    /// Flips a byte of the frame that holds this event, as it is stored.
    pub(super) fn damage(&self, log: &LogName, position: Position) {
        let mut tables = self.tables();
        let id = tables.logs[log].id;
        let holds = |commit: &&mut Commit| {
            (commit.first.0..commit.first.0 + u64::from(commit.count)).contains(&position.0)
        };
        let range = (id, 0)..=(id, u64::MAX);
        let commit =
            tables.frames.range_mut(range).map(|(_, commit)| commit).find(holds).expect("it is there");
        let mut bytes = commit.bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        commit.bytes = bytes.into();
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the service does not answer")
}

impl Tables {
    fn commit(&mut self, commit: &Commit) -> Outcome {
        if let Some(there) = self.frames.get(&(commit.log, commit.sequence)) {
            return if there.id == commit.id { Outcome::Committed } else { Outcome::Taken };
        }
        let previous =
            commit.sequence.checked_sub(1).map(|sequence| self.frames.get(&(commit.log, sequence)));
        let follows = match previous {
            None => self.logs.values().any(|record| record.id == commit.log),
            Some(previous) => previous.is_some_and(|previous| previous.hash == commit.previous),
        };
        if !follows {
            return Outcome::Gone("the frame before it is not there".into());
        }
        self.frames.insert((commit.log, commit.sequence), commit.clone());
        Outcome::Committed
    }
}

impl Remote for Service {
    fn url(&self) -> String {
        "test:service".into()
    }

    fn identity(&self) -> String {
        "test service".into()
    }

    fn durability(&self) -> Durability {
        Durability::RegionQuorum
    }

    fn frame_bytes(&self) -> usize {
        64 << 10
    }

    fn region(&self) -> String {
        self.tables().region.clone()
    }

    fn clock(&self) -> Option<(Time, Time)> {
        let happens = self.1.0.lock().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(happens) = happens {
            happens();
        }
        self.tables().clock
    }

    fn logs(&self) -> BoxFuture<'_, Result<Vec<LogName>>> {
        async move { Ok(self.tables().logs.keys().cloned().collect()) }.boxed()
    }

    fn log<'a>(&'a self, name: &'a LogName) -> BoxFuture<'a, Result<Option<LogRecord>>> {
        async move { Ok(self.tables().logs.get(name).cloned()) }.boxed()
    }

    fn make_log<'a>(&'a self, name: &'a LogName, record: LogRecord) -> BoxFuture<'a, Result<LogRecord>> {
        async move { Ok(self.tables().logs.entry(name.clone()).or_insert(record).clone()) }.boxed()
    }

    fn promote<'a>(&'a self, name: &'a LogName, _id: LogId) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut tables = self.tables();
            tables.logs.get_mut(name).expect("the log is there").copy = false;
            Ok(())
        }
        .boxed()
    }

    fn has_frame(&self, log: LogId, sequence: u64) -> BoxFuture<'_, Result<bool>> {
        async move {
            let mut tables = self.tables();
            tables.tail_checks += 1;
            Ok(tables.frames.contains_key(&(log, sequence)))
        }
        .boxed()
    }

    fn frames(&self, log: LogId, from: u64, bytes_max: usize) -> BoxFuture<'_, Result<Vec<StoredFrame>>> {
        async move {
            let mut tables = self.tables();
            let mut bytes = 0;
            let fits = |frame: &StoredFrame| {
                let take = bytes < bytes_max;
                bytes += frame.bytes.as_ref().map_or(0, Bytes::len);
                take
            };
            let range = tables.frames.range((log, from)..=(log, u64::MAX));
            let stored = range.map(|((_, sequence), commit)| StoredFrame {
                sequence: *sequence,
                header: Some(commit.header.clone()),
                bytes: Ok(commit.bytes.clone()),
            });
            let stored: Vec<_> = stored.take_while(fits).collect();
            tables.fetched += stored.len() as u64;
            Ok(stored)
        }
        .boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> BoxFuture<'a, Outcome> {
        async move {
            self.tables().held += 1;
            drop(self.2.read().await);
            tokio::task::yield_now().await;
            let mut tables = self.tables();
            tables.commits += 1;
            if tables.silent {
                return Outcome::Unsettled(unavailable());
            }
            if tables.taken {
                return Outcome::Taken;
            }
            let written = match tables.faults.pop_front() {
                Some(Fault::Panic) => {
                    drop(tables);
                    panic!("a panic that a test asked for");
                }
                None => return tables.commit(commit),
                Some(Fault::Refuse) => {
                    return Outcome::Refused(Error::new(ErrorKind::Full, "the partition is at its ceiling"));
                }
                Some(Fault::LoseAnswer { written }) => written,
                Some(Fault::NeverAnswer { written }) => {
                    tables.silent = true;
                    written
                }
            };
            if written {
                tables.commit(commit);
            }
            Outcome::Unsettled(unavailable())
        }
        .boxed()
    }

    fn register<'a>(&'a self, name: &'a RegisterName) -> BoxFuture<'a, Result<Option<Register>>> {
        async move { Ok(self.tables().registers.get(name).cloned()) }.boxed()
    }

    fn set_register<'a>(
        &'a self,
        name: &'a RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Register>> {
        async move {
            let mut tables = self.tables();
            let limits = Limits::new(Durability::RegionQuorum);
            let revision = next_revision(name, tables.registers.get(name), expected, &value, &limits)?;
            let register = Register { value, revision };
            tables.registers.insert(name.clone(), register.clone());
            Ok(register)
        }
        .boxed()
    }

    fn documented(&self, log: LogId) -> BoxFuture<'_, Result<FrameSet>> {
        async move { Ok(self.tables().documented.get(&log).cloned().unwrap_or_default()) }.boxed()
    }

    fn add_documented<'a>(&'a self, log: LogId, frames: &'a FrameSet) -> BoxFuture<'a, Result<FrameSet>> {
        async move {
            let mut tables = self.tables();
            let there = tables.documented.entry(log).or_default();
            there.add(frames);
            Ok(there.clone())
        }
        .boxed()
    }

    fn put_documents<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, Vec<Result<()>>> {
        async move {
            if self.tables().documents_hang {
                std::future::pending::<()>().await;
            }
            let mut tables = self.tables();
            let put = |document: &Document| match tables.refuse_documents {
                Some(kind) => Err(Error::new(kind, "no documents today")),
                None if tables.failing_documents.contains(&document.event.position) => Err(unavailable()),
                None => {
                    let event = &document.event;
                    tables.documents.entry((event.log, event.position)).or_insert_with(|| event.clone());
                    Ok(())
                }
            };
            documents.iter().map(put).collect()
        }
        .boxed()
    }

    fn check_documents<'a>(
        &'a self,
        documents: &'a [Document],
    ) -> BoxFuture<'a, Result<Vec<Option<String>>>> {
        async move {
            let tables = self.tables();
            let check = |document: &Document| match tables
                .documents
                .get(&(document.event.log, document.event.position))
            {
                None => Some(IS_MISSING.to_owned()),
                Some(there) if *there == document.event => None,
                Some(_) => Some("has other data".to_owned()),
            };
            Ok(documents.iter().map(check).collect())
        }
        .boxed()
    }

    fn examine<'a>(&'a self, _name: &'a LogName, _log: LogId) -> BoxFuture<'a, Result<Vec<Finding>>> {
        async move { Ok(Vec::new()) }.boxed()
    }
}

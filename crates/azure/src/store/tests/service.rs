//! A service in memory, with one table of everything.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use precedent_core::memory::next_revision;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName};
use precedent_core::{
    Durability, Error, ErrorKind, Limits, LogId, LogName, Position, RecordedEvent, Result, Time,
};

use crate::remote::{Commit, Document, IS_MISSING, LogRecord, Outcome, Remote, StoredFrame};

/// What happens to the next commit.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It is refused, and nothing is written.
    Refuse,
    /// The answer is lost, once.
    LoseAnswer { written: bool },
    /// No answer comes, to this commit and whenever it is sent again.
    NeverAnswer { written: bool },
}

/// Handles on one service are clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Service(Arc<Mutex<Tables>>, Meanwhile);

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
    through: BTreeMap<LogId, u64>,
    faults: VecDeque<Fault>,
    silent: bool,
    pub(super) commits: u64,
    pub(super) tail_checks: u64,
    pub(super) clock: Option<(Time, Time)>,
    pub(super) refuse_documents: Option<ErrorKind>,
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
            let tables = self.tables();
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
            Ok(stored.take_while(fits).collect())
        }
        .boxed()
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> BoxFuture<'a, Outcome> {
        async move {
            tokio::task::yield_now().await;
            let mut tables = self.tables();
            tables.commits += 1;
            if tables.silent {
                return Outcome::Unsettled(unavailable());
            }
            let written = match tables.faults.pop_front() {
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

    fn documents_through(&self, log: LogId) -> BoxFuture<'_, Result<u64>> {
        async move { Ok(self.tables().through.get(&log).copied().unwrap_or(0)) }.boxed()
    }

    fn set_documents_through(&self, log: LogId, frames: u64) -> BoxFuture<'_, Result<()>> {
        async move {
            let mut tables = self.tables();
            let through = tables.through.entry(log).or_default();
            *through = frames.max(*through);
            Ok(())
        }
        .boxed()
    }

    fn put_documents<'a>(&'a self, documents: &'a [Document]) -> BoxFuture<'a, Vec<Result<()>>> {
        async move {
            let mut tables = self.tables();
            let put = |document: &Document| match tables.refuse_documents {
                Some(kind) => Err(Error::new(kind, "no documents today")),
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

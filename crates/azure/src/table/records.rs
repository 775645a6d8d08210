//! The small rows beside the frames: logs, registers, and the frames whose documents are complete.
//!
//! Each is one row, and is changed only by an insert that fails if it is there or a replacement that fails if its ETag
//! is another one. Where an answer was lost, the row is read back; a register's holds the random id of the write that
//! made it, by which that is known.
//!
//! *Invariant*: a register that was set is never set twice by one call, and a call that cannot say whether it was says
//! `unknown`.

use bytes::Bytes;
use precedent_core::memory::next_revision;
use precedent_core::store::{ExpectedRegister, Finding, Register, RegisterName, Severity};
use precedent_core::{Durability, Error, ErrorKind, FrameId, Limits, LogId, LogName, Result};

use super::TableRemote;
use super::client::{Query, Write};
use super::entity::{Entity, Row, Value};
use super::keys::{self, HEAD, Key};
use crate::remote::{FrameSet, LogRecord};

/// How often a row is looked at again after somebody else was quicker.
const ROUNDS_MAX: usize = 16;
/// How far two clocks may be apart, in microseconds.
const CLOCK_MICROS_MAX: u64 = 300_000_000;

fn log_entity(name: &LogName, record: &LogRecord) -> Entity {
    Entity::new(keys::log(name))
        .with("id", record.id.to_string())
        .with("copy", Value::Boolean(record.copy))
        .with("home", record.home.as_str())
}

fn log_record(row: &Row) -> Result<LogRecord> {
    Ok(LogRecord { id: row.parsed("id")?, copy: row.boolean("copy")?, home: row.text("home")?.to_owned() })
}

fn register_entity(name: &RegisterName, register: &Register, write: &str) -> Result<Entity> {
    Ok(Entity::new(keys::register(name))
        .with("name", name.as_str())
        .with_number("revision", register.revision)?
        .with("write", write)
        .with("value", register.value.clone()))
}

fn register_of(row: &Row) -> Result<Register> {
    Ok(Register { value: row.binary("value")?, revision: row.number("revision")? })
}

fn etag(row: &Row) -> Result<&str> {
    row.etag.as_deref().ok_or_else(|| Error::damaged(format!("{}: has no ETag", row.key)))
}

impl TableRemote {
    pub(super) async fn list_logs(&self) -> Result<Vec<LogName>> {
        let query = Query { select: vec!["PartitionKey", "RowKey"], ..Query::range(keys::LOGS, "", None) };
        let mut names = Vec::new();
        let mut next = None;
        loop {
            let page = self.client.query(&query, next.as_ref()).await?;
            for row in page.rows {
                let name = row.key.row.parse::<LogName>();
                names.push(name.map_err(|_| Error::damaged(format!("{}: names no log", row.key)))?);
            }
            next = page.next;
            if next.is_none() {
                return Ok(names);
            }
        }
    }

    pub(super) async fn read_log(&self, name: &LogName) -> Result<Option<LogRecord>> {
        let row = self.client.get(&keys::log(name), &[]).await?;
        row.as_ref().map(log_record).transpose()
    }

    /// The head comes first: a crash in between leaves a row under a random id that nobody knows, instead of a log that
    /// nothing can be added to.
    pub(super) async fn write_log(&self, name: &LogName, record: LogRecord) -> Result<LogRecord> {
        if let Some(there) = self.read_log(name).await? {
            return Ok(there);
        }
        self.make_head(record.id).await?;
        let written = self.client.insert(&log_entity(name, &record)).await?;
        match written.outcome {
            Write::Done(_) => Ok(record),
            _ => self.read_log(name).await?.ok_or_else(|| {
                Error::new(
                    ErrorKind::LogWentBackwards,
                    format!("the log {name} was there and is there no more"),
                )
            }),
        }
    }

    pub(super) async fn promote_log(&self, name: &LogName, id: LogId) -> Result<()> {
        let key = keys::log(name);
        for _ in 0..ROUNDS_MAX {
            let Some(row) = self.client.get(&key, &[]).await? else {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no log {name}")));
            };
            let record = log_record(&row)?;
            if record.id != id {
                let message =
                    format!("the log {name} has the id {}, expected {id}: it was made again", record.id);
                return Err(Error::new(ErrorKind::LogWentBackwards, message));
            }
            if !record.copy {
                return Ok(());
            }
            let promoted = log_entity(name, &LogRecord { copy: false, ..record });
            if let Write::Done(_) = self.client.replace(&promoted, etag(&row)?).await?.outcome {
                return Ok(());
            }
        }
        Err(too_busy(&key))
    }

    pub(super) async fn read_register(&self, name: &RegisterName) -> Result<Option<Register>> {
        let row = self.client.get(&keys::register(name), &[]).await?;
        row.as_ref().map(register_of).transpose()
    }

    pub(super) async fn write_register(
        &self,
        name: &RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> Result<Register> {
        let key = keys::register(name);
        let before = self.client.get(&key, &[]).await?;
        let there = before.as_ref().map(register_of).transpose()?;
        let limits = Limits::new(Durability::RegionQuorum);
        let revision = next_revision(name, there.as_ref(), expected, &value, &limits)?;
        let register = Register { value, revision };
        let write = FrameId::random().to_string();
        let entity = register_entity(name, &register, &write)?;
        let written = match &before {
            None => self.client.insert(&entity).await,
            Some(row) => self.client.replace(&entity, etag(row)?).await,
        };
        let (doubt, failure) = match written {
            Ok(written) if matches!(written.outcome, Write::Done(_)) => return Ok(register),
            Ok(written) => (written.ambiguous, None),
            Err(error) if error.may_have_been_written() => (true, Some(error)),
            Err(error) => return Err(error),
        };
        // Somebody else was quicker, or it was ourselves and the answer was lost.
        let there = match self.client.get(&key, &[]).await {
            Ok(there) => there,
            Err(error) if doubt => return Err(unknown(name, &error)),
            Err(error) => return Err(error),
        };
        let Some(row) = there else {
            return Err(match failure {
                Some(error) => unknown(name, &error),
                None => conflict(name, expected, None),
            });
        };
        if row.text("write").is_ok_and(|id| id == write) {
            return Ok(register);
        }
        let found = register_of(&row)?;
        let now = found.revision;
        // Ours would have been this very revision. A later one may have replaced it, and an earlier one is still
        // there if ours is to come.
        if doubt && (now > revision || (now < revision && failure.is_some())) {
            let error = Error::new(ErrorKind::Unknown, format!("it has revision {now} now"));
            return Err(unknown(name, failure.as_ref().unwrap_or(&error)));
        }
        Err(conflict(name, expected, Some(&found)))
    }

    pub(super) async fn read_documented(&self, log: LogId) -> Result<FrameSet> {
        let row = self.client.get(&keys::documented(log), &[]).await?;
        row.map_or(Ok(FrameSet::default()), |row| row.parsed("ranges"))
    }

    pub(super) async fn write_documented(&self, log: LogId, frames: &FrameSet) -> Result<FrameSet> {
        let key = keys::documented(log);
        let entity = |set: &FrameSet| {
            Entity::new(key.clone()).with("ranges", set.to_string()).with_number("frames", set.through())
        };
        for _ in 0..ROUNDS_MAX {
            let mut both = frames.clone();
            let written = match self.client.get(&key, &[]).await? {
                Some(row) => {
                    let there: FrameSet = row.parsed("ranges")?;
                    if there.covers(frames) {
                        return Ok(there);
                    }
                    both.add(&there);
                    self.client.replace(&entity(&both)?, etag(&row)?).await?
                }
                None => self.client.insert(&entity(&both)?).await?,
            };
            if let Write::Done(_) = written.outcome {
                return Ok(both);
            }
        }
        Err(too_busy(&key))
    }

    pub(super) async fn findings(&self, name: &LogName, log: LogId) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut say = |code, severity, message| findings.push(Finding { code, severity, message });
        let frames = match self.frames_in_all(log).await {
            Ok(frames) => frames,
            Err(error) => {
                say("table_unreachable", Severity::Error, error.message().to_owned());
                return Ok(findings);
            }
        };
        if let Some((theirs, ours)) = self.client.clock()
            && theirs.as_micros().abs_diff(ours.as_micros()) > CLOCK_MICROS_MAX
        {
            let message =
                format!("it is {theirs} at the service and {ours} here: set the clock of this machine");
            say("clock_off", Severity::Error, message);
        }
        match frames {
            None => {
                let message = format!("the first head of the log {name} is not there: the table was emptied");
                say("log_head_missing", Severity::Error, message);
            }
            Some(frames) => {
                let buckets = (frames >> self.bucket_bits) + 1;
                let size = 1_u64 << self.bucket_bits;
                let message = format!(
                    "the log {name} has {frames} frames in {buckets} partitions of at most {size} frames"
                );
                say("table_frames", Severity::Info, message);
                let through = self.read_documented(log).await?.through();
                if through < frames {
                    let message =
                        format!("entities of events from frame {through} of {frames} on may be missing");
                    say("documents_behind", Severity::Warning, message);
                }
            }
        }
        Ok(findings)
    }

    /// How many frames the newest head says there are; `None` without any head. Buckets are full but for the last, so
    /// the last is found in steps that double and then halve.
    async fn frames_in_all(&self, log: LogId) -> Result<Option<u64>> {
        let head = async |bucket: u64| -> Result<Option<u64>> {
            let key = Key::new(keys::bucket(log, bucket), HEAD);
            let row = self.client.get(&key, &["PartitionKey", "RowKey", "next"]).await?;
            row.map(|row| row.number("next")).transpose()
        };
        let Some(mut frames) = head(0).await? else { return Ok(None) };
        let (mut there, mut step) = (0_u64, 1_u64);
        let mut absent = loop {
            match head(there + step).await? {
                Some(next) => {
                    (there, frames) = (there + step, next);
                    step *= 2;
                }
                None => break there + step,
            }
        };
        while absent - there > 1 {
            let middle = there + (absent - there) / 2;
            match head(middle).await? {
                Some(next) => (there, frames) = (middle, next),
                None => absent = middle,
            }
        }
        Ok(Some(frames))
    }
}

/// Somebody else set it in between: now it is what the caller did not expect.
fn conflict(name: &RegisterName, expected: ExpectedRegister, found: Option<&Register>) -> Error {
    let none = Bytes::new();
    match next_revision(name, found, expected, &none, &Limits::new(Durability::RegionQuorum)) {
        Err(error) => error,
        Ok(_) => Error::new(
            ErrorKind::Conflict,
            format!("register '{name}' was changed meanwhile and changed back"),
        ),
    }
}

fn unknown(name: &RegisterName, cause: &Error) -> Error {
    let message = format!("whether the register {name} was set is not known: {cause}; read it");
    Error::new(ErrorKind::Unknown, message)
}

fn too_busy(key: &Key) -> Error {
    Error::new(ErrorKind::Overloaded, format!("{key} was changed by others {ROUNDS_MAX} times in a row"))
}

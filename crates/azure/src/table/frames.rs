//! Frames in the table: how one is committed, and how they are read.
//!
//! The frames of a log are kept in buckets of 4,096, each a partition: which bucket a frame is in follows from its number.
//! In it every frame has one to three rows, and one row is the *head*: the number of the next frame and the hash of the
//! last.
//!
//! ```text
//! partition ~log:<log>:<bucket>
//!   frame:<number>:00   id first count hash previous header codec length crc rows d00 … d14
//!   frame:<number>:01   d00 … d14
//!   head                next hash
//! ```
//!
//! **A commit** is one transaction in that partition: the head is replaced if it is still the one that was seen (its
//! ETag), and the frame's rows are inserted. It is carried out whole or not at all, and only one of several that saw the
//! same head is. In a new bucket the head is made beforehand, when the last frame of the bucket before was seen to be the
//! predecessor; it names the same hash. No head, or one with another number or hash: the predecessor is *gone*.
//!
//! **Lost answers.** Whether a transaction was carried out is read from the head: behind it, the frame that has the
//! number is ours if it has our id. If the head has not moved, a try that was given up could still arrive. So the head is
//! replaced by the same with another ETag: what arrives after that fails, and it is certain that nothing was written.
//!
//! **Packing.** Up to 45 properties of 64 KiB fit a transaction of 4 MiB, 15 in each row. A longer frame is written
//! first, in parts of 960 KiB in a partition of its own, and its row lists their lengths and SHA-256.
//!
//! *Invariant*: a row of a frame is never changed, and what is read is what was committed or is named damaged.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use precedent_core::frame::FRAME_BYTES_MAX;
use precedent_core::{Error, ErrorKind, FrameId, Hash, LogId, Result};
use sha2::{Digest as _, Sha256};

use super::TableRemote;
use super::batch::Operation;
use super::client::{Query, Transaction, Write};
use super::entity::{Entity, PROPERTY_BYTES_MAX, Row, Value};
use super::keys::{self, HEAD, Key};
use crate::packing::{Codec, Packed, pack, unpack};
use crate::remote::{Commit, Outcome, StoredFrame};

/// Properties of 64 KiB in a row: with what else it holds they stay under 1 MiB.
const CHUNKS_A_ROW: usize = 15;
/// Rows of a frame in its transaction: in base64 they stay under 4 MiB.
const ROWS_MAX: usize = 3;
/// Bytes of a part.
const PART_BYTES: usize = CHUNKS_A_ROW * PROPERTY_BYTES_MAX;
/// Packed bytes that are committed without parts.
const INLINE_BYTES_MAX: usize = ROWS_MAX * PART_BYTES;
/// How often a commit looks at the head again before it says that there is too much going on.
const ROUNDS_MAX: usize = 8;
/// The most rows of a page.
const PAGE_ROWS_MAX: usize = 1000;
/// What a row is taken to be long before the first was seen.
const ROW_BYTES_GUESSED: usize = 256 << 10;

/// The head of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the next frame.
    pub(super) next: u64,
    /// The hash of the frame before it.
    pub(super) hash: Hash,
    /// Of its row.
    pub(super) etag: String,
}

impl Head {
    fn from_row(row: &Row) -> Result<Self> {
        let etag = row.etag.clone().ok_or_else(|| Error::damaged(format!("{}: has no ETag", row.key)))?;
        Ok(Self { next: row.number("next")?, hash: row.parsed("hash")?, etag })
    }

    pub(super) fn entity(partition: String, next: u64, hash: Hash) -> Result<Entity> {
        Ok(Entity::new(Key::new(partition, HEAD)).with_number("next", next)?.with("hash", hash.to_string()))
    }
}

/// What there is to do after the head was looked at.
enum Look {
    /// The frame can be put: this is the head.
    Open(Head),
    /// It cannot, or has been.
    Decided(Outcome),
}

/// A frame as it is written: its rows, and before them its parts.
struct Written {
    rows: Vec<Entity>,
    parts: Vec<Entity>,
}

impl TableRemote {
    fn bucket_of(&self, sequence: u64) -> u64 {
        sequence >> self.bucket_bits
    }

    pub(super) fn bucket(&self, log: LogId, sequence: u64) -> String {
        keys::bucket(log, self.bucket_of(sequence))
    }

    /// Makes the head of a log's first bucket, if it is not there.
    pub(super) async fn make_head(&self, log: LogId) -> Result<()> {
        self.client.insert(&Head::entity(self.bucket(log, 0), 0, Hash::ZERO)?).await.map(|_| ())
    }

    pub(super) async fn has(&self, log: LogId, sequence: u64) -> Result<bool> {
        let key = Key::new(self.bucket(log, sequence), keys::frame_row(sequence, 0));
        Ok(self.client.get(&key, &["PartitionKey", "RowKey"]).await?.is_some())
    }

    pub(super) async fn put(&self, commit: &Commit) -> Outcome {
        let partition = self.bucket(commit.log, commit.sequence);
        let written = match rows_of(commit, &partition) {
            Ok(written) => written,
            Err(error) => return Outcome::Refused(error),
        };
        let next = commit.sequence + 1;
        let head_entity = match Head::entity(partition.clone(), next, commit.hash) {
            Ok(entity) => entity,
            Err(error) => return Outcome::Refused(error),
        };
        let mut known = self.known_head(commit.log).filter(|head| {
            head.next == commit.sequence
                && head.hash == commit.previous
                && self.bucket_of(head.next) == self.bucket_of(head.next.saturating_sub(1))
        });
        // An attempt of ours of which nobody knows yet whether it was, or will be, carried out.
        let mut doubt: Option<Error> = None;
        for _ in 0..ROUNDS_MAX {
            let head = match known.take() {
                Some(head) => head,
                None => match self.look(commit, &partition).await {
                    Ok(Look::Open(head)) => head,
                    Ok(Look::Decided(outcome)) => return outcome,
                    Err(error) => return unsettled_or(doubt, error),
                },
            };
            if let Some(error) = doubt.take() {
                match self.fence(commit, &partition, &head).await {
                    Ok(true) => return Outcome::Refused(settled(error)),
                    Ok(false) => {
                        doubt = Some(error);
                        continue;
                    }
                    Err(_) => return Outcome::Unsettled(error),
                }
            }
            // Only now that the number seems to be had; parts without the row that lists them are nothing.
            if let Err(error) = self.put_parts(commit, &written.parts).await {
                return Outcome::Refused(settled(error));
            }
            let replace = Operation::Replace(head_entity.clone(), head.etag);
            let inserts = written.rows.iter().cloned().map(Operation::Insert);
            let operations: Vec<_> = std::iter::once(replace).chain(inserts).collect();
            match self.client.transact(&operations).await {
                Ok(done) => match done.outcome {
                    Transaction::Done(etags) => {
                        let etag = etags.into_iter().next().flatten();
                        let head = etag.map(|etag| Head { next, hash: commit.hash, etag });
                        self.remember_head(commit.log, head);
                        return Outcome::Committed;
                    }
                    Transaction::Not(_, Write::Exists) => {
                        self.remember_head(commit.log, None);
                        match self.whose(commit, &partition).await {
                            Ok(Some(outcome)) => return outcome,
                            // It was there and is not: look again.
                            Ok(None) => {}
                            Err(error) => return unsettled_or(doubt, error),
                        }
                    }
                    Transaction::Not(..) => self.remember_head(commit.log, None),
                },
                Err(error) if error.may_have_been_written() => {
                    self.remember_head(commit.log, None);
                    doubt = Some(error);
                }
                Err(error) => {
                    self.remember_head(commit.log, None);
                    return Outcome::Refused(error);
                }
            }
        }
        let error = Error::new(
            ErrorKind::Overloaded,
            format!("the head of partition {partition} changed {ROUNDS_MAX} times in a row"),
        );
        unsettled_or(doubt, error)
    }

    /// Looks whether a frame can be put: what the head says, or what was there before a new bucket.
    async fn look(&self, commit: &Commit, partition: &str) -> Result<Look> {
        let sequence = commit.sequence;
        let key = Key::new(partition, HEAD);
        let row = match self.client.get(&key, &[]).await? {
            Some(row) => row,
            None => {
                let begins = sequence > 0 && self.bucket_of(sequence - 1) != self.bucket_of(sequence);
                if !begins {
                    return Ok(gone(format!(
                        "{key} is not there, which says what comes before frame {sequence}"
                    )));
                }
                let before =
                    Key::new(self.bucket(commit.log, sequence - 1), keys::frame_row(sequence - 1, 0));
                let Some(row) = self.client.get(&before, &["PartitionKey", "RowKey", "hash"]).await? else {
                    return Ok(gone(format!("frame {} is not there, at {before}", sequence - 1)));
                };
                let hash: Hash = row.parsed("hash")?;
                if hash != commit.previous {
                    return Ok(gone(other_history(sequence, hash, commit.previous)));
                }
                self.client.insert(&Head::entity(partition.to_owned(), sequence, hash)?).await?;
                match self.client.get(&key, &[]).await? {
                    Some(row) => row,
                    None => return Ok(gone(format!("{key} was made and is not there"))),
                }
            }
        };
        let head = Head::from_row(&row)?;
        if head.next > sequence {
            let outcome = self.whose(commit, partition).await?;
            return Ok(Look::Decided(outcome.unwrap_or_else(|| {
                Outcome::Gone(format!(
                    "frame {sequence} is not there, while {key} says that frames before {} are",
                    head.next
                ))
            })));
        }
        if head.next < sequence {
            let message =
                format!("frame {} is not there: {key} says that the next is {}", sequence - 1, head.next);
            return Ok(gone(message));
        }
        if head.hash != commit.previous {
            return Ok(gone(other_history(sequence, head.hash, commit.previous)));
        }
        Ok(Look::Open(head))
    }

    /// Whose frame has the number, if one has.
    async fn whose(&self, commit: &Commit, partition: &str) -> Result<Option<Outcome>> {
        let key = Key::new(partition, keys::frame_row(commit.sequence, 0));
        let Some(row) = self.client.get(&key, &["PartitionKey", "RowKey", "id"]).await? else {
            return Ok(None);
        };
        let ours = row.parsed::<FrameId>("id").is_ok_and(|id| id == commit.id);
        Ok(Some(if ours { Outcome::Committed } else { Outcome::Taken }))
    }

    /// Gives the head another ETag, so that whatever is still under way fails. `false`: it has another one already.
    async fn fence(&self, commit: &Commit, partition: &str, head: &Head) -> Result<bool> {
        let same = Head::entity(partition.to_owned(), commit.sequence, commit.previous)?;
        let written = self.client.replace(&same, &head.etag).await?;
        Ok(matches!(written.outcome, Write::Done(_)))
    }

    async fn put_parts(&self, commit: &Commit, parts: &[Entity]) -> Result<()> {
        if parts.is_empty() || self.has_parts_of(commit.id) {
            return Ok(());
        }
        for part in parts {
            // The partition is named by the frame's random id: a part that is there was written by us.
            self.client.insert(part).await?;
        }
        self.remember_parts_of(commit.id);
        Ok(())
    }

    /// Reads frames: see [`Remote::frames`](crate::remote::Remote::frames).
    pub(super) async fn read(&self, log: LogId, from: u64, bytes_max: usize) -> Result<Vec<StoredFrame>> {
        let mut reading = Reading { found: Vec::new(), bytes: 0, bytes_max, row_bytes: ROW_BYTES_GUESSED };
        if i64::try_from(from).is_err() {
            // Nothing was ever committed there: the service has no larger numbers.
            return Ok(Vec::new());
        }
        let mut next = from;
        // The last frame of a full bucket that was not seen. If nothing follows, this is what tells of it.
        let mut missing = None;
        // Whether the head has said once that there is more than was found from here on.
        let mut again = false;
        let begun = Instant::now();
        loop {
            let end = (self.bucket_of(next) + 1) << self.bucket_bits;
            let head = self.read_bucket(log, next, &mut reading).await?;
            let seen = reading.found.last().map_or(from, |frame| frame.sequence + 1).max(next);
            if reading.is_full() {
                break;
            }
            match head {
                // The bucket is full: go on with the next one.
                _ if seen == end => (next, again) = (end, false),
                // The head knows of more. They were committed while the pages were read, which a look behind it shows, or
                // they are not there.
                Some(said) if said > seen && (seen > next || !again) => (next, again) = (seen, seen == next),
                Some(said) if said >= end => {
                    missing = Some(end - 1);
                    (next, again) = (end, false);
                }
                Some(said) if said > seen => {
                    missing = Some(said - 1);
                    break;
                }
                _ => break,
            }
        }
        if let Some(sequence) =
            missing.filter(|missing| reading.found.last().is_none_or(|f| f.sequence < *missing))
        {
            let key = Key::new(self.bucket(log, sequence), keys::frame_row(sequence, 0));
            let error =
                Error::damaged(format!("{key}: is not there, while the head of its bucket says that it was"));
            reading.found.push(StoredFrame { sequence, header: None, bytes: Err(error) });
        }
        tracing::trace!(target: "precedent_azure", frames = reading.found.len(), took = ?begun.elapsed(), "read");
        Ok(reading.found)
    }

    /// Reads the frames of one bucket from `from` on, until there are enough; answers what its head says is the next.
    async fn read_bucket(&self, log: LogId, from: u64, reading: &mut Reading) -> Result<Option<u64>> {
        let partition = self.bucket(log, from);
        let mut query = Query::range(&partition, &keys::frame_row(from, 0), None);
        let mut continuation = None;
        let mut head = None;
        let mut group: Option<(u64, Vec<Row>)> = None;
        loop {
            let mut top = reading.rows_wanted();
            let page = loop {
                query.top = Some(top);
                match self.client.query(&query, continuation.as_ref()).await {
                    // The rows are longer than those before let expect.
                    Err(error) if error.kind() == ErrorKind::LimitExceeded && top > 1 => top /= 4,
                    Err(error) => return Err(error),
                    Ok(page) => break page,
                }
                top = top.max(1);
            };
            reading.note_page(page.bytes, page.rows.len());
            for row in page.rows {
                let place = keys::parse_frame_row(&row.key.row);
                let place = place.filter(|(sequence, _)| self.bucket_of(*sequence) == self.bucket_of(from));
                let Some((sequence, _)) = place else {
                    match row.key.row == HEAD {
                        true => head = row.number("next").ok(),
                        false => tracing::warn!(target: "precedent_azure", "{}: no row of ours", row.key),
                    }
                    continue;
                };
                if group.as_ref().is_some_and(|(before, _)| *before != sequence)
                    && let Some((before, rows)) = group.take()
                {
                    reading.add(self.frame_of(log, before, &rows).await?);
                }
                let rows = &mut group.get_or_insert_with(|| (sequence, Vec::new())).1;
                rows.push(row);
                let whole = rows.first().and_then(|row| row.number("rows").ok()) == Some(rows.len() as u64);
                if whole && let Some((sequence, rows)) = group.take() {
                    reading.add(self.frame_of(log, sequence, &rows).await?);
                    if reading.is_full() {
                        return Ok(None);
                    }
                }
            }
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        if let Some((sequence, rows)) = group {
            reading.add(self.frame_of(log, sequence, &rows).await?);
        }
        Ok(head)
    }

    /// The frame in these rows.
    ///
    /// # Errors
    /// Only if its parts cannot be asked for; what is wrong with what is there is in the frame.
    async fn frame_of(&self, log: LogId, sequence: u64, rows: &[Row]) -> Result<StoredFrame> {
        let key = Key::new(self.bucket(log, sequence), keys::frame_row(sequence, 0));
        let header = rows.first().filter(|row| row.key == key).and_then(|row| row.binary("header").ok());
        let damaged = |error: Error| StoredFrame {
            sequence,
            header: header.clone(),
            bytes: Err(error.context(format!("frame {sequence}, at {key}"))),
        };
        let plan = match Plan::of(rows) {
            Ok(plan) => plan,
            Err(error) => return Ok(damaged(error)),
        };
        let packed = match &plan.parts {
            None => gather(rows),
            Some(parts) => match self.gather_parts(log, plan.id, parts).await {
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                gathered => gathered,
            },
        };
        let packed =
            packed.map(|bytes| Packed { codec: plan.codec, length: plan.length, crc: plan.crc, bytes });
        Ok(match packed.and_then(|packed| unpack(&packed)) {
            Ok(bytes) => StoredFrame { sequence, header, bytes: Ok(bytes) },
            Err(error) => damaged(error),
        })
    }

    async fn gather_parts(&self, log: LogId, frame: FrameId, parts: &[Part]) -> Result<Bytes> {
        let partition = keys::parts(log, frame);
        let mut bytes = BytesMut::with_capacity(parts.iter().map(|part| part.length).sum());
        for (index, part) in parts.iter().enumerate() {
            let key = Key::new(&*partition, keys::part_row(index));
            let row = self.client.get(&key, &[]).await?;
            let row = row.ok_or_else(|| Error::damaged(format!("part {index}, at {key}, is not there")))?;
            let place = |error: Error| error.context(format!("part {index}, at {key}"));
            let held = gather(std::slice::from_ref(&row)).map_err(place)?;
            if held.len() != part.length {
                return Err(place(Error::damaged(format!(
                    "has {} bytes, expected {}",
                    held.len(),
                    part.length
                ))));
            }
            if sha256(&held) != part.sha256 {
                return Err(place(Error::damaged("its SHA-256 is another one")));
            }
            bytes.extend_from_slice(&held);
        }
        Ok(bytes.freeze())
    }
}

/// Frames as they are gathered.
struct Reading {
    found: Vec<StoredFrame>,
    bytes: usize,
    bytes_max: usize,
    /// How long a row was of late, as JSON.
    row_bytes: usize,
}

impl Reading {
    fn is_full(&self) -> bool {
        !self.found.is_empty() && self.bytes >= self.bytes_max
    }

    fn add(&mut self, frame: StoredFrame) {
        self.bytes += frame.bytes.as_ref().map_or(0, Bytes::len);
        self.found.push(frame);
    }

    /// One row more than is needed, so that the head is seen too.
    fn rows_wanted(&self) -> usize {
        (self.bytes_max.saturating_sub(self.bytes) / self.row_bytes).saturating_add(2).min(PAGE_ROWS_MAX)
    }

    fn note_page(&mut self, bytes: usize, rows: usize) {
        if rows > 1 {
            self.row_bytes = (bytes / rows).max(1);
        }
    }
}

/// How the bytes of a frame are to be put together.
struct Plan {
    id: FrameId,
    codec: Codec,
    length: usize,
    crc: u32,
    parts: Option<Vec<Part>>,
}

/// A part of a frame, as its row lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Part {
    length: usize,
    sha256: String,
}

impl Plan {
    /// What the rows of a frame say of it.
    fn of(rows: &[Row]) -> Result<Self> {
        for (index, row) in rows.iter().enumerate() {
            if keys::parse_frame_row(&row.key.row).map(|(_, index)| index) != Some(index) {
                return Err(Error::damaged(format!("its row {index} is not there")));
            }
        }
        let first = rows.first().ok_or_else(|| Error::damaged("it has no rows"))?;
        let expected = first.number("rows")?;
        if expected != rows.len() as u64 {
            return Err(Error::damaged(format!("it has {} rows, expected {expected}", rows.len())));
        }
        let codec = match first.text("codec")? {
            "plain" => Codec::Plain,
            "zstd" => Codec::Zstd,
            other => {
                let shown: String = other.chars().take(32).collect();
                return Err(Error::damaged(format!("its codec is '{}'", shown.escape_debug())));
            }
        };
        let small = |name| first.number(name).and_then(|n| u32::try_from(n).map_err(|_| too_large(name, n)));
        let length = small("length")? as usize;
        let parts = match first.names().any(|name| name == "parts") {
            false => None,
            true => {
                let listed: Vec<Part> = serde_json::from_str(first.text("parts")?)
                    .map_err(|_| Error::damaged("its list of parts is not one"))?;
                let sum = listed.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.length));
                if listed.is_empty() || listed.len() > 64 || sum.is_none_or(|sum| sum > FRAME_BYTES_MAX) {
                    return Err(Error::damaged("its parts are more than a frame has"));
                }
                Some(listed)
            }
        };
        Ok(Self { id: first.parsed("id")?, codec, length, crc: small("crc")?, parts })
    }
}

fn too_large(name: &str, number: u64) -> Error {
    Error::damaged(format!("its {name} is {number}, which has more than 32 bits"))
}

/// The bytes in the numbered properties of these rows.
fn gather(rows: &[Row]) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    for row in rows {
        let count = row.names().filter(|name| name.len() == 3 && name.starts_with('d')).count();
        for index in 0..count {
            bytes.extend_from_slice(&row.binary(&chunk_name(index))?);
        }
    }
    Ok(bytes.freeze())
}

fn chunk_name(index: usize) -> String {
    format!("d{index:02}")
}

/// The same entity with these bytes in its numbered properties.
fn with_chunks(entity: Entity, bytes: &Bytes) -> Entity {
    (0..bytes.len().div_ceil(PROPERTY_BYTES_MAX)).fold(entity, |entity, index| {
        let begin = index * PROPERTY_BYTES_MAX;
        let chunk = bytes.slice(begin..bytes.len().min(begin + PROPERTY_BYTES_MAX));
        entity.with(chunk_name(index), chunk)
    })
}

/// Pieces of at most a row's length; one empty piece of nothing.
fn pieces(bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let count = bytes.len().div_ceil(PART_BYTES).max(1);
    (0..count).map(|i| bytes.slice(i * PART_BYTES..bytes.len().min((i + 1) * PART_BYTES)))
}

fn rows_of(commit: &Commit, partition: &str) -> Result<Written> {
    if commit.bytes.len() > FRAME_BYTES_MAX {
        return Err(Error::limit("the frame", commit.bytes.len() as u64, FRAME_BYTES_MAX as u64, "bytes"));
    }
    let packed = pack(&commit.bytes);
    let inline = packed.bytes.len() <= INLINE_BYTES_MAX;
    let count = if inline { pieces(&packed.bytes).count() } else { 1 };
    let row = |index| Entity::new(Key::new(partition, keys::frame_row(commit.sequence, index)));
    let codec = match packed.codec {
        Codec::Plain => "plain",
        Codec::Zstd => "zstd",
    };
    let mut first = row(0)
        .with("id", commit.id.to_string())
        .with_number("first", commit.first.0)?
        .with_number("count", commit.count.into())?
        .with("hash", commit.hash.to_string())
        .with("previous", commit.previous.to_string())
        .with("header", commit.header.clone())
        .with("codec", codec)
        .with_number("length", packed.length as u64)?
        .with_number("crc", packed.crc.into())?
        .with_number("rows", count as u64)?;
    if inline {
        let rows = pieces(&packed.bytes).enumerate().map(|(index, piece)| {
            let entity = if index == 0 { first.clone() } else { row(index) };
            with_chunks(entity, &piece)
        });
        return Ok(Written { rows: rows.collect(), parts: Vec::new() });
    }
    let listed: Vec<Part> =
        pieces(&packed.bytes).map(|piece| Part { length: piece.len(), sha256: sha256(&piece) }).collect();
    let listed = serde_json::to_string(&listed).expect("lengths and hashes are JSON");
    first = first.with("parts", Value::Text(listed));
    let part_partition = keys::parts(commit.log, commit.id);
    let parts = pieces(&packed.bytes).enumerate().map(|(index, piece)| {
        with_chunks(Entity::new(Key::new(&*part_partition, keys::part_row(index))), &piece)
    });
    Ok(Written { rows: vec![first], parts: parts.collect() })
}

fn sha256(bytes: &[u8]) -> String {
    Hash(Sha256::digest(bytes).into()).to_string()
}

fn gone(message: String) -> Look {
    Look::Decided(Outcome::Gone(message))
}

fn other_history(sequence: u64, found: Hash, expected: Hash) -> String {
    format!("the frame before frame {sequence} has the hash {found}, expected {expected}: another history")
}

/// An error of which it is known now that nothing was written.
fn settled(error: Error) -> Error {
    let plain = Error::new(error.kind(), error.message());
    match error.retry_after_secs() {
        Some(seconds) => plain.retry_after(seconds),
        None => plain,
    }
}

/// While an attempt of ours is in doubt, nothing else can be said.
fn unsettled_or(doubt: Option<Error>, error: Error) -> Outcome {
    match doubt {
        Some(doubt) => Outcome::Unsettled(doubt),
        None => Outcome::Refused(settled(error)),
    }
}

//! Frames in items: committed in one transaction with their link, in parts where they are too long, read by queries.

use std::num::NonZeroU32;
use std::time::Duration;

use azure_data_cosmos::feed::QueryPageIterator;
use azure_data_cosmos::options::{FeedOptions, MaxItemCountHint, QueryOptions};
use azure_data_cosmos::{FeedScope, Query, TransactionalBatch};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures_util::StreamExt;
use precedent_core::frame::{FRAME_BYTES_MAX, HEADER_BYTES};
use precedent_core::{Error, ErrorKind, FrameId, Hash, LogId, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{CosmosRemote, ITEM_OVERHEAD, Tries, errors};
use crate::packing::{Codec, Packed, pack, unpack};
use crate::remote::{Commit, Outcome, StoredFrame};

/// The partition of a bucket.
pub(super) fn partition(log: LogId, bucket: u64) -> String {
    format!("~log/{log}/{bucket}")
}

/// The id of the link of a frame; `None` is what stands before the first frame.
pub(super) fn link_id(sequence: Option<u64>, hash: Hash) -> String {
    match sequence {
        Some(sequence) => format!("link-{sequence:020}-{hash}"),
        None => "link-start".to_owned(),
    }
}

fn frame_id(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn part_partition(log: LogId, frame: FrameId) -> String {
    format!("~part/{log}/{frame}")
}

/// A frame as it is sent, packed once.
struct Sealed {
    fields: Value,
    parts: Vec<Bytes>,
}

impl CosmosRemote {
    fn bucket(&self, log: LogId, sequence: u64) -> String {
        partition(log, sequence >> self.bucket_bits)
    }

    fn seal(&self, commit: &Commit) -> Sealed {
        let packed = pack(&commit.bytes);
        let mut fields = json!({
            "kind": "frame", "log": commit.log.to_string(), "sequence": commit.sequence,
            "frame": commit.id.to_string(), "first": commit.first.0, "count": commit.count,
            "hash": commit.hash.to_string(), "previous": commit.previous.to_string(),
            "header": BASE64_STANDARD.encode(&commit.header),
            "codec": packed.codec, "length": packed.length, "crc": packed.crc,
        });
        let room = (self.item_bytes - ITEM_OVERHEAD) / 4 * 3;
        if packed.bytes.len() <= room {
            fields["body"] = BASE64_STANDARD.encode(&packed.bytes).into();
            return Sealed { fields, parts: Vec::new() };
        }
        let parts: Vec<Bytes> = packed.bytes.chunks(room).map(|part| packed.bytes.slice_ref(part)).collect();
        let list = |part: &Bytes| json!({ "length": part.len(), "sha256": Hash(Sha256::digest(part).into()).to_string() });
        fields["parts"] = parts.iter().map(list).collect();
        Sealed { fields, parts }
    }

    pub(super) async fn commit_frame(&self, commit: &Commit) -> Outcome {
        if let Err(error) = self.check_home(commit.log) {
            return Outcome::Refused(error);
        }
        let sealed = self.seal(commit);
        if let Err(error) = self.write_parts(commit, &sealed.parts).await {
            // Parts alone are no frame: nothing of it can be read, and sending them again changes nothing.
            return Outcome::Refused(unwritten(error));
        }
        let here = self.bucket(commit.log, commit.sequence);
        let before = link_id(commit.sequence.checked_sub(1), commit.previous);
        let first_of_bucket = commit.sequence != 0 && commit.sequence.trailing_zeros() >= self.bucket_bits;
        if first_of_bucket && let Some(outcome) = self.anchor(commit, &here, &before).await {
            return outcome;
        }
        let frame = self.item(&here, &frame_id(commit.sequence), sealed.fields);
        let id = link_id(Some(commit.sequence), commit.hash);
        let link = self.item(&here, &id, json!({ "kind": "link" }));
        let batch = TransactionalBatch::new(self.own_key(&here)).read_item(before.clone(), None);
        let batch = match batch.create_item(&frame).and_then(|batch| batch.create_item(&link)) {
            Ok(batch) => batch,
            Err(error) => return Outcome::Refused(self.failed(&error, "packing a frame")),
        };
        let what = format!("committing {here}/{}", commit.sequence);
        let mut tries = Tries::new();
        loop {
            let error = match self.container.execute_transactional_batch(batch.clone(), None).await {
                Ok(answer) => {
                    self.charge(answer.headers());
                    let home = self.check_answered_at_home(&answer.diagnostics(), &what);
                    tries.in_doubt |= !errors::no_try_is_in_doubt(&answer.diagnostics());
                    let statuses: Vec<u16> = match answer.into_model() {
                        Ok(model) => model.results().iter().map(|one| one.status_code()).collect(),
                        Err(error) => return self.settle(commit, self.failed(&error, &what)).await,
                    };
                    if statuses.iter().all(|status| (200..300).contains(status)) {
                        return match home {
                            Err(error) if self.several_write_regions => {
                                Outcome::Unsettled(error.maybe_written())
                            }
                            _ => Outcome::Committed,
                        };
                    }
                    // A batch that failed was not carried out at all; what it failed of is not 424.
                    match statuses.iter().find(|status| **status >= 400 && **status != 424) {
                        Some(409) => return self.whose(commit).await,
                        Some(404) => return self.gone(commit, &before).await,
                        Some(429) => {
                            let message = format!("{what}: the service answered 429: too many requests");
                            let error = Error::new(ErrorKind::Overloaded, message).retry_after(1);
                            if tries.in_doubt {
                                return self.settle(commit, error).await;
                            }
                            return Outcome::Refused(error);
                        }
                        Some(410 | 449) if tries.left > 0 => {
                            tries.pause().await;
                            continue;
                        }
                        other => {
                            let status = other.map_or("nothing that failed".to_owned(), ToString::to_string);
                            let message = format!("{what}: the transaction was answered with {status}");
                            return self.settle(commit, Error::new(ErrorKind::Unavailable, message)).await;
                        }
                    }
                }
                Err(error) => error,
            };
            if tries.again(self, &error).await {
                continue;
            }
            let told = self.failed(&error, &what);
            if tries.nothing_written(&error) {
                return Outcome::Refused(told);
            }
            return self.settle(commit, told).await;
        }
    }

    /// Makes the anchor of a bucket: the link of the frame before it, once more, where the transaction can read it.
    async fn anchor(&self, commit: &Commit, here: &str, before: &str) -> Option<Outcome> {
        let earlier = self.bucket(commit.log, commit.sequence - 1);
        match self.read(&earlier, before).await {
            Ok(Some(_)) => {}
            Ok(None) => return Some(self.gone(commit, before).await),
            Err(error) => return Some(Outcome::Refused(error)),
        }
        // An anchor commits nothing, so an error of it is never one of the frame.
        self.create(here, before, json!({ "kind": "link" }))
            .await
            .err()
            .map(|error| Outcome::Refused(unwritten(error)))
    }

    /// The link is not there. A frame of this number can be there all the same, ours or another's.
    async fn gone(&self, commit: &Commit, before: &str) -> Outcome {
        match self.owner(commit.log, commit.sequence).await {
            Ok(Some(id)) if id == commit.id => Outcome::Committed,
            Ok(_) => Outcome::Gone(format!(
                "{}/{before} is not there: the frame that frame {} follows is gone or another",
                self.bucket(commit.log, commit.sequence),
                commit.sequence
            )),
            Err(error) => Outcome::Refused(error),
        }
    }

    /// A frame of this number is there: whose is it?
    async fn whose(&self, commit: &Commit) -> Outcome {
        match self.owner(commit.log, commit.sequence).await {
            Ok(Some(id)) if id == commit.id => Outcome::Committed,
            Ok(Some(_)) => Outcome::Taken,
            Ok(None) => {
                let message = format!("frame {} was there and is gone again", commit.sequence);
                Outcome::Unsettled(Error::new(ErrorKind::Unknown, message))
            }
            Err(error) => Outcome::Unsettled(error.maybe_written()),
        }
    }

    /// Nobody said whether the frame was written. If one is there, that settles it; if none is, it may still come.
    async fn settle(&self, commit: &Commit, error: Error) -> Outcome {
        match self.owner(commit.log, commit.sequence).await {
            Ok(Some(id)) if id == commit.id => Outcome::Committed,
            Ok(Some(_)) => Outcome::Taken,
            Ok(None) | Err(_) => Outcome::Unsettled(error.maybe_written()),
        }
    }

    async fn owner(&self, log: LogId, sequence: u64) -> Result<Option<FrameId>> {
        let partition = self.bucket(log, sequence);
        let Some((item, _)) = self.read(&partition, &frame_id(sequence)).await? else { return Ok(None) };
        let id = item["frame"].as_str().and_then(|id| id.parse().ok());
        id.map(Some)
            .ok_or_else(|| Error::damaged(format!("{partition}/{sequence} does not say which frame it is")))
    }

    async fn write_parts(&self, commit: &Commit, parts: &[Bytes]) -> Result<()> {
        let done = || self.parts.lock().expect("nothing panics while it holds the parts");
        if parts.is_empty() || *done() == Some(commit.id) {
            return Ok(());
        }
        let partition = part_partition(commit.log, commit.id);
        for (index, part) in parts.iter().enumerate() {
            let before = self.units.used();
            let body = BASE64_STANDARD.encode(part);
            // One that is there is ours: nobody else knows the frame's id, and it is made whole or not at all.
            self.create(&partition, &format!("{index:06}"), json!({ "kind": "part", "body": body })).await?;
            // Paced, so that a small container is not stalled for everybody else.
            if let Some(throughput) = self.throughput {
                let share = (self.units.used() - before).max(0.0) / throughput as f64;
                tokio::time::sleep(Duration::from_secs_f64(share.min(5.0))).await;
            }
        }
        *done() = Some(commit.id);
        Ok(())
    }

    pub(super) async fn frame_is_there(&self, log: LogId, sequence: u64) -> Result<bool> {
        Ok(self.read(&self.bucket(log, sequence), &frame_id(sequence)).await?.is_some())
    }

    pub(super) async fn read_frames(
        &self,
        log: LogId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<StoredFrame>> {
        let mut frames: Vec<StoredFrame> = Vec::new();
        let (mut bytes, mut from) = (0, from);
        // Where nothing was found, though later frames are there.
        let mut gap = None;
        let mut tries = Tries::new();
        loop {
            let partition = self.bucket(log, from);
            let what = format!("reading {partition} from {from} on");
            let end = ((from >> self.bucket_bits) + 1) << self.bucket_bits;
            let count = u32::try_from((bytes_max / self.item_bytes).clamp(1, 1000)).unwrap_or(1);
            let mut pages = match self.pages(&partition, from, count).await {
                Ok(pages) => pages,
                Err(error) if tries.again(self, &error).await => continue,
                Err(error) => return Err(self.failed(&error, &what)),
            };
            let interrupted = loop {
                let page = match pages.next().await {
                    None => break false,
                    Some(Ok(page)) => page,
                    // From the frame on that follows those that were read.
                    Some(Err(error)) if tries.again(self, &error).await => break true,
                    Some(Err(error)) => return Err(self.failed(&error, &what)),
                };
                self.charge(page.headers());
                self.check_answered_at_home(&page.diagnostics(), &what)?;
                for row in page.into_items() {
                    let frame = self.stored(log, &partition, &row).await?;
                    bytes += frame.bytes.as_ref().map_or(HEADER_BYTES, Bytes::len);
                    if (from..end).contains(&frame.sequence) {
                        from = frame.sequence + 1;
                    }
                    frames.push(frame);
                    if bytes >= bytes_max {
                        return Ok(frames);
                    }
                }
            };
            if interrupted || from == end {
                // The next bucket begins only once this one is full.
                continue;
            }
            if !frames.is_empty() {
                return Ok(frames);
            }
            // Nothing is not the end before it is known that no later frame is there either.
            match self.next_frame(log, end).await? {
                // What was committed since this bucket was read may be the rest of it: look again.
                Some(_) if gap != Some(from) => gap = Some(from),
                Some(later) => from = later,
                None => return Ok(frames),
            }
        }
    }

    async fn pages(
        &self,
        partition: &str,
        from: u64,
        count: u32,
    ) -> azure_data_cosmos::Result<QueryPageIterator<Value>> {
        let query = Query::from("SELECT * FROM c WHERE c.sequence >= @from ORDER BY c.sequence")
            .with_parameter("@from", from)?;
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let options = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(count));
        let scope = FeedScope::partition(self.own_key(partition));
        Ok(self.container.query_items(query, scope, Some(options)).await?.into_pages())
    }

    /// The first frame from this number on, in whatever bucket: asked of the whole container, and only where a reader
    /// would be told that there is nothing more.
    async fn next_frame(&self, log: LogId, from: u64) -> Result<Option<u64>> {
        let what = format!("looking for frames of the log {log} from {from} on");
        let mut tries = Tries::new();
        loop {
            match self.first_sequence(log, from, &what).await? {
                Ok(found) => return Ok(found),
                Err(error) if tries.again(self, &error).await => {}
                Err(error) => return Err(self.failed(&error, &what)),
            }
        }
    }

    async fn first_sequence(
        &self,
        log: LogId,
        from: u64,
        what: &str,
    ) -> Result<azure_data_cosmos::Result<Option<u64>>> {
        let query = "SELECT TOP 1 VALUE c.sequence FROM c WHERE STARTSWITH(c.eventType, @log) AND \
                     c.sequence >= @from ORDER BY c.sequence";
        let query = Query::from(query).with_parameter("@log", format!("~log/{log}/"));
        let query = match query.and_then(|query| query.with_parameter("@from", from)) {
            Ok(query) => query,
            Err(error) => return Ok(Err(error)),
        };
        // However many physical partitions there are.
        let everywhere = FeedOptions::default().with_max_fan_out(u32::MAX);
        let options = QueryOptions::default().with_feed_options(everywhere);
        let scope = FeedScope::full_container();
        let mut pages = match self.container.query_items::<u64>(query, scope, Some(options)).await {
            Ok(items) => items.into_pages(),
            Err(error) => return Ok(Err(error)),
        };
        while let Some(page) = pages.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            self.charge(page.headers());
            self.check_answered_at_home(&page.diagnostics(), what)?;
            if let Some(found) = page.into_items().into_iter().next() {
                return Ok(Ok(Some(found)));
            }
        }
        Ok(Ok(None))
    }

    async fn stored(&self, log: LogId, partition: &str, row: &Value) -> Result<StoredFrame> {
        let sequence = row["sequence"].as_u64().unwrap_or(u64::MAX);
        let place = format!("{partition}/{}", row["id"].as_str().unwrap_or_default());
        let header =
            row["header"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).map(Bytes::from);
        let bytes = match self.body(log, row).await {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::Damaged => Err(error.context(place)),
            Err(error) => return Err(error),
        };
        Ok(StoredFrame { sequence, header, bytes })
    }

    async fn body(&self, log: LogId, row: &Value) -> Result<Bytes> {
        let lacks = |what: &str| Error::damaged(format!("its {what} is missing or not what it has to be"));
        let codec: Codec = serde_json::from_value(row["codec"].clone()).map_err(|_| lacks("codec"))?;
        let number = |name: &str| row[name].as_u64().ok_or_else(|| lacks(name));
        let length = usize::try_from(number("length")?).map_err(|_| lacks("length"))?;
        let crc = u32::try_from(number("crc")?).map_err(|_| lacks("crc"))?;
        let decode = |text: Option<&str>| {
            text.and_then(|text| BASE64_STANDARD.decode(text).ok()).ok_or_else(|| lacks("body"))
        };
        let bytes = if let Some(parts) = row["parts"].as_array() {
            let frame = row["frame"].as_str().and_then(|id| id.parse().ok()).ok_or_else(|| lacks("frame"))?;
            let partition = part_partition(log, frame);
            let mut whole = Vec::new();
            for (index, listed) in parts.iter().enumerate() {
                let id = format!("{index:06}");
                let damaged = |what: &str| Error::damaged(format!("the part {partition}/{id} {what}"));
                let item = self.read(&partition, &id).await?.ok_or_else(|| damaged("is missing"))?.0;
                let part = decode(item["body"].as_str()).map_err(|_| damaged("cannot be decoded"))?;
                let hash = Hash(Sha256::digest(&part).into()).to_string();
                if listed["sha256"].as_str() != Some(&hash)
                    || listed["length"].as_u64() != Some(part.len() as u64)
                {
                    return Err(damaged("is not the one that was written"));
                }
                whole.extend_from_slice(&part);
                if whole.len() > FRAME_BYTES_MAX {
                    return Err(damaged("makes the frame longer than one can be"));
                }
            }
            whole
        } else {
            decode(row["body"].as_str())?
        };
        unpack(&Packed { codec, length, crc, bytes: bytes.into() })
    }
}

/// The error of something that is no frame yet: of the append nothing was written.
fn unwritten(error: Error) -> Error {
    let plain = Error::new(error.kind(), error.message());
    match error.retry_after_secs() {
        Some(seconds) => plain.retry_after(seconds),
        None => plain,
    }
}

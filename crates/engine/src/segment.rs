//! Segment files: frames one after the other, each on a sector boundary, and where in them a frame lies.
//!
//! A log's directory holds `00000000.seg`, `00000001.seg`, … A segment has no header of its own: its first
//! bytes are its first frame. The last segment is the active one; it may end in zeros that were written
//! ahead. A segment that is full is cut to its frames and never touched again.
//!
//! [`Segments`] answers *which bytes are frame n, or the frame with position p?* Beside each segment lies a
//! map, `00000000.map`, derived like the index: the place of every frame. It is checked by checksum, and made
//! again by reading the frames' headers when it is missing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use precedent_core::entry::Entry;
use precedent_core::frame::{
    Chained, FRAME_BYTES_MAX, Frame, FrameHeader, HEADER_BYTES, SECTOR_BYTES, StoredEvent, is_zero, padded,
};
use precedent_core::{Error, ErrorKind, LogId, Position, Result};

use crate::io::{Io, IoFile, Mode, read_file, read_full};

/// Sealed segments whose files are kept open, and whose maps are kept in memory.
const CACHED_SEGMENTS: usize = 32;

const MAP_MAGIC: &[u8; 4] = b"PRM1";
const MAP_HEADER_BYTES: usize = 64;
const SLOT_BYTES: usize = 12;

/// Where a frame begins, relative to its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    position: u32,
    sequence: u32,
    sector: u32,
}

/// A part of a segment that is not a readable frame.
#[derive(Debug, Clone)]
pub(crate) struct Hole {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) message: String,
}

/// The frames of one segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentMap {
    pub(crate) number: u32,
    pub(crate) first_position: u64,
    pub(crate) first_sequence: u64,
    slots: Vec<Slot>,
    /// Behind the last frame, padding included.
    pub(crate) end: u64,
    /// The position behind the last frame.
    pub(crate) end_position: u64,
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// The next frame's offset, or the end of what is known.
    pub(crate) end: u64,
    pub(crate) first_position: u64,
    pub(crate) sequence: u64,
}

impl FramePlace {
    /// Bytes of the frame with its padding, at most: a hole can lie behind it.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.offset).min(padded(FRAME_BYTES_MAX as u64)) as usize
    }
}

impl SegmentMap {
    pub(crate) fn new(number: u32, first_position: u64, first_sequence: u64) -> Self {
        let slots = Vec::new();
        Self { number, first_position, first_sequence, slots, end: 0, end_position: first_position }
    }

    pub(crate) fn push(&mut self, chained: &Chained, offset: u64, padded_len: u64) {
        self.slots.push(Slot {
            position: (chained.first.0 - self.first_position) as u32,
            sequence: (chained.sequence - self.first_sequence) as u32,
            sector: (offset / SECTOR_BYTES as u64) as u32,
        });
        self.end = offset + padded_len;
        self.end_position = chained.tree_size();
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    fn place(&self, index: usize) -> FramePlace {
        let slot = self.slots[index];
        let offset = |slot: &Slot| u64::from(slot.sector) * SECTOR_BYTES as u64;
        FramePlace {
            segment: self.number,
            offset: offset(&slot),
            end: self.slots.get(index + 1).map_or(self.end, offset),
            first_position: self.first_position + u64::from(slot.position),
            sequence: self.first_sequence + u64::from(slot.sequence),
        }
    }

    /// The last frame that begins at or before this position.
    fn at_position(&self, position: u64) -> Option<FramePlace> {
        let relative = position.checked_sub(self.first_position)?;
        let after = self.slots.partition_point(|slot| u64::from(slot.position) <= relative);
        after.checked_sub(1).map(|index| self.place(index))
    }

    /// The first frame with this sequence number or a higher one.
    fn at_sequence(&self, sequence: u64) -> Option<FramePlace> {
        let relative = sequence.saturating_sub(self.first_sequence);
        let index = self.slots.partition_point(|slot| u64::from(slot.sequence) < relative);
        (index < self.slots.len()).then(|| self.place(index))
    }

    pub(crate) fn last(&self) -> Option<FramePlace> {
        self.slots.len().checked_sub(1).map(|index| self.place(index))
    }

    fn encode(&self, log: &LogId) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAP_HEADER_BYTES + self.slots.len() * SLOT_BYTES + 4);
        out.extend_from_slice(MAP_MAGIC);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&log.0);
        for value in
            [self.first_position, self.first_sequence, self.end, self.end_position, self.slots.len() as u64]
        {
            out.extend_from_slice(&value.to_le_bytes());
        }
        for slot in &self.slots {
            for value in [slot.position, slot.sequence, slot.sector] {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], number: u32, log: &LogId) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) || body.get(..4)? != MAP_MAGIC {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        if u32_at(4)? != number || body.get(8..24)? != log.0 {
            return None;
        }
        let mut map = Self::new(number, u64_at(24)?, u64_at(32)?);
        (map.end, map.end_position) = (u64_at(40)?, u64_at(48)?);
        let slots = body.get(MAP_HEADER_BYTES..)?;
        if slots.len() as u64 != u64_at(56)?.checked_mul(SLOT_BYTES as u64)? {
            return None;
        }
        let value =
            |slot: &[u8], at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().expect("4 bytes"));
        map.slots = slots
            .chunks_exact(SLOT_BYTES)
            .map(|s| Slot { position: value(s, 0), sequence: value(s, 4), sector: value(s, 8) })
            .collect();
        map.is_ordered().then_some(map)
    }

    /// Whether every frame lies behind the one before it, and the last before the end.
    fn is_ordered(&self) -> bool {
        let ascending = |w: &[Slot]| {
            w[0].position < w[1].position && w[0].sequence < w[1].sequence && w[0].sector < w[1].sector
        };
        let fits = |last: &Slot| {
            let position = self.first_position.checked_add(u64::from(last.position));
            u64::from(last.sector) * (SECTOR_BYTES as u64) < self.end
                && position.is_some_and(|p| p < self.end_position)
                && self.first_sequence.checked_add(u64::from(last.sequence) + 1).is_some()
        };
        self.slots.windows(2).all(ascending) && self.slots.last().is_none_or(fits)
    }
}

/// The name of a segment's file.
pub(crate) fn file_name(number: u32) -> String {
    format!("{number:08}.seg")
}

fn map_name(number: u32) -> String {
    format!("{number:08}.map")
}

/// The number of the segment with this file name.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The first position and sequence number of a segment.
#[derive(Debug, Clone, Copy)]
struct SegmentStart {
    number: u32,
    first_position: u64,
    first_sequence: u64,
}

/// All segments of a log, for readers; the writer adds to it.
pub(crate) struct Segments {
    io: Arc<dyn Io>,
    dir: PathBuf,
    log: LogId,
    /// Whether maps may be written.
    writable: bool,
    starts: RwLock<Vec<SegmentStart>>,
    active: RwLock<SegmentMap>,
    files: Mutex<HashMap<u32, Arc<dyn IoFile>>>,
    maps: Mutex<HashMap<u32, Arc<SegmentMap>>>,
}

/// One step of reading a segment frame by frame.
pub(crate) enum Step {
    /// A frame whose header is valid.
    Frame(Box<FrameHeader>, u64),
    /// Something that is no frame, up to the next that is, or to the end.
    Hole(Hole),
    /// Nothing but zeros, or nothing at all, from here on.
    End,
}

impl Segments {
    pub(crate) fn new(io: Arc<dyn Io>, dir: PathBuf, log: LogId, writable: bool) -> Self {
        Self {
            io,
            dir,
            log,
            writable,
            starts: RwLock::default(),
            active: RwLock::new(SegmentMap::new(0, 0, 0)),
            files: Mutex::default(),
            maps: Mutex::default(),
        }
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }

    /// The numbers of the segments on disk, ascending, and which is missing: they have to be 0, 1, 2, …
    pub(crate) fn list(io: &dyn Io, dir: &Path) -> Result<(Vec<u32>, Option<Error>)> {
        let mut numbers: Vec<u32> = io.list(dir)?.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let missing = numbers.iter().enumerate().find(|(expected, number)| *expected as u32 != **number);
        let missing = missing.map(|(expected, _)| {
            let path = dir.join(file_name(expected as u32));
            Error::damaged(format!("{} is missing: segments after it are there", path.display()))
        });
        Ok((numbers, missing))
    }

    /// The file of a segment, from the cache if it is there.
    pub(crate) fn file(&self, number: u32) -> Result<Arc<dyn IoFile>> {
        let mut files = self.files.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(file) = files.get(&number) {
            return Ok(file.clone());
        }
        let path = self.path(number);
        let file = self.io.open(&path, Mode::Read).map_err(|e| Error::from(e).context(path.display()))?;
        if files.len() >= CACHED_SEGMENTS {
            files.clear();
        }
        files.insert(number, file.clone());
        Ok(file)
    }

    /// Adds a sealed or active segment at its place.
    pub(crate) fn start_segment(&self, map: SegmentMap) {
        let mut active = self.active.write().unwrap_or_else(|p| p.into_inner());
        let start = SegmentStart {
            number: map.number,
            first_position: map.first_position,
            first_sequence: map.first_sequence,
        };
        let mut starts = self.starts.write().unwrap_or_else(|p| p.into_inner());
        starts.retain(|s| s.number != map.number);
        starts.push(start);
        *active = map;
    }

    /// Adds a sealed segment before the active one is known.
    pub(crate) fn add_sealed(&self, number: u32, first_position: u64, first_sequence: u64) {
        let mut starts = self.starts.write().unwrap_or_else(|p| p.into_inner());
        starts.push(SegmentStart { number, first_position, first_sequence });
    }

    /// Tells of a frame that has been written and synced.
    pub(crate) fn push(&self, chained: &Chained, offset: u64, padded_len: u64) {
        self.active.write().unwrap_or_else(|p| p.into_inner()).push(chained, offset, padded_len);
    }

    /// Whether there is a frame with this sequence number or a higher one on disk, published or not.
    pub(crate) fn has_frame(&self, sequence: u64) -> Result<bool> {
        let (number, offset) = self.active_end();
        let mut offset = offset;
        while let Step::Frame(header, at) = self.step(number, offset, self.log)? {
            if header.chained.sequence >= sequence {
                return Ok(true);
            }
            offset = at + header.padded_len();
        }
        Ok(false)
    }

    /// The active segment's map as it is now.
    pub(crate) fn active(&self) -> SegmentMap {
        self.active.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// The active segment's number and its end.
    pub(crate) fn active_end(&self) -> (u32, u64) {
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        (active.number, active.end)
    }

    /// Writes the active segment's map, so that the next open need not read its headers. Not durable, not needed.
    pub(crate) fn save_active_map(&self) {
        let map = self.active();
        if self.writable && map.len() > 0 {
            let _ = self.write_map(&map);
        }
    }

    fn write_map(&self, map: &SegmentMap) -> std::io::Result<()> {
        let path = self.dir.join(map_name(map.number));
        let temporary = path.with_extension("map.tmp");
        let _ = self.io.remove(&temporary);
        self.io.open(&temporary, Mode::Create)?.write_at(&map.encode(&self.log), 0)?;
        self.io.rename(&temporary, &path)
    }

    /// The saved map of a segment, if it is there and whole.
    pub(crate) fn saved_map(&self, number: u32) -> Option<SegmentMap> {
        let bytes = read_file(&*self.io, &self.dir.join(map_name(number))).ok()?;
        SegmentMap::decode(&bytes, number, &self.log)
    }

    /// The map of a sealed segment: cached, or saved, or made by reading headers.
    fn map(&self, start: SegmentStart) -> Result<Arc<SegmentMap>> {
        if let Some(map) = self.maps.lock().unwrap_or_else(|p| p.into_inner()).get(&start.number) {
            return Ok(map.clone());
        }
        // A saved map may be older than the segment's last frames: what lies behind its end is looked at too.
        let saved = self.saved_map(start.number).filter(|map| map.first_position == start.first_position);
        let known = saved.as_ref().map_or(0, SegmentMap::len);
        let map = self.scan_map(start, saved)?;
        if self.writable && map.len() > known {
            let _ = self.write_map(&map);
        }
        let map = Arc::new(map);
        let mut maps = self.maps.lock().unwrap_or_else(|p| p.into_inner());
        if maps.len() >= CACHED_SEGMENTS {
            maps.clear();
        }
        maps.insert(start.number, map.clone());
        Ok(map)
    }

    fn scan_map(&self, start: SegmentStart, saved: Option<SegmentMap>) -> Result<SegmentMap> {
        let empty = || SegmentMap::new(start.number, start.first_position, start.first_sequence);
        let mut map = saved.unwrap_or_else(empty);
        let mut offset = map.end;
        loop {
            match self.step(start.number, offset, self.log)? {
                Step::Frame(header, at) => {
                    if header.chained.first.0 >= map.end_position
                        && header.chained.sequence >= map.first_sequence
                    {
                        map.push(&header.chained, at, header.padded_len());
                    }
                    offset = at + header.padded_len();
                }
                Step::Hole(hole) => offset = hole.end,
                Step::End => return Ok(map),
            }
        }
    }

    /// Looks at what lies at `offset` of a segment. A hole ends where the next frame of this log begins.
    pub(crate) fn step(&self, number: u32, offset: u64, log: LogId) -> Result<Step> {
        let file = self.file(number)?;
        step(&*file, offset, Some(log)).map_err(|e| e.context(self.path(number).display()))
    }

    /// The frame that holds this position. The caller has checked that the position is in the log.
    pub(crate) fn frame_at(&self, position: u64) -> Result<FramePlace> {
        let found = self.find(
            |starts| starts.partition_point(|s| s.first_position <= position).checked_sub(1),
            |map| map.at_position(position),
        )?;
        found.ok_or_else(|| Error::damaged(format!("position {position} is in no frame that can be read")))
    }

    /// The frame with this sequence number, or the first after it.
    pub(crate) fn frame_number(&self, sequence: u64) -> Result<Option<FramePlace>> {
        let index =
            |starts: &[SegmentStart]| starts.partition_point(|s| s.first_sequence <= sequence).checked_sub(1);
        if let Some(place) = self.find(index, |map| map.at_sequence(sequence))? {
            return Ok(Some(place));
        }
        // The rest of the segment in which it should be is damaged: the first of the next one.
        let next = |starts: &[SegmentStart]| {
            let index = starts.partition_point(|s| s.first_sequence <= sequence);
            (index < starts.len()).then_some(index)
        };
        self.find(next, |map| map.at_sequence(sequence))
    }

    fn find(
        &self,
        index: impl Fn(&[SegmentStart]) -> Option<usize>,
        look: impl Fn(&SegmentMap) -> Option<FramePlace>,
    ) -> Result<Option<FramePlace>> {
        // The active segment is held while the list is read: a segment that is sealed in between is found in one or the other.
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        let start = {
            let starts = self.starts.read().unwrap_or_else(|p| p.into_inner());
            match index(&starts) {
                Some(index) => starts[index],
                None => return Ok(None),
            }
        };
        if start.number == active.number {
            return Ok(look(&active));
        }
        drop(active);
        Ok(look(&*self.map(start)?))
    }
}

/// See [`Segments::step`]. Without a log id, frames of any log count.
pub(crate) fn step(file: &dyn IoFile, offset: u64, log: Option<LogId>) -> Result<Step> {
    let mut sector = [0; SECTOR_BYTES];
    let n = read_full(file, &mut sector, offset)?;
    if n == 0 {
        return Ok(Step::End);
    }
    if !is_zero(&sector[..n]) {
        let message = match FrameHeader::decode(&sector[..n]) {
            Ok(header) if log.is_none_or(|log| header.chained.log == log) => {
                return Ok(Step::Frame(Box::new(header), offset));
            }
            Ok(header) => format!("a frame of another log, {}", header.chained.log),
            Err(e) if e.kind() == ErrorKind::UnsupportedFormat => {
                return Err(e.context(format!("offset {offset}")));
            }
            Err(e) => e.message().to_owned(),
        };
        let end = next_frame(file, offset + SECTOR_BYTES as u64, log)?;
        let end = end.map_or_else(|| file.len().map(|len| len.max(offset + n as u64)), Ok)?;
        return Ok(Step::Hole(Hole { start: offset, end, message }));
    }
    // Zeros: the end, unless something follows.
    match next_nonzero(file, offset)? {
        None => Ok(Step::End),
        Some(_) => {
            let end = next_frame(file, offset, log)?;
            let end = end.map_or_else(|| file.len(), Ok)?;
            let message = "zeros where a frame should begin, and something behind them".to_owned();
            Ok(Step::Hole(Hole { start: offset, end, message }))
        }
    }
}

/// The offset of the first sector from `offset` on that is not all zero.
pub(crate) fn next_nonzero(file: &dyn IoFile, mut offset: u64) -> Result<Option<u64>> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = read_full(file, &mut buffer, offset)?;
        if let Some(index) = buffer[..n].chunks(SECTOR_BYTES).position(|sector| !is_zero(sector)) {
            return Ok(Some(offset + (index * SECTOR_BYTES) as u64));
        }
        if n < buffer.len() {
            return Ok(None);
        }
        offset += n as u64;
    }
}

/// The offset of the first valid frame header from `offset` on.
pub(crate) fn next_frame(file: &dyn IoFile, mut offset: u64, log: Option<LogId>) -> Result<Option<u64>> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n = read_full(file, &mut buffer, offset)?;
        for (index, sector) in buffer[..n].chunks(SECTOR_BYTES).enumerate() {
            if let Ok(header) = FrameHeader::decode(sector)
                && log.is_none_or(|log| header.chained.log == log)
            {
                return Ok(Some(offset + (index * SECTOR_BYTES) as u64));
            }
        }
        if n < buffer.len() {
            return Ok(None);
        }
        offset += n as u64;
    }
}

/// Reads events and frames of a log, with the last chunk it read at hand.
pub(crate) struct FrameReader<'a> {
    segments: &'a Segments,
    /// Whether what is read next probably lies behind what was read last.
    sequential: bool,
    chunk: Option<(u32, u64, Bytes)>,
    current: Option<Current>,
}

struct Current {
    place: FramePlace,
    header: FrameHeader,
    directory: precedent_core::frame::Directory,
    /// One position behind the frame.
    end_position: u64,
}

/// A read ahead of a sequential scan.
const CHUNK_BYTES: usize = 1 << 20;
/// A frame up to this size is read whole even if one event is wanted.
const SMALL_FRAME_BYTES: usize = 32 << 10;

impl<'a> FrameReader<'a> {
    pub(crate) fn new(segments: &'a Segments, sequential: bool) -> Self {
        Self { segments, sequential, chunk: None, current: None }
    }

    /// The event at this position, its checksum checked. An error names frame, file and offset.
    pub(crate) fn event(&mut self, position: Position) -> Result<StoredEvent> {
        let covers = |c: &Current| (c.place.first_position..c.end_position).contains(&position.0);
        if !self.current.as_ref().is_some_and(covers) {
            self.current = None;
            let place = self.segments.frame_at(position.0)?;
            let current = self.load(place).map_err(|e| self.named(&place, position, e))?;
            if position.0 >= current.end_position {
                let message = format!("position {position} is missing behind frame {}", place.sequence);
                return Err(self.named(&place, position, Error::damaged(message)));
            }
            self.current = Some(current);
        }
        let current = self.current.take().expect("it was just loaded");
        let result = self.event_of(&current, position);
        let place = current.place;
        self.current = Some(current);
        result.map_err(|e| self.named(&place, position, e))
    }

    fn named(&self, place: &FramePlace, position: Position, error: Error) -> Error {
        let file = self.segments.path(place.segment);
        let error = error.context(format!(
            "position {position}, frame {}, {} at offset {}",
            place.sequence,
            file.display(),
            place.offset
        ));
        match error.kind() {
            ErrorKind::Damaged | ErrorKind::UnsupportedFormat => error,
            // A file that cannot be read hides the event just as damage does.
            _ => Error::damaged(error.message().to_owned()),
        }
    }

    fn load(&mut self, place: FramePlace) -> Result<Current> {
        let header = FrameHeader::decode(&self.bytes(&place, 0, HEADER_BYTES)?)?;
        if header.chained.first.0 != place.first_position || header.chained.sequence != place.sequence {
            return Err(Error::damaged("another frame lies where this one should"));
        }
        let directory = header.directory(&self.bytes(&place, 0, header.prelude_len())?)?;
        let end_position = header.chained.tree_size();
        Ok(Current { place, header, directory, end_position })
    }

    fn event_of(&mut self, current: &Current, position: Position) -> Result<StoredEvent> {
        let place = current.directory.places[(position.0 - current.place.first_position) as usize];
        let entry = self.bytes(&current.place, u64::from(place.entry_at), usize::from(place.entry_len))?;
        let parts = self.bytes(&current.place, u64::from(place.parts_at), place.parts_len as usize)?;
        current.header.event(&place, &entry, &parts)
    }

    /// A whole frame.
    pub(crate) fn frame(&mut self, place: FramePlace) -> Result<Frame> {
        let len = FrameHeader::decode(&self.bytes(&place, 0, HEADER_BYTES)?)?.frame_len();
        Frame::decode(self.bytes(&place, 0, len)?)
    }

    /// Bytes of the data of a frame's events, as sent. Reads the directory and the entries.
    pub(crate) fn data_bytes(&mut self, place: FramePlace) -> Result<u64> {
        let first = Position(place.first_position);
        let current = self.load(place).map_err(|e| self.named(&place, first, e))?;
        let mut bytes = 0;
        for index in 0..current.directory.places.len() as u64 {
            let position = Position(place.first_position + index);
            let lengths = self
                .event_of(&current, position)
                .and_then(|stored| Entry::decode(&stored.entry))
                .map(|entry| entry.parts.iter().map(|part| part.length).sum::<u64>());
            bytes += lengths.map_err(|e| self.named(&place, position, e))?;
        }
        Ok(bytes)
    }

    /// Bytes of a frame. Reads more at once where the rest is likely to be wanted.
    fn bytes(&mut self, place: &FramePlace, from: u64, len: usize) -> Result<Bytes> {
        let offset = place.offset + from;
        if let Some((segment, start, chunk)) = &self.chunk
            && *segment == place.segment
            && offset >= *start
            && offset + len as u64 <= start + chunk.len() as u64
        {
            let at = (offset - start) as usize;
            return Ok(chunk.slice(at..at + len));
        }
        let frame_len = place.len();
        // Entries and parts lie apart: where the whole frame will be wanted it is read from its start.
        let (start, wanted) = if self.sequential {
            (place.offset, frame_len.max(CHUNK_BYTES))
        } else if frame_len <= SMALL_FRAME_BYTES {
            (place.offset, frame_len)
        } else {
            (offset, len)
        };
        let at = (offset - start) as usize;
        let mut buffer = vec![0; wanted.max(at + len)];
        let n = read_full(&*self.segments.file(place.segment)?, &mut buffer, start)?;
        if n < at + len {
            return Err(Error::damaged(format!(
                "the file ends {} bytes into this frame",
                start + n as u64 - place.offset
            )));
        }
        buffer.truncate(n);
        let chunk = Bytes::from(buffer);
        self.chunk = Some((place.segment, start, chunk.clone()));
        Ok(chunk.slice(at..at + len))
    }
}

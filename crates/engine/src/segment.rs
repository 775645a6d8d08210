//! Where a log's frames and events are found: in segment files, and in the packs that take their place.
//!
//! Segments: frames one after the other, each on a sector boundary, and where in them a frame lies.
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

use precedent_core::frame::{Chained, FRAME_BYTES_MAX, FrameHeader, SECTOR_BYTES, is_zero, padded};
use precedent_core::{Error, ErrorKind, LogId, Position, Result};

use crate::io::{Io, IoFile, Mode, read_file, read_full};
use crate::kept::Kept;
use crate::pack::{self, Block, BlockKey, OpenPack, Pack};
use crate::reader::{FrameHead, Spare};

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
#[derive(Debug, Clone)]
pub(crate) struct FramePlace {
    /// The pack it is in, if its segment has been packed; then `offset` and `end` say nothing.
    pub(crate) pack: Option<Arc<Pack>>,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// The next frame's offset, or the end of what is known.
    pub(crate) end: u64,
    pub(crate) first_position: u64,
    /// The next frame's first position, or the end of what is known.
    pub(crate) next_position: u64,
    pub(crate) sequence: u64,
}

impl FramePlace {
    /// Bytes of the frame with its padding, at most: a hole can lie behind it.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.offset).min(padded(FRAME_BYTES_MAX as u64)) as usize
    }

    /// The file and where in it, for messages.
    pub(crate) fn shown(&self, segments: &Segments) -> String {
        match &self.pack {
            Some(pack) => pack.path(&segments.dir).display().to_string(),
            None => format!("{} at offset {}", segments.path(self.segment).display(), self.offset),
        }
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
        let next = self.slots.get(index + 1);
        let offset = |slot: &Slot| u64::from(slot.sector) * SECTOR_BYTES as u64;
        let position = |slot: &Slot| self.first_position + u64::from(slot.position);
        FramePlace {
            pack: None,
            segment: self.number,
            offset: offset(&slot),
            end: next.map_or(self.end, offset),
            first_position: position(&slot),
            next_position: next.map_or(self.end_position, position),
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

/// A segment, or the pack of several: where it begins.
#[derive(Debug, Clone)]
struct SegmentStart {
    number: u32,
    first_position: u64,
    first_sequence: u64,
    pack: Option<Arc<Pack>>,
}

/// A file that holds frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The segment, or the first of a pack.
    pub(crate) first: u32,
    /// The same, or the last of a pack.
    pub(crate) last: u32,
    pub(crate) packed: bool,
}

impl Unit {
    pub(crate) fn file_name(&self) -> String {
        if self.packed { pack::file_name(self.first, self.last) } else { file_name(self.first) }
    }

    fn of(name: &str) -> Option<Self> {
        let segment = number_of(name).map(|number| Self { first: number, last: number, packed: false });
        let packed = || pack::range_of(name).map(|(first, last)| Self { first, last, packed: true });
        segment.or_else(packed)
    }

    fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// All segments of a log, for readers; the writer adds to it.
pub(crate) struct Segments {
    io: Arc<dyn Io>,
    dir: PathBuf,
    log: LogId,
    /// Whether maps may be written.
    writable: bool,
    trusts_maps: bool,
    /// Whether frames can be in it of which only the beginning is known.
    pub(crate) is_mirror: bool,
    starts: RwLock<Vec<SegmentStart>>,
    active: RwLock<SegmentMap>,
    files: Mutex<HashMap<u32, Arc<dyn IoFile>>>,
    maps: Mutex<HashMap<u32, Arc<SegmentMap>>>,
    /// By first segment.
    packs: Mutex<HashMap<u32, Arc<OpenPack>>>,
    /// Blocks of packs that were unpacked lately, by first and last segment and number.
    blocks: Mutex<Kept<BlockKey, Arc<Block>>>,
    /// Headers and directories of large frames that were read lately, by segment and offset.
    heads: Mutex<Kept<(u32, u64), Arc<FrameHead>>>,
    pub(crate) spare: Arc<Spare>,
}

/// Unpacked blocks that are kept.
const BLOCKS_BYTES_MAX: usize = 8 << 20;
/// Headers and directories that are kept: twelve bytes an event.
const HEADS_BYTES_MAX: usize = 16 << 20;

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
            trusts_maps: true,
            is_mirror: false,
            starts: RwLock::default(),
            active: RwLock::new(SegmentMap::new(0, 0, 0)),
            files: Mutex::default(),
            maps: Mutex::default(),
            packs: Mutex::default(),
            blocks: Mutex::new(Kept::new(BLOCKS_BYTES_MAX)),
            heads: Mutex::new(Kept::new(HEADS_BYTES_MAX)),
            spare: Arc::default(),
        }
    }

    /// The same for a mirror, which holds frames of which only the beginning is known.
    pub(crate) fn of_mirror(mut self, is_mirror: bool) -> Self {
        self.is_mirror = is_mirror;
        self
    }

    /// The same, trusting no map that was saved.
    pub(crate) fn without_maps(mut self) -> Self {
        self.trusts_maps = false;
        self
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }

    /// The files on disk that hold frames, ascending, and which is missing: together they hold the segments 0, 1, 2, … A file is left
    /// out if another holds all that it does: a crash between making a pack and removing what it was made from leaves both.
    pub(crate) fn list(io: &dyn Io, dir: &Path) -> Result<(Vec<Unit>, Option<Error>)> {
        let (units, missing, _) = Self::list_all(io, dir)?;
        Ok((units, missing))
    }

    /// Like [`Self::list`], with the files that were left out.
    pub(crate) fn list_all(io: &dyn Io, dir: &Path) -> Result<(Vec<Unit>, Option<Error>, Vec<Unit>)> {
        let mut all: Vec<Unit> = io.list(dir)?.iter().filter_map(|name| Unit::of(name)).collect();
        // The widest of those that begin alike comes first, a pack before the segment it was made from.
        all.sort_unstable_by_key(|unit| (unit.first, std::cmp::Reverse(unit.last), !unit.packed));
        let (mut units, mut covered): (Vec<Unit>, Vec<Unit>) = Default::default();
        let mut missing = None;
        for unit in all {
            match units.last() {
                Some(last) if last.covers(&unit) => covered.push(unit),
                last => {
                    let expected = last.map_or(0, |last| last.last + 1);
                    if unit.first != expected && missing.is_none() {
                        let path = dir.join(file_name(expected));
                        let what = if unit.first > expected { "is missing" } else { "is there twice" };
                        missing = Some(Error::damaged(format!(
                            "{} {what}: {} follows",
                            path.display(),
                            unit.file_name()
                        )));
                    }
                    units.push(unit);
                }
            }
        }
        Ok((units, missing, covered))
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
            pack: None,
        };
        let mut starts = self.starts.write().unwrap_or_else(|p| p.into_inner());
        starts.retain(|s| s.number != map.number);
        starts.push(start);
        *active = map;
    }

    /// Adds a sealed segment before the active one is known.
    pub(crate) fn add_sealed(&self, number: u32, first_position: u64, first_sequence: u64) {
        let mut starts = self.starts.write().unwrap_or_else(|p| p.into_inner());
        starts.push(SegmentStart { number, first_position, first_sequence, pack: None });
    }

    /// Adds a pack that is found on disk.
    pub(crate) fn add_pack(&self, unit: &Unit, log: LogId) -> Result<()> {
        self.put_pack(Pack::open(&*self.io, &self.dir, (unit.first, unit.last), log)?);
        Ok(())
    }

    /// Puts a pack at the place of what it holds.
    pub(crate) fn put_pack(&self, pack: Pack) {
        let start = SegmentStart {
            number: pack.first_segment,
            first_position: pack.first_position,
            first_sequence: pack.first_sequence,
            pack: Some(Arc::new(pack.clone())),
        };
        let held = pack.first_segment..=pack.last_segment;
        let mut starts = self.starts.write().unwrap_or_else(|p| p.into_inner());
        // Somebody had an old list: what it was merged into is known already.
        let wider =
            |p: &Arc<Pack>| p.first_segment <= pack.first_segment && pack.last_segment <= p.last_segment;
        if starts.iter().filter_map(|s| s.pack.as_ref()).any(wider) {
            return;
        }
        starts.retain(|s| !held.contains(&s.number));
        let at = starts.partition_point(|s| s.number < pack.first_segment);
        starts.insert(at, start);
        drop(starts);
        let forget = |number: &u32| !held.contains(number);
        self.files.lock().unwrap_or_else(|p| p.into_inner()).retain(|number, _| forget(number));
        self.maps.lock().unwrap_or_else(|p| p.into_inner()).retain(|number, _| forget(number));
        self.packs.lock().unwrap_or_else(|p| p.into_inner()).retain(|number, _| forget(number));
        self.heads.lock().unwrap_or_else(|p| p.into_inner()).retain(|(number, _)| forget(number));
        self.blocks.lock().unwrap_or_else(|p| p.into_inner()).retain(|(first, _, _)| forget(first));
    }

    /// The packs, ascending.
    pub(crate) fn packs(&self) -> Vec<Arc<Pack>> {
        let starts = self.starts.read().unwrap_or_else(|p| p.into_inner());
        starts.iter().filter_map(|start| start.pack.clone()).collect()
    }

    /// The segments that are sealed and not packed, ascending: number, first sequence number and that behind.
    pub(crate) fn sealed(&self) -> Vec<(u32, u64, u64)> {
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        let starts = self.starts.read().unwrap_or_else(|p| p.into_inner());
        let pairs = starts.windows(2).filter(|w| w[0].pack.is_none() && w[0].number < active.number);
        pairs.map(|w| (w[0].number, w[0].first_sequence, w[1].first_sequence)).collect()
    }

    /// Ends the active segment: the next frame will be the first of another, which is not there yet.
    pub(crate) fn seal_active(&self, next_position: u64, next_sequence: u64) {
        let number = self.active_end().0 + 1;
        self.start_segment(SegmentMap::new(number, next_position, next_sequence));
    }

    /// A pack, opened.
    pub(crate) fn open_pack(&self, pack: &Pack) -> Result<Arc<OpenPack>> {
        let mut packs = self.packs.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(open) = packs.get(&pack.first_segment)
            && open.pack.last_segment == pack.last_segment
        {
            return Ok(open.clone());
        }
        let path = pack.path(&self.dir);
        let open = OpenPack::open(&*self.io, &path, pack.clone(), self.log);
        let open = Arc::new(open.map_err(|e| e.context(path.display()))?);
        if packs.len() >= CACHED_SEGMENTS {
            packs.clear();
        }
        packs.insert(pack.first_segment, open.clone());
        Ok(open)
    }

    /// A block of a pack, unpacked, if it is at hand.
    pub(crate) fn kept_block(&self, key: BlockKey) -> Option<Arc<Block>> {
        self.blocks.lock().unwrap_or_else(|p| p.into_inner()).get(&key)
    }

    /// Keeps an unpacked block for whoever asks next.
    pub(crate) fn keep_block(&self, key: BlockKey, block: &Arc<Block>) {
        let mut blocks = self.blocks.lock().unwrap_or_else(|p| p.into_inner());
        blocks.put(key, block.clone(), block.cost());
    }

    /// Header and directory of a frame, if they are at hand.
    pub(crate) fn kept_head(&self, place: &FramePlace) -> Option<Arc<FrameHead>> {
        self.heads.lock().unwrap_or_else(|p| p.into_inner()).get(&(place.segment, place.offset))
    }

    /// Keeps header and directory of a frame for whoever reads of it next.
    pub(crate) fn keep_head(&self, place: &FramePlace, head: &Arc<FrameHead>) {
        let mut heads = self.heads.lock().unwrap_or_else(|p| p.into_inner());
        heads.put((place.segment, place.offset), head.clone(), head.cost());
    }

    /// Looks whether the writer has packed segments meanwhile.
    pub(crate) fn adopt_packs(&self) -> Result<()> {
        let (units, _) = Self::list(&*self.io, &self.dir)?;
        self.adopt(&units)
    }

    /// Adds the packs among these files that are not known yet.
    pub(crate) fn adopt(&self, units: &[Unit]) -> Result<()> {
        let mut found = self.unknown_packs(units);
        for _ in 1..FINDS_MAX {
            match found {
                // Merged since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    found = self.unknown_packs(&Self::list(&*self.io, &self.dir)?.0);
                }
                _ => break,
            }
        }
        for pack in found? {
            let (last, end_position, end_sequence) =
                (pack.last_segment, pack.end_position, pack.end_sequence);
            self.put_pack(pack);
            if last >= self.active_end().0 {
                self.start_segment(SegmentMap::new(last + 1, end_position, end_sequence));
            }
        }
        Ok(())
    }

    /// Opens the packs among these files that are not known, and not held by one that is.
    fn unknown_packs(&self, units: &[Unit]) -> Result<Vec<Pack>> {
        let known = self.packs();
        let is_known = |unit: &Unit| {
            let at = known.partition_point(|pack| pack.first_segment <= unit.first);
            at.checked_sub(1).is_some_and(|at| unit.last <= known[at].last_segment)
        };
        let unknown = units.iter().filter(|unit| unit.packed && !is_known(unit));
        unknown.map(|unit| Pack::open(&*self.io, &self.dir, (unit.first, unit.last), self.log)).collect()
    }

    /// Bytes of frames and packs, without what is zeroed ahead.
    pub(crate) fn log_bytes(&self) -> Result<u64> {
        for _ in 1..FINDS_MAX {
            match self.log_bytes_once() {
                Err(e) if e.kind() == ErrorKind::NotFound => self.adopt_packs()?,
                bytes => return bytes,
            }
        }
        self.log_bytes_once()
    }

    fn log_bytes_once(&self) -> Result<u64> {
        let starts = self.starts.read().unwrap_or_else(|p| p.into_inner()).clone();
        let active = self.active();
        let mut bytes = 0;
        for start in starts {
            bytes += match &start.pack {
                Some(pack) => pack.bytes,
                None if start.number == active.number => active.end,
                None => self.map(start)?.end,
            };
        }
        Ok(bytes)
    }

    /// Tells of a frame that has been written and synced.
    pub(crate) fn push(&self, chained: &Chained, offset: u64, padded_len: u64) {
        self.active.write().unwrap_or_else(|p| p.into_inner()).push(chained, offset, padded_len);
    }

    /// Like [`Self::push`], unless the frame does not come behind the last one: then it is found by nobody.
    pub(crate) fn push_ordered(&self, chained: &Chained, offset: u64, padded_len: u64) {
        let mut active = self.active.write().unwrap_or_else(|p| p.into_inner());
        if chained.first.0 >= active.end_position && chained.sequence >= active.first_sequence {
            active.push(chained, offset, padded_len);
        }
    }

    /// Whether there is a frame with this sequence number or a higher one on disk, published or not.
    pub(crate) fn has_frame(&self, sequence: u64) -> Result<bool> {
        let (number, offset) = self.active_end();
        let mut offset = offset;
        loop {
            match self.step(number, offset, self.log) {
                Ok(Step::Frame(header, _)) if header.chained.sequence >= sequence => return Ok(true),
                Ok(Step::Frame(header, at)) => offset = at + header.padded_len(),
                Ok(_) => return Ok(false),
                // Behind a pack there may be no segment yet.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e),
            }
        }
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
        let saved = self.trusts_maps.then(|| self.saved_map(start.number)).flatten();
        let saved = saved.filter(|map| map.first_position == start.first_position);
        let known = saved.as_ref().map_or(0, SegmentMap::len);
        let number = start.number;
        let map = self.scan_map(start, saved)?;
        if self.writable && map.len() > known {
            let _ = self.write_map(&map);
        }
        let map = Arc::new(map);
        let mut maps = self.maps.lock().unwrap_or_else(|p| p.into_inner());
        if maps.len() >= CACHED_SEGMENTS {
            maps.clear();
        }
        maps.insert(number, map.clone());
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

    /// Where the event at this position is. The caller has checked that the position is in the log.
    pub(crate) fn locate(&self, position: u64) -> Result<EventPlace> {
        let found = self.find(
            |starts| starts.partition_point(|s| s.first_position <= position).checked_sub(1),
            |map| Ok(map.at_position(position).map(EventPlace::Frame)),
            |pack| Ok((position < pack.end_position).then(|| EventPlace::Pack(pack.clone()))),
        )?;
        found.ok_or_else(|| Error::damaged(format!("position {position} is in no frame that can be read")))
    }

    /// Where what is read together with a position begins: the block of a pack, or the frame.
    pub(crate) fn piece_start(&self, position: u64) -> Result<u64> {
        Ok(match self.locate(position)? {
            EventPlace::Frame(place) => place.first_position,
            EventPlace::Pack(pack) => self.open_pack(&pack)?.block_start(Position(position)),
        })
    }

    /// The frame with this sequence number, or the first after it.
    pub(crate) fn frame_number(&self, sequence: u64) -> Result<Option<FramePlace>> {
        // What cannot be read of a pack is passed over: its events are named when they are read.
        let packed = |pack: &Arc<Pack>| {
            let passed = |e: Error| if e.kind() == ErrorKind::Damaged { Ok(None) } else { Err(e) };
            let open = match self.open_pack(pack) {
                Ok(open) => open,
                Err(e) => return passed(e),
            };
            let mut at = sequence.max(pack.first_sequence);
            while at < pack.end_sequence {
                match open.frame_number(at) {
                    Ok(frame) => {
                        return Ok(Some(FramePlace {
                            pack: Some(pack.clone()),
                            segment: pack.first_segment,
                            offset: 0,
                            end: 0,
                            first_position: frame.first.0,
                            next_position: frame.positions().end,
                            sequence: at,
                        }));
                    }
                    Err(e) => passed(e).map(|_: Option<FramePlace>| ())?,
                }
                at = open.group_end(open.group_of(at)).0;
            }
            Ok(None)
        };
        let index =
            |starts: &[SegmentStart]| starts.partition_point(|s| s.first_sequence <= sequence).checked_sub(1);
        if let Some(place) = self.find(index, |map| Ok(map.at_sequence(sequence)), packed)? {
            return Ok(Some(place));
        }
        // The rest of the segment in which it should be is damaged: the first of the next one.
        let next = |starts: &[SegmentStart]| {
            let index = starts.partition_point(|s| s.first_sequence <= sequence);
            (index < starts.len()).then_some(index)
        };
        self.find(next, |map| Ok(map.at_sequence(sequence)), packed)
    }

    fn find<T>(
        &self,
        index: impl Fn(&[SegmentStart]) -> Option<usize>,
        in_map: impl Fn(&SegmentMap) -> Result<Option<T>>,
        in_pack: impl Fn(&Arc<Pack>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        // A segment that is packed at this moment is found in its pack when one looks again.
        for _ in 0..FINDS_MAX {
            match self.find_once(&index, &in_map, &in_pack) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.adopt_packs()?;
                }
                found => return found,
            }
        }
        self.find_once(&index, &in_map, &in_pack)
    }

    fn find_once<T>(
        &self,
        index: impl Fn(&[SegmentStart]) -> Option<usize>,
        in_map: impl Fn(&SegmentMap) -> Result<Option<T>>,
        in_pack: impl Fn(&Arc<Pack>) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        // The active segment is held while the list is read: a segment that is sealed in between is found in one or the other.
        let active = self.active.read().unwrap_or_else(|p| p.into_inner());
        let start = {
            let starts = self.starts.read().unwrap_or_else(|p| p.into_inner());
            match index(&starts) {
                Some(index) => starts[index].clone(),
                None => return Ok(None),
            }
        };
        if start.pack.is_none() && start.number == active.number {
            return in_map(&active);
        }
        drop(active);
        match &start.pack {
            Some(pack) => in_pack(pack),
            None => in_map(&*self.map(start)?),
        }
    }
}

/// How often a place is looked up again because a segment was packed meanwhile.
pub(crate) const FINDS_MAX: usize = 3;

/// Where an event is.
pub(crate) enum EventPlace {
    Frame(FramePlace),
    Pack(Arc<Pack>),
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

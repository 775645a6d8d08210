//! Packs: the frames of sealed segments, their events compressed in shared blocks.
//!
//! ```text
//! NNNNNNNN-MMMMMMMM.pack      segments NNNNNNNN to MMMMMMMM
//! 0     header, 32 bytes      "PRP1" | version u16 | 0 u16 | first, last segment u32 | log id 16
//! …     blocks                zstd; unpacked: count u32 | for each event entry u16, parts u32 | entries | parts
//! …     groups                of frames: what their headers held and cannot be computed
//! …     index                 the tree's right edge after the last frame | a row a block | a row a group
//! end   footer, 112 bytes
//! ```
//!
//! A block holds whole events, about 16 KiB of them, so reading one event unpacks one block. Entries, salts and
//! parts are byte for byte what they were. Of the frames' headers everything is left out that follows from the
//! rest: roots, hashes, lengths and checksums. A group begins with the hash of the frame before it and with the tree's right edge after its first
//! frame, so whatever is computed is held against something stored at least every 256 frames or 256 KiB.
//!
//! [`Pack`] is what is kept of every pack, [`OpenPack`] what is read when it is asked for something.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use precedent_core::frame::{Chained, FRAME_BYTES_MAX, Frame, FrameBuilder, StoredEvent};
use precedent_core::tree::{Tree, leaf_hash};
use precedent_core::{Error, ErrorKind, FrameId, Hash, LogId, Position, Result};

use crate::io::{Io, IoFile, Mode, read_full};

const MAGIC: &[u8; 4] = b"PRP1";
const FOOTER_MAGIC: &[u8; 4] = b"PRPE";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 32;
const FOOTER_BYTES: usize = 112;
const BLOCK_ROW_BYTES: usize = 28;
const GROUP_ROW_BYTES: usize = 32;
const EVENT_ROW_BYTES: usize = 6;

/// A block is closed when it holds so many bytes. Whoever wants one event unpacks all of its block.
const BLOCK_BYTES: usize = 16 << 10;
/// More than any block unpacks to: one event of any size on top of a block that was not full. Blocks were closed at
/// 64 KiB once.
const BLOCK_BYTES_MAX: usize = FRAME_BYTES_MAX + (128 << 10);
/// A group has at most so many frames …
const GROUP_FRAMES: usize = 256;
/// … and is closed when its events have so many bytes.
const GROUP_BYTES: usize = 256 << 10;
/// Of the compression: what chat takes at higher levels costs more time than it saves space.
const ZSTD_LEVEL: i32 = 3;

/// The name of a pack's file.
pub(crate) fn file_name(first: u32, last: u32) -> String {
    format!("{first:08}-{last:08}.pack")
}

/// The segments that a file of this name holds.
pub(crate) fn range_of(name: &str) -> Option<(u32, u32)> {
    let (first, last) = name.strip_suffix(".pack")?.split_once('-')?;
    let number = |digits: &str| {
        let fits = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| digits.parse::<u32>().ok())?
    };
    Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
}

/// What a pack holds, as its footer says.
#[derive(Debug, Clone)]
pub(crate) struct Pack {
    pub(crate) first_segment: u32,
    pub(crate) last_segment: u32,
    pub(crate) first_sequence: u64,
    pub(crate) end_sequence: u64,
    pub(crate) first_position: u64,
    pub(crate) end_position: u64,
    /// The hash of the last frame's chained part.
    pub(crate) last_frame: Hash,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    index_at: u64,
    blocks: u32,
    groups: u32,
    index_crc: u32,
}

/// Where a block lies, and what is in it.
#[derive(Debug, Clone, Copy)]
struct BlockRow {
    first_position: u64,
    offset: u64,
    stored: u32,
    unpacked: u32,
    crc: u32,
}

/// Where a group lies, and which frames are in it.
#[derive(Debug, Clone, Copy)]
struct GroupRow {
    first_sequence: u64,
    first_position: u64,
    offset: u64,
    len: u32,
    crc: u32,
}

/// A frame as a pack remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedFrame {
    pub(crate) sequence: u64,
    pub(crate) first: Position,
    pub(crate) count: u32,
    pub(crate) id: FrameId,
    pub(crate) writer: FrameId,
}

impl PackedFrame {
    pub(crate) fn positions(&self) -> Range<u64> {
        self.first.0..self.first.0 + u64::from(self.count)
    }

    /// Its chained part, given what is computed.
    fn chained(&self, log: LogId, root: Hash, previous: Hash) -> Chained {
        Chained {
            log,
            id: self.id,
            writer: self.writer,
            sequence: self.sequence,
            first: self.first,
            count: self.count,
            root,
            previous,
        }
    }
}

/// Frames with what is known of the log at their beginning.
#[derive(Debug)]
pub(crate) struct Group {
    /// The hash of the chained part of the frame before.
    pub(crate) previous: Hash,
    /// The tree after the first frame.
    pub(crate) tree: Tree,
    pub(crate) frames: Vec<PackedFrame>,
}

/// Names a block of a log: the first and the last segment of its pack, and its number there.
pub(crate) type BlockKey = (u32, u32, usize);

/// The events of a block, unpacked.
pub(crate) struct Block {
    first_position: u64,
    bytes: Bytes,
    /// For each event where its entry and its parts begin.
    places: Vec<(u32, u32)>,
    end: (u32, u32),
}

impl Block {
    fn positions(&self) -> Range<u64> {
        self.first_position..self.first_position + self.places.len() as u64
    }

    /// Bytes of memory, about.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + self.places.len() * 8
    }

    pub(crate) fn holds(&self, position: Position) -> bool {
        self.positions().contains(&position.0)
    }

    /// An event of the block. It keeps the block in memory.
    pub(crate) fn event(&self, position: Position) -> StoredEvent {
        let index = (position.0 - self.first_position) as usize;
        let (entry, parts) = self.places[index];
        let (entry_end, parts_end) = self.places.get(index + 1).copied().unwrap_or(self.end);
        let slice = |from: u32, to: u32| self.bytes.slice(from as usize..to as usize);
        StoredEvent { entry: slice(entry, entry_end), parts: slice(parts, parts_end) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn read_exact(file: &dyn IoFile, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let n = read_full(file, &mut bytes, offset)?;
    if n < len {
        return Err(Error::damaged(format!(
            "offset {offset}: {len} bytes were expected, the file ends after {n}"
        )));
    }
    Ok(bytes)
}

impl Pack {
    /// Reads the footer of a pack.
    ///
    /// # Errors
    /// `damaged` naming the file, if it is not a whole pack of this log.
    pub(crate) fn open(io: &dyn Io, dir: &Path, (first, last): (u32, u32), log: LogId) -> Result<Self> {
        let path = dir.join(file_name(first, last));
        let named = |e: Error| e.context(path.display());
        let file = io.open(&path, Mode::Read).map_err(|e| named(e.into()))?;
        Self::read(&*file, first, last, log).map_err(named)
    }

    pub(crate) fn read(file: &dyn IoFile, first: u32, last: u32, log: LogId) -> Result<Self> {
        let bytes = file.len()?;
        let bad = |what: &str| Err(Error::damaged(format!("not a whole pack: {what}")));
        let Some(footer_at) = bytes.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEADER_BYTES as u64)
        else {
            return bad(&format!("{bytes} bytes are less than its header and footer"));
        };
        let header = read_exact(file, 0, HEADER_BYTES)?;
        let footer = read_exact(file, footer_at, FOOTER_BYTES)?;
        let footer_fits =
            &footer[..4] == FOOTER_MAGIC && crc32fast::hash(&footer[..108]) == u32_at(&footer, 108);
        if &header[..4] != MAGIC {
            return bad("it does not begin as one");
        }
        if footer_fits && crc32fast::hash(&header) != u32_at(&footer, 104) {
            return bad("the checksum of its header does not match");
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if version != VERSION || header[6..8] != [0, 0] {
            return Err(Error::new(
                ErrorKind::UnsupportedFormat,
                format!("a pack of version {version}; this program reads version {VERSION}"),
            ));
        }
        if header[16..32] != log.0 {
            return bad("it belongs to another log");
        }
        if (u32_at(&header, 8), u32_at(&header, 12)) != (first, last) {
            return bad("its header names other segments than its file name");
        }
        if !footer_fits {
            return bad("the checksum of its footer does not match");
        }
        let pack = Self {
            first_segment: first,
            last_segment: last,
            blocks: u32_at(&footer, 4),
            groups: u32_at(&footer, 8),
            index_crc: u32_at(&footer, 12),
            index_at: u64_at(&footer, 16),
            first_sequence: u64_at(&footer, 24),
            end_sequence: u64_at(&footer, 32),
            first_position: u64_at(&footer, 40),
            end_position: u64_at(&footer, 48),
            last_frame: Hash::from_slice(&footer[56..88]).expect("32 bytes"),
            bytes,
        };
        let index_len = pack.index_len();
        let events = pack.end_position.saturating_sub(pack.first_position);
        if events > u64::from(pack.blocks) * (BLOCK_BYTES_MAX / EVENT_ROW_BYTES) as u64
            || pack.end_sequence.saturating_sub(pack.first_sequence) > events
            || footer[88..104] != [0; 16]
            || pack.index_at.checked_add(index_len) != Some(footer_at)
            || pack.first_sequence >= pack.end_sequence
            || pack.first_position >= pack.end_position
            || pack.blocks == 0
            || pack.groups == 0
        {
            return bad("its footer contradicts itself");
        }
        Ok(pack)
    }

    fn index_len(&self) -> u64 {
        u64::from(self.end_position.count_ones()) * Hash::LEN as u64
            + u64::from(self.blocks) * BLOCK_ROW_BYTES as u64
            + u64::from(self.groups) * GROUP_ROW_BYTES as u64
    }

    pub(crate) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(file_name(self.first_segment, self.last_segment))
    }
}

/// A pack with its file and its index.
pub(crate) struct OpenPack {
    pub(crate) pack: Pack,
    log: LogId,
    file: Arc<dyn IoFile>,
    /// The tree after the last frame.
    pub(crate) tree: Tree,
    blocks: Vec<BlockRow>,
    groups: Vec<GroupRow>,
    /// The group read last.
    group: Mutex<Option<(usize, Arc<Group>)>>,
}

impl OpenPack {
    /// Reads the index of a pack.
    pub(crate) fn open(io: &dyn Io, path: &Path, pack: Pack, log: LogId) -> Result<Self> {
        let file = io.open(path, Mode::Read)?;
        let len = usize::try_from(pack.index_len())
            .map_err(|_| Error::damaged("an index that no memory can hold"))?;
        let index = read_exact(&*file, pack.index_at, len)?;
        if crc32fast::hash(&index) != pack.index_crc {
            return Err(Error::damaged(format!(
                "offset {}: the checksum of the index does not match",
                pack.index_at
            )));
        }
        let (edge, rows) = index.split_at(pack.end_position.count_ones() as usize * Hash::LEN);
        let edge = edge.chunks_exact(Hash::LEN).map(|h| Hash::from_slice(h).expect("32 bytes")).collect();
        let tree = Tree::from_edge(pack.end_position, edge).expect("as many as the size has bits set");
        let (blocks, groups) = rows.split_at(pack.blocks as usize * BLOCK_ROW_BYTES);
        let blocks: Vec<BlockRow> = blocks
            .chunks_exact(BLOCK_ROW_BYTES)
            .map(|row| BlockRow {
                first_position: u64_at(row, 0),
                offset: u64_at(row, 8),
                stored: u32_at(row, 16),
                unpacked: u32_at(row, 20),
                crc: u32_at(row, 24),
            })
            .collect();
        let groups: Vec<GroupRow> = groups
            .chunks_exact(GROUP_ROW_BYTES)
            .map(|row| GroupRow {
                first_sequence: u64_at(row, 0),
                first_position: u64_at(row, 8),
                offset: u64_at(row, 16),
                len: u32_at(row, 24),
                crc: u32_at(row, 28),
            })
            .collect();
        let ascends = blocks[0].first_position == pack.first_position
            && blocks.windows(2).all(|w| w[0].first_position < w[1].first_position)
            && blocks.iter().all(|row| row.first_position < pack.end_position)
            && (groups[0].first_sequence, groups[0].first_position)
                == (pack.first_sequence, pack.first_position)
            && groups.windows(2).all(|w| {
                w[0].first_position < w[1].first_position && w[0].first_sequence < w[1].first_sequence
            })
            && groups
                .iter()
                .all(|row| row.first_position < pack.end_position && row.first_sequence < pack.end_sequence);
        let within = |offset: u64, len: u32| {
            offset >= HEADER_BYTES as u64
                && offset.checked_add(u64::from(len)).is_some_and(|end| end <= pack.index_at)
        };
        let fits = blocks
            .iter()
            .all(|row| within(row.offset, row.stored) && row.unpacked as usize <= BLOCK_BYTES_MAX)
            && groups.iter().all(|row| within(row.offset, row.len));
        if !ascends || !fits {
            return Err(Error::damaged("an index that contradicts itself"));
        }
        Ok(Self { pack, log, file, tree, blocks, groups, group: Mutex::default() })
    }

    /// The number of the block that holds a position, which is in the pack.
    pub(crate) fn block_of(&self, position: Position) -> usize {
        self.blocks.partition_point(|row| row.first_position <= position.0) - 1
    }

    pub(crate) fn block_key(&self, number: usize) -> BlockKey {
        (self.pack.first_segment, self.pack.last_segment, number)
    }

    /// The first position of the block that holds a position.
    pub(crate) fn block_start(&self, position: Position) -> u64 {
        self.blocks[self.block_of(position)].first_position
    }

    /// Where a block begins in the file.
    #[cfg(test)]
    pub(crate) fn block_offset(&self, number: usize) -> u64 {
        self.blocks[number].offset
    }

    /// Reads and unpacks a block.
    ///
    /// # Errors
    /// `damaged`, naming offset and positions.
    pub(crate) fn block(&self, number: usize, unpacker: &mut Unpacker) -> Result<Block> {
        let row = self.blocks[number];
        let end = self.blocks.get(number + 1).map_or(self.pack.end_position, |next| next.first_position);
        self.read_block(&row, end, unpacker).map_err(|e| {
            let e = if e.kind() == ErrorKind::Damaged { e } else { Error::damaged(e.message().to_owned()) };
            e.context(format!(
                "block at offset {}, positions {} to {}",
                row.offset,
                row.first_position,
                end - 1
            ))
        })
    }

    fn read_block(&self, row: &BlockRow, end_position: u64, unpacker: &mut Unpacker) -> Result<Block> {
        let bytes = unpacker.unpacked(self, row)?;
        let count = end_position - row.first_position;
        let bad = || Error::damaged("the events in it do not add up to its length");
        let rows_end =
            usize::try_from(count).ok().and_then(|n| n.checked_mul(EVENT_ROW_BYTES)?.checked_add(4));
        let rows_end = rows_end.ok_or_else(bad)?;
        if bytes.len() < rows_end || u64::from(u32_at(&bytes, 0)) != count {
            return Err(bad());
        }
        let rows = bytes[4..rows_end].chunks_exact(EVENT_ROW_BYTES);
        let lens =
            rows.map(|row| (u64::from(u16::from_le_bytes([row[0], row[1]])), u64::from(u32_at(row, 2))));
        let entries: u64 = lens.clone().map(|(entry, _)| entry).sum();
        let mut at = (rows_end as u64, rows_end as u64 + entries);
        let entries_end = at.1;
        let mut places = Vec::with_capacity(count as usize);
        for (entry, parts) in lens {
            if at.1 > bytes.len() as u64 {
                return Err(bad());
            }
            places.push((at.0 as u32, at.1 as u32));
            at = (at.0 + entry, at.1 + parts);
        }
        if at != (entries_end, bytes.len() as u64) {
            return Err(bad());
        }
        let end = (at.0 as u32, at.1 as u32);
        Ok(Block { first_position: row.first_position, bytes: bytes.into(), places, end })
    }

    /// The number of groups.
    pub(crate) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Reads a group.
    ///
    /// # Errors
    /// `damaged`, naming offset and frames.
    pub(crate) fn group(&self, number: usize) -> Result<Arc<Group>> {
        let mut last = self.group.lock().unwrap_or_else(|p| p.into_inner());
        if let Some((at, group)) = &*last
            && *at == number
        {
            return Ok(group.clone());
        }
        let row = self.groups[number];
        let (end_sequence, end_position) = self.group_end(number);
        let group = self.read_group(&row, end_sequence, end_position).map_err(|e| {
            let e = if e.kind() == ErrorKind::Damaged { e } else { Error::damaged(e.message().to_owned()) };
            e.context(format!(
                "group at offset {}, frames {} to {}",
                row.offset,
                row.first_sequence,
                end_sequence - 1
            ))
        })?;
        let group = Arc::new(group);
        *last = Some((number, group.clone()));
        Ok(group)
    }

    /// The first sequence number and position behind a group.
    pub(crate) fn group_end(&self, number: usize) -> (u64, u64) {
        let end = (self.pack.end_sequence, self.pack.end_position);
        self.groups.get(number + 1).map_or(end, |next| (next.first_sequence, next.first_position))
    }

    fn read_group(&self, row: &GroupRow, end_sequence: u64, end_position: u64) -> Result<Group> {
        let bytes = read_exact(&*self.file, row.offset, row.len as usize)?;
        if crc32fast::hash(&bytes) != row.crc {
            return Err(Error::damaged("the checksum does not match"));
        }
        let mut rest = &bytes[..];
        let bad = || Error::damaged("the frames in it do not add up");
        let mut take = |len: usize| -> Result<&[u8]> {
            let (taken, left) = rest.split_at_checked(len).ok_or_else(bad)?;
            rest = left;
            Ok(taken)
        };
        let previous = Hash::from_slice(take(Hash::LEN)?).ok_or_else(bad)?;
        let edge_len = u32_at(take(4)?, 0) as usize;
        let mut edge = Vec::with_capacity(edge_len.min(64));
        for _ in 0..edge_len {
            edge.push(Hash::from_slice(take(Hash::LEN)?).ok_or_else(bad)?);
        }
        let mut frames: Vec<PackedFrame> = Vec::new();
        let (mut sequence, mut position) = (row.first_sequence, row.first_position);
        while sequence < end_sequence {
            let head = u32_at(take(4)?, 0);
            let id = |bytes: &[u8]| FrameId(bytes.try_into().expect("16 bytes"));
            let frame_id = id(take(16)?);
            let writer = match frames.last() {
                Some(last) if head & 1 == 0 => last.writer,
                _ => id(take(16)?),
            };
            let count = head >> 1;
            if count == 0 {
                return Err(bad());
            }
            frames.push(PackedFrame { sequence, first: Position(position), count, id: frame_id, writer });
            sequence += 1;
            position = position.checked_add(u64::from(count)).ok_or_else(bad)?;
        }
        let tree = Tree::from_edge(frames.first().ok_or_else(bad)?.positions().end, edge).ok_or_else(bad)?;
        if position != end_position || !rest.is_empty() {
            return Err(bad());
        }
        Ok(Group { previous, tree, frames })
    }

    /// The number of the group with this frame, which is in the pack.
    pub(crate) fn group_of(&self, sequence: u64) -> usize {
        self.groups.partition_point(|row| row.first_sequence <= sequence) - 1
    }

    /// The frame with this sequence number, which is in the pack.
    pub(crate) fn frame_number(&self, sequence: u64) -> Result<PackedFrame> {
        let group = self.group(self.group_of(sequence))?;
        Ok(group.frames[(sequence - group.frames[0].sequence) as usize].clone())
    }
}

/// Reads blocks and unpacks them, one after the other: what that takes is set up once.
pub(crate) struct Unpacker {
    context: zstd::bulk::Decompressor<'static>,
    /// How much is read at least: more than a block where those behind it will be wanted.
    ahead: usize,
    /// Where whoever reads ahead stops.
    until: u64,
    /// What was read last: of the pack of these segments, from this offset on.
    of: Option<(u32, u32)>,
    at: u64,
    stored: Vec<u8>,
    len: usize,
}

/// What is read of a pack at once by whoever goes through it.
const AHEAD_BYTES: usize = 256 << 10;

impl Unpacker {
    /// `sequential`: the blocks behind one will be wanted too.
    pub(crate) fn new(sequential: bool) -> Result<Self> {
        Ok(Self {
            context: zstd::bulk::Decompressor::new()?,
            ahead: if sequential { AHEAD_BYTES } else { 0 },
            until: u64::MAX,
            of: None,
            at: 0,
            stored: Vec::new(),
            len: 0,
        })
    }

    /// For whoever reads next, maybe another log.
    pub(crate) fn used_again(mut self, sequential: bool) -> Self {
        self.of = None;
        // A large block was read into it, maybe, and who helps keeps it for as long as anything is read.
        self.stored.truncate(AHEAD_BYTES);
        self.stored.shrink_to(AHEAD_BYTES);
        self.ahead = if sequential { AHEAD_BYTES } else { 0 };
        self.until = u64::MAX;
        self
    }

    /// From now on reads ahead no further than this block.
    pub(crate) fn read_through(&mut self, pack: &OpenPack, number: usize) {
        self.until = pack.blocks.get(number).map_or(u64::MAX, |row| row.offset + u64::from(row.stored));
    }

    fn unpacked(&mut self, pack: &OpenPack, row: &BlockRow) -> Result<Vec<u8>> {
        let of = (pack.pack.first_segment, pack.pack.last_segment);
        let len = row.stored as usize;
        let held = row.offset.checked_sub(self.at).filter(|_| self.of == Some(of));
        let held = held.and_then(|start| usize::try_from(start).ok()).filter(|start| start + len <= self.len);
        let start = match held {
            Some(start) => start,
            None => {
                self.read(pack, row.offset, len)?;
                self.of = Some(of);
                0
            }
        };
        let stored = &self.stored[start..start + len];
        if crc32fast::hash(stored) != row.crc {
            return Err(Error::damaged("the checksum does not match"));
        }
        let unpacked = row.unpacked as usize;
        // No more than that is ever unpacked, whatever the bytes say.
        let bytes = self
            .context
            .decompress(stored, unpacked)
            .map_err(|e| Error::damaged(format!("cannot be unpacked to {unpacked} bytes: {e}")))?;
        if bytes.len() != unpacked {
            return Err(Error::damaged(format!(
                "unpacks to {} bytes, {unpacked} were expected",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    fn read(&mut self, pack: &OpenPack, offset: u64, len: usize) -> Result<()> {
        self.of = None;
        // Behind the last block there is nothing to unpack.
        let left = pack.pack.index_at.min(self.until).saturating_sub(offset);
        let wanted = self.ahead.min(usize::try_from(left).unwrap_or(usize::MAX)).max(len);
        if self.stored.len() < wanted {
            self.stored.resize(wanted, 0);
        }
        let n = match read_full(&*pack.file, &mut self.stored[..wanted], offset) {
            // What cannot be read may lie behind what was asked for.
            Err(_) if wanted > len => read_full(&*pack.file, &mut self.stored[..len], offset)?,
            n => n?,
        };
        if n < len {
            return Err(Error::damaged(format!(
                "offset {offset}: {len} bytes were expected, the file ends after {n}"
            )));
        }
        (self.at, self.len) = (offset, n);
        Ok(())
    }
}

/// Goes through the frames of a pack and computes what was left out of them.
pub(crate) struct PackFrames {
    pack: Arc<OpenPack>,
    next: u64,
    group: Arc<Group>,
    /// The tree so far, if it is known.
    tree: Option<Tree>,
    previous: Hash,
    block: Option<Block>,
    unpacker: Unpacker,
}

impl PackFrames {
    /// From the beginning of the group that holds `sequence`.
    pub(crate) fn new(pack: Arc<OpenPack>, sequence: u64) -> Result<Self> {
        let group = pack.group(pack.group_of(sequence))?;
        let next = group.frames[0].sequence;
        let unpacker = Unpacker::new(true)?;
        Ok(Self { pack, next, tree: None, previous: group.previous, group, block: None, unpacker })
    }

    /// The frame that comes next.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next
    }

    fn event(&mut self, position: Position) -> Result<StoredEvent> {
        if !self.block.as_ref().is_some_and(|block| block.holds(position)) {
            self.block = Some(self.pack.block(self.pack.block_of(position), &mut self.unpacker)?);
        }
        Ok(self.block.as_ref().expect("it was just read").event(position))
    }

    /// The next frame, whole, as if it had never been packed. The first of a group carries the tree's edge.
    ///
    /// # Errors
    /// `damaged`; no frame of the group can be had after that.
    pub(crate) fn frame(&mut self) -> Result<Frame> {
        let first_of_group = self.group.frames[0].sequence;
        let mut index = (self.next - first_of_group) as usize;
        if index == self.group.frames.len() {
            let group = self.pack.group(self.pack.group_of(self.next))?;
            if group.previous != self.previous {
                return Err(Error::damaged(format!(
                    "frame {} does not follow the frame before it",
                    self.next
                )));
            }
            self.group = group;
            index = 0;
        }
        let packed = self.group.frames[index].clone();
        let mut builder = FrameBuilder::default();
        for position in packed.positions() {
            let event = self.event(Position(position))?;
            if let Some(tree) = &mut self.tree {
                tree.push(leaf_hash(&event.entry));
            }
            builder.push_stored(&event.entry, &event.parts);
            if builder.len_max() > FRAME_BYTES_MAX {
                return Err(Error::damaged(format!(
                    "frame {} would be larger than a frame can be",
                    packed.sequence
                )));
            }
        }
        if index == 0 && self.tree.as_ref().is_some_and(|tree| *tree != self.group.tree) {
            return Err(Error::damaged(format!(
                "the right edge stored at frame {} is not that of the entries before it",
                packed.sequence
            )));
        }
        let tree = self.tree.get_or_insert_with(|| self.group.tree.clone());
        let chained = packed.chained(self.pack.log, tree.root(), self.previous);
        self.previous = chained.hash();
        self.next += 1;
        Frame::decode(builder.encode(&chained, (index == 0).then_some(tree)).into())
    }
}

/// Writes a pack.
pub(crate) struct PackWriter<'a> {
    file: &'a dyn IoFile,
    at: u64,
    buffer: Vec<u8>,
    blocks: Vec<u8>,
    groups: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
    // The block at work.
    block_first: u64,
    rows: Vec<u8>,
    entries: Vec<u8>,
    parts: Vec<u8>,
    // The group at work.
    group_first: Option<(u64, u64)>,
    group: Vec<u8>,
    group_frames: usize,
    group_bytes: usize,
    group_writer: Option<FrameId>,
    first: Option<(u64, u64)>,
}

impl<'a> PackWriter<'a> {
    /// Begins a pack of these segments.
    pub(crate) fn new(file: &'a dyn IoFile, first: u32, last: u32, log: LogId) -> Result<Self> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0, 0]);
        header.extend_from_slice(&first.to_le_bytes());
        header.extend_from_slice(&last.to_le_bytes());
        header.extend_from_slice(&log.0);
        file.write_at(&header, 0)?;
        Ok(Self {
            file,
            at: HEADER_BYTES as u64,
            buffer: header,
            blocks: Vec::new(),
            groups: Vec::new(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL)?,
            block_first: 0,
            rows: Vec::new(),
            entries: Vec::new(),
            parts: Vec::new(),
            group_first: None,
            group: Vec::new(),
            group_frames: 0,
            group_bytes: 0,
            group_writer: None,
            first: None,
        })
    }

    /// Adds a frame; `tree` is the log's tree after it.
    pub(crate) fn push(&mut self, frame: &Frame, tree: &Tree) -> Result<()> {
        let chained = frame.chained();
        self.first.get_or_insert((chained.sequence, chained.first.0));
        if self.group_frames >= GROUP_FRAMES || self.group_bytes >= GROUP_BYTES {
            self.end_group()?;
        }
        if self.group_first.is_none() {
            self.group_first = Some((chained.sequence, chained.first.0));
            self.group.extend_from_slice(&chained.previous.0);
            self.group.extend_from_slice(&(tree.edge().len() as u32).to_le_bytes());
            tree.edge().iter().for_each(|hash| self.group.extend_from_slice(&hash.0));
        }
        let new_writer = self.group_writer != Some(chained.writer);
        self.group.extend_from_slice(&(chained.count << 1 | u32::from(new_writer)).to_le_bytes());
        self.group.extend_from_slice(&chained.id.0);
        if new_writer {
            self.group.extend_from_slice(&chained.writer.0);
            self.group_writer = Some(chained.writer);
        }
        self.group_frames += 1;
        for index in 0..frame.len() {
            let event = frame.event(index)?;
            if self.rows.is_empty() {
                self.block_first = chained.first.0 + index as u64;
            }
            self.rows.extend_from_slice(&(event.entry.len() as u16).to_le_bytes());
            self.rows.extend_from_slice(&(event.parts.len() as u32).to_le_bytes());
            self.entries.extend_from_slice(&event.entry);
            self.parts.extend_from_slice(&event.parts);
            self.group_bytes += event.entry.len() + event.parts.len();
            if self.rows.len() + self.entries.len() + self.parts.len() >= BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(&((self.rows.len() / EVENT_ROW_BYTES) as u32).to_le_bytes());
        for section in [&mut self.rows, &mut self.entries, &mut self.parts] {
            self.buffer.append(section);
        }
        let packed = self.compressor.compress(&self.buffer)?;
        self.file.write_at(&packed, self.at)?;
        self.blocks.extend_from_slice(&self.block_first.to_le_bytes());
        self.blocks.extend_from_slice(&self.at.to_le_bytes());
        for value in [packed.len() as u32, self.buffer.len() as u32, crc32fast::hash(&packed)] {
            self.blocks.extend_from_slice(&value.to_le_bytes());
        }
        self.at += packed.len() as u64;
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let Some((sequence, position)) = self.group_first.take() else { return Ok(()) };
        self.file.write_at(&self.group, self.at)?;
        for value in [sequence, position, self.at] {
            self.groups.extend_from_slice(&value.to_le_bytes());
        }
        for value in [self.group.len() as u32, crc32fast::hash(&self.group)] {
            self.groups.extend_from_slice(&value.to_le_bytes());
        }
        self.at += self.group.len() as u64;
        self.group.clear();
        (self.group_frames, self.group_bytes, self.group_writer) = (0, 0, None);
        Ok(())
    }

    /// Ends the pack behind its last frame. Nothing is synced.
    pub(crate) fn finish(mut self, last: &Chained, tree: &Tree) -> Result<()> {
        self.end_block()?;
        self.end_group()?;
        let (first_sequence, first_position) = self.first.expect("a pack has at least one frame");
        let mut index = Vec::new();
        tree.edge().iter().for_each(|hash| index.extend_from_slice(&hash.0));
        index.extend_from_slice(&self.blocks);
        index.extend_from_slice(&self.groups);
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.extend_from_slice(FOOTER_MAGIC);
        let counts = [self.blocks.len() / BLOCK_ROW_BYTES, self.groups.len() / GROUP_ROW_BYTES];
        for value in [counts[0] as u32, counts[1] as u32, crc32fast::hash(&index)] {
            footer.extend_from_slice(&value.to_le_bytes());
        }
        for value in [self.at, first_sequence, last.sequence + 1, first_position, last.tree_size()] {
            footer.extend_from_slice(&value.to_le_bytes());
        }
        footer.extend_from_slice(&last.hash().0);
        footer.extend_from_slice(&[0; 16]);
        let mut header = [0; HEADER_BYTES];
        read_full(self.file, &mut header, 0)?;
        footer.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let crc = crc32fast::hash(&footer);
        footer.extend_from_slice(&crc.to_le_bytes());
        self.file.write_at(&index, self.at)?;
        self.file.write_at(&footer, self.at + index.len() as u64)?;
        Ok(())
    }
}

//! What one durable write holds: one or more whole batches, byte for byte.
//!
//! ```text
//! 0      4  magic "PRF1"                                 ┐
//! 4      2  format version                               │
//! 6      1  codec: 0 = plain                             │
//! 7      1  flags: 1 = the tree's right edge follows     │
//! 8      4  length of the frame, without padding         │ header: 184 bytes, in the first sector,
//! 12     4  length of the directory                      │ with a checksum of its own
//! 16     4  length of the entries                        │
//! 20     4  length of the parts                          │
//! 24     8  mask                                         │
//! 32     4  CRC-32 of edge and directory                 │
//! 36     4  CRC-32 of the header, this field as zero     │
//! 40   144  the chained part                             ┘
//! 184       the tree's right edge after this frame: 32 bytes for every bit set in the tree size
//!           directory: for every event  entry length u16 | parts length u32 | CRC-32 of both u32
//!           events, one after the other: the entry, then its parts, and of every part
//!           form u8 | salt 32 | content
//!           end mark, 4 bytes
//! ```
//!
//! So the bytes of an event lie together, and are read by one call. In version 1 all entries came before all parts; such
//! frames are still read.
//!
//! Numbers are little-endian. The chained part is what the next frame's hash chain covers:
//!
//! ```text
//! 0    4  tag "PFC1"                    60   8  position of the first event
//! 4   16  log id                        68   4  number of events
//! 20  16  frame id                      72   8  tree size after this frame: their sum
//! 36  16  writer id                     80  32  root of the tree after this frame
//! 52   8  sequence number               112 32  SHA-256 of the previous frame's chained part,
//!                                               zeros in the first frame
//! ```
//!
//! **No 512-byte sector of an encoded frame is all zero**, so a sector that was never written can be told
//! from one that was. Data can contain such sectors; then everything between header and end mark is XORed with a
//! random mask of eight non-zero bytes, found by trying. Nearly always the mask is zero and costs nothing.

mod builder;
#[cfg(any(test, feature = "conformance"))]
mod version_1;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::commitment::Salt;
use crate::entry::{DATA_PART, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::extents::{self, NoSources, Recent, Sources};
use crate::ids::{FrameId, Hash, LogId, Position};
use crate::stored::put_literal;
use crate::tree::Tree;

pub use self::builder::{EncodedFrame, FrameBuilder};
pub use crate::stored::{StoredEvent, StoredPart};

/// Frames start at a multiple of this many bytes, the unit in which a device writes all or nothing.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a frame's header, which lies in its first sector.
pub const HEADER_BYTES: usize = 40 + CHAINED_BYTES;
/// The most bytes a frame can have, without padding.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The version of the frame format that this program writes. It reads this one and those before it.
pub const FORMAT_VERSION: u16 = 2;
/// The version in which entries and parts lie apart.
const FORMAT_APART: u16 = 1;

const CHAINED_BYTES: usize = 144;
const MAGIC: &[u8; 4] = b"PRF1";
const CHAINED_TAG: &[u8; 4] = b"PFC1";
const END_MARK: &[u8; 4] = b"\xf1END";
const ROW_BYTES: usize = 10;
/// Whoever looks for a place in a directory adds up no more rows than this.
const MARK_ROWS: usize = 8;
const CODEC_PLAIN: u8 = 0;
const FLAG_EDGE: u8 = 1;
const EDGE_BYTES_MAX: usize = 64 * Hash::LEN;

/// A part's content follows as it is.
pub(crate) const FORM_LITERAL: u8 = 0;
/// A part's content is made of pieces, some of which name earlier events.
pub(crate) const FORM_EXTENTS: u8 = 1;
/// A part's content and salt have been erased.
pub(crate) const FORM_ERASED: u8 = 2;

/// Bytes of a frame around its directory, entries and parts, at most.
pub const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + EDGE_BYTES_MAX + END_MARK.len();

/// Bytes that an event takes in a frame beside its entry and its data.
pub const EVENT_OVERHEAD_BYTES: usize = ROW_BYTES + 1 + Salt::LEN;

/// The part of a frame's header that the chain covers: the same on every backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chained {
    /// The log.
    pub log: LogId,
    /// The random id of the frame.
    pub id: FrameId,
    /// The random id of the handle that wrote it.
    pub writer: FrameId,
    /// The frame's number, from 0, without gaps.
    pub sequence: u64,
    /// The position of the frame's first event.
    pub first: Position,
    /// The number of events, at least 1.
    pub count: u32,
    /// The root of the tree after this frame.
    pub root: Hash,
    /// The hash of the previous frame's chained part; zeros in the first frame.
    pub previous: Hash,
}

impl Chained {
    /// The number of events in the log after this frame.
    pub fn tree_size(&self) -> u64 {
        self.first.0 + u64::from(self.count)
    }

    /// The bytes that are hashed.
    pub fn encode(&self) -> [u8; CHAINED_BYTES] {
        let mut b = [0; CHAINED_BYTES];
        b[0..4].copy_from_slice(CHAINED_TAG);
        b[4..20].copy_from_slice(&self.log.0);
        b[20..36].copy_from_slice(&self.id.0);
        b[36..52].copy_from_slice(&self.writer.0);
        b[52..60].copy_from_slice(&self.sequence.to_le_bytes());
        b[60..68].copy_from_slice(&self.first.0.to_le_bytes());
        b[68..72].copy_from_slice(&self.count.to_le_bytes());
        b[72..80].copy_from_slice(&self.tree_size().to_le_bytes());
        b[80..112].copy_from_slice(&self.root.0);
        b[112..144].copy_from_slice(&self.previous.0);
        b
    }

    /// The hash that the next frame carries as its `previous`.
    pub fn hash(&self) -> Hash {
        Hash(Sha256::digest(self.encode()).into())
    }

    fn decode(b: &[u8; CHAINED_BYTES]) -> Result<Self> {
        let id = |at: usize| <[u8; 16]>::try_from(&b[at..at + 16]).expect("16 bytes");
        let hash = |at: usize| Hash::from_slice(&b[at..at + 32]).expect("32 bytes");
        let chained = Self {
            log: LogId(id(4)),
            id: FrameId(id(20)),
            writer: FrameId(id(36)),
            sequence: u64_at(b, 52),
            first: Position(u64_at(b, 60)),
            count: u32_at(b, 68),
            root: hash(80),
            previous: hash(112),
        };
        let fits = &b[0..4] == CHAINED_TAG
            && chained.count > 0
            && chained.first.0.checked_add(u64::from(chained.count)) == Some(u64_at(b, 72));
        fits.then_some(chained)
            .ok_or_else(|| Error::damaged("a frame header whose chained part is not valid"))
    }
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("8 bytes"))
}

/// Whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(8);
    chunks.all(|c| u64::from_ne_bytes(c.try_into().expect("8 bytes")) == 0)
        && bytes[bytes.len() / 8 * 8..].iter().all(|&b| b == 0)
}

/// `len` rounded up to whole sectors.
pub fn padded(len: u64) -> u64 {
    len.next_multiple_of(SECTOR_BYTES as u64)
}

/// A frame's decoded header: enough to find everything in it.
#[derive(Debug, Clone)]
pub struct FrameHeader {
    /// The part the chain covers.
    pub chained: Chained,
    version: u16,
    has_edge: bool,
    len: u32,
    directory_len: u32,
    entries_len: u32,
    mask: [u8; 8],
    prelude_crc: u32,
}

impl FrameHeader {
    /// Decodes the header at the start of `bytes`, which may be longer.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(b) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::damaged(format!(
                "a frame header needs {HEADER_BYTES} bytes, {} are left",
                bytes.len()
            )));
        };
        if &b[0..4] != MAGIC {
            return Err(Error::damaged("no frame begins here"));
        }
        let mut clean = *b;
        clean[36..40].fill(0);
        if crc32fast::hash(&clean) != u32_at(b, 36) {
            return Err(Error::damaged("the checksum of the frame header does not match"));
        }
        let (version, codec, flags) = (u16::from_le_bytes([b[4], b[5]]), b[6], b[7]);
        let known = (FORMAT_APART..=FORMAT_VERSION).contains(&version);
        if !known || codec != CODEC_PLAIN || flags & !FLAG_EDGE != 0 {
            return Err(Error::new(
                ErrorKind::UnsupportedFormat,
                format!(
                    "a frame of format {version}, codec {codec}, flags {flags}; this program reads formats \
                     {FORMAT_APART} to {FORMAT_VERSION}, codec {CODEC_PLAIN}, flags 0 and {FLAG_EDGE}"
                ),
            ));
        }
        let chained = Chained::decode(b[40..].try_into().expect("144 bytes"))?;
        let header = Self {
            version,
            has_edge: flags & FLAG_EDGE != 0,
            len: u32_at(b, 8),
            directory_len: u32_at(b, 12),
            entries_len: u32_at(b, 16),
            mask: b[24..32].try_into().expect("8 bytes"),
            prelude_crc: u32_at(b, 32),
            chained,
        };
        let sum = (HEADER_BYTES + header.edge_len() + END_MARK.len()) as u64
            + u64::from(header.directory_len)
            + u64::from(header.entries_len)
            + u64::from(u32_at(b, 20));
        let rows = u64::from(header.chained.count) * ROW_BYTES as u64;
        if sum != u64::from(header.len)
            || sum > FRAME_BYTES_MAX as u64
            || rows != u64::from(header.directory_len)
        {
            return Err(Error::damaged("a frame header whose lengths do not add up"));
        }
        Ok(header)
    }

    /// Bytes of the frame, without padding.
    pub fn frame_len(&self) -> usize {
        self.len as usize
    }

    /// Bytes of the frame on a device, with the zeros up to the end of its last sector.
    pub fn padded_len(&self) -> u64 {
        padded(u64::from(self.len))
    }

    /// Whether the frame carries the tree's right edge.
    pub fn has_edge(&self) -> bool {
        self.has_edge
    }

    /// Bytes from the frame's start through the tree's edge: what [`Self::tree`] is made of.
    pub fn edge_end(&self) -> usize {
        HEADER_BYTES + self.edge_len()
    }

    /// The tree after this frame from its first [`Self::edge_end`] bytes alone, if the frame carries its edge and that
    /// is the edge of a tree with the root in the header.
    pub fn tree(&self, bytes: &[u8]) -> Option<Tree> {
        let mut edge = bytes.get(HEADER_BYTES..self.edge_end()).filter(|_| self.has_edge)?.to_vec();
        if self.mask != [0; 8] {
            self.unmask(&mut edge, HEADER_BYTES);
        }
        let edge = edge.chunks_exact(Hash::LEN).map(|h| Hash::from_slice(h).expect("32 bytes")).collect();
        Tree::from_edge(self.chained.tree_size(), edge).filter(|tree| tree.root() == self.chained.root)
    }

    fn edge_len(&self) -> usize {
        if self.has_edge { self.chained.tree_size().count_ones() as usize * Hash::LEN } else { 0 }
    }

    /// Bytes from the frame's start through its directory: read these, then [`Self::directory`].
    pub fn prelude_len(&self) -> usize {
        HEADER_BYTES + self.edge_len() + self.directory_len as usize
    }

    /// Decodes edge and directory from the frame's first [`Self::prelude_len`] bytes.
    pub fn directory(&self, prelude: &[u8]) -> Result<Directory> {
        let prelude = self.prelude(prelude)?;
        let (edge, rows) = prelude.split_at(self.edge_len());
        let edge: Vec<Hash> =
            edge.chunks_exact(Hash::LEN).map(|h| Hash::from_slice(h).expect("32 bytes")).collect();
        self.check_rows(rows)?;
        let mut at = self.first_at();
        let places = rows.as_chunks::<ROW_BYTES>().0.iter().map(|row| Place::of(row, &mut at)).collect();
        let edge = self.has_edge.then_some(edge);
        Ok(Directory { edge, places })
    }

    /// As [`Self::directory`], without looking at more than that the rows add up.
    pub fn rows(&self, prelude: &[u8]) -> Result<Rows> {
        let prelude = self.prelude(prelude)?;
        let rows = &prelude[self.edge_len()..];
        let marks = self.check_rows(rows)?;
        // Nearly all frames are small, and have none.
        let marks = if marks.is_empty() { Arc::default() } else { marks.into() };
        Ok(Rows { rows: Bytes::copy_from_slice(rows), first: self.first_at(), marks })
    }

    /// Edge and directory without the mask, their checksum checked.
    fn prelude<'a>(&self, prelude: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        let Some(prelude) = prelude.get(HEADER_BYTES..self.prelude_len()) else {
            return Err(Error::damaged(format!(
                "the directory of a frame ends at byte {}, {} are there",
                self.prelude_len(),
                prelude.len()
            )));
        };
        if crc32fast::hash(prelude) != self.prelude_crc {
            return Err(Error::damaged("the checksum of the frame's directory does not match"));
        }
        let mut prelude = Cow::Borrowed(prelude);
        if self.mask != [0; 8] {
            self.unmask(prelude.to_mut(), HEADER_BYTES);
        }
        Ok(prelude)
    }

    /// Where the first event is.
    fn first_at(&self) -> At {
        let entry = self.prelude_len() as u32;
        let parts = (self.version == FORMAT_APART).then_some(entry + self.entries_len);
        At { entry, parts }
    }

    /// Checks that there is a row for each event, and together they are as long as the frame. Answers where every
    /// [`MARK_ROWS`]th event is, but for the first.
    fn check_rows(&self, rows: &[u8]) -> Result<Vec<At>> {
        let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
        let (mut at, mut entries, mut parts) = (self.first_at(), 0, 0);
        let mut marks = Vec::with_capacity(rows.len() / MARK_ROWS);
        for rows in rows.chunks(MARK_ROWS) {
            for row in rows {
                let lengths = Lengths::of(row);
                entries += u64::from(lengths.entry);
                parts += u64::from(lengths.parts);
                at.pass(lengths);
            }
            if rows.len() == MARK_ROWS {
                marks.push(at);
            }
        }
        let all = (self.prelude_len() + END_MARK.len()) as u64 + entries + parts;
        let fits = entries == u64::from(self.entries_len) && all == u64::from(self.len);
        if !fits || rows.len() != self.chained.count as usize || !rest.is_empty() {
            return Err(Error::damaged("a frame's directory does not add up to its length"));
        }
        Ok(marks)
    }

    /// Takes the mask off bytes that begin `offset` bytes into the frame, behind the header.
    fn unmask(&self, bytes: &mut [u8], offset: usize) {
        apply_mask(bytes, &self.mask, offset);
    }

    /// Checks and takes apart one event, given the bytes of its entry and of its parts as stored.
    pub fn event(&self, place: &Place, entry: Bytes, parts: Bytes) -> Result<StoredEvent> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&entry);
        crc.update(&parts);
        self.checked(place, crc.finalize(), entry, parts)
    }

    /// As [`Self::event`], of the bytes that lie [together](Place::together).
    ///
    /// # Errors
    /// `damaged` if the checksum does not match.
    ///
    /// # Panics
    /// If there are fewer bytes than the entry has.
    pub fn event_together(&self, place: &Place, mut event: Bytes) -> Result<StoredEvent> {
        let crc = crc32fast::hash(&event);
        let parts = event.split_off(usize::from(place.entry_len));
        self.checked(place, crc, event, parts)
    }

    fn checked(&self, place: &Place, crc: u32, entry: Bytes, parts: Bytes) -> Result<StoredEvent> {
        if crc != place.crc {
            return Err(Error::damaged("the checksum of the event does not match"));
        }
        if self.mask == [0; 8] {
            return Ok(StoredEvent { entry, parts });
        }
        let unmasked = |bytes: Bytes, offset: u32| {
            let mut bytes = bytes.to_vec();
            self.unmask(&mut bytes, offset as usize);
            Bytes::from(bytes)
        };
        Ok(StoredEvent { entry: unmasked(entry, place.entry_at), parts: unmasked(parts, place.parts_at) })
    }
}

fn apply_mask(bytes: &mut [u8], mask: &[u8; 8], offset: usize) {
    if *mask == [0; 8] {
        return;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[(offset + i) % 8];
    }
}

/// Where the events of a frame lie in it.
#[derive(Debug, Clone)]
pub struct Directory {
    /// The tree's right edge after the frame, if it carries one.
    pub edge: Option<Vec<Hash>>,
    /// One place an event.
    pub places: Vec<Place>,
}

/// Where one event lies: offsets from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The first byte of the entry.
    pub entry_at: u32,
    /// Bytes of the entry.
    pub entry_len: u16,
    /// The first byte of the parts.
    pub parts_at: u32,
    /// Bytes of the parts.
    pub parts_len: u32,
    crc: u32,
}

impl Place {
    /// The place that a row names, given where its event is; then that is where the next one is.
    fn of(row: &[u8; ROW_BYTES], at: &mut At) -> Self {
        let lengths = Lengths::of(row);
        let place = Self {
            entry_at: at.entry,
            entry_len: lengths.entry,
            parts_at: at.parts.unwrap_or(at.entry.wrapping_add(lengths.entry.into())),
            parts_len: lengths.parts,
            crc: u32::from_le_bytes([row[6], row[7], row[8], row[9]]),
        };
        at.pass(lengths);
        place
    }

    /// The bytes of the frame that are this event, if they lie together.
    pub fn together(&self) -> Option<Range<u64>> {
        let (entry, parts) = (self.entry(), self.parts());
        (entry.end == parts.start).then_some(entry.start..parts.end)
    }

    /// The bytes of the entry.
    pub fn entry(&self) -> Range<u64> {
        u64::from(self.entry_at)..u64::from(self.entry_at) + u64::from(self.entry_len)
    }

    /// The bytes of the parts.
    pub fn parts(&self) -> Range<u64> {
        u64::from(self.parts_at)..u64::from(self.parts_at) + u64::from(self.parts_len)
    }
}

/// How long entry and parts of an event are, as a row says.
#[derive(Clone, Copy)]
struct Lengths {
    entry: u16,
    parts: u32,
}

impl Lengths {
    fn of(row: &[u8; ROW_BYTES]) -> Self {
        Self {
            entry: u16::from_le_bytes([row[0], row[1]]),
            parts: u32::from_le_bytes([row[2], row[3], row[4], row[5]]),
        }
    }
}

/// Where an event is in its frame.
#[derive(Debug, Clone, Copy)]
struct At {
    entry: u32,
    /// Where its parts are, if they do not follow the entry.
    parts: Option<u32>,
}

impl At {
    /// Goes on to the next event. Of a frame whose rows do not add up it is nonsense.
    fn pass(&mut self, lengths: Lengths) {
        self.entry = self.entry.wrapping_add(lengths.entry.into());
        let parts = self.parts.as_mut().unwrap_or(&mut self.entry);
        *parts = parts.wrapping_add(lengths.parts);
    }
}

/// The directory of a frame as it is stored, for whoever wants few of its places: they are added up as they are asked
/// for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rows {
    rows: Bytes,
    /// Where the first event is.
    first: At,
    /// Where every [`MARK_ROWS`]th event behind it is.
    marks: Arc<[At]>,
}

impl Rows {
    /// Bytes of memory, about.
    pub fn cost(&self) -> usize {
        self.rows.len() + size_of_val(&*self.marks)
    }

    /// A walk over the places.
    pub fn walk(&self) -> Walk {
        Walk { rows: self.clone(), next: 0, at: self.first }
    }
}

/// Goes from place to place of a frame; what it costs is how far they are apart, up to a bound.
#[derive(Debug, Clone)]
pub struct Walk {
    rows: Rows,
    next: usize,
    at: At,
}

impl Walk {
    /// Where the event with this index lies; `None` if there are not so many.
    #[inline]
    pub fn place(&mut self, index: usize) -> Option<Place> {
        let rows = self.rows.rows.as_chunks::<ROW_BYTES>().0;
        let row = rows.get(index)?;
        if index < self.next || index - self.next > MARK_ROWS {
            let mark = index / MARK_ROWS;
            self.next = mark * MARK_ROWS;
            self.at = mark.checked_sub(1).map_or(self.rows.first, |mark| self.rows.marks[mark]);
        }
        for row in &rows[self.next..index] {
            Place::of(row, &mut self.at);
        }
        self.next = index + 1;
        Some(Place::of(row, &mut self.at))
    }
}

/// A whole frame in memory, its header and directory checked.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// Where the events lie.
    pub directory: Directory,
    bytes: Bytes,
}

impl Frame {
    /// Takes a frame apart; `bytes` may be followed by padding. The events are checked when they are asked for.
    pub fn decode(bytes: Bytes) -> Result<Self> {
        let header = FrameHeader::decode(&bytes)?;
        if bytes.len() < header.frame_len() {
            return Err(Error::damaged(format!(
                "a frame of {} bytes, {} are there",
                header.frame_len(),
                bytes.len()
            )));
        }
        let bytes = bytes.slice(..header.frame_len());
        let directory = header.directory(&bytes)?;
        let end = header.frame_len() - END_MARK.len();
        if &bytes[end..] != END_MARK {
            return Err(Error::damaged("the end mark of a frame is missing"));
        }
        Ok(Self { header, directory, bytes })
    }

    /// The part of the header that the chain covers.
    pub fn chained(&self) -> &Chained {
        &self.header.chained
    }

    /// The encoded frame, without padding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.directory.places.len()
    }

    /// Never: a frame has at least one event.
    pub fn is_empty(&self) -> bool {
        self.directory.places.is_empty()
    }

    /// The event with this index in the frame, its checksum checked.
    pub fn event(&self, index: usize) -> Result<StoredEvent> {
        let place = &self.directory.places[index];
        let slice = |at: u32, len: usize| self.bytes.slice(at as usize..at as usize + len);
        let entry = slice(place.entry_at, usize::from(place.entry_len));
        let parts = slice(place.parts_at, place.parts_len as usize);
        self.header.event(place, entry, parts)
    }

    /// The tree after this frame, if the frame carries its edge.
    pub fn tree(&self) -> Option<Tree> {
        Tree::from_edge(self.chained().tree_size(), self.directory.edge.clone()?)
    }

    /// Checks a frame whose events refer to none outside; see [`Self::check_with`].
    pub fn check(&self) -> Result<()> {
        self.check_with(&mut NoSources)
    }

    /// Every check of the frame's own content: each event's checksum, that each decodes to an event of
    /// this log at its position, and that its content is what its entry commits to.
    pub fn check_with(&self, sources: &mut dyn Sources) -> Result<()> {
        for index in 0..self.len() {
            let position = Position(self.chained().first.0 + index as u64);
            self.check_event(index, position, sources).map_err(|e| e.context(format!("event {position}")))?;
        }
        Ok(())
    }

    fn check_event(&self, index: usize, position: Position, sources: &mut dyn Sources) -> Result<()> {
        let stored = self.event(index)?;
        let entry = Entry::decode(&stored.entry)?;
        if entry.log != self.chained().log || entry.position != position {
            return Err(Error::damaged(format!(
                "the entry says log {}, position {}",
                entry.log, entry.position
            )));
        }
        stored.check_commitments(&entry, sources)
    }

    /// The same frame with all content literally, as it travels between stores: without the tree's edge.
    ///
    /// # Errors
    /// `damaged`, naming the event, if one cannot be put together, and for a frame that would be too large: no
    /// writer makes one.
    pub fn literal(&self, sources: &mut dyn Sources) -> Result<Frame> {
        let mut builder = FrameBuilder::default();
        for index in 0..self.len() {
            let position = self.chained().first.0 + index as u64;
            let named = |e: Error| e.context(format!("event {position}"));
            let stored = self.event(index).map_err(named)?;
            let entry = Entry::decode(&stored.entry).map_err(named)?;
            let literal = stored.literal(&entry, sources).map_err(named)?;
            builder.push_stored(&literal.entry, &literal.parts);
            if builder.len_max() > FRAME_BYTES_MAX + EDGE_BYTES_MAX {
                let message = "its content is more than a frame can hold, it refers to that of other events";
                return Err(named(Error::damaged(message)));
            }
        }
        Frame::decode(builder.encode(self.chained(), None).into())
    }

    /// The same frame with its content stored exactly as it is here, extents included: with the tree's edge, which
    /// must be that of the tree after it, or without.
    pub fn with_edge(&self, edge: Option<&Tree>) -> Result<EncodedFrame> {
        let mut builder = FrameBuilder::default();
        for index in 0..self.len() {
            let event = self.event(index)?;
            builder.push_stored(&event.entry, &event.parts);
        }
        Ok(builder.encode(self.chained(), edge))
    }

    /// The same frame, its content held against what `recent` remembers: as it is stored in another log. With the tree's
    /// edge, which must be that of the tree after it, or without.
    ///
    /// # Errors
    /// `damaged` if an event is, or refers to another. What `recent` was told of it by then has to be forgotten.
    pub fn reencode(&self, edge: Option<&Tree>, recent: &mut Recent) -> Result<EncodedFrame> {
        let mut builder = FrameBuilder::default();
        for index in 0..self.len() {
            let event = self.event(index)?;
            let entry = Entry::decode(&event.entry)?;
            let parts = event.parts(&entry, &mut NoSources)?;
            builder.push(
                |out| out.extend_from_slice(&event.entry),
                |out| {
                    for (part, stored) in entry.parts.iter().zip(&parts) {
                        match stored {
                            StoredPart::Present(salt, content) if part.name != DATA_PART => {
                                put_literal(salt, content, out);
                            }
                            StoredPart::Present(salt, content) => {
                                let anchors = extents::anchors(content);
                                let scope = part.scope.as_deref();
                                recent.put_part(entry.position, scope, salt, content, &anchors, out);
                            }
                            StoredPart::Erased => out.push(FORM_ERASED),
                        }
                    }
                },
            );
        }
        Ok(builder.encode(self.chained(), edge))
    }
}

#[cfg(test)]
mod tests {
    use super::builder::has_zero_sector;
    use super::*;
    use crate::entry::{EncodedEnvelope, LogFields, Part};
    use crate::event::Event;
    use crate::ids::Time;
    use crate::tree::leaf_hash;

    /// A frame of one event for each content, as a sequencer would make it.
    fn frame_of(contents: &[&[u8]], with_edge: bool) -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        let mut tree = Tree::new();
        let log = LogId([3; 16]);
        for (i, content) in contents.iter().enumerate() {
            let salt = Salt([i as u8; 32]);
            let part = Part {
                name: DATA_PART.into(),
                commitment: crate::commitment::commit(&salt, content),
                length: content.len() as u64,
                scope: None,
            };
            let event = Event::builder("s", i.to_string(), "t").build().unwrap();
            let envelope = EncodedEnvelope::new(&event, &[part]);
            let fields =
                LogFields { log, position: Position(i as u64), recorded: Time::default(), version: None };
            let entry =
                builder.push(|out| envelope.write(&fields, out), |out| put_literal(&salt, content, out));
            tree.push(leaf_hash(entry));
        }
        let chained = Chained {
            log,
            id: FrameId([1; 16]),
            writer: FrameId([2; 16]),
            sequence: 0,
            first: Position(0),
            count: contents.len() as u32,
            root: tree.root(),
            previous: Hash::ZERO,
        };
        builder.encode(&chained, with_edge.then_some(&tree)).to_vec()
    }

    fn of_version_1(bytes: &[u8]) -> Vec<u8> {
        Frame::decode(Bytes::copy_from_slice(bytes)).unwrap().of_version_1().unwrap()
    }

    #[test]
    fn a_frame_of_version_1_holds_the_same() {
        let zeros = vec![0; 2_000];
        for contents in [&[&b"one"[..], b"", b"three"][..], &[b"", b""], &[&zeros, b"x", &zeros]] {
            let now = frame_of(contents, true);
            let before = of_version_1(&now);
            assert_eq!(now.len(), before.len());
            assert_ne!(now[HEADER_BYTES..], before[HEADER_BYTES..]);
            let [now, before] = [now, before].map(|bytes| Frame::decode(bytes.into()).unwrap());
            before.check().unwrap();
            assert_eq!(before.chained(), now.chained());
            assert_eq!(before.tree().unwrap().root(), now.tree().unwrap().root());
            for index in 0..contents.len() {
                let [now, before] = [&now, &before].map(|frame| frame.event(index).unwrap());
                assert_eq!((before.entry, before.parts), (now.entry, now.parts));
            }
            let newer = before.with_edge(before.tree().as_ref()).unwrap();
            assert_eq!(
                newer[4..6],
                FORMAT_VERSION.to_le_bytes(),
                "whatever is written is of the newest version"
            );
            Frame::decode(newer.into()).unwrap().check().unwrap();
        }
        let mut unknown = frame_of(&[b"x"], false);
        for version in [0, FORMAT_VERSION + 1] {
            unknown[4..6].copy_from_slice(&version.to_le_bytes());
            unknown[36..40].fill(0);
            let crc = crc32fast::hash(&unknown[..HEADER_BYTES]);
            unknown[36..40].copy_from_slice(&crc.to_le_bytes());
            let error = FrameHeader::decode(&unknown).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
        }
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let zeros = vec![0; 100_000];
        for contents in [&[&b"one"[..], b"", b"three"][..], &[&zeros, b"x", &zeros]] {
            let bytes = frame_of(contents, true);
            let frame = Frame::decode(bytes.into()).unwrap();
            frame.check().unwrap();
            assert_eq!(frame.tree().unwrap().root(), frame.chained().root);
            for (i, content) in contents.iter().enumerate() {
                let stored = frame.event(i).unwrap();
                let entry = Entry::decode(&stored.entry).unwrap();
                stored.check_commitments(&entry, &mut NoSources).unwrap();
                assert_eq!(stored.decode().unwrap().event.data().unwrap(), content);
            }
            assert!(frame.literal(&mut NoSources).unwrap().tree().is_none());
        }
    }

    #[test]
    fn places_are_the_same_in_whatever_order_they_are_asked_for() {
        let zeros = vec![0; 3_000];
        let contents: Vec<&[u8]> = (0..100).map(|i| &zeros[..i * 30]).collect();
        let (with_edge, without) = (frame_of(&contents, true), frame_of(&contents, false));
        for bytes in [of_version_1(&with_edge), with_edge, without] {
            let frame = Frame::decode(bytes.clone().into()).unwrap();
            let mut walk = frame.header.rows(&bytes).unwrap().walk();
            for step in 1..contents.len() {
                for i in 0..contents.len() {
                    let at = i * step % contents.len();
                    assert_eq!(walk.place(at), Some(frame.directory.places[at]), "step {step}, {at}");
                }
            }
            assert_eq!(walk.place(contents.len()), None);
        }
    }

    #[test]
    fn no_sector_of_a_frame_is_all_zero_whatever_the_data() {
        for len in (0..2_000).chain([4096, 65_536, 1 << 20]) {
            for fill in [0, 0xff] {
                let frame = frame_of(&[&vec![fill; len]], false);
                assert!(!has_zero_sector(&frame), "{len} bytes of {fill}");
            }
        }
        // One sector of every byte value: no mask of one repeated byte could serve.
        let adversarial: Vec<u8> = (0..=255u8).flat_map(|b| [b; 1024]).collect();
        assert!(!has_zero_sector(&frame_of(&[&adversarial], false)));
    }

    #[test]
    fn every_single_byte_of_a_frame_is_covered_by_a_check() {
        let masked = frame_of(&[&[0; 2048], b"second"], true);
        for bytes in [frame_of(&[b"first", b"second"], true), of_version_1(&masked), masked] {
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 0x40;
                let checked = Frame::decode(bad.into()).and_then(|f| f.check());
                assert!(checked.is_err(), "byte {at} of {} is not covered", bytes.len());
            }
            for cut in 0..bytes.len() {
                assert!(Frame::decode(Bytes::copy_from_slice(&bytes[..cut])).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        let good = frame_of(&[b"x"], false);
        for (at, value) in
            [(8, u32::MAX), (12, u32::MAX - 9), (16, 1 << 31), (20, u32::MAX), (40 + 68, u32::MAX)]
        {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
            bad[36..40].fill(0);
            let crc = crc32fast::hash(&bad[..HEADER_BYTES]);
            bad[36..40].copy_from_slice(&crc.to_le_bytes());
            assert!(FrameHeader::decode(&bad).is_err(), "field at {at}");
        }
    }
}

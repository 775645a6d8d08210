//! Makes frames: events go in one by one, and come out as the bytes that are written.

use std::ops::Deref;

use bytes::Bytes;

use super::{
    CODEC_PLAIN, Chained, END_MARK, FLAG_EDGE, FORMAT_VERSION, FRAME_BYTES_MAX, HEADER_BYTES, Lengths, MAGIC,
    OVERHEAD_BYTES_MAX, ROW_BYTES, SECTOR_BYTES, apply_mask, is_zero, padded,
};
use crate::entry::ENTRY_BYTES_MAX;
use crate::tree::Tree;

/// Collects events and encodes them as a frame.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    rows: Vec<u8>,
    /// Entry and parts of every event.
    events: Vec<u8>,
    /// Bytes of all entries.
    entries_len: usize,
    /// What the next frame is encoded into.
    spare: Vec<u8>,
}

/// A builder that is used again keeps at most this much memory.
const RECYCLED_BYTES_MAX: usize = 8 << 20;

impl FrameBuilder {
    /// An empty builder that goes on with the memory of this one and of a frame it encoded.
    pub fn recycle(mut self, encoded: EncodedFrame) -> Self {
        self.spare = encoded.memory;
        let all = [&mut self.rows, &mut self.events, &mut self.spare];
        if all.iter().map(|buffer| buffer.capacity()).sum::<usize>() > RECYCLED_BYTES_MAX {
            return Self::default();
        }
        all.into_iter().for_each(Vec::clear);
        self.entries_len = 0;
        self
    }

    /// Bytes the frame would have, at most.
    pub fn len_max(&self) -> usize {
        OVERHEAD_BYTES_MAX + self.rows.len() + self.events.len()
    }

    /// The number of events so far.
    pub fn count(&self) -> u32 {
        (self.rows.len() / ROW_BYTES) as u32
    }

    /// Adds an event: its entry and its parts are what the functions append. Returns the entry.
    pub fn push(&mut self, entry: impl FnOnce(&mut Vec<u8>), parts: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let entry_at = self.events.len();
        entry(&mut self.events);
        let parts_at = self.events.len();
        parts(&mut self.events);
        let entry_len = parts_at - entry_at;
        assert!(
            entry_len <= ENTRY_BYTES_MAX,
            "entries are checked against their limit before they come here"
        );
        self.entries_len += entry_len;
        let parts_len = self.events.len() - parts_at;
        self.rows.extend_from_slice(&(entry_len as u16).to_le_bytes());
        self.rows.extend_from_slice(&(parts_len as u32).to_le_bytes());
        self.rows.extend_from_slice(&crc32fast::hash(&self.events[entry_at..]).to_le_bytes());
        &self.events[entry_at..parts_at]
    }

    /// Adds an event that is already encoded.
    pub fn push_stored(&mut self, entry: &[u8], parts: &[u8]) {
        self.push(|out| out.extend_from_slice(entry), |out| out.extend_from_slice(parts));
    }

    /// Encodes the frame, without padding. `edge` is the tree after the frame, if its edge is to be carried.
    ///
    /// # Panics
    /// If the frame is empty, larger than [`FRAME_BYTES_MAX`], or `chained` counts other events than were added.
    pub fn encode(&mut self, chained: &Chained, edge: Option<&Tree>) -> EncodedFrame {
        assert_eq!(chained.count, self.count(), "the header counts the events of the frame");
        assert!(chained.count > 0, "a frame has at least one event");
        let mut frame = EncodedFrame::with_capacity(self.len_max(), std::mem::take(&mut self.spare));
        let mut mask = [0; 8];
        loop {
            self.encode_masked(chained, edge, &mask, &mut frame);
            if !has_zero_sector(&frame) {
                return frame;
            }
            // The data is fixed before the mask is drawn, so nobody can choose it to stay zero.
            mask = std::array::from_fn(|_| rand::random_range(1..=u8::MAX));
        }
    }

    fn encode_masked(&self, chained: &Chained, edge: Option<&Tree>, mask: &[u8; 8], out: &mut EncodedFrame) {
        let EncodedFrame { memory, start } = out;
        memory.truncate(*start);
        memory.resize(*start + HEADER_BYTES, 0);
        for hash in edge.map_or(&[][..], Tree::edge) {
            memory.extend_from_slice(&hash.0);
        }
        let rows_at = memory.len() - *start;
        memory.extend_from_slice(&self.rows);
        let events_at = memory.len() - *start;
        memory.extend_from_slice(&self.events);
        memory.extend_from_slice(END_MARK);
        let frame = &mut memory[*start..];
        let len = frame.len();
        assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes was let in");
        if *mask != [0; 8] {
            apply_mask(&mut frame[events_at..len - END_MARK.len()], mask, events_at);
            put_checksums(frame, rows_at, events_at);
            apply_mask(&mut frame[HEADER_BYTES..events_at], mask, HEADER_BYTES);
        }
        let prelude_crc = crc32fast::hash(&frame[HEADER_BYTES..events_at]);

        let header = &mut frame[..HEADER_BYTES];
        header[0..4].copy_from_slice(MAGIC);
        header[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[6] = CODEC_PLAIN;
        header[7] = if edge.is_some() { FLAG_EDGE } else { 0 };
        let parts_len = self.events.len() - self.entries_len;
        for (at, value) in [(8, len), (12, self.rows.len()), (16, self.entries_len), (20, parts_len)] {
            header[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
        header[24..32].copy_from_slice(mask);
        header[32..36].copy_from_slice(&prelude_crc.to_le_bytes());
        header[40..].copy_from_slice(&chained.encode());
        let crc = crc32fast::hash(header);
        header[36..40].copy_from_slice(&crc.to_le_bytes());
    }
}

/// An encoded frame. Its first byte lies at a multiple of [`SECTOR_BYTES`] in memory, so that a device can take it from
/// there.
#[derive(Debug, Default)]
pub struct EncodedFrame {
    memory: Vec<u8>,
    /// Where in the memory the frame begins.
    start: usize,
}

impl EncodedFrame {
    /// Room for a frame and its padding, in this memory if it is enough.
    fn with_capacity(len: usize, mut memory: Vec<u8>) -> Self {
        memory.clear();
        memory.reserve(len + 2 * SECTOR_BYTES);
        let start = memory.as_ptr().align_offset(SECTOR_BYTES).min(SECTOR_BYTES);
        memory.resize(start, 0);
        Self { memory, start }
    }

    /// A copy of a frame that was encoded before.
    pub fn copy_of(frame: &[u8]) -> Self {
        let mut copy = Self::with_capacity(frame.len(), Vec::new());
        copy.memory.extend_from_slice(frame);
        copy
    }

    /// Adds zeros up to the end of the last sector.
    pub fn pad(&mut self) {
        let len = padded(self.len() as u64) as usize;
        self.memory.resize(self.start + len, 0);
    }
}

impl Deref for EncodedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl From<EncodedFrame> for Bytes {
    fn from(frame: EncodedFrame) -> Self {
        Self::from(frame.memory).slice(frame.start..)
    }
}

/// Writes the checksums of the events, as they are stored, into their rows.
fn put_checksums(frame: &mut [u8], rows_at: usize, events_at: usize) {
    let (prelude, events) = frame.split_at_mut(events_at);
    let mut at = 0;
    for row in prelude[rows_at..].as_chunks_mut::<ROW_BYTES>().0 {
        let lengths = Lengths::of(row);
        let end = at + usize::from(lengths.entry) + lengths.parts as usize;
        row[6..].copy_from_slice(&crc32fast::hash(&events[at..end]).to_le_bytes());
        at = end;
    }
}

/// Whether some sector of the frame is all zero. A sector whose first eight bytes are not is quickly passed.
pub(super) fn has_zero_sector(frame: &[u8]) -> bool {
    frame.chunks(SECTOR_BYTES).any(is_zero)
}

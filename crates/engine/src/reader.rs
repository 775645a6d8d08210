//! Reads events and frames of a log, wherever they are: in segments, in packs, or put together from what
//! stands with earlier events.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use precedent_core::extents::Sources;
use precedent_core::frame::{Chained, Frame, FrameHeader, HEADER_BYTES, Rows, StoredEvent, Walk};
use precedent_core::{Error, ErrorKind, Position, RecordedEvent, Result};

use crate::io::{IoFile, read_full};
use crate::pack::{Block, OpenPack, PackFrames, PackedFrame, Unpacker};
use crate::segment::{EventPlace, FINDS_MAX, FramePlace, Segments};

/// Reads events and frames of a log, with the last chunk it read at hand.
pub(crate) struct FrameReader<'a> {
    segments: &'a Segments,
    /// Whether what is read next probably lies behind what was read last.
    sequential: bool,
    /// What was read last: from the beginning of a frame on, or several events of a large frame.
    chunk: Option<Chunk>,
    file: Option<(u32, Arc<dyn IoFile>)>,
    /// The beginning of the large frame that was read last; memory that is used again.
    prelude: Vec<u8>,
    /// Memory that was taken for events of large frames, and that none has been read into so far.
    free: BytesMut,
    /// What will probably be asked for, in this order, and where in that one is.
    planned: Vec<u64>,
    planned_at: usize,
    /// Of a sequential reader: all that will be asked for.
    planned_range: Range<u64>,
    current: Option<Current>,
    unpacker: Option<Unpacker>,
    /// The frames of a pack, where the last one was asked for.
    frames: Option<PackFrames>,
    sources: Option<Box<SourceReader<'a>>>,
}

/// Finds what other events refer to, and keeps what it found last: who refers to an event once does so again.
pub(crate) struct SourceReader<'a> {
    events: FrameReader<'a>,
    /// The literal bytes of parts, by position, name and scope.
    found: HashMap<(Position, String, Option<String>), Bytes>,
    bytes: usize,
}

/// What hides an event: a file that cannot be read does so just as damage does.
fn unreadable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::UnsupportedFormat => error,
        _ => Error::damaged(error.message().to_owned()),
    }
}

/// Literal bytes that are kept by a [`SourceReader`].
const SOURCE_BYTES_MAX: usize = 4 << 20;

impl<'a> SourceReader<'a> {
    pub(crate) fn new(segments: &'a Segments) -> Self {
        Self { events: FrameReader::new(segments, false), found: HashMap::new(), bytes: 0 }
    }
}

impl Sources for SourceReader<'_> {
    fn literals(&mut self, position: Position, part: &str, scope: Option<&str>) -> Result<Bytes> {
        let key = (position, part.to_owned(), scope.map(str::to_owned));
        if let Some(literal) = self.found.get(&key) {
            return Ok(literal.clone());
        }
        let literal = self.events.event(position)?.literal_of(part, scope)?;
        // A copy: the bytes read around it are let go.
        let literal = Bytes::copy_from_slice(&literal);
        if self.bytes + literal.len() > SOURCE_BYTES_MAX {
            self.found.clear();
            self.bytes = 0;
        }
        self.bytes += literal.len();
        self.found.insert(key, literal.clone());
        Ok(literal)
    }
}

/// Bytes of a segment.
struct Chunk {
    segment: u32,
    start: u64,
    bytes: Bytes,
    /// Bytes of memory: as much as was read into it at most.
    cost: usize,
    /// Where its memory goes afterwards.
    spare: Option<Arc<Spare>>,
}

impl Chunk {
    /// These bytes of a segment, if they are all here.
    fn get(&self, segment: u32, offset: u64, len: usize) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = at.checked_add(len)?;
        (self.segment == segment && end <= self.bytes.len()).then(|| self.bytes.slice(at..end))
    }
}

/// Memory of chunks that were read ahead, to be used again once no event is left that lies in it: memory that is new
/// is zeroed before it is read into. Each with the bytes that it takes, whatever it was used for last.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<(Bytes, usize)>>);

/// Chunks that are kept: as many as several threads read for a page, and those of the page before.
const SPARE_MAX: usize = 24;
/// Together they have at most so many bytes.
const SPARE_BYTES_MAX: usize = 8 << 20;
/// Less than this is as soon had anew.
const SPARE_BYTES_MIN: usize = 16 << 10;

impl Spare {
    fn take(&self, len: usize) -> BytesMut {
        let mut spare = self.0.lock().unwrap_or_else(|p| p.into_inner());
        let fits =
            |(bytes, cost): &(Bytes, usize)| bytes.len() >= len && cost / 4 <= len && bytes.is_unique();
        let free = spare.iter().position(fits).map(|index| spare.swap_remove(index));
        drop(spare);
        match free.map(|(bytes, _)| bytes.try_into_mut()) {
            Some(Ok(mut bytes)) => {
                bytes.truncate(len);
                bytes
            }
            _ => BytesMut::zeroed(len),
        }
    }

    fn put(&self, bytes: Bytes, cost: usize) {
        if bytes.len() < SPARE_BYTES_MIN {
            return;
        }
        let mut spare = self.0.lock().unwrap_or_else(|p| p.into_inner());
        spare.push((bytes, cost));
        let mut all: usize = spare.iter().map(|(_, cost)| cost).sum();
        while all > SPARE_BYTES_MAX || spare.len() > SPARE_MAX {
            all -= spare.remove(0).1;
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.take() {
            spare.put(std::mem::take(&mut self.bytes), self.cost);
        }
    }
}

/// What holds the event that was read last.
enum Current {
    Frame(Box<CurrentFrame>),
    Block(Arc<OpenPack>, Arc<Block>),
}

struct CurrentFrame {
    place: FramePlace,
    whole: bool,
    head: Arc<FrameHead>,
    walk: Walk,
    /// One position behind the frame.
    end_position: u64,
}

/// The header of a frame and its directory.
pub(crate) struct FrameHead {
    header: FrameHeader,
    rows: Rows,
}

impl FrameHead {
    /// Bytes of memory, about.
    pub(crate) fn cost(&self) -> usize {
        size_of::<Self>() + self.rows.cost()
    }
}

/// A read ahead of a sequential scan.
const CHUNK_BYTES: usize = 1 << 20;
/// A frame up to this size is read whole even if one event is wanted.
const SMALL_FRAME_BYTES: usize = 32 << 10;
/// A frame up to this size is read whole by a sequential scan.
const WHOLE_BYTES: usize = 2 << 20;
/// Events of a larger frame are read together if no more than this lies between them: as long as it takes
/// to read that, it takes to ask twice.
const GAP_BYTES: u64 = 4 << 10;
/// And no more of them than this.
const RANGE_BYTES: u64 = 256 << 10;
/// Memory that is taken at once for events that lie scattered: who holds one of them holds so much at most.
const EVENTS_BYTES: usize = 32 << 10;
/// The directory of a large frame is expected within its first part of so many, and within so many bytes.
const PRELUDE_PART: usize = 64;
const PRELUDE_BYTES: usize = 12 << 10;

impl<'a> FrameReader<'a> {
    pub(crate) fn new(segments: &'a Segments, sequential: bool) -> Self {
        Self {
            segments,
            sequential,
            chunk: None,
            file: None,
            prelude: Vec::new(),
            free: BytesMut::new(),
            planned: Vec::new(),
            planned_at: 0,
            planned_range: 0..u64::MAX,
            current: None,
            unpacker: None,
            frames: None,
            sources: None,
        }
    }

    /// With what has unpacked other blocks before.
    pub(crate) fn with_unpacker(mut self, unpacker: Option<Unpacker>) -> Self {
        self.unpacker = unpacker.map(|unpacker| unpacker.used_again(self.sequential));
        self
    }

    pub(crate) fn into_unpacker(self) -> Option<Unpacker> {
        self.unpacker
    }

    /// Whether what is asked for lies one behind the other.
    pub(crate) fn is_sequential(&self) -> bool {
        self.sequential
    }

    /// Tells what will be asked for, in this order, so that what lies close together is read together, and no more.
    pub(crate) fn plan(&mut self, positions: &[u64]) {
        self.planned_at = 0;
        self.planned.clear();
        match (self.sequential, positions) {
            (true, [first, .., last]) => self.planned_range = *first..last + 1,
            (true, _) => self.planned_range = 0..u64::MAX,
            (false, _) => self.planned.extend(positions),
        }
    }

    /// Where the events that others refer to are found.
    pub(crate) fn sources(&mut self) -> &mut SourceReader<'a> {
        self.sources.get_or_insert_with(|| Box::new(SourceReader::new(self.segments)))
    }

    /// The event at this position, put together from wherever its content stands.
    pub(crate) fn recorded(&mut self, position: Position) -> Result<RecordedEvent> {
        let stored = self.event(position)?;
        self.decode(stored)
    }

    /// Puts an event together that was read before.
    pub(crate) fn decode(&mut self, stored: StoredEvent) -> Result<RecordedEvent> {
        stored.into_recorded(self.sources())
    }

    /// The event at this position, its checksum checked. An error names frame or block, file and offset.
    pub(crate) fn event(&mut self, position: Position) -> Result<StoredEvent> {
        let mut event = self.event_once(position);
        for _ in 1..FINDS_MAX {
            match event {
                // The segment was packed, or the pack merged, between looking it up and reading it.
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.segments.adopt_packs()?;
                    (self.current, self.chunk, self.file) = (None, None, None);
                    event = self.event_once(position);
                }
                _ => break,
            }
        }
        event.map_err(unreadable)
    }

    fn event_once(&mut self, position: Position) -> Result<StoredEvent> {
        match &self.current {
            Some(Current::Block(_, block)) if block.holds(position) => {
                return Ok(self.of_block(block, position));
            }
            Some(Current::Frame(c)) if (c.place.first_position..c.end_position).contains(&position.0) => {}
            _ => {
                self.current = None;
                self.find_event(position)?;
            }
        }
        match self.current.take() {
            Some(Current::Frame(mut current)) => {
                let result = self.event_of(&mut current, position);
                let result = result.map_err(|e| self.named(&current.place, position, e));
                self.current = Some(Current::Frame(current));
                result
            }
            Some(Current::Block(pack, block)) => {
                let event = self.of_block(&block, position);
                self.current = Some(Current::Block(pack, block));
                Ok(event)
            }
            None => unreachable!("it was just found"),
        }
    }

    /// Makes the frame or block that holds the event the current one.
    fn find_event(&mut self, position: Position) -> Result<()> {
        match self.segments.locate(position.0)? {
            EventPlace::Frame(place) => {
                let current = self.load(place.clone()).map_err(|e| self.named(&place, position, e))?;
                if position.0 >= current.end_position {
                    let message = format!("position {position} is missing behind frame {}", place.sequence);
                    return Err(self.named(&place, position, Error::damaged(message)));
                }
                self.current = Some(Current::Frame(Box::new(current)));
            }
            EventPlace::Pack(pack) => {
                let named = |e: Error| {
                    let path = pack.path(self.segments.dir());
                    e.context(format!("position {position}, {}", path.display()))
                };
                let open = self.segments.open_pack(&pack).map_err(named)?;
                let block = self.block(&open, position).map_err(named)?;
                if !block.holds(position) {
                    return Err(named(Error::damaged("it is not in the block where it should be")));
                }
                self.current = Some(Current::Block(open, block));
            }
        }
        Ok(())
    }

    /// The block that holds a position of a pack, kept for the next reader unless this one goes through them all.
    fn block(&mut self, pack: &Arc<OpenPack>, position: Position) -> Result<Arc<Block>> {
        let number = pack.block_of(position);
        let key = pack.block_key(number);
        if let Some(block) = self.segments.kept_block(key) {
            return Ok(block);
        }
        let mut unpacker = match self.unpacker.take() {
            Some(unpacker) => unpacker,
            None => Unpacker::new(self.sequential)?,
        };
        if self.sequential {
            let last = (self.planned_range.end - 1).clamp(position.0, pack.pack.end_position - 1);
            unpacker.read_through(pack, pack.block_of(Position(last)));
        }
        let block = pack.block(number, &mut unpacker).map(Arc::new);
        self.unpacker = Some(unpacker);
        let block = block?;
        if !self.sequential {
            self.segments.keep_block(key, &block);
        }
        Ok(block)
    }

    /// An event of a block. One that is read by itself is copied: it would keep the whole block in memory.
    fn of_block(&self, block: &Block, position: Position) -> StoredEvent {
        let event = block.event(position);
        if self.sequential {
            return event;
        }
        let copy = Bytes::copy_from_slice;
        StoredEvent { entry: copy(&event.entry), parts: copy(&event.parts) }
    }

    fn named(&self, place: &FramePlace, position: Position, error: Error) -> Error {
        let file = self.segments.path(place.segment);
        error.context(format!(
            "position {position}, frame {}, {} at offset {}",
            place.sequence,
            file.display(),
            place.offset
        ))
    }

    /// Whether a frame is read whole: a small one always, another if half of it will be asked for.
    fn is_read_whole(&self, place: &FramePlace) -> bool {
        let wanted = place
            .next_position
            .min(self.planned_range.end)
            .saturating_sub(place.first_position.max(self.planned_range.start));
        let half = wanted >= (place.next_position - place.first_position) / 2;
        place.len() <= if self.sequential && half { WHOLE_BYTES } else { SMALL_FRAME_BYTES }
    }

    fn load(&mut self, place: FramePlace) -> Result<CurrentFrame> {
        let whole = self.is_read_whole(&place);
        let head = match self.segments.kept_head(&place).filter(|_| !whole) {
            Some(head) => head,
            None if !whole => {
                let head = Arc::new(self.large_head(&place)?);
                self.segments.keep_head(&place, &head);
                head
            }
            None => {
                let header = FrameHeader::decode(&self.bytes(&place, 0..HEADER_BYTES as u64)?)?;
                let rows = header.rows(&self.bytes(&place, 0..header.prelude_len() as u64)?)?;
                Arc::new(FrameHead { header, rows })
            }
        };
        let chained = &head.header.chained;
        if chained.first.0 != place.first_position || chained.sequence != place.sequence {
            return Err(Error::damaged("another frame lies where this one should"));
        }
        let (walk, end_position) = (head.rows.walk(), chained.tree_size());
        Ok(CurrentFrame { place, whole, walk, end_position, head })
    }

    /// Header and directory of a large frame.
    fn large_head(&mut self, place: &FramePlace) -> Result<FrameHead> {
        let guess = (place.len() / PRELUDE_PART).clamp(HEADER_BYTES, PRELUDE_BYTES);
        self.read_prelude(place, 0, guess)?;
        let header = FrameHeader::decode(&self.prelude)?;
        if header.prelude_len() > guess {
            self.read_prelude(place, guess, header.prelude_len())?;
        }
        let rows = header.rows(&self.prelude)?;
        Ok(FrameHead { header, rows })
    }

    /// Reads the beginning of a frame up to byte `end`; it is known up to byte `from`.
    fn read_prelude(&mut self, place: &FramePlace, from: usize, end: usize) -> Result<()> {
        let mut prelude = std::mem::take(&mut self.prelude);
        if prelude.len() < end {
            prelude.resize(end, 0);
        }
        let n = read_full(self.file(place.segment)?, &mut prelude[from..end], place.offset + from as u64)?;
        self.prelude = prelude;
        if from + n < end {
            return Err(ends_early((from + n) as u64));
        }
        Ok(())
    }

    fn event_of(&mut self, current: &mut CurrentFrame, position: Position) -> Result<StoredEvent> {
        let index = (position.0 - current.place.first_position) as usize;
        let missing = || Error::damaged("the directory ends before this event");
        let place = current.walk.place(index).ok_or_else(missing)?;
        match place.together() {
            Some(event) => {
                let event = match current.whole {
                    true => self.bytes(&current.place, event)?,
                    false => self.ranged(current, event, index)?,
                };
                current.head.header.event_together(&place, event)
            }
            None => {
                let entry = self.bytes(&current.place, place.entry())?;
                let parts = self.bytes(&current.place, place.parts())?;
                current.head.header.event(&place, entry, parts)
            }
        }
    }

    /// An event of a large frame: from what was read last, or read together with what is planned and close.
    fn ranged(&mut self, current: &mut CurrentFrame, event: Range<u64>, index: usize) -> Result<Bytes> {
        let CurrentFrame { place, walk, .. } = current;
        let (offset, len) = (place.offset + event.start, (event.end - event.start) as usize);
        if let Some(bytes) = self.chunk.as_ref().and_then(|chunk| chunk.get(place.segment, offset, len)) {
            return Ok(bytes);
        }
        let Range { mut start, mut end } = event;
        let position = place.first_position + index as u64;
        let following = if self.sequential { position + 1..self.planned_range.end } else { 0..0 };
        let planned = self.behind(position);
        for position in planned.iter().copied().chain(following) {
            let index = position.checked_sub(place.first_position).and_then(|i| usize::try_from(i).ok());
            let near = index.and_then(|index| walk.place(index)).and_then(|place| place.together());
            let Some(near) = near else { break };
            let all = start.min(near.start)..end.max(near.end);
            if near.start > end + GAP_BYTES
                || start > near.end + GAP_BYTES
                || all.end - all.start > RANGE_BYTES
            {
                break;
            }
            Range { start, end } = all;
        }
        let mut all = (end - start) as usize;
        self.chunk = None;
        let buffer = if all > len { self.buffer(all) } else { self.event_buffer(len) };
        let mut chunk = match self.read(place, start, buffer, all) {
            // What cannot be read may lie beside what was asked for.
            Err(_) if all > len => {
                (start, all) = (event.start, len);
                self.read(place, start, self.buffer(all), all)?
            }
            chunk => chunk?,
        };
        if all == len {
            // Nothing is left to read another event from.
            return Ok(std::mem::take(&mut chunk.bytes));
        }
        chunk.spare = self.spare();
        let bytes = chunk.get(place.segment, offset, len);
        self.chunk = Some(chunk);
        bytes.ok_or_else(|| Error::damaged("a range that does not hold the event it was read for"))
    }

    /// What is planned behind a position, if that is planned itself.
    fn behind(&mut self, position: u64) -> &[u64] {
        let ahead = &self.planned[self.planned_at.min(self.planned.len())..];
        match ahead.iter().position(|planned| *planned == position) {
            Some(steps) => {
                self.planned_at += steps;
                &self.planned[self.planned_at + 1..]
            }
            None => &[],
        }
    }

    /// The chained part of a frame's header, which can be read of a frame whose body is damaged too.
    pub(crate) fn chained(&mut self, place: &FramePlace) -> Result<Chained> {
        if place.pack.is_none()
            && let Ok(start) = self.bytes(place, 0..HEADER_BYTES as u64)
        {
            return Ok(FrameHeader::decode(&start)?.chained);
        }
        Ok(self.frame(place)?.chained().clone())
    }

    /// A whole frame.
    pub(crate) fn frame(&mut self, place: &FramePlace) -> Result<Frame> {
        match self.frame_once(place) {
            // Packed, or merged, since its place was looked up.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.segments.adopt_packs()?;
                (self.chunk, self.file, self.frames) = (None, None, None);
                let found = self.segments.frame_number(place.sequence)?;
                let found = found.filter(|found| found.sequence == place.sequence);
                let gone = || Error::damaged(format!("frame {} cannot be found any more", place.sequence));
                self.frame_once(&found.ok_or_else(gone)?).map_err(unreadable)
            }
            frame => frame,
        }
    }

    fn frame_once(&mut self, place: &FramePlace) -> Result<Frame> {
        let Some(pack) = &place.pack else {
            let len = FrameHeader::decode(&self.bytes(place, 0..HEADER_BYTES as u64)?)?.frame_len();
            return Frame::decode(self.bytes(place, 0..len as u64)?);
        };
        let path = pack.path(self.segments.dir());
        let mut frames = match self.frames.take() {
            Some(frames) if frames.next_sequence() == place.sequence => frames,
            _ => PackFrames::new(self.segments.open_pack(pack)?, place.sequence)
                .map_err(|e| e.context(path.display()))?,
        };
        loop {
            let frame = frames.frame().map_err(|e| e.context(path.display()))?;
            if frame.chained().sequence == place.sequence {
                if frames.next_sequence() < pack.end_sequence {
                    self.frames = Some(frames);
                }
                return Ok(frame);
            }
        }
    }

    /// What a pack remembers of a frame, if it is in one.
    pub(crate) fn packed_frame(&self, place: &FramePlace) -> Option<PackedFrame> {
        self.segments.open_pack(place.pack.as_ref()?).ok()?.frame_number(place.sequence).ok()
    }

    /// Bytes of a frame. Reads more at once where the rest is likely to be wanted.
    fn bytes(&mut self, place: &FramePlace, range: Range<u64>) -> Result<Bytes> {
        let (from, len) = (range.start, (range.end - range.start) as usize);
        let offset = place.offset + from;
        if let Some(bytes) = self.chunk.as_ref().and_then(|chunk| chunk.get(place.segment, offset, len)) {
            return Ok(bytes);
        }
        let frame_len = place.len();
        // Where the whole frame will be wanted it is read from its start.
        let (start, wanted) = if self.sequential && frame_len <= WHOLE_BYTES {
            (0, frame_len.max(self.planned_from(place)))
        } else if frame_len <= SMALL_FRAME_BYTES {
            (0, frame_len)
        } else {
            (from, len)
        };
        let least = (from - start) as usize + len;
        self.chunk = None;
        let chunk = match self.read(place, start, self.buffer(wanted.max(least)), least) {
            // What cannot be read may lie before or behind what was asked for.
            Err(_) if wanted.max(least) > len => self.read(place, from, self.buffer(len), len)?,
            chunk => chunk?,
        };
        let spare = self.spare();
        let chunk = self.chunk.insert(chunk);
        chunk.spare = spare;
        chunk
            .get(place.segment, offset, len)
            .ok_or_else(|| Error::damaged("a chunk that does not hold the bytes it was read for"))
    }

    /// Memory to read into.
    fn buffer(&self, len: usize) -> BytesMut {
        match self.sequential {
            true => self.segments.spare.take(len),
            false => BytesMut::zeroed(len),
        }
    }

    /// Memory to read an event into, taken at once for several that are planned: they are let go of together, nearly always.
    fn event_buffer(&mut self, len: usize) -> BytesMut {
        let planned = self.planned.len().saturating_sub(self.planned_at);
        if self.sequential || planned < 2 || len > EVENTS_BYTES / 4 {
            return self.buffer(len);
        }
        if self.free.len() < len {
            self.free = BytesMut::zeroed((planned * len).min(EVENTS_BYTES));
        }
        self.free.split_to(len)
    }

    /// Where the memory of a chunk goes afterwards.
    fn spare(&self) -> Option<Arc<Spare>> {
        self.sequential.then(|| self.segments.spare.clone())
    }

    /// How much a sequential reader reads at once from a frame on: up to where what is planned ends, if that is not far.
    fn planned_from(&self, place: &FramePlace) -> usize {
        let end = self.planned_range.end;
        let last = end.checked_sub(1).filter(|_| end < u64::MAX);
        let left = match last.map(|last| self.segments.locate(last)) {
            Some(Ok(EventPlace::Frame(last))) if last.segment == place.segment => {
                last.end.checked_sub(place.offset).and_then(|left| usize::try_from(left).ok())
            }
            _ => None,
        };
        left.filter(|left| *left <= WHOLE_BYTES).unwrap_or(CHUNK_BYTES)
    }

    /// The file of a segment; that of the last one is at hand.
    fn file(&mut self, segment: u32) -> Result<&dyn IoFile> {
        if self.file.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.file = Some((segment, self.segments.file(segment)?));
        }
        let (_, file) = self.file.as_ref().expect("it was just opened");
        Ok(&**file)
    }

    /// Reads bytes of a frame into a buffer, at least so many of them.
    fn read(&mut self, place: &FramePlace, from: u64, mut buffer: BytesMut, least: usize) -> Result<Chunk> {
        let start = place.offset + from;
        let n = read_full(self.file(place.segment)?, &mut buffer, start)?;
        if n < least {
            return Err(ends_early(start + n as u64 - place.offset));
        }
        buffer.truncate(n);
        let cost = buffer.capacity();
        Ok(Chunk { segment: place.segment, start, bytes: buffer.freeze(), cost, spare: None })
    }
}

fn ends_early(bytes: u64) -> Error {
    Error::damaged(format!("the file ends {bytes} bytes into this frame"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_memory_stays_within_its_limit() {
        let spare = Spare::default();
        // All at once, as if events of earlier pages held them.
        let all: Vec<Bytes> = (0..64).map(|_| BytesMut::zeroed(2 << 20).freeze()).collect();
        for mut bytes in all {
            // Each is used for less and less, as frames and shares become smaller.
            for len in [512 << 10, 128 << 10, 32 << 10, 16 << 10] {
                let alone = Spare::default();
                alone.put(bytes, 2 << 20);
                let taken = alone.take(len);
                assert_eq!(taken.len(), len);
                bytes = taken.freeze();
            }
            let taken = bytes.try_into_mut().unwrap();
            let cost = taken.capacity();
            spare.put(taken.freeze(), cost);
        }
        let kept = std::mem::take(&mut *spare.0.lock().unwrap());
        assert!(!kept.is_empty());
        let held: usize = kept.into_iter().map(|(bytes, _)| bytes.try_into_mut().unwrap().capacity()).sum();
        assert!(held <= SPARE_BYTES_MAX, "{held} bytes are held, {SPARE_BYTES_MAX} allowed");
    }
}

//! Sealed segments become packs, and small packs become larger ones.
//!
//! It happens beside the writer, oldest first, and every step can be the last one before a crash:
//!
//! 1. every frame is read and checked, down to its commitments, and written into `NAME.pack.tmp`; that is synced;
//! 2. the new file is read back, and every header, entry and part is compared with where it came from;
//! 3. it is renamed to `NAME.pack`, and the directory synced: from here on it counts, and readers use it;
//! 4. what it was made from is removed.
//!
//! A crash before 3 leaves a temporary file, which the next writer removes; a crash before 4 leaves files that hold what the
//! pack holds, which nobody looks at and the next writer removes. What does not check out is left as it
//! is and stays a finding: a damaged segment is never packed.

use std::sync::Arc;

use precedent_core::frame::Frame;
use precedent_core::tree::{Tree, leaf_hash};
use precedent_core::{Error, Hash, Result};

use crate::io::Mode;
use crate::log::Log;
use crate::pack::{self, OpenPack, Pack, PackFrames, PackWriter};
use crate::reader::FrameReader;
use crate::recovery::read_whole;
use crate::segment::{FramePlace, Segments, Step, Unit, next_nonzero};

/// Less than this is not worth the syncs of a pack.
const WORTH_BYTES: u64 = 64 << 10;
/// So many neighbouring packs are merged …
const MERGE_PACKS: usize = 8;
/// … if they are not more than this together: about what a full segment becomes.
const MERGED_BYTES_MAX: u64 = 32 << 20;

/// Whether the active segment holds enough that sealing and packing it now is worth its syncs.
pub(crate) fn worth_packing(log: &Log) -> bool {
    let (_, end) = log.segments.active_end();
    log.settings.pack && end >= WORTH_BYTES.min(log.settings.segment_bytes)
}

/// Packs what is sealed, oldest first, and merges small packs. `go_on` is asked after
/// every frame; what is at work when it says no is given up, without a trace.
pub(crate) fn pack(log: &Log, go_on: &dyn Fn() -> bool) {
    let mut failed = None;
    for (number, first, end) in log.segments.sealed() {
        if let Err(error) = make(log, (number, number), first, end, go_on) {
            if !go_on() {
                return;
            }
            // The next one may be whole.
            failed.get_or_insert(error);
        }
    }
    while let Some(packs) = due(&log.segments.packs()) {
        let (first, last) = (&packs[0], &packs[packs.len() - 1]);
        let range = (first.first_segment, last.last_segment);
        match make(log, range, first.first_sequence, last.end_sequence, go_on) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) if !go_on() => return,
            Err(error) => {
                failed.get_or_insert(error);
                break;
            }
        }
    }
    *log.packing.lock().unwrap_or_else(|p| p.into_inner()) = failed;
}

/// Neighbours that are to be merged: none of them is more than half of them all, so that merging a byte at
/// least doubles the pack it is in.
fn due(packs: &[Arc<Pack>]) -> Option<Vec<Arc<Pack>>> {
    packs.windows(MERGE_PACKS).find_map(|window| {
        let all: u64 = window.iter().map(|pack| pack.bytes).sum();
        let largest = window.iter().map(|pack| pack.bytes).max()?;
        let adjacent = window.windows(2).all(|w| w[0].last_segment + 1 == w[1].first_segment);
        (adjacent && all <= MERGED_BYTES_MAX && largest <= all / 2).then(|| window.to_vec())
    })
}

/// Removes what a crash has left: temporary files, and files that a pack holds too.
pub(crate) fn tidy(log: &Log) -> Result<()> {
    let (_, _, covered) = Segments::list_all(&*log.io, &log.dir)?;
    let known = log.segments.packs();
    for unit in covered {
        // Only a pack that could be opened counts.
        if known.iter().any(|p| p.first_segment <= unit.first && unit.last <= p.last_segment) {
            remove(log, &unit)?;
        }
    }
    for name in log.io.list(&log.dir)? {
        if name.ends_with(TEMPORARY) {
            log.io.remove(&log.dir.join(name))?;
        }
    }
    Ok(())
}

const TEMPORARY: &str = ".pack.tmp";

fn remove(log: &Log, unit: &Unit) -> std::io::Result<()> {
    let path = log.dir.join(unit.file_name());
    if !unit.packed {
        let _ = log.io.remove(&path.with_extension("map"));
    }
    log.io.remove(&path)
}

/// Makes a pack of the frames from `first` to `end`, which are those of these segments; answers whether it took
/// their place.
fn make(log: &Log, range: (u32, u32), first: u64, end: u64, go_on: &dyn Fn() -> bool) -> Result<bool> {
    let name = pack::file_name(range.0, range.1);
    let path = log.dir.join(&name);
    let temporary = path.with_extension("pack.tmp");
    let made = write(log, &temporary, range, first, end, go_on)
        .and_then(|last| compare(log, &temporary, range, first, last, go_on));
    if let Err(error) = made {
        let _ = log.io.remove(&temporary);
        return Err(error.context(format!("making {name}")));
    }
    // Somebody reads the files as they are: then another time.
    let Ok(_alone) = log.files.try_write() else {
        let _ = log.io.remove(&temporary);
        return Ok(false);
    };
    log.io.rename(&temporary, &path)?;
    log.io.sync_dir(&log.dir)?;
    let old = Segments::list_all(&*log.io, &log.dir)?.2;
    log.segments.put_pack(Pack::open(&*log.io, &log.dir, range, log.id)?);
    for unit in old.iter().filter(|unit| range.0 <= unit.first && unit.last <= range.1) {
        remove(log, unit)?;
    }
    log.io.sync_dir(&log.dir)?;
    Ok(true)
}

fn given_up() -> Error {
    Error::new(precedent_core::ErrorKind::Stopped, "given up")
}

/// Goes through frames that have to be whole and follow each other.
struct Checked<'a> {
    log: &'a Log,
    reader: FrameReader<'a>,
    next: u64,
    tree: Option<Tree>,
    previous: Option<Hash>,
    /// The segment of the last frame, and where that ends.
    behind: Option<(u32, u64)>,
}

impl<'a> Checked<'a> {
    fn new(log: &'a Log, first: u64) -> Self {
        let reader = FrameReader::new(&log.segments, true);
        Self { log, reader, next: first, tree: None, previous: None, behind: None }
    }

    /// A frame of a segment: it has to lie right behind the one before, and its padding has to be zero.
    fn plain(&mut self, place: &FramePlace) -> Result<Frame> {
        let (segment, offset) = (place.segment, place.offset);
        let expected = self.behind.filter(|(before, _)| *before == segment).map_or(0, |(_, end)| end);
        if offset != expected {
            return Err(Error::damaged(format!("something else lies at offset {expected}")));
        }
        let Step::Frame(header, _) = self.log.segments.step(segment, offset, self.log.id)? else {
            return Err(Error::damaged("its header cannot be read"));
        };
        let frame = read_whole(&*self.log.segments.file(segment)?, &header, offset)?;
        self.behind = Some((segment, offset + header.padded_len()));
        Ok(frame)
    }

    /// Nothing but zeros may lie behind the last frame of a segment.
    fn end(&self) -> Result<()> {
        let Some((segment, end)) = self.behind else { return Ok(()) };
        match next_nonzero(&*self.log.segments.file(segment)?, end)? {
            Some(at) => Err(Error::damaged(format!("something lies behind its frames, at offset {at}"))),
            None => Ok(()),
        }
    }

    fn frame(&mut self) -> Result<(Frame, &Tree)> {
        let sequence = self.next;
        let named = |e: Error| e.context(format!("frame {sequence}"));
        let place = self.log.segments.frame_number(sequence)?.filter(|place| place.sequence == sequence);
        let place = place.ok_or_else(|| named(Error::damaged("cannot be found")))?;
        let frame = match &place.pack {
            Some(_) => self.reader.frame(&place).map_err(named)?,
            None => self.plain(&place).map_err(named)?,
        };
        let chained = frame.chained();
        if self.previous.is_some_and(|previous| previous != chained.previous) {
            return Err(named(Error::damaged("does not follow the frame before it")));
        }
        self.previous = Some(chained.hash());
        frame.check_with(self.reader.sources()).map_err(named)?;
        match &mut self.tree {
            Some(tree) => {
                for index in 0..frame.len() {
                    tree.push(leaf_hash(&frame.event(index)?.entry));
                }
            }
            // The first frame of a segment and of a pack carries the edge.
            None => {
                self.tree = Some(
                    frame.tree().ok_or_else(|| named(Error::damaged("carries no right edge of the tree")))?,
                );
            }
        }
        let tree = self.tree.as_ref().expect("it was just made");
        if tree.root() != frame.chained().root {
            return Err(named(Error::damaged("its root does not match its entries")));
        }
        self.next += 1;
        Ok((frame, tree))
    }
}

/// Writes and syncs the temporary file; answers the last frame's hash.
fn write(
    log: &Log,
    temporary: &std::path::Path,
    range: (u32, u32),
    first: u64,
    end: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<Hash> {
    let _ = log.io.remove(temporary);
    let file = log.io.open(temporary, Mode::Create)?;
    let mut writer = PackWriter::new(&*file, range.0, range.1, log.id)?;
    let mut frames = Checked::new(log, first);
    let mut last = None;
    for _ in first..end {
        let (frame, tree) = frames.frame()?;
        writer.push(&frame, tree)?;
        last = Some(frame.chained().clone());
        if !go_on() {
            return Err(given_up());
        }
    }
    frames.end()?;
    let last = last.ok_or_else(|| Error::damaged("no frames"))?;
    let tree = frames.tree.as_ref().expect("there was a frame");
    writer.finish(&last, tree)?;
    file.sync()?;
    Ok(last.hash())
}

/// Reads the temporary file back and compares it with where it came from.
fn compare(
    log: &Log,
    temporary: &std::path::Path,
    range: (u32, u32),
    first: u64,
    last: Hash,
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    let differs = |sequence: u64| Error::damaged(format!("frame {sequence} reads back other than it was"));
    let pack = Pack::read(&*log.io.open(temporary, Mode::Read)?, range.0, range.1, log.id)?;
    let end = pack.end_sequence;
    if pack.first_sequence != first || pack.last_frame != last {
        return Err(differs(first));
    }
    let open = Arc::new(OpenPack::open(&*log.io, temporary, pack, log.id)?);
    let mut made = PackFrames::new(open, first)?;
    let mut reader = FrameReader::new(&log.segments, true);
    for sequence in first..end {
        let place = log.segments.frame_number(sequence)?.ok_or_else(|| differs(sequence))?;
        let (was, is) = (reader.frame(&place)?, made.frame()?);
        if was.chained() != is.chained() || was.len() != is.len() {
            return Err(differs(sequence));
        }
        for index in 0..was.len() {
            let (was, is) = (was.event(index)?, is.event(index)?);
            if was.entry != is.entry || was.parts != is.parts {
                return Err(differs(sequence));
            }
        }
        if !go_on() {
            return Err(given_up());
        }
    }
    Ok(())
}

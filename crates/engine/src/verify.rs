//! Verification of the files as they lie there: reads every segment from its first byte to its last, trusts
//! no map, no index and no open handle, and never writes.

use std::path::Path;
use std::sync::Arc;

use precedent_core::frame::is_zero;
use precedent_core::store::Progress;
use precedent_core::verify::{Expect, Problem, Report, UnchainedFrame, Verifier};
use precedent_core::{Error, ErrorKind, LogId, Position, Result};

use crate::io::{Io, IoFile, Mode, read_file, read_full};
use crate::meta::{CLEAN_FILE, LogMeta, Mark};
use crate::pack::{Block, OpenPack, Pack, Unpacker};
use crate::reader::SourceReader;
use crate::recovery::{claims, read_whole};
use crate::segment::{SegmentMap, Segments, Step, Unit, step};

/// Verifies the log in `dir`. Frames from number `limit` on are left out: a writer is at work on them. If a file
/// is gone that was listed a moment ago, a writer in another process has packed it: then there is no answer if the caller can ask `again`.
pub(crate) fn verify(
    io: &Arc<dyn Io>,
    dir: &Path,
    limit: Option<u64>,
    size: u64,
    expect: Option<Expect>,
    progress: Progress<'_>,
    again: bool,
) -> Result<Option<Report>> {
    let mut verifier = Verifier::new(expect);
    let note = |verifier: &mut Verifier, place: Option<String>, message: String| {
        verifier.problem(Problem { frame: None, position: None, place, message });
    };
    let id = match LogMeta::read(&**io, dir) {
        // A log that nothing has been recorded in.
        Ok(None) => return Ok(Some(verifier.finish())),
        Ok(Some(meta)) => Some(meta.id),
        Err(error) => {
            note(
                &mut verifier,
                Some(dir.join(crate::meta::LOG_FILE).display().to_string()),
                error.to_string(),
            );
            None
        }
    };
    // Read before the segments: whoever knew of so many frames then has to be right.
    let claim = match (limit, id) {
        (Some(limit), _) => Some((limit, "its writer".to_owned())),
        (None, Some(id)) => claims(&**io, dir, id),
        (None, None) => None,
    };
    let (units, missing) = Segments::list(&**io, dir)?;
    if let Some(missing) = missing {
        note(&mut verifier, None, missing.to_string());
    }
    // What events refer to is looked up in what has been seen so far, by headers and never by a saved map.
    let log = id.or_else(|| units.first().and_then(|unit| log_of(&**io, dir, unit)));
    let seen = Segments::new(io.clone(), dir.to_owned(), log.unwrap_or(LogId([0; 16])), false).without_maps();
    let mut reading = Reading {
        seen: &seen,
        sources: SourceReader::new(&seen),
        id,
        limit,
        size,
        verifier: &mut verifier,
        progress,
    };
    for (index, unit) in units.iter().enumerate() {
        let path = dir.join(unit.file_name());
        let is_last = index + 1 == units.len();
        if unit.packed {
            if again && io.open(&path, Mode::Read).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
                return Ok(None);
            }
            reading.pack(io, dir, unit)?;
            continue;
        }
        match io.open(&path, Mode::Read) {
            // Packed since it was listed.
            Err(error) if again && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Ok(file) => reading.segment(&*file, &path, unit.first, is_last)?,
            Err(error) => note(reading.verifier, Some(path.display().to_string()), error.to_string()),
        }
    }
    let clean = dir.join(CLEAN_FILE);
    if let (Some(id), Ok(bytes)) = (id, read_file(&**io, &clean))
        && Mark::decode(&bytes, id).is_none()
    {
        note(&mut verifier, Some(clean.display().to_string()), "the mark does not match its checksum".into());
    }
    if let Some((frames, by)) = claim
        && frames > verifier.next_sequence()
    {
        let message = format!(
            "{} frames are there, but {by} knows of {frames}: the tail is missing",
            verifier.next_sequence()
        );
        note(&mut verifier, None, message);
    }
    Ok(Some(verifier.finish()))
}

/// The log that a file says it belongs to, if the log's own file does not say.
fn log_of(io: &dyn Io, dir: &Path, unit: &Unit) -> Option<LogId> {
    let file = io.open(&dir.join(unit.file_name()), Mode::Read).ok()?;
    if unit.packed {
        let mut header = [0; 32];
        read_full(&*file, &mut header, 0).ok()?;
        return Some(LogId(header[16..32].try_into().expect("16 bytes")));
    }
    match step(&*file, 0, None).ok()? {
        Step::Frame(header, _) => Some(header.chained.log),
        _ => None,
    }
}

/// Reading a log from its first byte to its last.
struct Reading<'a> {
    seen: &'a Segments,
    sources: SourceReader<'a>,
    id: Option<LogId>,
    limit: Option<u64>,
    size: u64,
    verifier: &'a mut Verifier,
    progress: Progress<'a>,
}

impl Reading<'_> {
    fn step_forward(&mut self) {
        let size = self.verifier.size();
        (self.progress)(size, self.size.max(size));
    }

    fn segment(&mut self, file: &dyn IoFile, path: &Path, number: u32, is_last: bool) -> Result<()> {
        let (id, limit) = (self.id, self.limit);
        let mut offset = 0;
        let mut begun = false;
        loop {
            let place = |at: u64| format!("{} at offset {at}", path.display());
            match step(file, offset, id).map_err(|e| e.context(path.display()))? {
                Step::Frame(header, _) if limit.is_some_and(|limit| header.chained.sequence >= limit) => {
                    return Ok(());
                }
                Step::Frame(header, at) => {
                    let chained = &header.chained;
                    if !std::mem::replace(&mut begun, true) {
                        self.seen.start_segment(SegmentMap::new(number, chained.first.0, chained.sequence));
                    }
                    self.seen.push_ordered(chained, at, header.padded_len());
                    match read_whole(file, &header, at) {
                        Ok(frame) => self.verifier.frame_with(&frame, Some(&place(at)), &mut self.sources),
                        Err(error) => {
                            let torn = is_last && limit.is_none() && is_torn(file, &header, at, id)?;
                            if torn {
                                return Ok(());
                            }
                            self.verifier.unreadable(Some(place(at)), error.to_string());
                        }
                    }
                    self.step_forward();
                    offset = at + header.padded_len();
                }
                Step::Hole(hole) => {
                    // Beside a writer: what it is at work on, unless more was published than was found so far.
                    let at_work = limit.is_some_and(|limit| self.verifier.next_sequence() >= limit);
                    if is_last && at_work {
                        return Ok(());
                    }
                    let mut sector = vec![0; precedent_core::frame::SECTOR_BYTES];
                    read_full(file, &mut sector, hole.start)?;
                    let ends_the_log = hole.end >= file.len()? && is_last;
                    // What a dying writer left of a frame whose first sector never arrived.
                    if limit.is_some() || !(ends_the_log && is_zero(&sector)) {
                        self.verifier.unreadable(Some(place(hole.start)), hole.message);
                    }
                    offset = hole.end;
                }
                Step::End => return Ok(()),
            }
        }
    }

    /// Every event of a pack is read and every group held against what its frames come to.
    fn pack(&mut self, io: &Arc<dyn Io>, dir: &Path, unit: &Unit) -> Result<()> {
        let path = dir.join(unit.file_name());
        let place = path.display().to_string();
        let log = self.seen.log();
        let open = Pack::open(&**io, dir, (unit.first, unit.last), log)
            .and_then(|pack| OpenPack::open(&**io, &path, pack, log).map_err(|e| e.context(path.display())));
        let open = match open {
            Ok(open) => open,
            Err(e) if e.kind() == ErrorKind::UnsupportedFormat => return Err(e),
            Err(error) => {
                self.verifier.unreadable(Some(place), error.to_string());
                return Ok(());
            }
        };
        self.seen.put_pack(open.pack.clone());
        let mut unpacker = Unpacker::new(true)?;
        let mut block: Option<Result<Block>> = None;
        let mut block_number = usize::MAX;
        for number in 0..open.group_count() {
            let group = match open.group(number) {
                Ok(group) => group,
                Err(error) => {
                    // Where its frames begin and end is not known, so there is nothing to hold its events against.
                    self.verifier.unreadable(Some(place.clone()), error.to_string());
                    let (sequence, position) = open.group_end(number);
                    self.verifier.skip_to(sequence, position);
                    continue;
                }
            };
            for (index, packed) in group.frames.iter().enumerate() {
                let events = (0..packed.count).map(|index| {
                    let position = Position(packed.first.0 + u64::from(index));
                    if open.block_of(position) != block_number {
                        block_number = open.block_of(position);
                        block = Some(open.block(block_number, &mut unpacker));
                    }
                    match block.as_ref().expect("it was just read") {
                        Ok(block) => Ok(block.event(position)),
                        Err(error) => Err(error.clone()),
                    }
                });
                let stored = (index == 0).then_some((group.previous, &group.tree));
                let frame = UnchainedFrame {
                    log,
                    sequence: packed.sequence,
                    first: packed.first,
                    id: packed.id,
                    writer: packed.writer,
                    stored,
                };
                self.verifier.unchained(&frame, events, Some(&place), &mut self.sources);
                self.step_forward();
            }
        }
        self.verifier.check_end(open.pack.last_frame, &open.tree, Some(&place));
        Ok(())
    }
}

/// Whether an invalid frame is what a dying writer left; see the rule in `recovery`.
fn is_torn(
    file: &dyn IoFile,
    header: &precedent_core::frame::FrameHeader,
    at: u64,
    id: Option<LogId>,
) -> Result<bool, Error> {
    if !matches!(step(file, at + header.padded_len(), id)?, Step::End) {
        return Ok(false);
    }
    let mut bytes = vec![0; header.padded_len() as usize];
    read_full(file, &mut bytes, at)?;
    Ok(bytes.chunks(precedent_core::frame::SECTOR_BYTES).any(is_zero))
}

//! Opening a log: finding its end, telling a torn frame from a damaged one, and what the writer goes on from.
//!
//! # Torn or damaged?
//!
//! One frame is in flight at a time, and it is acknowledged only after its sync. So a crash can leave at most
//! one frame unfinished, the last, and nobody was promised it. What a crash leaves of it are whole sectors:
//! each is what was to be written, or still the zeros that were there before. No sector of an encoded frame
//! is all zero. Therefore an invalid last frame is **torn** exactly if
//!
//! - some sector of it is all zero (or lies behind the end of the file),
//! - nothing valid follows it, and
//! - no mark and no index run knows of a frame at or behind its place.
//!
//! A torn frame is zeroed and synced before anything is appended, and that is said. Anything else that is
//! not valid is **damage**: it is never repaired, and the log opens read-only.
//!
//! After a crash the last valid frame may be in the page cache only. It is written and synced again before
//! anything is served.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use precedent_core::entry::Entry;
use precedent_core::frame::{Frame, FrameHeader, SECTOR_BYTES, is_zero};
use precedent_core::sequencer::LogState;
use precedent_core::store::{Finding, Severity};
use precedent_core::tree::{Tree, leaf_hash};
use precedent_core::{Error, ErrorKind, Hash, LogId, Position, Result, Time};

use crate::index::Index;
use crate::index::run::{self, Run};
use crate::io::{Io, IoFile, Mode, read_full};
use crate::meta::{CLEAN_FILE, Mark, PUBLISHED_FILE};
use crate::mirror::Hole;
use crate::reader::FrameReader;
use crate::segment::{FramePlace, SegmentMap, Segments, Step, Unit, next_nonzero};

/// What was found at the end of a log.
pub(crate) struct Tail {
    /// The segment that is appended to.
    pub(crate) segment: u32,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// The number of frames.
    pub(crate) frames: u64,
    /// The number of events.
    pub(crate) size: u64,
    /// The hash of the last frame's chained part.
    pub(crate) last_frame: Hash,
    /// An unfinished frame: from the end of the log to here there is something that is not zero.
    pub(crate) torn_until: Option<u64>,
    /// What is wrong, if the log must not be written to.
    pub(crate) damage: Option<Error>,
}

/// Reads a log's segments as far as needed to know where it ends. `limit`: frames from this number on are
/// not looked at, because a writer is at work on them.
pub(crate) fn find_tail(segments: &Segments, units: &[Unit], log: LogId, limit: Option<u64>) -> Result<Tail> {
    let mut damage: Option<Error> = None;
    let mut tail = Tail {
        segment: 0,
        offset: 0,
        frames: 0,
        size: 0,
        last_frame: Hash::ZERO,
        torn_until: None,
        damage: None,
    };
    let units = published_units(segments, units, log, limit)?;
    let Some((&last, sealed)) = units.split_last() else { return Ok(tail) };
    for unit in sealed {
        if unit.packed {
            add_pack(segments, unit, log, &mut damage)?;
            continue;
        }
        // Of a sealed segment only the beginning is read.
        let (number, mut offset) = (unit.first, 0);
        loop {
            match segments.step(number, offset, log)? {
                Step::Frame(header, _) => {
                    segments.add_sealed(number, header.chained.first.0, header.chained.sequence);
                    break;
                }
                Step::Hole(hole) => {
                    damage.get_or_insert_with(|| hole_error(segments, number, hole.start, &hole.message));
                    offset = hole.end;
                }
                Step::End => break,
            }
        }
    }
    // The last segment can be without a frame: then the log ends with the one before.
    match sealed.last() {
        Some(before) if before.packed => end_with_pack(segments, &mut tail),
        Some(before) => {
            scan(segments, before.first, log, limit, &mut tail, &mut damage)?;
        }
        None => {}
    }
    if last.packed {
        // It is sealed too: the next frame begins a segment that is not there yet.
        if add_pack(segments, &last, log, &mut damage)? {
            end_with_pack(segments, &mut tail);
        }
        (tail.segment, tail.offset) = (last.last + 1, 0);
        segments.start_segment(SegmentMap::new(tail.segment, tail.size, tail.frames));
        tail.damage = damage;
        return Ok(tail);
    }
    let (frames_before, size_before) = (tail.frames, tail.size);
    let map = scan(segments, last.first, log, limit, &mut tail, &mut damage)?;
    let map = map.unwrap_or_else(|| SegmentMap::new(last.first, size_before, frames_before));
    if tail.segment != last.first {
        (tail.segment, tail.offset) = (last.first, 0);
    }
    segments.start_segment(map);
    tail.damage = damage;
    Ok(tail)
}

/// Adds a pack; answers whether it could be opened.
fn add_pack(segments: &Segments, unit: &Unit, log: LogId, damage: &mut Option<Error>) -> Result<bool> {
    match segments.add_pack(unit, log) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnsupportedFormat => Err(e),
        Err(e) => {
            damage.get_or_insert(Error::damaged(e.message().to_owned()));
            Ok(false)
        }
    }
}

fn end_with_pack(segments: &Segments, tail: &mut Tail) {
    if let Some(pack) = segments.packs().last() {
        (tail.frames, tail.size) = (pack.end_sequence, pack.end_position);
        (tail.last_frame, tail.segment, tail.offset) = (pack.last_frame, pack.last_segment, 0);
    }
}

/// Without those at the end whose first frame is not published yet.
fn published_units<'n>(
    segments: &Segments,
    mut units: &'n [Unit],
    log: LogId,
    limit: Option<u64>,
) -> Result<&'n [Unit]> {
    while let (Some(limit), [before @ .., last]) = (limit, units) {
        if last.packed || before.is_empty() {
            break;
        }
        match segments.step(last.first, 0, log)? {
            Step::Frame(header, _) if header.chained.sequence >= limit => units = before,
            _ => break,
        }
    }
    Ok(units)
}

fn hole_error(segments: &Segments, number: u32, offset: u64, message: &str) -> Error {
    Error::damaged(format!("{} at offset {offset}: {message}", segments.path(number).display()))
}

/// Scans one segment to its end, header by header, from its saved map on if there is one.
fn scan(
    segments: &Segments,
    number: u32,
    log: LogId,
    limit: Option<u64>,
    tail: &mut Tail,
    damage: &mut Option<Error>,
) -> Result<Option<SegmentMap>> {
    let file = segments.file(number)?;
    let mut map = None;
    let mut last: Option<(FrameHeader, u64)> = None;
    let mut offset = 0;
    if let Some(saved) = segments.saved_map(number)
        && let Some(place) = saved.last()
        && let Step::Frame(header, at) = segments.step(number, place.offset, log)?
        && header.chained.sequence == place.sequence
        && header.chained.tree_size() == saved.end_position
        && limit.is_none_or(|limit| place.sequence < limit)
    {
        offset = at + header.padded_len();
        last = Some((*header, at));
        map = Some(saved);
    }
    let end = loop {
        match segments.step(number, offset, log)? {
            Step::Frame(header, at) => {
                if limit.is_some_and(|limit| header.chained.sequence >= limit) {
                    break offset;
                }
                let expected = match &last {
                    Some((before, _)) => Some((before.chained.sequence + 1, before.chained.hash())),
                    None if tail.frames > 0 => Some((tail.frames, tail.last_frame)),
                    None => None,
                };
                let follows =
                    expected.is_none_or(|e| e == (header.chained.sequence, header.chained.previous));
                if !follows {
                    let message =
                        format!("frame {} does not follow the frame before it", header.chained.sequence);
                    damage.get_or_insert_with(|| hole_error(segments, number, at, &message));
                }
                map.get_or_insert_with(|| {
                    SegmentMap::new(number, header.chained.first.0, header.chained.sequence)
                })
                .push(&header.chained, at, header.padded_len());
                offset = at + header.padded_len();
                last = Some((*header, at));
            }
            Step::Hole(hole) if limit.is_some() => match segments.step(number, hole.end, log)? {
                // What is published is durable: a hole before it is damage.
                Step::Frame(next, _) if limit.is_some_and(|limit| next.chained.sequence < limit) => {
                    damage.get_or_insert_with(|| hole_error(segments, number, hole.start, &hole.message));
                    offset = hole.end;
                }
                _ => break hole.start,
            },
            Step::Hole(hole) => {
                let follows = matches!(segments.step(number, hole.end, log)?, Step::Frame(..));
                let mut sector = [0; SECTOR_BYTES];
                read_full(&*file, &mut sector, hole.start)?;
                if !follows && is_zero(&sector) {
                    tail.torn_until = Some(hole.end);
                } else {
                    damage.get_or_insert_with(|| hole_error(segments, number, hole.start, &hole.message));
                }
                if !follows {
                    break hole.start;
                }
                offset = hole.end;
            }
            Step::End => break offset,
        }
    };
    let Some((header, at)) = last else { return Ok(map) };
    let mut end = end;
    let mut header = Some(header);
    if limit.is_none()
        && let Some(last) = &header
        && let Err(error) = check_whole(&*file, last, at)
        && known_hole(segments, number, last, at)?.is_none()
    {
        // Something behind it that is not zero was no part of this frame: then it was not the one in flight.
        let nothing_behind = tail.torn_until.is_none();
        if nothing_behind && has_zero_sector(&*file, at, last.padded_len())? {
            tail.torn_until = Some(at + last.padded_len());
            end = at;
            let map_now = map.as_mut().expect("a frame was found, so there is a map");
            header = drop_last(segments, map_now, number, log)?;
        } else {
            damage.get_or_insert_with(|| {
                let message = format!("frame {}: {error}", last.chained.sequence);
                hole_error(segments, number, at, &message)
            });
        }
    }
    (tail.segment, tail.offset) = (number, end);
    if let Some(header) = header {
        tail.frames = header.chained.sequence + 1;
        tail.size = header.chained.tree_size();
        tail.last_frame = header.chained.hash();
    }
    Ok(map)
}

/// Takes the last frame off a map; answers the header of the one before it in the segment.
fn drop_last(
    segments: &Segments,
    map: &mut SegmentMap,
    number: u32,
    log: LogId,
) -> Result<Option<FrameHeader>> {
    let mut shorter = SegmentMap::new(number, map.first_position, map.first_sequence);
    let mut before = None;
    let dropped = map.last().map_or(0, |place| place.offset);
    let mut offset = 0;
    while offset < dropped {
        match segments.step(number, offset, log)? {
            Step::Frame(header, at) => {
                shorter.push(&header.chained, at, header.padded_len());
                offset = at + header.padded_len();
                before = Some(*header);
            }
            Step::Hole(hole) => offset = hole.end,
            Step::End => break,
        }
    }
    *map = shorter;
    Ok(before)
}

/// Reads a frame and checks all of it, padding included.
pub(crate) fn read_whole(file: &dyn IoFile, header: &FrameHeader, at: u64) -> Result<Frame> {
    let mut bytes = vec![0; header.padded_len() as usize];
    let n = read_full(file, &mut bytes, at)?;
    if n < header.frame_len() {
        return Err(Error::damaged(format!(
            "the file ends {n} bytes into a frame of {}",
            header.frame_len()
        )));
    }
    if !is_zero(&bytes[header.frame_len()..]) {
        return Err(Error::damaged("the padding behind the frame is not zero"));
    }
    Frame::decode(Bytes::from(bytes))
}

/// The tree after a frame of a mirror of which only the beginning is known, if it is one.
pub(crate) fn known_hole(
    segments: &Segments,
    number: u32,
    header: &FrameHeader,
    at: u64,
) -> Result<Option<Tree>> {
    if !segments.is_mirror {
        return Ok(None);
    }
    let mut bytes = vec![0; header.frame_len()];
    read_full(&*segments.file(number)?, &mut bytes, at)?;
    Ok(Hole::is_filled(header, &bytes))
}

/// Checks the last frame of a log, as far as it can be told from its own bytes: what it refers to lies before it and
/// is checked when it is read.
fn check_whole(file: &dyn IoFile, header: &FrameHeader, at: u64) -> Result<()> {
    let frame = read_whole(file, header, at)?;
    check_own(&frame)
}

/// The checks of a frame that need no other: checksums, and that its entries are of this log and place.
pub(crate) fn check_own(frame: &Frame) -> Result<()> {
    for index in 0..frame.len() {
        let position = frame.chained().first.0 + index as u64;
        let named = |e: Error| e.context(format!("event {position}"));
        let stored = frame.event(index).map_err(named)?;
        let entry = Entry::decode(&stored.entry).map_err(named)?;
        if entry.log != frame.chained().log || entry.position.0 != position {
            let message = format!("the entry says log {}, position {}", entry.log, entry.position);
            return Err(named(Error::damaged(message)));
        }
        stored.literals(&entry, |_, _, _| Ok(())).map_err(named)?;
    }
    Ok(())
}

fn has_zero_sector(file: &dyn IoFile, at: u64, len: u64) -> Result<bool> {
    let mut bytes = vec![0; len as usize];
    // What lies behind the end of the file was never written: it stays zero here.
    read_full(file, &mut bytes, at)?;
    Ok(bytes.chunks(SECTOR_BYTES).any(is_zero))
}

/// The highest number of frames that something beside the segments knows of, and what that is.
pub(crate) fn claims(io: &dyn Io, dir: &Path, log: LogId) -> Option<(u64, String)> {
    let mark =
        |name: &str| Some((Mark::read(io, &dir.join(name), log)?.frames, format!("the mark '{name}'")));
    let runs = io.list(&dir.join("index")).unwrap_or_default();
    let newest = runs.iter().filter_map(|name| run::range_of(name).map(|(_, end)| (end, name))).max();
    let run = newest.and_then(|(_, name)| {
        let run = Run::open(io, &dir.join("index").join(name), log)?;
        Some((run.coverage.end_sequence, format!("the index run '{name}'")))
    });
    [mark(CLEAN_FILE), mark(PUBLISHED_FILE), run].into_iter().flatten().max_by_key(|(frames, _)| *frames)
}

/// The highest of the two marks. One that is being written at this moment is looked at again.
pub(crate) fn highest_mark(io: &dyn Io, dir: &Path, log: LogId) -> Option<Mark> {
    (0..3).find_map(|_| read_marks(io, dir, log))
}

fn read_marks(io: &dyn Io, dir: &Path, log: LogId) -> Option<Mark> {
    let marks = [CLEAN_FILE, PUBLISHED_FILE].map(|name| Mark::read(io, &dir.join(name), log));
    marks.into_iter().flatten().max_by_key(|mark| mark.frames)
}

/// Whether the last frame may be in the page cache only: unless the log was closed in good order right behind it.
pub(crate) fn needs_settling(io: &dyn Io, dir: &Path, log: LogId, tail: &Tail) -> bool {
    let clean = Mark::read(io, &dir.join(CLEAN_FILE), log);
    clean.is_none_or(|mark| mark.frames != tail.frames || mark.last_frame != tail.last_frame)
}

/// Looks at the frames that a writer in another process has added behind `offset` of `segment`, up to `limit`.
pub(crate) fn extend(segments: &Segments, units: &[Unit], log: LogId, limit: u64) -> Result<Tail> {
    segments.adopt(units)?;
    let (mut segment, mut offset) = segments.active_end();
    let there = |number: u32| units.iter().any(|unit| !unit.packed && unit.first == number);
    let map = segments.active();
    let mut last = None;
    let mut next = map.last().map_or(map.first_sequence, |place| place.sequence + 1);
    while next < limit && there(segment) {
        match segments.step(segment, offset, log)? {
            Step::Frame(header, at) if header.chained.sequence == next => {
                segments.push(&header.chained, at, header.padded_len());
                offset = at + header.padded_len();
                next += 1;
                last = Some(*header);
            }
            // Something before it cannot be read: reads of what is missing name that.
            Step::Frame(header, at) if (next..limit).contains(&header.chained.sequence) => {
                next = header.chained.sequence;
                offset = at;
            }
            Step::Hole(hole) if matches!(segments.step(segment, hole.end, log)?, Step::Frame(..)) => {
                offset = hole.end;
            }
            _ if there(segment + 1) => {
                let Step::Frame(header, 0) = segments.step(segment + 1, 0, log)? else { break };
                (segment, offset) = (segment + 1, 0);
                segments.start_segment(SegmentMap::new(
                    segment,
                    header.chained.first.0,
                    header.chained.sequence,
                ));
            }
            _ => break,
        }
    }
    let (size, last_frame) = match last {
        Some(header) => (header.chained.tree_size(), header.chained.hash()),
        None => (map.end_position, Hash::ZERO),
    };
    Ok(Tail { segment, offset, frames: next, size, last_frame, torn_until: None, damage: None })
}

/// Zeroes a torn frame, so that nothing of it is left when the next one is written over it.
pub(crate) fn discard_torn(io: &dyn Io, path: &Path, tail: &Tail, until: u64) -> Result<Finding> {
    let file = io.open(path, Mode::Write)?;
    let end = until.min(file.len()?).max(tail.offset);
    let zeros = vec![0; 1 << 20];
    let mut at = tail.offset;
    while at < end {
        let n = (end - at).min(zeros.len() as u64);
        file.write_at(&zeros[..n as usize], at)?;
        at += n;
    }
    file.sync()?;
    if let Some(left) = next_nonzero(&*file, tail.offset)? {
        return Err(Error::damaged(format!(
            "{} at offset {left}: not zero behind the end of the log",
            path.display()
        )));
    }
    Ok(Finding {
        code: "torn_frame_discarded",
        severity: Severity::Info,
        message: format!(
            "frame {} was being written when the last writer died; it was never acknowledged and has been discarded \
             ({} at offset {})",
            tail.frames,
            path.display(),
            tail.offset
        ),
    })
}

/// Writes the last frame again and syncs it, for after a crash.
pub(crate) fn settle_last_frame(io: &dyn Io, segments: &Segments, frames: u64) -> Result<()> {
    let Some(place) = frames.checked_sub(1).map(|last| segments.frame_number(last)).transpose()?.flatten()
    else {
        return Ok(());
    };
    // A pack is synced before it takes a segment's place.
    if place.pack.is_some() {
        return Ok(());
    }
    let file = io.open(&segments.path(place.segment), Mode::Write)?;
    let mut bytes = vec![0; place.len()];
    let n = read_full(&*file, &mut bytes, place.offset)?;
    file.write_at(&bytes[..n], place.offset)?;
    file.sync()?;
    Ok(())
}

/// Syncs a segment through a file that is open for reading, where the system allows that. Where it does not,
/// a read-only file system above all, there is nothing that could still be written.
pub(crate) fn sync_for_reading(segments: &Segments, segment: u32) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    let file = match segments.file(segment) {
        Ok(file) => file,
        // The log ends with a pack, which was synced before it counted.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    match file.sync() {
        Err(e) if ![InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported].contains(&e.kind()) => {
            Err(Error::from(e).context(format!("syncing {} failed", segments.path(segment).display())))
        }
        _ => Ok(()),
    }
}

/// The state that the next frame builds on: from the last frame that carries the tree's right edge.
pub(crate) fn load_state(segments: &Segments, log: LogId, tail: &Tail) -> Result<LogState> {
    let mut state = LogState::empty(log);
    if tail.frames == 0 {
        return Ok(state);
    }
    let mut reader = FrameReader::new(segments, false);
    if let Some((tree, first)) = hole_at_the_end(segments, log, tail)? {
        // When the log was last written to is known from what can be read before it.
        let mut before = (0..first).rev();
        let time = before.find_map(|at| Entry::decode(&reader.event(Position(at)).ok()?.entry).ok());
        state.last_time = time.map_or_else(Time::default, |entry| entry.recorded);
        (state.tree, state.next_sequence, state.last_frame) = (tree, tail.frames, tail.last_frame);
        return Ok(state);
    }
    let mut frames = Vec::new();
    for sequence in (0..tail.frames).rev() {
        let place = segments.frame_number(sequence)?.filter(|place| place.sequence == sequence);
        let place = place.ok_or_else(|| Error::damaged(format!("frame {sequence} cannot be read")))?;
        let named = |e: Error| e.context(format!("frame {sequence}, {}", place.shown(segments)));
        if let Some(pack) = place.pack.as_ref().filter(|_| sequence + 1 == tail.frames) {
            // Its index has the edge after its last frame, whatever group that is in.
            state.tree = segments.open_pack(pack).map_err(named)?.tree.clone();
            state.last_time = Entry::decode(&reader.event(Position(tail.size - 1))?.entry)?.recorded;
            break;
        }
        let frame = reader.frame(&place).map_err(named)?;
        check_own(&frame).map_err(named)?;
        let tree = frame.tree();
        frames.push(frame);
        if let Some(tree) = tree {
            state.tree = tree;
            break;
        }
    }
    let packed = frames.is_empty();
    let mut frames = frames.into_iter().rev();
    if state.tree.size() > 0 && !packed {
        let with_edge = frames.next().expect("the frame that carried the edge is the first");
        state.last_time = last_time(&with_edge)?;
        if state.tree.root() != with_edge.chained().root {
            return Err(Error::damaged(format!(
                "frame {}: the right edge does not match the root",
                with_edge.chained().sequence
            )));
        }
    }
    for frame in frames {
        for index in 0..frame.len() {
            state.tree.push(leaf_hash(&frame.event(index)?.entry));
        }
        state.last_time = last_time(&frame)?;
        if state.tree.root() != frame.chained().root {
            let sequence = frame.chained().sequence;
            return Err(Error::damaged(format!("frame {sequence}: the root does not match the entries")));
        }
    }
    state.next_sequence = tail.frames;
    state.last_frame = tail.last_frame;
    Ok(state)
}

/// If the last frame is one of which only the beginning is known: the tree after it, and the position it begins at.
fn hole_at_the_end(segments: &Segments, log: LogId, tail: &Tail) -> Result<Option<(Tree, u64)>> {
    let Some(place) = segments.frame_number(tail.frames - 1)?.filter(|place| place.pack.is_none()) else {
        return Ok(None);
    };
    let Step::Frame(header, at) = segments.step(place.segment, place.offset, log)? else { return Ok(None) };
    let tree = known_hole(segments, place.segment, &header, at)?;
    Ok(tree.map(|tree| (tree, header.chained.first.0)))
}

pub(crate) fn last_time(frame: &Frame) -> Result<Time> {
    Ok(Entry::decode(&frame.event(frame.len() - 1)?.entry)?.recorded)
}

/// Opens the index, and indexes what no run covers. A reader beside a writer does not fill gaps on disk.
pub(crate) fn open_index(
    io: &Arc<dyn Io>,
    dir: &Path,
    segments: &Segments,
    log: LogId,
    tail: &Tail,
    writable: bool,
    flush_bytes: u64,
) -> Result<Index> {
    // Checksums say that a run is what somebody wrote, not that it says the truth: positions are those of the log's frames.
    let belongs = |coverage: &run::Coverage| {
        let place =
            |sequence| segments.frame_number(sequence).ok()?.filter(|place| place.sequence == sequence);
        let last = coverage.end_sequence.checked_sub(1).filter(|last| *last < tail.frames);
        let end = last.and_then(place).and_then(|place| {
            let chained = match &place.pack {
                Some(pack) if pack.end_sequence == coverage.end_sequence => {
                    return Some((pack.last_frame, pack.end_position));
                }
                Some(_) => FrameReader::new(segments, false).frame(&place).ok()?.chained().clone(),
                None => match segments.step(place.segment, place.offset, log).ok()? {
                    Step::Frame(header, _) => header.chained,
                    _ => return None,
                },
            };
            Some((chained.hash(), chained.tree_size()))
        });
        // Where the first frame cannot be read its position is not known.
        let first = place(coverage.first_sequence).map(|place| place.first_position);
        end == Some((coverage.last_frame, coverage.end_position))
            && first.is_none_or(|first| first == coverage.first_position)
    };
    let index = Index::open(io.clone(), dir.join("index"), log, writable, belongs)?;
    index_frames(&index, segments, tail.frames, tail.size, |last_frame| {
        if writable && index.freeze(flush_bytes, last_frame) {
            index.flush_one();
        }
    })?;
    if writable {
        fill_gaps(&index, segments, flush_bytes)?;
    }
    Ok(index)
}

/// Adds all frames behind the index's end to its active table. What cannot be read is indexed as unreadable.
pub(crate) fn index_frames(
    index: &Index,
    segments: &Segments,
    frames: u64,
    size: u64,
    mut each: impl FnMut(Hash),
) -> Result<()> {
    let (mut sequence, mut position) = index.end();
    let mut reader = FrameReader::new(segments, true);
    while sequence < frames {
        let Some(place) = segments.frame_number(sequence)?.filter(|p| p.sequence < frames) else {
            index.add_unreadable(position..size);
            index.add_frame(frames - 1, 0, size, std::iter::empty());
            break;
        };
        index.add_unreadable(position..place.first_position);
        let indexed = read_events(&mut reader, &place);
        let end = indexed.end_position.unwrap_or_else(|| next_position(segments, place.sequence + 1, size));
        let unreadable = |p: &u64| indexed.events.binary_search_by_key(p, |(at, _)| at.0).is_err();
        for at in (place.first_position..end).filter(unreadable) {
            index.add_unreadable(at..at + 1);
        }
        let bytes = indexed.bytes;
        index.add_frame(place.sequence, bytes, end, indexed.events.iter().map(|(p, e)| (*p, e)));
        (sequence, position) = (place.sequence + 1, end);
        each(indexed.hash);
    }
    Ok(())
}

fn next_position(segments: &Segments, sequence: u64, size: u64) -> u64 {
    segments.frame_number(sequence).ok().flatten().map_or(size, |place| place.first_position)
}

struct Indexed {
    events: Vec<(Position, precedent_core::Event)>,
    /// Behind the frame; `None` if not even its header can be read.
    end_position: Option<u64>,
    hash: Hash,
    /// Bytes of the frame.
    bytes: u64,
}

/// What can be read of a frame.
fn read_events(reader: &mut FrameReader<'_>, place: &FramePlace) -> Indexed {
    let first = place.first_position;
    if let Ok(frame) = reader.frame(place) {
        let event = |index: usize| {
            let entry = frame.event(index).and_then(|stored| Entry::decode(&stored.entry)).ok()?;
            Some((Position(first + index as u64), entry.event))
        };
        return Indexed {
            events: (0..frame.len()).filter_map(event).collect(),
            end_position: Some(frame.chained().tree_size()),
            hash: frame.chained().hash(),
            bytes: frame.header.padded_len(),
        };
    }
    let nothing = Indexed { events: Vec::new(), end_position: None, hash: Hash::ZERO, bytes: 0 };
    let Some(end) = reader.packed_frame(place).map(|frame| frame.positions().end) else { return nothing };
    // Of a frame in a damaged pack some events may lie in blocks that are whole.
    let event = |position: u64| {
        let stored = reader.event(Position(position)).ok()?;
        Some((Position(position), Entry::decode(&stored.entry).ok()?.event))
    };
    Indexed { events: (first..end).filter_map(event).collect(), end_position: Some(end), ..nothing }
}

/// Makes the missing runs again from the log, a run's worth at a time.
pub(crate) fn fill_gaps(index: &Index, segments: &Segments, flush_bytes: u64) -> Result<()> {
    let _filling = index.filling();
    for gap in index.gaps() {
        let mut reader = FrameReader::new(segments, true);
        let mut table = crate::index::table::Table::new(gap.first_position, gap.first_sequence);
        let mut sequence = gap.first_sequence;
        while sequence < gap.end_sequence {
            let place = segments.frame_number(sequence)?.filter(|p| p.sequence < gap.end_sequence);
            let (end, hash) = match place {
                None => {
                    let lost = table.end_position..gap.end_position;
                    index.table_add_unreadable(&mut table, lost);
                    sequence = gap.end_sequence;
                    (gap.end_position, Hash::ZERO)
                }
                Some(place) => {
                    let indexed = read_events(&mut reader, &place);
                    let end = indexed
                        .end_position
                        .unwrap_or_else(|| next_position(segments, place.sequence + 1, gap.end_position));
                    let readable = |p: &u64| indexed.events.binary_search_by_key(p, |(at, _)| at.0).is_err();
                    for at in (table.end_position..end).filter(readable) {
                        index.table_add_unreadable(&mut table, at..at + 1);
                    }
                    index.table_add(&mut table, indexed.events.iter().map(|(p, e)| (*p, e)));
                    table.log_bytes += indexed.bytes;
                    sequence = place.sequence + 1;
                    (end, indexed.hash)
                }
            };
            table.end_sequence = sequence;
            table.end_position = end;
            if table.log_bytes >= flush_bytes || sequence == gap.end_sequence {
                if !index.fill_gap(&table, hash) {
                    // Without space for the index the log still works: queries over the gap read every event.
                    return Ok(());
                }
                table = crate::index::table::Table::new(end, sequence);
            }
        }
    }
    Ok(())
}

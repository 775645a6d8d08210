//! The active segment: where frames are written and synced, and which space is ahead of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use precedent_core::frame::{Chained, EncodedFrame, SECTOR_BYTES};
use precedent_core::sequencer::LogState;
use precedent_core::{Error, ErrorKind, Result};

use crate::io::{IoFile, Mode};
use crate::log::Log;
use crate::meta::{CLEAN_FILE, LogMeta};
use crate::segment::{SegmentMap, Segments};

/// How far zeros are written ahead: as much as the segment already holds, within these bounds. But beyond the lower bound, frame and
/// zeros together, no more than frames that use them have written since the last that did not.
const ZERO_AHEAD_MIN: u64 = 64 << 10;
const ZERO_AHEAD_MAX: u64 = 2 << 20;
/// A frame of this size is written into the growing file: zeroing ahead would write every byte twice.
const GROWING_FRAME_BYTES: u64 = 256 << 10;

/// What writes frames, one after the other.
pub(super) struct Device {
    pub(super) log: Arc<Log>,
    /// The log with every frame that is durable.
    pub(super) state: Arc<LogState>,
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Behind the zeros that were written ahead.
    zeroed_end: u64,
    /// Bytes of the frames since the last of [`GROWING_FRAME_BYTES`] or more.
    small_bytes: u64,
    /// The file that is appended to; `None` before the first frame of a segment.
    file: Option<Arc<dyn IoFile>>,
    direct: Direct,
    /// Whether the mark `clean` is gone.
    clean_forgotten: bool,
    zeros: Zeros,
    /// Whether a segment was sealed since this was last looked at.
    pub(super) sealed: bool,
    /// How many drafted frames were not written, and why the last was not.
    pub(super) given_up: u64,
    pub(super) failure: Option<Error>,
}

/// Zeros that begin at a multiple of [`SECTOR_BYTES`] in memory, so that a device can take them from there.
#[derive(Default)]
struct Zeros(Vec<u8>);

impl Zeros {
    /// So many of them.
    fn get(&mut self, len: usize) -> &[u8] {
        self.0.resize(self.0.len().max(len + SECTOR_BYTES), 0);
        let start = self.0.as_ptr().align_offset(SECTOR_BYTES).min(SECTOR_BYTES);
        &self.0[start..start + len]
    }
}

/// The segment's file past the system's cache.
enum Direct {
    /// No large frame has asked for it.
    Untried,
    /// It cannot be had.
    Refused,
    Open(Arc<dyn IoFile>),
}

impl Device {
    pub(super) fn new(log: Arc<Log>, state: Arc<LogState>, segment: u32, offset: u64) -> Result<Self> {
        let (mut file, mut zeroed_end) = (None, offset);
        let exists = log.exists.load(Ordering::Acquire);
        let units = if exists { Segments::list(&*log.io, &log.dir)?.0 } else { Vec::new() };
        if units.iter().any(|unit| !unit.packed && unit.first == segment) {
            let open = log.io.open(&log.segments.path(segment), Mode::Write)?;
            zeroed_end = open.len()?.max(offset);
            file = Some(open);
        }
        Ok(Self {
            log,
            state,
            segment,
            offset,
            zeroed_end,
            small_bytes: 0,
            file,
            direct: Direct::Untried,
            clean_forgotten: false,
            zeros: Zeros::default(),
            sealed: true,
            given_up: 0,
            failure: None,
        })
    }

    /// Writes and syncs one encoded frame; answers its length with padding.
    ///
    /// An error that is not [`Error::may_have_been_written`] has left nothing behind. After any other the
    /// handle has stopped.
    pub(super) fn write_frame(&mut self, chained: &Chained, bytes: &mut EncodedFrame) -> Result<u64> {
        bytes.pad();
        let padded_len = bytes.len() as u64;
        self.make_log()?;
        self.forget_clean()?;
        let new_segment = self.make_room(padded_len, chained)?;
        let file = self.file.clone().expect("there is a segment to write to");
        let end = self.offset + padded_len;
        let (way, mut written) = match self.write_past_the_cache(&*file, bytes) {
            Some((direct, written)) => (direct, written),
            None => (file.clone(), file.write_at(bytes, self.offset)),
        };
        let zeros_until = self.zeros_until(padded_len);
        if written.is_ok() && zeros_until > end {
            // Zeros are a convenience: without space for them the frame is still good.
            if way.write_at(self.zeros.get((zeros_until - end) as usize), end).is_err() {
                written = file.set_len(end);
                self.zeroed_end = end;
            } else {
                self.zeroed_end = zeros_until;
            }
        }
        if let Err(error) = written {
            return Err(self.undo_write(&*file, error));
        }
        self.zeroed_end = self.zeroed_end.max(end);
        let synced = file.sync().and_then(|()| match new_segment {
            true => self.log.io.sync_dir(&self.log.dir),
            false => Ok(()),
        });
        if let Err(error) = synced {
            let path = self.log.segments.path(self.segment);
            return Err(self.stop(Error::from(error).context(format!("syncing {} failed", path.display()))));
        }
        self.log.segments.push(chained, self.offset, padded_len);
        self.small_bytes = if padded_len < GROWING_FRAME_BYTES { self.small_bytes + padded_len } else { 0 };
        self.offset = end;
        Ok(padded_len)
    }

    /// Writes a large frame past the system's cache; `None` for a small one, and where that cannot be had.
    fn write_past_the_cache(
        &mut self,
        file: &dyn IoFile,
        bytes: &[u8],
    ) -> Option<(Arc<dyn IoFile>, std::io::Result<()>)> {
        if (bytes.len() as u64) < self.log.settings.direct_frame_bytes {
            return None;
        }
        if let Direct::Untried = self.direct {
            let direct = file.past_the_cache(&self.log.segments.path(self.segment));
            self.direct = direct.map_or(Direct::Refused, Direct::Open);
        }
        let Direct::Open(direct) = &self.direct else { return None };
        let direct = direct.clone();
        let written = direct.write_at(bytes, self.offset);
        if let Err(error) = &written
            && matches!(error.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::Unsupported)
        {
            // Not in pieces of this size on this device.
            self.direct = Direct::Refused;
            return None;
        }
        Some((direct, written))
    }

    /// Where zeros have to reach once a frame of this length is written.
    ///
    /// Zeros that a large frame then overwrites were written in vain. So the first frames behind one bring few, if any.
    fn zeros_until(&self, padded_len: u64) -> u64 {
        let end = self.offset + padded_len;
        if end <= self.zeroed_end || padded_len >= GROWING_FRAME_BYTES {
            return end;
        }
        let least = ZERO_AHEAD_MIN.saturating_sub(padded_len);
        let ahead = end.max(ZERO_AHEAD_MIN).min(self.small_bytes.max(least));
        let segment_end = self.log.settings.segment_bytes / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
        (end + ahead.min(ZERO_AHEAD_MAX)).min(segment_end).max(end)
    }

    /// Takes back a write that failed. If that works nothing has happened; if not, the handle stops.
    fn undo_write(&mut self, file: &dyn IoFile, error: std::io::Error) -> Error {
        let path = self.log.segments.path(self.segment);
        let error = Error::from(error).context(format!("writing {} failed", path.display()));
        // Durably: a part of a sector that power failure brought back could be taken for damage.
        let undone = file.set_len(self.offset).and_then(|()| file.sync());
        if undone.is_ok() && error.kind() == ErrorKind::Full {
            self.zeroed_end = self.offset;
            return error;
        }
        self.stop(error)
    }

    fn stop(&self, error: Error) -> Error {
        let error = error.maybe_written();
        self.log.stop(&error);
        error
    }

    /// Makes the log's directory and its file `log`, before its first frame.
    fn make_log(&mut self) -> Result<()> {
        if self.log.exists.load(Ordering::Acquire) {
            return Ok(());
        }
        let (io, dir) = (&*self.log.io, &self.log.dir);
        let logs = dir.parent().expect("a log's directory is in the store's");
        io.create_dir_all(dir)?;
        LogMeta { id: self.state.log, copy: self.log.copy.load(Ordering::Acquire) }.write(io, dir)?;
        io.sync_dir(logs)?;
        self.log.exists.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the mark of the last good order away, durably: while it is there the log ends where it says.
    fn forget_clean(&mut self) -> Result<()> {
        if self.clean_forgotten {
            return Ok(());
        }
        match self.log.io.remove(&self.log.dir.join(CLEAN_FILE)) {
            Ok(()) => self.log.io.sync_dir(&self.log.dir)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        self.clean_forgotten = true;
        Ok(())
    }

    /// Makes the next segment if there is none to write to; answers whether the segment is new.
    fn make_room(&mut self, padded_len: u64, chained: &Chained) -> Result<bool> {
        if self.offset > 0 && self.offset + padded_len > self.log.settings.segment_bytes {
            self.seal_active();
        }
        if self.file.is_some() {
            // A segment that was made for a frame which then could not be written is as good as new.
            if self.offset == 0 {
                self.start_segment(chained);
            }
            return Ok(self.offset == 0);
        }
        let path = self.log.segments.path(self.segment);
        let file = self.log.io.open(&path, Mode::Create);
        let file = file.map_err(|e| Error::from(e).context(format!("making {} failed", path.display())))?;
        self.start_segment(chained);
        (self.zeroed_end, self.file) = (0, Some(file));
        Ok(true)
    }

    fn start_segment(&self, chained: &Chained) {
        let map = SegmentMap::new(self.segment, chained.first.0, chained.sequence);
        self.log.segments.start_segment(map);
    }

    /// Ends the active segment: cut to its frames, its map saved. The next frame makes the next one; until then
    /// nothing is made. Everything in the segment is durable; zeros that stay behind it are no harm.
    pub(super) fn seal_active(&mut self) {
        if self.offset == 0 || self.file.is_none() {
            return;
        }
        self.log.segments.save_active_map();
        self.log.segments.seal_active(self.state.size(), self.state.next_sequence);
        self.sealed = true;
        self.direct = Direct::Untried;
        if let Some(file) = self.file.take() {
            let _ = file.set_len(self.offset);
        }
        (self.segment, self.offset, self.zeroed_end) = (self.segment + 1, 0, 0);
    }
}

const _: () = assert!(ZERO_AHEAD_MIN.is_multiple_of(SECTOR_BYTES as u64));

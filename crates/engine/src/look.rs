//! A look at an existing log, beside a writer or without one: what its end is, and who says so.
//!
//! Another process may write while we look. So what is believed of the log (marks, index runs) is read before
//! the segments where it may only claim less than they hold, and after them where it bounds how far they may
//! be read; and a look that finds something wrong is repeated before it is believed.

use std::path::Path;
use std::sync::Arc;

use precedent_core::{Error, ErrorKind, LogId, LogName, Result};

use crate::Settings;
use crate::io::{Io, LockKind};
use crate::meta::Mark;
use crate::recovery::{self, Tail};
use crate::segment::Segments;

/// How often a log that a writer is changing is looked at before what is seen is believed.
const LOOKS_MAX: usize = 10;

/// What was seen.
pub(crate) struct Look {
    pub(crate) segments: Segments,
    /// The end of the log, with what is lost keeping its place: then `lost` is set.
    pub(crate) tail: Tail,
    /// Whether a writer in another process is at work.
    pub(crate) beside: bool,
    /// Whether frames are gone that somebody knows of.
    pub(crate) lost: bool,
}

/// Whether some process has the store's lock.
pub(crate) fn writer_is_alive(io: &dyn Io, settings: &Settings) -> bool {
    matches!(io.lock(&settings.lock_path, LockKind::Shared), Ok(None))
}

/// Looks at the log in `dir`. `writable`: we have the lock, and nobody else is at work.
pub(crate) fn look(
    io: &Arc<dyn Io>,
    dir: &Path,
    name: &LogName,
    id: LogId,
    settings: &Settings,
    writable: bool,
) -> Result<Look> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let beside = !writable && writer_is_alive(&**io, settings);
        // Whoever knew of so many frames before we looked has to be right.
        let claim = if beside { None } else { recovery::claims(&**io, dir, id) };
        let (numbers, missing) = Segments::list(&**io, dir)?;
        let mark = recovery::highest_mark(&**io, dir, id);
        let limit = beside.then(|| mark.map_or(0, |mark| mark.frames));
        let segments = Segments::new(io.clone(), dir.to_owned(), id, writable).of_mirror(settings.is_mirror);
        let mut tail = match recovery::find_tail(&segments, &numbers, id, limit) {
            // Packed, or merged, since it was listed.
            Err(e) if e.kind() == ErrorKind::NotFound && !writable && attempts < LOOKS_MAX => continue,
            found => found?,
        };
        if let Some(missing) = missing {
            tail.damage.get_or_insert(missing);
        }
        let claim = claim.or_else(|| Some((mark.filter(|_| beside)?.frames, "its writer".to_owned())));
        let lost = claim.filter(|(frames, _)| *frames > tail.frames);
        let untold = beside && mark.is_none() && !numbers.is_empty() && segments.has_frame(1)?;
        let changed = !writable && writer_is_alive(&**io, settings) != beside;
        let wrong = lost.is_some() || tail.damage.is_some() || untold;
        if (wrong || changed) && !writable && attempts < LOOKS_MAX {
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        }
        if untold {
            let message = format!("the writer of log '{name}' has not said yet how far it can be read");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if let Some((frames, by)) = &lost {
            let message =
                format!("log '{name}' ends after {} frames, but {by} knows of {frames}", tail.frames);
            tail.damage.get_or_insert(Error::damaged(message));
            // What is lost keeps its place, so that a read of it names it.
            keep_place(&mut tail, mark);
        }
        return Ok(Look { segments, tail, beside, lost: lost.is_some() });
    }
}

fn keep_place(tail: &mut Tail, mark: Option<Mark>) {
    if let Some(mark) = mark.filter(|mark| mark.size > tail.size) {
        (tail.frames, tail.size, tail.last_frame) = (mark.frames, mark.size, mark.last_frame);
    }
}

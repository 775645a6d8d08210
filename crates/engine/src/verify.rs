//! Verification of the files as they lie there: reads every segment from its first byte to its last, trusts
//! no map, no index and no open handle, and never writes.

use std::path::Path;
use std::sync::Arc;

use precedent_core::frame::is_zero;
use precedent_core::store::Progress;
use precedent_core::verify::{Expect, Problem, Report, Verifier};
use precedent_core::{Error, LogId, Result};

use crate::io::{Io, IoFile, Mode, read_file, read_full};
use crate::meta::{CLEAN_FILE, LogMeta, Mark};
use crate::recovery::{claims, read_whole};
use crate::segment::{Segments, Step, file_name, step};

/// Verifies the log in `dir`. Frames from number `limit` on are left out: a writer is at work on them.
pub(crate) fn verify(
    io: &Arc<dyn Io>,
    dir: &Path,
    limit: Option<u64>,
    size: u64,
    expect: Option<Expect>,
    progress: Progress<'_>,
) -> Result<Report> {
    let mut verifier = Verifier::new(expect);
    let note = |verifier: &mut Verifier, place: Option<String>, message: String| {
        verifier.problem(Problem { frame: None, position: None, place, message });
    };
    let id = match LogMeta::read(&**io, dir) {
        // A log that nothing has been recorded in.
        Ok(None) => return Ok(verifier.finish()),
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
    let (numbers, missing) = Segments::list(&**io, dir)?;
    if let Some(missing) = missing {
        note(&mut verifier, None, missing.to_string());
    }
    for (index, &number) in numbers.iter().enumerate() {
        let path = dir.join(file_name(number));
        let is_last = index + 1 == numbers.len();
        match io.open(&path, Mode::Read) {
            Ok(file) => segment(&*file, &path, id, limit, is_last, size, &mut verifier, progress)?,
            Err(error) => note(&mut verifier, Some(path.display().to_string()), error.to_string()),
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
    Ok(verifier.finish())
}

#[allow(clippy::too_many_arguments)]
fn segment(
    file: &dyn IoFile,
    path: &Path,
    id: Option<LogId>,
    limit: Option<u64>,
    is_last: bool,
    size: u64,
    verifier: &mut Verifier,
    progress: Progress<'_>,
) -> Result<()> {
    let mut offset = 0;
    loop {
        let place = |at: u64| format!("{} at offset {at}", path.display());
        match step(file, offset, id).map_err(|e| e.context(path.display()))? {
            Step::Frame(header, _) if limit.is_some_and(|limit| header.chained.sequence >= limit) => {
                return Ok(());
            }
            Step::Frame(header, at) => {
                match read_whole(file, &header, at) {
                    Ok(frame) => verifier.frame(&frame, Some(&place(at))),
                    Err(error) => {
                        let torn = is_last && limit.is_none() && is_torn(file, &header, at, id)?;
                        if torn {
                            return Ok(());
                        }
                        verifier.unreadable(Some(place(at)), error.to_string());
                    }
                }
                progress(verifier.size(), size.max(verifier.size()));
                offset = at + header.padded_len();
            }
            Step::Hole(hole) => {
                // Beside a writer: what it is at work on, unless more was published than was found so far.
                let at_work = limit.is_some_and(|limit| verifier.next_sequence() >= limit);
                if is_last && at_work {
                    return Ok(());
                }
                let mut sector = vec![0; precedent_core::frame::SECTOR_BYTES];
                read_full(file, &mut sector, hole.start)?;
                let ends_the_log = hole.end >= file.len()? && is_last;
                // What a dying writer left of a frame whose first sector never arrived.
                if limit.is_some() || !(ends_the_log && is_zero(&sector)) {
                    verifier.unreadable(Some(place(hole.start)), hole.message);
                }
                offset = hole.end;
            }
            Step::End => return Ok(()),
        }
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

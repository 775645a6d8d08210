//! The small files beside the segments: what the directory is, what a log is, and how far it is known to go.
//!
//! | file | what it says | synced |
//! |---|---|---|
//! | `precedent.store` | this directory is a store, of this format | yes |
//! | `lock` | locked by the writer; who that is | no |
//! | `logs/NAME/log` | the log's id, whether it is a copy | yes |
//! | `logs/NAME/clean` | the log ends here: it was closed in good order, and nothing was written since | yes |
//! | `logs/NAME/published` | what readers in other processes may see | no |
//!
//! A [`Mark`] is only ever written of frames that are durable. So whatever a mark that matches its checksum
//! says was once true: a log that ends earlier has lost something.

use std::path::Path;

use precedent_core::{Error, ErrorKind, Hash, LogId, Result};

use crate::io::{Io, read_file, replace_file};

/// The version of the directory's format that this program writes.
const FORMAT: u32 = 1;
pub(crate) const STORE_FILE: &str = "precedent.store";
pub(crate) const LOG_FILE: &str = "log";
pub(crate) const CLEAN_FILE: &str = "clean";
pub(crate) const PUBLISHED_FILE: &str = "published";

/// Writes the file that makes a directory a store.
pub(crate) fn write_store(io: &dyn Io, dir: &Path) -> std::io::Result<()> {
    replace_file(io, &dir.join(STORE_FILE), format!("precedent store\nformat {FORMAT}\n").as_bytes())
}

/// Checks that a directory is a store of a format this program reads.
pub(crate) fn check_store(io: &dyn Io, dir: &Path) -> Result<()> {
    let text = read_file(io, &dir.join(STORE_FILE))?;
    let not_ours = || {
        let message = format!("{} is not a store: its file '{STORE_FILE}' is not ours", dir.display());
        Error::new(ErrorKind::NotAStore, message)
    };
    let text = String::from_utf8(text).map_err(|_| not_ours())?;
    let format = text.strip_prefix("precedent store\nformat ").and_then(|rest| rest.strip_suffix('\n'));
    let format: u32 = format.and_then(|f| f.parse().ok()).ok_or_else(not_ours)?;
    if format != FORMAT {
        return Err(Error::new(
            ErrorKind::UnsupportedFormat,
            format!("{} has format {format}; this program reads format {FORMAT}", dir.display()),
        ));
    }
    Ok(())
}

/// What the file `log` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogMeta {
    pub(crate) id: LogId,
    pub(crate) copy: bool,
}

impl LogMeta {
    pub(crate) fn write(&self, io: &dyn Io, dir: &Path) -> std::io::Result<()> {
        let kind = if self.copy { "copy" } else { "original" };
        let body = format!("precedent log\nformat {FORMAT}\nid {}\nkind {kind}\n", self.id);
        let crc = crc32fast::hash(body.as_bytes());
        replace_file(io, &dir.join(LOG_FILE), format!("{body}crc {crc:08x}\n").as_bytes())
    }

    /// `None` if there is no log in this directory.
    pub(crate) fn read(io: &dyn Io, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(LOG_FILE);
        let text = match read_file(io, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from(e).context(path.display())),
        };
        Self::parse(&text)
            .map(Some)
            .ok_or_else(|| Error::damaged(format!("{} does not match its checksum", path.display())))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (body, crc) = text.strip_suffix('\n')?.rsplit_once("crc ")?;
        // As text, since there is more than one way to write a number.
        if crc != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return None;
        }
        let rest = body.strip_prefix(&format!("precedent log\nformat {FORMAT}\nid "))?;
        let (id, kind) = rest.split_once("\nkind ")?;
        let copy = match kind {
            "copy\n" => true,
            "original\n" => false,
            _ => return None,
        };
        Some(Self { id: id.parse().ok()?, copy })
    }
}

/// A statement that a log's frames up to here are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) log: LogId,
    /// The number of frames.
    pub(crate) frames: u64,
    /// The number of events.
    pub(crate) size: u64,
    /// The hash of the last frame's chained part.
    pub(crate) last_frame: Hash,
}

impl Mark {
    pub(crate) const BYTES: usize = 4 + 16 + 8 + 8 + 32 + 4;
    const MAGIC: &[u8; 4] = b"PRK1";

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut b = [0; Self::BYTES];
        b[..4].copy_from_slice(Self::MAGIC);
        b[4..20].copy_from_slice(&self.log.0);
        b[20..28].copy_from_slice(&self.frames.to_le_bytes());
        b[28..36].copy_from_slice(&self.size.to_le_bytes());
        b[36..68].copy_from_slice(&self.last_frame.0);
        let crc = crc32fast::hash(&b[..68]);
        b[68..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// `None` for anything that is not a whole mark of this log.
    pub(crate) fn decode(bytes: &[u8], log: LogId) -> Option<Self> {
        let b: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let crc = u32::from_le_bytes(b[68..].try_into().expect("4 bytes"));
        if &b[..4] != Self::MAGIC || crc32fast::hash(&b[..68]) != crc || b[4..20] != log.0 {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(b[at..at + 8].try_into().expect("8 bytes"));
        Some(Self { log, frames: number(20), size: number(28), last_frame: Hash::from_slice(&b[36..68])? })
    }

    pub(crate) fn read(io: &dyn Io, path: &Path, log: LogId) -> Option<Self> {
        Self::decode(&read_file(io, path).ok()?, log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_one_wrong_byte_says_nothing() {
        let log = LogId([4; 16]);
        let mark = Mark { log, frames: 7, size: 70, last_frame: Hash([5; 32]) };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes, log), Some(mark));
        assert_eq!(Mark::decode(&bytes, LogId([0; 16])), None);
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(Mark::decode(&bad, log), None, "byte {at}");
        }
    }
}

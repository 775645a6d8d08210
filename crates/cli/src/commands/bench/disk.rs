//! What the files of a store take up.
//!
//! Stores reserve space ahead of what they write. That is counted when it is written and not before, so that none
//! is better or worse for how much it reserves.
//!
//! Nothing but the standard library is used here, so that the peers in `bench/` are measured with this very file.

use std::fs::{File, Metadata};
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

/// The unit of a file system in which files grow.
const BLOCK: u64 = 4_096;

/// Bytes of all files below a directory, without the zeros at their ends.
pub(crate) fn used(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    each(dir, &mut |path, metadata| {
        bytes += written(path)?.next_multiple_of(BLOCK).min(allocated(metadata));
        Ok(())
    })?;
    Ok(bytes)
}

/// Calls `with` for every file below a directory. One that goes meanwhile is no file.
pub(crate) fn each(dir: &Path, with: &mut dyn FnMut(&Path, &Metadata) -> Result<()>) -> Result<()> {
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        let gone = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        };
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => each(&path, with).or_else(gone)?,
            Ok(metadata) if metadata.is_file() => with(&path, &metadata).or_else(gone)?,
            Ok(_) => {}
            Err(error) => gone(error)?,
        }
    }
    Ok(())
}

fn allocated(metadata: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(metadata) * 512;
    #[cfg(not(unix))]
    metadata.len().next_multiple_of(BLOCK)
}

/// Where the last byte that is not zero ends.
fn written(path: &Path) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut buffer = vec![0; 64 << 10];
    while end > 0 {
        let from = end.saturating_sub(buffer.len() as u64);
        let piece = &mut buffer[..(end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(piece)?;
        if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_not_counted_and_what_is_written_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        let mut content = vec![1; 100_000];
        content.resize(1_000_000, 0);
        std::fs::write(dir.path().join("below/reserved"), &content).unwrap();
        std::fs::write(dir.path().join("zeros"), vec![0; 300_000]).unwrap();
        std::fs::write(dir.path().join("empty"), []).unwrap();
        assert_eq!(used(dir.path()).unwrap(), 100_000_u64.next_multiple_of(BLOCK));
        assert_eq!(written(&dir.path().join("below/reserved")).unwrap(), 100_000);
        assert!(used(&dir.path().join("nowhere")).is_err());
    }
}

//! The few verbs the engine asks of a file system, so that torn writes, lost syncs and full disks are
//! ordinary unit tests.
//!
//! [`RealIo`] is the operating system. The tests have one that keeps unsynced writes apart and loses them.

use std::any::Any;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
pub(crate) mod faults;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It exists, to read.
    Read,
    /// It exists, to read and write.
    Write,
    /// It is made, and must not exist.
    Create,
}

/// A file system.
pub(crate) trait Io: Send + Sync + 'static {
    /// Makes a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn IoFile>>;
    /// Renames a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock of a file that exists, until the answer is dropped; `None` if another has it.
    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// Who else may have a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// Nobody.
    Exclusive,
    /// Others of this kind.
    Shared,
}

/// An open file. Reads and writes say where; there is no cursor.
pub(crate) trait IoFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes. After an error any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, and the length of the file.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The same file, which has this path, to write past the system's cache: whole sectors at multiples of their size,
    /// from memory that lies so too. An error where that cannot be had, and if another file has the path by now.
    fn past_the_cache(&self, path: &Path) -> io::Result<Arc<dyn IoFile>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Reads until the buffer is full or the file ends; answers how much there was.
pub(crate) fn read_full(file: &dyn IoFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads a small file whole.
pub(crate) fn read_file(io: &dyn Io, path: &Path) -> io::Result<Vec<u8>> {
    let file = io.open(path, Mode::Read)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    let n = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Replaces a small file: afterwards, whatever happens, it has the old content or the new.
pub(crate) fn replace_file(io: &dyn Io, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().expect("a file of the store is in a directory");
    let temporary = path.with_extension("tmp");
    match io.remove(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = io.open(&temporary, Mode::Create)?;
    file.write_at(content, 0)?;
    file.sync()?;
    io.rename(&temporary, path)?;
    io.sync_dir(dir)
}

/// The operating system's file system.
pub(crate) struct RealIo;

impl Io for RealIo {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn IoFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Mode::Read).create_new(mode == Mode::Create);
        let file = match mode {
            Mode::Read => open_without_times(&options, path),
            Mode::Write | Mode::Create => options.open(path),
        };
        Ok(Arc::new(file?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Windows has no way to sync a directory; NTFS journals its names.
    #[cfg(not(unix))]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = match kind {
            LockKind::Exclusive => OpenOptions::new().read(true).write(true).open(path)?,
            LockKind::Shared => File::open(path)?,
        };
        let taken = match kind {
            LockKind::Exclusive => file.try_lock(),
            LockKind::Shared => file.try_lock_shared(),
        };
        match taken {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

/// Opens a file so that nobody notes when it is read: that would be done for every event. Only its owner can have that.
#[cfg(target_os = "linux")]
fn open_without_times(options: &OpenOptions, path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    match options.clone().custom_flags(libc::O_NOATIME).open(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) =>
        {
            options.open(path)
        }
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_without_times(options: &OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path)
}

impl IoFile for File {
    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buffer, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = std::os::windows::fs::FileExt::seek_write(self, bytes, offset)?;
            bytes = &bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }

    /// `fdatasync` on Linux, `F_FULLFSYNC` on macOS, `FlushFileBuffers` on Windows: what the standard library does.
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    #[cfg(target_os = "linux")]
    fn past_the_cache(&self, path: &Path) -> io::Result<Arc<dyn IoFile>> {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
        let (this, other) = (self.metadata()?, direct.metadata()?);
        match (this.dev(), this.ino()) == (other.dev(), other.ino()) {
            true => Ok(Arc::new(direct)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

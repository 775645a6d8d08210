//! Registers: small named values with compare-and-swap beside the logs. Each is a file, replaced whole.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use precedent_core::memory::next_revision;
use precedent_core::{Error, ExpectedRegister, Register, RegisterName, Result};

use crate::Settings;
use crate::io::{Io, read_file, replace_file};

const MAGIC: &[u8; 4] = b"PRR1";
const HEADER_BYTES: usize = 4 + 8;

/// The registers of a store.
pub(crate) struct Registers {
    io: Arc<dyn Io>,
    dir: PathBuf,
    /// One compare-and-swap at a time: the store's lock keeps other processes out.
    swapping: Mutex<()>,
    settings: Arc<Settings>,
}

impl Registers {
    pub(crate) fn new(io: Arc<dyn Io>, dir: PathBuf, settings: Arc<Settings>) -> Self {
        Self { io, dir, swapping: Mutex::new(()), settings }
    }

    /// Makes what a writer that died has replaced durable, before anybody is told of it.
    pub(crate) fn settle(&self) -> Result<()> {
        Ok(self.io.sync_dir(&self.dir)?)
    }

    fn lock(&self) -> Result<MutexGuard<'_, ()>> {
        self.settings.check_stopped()?;
        Ok(self.swapping.lock().unwrap_or_else(|p| p.into_inner()))
    }

    /// `/` cannot stand in a file name, and `~` not in a register's.
    fn path(&self, name: &RegisterName) -> PathBuf {
        self.dir.join(format!("{}.reg", name.as_str().replace('/', "~")))
    }

    pub(crate) fn get(&self, name: &RegisterName) -> Result<Option<Register>> {
        let _guard = self.lock()?;
        self.read(name)
    }

    fn read(&self, name: &RegisterName) -> Result<Option<Register>> {
        let path = self.path(name);
        let bytes = match read_file(&*self.io, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::from(e).context(path.display())),
        };
        let damaged =
            || Error::damaged(format!("register '{name}': {} does not match its checksum", path.display()));
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc)
            || body.len() < HEADER_BYTES
            || &body[..4] != MAGIC
        {
            return Err(damaged());
        }
        let revision = u64::from_le_bytes(body[4..12].try_into().expect("8 bytes"));
        Ok(Some(Register { value: Bytes::copy_from_slice(&body[HEADER_BYTES..]), revision }))
    }

    pub(crate) fn set(
        &self,
        name: &RegisterName,
        expected: ExpectedRegister,
        value: Bytes,
    ) -> Result<Register> {
        let _swapping = self.lock()?;
        let revision =
            next_revision(name, self.read(name)?.as_ref(), expected, &value, &self.settings.limits)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len() + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&revision.to_le_bytes());
        bytes.extend_from_slice(&value);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        if let Err(error) = replace_file(&*self.io, &self.path(name), &bytes) {
            let error = Error::from(error).context(format!("register '{name}'"));
            // If the old value still stands nothing has happened.
            if self.read(name).is_ok_and(|now| now.map_or(0, |r| r.revision) + 1 == revision) {
                return Err(error);
            }
            // What can be read here now may be gone after a crash; opening the store again settles it.
            let error = error.maybe_written();
            self.settings.stop(&error);
            return Err(error);
        }
        Ok(Register { value, revision })
    }
}

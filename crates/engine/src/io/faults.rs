//! A file system in memory that keeps what was synced apart from what was not, and loses the latter.
//!
//! A crash leaves of every unsynced write any set of its sectors, and of the unsynced changes of a directory
//! any prefix. A failed sync makes nothing durable, and, as on Linux, a later one does not make up for it.
//! Every operation that changes something is counted, so that a test can make each of them fail in turn.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{Io, IoFile, LockKind, Mode};

const SECTOR: usize = 512;
const PAGE: u64 = 4096;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine dies at this operation: it is done in part, and nothing works afterwards.
    Crash,
    /// The operation fails once, in part done.
    Error(io::ErrorKind),
}

/// A small generator of numbers that are the same every time (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// The file system. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FaultyIo {
    disk: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    disk: Mutex<Disk>,
    /// Tells of what is held and let go.
    held: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Waits while operations of this kind are held.
    fn pass(&self, what: Held) {
        let mut disk = self.lock();
        while disk.hold == Some(what) {
            disk.is_held = true;
            self.held.notify_all();
            disk = self.held.wait(disk).unwrap_or_else(|p| p.into_inner());
        }
    }
}

/// Operations on files that can be held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Writes, before anything of them is done.
    Writes,
    /// Syncs, before anything of them is done.
    Syncs,
}

/// What becomes of writes past the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Direct {
    #[default]
    Done,
    /// No file can be opened for them.
    Unknown,
    /// The device takes larger pieces only.
    Refused,
}

#[derive(Default)]
struct Disk {
    direct: Direct,
    direct_writes: u64,
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since their directory was synced.
    changes: Vec<Change>,
    dirs: BTreeSet<PathBuf>,
    locks: HashMap<PathBuf, i64>,
    operations: u64,
    plan: Option<(u64, Fault)>,
    fail_next: Option<io::ErrorKind>,
    fail_next_sync: Option<io::ErrorKind>,
    panic_next: Option<&'static str>,
    crashed: bool,
    hold: Option<Held>,
    /// Whether somebody waits because of it.
    is_held: bool,
    syncs: u64,
    /// Bytes all files together may have.
    capacity: Option<u64>,
}

#[derive(Clone)]
enum Change {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    volatile: Vec<u8>,
    pending: Vec<Pending>,
}

impl Inode {
    /// Panics if pages of the cache that are written past have not been synced: which bytes win would be left to chance.
    fn assert_clean(&self, offset: u64, len: u64) {
        let pages = |offset: u64, len: u64| offset / PAGE..(offset + len).div_ceil(PAGE);
        let written = pages(offset, len);
        for pending in &self.pending {
            match pending {
                // What was itself written past the cache has left nothing in it.
                Pending::Write(_, _, true) => {}
                Pending::Write(offset, bytes, false) => {
                    let dirty = pages(*offset, bytes.len() as u64);
                    let apart = dirty.end <= written.start || written.end <= dirty.start;
                    assert!(
                        apart,
                        "pages {dirty:?} are not synced, and {written:?} are written past the cache"
                    );
                }
                Pending::Length(len) => {
                    panic!("the length {len} is not synced, and past the cache is written")
                }
            }
        }
    }
}

#[derive(Clone)]
enum Pending {
    /// Where, what, and whether past the cache.
    Write(u64, Vec<u8>, bool),
    Length(u64),
}

fn died() -> io::Error {
    io::Error::other("the machine has crashed")
}

fn write_into(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let end = offset as usize + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset as usize..end].copy_from_slice(bytes);
}

impl Disk {
    /// Counts an operation; answers the fault that strikes it.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(died());
        }
        let number = self.operations;
        self.operations += 1;
        if let Some(kind) = self.fail_next.take() {
            return Ok(Some(Fault::Error(kind)));
        }
        match self.plan {
            Some((at, fault)) if at == number => {
                if fault == Fault::Crash {
                    self.crashed = true;
                }
                Ok(Some(fault))
            }
            _ => Ok(None),
        }
    }

    /// Like [`Self::operation`] where nothing can be half done.
    fn whole_operation(&mut self) -> io::Result<()> {
        match self.operation()? {
            None => Ok(()),
            Some(Fault::Crash) => Err(died()),
            Some(Fault::Error(kind)) => Err(kind.into()),
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .collect::<BTreeSet<_>>()
            .iter()
            .map(|i| self.inodes[**i].volatile.len() as u64)
            .sum()
    }

    fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &Change) {
        match change {
            Change::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Change::Unlink(path) => {
                names.remove(path);
            }
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _) => path.parent(),
        }
    }
}

impl FaultyIo {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Shared { disk: Mutex::new(disk), held: Condvar::new() }) }
    }

    /// Holds up operations of this kind until [`Self::release`]. Answered by [`Self::await_held`].
    pub(crate) fn hold(&self, what: Held) {
        let mut disk = self.disk();
        (disk.hold, disk.is_held) = (Some(what), false);
    }

    /// Waits until an operation is held up.
    pub(crate) fn await_held(&self) {
        let mut disk = self.disk();
        while !disk.is_held {
            disk = self.disk.held.wait(disk).unwrap_or_else(|p| p.into_inner());
        }
    }

    /// Lets what is held up go on.
    pub(crate) fn release(&self) {
        self.disk().hold = None;
        self.disk.held.notify_all();
    }

    /// Operations so far that changed something.
    pub(crate) fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Syncs of files so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// What is to go wrong, and at which operation.
    pub(crate) fn plan(&self, at: u64, fault: Fault) {
        self.disk().plan = Some((at, fault));
    }

    /// The next operation fails.
    pub(crate) fn fail_next(&self, kind: io::ErrorKind) {
        self.disk().fail_next = Some(kind);
    }

    /// The next sync of a file fails.
    pub(crate) fn fail_next_sync(&self, kind: io::ErrorKind) {
        self.disk().fail_next_sync = Some(kind);
    }

    /// Whoever makes the next file whose name ends like this panics, as a defect would.
    pub(crate) fn panic_next(&self, name: &'static str) {
        self.disk().panic_next = Some(name);
    }

    /// Whether that is yet to come.
    pub(crate) fn is_to_panic(&self) -> bool {
        self.disk().panic_next.is_some()
    }

    /// What becomes of writes past the cache from now on.
    pub(crate) fn set_direct(&self, direct: Direct) {
        self.disk().direct = direct;
    }

    /// How many writes went past the cache.
    pub(crate) fn direct_writes(&self) -> u64 {
        self.disk().direct_writes
    }

    /// How much all files together may hold; `None` for no bound.
    pub(crate) fn set_capacity(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> u64 {
        self.disk().used()
    }

    /// What the disk holds after the machine died now: what was synced, and of the rest what chance leaves.
    pub(crate) fn after_crash(&self, random: &mut Random) -> Self {
        let disk = self.disk();
        let mut names = disk.durable_names.clone();
        let kept = random.below(disk.changes.len() as u64 + 1) as usize;
        disk.changes[..kept].iter().for_each(|change| Disk::apply(&mut names, change));
        let inodes = disk.inodes.iter().map(|inode| {
            let mut content = inode.durable.clone();
            for pending in &inode.pending {
                match pending {
                    Pending::Length(len) if random.coin() => content.resize(*len as usize, 0),
                    Pending::Length(_) => {}
                    Pending::Write(offset, bytes, _) => {
                        let all = random.below(4);
                        let mut at = 0;
                        while at < bytes.len() {
                            let sector_end = SECTOR - (*offset as usize + at) % SECTOR;
                            let end = bytes.len().min(at + sector_end);
                            if all == 0 || (all > 1 && random.coin()) {
                                write_into(&mut content, offset + at as u64, &bytes[at..end]);
                            }
                            at = end;
                        }
                    }
                }
            }
            Inode { durable: content.clone(), volatile: content, pending: Vec::new() }
        });
        let after = Disk {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            dirs: disk.dirs.clone(),
            ..Disk::default()
        };
        Self::of(after)
    }

    /// The content of a file.
    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|inode| disk.inodes[*inode].volatile.clone())
    }

    /// Replaces the content of a file behind everybody's back.
    pub(crate) fn set_content(&self, path: &Path, content: Vec<u8>) {
        let mut disk = self.disk();
        let inode = disk.names[path];
        disk.inodes[inode] = Inode { durable: content.clone(), volatile: content, pending: Vec::new() };
    }

    /// Removes files behind everybody's back.
    pub(crate) fn remove_matching(&self, matches: impl Fn(&Path) -> bool) {
        let mut disk = self.disk();
        disk.names.retain(|path, _| !matches(path));
        disk.durable_names.retain(|path, _| !matches(path));
    }

    /// A disk of its own with the same content, all of it durable.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.disk();
        let inodes = disk.inodes.iter().map(|inode| Inode {
            durable: inode.volatile.clone(),
            volatile: inode.volatile.clone(),
            pending: Vec::new(),
        });
        let copy = Disk {
            inodes: inodes.collect(),
            names: disk.names.clone(),
            durable_names: disk.names.clone(),
            dirs: disk.dirs.clone(),
            ..Disk::default()
        };
        Self::of(copy)
    }
}

impl Io for FaultyIo {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.crashed {
            return Err(died());
        }
        // Directories are durable at once here: the engine syncs their parents, and what counts is in the files.
        disk.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        if !disk.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = disk.names.keys().chain(disk.dirs.iter()).filter(|child| child.parent() == Some(path));
        Ok(children.filter_map(|child| Some(child.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn IoFile>> {
        let mut disk = self.disk();
        if disk.crashed {
            return Err(died());
        }
        let found = disk.names.get(path).copied();
        let inode = match (mode, found) {
            (Mode::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Mode::Create, None) => {
                if disk.panic_next.is_some_and(|name| path.to_string_lossy().ends_with(name)) {
                    disk.panic_next = None;
                    panic!("as a defect would");
                }
                disk.whole_operation()?;
                let inode = disk.inodes.len();
                disk.inodes.push(Inode::default());
                let change = Change::Link(path.to_owned(), inode);
                Disk::apply(&mut disk.names, &change);
                disk.changes.push(change);
                inode
            }
            (_, Some(inode)) => inode,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(FaultyFile { disk: self.disk.clone(), inode, is_direct: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.whole_operation()?;
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = Change::Rename(from.to_owned(), to.to_owned());
        Disk::apply(&mut disk.names, &change);
        disk.changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.whole_operation()?;
        let change = Change::Unlink(path.to_owned());
        Disk::apply(&mut disk.names, &change);
        disk.changes.push(change);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.whole_operation()?;
        let (now, later) = std::mem::take(&mut disk.changes)
            .into_iter()
            .partition(|change: &Change| change.dir() == Some(path));
        let now: Vec<Change> = now;
        now.iter().for_each(|change| Disk::apply(&mut disk.durable_names, change));
        disk.changes = later;
        Ok(())
    }

    fn lock(&self, path: &Path, kind: LockKind) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut disk = self.disk();
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let held = disk.locks.entry(path.to_owned()).or_default();
        match kind {
            LockKind::Exclusive if *held != 0 => return Ok(None),
            LockKind::Shared if *held < 0 => return Ok(None),
            LockKind::Exclusive => *held = -1,
            LockKind::Shared => *held += 1,
        }
        Ok(Some(Box::new(Guard { disk: self.disk.clone(), path: path.to_owned(), kind })))
    }
}

struct Guard {
    disk: Arc<Shared>,
    path: PathBuf,
    kind: LockKind,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if let Some(held) = disk.locks.get_mut(&self.path) {
            *held += if self.kind == LockKind::Exclusive { 1 } else { -1 };
        }
    }
}

struct FaultyFile {
    disk: Arc<Shared>,
    inode: usize,
    is_direct: bool,
}

impl FaultyFile {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }
}

impl IoFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk();
        if disk.crashed {
            return Err(died());
        }
        let content = &disk.inodes[self.inode].volatile;
        let from = content.len().min(offset as usize);
        let n = buffer.len().min(content.len() - from);
        buffer[..n].copy_from_slice(&content[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.pass(Held::Writes);
        let mut disk = self.disk();
        if self.is_direct {
            let aligned = [bytes.as_ptr().addr(), bytes.len(), offset as usize];
            assert!(aligned.iter().all(|n| n.is_multiple_of(SECTOR)), "{aligned:?}");
            if disk.direct == Direct::Refused {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            disk.direct_writes += 1;
            disk.inodes[self.inode].assert_clean(offset, bytes.len() as u64);
        }
        let fault = disk.operation()?;
        let grows =
            (offset + bytes.len() as u64).saturating_sub(disk.inodes[self.inode].volatile.len() as u64);
        let room = disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used()));
        let (n, result) = match fault {
            Some(Fault::Crash) => (bytes.len(), Err(died())),
            Some(Fault::Error(kind)) => (bytes.len() / 2, Err(kind.into())),
            None if grows > room => {
                (bytes.len().saturating_sub((grows - room) as usize), Err(io::ErrorKind::StorageFull.into()))
            }
            None => (bytes.len(), Ok(())),
        };
        let inode = &mut disk.inodes[self.inode];
        if n > 0 {
            write_into(&mut inode.volatile, offset, &bytes[..n]);
            inode.pending.push(Pending::Write(offset, bytes[..n].to_vec(), self.is_direct));
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.pass(Held::Syncs);
        let mut disk = self.disk();
        disk.syncs += 1;
        let fault = disk.operation()?;
        let fault = disk.fail_next_sync.take().map(Fault::Error).or(fault);
        let inode = &mut disk.inodes[self.inode];
        match fault {
            Some(Fault::Crash) => Err(died()),
            Some(Fault::Error(kind)) => {
                // The kernel has marked the pages clean: nothing of this will be written later.
                inode.pending.clear();
                Err(kind.into())
            }
            None => {
                if !inode.pending.is_empty() {
                    inode.pending.clear();
                    inode.durable = inode.volatile.clone();
                }
                Ok(())
            }
        }
    }

    fn past_the_cache(&self, path: &Path) -> io::Result<Arc<dyn IoFile>> {
        let disk = self.disk();
        match disk.names.get(path) {
            _ if disk.crashed => Err(died()),
            Some(inode) if *inode == self.inode && disk.direct != Direct::Unknown => {
                Ok(Arc::new(FaultyFile { disk: self.disk.clone(), inode: self.inode, is_direct: true }))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.disk();
        if disk.crashed {
            return Err(died());
        }
        Ok(disk.inodes[self.inode].volatile.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.whole_operation()?;
        let inode = &mut disk.inodes[self.inode];
        inode.volatile.resize(len as usize, 0);
        inode.pending.push(Pending::Length(len));
        Ok(())
    }
}

//! A log that is kept elsewhere, held in a directory as well: its frames as they are stored there, and an index over
//! them.
//!
//! A [`Mirror`] is what the stores on Azure draft the next frame on, answer queries from and read events from. It is
//! written only behind the original: a frame comes here once it is durable there. So it can be deleted, it is never
//! more than the original, and what it answers is a prefix of the original's history.
//!
//! Every frame is checked as that of a copy is: checksums, commitments, its links to the log before it, its root. A
//! frame whose body cannot be read in the original becomes a [`Hole`]: its events are named as damaged when they are
//! asked for, here as there, and the log goes on behind them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use precedent_core::extents::{Recent, Sources};
use precedent_core::frame::{Chained, Frame, FrameHeader};
use precedent_core::sequencer::{History, LogState, StreamTip, check_copied};
use precedent_core::store::{Finding, Usage};
use precedent_core::stored::WithFrame;
use precedent_core::tree::Tree;
use precedent_core::{Error, ErrorKind, LogId, LogName, Page, Position, Query, Read, RecordedEvent, Result};

use crate::io::{Io, RealIo};
use crate::log::{Job, Log};
use crate::meta::STORE_FILE;
use crate::reader::FrameReader;
use crate::recovery::{check_own, known_hole, read_whole};
use crate::segment::{EventPlace, Step};
use crate::writer::history::Recorded;
use crate::{Access, EmbeddedStore, Nothing, Options};

/// What stands in the place of a body that is not known.
const FILLING: u8 = 0xff;
/// How often a mirror is opened that is found unusable, or deleted by another process, each time.
const OPEN_TRIES: u32 = 4;

/// How a mirror is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct MirrorOptions {
    /// As in [`Options::segment_bytes`].
    pub segment_bytes: u64,
    /// As in [`Options::index_flush_bytes`].
    pub index_flush_bytes: u64,
    /// As in [`Options::background`].
    pub background: bool,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        let Options { segment_bytes, index_flush_bytes, background, .. } = Options::default();
        Self { segment_bytes, index_flush_bytes, background }
    }
}

/// A frame of the original.
#[derive(Debug, Clone)]
pub enum Mirrored {
    /// As it is stored there, what its content refers to included.
    Frame(Frame),
    /// What is left of one.
    Hole(Hole),
}

impl Mirrored {
    /// The part of its header that the chain covers.
    pub fn chained(&self) -> &Chained {
        match self {
            Self::Frame(frame) => frame.chained(),
            Self::Hole(hole) => hole.chained(),
        }
    }
}

/// What is to blame for an event that cannot be read in a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The mirror, as far as can be told here: made anew, it may have the event.
    Mirror,
    /// The original: this frame of it could not be read when it was put here.
    Hole(u64),
    /// The original: what the event refers to could not be read.
    Source,
}

/// A frame of which only the beginning can be read: its header and the tree's edge.
#[derive(Debug, Clone)]
pub struct Hole {
    header: FrameHeader,
    tree: Tree,
    start: Bytes,
}

impl Hole {
    /// From the first bytes of the frame, through the tree's edge.
    ///
    /// # Errors
    /// `damaged` if they fail their checksum, or there is no edge that belongs to the root in the header.
    pub fn new(start: &Bytes) -> Result<Self> {
        let header = FrameHeader::decode(start)?;
        let Some(tree) = header.tree(start) else {
            let sequence = header.chained.sequence;
            return Err(Error::damaged(format!(
                "the tree's edge beside the header of frame {sequence} does not match"
            )));
        };
        Ok(Self { start: start.slice(..header.edge_end()), header, tree })
    }

    /// The part of its header that the chain covers.
    pub fn chained(&self) -> &Chained {
        &self.header.chained
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A frame with this beginning and a body that fails every check: no byte of it is zero, so that nobody takes it
    /// for one that was not written to its end.
    pub(crate) fn filled(&self) -> Vec<u8> {
        let mut bytes = self.start.to_vec();
        bytes.resize(self.header.frame_len(), FILLING);
        bytes
    }

    /// The tree after such a frame, if these bytes are one that was [`filled`](Self::filled).
    pub(crate) fn is_filled(header: &FrameHeader, bytes: &[u8]) -> Option<Tree> {
        let body = bytes.get(header.edge_end()..header.frame_len())?;
        body.iter().all(|byte| *byte == FILLING).then(|| header.tree(bytes)).flatten()
    }
}

/// A log that is kept elsewhere, held in a directory as well: its frames as they are stored there, and an index over them.
///
/// It is written only behind the original, so it is a prefix of it and can be deleted at any time.
#[derive(Debug)]
pub struct Mirror {
    store: EmbeddedStore,
    name: LogName,
    id: LogId,
}

impl Mirror {
    /// Opens the mirror of a log in a directory, and makes it if there is none. One that is found damaged, of another
    /// log or of another format is deleted, under its lock, and made anew: all of it can be had again.
    ///
    /// # Errors
    /// `locked` if another process has it open; `not_a_store` for a directory that holds something else.
    pub fn open(path: &Path, id: LogId, options: &MirrorOptions) -> Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            let last = tries == OPEN_TRIES;
            match Self::open_once(path, id, options) {
                Ok(mirror) if mirror.is_sound() || last => return Ok(mirror),
                Ok(mirror) => mirror.remove()?,
                Err(error) if last => return Err(error),
                Err(error) => match error.kind() {
                    ErrorKind::Damaged | ErrorKind::UnsupportedFormat => remove_unopened(path)?,
                    // The file that makes it a store is there and damaged.
                    ErrorKind::NotAStore if path.join(STORE_FILE).is_file() => remove_unopened(path)?,
                    // It was deleted while it was open, by hand or between two looks of ours; or it is made at this moment.
                    ErrorKind::NotAStore if is_ours(path) => remove_what_is_no_store(path)?,
                    _ => return Err(error),
                },
            }
        }
    }

    fn open_once(path: &Path, id: LogId, options: &MirrorOptions) -> Result<Self> {
        let store = EmbeddedStore::open(
            path,
            Options {
                access: Access::ReadWrite,
                segment_bytes: options.segment_bytes,
                index_flush_bytes: options.index_flush_bytes,
                background: options.background,
                is_mirror: true,
                ..Options::default()
            },
        )?;
        Ok(Self { store, name: LogName::default(), id })
    }

    /// Whether frames can be added to it: it is of this log, and its end can be read.
    fn is_sound(&self) -> bool {
        let Ok(log) = self.log() else { return false };
        let published = log.published();
        let ours =
            published.size == 0 || (log.id == self.id && log.copy.load(std::sync::atomic::Ordering::Acquire));
        ours && log.read_only.is_none() && published.state.is_some()
    }

    fn log(&self) -> Result<Arc<Log>> {
        self.store.log(&self.name)
    }

    /// A page of events, as [`Store::read`](precedent_core::Store::read) answers it. Reads files on the calling thread.
    pub fn read(&self, read: &Read) -> Result<Page> {
        self.log()?.read(read)
    }

    /// Whole frames, as [`Store::frames`](precedent_core::Store::frames) answers them. Reads files on the calling thread.
    pub fn frames(&self, from: u64, bytes_max: usize) -> Result<Vec<Frame>> {
        self.log()?.frames(from, bytes_max)
    }

    /// As [`Store::examine`](precedent_core::Store::examine). Reads files on the calling thread: all of them.
    pub fn examine(&self) -> Result<(Usage, Vec<Finding>)> {
        self.log()?.examine()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    /// Where the log stands here: what the next frame is drafted on.
    pub fn state(&self) -> Result<Arc<LogState>> {
        let published = self.log()?.published();
        if published.frames == 0 {
            return Ok(Arc::new(LogState::empty(self.id)));
        }
        published
            .state
            .ok_or_else(|| Error::damaged(format!("the end of {} is damaged", self.path().display())))
    }

    /// What is recorded, up to so many events: no more than are here.
    pub fn history(&self, size: u64) -> Result<MirrorHistory> {
        Ok(MirrorHistory { log: self.log()?, size })
    }

    /// The position of the first event of a frame that is here.
    pub fn first_position(&self, sequence: u64) -> Result<Position> {
        Ok(self.log()?.chained(sequence)?.first)
    }

    /// The chained part of the header of a frame that is here.
    pub fn chained(&self, sequence: u64) -> Result<Chained> {
        self.log()?.chained(sequence)
    }

    /// What is to blame for an event that cannot be read here.
    pub fn blame(&self, position: Position) -> Result<Blame> {
        let log = self.log()?;
        let place = match log.segments.locate(position.0) {
            Ok(EventPlace::Frame(place)) if place.pack.is_none() => place,
            // What is packed was whole.
            Ok(_) if log.index().may_have_unreadable() => return Ok(Blame::Source),
            _ => return Ok(Blame::Mirror),
        };
        let Ok(Step::Frame(header, at)) = log.segments.step(place.segment, place.offset, self.id) else {
            return Ok(Blame::Mirror);
        };
        let whole = read_whole(&*log.segments.file(place.segment)?, &header, at);
        Ok(match whole.and_then(|frame| check_own(&frame)) {
            // What it refers to is missing, and some of that was missing in the original.
            Ok(()) if log.index().may_have_unreadable() => Blame::Source,
            Err(_) if known_hole(&log.segments, place.segment, &header, at)?.is_some() => {
                Blame::Hole(place.sequence)
            }
            _ => Blame::Mirror,
        })
    }

    /// Whether something could not be read in the original, or here, when it was indexed.
    pub fn has_holes(&self) -> Result<bool> {
        Ok(self.log()?.index().may_have_unreadable())
    }

    /// Adds the next frames. Those that are here already are passed over.
    ///
    /// # Errors
    /// `log_forked` if another frame is here in the place of one; `damaged` for one that does not follow, or does not
    /// prove itself; `io` if the directory was deleted, and what is there now may be another process's.
    pub async fn put(&self, frames: Vec<Mirrored>) -> Result<()> {
        let Some(first) = frames.first().cloned() else { return Ok(()) };
        if !self.holds_the_lock_there() {
            let message = format!("{} was deleted while it was open", self.path().display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        let check = || {
            let chained = first.chained();
            let empty = LogState::empty(self.id);
            if chained.log != self.id {
                let message = format!("a frame of log {} for the mirror of log {}", chained.log, self.id);
                return Err(Error::new(ErrorKind::LogForked, message));
            }
            match &first {
                Mirrored::Frame(frame) => {
                    frame.check_with(&mut WithFrame {
                        frame,
                        before: &mut precedent_core::extents::NoSources,
                    })?;
                    empty.after(frame)?;
                    check_copied(frame, &empty, &Nothing)
                }
                Mirrored::Hole(hole) => empty.past(chained, hole.tree.clone()).map(drop),
            }
        };
        let target = || self.store.copy_target(&self.name, self.id, check);
        self.store.submit(&self.name, |answer| Job::Mirror(frames, answer), target, false)?.await
    }

    /// Remembers the newest content of the log, to hold the next against.
    pub fn recall(&self) -> Result<Recent> {
        let log = self.log()?;
        Ok(crate::writer::recall(&log, &*self.state()?))
    }

    /// Remembers the content of events from `from` on as well, `recent` having everything before that matters. What
    /// cannot be read is not remembered.
    pub fn recall_from(&self, recent: &mut Recent, from: Position) -> Result<()> {
        let log = self.log()?;
        let mut reader = FrameReader::new(&log.segments, true);
        for position in from.0..log.published().size {
            let Ok(stored) = reader.event(Position(position)) else { continue };
            let _ = precedent_core::entry::Entry::decode(&stored.entry)
                .and_then(|entry| recent.recall(&stored, &entry, reader.sources()));
        }
        Ok(())
    }

    /// Runs something with what stands literally in the log, for frames that refer to it.
    pub fn with_sources<T>(&self, run: impl FnOnce(&mut dyn Sources) -> T) -> Result<T> {
        let log = self.log()?;
        let mut reader = FrameReader::new(&log.segments, false);
        Ok(run(reader.sources()))
    }

    /// Ends everything under way and deletes what is here, before another process can have it. Blocks meanwhile.
    ///
    /// If the directory was deleted meanwhile, and perhaps made again by another process, that is left alone, but for
    /// what nobody has.
    pub fn remove(&self) -> Result<()> {
        match self.store.close_and(|| self.holds_the_lock_there().then(|| remove_store(self.path()))) {
            Some(Some(removed)) => removed,
            Some(None) => remove_what_is_no_store(self.path()),
            None => Ok(()),
        }
    }

    /// Ends everything under way so that it can be opened again. If the directory was deleted meanwhile, what was written
    /// there since is deleted too: it is no store. Blocks meanwhile.
    pub fn give_up(&self) -> Result<()> {
        self.close();
        remove_what_is_no_store(self.path())
    }

    /// Ends everything under way and lets the directory go. Blocks meanwhile.
    pub fn close(&self) {
        self.store.close_and(|| ());
    }

    /// Whether the lock that was taken is the one in the directory: else the directory was deleted, and whatever is in
    /// its place now is another process's.
    fn holds_the_lock_there(&self) -> bool {
        self.store.lock_is_in_place()
    }
}

/// What is recorded of a log up to some size, for the next draft: see [`Mirror::history`].
#[derive(Debug)]
pub struct MirrorHistory {
    log: Arc<Log>,
    size: u64,
}

impl MirrorHistory {
    fn recorded(&self) -> Recorded<'_> {
        Recorded::new(&self.log, self.size)
    }
}

impl History for MirrorHistory {
    fn by_key(&self, source: &str, id: &str) -> Result<Option<RecordedEvent>> {
        self.recorded().by_key(source, id)
    }

    fn stream_tip(&self, stream: &str) -> Result<Option<StreamTip>> {
        self.recorded().stream_tip(stream)
    }

    fn any_match(&self, query: &Query, after: Option<Position>) -> Result<Option<Position>> {
        self.recorded().any_match(query, after)
    }
}

/// Whether a directory holds nothing but what a store consists of, or is not there.
fn is_ours(path: &Path) -> bool {
    let ours = [crate::LOCK_FILE, STORE_FILE, "logs", "registers", "precedent.tmp"];
    let names = RealIo.list(path).unwrap_or_default();
    names.iter().all(|name| ours.contains(&name.as_str()))
}

/// Deletes a store that cannot be opened, unless another process has its lock.
fn remove_unopened(path: &Path) -> Result<()> {
    let _lock = crate::take_lock(&RealIo, path, &path.join(crate::LOCK_FILE))?;
    remove_store(path)
}

/// Deletes what is left in a directory that is no store any more, unless another process is making one of it.
fn remove_what_is_no_store(path: &Path) -> Result<()> {
    if !path.exists() || path.join(STORE_FILE).is_file() {
        return Ok(());
    }
    match crate::take_lock(&RealIo, path, &path.join(crate::LOCK_FILE)) {
        Ok(_lock) if path.join(STORE_FILE).is_file() => Ok(()),
        Ok(_lock) => remove_store(path),
        Err(error) if error.kind() == ErrorKind::Locked => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes what a store is made of, and nothing else: then the directory is one in which a store can be made.
fn remove_store(path: &Path) -> Result<()> {
    let deleted = |place: PathBuf, deleted: std::io::Result<()>| match deleted {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(error).context(format!("deleting {} failed", place.display())))
        }
        _ => Ok(()),
    };
    for directory in ["logs", "registers"] {
        deleted(path.join(directory), std::fs::remove_dir_all(path.join(directory)))?;
    }
    deleted(path.join(STORE_FILE), std::fs::remove_file(path.join(STORE_FILE)))
}

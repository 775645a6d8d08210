//! One log on a service, as this process sees it: the frames that are there, and the copy of them that is here.
//!
//! ```text
//!            put, once durable there
//! service ─────────────────────────► mirror ──► reads, conditions, keys
//!    ▲                                  │
//!    └── the next frame ◄── draft ◄─────┘
//! ```
//!
//! *Invariant*: the mirror is a prefix of what is there. It never holds a frame that is not, and whoever answers from it
//! has looked whether there is more where that matters: at the end of the log, and before saying no.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use precedent_core::frame::{Frame, FrameHeader};
use precedent_core::sequencer::LogState;
use precedent_core::{Error, ErrorKind, LogId, LogName, Position, Result};
use precedent_engine::{Blame, Hole, Mirror, Mirrored};
use tokio::sync::watch;

use super::options::{CatchingUp, Options, mirror_directory};
use crate::remote::{LogRecord, Remote, StoredFrame};

/// Bytes of frames that are fetched at once.
const FETCH_BYTES: usize = 4 << 20;
/// Processes of this machine that can have a copy of one log at once.
const PLACES_MAX: u32 = 64;

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct RemoteLog {
    pub(super) name: LogName,
    pub(super) id: LogId,
    pub(super) home: String,
    pub(super) remote: Arc<dyn Remote>,
    pub(super) mirror: Mirror,
    /// Whether it is a copy, as far as was last seen.
    pub(super) copy: AtomicBool,
    /// One fetches at a time; what it finds is for all.
    fetching: tokio::sync::Mutex<()>,
    /// The number of events here.
    size: watch::Sender<u64>,
    /// What was said of frames that could not be read.
    damage: Mutex<BTreeMap<u64, Error>>,
    /// Whether there was a copy before this handle, whose damage need not be that of the log.
    found: bool,
    /// Whether the end of the log has been looked for in a way that sees past a gap.
    looked: AtomicBool,
    /// Whether it is to be made anew.
    doubted: AtomicBool,
    /// Whether it could not be written, and is to be opened again: the directory may be gone, the disk full.
    broken: AtomicBool,
    catching_up: Shown,
}

/// How far catching up is, for whoever wants to know.
struct Shown(Option<CatchingUp>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "shown" } else { "not shown" })
    }
}

impl RemoteLog {
    /// The log behind a record: its copy is opened, and held against what is there.
    ///
    /// # Errors
    /// `log_went_backwards` if what was seen there before is not there any more.
    pub(super) async fn open(
        remote: Arc<dyn Remote>,
        name: LogName,
        record: LogRecord,
        options: &Options,
    ) -> Result<Arc<Self>> {
        let mirror = {
            let (remote, options) = (remote.clone(), options.clone());
            blocking(move || open_mirror(&*remote, record.id, &options)).await?
        };
        let size = mirror.state()?.size();
        let log = Arc::new(Self {
            name,
            id: record.id,
            home: record.home,
            remote,
            mirror,
            copy: AtomicBool::new(record.copy),
            fetching: tokio::sync::Mutex::default(),
            size: watch::Sender::new(size),
            damage: Mutex::default(),
            found: size > 0,
            looked: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            catching_up: Shown(options.catching_up.clone()),
        });
        log.check_still_there().await?;
        Ok(log)
    }

    /// Where the log stands here.
    pub(super) fn state(&self) -> Result<Arc<LogState>> {
        self.mirror.state()
    }

    /// Told when there are more events here.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    /// Adds frames that are durable there.
    pub(super) async fn put(&self, frames: Vec<Mirrored>) -> Result<()> {
        let put = self.mirror.put(frames).await.map_err(|error| match error.kind() {
            // The frames are there, and prove to be of another history than those here.
            ErrorKind::LogForked => self.went_backwards(&format!("it holds other frames: {error}")),
            kind => {
                if kind != ErrorKind::Damaged {
                    self.broken.store(true, Ordering::Release);
                }
                error.context(format!("the copy of log '{}' in {}", self.name, self.mirror.path().display()))
            }
        });
        let size = self.state()?.size();
        self.size.send_if_modified(|seen| std::mem::replace(seen, size) != size);
        put
    }

    /// Runs something that reads or writes the files of the copy, on a thread that is there for that: so a slow disk holds
    /// up nobody else.
    pub(super) async fn here<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = self.clone();
        blocking(move || run(&log)).await
    }

    /// Fetches what is there and not here; answers whether there was anything.
    ///
    /// The first time the frames themselves are asked for, which tells a gap from the end; later whether there is the next
    /// one, which is cheap.
    ///
    /// # Errors
    /// `damaged` if the next frame is missing and later ones are there.
    pub(super) async fn catch_up(&self) -> Result<bool> {
        let before = self.state()?.next_sequence;
        let _turn = self.fetching.lock().await;
        let mut next = self.state()?.next_sequence;
        let mut steps = 0;
        loop {
            let looked = self.looked.load(Ordering::Acquire);
            if looked && !self.remote.has_frame(self.id, next).await? {
                break;
            }
            let stored = self.remote.frames(self.id, next, FETCH_BYTES).await?;
            if stored.is_empty() && !looked {
                self.looked.store(true, Ordering::Release);
                break;
            }
            if stored.is_empty() {
                return Err(Error::damaged(format!(
                    "frame {next} of log '{}' is there and cannot be read",
                    self.name
                )));
            }
            self.add(next, stored).await?;
            let now = self.state()?.next_sequence;
            if now == next {
                return Err(Error::damaged(format!("frame {next} of log '{}' cannot be read", self.name)));
            }
            next = now;
            steps += 1;
            self.show(steps, false)?;
        }
        self.show(steps, true)?;
        Ok(next > before)
    }

    /// Says how far catching up is, if that is worth saying.
    fn show(&self, steps: u32, done: bool) -> Result<()> {
        match &self.catching_up.0 {
            Some(shown) if steps > 1 => shown(self.state()?.size(), done),
            _ => {}
        }
        Ok(())
    }

    /// Adds frames as they were fetched, the first having this number. One that does not prove itself becomes a hole.
    async fn add(&self, first: u64, stored: Vec<StoredFrame>) -> Result<()> {
        let mut frames = Vec::with_capacity(stored.len());
        for (expected, stored) in (first..).zip(&stored) {
            if stored.sequence != expected {
                // What comes before is kept; the next look begins with what is missing.
                if frames.is_empty() {
                    let message = format!(
                        "frame {expected} of log '{}' is missing: frame {} follows",
                        self.name, stored.sequence
                    );
                    return Err(Error::damaged(message));
                }
                break;
            }
            match self.decoded(expected, stored.bytes.clone()) {
                Ok(frame) => frames.push(Mirrored::Frame(frame)),
                Err(error) => frames.push(self.hole(expected, stored, error)?),
            }
        }
        loop {
            let error = match self.put(frames.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                Err(error) => error,
            };
            // Those before it are here now.
            let next = self.state()?.next_sequence;
            let index =
                usize::try_from(next.saturating_sub(first)).ok().filter(|index| *index < frames.len());
            match index.map(|index| (index, &frames[index])) {
                Some((index, Mirrored::Frame(_))) => {
                    frames[index] = self.hole(next, &stored[index], error)?
                }
                _ => return Err(error),
            }
        }
    }

    fn decoded(&self, sequence: u64, bytes: Result<bytes::Bytes>) -> Result<Frame> {
        let frame = Frame::decode(bytes?)?;
        match frame.chained() {
            chained if chained.log == self.id && chained.sequence == sequence => Ok(frame),
            chained => Err(Error::damaged(format!(
                "frame {} of log {} is in its place",
                chained.sequence, chained.log
            ))),
        }
    }

    /// What is left of a frame that cannot be read: its header and the tree's edge.
    fn hole(&self, sequence: u64, stored: &StoredFrame, error: Error) -> Result<Mirrored> {
        let error = Error::damaged(format!("frame {sequence} of log '{}': {error}", self.name));
        let ours = |hole: &Hole| hole.chained().log == self.id && hole.chained().sequence == sequence;
        let hole = stored.header.as_ref().and_then(|header| Hole::new(header).ok()).filter(ours);
        let Some(hole) = hole else { return Err(error) };
        self.damage.lock().unwrap_or_else(|p| p.into_inner()).insert(sequence, error);
        Ok(Mirrored::Hole(hole))
    }

    /// Checks that the newest frame here is the one there.
    async fn check_still_there(&self) -> Result<()> {
        let state = self.state()?;
        let Some(last) = state.next_sequence.checked_sub(1) else { return Ok(()) };
        let there = self.remote.frames(self.id, last, 1).await?;
        match there.first().filter(|frame| frame.sequence == last) {
            None => Err(self.went_backwards(&format!("frame {last} is not there any more"))),
            Some(frame) => match frame.header.as_ref().map(|header| FrameHeader::decode(header)) {
                Some(Ok(header)) if header.chained.hash() != state.last_frame => {
                    Err(self.went_backwards(&format!("another frame {last} is there now")))
                }
                _ => Ok(()),
            },
        }
    }

    /// The error for a log that is less, or other, than it was.
    pub(super) fn went_backwards(&self, what: &str) -> Error {
        let (size, root) = match self.state() {
            Ok(state) => (state.size(), state.tree.root()),
            Err(error) => return error,
        };
        Error::new(
            ErrorKind::LogWentBackwards,
            format!(
                "log '{}' ({}) in {} was seen with {size} events and root {root}, and {what}; if it was meant to \
                 be emptied or rolled back, delete the copy in {}",
                self.name,
                self.id,
                self.remote.url(),
                self.mirror.path().display()
            ),
        )
    }

    /// Something here cannot be read: answers whether that may be the copy's fault alone. Then it is made anew by whoever
    /// asks for the log next. One that this handle made is what it found there.
    ///
    /// A copy of a log of which something could not be read there either is believed: see [`Self::doubt_of`].
    pub(super) fn doubt(&self) -> bool {
        let doubtful = self.found && !self.mirror.has_holes().unwrap_or(true);
        self.doubted.fetch_or(doubtful, Ordering::AcqRel);
        doubtful
    }

    fn doubt_anyway(&self) -> bool {
        self.doubted.store(true, Ordering::Release);
        true
    }

    /// As [`Self::doubt`], for these positions: what could not be read there either is no fault of the copy's.
    pub(super) async fn doubt_of(self: &Arc<Self>, positions: Vec<Position>) -> Result<bool> {
        if !self.found {
            return Ok(false);
        }
        for position in positions {
            match self.here(move |log| log.mirror.blame(position)).await? {
                Blame::Mirror => return Ok(self.doubt_anyway()),
                Blame::Hole(sequence) if !self.is_known_damage(sequence) => {
                    let stored = self.remote.frames(self.id, sequence, 1).await?;
                    let Some(stored) = stored.first().filter(|stored| stored.sequence == sequence) else {
                        continue;
                    };
                    match self.decoded(sequence, stored.bytes.clone()) {
                        // It can be read by now.
                        Ok(_) => return Ok(self.doubt_anyway()),
                        Err(error) => drop(self.hole(sequence, stored, error)),
                    }
                }
                Blame::Hole(_) | Blame::Source => {}
            }
        }
        Ok(false)
    }

    fn is_known_damage(&self, sequence: u64) -> bool {
        self.damage.lock().unwrap_or_else(|p| p.into_inner()).contains_key(&sequence)
    }

    /// Whether the copy is to be made anew, or opened again: nobody goes on with this one.
    pub(super) fn is_doubted(&self) -> bool {
        self.is_damaged() || self.broken.load(Ordering::Acquire)
    }

    /// Whether the copy is to be made anew.
    pub(super) fn is_damaged(&self) -> bool {
        self.doubted.load(Ordering::Acquire)
    }

    /// What was said of the frame that holds this position when it was fetched, if it could not be read.
    pub(super) fn damage_at(&self, position: u64) -> Option<Error> {
        let damage = self.damage.lock().unwrap_or_else(|p| p.into_inner());
        damage.iter().find_map(|(sequence, error)| {
            let chained = self.mirror.chained(*sequence).ok()?;
            (chained.first.0..chained.tree_size()).contains(&position).then(|| error.clone())
        })
    }

    /// Looks again whether it is still a copy.
    pub(super) async fn is_copy(&self) -> Result<bool> {
        if self.copy.load(Ordering::Acquire)
            && let Some(record) = self.remote.log(&self.name).await?
        {
            self.copy.store(record.copy, Ordering::Release);
        }
        Ok(self.copy.load(Ordering::Acquire))
    }
}

/// Runs something that blocks, on a thread that is there for that.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(run).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(ErrorKind::Stopped, "the runtime is shutting down")),
        },
    }
}

/// The copy of a log, in the first place that no other process has open.
fn open_mirror(remote: &dyn Remote, log: LogId, options: &Options) -> Result<Mirror> {
    let identity = remote.identity();
    for place in 0..PLACES_MAX {
        let path = mirror_directory(&options.cache, &identity, log, place);
        match Mirror::open(&path, log, &options.mirror) {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            Err(error) => {
                return Err(error.context(format!(
                    "the local copy of {} needs a directory that can be written to ({} names another)",
                    remote.url(),
                    super::options::CACHE_VARIABLE
                )));
            }
            opened => return opened,
        }
    }
    let cache = options.cache.display();
    Err(Error::new(
        ErrorKind::Locked,
        format!("{PLACES_MAX} processes have a copy of log {log} open in {cache} already"),
    ))
}

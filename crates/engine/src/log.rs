//! One log of the embedded store: what readers and the writer share.
//!
//! ```text
//! append ──► queue ──► writer thread: sequence → write → sync ──► publish ──► answers
//!                                                                    │
//! read ◄── index (candidates) ◄── segments (events) ◄────────────────┘ never beyond what is published
//! ```
//!
//! Readers see what is [`Published`]: a prefix that is durable. A handle beside a writer in another process
//! learns of it through the file `published`.

mod queue;
mod read;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};

use futures_channel::oneshot;
use precedent_core::entry::Entry;
use precedent_core::frame::{Chained, Frame};
use precedent_core::prepared::Prepared;
use precedent_core::sequencer::LogState;
use precedent_core::store::{Finding, Severity, Usage};
use precedent_core::{Error, ErrorKind, FrameId, Head, LogId, LogName, Position, Result, Time};

use crate::Settings;
use crate::index::Index;
use crate::index::run::BadRun;
use crate::io::{Io, Mode};
use crate::look::look;
use crate::meta::{LogMeta, Mark, PUBLISHED_FILE};
use crate::mirror::Mirrored;
use crate::reader::FrameReader;
use crate::recovery::{self, Tail};
use crate::segment::Segments;
use crate::writer::Writer;

use self::queue::Queue;
pub(crate) use self::queue::{Answer, DeviceTurn, Room};

/// How often a directory is listed again because of what was packed meanwhile.
const LOOKS_MAX: usize = 4;

/// What readers may see.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) frames: u64,
    pub(crate) size: u64,
    pub(crate) last_time: Time,
    /// `None` if damage at the end of the log hides it.
    pub(crate) state: Option<Arc<LogState>>,
}

/// Something for the writer to do.
pub(crate) enum Job {
    Append(Prepared, Answer),
    /// Frames of the original of a copy, all their content literal.
    PutFrames(Vec<Frame>, oneshot::Sender<Result<()>>),
    /// Frames of a log that is kept elsewhere, as they are stored there.
    Mirror(Vec<Mirrored>, oneshot::Sender<Result<()>>),
    Promote(oneshot::Sender<Result<()>>),
}

/// One log.
pub(crate) struct Log {
    pub(crate) name: LogName,
    pub(crate) dir: PathBuf,
    pub(crate) io: Arc<dyn Io>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) id: LogId,
    pub(crate) segments: Arc<Segments>,
    pub(crate) index: RwLock<Arc<Index>>,
    published: RwLock<Published>,
    queue: Mutex<Queue>,
    /// Tells threads that wait for jobs.
    wake: Condvar,
    /// Tells who waits for the device.
    turn: Condvar,
    waiters: Mutex<Vec<oneshot::Sender<()>>>,
    /// Whether it is on disk.
    pub(crate) exists: AtomicBool,
    /// Whether it is a copy, which only takes frames of the original.
    pub(crate) copy: AtomicBool,
    /// Why it cannot be written to, if so.
    pub(crate) read_only: Option<Error>,
    /// What is wrong with the log, as far as it was seen.
    damage: Mutex<Option<Error>>,
    findings: Mutex<Vec<Finding>>,
    /// Why sealed segments could not be packed when that was last tried.
    pub(crate) packing: Mutex<Option<Error>>,
    /// Held by whoever reads the files as they lie there, so that none is replaced meanwhile.
    pub(crate) files: RwLock<()>,
    /// What the writer goes on from, until the first job starts it.
    seed: Mutex<Option<Seed>>,
    /// From the first job until it is closed.
    writer: RwLock<Option<Arc<Writer>>>,
    /// As in `published`, for a look without the lock.
    recorded_size: AtomicU64,
}

/// What a writer needs to start.
struct Seed {
    state: LogState,
    segment: u32,
    offset: u64,
    /// Whether there is something to leave in good order even if nothing is appended.
    unfinished: bool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({})", self.dir.display())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Log {
    /// Opens the log in `dir`, or prepares one that its first append will make. The writer's thread starts with
    /// the first job.
    pub(crate) fn open(
        io: Arc<dyn Io>,
        dir: PathBuf,
        name: LogName,
        settings: Arc<Settings>,
        read_only: Option<Error>,
    ) -> Result<Arc<Self>> {
        let writable = read_only.is_none();
        let meta = LogMeta::read(&*io, &dir)?;
        let id = meta.map_or_else(LogId::random, |meta| meta.id);
        let mut segments = Segments::new(io.clone(), dir.clone(), id, writable).of_mirror(settings.is_mirror);
        let mut findings = Vec::new();
        let mut problem = read_only;
        let empty = LogState::empty(id);
        let mut tail = Tail {
            segment: 0,
            offset: 0,
            frames: 0,
            size: 0,
            last_frame: empty.last_frame,
            torn_until: None,
            damage: None,
        };
        let mut state = Some(empty);
        let mut unfinished = false;
        if meta.is_some() {
            let seen = look(&io, &dir, &name, id, &settings, writable)?;
            let beside = seen.beside;
            (segments, tail) = (seen.segments, seen.tail);
            if seen.lost {
                state = None;
            }
            unfinished = recovery::needs_settling(&*io, &dir, id, &tail);
            if tail.damage.is_none() && writable {
                if let Some(until) = tail.torn_until {
                    findings.push(recovery::discard_torn(&*io, &segments.path(tail.segment), &tail, until)?);
                } else if unfinished {
                    recovery::settle_last_frame(&*io, &segments, tail.frames)?;
                }
                io.sync_dir(&dir)?;
            } else if !beside && !writable && unfinished && tail.frames > 0 {
                // Nobody is told of a frame that a power failure could still take back.
                recovery::sync_for_reading(&segments, tail.segment)?;
            }
            if state.is_some() {
                state = match recovery::load_state(&segments, id, &tail) {
                    Ok(loaded) => Some(loaded),
                    Err(e) => {
                        tail.damage.get_or_insert(e);
                        None
                    }
                };
            }
            if writable && tail.damage.is_some() && recovery::highest_mark(&*io, &dir, id).is_none() {
                // Nobody will write to it, so this is how far it goes for readers in other processes too.
                let Tail { frames, size, last_frame, .. } = tail;
                write_mark(&*io, &dir, &Mark { log: id, frames, size, last_frame });
            }
            if let Some(damage) = &tail.damage {
                findings.push(Finding {
                    code: "damaged",
                    severity: Severity::Error,
                    message: format!("log '{name}' is damaged and read-only: {damage}"),
                });
                problem.get_or_insert_with(|| {
                    Error::new(
                        ErrorKind::ReadOnly,
                        format!("log '{name}' is damaged and can only be read: {damage}"),
                    )
                });
            }
        }
        let can_index = writable && tail.damage.is_none();
        let index =
            recovery::open_index(&io, &dir, &segments, id, &tail, can_index, settings.index_flush_bytes)?;
        let published = Published {
            frames: tail.frames,
            size: tail.size,
            last_time: state.as_ref().map_or_else(Time::default, |s| s.last_time),
            state: state.clone().map(Arc::new),
        };
        let mut seed = None;
        if let (None, Some(state)) = (&problem, state) {
            if meta.is_some() {
                // Readers in other processes look no further than this.
                write_mark(&*io, &dir, &mark_of(&state));
            }
            seed = Some(Seed { state, segment: tail.segment, offset: tail.offset, unfinished });
        }
        Ok(Arc::new(Self {
            name,
            dir,
            io,
            settings,
            id,
            segments: Arc::new(segments),
            index: RwLock::new(Arc::new(index)),
            published: RwLock::new(published),
            queue: Mutex::default(),
            wake: Condvar::new(),
            turn: Condvar::new(),
            recorded_size: AtomicU64::new(tail.size),
            waiters: Mutex::default(),
            exists: AtomicBool::new(meta.is_some()),
            copy: AtomicBool::new(meta.is_some_and(|meta| meta.copy)),
            read_only: problem,
            damage: Mutex::new(tail.damage),
            findings: Mutex::new(findings),
            packing: Mutex::default(),
            files: RwLock::default(),
            seed: Mutex::new(seed),
            writer: RwLock::default(),
        }))
    }

    /// The writer, made if this is the first job. `None` once the log is closed.
    fn writer(self: &Arc<Self>) -> Result<Option<Arc<Writer>>> {
        if let Some(writer) = &*self.writer.read().unwrap_or_else(|p| p.into_inner()) {
            return Ok(Some(writer.clone()));
        }
        let mut slot = self.writer.write().unwrap_or_else(|p| p.into_inner());
        if slot.is_none() {
            let mut seed = lock(&self.seed);
            let Some(Seed { state, segment, offset, .. }) = &*seed else { return Ok(None) };
            *slot = Some(Writer::new(self.clone(), state.clone(), *segment, *offset)?);
            *seed = None;
        }
        Ok(slot.clone())
    }

    pub(crate) fn published(&self) -> Published {
        self.published.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    pub(crate) fn index(&self) -> Arc<Index> {
        self.index.read().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// The number of events that the index covers.
    pub(crate) fn recorded_size(&self) -> u64 {
        self.recorded_size.load(Ordering::Acquire)
    }

    /// Stops the handle after a failure that cannot be settled: every waiter is told, and everybody from now on.
    pub(crate) fn stop(&self, error: &Error) {
        self.settings.stop(error);
        lock(&self.waiters).clear();
    }

    /// Drops what waits for the writer; whoever waits for an answer is told that there will be none.
    pub(crate) fn drop_jobs(&self) {
        let mut queue = lock(&self.queue);
        queue.closing = true;
        queue.jobs.clear();
        queue.bytes = 0;
        drop(queue);
        self.wake.notify_all();
    }

    /// Lets readers see what is durable now.
    pub(crate) fn publish(&self, state: Arc<LogState>) {
        self.recorded_size.store(state.size(), Ordering::Release);
        *self.published.write().unwrap_or_else(|p| p.into_inner()) = Published {
            frames: state.next_sequence,
            size: state.size(),
            last_time: state.last_time,
            state: Some(state),
        };
        for waiter in lock(&self.waiters).drain(..) {
            let _ = waiter.send(());
        }
    }

    /// Whether it is there on disk by now, though it was not when it was opened.
    pub(crate) fn was_made_since(&self) -> Result<bool> {
        Ok(!self.exists.load(Ordering::Acquire) && LogMeta::read(&*self.io, &self.dir)?.is_some())
    }

    /// Whether it has been closed, and another is to be opened in its place.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closing
    }

    /// Whether there is such a log: `main` is there from the beginning.
    pub(crate) fn check_exists(&self) -> Result<()> {
        if self.exists.load(Ordering::Acquire) || self.name.as_str() == LogName::MAIN {
            return Ok(());
        }
        Err(precedent_core::memory::no_log(&self.name))
    }

    /// The end of the log.
    pub(crate) fn head(&self) -> Result<Head> {
        self.check_open()?;
        self.check_exists()?;
        let published = self.published();
        let Some(state) = &published.state else {
            let damage = lock(&self.damage).clone();
            return Err(damage.unwrap_or_else(|| Error::damaged("the end of the log is damaged")));
        };
        Ok(Head {
            log: self.exists.load(Ordering::Acquire).then_some(self.id),
            size: published.size,
            root: state.tree.root(),
            frames: published.frames,
            recorded: (published.size > 0).then_some(published.last_time),
        })
    }

    /// Whether the log has been closed or stopped. Reads of what is durable go on after a failed write.
    fn check_open(&self) -> Result<()> {
        if lock(&self.queue).closing { Err(closed()) } else { Ok(()) }
    }

    /// Told when the log has grown beyond what is published now, or is closed (then the sender is dropped).
    pub(crate) fn waiter(&self) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        let mut waiters = lock(&self.waiters);
        waiters.retain(|w| !w.is_canceled());
        if !lock(&self.queue).closing {
            waiters.push(tell);
        }
        told
    }

    /// In a handle beside a writer: looks what the writer has published since. Answers whether it grew.
    pub(crate) fn refresh(&self) -> Result<bool> {
        if self.settings.writes() {
            return Ok(false);
        }
        let Some(mark) = recovery::highest_mark(&*self.io, &self.dir, self.id) else { return Ok(false) };
        let mut published = self.published.write().unwrap_or_else(|p| p.into_inner());
        if mark.frames <= published.frames {
            return Ok(false);
        }
        let mut looks = 0;
        let mut tail = loop {
            // Listed after the mark was read: whatever it speaks of is in one of them.
            let (units, _) = Segments::list(&*self.io, &self.dir)?;
            looks += 1;
            match recovery::extend(&self.segments, &units, self.id, mark.frames) {
                // Packed, or merged, since it was listed.
                Err(e) if e.kind() == ErrorKind::NotFound && looks < LOOKS_MAX => {}
                Ok(tail) if tail.frames < mark.frames && looks < LOOKS_MAX => {}
                found => break found?,
            }
        };
        if tail.frames < mark.frames {
            let message = format!(
                "log '{}' ends after {} frames, but its writer has published {}",
                self.name, tail.frames, mark.frames
            );
            lock(&self.damage).get_or_insert_with(|| Error::damaged(message));
        }
        (tail.frames, tail.size) = (mark.frames, mark.size);
        tail.last_frame = mark.last_frame;
        let index = self.index();
        recovery::index_frames(&index, &self.segments, tail.frames, tail.size, |_| {})?;
        if index.active_log_bytes() > 4 * self.settings.index_flush_bytes {
            // The writer has made runs of most of it meanwhile.
            let again = recovery::open_index(
                &self.io,
                &self.dir,
                &self.segments,
                self.id,
                &tail,
                false,
                self.settings.index_flush_bytes,
            )?;
            *self.index.write().unwrap_or_else(|p| p.into_inner()) = Arc::new(again);
        }
        let state = match recovery::load_state(&self.segments, self.id, &tail) {
            Ok(state) => Some(Arc::new(state)),
            Err(error) => {
                lock(&self.damage).get_or_insert(error);
                None
            }
        };
        let last_time = state.as_ref().map_or(published.last_time, |state| state.last_time);
        *published = Published { frames: tail.frames, size: tail.size, last_time, state };
        Ok(true)
    }

    /// Runs a question to the index; a run that fails its check is let go, and the question asked again.
    pub(crate) fn ask<T>(&self, mut question: impl FnMut(&Index) -> Result<T, BadRun>) -> T {
        loop {
            let index = self.index();
            match question(&index) {
                Ok(answer) => return answer,
                Err(bad) => index.drop_run(&bad),
            }
        }
    }

    /// Whole frames from this sequence number on.
    pub(crate) fn frames(&self, from: u64, bytes_max: usize) -> Result<Vec<Frame>> {
        self.check_open()?;
        self.check_exists()?;
        let end = self.published().frames;
        let mut reader = FrameReader::new(&self.segments, true);
        let mut frames = Vec::new();
        let mut bytes = 0;
        for sequence in from..end {
            if bytes >= bytes_max.max(1) {
                break;
            }
            let place = self.segments.frame_number(sequence)?.filter(|place| place.sequence == sequence);
            let read = place
                .ok_or_else(|| Error::damaged(format!("frame {sequence} cannot be read")))
                .and_then(|place| reader.frame(&place).map_err(|e| e.context(format!("frame {sequence}"))));
            // Frames travel with all their content: what they refer to may not be where they go.
            let read = read.and_then(|frame| {
                frame.literal(reader.sources()).map_err(|e| e.context(format!("frame {sequence}")))
            });
            match read {
                Ok(frame) => {
                    bytes += frame.bytes().len();
                    frames.push(frame);
                }
                Err(error) if frames.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(frames)
    }

    /// The chained part of a frame's header.
    pub(crate) fn chained(&self, sequence: u64) -> Result<Chained> {
        let named = |e: Error| e.context(format!("frame {sequence}"));
        let place = self.segments.frame_number(sequence)?.filter(|place| place.sequence == sequence);
        let place = place.ok_or_else(|| named(Error::damaged("cannot be read")))?;
        FrameReader::new(&self.segments, false).chained(&place).map_err(named)
    }

    /// The work beside the writer panicked.
    pub(crate) fn found_panic(&self) {
        let mut findings = lock(&self.findings);
        if !findings.iter().any(|finding| finding.code == "panicked") {
            let message = format!(
                "indexing or packing log '{}' panicked, which is a defect: please report it",
                self.name
            );
            findings.push(Finding { code: "panicked", severity: Severity::Warning, message });
        }
    }

    /// How large the log is, and what is to be said about it.
    pub(crate) fn examine(&self) -> Result<(Usage, Vec<Finding>)> {
        self.check_exists()?;
        let mut findings = lock(&self.findings).clone();
        if let Err(error) = self.settings.check_stopped() {
            findings.push(Finding { code: "stopped", severity: Severity::Error, message: error.to_string() });
        }
        let index = self.index();
        let gaps: u64 = index.gaps().iter().map(|gap| gap.end_position - gap.first_position).sum();
        if gaps > 0 {
            let message = format!("{gaps} events have no index: queries read each of them");
            findings.push(Finding { code: "index_incomplete", severity: Severity::Warning, message });
        }
        let published = self.published();
        let mut usage = Usage { events: published.size, index_bytes: index.bytes(), ..Usage::default() };
        let mut reader = FrameReader::new(&self.segments, true);
        for position in 0..published.size {
            let entry = reader.event(Position(position)).and_then(|stored| Entry::decode(&stored.entry));
            match entry {
                Ok(entry) => usage.data_bytes += entry.parts.iter().map(|part| part.length).sum::<u64>(),
                Err(error) => {
                    let message = error.to_string();
                    findings.push(Finding { code: "damaged", severity: Severity::Error, message });
                }
            }
        }
        usage.log_bytes = self.segments.log_bytes()?;
        if let Some(error) = &*lock(&self.packing) {
            let message = format!("sealed segments could not be packed, the log takes more space: {error}");
            findings.push(Finding { code: "packing_failed", severity: Severity::Warning, message });
        }
        Ok((usage, findings))
    }

    /// Finishes what is queued and ends the writer.
    pub(crate) fn close(self: &Arc<Self>) {
        let threads = {
            let mut queue = lock(&self.queue);
            queue.closing = true;
            std::mem::take(&mut queue.threads)
        };
        self.wake.notify_all();
        for thread in threads {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        // A log that was recovered is left in good order even if nothing was appended.
        let seed = lock(&self.seed).take();
        let mut writer = self.writer.write().unwrap_or_else(|p| p.into_inner()).take();
        if let Some(Seed { state, segment, offset, unfinished: true }) = seed {
            writer = Writer::new(self.clone(), state, segment, offset).ok();
        }
        if let Some(writer) = writer {
            writer.finish();
        }
        self.settings.readers.forget(&self.segments);
        lock(&self.waiters).clear();
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Stopped, "the store has been closed")
}

/// The mark that says how far a log is durable.
pub(crate) fn mark_of(state: &LogState) -> Mark {
    Mark { log: state.log, frames: state.next_sequence, size: state.size(), last_frame: state.last_frame }
}

/// Writes the mark for readers in other processes. It is not synced: it counts only while this process lives.
fn write_mark(io: &dyn Io, dir: &Path, mark: &Mark) {
    let path = dir.join(PUBLISHED_FILE);
    if let Ok(file) = io.open(&path, Mode::Write).or_else(|_| io.open(&path, Mode::Create)) {
        let _ = file.write_at(&mark.encode(), 0);
    }
}

/// A random id for a handle.
pub(crate) fn writer_id() -> FrameId {
    FrameId::random()
}

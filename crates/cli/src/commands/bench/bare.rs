//! The bare loop: bytes into a file filled with zeros, and a sync. Nothing can be durable faster than this
//! on the same file system without giving something up.

use std::fs::{File, OpenOptions};
use std::io::{Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::appends::Data;
use super::workload::{Appends, Samples};

/// Larger than any single write, and small enough to fill quickly.
pub(super) const FILE_BYTES: u64 = 64 << 20;

/// Who syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syncs {
    /// One for all that wait: whoever finds no sync under way takes the others' bytes along.
    Shared,
    /// Each for itself.
    Own,
    /// One for all that wait, by a thread that does nothing else: appenders are tasks, which are cheaper to wake
    /// than threads.
    Tasks,
}

/// A file filled with zeros.
pub(super) struct Bare {
    path: PathBuf,
}

/// Writes one piece after the other and begins again at the start.
struct Tape {
    file: File,
    from: u64,
    to: u64,
    at: u64,
}

impl Tape {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.at + bytes.len() as u64 > self.to {
            self.at = self.from;
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        self.file.sync_data()
    }
}

impl Bare {
    /// Fills a file in this directory.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("bare");
        let mut file = File::create_new(&path)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(Self { path })
    }

    fn tape(&self, part: usize, parts: usize) -> Result<Tape> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let length = FILE_BYTES / parts as u64;
        let from = length * part as u64;
        Ok(Tape { file, from, to: from + length, at: from })
    }

    /// Writes for about so long. Several appends of one appender are as many threads here.
    pub(super) fn measure(
        &self,
        workload: Appends,
        syncs: Syncs,
        data: &[Bytes],
        duration: Duration,
    ) -> Result<Samples> {
        let threads = workload.at_once();
        let group = Group::new(self.tape(0, 1)?);
        let began = Instant::now();
        let deadline = began + duration;
        let appender = |thread: usize| -> Result<Vec<Duration>> {
            let mut own = match syncs {
                Syncs::Own => Some(self.tape(thread, threads)?),
                Syncs::Shared | Syncs::Tasks => None,
            };
            let mut latencies = Vec::new();
            let mut piece = Vec::new();
            let mut next = thread;
            while Instant::now() < deadline {
                let began = Instant::now();
                piece.clear();
                for _ in 0..workload.batch {
                    piece.extend_from_slice(&data[next % data.len()]);
                    next += threads;
                }
                match &mut own {
                    Some(tape) => tape.write(&piece)?,
                    None => group.write(&piece)?,
                }
                latencies.push(began.elapsed());
            }
            Ok(latencies)
        };
        let latencies = std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || appender(thread))).collect();
            let broke = |_| std::io::Error::other("a thread broke");
            running.into_iter().map(|thread| thread.join().map_err(broke)?).collect::<Result<Vec<_>>>()
        })?;
        let latencies = latencies.concat();
        let events = (latencies.len() * workload.batch) as u64;
        Ok(Samples::new(latencies, events, began.elapsed()))
    }
}

/// What a task brings, and how it is told that it is synced.
type Brought = (Vec<Bytes>, oneshot::Sender<()>);

impl Bare {
    /// The same with a thread that writes and tasks that append.
    pub(super) async fn measure_tasks(
        &self,
        workload: Appends,
        data: Data,
        duration: Duration,
    ) -> Result<Samples> {
        let (bring, brought) = mpsc::channel::<Brought>();
        let mut tape = self.tape(0, 1)?;
        let writer = std::thread::spawn(move || -> Result<()> {
            let mut piece = Vec::new();
            let mut waiting = Vec::new();
            while let Ok(first) = brought.recv() {
                piece.clear();
                for (bytes, done) in std::iter::once(first).chain(brought.try_iter()) {
                    bytes.iter().for_each(|bytes| piece.extend_from_slice(bytes));
                    waiting.push(done);
                }
                tape.write(&piece)?;
                for done in waiting.drain(..) {
                    // One that no longer waits was interrupted.
                    let _ = done.send(());
                }
            }
            Ok(())
        });
        let began = Instant::now();
        let deadline = began + duration;
        let mut appenders = tokio::task::JoinSet::new();
        for first in 0..workload.at_once() {
            let (bring, data) = (bring.clone(), data.clone());
            appenders.spawn(async move {
                let mut latencies = Vec::new();
                let mut next = first * workload.batch;
                while Instant::now() < deadline {
                    let began = Instant::now();
                    let bytes = data.all().iter().cycle().skip(next % data.all().len()).take(workload.batch);
                    next += workload.at_once() * workload.batch;
                    let (done, synced) = oneshot::channel();
                    // Either fails only when the writer has failed, and that says why.
                    if bring.send((bytes.cloned().collect(), done)).is_err() || synced.await.is_err() {
                        break;
                    }
                    latencies.push(began.elapsed());
                }
                latencies
            });
        }
        drop(bring);
        let latencies = appenders.join_all().await.concat();
        let took = began.elapsed();
        let broke = |_| std::io::Error::other("the writer broke");
        tokio::task::spawn_blocking(|| writer.join())
            .await
            .map_err(std::io::Error::other)?
            .map_err(broke)??;
        let events = (latencies.len() * workload.batch) as u64;
        Ok(Samples::new(latencies, events, took))
    }
}

/// Whoever finds no sync under way takes along what the others have brought, and syncs once for all.
struct Group {
    state: Mutex<State>,
    synced: Condvar,
    tape: Mutex<Tape>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// The write that takes what is waiting now.
    generation: u64,
    done: u64,
    busy: bool,
    failed: Option<String>,
}

impl Group {
    fn new(tape: Tape) -> Self {
        let state = State { generation: 1, ..State::default() };
        Self { state: Mutex::new(state), synced: Condvar::new(), tape: Mutex::new(tape) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, piece: &[u8]) -> Result<()> {
        let mut state = self.lock();
        state.waiting.extend_from_slice(piece);
        let mine = state.generation;
        loop {
            if let Some(failed) = &state.failed {
                return Err(std::io::Error::other(failed.clone()));
            }
            if state.done >= mine {
                return Ok(());
            }
            if state.busy {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.busy = true;
            let generation = state.generation;
            state.generation += 1;
            let bytes = std::mem::take(&mut state.waiting);
            drop(state);
            let written = self.tape.lock().unwrap_or_else(PoisonError::into_inner).write(&bytes);
            state = self.lock();
            state.busy = false;
            state.done = generation;
            state.failed = written.err().map(|error| error.to_string());
            self.synced.notify_all();
        }
    }
}

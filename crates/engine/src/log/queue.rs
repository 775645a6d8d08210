//! What waits for the writer, and who takes it: the queue of a log, and the turn at its device.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::thread::JoinHandle;

use futures_channel::oneshot;
use precedent_core::{Appended, Error, Result};

use super::{Job, Log, closed, lock};
use crate::writer::{ENOUGH_BYTES, FRAME_BYTES, Writer};

/// Who is told what came of an append.
pub(crate) type Answer = oneshot::Sender<Result<Appended>>;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) jobs: VecDeque<Job>,
    /// Bytes of the appends in it, at most.
    pub(super) bytes: usize,
    pub(super) closing: bool,
    /// Those who are drafting a frame. They look at the queue again when they are done.
    drafting: usize,
    /// Whether a frame is being written and synced.
    device_taken: bool,
    /// Whether somebody waits with a draft for the device.
    device_wanted: bool,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Threads that wait for jobs.
    idle: usize,
}

impl Queue {
    /// The appends at the front that there is room for; or the first job, if that is no append and `alone`.
    fn take(&mut self, mut room: Room, alone: bool) -> VecDeque<Job> {
        let mut taken = VecDeque::new();
        loop {
            match self.jobs.front() {
                Some(Job::Append(prepared, _)) if room.take(prepared.bytes_max()) => {
                    self.bytes -= prepared.bytes_max();
                }
                Some(Job::Append(..)) | None => return taken,
                Some(_) if !alone || !taken.is_empty() => return taken,
                Some(_) => {
                    taken.extend(self.jobs.pop_front());
                    return taken;
                }
            }
            taken.extend(self.jobs.pop_front());
        }
    }
}

/// What a frame can take in.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    bytes: usize,
    /// Whether there is nothing in it: then an append of any size fits.
    empty: bool,
}

impl Room {
    /// Of a frame without events.
    fn whole() -> Self {
        Self { bytes: 0, empty: true }
    }

    /// Of a frame that has this many bytes.
    pub(crate) fn beside(bytes: usize) -> Self {
        Self { bytes, empty: false }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.empty || (self.bytes < ENOUGH_BYTES && self.bytes + bytes <= FRAME_BYTES);
        if fits {
            (self.bytes, self.empty) = (self.bytes + bytes, false);
        }
        fits
    }
}

/// The right to write the next frame. It ends when this is dropped.
pub(crate) struct DeviceTurn<'a>(&'a Log);

impl Drop for DeviceTurn<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.device_taken = false;
        if std::mem::take(&mut queue.device_wanted) {
            drop(queue);
            self.0.turn.notify_all();
        }
    }
}

/// Threads that make frames: one writes while the other drafts.
const THREADS_MAX: usize = 2;
/// So many bytes in the queue are worth waking a thread that waits for the device, to draft them meanwhile.
const WAKE_BYTES: usize = 64 << 10;

impl Log {
    /// Hands something to the writer, all of it before any is taken. With `here`, for a thread that may wait, the work is
    /// done by this thread if nobody else is at it: then the answer is there when this returns.
    ///
    /// # Errors
    /// The jobs come back if the log has been closed: the store may have put another in its place.
    pub(crate) fn submit<J: IntoIterator<Item = Job>>(
        self: &Arc<Self>,
        jobs: J,
        here: bool,
    ) -> Result<(), (Error, Option<J>)> {
        if let Some(error) = &self.read_only {
            return Err((error.clone(), None));
        }
        self.settings.check_stopped().map_err(|error| (error, None))?;
        let Some(writer) = self.writer().map_err(|error| (error, None))? else {
            return Err((closed(), Some(jobs)));
        };
        let mut queue = lock(&self.queue);
        if queue.closing {
            return Err((closed(), Some(jobs)));
        }
        for job in jobs {
            if let Job::Append(prepared, _) = &job {
                queue.bytes += prepared.bytes_max();
            }
            queue.jobs.push_back(job);
        }
        if here {
            drop(queue);
            // Who is drafting now looks at the queue again.
            if !writer.try_lead() {
                self.call_thread(&writer, lock(&self.queue));
            }
        } else {
            self.call_thread(&writer, queue);
        }
        Ok(())
    }

    /// Whether nothing waits, and nobody drafts or writes: who submits something now would be the one to do it.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = lock(&self.queue);
        queue.jobs.is_empty() && queue.drafting == 0 && !queue.device_taken
    }

    /// Sees to it that somebody takes what is in the queue.
    fn call_thread(&self, writer: &Arc<Writer>, mut queue: MutexGuard<'_, Queue>) {
        if queue.jobs.is_empty() {
            return;
        }
        if queue.drafting > 0 {
            if queue.device_wanted && queue.bytes >= WAKE_BYTES {
                drop(queue);
                self.turn.notify_all();
            }
        } else if queue.idle > 0 {
            drop(queue);
            self.wake.notify_one();
        } else if queue.threads.len() < THREADS_MAX && !queue.closing {
            let name = format!("precedent-{}", self.name);
            let writer = writer.clone();
            let thread = std::thread::Builder::new().name(name).spawn(move || writer.work());
            // Without a thread the callers that may wait, or closing the log, do the work.
            queue.threads.extend(thread);
        }
    }

    /// Whether there is something to do; blocks until there is. `false` once the log is closed.
    pub(crate) fn await_jobs(&self) -> bool {
        let mut queue = lock(&self.queue);
        // While another drafts it takes what comes, and calls if it leaves something.
        while queue.jobs.is_empty() || queue.drafting > 0 {
            if queue.closing && queue.jobs.is_empty() {
                return false;
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
            queue.idle -= 1;
        }
        true
    }

    pub(crate) fn has_jobs(&self) -> bool {
        !lock(&self.queue).jobs.is_empty()
    }

    /// Of the appends that wait in the queue, whether each is ready.
    #[cfg(test)]
    pub(crate) fn ready_jobs(&self) -> Vec<bool> {
        let ready = |job: &Job| match job {
            Job::Append(prepared, _) => prepared.batch().is_ready(),
            _ => true,
        };
        lock(&self.queue).jobs.iter().map(ready).collect()
    }

    /// The number of threads that make frames.
    #[cfg(test)]
    pub(crate) fn threads(&self) -> usize {
        lock(&self.queue).threads.len()
    }

    /// Takes what goes into a frame, or the one thing to be done alone. Whoever calls this says when it has
    /// [`drafted`](Self::drafted), even if there was nothing.
    pub(crate) fn take_jobs(&self) -> VecDeque<Job> {
        let mut queue = lock(&self.queue);
        queue.drafting += 1;
        queue.take(Room::whole(), true)
    }

    /// Somebody else can draft the next frame now.
    pub(crate) fn drafted(&self) {
        let mut queue = lock(&self.queue);
        queue.drafting -= 1;
        if queue.jobs.is_empty() {
            // Threads that waited for what was left, to end.
            if queue.closing {
                self.wake.notify_all();
            }
            return;
        }
        drop(queue);
        let writer = self.writer.read().unwrap_or_else(|p| p.into_inner()).clone();
        if let Some(writer) = writer {
            self.call_thread(&writer, lock(&self.queue));
        }
    }

    /// Waits until the device is free, or until enough has come to be drafted meanwhile. Answers what came and
    /// there is room for.
    pub(crate) fn await_turn(&self, room: Room) -> (VecDeque<Job>, Option<DeviceTurn<'_>>) {
        let mut queue = lock(&self.queue);
        while queue.device_taken && queue.bytes < WAKE_BYTES {
            queue.device_wanted = true;
            queue = self.turn.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let jobs = queue.take(room, false);
        if queue.device_taken && jobs.is_empty() {
            drop(queue);
            return (jobs, Some(self.await_device()));
        }
        let free = !std::mem::replace(&mut queue.device_taken, true);
        (jobs, free.then(|| DeviceTurn(self)))
    }

    /// Waits until the device is free.
    pub(crate) fn await_device(&self) -> DeviceTurn<'_> {
        let mut queue = lock(&self.queue);
        while queue.device_taken {
            queue.device_wanted = true;
            queue = self.turn.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        queue.device_taken = true;
        DeviceTurn(self)
    }
}

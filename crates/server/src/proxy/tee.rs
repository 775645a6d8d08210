//! A body that passes on what comes, frame by frame, and keeps a copy within bounds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use precedent_capture::exchange::{
    BEGINNING_BYTES, BODY_BYTES_MAX, Body as Recorded, CHUNKS_MAX, HEADERS_BYTES_MAX,
};
use precedent_core::{Error, ErrorKind};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::client::told;
use super::{Answering, copied};
use crate::app::{App, BODY_PERMIT_BYTES};
use crate::body::drain;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What was kept of a body.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) body: Recorded,
    /// The room it takes, to be given back once it is recorded.
    pub(super) room: Option<OwnedSemaphorePermit>,
    /// Whether the copy was cut because the server had no room for it.
    pub(super) no_room: bool,
}

/// A copy that grows as long as there is room and the body is not too long to be recorded; from then on what passes is counted and
/// hashed.
pub(super) struct Kept {
    app: Arc<App>,
    bytes: Vec<u8>,
    len: u64,
    /// Of everything that has passed, once that is more than is kept.
    hash: Option<Sha256>,
    /// What is held beside the bytes.
    beside: usize,
    room: Option<OwnedSemaphorePermit>,
    no_room: bool,
}

impl Kept {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, bytes: Vec::new(), len: 0, hash: None, beside: 0, room: None, no_room: false }
    }

    /// Takes room ahead for a body of this length, or says that there is none.
    pub(super) fn expect(&mut self, len: u64) -> Result<(), Error> {
        let kept = if len > BODY_BYTES_MAX as u64 { BEGINNING_BYTES } else { len as usize };
        match self.holds(kept) {
            true => Ok(()),
            false => Err(self.refused()),
        }
    }

    fn refused(&self) -> Error {
        let max = self.app.limits.bodies_bytes_max;
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "there is no room to record it: the bodies under way would take more than {max} bytes together"
            ),
        )
    }

    /// Takes room for so many bytes in all.
    fn holds(&mut self, bytes: usize) -> bool {
        let held = self.room.as_ref().map_or(0, |room| room.num_permits());
        let needed = bytes.div_ceil(BODY_PERMIT_BYTES).saturating_sub(held);
        if needed == 0 {
            return true;
        }
        let more = u32::try_from(needed).unwrap_or(u32::MAX);
        match self.app.bodies.clone().try_acquire_many_owned(more) {
            Ok(more) => {
                match &mut self.room {
                    Some(room) => room.merge(more),
                    None => self.room = Some(more),
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back the room that is not needed.
    fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        let needed = (self.bytes.len() + self.beside).div_ceil(BODY_PERMIT_BYTES);
        if let Some(room) = &mut self.room {
            let surplus = room.num_permits().saturating_sub(needed);
            drop(room.split(surplus));
        }
    }

    /// Says that there is no room for it, when that first shows.
    fn add(&mut self, data: &Bytes) -> Result<(), Error> {
        self.len += data.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(data);
            return Ok(());
        }
        let len = self.bytes.len() + data.len();
        if len <= BODY_BYTES_MAX && self.holds(len + self.beside) {
            // It grows by a quarter, so what is reserved is never much more than what is counted.
            if len > self.bytes.capacity() {
                let more = data.len().max(self.bytes.len() / 4).min(BODY_BYTES_MAX - self.bytes.len());
                self.bytes.reserve_exact(more.max(data.len()));
            }
            self.bytes.extend_from_slice(data);
            return Ok(());
        }
        // A copy has no holes: from here on nothing is kept.
        let mut hash = Sha256::new();
        hash.update(&self.bytes);
        hash.update(data);
        self.hash = Some(hash);
        self.no_room = len <= BODY_BYTES_MAX;
        self.bytes.truncate(BEGINNING_BYTES);
        self.shrink();
        match self.no_room {
            true => Err(self.refused()),
            false => Ok(()),
        }
    }

    fn take(&mut self) -> Copied {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let sha256 = self.hash.take().map(|hash| hash.finalize().into());
        let body = Recorded { bytes, len: self.len, sha256 };
        Copied { body, room: self.room.take(), no_room: self.no_room }
    }
}

/// A body on its way through.
pub(super) enum Tee {
    Request(Box<RequestTee>),
    Answer(Box<AnswerTee>),
}

impl Tee {
    /// A request on its way to the upstream; its copy goes to `whole` when it has ended or is dropped. If it has to be recorded and
    /// there is no room for that, it is broken off.
    pub(super) fn request(body: Body, app: Arc<App>, must: bool, whole: oneshot::Sender<Copied>) -> Self {
        Self::Request(Box::new(RequestTee { body, copy: Kept::new(app), must, whole: Some(whole) }))
    }

    /// An answer on its way back.
    pub(super) fn answer(
        body: Incoming,
        answering: Answering,
        copy: Kept,
        length: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let patience = answering.proxy.app.limits.upstream_timeout;
        Self::Answer(Box::new(AnswerTee {
            body,
            copy,
            answering: Some(answering),
            length,
            silence: Box::pin(sleep(patience)),
            held: None,
            recording: None,
            ended: false,
            _permit: permit,
        }))
    }
}

pub(super) struct RequestTee {
    body: Body,
    copy: Kept,
    /// Whether it goes on only if it can be recorded.
    must: bool,
    whole: Option<oneshot::Sender<Copied>>,
}

impl RequestTee {
    fn end(&mut self) {
        if let Some(whole) = self.whole.take() {
            let _ = whole.send(self.copy.take());
        }
    }
}

impl Drop for RequestTee {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) struct AnswerTee {
    body: Incoming,
    copy: Kept,
    answering: Option<Answering>,
    /// The length the upstream announced.
    length: Option<u64>,
    /// How long the upstream may still be silent.
    silence: Pin<Box<Sleep>>,
    /// The last frame, held until the call is recorded.
    held: Option<Frame<Bytes>>,
    recording: Option<JoinHandle<Result<(), Error>>>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl AnswerTee {
    fn is_whole(&self) -> bool {
        self.length == Some(self.copy.len)
    }

    /// The answer has ended: it is recorded, and whoever fails closed waits for that.
    fn end(&mut self, complete: bool, error: Option<String>) {
        let Some(mut answering) = self.answering.take() else { return };
        let Copied { body, room, no_room } = self.copy.take();
        answering.called.body = body;
        answering.called.complete = complete;
        if answering.called.error.is_none() {
            answering.called.error = error;
        }
        if no_room {
            answering
                .called
                .error
                .get_or_insert_with(|| "there was no room for a copy of the whole answer".to_owned());
        }
        let recording = answering.end();
        let recording = tokio::spawn(async move {
            let recorded =
                recording.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string())));
            drop(room);
            recorded
        });
        if answering.proxy.fail_closed {
            self.recording = Some(recording);
        }
    }

    /// Keeps a copy of a piece; an error if the answer cannot be recorded and has to be.
    fn chunk(&mut self, data: &Bytes) -> Result<(), Error> {
        let Some(answering) = &mut self.answering else { return Ok(()) };
        let at = answering.elapsed_us();
        let chunks = &mut answering.called.chunks;
        let is_full = chunks.len() >= CHUNKS_MAX;
        match chunks.last_mut() {
            Some(last) if is_full => last.1 += data.len() as u64,
            _ => {
                chunks.push((at, data.len() as u64));
                self.copy.beside += 16;
            }
        }
        let must = answering.proxy.fail_closed;
        self.copy.add(data).or_else(|error| if must { Err(error) } else { Ok(()) })
    }

    /// Breaks the answer off: here, and in the record.
    fn broken(&mut self, error: String) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.ended = true;
        self.end(false, Some(error.clone()));
        self.recording = None;
        Poll::Ready(Some(Err(error.into())))
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        let Some(answering) = &mut self.answering else { return };
        let mut left = HEADERS_BYTES_MAX;
        answering.called.trailers = copied(trailers);
        answering.called.trailers.retain(|(name, value)| {
            left = left.saturating_sub(name.len() + value.len());
            left > 0
        });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(recording) = &mut self.recording {
                let recorded = std::task::ready!(Pin::new(recording).poll(cx));
                self.recording = None;
                match recorded {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        self.held = None;
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            if let Some(frame) = self.held.take() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    if self.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    return self.broken("the upstream fell silent in the middle of its answer".to_owned());
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    self.end(true, None);
                }
                Poll::Ready(Some(Err(error))) => {
                    return self.broken(format!("the upstream broke its answer off: {}", told(&error)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(answering) = &self.answering {
                        let patience = answering.proxy.app.limits.upstream_timeout;
                        self.silence.as_mut().reset(Instant::now() + patience);
                    }
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        if let Err(error) = self.chunk(&data) {
                            return self.broken(format!("the answer is broken off here: {error}"));
                        }
                        // The connection looks no further once it has the announced length.
                        if self.is_whole() {
                            self.ended = true;
                            self.end(true, None);
                            self.held = Some(frame);
                            continue;
                        }
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        // They are the end, which is held like the last piece of an announced length.
                        let trailers = trailers.clone();
                        self.trailers(&trailers);
                        self.ended = true;
                        self.end(true, None);
                        self.held = Some(frame);
                        continue;
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
        }
    }
}

impl Drop for AnswerTee {
    fn drop(&mut self) {
        let whole = self.is_whole() || self.body.is_end_stream();
        let error = (!whole).then(|| "the application went away before the answer had ended".to_owned());
        self.end(whole, error);
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Answer(tee) => tee.poll(cx),
            Self::Request(tee) => {
                let frame = std::task::ready!(Pin::new(&mut tee.body).poll_frame(cx));
                match &frame {
                    None | Some(Err(_)) => tee.end(),
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref()
                            && let Err(error) = tee.copy.add(data)
                            && tee.must
                        {
                            tee.end();
                            // Heard to its end all the same, so that whoever sends it can read why.
                            tokio::spawn(drain(std::mem::take(&mut tee.body)));
                            return Poll::Ready(Some(Err(error.into())));
                        }
                        if tee.body.is_end_stream() {
                            tee.end();
                        }
                    }
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Request(tee) => tee.body.is_end_stream(),
            // Even an empty answer is asked for its end, where it is recorded.
            Self::Answer(tee) => tee.ended && tee.held.is_none() && tee.recording.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Request(tee) => tee.body.size_hint(),
            Self::Answer(tee) => tee.body.size_hint(),
        }
    }
}

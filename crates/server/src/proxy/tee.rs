//! A body that passes on what comes, frame by frame, and keeps a copy within bounds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use precedent_capture::exchange::{BODY_BYTES_MAX, Body as Recorded, CHUNKS_MAX};
use precedent_core::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep};

use super::Answering;
use super::client::told;
use crate::app::{App, BODY_PERMIT_BYTES};

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

/// A copy that grows as long as there is room.
struct Copy {
    app: Arc<App>,
    bytes: BytesMut,
    len: u64,
    /// What is held beside the bytes.
    beside: usize,
    room: Option<OwnedSemaphorePermit>,
    no_room: bool,
}

impl Copy {
    fn new(app: Arc<App>) -> Self {
        Self { app, bytes: BytesMut::new(), len: 0, beside: 0, room: None, no_room: false }
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

    fn add(&mut self, data: &Bytes) {
        // A copy has no holes: after a cut nothing more is kept.
        let is_cut = self.len > self.bytes.len() as u64;
        self.len += data.len() as u64;
        let keep = data.len().min(BODY_BYTES_MAX - self.bytes.len());
        if is_cut || self.no_room {
            return;
        }
        if !self.holds(self.bytes.len() + keep + self.beside) {
            self.no_room = true;
            return;
        }
        self.bytes.extend_from_slice(&data[..keep]);
    }

    fn take(&mut self) -> Copied {
        let bytes = std::mem::take(&mut self.bytes).freeze();
        Copied { body: Recorded { bytes, len: self.len }, room: self.room.take(), no_room: self.no_room }
    }
}

/// A body on its way through.
pub(super) enum Tee {
    Request(RequestTee),
    Answer(Box<AnswerTee>),
}

impl Tee {
    /// A request on its way to the upstream; its copy goes to `whole` when it has ended or is dropped.
    pub(super) fn request(body: Body, app: Arc<App>, whole: oneshot::Sender<Copied>) -> Self {
        Self::Request(RequestTee { body, copy: Copy::new(app), whole: Some(whole) })
    }

    /// An answer on its way back.
    pub(super) fn answer(
        body: Incoming,
        answering: Answering,
        length: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let copy = Copy::new(answering.proxy.app.clone());
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
    copy: Copy,
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
    copy: Copy,
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
            let recorded = recording
                .await
                .unwrap_or_else(|e| Err(Error::new(precedent_core::ErrorKind::Internal, e.to_string())));
            drop(room);
            recorded
        });
        if answering.proxy.fail_closed {
            self.recording = Some(recording);
        }
    }

    fn chunk(&mut self, data: &Bytes) {
        let Some(answering) = &mut self.answering else { return };
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
        self.copy.add(data);
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
                    self.ended = true;
                    let error = "the upstream fell silent in the middle of its answer".to_owned();
                    self.end(false, Some(error.clone()));
                    self.recording = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(None) => {
                    self.ended = true;
                    self.end(true, None);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended = true;
                    let error = format!("the upstream broke its answer off: {}", told(&error));
                    self.end(false, Some(error.clone()));
                    self.recording = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(answering) = &self.answering {
                        let patience = answering.proxy.app.limits.upstream_timeout;
                        self.silence.as_mut().reset(Instant::now() + patience);
                    }
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        self.chunk(&data);
                        // The connection looks no further once it has the announced length.
                        if self.is_whole() {
                            self.ended = true;
                            self.end(true, None);
                            self.held = Some(frame);
                            continue;
                        }
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
                        if let Some(data) = frame.data_ref() {
                            tee.copy.add(data);
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

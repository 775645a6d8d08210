//! `GET|POST /v1/frames`: whole frames, exactly as they are, for copies and for those who verify themselves.

use axum::http::Method;
use precedent_core::frame::FRAME_BYTES_MAX;
use precedent_core::{Error, wire};

use super::{Answer, Kind, Route, Scope, expect_media_type, json, parameter, parse, text};
use crate::app::blocking;
use crate::body::receive;
use crate::call::{Call, named};
use crate::pager::held;

const FRAMES: &[&str] = &[wire::FRAMES_MEDIA_TYPE];
const BYTES: u64 = 4 << 20;
const BYTES_MAX: u64 = 16 << 20;

pub(super) const GET: Route = Route {
    method: Method::GET,
    scope: Scope::Log,
    path: "/frames",
    id: "readFrames",
    about: "Whole frames from a sequence number on: at least one if there is one. No frames means the end.",
    parameters: &[
        parameter("from", Kind::Number, "The sequence number of the first frame."),
        parameter("bytes", Kind::UpTo(BYTES_MAX), "About how many bytes: 4 MiB if not said, 16 MiB at most."),
    ],
    headers: &[],
    takes: &[],
    status: 200,
    gives: FRAMES,
    problems: &["damaged"],
    handle: |call| Box::pin(get(call)),
};

pub(super) const POST: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/frames",
    id: "putFrames",
    about: "Adds frames of a copied log. The first makes the log, which is read-only until it is promoted.",
    parameters: &[],
    headers: &[],
    takes: FRAMES,
    status: 200,
    gives: &["application/json"],
    problems: &["log_forked", "read_only", "damaged", "full", "unknown", "unsupported_media_type"],
    handle: |call| Box::pin(post(call)),
};

async fn get(mut call: Call) -> Answer {
    let from = call.query.number("from")?;
    let from = from.ok_or_else(|| named("from", &Error::invalid("it is missing")))?;
    let bytes = call.query.number("bytes")?.unwrap_or(BYTES);
    if bytes > BYTES_MAX {
        return Err(Error::limit("query parameter 'bytes'", bytes, BYTES_MAX, "bytes").into());
    }
    let permit = call.app.admit_stream()?;
    drop(call.permit.take());
    let bytes = usize::try_from(bytes).unwrap_or(BYTES_MAX as usize);
    // The last frame may go beyond `bytes`, and what was read is there beside what is sent.
    let mut room = call.app.answer_room(2 * (bytes + FRAME_BYTES_MAX)).await?;
    let frames = blocking(call.app.store.frames(&call.log, from, bytes)).await?;
    let mut out = Vec::with_capacity(frames.iter().map(|f| f.bytes().len() + 4).sum());
    room.keep(2 * out.capacity());
    frames.iter().for_each(|frame| wire::write_frame(frame, &mut out));
    drop(frames);
    room.keep(out.capacity());
    Ok(text(200, wire::FRAMES_MEDIA_TYPE, held(out, (room, permit))))
}

async fn post(mut call: Call) -> Answer {
    expect_media_type(&call, FRAMES)?;
    let body = call.take_body();
    let received = receive(&call.app, &call.headers, body).await?;
    let frames = parse(&received.bytes, |bytes| wire::parse_frames(bytes::Bytes::copy_from_slice(bytes)))?;
    if frames.is_empty() {
        return Err(Error::invalid("the body is empty: it has at least one frame").into());
    }
    let busy = call.app.busy();
    let (app, log, room) = (call.app.clone(), call.log.clone(), received.room);
    let task = tokio::spawn(async move {
        let head = blocking(app.store.put_frames(&log, frames)).await;
        drop((busy, room));
        head
    });
    let broken = |e| {
        let message = format!("the copy was broken off: {e}");
        Error::new(precedent_core::ErrorKind::Internal, message).maybe_written()
    };
    let head = task.await.map_err(broken)??;
    Ok(json(200, &wire::head_json(&call.log, &head)))
}

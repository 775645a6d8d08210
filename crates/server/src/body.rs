//! Reads request bodies, within the limits: of one body, and of all that are in memory at once.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http_body_util::BodyStream;
use hyper::body::Body as HttpBody;
use precedent_core::Error;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::{App, BODY_PERMIT_BYTES};
use crate::problem::Problem;

/// A body in memory. The room it takes is given back when this is dropped.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Reads the whole body. Room is taken as bytes come in, so that a client that announces much and sends
/// nothing holds nothing.
pub(crate) async fn receive(app: &App, headers: &HeaderMap, body: Body) -> Result<Received, Problem> {
    receive_at_most(app, headers, body, app.limits.body_bytes_max).await
}

/// As [`receive`], for a body that has no more than `max` bytes.
pub(crate) async fn receive_at_most(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Received, Problem> {
    check_coding(headers)?;
    collect(app, headers, body, max.min(app.limits.body_bytes_max)).await
}

/// As [`receive`], for a body whose coding the caller undoes. One that is too large is heard to its end and thrown away,
/// within bounds: a sender that is cut off while it writes does not see why.
pub(crate) async fn receive_coded(
    app: &App,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<Received, Problem> {
    let max = app.limits.body_bytes_max;
    let received = collect(app, headers, &mut body, max).await;
    // From one that is too slow nothing more is waited for.
    if received.as_ref().is_err_and(|problem| problem.status() != 408) {
        drain(body).await;
    }
    received
}

/// Throws away what is left of a body, within bounds, so that its sender reads the answer instead of finding itself cut off.
pub(crate) async fn drain(body: Body) {
    let mut left = DRAINED_BYTES_MAX;
    let mut stream = body.into_data_stream();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(DRAINED_SILENCE, stream.next()).await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
}

/// Bytes of a body that are thrown away before its sender is cut off.
const DRAINED_BYTES_MAX: usize = 256 << 20;
/// How long its sender may be silent meanwhile.
const DRAINED_SILENCE: std::time::Duration = std::time::Duration::from_secs(5);

async fn collect<B>(app: &App, headers: &HeaderMap, body: B, max: usize) -> Result<Received, Problem>
where
    B: HttpBody<Data = Bytes, Error = axum::Error> + Unpin,
{
    let too_large = |len: u64| Error::limit("the request body", len, max as u64, "bytes");
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if let Some(len) = announced {
        if len > max as u64 {
            return Err(too_large(len).into());
        }
        if len > app.body_bytes_left() as u64 {
            return Err(no_room(app));
        }
    }
    let mut stream = BodyStream::new(body);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    let (mut len, mut permits) = (0usize, 0usize);
    let patience = app.limits.body_timeout;
    let bytes_min = (app.limits.body_bytes_per_sec_min as f64 * patience.as_secs_f64()) as usize;
    // When time began to run, and how much had come until then.
    let mut since = (Instant::now(), 0);
    loop {
        let chunk = match tokio::time::timeout(patience, stream.next()).await {
            Err(_) => {
                let secs = patience.as_secs_f32();
                let detail = format!("nothing came for {secs} seconds after {len} bytes of the body");
                return Err(Problem::http("request_timeout", detail));
            }
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Error::invalid(format!("the body broke off after {len} bytes: {error}")).into());
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(chunk) => chunk,
                // Trailers are no part of the body.
                Err(_) => continue,
            },
        };
        len += chunk.len();
        if since.0.elapsed() > patience {
            let came = len - since.1;
            if came < bytes_min {
                let detail = format!(
                    "{came} bytes of the body came in {} seconds, the least is {bytes_min}",
                    since.0.elapsed().as_secs_f32()
                );
                return Err(Problem::http("request_timeout", detail));
            }
            since = (Instant::now(), len);
        }
        if len > max {
            return Err(too_large(announced.unwrap_or(len as u64)).into());
        }
        let needed = len.div_ceil(BODY_PERMIT_BYTES);
        if needed > permits {
            let more = u32::try_from(needed - permits).unwrap_or(u32::MAX);
            let more = app.bodies.clone().try_acquire_many_owned(more).map_err(|_| no_room(app))?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            permits = needed;
        }
        match &mut first {
            None => first = Some(chunk),
            Some(first) => {
                if rest.is_empty() {
                    let expected = announced.map_or(len * 2, |n| n as usize).min(max);
                    // Room is counted by what has come in, so no more than that is reserved far ahead.
                    rest.reserve(expected.min(len + (1 << 20)));
                    rest.extend_from_slice(first);
                }
                rest.extend_from_slice(&chunk);
            }
        }
    }
    app.metrics.body_bytes_received.fetch_add(len as u64, Ordering::Relaxed);
    let bytes = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
    Ok(Received { bytes, room })
}

/// Bytes are recorded as they come: coded ones would be taken for the data.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        if !text.split(',').all(|coding| coding.trim().eq_ignore_ascii_case("identity")) {
            let shown: String = text.chars().take(64).collect();
            let detail = format!("the content coding is '{}', expected none", shown.escape_debug());
            return Err(Problem::http("unsupported_media_type", detail)
                .with_header(header::ACCEPT_ENCODING, "identity"));
        }
    }
    Ok(())
}

fn no_room(app: &App) -> Problem {
    let max = app.limits.bodies_bytes_max;
    Problem::http("overloaded", format!("the bodies under way would take more than {max} bytes together"))
}

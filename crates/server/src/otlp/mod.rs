//! OTLP: one export, whatever the transport. [`http`] and [`grpc`] read requests and write answers.
//!
//! A request is checked whole before any of it is recorded, then recorded in parts. The answer that all is well is given once
//! all is durable; after any other answer the sender may send the whole request again.

pub(crate) mod grpc;
pub(crate) mod http;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use precedent_capture::Gap;
use precedent_capture::coding::{Coding, decode_growing};
use precedent_capture::gap::Reason;
use precedent_capture::otlp::{self, Encoding, Items, Signal};
use precedent_capture::wire::{put_bytes, put_number};
use precedent_core::{Error, Event, Result};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::app::{App, BODY_PERMIT_BYTES};
use crate::body::Received;
use crate::capture::{BATCH_BYTES, record};
use crate::problem::Problem;

/// Seconds a sender is asked to wait when there is no room.
const RETRY_SECS: u32 = 1;

/// The resource of a request stands around each of its records, so a request can grow when it is taken apart. It may not grow
/// beyond so many times its size, and this much more.
const GROWTH_MAX: usize = 64;
const GROWTH_BYTES: usize = 64 << 20;

/// A body of more bytes than this is looked through beside the other tasks of its thread.
const LARGE: usize = 256 << 10;

/// What became of a request that was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exported {
    /// Records that are not recorded, and will not be if they are sent again.
    rejected: u64,
    /// Why.
    message: String,
}

impl Exported {
    /// The answer, as the sender's encoding has it. All three signals have the same numbers in protobuf.
    fn body(&self, signal: Signal, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Protobuf if self.rejected == 0 => Vec::new(),
            Encoding::Protobuf => {
                let (mut partial, mut out) = (Vec::new(), Vec::new());
                put_number(1, self.rejected, &mut partial);
                put_bytes(2, self.message.as_bytes(), &mut partial);
                put_bytes(1, &partial, &mut out);
                out
            }
            Encoding::Json if self.rejected == 0 => b"{}".to_vec(),
            Encoding::Json => {
                let name = match signal {
                    Signal::Traces => "rejectedSpans",
                    Signal::Logs => "rejectedLogRecords",
                    Signal::Metrics => "rejectedDataPoints",
                };
                // 64 bits are a string in the JSON of protobuf.
                let partial =
                    serde_json::json!({name: self.rejected.to_string(), "errorMessage": self.message});
                serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
            }
        }
    }
}

/// Why a request was not taken, as far as the sender has to know.
#[derive(Debug)]
struct Refused {
    message: String,
    http_status: u16,
    grpc_status: u32,
    /// Seconds after which the same request may be taken; without it, it never will be.
    retry_after: Option<u32>,
}

impl Refused {
    /// The request itself is at fault.
    fn bad(http_status: u16, grpc_status: u32, message: impl Into<String>) -> Self {
        Self { message: message.into(), http_status, grpc_status, retry_after: None }
    }

    fn from_problem(problem: &Problem) -> Self {
        let status = problem.status();
        let message = problem.message().to_owned();
        match status {
            400 | 404 | 405 | 415 => Self::bad(status, 3, message),
            413 => Self::bad(413, 8, message),
            401 => Self::bad(401, 16, message),
            403 | 421 => Self::bad(status, 7, message),
            408 => Self { message, http_status: 408, grpc_status: 4, retry_after: Some(RETRY_SECS) },
            // Whatever else keeps the server from recording, the sender is to keep the data and to try again: dropping
            // it would be a loss, and sending it again is safe.
            _ => Self {
                message,
                http_status: 503,
                grpc_status: if status == 503 { 8 } else { 14 },
                retry_after: Some(problem.retry_after_secs().unwrap_or(RETRY_SECS)),
            },
        }
    }
}

/// Decodes a body, with room for what it becomes.
pub(crate) fn decoded(app: &App, coding: Coding, received: Received) -> Result<Received, Problem> {
    let max = app.limits.body_bytes_max;
    let mut room = None::<tokio::sync::OwnedSemaphorePermit>;
    let mut full = false;
    let mut grow = |len: usize| {
        let held = room.as_ref().map_or(0, |room| room.num_permits());
        let needed = len.div_ceil(BODY_PERMIT_BYTES).saturating_sub(held);
        if needed == 0 {
            return Ok(());
        }
        let more = u32::try_from(needed).unwrap_or(u32::MAX);
        match app.bodies.clone().try_acquire_many_owned(more) {
            Ok(more) => {
                match &mut room {
                    Some(room) => room.merge(more),
                    None => room = Some(more),
                }
                Ok(())
            }
            Err(_) => {
                full = true;
                Err(Error::invalid("no room"))
            }
        }
    };
    let decoded = blocking(received.bytes.len(), || decode_growing(coding, &received.bytes, max, &mut grow));
    let (bytes, broken) = match decoded {
        Err(_) if full => {
            let max = app.limits.bodies_bytes_max;
            let detail = format!("the bodies under way would take more than {max} bytes together");
            return Err(Problem::http("overloaded", detail));
        }
        decoded => decoded?,
    };
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(Received { bytes: Bytes::from(bytes), room }),
    }
}

/// Runs something that takes a while for a large input.
pub(crate) fn blocking<T>(len: usize, work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread if len > LARGE => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Records a request.
async fn export(
    app: &Arc<App>,
    signal: Signal,
    encoding: Encoding,
    received: &Received,
) -> Result<Exported, Problem> {
    let body = &received.bytes;
    let total = blocking(body.len(), || otlp::check(signal, encoding, body))?;
    let counts = app.capture.counts.signal(signal);
    if signal == Signal::Metrics {
        return count_metrics(app, encoding, body).await;
    }
    let mut items = otlp::items(signal, encoding, body);
    let mut part = Part {
        bytes_left: body.len().saturating_mul(GROWTH_MAX).saturating_add(GROWTH_BYTES),
        ..Part::default()
    };
    loop {
        let more = blocking(body.len(), || part.fill(app, signal, &mut items))?;
        let events = std::mem::take(&mut part.events);
        if !events.is_empty() {
            let recorded = record(app, events).await?;
            counts.recorded.fetch_add(recorded.new.saturating_sub(part.gaps), Ordering::Relaxed);
            counts.existing.fetch_add(recorded.existing, Ordering::Relaxed);
            part.gaps = 0;
        }
        if !more {
            break;
        }
    }
    counts.not_kept.fetch_add(part.not_kept, Ordering::Relaxed);
    counts.rejected.fetch_add(part.too_large, Ordering::Relaxed);
    let mut message = Vec::new();
    if part.not_kept > 0 {
        message.push(format!(
            "{} of {total} {} say nothing about AI and are not recorded; --keep-all-spans records them",
            part.not_kept,
            signal.items()
        ));
    }
    if part.too_large > 0 {
        let max = app.store_limits.data_bytes_max;
        message.push(format!(
            "{} of {total} {} are too large to be recorded: each may have {max} bytes with its resource and scope, and a request may not grow more than {GROWTH_MAX} times",
            part.too_large,
            signal.items()
        ));
        let gap = Gap {
            reason: Reason::PayloadRejected,
            producer: "otlp".to_owned(),
            count: Some(part.too_large),
            unit: signal.items(),
            bytes: Some(part.bytes_too_large),
            detail: message[message.len() - 1].clone(),
            ..Gap::default()
        };
        app.capture.missed(app, gap).await;
    }
    Ok(Exported { rejected: part.not_kept + part.too_large, message: message.join("; ") })
}

/// Part of a request, on its way.
#[derive(Default)]
struct Part {
    events: Vec<Event>,
    /// Events among them that are gaps.
    gaps: u64,
    bytes_left: usize,
    not_kept: u64,
    too_large: u64,
    bytes_too_large: u64,
}

impl Part {
    /// Takes records until an append is full; whether there are more.
    fn fill(&mut self, app: &App, signal: Signal, items: &mut Items<'_>) -> Result<bool> {
        let (mut bytes, mut looked_at) = (0usize, 0usize);
        for item in items.by_ref() {
            looked_at += 1;
            let len = item.data_len();
            let fits = len as u64 <= app.store_limits.data_bytes_max && len <= self.bytes_left;
            // What is too large is not even looked into.
            match if fits { item.written(app.capture.keep_all_spans, &app.capture.rules)? } else { None } {
                None if fits => self.not_kept += 1,
                None => {
                    self.too_large += 1;
                    self.bytes_too_large += len as u64;
                }
                Some(written) => {
                    bytes += len;
                    self.bytes_left -= len;
                    self.gaps += u64::from(written.gap.is_some());
                    self.events.push(written.event);
                    self.events.extend(written.gap);
                }
            }
            if bytes >= BATCH_BYTES || self.events.len() >= 2_000 || looked_at >= 50_000 {
                return Ok(true);
            }
        }
        debug_assert!(signal != Signal::Metrics);
        Ok(false)
    }
}

async fn count_metrics(app: &Arc<App>, encoding: Encoding, body: &Bytes) -> Result<Exported, Problem> {
    let (points, gaps) = blocking(body.len(), || {
        let (mut points, mut gaps) = (0u64, Vec::new());
        for item in otlp::items(Signal::Metrics, encoding, body) {
            let counted = otlp::count(&item, &app.capture.rules)?;
            points += counted.points;
            // A request of a real sender has a handful of them.
            if gaps.len() < 1_000 {
                gaps.extend(counted.gaps);
            }
        }
        Ok::<_, Error>((points, gaps))
    })?;
    if !gaps.is_empty() {
        let recorded = record(app, gaps).await?;
        app.capture.counts.gaps.fetch_add(recorded.new, Ordering::Relaxed);
    }
    app.capture.counts.signal(Signal::Metrics).not_kept.fetch_add(points, Ordering::Relaxed);
    let message = match points {
        0 => String::new(),
        n => format!("{n} data points are counted and not recorded: metrics are no events"),
    };
    Ok(Exported { rejected: points, message })
}

/// Records that a request was turned away for good.
async fn turned_away(app: &Arc<App>, signal: Signal, refused: &Refused, bytes: Option<u64>) {
    if refused.retry_after.is_some() || !matches!(refused.http_status, 400 | 413 | 415) {
        return;
    }
    let gap = Gap {
        reason: Reason::PayloadRejected,
        producer: "otlp".to_owned(),
        count: Some(1),
        unit: "requests",
        bytes,
        detail: format!("an export of {signal} was turned away: {}", refused.message),
        ..Gap::default()
    };
    app.capture.missed(app, gap).await;
}

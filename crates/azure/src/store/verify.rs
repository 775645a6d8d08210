//! Verifies what is there: every frame is fetched and checked again, and every document is compared with its event.
//!
//! What frames refer to is found in the copy that is here. That trusts nothing: each byte that stands literally in a
//! frame there belongs to some part, whose commitment is recomputed over it; bytes here that are others than there fail
//! just the same.

use std::sync::Arc;

use precedent_core::frame::{Frame, FrameHeader};
use precedent_core::store::Progress;
use precedent_core::verify::{Expect, Problem, Report, Verifier};
use precedent_core::{Error, Position, Result};

use super::documents::documents_of;
use super::log::RemoteLog;
use crate::remote::Document;

const FETCH_BYTES: usize = 4 << 20;
/// Documents that are compared at once.
const DOCUMENTS: usize = 100;

pub(super) async fn verify(
    log: &Arc<RemoteLog>,
    inline_bytes_max: usize,
    expect: Option<Expect>,
    progress: Progress<'_>,
) -> Result<Report> {
    // What others recorded is found here when a frame refers to it.
    let caught_up = log.catch_up().await;
    let size = log.state()?.size();
    let mut verifier = Verifier::new(expect);
    let end = log.state()?.next_sequence;
    loop {
        let next = verifier.next_sequence();
        let stored = log.remote.frames(log.id, next, FETCH_BYTES).await?;
        if stored.is_empty() {
            break;
        }
        for frame in stored {
            let place = Some(format!("{}, frame {}", log.remote.url(), frame.sequence));
            while verifier.next_sequence() < frame.sequence {
                let message = format!("is missing: frame {} follows", frame.sequence);
                verifier.unreadable(place.clone(), message);
            }
            let sequence = frame.sequence;
            let in_its_place = |decoded: Frame| match decoded.chained().sequence {
                of if of == sequence => Ok(decoded),
                of => Err(Error::damaged(format!("frame {of} is in its place"))),
            };
            match frame.bytes.and_then(Frame::decode).and_then(in_its_place) {
                Ok(decoded) => {
                    verifier =
                        log.here(move |log| check_frame(log, verifier, &decoded, place.as_deref())).await?;
                }
                Err(error) => {
                    let header = frame.header.as_ref().and_then(|header| FrameHeader::decode(header).ok());
                    let header = header.filter(|header| header.chained.sequence == sequence);
                    verifier.unreadable(place, error.to_string());
                    if let Some(header) = header {
                        verifier.skip_to(header.chained.sequence + 1, header.chained.tree_size());
                    }
                }
            }
        }
        progress(verifier.size(), size.max(verifier.size()));
    }
    let there = verifier.next_sequence();
    if there < end {
        verifier.problem(Problem {
            frame: Some(there),
            position: None,
            place: Some(log.remote.url()),
            message: format!(
                "{end} frames were seen there before, {there} are there now: the log went backwards"
            ),
        });
    }
    if let Err(error) = caught_up {
        // It has been named, if it is the log that is damaged.
        tracing::debug!(%error, "not all of the log could be copied");
    }
    check_documents(log, inline_bytes_max, end.min(there), &mut verifier).await?;
    Ok(verifier.finish())
}

fn check_frame(
    log: &RemoteLog,
    mut verifier: Verifier,
    frame: &Frame,
    place: Option<&str>,
) -> Result<Verifier> {
    log.mirror.with_sources(|sources| {
        verifier.frame_with(frame, place, &mut precedent_core::stored::WithFrame { frame, before: sources });
    })?;
    Ok(verifier)
}

/// Compares the documents of all frames through which they are said to be complete, and of later ones what is there.
async fn check_documents(
    log: &Arc<RemoteLog>,
    inline_bytes_max: usize,
    frames: u64,
    verifier: &mut Verifier,
) -> Result<()> {
    let complete = log.remote.documented(log.id).await?;
    let mut documents: Vec<(u64, Document)> = Vec::new();
    for sequence in 0..frames {
        let of_frame = documents_of(log, sequence, inline_bytes_max).await.unwrap_or_default();
        documents.extend(of_frame.into_iter().map(|document| (sequence, document)));
        if documents.len() < DOCUMENTS && sequence + 1 < frames {
            continue;
        }
        let (sequences, chunk): (Vec<u64>, Vec<Document>) = documents.drain(..).unzip();
        let answers = log.remote.check_documents(&chunk).await?;
        for ((document, sequence), answer) in chunk.iter().zip(sequences).zip(answers) {
            let Some(differs) = answer else { continue };
            if differs.starts_with(crate::remote::IS_MISSING) && !complete.contains(sequence) {
                continue;
            }
            verifier.problem(Problem {
                frame: Some(sequence),
                position: Some(Position(document.event.position.0)),
                place: Some(log.remote.url()),
                message: format!("its document {differs}"),
            });
        }
    }
    Ok(())
}

//! Repeated content is stored once.
//!
//! An agent sends its whole conversation with every call, so most of what is recorded has been recorded
//! before. A part of an event can therefore be stored as a list of **pieces**: bytes that stand here literally,
//! and **extents**, each of which names bytes that stand literally with an earlier event.
//!
//! ```text
//! content of the part   ┌ extent ─────────┬ literal ┬ extent ───┬ literal ┐
//! stored                  event 17, 0..900   61 B     event 23    1,204 B
//! ```
//!
//! - An extent never names an extent: it counts in the *literal bytes* of its source, one behind the other. So the
//!   depth is one, and any event is read with at most [`SOURCES_MAX`] others.
//! - It names an earlier event of the same log, and there the part of the same name and the same scope: what
//!   belongs to one person is never read through what belongs to another.
//! - It is physical: entry, commitment and length are those of the whole content, so roots and proofs do not
//!   know of it, and a copied log may choose anew.
//!
//! Repeats are found by content-defined anchors: places where the last eight bytes, multiplied, have their seven highest
//! bits set, and which lie 256 bytes apart or more: about one in 384 bytes. An anchor is known by a hash of the last 64.
//! [`anchors`] finds them; [`Recent`] remembers those of the newest literals, in bounded memory. Where one is met
//! again the bytes themselves are compared and the match is grown both ways. A hash that is not met, or met by
//! chance, costs bytes and never truth.

mod anchors;
mod pieces;
mod recent;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::anchors::{Anchor, anchors};
pub(crate) use self::anchors::{anchors_about, put_anchors};
pub(crate) use self::pieces::{Piece, literal_len, pieces};
pub use self::recent::Recent;
use crate::error::{Error, Result};
use crate::ids::Position;

/// Content shorter than this is stored literally and is no source either.
pub const CONTENT_BYTES_MIN: usize = 1 << 10;
/// The most extents a part can have.
pub const EXTENTS_MAX: usize = 64;
/// The most events that the extents of a part can name.
pub const SOURCES_MAX: usize = 16;

/// Where the literal bytes of earlier events are found.
pub trait Sources {
    /// The literal bytes, one behind the other, of the part with this name of the event at this position.
    ///
    /// # Errors
    /// `damaged` if the event cannot be read, has no such part, or has it with another scope.
    fn literals(&mut self, position: Position, part: &str, scope: Option<&str>) -> Result<Bytes>;
}

/// Where no part refers to another event: frames on their way from one store to another.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSources;

impl Sources for NoSources {
    fn literals(&mut self, position: Position, _part: &str, _scope: Option<&str>) -> Result<Bytes> {
        Err(Error::damaged(format!(
            "refers to the event at position {position} where nothing may be referred to"
        )))
    }
}

/// Puts content together from its pieces.
pub(crate) fn assemble(
    pieces: &[Piece],
    mut literal: &[u8],
    length: usize,
    name: &str,
    scope: Option<&str>,
    sources: &mut dyn Sources,
) -> Result<Bytes> {
    let mut content = Vec::with_capacity(length);
    let mut last: Option<(Position, Bytes)> = None;
    for piece in pieces {
        match *piece {
            Piece::Literal(len) => {
                let (here, rest) = literal.split_at(len);
                content.extend_from_slice(here);
                literal = rest;
            }
            Piece::Extent { source, offset, len } => {
                let named = |e: Error| e.context(format!("refers to the event at position {source}"));
                if last.as_ref().is_none_or(|(at, _)| *at != source) {
                    last = Some((source, sources.literals(source, name, scope).map_err(named)?));
                }
                let (_, bytes) = last.as_ref().expect("it was just looked up");
                let Some(range) = bytes.get(offset..offset + len) else {
                    let message =
                        format!("{len} literal bytes from {offset} on are named, {} are there", bytes.len());
                    return Err(named(Error::damaged(message)));
                };
                content.extend_from_slice(range);
            }
        }
    }
    Ok(content.into())
}

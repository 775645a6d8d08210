//! The list of pieces that a part is made of, as it is stored.

use super::{EXTENTS_MAX, SOURCES_MAX};
use crate::error::{Error, Result};
use crate::ids::Position;

/// A piece of a part's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes that stand here.
    Literal(usize),
    /// Bytes that stand with an earlier event.
    Extent {
        /// The event.
        source: Position,
        /// Where they begin among the literal bytes of its part.
        offset: usize,
        len: usize,
    },
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Literal(len) | Self::Extent { len, .. } => *len,
        }
    }
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes
            .split_first()
            .ok_or_else(|| Error::damaged("a list of pieces ends in the middle of a number"))?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
            break;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Error::damaged("a number in a list of pieces that is not in its shortest form"))
}

/// Writes the list of pieces of a part of the event at `position`.
pub(super) fn put_pieces(position: Position, pieces: &[Piece], out: &mut Vec<u8>) {
    put_number(pieces.len() as u64, out);
    for piece in pieces {
        match piece {
            Piece::Literal(len) => put_number((*len as u64) << 1, out),
            Piece::Extent { source, offset, len } => {
                put_number((*len as u64) << 1 | 1, out);
                put_number(position.0 - source.0, out);
                put_number(*offset as u64, out);
            }
        }
    }
}

/// Reads the list of pieces at the start of `bytes`, for content of `length` bytes of the event at `position`;
/// answers the pieces and the bytes of the list. Everything is checked before anything is allocated for it.
pub(crate) fn pieces(mut bytes: &[u8], position: Position, length: u64) -> Result<(Vec<Piece>, usize)> {
    let before = bytes.len();
    let bad = |what: String| Err(Error::damaged(format!("a part made of extents: {what}")));
    let count = take_number(&mut bytes)?;
    if !(1..=2 * EXTENTS_MAX as u64 + 1).contains(&count) {
        return bad(format!("{count} pieces; there are 1 to {}", 2 * EXTENTS_MAX + 1));
    }
    let mut pieces = Vec::with_capacity(count as usize);
    let mut sources = Vec::with_capacity(SOURCES_MAX);
    let (mut sum, mut extents) = (0u64, 0);
    for _ in 0..count {
        let head = take_number(&mut bytes)?;
        let len = head >> 1;
        sum = sum.saturating_add(len);
        if len == 0 || sum > length {
            return bad(format!("its pieces do not add up to its length of {length} bytes"));
        }
        if head & 1 == 0 {
            if matches!(pieces.last(), Some(Piece::Literal(_))) {
                return bad("two literal pieces in a row".into());
            }
            pieces.push(Piece::Literal(len as usize));
            continue;
        }
        let (distance, offset) = (take_number(&mut bytes)?, take_number(&mut bytes)?);
        if distance == 0 {
            return bad("an extent that names the event it belongs to".into());
        }
        let Some(source) = position.0.checked_sub(distance) else {
            return bad(format!("an extent that reaches {distance} events back from position {position}"));
        };
        if offset.checked_add(len).is_none_or(|end| u32::try_from(end).is_err()) {
            return bad(format!("an extent of {len} bytes at {offset}"));
        }
        extents += 1;
        if !sources.contains(&source) {
            sources.push(source);
        }
        if extents > EXTENTS_MAX || sources.len() > SOURCES_MAX {
            return bad(format!(
                "{extents} extents of {} events; {EXTENTS_MAX} and {SOURCES_MAX} are the most",
                sources.len()
            ));
        }
        pieces.push(Piece::Extent { source: Position(source), offset: offset as usize, len: len as usize });
    }
    if sum != length {
        return bad(format!("its pieces have {sum} bytes, its length is {length}"));
    }
    Ok((pieces, before - bytes.len()))
}

/// Bytes of the pieces that stand with the part itself.
pub(crate) fn literal_len(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| matches!(piece, Piece::Literal(_))).map(Piece::len).sum()
}

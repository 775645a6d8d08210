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

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;

use crate::commitment::Salt;
use crate::entry::{DATA_PART, Entry};
use crate::error::{Error, Result};
use crate::frame::FORM_EXTENTS;
use crate::ids::Position;
use crate::stored::{StoredEvent, StoredPart, put_literal};

/// Content shorter than this is stored literally and is no source either.
pub const CONTENT_BYTES_MIN: usize = 1 << 10;
/// The most extents a part can have.
pub const EXTENTS_MAX: usize = 64;
/// The most events that the extents of a part can name.
pub const SOURCES_MAX: usize = 16;

/// An extent that is shorter costs more to follow than it saves.
const EXTENT_BYTES_MIN: usize = 32;
/// Bytes that the hash of an anchor depends on …
const WINDOW: usize = 64;
/// … and of those the last, which say whether there is one.
const WORD: usize = 8;
/// Anchors lie at least so far apart: content of one repeated byte has one everywhere, or none. What lies between an
/// anchor and the first place where the next can be is passed over.
const ANCHOR_DISTANCE_MIN: usize = 256;
/// Beyond that one place in two to the power of this is an anchor.
const ANCHOR_BITS: u32 = 7;
/// Content without repeats has an anchor in about so many bytes.
const BYTES_AN_ANCHOR: usize = ANCHOR_DISTANCE_MIN + (1 << ANCHOR_BITS);

/// An odd number without pattern: two to the power of 64 by the golden ratio. It is no part of the format.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place in content that is found again wherever the same 64 bytes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Behind the 64 bytes.
    at: u32,
    /// Their hash.
    hash: u64,
}

/// The anchors of some content; none if it is too short to be worth it.
pub fn anchors(content: &[u8]) -> Vec<Anchor> {
    let mut found = Vec::new();
    put_anchors(content, &mut found);
    found
}

/// How many anchors so much content has, about, and rather more.
pub(crate) fn anchors_about(len: usize) -> usize {
    if len < CONTENT_BYTES_MIN { 0 } else { len / BYTES_AN_ANCHOR + 2 }
}

/// Adds the anchors of some content, as [`anchors`] finds them.
pub(crate) fn put_anchors(content: &[u8], found: &mut Vec<Anchor>) {
    if content.len() < CONTENT_BYTES_MIN || u32::try_from(content.len()).is_err() {
        return;
    }
    let mut from = 0;
    while let Some(anchor) = next_anchor(content, from) {
        // What lies in between is not even looked at.
        from = anchor.at as usize + ANCHOR_DISTANCE_MIN - WINDOW;
        found.push(anchor);
    }
}

/// The first anchor whose 64 bytes begin at `from` or behind it.
///
/// A third of everything that is recorded goes through here byte by byte. So nothing is carried from one byte to the next,
/// they are taken eight at a time, and the 64 bytes are hashed where an anchor is, and nowhere else.
fn next_anchor(content: &[u8], from: usize) -> Option<Anchor> {
    /// The upper bits of an anchor are ones. (Were they zeros, zeros would be full of anchors.)
    const LEAST: u64 = u64::MAX << (64 - ANCHOR_BITS);
    let mixed = |bytes: &[u8; WORD], with: u64| (u64::from_le_bytes(*bytes) ^ with).wrapping_mul(MIX);
    let is_one = |end: &[u8]| end.first_chunk().is_some_and(|end| mixed(end, 0) >= LEAST);
    let mut begin = from + WINDOW - WORD;
    while let Some(eight) = content.get(begin..).and_then(<[u8]>::first_chunk::<{ WORD + 7 }>)
        && !(0..8).any(|at| is_one(&eight[at..]))
    {
        begin += 8;
    }
    let at = begin + WORD + content.get(begin..)?.windows(WORD).position(is_one)?;
    let words = content[at - WINDOW..at].as_chunks().0;
    let hash = words.iter().fold(0, |hash, word| {
        let mixed = mixed(word, hash);
        mixed ^ (mixed >> 32)
    });
    Some(Anchor { at: at as u32, hash })
}

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
    fn len(&self) -> usize {
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
fn put_pieces(position: Position, pieces: &[Piece], out: &mut Vec<u8>) {
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

/// Where an anchor is in the table: its hash can be chosen by whoever sends the content, this cannot.
fn key_of(hash: u64, [first, second]: [u64; 2]) -> u64 {
    let product = u128::from(hash ^ first) * u128::from(second | 1);
    product as u64 ^ (product >> 64) as u64
}

/// The keys of the table are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// The data of one recent event.
#[derive(Debug)]
struct Known {
    position: Position,
    scope: Option<Box<str>>,
    pieces: Pieces,
    literal: Stretch,
    /// How many places in the table it was given.
    anchors: usize,
}

/// What content is made of, each piece with its end in it; nearly always just one.
#[derive(Debug)]
enum Pieces {
    One((usize, Piece)),
    Many(Box<[(usize, Piece)]>),
}

impl Pieces {
    fn new(pieces: &[Piece]) -> Self {
        let mut end = 0;
        let with_end = |piece: &Piece| {
            end += piece.len();
            (end, *piece)
        };
        match pieces {
            [one] => Self::One((one.len(), *one)),
            many => Self::Many(many.iter().map(with_end).collect()),
        }
    }

    fn as_slice(&self) -> &[(usize, Piece)] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Known {
    /// Bytes of memory, about, without its literal bytes.
    fn cost(&self) -> usize {
        const PLACE: usize = 32;
        let pieces = match &self.pieces {
            Pieces::One(_) => 0,
            Pieces::Many(many) => size_of_val(&**many),
        };
        size_of::<Self>() + pieces + PLACE * self.anchors
    }

    /// Bytes of its content.
    fn len(&self) -> usize {
        self.pieces.as_slice().last().map_or(0, |(end, _)| *end)
    }
}

/// Where the literal bytes of an event are among [`Literals`].
#[derive(Debug, Clone, Copy)]
struct Stretch {
    chunk: u64,
    at: usize,
    len: usize,
}

/// The literal bytes of recent events, one behind the other. They lie in chunks, so that an event takes no memory of its
/// own, and letting go of one touches nothing that has not been used for long.
#[derive(Debug, Default)]
struct Literals {
    chunks: VecDeque<Vec<u8>>,
    /// The number of the first chunk.
    first: u64,
    /// A chunk that was let go of, to be filled again.
    spare: Vec<u8>,
    /// Bytes of all of them, filled or not.
    bytes: usize,
}

/// Literal bytes that are longer have a chunk of their own.
const CHUNK_BYTES: usize = 256 << 10;

impl Literals {
    /// Bytes of memory that so many bytes more would take.
    fn needs(&self, len: usize) -> usize {
        let fits = self.chunks.back().is_some_and(|last| last.capacity() - last.len() >= len);
        if fits || self.spare.capacity() >= len { 0 } else { len.max(CHUNK_BYTES) }
    }

    fn push(&mut self, literal: &[u8]) -> Stretch {
        let len = literal.len();
        if self.chunks.back().is_none_or(|last| last.capacity() - last.len() < len) {
            let mut chunk = std::mem::take(&mut self.spare);
            if chunk.capacity() < len.max(1) {
                self.bytes -= chunk.capacity();
                chunk = Vec::with_capacity(len.max(CHUNK_BYTES));
                self.bytes += chunk.capacity();
            }
            self.chunks.push_back(chunk);
        }
        let chunk = self.first + self.chunks.len() as u64 - 1;
        let last = self.chunks.back_mut().expect("there is one with room");
        let at = last.len();
        last.extend_from_slice(literal);
        Stretch { chunk, at, len }
    }

    fn get(&self, stretch: Stretch) -> &[u8] {
        &self.chunks[(stretch.chunk - self.first) as usize][stretch.at..stretch.at + stretch.len]
    }

    /// Lets go of what is before this.
    fn forget_before(&mut self, stretch: Stretch) {
        while self.first < stretch.chunk {
            let mut chunk = self.chunks.pop_front().expect("a stretch is in a chunk");
            self.first += 1;
            chunk.clear();
            if chunk.capacity() > self.spare.capacity() && chunk.capacity() <= 2 * CHUNK_BYTES {
                std::mem::swap(&mut chunk, &mut self.spare);
            }
            self.bytes -= chunk.capacity();
        }
    }

    /// Lets go of what is behind this.
    fn forget_behind(&mut self, stretch: Stretch) {
        self.chunks.truncate((stretch.chunk - self.first) as usize + 1);
        self.chunks.back_mut().expect("a stretch is in a chunk").truncate(stretch.at + stretch.len);
        self.bytes = self.chunks.iter().chain([&self.spare]).map(Vec::capacity).sum();
    }
}

/// What has been recorded of late: what new content is compared with.
///
/// Memory is bounded by what it was made with. What has been forgotten is stored again when it is met again.
///
/// An anchor leads to the newest event whose content has it, whether it stands there literally or not, and from
/// there the comparison walks on through the pieces of that event in both directions. So one anchor
/// finds all of a long history, and parts of it that are too short to have one.
#[derive(Debug)]
pub struct Recent {
    bytes_max: usize,
    /// In use, but for the literal bytes.
    bytes: usize,
    /// The number of the first event that is known; the others follow, their positions ascending.
    first: u64,
    known: VecDeque<Known>,
    literals: Literals,
    /// By hash: the number of the event, and the place in its content. Some lead to events that are forgotten. Most of
    /// them are met in no cache, so they are small: of the number there is the lower half, which may be that of another.
    places: HashMap<u64, (u32, u32), BuildHasherDefault<Identity>>,
    /// Drawn anew, so that nobody can send content whose anchors all have one place in the table.
    secret: [u64; 2],
    /// So many places and the table is tidied.
    tidy_at: usize,
}

/// Content that matches literal bytes of an event.
#[derive(Debug, Clone, Copy)]
struct Match {
    at: usize,
    len: usize,
    source: Position,
    offset: usize,
}

impl Recent {
    /// The memory that suits one log: [`Self::new`] with 32 MiB.
    pub const BYTES_MAX: usize = 32 << 20;

    /// Remembers about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            first: 0,
            known: VecDeque::new(),
            literals: Literals::default(),
            places: HashMap::default(),
            secret: rand::random(),
            tidy_at: 4096,
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Bytes in use, about; never more than it was made with.
    pub fn bytes(&self) -> usize {
        self.bytes + self.literals.bytes
    }

    /// Forgets the event at this position and those after it: they have not been recorded after all.
    pub fn forget_from(&mut self, position: Position) {
        let mut forgotten = false;
        while self.known.back().is_some_and(|known| known.position >= position) {
            let known = self.known.pop_back().expect("there is a last one");
            self.bytes -= known.cost();
            forgotten = true;
        }
        if forgotten {
            match self.known.back() {
                Some(last) => self.literals.forget_behind(last.literal),
                None => self.literals = Literals::default(),
            }
            // Other events will have their numbers.
            let (first, known) = (self.first, &self.known);
            self.places.retain(|_, (number, _)| index_of(*number, first) < known.len());
        }
    }

    /// Forgets the events before this position: nothing recorded from now on may refer to them.
    pub fn forget_before(&mut self, position: Position) {
        while self.known.front().is_some_and(|known| known.position < position) {
            self.forget_first();
        }
        self.tidy();
    }

    fn forget_first(&mut self) {
        let known = self.known.pop_front().expect("there is a first one");
        self.bytes -= known.cost();
        self.first += 1;
        match self.known.front() {
            Some(first) => self.literals.forget_before(first.literal),
            None => self.literals = Literals::default(),
        }
    }

    /// Takes places of forgotten events out of the table, once they are more than the others.
    fn tidy(&mut self) {
        let live: usize = self.known.iter().map(|known| known.anchors).sum();
        if self.places.len() > 2 * live {
            let (first, known) = (self.first, &self.known);
            self.places.retain(|_, (number, _)| index_of(*number, first) < known.len());
        }
    }

    /// Appends the data of the event at `position` to `out`: salt and content, as pieces where that saves something.
    /// The anchors are those that [`anchors`] finds in it. Positions ascend.
    ///
    /// `out` never grows by more than a literal part would make it.
    pub fn put_part(
        &mut self,
        position: Position,
        scope: Option<&str>,
        salt: &Salt,
        content: &[u8],
        anchors: &[Anchor],
        out: &mut Vec<u8>,
    ) {
        let at = out.len();
        out.push(FORM_EXTENTS);
        out.extend_from_slice(&salt.0);
        if !self.store(position, scope, content, anchors, out) {
            out.truncate(at);
            put_literal(salt, content, out);
        }
    }

    /// Appends the list of pieces and the literal bytes to `out` and answers true, or answers false if the content
    /// is to be stored literally. Either way it is remembered.
    fn store(
        &mut self,
        position: Position,
        scope: Option<&str>,
        content: &[u8],
        anchors: &[Anchor],
        out: &mut Vec<u8>,
    ) -> bool {
        // One part an event: what refers to it could not say which.
        let again = self.known.back().is_some_and(|known| known.position >= position);
        if content.len() < CONTENT_BYTES_MIN || again {
            return false;
        }
        let matches = self.matches(scope, content, anchors);
        if matches.is_empty() {
            self.remember(position, scope, &[Piece::Literal(content.len())], content, anchors);
            return false;
        }
        let mut pieces = Vec::with_capacity(2 * matches.len() + 1);
        let mut end = 0;
        let behind = Match { at: content.len(), len: 0, source: position, offset: 0 };
        for found in matches.iter().chain([&behind]) {
            if found.at > end {
                pieces.push(Piece::Literal(found.at - end));
            }
            end = found.at + found.len;
            if found.len > 0 {
                pieces.push(Piece::Extent { source: found.source, offset: found.offset, len: found.len });
            }
        }
        put_pieces(position, &pieces, out);
        let (literal_at, mut rest) = (out.len(), content);
        for piece in &pieces {
            let (here, behind) = rest.split_at(piece.len());
            if let Piece::Literal(_) = piece {
                out.extend_from_slice(here);
            }
            rest = behind;
        }
        self.remember(position, scope, &pieces, &out[literal_at..], anchors);
        true
    }

    /// Remembers the data of an event that is stored already. Positions ascend.
    ///
    /// # Errors
    /// `damaged` if its content cannot be put together; nothing is remembered then.
    pub fn recall(&mut self, stored: &StoredEvent, entry: &Entry, sources: &mut dyn Sources) -> Result<()> {
        let mut parts = stored.parts(entry, sources)?.into_iter();
        stored.pieces(entry, |part, pieces, literal| {
            let content = parts.next();
            if let (DATA_PART, Some(StoredPart::Present(_, content))) = (&*part.name, content) {
                let anchors = anchors(&content);
                self.remember(entry.position, part.scope.as_deref(), pieces, &literal, &anchors);
            }
            Ok(())
        })
    }

    fn remember(
        &mut self,
        position: Position,
        scope: Option<&str>,
        pieces: &[Piece],
        literal: &[u8],
        anchors: &[Anchor],
    ) {
        // Where the literal bytes are is known once there is room for them.
        let nowhere = Stretch { chunk: 0, at: 0, len: 0 };
        let (pieces, scope_of) = (Pieces::new(pieces), scope.map(Into::into));
        let mut known = Known { position, scope: scope_of, pieces, literal: nowhere, anchors: anchors.len() };
        let cost = known.cost();
        if anchors.is_empty() || cost + literal.len().max(CHUNK_BYTES) > self.bytes_max {
            return;
        }
        while self.bytes() + cost + self.literals.needs(literal.len()) > self.bytes_max {
            self.forget_first();
        }
        self.bytes += cost;
        known.literal = self.literals.push(literal);
        let (number, mix) = ((self.first + self.known.len() as u64) as u32, mix_of(scope));
        self.make_room();
        for anchor in anchors {
            let key = key_of(anchor.hash ^ mix, self.secret);
            self.places.insert(key, (number, anchor.at));
        }
        self.known.push_back(known);
        if self.places.len() > self.tidy_at {
            self.tidy();
            self.tidy_at = 2 * self.places.len().max(4096);
        }
    }

    /// Once there is much, makes room for all there can be: a table that doubles again and again is filled twice.
    fn make_room(&mut self) {
        const MUCH: usize = 1 << 20;
        let all = self.bytes_max / BYTES_AN_ANCHOR;
        if self.bytes() > MUCH && self.places.capacity() < all {
            self.places.reserve(all - self.places.len());
        }
    }

    /// Fetches what [`Self::put_part`] will look up of these events, each with its scope: nearly all of it is in no cache, and
    /// here no place waits for the one before it.
    pub(crate) fn fetch<'a>(&self, events: impl Iterator<Item = (Option<&'a str>, &'a [Anchor])>) {
        let mut there = 0;
        for (scope, anchors) in events {
            let mix = mix_of(scope);
            let keys = anchors.iter().map(|anchor| key_of(anchor.hash ^ mix, self.secret));
            there += keys.filter(|key| self.places.contains_key(key)).count();
        }
        std::hint::black_box(there);
    }

    /// Content that is there already, ascending and apart.
    fn matches(&self, scope: Option<&str>, content: &[u8], anchors: &[Anchor]) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        let mut end = 0;
        let mix = mix_of(scope);
        for anchor in anchors {
            let at = anchor.at as usize;
            if at <= end {
                continue;
            }
            let Some((number, place)) = self.places.get(&key_of(anchor.hash ^ mix, self.secret)) else {
                continue;
            };
            let Some(known) = self.known.get(index_of(*number, self.first)) else { continue };
            if known.scope.as_deref() == scope && *place as usize <= known.len() {
                self.grow(known, *place as usize, content, at, end, &mut found);
                end = found.last().map_or(end, |last| last.at + last.len).max(end);
            }
        }
        found.retain(|one| one.len >= EXTENT_BYTES_MIN);
        limit(&mut found);
        found
    }

    /// Compares content around `at`, but not before `from`, with that of a known event around `place`.
    fn grow(
        &self,
        known: &Known,
        place: usize,
        content: &[u8],
        at: usize,
        from: usize,
        found: &mut Vec<Match>,
    ) {
        let pieces = known.pieces.as_slice();
        let piece_of = |index: usize| {
            let (end, piece) = pieces[index];
            (end - piece.len(), self.literal_of(known, index))
        };
        let begin = found.len();
        // Backwards from the byte before the place …
        let mut index = pieces.partition_point(|(end, _)| *end < place);
        let (mut here, mut there) = (at, place);
        while let (start, Some((source, offset, bytes))) = piece_of(index) {
            let len = common_suffix(&content[from..here], &bytes[..there - start]);
            (here, there) = (here - len, there - len);
            if len > 0 {
                found.push(Match { at: here, len, source, offset: offset + there - start });
            }
            if there > start || index == 0 || here == from {
                break;
            }
            index -= 1;
        }
        found[begin..].reverse();
        // … and forwards from it.
        let mut index = pieces.partition_point(|(end, _)| *end <= place);
        let (mut here, mut there) = (at, place);
        while index < pieces.len() {
            let (start, Some((source, offset, bytes))) = piece_of(index) else { break };
            let bytes = &bytes[there - start..];
            let len = common_prefix(&content[here..], bytes);
            if len > 0 {
                let one = Match { at: here, len, source, offset: offset + there - start };
                match found[begin..].last_mut() {
                    Some(last) if last.continues(&one) => last.len += len,
                    _ => found.push(one),
                }
            }
            (here, there) = (here + len, there + len);
            if len < bytes.len() {
                break;
            }
            index += 1;
        }
    }

    /// Where the bytes of a piece stand literally: the event, where in its literal bytes, and the bytes.
    fn literal_of<'k>(&'k self, known: &'k Known, index: usize) -> Option<(Position, usize, &'k [u8])> {
        let pieces = known.pieces.as_slice();
        match pieces[index].1 {
            Piece::Literal(len) => {
                let before = pieces[..index].iter().map(|(_, piece)| match piece {
                    Piece::Literal(len) => *len,
                    Piece::Extent { .. } => 0,
                });
                let offset: usize = before.sum();
                Some((known.position, offset, &self.literals.get(known.literal)[offset..offset + len]))
            }
            Piece::Extent { source, offset, len } => {
                let number = self.known.binary_search_by_key(&source, |known| known.position).ok()?;
                let literal = self.literals.get(self.known[number].literal);
                Some((source, offset, literal.get(offset..offset + len)?))
            }
        }
    }
}

impl Match {
    /// Whether another match goes on where this one ends, here and there.
    fn continues(&self, next: &Self) -> bool {
        self.source == next.source && self.at + self.len == next.at && self.offset + self.len == next.offset
    }
}

/// Keeps matches within [`EXTENTS_MAX`] and [`SOURCES_MAX`]: of too many, some neighbours are stored again, and from
/// then on stand together as one source.
///
/// Which? Those with the fewest bytes for each source but one that they are merged from: as in a log-structured merge
/// tree, many of about one size. Letting go of the smallest alone would make all sources grow
/// alike, and rewrite a part of the whole conversation with every event.
fn limit(found: &mut Vec<Match>) {
    /// More than these are not even considered.
    const CONSIDERED_MAX: usize = 256;
    if found.len() > CONSIDERED_MAX {
        let mut lens: Vec<usize> = found.iter().map(|one| one.len).collect();
        lens.sort_unstable_by(|a, b| b.cmp(a));
        let least = lens[CONSIDERED_MAX - 1];
        // Of those that are as short as the shortest kept, the first.
        let mut equal = lens[..CONSIDERED_MAX].iter().filter(|len| **len == least).count();
        found.retain(|one| {
            let keeps = one.len > least || (one.len == least && equal > 0);
            equal -= usize::from(keeps && one.len == least);
            keeps
        });
    }
    // For each match the number of its source, and for each source how many matches it has.
    let mut numbers = HashMap::new();
    let mut counts = Vec::new();
    let sources: Vec<usize> = found
        .iter()
        .map(|one| {
            let number = *numbers.entry(one.source).or_insert(counts.len());
            if number == counts.len() {
                counts.push(0);
            }
            counts[number] += 1;
            number
        })
        .collect();
    if counts.len() <= SOURCES_MAX && found.len() <= EXTENTS_MAX {
        return;
    }
    let mut best = (f64::INFINITY, 0..found.len());
    for begin in 0..found.len() {
        let (mut left, mut bytes, mut freed) = (counts.clone(), 0, 0);
        for end in begin..found.len() {
            bytes += found[end].len;
            left[sources[end]] -= 1;
            freed += usize::from(left[sources[end]] == 0);
            let extents = found.len() - (end + 1 - begin);
            // Where only the extents are too many, no source has to be freed.
            let price = match counts.len() > SOURCES_MAX {
                true if freed < 2 => continue,
                true => bytes as f64 / (freed as f64 - 1.0),
                false => bytes as f64,
            };
            if counts.len() - freed <= SOURCES_MAX && extents <= EXTENTS_MAX && price < best.0 {
                best = (price, begin..end + 1);
            }
        }
    }
    found.drain(best.1);
}

/// The index of the event with this lower half of a number, if `first` is the number of the first: others lie behind all.
fn index_of(number: u32, first: u64) -> usize {
    number.wrapping_sub(first as u32) as usize
}

/// What tells the anchors of one scope from those of another in the table.
fn mix_of(scope: Option<&str>) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    scope.map_or(0, |scope| {
        hasher.write(scope.as_bytes());
        hasher.finish()
    })
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let whole = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let whole = a.rchunks_exact(8).zip(b.rchunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    let (a, b) = (&a[..a.len() - whole], &b[..b.len() - whole]);
    whole + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Literal bytes by position, as a log would keep them.
    #[derive(Default)]
    struct Stored(HashMap<Position, Bytes>);

    impl Sources for Stored {
        fn literals(&mut self, position: Position, _part: &str, _scope: Option<&str>) -> Result<Bytes> {
            self.0.get(&position).cloned().ok_or_else(|| Error::damaged("no such event"))
        }
    }

    /// Bytes without repeats.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..len).map(|_| rng.random()).collect()
    }

    /// A log of contents: what is stored of each, and that each reads back.
    struct Contents {
        recent: Recent,
        stored: Stored,
        next: u64,
    }

    impl Contents {
        fn new() -> Self {
            Self { recent: Recent::new(Recent::BYTES_MAX), stored: Stored::default(), next: 0 }
        }

        /// Stores content and reads it back; answers the bytes it took.
        fn put(&mut self, scope: Option<&str>, content: &[u8]) -> usize {
            let position = Position(self.next);
            self.next += 1;
            let mut out = Vec::new();
            if !self.recent.store(position, scope, content, &anchors(content), &mut out) {
                self.stored.0.insert(position, Bytes::copy_from_slice(content));
                return content.len();
            }
            let (pieces, list) = pieces(&out, position, content.len() as u64).unwrap();
            let literal = &out[list..];
            assert_eq!(literal.len(), literal_len(&pieces));
            assert!(out.len() < content.len(), "{} bytes for {}", out.len(), content.len());
            let again = assemble(&pieces, literal, content.len(), "data", scope, &mut self.stored).unwrap();
            assert_eq!(again, content, "position {position}");
            self.stored.0.insert(position, Bytes::copy_from_slice(literal));
            out.len()
        }
    }

    #[test]
    fn anchors_are_where_the_bytes_before_them_say_and_not_too_close() {
        for (seed, len) in [(4, 1_024), (5, 1_027), (6, 20_001), (7, 20_002)] {
            let content = noise(seed, len);
            let mut expected: Vec<Anchor> = Vec::new();
            for behind in WINDOW..=content.len() {
                let end: [u8; 8] = content[behind - 8..behind].try_into().unwrap();
                let is_one = u64::from_le_bytes(end).wrapping_mul(MIX) >> (64 - ANCHOR_BITS) == 0x7f;
                let apart = expected.last().map_or(usize::MAX, |last| behind - last.at as usize);
                if is_one && apart >= ANCHOR_DISTANCE_MIN {
                    let alone = next_anchor(&content[behind - WINDOW..behind], 0).unwrap();
                    expected.push(Anchor { at: behind as u32, hash: alone.hash });
                }
            }
            assert_eq!(anchors(&content), expected, "{len} bytes");
            assert!(len < 20_000 || expected.len() > 20, "{} anchors in {len} bytes", expected.len());
        }
    }

    #[test]
    fn a_conversation_that_grows_takes_its_new_messages_only() {
        let mut contents = Contents::new();
        let mut conversation = Vec::new();
        let mut stored = 0;
        for turn in 0..100 {
            // Now a word, now a page.
            conversation.extend(noise(turn, 150 + (turn as usize * 7919) % 4_000));
            stored += contents.put(None, &conversation);
        }
        let unique = conversation.len();
        assert!(stored < 2 * unique, "{stored} bytes for {unique} of content");
    }

    #[test]
    fn an_edit_in_the_middle_and_a_new_beginning_cost_what_they_change() {
        let mut contents = Contents::new();
        let first = noise(1, 50_000);
        contents.put(None, &first);
        let mut edited = noise(2, 300);
        edited.extend_from_slice(&first[..20_000]);
        edited.extend(noise(3, 40));
        edited.extend_from_slice(&first[20_500..]);
        let stored = contents.put(None, &edited);
        assert!(stored < 3_000, "{stored} bytes for an edit of 340");
    }

    #[test]
    fn more_edits_than_there_can_be_extents_are_stored_again_and_the_rest_is_not() {
        for (edits, apart) in [(70, 1_000), (400, 1_000)] {
            let mut contents = Contents::new();
            let first = noise(1, edits * apart);
            contents.put(None, &first);
            let mut edited = first.clone();
            for at in (0..edits).map(|i| i * apart + 500) {
                edited[at..at + 8].copy_from_slice(b"an edit!");
            }
            let stored = contents.put(None, &edited);
            let kept = (EXTENTS_MAX - 1) * (apart - 100);
            assert!(stored < edited.len() - kept, "{stored} bytes for {edits} edits");
        }
    }

    #[test]
    fn what_belongs_to_one_person_is_never_stored_as_anothers() {
        let mut contents = Contents::new();
        let content = noise(1, 8_192);
        contents.put(Some("a"), &content);
        assert_eq!(contents.put(Some("b"), &content), content.len());
        assert_eq!(contents.put(None, &content), content.len());
        assert!(contents.put(Some("b"), &content) < 100);
    }

    #[test]
    fn what_was_not_recorded_after_all_is_never_referred_to() {
        let mut contents = Contents::new();
        let content = noise(1, 8_192);
        contents.put(None, &content);
        contents.recent.forget_from(Position(0));
        assert!(contents.recent.is_empty() && contents.recent.bytes() == 0);
        assert_eq!(contents.put(None, &content), content.len());
        contents.recent.forget_before(Position(2));
        assert!(contents.recent.is_empty() && contents.recent.places.is_empty());
    }

    #[test]
    fn hostile_content_takes_bounded_memory_and_time_and_comes_back() {
        let mut contents = Contents::new();
        contents.recent = Recent::new(4 << 20);
        let period: Vec<u8> = noise(7, 96).into_iter().cycle().take(3 << 20).collect();
        let near: Vec<u8> = (0..2 << 20).map(|i: u32| (i / 700) as u8).collect();
        let same_start = |seed| [noise(99, 1024), noise(seed, 4096)].concat();
        let mut all = vec![vec![b'a'; 15 << 20], vec![0; 3 << 20], period, near, noise(5, 3 << 20)];
        all.extend((100..200).map(same_start));
        for content in &all {
            assert!(anchors(content).len() <= content.len() / ANCHOR_DISTANCE_MIN + 1);
            for _ in 0..2 {
                contents.put(None, content);
                assert!(contents.recent.bytes() <= 4 << 20);
            }
        }
    }

    #[test]
    fn a_list_of_pieces_comes_back_and_mutated_ones_are_refused_or_bounded() {
        let list = [
            Piece::Literal(300),
            Piece::Extent { source: Position(4), offset: 70_000, len: 5_000 },
            Piece::Extent { source: Position(0), offset: 0, len: 1 },
            Piece::Literal(1),
        ];
        let mut bytes = Vec::new();
        put_pieces(Position(5), &list, &mut bytes);
        assert_eq!(pieces(&bytes, Position(5), 5_302).unwrap(), (list.to_vec(), bytes.len()));
        for at in 0..bytes.len() {
            assert!(pieces(&bytes[..at], Position(5), 5_302).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                if let Ok((pieces, _)) = pieces(&bad, Position(5), 5_302) {
                    assert_eq!(pieces.iter().map(Piece::len).sum::<usize>(), 5_302);
                }
            }
        }
        assert!(pieces(&bytes, Position(5), 5_303).is_err());
        assert!(pieces(&bytes, Position(4), 5_302).is_err(), "reaches before the log");
    }

    #[test]
    fn extents_that_lie_are_refused() {
        let refused = |list: &[Piece], says: &str| {
            let mut bytes = Vec::new();
            put_pieces(Position(100), list, &mut bytes);
            let length = list.iter().map(Piece::len).sum::<usize>() as u64;
            let error = pieces(&bytes, Position(100), length).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        };
        let extent = |source| Piece::Extent { source: Position(source), offset: 0, len: 10 };
        refused(&[extent(100)], "names the event it belongs to");
        refused(&[Piece::Literal(0)], "do not add up");
        refused(&[Piece::Literal(1), Piece::Literal(1)], "two literal pieces");
        refused(&(0..17).map(extent).collect::<Vec<_>>(), "17 events");
        refused(&vec![extent(1); 65], "65 extents");
        refused(&vec![extent(1); 130], "130 pieces");
        refused(&[Piece::Extent { source: Position(1), offset: u32::MAX as usize, len: 1 }], "1 bytes at");
        let far = |sources: &mut dyn Sources, offset| {
            let piece = Piece::Extent { source: Position(1), offset, len: 10 };
            assemble(&[piece], b"", 10, "data", None, sources)
        };
        let mut stored = Stored::default();
        stored.0.insert(Position(1), Bytes::from_static(b"0123456789ab"));
        assert_eq!(far(&mut stored, 2).unwrap(), &b"23456789ab"[..]);
        assert!(far(&mut stored, 3).unwrap_err().to_string().contains("12 are there"));
        assert!(far(&mut NoSources, 0).is_err());
    }
}

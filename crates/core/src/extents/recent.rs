//! What has been recorded of late, and how new content is held against it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;

use super::anchors::BYTES_AN_ANCHOR;
use super::pieces::put_pieces;
use super::{Anchor, CONTENT_BYTES_MIN, EXTENTS_MAX, Piece, SOURCES_MAX, Sources, anchors};
use crate::commitment::Salt;
use crate::entry::{DATA_PART, Entry};
use crate::error::Result;
use crate::frame::FORM_EXTENTS;
use crate::hashed::HashedMap;
use crate::ids::Position;
use crate::stored::{StoredEvent, StoredPart, put_literal};

/// An extent that is shorter costs more to follow than it saves.
const EXTENT_BYTES_MIN: usize = 32;

/// Where an anchor is in the table: its hash can be chosen by whoever sends the content, this cannot.
fn key_of(hash: u64, [first, second]: [u64; 2]) -> u64 {
    let product = u128::from(hash ^ first) * u128::from(second | 1);
    product as u64 ^ (product >> 64) as u64
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
    pub(super) places: HashedMap<(u32, u32)>,
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
            places: HashedMap::default(),
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
    pub(super) fn store(
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

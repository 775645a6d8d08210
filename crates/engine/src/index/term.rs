//! What an event is indexed under: the hash of a kind and a text.
//!
//! Hashes are SipHash-2-4 keyed with the log's id. Two terms can have the same hash, so whatever the index
//! answers is a candidate, and is checked against the event itself.

use std::hash::Hasher;

use precedent_core::{Event, IndexedAttribute, LogId, Tag};
use siphasher::sip::SipHasher24;

/// The hash of a term.
pub(crate) type Term = u64;

/// Terms of so many bytes are put together before they are hashed.
const SHORT_BYTES: usize = 160;

fn hash_pieces(mut hasher: SipHasher24, pieces: [&[u8]; 4]) -> Term {
    pieces.into_iter().for_each(|piece| hasher.write(piece));
    at_least_one(hasher.finish())
}

/// Zero is the term of what cannot be read.
fn at_least_one(hash: u64) -> Term {
    hash.max(1)
}

/// Hashes the terms of one log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    key: [u8; 16],
}

impl Terms {
    pub(crate) fn new(log: LogId) -> Self {
        Self { key: log.0 }
    }

    fn hash(&self, kind: u8, first: &str, second: &str) -> Term {
        let hasher = SipHasher24::new_with_key(&self.key);
        let pieces = [&[kind][..], &(first.len() as u32).to_le_bytes(), first.as_bytes(), second.as_bytes()];
        // In one piece it is twice as quick, and nearly every term is short.
        let mut whole = [0; SHORT_BYTES];
        let mut len = 0;
        for piece in pieces {
            let Some(place) = whole.get_mut(len..len + piece.len()) else {
                return hash_pieces(hasher, pieces);
            };
            place.copy_from_slice(piece);
            len += piece.len();
        }
        at_least_one(hasher.hash(&whole[..len]))
    }

    pub(crate) fn stream(&self, stream: &str) -> Term {
        self.hash(b's', stream, "")
    }

    pub(crate) fn event_type(&self, event_type: &str) -> Term {
        self.hash(b't', event_type, "")
    }

    pub(crate) fn tag(&self, tag: &Tag) -> Term {
        self.hash(b'g', tag.as_str(), "")
    }

    pub(crate) fn key(&self, source: &str, id: &str) -> Term {
        self.hash(b'k', source, id)
    }

    pub(crate) fn attribute(&self, name: IndexedAttribute, value: &str) -> Term {
        self.hash(b'a', name.name(), value)
    }

    /// Every term of an event.
    pub(crate) fn of(&self, event: &Event, mut each: impl FnMut(Term)) {
        each(self.key(event.source(), event.id()));
        each(self.event_type(event.event_type()));
        if let Some(stream) = event.stream() {
            each(self.stream(stream));
        }
        for tag in event.tags() {
            each(self.tag(tag));
        }
        for name in IndexedAttribute::ALL {
            if let Some(value) = name.of(event) {
                each(self.attribute(name, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_the_same_hash_however_long_its_text_is() {
        let terms = Terms::new(LogId([7; 16]));
        for (first, second) in (0..200).flat_map(|first| [0, 1, 7, 100].map(|second| (first, second))) {
            let (first, second) = ("s".repeat(first), "i".repeat(second));
            let mut hasher = SipHasher24::new_with_key(&terms.key);
            let len = (first.len() as u32).to_le_bytes();
            [b"k", &len[..], first.as_bytes(), second.as_bytes()]
                .iter()
                .for_each(|piece| hasher.write(piece));
            assert_eq!(
                terms.key(&first, &second),
                hasher.finish().max(1),
                "{} {}",
                first.len(),
                second.len()
            );
        }
    }
}

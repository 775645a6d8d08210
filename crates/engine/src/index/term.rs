//! What an event is indexed under: the hash of a kind and a text.
//!
//! Hashes are SipHash-2-4 keyed with the log's id. Two terms can have the same hash, so whatever the index
//! answers is a candidate, and is checked against the event itself.

use std::hash::Hasher;

use precedent_core::{Event, IndexedAttribute, LogId, Tag};
use siphasher::sip::SipHasher24;

/// The hash of a term.
pub(crate) type Term = u64;

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
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&[kind]);
        hasher.write(&(first.len() as u32).to_le_bytes());
        hasher.write(first.as_bytes());
        hasher.write(second.as_bytes());
        // Zero is the term of what cannot be read.
        hasher.finish().max(1)
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

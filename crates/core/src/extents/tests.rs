//! What extents save, and what they refuse.

use std::collections::HashMap;

use super::anchors::ANCHOR_DISTANCE_MIN;
use super::pieces::put_pieces;
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
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
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

//! Places in content that are found again wherever the same bytes stand.

use super::CONTENT_BYTES_MIN;

/// Bytes that the hash of an anchor depends on …
const WINDOW: usize = 64;
/// … and of those the last, which say whether there is one.
const WORD: usize = 8;
/// Anchors lie at least so far apart: content of one repeated byte has one everywhere, or none. What lies between an
/// anchor and the first place where the next can be is passed over.
pub(super) const ANCHOR_DISTANCE_MIN: usize = 256;
/// Beyond that one place in two to the power of this is an anchor.
const ANCHOR_BITS: u32 = 7;
/// Content without repeats has an anchor in about so many bytes.
pub(super) const BYTES_AN_ANCHOR: usize = ANCHOR_DISTANCE_MIN + (1 << ANCHOR_BITS);

/// An odd number without pattern: two to the power of 64 by the golden ratio. It is no part of the format.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// A place in content that is found again wherever the same 64 bytes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Behind the 64 bytes.
    pub(super) at: u32,
    /// Their hash.
    pub(super) hash: u64,
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

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;

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
}

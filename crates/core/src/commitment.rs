//! Salted commitments to an event's data.
//!
//! An entry does not hold the data, it holds `HMAC-SHA256(salt, data)` with a fresh random salt of 32 bytes
//! (RFC 2104 over FIPS 180-4). The salt is stored with the data, as one erasable unit, never in the entry.
//! Erase both, and every proof over the entry still verifies while nobody can confirm a guess of what the
//! data was; the salt makes equal data look different.

use std::cmp::Reverse;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::Hash;
use crate::sha256::{Block, State, Tail, compress};

/// The key of one commitment: 32 random bytes, used once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; Self::LEN]);

impl Salt {
    /// The number of bytes.
    pub const LEN: usize = 32;

    /// A fresh salt from a cryptographically secure generator seeded by the operating system.
    pub fn random() -> Self {
        // `rand::random` would draw a word for every byte.
        let mut salt = [0; Self::LEN];
        rand::fill(&mut salt[..]);
        Self(salt)
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// `HMAC-SHA256(salt, content)`.
pub fn commit(salt: &Salt, content: &[u8]) -> Hash {
    if cfg!(precedent_unhashed) {
        return Hash::ZERO;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(&salt.0).expect("HMAC takes a key of any length");
    mac.update(content);
    Hash(mac.finalize().into_bytes().into())
}

/// [`commit`] of several contents, answered in their order. Each costs less than alone, where others are of about its length.
pub fn commit_each(contents: &[(Salt, &[u8])]) -> Vec<Hash> {
    if let [(salt, content)] = contents {
        return vec![commit(salt, content)];
    }
    if cfg!(precedent_unhashed) {
        return vec![Hash::ZERO; contents.len()];
    }
    let mut order: Vec<usize> = (0..contents.len()).collect();
    // The longest first: of an odd number the shortest is left over.
    order.sort_unstable_by_key(|of| Reverse(contents[*of].1.len()));
    let mut commitments = vec![Hash::ZERO; contents.len()];
    let (pairs, left) = order.as_chunks();
    for &[a, b] in pairs {
        let [(a_salt, a_content), (b_salt, b_content)] = [a, b].map(|of| &contents[of]);
        [commitments[a], commitments[b]] = commit_both([a_salt, b_salt], [a_content, b_content]);
    }
    for of in left {
        commitments[*of] = commit(&contents[*of].0, contents[*of].1);
    }
    commitments
}

/// Two, compressed side by side.
fn commit_both(salts: [&Salt; 2], contents: [&[u8]; 2]) -> [Hash; 2] {
    let chunks = contents.map(<[u8]>::as_chunks);
    let tails = [0, 1].map(|of| Tail::new(chunks[of].1, (size_of::<Block>() + contents[of].len()) as u64));
    let mut inner = keyed(salts, INNER);
    compress(&mut inner, chunks.map(|(blocks, _)| blocks));
    compress(&mut inner, [tails[0].blocks(), tails[1].blocks()]);
    let tails = inner.map(|state| Tail::new(&state.digest(), (size_of::<Block>() + Hash::LEN) as u64));
    let mut outer = keyed(salts, OUTER);
    compress(&mut outer, [tails[0].blocks(), tails[1].blocks()]);
    outer.map(|state| Hash(state.digest()))
}

/// What HMAC combines with the key, byte for byte, before the content and before the digest of both: RFC 2104, section 2.
const INNER: u8 = 0x36;
const OUTER: u8 = 0x5c;

/// Behind the blocks that these keys make.
fn keyed(salts: [&Salt; 2], pad: u8) -> [State; 2] {
    let blocks = salts.map(|salt| {
        let mut block: Block = [pad; size_of::<Block>()];
        block.iter_mut().zip(salt.0).for_each(|(byte, key)| *byte ^= key);
        block
    });
    let mut states = [State::START; 2];
    compress(&mut states, [&blocks[..1], &blocks[1..]]);
    states
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_have_the_commitments_that_each_has_alone() {
        let text: Vec<u8> = (0..70_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let lens = (0..200).chain([1_023, 1_024, 1_025, 65_536, 70_000]);
        for (n, len) in lens.enumerate() {
            let contents = [&text[..len], &text[..(n * 37) % 500], &text[..len / 2], &text[n..n + 64], b""];
            for count in 0..=contents.len() {
                let contents = contents[..count].iter().map(|content| (Salt::random(), *content));
                let contents: Vec<_> = contents.collect();
                let alone: Vec<_> = contents.iter().map(|(salt, content)| commit(salt, content)).collect();
                assert_eq!(commit_each(&contents), alone, "{len} and others, {count} in all");
            }
        }
    }

    #[test]
    fn the_commitment_is_hmac_sha256() {
        // RFC 4231 test case 1, its 20-byte key padded with zeros as HMAC itself pads it.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(commit(&Salt(key), b"Hi There").to_string(), expected);
    }

    #[test]
    fn equal_data_has_different_commitments() {
        assert_ne!(commit(&Salt::random(), b"x"), commit(&Salt::random(), b"x"));
    }
}

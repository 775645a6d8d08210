//! Salted commitments to an event's data.
//!
//! An entry does not hold the data, it holds `HMAC-SHA256(salt, data)` with a fresh random salt of 32 bytes
//! (RFC 2104 over FIPS 180-4). The salt is stored with the data, as one erasable unit, never in the entry.
//! Erase both, and every proof over the entry still verifies while nobody can confirm a guess of what the
//! data was; the salt makes equal data look different.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::Hash;

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
    let mut mac = Hmac::<Sha256>::new_from_slice(&salt.0).expect("HMAC takes a key of any length");
    mac.update(content);
    Hash(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

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

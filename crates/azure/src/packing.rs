//! How the bytes of a frame are packed into an item: compressed, and cut into parts where they are too many.
//!
//! What comes out is checked when it is read: length and checksum of the whole stand in the committing item, SHA-256 of
//! each part beside its name. The first bytes of the frame, its header, are kept by themselves too, unpacked.
//!
//! *Invariant*: [`unpack`] answers exactly the bytes that were given to [`pack`], or `damaged`; and never allocates more
//! than a frame can have.

use bytes::Bytes;
use precedent_core::frame::FRAME_BYTES_MAX;
use precedent_core::{Error, Result};

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// As they are.
    Plain,
    /// One zstd frame.
    Zstd,
}

/// Packed bytes, and what they have to unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// How they are packed.
    pub codec: Codec,
    /// Bytes when unpacked.
    pub length: usize,
    /// CRC-32 (IEEE) of the unpacked bytes.
    pub crc: u32,
    /// The packed bytes.
    pub bytes: Bytes,
}

/// Packs bytes: compressed, unless that makes them no shorter.
pub fn pack(bytes: &Bytes) -> Packed {
    let crc = crc32fast::hash(bytes);
    let length = bytes.len();
    match zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL) {
        Ok(packed) if packed.len() < length => {
            Packed { codec: Codec::Zstd, length, crc, bytes: packed.into() }
        }
        _ => Packed { codec: Codec::Plain, length, crc, bytes: bytes.clone() },
    }
}

/// The bytes that were packed.
///
/// # Errors
/// `damaged` if they cannot be unpacked or are not those that were packed.
pub fn unpack(packed: &Packed) -> Result<Bytes> {
    let Packed { codec, length, crc, bytes } = packed;
    if *length > FRAME_BYTES_MAX {
        return Err(Error::damaged(format!("a frame of {length} bytes, the limit is {FRAME_BYTES_MAX}")));
    }
    let unpacked = match codec {
        Codec::Plain => bytes.clone(),
        Codec::Zstd => zstd::bulk::decompress(bytes, *length)
            .map_err(|error| Error::damaged(format!("cannot be unpacked: {error}")))?
            .into(),
    };
    if unpacked.len() != *length {
        return Err(Error::damaged(format!("unpacks to {} bytes, expected {length}", unpacked.len())));
    }
    if crc32fast::hash(&unpacked) != *crc {
        return Err(Error::damaged("the checksum of the frame does not match"));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back_or_is_named_damaged() {
        for bytes in [Bytes::new(), Bytes::from(vec![7; 100_000]), Bytes::from_static(b"short")] {
            let packed = pack(&bytes);
            assert_eq!(unpack(&packed).expect("it was packed here"), bytes);
            let mut other = packed.clone();
            other.crc ^= 1;
            assert!(unpack(&other).is_err(), "another checksum");
            other = packed.clone();
            other.length += 1;
            assert!(unpack(&other).is_err(), "another length");
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("zeros compress");
        let packed = Packed { codec: Codec::Zstd, length: 64 << 20, crc: 0, bytes: bomb.clone().into() };
        assert!(unpack(&packed).expect_err("too long").message().contains("the limit is"));
        let lying = Packed { codec: Codec::Zstd, length: 1000, crc: 0, bytes: bomb.into() };
        assert!(unpack(&lying).is_err(), "longer than it says");
    }
}

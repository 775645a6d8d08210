//! The wire format of Protocol Buffers, field by field, without a schema.
//!
//! Decoders made from a schema drop what they do not know. What is recorded here is the sender's own bytes, so a
//! message is walked and cut at its fields, and never decoded and encoded again. [`Fields`] is the walk,
//! [`put_bytes`] the only thing that is ever written. The rules are those of
//! <https://protobuf.dev/programming-guides/encoding/>; groups, which no message of OTLP has, are refused.
//!
//! **Invariant.** No input makes the walk allocate, recurse, or look past the end of its slice.

use precedent_core::{Error, Result};

/// The value of a field as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Whole numbers, booleans, enums.
    Varint(u64),
    /// `fixed64` and `double`.
    Fixed64(u64),
    /// Text, bytes, messages, packed lists.
    Bytes(&'a [u8]),
    /// `fixed32` and `float`.
    Fixed32(u32),
}

impl<'a> Wire<'a> {
    /// The bytes of a text, a message or a list.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number, however wide it is on the wire.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Varint(n) | Self::Fixed64(n) => Some(n),
            Self::Fixed32(n) => Some(n.into()),
            Self::Bytes(_) => None,
        }
    }
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number in the schema, from 1.
    pub number: u32,
    /// Its value.
    pub value: Wire<'a>,
    /// All its bytes, tag and length included.
    pub raw: &'a [u8],
}

/// The fields of a message in their order. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Walks this message.
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.message.get(self.at).copied().ok_or_else(|| self.cut(1))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte holds the 64th bit and nothing else.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::invalid(format!("the protobuf number at byte {start} has more than 64 bits")))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let rest = self.message.get(self.at..).unwrap_or_default();
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(self.cut(len)),
        }
    }

    fn cut(&self, wanted: u64) -> Error {
        Error::invalid(format!(
            "the protobuf message ends at byte {}, and {wanted} more bytes are announced at byte {}",
            self.message.len(),
            self.at
        ))
    }

    fn field(&mut self) -> Result<Field<'a>> {
        let start = self.at;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| {
            Error::invalid(format!("{} is no number of a protobuf field, at byte {start}", tag >> 3))
        })?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().unwrap_or_default())),
            2 => {
                let len = self.varint()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default())),
            other => {
                return Err(Error::invalid(format!(
                    "the protobuf field {number} at byte {start} has wire type {other}, expected 0, 1, 2 or 5"
                )));
            }
        };
        Ok(Field { number, value, raw: &self.message[start..self.at] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

/// How many bytes [`put_bytes`] writes for a value of `len` bytes.
pub fn bytes_len(number: u32, len: usize) -> usize {
    varint_len(u64::from(number) << 3) + varint_len(len as u64) + len
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros().min(63) as usize;
    bits.div_ceil(7)
}

/// Writes a number as a varint.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes the field `number` with a whole number.
pub fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(value, out);
}

/// Writes the head of the field `number`: tag and length. Its `len` bytes have to follow.
pub fn put_head(number: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(len as u64, out);
}

/// Writes the field `number` with these bytes.
pub fn put_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_head(number, value.len(), out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(message: &[u8]) -> Result<Vec<Field<'_>>> {
        Fields::new(message).collect()
    }

    #[test]
    fn every_field_keeps_its_own_bytes() {
        let mut message = Vec::new();
        put_number(1, u64::MAX, &mut message);
        put_bytes(2, b"hello", &mut message);
        message.extend([3 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        message.extend([4 << 3 | 5, 1, 0, 0, 0]);
        let fields = fields(&message).unwrap();
        assert_eq!(fields.iter().map(|f| f.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(fields[0].value, Wire::Varint(u64::MAX));
        assert_eq!(fields[1].value.bytes(), Some(&b"hello"[..]));
        assert_eq!(fields[2].value, Wire::Fixed64(0x0807_0605_0403_0201));
        assert_eq!(fields[3].value.number(), Some(1));
        assert_eq!(fields.iter().flat_map(|f| f.raw).copied().collect::<Vec<u8>>(), message);
        assert_eq!(bytes_len(2, 5), fields[1].raw.len());
    }

    #[test]
    fn what_is_not_protobuf_is_refused_with_the_place() {
        for (bad, says) in [
            (&[0x0a, 5, b'x'][..], "ends at byte 3, and 5 more"),
            (&[0x0a], "ends at byte 1"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "18446744073709551615 more"),
            (&[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2], "more than 64 bits"),
            (&[0x08, 0x80], "ends at byte 2"),
            (&[0x00, 1], "0 is no number"),
            (&[0x0b], "wire type 3"),
            (&[0x0f], "wire type 7"),
            (&[0x09, 1, 2], "8 more bytes"),
        ] {
            let error = fields(bad).unwrap_err();
            assert!(error.message().contains(says), "{bad:?}: {error}");
        }
        let mut walk = Fields::new(&[0x0a, 5, b'x']);
        assert!(walk.next().is_some_and(|f| f.is_err()) && walk.next().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn hostile_bytes_end_in_an_error_or_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(fields) = fields(&bytes) {
                let whole: Vec<u8> = fields.iter().flat_map(|f| f.raw).copied().collect();
                prop_assert_eq!(whole, bytes);
            }
        }

        #[test]
        fn lengths_are_told_beforehand(number in 1u32..5000, len in 0usize..300) {
            let mut out = Vec::new();
            put_bytes(number, &vec![7; len], &mut out);
            prop_assert_eq!(out.len(), bytes_len(number, len));
        }
    }
}

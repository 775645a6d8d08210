//! Content codings of HTTP, undone within a bound.
//!
//! A few bytes can stand for gigabytes, so whoever decodes says how much there may be, and gets an error beyond it. Nothing
//! is reserved by what a header announces.

use std::io::Read;

use precedent_core::{Error, ErrorKind, Result};

/// The largest window of zstd that is accepted, as a power of two: the 8 MiB that RFC 8878 asks everybody to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// The coding of this name, as in `Content-Encoding`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }
}

/// Reads a `Content-Encoding`: the codings in the order in which they were applied, without `identity`.
///
/// # Errors
/// `invalid` with the coding that is not understood.
pub fn codings(header: &str) -> Result<Vec<Coding>> {
    let names =
        header.split(',').map(str::trim).filter(|n| !n.is_empty() && !n.eq_ignore_ascii_case("identity"));
    let codings = names.map(|name| {
        Coding::from_name(name).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Error::invalid(format!(
                "the content coding is '{}', expected gzip, deflate, zstd or none",
                shown.escape_debug()
            ))
        })
    });
    let codings: Vec<Coding> = codings.collect::<Result<_>>()?;
    match codings.len() {
        0..=2 => Ok(codings),
        n => Err(Error::limit("the list of content codings", n as u64, 2, "codings")),
    }
}

/// Decodes all of `bytes`, to at most `bytes_max`.
///
/// # Errors
/// `limit_exceeded` if there is more; `invalid` if the bytes are broken off or not of this coding.
pub fn decode(coding: Coding, bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
    let (out, ended) = decode_some(coding, bytes, bytes_max)?;
    match ended {
        None => Ok(out),
        Some(error) => Err(error),
    }
}

/// As [`decode`], but of bytes that are broken off or damaged it answers what comes before, with the error.
///
/// # Errors
/// `limit_exceeded` if there is more than `bytes_max`.
pub fn decode_some(coding: Coding, bytes: &[u8], bytes_max: usize) -> Result<(Vec<u8>, Option<Error>)> {
    decode_growing(coding, bytes, bytes_max, &mut |_| Ok(()))
}

/// As [`decode_some`], asking before the result grows: `grow` is told how long it is about to be, and may refuse.
///
/// # Errors
/// `limit_exceeded` if there is more than `bytes_max`; whatever `grow` answers.
pub fn decode_growing(
    coding: Coding,
    bytes: &[u8],
    bytes_max: usize,
    grow: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<(Vec<u8>, Option<Error>)> {
    let bad = |e: std::io::Error| Error::invalid(format!("the body is not {}: {e}", coding.as_str()));
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Coding::Deflate => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(bad)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
            Box::new(decoder)
        }
    };
    let mut out = Vec::new();
    let mut chunk = [0u8; 16 << 10];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok((out, None)),
            Ok(n) if out.len() + n > bytes_max => {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    format!(
                        "the body of {} bytes is more than {bytes_max} bytes once decoded from {}, which is the limit",
                        bytes.len(),
                        coding.as_str()
                    ),
                ));
            }
            Ok(n) => {
                grow(out.len() + n)?;
                out.extend_from_slice(&chunk[..n]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Ok((out, Some(bad(error)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn encoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        match coding {
            Coding::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Coding::Zstd => zstd::encode_all(bytes, 3).unwrap(),
        }
    }

    #[test]
    fn every_coding_is_undone_and_bombs_end_at_the_limit() {
        let bomb = vec![7u8; 50 << 20];
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            assert_eq!(decode(coding, &encoded(coding, b"hello"), 5).unwrap(), b"hello");
            let small = encoded(coding, &bomb);
            assert!(small.len() < 100_000);
            let error = decode(coding, &small, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded);
            let whole = encoded(coding, &bomb[..1 << 20]);
            let cut = &whole[..whole.len() / 2];
            assert_eq!(decode(coding, cut, 2 << 20).unwrap_err().kind(), ErrorKind::Invalid, "{coding:?}");
            assert!(decode_some(coding, cut, 2 << 20).unwrap().1.is_some());
            assert!(decode(coding, b"no such thing", 100).is_err());
        }
    }

    #[test]
    fn names_are_read_as_http_has_them() {
        assert_eq!(codings("identity, GZip").unwrap(), [Coding::Gzip]);
        assert_eq!(codings("").unwrap(), []);
        assert!(codings("br").unwrap_err().message().contains("'br'"));
        assert!(codings("gzip,gzip,gzip").is_err());
    }
}

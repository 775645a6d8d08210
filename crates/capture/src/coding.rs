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
    /// RFC 7932. Answers of providers come in it; it is not taken from senders.
    Brotli,
}

impl Coding {
    /// The coding of this name, as in `Content-Encoding`, if it is taken from senders.
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
            Self::Brotli => "br",
        }
    }
}

/// Codings of a message that passes through the proxy: more than four are nobody's.
const PASSED_MAX: usize = 4;

/// As [`codings`], for messages that pass through the proxy, whatever their number.
///
/// # Errors
/// `invalid` with the coding that is not understood.
pub fn codings_passed(header: &str) -> Result<Vec<Coding>> {
    let named = |name: &str| match name.to_ascii_lowercase().as_str() {
        "br" => Some(Coding::Brotli),
        _ => Coding::from_name(name),
    };
    listed(header, named, PASSED_MAX)
}

/// Reads a `Content-Encoding`: the codings in the order in which they were applied, without `identity`.
///
/// # Errors
/// `invalid` with the coding that is not understood.
pub fn codings(header: &str) -> Result<Vec<Coding>> {
    listed(header, Coding::from_name, 2)
}

fn listed(header: &str, named: impl Fn(&str) -> Option<Coding>, max: usize) -> Result<Vec<Coding>> {
    let names =
        header.split(',').map(str::trim).filter(|n| !n.is_empty() && !n.eq_ignore_ascii_case("identity"));
    let codings = names.map(|name| {
        named(name).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            Error::invalid(format!(
                "the content coding is '{}', expected gzip, deflate, zstd or none",
                shown.escape_debug()
            ))
        })
    });
    let codings: Vec<Coding> = codings.collect::<Result<_>>()?;
    match codings.len() {
        n if n > max => Err(Error::limit("the list of content codings", n as u64, max as u64, "codings")),
        _ => Ok(codings),
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
    let mut out = Vec::new();
    let ended = read_all(coding, bytes, &mut |chunk| {
        if out.len() + chunk.len() > bytes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "the body of {} bytes is more than {bytes_max} bytes once decoded from {}, which is the limit",
                    bytes.len(),
                    coding.as_str()
                ),
            ));
        }
        grow(out.len() + chunk.len())?;
        out.extend_from_slice(chunk);
        Ok(())
    })?;
    Ok((out, ended))
}

/// Gives `take` what comes out, piece by piece, until it refuses; answers how the input ended before its end, if it did.
fn read_all(
    coding: Coding,
    bytes: &[u8],
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Option<Error>> {
    let bad = |e: std::io::Error| Error::invalid(format!("the body is not {}: {e}", coding.as_str()));
    let mut reader: Box<dyn Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        Coding::Deflate => Box::new(flate2::read::ZlibDecoder::new(bytes)),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(bad)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(bad)?;
            Box::new(decoder)
        }
        Coding::Brotli => Box::new(brotli_decompressor::Decompressor::new(bytes, 16 << 10)),
    };
    let mut chunk = [0u8; 16 << 10];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(n) => take(&chunk[..n])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Some(bad(error))),
        }
    }
}

/// Undoes codings that were applied in this order, as far as that goes, to at most `bytes_max`. Answers the bytes, and what kept it from
/// being all of them.
pub fn undo(codings: &[Coding], bytes: &[u8], bytes_max: usize) -> (Vec<u8>, Option<Error>) {
    let mut out: Option<Vec<u8>> = None;
    let mut ended = None;
    for coding in codings.iter().rev() {
        let from = out.as_deref().unwrap_or(bytes);
        let mut kept = Vec::new();
        let decoded = read_all(*coding, from, &mut |chunk| {
            let room = bytes_max - kept.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
            match chunk.len() > room {
                true => {
                    Err(Error::limit("the decoded body", (kept.len() + 1) as u64, bytes_max as u64, "bytes"))
                }
                false => Ok(()),
            }
        });
        // What goes wrong first, on the outside, is the reason why something is missing inside.
        ended = ended.or(decoded.unwrap_or_else(Some));
        out = Some(kept);
    }
    (out.unwrap_or_else(|| bytes.to_vec()), ended)
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
            Coding::Brotli => brotli(bytes),
        }
    }

    /// Brotli that compresses nothing (RFC 7932, section 9.2): uncompressed meta-blocks, and an empty last one.
    fn brotli(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, block) in bytes.chunks(1 << 16).enumerate() {
            // Not the last, four nibbles of length, the length less one, uncompressed; before the first, the size of the window.
            let head = ((block.len() - 1) as u32) << 3 | 1 << 19;
            let head = if at == 0 { head << 1 } else { head };
            out.extend_from_slice(&head.to_le_bytes()[..3]);
            out.extend_from_slice(block);
        }
        out.push(if bytes.is_empty() { 6 } else { 3 });
        out
    }

    #[test]
    fn several_codings_are_undone_as_far_as_they_go() {
        let text = b"two codings, one within the other; ".repeat(5_000);
        for list in ["gzip, br", "br, zstd", "deflate,gzip", "identity, zstd , gzip , x-gzip"] {
            let codings = codings_passed(list).unwrap();
            let coded = codings.iter().fold(text.clone(), |bytes, coding| encoded(*coding, &bytes));
            let (whole, ended) = undo(&codings, &coded, 1 << 20);
            assert!(whole == text && ended.is_none(), "{list}");
            let (cut, ended) = undo(&codings, &coded, 1_000);
            assert!(ended.is_some() && text.starts_with(&cut), "{list}");
            let (half, ended) = undo(&codings, &coded[..coded.len() - 10], 1 << 20);
            assert!(ended.is_some() && text.starts_with(&half), "{list}");
        }
        assert_eq!(undo(&[], b"x", 10).0, b"x");
        assert!(codings_passed("gzip, compress").unwrap_err().message().contains("'compress'"));
        assert!(codings_passed("br,br,br,br,br").is_err());
    }

    #[test]
    fn every_coding_is_undone_and_bombs_end_at_the_limit() {
        let bomb = vec![7u8; 50 << 20];
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli] {
            assert_eq!(decode(coding, &encoded(coding, b"hello"), 5).unwrap(), b"hello");
            let small = encoded(coding, &bomb);
            assert!(coding == Coding::Brotli || small.len() < 100_000);
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

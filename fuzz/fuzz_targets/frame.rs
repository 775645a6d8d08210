//! A frame of any bytes decodes or is refused, and so does every event in it.
//!
//! No mutation would ever get past a checksum, so each input is tried three ways: as it is; with the
//! checksums of header and directory put right; and as the entries and parts of a frame that is well formed
//! around them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use precedent_core::entry::Entry;
use precedent_core::extents::NoSources;
use precedent_core::frame::{Chained, Frame, FrameBuilder, FrameHeader, HEADER_BYTES};
use precedent_core::{FrameId, Hash, LogId, Position};

fuzz_target!(|bytes: &[u8]| {
    take_apart(Bytes::copy_from_slice(bytes));
    if let Some(forged) = with_checksums(bytes) {
        take_apart(forged.into());
    }
    take_apart(around(bytes).into());
});

fn take_apart(bytes: Bytes) {
    let Ok(frame) = Frame::decode(bytes) else { return };
    for index in 0..frame.len() {
        let Ok(stored) = frame.event(index) else { continue };
        if let Ok(entry) = Entry::decode(&stored.entry) {
            let _ = stored.check_commitments(&entry, &mut NoSources);
        }
        let _ = stored.decode();
    }
    let _ = frame.check();
    let tree = frame.tree();
    // A frame whose events can all be read says the same when it is encoded anew.
    if let Ok(again) = frame.with_edge(tree.as_ref()) {
        let again = Frame::decode(again.into()).expect("what was encoded decodes");
        assert_eq!(again.chained(), frame.chained());
        for index in 0..frame.len() {
            let (a, b) =
                (frame.event(index).expect("read before"), again.event(index).expect("just encoded"));
            assert_eq!((a.entry, a.parts), (b.entry, b.parts));
        }
    }
}

/// The input as a header and what follows it, with magic and checksums put right.
fn with_checksums(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = bytes.to_vec();
    let len = frame.len();
    if len < HEADER_BYTES + 4 {
        return None;
    }
    let flags = frame[7] & 1;
    frame[0..8].copy_from_slice(&[b'P', b'R', b'F', b'1', 1, 0, 0, flags]);
    frame[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    frame[40..44].copy_from_slice(b"PFC1");
    frame[len - 4..].copy_from_slice(b"\xf1END");
    put_header_right(&mut frame);
    if let Ok(header) = FrameHeader::decode(&frame)
        && let Some(prelude) = frame.get(HEADER_BYTES..header.prelude_len())
    {
        let crc = crc32fast::hash(prelude);
        frame[32..36].copy_from_slice(&crc.to_le_bytes());
        put_header_right(&mut frame);
    }
    Some(frame)
}

fn put_header_right(frame: &mut [u8]) {
    frame[36..40].fill(0);
    let crc = crc32fast::hash(&frame[..HEADER_BYTES]);
    frame[36..40].copy_from_slice(&crc.to_le_bytes());
}

/// A frame around the input: its first two bytes say where an entry ends and the parts begin.
fn around(bytes: &[u8]) -> Vec<u8> {
    let (at, rest) = match bytes {
        [low, high, rest @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        short => (0, short),
    };
    let (entry, parts) = rest.split_at(at.min(rest.len()));
    let mut builder = FrameBuilder::default();
    builder.push_stored(entry, parts);
    builder.push_stored(&[], rest);
    let chained = Chained {
        log: LogId([1; 16]),
        id: FrameId([2; 16]),
        writer: FrameId([3; 16]),
        sequence: 0,
        first: Position(0),
        count: builder.count(),
        root: Hash::ZERO,
        previous: Hash::ZERO,
    };
    builder.encode(&chained, None).to_vec()
}

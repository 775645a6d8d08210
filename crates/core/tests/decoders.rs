//! Whatever bytes arrive, no decoder of the core panics, hangs or allocates more than a small multiple of its input.
//!
//! Valid inputs are mutated at random, checksums made good again so that the mutations get past them, and decoded
//! under an allocator that counts. A failure prints its seed; `PRECEDENT_SEED` repeats it, and `PRECEDENT_FUZZ_ITERATIONS`
//! runs more.

// The one thing that counts allocations is a global allocator, and that is an unsafe trait.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use bytes::Bytes;
use precedent_core::cloudevents::{Shape, decode_tags, parse_batch, parse_event, write_event};
use precedent_core::commitment::{Salt, commit};
use precedent_core::entry::{DATA_PART, ENTRY_BYTES_MAX, EncodedEnvelope, Entry, LogFields, Part};
use precedent_core::event::Tag;
use precedent_core::frame::{Chained, FRAME_BYTES_MAX, Frame, FrameBuilder, FrameHeader, HEADER_BYTES};
use precedent_core::sequencer::LogState;
use precedent_core::tree::{Tree, leaf_hash};
use precedent_core::verify::{Expect, Verifier};
use precedent_core::wire::{parse_binary_append, write_append};
use precedent_core::{
    Append, Condition, Event, FrameId, Hash, IndexedAttribute, LogId, LogName, Position, RegisterName, Time,
    Version,
};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call is passed on to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were allocated at once while `work` ran, beyond those allocated before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    (PEAK.get() - before).max(0) as usize
}

/// Runs `decode` and checks that it stays within `factor` times the input, and a constant for messages.
#[track_caller]
fn bounded<T: ?Sized + AsRef<[u8]>>(factor: usize, input: &T, decode: impl FnOnce(&T)) {
    let len = input.as_ref().len();
    let peak = peak_of(|| decode(input));
    assert!(peak <= factor * len + 4_096, "{peak} bytes were allocated for an input of {len}");
}

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A few changes to `bytes`, of the kinds that decoders get wrong.
    fn mutate(&mut self, bytes: &mut Vec<u8>, words: &[&[u8]]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(12)).min(bytes.len());
            match self.below(9) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let piece = words[self.below(words.len())].to_vec();
                    bytes.splice(at..(at + self.below(3)).min(bytes.len()), piece);
                }
                6 => {
                    let number =
                        [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, u64::MAX, u64::MAX / 2][self.below(8)];
                    let number = if self.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                    let width = [1, 2, 4, 8][self.below(4)];
                    let end = (at + width).min(bytes.len());
                    bytes[at..end].copy_from_slice(&number[..end - at]);
                }
                7 => {
                    let piece = self.bytes(1 + at % 5);
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let other = self.below(bytes.len());
                    if !bytes.is_empty() {
                        bytes.swap(at, other);
                    }
                }
            }
        }
    }
}

/// Runs `round` many times, each with numbers of its own; prints the seed of one that panics.
fn rounds(count: usize, mut round: impl FnMut(&mut Chance)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("PRECEDENT_SEED={}", self.0);
            }
        }
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let given = number("PRECEDENT_SEED");
    let count =
        if given.is_some() { 1 } else { number("PRECEDENT_FUZZ_ITERATIONS").map_or(count, |n| n as usize) };
    let mut seeds =
        Chance(u64::from(std::process::id()) ^ Time::from_system(std::time::SystemTime::now()).as_micros());
    for _ in 0..count {
        let seed = Seed(given.unwrap_or_else(|| seeds.next()));
        round(&mut Chance(seed.0));
    }
}

/// An event with a bit of everything; `n` makes it another one.
fn event(n: usize) -> Event {
    let mut event = Event::builder("urn:s", n.to_string(), "ai.decision.made");
    if !n.is_multiple_of(3) {
        event = event.stream(format!("loan/{}", n % 2)).time("2026-11-22T10:00:00.5+01:00");
    }
    if n.is_multiple_of(2) {
        event = event.tag("model", "risk-7").tag("k", "a,b%").attribute("zebra", 7).attribute("yes", true);
    }
    if n.is_multiple_of(5) {
        event =
            event.attribute("dataperson", "person-1").dataschema("urn:x").datacontenttype("text/plain; a=b");
    }
    event.data(vec![n as u8; n * 3]).build().expect("a well-formed event")
}

/// A sound frame of a few events, and the entries in it.
fn frame(chance: &mut Chance, len: usize, with_edge: bool) -> (Vec<u8>, Vec<Vec<u8>>) {
    let log = LogId([3; 16]);
    let (mut builder, mut tree, mut entries) = (FrameBuilder::default(), Tree::new(), Vec::new());
    let mut tips: [Option<(Version, Hash)>; 2] = [None; 2];
    for n in 0..len {
        let event = event(n + chance.below(2) * 10);
        let data = event.data().cloned().unwrap_or_default();
        let salt = Salt([n as u8; 32]);
        let part = Part {
            name: DATA_PART.into(),
            commitment: commit(&salt, &data),
            length: data.len() as u64,
            scope: event.attribute("dataperson").map(str::to_owned),
        };
        let stream = event.stream().map(|stream| usize::from(stream.ends_with('1')));
        let version =
            stream.map(|s| tips[s].map_or((Version(0), None), |(v, leaf)| (Version(v.0 + 1), Some(leaf))));
        let recorded = Time::from_micros(1_800_000_000_000_000 + n as u64).expect("before the year 10000");
        let fields = LogFields { log, position: Position(n as u64), recorded, version };
        let envelope = EncodedEnvelope::new(&event, &[part]);
        let literal = |out: &mut Vec<u8>| {
            out.push(0);
            out.extend_from_slice(&salt.0);
            out.extend_from_slice(&data);
        };
        let entry = builder.push(|out| envelope.write(&fields, out), literal).to_vec();
        let leaf = leaf_hash(&entry);
        if let (Some(stream), Some((version, _))) = (stream, version) {
            tips[stream] = Some((version, leaf));
        }
        tree.push(leaf);
        entries.push(entry);
    }
    let chained = Chained {
        log,
        id: FrameId([1; 16]),
        writer: FrameId([2; 16]),
        sequence: 0,
        first: Position(0),
        count: len as u32,
        root: tree.root(),
        previous: Hash::ZERO,
    };
    let frame = builder.encode(&chained, with_edge.then_some(&tree)).to_vec();
    match chance.below(2) {
        0 => (frame, entries),
        _ => {
            let frame = Frame::decode(frame.into()).expect("a sound frame");
            (frame.of_version_1().expect("sound events"), entries)
        }
    }
}

fn number_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().expect("4 bytes")) as usize)
}

/// Makes the checksums of a mutated frame good again as far as its lengths allow, and perhaps the lengths too: what
/// somebody would do who wants the decoder to believe it.
fn make_good(bytes: &mut [u8], lengths_too: bool) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..4].copy_from_slice(b"PRF1");
    let tree_size = u64::from_le_bytes(bytes[112..120].try_into().expect("8 bytes"));
    let edge = if bytes[7] & 1 == 1 { tree_size.count_ones() as usize * 32 } else { 0 };
    let (directory, entries) = (number_at(bytes, 12), number_at(bytes, 16));
    let prelude = HEADER_BYTES.saturating_add(edge).saturating_add(directory);
    if lengths_too {
        let len = bytes.len() as u32;
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        let parts = (len as usize).saturating_sub(prelude.saturating_add(entries) + 4) as u32;
        bytes[20..24].copy_from_slice(&parts.to_le_bytes());
    }
    if prelude <= bytes.len() && bytes[24..32] == [0; 8] {
        let apart = bytes[4] == 1;
        let (mut entry_at, mut parts_at) = (prelude, prelude.saturating_add(entries));
        for row in (HEADER_BYTES + edge..prelude).step_by(10).filter(|row| row + 10 <= prelude) {
            let entry_end = entry_at + usize::from(u16::from_le_bytes([bytes[row], bytes[row + 1]]));
            let from = if apart { parts_at } else { entry_end };
            let parts_end = from.saturating_add(number_at(bytes, row + 2));
            let (Some(entry), Some(parts)) = (bytes.get(entry_at..entry_end), bytes.get(from..parts_end))
            else {
                break;
            };
            let mut crc = crc32fast::Hasher::new();
            crc.update(entry);
            crc.update(parts);
            bytes[row + 6..row + 10].copy_from_slice(&crc.finalize().to_le_bytes());
            (entry_at, parts_at) = (if apart { entry_end } else { parts_end }, parts_end);
        }
    }
    if let Some(covered) = bytes.get(HEADER_BYTES..prelude) {
        let crc = crc32fast::hash(covered);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    }
    bytes[36..40].fill(0);
    let crc = crc32fast::hash(&bytes[..HEADER_BYTES]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
}

/// Everything that is done with a frame of a stranger.
fn use_frame(bytes: &Bytes) {
    let _ = black_box(FrameHeader::decode(bytes));
    let Ok(frame) = Frame::decode(bytes.clone()) else { return };
    let _ = black_box(frame.check());
    let _ = black_box(frame.tree());
    for index in 0..frame.len() {
        if let Ok(stored) = frame.event(index)
            && let Ok(recorded) = stored.decode()
        {
            let mut out = Vec::new();
            write_event(&recorded, Shape::CloudEvents, &mut out);
            black_box(&out);
        }
    }
    let _ =
        black_box(frame.reencode(frame.tree().as_ref(), &mut precedent_core::extents::Recent::new(1 << 20)));
    let _ = black_box(LogState::empty(frame.chained().log).after(&frame));
    let mut verifier = Verifier::new(None);
    verifier.frame(&frame, None);
    black_box(verifier.finish());
}

#[test]
fn the_allocator_counts() {
    let counted = peak_of(|| drop(black_box(vec![1_u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&counted), "{counted}");
}

#[test]
fn hostile_frames_do_no_harm() {
    let sound = |chance: &mut Chance| {
        let (len, with_edge) = (1 + chance.below(6), chance.below(2) == 0);
        frame(chance, len, with_edge).0
    };
    let words: &[&[u8]] =
        &[b"PRF1", b"PFC1", b"\xf1END", &[0; 8], &[0xff; 8], &[0x9b, 0xff, 0xff, 0xff, 0xff]];
    let (mut decoded, mut believed) = (0, 0);
    rounds(6_000, |chance| {
        let mut bytes = sound(chance);
        Frame::decode(bytes.clone().into()).and_then(|frame| frame.check()).expect("it is sound before");
        chance.mutate(&mut bytes, words);
        match chance.below(4) {
            0 => {}
            1 => make_good(&mut bytes, false),
            _ => make_good(&mut bytes, true),
        }
        let bytes = Bytes::from(bytes);
        if let Ok(frame) = Frame::decode(bytes.clone()) {
            decoded += 1;
            believed += usize::from(frame.check().is_ok());
        }
        bounded(64, &bytes, use_frame);
    });
    assert!(
        decoded > 0 || std::env::var_os("PRECEDENT_SEED").is_some(),
        "no mutation got past the checksums, so nothing behind them was tried ({believed} passed all)"
    );
}

#[test]
fn hostile_lengths_allocate_nothing() {
    let (sound, _) = frame(&mut Chance(1), 3, true);
    for at in [8, 12, 16, 20, 40 + 60, 40 + 68, 40 + 72] {
        for value in [u32::MAX, u32::MAX / 2, FRAME_BYTES_MAX as u32, FRAME_BYTES_MAX as u32 + 1, 1 << 24] {
            let mut bytes = sound.clone();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            make_good(&mut bytes, false);
            bounded(8, &Bytes::from(bytes), use_frame);
        }
    }
    for at in [40 + 52, 40 + 60] {
        let mut bytes = sound.clone();
        bytes[at..at + 8].fill(0xff);
        make_good(&mut bytes, false);
        bounded(8, &Bytes::from(bytes), use_frame);
    }
    // Heads of CBOR that promise 2^32 and 2^64 items, characters and bytes.
    for major in [0x40, 0x60, 0x80, 0xa0] {
        for head in [
            &[0x1a, 0xff, 0xff, 0xff, 0xff][..],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x1f],
        ] {
            let mut promise = head.to_vec();
            promise[0] |= major;
            let (_, entries) = frame(&mut Chance(2), 6, false);
            for entry in entries {
                for at in 0..entry.len() {
                    let mut bytes = entry.clone();
                    bytes.splice(at..at + 1, promise.clone());
                    bounded(64, &bytes, |bytes| drop(black_box(Entry::decode(bytes))));
                }
            }
        }
    }
}

#[test]
fn hostile_entries_do_no_harm() {
    let words: &[&[u8]] =
        &[b"id", b"source", b"subject", b"\x62id", &[0xa0], &[0xbf], &[0x9f], &[0xf6], &[0x38, 0xff], b"a=b"];
    rounds(20_000, |chance| {
        let (_, mut entries) = frame(chance, 3, false);
        let mut bytes = entries.swap_remove(chance.below(3));
        chance.mutate(&mut bytes, words);
        bounded(64, &bytes, |bytes| {
            if let Ok(entry) = Entry::decode(bytes) {
                black_box(entry.is_canonical(bytes));
            }
        });
        let noise = chance.next() as usize % 300;
        let noise = chance.bytes(noise);
        bounded(64, &noise, |bytes| drop(black_box(Entry::decode(bytes))));
    });
    // The densest that fit: as many tags, attributes and parts as an entry has room for.
    let mut tags = vec![0xa2, 0, 1, 6, 0x99, 0x3f, 0xff];
    (0..0x3fff).for_each(|_| tags.extend_from_slice(b"\x63a=b"));
    tags.truncate(ENTRY_BYTES_MAX);
    let mut attributes = vec![0xa2, 0, 1, 5, 0xb9, 0x2f, 0xff];
    (0..0x2fff_u16).for_each(|i| {
        attributes.extend_from_slice(&[0x62, b'a' + (i % 26) as u8, b'a' + (i / 26 % 26) as u8, 1])
    });
    let mut parts = vec![0xa2, 0, 1, 9, 0x99, 0x3f, 0xff];
    (0..0x3fff).for_each(|_| parts.push(0xa0));
    for bytes in [tags, attributes, parts, vec![0x9f; ENTRY_BYTES_MAX], vec![0xa1; ENTRY_BYTES_MAX + 1]] {
        bounded(64, &bytes, |bytes| drop(black_box(Entry::decode(bytes))));
    }
}

#[test]
fn hostile_appends_in_binary_form_do_no_harm() {
    let words: &[&[u8]] =
        &[b"PRA1", &[0; 4], &[0xff; 4], &[0xa0], &[0xbf], &[0x9f], &[0xf6], b"\x62id", b"a=b", b"{}"];
    let mut read = 0;
    rounds(10_000, |chance| {
        let events = (0..1 + chance.below(4)).map(|n| event(n + chance.below(2) * 10));
        let mut append = Append::new(events.collect::<Vec<_>>());
        if chance.below(2) == 0 {
            append = append.when(Condition::stream_is_new("loan/1"));
        }
        let mut bytes = write_append(&append);
        let sound = parse_binary_append(bytes.clone().into()).expect("what we write can be read");
        assert_eq!(sound, append);
        chance.mutate(&mut bytes, words);
        bounded(64, &Bytes::from(bytes), |bytes| {
            if let Ok(append) = parse_binary_append(bytes.clone()) {
                read += 1;
                // What can be read says the same when it is written anew.
                let again = parse_binary_append(write_append(&append).into());
                assert_eq!(again.expect("what we write can be read"), append);
            }
        });
    });
    assert!(
        read > 0 || std::env::var_os("PRECEDENT_SEED").is_some(),
        "nothing that was changed could be read"
    );
}

#[test]
fn hostile_json_does_no_harm() {
    let mut written = Vec::new();
    for n in 0..8 {
        for shape in [Shape::CloudEvents, Shape::Native] {
            let recorded = precedent_core::RecordedEvent {
                log: LogId([1; 16]),
                position: Position(n as u64),
                version: Some(Version(0)),
                recorded: Time::default(),
                event: event(n),
                erased: false,
                entry: Bytes::new(),
            };
            let mut out = Vec::new();
            write_event(&recorded, shape, &mut out);
            parse_event(&out, shape).expect("what we write can be read");
            written.push(out);
        }
    }
    let words: &[&[u8]] = &[
        b"null",
        b"\"data\":",
        b"\"data_base64\":\"",
        b"[[[[",
        b"{\"",
        b"\\u0000",
        b"\\ud800",
        b"1e999",
        b"-",
        b"\"tags\":[",
        b"%00",
        b"\"id\":",
        b"\"precedentlog\":\"x\",",
        b"\xff",
        b"\xed\xa0\x80",
        b"\"producerposition\":1,",
        b"}",
        b",",
    ];
    let parse = |bytes: &Vec<u8>| {
        for shape in [Shape::CloudEvents, Shape::Native] {
            let _ = black_box(parse_event(bytes, shape));
            let _ = black_box(parse_batch(bytes, shape));
        }
    };
    rounds(12_000, |chance| {
        let mut bytes = written[chance.below(written.len())].clone();
        chance.mutate(&mut bytes, words);
        bounded(64, &bytes, parse);
        let mut batch = vec![b'['];
        batch.extend_from_slice(&bytes);
        batch.push(b']');
        bounded(64, &batch, parse);
        let noise = chance.next() as usize % 200;
        bounded(64, &chance.bytes(noise), parse);
    });
    let many = |piece: &str, n: usize| piece.repeat(n).into_bytes();
    let members: String = (0..3_000).map(|i| format!("\"a{i}\":1,")).collect();
    let minimal = r#"{"specversion":"1.0","id":"i","source":"s","type":"t"},"#;
    for bytes in [
        many("[", 1 << 20),
        many("{\"a\":", 1 << 18),
        many("{\"data\":[", 1 << 17),
        format!("{{\"data\":{}{}}}", "[".repeat(1 << 17), "]".repeat(1 << 17)).into_bytes(),
        many("\"", 1 << 20),
        format!("\"{}\"", "\\u0001".repeat(1 << 17)).into_bytes(),
        format!("[{}1]", "1,".repeat(1 << 19)).into_bytes(),
        format!("[{}{{}}]", "{},".repeat(1 << 18)).into_bytes(),
        format!("[{}{{}}]", minimal.repeat(1 << 13)).into_bytes(),
        format!("{{{members}\"b\":1}}").into_bytes(),
        format!("{{\"tags\":[{}\"a=b\"]}}", "\"a=b\",".repeat(1 << 16)).into_bytes(),
        format!("{{\"tags\":\"{}a=b\"}}", "a=b,".repeat(1 << 17)).into_bytes(),
        format!("{{\"x\":{}}}", "9".repeat(1 << 20)).into_bytes(),
        format!("{{\"data_base64\":\"{}\"}}", "A".repeat(1 << 20)).into_bytes(),
        format!("{{\"{}\":1}}", "k".repeat(1 << 20)).into_bytes(),
    ] {
        bounded(64, &bytes, parse);
    }
}

#[test]
fn hostile_text_does_no_harm() {
    let good: &[&str] = &[
        "a=b,c=d%2C,e=%25",
        "2026-11-22T10:00:00.123456789+02:00",
        "9999-12-31T23:59:60Z",
        "12:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "team-1.eu_west",
        "cursor/a.b",
        "18446744073709551615",
        "0af7651916cd43dd8448eb211c80319c",
        "decisionid",
        "",
    ];
    let words: &[&[u8]] = &[
        b"%",
        b"=",
        b",",
        b":",
        b"-",
        b"Z",
        b"+24:60",
        b"\xc3\xa4",
        b"\xf0\x9f\x98\x80",
        b"\0",
        b"99999999999999999999",
    ];
    let parse = |text: &String| {
        let _ = black_box(decode_tags(text));
        let _ = black_box(text.parse::<Tag>());
        let _ = black_box(Time::parse(text).map(|time| time.to_string()));
        let _ = black_box(Event::builder("s", "i", "t").time(text.as_str()).build());
        let _ = black_box(text.parse::<Expect>());
        let _ = black_box(text.parse::<LogName>());
        let _ = black_box(text.parse::<RegisterName>());
        let _ = black_box(text.parse::<Position>());
        let _ = black_box(text.parse::<LogId>());
        let _ = black_box(text.parse::<Hash>());
        let _ = black_box(text.parse::<IndexedAttribute>());
    };
    rounds(40_000, |chance| {
        let mut bytes = good[chance.below(good.len())].as_bytes().to_vec();
        chance.mutate(&mut bytes, words);
        bounded(64, &String::from_utf8_lossy(&bytes).into_owned(), parse);
    });
    for text in ["a=b,", ",", "%41", "\u{1}", "😀", "0", "2026-11-22T10:00:00.0"] {
        bounded(64, &text.repeat(1 << 16), parse);
    }
    bounded(64, &format!("2026-11-22T10:00:00.{}Z", "9".repeat(1 << 16)), parse);
}

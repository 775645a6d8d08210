//! Messages of the proxy as events: nothing outgrows an event, nothing is lost at a border, and what is missing is said.

use precedent_capture::exchange::{
    BEGINNING_BYTES, BODY_BYTES_MAX, Body, CHUNKS_MAX, CONTINUED, Call, Called, PART_BYTES, Read, Requested,
};
use precedent_capture::redact::Rules;
use precedent_core::{Event, Limits};

const DATA_BYTES_MAX: usize = 15 << 20;

fn call() -> Call {
    Call {
        id: "c-1".to_owned(),
        upstream: "up".to_owned(),
        method: "POST".to_owned(),
        url: "https://up/v1/chat/completions?key=hush".to_owned(),
        ..Call::default()
    }
}

fn body(bytes: Vec<u8>) -> Body {
    Body { len: bytes.len() as u64, bytes: bytes.into(), sha256: None }
}

fn read(events: &[Event]) -> Read {
    let message = events.iter().find_map(Read::event).unwrap();
    let mut read = message.unwrap();
    read.join(|id| events.iter().find(|event| event.id() == id).and_then(Read::part));
    assert_eq!(read.continued, [""; 0]);
    read
}

fn called(body: Body, headers: &[(&str, Vec<u8>)], chunks: usize) -> Vec<Event> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let chunks = (0..chunks as u64).map(|n| (9_000_000_000_000 + n, 1_000_000)).collect();
    let called = Called { headers, body, chunks, complete: true, ..Called::default() };
    let rules = Rules::default();
    call().called(called, &rules).map(Result::unwrap).collect()
}

#[test]
fn whatever_a_body_holds_each_of_its_events_is_small_enough() {
    assert_eq!(Limits::new(precedent_core::Durability::None).data_bytes_max, DATA_BYTES_MAX as u64);
    let odd = [b"\x01\x02".as_slice(), b"\xff\x00", "\u{10ffff}x".as_bytes(), b"\"\\", b"plain text "];
    for piece in odd {
        let bytes = piece.repeat((PART_BYTES + 100) / piece.len());
        for (headers, chunks) in [(vec![], 0), (vec![("x", vec![0xe9; (256 << 10) - 1])], CHUNKS_MAX)] {
            let events = called(body(bytes.clone()), &headers, chunks);
            assert!(events.len() >= 2 && events.iter().all(|e| e.data().unwrap().len() <= DATA_BYTES_MAX));
            let last = events.last().unwrap();
            assert_eq!(last.event_type(), "ai.model.called");
            assert!(events[..events.len() - 1].iter().all(|event| event.event_type() == CONTINUED));
            let read = read(&events);
            assert!(read.body == bytes && read.is_exact(), "{piece:?}");
            assert_eq!((read.chunks.len(), read.body_bytes), (chunks, bytes.len() as u64));
        }
    }
}

#[test]
fn what_is_no_longer_than_a_part_is_one_event_and_a_byte_more_is_two() {
    for (len, count) in [(0, 1), (1, 1), (PART_BYTES, 1), (PART_BYTES + 1, 2), (2 * PART_BYTES + 1, 3)] {
        let bytes = vec![b'a'; len];
        let events = called(body(bytes.clone()), &[], 0);
        assert_eq!(events.len(), count, "{len}");
        let read = read(&events);
        assert!(read.body == bytes);
        assert_eq!(read.body_sha256.is_some(), len > PART_BYTES);
    }
}

#[test]
fn text_is_cut_between_characters_and_stays_text() {
    // Three bytes a character: none of the borders falls between two of them.
    let text = "€".repeat((2 * PART_BYTES + 100) / 3);
    let events = called(body(text.clone().into_bytes()), &[], 0);
    assert_eq!(events.len(), 3);
    for part in &events[..2] {
        assert_eq!(part.datacontenttype(), Some("text/plain; charset=utf-8"));
        assert!(std::str::from_utf8(part.data().unwrap()).is_ok());
    }
    assert_eq!(read(&events).text().as_deref(), Some(text.as_str()));
    // Of one that is not kept whole, too.
    let kept = text.as_bytes()[..BEGINNING_BYTES].to_vec();
    let cut = Body { bytes: kept.into(), len: BODY_BYTES_MAX as u64 + 1, sha256: Some([7; 32]) };
    let events = called(cut, &[], 0);
    assert_eq!(events.len(), 2);
    let data = std::str::from_utf8(events[0].data().unwrap()).unwrap();
    assert!(data.contains("\"body\":\"€€") && data.contains(&"07".repeat(32)));
    assert_eq!(events[1].event_type(), "ai.capture.gap_detected");
    assert_eq!(read(&events).body.len(), PART_BYTES / 3 * 3);
}

#[test]
fn a_key_across_the_cut_of_a_body_that_is_not_kept_whole_leaves_nothing_behind() {
    let key = "sk-proj-0123456789abcdefghijABCDEFGHIJ";
    for back in 1..key.len() {
        let mut bytes = vec![b' '; BEGINNING_BYTES];
        let at = PART_BYTES - back;
        bytes[at..at + key.len()].copy_from_slice(key.as_bytes());
        let cut = Body { bytes: bytes.into(), len: BODY_BYTES_MAX as u64 + 1, sha256: Some([7; 32]) };
        let rules = Rules::default();
        let mut call = call();
        let requested = Requested { headers: vec![], body: cut };
        let events: Vec<Event> = call.requested(requested, &rules).map(Result::unwrap).collect();
        let read = read(&events);
        assert_eq!((read.body.len(), read.redacted), (PART_BYTES, 1));
        assert!(read.body[at..].iter().all(|&b| b == b'*'), "{back}");
        assert_eq!(read.url, "https://up/v1/chat/completions?key=****");
    }
}

#[test]
fn a_coded_body_with_a_key_that_decodes_to_too_much_is_cut_and_says_so() {
    let key = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
    let text = [format!("{{\"k\":\"{key}\"").into_bytes(), vec![b' '; BODY_BYTES_MAX]].concat();
    let coded = zstd::encode_all(&text[..], 1).unwrap();
    let events = called(body(coded.clone()), &[("content-encoding", b"zstd".to_vec())], 0);
    assert_eq!(events.len(), 2);
    let shown = read(&events);
    assert!(shown.cut && shown.body.len() == PART_BYTES && shown.decoded_from.as_deref() == Some("zstd"));
    assert_eq!((shown.redacted, shown.body_bytes), (1, coded.len() as u64));
    assert_eq!(events[1].event_type(), "ai.capture.gap_detected");
    // Without a key it is recorded as it came; what could not be looked through is said.
    let text = vec![b' '; BODY_BYTES_MAX + 1];
    let coded = zstd::encode_all(&text[..], 1).unwrap();
    let events = called(body(coded.clone()), &[("content-encoding", b"zstd".to_vec())], 0);
    let shown = read(&events);
    assert_eq!((events.len(), shown.body == coded, shown.cut), (1, true, false));
    assert!(shown.unsearched.unwrap().contains(&BODY_BYTES_MAX.to_string()));
}

#[test]
fn what_forms_send_is_looked_at_as_pairs() {
    let rules = Rules::default();
    let mut call = call();
    let headers = vec![("Content-Type".to_owned(), b"application/x-www-form-urlencoded".to_vec())];
    let requested = Requested { headers, body: body(b"client_secret=a+b%20c&grant_type=x&code=d".to_vec()) };
    let events: Vec<Event> = call.requested(requested, &rules).map(Result::unwrap).collect();
    let read = read(&events);
    assert_eq!(read.body, b"client_secret=*******&grant_type=x&code=*");
    assert_eq!(events[0].attribute("redactedby"), Some("query:3"));
}

//! Bodies that are long, coded or broken off, and headers that are many: they pass unchanged, and the record is whole or says what it lacks.

mod support;

use std::io::Write;

use precedent_capture::exchange::{self, BODY_BYTES_MAX, CONTINUED, HEADERS_BYTES_MAX, PART_BYTES};
use precedent_capture::view::{Fidelity, Missing, View};
use precedent_core::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::proxied::*;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATH: &str = "/proxy/up/v1/chat/completions";
const KEY: &str = "sk-proj-0123456789abcdefghijABCDEFGHIJ";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A document of about this many bytes, without a period at which a border between parts could hide a mistake.
fn long(before: &str, bytes: usize, after: &str) -> Vec<u8> {
    let mut text = before.to_owned();
    let mut n = 0u64;
    while text.len() + after.len() < bytes {
        text.push_str(&format!("ü{n}€ "));
        n += 1;
    }
    (text + after).into_bytes()
}

fn question(bytes: usize) -> Vec<u8> {
    long(r#"{"model":"m","messages":[{"role":"user","content":""#, bytes, r#""}]}"#)
}

fn answer(bytes: usize) -> Vec<u8> {
    let before =
        r#"{"id":"c-1","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    long(before, bytes, r#""},"finish_reason":"stop"}]}"#)
}

fn answered(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunked(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(100_000) {
        out.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

fn asked(proxied: &Proxied, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    request(PATH, headers, body).bytes(&proxied.address.to_string())
}

/// The request and the answer as they are recorded, their parts joined.
fn messages(events: &[Event]) -> Vec<exchange::Read> {
    let part = |id: &str| events.iter().find(|event| event.id() == id).and_then(exchange::Read::part);
    let mut read: Vec<exchange::Read> =
        events.iter().filter_map(|event| exchange::Read::event(event).map(Result::unwrap)).collect();
    read.iter_mut().for_each(|read| read.join(part));
    read
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_pass_unchanged_and_are_recorded_whole_in_parts() {
    let proxied = proxied().await;
    let (question, answer) = (question(12 << 20), answer(23 << 20));
    let headers = [("Precedent-Session", "s-1"), ("Precedent-Decision", "d-1"), ("Precedent-User", "u-7")];
    for framed in [answered, chunked] {
        let (received, reply) = proxied.pass(asked(&proxied, &headers, &question), framed("", &answer)).await;
        assert!(received.unwrap().body == question && reply.body == answer && reply.complete);
    }
    let events = proxied.events().await;
    let types: Vec<&str> = events.iter().map(|event| event.event_type()).collect();
    let one = [CONTINUED, "ai.model.requested", CONTINUED, CONTINUED, "ai.model.called"];
    assert_eq!(types, [one, one].concat(), "a body is whole as soon as its event is there");
    for event in &events {
        assert_eq!((event.stream(), event.attribute("decisionid")), (Some("session/s-1"), Some("d-1")));
        assert_eq!(event.attribute("dataperson"), Some("u-7"));
        assert!(event.attribute("correlationid").is_some() && event.attribute("redacted").is_none());
        assert!(event.data().unwrap().len() <= PART_BYTES + (1 << 20));
    }
    for read in messages(&events).chunks(2) {
        assert!(read[0].body == question && read[1].body == answer);
        assert!(read.iter().all(|read| read.is_exact() && read.continued.is_empty()));
        assert_eq!(read[0].body_sha256.as_deref(), Some(&*hex(&question)));
        assert_eq!(read[1].body_bytes, answer.len() as u64);
    }
    let view = View::of_new(&events);
    assert_eq!((view.calls.len(), view.unread.len()), (2, 0));
    for call in &view.calls {
        assert_eq!((call.fidelity, call.events.len()), (Fidelity::Exact, 5));
        assert!(call.notes.is_empty() && call.missing.is_empty(), "{:?}", call.notes);
        assert!(call.output_text().unwrap().len() > 22 << 20);
        assert!(call.messages.as_ref().unwrap()[0].text().unwrap().len() > 11 << 20);
    }
    // Without one of its parts a body says so.
    let lacking: Vec<&Event> =
        events[..5].iter().enumerate().filter(|(at, _)| *at != 3).map(|(_, e)| e).collect();
    let call = &View::of_new(lacking).calls[0];
    assert!(call.missing.contains(&Missing::EndOfOutput));
    assert!(call.notes.iter().any(|note| note.ends_with("not among the events: 1")), "{:?}", call.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_bodies_beyond_all_bounds_the_beginning_the_length_and_the_hash_are_recorded() {
    let proxied = proxied().await;
    let (question, answer) = (question(70 << 20), answer(70 << 20));
    let (received, reply) = proxied.pass(asked(&proxied, &[], &question), answered("", &answer)).await;
    assert!(received.unwrap().body == question && reply.body == answer && reply.complete);
    let events = proxied.events().await;
    let read = messages(&events);
    for (read, body) in read.iter().zip([&question, &answer]) {
        assert!(read.cut && body.starts_with(&read.body), "the beginning");
        assert!(read.body.len() > PART_BYTES - 4);
        assert_eq!((read.body_bytes, read.body_sha256.as_deref()), (body.len() as u64, Some(&*hex(body))));
    }
    assert_eq!(read[1].complete, Some(true));
    let gaps = proxied.gaps().await;
    assert_eq!(gaps.len(), 2);
    for (gap, body) in gaps.iter().zip([&question, &answer]) {
        assert_eq!((&gap["reason"], &gap["unit"]), (&json!("content_cut"), &json!("bodies")));
        let missing = gap["bytes"].as_u64().unwrap();
        assert!((body.len() - PART_BYTES..=body.len() - PART_BYTES + 4).contains(&(missing as usize)));
        assert!(gap["detail"].as_str().unwrap().contains(&body.len().to_string()), "{gap}");
    }
    assert_eq!(View::of_new(&events).calls[0].fidelity, Fidelity::MetadataOnly);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_body_that_is_recorded_is_recorded_whole_with_keys_taken_out_across_its_parts() {
    let proxied = proxied().await;
    let mut answer = answer(BODY_BYTES_MAX);
    answer.truncate(BODY_BYTES_MAX);
    // Keys across the borders of the first parts.
    for border in [PART_BYTES, 2 * PART_BYTES] {
        answer[border - 10..border - 10 + KEY.len() + 2].copy_from_slice(format!(" {KEY} ").as_bytes());
    }
    let (_, reply) = proxied.pass(asked(&proxied, &[], ASKED), answered("", &answer)).await;
    assert!(reply.body == answer);
    let events = proxied.events().await;
    let read = messages(&events).pop().unwrap();
    assert_eq!((read.body.len(), read.redacted, read.cut), (answer.len(), 2, false));
    let masked = "*".repeat(KEY.len());
    let differs: Vec<usize> = (0..answer.len()).filter(|&at| answer[at] != read.body[at]).collect();
    assert_eq!(differs.len(), 2 * KEY.len());
    assert_eq!(&read.body[differs[0]..differs[0] + KEY.len()], masked.as_bytes());
    assert_eq!(events.last().unwrap().attribute("redactedby"), Some("api_key:2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_fail_closed_gives_nothing_that_is_not_recorded_and_fail_open_says_what_is_missing() {
    let scarce = |fail_closed| {
        proxied_with(move |config| {
            config.limits.body_bytes_max = 256 << 10;
            config.limits.bodies_bytes_max = 1 << 20;
            config.capture.fail_closed = fail_closed;
        })
    };
    let (question, answer) = (question(2 << 20), answer(2 << 20));
    // It is known beforehand: not a byte of the answer, not a byte of the request.
    let closed = scarce(true).await;
    let (_, reply) = closed.pass(asked(&closed, &[], ASKED), answered("", &answer)).await;
    reply.problem(503, "not_recorded", &["1048576", &answer.len().to_string()]);
    let (received, reply) = closed.pass(asked(&closed, &[], &question), answered("", b"{}")).await;
    assert!(received.is_none(), "the upstream is not asked");
    reply.problem(503, "not_recorded", &["1048576"]);
    // It shows on the way: what has begun is broken off, and the record says why.
    let (_, reply) = closed.pass(asked(&closed, &[], ASKED), chunked("", &answer)).await;
    assert!(!reply.complete && reply.body.len() < answer.len());
    eventually("the calls are recorded", async || {
        closed.events().await.iter().filter(|event| event.event_type() == "ai.model.called").count() == 2
    })
    .await;
    for read in messages(&closed.events().await).iter().filter(|read| read.complete.is_some()) {
        assert_eq!(read.complete, Some(false));
        assert!(read.error.as_ref().unwrap().contains("no room"), "{:?}", read.error);
    }
    // What was recorded takes up room for a moment longer than until it can be read.
    eventually("the room comes back", async || {
        let (_, reply) = closed.pass(asked(&closed, &[], ASKED), answered("", ANSWER.as_bytes())).await;
        reply.status == 200
    })
    .await;

    let open = scarce(false).await;
    for framed in [answered, chunked] {
        let (received, reply) = open.pass(asked(&open, &[], &question), framed("", &answer)).await;
        assert!(received.unwrap().body == question && reply.body == answer && reply.complete);
    }
    eventually("what is missing is recorded", async || open.gaps().await.len() >= 4).await;
    for (at, read) in messages(&open.events().await).iter().enumerate() {
        let body = if read.complete.is_some() { &answer } else { &question };
        assert!(read.cut && body.starts_with(&read.body), "{at}");
        assert_eq!(read.body_sha256.as_deref(), Some(&*hex(body)));
    }
}

#[tokio::test]
async fn a_coded_answer_that_breaks_off_is_recorded_as_far_as_it_came_without_the_keys_in_it() {
    let text = long(&format!("{{\"said\":\"{KEY}\",\"x\":\""), 2_000_000, "\"}");
    for (coding, coded) in [("gzip", gzip(&text)), ("zstd", zstd::encode_all(&text[..], 1).unwrap())] {
        let proxied = proxied().await;
        let half = &coded[..coded.len() / 2];
        let mut sent = answered(&format!("content-encoding: {coding}\r\n"), &coded);
        sent.truncate(sent.len() - (coded.len() - half.len()));
        let reply = soon(async {
            let mut client = proxied.connect(PATH, &[], ASKED).await;
            let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
            read_request(&mut upstream).await;
            upstream.write_all(&sent).await.unwrap();
            drop(upstream);
            let mut got = Vec::new();
            let ended = client.read_to_end(&mut got).await;
            Reply::parse(&got, ended.is_ok())
        })
        .await;
        assert!(!reply.complete && half.starts_with(&reply.body));
        let (events, call) = proxied.call().await;
        let read = messages(&events).pop().unwrap();
        assert_eq!(
            (read.complete, read.redacted, read.decoded_from.as_deref()),
            (Some(false), 1, Some(coding))
        );
        let shown = String::from_utf8_lossy(&read.body);
        assert!(shown.starts_with(&format!("{{\"said\":\"{}\"", "*".repeat(KEY.len()))), "{coding}");
        assert!(read.body.len() > 1_000, "what came before the break is there");
        assert_eq!(
            (call.fidelity, &call.missing[..]),
            (Fidelity::Reconstructable, &[Missing::EndOfOutput][..])
        );
        assert!(!events.iter().any(|e| String::from_utf8_lossy(e.data().unwrap()).contains(KEY)));
    }
}

#[tokio::test]
async fn several_codings_are_undone_to_look_for_keys_and_unknown_ones_are_said() {
    let secret = ANSWER.replace("Grüße", KEY);
    let coded = |text: &str| zstd::encode_all(&gzip(text.as_bytes())[..], 1).unwrap();
    let both = "content-encoding: gzip, zstd\r\n";
    let lines = "content-encoding: gzip\r\ncontent-encoding: zstd\r\n";
    for (headers, text, finds) in
        [(both, ANSWER, false), (both, secret.as_str(), true), (lines, secret.as_str(), true)]
    {
        let proxied = proxied().await;
        let body = coded(text);
        let (_, reply) = proxied.pass(asked(&proxied, &[], ASKED), answered(headers, &body)).await;
        assert_eq!(reply.body, body);
        let (events, call) = proxied.call().await;
        let read = messages(&events).pop().unwrap();
        assert_eq!(read.decoded_from.as_deref(), finds.then_some("gzip, zstd"));
        assert_eq!(read.text().unwrap(), text.replace(KEY, &"*".repeat(KEY.len())));
        assert!(call.output_text().is_some());
        assert_eq!((read.unsearched, read.body_sha256.is_some()), (None, finds));
        if !finds {
            assert_eq!((read.body, call.fidelity), (body, Fidelity::Exact));
        }
    }
    let proxied = proxied().await;
    let headers = "content-encoding: gzip, compress\r\n";
    let (_, reply) = proxied.pass(asked(&proxied, &[], ASKED), answered(headers, b"\x1f\x9d\x90")).await;
    assert_eq!(reply.body, b"\x1f\x9d\x90");
    let (events, call) = proxied.call().await;
    let read = messages(&events).pop().unwrap();
    assert_eq!(read.body, b"\x1f\x9d\x90");
    assert!(read.unsearched.unwrap().contains("compress"));
    assert!(call.notes.iter().any(|note| note.contains("coding")), "{:?}", call.notes);
}

#[tokio::test]
async fn a_key_that_is_streamed_in_pieces_is_masked_in_all_of_them() {
    let proxied = proxied().await;
    let event = |text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let body = ["the key: ", "sk-", "proj-0123", "456789abcdefghij", "ABCDEFGHIJ", ". ü"].map(event).concat();
    // Borders of chunks within the key, and within a character.
    let within = body.find('ü').unwrap() + 1;
    let bytes = body.as_bytes();
    let at = body.find("0123").unwrap() + 2;
    let pieces = [&bytes[..at], &bytes[at..within], &bytes[within..]];
    let (_, reply) = proxied.play(PATH, &[], ASKED, CHUNKED, &pieces).await;
    assert_eq!(reply.body, bytes);
    let (events, call) = proxied.call().await;
    let read = messages(&events).pop().unwrap();
    assert_eq!((read.body.len(), read.redacted), (bytes.len(), 1));
    let said = call.output_text().unwrap();
    assert_eq!(said, format!("the key: {}. ü", "*".repeat(KEY.len())));
    assert_eq!(read.chunks.len(), 3);
}

#[tokio::test]
async fn a_body_with_trailers_is_complete_and_they_go_to_whoever_asks_for_them() {
    let sent = [
        b"HTTP/1.1 200 OK\r\ntrailer: x-checksum\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(),
        format!("{:x}\r\n{ANSWER}\r\n0\r\nx-checksum: abc\r\n\r\n", ANSWER.len()).as_bytes(),
    ]
    .concat();
    for asks in [false, true] {
        let proxied = proxied().await;
        let headers: &[(&str, &str)] = if asks { &[("TE", "trailers")] } else { &[] };
        let got = soon(async {
            let mut client = proxied.connect(PATH, headers, ASKED).await;
            let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
            read_request(&mut upstream).await;
            upstream.write_all(&sent).await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            got
        })
        .await;
        let reply = Reply::parse(&got, true);
        assert!(reply.complete && reply.body == ANSWER.as_bytes());
        assert_eq!(String::from_utf8_lossy(&got).contains("\r\nx-checksum: abc\r\n"), asks);
        let (events, call) = proxied.call().await;
        let read = messages(&events).pop().unwrap();
        assert_eq!((read.complete, read.is_exact()), (Some(true), true));
        assert_eq!(read.trailers, [("x-checksum".to_owned(), "abc".to_owned())]);
        assert_eq!((call.fidelity, call.error), (Fidelity::Exact, None));
    }
}

#[tokio::test]
async fn an_upstream_that_switches_protocols_unasked_is_a_problem_and_a_record() {
    let proxied = proxied().await;
    let sent =
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nwhatever"
            .to_vec();
    let request = asked(&proxied, &[("Upgrade", "websocket"), ("Connection", "upgrade")], ASKED);
    let (received, reply) = proxied.pass(request, sent).await;
    assert!(!received.unwrap().head.contains("websocket"));
    reply.problem(502, "upstream_failed", &["switches protocols"]);
    let (events, call) = proxied.call().await;
    let read = messages(&events).pop().unwrap();
    assert_eq!((read.status, read.complete), (Some(101), Some(false)));
    assert!(call.error.unwrap().message.unwrap().contains("switches protocols"));
}

#[tokio::test]
async fn headers_beyond_the_limit_are_cut_in_the_record_and_it_says_so() {
    let proxied = proxied().await;
    let value = "v".repeat(30_000);
    let many: String = (0..10).map(|n| format!("x-{n}: {value}\r\n")).collect();
    let location = "location: https://h/next?x=1&api%2Dkey=hush\r\n";
    let sent = answered(&format!("{location}{many}"), ANSWER.as_bytes());
    let names: Vec<String> = (0..10).map(|n| format!("y-{n}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let (received, reply) = proxied.pass(asked(&proxied, &headers, ASKED), sent).await;
    assert_eq!(received.unwrap().head.matches(&value).count(), 10);
    assert_eq!((0..10).filter(|n| reply.header(&format!("x-{n}")) == Some(value.as_str())).count(), 10);
    assert_eq!(reply.header("location"), Some("https://h/next?x=1&api%2Dkey=hush"));
    let (events, call) = proxied.call().await;
    for read in messages(&events) {
        let kept: usize = read.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(read.headers_cut_from.unwrap() > 300_000);
        assert!((HEADERS_BYTES_MAX - 100..=HEADERS_BYTES_MAX).contains(&kept), "{kept}");
        assert!(read.headers.iter().filter(|(_, v)| v.len() == value.len()).count() >= 8);
    }
    let location =
        messages(&events)[1].headers.iter().find(|(name, _)| name == "location").unwrap().1.clone();
    assert_eq!(location, "https://h/next?x=1&api%2Dkey=****");
    let gaps: Vec<Value> = proxied.gaps().await;
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| gap["reason"] == "content_cut" && gap["unit"] == "messages"));
    assert!(gaps.iter().all(|gap| gap["detail"].as_str().unwrap().contains("262144")));
    assert_eq!(call.fidelity, Fidelity::Exact, "its bodies are there");
}

#[tokio::test]
async fn many_headers_of_an_answer_pass() {
    let proxied = proxied().await;
    let many: String = (0..400).map(|n| format!("x-{n}: v\r\n")).collect();
    let (_, reply) = proxied.pass(asked(&proxied, &[], ASKED), answered(&many, ANSWER.as_bytes())).await;
    assert_eq!((reply.status, reply.header("x-399")), (200, Some("v")));
    let (events, _) = proxied.call().await;
    assert!(messages(&events)[1].headers.len() >= 400);
}

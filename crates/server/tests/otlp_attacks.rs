//! Senders that lie, stall or send far too much: each gets the answer of its protocol, memory stays within its bounds, what was
//! turned away is a gap, and nobody else notices.

mod support;

use std::io::Write;
use std::time::Duration;

use precedent_capture::view::View;
use precedent_capture::wire::{put_bytes, put_number};
use precedent_core::*;
use serde_json::json;
use support::otlp::*;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TRACES: &str = "trace.v1.TraceService";

/// What everybody else sends still gets in.
async fn others_are_served(open: &Open) {
    let body = request(&[span(77, &[("gen_ai.operation.name", "chat")])]);
    assert_eq!(open.post("/v1/traces", PROTOBUF, &body).await.status, 200);
    assert_eq!(grpc(open.grpc, TRACES, &[], &framed(0, &body)).await.0, 0);
}

#[tokio::test]
async fn framing_that_lies_is_answered_and_nothing_of_it_is_taken() {
    let open = open().await;
    let body = request(&[chat(1)]);
    let huge = [&[0, 0xff, 0xff, 0xff, 0xff][..], &body].concat();
    let two = [framed(0, &body), framed(0, &request(&[chat(2)]))].concat();
    let zeros = [framed(0, &body), vec![0; 100]].concat();
    let gzipped = &[("grpc-encoding", "gzip")][..];
    for (headers, sent, status, says) in [
        (&[][..], huge, 13, "announces 4294967295 bytes"),
        (&[], two, 13, "takes one message"),
        (&[], zeros, 13, "100 bytes follow"),
        (&[], framed(0, &body)[..4].to_vec(), 13, "4 bytes"),
        (&[], Vec::new(), 13, "0 bytes"),
        (&[], framed(1, &gzip(&body)), 13, "no grpc-encoding"),
        (&[("grpc-encoding", "identity")], framed(1, &body), 13, "no grpc-encoding"),
        (&[], framed(2, &body), 13, "flag of the message is 2"),
        (gzipped, framed(1, &body), 3, "not gzip"),
        (gzipped, framed(1, &gzip(&body)[..20]), 3, "not gzip"),
        (&[("grpc-encoding", "snappy")], framed(1, &body), 12, "snappy"),
    ] {
        let (got, text) = grpc(open.grpc, TRACES, headers, &sent).await;
        assert_eq!(got, status, "{text}");
        assert!(text.contains(says), "{says}: {text}");
        assert!(!text.contains("details-bin"), "a retry would change nothing");
    }
    // Without a message, and with one that a coding makes of nothing.
    assert_eq!(grpc(open.grpc, TRACES, &[], &framed(0, b"")).await.0, 0);
    assert_eq!(grpc(open.grpc, TRACES, gzipped, &framed(1, &gzip(b""))).await.0, 0);
    // A coding that is announced and not used is no fault.
    assert_eq!(grpc(open.grpc, TRACES, gzipped, &framed(0, &body)).await.0, 0);
    others_are_served(&open).await;
    let spans = open.events().await.iter().filter(|event| event.event_type() == "ai.model.called").count();
    assert_eq!(spans, 2);
    assert!(open.gaps().await.iter().all(|gap| gap["reason"] == "payload_rejected"));
}

#[tokio::test]
async fn uploads_that_stall_or_trickle_are_let_go_after_the_time_limit() {
    let open = open_with(|config| {
        config.limits.body_timeout = Duration::from_millis(300);
        config.limits.body_bytes_per_sec_min = 10_000;
    })
    .await;
    let head = |len: usize| {
        format!(
            "POST /v1/traces HTTP/1.1\r\nhost: {}\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {len}\r\n\r\n",
            open.http
        )
    };
    // Nothing more comes.
    let mut stream = TcpStream::connect(open.http).await.unwrap();
    stream.write_all(head(1_000).as_bytes()).await.unwrap();
    stream.write_all(&[0x0a; 10]).await.unwrap();
    let text = read_until(&mut stream, "nothing came").await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("after 10 bytes"), "{text}");
    // Something comes all the time, and never enough.
    let mut stream = TcpStream::connect(open.http).await.unwrap();
    stream.write_all(head(1 << 20).as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let trickle = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while writer.write_all(&[0x0a]).await.is_ok() {
            pace.tick().await;
        }
    };
    let text = tokio::select! {
        text = read_until(&mut reader, "the least is 3000") => text,
        () = trickle => panic!("it is told why"),
    };
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    others_are_served(&open).await;
}

#[tokio::test]
async fn a_call_of_grpc_that_stalls_is_let_go_and_the_others_on_its_connection_are_not() {
    let open = open_with(|config| config.limits.body_timeout = Duration::from_millis(300)).await;
    let stream = TcpStream::connect(open.grpc).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let call = |body: axum::body::Body| {
        let uri = format!("http://{}/opentelemetry.proto.collector.{TRACES}/Export", open.grpc);
        let request =
            hyper::Request::post(uri).header("content-type", "application/grpc").body(body).unwrap();
        client.clone().send_request(request)
    };
    let part =
        futures_util::stream::once(async { Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[0, 0])) });
    let stalls = futures_util::StreamExt::chain(part, futures_util::stream::pending());
    let stalled = call(axum::body::Body::from_stream(stalls));
    let whole = call(axum::body::Body::from(framed(0, &request(&[chat(1)]))));
    let (stalled, whole) = soon(async { tokio::join!(stalled, whole) }).await;
    let stalled = stalled.unwrap();
    assert_eq!(stalled.headers()["grpc-status"], "4", "{:?}", stalled.headers());
    assert!(stalled.headers()["grpc-message"].to_str().unwrap().contains("nothing came"));
    assert!(whole.unwrap().headers().get("grpc-status").is_none(), "its status is in the trailers");
    assert_eq!(open.events().await.len(), 1);
}

#[tokio::test]
async fn a_span_of_a_hundred_megabytes_is_turned_away_with_the_numbers() {
    let open = open().await;
    let text = "x".repeat(100_000_000);
    let body = request(&[span(1, &[("gen_ai.prompt.0.content", &text)])]);
    drop(text);
    let limit = (33 << 20).to_string();
    let len = body.len().to_string();
    let reply = open.post("/v1/traces", PROTOBUF, &body).await;
    let message = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, 413, "{message}");
    assert!(message.contains(&len) && message.contains(&limit), "{message}");
    let (status, text) = grpc(open.grpc, TRACES, &[], &framed(0, &body)).await;
    assert_eq!(status, 8, "{text}");
    assert!(text.contains(&(body.len() + 5).to_string()) && text.contains(&limit), "{text}");
    assert!(!text.contains("details-bin"), "without a delay, so that no sender tries again");
    let gaps = open.gaps().await;
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| gap["detail"].as_str().unwrap().contains(&limit)), "{gaps:?}");
    assert_eq!(gaps[0]["bytes"], body.len());
    others_are_served(&open).await;
}

#[tokio::test]
async fn bombs_end_at_the_limit_whatever_their_coding() {
    let open = open_with(|config| {
        config.limits.body_bytes_max = 1 << 20;
        config.limits.bodies_bytes_max = 4 << 20;
    })
    .await;
    let zeros = vec![0; 1 << 20];
    let (mut by_gzip, mut by_zstd) = (
        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()),
        zstd::Encoder::new(Vec::new(), 1).unwrap(),
    );
    for n in 0..1_024 {
        by_zstd.write_all(&zeros).unwrap();
        if n < 192 {
            by_gzip.write_all(&zeros).unwrap();
        }
    }
    let mut window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    window.window_log(27).unwrap();
    window.write_all(&request(&[chat(1)])).unwrap();
    window.write_all(&vec![7; 1 << 20]).unwrap();
    let (by_gzip, by_zstd, window) =
        (by_gzip.finish().unwrap(), by_zstd.finish().unwrap(), window.finish().unwrap());
    // One within the other: a gigabyte in a few hundred bytes.
    let twice = gzip(&by_zstd);
    for (coding, bytes, status) in [
        ("gzip", &by_gzip, 413),
        ("zstd", &by_zstd, 413),
        ("zstd, gzip", &twice, 413),
        ("zstd", &window, 400),
        ("gzip, gzip, gzip", &twice, 415),
    ] {
        assert!(bytes.len() < 1 << 20, "{coding}: {}", bytes.len());
        let request = Request::new("POST", "/v1/traces").header("Content-Type", PROTOBUF);
        let reply = open.send(open.http, request.header("Content-Encoding", coding).body(bytes)).await;
        assert_eq!(reply.status, status, "{coding}: {}", String::from_utf8_lossy(&reply.body));
        if !coding.contains(',') {
            let (got, text) = grpc(open.grpc, TRACES, &[("grpc-encoding", coding)], &framed(1, bytes)).await;
            assert_eq!(got, if status == 413 { 8 } else { 3 }, "{coding}: {text}");
        }
    }
    assert!(open.gaps().await.len() >= 5);
    others_are_served(&open).await;
}

#[tokio::test]
async fn what_is_deep_or_no_text_is_recorded_as_it_came_and_can_be_viewed() {
    let open = open().await;
    let depth = 5_000;
    let deep = format!(
        r#"{}{{"stringValue":"x"}}{}"#,
        r#"{"arrayValue":{"values":["#.repeat(depth),
        "]}}".repeat(depth)
    );
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{}","spanId":"{}","name":"chat","attributes":[
            {{"key":"gen_ai.operation.name","value":{{"stringValue":"chat"}}}},{{"key":"gen_ai.input.messages","value":{deep}}}]}}]}}]}}]}}"#,
        "01".repeat(16),
        "01".repeat(8)
    );
    let reply = open.post("/v1/traces", "application/json", json.as_bytes()).await;
    assert_eq!((reply.status, reply.text()), (200, "{}"));
    // The same in protobuf, and text that is not UTF-8 in names and values.
    let mut any = any("x");
    for _ in 0..depth {
        let mut list = Vec::new();
        put_bytes(1, &any, &mut list);
        any.clear();
        put_bytes(5, &list, &mut any);
    }
    let (mut deep, mut odd, mut value) = (chat(2), chat(3), Vec::new());
    let mut pair = Vec::new();
    put_bytes(1, b"gen_ai.input.messages", &mut pair);
    put_bytes(2, &any, &mut pair);
    put_bytes(9, &pair, &mut deep);
    put_bytes(1, b"caf\xe9 \xff\xfe", &mut value);
    let mut pair = Vec::new();
    put_bytes(1, b"gen_ai.prompt\xff", &mut pair);
    put_bytes(2, &value, &mut pair);
    put_bytes(9, &pair, &mut odd);
    let body = request(&[deep.clone(), odd.clone()]);
    assert_eq!(open.post("/v1/traces", PROTOBUF, &body).await.status, 200);
    let events = open.events().await;
    assert_eq!(events.len(), 3);
    for (event, span) in events[1..].iter().zip([&deep, &odd]) {
        assert!(event.data().unwrap().windows(span.len()).any(|window| window == &span[..]), "byte for byte");
    }
    let view = View::of_new(&events);
    assert_eq!((view.calls.len(), view.unread.len()), (3, 0));
    assert!(serde_json::to_string(&view).is_ok());
}

#[tokio::test]
async fn spans_without_ids_and_with_clocks_far_off_are_recorded_as_they_are() {
    let open = open().await;
    let times = |span: &mut Vec<u8>, start: u64, end: u64| {
        span.extend([7 << 3 | 1]);
        span.extend(start.to_le_bytes());
        span.extend([8 << 3 | 1]);
        span.extend(end.to_le_bytes());
    };
    let bare = || {
        let mut span = Vec::new();
        put_bytes(9, &pair("gen_ai.operation.name", "chat"), &mut span);
        span
    };
    let mut zero = Vec::new();
    put_bytes(1, &[0; 16], &mut zero);
    put_bytes(2, &[0; 8], &mut zero);
    put_bytes(9, &pair("gen_ai.operation.name", "chat"), &mut zero);
    let (mut backwards, mut end_of_time, mut long_ago) = (chat(1), chat(2), chat(3));
    times(&mut backwards, 1_700_000_000_000_000_000, 1_600_000_000_000_000_000);
    times(&mut end_of_time, 1, u64::MAX);
    times(&mut long_ago, 1, 2);
    let body = request(&[bare(), zero, backwards, end_of_time, long_ago]);
    for _ in 0..2 {
        assert_eq!(open.post("/v1/traces", PROTOBUF, &body).await.status, 200);
    }
    let events = open.events().await;
    assert_eq!(events.len(), 5, "sent twice, recorded once, with and without ids");
    assert!(events[0].id().starts_with("none-none-"));
    assert!(events[1].id().starts_with("00000000") && events[1].attribute("traceparent").is_none());
    assert_eq!((events[0].time(), events[0].stream()), (None, None));
    assert_eq!(events[4].time(), Some("1970-01-01T00:00:00.000000002Z"));
    assert_eq!(events[3].time(), Some("2554-07-21T23:34:33.709551615Z"));
    let page = open.store.inner.read(&LogName::default(), &Read::default()).await.unwrap();
    let view = View::of(&page.events);
    assert_eq!(view.calls.len(), 5, "what has no ids is joined with nothing");
    assert!(
        view.calls[2].notes.iter().any(|note| note.contains("before it began")),
        "{:?}",
        view.calls[2].notes
    );
    assert!(view.calls[3].notes.iter().any(|note| note.contains("2554")), "{:?}", view.calls[3].notes);
}

#[tokio::test]
async fn spans_are_recorded_once_however_their_sender_groups_them() {
    let open = open().await;
    let spans: Vec<Vec<u8>> = (0..24).map(|n| span(n + 1, &[("gen_ai.operation.name", "chat")])).collect();
    for size in [24, 1, 5, 7, 24] {
        for batch in spans.chunks(size) {
            assert_eq!(open.post("/v1/traces", PROTOBUF, &request(batch)).await.status, 200);
        }
    }
    // Backwards, each twice in one request, each in a scope and a resource of its own, over gRPC.
    let backwards: Vec<Vec<u8>> = spans.iter().rev().flat_map(|span| [span.clone(), span.clone()]).collect();
    assert_eq!(grpc(open.grpc, TRACES, &[], &framed(0, &request(&backwards))).await.0, 0);
    let apart: Vec<u8> = spans.iter().flat_map(|span| request(std::slice::from_ref(span))).collect();
    let reply = open.post("/v1/traces", PROTOBUF, &apart).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(open.events().await.len(), 24);
    // Other content under the same ids stands beside the first.
    let mut other = spans[3].clone();
    put_number(100, 7, &mut other);
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[other])).await.status, 200);
    assert_eq!(open.events().await.len(), 25);
    let counters = open.send(open.main, Request::new("GET", "/metrics")).await;
    let line = "precedent_otlp_items_total{signal=\"traces\",outcome=\"recorded\"} 25";
    assert!(counters.text().contains(line), "{}", counters.text());
}

#[tokio::test]
async fn keys_in_urls_are_taken_out_of_telemetry_in_every_encoding() {
    let open = open().await;
    let attributes = [
        ("gen_ai.operation.name", "chat"),
        ("url.full", "https://h/v1?api%2Dkey=hush-1&a=1"),
        ("url.query", "a=1&key=hush-2"),
        ("http.url", "https://h/?sig=hush-3#x"),
        ("http.target", "/x?access_token=hush-4"),
        ("gen_ai.prompt.0.content", "open https://h/?code=hush-5, please"),
        ("http.response.header.location", "/next?token=hush-6"),
    ];
    let json = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "02".repeat(16), "spanId": "02".repeat(8),
        "attributes": attributes.map(|(key, text)| json!({"key": key, "value": {"stringValue": text}}))}]}]}]});
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[span(1, &attributes)])).await.status, 200);
    // As some encoders write it.
    let escaped = json.to_string().replace('&', r"\u0026").replace('/', r"\/");
    assert_eq!(open.post("/v1/traces", "application/json", escaped.as_bytes()).await.status, 200);
    let events = open.events().await;
    assert_eq!(events.len(), 2);
    for event in &events {
        let data = String::from_utf8_lossy(event.data().unwrap());
        assert!(!data.contains("hush") && data.contains("a=1") && data.contains("please"), "{data}");
        assert_eq!(event.attribute("redactedby"), Some("query:6"));
    }
}

#[tokio::test]
async fn whoever_takes_an_answer_too_slowly_is_let_go_and_the_call_is_recorded_as_far_as_it_came() {
    use support::proxied::{ASKED, CHUNKED, proxied_with, read_request};
    let proxied = proxied_with(|config| config.limits.write_timeout = Duration::from_millis(300)).await;
    let _client = proxied.connect("/proxy/up/v1/chat/completions", &[], ASKED).await;
    soon(async {
        let (mut upstream, _) = proxied.upstream.accept().await.unwrap();
        read_request(&mut upstream).await;
        upstream.write_all(CHUNKED.as_bytes()).await.unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        // More than all buffers on the way hold; then the upstream is let go too.
        while upstream.write_all(&chunk).await.is_ok() {}
        let _ = upstream.read(&mut [0; 16]).await;
    })
    .await;
    let (events, _) = proxied.call().await;
    let read = precedent_capture::exchange::Read::event(events.last().unwrap()).unwrap().unwrap();
    assert_eq!(read.complete, Some(false));
    assert!(read.body_bytes > 0 && read.error.unwrap().contains("went away"));
}

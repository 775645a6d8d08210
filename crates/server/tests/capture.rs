//! OTLP over HTTP and gRPC, and decisions of a policy agent: what is answered is durable, and what is not says why.

mod support;

use precedent_capture::view::View;
use precedent_capture::wire::{put_bytes, put_number};
use precedent_core::*;
use serde_json::json;
use support::otlp::*;
use support::*;

#[tokio::test]
async fn a_request_is_recorded_once_in_every_encoding_and_coding() {
    let open = open().await;
    let body = request(&[chat(1), chat(2)]);
    let plain = open.post("/v1/traces", PROTOBUF, &body).await;
    assert_eq!((plain.status, plain.header("content-type"), plain.body.len()), (200, Some(PROTOBUF), 0));
    for (coding, coded) in [("gzip", gzip(&body)), ("zstd", zstd::encode_all(&body[..], 3).unwrap())] {
        let request = Request::new("POST", "/v1/traces").header("Content-Type", PROTOBUF);
        let reply = open.send(open.http, request.header("Content-Encoding", coding).body(coded)).await;
        assert_eq!(reply.status, 200, "{coding}");
    }
    // Grouped in another way it is the same.
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[chat(2)])).await.status, 200);
    assert_eq!(open.events().await.len(), 2);
    let log = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"eventName": "gen_ai.user.message",
        "traceId": "01".repeat(16), "spanId": "01".repeat(8),
        "body": {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "Hi"}}]}}}]}]}]});
    let reply = open.post("/v1/logs", "application/json; charset=utf-8", log.to_string().as_bytes()).await;
    assert_eq!((reply.status, reply.text()), (200, "{}"));
    let events = open.events().await;
    assert_eq!(events[2].event_type(), "ai.input.received");
    let calls = View::of_new(&events).calls;
    assert_eq!(calls.len(), 2);
    assert_eq!(
        calls[0].messages.as_ref().unwrap()[0].text().as_deref(),
        Some("Hi"),
        "joined by trace and span"
    );
}

#[tokio::test]
async fn an_answer_waits_until_everything_is_durable() {
    let open = open().await;
    open.store.hold_appends();
    let body = request(&[chat(1)]);
    let mut answer = Box::pin(open.post("/v1/traces", PROTOBUF, &body));
    let began = async {
        eventually("the append begins", async || {
            open.store.appends_begun.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
    };
    tokio::select! {
        _ = &mut answer => panic!("it was answered before it was durable"),
        () = began => {}
    }
    open.store.let_through(1);
    assert_eq!(answer.await.status, 200);
}

#[tokio::test]
async fn partial_success_says_what_is_not_recorded() {
    let web = || span(9, &[("http.method", "GET")]);
    let open = open().await;
    let reply = open.post("/v1/traces", PROTOBUF, &request(&[chat(1), web(), web()])).await;
    let mut partial = Vec::new();
    put_number(1, 2, &mut partial);
    assert_eq!((reply.status, &reply.body[2..4]), (200, &partial[..]));
    assert!(reply.body.windows(16).any(|w| w == b"--keep-all-spans"));
    assert_eq!(open.events().await.len(), 1);
    let metrics = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "x", "gauge": {"dataPoints": [{}, {}]}}]}]}]});
    let reply = open.post("/v1/metrics", "application/json", metrics.to_string().as_bytes()).await;
    assert_eq!(reply.json()["partialSuccess"]["rejectedDataPoints"], "2");
    let counters = open.send(open.main, Request::new("GET", "/metrics")).await;
    for line in [
        "precedent_otlp_items_total{signal=\"traces\",outcome=\"recorded\"} 1",
        "precedent_otlp_items_total{signal=\"traces\",outcome=\"not_kept\"} 2",
        "precedent_otlp_items_total{signal=\"metrics\",outcome=\"not_kept\"} 2",
    ] {
        assert!(counters.text().contains(line), "{line}: {}", counters.text());
    }
    let keeping = open_with(|config| config.capture.keep_all_spans = true).await;
    let reply = keeping.post("/v1/traces", PROTOBUF, &request(&[web()])).await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(keeping.events().await[0].event_type(), "otel.record.received");
}

#[tokio::test]
async fn bad_requests_are_answered_in_their_encoding_and_leave_a_gap() {
    let open = open_with(|config| config.limits.body_bytes_max = 1 << 20).await;
    let body = request(&[chat(1)]);
    let cut = &body[..body.len() - 3];
    let reply = open.post("/v1/traces", PROTOBUF, cut).await;
    assert_eq!(
        (reply.status, reply.header("content-type"), &reply.body[..2]),
        (400, Some(PROTOBUF), &[8, 3][..])
    );
    let reply = open.post("/v1/traces", "application/json", b"{\"resourceSpans\":[").await;
    assert_eq!((reply.status, &reply.json()["code"]), (400, &json!(3)));
    let reply = open.post("/v1/traces", "application/json", b"\xff\xfe").await;
    assert!(reply.json()["message"].as_str().unwrap().contains("UTF-8"));
    let deep = format!("{{\"resourceSpans\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(open.post("/v1/traces", "application/json", deep.as_bytes()).await.status, 400);
    assert_eq!(open.post("/v1/traces", "text/plain", &body).await.status, 415);
    let large = open.post("/v1/traces", PROTOBUF, &vec![0; 3 << 20]).await;
    assert_eq!((large.status, large.complete), (413, true), "whoever sends too much can read why");
    let bomb = gzip(&vec![0; 64 << 20]);
    let coded = |coding: &str, body: &[u8]| {
        let request = Request::new("POST", "/v1/traces").header("Content-Type", PROTOBUF);
        request.header("Content-Encoding", coding).body(body)
    };
    assert_eq!(open.send(open.http, coded("gzip", &bomb)).await.status, 413);
    assert_eq!(open.send(open.http, coded("gzip", &body)).await.status, 400);
    assert_eq!(open.send(open.http, coded("br", &body)).await.status, 415);
    assert_eq!(open.post("/v1/nothing", PROTOBUF, &body).await.status, 404);
    assert_eq!(open.send(open.http, Request::new("GET", "/v1/traces")).await.status, 405);
    let events = open.events().await;
    assert!(events.iter().all(|event| event.event_type() == "ai.capture.gap_detected"));
    let gaps = open.gaps().await;
    assert_eq!(gaps.len(), 9);
    assert!(gaps.iter().all(|gap| gap["reason"] == "payload_rejected" && gap["producer"] == "otlp"));
    assert_eq!(open.post("/v1/traces", PROTOBUF, &body).await.status, 200, "nothing else is disturbed");
}

#[tokio::test]
async fn what_is_too_large_for_an_event_is_rejected_alone() {
    let open = open().await;
    let large = "x".repeat(15 << 20);
    let body = request(&[span(1, &[("gen_ai.prompt.0.content", &large)]), chat(2)]);
    let reply = open.post("/v1/traces", PROTOBUF, &body).await;
    // The answer begins with a message whose length may need two bytes: then its first field, the count.
    assert_eq!(reply.status, 200);
    assert!(reply.body.windows(2).take(4).any(|two| two == [8, 1]), "{:?}", reply.body);
    let events = open.events().await;
    assert_eq!(events.len(), 2);
    assert!(events[0].id().starts_with("0202"));
    let gap = &open.gaps().await[0];
    assert_eq!((&gap["count"], &gap["unit"]), (&json!(1), &json!("spans")));
    assert!(gap["bytes"].as_u64().unwrap() > 15 << 20);
}

#[tokio::test]
async fn a_request_cannot_grow_without_bound_when_it_is_taken_apart() {
    let open = open_with(|config| config.capture.keep_all_spans = true).await;
    // A resource of 1 MiB around 2,000 spans of a few bytes would be 2 GB.
    let (mut resource, mut of_resource, mut scope, mut body) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_bytes(1, &pair("service.instance", &"x".repeat(1 << 20)), &mut resource);
    put_bytes(1, &resource, &mut of_resource);
    for n in 0..2_000u32 {
        let mut span = Vec::new();
        put_bytes(1, &n.to_be_bytes(), &mut span);
        put_bytes(2, &span, &mut scope);
    }
    put_bytes(2, &scope, &mut of_resource);
    put_bytes(1, &of_resource, &mut body);
    let reply = open.post("/v1/traces", PROTOBUF, &body).await;
    assert_eq!(reply.status, 200);
    let recorded = open.events().await.len() - 1;
    assert!((60..=130).contains(&recorded), "{recorded}");
    assert_eq!(open.gaps().await[0]["count"], 2_000 - recorded as u64);
}

#[tokio::test]
async fn when_nothing_can_be_recorded_the_sender_is_asked_to_come_again() {
    let open = open_with(|config| config.limits.requests_max = 1).await;
    let body = request(&[chat(1)]);
    for kind in [ErrorKind::Io, ErrorKind::Full, ErrorKind::Stopped, ErrorKind::Unknown] {
        *open.store.failing.lock().unwrap() = Some(Error::new(kind, "the disk is gone"));
        let reply = open.post("/v1/traces", PROTOBUF, &body).await;
        assert_eq!(reply.status, 503, "{}", kind.code());
        assert!(reply.header("retry-after").is_some());
        let (status, trailers) = grpc(open.grpc, "trace.v1.TraceService", &[], &framed(0, &body)).await;
        assert_eq!(
            status,
            "14".parse().ok().filter(|_| kind != ErrorKind::Stopped).unwrap_or(8),
            "{}",
            kind.code()
        );
        assert!(trailers.contains("grpc-status-details-bin"));
    }
    *open.store.failing.lock().unwrap() = None;
    open.store.hold_appends();
    let begun = open.store.appends_begun.load(std::sync::atomic::Ordering::SeqCst);
    let mut first = Box::pin(open.post("/v1/traces", PROTOBUF, &body));
    let second = async {
        eventually("the first is under way", async || {
            open.store.appends_begun.load(std::sync::atomic::Ordering::SeqCst) > begun
        })
        .await;
        let reply = open.post("/v1/traces", PROTOBUF, &body).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    };
    tokio::select! {
        _ = &mut first => panic!("the append was held"),
        () = second => {}
    }
    open.store.let_through(10);
    assert_eq!(first.await.status, 200);
    assert_eq!(open.events().await.len(), 1);
}

#[tokio::test]
async fn gaps_that_cannot_be_recorded_wait_for_better_times() {
    let open = open().await;
    *open.store.failing.lock().unwrap() = Some(Error::new(ErrorKind::Full, "no space is left"));
    for _ in 0..3 {
        open.post("/v1/traces", PROTOBUF, b"\x0a").await;
    }
    let counters = open.send(open.main, Request::new("GET", "/metrics")).await;
    assert!(counters.text().contains("precedent_capture_gaps_waiting 1"), "{}", counters.text());
    *open.store.failing.lock().unwrap() = None;
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[chat(1)])).await.status, 200);
    let gaps = open.gaps().await;
    assert_eq!((gaps.len(), &gaps[0]["count"]), (1, &json!(3)));
}

#[tokio::test]
async fn whoever_may_not_ask_is_turned_away_at_every_door() {
    let open = open_with(|config| config.token = Some("secret".to_owned())).await;
    let body = request(&[chat(1)]);
    assert_eq!(open.post("/v1/traces", PROTOBUF, &body).await.status, 401);
    let request = Request::new("POST", "/v1/traces").header("Content-Type", PROTOBUF);
    let reply = open.send(open.http, request.header("Authorization", "Bearer secret").body(&body)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(grpc(open.grpc, "trace.v1.TraceService", &[], &framed(0, &body)).await.0, 16);
    let with = [("authorization", "Bearer secret")];
    assert_eq!(grpc(open.grpc, "trace.v1.TraceService", &with, &framed(0, &body)).await.0, 0);
    let foreign = Request::new("POST", "/v1/traces").header("Content-Type", PROTOBUF);
    let foreign = foreign.header("Authorization", "Bearer secret").header("Origin", "https://evil.example");
    assert_eq!(open.send(open.http, foreign.body(&body)).await.status, 403);
    let mut config = config();
    config.capture.otlp_grpc = Some("0.0.0.0:0".parse().unwrap());
    assert!(config.check().unwrap_err().message().contains("0.0.0.0"));
}

#[tokio::test]
async fn grpc_takes_the_same_requests_and_says_what_is_wrong_with_others() {
    let open = open_with(|config| config.limits.body_bytes_max = 1 << 20).await;
    let body = request(&[chat(1)]);
    assert_eq!(grpc(open.grpc, "trace.v1.TraceService", &[], &framed(0, &body)).await.0, 0);
    let compressed = framed(1, &gzip(&body));
    assert_eq!(
        grpc(open.grpc, "trace.v1.TraceService", &[("grpc-encoding", "gzip")], &compressed).await.0,
        0
    );
    let (status, text) =
        grpc(open.grpc, "trace.v1.TraceService", &[], &framed(0, &request(&[span(9, &[])]))).await;
    assert!(status == 0 && text.contains("--keep-all-spans"), "{text}");
    assert_eq!(grpc(open.grpc, "logs.v1.LogsService", &[], &framed(0, b"")).await.0, 0);
    assert_eq!(grpc(open.grpc, "metrics.v1.MetricsService", &[], &framed(0, b"")).await.0, 0);
    for (headers, body, status, says) in [
        (&[][..], framed(1, &gzip(&body)), 13, "grpc-encoding"),
        (&[("grpc-encoding", "br")], framed(1, b"x"), 12, "br"),
        (&[("grpc-encoding", "gzip")], framed(1, &gzip(&vec![0; 64 << 20])), 8, "1048576"),
        (&[], framed(0, &body)[..10].to_vec(), 13, "announces"),
        (&[], vec![0, 0], 13, "2 bytes"),
        (&[], framed(0, b"\x0a"), 3, "protobuf"),
        (&[], framed(0, &vec![0; 2 << 20]), 8, "1048576"),
    ] {
        let (got, text) = grpc(open.grpc, "trace.v1.TraceService", headers, &body).await;
        assert_eq!(got, status, "{text}");
        assert!(text.contains(says), "{says}: {text}");
        assert!(!text.contains("details-bin"), "a retry would change nothing");
    }
    assert_eq!(grpc(open.grpc, "profiles.v1.ProfilesService", &[], &framed(0, b"")).await.0, 12);
    assert_eq!(open.events().await.iter().filter(|e| e.event_type() == "ai.model.called").count(), 1);
}

#[tokio::test]
async fn decisions_of_a_policy_agent_are_recorded_as_they_are() {
    let open = open().await;
    let decision =
        r#"{"decision_id": "4ca6", "path": "loans/allow", "input": {"amount": 7.0}, "result": true}"#;
    let body = gzip(format!("[{decision}]").as_bytes());
    let post = |body: &[u8]| {
        let request = Request::new("POST", "/v1/opa/logs").header("Content-Type", "application/json");
        request.header("Content-Encoding", "gzip").body(body)
    };
    let reply = open.send(open.main, post(&body)).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"recorded": 1, "existing": 0})));
    assert_eq!(open.send(open.main, post(&body)).await.json()["existing"], 1);
    let event = &open.events().await[0];
    assert_eq!(
        (event.event_type(), event.data().unwrap().as_ref()),
        ("ai.policy.evaluated", decision.as_bytes())
    );
    let bad = open.send(open.main, post(&gzip(b"{}"))).await;
    bad.problem(400, "invalid", &["list"]);
    assert_eq!(open.gaps().await[0]["producer"], "opa");
}

#[tokio::test]
async fn numbers_that_are_missing_in_a_sequence_are_a_gap() {
    let open = open().await;
    let publish = async |n: u32| {
        let event = json!({"specversion": "1.0", "id": n.to_string(), "source": "urn:till", "type": "t", "sequence": n.to_string()});
        let request =
            Request::new("POST", "/v1/events").header("Content-Type", "application/cloudevents+json");
        assert_eq!(open.send(open.main, request.body(event.to_string())).await.status, 200);
    };
    for n in [7, 8, 8, 12, 13, 9] {
        publish(n).await;
    }
    let gaps = open.gaps().await;
    assert_eq!(gaps.len(), 1);
    let gap = &gaps[0];
    assert_eq!((&gap["reason"], &gap["producer"]), (&json!("sequence_gap"), &json!("urn:till")));
    assert_eq!((&gap["from"], &gap["to"], &gap["count"]), (&json!(9), &json!(11), &json!(3)));
}

#[tokio::test]
async fn a_record_that_an_earlier_version_described_differently_is_the_same_record() {
    let open = open().await;
    let body = request(&[chat(1), chat(2)]);
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[chat(1)])).await.status, 200);
    let first = open.events().await.remove(0);
    // The same data under the same id, with other tags: what an older normalizer would have recorded.
    let other = self::open().await;
    let older = first.into_builder().tag("older", "yes").build().unwrap();
    other.store.inner.append(&LogName::default(), older.into()).await.unwrap();
    assert_eq!(
        other.post("/v1/traces", PROTOBUF, &body).await.status,
        200,
        "an exporter is not told to drop it"
    );
    assert_eq!(other.events().await.len(), 2);
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_recorded_as_it_is_and_noted() {
    let open = open().await;
    let mut ahead = chat(1);
    ahead.extend([8 << 3 | 1]);
    ahead.extend(7_000_000_000_000_000_000u64.to_le_bytes());
    assert_eq!(open.post("/v1/traces", PROTOBUF, &request(&[ahead])).await.status, 200);
    let page = open.store.inner.read(&LogName::default(), &Read::default()).await.unwrap();
    assert_eq!(page.events[0].event.time(), Some("2191-10-27T12:26:40.000000000Z"));
    let call = &View::of(&page.events).calls[0];
    assert!(call.notes[0].contains("2191-10-27"), "{:?}", call.notes);
}

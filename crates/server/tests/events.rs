//! Events in and out over HTTP: every mode, every form, every bound.

mod support;

use precedent_core::{Append, Condition, Event, LogName, Store, wire};
use serde_json::{Value, json};
use support::*;

#[tokio::test]
async fn cloudevents_are_recorded_in_all_three_modes_with_their_data_byte_for_byte() {
    let served = serve().await;
    let structured =
        r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"x","data":{ "n" : 1.00 }}"#;
    let reply = served.post("/v1/events", "application/cloudevents+json; charset=UTF-8", structured).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        reply.json(),
        json!({"events": [{"position": 0, "version": 0, "status": "recorded"}], "size": 1})
    );
    let batch = r#"[{"specversion":"1.0","id":"2","source":"s","type":"t"},{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"x","data":{ "n" : 1.00 }}]"#;
    let reply = served.post("/v1/events", "application/cloudevents-batch+json", batch).await;
    assert_eq!(reply.json()["events"][0], json!({"position": 1, "version": null, "status": "recorded"}));
    assert_eq!(reply.json()["events"][1]["status"], "existing");
    let binary = Request::new("POST", "/v1/events")
        .header("ce-specversion", "1.0")
        .header("ce-id", "3%20%E2%82%AC")
        .header("ce-source", "\"quoted \\\" one\"")
        .header("ce-type", "t")
        .header("ce-tags", "k=v%252Cw,l=2")
        .header("ce-mine", "7")
        .header("Content-Type", "text/plain")
        .body([0xff, 0, b'\n']);
    assert_eq!(served.send(binary).await.status, 200);
    let event = served.accept("/v1/events/2", "application/json").await.json();
    assert_eq!(event["id"], "3 €");
    assert_eq!(event["source"], "quoted \" one");
    assert_eq!(event["tags"], json!(["k=v,w", "l=2"]));
    assert_eq!((&event["mine"], &event["datacontenttype"]), (&json!("7"), &json!("text/plain")));
    assert_eq!(event["data_base64"], "/wAK");
    let one = served.get("/v1/events/0").await;
    assert_eq!(one.header("content-type"), Some("application/cloudevents+json"));
    assert!(one.text().contains(r#""data":{ "n" : 1.00 }"#), "{}", one.text());
    assert_eq!(one.json()["position"], "0");
}

#[tokio::test]
async fn a_binary_event_without_body_has_no_data_unless_it_has_a_media_type() {
    let served = serve().await;
    for (id, media_type) in [("none", None), ("empty", Some("text/plain"))] {
        let mut request = Request::new("POST", "/v1/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "s")
            .header("ce-type", "t")
            .header("Content-Length", "0");
        if let Some(media_type) = media_type {
            request = request.header("Content-Type", media_type);
        }
        assert_eq!(served.send(request).await.status, 200);
    }
    let [none, empty] = [0, 1].map(|n| format!("/v1/events/{n}"));
    assert!(served.get(&none).await.json().get("data_base64").is_none());
    assert_eq!(served.get(&empty).await.json()["data_base64"], "");
}

#[tokio::test]
async fn events_that_are_not_are_refused_and_nothing_is_recorded() {
    let served = serve().await;
    let ce = "application/cloudevents+json";
    for (media_type, body, status, code, says) in [
        (ce, "{", 400, "invalid", "line 1"),
        (ce, "[]", 400, "invalid", "object"),
        (ce, r#"{"specversion":"1.0","id":"1","source":"s"}"#, 400, "invalid", "'type' is missing"),
        (ce, r#"{"specversion":"1.0","id":"1","source":"s","type":"~x"}"#, 400, "invalid", "reserved"),
        (ce, r#"{"specversion":"1.0","id":"1","source":"s","type":"t","tags":"a"}"#, 400, "invalid", "tag"),
        ("application/cloudevents-batch+json", "[]", 400, "invalid", "without events"),
        ("application/cloudevents-batch+json", "{}", 400, "invalid", "list"),
        ("application/cloudevents+xml", "<x/>", 415, "unsupported_media_type", "xml"),
        ("application/cloudevents+json; charset=latin1", "{}", 415, "unsupported_media_type", "latin1"),
        ("application/json", "{}", 400, "invalid", "ce-specversion"),
    ] {
        let reply = served.post("/v1/events", media_type, body).await;
        reply.problem(status, code, &[says]);
    }
    let long = format!(r#"{{"specversion":"1.0","id":"{}","source":"s","type":"t"}}"#, "i".repeat(513));
    served.post("/v1/events", ce, long).await.problem(413, "limit_exceeded", &["513", "512"]);
    let binary = |name: &str, value: &str| {
        Request::new("POST", "/v1/events")
            .header("ce-specversion", "1.0")
            .header("ce-source", "s")
            .header("ce-type", "t")
            .header(name, value)
    };
    served.send(binary("ce-id", "%ff")).await.problem(400, "invalid", &["ce-id", "UTF-8"]);
    served.send(binary("ce-type", "u")).await.problem(400, "invalid", &["ce-type", "several"]);
    let coded = served.send(binary("ce-id", "1").header("Content-Encoding", "gzip").body("x")).await;
    coded.problem(415, "unsupported_media_type", &["gzip"]);
    assert_eq!(coded.header("accept-encoding"), Some("identity"));
    let large = served.post("/v1/query", "application/json", vec![b' '; (1 << 20) + 1]).await;
    large.problem(413, "limit_exceeded", &["1048577", "1048576"]);
    served.append(json!([[], []])).await.problem(400, "invalid", &["'events'"]);
    served.send(binary("ce-datacontenttype", "x")).await.problem(400, "invalid", &["ce-datacontenttype"]);
    served.send(binary("ce-subject", "x")).await.problem(400, "invalid", &["'id' is missing"]);
    assert_eq!(served.get("/v1/head").await.json()["size"], 0);
}

#[tokio::test]
async fn an_append_is_recorded_under_its_conditions_and_a_conflict_says_what_is_in_the_way() {
    let served = serve().await;
    let event = |id: &str| json!({"id": id, "source": "s", "type": "t", "stream": "x", "tags": ["k=v"], "data": 1, "decisionid": "d"});
    let new = json!([{"stream": "x", "version": "none"}]);
    let reply = served.append(json!({"events": [event("1")], "conditions": new})).await;
    assert_eq!(
        reply.json(),
        json!({"events": [{"position": 0, "version": 0, "status": "recorded"}], "size": 1})
    );
    // A retry is no conflict: keys come before conditions.
    let reply = served.append(json!({"events": [event("1")], "conditions": new})).await;
    assert_eq!(reply.json()["events"][0]["status"], "existing");
    let problem = served
        .append(json!({"events": [event("2")], "conditions": [{"stream": "y", "version": "any"}, {"stream": "x", "version": "none"}]}))
        .await
        .problem(409, "conflict", &["'x'", "version 0"]);
    assert_eq!(problem["conflicts"], json!([{"index": 1, "position": 0}]));
    let matching = [
        ("2", json!([{"types": ["t"], "tags": ["k=v"], "decisionid": "d"}]), 0),
        ("3", json!([{"types": ["u"]}, {"decisionid": "d"}]), 1),
    ];
    for (id, items, after) in matching {
        let fails = json!({"events": [event(id)], "conditions": [{"fail_if": {"items": items}}]});
        served.append(fails).await.problem(409, "conflict", &["position 0"]);
        let after =
            json!({"events": [event(id)], "conditions": [{"fail_if": {"items": items}, "after": after}]});
        assert_eq!(served.append(after).await.status, 200);
    }
    let other = json!({"events": [{"id": "1", "source": "s", "type": "other"}]});
    let problem = served.append(other).await.problem(409, "already_exists", &["position 0"]);
    assert_eq!(problem["conflicts"], json!([{"index": 0, "position": 0}]));
    for (body, says) in [
        (json!({"events": []}), "without events"),
        (json!({"event": []}), "event"),
        (json!({"events": [event("3")], "conditions": [{"stream": "x", "version": "some"}]}), "'version'"),
        (json!({"events": [event("3")], "conditions": [{"fail_if": {"items": [{}]}}]}), "condition 0"),
    ] {
        served.append(body).await.problem(400, "invalid", &[says]);
    }
    let beyond = json!({"events": [event("9")], "conditions": [{"fail_if": {"items": [{"types": ["t"]}]}, "after": 9}]});
    served.append(beyond).await.problem(404, "not_found", &["position 9", "3 events"]);
    served.post("/v1/append", "text/plain", "{}").await.problem(
        415,
        "unsupported_media_type",
        &["text/plain"],
    );
    assert_eq!(served.get("/v1/head").await.json()["size"], 3);
}

#[tokio::test]
async fn an_append_in_binary_form_is_recorded_as_one_in_json_is() {
    let served = serve().await;
    let data: Vec<u8> = (0..=255).collect();
    let event =
        |id: &str| Event::builder("s", id, "t").stream("x").tag("k", "v").data(data.clone()).build().unwrap();
    let post = |body: &[u8]| served.post("/v1/append", wire::APPEND_MEDIA_TYPE, body.to_vec());
    let append = Append::new(vec![event("1"), event("2")]).when(Condition::stream_is_new("x"));
    let body = wire::write_append(&append);
    for status in ["recorded", "existing"] {
        let reply = post(&body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["size"], 2);
        assert_eq!(reply.json()["events"][1], json!({"position": 1, "version": 1, "status": status}));
    }
    let page = served.accept("/v1/events", wire::EVENTS_MEDIA_TYPE).await;
    let page = wire::parse_page(page.body.clone().into()).unwrap();
    let recorded: Vec<Event> = page.events.into_iter().map(|recorded| recorded.event).collect();
    assert_eq!(recorded, append.events);
    let late = Append::from(event("3")).when(Condition::stream_is_new("x"));
    post(&wire::write_append(&late)).await.problem(409, "conflict", &["'x'"]);
    post(&body[..body.len() - 1]).await.problem(400, "invalid", &["event 1"]);
    post(b"{\"events\":[]}").await.problem(400, "invalid", &["binary"]);
    assert_eq!(served.get("/v1/head").await.json()["size"], 2);
}

#[tokio::test]
async fn several_appends_in_one_request_are_each_one_of_their_own() {
    let served = serve().await;
    let event = |id: &str, stream: &str| Event::builder("s", id, "t").stream(stream).build().unwrap();
    let is_new = |id: &str| Append::from(event(id, "x")).when(Condition::stream_is_new("x"));
    let appends = [
        is_new("1"),
        is_new("2"),
        Append::new(vec![event("3", "y"), event("4", "x")]),
        is_new("1"),
        Append::from(Event::builder("s", "1", "other").build().unwrap()),
    ];
    let one_by_one: Vec<Vec<u8>> = appends.iter().map(wire::write_append).collect();
    let mut binary = wire::join_appends(one_by_one.iter().map(|append| &append[..]));
    binary.extend_from_slice(&[7, 0, 0, 0]);
    binary.extend_from_slice(b"nothing");
    let reply = served.post("/v1/appends", wire::APPENDS_MEDIA_TYPE, &binary).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({"events": [{"position": 0, "version": 0, "status": "recorded"}], "size": 1}));
    assert_eq!((&lines[1]["code"], &lines[1]["status"]), (&json!("conflict"), &json!(409)));
    assert_eq!(lines[1]["conflicts"], json!([{"index": 0, "position": 0}]));
    assert_eq!(lines[2]["events"][1], json!({"position": 2, "version": 1, "status": "recorded"}));
    assert_eq!(lines[3]["events"], json!([{"position": 0, "version": 0, "status": "existing"}]));
    assert_eq!(lines[4]["code"], "already_exists");
    assert_eq!(lines[5]["code"], "invalid");
    assert_eq!(lines.len(), 6);

    let json = "{\"events\":[{\"id\":\"5\",\"source\":\"s\",\"type\":\"t\"}]}\n\nnone\n{\"events\":[{\"id\":\"5\",\"source\":\"s\",\"type\":\"t\"}]}";
    let reply = served.post("/v1/logs/main/appends", "application/x-ndjson", json).await;
    let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["events"][0], json!({"position": 3, "version": null, "status": "recorded"}));
    assert_eq!(lines[1]["code"], "invalid");
    assert_eq!(lines[2]["events"][0]["status"], "existing");
    let metrics = served.get("/metrics").await;
    assert!(metrics.text().contains("precedent_events_appended_total 4\n"), "{}", metrics.text());
}

#[tokio::test]
async fn appends_that_cannot_be_taken_apart_are_refused_as_a_whole() {
    let served = serve().await;
    let append = wire::write_append(&Event::builder("s", "1", "t").build().unwrap().into());
    let post = |body: Vec<u8>| served.post("/v1/appends", wire::APPENDS_MEDIA_TYPE, body);
    let two = wire::join_appends([&append[..], &append].into_iter());
    post(two[..two.len() - 1].to_vec()).await.problem(400, "invalid", &["append 1"]);
    post(Vec::new()).await.problem(400, "invalid", &["no append"]);
    let many = wire::join_appends(std::iter::repeat_n(&append[..], wire::APPENDS_MAX + 1));
    post(many).await.problem(413, "limit_exceeded", &["1025", "1024"]);
    let lines = "{}\n".repeat(wire::APPENDS_MAX + 1);
    served.post("/v1/appends", "application/x-ndjson", lines).await.problem(413, "limit_exceeded", &["1025"]);
    served.post("/v1/appends", "application/x-ndjson", "\n").await.problem(400, "invalid", &["no append"]);
    served.post("/v1/appends", "application/json", "{}").await.problem(
        415,
        "unsupported_media_type",
        &["application/x-ndjson"],
    );
    assert_eq!(served.get("/v1/head").await.json()["size"], 0);
}

#[tokio::test]
async fn events_are_given_in_the_form_that_is_accepted() {
    let served = serve().await;
    served.fill(5).await;
    let lines = served.get("/v1/events").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.ids(), ["0", "1", "2", "3", "4"]);
    assert!(lines.complete);
    let batch = served.accept("/v1/events?limit=2", "application/cloudevents-batch+json").await;
    assert_eq!(batch.header("content-type"), Some("application/cloudevents-batch+json"));
    assert_eq!(batch.json().as_array().unwrap().len(), 2);
    assert_eq!(batch.json()[1]["position"], "1");
    let page = served.accept("/v1/events?limit=2", "application/json").await.json();
    assert_eq!(page["events"][1]["position"], 1);
    assert_eq!((&page["next"], &page["size"], &page["damaged"]), (&json!(1), &json!(5), &json!([])));
    let rest = served.accept("/v1/events?after=1", "application/json").await.json();
    assert_eq!(rest["events"].as_array().unwrap().len(), 3);
    assert_eq!(rest["next"], json!(null));
    let events = served.accept("/v1/events?limit=2", "text/event-stream").await;
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    assert!(
        events.text().contains("id: 1\ndata: {\"specversion\":\"1.0\",\"id\":\"1\","),
        "{}",
        events.text()
    );
    assert!(events.complete);
    let binary = served.accept("/v1/events", wire::EVENTS_MEDIA_TYPE).await;
    let page = wire::parse_page(binary.body.clone().into()).unwrap();
    assert_eq!((page.events.len(), page.size, page.next), (5, 5, None));
    let leaf = served.get("/v1/events/4").await.json()["leafhash"].clone();
    assert_eq!(json!(page.events[4].leaf().to_string()), leaf);
    served.accept("/v1/events", "text/html").await.problem(406, "not_acceptable", &["application/x-ndjson"]);
    for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "no-store")] {
        assert_eq!(lines.header(name), Some(value));
    }
    let empty = served.post("/v1/query", "application/json", r#"{"items":[{"types":["none"]}]}"#).await;
    assert_eq!((empty.status, empty.text(), empty.complete), (200, "", true));
    let none = served.accept("/v1/events?type=none", "application/cloudevents-batch+json").await;
    assert_eq!(none.json(), json!([]));
}

#[tokio::test]
async fn long_reads_come_in_pages_and_lose_nothing() {
    let served = serve().await;
    served.fill(2_500).await;
    let expected: Vec<String> = (0..2_500).map(|i| i.to_string()).collect();
    let forward = served.get("/v1/events").await;
    assert!(forward.complete);
    assert_eq!(forward.ids(), expected);
    let backward = served.get("/v1/events?backward=true").await;
    assert_eq!(backward.ids(), expected.iter().rev().cloned().collect::<Vec<_>>());
    let page = served.accept("/v1/events?limit=2000", "application/json").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 2_000);
    assert_eq!(page["next"], 1_999);
    let page = served.accept("/v1/events", "application/json").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 1_000);
    let page = served.accept("/v1/events?backward&before=3", "application/json").await.json();
    assert_eq!(page["events"].as_array().unwrap().len(), 3);
    assert_eq!(page["next"], json!(null));
}

#[tokio::test]
async fn reads_are_bounded_as_asked_for_and_both_ways_of_asking_agree() {
    let served = serve().await;
    let event = |id: &str, t: &str, stream: &str, tags: &[&str]| {
        json!({"id": id, "source": "s", "type": t, "stream": stream, "tags": tags, "decisionid": format!("d{id}"),
            "time": format!("2026-01-0{id}T00:00:00Z"),
            "traceparent": format!("00-0af7651916cd43dd8448eb211c8031{id}{id}-b7ad6b7169203331-01")})
    };
    let events = json!([
        event("1", "a", "x", &["k=1"]),
        event("2", "b", "x", &["k=1", "l=2"]),
        event("3", "c", "y", &["l=2"]),
        event("4", "a", "y", &["k=1", "l=2", "m=a b"]),
    ]);
    assert_eq!(served.append(json!({"events": events})).await.status, 200);
    let recorded = served.get("/v1/events/0").await.json()["recordedtime"].as_str().unwrap().to_owned();
    let later = format!("/v1/events?since={}", recorded.replace('+', "%2B"));
    for (query, body, ids) in [
        ("stream=x", json!({"items": [{"stream": "x"}]}), &["1", "2"][..]),
        ("type=a&type=c", json!({"items": [{"types": ["a", "c"]}]}), &["1", "3", "4"]),
        ("tag=k%3D1&tag=l%3D2", json!({"items": [{"tags": ["k=1", "l=2"]}]}), &["2", "4"]),
        ("tag=m=a+b", json!({"items": [{"tags": ["m=a b"]}]}), &["4"]),
        ("decisionid=d3", json!({"items": [{"decisionid": "d3"}]}), &["3"]),
        (
            "traceid=0af7651916cd43dd8448eb211c803122",
            json!({"items": [{"traceid": "0af7651916cd43dd8448eb211c803122"}]}),
            &["2"],
        ),
        ("after=0&before=3", json!({"after": 0, "before": 3}), &["2", "3"]),
        ("backward=true&limit=2", json!({"backward": true, "limit": 2}), &["4", "3"]),
        (
            "by=time&since=2026-01-02T00:00:00Z&until=2026-01-04T00:00:00Z",
            json!({"by": "time", "since": "2026-01-02T00:00:00Z", "until": "2026-01-04T00:00:00Z"}),
            &["2", "3"],
        ),
        ("at_least=3&after=2", json!({"at_least": 3, "after": 2}), &["4"]),
        ("", json!({"items": []}), &["1", "2", "3", "4"]),
    ] {
        assert_eq!(served.get(&format!("/v1/events?{query}")).await.ids(), ids, "{query}");
        let reply = served.post("/v1/query", "application/json", body.to_string()).await;
        assert_eq!(reply.ids(), ids, "{body}");
    }
    assert_eq!(served.get(&later).await.ids().len(), 4);
    let either = json!({"items": [{"stream": "y", "types": ["c"]}, {"tags": ["m=a b"]}]});
    assert_eq!(served.post("/v1/query", "application/json", either.to_string()).await.ids(), ["3", "4"]);
}

#[tokio::test]
async fn queries_nobody_could_mean_are_refused_and_name_the_parameter() {
    let served = serve().await;
    served.fill(2).await;
    for (query, says) in [
        ("streams=x", "'streams'"),
        ("after=x", "'after'"),
        ("after=-1", "'after'"),
        ("limit=0", "'limit'"),
        ("limit=1&limit=2", "'limit' stands 2 times"),
        ("follow=perhaps", "'follow'"),
        ("since=yesterday", "'since'"),
        ("by=size", "'by'"),
        ("tag=novalue", "'tag'"),
        ("stream=", "'stream'"),
        ("type=", "'type'"),
        ("stream=%ff", "'stream'"),
        ("type=%zz", "'type'"),
        ("follow=true&backward=true", "'follow' and 'backward'"),
        ("follow=true&until=2026-01-01T00:00:00Z", "'follow' and 'until'"),
        ("after=1&before=1", "after 1 and before 1"),
        ("since=2026-01-01T00:00:00Z&until=2025-01-01T00:00:00Z", "before 2025"),
    ] {
        served.get(&format!("/v1/events?{query}")).await.problem(400, "invalid", &[says]);
    }
    served.get("/v1/events?after=2").await.problem(404, "not_found", &["position 2", "2 events"]);
    served.get("/v1/events?at_least=2").await.problem(404, "not_found", &["position 2"]);
    served.accept("/v1/events?follow=true", "application/json").await.problem(400, "invalid", &["'follow'"]);
    for (body, says) in [("{", "line 1"), (r#"{"stream":"x"}"#, "'stream'"), (r#"{"items":[{}]}"#, "item 0")]
    {
        served.post("/v1/query", "application/json", body).await.problem(400, "invalid", &[says]);
    }
    served.get("/v1/events/2").await.problem(404, "not_found", &["position 2", "0 to 1"]);
    served.get("/v1/events/x").await.problem(400, "invalid", &["'x'"]);
    let huge = "/v1/events/18446744073709551615";
    served.get(huge).await.problem(404, "not_found", &["18446744073709551615"]);
    served.get("/v1/head?size=1").await.problem(400, "invalid", &["'size'", "grown"]);
}

#[tokio::test]
async fn a_log_is_made_by_its_first_append_and_is_not_found_before() {
    let served = serve().await;
    for path in ["head", "events", "events/0", "frames?from=0", "doctor"] {
        let reply = served.get(&format!("/v1/logs/other/{path}")).await;
        reply.problem(404, "not_found", &["'other'"]);
    }
    assert_eq!(served.get("/v1/events").await.text(), "");
    assert_eq!(served.get("/v1/head").await.json()["id"], json!(null));
    served.get("/v1/logs/Not%20A%20Name/head").await.problem(400, "invalid", &["Not A Name"]);
    let body = json!({"events": [{"id": "1", "source": "s", "type": "t"}]}).to_string();
    let reply = served.post("/v1/logs/other/append", "application/json", body).await;
    assert_eq!(reply.status, 200);
    assert_eq!(served.get("/v1/logs/other/events").await.ids(), ["1"]);
    let head = served.get("/v1/logs/other/head").await.json();
    assert_eq!((&head["log"], &head["size"], &head["frames"]), (&json!("other"), &json!(1), &json!(1)));
    assert_eq!(head["root"].as_str().unwrap().len(), 64);
    assert_eq!(served.get("/v1/logs").await.json(), json!({"logs": ["other"]}));
    assert_eq!(served.get("/v1/logs/main/head").await.json()["size"], 0);
}

#[tokio::test]
async fn a_log_copied_frame_by_frame_over_http_is_the_same_log() {
    let served = serve().await;
    served.fill(3).await;
    let frames = served.get("/v1/frames?from=0").await;
    assert_eq!(frames.header("content-type"), Some(wire::FRAMES_MEDIA_TYPE));
    let end = served.get("/v1/frames?from=1").await;
    assert_eq!((end.status, end.body.len(), end.complete), (200, 0, true));
    let put = |body: Vec<u8>| served.post("/v1/logs/copy/frames", wire::FRAMES_MEDIA_TYPE, body);
    let head = put(frames.body.clone()).await.json();
    assert_eq!(head["root"], served.get("/v1/head").await.json()["root"]);
    assert_eq!(put(frames.body.clone()).await.status, 200);
    let body = json!({"events": [{"id": "x", "source": "s", "type": "t"}]}).to_string();
    let write = || served.post("/v1/logs/copy/append", "application/json", &body);
    write().await.problem(403, "read_only", &["copy"]);
    assert_eq!(served.send(Request::new("POST", "/v1/logs/copy/promote")).await.status, 200);
    assert_eq!(write().await.status, 200);
    let mut bad = frames.body.clone();
    let last = bad.len() - 10;
    bad[last] ^= 1;
    served.post("/v1/logs/bad/frames", wire::FRAMES_MEDIA_TYPE, bad).await.problem(500, "damaged", &[]);
    for cut in [3, 10, frames.body.len() - 1] {
        let reply = served.post("/v1/logs/bad/frames", wire::FRAMES_MEDIA_TYPE, &frames.body[..cut]).await;
        reply.problem(400, "invalid", &["frame 0"]);
    }
    put(Vec::new()).await.problem(400, "invalid", &["empty"]);
    served.get("/v1/frames").await.problem(400, "invalid", &["'from'"]);
    served.get("/v1/frames?from=0&bytes=999999999").await.problem(
        413,
        "limit_exceeded",
        &["999999999", "16777216"],
    );
    assert!(served.store.inner.head(&"bad".parse::<LogName>().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_damaged_event_is_named_and_never_given() {
    let served = serve().await;
    served.fill(200).await;
    served.store.damage(100);
    served.get("/v1/events/100").await.problem(500, "damaged", &["event 100"]);
    assert_eq!(served.get("/v1/events/99").await.status, 200);
    let page = served.accept("/v1/events?after=98&limit=3", "application/json").await.json();
    assert_eq!(page["damaged"][0]["position"], 100);
    assert!(page["damaged"][0]["detail"].as_str().unwrap().contains("event 100"));
    let ids: Vec<&str> =
        page["events"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["99", "101", "102"]);
}

#[tokio::test]
async fn a_read_that_meets_damage_gives_what_stands_before_it_and_is_broken_off() {
    let served = serve().await;
    served.fill(200).await;
    served.store.damage(100);
    let lines = served.get("/v1/events").await;
    assert_eq!((lines.status, lines.complete), (200, false));
    assert_eq!(lines.ids().len(), 100);
    let backward = served.get("/v1/events?backward=true").await;
    assert!(!backward.complete);
    assert_eq!(backward.ids().last().map(String::as_str), Some("101"));
    let batch = served.accept("/v1/events", "application/cloudevents-batch+json").await;
    assert!(!batch.complete && !batch.text().ends_with(']'));
    let events = served.accept("/v1/events?follow=true", "text/event-stream").await;
    assert!(!events.complete && events.text().contains("id: 99\n") && !events.text().contains("id: 101\n"));
    let metrics = served.get("/metrics").await;
    assert!(metrics.text().contains("precedent_streams_aborted_total 4"), "{}", metrics.text());
}

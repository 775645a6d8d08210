//! The rest of the interface: heads, registers, limits, findings, counters, and the document that describes it all.

mod support;

use std::collections::BTreeSet;

use precedent_core::{Error, ErrorKind};
use precedent_server::CODES;
use serde_json::{Value, json};
use support::*;

#[tokio::test]
async fn a_register_is_only_set_under_a_condition_that_holds() {
    let served = serve().await;
    let put = |name: &str, value: &str, value_of: &str, body: &[u8]| {
        let path = format!("/v1/registers/{name}");
        let (value, value_of, body) = (value.to_owned(), value_of.to_owned(), body.to_vec());
        let served = &served;
        async move { served.send(Request::new("PUT", &path).header(&value, &value_of).body(body)).await }
    };
    let first = put("cursors/billing", "If-None-Match", "*", b"\x00\xff").await;
    assert_eq!((first.status, first.header("etag")), (201, Some("\"1\"")));
    assert_eq!(first.json(), json!({"revision": 1}));
    put("cursors/billing", "If-None-Match", "*", b"x").await.problem(
        412,
        "precondition_failed",
        &["revision 1"],
    );
    put("cursors/billing", "If-Match", "\"2\"", b"x").await.problem(
        412,
        "precondition_failed",
        &["revision 2"],
    );
    put("other", "If-Match", "\"1\"", b"x").await.problem(412, "precondition_failed", &["not set"]);
    let second = put("cursors/billing", "If-Match", "\"1\"", b"two").await;
    assert_eq!((second.status, second.header("etag")), (200, Some("\"2\"")));
    let value = served.get("/v1/registers/cursors/billing").await;
    assert_eq!((value.status, &value.body[..], value.header("etag")), (200, &b"two"[..], Some("\"2\"")));
    let encoded = served.get("/v1/registers/cursors%2Fbilling").await;
    assert_eq!(encoded.body, b"two");
    let known = Request::new("GET", "/v1/registers/cursors/billing").header("If-None-Match", "\"2\"");
    let known = served.send(known).await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    put("r", "X-Other", "1", b"x").await.problem(428, "precondition_required", &["If-None-Match"]);
    for none in ["*", "\"1\", \"2\"", "\"x\""] {
        put("r", "If-Match", none, b"x").await.problem(412, "precondition_failed", &["never been set"]);
    }
    for bad in ["1", "\"1", "\"1\" \"2\"", "", "*, \"1\""] {
        put("r", "If-Match", bad, b"x").await.problem(400, "invalid", &["if-match"]);
    }
    for (fails, says) in [("\"7\", \"8\"", "revision 2"), ("W/\"2\"", "revision 2")] {
        let reply = put("cursors/billing", "If-Match", fails, b"x").await;
        reply.problem(412, "precondition_failed", &[says]);
    }
    for (holds, etag) in [("*", "\"3\""), ("\"1\", \"3\"", "\"4\"")] {
        assert_eq!(put("cursors/billing", "If-Match", holds, b"y").await.header("etag"), Some(etag));
    }
    for (known, status) in
        [("\"1\", \"4\"", 304), ("W/\"4\"", 304), ("\"1\",\"2\"", 200), ("*", 304), ("4", 400)]
    {
        let request = Request::new("GET", "/v1/registers/cursors/billing").header("If-None-Match", known);
        assert_eq!(served.send(request).await.status, status, "{known}");
    }
    put("r", "If-None-Match", "\"1\"", b"x").await.problem(400, "invalid", &["If-None-Match"]);
    served.get("/v1/registers/%ff%fe").await.problem(400, "invalid", &["path", "UTF-8"]);
    put("R", "If-None-Match", "*", b"x").await.problem(400, "invalid", &["'R'"]);
    let large = put("r", "If-None-Match", "*", &vec![0; (64 << 10) + 1]).await;
    large.problem(413, "limit_exceeded", &["65537", "65536"]);
    served.get("/v1/registers/r").await.problem(404, "not_found", &["'r'"]);
}

#[tokio::test]
async fn the_head_can_be_waited_for() {
    let served = serve().await;
    served.fill(2).await;
    let now = served.get("/v1/head?grown=1").await.json();
    assert_eq!(now["size"], 2);
    let over = served.get("/v1/head?grown=2&wait=0").await.json();
    assert_eq!(over["size"], 2);
    let waiting = served.get("/v1/head?grown=2&wait=60");
    let append = async {
        eventually("somebody waits", async || {
            served.store.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1
        })
        .await;
        served.append(json!({"events": [{"id": "new", "source": "s", "type": "t"}]})).await
    };
    let (head, appended) = tokio::join!(waiting, append);
    assert_eq!((head.json()["size"].clone(), appended.status), (json!(3), 200));
    served.get("/v1/head?grown=2&wait=61").await.problem(413, "limit_exceeded", &["61", "60"]);
    served.get("/v1/head?wait=1").await.problem(400, "invalid", &["'wait'", "'grown'"]);
}

#[tokio::test]
async fn limits_findings_and_health_are_told() {
    let served = serve().await;
    served.fill(3).await;
    let limits = served.get("/v1/limits").await.json();
    assert_eq!((&limits["durability"], &limits["data_bytes_max"]), (&json!("none"), &json!(15 << 20)));
    assert!(limits["request_bytes_max"].as_u64().unwrap() > 20 << 20);
    let found = served.get("/v1/doctor").await.json();
    assert_eq!(
        (&found["events"], &found["data_bytes"], &found["log"]),
        (&json!(3), &json!(3), &json!("main"))
    );
    assert_eq!(found["findings"][0]["code"], "not_durable");
    assert_eq!(served.get("/healthz").await.text(), "ok\n");
}

#[tokio::test]
async fn counters_count_by_route_and_not_by_path() {
    let served = serve().await;
    served.append(json!({"events": [{"id": "1", "source": "s", "type": "t"}]})).await;
    served.append(json!({"events": [{"id": "1", "source": "s", "type": "t"}]})).await;
    served.get("/v1/events/0").await;
    served.get("/v1/events/7").await;
    served.get("/no/such/path").await;
    let reply = served.get("/metrics").await;
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "precedent_requests_total{route=\"/v1/append\",method=\"POST\",status=\"200\"} 2",
        "precedent_requests_total{route=\"/v1/events/{position}\",method=\"GET\",status=\"200\"} 1",
        "precedent_requests_total{route=\"/v1/events/{position}\",method=\"GET\",status=\"404\"} 1",
        "precedent_requests_total{route=\"none\",method=\"GET\",status=\"404\"} 1",
        "precedent_events_appended_total 1",
        "precedent_log_events{log=\"main\"} 1",
        "precedent_requests_open 1",
        "precedent_streams_open 0",
    ] {
        assert!(reply.text().lines().any(|l| l == line), "no line {line} in:\n{}", reply.text());
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let served = serve().await;
    served.get("/nothing").await.problem(404, "not_found", &["/nothing"]);
    served.get("/v2/events").await.problem(404, "not_found", &["/v2/events"]);
    let reply = served.send(Request::new("DELETE", "/v1/events")).await;
    reply.problem(405, "method_not_allowed", &["DELETE"]);
    let allowed: BTreeSet<&str> = reply.header("allow").unwrap().split(',').collect();
    assert_eq!(allowed, BTreeSet::from(["GET", "HEAD", "POST"]));
}

#[tokio::test]
async fn every_error_of_a_store_arrives_as_the_table_says() {
    let served = serve().await;
    for kind in ErrorKind::ALL {
        *served.store.failing.lock().unwrap() = Some(Error::new(*kind, "why").retry_after(9));
        let reply = served.append(json!({"events": [{"id": "1", "source": "s", "type": "t"}]})).await;
        let code = if *kind == ErrorKind::Unauthorized { "store_unauthorized" } else { kind.code() };
        let row = CODES.iter().find(|row| row.code == code).unwrap();
        assert_eq!(reply.header("retry-after"), Some("9"));
        let problem = reply.json();
        assert_eq!(
            (reply.status, &problem["code"], &problem["detail"]),
            (row.status, &json!(code), &json!("why"))
        );
        assert_eq!(problem["retryable"], kind.is_retryable());
        assert_eq!(problem["may_have_been_written"], *kind == ErrorKind::Unknown);
    }
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_paths_and_methods() {
    let served = serve().await;
    let document = served.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let schema = |path: &str, name: &str| {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|p| p["name"] == name).unwrap()["schema"].clone()
    };
    assert_eq!(schema("/v1/frames", "bytes")["maximum"], 16 << 20);
    assert_eq!(schema("/v1/head", "wait")["maximum"], 60);
    assert_eq!(schema("/v1/events", "limit")["minimum"], 1);
    assert!(schema("/v1/events", "tag")["items"]["pattern"].is_string());
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path.replace("{log}", "main").replace("{position}", "0").replace("{name}", "r");
        let methods: BTreeSet<String> =
            methods.as_object().unwrap().keys().map(|m| m.to_ascii_uppercase()).collect();
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let reply = served.send(Request::new(method, &real)).await;
            assert_eq!(
                reply.status != 405,
                methods.contains(method),
                "{method} {path}: {} {}",
                reply.status,
                reply.text()
            );
        }
        described.insert(path.clone());
    }
    // And the other way round: every path that the page about HTTP names is described.
    let page = include_str!("../../../docs/http.md");
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("| `GET ") || line.starts_with("| `P")) {
        let path = line.split('`').nth(1).unwrap().split(' ').nth(1).unwrap();
        assert!(described.contains(path), "{path}");
        named += 1;
    }
    let of_main = described.iter().filter(|path| !path.contains("{log}"));
    let operations: usize = of_main.map(|p| document["paths"][p].as_object().unwrap().len()).sum();
    assert_eq!(named, operations, "the page and the document have as many operations");
}

#[tokio::test]
async fn every_answer_has_a_status_that_the_document_describes() {
    let served = serve().await;
    served.fill(1).await;
    let document = served.get("/openapi.json").await.json();
    let codes: Vec<&str> = CODES.iter().map(|row| row.code).collect();
    let described: Vec<&str> = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    assert_eq!(described, codes);
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path.replace("{log}", "main").replace("{position}", "7").replace("{name}", "r");
        for (method, operation) in methods.as_object().unwrap() {
            let reply = served.send(Request::new(&method.to_ascii_uppercase(), &real)).await;
            let responses: &Value = &operation["responses"];
            assert!(responses.get(reply.status.to_string()).is_some(), "{method} {path}: {}", reply.status);
        }
    }
}

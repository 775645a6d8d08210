//! Too much, too slow, too late: what a server takes on, and how it ends.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn small() -> precedent_server::Config {
    let mut config = config();
    config.limits.body_bytes_max = 256 << 10;
    config.limits.bodies_bytes_max = 512 << 10;
    config
}

fn append_of(id: &str) -> String {
    json!({"events": [{"id": id, "source": "s", "type": "t"}]}).to_string()
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_with_both_numbers() {
    let served = serve_with(small()).await;
    let announced = served.post("/v1/append", "application/json", vec![b' '; 300 << 10]).await;
    announced.problem(413, "limit_exceeded", &["307200", "262144"]);
    // Only announced: the answer comes without a byte of the body.
    let request = Request::new("POST", "/v1/append").header("Content-Length", "99999999999");
    let mut stream = served.open(request).await;
    read_until(&mut stream, "99999999999").await;
    // Not announced at all.
    let request = Request::new("POST", "/v1/append").header("Transfer-Encoding", "chunked");
    let mut stream = served.open(request).await;
    let (mut read, mut write) = stream.split();
    let send = async {
        for _ in 0..100 {
            let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
            if write.write_all(&chunk).await.is_err() {
                break;
            }
        }
    };
    let answer = async {
        let text = read_until(&mut read, "limit_exceeded").await;
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    };
    tokio::join!(send, answer);
    let fits = served.post("/v1/append", "application/json", append_of("1")).await;
    assert_eq!(fits.status, 200);
}

#[tokio::test]
async fn bodies_in_memory_are_bounded_together_and_their_room_comes_back() {
    let served = serve_with(small()).await;
    served.store.hold_appends();
    let padded = |id: &str| format!("{}{}", append_of(id), " ".repeat(200 << 10));
    let (one, two) = (padded("1"), padded("2"));
    let first = served.post("/v1/append", "application/json", &one);
    let second = served.post("/v1/append", "application/json", &two);
    let third = async {
        eventually("two appends are held", async || served.store.appends_begun.load(Ordering::SeqCst) == 2)
            .await;
        let refused = served.post("/v1/append", "application/json", padded("3")).await;
        refused.problem(503, "overloaded", &["524288"]);
        // What is small still finds room.
        served.store.let_through(3);
        served.post("/v1/append", "application/json", append_of("4")).await
    };
    let (first, second, third) = tokio::join!(first, second, third);
    assert_eq!([first.status, second.status, third.status], [200; 3]);
    served.store.let_through(1);
    let again = served.post("/v1/append", "application/json", padded("3")).await;
    assert_eq!(again.status, 200, "{}", again.text());
}

#[tokio::test]
async fn clients_that_announce_much_and_send_nothing_hold_no_room() {
    let served = serve_with(small()).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let request = Request::new("POST", "/v1/append").header("Content-Length", "262144");
        idle.push(served.open(request).await);
    }
    let reply = served.post("/v1/append", "application/json", append_of("1")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_to_come_back() {
    let mut config = config();
    config.limits.requests_max = 2;
    let served = serve_with(config).await;
    served.store.hold_appends();
    let (one, two) = (append_of("1"), append_of("2"));
    let first = served.post("/v1/append", "application/json", &one);
    let second = served.post("/v1/append", "application/json", &two);
    let third = async {
        eventually("two appends are held", async || served.store.appends_begun.load(Ordering::SeqCst) == 2)
            .await;
        served.get("/v1/head").await.problem(503, "overloaded", &["2"]);
        assert_eq!(served.get("/healthz").await.status, 200);
        assert_eq!(served.get("/metrics").await.status, 200);
        served.store.let_through(2);
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    assert_eq!([first.status, second.status], [200; 2]);
    assert_eq!(served.get("/v1/head").await.status, 200);
}

#[tokio::test]
async fn followers_are_bounded_and_do_not_keep_others_out() {
    let mut config = config();
    config.limits.streams_max = 2;
    config.limits.requests_max = 1;
    config.limits.answers_bytes_max = 1 << 20;
    let served = serve_with(config).await;
    served.fill(1).await;
    let mut followers = Vec::new();
    for _ in 0..2 {
        let mut follower = served.open(Request::new("GET", "/v1/events?follow=true")).await;
        read_until(&mut follower, "\"id\":\"0\"").await;
        followers.push(follower);
    }
    served.get("/v1/events?follow=true").await.problem(503, "overloaded", &["2"]);
    served.get("/v1/head?grown=9").await.problem(503, "overloaded", &["2"]);
    assert_eq!(served.post("/v1/append", "application/json", append_of("1")).await.status, 200);
    for follower in &mut followers {
        read_until(follower, "\"id\":\"1\"").await;
    }
    assert_eq!(served.get("/v1/frames?from=0").await.status, 503);
    followers.pop();
    eventually("a place is free again", async || served.get("/v1/events").await.status == 200).await;
}

#[tokio::test]
async fn a_client_that_is_too_slow_is_let_go() {
    let mut config = config();
    config.limits.head_timeout = Duration::from_millis(200);
    config.limits.body_timeout = Duration::from_millis(200);
    let served = serve_with(config).await;
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: lo").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let request = Request::new("POST", "/v1/append").header("Content-Length", "100");
    let mut stream = served.open(request).await;
    stream.write_all(b"{").await.unwrap();
    let answer = read_until(&mut stream, "request_timeout").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("1 bytes"), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_a_bounded_part_of_the_log_and_is_let_go() {
    let mut config = config();
    config.limits.write_timeout = Duration::from_millis(300);
    let served = serve_with(config).await;
    for batch in 0..8 {
        let big = vec![b'1'; 1 << 20];
        let event = |i: usize| {
            let id = format!("{batch}/{i}");
            precedent_core::Event::builder("s", id, "t").data(big.clone()).build().unwrap()
        };
        let append = precedent_core::Append::new((0..8).map(event));
        let log = precedent_core::LogName::default();
        precedent_core::Store::append(&served.store.inner, &log, append).await.unwrap();
    }
    let stream = served.open(Request::new("GET", "/v1/events")).await;
    let metric = async |name: &str| -> u64 {
        let metrics = served.get("/metrics").await;
        let line = metrics.text().lines().find(|l| l.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    eventually("the reader is let go", async || metric("precedent_streams_open").await == 0).await;
    let sent = metric("precedent_event_bytes_sent_total").await;
    assert!(sent < 32 << 20, "{sent} bytes were made ready for a client that reads none");
    drop(stream);
}

#[tokio::test]
async fn a_follower_sees_everything_once_and_goes_on_where_it_was() {
    let served = serve().await;
    served.fill(3).await;
    let accept = |r: Request<'static>| r.header("Accept", "text/event-stream");
    let mut first = served.open(accept(Request::new("GET", "/v1/events?follow=true"))).await;
    let text = read_until(&mut first, "id: 2\n").await;
    assert!(text.contains("id: 0\n") && text.contains("content-type: text/event-stream"));
    assert_eq!(served.post("/v1/append", "application/json", append_of("later")).await.status, 200);
    let text = read_until(&mut first, "id: 3\n").await;
    assert!(!text.contains("id: 2\n"), "nothing comes twice: {text}");
    drop(first);
    let resumed = Request::new("GET", "/v1/events?follow=true&after=0").header("Last-Event-ID", "2");
    let mut second = served.open(accept(resumed)).await;
    let text = read_until(&mut second, "id: 3\n").await;
    assert!(!text.contains("id: 2\n") && !text.contains("id: 1\n"), "{text}");
    let bad = served.send(accept(Request::new("GET", "/v1/events")).header("Last-Event-ID", "x")).await;
    bad.problem(400, "invalid", &["Last-Event-ID"]);
    let ended = served.get("/v1/events?follow=true&limit=2").await;
    assert!(ended.complete);
    assert_eq!(ended.ids(), ["0", "1"]);
    let before = served.get("/v1/events?follow=true&before=2").await;
    assert!(before.complete);
    assert_eq!(before.ids(), ["0", "1"]);
    let empty = served.open(Request::new("GET", "/v1/events?follow=true&type=other")).await;
    drop(empty);
    eventually("a follower that has gone leaves no work behind", async || {
        drop(second.readable());
        served.store.waiting.load(Ordering::SeqCst) <= 1
    })
    .await;
}

#[tokio::test]
async fn a_follower_of_an_empty_log_is_answered_at_once() {
    let served = serve().await;
    let mut follower = served.open(Request::new("GET", "/v1/events?follow=true")).await;
    read_until(&mut follower, "HTTP/1.1 200").await;
    served.post("/v1/append", "application/json", append_of("first")).await;
    read_until(&mut follower, "\"id\":\"first\"").await;
}

#[tokio::test]
async fn an_append_whose_client_has_gone_is_whole() {
    let served = serve().await;
    served.store.hold_appends();
    let body = append_of("1");
    let stream = served.open(Request::new("POST", "/v1/append").body(body)).await;
    eventually("the append has begun", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    served.store.let_through(1);
    eventually("it is recorded", async || served.get("/v1/head").await.json()["size"] == 1).await;
    // One whose body never came is absent.
    let request = Request::new("POST", "/v1/append").header("Content-Length", "100");
    let mut stream = served.open(request).await;
    stream.write_all(b"{\"events\":[").await.unwrap();
    drop(stream);
    assert_eq!(served.get("/v1/head").await.json()["size"], 1);
}

#[test]
fn an_append_that_the_device_holds_up_holds_up_no_other_request() {
    // The server has two threads, and one of them does the append.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut served = runtime.block_on(serve());
    served.store.on_this_thread.store(true, Ordering::SeqCst);
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    client.block_on(async {
        for round in 0..20 {
            served.store.hold_appends();
            let id = round.to_string();
            let append = served.post("/v1/append", "application/json", append_of(&id));
            let others = async {
                eventually("the append is held", async || {
                    served.store.appends_begun.load(Ordering::SeqCst) == round + 1
                })
                .await;
                for _ in 0..5 {
                    assert_eq!(served.get("/healthz").await.status, 200);
                    assert_eq!(served.get("/v1/head").await.status, 200);
                }
                served.store.let_through(1);
            };
            let (appended, ()) = tokio::join!(append, others);
            assert_eq!(appended.status, 200, "{}", appended.text());
        }
    });
    served.stop();
    runtime.block_on(soon(&mut served.running)).unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_ends_followers_and_finishes_what_is_under_way() {
    let mut served = serve().await;
    served.fill(1).await;
    served.store.hold_appends();
    let mut follower = served.open(Request::new("GET", "/v1/events?follow=true")).await;
    read_until(&mut follower, "\"id\":\"0\"").await;
    let mut bounded = served.open(Request::new("GET", "/v1/events?follow=true&limit=5")).await;
    read_until(&mut bounded, "\"id\":\"0\"").await;
    let mut waiting = served.open(Request::new("GET", "/v1/head?grown=1&wait=60")).await;
    let mut append = served.open(Request::new("POST", "/v1/append").body(append_of("1"))).await;
    let waits = async || served.store.waiting.load(Ordering::SeqCst) == 3;
    eventually("all wait", waits).await;
    eventually("the append has begun", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
    served.stop();
    let mut rest = Vec::new();
    soon(follower.read_to_end(&mut rest)).await.unwrap();
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "without a bound it is ended: {:?}",
        String::from_utf8_lossy(&rest)
    );
    rest.clear();
    let _ = soon(bounded.read_to_end(&mut rest)).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "short of its bound it is broken off");
    read_until(&mut waiting, "\"size\":1").await;
    let refused = async || tokio::net::TcpStream::connect(served.address).await.is_err();
    eventually("nothing new is accepted", refused).await;
    served.store.let_through(1);
    read_until(&mut append, "\"status\":\"recorded\"").await;
    drop((follower, bounded, waiting, append));
    soon(&mut served.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut config = config();
    config.limits.shutdown_timeout = Duration::from_millis(100);
    let mut served = serve_with(config).await;
    served.store.hold_appends();
    let mut append = served.open(Request::new("POST", "/v1/append").body(append_of("1"))).await;
    eventually("the append has begun", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
    served.stop();
    soon(&mut served.running).await.unwrap().unwrap();
    let mut answer = Vec::new();
    let _ = soon(append.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "a connection that is broken off says nothing");
}

/// Appends events of 8 MiB of JSON each.
async fn fill_big(served: &Served, events: usize) {
    for id in 0..events {
        let data = vec![b'1'; 8 << 20];
        let event = precedent_core::Event::builder("s", id.to_string(), "t").data(data).build().unwrap();
        let log = precedent_core::LogName::default();
        precedent_core::Store::append(&served.store.inner, &log, event.into()).await.unwrap();
    }
}

async fn status_of(stream: &mut tokio::net::TcpStream) -> String {
    let mut head = [0; 12];
    soon(stream.read_exact(&mut head)).await.unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_together_and_others_are_told_to_come_back() {
    for (path, accept) in [
        ("/v1/events/0", "*/*"),
        ("/v1/events", "application/x-ndjson"),
        ("/v1/events", "application/json"),
        ("/v1/events", "application/vnd.precedent.events"),
        ("/v1/frames?from=0", "*/*"),
    ] {
        let mut config = config();
        config.limits.answers_bytes_max = 96 << 20;
        config.limits.answer_timeout = Duration::from_millis(100);
        let served = serve_with(config).await;
        fill_big(&served, 3).await;
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..16 {
            let mut stream = served.open(Request::new("GET", path).header("Accept", accept)).await;
            match status_of(&mut stream).await.as_str() {
                "200" => held.push(stream),
                "503" => refused += 1,
                other => panic!("{path}: {other}"),
            }
        }
        assert!(held.len() <= 12 && refused > 0, "{path} {accept}: {} answers of 8 MiB are held", held.len());
        assert!(held.len() >= 2, "{path} {accept}: {} answers are under way", held.len());
        let reply = served.get("/v1/events/0").await;
        reply.problem(503, "overloaded", &["100663296", "0.1 seconds"]);
        assert_eq!(served.get("/v1/head").await.status, 200);
        drop(held);
        eventually("there is room again", async || served.get(path).await.status == 200).await;
    }
}

#[tokio::test]
async fn a_body_that_has_begun_and_finds_no_room_is_broken_off() {
    let mut config = config();
    config.limits.answers_bytes_max = 64 << 10;
    config.limits.answer_timeout = Duration::from_millis(100);
    let served = serve_with(config).await;
    fill_big(&served, 1).await;
    let mut follower = served.open(Request::new("GET", "/v1/events?type=u&follow=true")).await;
    read_until(&mut follower, "HTTP/1.1 200").await;
    let waits = async || served.store.waiting.load(Ordering::SeqCst) == 1;
    eventually("the follower waits", waits).await;
    let mut stalled = served.open(Request::new("GET", "/v1/events/0")).await;
    assert_eq!(status_of(&mut stalled).await, "200");
    let event = json!({"events": [{"id": "1", "source": "s", "type": "u"}]});
    assert_eq!(served.append(event).await.status, 200);
    let mut rest = Vec::new();
    let _ = soon(follower.read_to_end(&mut rest)).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it is not ended as if it were complete");
    drop(stalled);
}

#[tokio::test]
async fn a_client_that_takes_next_to_nothing_is_let_go_and_a_slow_one_is_not() {
    let mut config = config();
    config.limits.write_timeout = Duration::from_millis(500);
    config.limits.write_bytes_per_sec_min = 1 << 30;
    let served = serve_with(config).await;
    fill_big(&served, 2).await;
    let mut stream = served.open(Request::new("GET", "/v1/events")).await;
    let mut chunk = vec![0; 64 << 10];
    let mut taken = 0;
    let gone = soon(async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => taken += n,
            }
        }
    });
    gone.await;
    assert!(taken < 16 << 20, "{taken} bytes were sent to a client that is too slow");

    let mut config = support::config();
    config.limits.write_timeout = Duration::from_millis(500);
    config.limits.write_bytes_per_sec_min = 64 << 10;
    let served = serve_with(config).await;
    fill_big(&served, 1).await;
    let mut stream = served.open(Request::new("GET", "/v1/events")).await;
    let (mut all, mut chunk) = (0, vec![0; 256 << 10]);
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        match soon(stream.read(&mut chunk)).await.unwrap() {
            0 => break,
            n => all += n,
        }
    }
    assert!(all > 8 << 20, "{all} bytes came");
}

//! Appends over a WebSocket, by a client of somebody else.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use precedent_core::{Append, Event, LogName, Read, Store, wire};
use serde_json::{Value, json};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

async fn connect(served: &Served) -> Socket {
    let stream = TcpStream::connect(served.address).await.unwrap();
    let url = format!("ws://{}/v1/appends", served.address);
    soon(client_async(url, stream)).await.unwrap().0
}

fn text(id: impl ToString) -> Message {
    Message::text(json!({"events": [{"id": id.to_string(), "source": "s", "type": "t"}]}).to_string())
}

fn binary(id: &str, data: Vec<u8>) -> Message {
    let event = Event::builder("s", id, "t").data(data).build().unwrap();
    Message::binary(wire::write_append(&Append::from(event)))
}

async fn answer(socket: &mut Socket) -> Value {
    match soon(socket.next()).await.expect("the connection is open").unwrap() {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("no answer: {other:?}"),
    }
}

/// What the server closes with, once it has answered what it took.
async fn closed(socket: &mut Socket) -> (CloseCode, String) {
    match soon(socket.next()).await.expect("it says why").unwrap() {
        Message::Close(Some(frame)) => (frame.code, frame.reason.to_string()),
        other => panic!("no close frame: {other:?}"),
    }
}

async fn ids(served: &Served) -> Vec<String> {
    let page = served.store.read(&LogName::default(), &Read::default()).await.unwrap();
    page.events.iter().map(|event| event.event.id().to_owned()).collect()
}

#[tokio::test]
async fn every_message_is_answered_in_its_turn_whatever_becomes_of_the_others() {
    let served = serve().await;
    let mut socket = connect(&served).await;
    let never = json!({"events": [{"id": "no", "source": "s", "type": "t"}],
        "conditions": [{"stream": "x", "version": 7}]});
    let messages = [
        text("a"),
        Message::text(never.to_string()),
        binary("b", vec![0, 159, 146, 150]),
        Message::text("{\"events\":"),
        Message::binary("neither JSON nor ours"),
        text("c"),
        text("a"),
    ];
    for message in messages {
        socket.feed(message).await.unwrap();
    }
    socket.feed(Message::Ping("are you there".into())).await.unwrap();
    socket.flush().await.unwrap();
    let mut answers = Vec::new();
    while answers.len() < 7 {
        match soon(socket.next()).await.unwrap().unwrap() {
            Message::Text(text) => answers.push(serde_json::from_str::<Value>(&text).unwrap()),
            Message::Pong(pong) => assert_eq!(&pong[..], b"are you there"),
            other => panic!("{other:?}"),
        }
    }
    let position = |n: usize| answers[n]["events"][0]["position"].as_u64();
    let code = |n: usize| answers[n]["code"].as_str();
    assert_eq!([position(0), position(2), position(5)], [Some(0), Some(1), Some(2)]);
    assert_eq!([code(1), code(3), code(4)], [Some("conflict"), Some("invalid"), Some("invalid")]);
    assert_eq!(answers[6]["events"][0], json!({"position": 0, "version": null, "status": "existing"}));
    assert_eq!(ids(&served).await, ["a", "b", "c"]);
    let metrics = served.get("/metrics").await;
    assert!(metrics.text().contains("precedent_socket_appends_total 7\n"), "{}", metrics.text());
    assert!(metrics.text().contains("precedent_sockets_open 1\n"), "{}", metrics.text());
    socket.close(None).await.unwrap();
    eventually("its place is free again", async || {
        served.get("/metrics").await.text().contains("precedent_sockets_open 0\n")
    })
    .await;
}

#[tokio::test]
async fn thousands_can_be_sent_before_the_first_answer_is_read() {
    let served = serve().await;
    let (mut send, mut answers) = connect(&served).await.split();
    let sending = async {
        for n in 0..5_000 {
            send.feed(text(n)).await.unwrap();
        }
        send.flush().await.unwrap();
    };
    let reading = async {
        // Nothing is read until nothing more can be sent, or everything has been.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for n in 0..5_000 {
            let Message::Text(text) = answers.next().await.unwrap().unwrap() else { panic!("{n}") };
            let answer: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(answer["events"][0]["position"], n, "{answer}");
        }
    };
    soon(async { tokio::join!(sending, reading) }).await;
}

#[tokio::test]
async fn who_takes_no_answers_is_read_no_further_and_keeps_nothing_from_others() {
    let mut config = config();
    (config.limits.body_bytes_max, config.limits.bodies_bytes_max) = (1 << 20, 1 << 20);
    let served = serve_with(config).await;
    let mut deaf = Vec::new();
    for n in 0..4 {
        let mut socket = connect(&served).await;
        let mut sent = 0;
        socket.feed(text(n)).await.unwrap();
        // Until nothing more is taken of it: what the system holds for a connection, and what waits to be sent. The answer to what
        // is no append is a problem, many times as long.
        while sent < 10_000_000
            && let Ok(fed) =
                tokio::time::timeout(Duration::from_millis(500), socket.feed(Message::text("?"))).await
        {
            fed.unwrap();
            sent += 1;
        }
        assert!(sent < 10_000_000, "it is read without end");
        deaf.push(socket);
    }
    // All that was read has been recorded or refused, and its room given back.
    eventually("nothing is under way", async || {
        served.get("/metrics").await.text().contains("precedent_requests_open 1\n")
    })
    .await;
    let body = format!("{{\"events\":[]{}}}", " ".repeat(900 << 10));
    served.post("/v1/append", "application/json", body).await.problem(400, "invalid", &[]);
    let mut socket = connect(&served).await;
    socket.send(text("another")).await.unwrap();
    assert_eq!(answer(&mut socket).await["events"][0]["position"], 4);
    // Whoever begins to read gets all of it.
    assert_eq!(answer(&mut deaf[0]).await["events"][0]["position"], 0);
    for _ in 0..1_000 {
        assert_eq!(answer(&mut deaf[0]).await["code"], "invalid");
    }
}

#[tokio::test]
async fn pings_without_end_take_no_memory_without_end() {
    let served = serve().await;
    let mut socket = connect(&served).await;
    let mut sent = 0;
    while sent < 2_000_000
        && let Ok(fed) =
            tokio::time::timeout(Duration::from_millis(500), socket.feed(Message::Ping(vec![7; 125].into())))
                .await
    {
        fed.unwrap();
        sent += 1;
    }
    assert!(sent < 2_000_000, "250 MB of pings were read, and none of their pongs taken");
    // It goes on where they are taken.
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Pong(_)))));
}

#[tokio::test]
async fn messages_of_several_clients_are_written_together() {
    let served = serve().await;
    // Whoever appends on a thread of WebSockets would hold up the others.
    served.store.on_this_thread.store(true, Ordering::SeqCst);
    served.store.hold_appends();
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(connect(&served).await);
    }
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket.send(text(n)).await.unwrap();
    }
    // All of them are read while the first is held up.
    eventually("all are under way", async || served.store.appends_begun.load(Ordering::SeqCst) == 8).await;
    served.store.let_through(8);
    for socket in &mut sockets {
        assert!(answer(socket).await["events"][0]["position"].is_u64());
    }
}

#[tokio::test]
async fn fragments_without_end_are_no_message_and_the_connection_is_closed() {
    let mut config = config();
    config.limits.head_timeout = Duration::from_millis(300);
    let served = serve_with(config).await;
    let (mut read, mut write) = connect(&served).await.into_inner().into_split();
    let flood = async {
        // The beginning of a text, and then nothing of it again and again.
        let empty = [0x00u8, 0x80, 0, 0, 0, 0].repeat(1_000);
        let _ = write.write_all(&[0x01, 0x80, 0, 0, 0, 0]).await;
        while write.write_all(&empty).await.is_ok() {}
    };
    let closed = async {
        let mut answer = [0; 4];
        read.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[0], u16::from_be_bytes([answer[2], answer[3]])), (0x88, 1000));
    };
    tokio::select! {
        () = flood => panic!("it ended before it was told why"),
        () = soon(closed) => {}
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_ends_its_websockets() {
    let served = serve().await;
    let mut socket = connect(&served).await;
    socket.send(text("1")).await.unwrap();
    assert_eq!(answer(&mut socket).await["size"], 1);
    served.running.abort();
    assert_eq!(closed(&mut socket).await.0, CloseCode::Away);
}

#[tokio::test]
async fn what_asks_for_no_websocket_is_told_to() {
    let served = serve().await;
    let plain = served.get("/v1/appends").await;
    plain.problem(426, "upgrade_required", &["WebSocket"]);
    assert_eq!(plain.header("upgrade"), Some("websocket"));
    let request = |version: &str| {
        Request::new("GET", "/v1/appends")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", version)
    };
    let old = served.send(request("8").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")).await;
    old.problem(426, "upgrade_required", &["13"]);
    assert_eq!(old.header("sec-websocket-version"), Some("13"));
    served.send(request("13")).await.problem(400, "invalid", &["Sec-WebSocket-Key"]);
    let asked = |method| {
        Request::new(method, "/v1/appends")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    assert_eq!(served.send(asked("HEAD")).await.status, 400);
    served.send(asked("GET").body("x")).await.problem(400, "invalid", &["without a body"]);
}

#[tokio::test]
async fn who_may_not_ask_opens_nothing() {
    let mut config = config();
    config.token = Some("secret".into());
    config.limits.sockets_max = 1;
    let served = serve_with(config).await;
    let opening = |authorization: &str, origin: &str| {
        Request::new("GET", "/v1/logs/other/appends")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Authorization", authorization)
            .header("Origin", origin)
    };
    let ours = format!("http://{}", served.address);
    served.send(opening("Bearer wrong", &ours)).await.problem(401, "unauthorized", &[]);
    served.send(opening("Bearer secret", "https://evil.example")).await.problem(403, "forbidden_origin", &[]);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&opening("Bearer secret", &ours).bytes(&served.address.to_string())).await.unwrap();
    // The answer that RFC 6455 has for this key.
    read_until(&mut stream, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").await;
    served.send(opening("Bearer secret", &ours)).await.problem(503, "overloaded", &["limit is 1"]);
}

#[tokio::test]
async fn a_message_that_cannot_be_taken_ends_the_connection_and_loses_nothing_before_it() {
    for (bad, code, says) in [
        (
            Message::binary(vec![7; (256 << 10) + 1]),
            CloseCode::Size,
            "262145 bytes or more, the limit is 262144",
        ),
        (Message::text("x".repeat(1 << 20)), CloseCode::Size, "1048576 bytes"),
    ] {
        let served = serve().await;
        let mut socket = connect(&served).await;
        socket.feed(text("before")).await.unwrap();
        socket.feed(bad).await.unwrap();
        // The server may have hung up in the middle of it.
        let _ = socket.feed(text("behind")).await;
        let _ = tokio::time::timeout(Duration::from_millis(200), socket.flush()).await;
        assert_eq!(answer(&mut socket).await["events"][0]["position"], 0);
        let (was, reason) = closed(&mut socket).await;
        assert_eq!(was, code);
        assert!(reason.contains(says), "{reason}");
        assert_eq!(ids(&served).await, ["before"]);
    }
}

#[tokio::test]
async fn bytes_that_are_no_websocket_end_the_connection() {
    let served = serve().await;
    // A text of one byte that is not UTF-8, masked with zeros; a frame that is not masked; one with a reserved bit.
    for (bytes, code) in [
        (&[0x81u8, 0x81, 0, 0, 0, 0, 0xff][..], 1007u16),
        (&[0x81, 0x01, b'x'], 1002),
        (&[0xf1, 0x81, 0, 0, 0, 0, b'x'], 1002),
    ] {
        let socket = connect(&served).await;
        let mut stream = socket.into_inner();
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 4];
        soon(stream.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer[0], 0x88, "a close frame");
        assert_eq!(u16::from_be_bytes([answer[2], answer[3]]), code, "{bytes:?}");
    }
    assert!(ids(&served).await.is_empty());
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_took_and_takes_nothing_after_its_goodbye() {
    let mut served = serve().await;
    served.store.hold_appends();
    let mut socket = connect(&served).await;
    socket.send(text("taken")).await.unwrap();
    eventually("it is under way", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
    served.stop();
    served.store.let_through(1);
    assert_eq!(answer(&mut socket).await["events"][0]["position"], 0);
    assert_eq!(closed(&mut socket).await.0, CloseCode::Away);
    assert!(socket.send(text("late")).await.is_err());
    soon(&mut served.running).await.unwrap().unwrap();
    assert_eq!(ids(&served).await, ["taken"]);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_for_an_answer() {
    let mut config = config();
    config.limits.shutdown_timeout = Duration::from_millis(100);
    let mut served = serve_with(config).await;
    served.store.hold_appends();
    let mut socket = connect(&served).await;
    socket.send(text("held")).await.unwrap();
    eventually("it is under way", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
    served.stop();
    soon(&mut served.running).await.unwrap().unwrap();
    let ended = soon(socket.next()).await;
    assert!(matches!(ended, None | Some(Err(Error::Protocol(_) | Error::Io(_)))), "{ended:?}");
}

#[tokio::test]
async fn who_closes_is_told_so_unless_something_was_not_answered() {
    let served = serve().await;
    let mut socket = connect(&served).await;
    socket.send(text("a")).await.unwrap();
    assert_eq!(answer(&mut socket).await["events"][0]["status"], "recorded");
    let reason = CloseFrame { code: CloseCode::Normal, reason: "that was all".into() };
    socket.send(Message::Close(Some(reason))).await.unwrap();
    assert_eq!(closed(&mut socket).await.0, CloseCode::Normal);
    assert!(matches!(soon(socket.next()).await, None | Some(Err(Error::ConnectionClosed))));
    // What was sent in one piece with the close: a close frame says that what was not answered was not taken.
    for round in 0..50 {
        let mut socket = connect(&served).await;
        let id = format!("last-{round}");
        socket.feed(text(&id)).await.unwrap();
        socket.send(Message::Close(None)).await.unwrap();
        let (mut answered, mut told) = (false, false);
        while let Some(Ok(message)) = soon(socket.next()).await {
            answered |= message.is_text();
            told |= message.is_close();
        }
        let taken = ids(&served).await.contains(&id);
        assert!(answered || !(told && taken), "{id}: closed in order, not answered, and taken");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_and_a_ping_keeps_it() {
    let mut config = config();
    config.limits.head_timeout = Duration::from_millis(1_500);
    let served = serve_with(config).await;
    let (mut silent, mut pinging) = (connect(&served).await, connect(&served).await);
    let keep = async {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            pinging.send(Message::Ping("".into())).await.unwrap();
            assert!(matches!(soon(pinging.next()).await, Some(Ok(Message::Pong(_)))));
        }
        pinging.send(text("still here")).await.unwrap();
        assert_eq!(answer(&mut pinging).await["size"], 1);
    };
    let (_, (code, reason)) = tokio::join!(keep, closed(&mut silent));
    assert_eq!(code, CloseCode::Normal);
    assert!(reason.contains("1.5 seconds"), "{reason}");
}

#[tokio::test]
async fn what_a_broken_connection_had_sent_is_there_whole_or_not_at_all() {
    let served = serve().await;
    for round in 0..20 {
        let mut socket = connect(&served).await;
        for n in 0..10 {
            socket.feed(text(format!("{round}-{n}"))).await.unwrap();
        }
        socket.flush().await.unwrap();
        if round % 2 == 0 {
            answer(&mut socket).await;
        }
        drop(socket);
    }
    eventually("nothing is under way", async || {
        served.get("/metrics").await.text().contains("precedent_sockets_open 0\n")
    })
    .await;
    let ids = ids(&served).await;
    for round in 0..20 {
        let of_round: Vec<_> = ids.iter().filter(|id| id.starts_with(&format!("{round}-"))).collect();
        let first: Vec<_> = (0..of_round.len()).map(|n| format!("{round}-{n}")).collect();
        assert_eq!(of_round.iter().map(|id| id.as_str()).collect::<Vec<_>>(), first);
        assert!(round % 2 == 1 || !of_round.is_empty(), "round {round} had an answer");
    }
}

#[test]
fn an_append_that_the_device_holds_up_holds_up_no_request() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let served = serve().await;
        // The thread of the WebSocket does the append.
        served.store.on_this_thread.store(true, Ordering::SeqCst);
        served.store.hold_appends();
        let (mut socket, mut other) = (connect(&served).await, connect(&served).await);
        socket.send(text("1")).await.unwrap();
        eventually("it is held", async || served.store.appends_begun.load(Ordering::SeqCst) == 1).await;
        other.send(text("2")).await.unwrap();
        for _ in 0..5 {
            assert_eq!(served.get("/healthz").await.status, 200);
            assert_eq!(served.get("/v1/head").await.json()["size"], 0);
        }
        served.store.let_through(2);
        assert_eq!(answer(&mut socket).await["size"], 1);
        assert_eq!(answer(&mut other).await["size"], 2);
    });
}

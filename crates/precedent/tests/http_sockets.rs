//! A client whose appends are messages of a WebSocket, and servers that do not keep to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use precedent::{Append, ErrorKind, Event, HttpStore, LogName, MemoryStore, Result, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

type Socket = WebSocketStream<TcpStream>;

/// What a request was, without what it says: `GET /v1/limits`.
type Asked = Arc<Mutex<Vec<String>>>;

fn numbered(n: usize) -> Append {
    Event::builder("s", n.to_string(), "t").build().unwrap().into()
}

fn appended(n: usize) -> String {
    format!(r#"{{"events":[{{"position":{n},"version":null,"status":"recorded"}}],"size":{}}}"#, n + 1)
}

/// Answers requests as a server does, each on a connection of its own; `socket` has those that become a WebSocket, and
/// without it there are none.
async fn fake<F: Future<Output = ()> + Send + 'static>(socket: Option<fn(Socket) -> F>) -> (String, Asked) {
    fake_with(socket, false).await
}

/// The same; something before it may swallow what asks for a WebSocket.
async fn fake_with<F: Future<Output = ()> + Send + 'static>(
    socket: Option<fn(Socket) -> F>,
    swallows: bool,
) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let (heard, posted) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (heard, posted) = (heard.clone(), posted.clone());
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let len = stream.peek(&mut head).await.unwrap();
                let line = String::from_utf8_lossy(&head[..len]).split(" HTTP").next().unwrap().to_owned();
                heard.lock().unwrap().push(line.clone());
                let (status, body) = match line.as_str() {
                    "GET /v1/limits" => {
                        let limits = precedent::Limits::new(precedent::Durability::Device);
                        let mut limits = serde_json::to_value(limits).unwrap();
                        limits["request_bytes_max"] = 1_000_000.into();
                        limits["message_bytes_max"] = 10_000.into();
                        ("200 OK", limits.to_string())
                    }
                    "POST /v1/logs/main/append" => {
                        ("200 OK", appended(posted.fetch_add(1, Ordering::SeqCst)))
                    }
                    "GET /v1/logs/main/appends" => match socket {
                        Some(socket) => return socket(accept_async(stream).await.unwrap()).await,
                        None if swallows => {
                            while stream.read(&mut head).await.is_ok_and(|n| n > 0) {}
                            return;
                        }
                        None => ("404 Not Found", String::new()),
                    },
                    other => panic!("{other}"),
                };
                let _ = stream.read(&mut head).await;
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                // The whole request is read, so that the answer is not lost with what was not.
                let _ = stream.shutdown().await;
                while stream.read(&mut head).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    (url, asked)
}

fn count(asked: &Asked, line: &str) -> usize {
    asked.lock().unwrap().iter().filter(|asked| *asked == line).count()
}

async fn append(store: &HttpStore, n: usize) -> Result<u64> {
    let log = LogName::default();
    let appended = tokio::time::timeout(Duration::from_secs(20), store.append(&log, numbered(n)));
    Ok(appended.await.expect("an append is answered")?.size)
}

#[tokio::test]
async fn where_there_are_no_websockets_appends_are_requests() {
    let (url, asked) = fake::<std::future::Ready<()>>(None).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    for n in 0..4 {
        assert_eq!(append(&store, n).await.unwrap(), n as u64 + 1);
    }
    // It is asked once, and not with every append.
    assert_eq!(count(&asked, "GET /v1/logs/main/appends"), 1);
    assert_eq!(count(&asked, "POST /v1/logs/main/append"), 4);
}

#[tokio::test]
async fn where_asking_for_a_websocket_is_never_answered_appends_are_requests() {
    let (url, asked) = fake_with::<std::future::Ready<()>>(None, true).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    assert_eq!(append(&store, 0).await.unwrap(), 1);
    // Both wait for it, and neither is lost with it.
    let (first, second) = tokio::join!(append(&store, 1), append(&store, 2));
    let mut sizes = [first.unwrap(), second.unwrap()];
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 3]);
    assert_eq!(append(&store, 3).await.unwrap(), 4);
    assert_eq!(count(&asked, "GET /v1/logs/main/appends"), 1);
    assert_eq!(count(&asked, "POST /v1/logs/main/append"), 4);
}

#[tokio::test]
async fn what_had_been_sent_when_the_connection_broke_may_have_been_written() {
    let (url, asked) = fake(Some(|mut socket: Socket| async move {
        socket.next().await;
    }))
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    let error = append(&store, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(error.may_have_been_written() && error.message().contains(&url), "{error}");
    // It was not sent twice behind the caller's back. The next goes as a request, and the one after it opens another socket.
    assert_eq!(count(&asked, "POST /v1/logs/main/append"), 1);
    append(&store, 2).await.unwrap();
    assert_eq!(append(&store, 3).await.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(count(&asked, "GET /v1/logs/main/appends"), 2);
}

#[tokio::test]
async fn what_a_server_did_not_take_before_it_closed_goes_as_a_request() {
    let (url, asked) = fake(Some(|mut socket: Socket| async move {
        // Two come at once; the first is answered.
        socket.next().await;
        socket.next().await;
        socket.feed(Message::text(appended(7))).await.unwrap();
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }))
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    let (first, second) = tokio::join!(append(&store, 1), append(&store, 2));
    assert_eq!(first.unwrap(), 8);
    // The fake counts requests.
    assert_eq!(second.unwrap(), 2);
    assert_eq!(count(&asked, "POST /v1/logs/main/append"), 2);
}

#[tokio::test]
async fn an_answer_that_is_none_leaves_the_append_unknown() {
    let answers: [fn(Socket) -> futures_util::future::BoxFuture<'static, ()>; 4] = [
        |socket| Box::pin(answering(socket, Message::text("well done"))),
        |socket| Box::pin(answering(socket, Message::text("{}"))),
        |socket| Box::pin(answering(socket, Message::binary(appended(1)))),
        |socket| Box::pin(answering(socket, Message::text("x".repeat(17 << 20)))),
    ];
    for answer in answers {
        let (url, _) = fake(Some(answer)).await;
        let store = HttpStore::connect(&url, None).await.unwrap();
        append(&store, 0).await.unwrap();
        let error = append(&store, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    }
}

async fn answering(mut socket: Socket, message: Message) {
    socket.next().await;
    let _ = socket.send(message).await;
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn a_problem_over_a_websocket_is_the_error_it_says() {
    let (url, _) = fake(Some(|socket: Socket| {
        let problem = r#"{"type":"about:blank","title":"No space is left","status":507,"code":"full","detail":"the disk is full",
            "retryable":true,"may_have_been_written":false,"conflicts":[],"retry_after":60}"#;
        answering(socket, Message::text(problem))
    }))
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    let error = append(&store, 1).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after_secs()), (ErrorKind::Full, Some(60)), "{error}");
    assert!(!error.may_have_been_written());
}

#[tokio::test]
async fn a_store_that_is_closed_or_dropped_leaves_no_connection() {
    for closes in [true, false] {
        let server = precedent_server::bind(
            Arc::new(MemoryStore::new()),
            precedent_server::Config::new("127.0.0.1:0".parse().unwrap()),
        )
        .await
        .unwrap();
        let (url, address) = (server.url(), server.local_addr());
        tokio::spawn(server.run(std::future::pending()));
        let store = HttpStore::connect(&url, None).await.unwrap();
        for n in 0..10 {
            assert_eq!(append(&store, n).await.unwrap(), n as u64 + 1);
        }
        let metrics = metrics(address).await;
        assert!(metrics.contains("precedent_socket_appends_total 9\n"), "{metrics}");
        assert!(metrics.contains("precedent_sockets_open 1\n"), "{metrics}");
        if closes {
            store.close().await.unwrap();
            assert_eq!(append(&store, 10).await.unwrap_err().kind(), ErrorKind::Stopped);
        }
        drop(store);
        let mut left = 1_000;
        while !self::metrics(address).await.contains("precedent_sockets_open 0\n") {
            left -= 1;
            assert!(left > 0, "the WebSocket is still open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn what_was_never_sent_was_not_written() {
    // A server that reads one message and then nothing, until it goes.
    let (url, asked) = fake(Some(|mut socket: Socket| async move {
        socket.next().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }))
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    let log = LogName::default();
    let large = |n: usize| -> Append {
        Event::builder("s", n.to_string(), "t").data(vec![b'x'; 9_000]).build().unwrap().into()
    };
    let appends = (1..3_000).map(|n| store.append(&log, large(n)));
    let (mut unknown, mut done) = (0, 0);
    for result in futures_util::future::join_all(appends).await {
        match result {
            Err(error) if error.kind() == ErrorKind::Unknown => unknown += 1,
            Err(error) => panic!("{error}"),
            // It had not been sent, and went as a request.
            Ok(_) => done += 1,
        }
    }
    assert!(unknown > 0 && done > 0, "{unknown} unknown, {done} done");
    assert_eq!(count(&asked, "POST /v1/logs/main/append"), done + 1);
}

#[tokio::test]
async fn a_store_that_is_closed_waits_for_an_append_whose_websocket_is_refused() {
    let (url, _) = fake::<std::future::Ready<()>>(None).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    let (log, second) = (LogName::default(), numbered(1));
    let mut appending = store.append(&log, second);
    assert!(futures_util::poll!(&mut appending).is_pending());
    let (appended, closed) = tokio::join!(appending, store.close());
    assert_eq!(appended.unwrap().size, 2);
    closed.unwrap();
}

#[tokio::test]
async fn a_server_that_answers_pings_only_with_pings_is_left() {
    let (url, _) = fake(Some(|mut socket: Socket| async move {
        socket.next().await;
        while tokio::time::timeout(Duration::from_secs(20), socket.send(Message::Ping(vec![7; 125].into())))
            .await
            .is_ok_and(|sent| sent.is_ok())
        {}
    }))
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    append(&store, 0).await.unwrap();
    assert_eq!(append(&store, 1).await.unwrap_err().kind(), ErrorKind::Unknown);
}

async fn metrics(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

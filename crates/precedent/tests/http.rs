//! What a client of a server says when things go wrong, and whom it trusts.

use std::sync::Arc;

use futures_util::StreamExt;
use precedent::{Append, ErrorKind, Event, HttpStore, LogName, MemoryStore, Read, Store};
use precedent_server::{Config, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn config() -> Config {
    Config::new("127.0.0.1:0".parse().unwrap())
}

async fn serve(config: Config) -> String {
    let server = precedent_server::bind(Arc::new(MemoryStore::new()), config).await.unwrap();
    let url = server.url();
    tokio::spawn(server.run(std::future::pending()));
    url
}

/// The body of what is answered to this path.
async fn get(url: &str, path: &str) -> String {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn append() -> Append {
    Event::builder("s", "1", "t").build().unwrap().into()
}

/// Answers every request with what `answer` makes of its head; none means the connection is cut.
async fn fake(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer_one(stream, answer.clone()));
        }
    });
    url
}

async fn answer_one(mut stream: TcpStream, answer: Arc<impl Fn(&str) -> Option<String>>) {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        if n == 0 {
            return;
        }
        bytes.extend_from_slice(&chunk[..n]);
    }
    if let Some(text) = answer(&String::from_utf8_lossy(&bytes)) {
        // A client that has read enough hangs up.
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn limits() -> Option<String> {
    let limits = precedent::Limits::new(precedent::Durability::Device);
    let mut limits = serde_json::to_value(limits).unwrap();
    limits["request_bytes_max"] = 1_000_000.into();
    ok(&limits.to_string())
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_nothing_was_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpStore::connect(&url, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.may_have_been_written() && error.message().contains(&url), "{error}");
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_may_have_been_written_and_a_read_has_not() {
    let url = fake(|head| if head.starts_with("GET /v1/limits") { limits() } else { None }).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    let error = store.append(&log, append()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
    assert!(error.may_have_been_written() && error.is_retryable());
    let error = store.read(&log, &Read::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.may_have_been_written());
}

// On one thread: nothing is sent or answered before all have begun.
#[tokio::test]
async fn what_is_appended_at_the_same_time_shares_a_socket_and_is_answered_each() {
    let url = serve(config()).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let numbered =
        |n: usize| -> Append { Event::builder("s", n.to_string(), "t").stream("x").build().unwrap().into() };
    let log = LogName::default();
    let appends = (0..300).map(|n| {
        let mut append = numbered(n);
        if n % 3 == 0 {
            append = append.when(precedent::Condition::stream_is_new(format!("never/{n}")));
        } else if n % 3 == 1 {
            let nobody = precedent::ExpectedVersion::Exact(precedent::Version(1 << 40));
            append = append.when(precedent::Condition::Stream { stream: "x".into(), expected: nobody });
        }
        store.append(&log, append)
    });
    let mut appends: Vec<_> = appends.collect();
    for append in &mut appends {
        assert!(futures_util::poll!(append).is_pending());
    }
    let appended = futures_util::future::join_all(appends).await;
    let mut positions = std::collections::BTreeSet::new();
    for (n, appended) in appended.into_iter().enumerate() {
        match (n % 3, appended) {
            (1, Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                assert_eq!(error.conflicts().len(), 1);
            }
            (1, Ok(_)) => panic!("append {n} has a condition that cannot hold"),
            (_, appended) => {
                assert!(
                    positions.insert(appended.unwrap().events[0].position),
                    "append {n} has a place of its own"
                );
            }
        }
    }
    assert_eq!(positions.len(), 200);
    assert_eq!(store.head(&log).await.unwrap().size, 200);
    // The first goes by itself; all others are messages of one socket.
    assert_eq!((answered(&url, "append").await, answered(&url, "appends").await), (1, 1));
    assert!(get(&url, "/metrics").await.contains("precedent_socket_appends_total 299\n"));
}

#[tokio::test]
async fn who_gives_up_an_append_holds_up_nobody_behind_it() {
    let url = serve(config()).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    let numbered = |n: usize| -> Append { Event::builder("s", n.to_string(), "t").build().unwrap().into() };
    for round in 0..20 {
        let mut appends: Vec<_> = (0..6).map(|n| store.append(&log, numbered(round * 6 + n))).collect();
        // Each is begun, and all but the last are given up.
        for append in &mut appends {
            let _ = futures_util::poll!(append);
        }
        let last = appends.pop().unwrap();
        drop(appends);
        tokio::time::timeout(std::time::Duration::from_secs(30), last).await.expect("it ends").unwrap();
    }
    tokio::time::timeout(std::time::Duration::from_secs(30), store.close())
        .await
        .expect("it closes")
        .unwrap();
    assert_eq!(store.append(&log, append()).await.unwrap_err().kind(), ErrorKind::Stopped);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_lost_for_all_who_shared_the_request() {
    let url = fake(|head| if head.starts_with("GET /v1/limits") { limits() } else { None }).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    let appends = (0..5).map(|n| {
        let event = Event::builder("s", n.to_string(), "t").build().unwrap();
        store.append(&log, event.into())
    });
    for result in futures_util::future::join_all(appends).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
        assert!(error.may_have_been_written());
    }
}

/// How many requests to this route have been answered.
async fn answered(url: &str, route: &str) -> usize {
    let metrics = get(url, "/metrics").await;
    let named = format!("route=\"/v1/logs/{{log}}/{route}\"");
    let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    metrics.lines().filter(|line| line.contains(&named)).map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_page_is_asked_for_with_the_second_event_of_the_one_before() {
    let url = serve(config()).await;
    let store: Arc<dyn Store> = Arc::new(HttpStore::connect(&url, None).await.unwrap());
    let log = precedent::Log::new(store, LogName::default());
    let events = (0..2_500).map(|n| Event::builder("s", n.to_string(), "t").build().unwrap());
    log.append(Append::new(events.collect::<Vec<_>>())).await.unwrap();
    let mut read = log.read(Read::default()).boxed();
    let id = |item: Option<precedent::Result<precedent::RecordedEvent>>| {
        item.unwrap().unwrap().event.id().to_owned()
    };
    assert_eq!(id(read.next().await), "0");
    assert_eq!(answered(&url, "query").await, 1, "who wants one event asks once");
    assert_eq!(id(read.next().await), "1");
    let both = async {
        while answered(&url, "query").await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), both).await.expect("the next page is asked for");
    for n in 2..2_500 {
        assert_eq!(id(read.next().await), n.to_string());
    }
    assert!(read.next().await.is_none());
    assert_eq!(answered(&url, "query").await, 3);
}

#[tokio::test]
async fn a_gateway_that_gives_up_on_an_append_leaves_it_unknown() {
    let url = fake(|head| match head.starts_with("GET /v1/limits") {
        true => limits(),
        false => Some("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into()),
    })
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    assert_eq!(store.append(&log, append()).await.unwrap_err().kind(), ErrorKind::Unknown);
    assert_eq!(store.head(&log).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_at_its_limit() {
    let endless =
        |first: &str| format!("HTTP/1.1 {first}\r\nConnection: close\r\n\r\n{}", "x".repeat(41 << 20));
    let url = fake(move |_| Some(endless("200 OK"))).await;
    let error = HttpStore::connect(&url, None).await.unwrap_err();
    assert!(error.message().contains("1048576"), "{error}");
    let url = fake(move |head| match head.split(' ').nth(1).unwrap() {
        "/v1/limits" => limits(),
        path if path.ends_with("append") => Some(endless("200 OK")),
        path if path.ends_with("head") => Some(endless("503 Service Unavailable")),
        _ => Some(endless("200 OK")),
    })
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    let error = store.append(&log, append()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(error.may_have_been_written());
    for (error, limit) in [
        (store.read(&log, &Read::default()).await.unwrap_err(), "41943040"),
        (store.head(&log).await.unwrap_err(), "1048576"),
        (store.frames(&log, 0, 1).await.unwrap_err(), "41943040"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.message().contains(limit), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_precedent_server_is_not_a_store() {
    let page = fake(|_| ok("<html>hello</html>")).await;
    assert_eq!(HttpStore::connect(&page, None).await.unwrap_err().kind(), ErrorKind::NotAStore);
    let nothing =
        fake(|_| Some("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into()))
            .await;
    assert_eq!(HttpStore::connect(&nothing, None).await.unwrap_err().kind(), ErrorKind::NotAStore);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_the_token_stays_where_it_was_meant_for() {
    let other = fake(|head| panic!("somebody followed: {head}")).await;
    let url = fake(move |_| {
        Some(format!("HTTP/1.1 307 Moved\r\nLocation: {other}/v1/limits\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
    })
    .await;
    let error = HttpStore::connect(&url, Some("secret".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAStore);
    assert!(error.message().contains("redirect") && !error.message().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_log_that_is_shorter_than_before_is_noticed() {
    let sizes = std::sync::atomic::AtomicU64::new(5);
    let url = fake(move |head| {
        if head.starts_with("GET /v1/limits") {
            return limits();
        }
        let size = sizes.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        ok(&format!(
            r#"{{"log":"main","id":null,"size":{size},"root":"{}","frames":1,"recordedtime":null}}"#,
            "0".repeat(64)
        ))
    })
    .await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let log = LogName::default();
    assert_eq!(store.head(&log).await.unwrap().size, 5);
    let error = store.head(&log).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LogWentBackwards);
    assert!(error.message().contains('5') && error.message().contains('4'), "{error}");
}

#[tokio::test]
async fn the_wrong_token_is_unauthorized_and_the_right_one_is_let_in() {
    let url = serve(Config { token: Some("right".into()), ..config() }).await;
    for wrong in [None, Some("wrong".to_owned())] {
        let error = HttpStore::connect(&url, wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    }
    let store = HttpStore::connect(&url, Some("right".into())).await.unwrap();
    let appended = store.append(&LogName::default(), append()).await.unwrap();
    assert_eq!(appended.size, 1);
    assert!(!format!("{store:?}").contains("right") && !store.url().contains("right"));
}

#[tokio::test]
async fn an_append_too_large_for_the_server_is_refused_with_both_numbers() {
    let mut config = config();
    config.limits.body_bytes_max = 10_000;
    let url = serve(config).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let event = Event::builder("s", "1", "t").data(vec![0xff; 10_500]).build().unwrap();
    let error = store.append(&LogName::default(), event.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!(error.message().contains("10000"), "{error}");
}

#[tokio::test]
async fn the_largest_event_goes_through_and_comes_back() {
    let url = serve(config()).await;
    let store = HttpStore::connect(&url, None).await.unwrap();
    let data: Vec<u8> = (0..15u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let event =
        Event::builder("s", "1", "t").datacontenttype("application/octet-stream").data(data).build().unwrap();
    let log = LogName::default();
    store.append(&log, event.clone().into()).await.unwrap();
    let page = store.read(&log, &Read::default()).await.unwrap();
    assert_eq!(page.events[0].event, event);
}

#[test]
fn a_store_can_be_used_from_threads_that_have_no_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let url = serve(config()).await;
        HttpStore::connect(&url, None).await.unwrap()
    });
    let log = LogName::default();
    let appended = futures_util::FutureExt::boxed(store.append(&log, append()));
    let appended = std::thread::scope(|scope| scope.spawn(|| park(appended)).join().unwrap()).unwrap();
    assert_eq!(appended.size, 1);
}

/// Polls on this thread, which sleeps until it is woken.
fn park<T>(mut future: std::pin::Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(out) => return out,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// The URL that the child process of the next test is to connect to.
const CHILD: &str = "PRECEDENT_TEST_URL";

#[tokio::test]
async fn a_certificate_is_trusted_when_its_issuer_is_named() {
    if let Ok(url) = std::env::var(CHILD) {
        let connected = HttpStore::connect(&url, Some("right".into())).await;
        assert_eq!(connected.unwrap().append(&LogName::default(), append()).await.unwrap().size, 1);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let tls = Tls { certificate: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let url = serve(Config { token: Some("right".into()), tls: Some(tls.clone()), ..config() }).await;
    let stranger = HttpStore::connect(&url, Some("right".into())).await.unwrap_err();
    assert_eq!(stranger.kind(), ErrorKind::Unavailable);
    assert!(stranger.message().contains("certificate"), "{stranger}");
    // The variable is read from the environment, which a process had better not change while it runs.
    let name = "a_certificate_is_trusted_when_its_issuer_is_named";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, &url)
        .env(precedent::CA_FILE_VARIABLE, &tls.certificate)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

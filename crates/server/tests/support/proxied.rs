//! A proxy in front of an upstream that the test itself reads from and writes to, so that the borders of chunks are where the test puts
//! them.

use std::net::SocketAddr;
use std::sync::Arc;

use precedent_capture::view::{ModelCall, View};
use precedent_core::*;
use precedent_server::{Config, bind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

pub struct Proxied {
    pub store: Trouble,
    pub address: SocketAddr,
    pub upstream: TcpListener,
    pub _stop: oneshot::Sender<()>,
}

pub async fn proxied() -> Proxied {
    proxied_with(|_| {}).await
}

pub async fn proxied_with(change: impl FnOnce(&mut Config)) -> Proxied {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config();
    let url = format!("up=http://{}/base/", upstream.local_addr().unwrap());
    config.capture.upstreams = vec![url.parse().unwrap()];
    config.capture.fail_closed = true;
    change(&mut config);
    let store = Trouble::none();
    let server = bind(Arc::new(store.clone()), config).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Proxied { store, address, upstream, _stop: stop }
}

pub fn request<'a>(path: &'a str, headers: &[(&str, &str)], body: &[u8]) -> Request<'a> {
    let mut request = Request::new("POST", path).header("Content-Type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request
}

/// What came at the upstream.
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

pub async fn read_request(stream: &mut TcpStream) -> Received {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read_buf(&mut bytes).await.unwrap();
        assert!(n > 0, "the request broke off");
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    while bytes.len() < head_end + length {
        let n = stream.read_buf(&mut bytes).await.unwrap();
        assert!(n > 0, "the request broke off");
    }
    Received { head, body: bytes[head_end..].to_vec() }
}

impl Proxied {
    pub async fn connect(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = request(path, headers, body);
        stream.write_all(&request.bytes(&self.address.to_string())).await.unwrap();
        stream
    }

    /// Sends a request through the proxy and plays an answer in these pieces, each of which has to arrive before the next is sent.
    pub async fn play(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        head: &str,
        pieces: &[&[u8]],
    ) -> (Received, Reply) {
        soon(async {
            // Written beside the rest: a body can be larger than all the buffers on its way.
            let (mut client, mut writer) = TcpStream::connect(self.address).await.unwrap().into_split();
            let bytes = request(path, headers, body).bytes(&self.address.to_string());
            let writing = tokio::spawn(async move {
                writer.write_all(&bytes).await.unwrap();
                writer
            });
            let (mut upstream, _) = self.upstream.accept().await.unwrap();
            let received = read_request(&mut upstream).await;
            // It stays open until the answer has come.
            let _writer = writing.await.unwrap();
            upstream.write_all(head.as_bytes()).await.unwrap();
            let chunked = head.contains("chunked");
            let mut got = Vec::new();
            for (at, piece) in pieces.iter().enumerate() {
                match chunked {
                    true => upstream
                        .write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                        .await
                        .unwrap(),
                    false => upstream.write_all(piece).await.unwrap(),
                }
                // The last piece of an announced length is held until it is recorded, and comes with the end.
                if chunked || at + 1 < pieces.len() {
                    while !got.windows(piece.len()).any(|window| window == *piece) {
                        assert!(client.read_buf(&mut got).await.unwrap() > 0, "the answer broke off");
                    }
                }
            }
            if chunked {
                upstream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            let ended = client.read_to_end(&mut got).await;
            (received, Reply::parse(&got, ended.is_ok()))
        })
        .await
    }

    /// All events, on however many pages.
    pub async fn events(&self) -> Vec<Event> {
        let mut read = Read::default();
        let mut events = Vec::new();
        loop {
            let page = self.store.inner.read(&LogName::default(), &read).await.unwrap();
            events.extend(page.events.into_iter().map(|recorded| recorded.event));
            match page.next {
                Some(next) => read.after = Some(next),
                None => return events,
            }
        }
    }

    /// The data of all gaps.
    pub async fn gaps(&self) -> Vec<Value> {
        let events = self.events().await;
        let gaps = events.iter().filter(|event| event.event_type() == "ai.capture.gap_detected");
        gaps.map(|gap| serde_json::from_slice(gap.data().unwrap()).unwrap()).collect()
    }

    /// Sends these bytes, lets the upstream answer those once it has read the request, and reads whatever comes back. Everything is
    /// written beside the reading: a body is larger than all the buffers on its way.
    pub async fn pass(&self, request: Vec<u8>, answer: Vec<u8>) -> (Option<Received>, Reply) {
        let (mut reader, mut writer) = TcpStream::connect(self.address).await.unwrap().into_split();
        let writing = tokio::spawn(async move {
            // A proxy that does not pass it on may hang up before it has read everything.
            let _ = writer.write_all(&request).await;
            writer
        });
        let serving = async {
            let (mut upstream, _) = self.upstream.accept().await.unwrap();
            let received = read_request(&mut upstream).await;
            let _ = upstream.write_all(&answer).await;
            let _ = upstream.flush().await;
            (received, upstream)
        };
        let reading = async {
            let mut got = Vec::new();
            let ended = reader.read_to_end(&mut got).await;
            Reply::parse(&got, ended.is_ok())
        };
        tokio::pin!(serving, reading);
        tokio::time::timeout(3 * PATIENCE, async {
            let mut received = None;
            let reply = loop {
                tokio::select! {
                    served = &mut serving, if received.is_none() => received = Some(served),
                    reply = &mut reading => break reply,
                }
            };
            drop(writing.await);
            (received.map(|(received, _)| received), reply)
        })
        .await
        .expect("it has to happen soon")
    }

    /// The one call, once it is recorded.
    pub async fn call(&self) -> (Vec<Event>, ModelCall) {
        eventually("the call is recorded", async || {
            self.events().await.iter().any(|event| event.event_type() == "ai.model.called")
        })
        .await;
        let events = self.events().await;
        let mut view = View::of_new(&events);
        assert_eq!(view.calls.len(), 1);
        (events, view.calls.remove(0))
    }
}

pub const ASKED: &[u8] =
    br#"{"model":"gpt-4o-mini", "messages":[{"role":"user","content":"Gr\u00fc\u00dfe"}],"temperature":0.0}"#;
pub const ANSWER: &str = r#"{"id":"c-1","model":"gpt-4o-mini-2024","choices":[{"index":0,"message":{"role":"assistant","content":"Grüße"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;

pub fn head(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: r-1\r\nSet-Cookie: a=b\r\nContent-Length: {length}\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
    )
}

pub const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

//! A server whose doors for OTLP are open, requests of OTLP in protobuf, and a client of gRPC.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use precedent_capture::wire::put_bytes;
use precedent_core::*;
use precedent_server::{Config, bind};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

/// A server whose doors for OTLP are open.
pub struct Open {
    pub store: Trouble,
    pub main: SocketAddr,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    _stop: oneshot::Sender<()>,
}

pub async fn open() -> Open {
    open_with(|_| {}).await
}

pub async fn open_with(change: impl FnOnce(&mut Config)) -> Open {
    let mut config = config();
    config.capture.otlp_http = Some(config.listen);
    config.capture.otlp_grpc = Some(config.listen);
    change(&mut config);
    let store = Trouble::none();
    let server = bind(Arc::new(store.clone()), config).await.unwrap();
    let address = |url: Option<String>| url.unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let (http, grpc) = (address(server.otlp_http_url()), address(server.otlp_grpc_url()));
    let main = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    Open { store, main, http, grpc, _stop: stop }
}

impl Open {
    pub async fn send(&self, to: SocketAddr, request: Request<'_>) -> Reply {
        soon(async {
            let mut stream = TcpStream::connect(to).await.unwrap();
            request.over(&mut stream, &to.to_string()).await
        })
        .await
    }

    pub async fn post(&self, path: &str, media_type: &str, body: &[u8]) -> Reply {
        self.send(self.http, Request::new("POST", path).header("Content-Type", media_type).body(body)).await
    }

    pub async fn events(&self) -> Vec<Event> {
        let page = self.store.inner.read(&LogName::default(), &Read::default()).await.unwrap();
        assert!(page.next.is_none());
        page.events.into_iter().map(|recorded| recorded.event).collect()
    }

    pub async fn gaps(&self) -> Vec<Value> {
        let events = self.events().await;
        let gaps = events.iter().filter(|event| event.event_type() == "ai.capture.gap_detected");
        gaps.map(|gap| serde_json::from_slice(gap.data().unwrap()).unwrap()).collect()
    }
}

pub fn any(text: &str) -> Vec<u8> {
    let mut any = Vec::new();
    put_bytes(1, text.as_bytes(), &mut any);
    any
}

pub fn pair(name: &str, text: &str) -> Vec<u8> {
    let mut pair = Vec::new();
    put_bytes(1, name.as_bytes(), &mut pair);
    put_bytes(2, &any(text), &mut pair);
    pair
}

pub fn span(n: u8, attributes: &[(&str, &str)]) -> Vec<u8> {
    let mut span = Vec::new();
    put_bytes(1, &[n; 16], &mut span);
    put_bytes(2, &[n; 8], &mut span);
    put_bytes(5, b"chat", &mut span);
    for (name, value) in attributes {
        put_bytes(9, &pair(name, value), &mut span);
    }
    span
}

pub fn request(spans: &[Vec<u8>]) -> Vec<u8> {
    let (mut resource, mut scope, mut of_resource, mut out) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    put_bytes(1, &pair("service.name", "shop"), &mut resource);
    put_bytes(1, &resource, &mut of_resource);
    for span in spans {
        put_bytes(2, span, &mut scope);
    }
    put_bytes(2, &scope, &mut of_resource);
    put_bytes(1, &of_resource, &mut out);
    out
}

pub fn chat(n: u8) -> Vec<u8> {
    span(n, &[("gen_ai.operation.name", "chat"), ("gen_ai.request.model", "m")])
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub const PROTOBUF: &str = "application/x-protobuf";

pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// Makes a call; answers its status, and everything in the headers and trailers as text.
pub async fn grpc(to: SocketAddr, service: &str, headers: &[(&str, &str)], body: &[u8]) -> (u32, String) {
    soon(async {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let uri = format!("http://{to}/opentelemetry.proto.collector.{service}/Export");
        let mut request =
            hyper::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let (head, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status =
            head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).expect("a status");
        let status = status.to_str().unwrap().parse().unwrap();
        (status, format!("{:?} {trailers:?} {:?}", head.headers, collected.to_bytes()))
    })
    .await
}

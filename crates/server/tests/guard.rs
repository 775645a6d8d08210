//! Who is answered: addresses, hosts, origins, tokens, certificates.

mod support;

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use precedent_core::{ErrorKind, MemoryStore};
use precedent_server::{Config, Tls, bind};
use support::*;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn without_a_token_only_loopback_can_be_listened_on() {
    let store = Arc::new(MemoryStore::new());
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = bind(store.clone(), Config::new(address.parse().unwrap())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("loopback") && error.message().contains("token"), "{error}");
    }
    let mut config = Config::new("0.0.0.0:0".parse().unwrap());
    for bad in ["", "two words", "ü"] {
        config.token = Some(bad.to_owned());
        assert!(bind(store.clone(), config.clone()).await.is_err(), "{bad}");
    }
    config.token = Some("secret".to_owned());
    bind(store.clone(), config).await.unwrap();
    let taken = bind(store.clone(), support::config()).await.unwrap();
    let error = bind(store, Config::new(taken.local_addr())).await.unwrap_err();
    assert!(error.message().contains(&taken.local_addr().to_string()), "{error}");
}

#[tokio::test]
async fn a_host_that_could_be_rebound_is_misdirected() {
    let served = serve().await;
    let with = |host: &str| {
        let host = host.to_owned();
        let served = &served;
        async move { served.send(Request::new("GET", "/v1/head").header("Host", &host)).await }
    };
    for ours in ["127.0.0.1", "localhost:1", "[::1]:7373", "LocalHost"] {
        assert_eq!(with(ours).await.status, 200, "{ours}");
    }
    for other in
        ["evil.example", "evil.example:7373", "127.0.0.1.evil.example", "10.0.0.1", "[127.0.0.1]evil.com"]
    {
        with(other).await.problem(421, "misdirected", &[other]);
    }
    served.get("http://evil.example/v1/head").await.problem(421, "misdirected", &["evil.example"]);
    let mut config = config();
    config.allowed_hosts = vec!["Log.Example".to_owned()];
    let named = serve_with(config).await;
    let reply = named.send(Request::new("GET", "/v1/head").header("Host", "log.example:443")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_may_not_ask() {
    let served = serve().await;
    let with = |origin: &str| {
        let origin = origin.to_owned();
        let served = &served;
        async move { served.send(Request::new("POST", "/v1/append").header("Origin", &origin).body("{}")).await }
    };
    for other in ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"] {
        with(other).await.problem(403, "forbidden_origin", &[]);
    }
    let own = format!("http://{}", served.address);
    with(&own).await.problem(400, "invalid", &[]);
    let preflight = Request::new("OPTIONS", "/v1/append").header("Origin", "https://evil.example");
    served.send(preflight).await.problem(403, "forbidden_origin", &[]);
    assert_eq!(served.get("/v1/head").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn with_a_token_every_request_has_to_carry_it() {
    let mut config = config();
    config.token = Some("correct-horse".to_owned());
    let served = serve_with(config).await;
    let none = served.get("/v1/head").await;
    none.problem(401, "unauthorized", &["no bearer token"]);
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"precedent\""));
    let with = |value: &str| {
        let value = value.to_owned();
        let served = &served;
        async move { served.send(Request::new("GET", "/v1/head").header("Authorization", &value)).await }
    };
    for wrong in [
        "Bearer wrong",
        "Bearer correct-hors",
        "Bearer correct-horsee",
        "Basic correct-horse",
        "Bearer",
        "Bearer ",
    ] {
        let reply = with(wrong).await;
        let problem = reply.problem(401, "unauthorized", &[]);
        assert!(reply.header("www-authenticate").is_some());
        assert!(!problem.to_string().contains("horse"), "the answer repeats no token");
    }
    for right in ["Bearer correct-horse", "bearer correct-horse"] {
        assert_eq!(with(right).await.status, 200, "{right}");
    }
    for path in ["/metrics", "/openapi.json", "/v1/limits", "/nothing"] {
        served.get(path).await.problem(401, "unauthorized", &[]);
    }
    assert_eq!(served.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn tls_is_spoken_with_the_certificate_that_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = Tls { certificate: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    let mut config = config();
    config.tls = Some(tls.clone());
    let store = Arc::new(MemoryStore::new());
    let error = bind(store.clone(), config.clone()).await.unwrap_err();
    assert!(error.message().contains("cert.pem"), "{error}");
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, "nothing").unwrap();
    let error = bind(store, config.clone()).await.unwrap_err();
    assert!(error.message().contains("key.pem"), "{error}");
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let served = serve_with(config).await;
    assert!(served.url.starts_with("https://127.0.0.1:"), "{}", served.url);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let reply = soon(async {
        let stream = TcpStream::connect(served.address).await.unwrap();
        let mut stream = connector.connect(name.clone(), stream).await.unwrap();
        Request::new("GET", "/v1/head").over(&mut stream, "localhost").await
    })
    .await;
    assert_eq!(reply.status, 200);
    // A WebSocket too.
    let answer = soon(async {
        let stream = TcpStream::connect(served.address).await.unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut socket, _) =
            tokio_tungstenite::client_async("wss://localhost/v1/appends", stream).await.unwrap();
        let append = serde_json::json!({"events": [{"id": "1", "source": "s", "type": "t"}]});
        socket.send(Message::text(append.to_string())).await.unwrap();
        socket.next().await.unwrap().unwrap()
    })
    .await;
    assert!(answer.to_text().unwrap().ends_with("\"size\":1}"), "{answer}");
    // A client that speaks in the clear gets no answer, and hurts nobody.
    let mut clear = TcpStream::connect(served.address).await.unwrap();
    let request = Request::new("GET", "/healthz").bytes("localhost");
    tokio::io::AsyncWriteExt::write_all(&mut clear, &request).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(tokio::io::AsyncReadExt::read_to_end(&mut clear, &mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"));
}

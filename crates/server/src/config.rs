//! What a server is told when it starts, and what it refuses to start with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use precedent_capture::Rules;
use precedent_core::{Error, ErrorKind, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Files with a certificate chain and its private key, in PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How much a server takes on at once.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies that are in memory at once.
    pub bodies_bytes_max: usize,
    /// Bytes of all answers with events or frames that are in memory at once; further ones wait for `answer_timeout`.
    pub answers_bytes_max: usize,
    /// Requests that are answered at once, streams and long polls aside.
    pub requests_max: usize,
    /// Reads, followers and long polls at once.
    pub streams_max: usize,
    /// WebSockets at once.
    pub sockets_max: usize,
    /// Connections at once; further ones wait until one ends.
    pub connections_max: usize,
    /// How long a client may take for the head of a request, and a connection may stand idle.
    pub head_timeout: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_timeout: Duration,
    /// Bytes of a body that a client sends in a second at least, on the average over `body_timeout`.
    pub body_bytes_per_sec_min: u64,
    /// How long an upstream of the proxy may be silent, before its answer and in the middle of it.
    pub upstream_timeout: Duration,
    /// How long an answer waits for room among those on their way out, before it is refused or broken off.
    pub answer_timeout: Duration,
    /// How long a client may take an answer that is ready for it more slowly than `write_bytes_per_sec_min`.
    pub write_timeout: Duration,
    /// Bytes of an answer that a client takes in a second at least, on the average over `write_timeout`.
    pub write_bytes_per_sec_min: u64,
    /// How long what is under way may take after a shutdown has begun.
    pub shutdown_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            // The largest append a store takes: a frame of 16 MiB whose text may double in length as JSON.
            body_bytes_max: 33 << 20,
            bodies_bytes_max: 256 << 20,
            answers_bytes_max: 256 << 20,
            requests_max: 1_024,
            streams_max: 1_024,
            sockets_max: 1_024,
            connections_max: 8_192,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            body_bytes_per_sec_min: 256,
            // A model that thinks before it answers can take minutes for its first byte.
            upstream_timeout: Duration::from_secs(900),
            answer_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(60),
            write_bytes_per_sec_min: 8 << 10,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// What a server captures beside what is appended to it.
#[derive(Debug, Clone, Default)]
pub struct CaptureConfig {
    /// Take OTLP over HTTP on this address; port 0 takes a free one.
    pub otlp_http: Option<SocketAddr>,
    /// Take OTLP over gRPC on this address; port 0 takes a free one.
    pub otlp_grpc: Option<SocketAddr>,
    /// Record spans and log records that say nothing about AI too.
    pub keep_all_spans: bool,
    /// What is taken out before anything captured is recorded.
    pub rules: Rules,
    /// Where the proxy leads.
    pub upstreams: Vec<Upstream>,
    /// Hold an answer back until its request is durable, and refuse calls that cannot be recorded.
    pub fail_closed: bool,
}

/// A provider behind the proxy: its calls are at `/proxy/NAME/…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The name: 1 to 63 of `a-z`, `0-9`, `-` and `_`.
    pub name: String,
    /// Where it is: scheme, host, and the path that goes before that of a request.
    pub url: Uri,
}

impl std::str::FromStr for Upstream {
    type Err = Error;

    /// Reads `NAME=URL`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| {
            Error::invalid(format!(
                "'{}' is no upstream: {what}; expected NAME=URL, such as openai=https://api.openai.com",
                text.escape_debug()
            ))
        };
        let (name, url) = text.split_once('=').ok_or_else(|| bad("it has no '='"))?;
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(fits) {
            return Err(bad("the name is 1 to 63 of a-z, 0-9, '-' and '_'"));
        }
        let url: Uri = url.parse().map_err(|_| bad("the URL cannot be read"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            return Err(bad("the URL begins with http:// or https:// and names a host"));
        }
        if url.query().is_some() || url.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("the URL has no query and no user"));
        }
        Ok(Self { name: name.to_owned(), url })
    }
}

/// Where a server listens and whom it answers.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The bearer token every request has to carry. Without one, only loopback addresses can be listened on.
    pub token: Option<String>,
    /// Speak TLS with this certificate.
    pub tls: Option<Tls>,
    /// Names under which the server is reached beside its own address: for `Host` and `Origin`.
    pub allowed_hosts: Vec<String>,
    /// How much is taken on at once.
    pub limits: ServerLimits,
    /// What is captured.
    pub capture: CaptureConfig,
}

impl Config {
    /// A server on this address, without token or TLS.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            token: None,
            tls: None,
            allowed_hosts: Vec::new(),
            limits: ServerLimits::default(),
            capture: CaptureConfig::default(),
        }
    }

    /// Refuses what is not safe.
    pub fn check(&self) -> Result<()> {
        let addresses = [Some(self.listen), self.capture.otlp_http, self.capture.otlp_grpc];
        let exposed = addresses.into_iter().flatten().find(|address| !address.ip().is_loopback());
        match (&self.token, exposed) {
            (None, Some(address)) => {
                return Err(Error::invalid(format!(
                    "without a token the server listens on loopback only, and {} is not: give it a token, or listen on 127.0.0.1",
                    address.ip()
                )));
            }
            (Some(token), _) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(Error::invalid(
                    "the token is empty or holds a space, a control character or one that is not ASCII",
                ));
            }
            _ => {}
        }
        let upstreams = &self.capture.upstreams;
        for (at, upstream) in upstreams.iter().enumerate() {
            if upstreams[..at].iter().any(|other| other.name == upstream.name) {
                return Err(Error::invalid(format!("the proxy has two upstreams '{}'", upstream.name)));
            }
        }
        let limits = &self.limits;
        for (name, value) in [
            ("requests_max", limits.requests_max),
            ("streams_max", limits.streams_max),
            ("sockets_max", limits.sockets_max),
            ("connections_max", limits.connections_max),
            ("body_bytes_max", limits.body_bytes_max),
            ("answers_bytes_max", limits.answers_bytes_max),
        ] {
            if value == 0 {
                return Err(Error::invalid(format!("{name} is 0, the least is 1")));
            }
        }
        if limits.bodies_bytes_max < limits.body_bytes_max {
            return Err(Error::invalid(format!(
                "all bodies together may have {} bytes, fewer than the {} of a single one",
                limits.bodies_bytes_max, limits.body_bytes_max
            )));
        }
        Ok(())
    }
}

/// Reads certificate and key.
pub(crate) fn tls_config(tls: &Tls) -> Result<Arc<ServerConfig>> {
    let unreadable = |path: &Path, e: rustls::pki_types::pem::Error| {
        Error::new(ErrorKind::Invalid, format!("{}: {e}", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(|list| list.collect::<Result<Vec<_>, _>>())
        .map_err(|e| unreadable(&tls.certificate, e))?;
    if certificates.is_empty() {
        return Err(Error::invalid(format!("{}: holds no certificate", tls.certificate.display())));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| unreadable(&tls.key, e))?;
    let refused = |e: rustls::Error| {
        Error::invalid(format!(
            "certificate {} with key {}: {e}",
            tls.certificate.display(),
            tls.key.display()
        ))
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

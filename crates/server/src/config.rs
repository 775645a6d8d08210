//! What a server is told when it starts, and what it refuses to start with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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
    /// Connections at once; further ones wait until one ends.
    pub connections_max: usize,
    /// How long a client may take for the head of a request, and a connection may stand idle.
    pub head_timeout: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub body_timeout: Duration,
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
            connections_max: 8_192,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(60),
            write_bytes_per_sec_min: 8 << 10,
            shutdown_timeout: Duration::from_secs(10),
        }
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
}

impl Config {
    /// A server on this address, without token or TLS.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, token: None, tls: None, allowed_hosts: Vec::new(), limits: ServerLimits::default() }
    }

    /// Refuses what is not safe.
    pub fn check(&self) -> Result<()> {
        match &self.token {
            None if !self.listen.ip().is_loopback() => {
                return Err(Error::invalid(format!(
                    "without a token the server listens on loopback only, and {} is not: give it a token, or listen on 127.0.0.1",
                    self.listen.ip()
                )));
            }
            Some(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(Error::invalid(
                    "the token is empty or holds a space, a control character or one that is not ASCII",
                ));
            }
            _ => {}
        }
        let limits = &self.limits;
        for (name, value) in [
            ("requests_max", limits.requests_max),
            ("streams_max", limits.streams_max),
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

//! `serve`: the store over HTTP.
//!
//! While it runs, its URL stands in the directory's lock, so that other commands on this machine ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use precedent::{Access, ErrorKind, MemoryStore, OpenOptions, Store};
use precedent_server::{Config, Server, Tls};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::{Clock, DEFAULT_STORE, Global, writing};
use crate::output::{Output, say};

/// Where and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The address to listen on; port 0 takes a free one. Without a token it has to be a loopback address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7373")]
    listen: SocketAddr,
    /// The certificate chain to speak TLS with, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A name the server is reached by, beside its own address; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    #[command(flatten)]
    clock: Clock,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let mut config = Config::new(args.listen);
    config.token = std::env::var("PRECEDENT_TOKEN").ok().filter(|token| !token.is_empty());
    config.tls = match (args.tls_cert, args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        _ => None,
    };
    config.allowed_hosts = args.hosts;
    let has_token = config.token.is_some();
    // What is not safe to serve is refused before a store is made for it.
    config.check()?;

    let url = global.url();
    let options: OpenOptions = writing(args.clock).access(Access::Own);
    let existing = OpenOptions { create: false, ..options.clone() };
    let opened = match precedent::open_store(&url, existing).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotAStore) => {
            // No store is made for a server that cannot start: it starts over an empty one first.
            drop(bind(Arc::new(MemoryStore::new()), config.clone()).await?);
            precedent::open_store(&url, options).await?
        }
        opened => opened?,
    };
    let store = opened.log().store().clone();
    let server = bind(store.clone(), config).await?;
    let served = server.url();
    opened.publish_url(&here(&served, server.local_addr()))?;

    let mut out = Output::stdout();
    match global.json {
        true => out.json(&json!({"url": served, "store": store.url()}))?,
        false => out.line(format!("listening on {served}"))?,
    }
    out.flush()?;
    let token = if has_token { "; requests need the token of PRECEDENT_TOKEN" } else { "" };
    say(format_args!("serving {}{token}; Ctrl-C ends it", store.url()));
    say(format_args!("try:  curl {served}/v1/head"));
    say(format_args!("      curl '{served}/v1/events?limit=3'"));
    let named = if url == DEFAULT_STORE { String::new() } else { format!(" --store {url}") };
    say(format_args!("      precedent read --follow{named}"));

    let ended = server.run(stop_asked_for()).await;
    let closed = store.close().await;
    ended?;
    closed?;
    say(format_args!("stopped; everything acknowledged is durable"));
    Ok(())
}

async fn bind(store: Arc<dyn Store>, config: Config) -> Result<Server> {
    precedent_server::bind(store, config).await.map_err(|error| match error.kind() {
        ErrorKind::Io => Failure::from(error).hint("--listen 127.0.0.1:0 takes a free port"),
        _ => error.into(),
    })
}

/// The URL by which this machine reaches the server: one that listens everywhere is reached on loopback too.
fn here(url: &str, address: SocketAddr) -> String {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => return url.to_owned(),
    };
    let scheme = url.split_once("://").map_or("http", |(scheme, _)| scheme);
    format!("{scheme}://{}", SocketAddr::new(loopback, address.port()))
}

/// Until Ctrl-C, or what a service manager sends.
async fn stop_asked_for() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

//! `serve`: the store over HTTP.
//!
//! While it runs, its URL stands in the directory's lock, so that other commands on this machine ask it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use precedent::{Access, Error, ErrorKind, MemoryStore, OpenOptions, Store};
use precedent_server::{CaptureConfig, Config, Rules, Server, Tls, Upstream};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::{Clock, DEFAULT_STORE, Global, writing};
use crate::output::{Output, say};
use crate::text::escaped;

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
    /// Where OTLP over HTTP is taken: ADDRESS:PORT, port 0 for a free one, or off [default: 127.0.0.1:4318, if it is free]
    #[arg(long, value_name = "ADDRESS", help_heading = "Capture")]
    otlp_http: Option<Door>,
    /// Where OTLP over gRPC is taken: ADDRESS:PORT, port 0 for a free one, or off [default: 127.0.0.1:4317, if it is free]
    #[arg(long, value_name = "ADDRESS", help_heading = "Capture")]
    otlp_grpc: Option<Door>,
    /// Record every span and log record, and not only those about AI
    #[arg(long, help_heading = "Capture")]
    keep_all_spans: bool,
    /// Pass /proxy/NAME/… on to URL and record every call, such as openai=https://api.openai.com; may be repeated
    #[arg(long = "proxy", value_name = "NAME=URL", help_heading = "Capture")]
    upstreams: Vec<Upstream>,
    /// Let no answer through the proxy before its request is durable
    #[arg(long, requires = "upstreams", help_heading = "Capture")]
    proxy_fail_closed: bool,
    /// Rules of what is taken out before anything captured is recorded, instead of those built in
    #[arg(long, value_name = "FILE", help_heading = "Capture")]
    redaction: Option<PathBuf>,
    #[command(flatten)]
    clock: Clock,
}

/// Where OTLP is taken.
#[derive(Debug, Clone, Copy)]
enum Door {
    At(SocketAddr),
    Off,
}

impl FromStr for Door {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            address => address.parse().map(Self::At).map_err(|_| "expected ADDRESS:PORT or off".to_owned()),
        }
    }
}

impl Door {
    /// The address to listen on. Where nobody said anything, the usual port is taken if nobody else has it: a collector beside
    /// this server is no reason not to start. `false` beside the address then says that it is not to be had.
    fn address(door: Option<Self>, port: u16) -> (Option<SocketAddr>, bool) {
        match door {
            Some(Self::Off) => (None, true),
            Some(Self::At(address)) => (Some(address), true),
            None => {
                let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                match std::net::TcpListener::bind(usual) {
                    Ok(_) => (Some(usual), true),
                    Err(_) => (None, false),
                }
            }
        }
    }
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let mut config = Config::new(args.listen);
    config.token = std::env::var("PRECEDENT_TOKEN").ok().filter(|token| !token.is_empty());
    config.tls = match (args.tls_cert, args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        _ => None,
    };
    config.allowed_hosts = args.hosts;
    let (otlp_http, http_is_free) = Door::address(args.otlp_http, 4318);
    let (otlp_grpc, grpc_is_free) = Door::address(args.otlp_grpc, 4317);
    config.capture = CaptureConfig {
        otlp_http,
        otlp_grpc,
        keep_all_spans: args.keep_all_spans,
        rules: match &args.redaction {
            None => Rules::default(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|e| Error::from(e).context(path.display()))?;
                Rules::parse(&text, &path.display().to_string())?
            }
        },
        upstreams: args.upstreams,
        fail_closed: args.proxy_fail_closed,
    };
    let proxied: Vec<String> =
        config.capture.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    let has_token = config.token.is_some();
    // What is not safe to serve is refused before a store is made for it.
    config.check()?;

    let url = global.url();
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    if let Some(log) = parameters.split('&').find(|p| p.starts_with("log=") && *p != "log=main") {
        return Err(Failure::new(format!(
            "the URL names a log, '{}', and a server serves every log of its store",
            escaped(log)
        ))
        .hint("leave it out here; whoever asks the server names the log: http://HOST?log=NAME"));
    }
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
        true => out.json(&json!({
            "url": served,
            "store": store.url(),
            "otlp_http": server.otlp_http_url(),
            "otlp_grpc": server.otlp_grpc_url(),
        }))?,
        false => {
            out.line(format!("listening on {served}"))?;
            if let Some(url) = server.otlp_http_url() {
                out.line(format!("OTLP over HTTP on {url}"))?;
            }
            if let Some(url) = server.otlp_grpc_url() {
                out.line(format!("OTLP over gRPC on {url}"))?;
            }
            for name in proxied {
                out.line(format!("proxy at {served}/proxy/{name}"))?;
            }
        }
    }
    out.flush()?;
    let token = if has_token { "; requests need the token of PRECEDENT_TOKEN" } else { "" };
    say(format_args!("serving {}{token}; Ctrl-C ends it", store.url()));
    for (is_free, port, option) in [(http_is_free, 4318, "--otlp-http"), (grpc_is_free, 4317, "--otlp-grpc")]
    {
        if !is_free {
            say(format_args!(
                "no OTLP on 127.0.0.1:{port}: somebody else has the port; {option} names another"
            ));
        }
    }
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

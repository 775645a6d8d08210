//! Accepts connections, speaks TLS and HTTP/1.1 on them, and ends them in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use precedent_core::{Error, Result, Store};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::config::{Config, tls_config};
use crate::guard::Guard;
use crate::guard::url_of;
use crate::{otlp, proxy, routes};

/// A server that listens and has not begun to answer.
pub struct Server {
    /// The server's own, and those of OTLP.
    doors: Vec<Door>,
    otlp_http: Option<SocketAddr>,
    otlp_grpc: Option<SocketAddr>,
    app: Arc<App>,
}

/// A listener, and what is behind it.
struct Door {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    protocol: Protocol,
    router: Router,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.url())
    }
}

/// Listens where `config` says. Connections wait from now on; they are answered by [`Server::run`].
///
/// # Errors
/// `invalid` for what is not safe (no token and an address that is not loopback) or cannot work; whatever the
/// system says about the address.
pub async fn bind(store: Arc<dyn Store>, config: Config) -> Result<Server> {
    config.check()?;
    let tls = config.tls.as_ref().map(tls_config).transpose()?;
    let app = Arc::new(App::new(store, &config));
    let guard = |listen| Arc::new(Guard::new(&Config { listen, ..config.clone() }));
    let capture = &config.capture;
    let mut router = routes::router(app.clone());
    if let Some(proxy) = proxy::router(app.clone(), &capture.upstreams, capture.fail_closed)? {
        router = router.merge(proxy);
    }
    let mut doors = vec![Door::open(config.listen, tls.clone(), Protocol::Http1, router).await?];
    let (mut otlp_http, mut otlp_grpc) = (None, None);
    if let Some(listen) = capture.otlp_http {
        let router = otlp::http::router(app.clone(), guard(listen));
        let door = Door::open(listen, tls.clone(), Protocol::Http1, router).await?;
        otlp_http = Some(door.address);
        doors.push(door);
    }
    if let Some(listen) = capture.otlp_grpc {
        let router = otlp::grpc::router(app.clone(), guard(listen));
        let tls = tls.map(|tls| {
            let mut tls = ServerConfig::clone(&tls);
            tls.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(tls)
        });
        let door = Door::open(listen, tls, Protocol::Http2, router).await?;
        otlp_grpc = Some(door.address);
        doors.push(door);
    }
    Ok(Server { doors, otlp_http, otlp_grpc, app })
}

impl Door {
    async fn open(
        listen: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        protocol: Protocol,
        router: Router,
    ) -> Result<Self> {
        let named = |e: io::Error| Error::from(e).context(format!("cannot listen on {listen}"));
        let listener = TcpListener::bind(listen).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        Ok(Self { listener, address, tls, protocol, router })
    }

    /// Takes connections until it is dropped.
    async fn accept(&self, app: &Arc<App>, room: &Arc<Semaphore>, connections: &Mutex<JoinSet<()>>) {
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        loop {
            let permit = room.clone().acquire_owned().await;
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the client has gone already: neither is a reason to stop.
                Err(_) => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (app, router, acceptor) = (app.clone(), self.router.clone(), acceptor.clone());
            let protocol = self.protocol;
            let mut connections = connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                let _permit = permit;
                let _busy = app.busy();
                app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                // What goes wrong on a connection has been answered on it, or there is nobody to answer.
                let _ = converse(&app, router, acceptor, protocol, stream).await;
                app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

impl Server {
    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.doors[0].address
    }

    /// The URL of the server, without a path.
    pub fn url(&self) -> String {
        self.url_at(self.local_addr())
    }

    /// Where OTLP over HTTP is taken, if it is.
    pub fn otlp_http_url(&self) -> Option<String> {
        self.otlp_http.map(|address| self.url_at(address))
    }

    /// Where OTLP over gRPC is taken, if it is.
    pub fn otlp_grpc_url(&self) -> Option<String> {
        self.otlp_grpc.map(|address| self.url_at(address))
    }

    fn url_at(&self, address: SocketAddr) -> String {
        url_of(address, self.doors[0].tls.is_some())
    }

    /// Answers until `shutdown` completes. Then it accepts no more, ends those who follow, and gives what is
    /// under way [`shutdown_timeout`](crate::ServerLimits::shutdown_timeout) before it breaks it off. The
    /// store stays open; an append that was broken off goes on in it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { doors, app, .. } = self;
        // If this is dropped in the middle, connections end with it, and WebSockets have to be told.
        let _stops = Stops(app.clone());
        let room = Arc::new(Semaphore::new(app.limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let connections = Mutex::new(JoinSet::new());
        let accepting = join_all(doors.iter().map(|door| door.accept(&app, &room, &connections)));
        tokio::select! {
            biased;
            () = shutdown => {}
            _ = accepting => {}
        }
        drop(doors);
        app.stopping.send_replace(true);
        let _ = timeout(app.limits.shutdown_timeout, app.idle()).await;
        app.capture.record_gaps(&app).await;
        let connections = connections.into_inner();
        connections.unwrap_or_else(|poisoned| poisoned.into_inner()).shutdown().await;
        Ok(())
    }
}

/// Tells all who listen for it that the server has stopped, when it is dropped.
struct Stops(Arc<App>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.stopping.send_replace(true);
    }
}

async fn converse(
    app: &App,
    router: Router,
    acceptor: Option<TlsAcceptor>,
    protocol: Protocol,
    stream: TcpStream,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = Stalling::new(stream, app.limits.write_timeout, app.limits.write_bytes_per_sec_min);
    match acceptor {
        None => serve(app, router, protocol, stream).await,
        Some(acceptor) => {
            let stream = timeout(app.limits.head_timeout, acceptor.accept(stream)).await??;
            serve(app, router, protocol, stream).await
        }
    }
}

async fn serve(
    app: &App,
    router: Router,
    protocol: Protocol,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    if protocol == Protocol::Http2 {
        return serve_http2(app, router, io).await;
    }
    // A request has 100 headers at most, as `docs/http.md` says: with a limit of our own each one would be taken apart in
    // memory that is allocated for it.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.head_timeout)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = app.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// How many calls a connection may have under way, and how many bytes of them it may have sent ahead.
const HTTP2_STREAMS_MAX: u32 = 128;
const HTTP2_WINDOW_BYTES: u32 = 256 << 10;

async fn serve_http2(
    app: &App,
    router: Router,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        // A peer that is gone without a word is noticed.
        .keep_alive_interval(app.limits.head_timeout)
        .keep_alive_timeout(app.limits.head_timeout)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(io::Error::other),
        () = app.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// A stream on which a peer that takes nothing, or next to nothing, for too long is an error.
///
/// Time runs from the first write that has to wait. It ends when the peer has caught up, which a flush shows,
/// or has taken as much as it has to in that time: then the next wait begins a new one.
pub(crate) struct Stalling<T> {
    io: T,
    patience: Duration,
    /// Bytes that are taken within `patience` at least.
    bytes_min: u64,
    /// Bytes taken since `slow` began to run.
    taken: u64,
    slow: Option<Pin<Box<Sleep>>>,
}

impl<T> Stalling<T> {
    /// The same around something else. Whoever takes nothing has its patience anew.
    pub(crate) fn map<U, E>(self, change: impl FnOnce(T) -> Result<U, E>) -> Result<Stalling<U>, E> {
        let Self { io, patience, bytes_min, .. } = self;
        Ok(Stalling { io: change(io)?, patience, bytes_min, taken: 0, slow: None })
    }
}

impl<T: Unpin> Stalling<T> {
    fn new(io: T, patience: Duration, bytes_per_sec_min: u64) -> Self {
        let bytes_min = (bytes_per_sec_min as f64 * patience.as_secs_f64()) as u64;
        // One byte at least: whoever takes nothing is slow at any rate.
        Self { io, patience, bytes_min: bytes_min.max(1), taken: 0, slow: None }
    }

    fn caught_up(&mut self) {
        self.taken = 0;
        self.slow = None;
    }

    /// Looks at the clock while the peer has not taken what is ready for it.
    fn waits(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let patience = self.patience;
        let slow = self.slow.get_or_insert_with(|| Box::pin(sleep(patience)));
        match slow.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn wrote(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.waits(cx)?,
            Poll::Ready(Ok(bytes)) if self.slow.is_some() => {
                self.taken += bytes as u64;
                if self.taken >= self.bytes_min {
                    self.caught_up();
                }
            }
            Poll::Ready(_) => {}
        }
        polled
    }

    fn flushed(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match polled {
            Poll::Pending => self.waits(cx)?,
            Poll::Ready(_) => self.caught_up(),
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stalling<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stalling<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.flushed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.flushed(cx, polled)
    }
}

//! Accepts connections, speaks TLS and HTTP/1.1 on them, and ends them in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
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
use crate::guard::url_of;
use crate::routes;

/// Headers of a request at most: a CloudEvent in binary mode has one for every attribute.
const HEADERS_MAX: usize = 256;

/// A server that listens and has not begun to answer.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    app: Arc<App>,
    router: Router,
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
    let named = |e: io::Error| Error::from(e).context(format!("cannot listen on {}", config.listen));
    let listener = TcpListener::bind(config.listen).await.map_err(named)?;
    let address = listener.local_addr().map_err(named)?;
    let app = Arc::new(App::new(store, &config));
    let router = routes::router(app.clone());
    Ok(Server { listener, address, tls, app, router })
}

impl Server {
    /// The address, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the server, without a path.
    pub fn url(&self) -> String {
        url_of(self.address, self.tls.is_some())
    }

    /// Answers until `shutdown` completes. Then it accepts no more, ends those who follow, and gives what is
    /// under way [`shutdown_timeout`](crate::ServerLimits::shutdown_timeout) before it breaks it off. The
    /// store stays open; an append that was broken off goes on in it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { listener, tls, app, router, .. } = self;
        let acceptor = tls.map(TlsAcceptor::from);
        let room = Arc::new(Semaphore::new(app.limits.connections_max.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let next = async {
                let permit = room.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                next = next => next,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the client has gone already: neither is a reason to stop.
                Err(_) => {
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (app, router, acceptor) = (app.clone(), router.clone(), acceptor.clone());
            connections.spawn(async move {
                let _permit = permit;
                let _busy = app.busy();
                app.metrics.connections.fetch_add(1, Ordering::Relaxed);
                // What goes wrong on a connection has been answered on it, or there is nobody to answer.
                let _ = converse(&app, router, acceptor, stream).await;
                app.metrics.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
        drop(listener);
        app.stopping.send_replace(true);
        let _ = timeout(app.limits.shutdown_timeout, app.idle()).await;
        connections.shutdown().await;
        Ok(())
    }
}

async fn converse(
    app: &App,
    router: Router,
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = Stalling::new(stream, app.limits.write_timeout, app.limits.write_bytes_per_sec_min);
    match acceptor {
        None => serve(app, router, stream).await,
        Some(acceptor) => {
            let stream = timeout(app.limits.head_timeout, acceptor.accept(stream)).await??;
            serve(app, router, stream).await
        }
    }
}

async fn serve(
    app: &App,
    router: Router,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> io::Result<()> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.head_timeout)
        .max_headers(HEADERS_MAX)
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
struct Stalling<T> {
    io: T,
    patience: Duration,
    /// Bytes that are taken within `patience` at least.
    bytes_min: u64,
    /// Bytes taken since `slow` began to run.
    taken: u64,
    slow: Option<Pin<Box<Sleep>>>,
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

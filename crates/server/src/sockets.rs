//! The threads on which WebSockets are read and answered.
//!
//! A request costs both sides several times what the append in it does; a message costs a fraction of that. Of what is left most is
//! waking threads. So a thread that reads a message of somebody who is alone also appends it and answers, and nobody is woken in
//! between: that is why these threads are not those of the runtime, which have others to serve. Messages that have come together are
//! submitted together, share a sync, and are answered in their order.
//!
//! **What was not answered before the server's close frame was not taken**: no message is read after it. A connection that
//! ends without one leaves what was not answered whole or absent.
//!
//! **A client that takes no answers holds up nobody else**: its appends are recorded, and the room they took is given back; of what it
//! has not taken, pongs included, a bounded part waits for it, and no more is read.

use std::future::ready;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use precedent_core::{Append, Appended, Error, LogName, wire};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as Fault, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use crate::app::{App, Busy};
use crate::append::{Held, answer_text, is_alone, submit_each};
use crate::listen::Stalling;
use crate::metrics::Open;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes that are read at once: a buffer of so many is there as long as the connection.
const READ_BYTES: usize = 16 << 10;
/// No more is read to be submitted together once there are so many bytes.
const TOGETHER_BYTES_MAX: usize = 512 << 10;
/// Bytes of the messages of one connection whose answers have not been taken, at most.
const UNANSWERED_BYTES_MAX: usize = 1 << 20;
/// A message counts as so many at least: its answer takes memory, too, and so does a pong.
const COUNTED_BYTES_MIN: usize = 256;
/// How long a client has to take the last answers and the reason, and to say that it has.
const GOODBYE: Duration = Duration::from_secs(2);
/// A frame that closes has 125 bytes, two of them for the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Threads at most; with few processors one, since clients and the store need the others.
const THREADS_MAX: usize = 4;

/// The threads of a server's WebSockets. They start with the first, and end with the server.
#[derive(Default)]
pub(crate) struct Sockets {
    threads: OnceLock<Vec<mpsc::UnboundedSender<Opened>>>,
    /// How many there have been.
    opened: AtomicUsize,
    /// The one that appended last.
    last: AtomicUsize,
}

/// A connection that has become a WebSocket.
struct Opened {
    app: Arc<App>,
    log: LogName,
    /// From 1 on.
    number: usize,
    io: Peer,
    /// What was read of it behind the request.
    read: Vec<u8>,
    place: (Busy, OwnedSemaphorePermit),
}

enum Peer {
    /// It belongs to no runtime, and may belong to any.
    Tcp(Stalling<std::net::TcpStream>),
    /// It stays with the runtime that accepted it, which wakes whoever waits for it.
    Tls(Box<TlsStream<Stalling<TcpStream>>>),
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type Messages = SplitStream<WebSocketStream<Box<dyn Io>>>;
type Answers = SplitSink<WebSocketStream<Box<dyn Io>>, Message>;

/// Gives a connection to one of the threads, once its request is answered and it is a WebSocket.
///
/// # Errors
/// `io` if no thread can be started.
pub(crate) fn open(
    app: &Arc<App>,
    log: LogName,
    upgrade: OnUpgrade,
    place: OwnedSemaphorePermit,
) -> Result<()> {
    let threads = app.sockets.threads()?;
    let number = app.sockets.opened.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = threads[number % threads.len()].clone();
    let place = (app.busy(), place);
    let app = app.clone();
    tokio::spawn(async move {
        // Without an upgrade there is nobody any more.
        let Ok(upgraded) = upgrade.await else { return };
        let (io, read) = match upgraded.downcast::<TokioIo<Stalling<TcpStream>>>() {
            Ok(parts) => match parts.io.into_inner().map(TcpStream::into_std) {
                Ok(io) => (Peer::Tcp(io), parts.read_buf),
                Err(_) => return,
            },
            Err(upgraded) => match upgraded.downcast::<TokioIo<TlsStream<Stalling<TcpStream>>>>() {
                Ok(parts) => (Peer::Tls(Box::new(parts.io.into_inner())), parts.read_buf),
                Err(_) => unreachable!("connections are of these two kinds"),
            },
        };
        let _ = thread.send(Opened { app, log, number, io, read: read.to_vec(), place });
    });
    Ok(())
}

impl Sockets {
    fn threads(&self) -> Result<&[mpsc::UnboundedSender<Opened>]> {
        if let Some(threads) = self.threads.get() {
            return Ok(threads);
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..(processors / 2).clamp(1, THREADS_MAX)).map(|_| start()).collect::<io::Result<_>>();
        let threads = threads.map_err(|e| Error::from(e).context("a thread for WebSockets"))?;
        // If two are the first, those of one end at once.
        Ok(self.threads.get_or_init(|| threads))
    }
}

/// Starts a thread; it ends when what this answers is dropped, and the last of its connections with it.
fn start() -> io::Result<mpsc::UnboundedSender<Opened>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (send, mut opened) = mpsc::unbounded_channel::<Opened>();
    std::thread::Builder::new().name("precedent-socket".into()).spawn(move || {
        runtime.block_on(async {
            while let Some(socket) = opened.recv().await {
                tokio::spawn(socket.serve());
            }
        });
    })?;
    Ok(send)
}

impl Opened {
    async fn serve(self) {
        let Self { app, log, number, io, read, place: _place } = self;
        let io: Box<dyn Io> = match io {
            Peer::Tcp(io) => match io.map(TcpStream::from_std) {
                Ok(io) => Box::new(io),
                Err(_) => return,
            },
            Peer::Tls(io) => io,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_frame_size(Some(app.message_bytes_max()))
            .max_message_size(Some(app.message_bytes_max()));
        // What was read already is nothing, nearly always; a buffer that begins with it stays small.
        let socket = match read.is_empty() {
            true => WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
            false => WebSocketStream::from_partially_read(io, read, Role::Server, Some(config)).await,
        };
        Conversation { app, log, number }.hold(socket).await;
    }
}

/// What was read and submitted together.
struct Batch {
    appends: Vec<BoxFuture<'static, Result<Appended>>>,
    open: Open,
    unanswered: OwnedSemaphorePermit,
}

/// What goes out in its turn: the answers to a batch, or the pong to a ping, which is there already.
struct Turn {
    answers: Vec<Result<Appended>>,
    _unanswered: OwnedSemaphorePermit,
}

/// Why no further message is read.
enum End {
    /// The connection broke.
    Gone,
    /// The client closes it.
    Left,
    /// We close it, and say why.
    Closing(CloseCode, String),
    /// The same, and what comes behind cannot be told apart any more.
    Lost(CloseCode, String),
}

/// What one client says and is told.
struct Conversation {
    app: Arc<App>,
    log: LogName,
    number: usize,
}

impl Conversation {
    async fn hold(&self, socket: WebSocketStream<Box<dyn Io>>) {
        let (mut answers, mut messages) = socket.split();
        let (code, reason, readable) = match self.talk(&mut messages, &mut answers).await {
            End::Gone => return,
            // It is told that it is closed; where something it sent was not answered that would mean that it was not taken, so not then.
            End::Left => {
                let _ = timeout(GOODBYE, answers.close()).await;
                return;
            }
            End::Closing(code, reason) => (code, reason, true),
            End::Lost(code, reason) => (code, reason, false),
        };
        let goodbye = async {
            let frame = CloseFrame { code, reason: within(&reason, CLOSE_REASON_BYTES_MAX).into() };
            let _ = answers.send(Message::Close(Some(frame))).await;
            // Until the client has closed too: data that was not read when a connection ends takes the last answers with it.
            match readable {
                true => while let Some(Ok(_)) = messages.next().await {},
                false => sleep(GOODBYE).await,
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Takes messages and answers them, until there is a reason to stop. In one task, so that nothing is handed from thread to thread;
    /// in three parts, so that appends are heard out also while the client takes no answers.
    async fn talk(&self, messages: &mut Messages, answers: &mut Answers) -> End {
        let (submitted, batches) = mpsc::unbounded_channel();
        let (done, turns) = mpsc::unbounded_channel();
        let all = async {
            tokio::join!(
                self.listen(messages, submitted),
                hear_out(batches, done),
                self.answer(answers, turns)
            )
        };
        // Once the server stops, what was taken has so long to be answered.
        let stopping = async {
            self.app.stopped().await;
            sleep(self.app.limits.shutdown_timeout).await;
        };
        tokio::select! {
            (end, (), answered) = all => if answered.is_ok() { end } else { End::Gone },
            () = stopping => End::Gone,
        }
    }

    /// Reads messages, and submits what they ask for until there is a reason to stop.
    async fn listen(&self, messages: &mut Messages, submitted: mpsc::UnboundedSender<Batch>) -> End {
        let stopped = self.app.stopped();
        let patience = self.app.limits.head_timeout;
        let unanswered = Arc::new(Semaphore::new(UNANSWERED_BYTES_MAX));
        // One timer that is looked at when it ends, and not one for every message.
        let mut heard = Instant::now();
        let silent = sleep_until(heard + patience);
        tokio::pin!(stopped, silent);
        loop {
            let message = tokio::select! {
                biased;
                () = stopped.as_mut() => return End::Closing(CloseCode::Away, "the server stops".into()),
                message = messages.next() => message,
                // Also where reading what is no whole message has used up what a task may do at once.
                () = unconstrained(silent.as_mut()) => {
                    if heard.elapsed() < patience {
                        silent.as_mut().reset(heard + patience);
                        continue;
                    }
                    let secs = patience.as_secs_f32();
                    let reason = format!("no whole message, and no ping, came for {secs} seconds");
                    return End::Closing(CloseCode::Normal, reason);
                }
            };
            heard = Instant::now();
            // What has come already goes with it.
            let (mut appends, mut bytes, mut pings) = (Vec::new(), 0, 0);
            let (mut next, mut end) = (Some(message), None);
            while let Some(message) = next.take() {
                match append_of(message) {
                    ControlFlow::Break(why) => end = Some(why),
                    // A ping, whose pong has its turn too.
                    ControlFlow::Continue(None) => pings += 1,
                    ControlFlow::Continue(Some((len, append))) => {
                        bytes += len;
                        appends.push(append);
                        if appends.len() < wire::APPENDS_MAX && bytes < TOGETHER_BYTES_MAX {
                            next = messages.next().now_or_never();
                        }
                    }
                }
            }
            let answers = appends.len() + pings;
            if answers > 0 {
                let permits = bytes.max(answers * COUNTED_BYTES_MIN).min(UNANSWERED_BYTES_MAX) as u32;
                let permit =
                    unanswered.clone().acquire_many_owned(permits).await.expect("it is never closed");
                // Nobody takes answers any more once the connection is broken.
                if submitted.send(self.submit(appends, bytes, permit).await).is_err() {
                    return End::Gone;
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Submits what was read together. Waits for room in memory: what comes meanwhile stays with the system, and in the end with
    /// whoever sends it.
    async fn submit(
        &self,
        appends: Vec<Result<Append>>,
        bytes: usize,
        unanswered: OwnedSemaphorePermit,
    ) -> Batch {
        let Self { app, log, number } = self;
        let count = appends.len();
        let open = Open::new(app, count);
        if count == 0 {
            return Batch { appends: Vec::new(), open, unanswered };
        }
        app.metrics.socket_appends.fetch_add(count as u64, Ordering::Relaxed);
        app.metrics.body_bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        let room = app.room(bytes).await;
        // Several clients that take turns would each have a sync of their own if each were done here and now: the messages of
        // the others have not been read yet.
        let again = app.sockets.last.swap(*number, Ordering::Relaxed) == *number;
        let appends = match count {
            // Blocking is what this thread is for.
            1 if again && is_alone(app) => {
                let append = |append| app.store.append_blocking(log, append);
                appends.into_iter().map(|it| ready(it.and_then(append)).boxed()).collect()
            }
            _ => submit_each(app, log, appends, Held::new(app, Some(room))),
        };
        Batch { appends, open, unanswered }
    }

    /// Sends the answers in their order, and as many together as there are.
    async fn answer(
        &self,
        answers: &mut Answers,
        mut turns: mpsc::UnboundedReceiver<Turn>,
    ) -> Result<(), Fault> {
        loop {
            let turn = match turns.try_recv() {
                Ok(turn) => turn,
                Err(_) => {
                    answers.flush().await?;
                    match turns.recv().await {
                        Some(turn) => turn,
                        None => return Ok(()),
                    }
                }
            };
            if turn.answers.is_empty() {
                answers.flush().await?;
            }
            for appended in turn.answers {
                if let Ok(appended) = &appended {
                    self.app.metrics.appended(appended);
                }
                answers.feed(Message::text(answer_text(appended))).await?;
            }
        }
    }
}

/// Waits for what comes of each batch, one behind the other, and gives back the room it took.
async fn hear_out(mut batches: mpsc::UnboundedReceiver<Batch>, done: mpsc::UnboundedSender<Turn>) {
    while let Some(Batch { appends, open, unanswered }) = batches.recv().await {
        let mut answers = Vec::with_capacity(appends.len());
        for append in appends {
            answers.push(append.await);
        }
        drop(open);
        if done.send(Turn { answers, _unanswered: unanswered }).is_err() {
            return;
        }
    }
}

/// The beginning of a text, in so many bytes.
fn within(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The append that a message is, and its length; nothing for a ping or its answer.
fn append_of(message: Option<Result<Message, Fault>>) -> ControlFlow<End, Option<(usize, Result<Append>)>> {
    ControlFlow::Continue(match message {
        Some(Ok(Message::Binary(bytes))) => Some((bytes.len(), wire::parse_binary_append(bytes))),
        Some(Ok(Message::Text(text))) => Some((text.len(), wire::parse_append(text.as_bytes()))),
        Some(Ok(Message::Close(_))) => return ControlFlow::Break(End::Left),
        None => return ControlFlow::Break(End::Gone),
        Some(Ok(_)) => None,
        Some(Err(fault)) => return ControlFlow::Break(end_of(fault)),
    })
}

fn end_of(fault: Fault) -> End {
    let (code, reason) = match fault {
        Fault::Capacity(CapacityError::MessageTooLong { size, max_size }) => (
            CloseCode::Size,
            format!("a message of {size} bytes or more, the limit is {max_size}: send it by POST"),
        ),
        Fault::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Gone,
        Fault::Protocol(error) => (CloseCode::Protocol, error.to_string()),
        Fault::Utf8(_) => (CloseCode::Invalid, "the message is not UTF-8".to_owned()),
        _ => return End::Gone,
    };
    End::Lost(code, reason)
}

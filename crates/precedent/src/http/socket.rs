//! A WebSocket to one log: appends go as messages, and are answered in their order.
//!
//! One task has the connection. Whoever appends leaves the message in a queue and wakes it; what is there when it runs goes
//! out together. There is no timer: an append that comes alone goes at once.
//!
//! **What is not known is said.** A server that closes the connection in order has not taken what it did not answer, and that goes
//! another way. When it breaks, what had been sent is [`ErrorKind::Unknown`](precedent_core::ErrorKind::Unknown).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use precedent_core::{Error, ErrorKind, LogName};
use reqwest::Upgraded;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::unconstrained;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::LIST_BYTES_MAX;
use super::connection::{Connection, IDLE_TIMEOUT, SILENCE_TIMEOUT};

/// How long a server that would not open one is not asked again: something that stands before it changes seldom.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// How long appends wait for one to be opened.
const OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings that come while the pong to none of them can be sent. Ours sends no pings, what stands before it seldom.
const PINGS_MAX: usize = 64;
/// How long the server has to answer that we leave.
const GOODBYE: Duration = Duration::from_secs(2);
/// Bytes that are read at once.
const READ_BYTES: usize = 8 << 10;

/// What came of an append.
pub(super) enum Told {
    Answer(Utf8Bytes),
    /// The server has not taken it, and will not.
    NotTaken,
    /// It was sent, and the answer did not come.
    Lost(Error),
}

/// A WebSocket that is being opened, open, or at its end.
pub(super) struct Socket {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Of those whose answer is to come, in their order.
    sent: VecDeque<oneshot::Sender<Told>>,
    /// That came since the last time everything was sent.
    pings: usize,
    leaving: bool,
    /// Nothing is taken any more.
    ended: bool,
    refused: Option<Instant>,
}

impl Queue {
    /// Whether nobody needs the connection any more.
    fn has_left(&self) -> bool {
        self.leaving && self.waiting.is_empty() && self.sent.is_empty()
    }
}

/// An append that is yet to be sent.
struct Waiting {
    message: Bytes,
    answer: oneshot::Sender<Told>,
}

/// Why a connection ends.
enum End {
    /// It was not opened, by what answered.
    Refused,
    /// Nobody could be reached.
    Unreachable,
    /// Nobody needs it, and the server is yet to be told so.
    Left,
    /// The server closed it in order.
    Closed,
    Broken(String),
}

impl Socket {
    /// Begins to open one. What is appended meanwhile waits for it.
    pub(super) fn open(connection: &Arc<Connection>, runtime: &Handle, log: &LogName) -> Arc<Self> {
        let socket = Arc::new(Self { queue: Mutex::default(), wake: Notify::new() });
        let ending = Ending { socket: socket.clone(), connection: connection.clone(), end: None };
        runtime.spawn(drive(ending, log.clone()));
        socket
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether appends may go over it.
    pub(super) fn is_open(&self) -> bool {
        !self.queue().ended
    }

    /// Whether the server would not open it, and is not to be asked again yet.
    pub(super) fn was_refused_lately(&self) -> bool {
        self.queue().refused.is_some_and(|at| at.elapsed() < REFUSED_FOR)
    }

    /// Sends an append. Who stops waiting before it is given to the connection has appended nothing; after that it goes on.
    pub(super) async fn append(&self, message: Bytes) -> Told {
        let (answer, told) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.ended {
                return Told::NotTaken;
            }
            queue.waiting.push_back(Waiting { message, answer });
        }
        self.wake.notify_one();
        told.await
            .unwrap_or_else(|_| Told::Lost(Error::new(ErrorKind::Stopped, RUNTIME_ENDED).maybe_written()))
    }

    /// Closes it once what is in the queue has been sent.
    pub(super) fn leave(&self) {
        self.queue().leaving = true;
        self.wake.notify_one();
    }

    /// The next message, if somebody waits for its answer, which is expected from now on.
    fn next(&self) -> Option<Bytes> {
        let mut queue = self.queue();
        while let Some(Waiting { message, answer }) = queue.waiting.pop_front() {
            if !answer.is_closed() {
                queue.sent.push_back(answer);
                return Some(message);
            }
        }
        None
    }
}

/// Tells those who wait how the connection ended, also where its task is dropped because the runtime ends.
struct Ending {
    socket: Arc<Socket>,
    connection: Arc<Connection>,
    end: Option<End>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = self.socket.queue();
        queue.ended = true;
        let (waiting, sent) = (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.sent));
        if let Some(End::Refused) = self.end {
            queue.refused = Some(Instant::now());
        }
        drop(queue);
        for Waiting { answer, .. } in waiting {
            let _ = answer.send(match &self.end {
                Some(_) => Told::NotTaken,
                None => Told::Lost(Error::new(ErrorKind::Stopped, RUNTIME_ENDED)),
            });
        }
        for answer in sent {
            let _ = answer.send(match &self.end {
                Some(End::Broken(why)) => Told::Lost(self.connection.unanswered(why)),
                Some(_) => Told::NotTaken,
                None => Told::Lost(Error::new(ErrorKind::Stopped, RUNTIME_ENDED).maybe_written()),
            });
        }
    }
}

const RUNTIME_ENDED: &str = "the runtime that the store was connected in has ended";

async fn drive(mut ending: Ending, log: LogName) {
    let upgraded = match timeout(OPENING_TIMEOUT, ending.connection.upgrade(&log)).await {
        Ok(Ok(Some(upgraded))) => upgraded,
        Ok(Ok(None)) | Err(_) => return ending.end = Some(End::Refused),
        Ok(Err(_)) => return ending.end = Some(End::Unreachable),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_frame_size(Some(LIST_BYTES_MAX))
        .max_message_size(Some(LIST_BYTES_MAX));
    let (mut messages, mut answers) =
        WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await.split();
    let end = tokio::select! {
        biased;
        end = hear(&ending.socket, &mut answers) => end,
        end = send(&ending.socket, &mut messages) => end,
    };
    let left = matches!(end, End::Left);
    ending.end = Some(end);
    drop(ending);
    if left {
        let goodbye = async {
            let _ = messages.send(Message::Close(None)).await;
            while let Some(Ok(_)) = answers.next().await {}
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// Tells each who waits its answer, until the connection ends.
async fn hear(socket: &Socket, answers: &mut SplitStream<WebSocketStream<Upgraded>>) -> End {
    // One timer that is looked at when it ends, and not one for every answer.
    let mut last = Instant::now();
    let timer = sleep_until((last + IDLE_TIMEOUT).into());
    tokio::pin!(timer);
    loop {
        let heard = tokio::select! {
            biased;
            heard = answers.next() => heard,
            // Also where reading what is no whole answer has used up what a task may do at once.
            () = unconstrained(timer.as_mut()) => {
                let silent = last.elapsed();
                let next = if silent < IDLE_TIMEOUT { last } else { Instant::now() } + IDLE_TIMEOUT;
                timer.as_mut().reset(next.into());
                if silent >= SILENCE_TIMEOUT {
                    return End::Broken(format!("nothing came for {} seconds", silent.as_secs()));
                }
                let mut queue = socket.queue();
                if silent >= IDLE_TIMEOUT && queue.sent.is_empty() && queue.waiting.is_empty() {
                    // A moment later an append opens another.
                    queue.ended = true;
                    return End::Left;
                }
                continue;
            }
        };
        last = Instant::now();
        match heard {
            Some(Ok(Message::Text(answer))) => {
                let mut queue = socket.queue();
                let told = queue.sent.pop_front();
                let left = queue.has_left();
                drop(queue);
                let Some(told) = told else { return End::Broken("an answer came to nothing".to_owned()) };
                // Whoever gave up does not need it.
                let _ = told.send(Told::Answer(answer));
                if left {
                    return End::Left;
                }
            }
            Some(Ok(Message::Close(_))) => return End::Closed,
            Some(Ok(Message::Ping(_))) => {
                let mut queue = socket.queue();
                queue.pings += 1;
                if queue.pings > PINGS_MAX {
                    return End::Broken("more pings came than could be answered".to_owned());
                }
                drop(queue);
                socket.wake.notify_one();
            }
            Some(Ok(Message::Pong(_))) => {}
            Some(Ok(_)) => return End::Broken("an answer is not text".to_owned()),
            Some(Err(error)) => return End::Broken(error.to_string()),
            None => return End::Broken("the connection ended".to_owned()),
        }
    }
}

/// Sends what waits, until nobody needs the connection.
async fn send(socket: &Socket, messages: &mut SplitSink<WebSocketStream<Upgraded>, Message>) -> End {
    let mut last = 0;
    loop {
        socket.wake.notified().await;
        // Whoever was answered has more to append, nearly always: then it goes with these and not behind them.
        if last > 1 || !socket.queue().sent.is_empty() {
            tokio::task::yield_now().await;
        }
        last = 0;
        loop {
            // Only what the connection has room for is taken out of the queue.
            if let Err(error) = poll_fn(|cx| messages.poll_ready_unpin(cx)).await {
                return End::Broken(error.to_string());
            }
            let Some(message) = socket.next() else { break };
            last += 1;
            if let Err(error) = messages.start_send_unpin(Message::Binary(message)) {
                return End::Broken(error.to_string());
            }
        }
        if let Err(error) = messages.flush().await {
            return End::Broken(error.to_string());
        }
        let mut queue = socket.queue();
        queue.pings = 0;
        if queue.has_left() {
            return End::Left;
        }
    }
}

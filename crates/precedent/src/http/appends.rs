//! Appends on their way: as messages of a WebSocket while there are many, and as requests otherwise.
//!
//! A request costs both sides several times what an append does, a message a fraction of that. So an append that follows
//! another of the same log soon opens a [`Socket`] for it, and those behind it are messages there. Seldom ones, large ones, and all
//! where the server or something before it has no WebSockets, are requests of their own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use precedent_core::{Append, Appended, Error, LogName, Result, wire};
use reqwest::{Method, header};
use tokio::runtime::Handle;

use super::LIST_BYTES_MAX;
use super::connection::{Connection, IDLE_TIMEOUT};
use super::socket::{Socket, Told};

/// WebSockets of one store at once: a server has so many for all.
const SOCKETS_MAX: usize = 16;

/// The appends of one store.
pub(super) struct Appends {
    connection: Arc<Connection>,
    runtime: Handle,
    request_bytes_max: u64,
    /// What goes as a message; 0 where the server takes none.
    message_bytes_max: usize,
    ways: Mutex<HashMap<LogName, Way>>,
}

/// How the appends of a log went lately.
enum Way {
    /// As a request, at this moment.
    Request(Instant),
    Socket(Arc<Socket>),
}

impl Appends {
    pub(super) fn new(
        connection: Arc<Connection>,
        runtime: Handle,
        request_bytes_max: u64,
        message_bytes_max: usize,
    ) -> Self {
        Self { connection, runtime, request_bytes_max, message_bytes_max, ways: Mutex::default() }
    }

    /// The most bytes that the body of a request can have.
    pub(super) fn request_bytes_max(&self) -> u64 {
        self.request_bytes_max
    }

    pub(super) async fn append(&self, log: &LogName, append: &Append) -> Result<Appended> {
        let body = Bytes::from(wire::write_append(append));
        if body.len() as u64 > self.request_bytes_max {
            let (len, max) = (body.len() as u64, self.request_bytes_max);
            return Err(Error::limit("the append", len, max, "bytes as a request"));
        }
        let writing = self.connection.writing()?;
        if body.len() <= self.message_bytes_max
            && let Some(socket) = self.socket(log)
        {
            match socket.append(body.clone()).await {
                Told::Answer(answer) => return self.connection.appended(answer.as_bytes()),
                Told::Lost(error) => return Err(error),
                Told::NotTaken => {}
            }
        }
        let request = self
            .connection
            .log_request(Method::POST, log, "append")
            .header(header::CONTENT_TYPE, wire::APPEND_MEDIA_TYPE)
            .body(body);
        let answer = self.connection.send_write(&writing, request, LIST_BYTES_MAX).await?;
        self.connection.appended(&answer.body)
    }

    /// The socket of this log, if an append is to go over it.
    fn socket(&self, log: &LogName) -> Option<Arc<Socket>> {
        let mut ways = self.ways.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let now = Instant::now();
        let asks_for_one = match ways.get(log) {
            Some(Way::Socket(socket)) if socket.is_open() => return Some(socket.clone()),
            Some(Way::Socket(socket)) if socket.was_refused_lately() => return None,
            Some(Way::Request(last)) => now.duration_since(*last) < IDLE_TIMEOUT,
            Some(Way::Socket(_)) | None => false,
        };
        let is_open = |way: &&Way| matches!(way, Way::Socket(socket) if socket.is_open());
        if asks_for_one && ways.values().filter(is_open).count() < SOCKETS_MAX {
            let socket = Socket::open(&self.connection, &self.runtime, log);
            ways.insert(log.clone(), Way::Socket(socket.clone()));
            return Some(socket);
        }
        ways.insert(log.clone(), Way::Request(now));
        None
    }

    /// Ends the sockets.
    pub(super) fn leave(&self) {
        let ways = self.ways.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for way in ways.values() {
            if let Way::Socket(socket) = way {
                socket.leave();
            }
        }
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        self.leave();
    }
}

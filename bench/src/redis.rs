//! Redis: a stream for each stream, every write synced (`appendfsync always`) before it is answered.
//!
//! It knows no order over all streams and no types, so a scan reads stream after stream and reads by type are not
//! there. A batch is `MULTI … EXEC`. The client is the few lines of the protocol that are needed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::chats::stream_name;
use crate::child::{Child, free_address};
use crate::peer::{Appender, Peer, Record, Result, Sink, What};

const PROGRAM: &str = "redis-server";

pub(crate) fn is_installed() -> bool {
    let mut command = Command::new(PROGRAM);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub(crate) struct Redis {
    child: Child,
    reader: Mutex<Connection>,
}

impl Redis {
    pub(crate) fn start(place: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(PROGRAM);
        command.args(["--bind", "127.0.0.1", "--port"]).arg(address.port().to_string());
        command.arg("--dir").arg(place);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--daemonize", "no"]);
        let child = Child::start(command, address)?;
        let mut reader = Connection::open(address)?;
        reader.wait_until_loaded()?;
        Ok(Self { child, reader: Mutex::new(reader) })
    }
}

struct Connection {
    to: TcpStream,
    from: BufReader<TcpStream>,
    out: Vec<u8>,
}

/// What a server answers, without what nobody looks at.
enum Reply {
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Reply>),
    Other,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let to = TcpStream::connect(address)?;
        to.set_nodelay(true)?;
        let from = BufReader::with_capacity(256 << 10, to.try_clone()?);
        Ok(Self { to, from, out: Vec::new() })
    }

    fn put(&mut self, words: &[&[u8]]) {
        self.out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn put_event(&mut self, record: &Record) {
        let (stream, id) = (record.stream.as_bytes(), record.id.as_bytes());
        self.put(&[b"XADD", stream, b"*", b"i", id, b"t", record.event_type.as_bytes(), b"d", &record.data]);
    }

    fn send(&mut self) -> Result<()> {
        self.to.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<Reply> {
        self.put(words);
        self.send()?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or("redis hung up")?;
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Err(format!("redis: {rest}").into()),
            "$" => match usize::try_from(rest.parse::<i64>()?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.from.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Ok(Reply::Bytes(bytes))
                }
                Err(_) => Ok(Reply::Other),
            },
            "*" => (0..rest.parse::<i64>()?).map(|_| self.reply()).collect::<Result<_>>().map(Reply::List),
            _ => Ok(Reply::Other),
        }
    }

    /// It listens before it has read its file.
    fn wait_until_loaded(&mut self) -> Result<()> {
        for _ in 0..60_000 {
            match self.ask(&[b"PING"]) {
                Err(error) if error.to_string().contains("LOADING") => {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                answer => return answer.map(drop),
            }
        }
        Err("redis is still loading after two minutes".into())
    }

    fn read(&mut self, stream: &str, sink: Sink<'_>) -> Result<()> {
        let Reply::List(events) = self.ask(&[b"XRANGE", stream.as_bytes(), b"-", b"+"])? else {
            return Err("redis: XRANGE answered with no list".into());
        };
        for event in events {
            let Reply::List(mut event) = event else { return Err("redis: an event is no list".into()) };
            let Some(Reply::List(fields)) = event.pop() else {
                return Err("redis: an event has no fields".into());
            };
            match fields.last() {
                Some(Reply::Bytes(data)) => sink(data),
                _ => return Err("redis: an event has no data".into()),
            }
        }
        Ok(())
    }
}

impl Appender for Connection {
    fn append(&mut self, records: Vec<Record>) -> Result<()> {
        if let [record] = &records[..] {
            self.put_event(record);
            self.send()?;
            return self.reply().map(drop);
        }
        self.put(&[b"MULTI"]);
        records.iter().for_each(|record| self.put_event(record));
        self.put(&[b"EXEC"]);
        self.send()?;
        for _ in 0..=records.len() {
            self.reply()?;
        }
        match self.reply()? {
            Reply::List(done) if done.len() == records.len() => Ok(()),
            Reply::Text(text) => Err(format!("redis: EXEC answered '{text}'").into()),
            _ => Err("redis: EXEC did not record all events".into()),
        }
    }
}

impl Peer for Redis {
    fn appender(&self) -> Result<Box<dyn Appender + '_>> {
        Ok(Box::new(Connection::open(self.child.address())?))
    }

    fn read(&self, what: What<'_>, sink: Sink<'_>) -> Result<()> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            What::Stream(stream) => reader.read(stream, sink),
            What::All { streams } => (0..streams).try_for_each(|n| reader.read(&stream_name(n), sink)),
            What::Type(_) => Err("redis has no types".into()),
        }
    }

    fn reads_types(&self) -> bool {
        false
    }

    fn head(&self) -> Result<()> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.ask(&[b"DBSIZE"]).map(drop)
    }
}

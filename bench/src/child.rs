//! Servers in processes of their own, on loopback; each is killed when it is dropped.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::peer::Result;

/// How long a server may take to listen: it may have a large log to read first.
const LISTENS_WITHIN: Duration = Duration::from_secs(120);

pub(crate) struct Child {
    process: std::process::Child,
    address: SocketAddr,
}

impl Child {
    /// One of the servers that are built into this program.
    pub(crate) fn serve(system: &str, place: &Path) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", system]).arg(place).arg(address.to_string());
        Self::start(command, address)
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(mut command: Command, address: SocketAddr) -> Result<Self> {
        // What is built into this program ends when this pipe does.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = Self { process: command.spawn()?, address };
        let deadline = Instant::now() + LISTENS_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.process.try_wait()? {
                return Err(format!("the server ended before it listened: {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("the server does not listen after {} s", LISTENS_WITHIN.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(child)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself, as with Ctrl-C in a terminal.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An address nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Has an embedded store appended to in another process, and kills that.
pub(crate) fn killed(system: &str, place: &Path, first: u64, event_bytes: usize) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["hold", system]).arg(place).arg(first.to_string()).arg(event_bytes.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Child { process: command.spawn()?, address: (Ipv4Addr::LOCALHOST, 0).into() };
    let mut line = String::new();
    if let Some(stdout) = child.process.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match line.trim() {
        "appended" => Ok(()),
        _ => Err(format!("{system} ended before it could be killed").into()),
    }
}

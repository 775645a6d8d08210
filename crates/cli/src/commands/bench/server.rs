//! The server that is measured: this program in a process of its own, on loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use precedent::{Log, OpenOptions};

use super::blocking;
use crate::failure::{Failure, Result};

/// A running server. It is killed when this is dropped.
pub(super) struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// Starts a server of the store in this directory and connects to it.
    pub(super) async fn start(place: &Path) -> Result<(Self, Log)> {
        let failed =
            |what: &dyn std::fmt::Display| Failure::new(format!("the server that is to be measured: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--store"])
            .arg(url(place))
            .env_remove("PRECEDENT_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let process = command.spawn().map_err(|error| failed(&error))?;
        let mut server = Self { process, url: String::new() };
        let stdout = server.process.stdout.take();
        let line = blocking(move || {
            let mut line = String::new();
            stdout.map(|stdout| BufReader::new(stdout).read_line(&mut line)).transpose().map(|_| line)
        });
        let line = line.await?.map_err(|error| failed(&error))?;
        let said: serde_json::Value = serde_json::from_str(&line)
            .map_err(|_| failed(&"it ended before it listened; 'precedent serve' would say why"))?;
        server.url = said["url"].as_str().unwrap_or_default().to_owned();
        let log = server.connect().await?;
        Ok((server, log))
    }

    /// A client more.
    pub(super) async fn connect(&self) -> Result<Log> {
        // Whatever token the environment holds is for another server.
        let options = OpenOptions { token: Some(String::new()), ..OpenOptions::default() };
        Ok(precedent::open(&self.url, options).await?)
    }

    /// Ends it as a crash would.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself, as with Ctrl-C in a terminal.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The URL of the store in this directory.
pub(super) fn url(place: &Path) -> String {
    format!("file:{}", place.display())
}

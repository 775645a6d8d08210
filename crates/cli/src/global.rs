//! What every command takes, and how it gets its log.

use std::path::Path;

use precedent::{Access, ErrorKind, Log, OpenOptions};

use crate::failure::{Failure, Result};
use crate::progress;

/// The store that is meant when none is named.
pub(crate) const DEFAULT_STORE: &str = "file:./precedent-data";

/// What every command takes.
#[derive(clap::Args, Clone)]
pub(crate) struct Global {
    /// The store: file:PATH, http://HOST, https://HOST, cosmos://ACCOUNT/DATABASE/CONTAINER, table://ACCOUNT/TABLE or
    /// memory:, with ?log=NAME for another log than main
    /// [env: PRECEDENT_URL] [default: file:./precedent-data]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) store: Option<String>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// The URL of the store.
    pub(crate) fn url(&self) -> String {
        let from_environment = || std::env::var("PRECEDENT_URL").ok().filter(|url| !url.is_empty());
        self.store.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_STORE.to_owned())
    }

    /// The log, to be read.
    pub(crate) async fn log(&self) -> Result<Log> {
        open(&self.url(), OpenOptions::read()).await
    }

    /// The log as its files say it, whoever has it open.
    pub(crate) async fn files(&self) -> Result<Log> {
        open(&self.url(), OpenOptions::read().access(Access::ReadFiles)).await
    }

    /// The log, to be written to; the store is made if there is none.
    pub(crate) async fn log_for_writing(&self, clock: Clock) -> Result<Log> {
        open(&self.url(), writing(clock)).await
    }
}

/// For commands that write.
#[derive(clap::Args, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// Write although this machine's clock is behind the log; this is recorded in the log
    #[arg(long)]
    pub(crate) accept_clock: bool,
}

/// To write, making the store if there is none.
pub(crate) fn writing(clock: Clock) -> OpenOptions {
    OpenOptions { accept_clock: clock.accept_clock, ..OpenOptions::default() }
}

/// Opens a log, and says what to do if it is not there.
pub(crate) async fn open(url: &str, options: OpenOptions) -> Result<Log> {
    // Where a store may be made, one that is not there is not what is missing.
    let to_be_there = !options.create;
    precedent::open(url, progress::catching_up(options)).await.map_err(|error| {
        let kind = error.kind();
        // Azure's errors name the command that makes what is missing.
        let provisioned = error.message().contains("precedent provision");
        // The library speaks of it where a directory is served over TLS, not where a server was named.
        let certificate = error.message().contains("its certificate has to");
        let failure = Failure::from(error);
        match kind {
            ErrorKind::NotFound if to_be_there && !provisioned => failure.hint("'precedent demo' makes a store to look at, 'precedent append' one of your own; --store names another"),
            ErrorKind::Unavailable if certificate => {
                failure.hint("--store https://NAME asks the server by a name that its certificate covers")
            }
            _ => failure,
        }
    })
}

/// Reads a file named on the command line.
pub(crate) fn read_failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

//! stdout for data: buffered, and quiet when nobody reads it any more. stderr for talk.

use std::io::{BufWriter, ErrorKind, IsTerminal, Stdout, Write};

use crate::failure::{Failure, Result};

/// stdout, for data.
pub(crate) struct Output {
    out: BufWriter<Stdout>,
}

impl Output {
    /// stdout.
    pub(crate) fn stdout() -> Self {
        Self { out: BufWriter::with_capacity(64 << 10, std::io::stdout()) }
    }

    /// Writes a line; `text` has no line break at its end.
    pub(crate) fn line(&mut self, text: impl AsRef<[u8]>) -> Result<()> {
        let written = self.out.write_all(text.as_ref()).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(failed)
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Failure::new(format!("the answer cannot be JSON: {error}")))?;
        self.line(json)
    }

    /// Hands everything to whoever reads.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(failed)
    }
}

/// Completes when whoever read stdout has gone; never where that is not seen: it is of a pipe, on Linux.
pub(crate) async fn reader_gone() {
    #[cfg(target_os = "linux")]
    if pipe_is_closed().await {
        return;
    }
    std::future::pending().await
}

#[cfg(target_os = "linux")]
async fn pipe_is_closed() -> bool {
    use std::os::unix::fs::FileTypeExt;
    use tokio::io::Interest;

    const STDOUT: &str = "/dev/stdout";
    if !std::fs::metadata(STDOUT).is_ok_and(|stdout| stdout.file_type().is_fifo()) {
        return false;
    }
    // On Linux this opens the pipe anew: that it does not block here changes nothing for whoever shares it.
    match tokio::net::unix::pipe::OpenOptions::new().open_sender(STDOUT) {
        Ok(pipe) => pipe.ready(Interest::ERROR).await.is_ok(),
        // ENXIO: a pipe that nobody reads.
        Err(error) => error.raw_os_error() == Some(6),
    }
}

fn failed(error: std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::new(format!("stdout: {error}")),
    }
}

/// Says a line on stderr. If nobody hears it, that is no reason to fail.
pub(crate) fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether stdout is a terminal that wants colours.
pub(crate) fn has_colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

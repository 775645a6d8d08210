//! `export`: the whole log as CloudEvents, a line each.
//!
//! *Invariant*: a file of the name asked for exists only once it is complete, and none is ever overwritten.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use precedent::cloudevents::{Shape, write_event};
use precedent::{ErrorKind, Log, Read};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, say};
use crate::progress;
use crate::text::{counted, escaped};

/// Where to.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file to write, which must not exist; without it, stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => to_file(path, &global).await,
        None => {
            let log = global.log().await?;
            let mut out = Output::stdout();
            let bar_wanted = !std::io::stdout().is_terminal();
            let counts = export(&log, bar_wanted, |line| out.line(line)).await?;
            out.flush()?;
            counts.finish("stdout")
        }
    }
}

async fn to_file(path: &Path, global: &Global) -> Result<()> {
    let shown = path.display();
    let failed = |error: std::io::Error| Failure::new(format!("{shown}: {error}"));
    let exists = || Failure::new(format!("{shown} is there already, and is not overwritten"));
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let log = global.log().await?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new();
    // As any other new file: readable as far as the user's umask allows.
    #[cfg(unix)]
    file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = file.prefix(".export-").tempfile_in(folder).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let counts =
        export(&log, true, |line| out.write_all(line).and_then(|()| out.write_all(b"\n")).map_err(failed))
            .await?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(),
        _ => failed(error.error),
    })?;
    // Without this the file could be gone after a power failure, although we said that it is there.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    counts.finish(&shown.to_string())
}

struct Counts {
    events: u64,
    damaged: u64,
}

impl Counts {
    fn finish(self, place: &str) -> Result<()> {
        say(format_args!("exported {} to {place}", counted(self.events, "event")));
        match self.damaged {
            0 => Ok(()),
            n => Err(Failure::new(format!(
                "the export is incomplete: {} could not be read",
                counted(n, "damaged event")
            ))),
        }
    }
}

async fn export(log: &Log, bar: bool, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<Counts> {
    let head = log.head().await?;
    let bar = if bar { progress::events("exporting", Some(head.size)) } else { progress::hidden() };
    let _clearing = progress::Clearing(&bar);
    let mut counts = Counts { events: 0, damaged: 0 };
    let mut events = log.read(Read::default()).boxed();
    let mut line = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(recorded) => {
                line.clear();
                write_event(&recorded, Shape::CloudEvents, &mut line);
                write(&line)?;
                counts.events += 1;
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                counts.damaged += 1;
                bar.suspend(|| say(format_args!("damaged: {}", escaped(error.message()))));
            }
            Err(error) => return Err(error.into()),
        }
        bar.set_position(counts.events + counts.damaged);
        // A store that is here never waits: so that an interrupt is heeded.
        tokio::task::coop::consume_budget().await;
    }
    Ok(counts)
}

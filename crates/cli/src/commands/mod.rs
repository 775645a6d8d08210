//! One file a command.

mod append;
mod bench;
mod copy;
mod decisions;
mod demo;
mod doctor;
mod export;
mod head;
mod import;
mod provision;
mod read;
mod serve;
mod show;
mod verify;

use crate::failure::{Failure, Result};
use crate::global::Global;

/// What can be done.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Serve the store over HTTP
    Serve(serve::Args),
    /// Record a small agent run that this program acts out, show it, verify it
    Demo(demo::Args),
    /// Record events
    Append(append::Args),
    /// Print events, and follow the log as it grows
    Read(read::Args),
    /// Show what belongs to a decision: what was asked, seen, called and decided, and what came of it
    Show(show::Args),
    /// List decisions, newest first, with what came of each
    Decisions(decisions::Args),
    /// Print the number of events and the root over them
    Head(head::Args),
    /// Record events from a file: CloudEvents, or agent runs as OpenAI messages
    Import(import::Args),
    /// Write the whole log as CloudEvents, a line each
    Export(export::Args),
    /// Recompute everything and say what does not match
    Verify(verify::Args),
    /// Copy a log into another store, exactly as it is
    Copy(copy::Args),
    /// Say how large the log is, and what is to be said about its state
    Doctor(doctor::Args),
    /// Plan, make, check and remove the Azure resources of a store
    Provision(provision::Args),
    /// Measure appends on this machine, beside a bare loop of writes and syncs
    Bench(bench::Args),
}

impl Command {
    /// Whether the command takes an interrupt as its proper end.
    pub(crate) fn ends_when_interrupted(&self) -> bool {
        match self {
            Self::Serve(_) => true,
            Self::Read(args) => args.follow,
            _ => false,
        }
    }

    /// Does it.
    pub(crate) async fn run(self, global: Global) -> Result<()> {
        if cfg!(precedent_unhashed) && !matches!(self, Self::Bench(_)) {
            return Err(Failure::new(
                "this program was compiled to compute no proofs, and only measures: 'bench'",
            ));
        }
        match self {
            Self::Serve(args) => serve::run(args, global).await,
            Self::Demo(args) => demo::run(args, global).await,
            Self::Append(args) => append::run(args, global).await,
            Self::Read(args) => read::run(args, global).await,
            Self::Show(args) => show::run(args, global).await,
            Self::Decisions(args) => decisions::run(args, global).await,
            Self::Head(args) => head::run(args, global).await,
            Self::Import(args) => import::run(args, global).await,
            Self::Export(args) => export::run(args, global).await,
            Self::Verify(args) => verify::run(args, global).await,
            Self::Copy(args) => copy::run(args, global).await,
            Self::Doctor(args) => doctor::run(args, global).await,
            Self::Provision(args) => provision::run(args, global).await,
            Self::Bench(args) => bench::run(args, global).await,
        }
    }
}

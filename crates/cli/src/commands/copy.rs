//! `copy`: a log into another store, exactly as it is: the same frames, positions, root and id.
//!
//! Frames that are there already are passed over, so a copy that was interrupted goes on where it stood, and
//! a copy made again brings the target up to date.

use precedent::{Access, Head, Log, OpenOptions};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::{Clock, Global, open, writing};
use crate::output::{Output, say};
use crate::progress;
use crate::text::counted;

/// Frames are moved in pieces of about this size.
const PIECE_BYTES: usize = 8 << 20;

/// From where to where.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store to copy from; without it, the one of --store
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The store to copy to
    #[arg(long, value_name = "URL")]
    to: String,
    /// Let the copy be written to afterwards: from then on it and the original are two histories with one past
    #[arg(long)]
    promote: bool,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let url = args.from.unwrap_or_else(|| global.url());
    let from = open(&url, OpenOptions::read().access(Access::Read)).await?;
    let source = from.head().await?;
    let to = open(&args.to, writing(Clock::default())).await?;
    let before = head_or_empty(&to).await?;
    let outcome = copy(&from, &source, &to, before.as_ref()).await;
    if outcome.is_ok() && args.promote && source.size > 0 {
        to.store().promote(to.name()).await?;
    }
    let target = head_or_empty(&to).await;
    to.store().close().await?;
    outcome?;
    let (size, root) = target?.map_or((0, source.root), |target| (target.size, target.root));
    let copied = size - before.map_or(0, |before| before.size).min(size);
    let mut out = Output::stdout();
    if global.json {
        out.json(&json!({
            "copied": copied,
            "size": size,
            "root": root.to_string(),
            "promoted": args.promote && source.size > 0,
        }))?;
    } else {
        out.line(format!(
            "copied {}; the target holds {}",
            counted(copied, "event"),
            counted(size, "event")
        ))?;
        out.line(format!("{size}:{root}"))?;
        if size > source.size {
            say(format_args!("the target went on after the {} of the source", counted(source.size, "event")));
        } else if !args.promote {
            say(format_args!(
                "the copy is read-only, since two writable ones would be two histories; --promote lifts that"
            ));
        }
    }
    out.flush()
}

/// The head of a log that may not have been made yet.
async fn head_or_empty(log: &Log) -> Result<Option<Head>> {
    match log.head().await {
        Ok(head) => Ok(Some(head)),
        Err(error) if error.kind() == precedent::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn copy(from: &Log, source: &Head, to: &Log, target: Option<&Head>) -> Result<()> {
    let bar = progress::events("copying", Some(source.size));
    let _clearing = progress::Clearing(&bar);
    // The last frame both have is sent again: the target compares it, and with it the whole chain before.
    let common = target.map_or(0, |target| target.frames).min(source.frames);
    let mut next = common.saturating_sub(1);
    while next < source.frames {
        let mut frames = from.store().frames(from.name(), next, PIECE_BYTES).await?;
        frames.retain(|frame| frame.chained().sequence < source.frames);
        let Some(last) = frames.last() else {
            return Err(Failure::new(format!(
                "the source has {} and gave none from frame {next} on",
                counted(source.frames, "frame")
            )));
        };
        next = last.chained().sequence + 1;
        let done = last.chained().tree_size();
        to.store().put_frames(to.name(), frames).await?;
        bar.set_position(done);
    }
    Ok(())
}

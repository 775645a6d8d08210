//! `head`: the end of the log.

use crate::failure::Result;
use crate::global::Global;
use crate::output::Output;
use crate::text::counted;

/// Nothing of its own.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// What is compared with another time or another copy, and no more: two equal heads are equal lines.
#[derive(serde::Serialize)]
struct SizeAndRoot {
    size: u64,
    root: String,
}

pub(crate) async fn run(_: Args, global: Global) -> Result<()> {
    let log = global.log().await?;
    let head = log.head().await?;
    let mut out = Output::stdout();
    if global.json {
        out.json(&SizeAndRoot { size: head.size, root: head.root.to_string() })?;
    } else {
        out.line(format!("{} in {}", counted(head.size, "event"), counted(head.frames, "frame")))?;
        out.line(format!("root  {}", head.root))?;
        if let Some(id) = head.log {
            out.line(format!("log   {} ({id})", log.name()))?;
        }
        if let Some(recorded) = head.recorded {
            out.line(format!("last  recorded at {recorded}"))?;
        }
    }
    out.flush()
}

//! `decisions`: lists decisions, newest first, with what came of each.

use precedent::{Position, Tag, Time};
use precedent_decisions::list::{Entry, Filter, LIMIT_MAX, Wanted, list};
use precedent_decisions::types;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, say};
use crate::text::{counted, escaped, shortened};

/// Which decisions.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only those that name this model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only those whose event has this tag; several have to be there together
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<Tag>,
    /// List by events of this type instead of decisions; several are alternatives
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only those with an outcome that says so, such as reward=1; numbers are compared as numbers, several hold together
    #[arg(long = "outcome", value_name = "NAME=VALUE")]
    outcomes: Vec<Wanted>,
    /// Only from this time on, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    since: Option<Time>,
    /// Only before this time, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    until: Option<Time>,
    /// Only before this position
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    before: Option<Position>,
    /// At most this many; all, if it is not said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let log = global.log().await?;
    let plain = args.types.is_empty();
    let mut left = args.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut filter = Filter {
        types: args.types,
        tags: args.tags,
        model: args.model,
        outcomes: args.outcomes,
        since: args.since,
        until: args.until,
        before: args.before,
        limit: 0,
    };
    let mut out = Output::stdout();
    let (mut count, mut unreadable) = (0, 0);
    let mut said = !plain || !filter.outcomes.is_empty();
    loop {
        filter.limit = left.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let page = list(&log, &filter).await?;
        for one in &page.unreadable {
            out.flush()?;
            say(format_args!("damaged: {}", escaped(&one.detail)));
        }
        unreadable += page.unreadable.len();
        if !said && !page.decisions.is_empty() && !page.by.iter().any(|name| name == types::DECISION) {
            say("no ai.decision.made is recorded: these ended in an override, an outcome or feedback");
        }
        said = true;
        for entry in &page.decisions {
            match global.json {
                true => out.json(entry)?,
                false => out.line(text(entry).trim_end())?,
            }
        }
        count += page.decisions.len();
        left = left.map(|left| left.saturating_sub(page.decisions.len()));
        // A long search says what it has found before it goes on.
        out.flush()?;
        match page.next {
            Some(next) if left != Some(0) => filter.before = Some(next),
            _ => break,
        }
    }
    if count == 0 && !global.json {
        say(match plain {
            true => {
                "no decision, override, outcome or feedback matches; --type ai.model.called lists by calls"
            }
            false => "nothing matches",
        });
    }
    match unreadable {
        0 => Ok(()),
        n => Err(Failure::new(format!("{} could not be read", counted(n as u64, "damaged event")))),
    }
}

fn text(entry: &Entry) -> String {
    // Whole seconds: 2026-11-22 10:00:00
    let time = entry.recorded.get(..19).unwrap_or(&entry.recorded).replace('T', " ");
    let mut parts = Vec::new();
    match (&entry.decision, &entry.what) {
        (Some(decision), _) => parts.push(decision.what.clone()),
        (None, Some(what)) => parts.push(what.clone()),
        (None, None) => {}
    }
    parts.extend(
        entry.overrides.iter().map(|remark| format!("◆ overridden at {}: {}", remark.position, remark.what)),
    );
    parts.extend(
        entry.outcomes.iter().map(|remark| format!("★ outcome at {}: {}", remark.position, remark.what)),
    );
    parts.extend(
        entry.feedback.iter().map(|remark| format!("★ feedback at {}: {}", remark.position, remark.what)),
    );
    if entry.more {
        parts.push("… perhaps more: show it".to_owned());
    }
    let line = parts.join("  ").replace(['\n', '\r', '\t'], " ");
    // A word and a UUID stay whole: they are what `show` is asked for.
    let key = shortened(&escaped(&entry.key.value), 64).into_owned();
    let model = entry
        .model
        .as_deref()
        .map_or_else(|| "-".to_owned(), |model| shortened(&escaped(model), 24).into_owned());
    let position = entry.position;
    format!(
        "{position:>6}  {time}  {:<11}  {key:<24}  {model:<12}  {}",
        entry.key.by,
        shortened(&escaped(&line), 240)
    )
}

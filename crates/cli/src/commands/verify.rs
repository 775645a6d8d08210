//! `verify`: recomputes everything, trusting no index, no header and no server.

use precedent::ErrorKind;
use precedent::verify::{Expect, Report};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::{Output, say};
use crate::progress;
use crate::text::{counted, escaped};

/// What the log should be.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is known from outside: the first SIZE events have this ROOT. Only this can show a tail that was cut off
    #[arg(long, value_name = "SIZE:ROOT")]
    expect: Option<Expect>,
}

pub(crate) async fn run(args: Args, global: Global) -> Result<()> {
    let mut out = Output::stdout();
    match check(&args, &global).await {
        Ok(report) => print(&mut out, &global, &report)?,
        // Damage that keeps the log from being opened is an answer, not a failure to give one.
        Err(error) if error.kind() == ErrorKind::Damaged => {
            match global.json {
                true => out.json(&json!({
                    "ok": false,
                    "problem_count": 1,
                    "problems": [{"frame": null, "position": null, "place": null, "message": error.message()}],
                }))?,
                false => out.line(&*escaped(error.message()))?,
            }
            out.flush()?;
            return Err(Failure::no());
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::from(error).hint("--store names another store"));
        }
        Err(error) => return Err(error.into()),
    }
    out.flush()
}

async fn check(args: &Args, global: &Global) -> precedent::Result<Report> {
    let options = precedent::OpenOptions::read().access(precedent::Access::ReadFiles);
    let log = precedent::open(&global.url(), options).await?;
    let bar = progress::events("verifying", Some(0));
    let _clearing = progress::Clearing(&bar);
    let progressed = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    log.store().verify(log.name(), args.expect, &progressed).await
}

fn print(out: &mut Output, global: &Global, report: &Report) -> Result<()> {
    let root = report.root.map(|root| root.to_string());
    if global.json {
        let problem = |p: &precedent::verify::Problem| {
            json!({
                "frame": p.frame,
                "position": p.position,
                "place": p.place,
                "message": p.message,
            })
        };
        out.json(&json!({
            "ok": report.is_ok(),
            "size": report.size,
            "root": root,
            "events": report.events,
            "frames": report.frames,
            "id": report.log.map(|id| id.to_string()),
            "problem_count": report.problem_count,
            "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else if report.is_ok() {
        out.line(format!(
            "verified: {} in {}, every entry, commitment, link and root recomputed",
            counted(report.size, "event"),
            counted(report.frames, "frame")
        ))?;
        if let Some(root) = &root {
            out.line(format!("{}:{root}", report.size))?;
        }
    } else {
        for problem in &report.problems {
            out.line(&*escaped(&problem.to_string()))?;
        }
        let unlisted = report.problem_count.saturating_sub(report.problems.len() as u64);
        if unlisted > 0 {
            out.line(format!("and {} more", counted(unlisted, "problem")))?;
        }
    }
    out.flush()?;
    match report.is_ok() {
        true => Ok(()),
        false => {
            say(format_args!("not verified: {}", counted(report.problem_count, "problem")));
            Err(Failure::no())
        }
    }
}

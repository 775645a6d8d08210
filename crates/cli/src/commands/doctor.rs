//! `doctor`: how large the log is, and what is to be said about its state.

use precedent::store::{Finding, Severity};
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::output::Output;
use crate::text::{counted, escaped, grouped};

/// Nothing of its own.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_: Args, global: Global) -> Result<()> {
    let log = global.files().await?;
    let (usage, mut findings) = log.store().examine(log.name()).await?;
    if !findings.iter().any(|finding| finding.code == UNWITNESSED) {
        findings.push(unwitnessed());
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut out = Output::stdout();
    if global.json {
        let finding =
            |f: &Finding| json!({"code": f.code, "severity": f.severity.as_str(), "message": f.message});
        out.json(&json!({
            "store": log.store().url(),
            "log": log.name().as_str(),
            "events": usage.events,
            "data_bytes": usage.data_bytes,
            "log_bytes": usage.log_bytes,
            "index_bytes": usage.index_bytes,
            "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        }))?;
    } else {
        out.line(format!("{}, log {}", escaped(&log.store().url()), log.name()))?;
        out.line(format!(
            "{}: {} bytes of data, {} bytes of log, {} bytes of index",
            counted(usage.events, "event"),
            grouped(usage.data_bytes),
            grouped(usage.log_bytes),
            grouped(usage.index_bytes)
        ))?;
        for finding in &findings {
            let Finding { code, severity, message } = finding;
            out.line(format!("{:<8} {code}: {}", severity.as_str(), escaped(message)))?;
        }
    }
    out.flush()?;
    match findings.iter().any(|finding| finding.severity == Severity::Error) {
        true => Err(Failure::no()),
        false => Ok(()),
    }
}

const UNWITNESSED: &str = "unwitnessed";

fn unwitnessed() -> Finding {
    Finding {
        code: UNWITNESSED,
        severity: Severity::Warning,
        message: "nothing outside this store vouches for the log, so nobody could tell that its tail was cut off; \
                  keep the answer of 'precedent head' elsewhere and give it to 'precedent verify --expect SIZE:ROOT'"
            .into(),
    }
}

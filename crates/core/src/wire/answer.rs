//! What a server says besides events: the end of a log, what an examination found, and errors.

use serde_json::{Map, Value, json};

use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::ids::{LogName, Position, Time};
use crate::store::{Finding, Head, Severity, Usage};

/// Writes the end of a log.
pub fn head_json(name: &LogName, head: &Head) -> Value {
    json!({
        "log": name.as_str(),
        "id": head.log.map(|id| id.to_string()),
        "size": head.size,
        "root": head.root.to_string(),
        "frames": head.frames,
        "recordedtime": head.recorded.map(|t| t.to_string()),
    })
}

/// What is wrong with an answer that is not what this program's server would say.
fn not_an_answer(what: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the answer is not {what}"))
}

/// Reads the end of a log.
pub fn parse_head(json: &[u8]) -> Result<Head> {
    let bad = || not_an_answer("the head of a log");
    let value: Value = serde_json::from_slice(json).map_err(|_| bad())?;
    let optional = |name: &str| match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(text) => text.as_str().map(Some).ok_or_else(bad),
    };
    let number = |name: &str| value.get(name).and_then(Value::as_u64).ok_or_else(bad);
    Ok(Head {
        log: optional("id")?.map(|id| id.parse().map_err(|_| bad())).transpose()?,
        size: number("size")?,
        root: optional("root")?.ok_or_else(bad)?.parse().map_err(|_| bad())?,
        frames: number("frames")?,
        recorded: optional("recordedtime")?.map(|t| Time::parse(t).map_err(|_| bad())).transpose()?,
    })
}

/// Writes what an examination found: the shape of `precedent doctor --json`.
pub fn examination_json(store: &str, log: &LogName, usage: &Usage, findings: &[Finding]) -> Value {
    let finding =
        |f: &Finding| json!({"code": f.code, "severity": f.severity.as_str(), "message": f.message});
    json!({
        "store": store,
        "log": log.as_str(),
        "events": usage.events,
        "data_bytes": usage.data_bytes,
        "log_bytes": usage.log_bytes,
        "index_bytes": usage.index_bytes,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Reads what an examination found. `known` gives the code of a finding its place in this program.
pub fn parse_examination(
    json: &[u8],
    mut known: impl FnMut(&str) -> &'static str,
) -> Result<(Usage, Vec<Finding>)> {
    let bad = || not_an_answer("an examination");
    let value: Value = serde_json::from_slice(json).map_err(|_| bad())?;
    let number = |name: &str| value.get(name).and_then(Value::as_u64).ok_or_else(bad);
    let usage = Usage {
        events: number("events")?,
        data_bytes: number("data_bytes")?,
        log_bytes: number("log_bytes")?,
        index_bytes: number("index_bytes")?,
    };
    let findings = value.get("findings").and_then(Value::as_array).ok_or_else(bad)?;
    let finding = |value: &Value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).ok_or_else(bad);
        let severity = match text("severity")? {
            "info" => Severity::Info,
            "warning" => Severity::Warning,
            "error" => Severity::Error,
            _ => return Err(bad()),
        };
        Ok(Finding { code: known(text("code")?), severity, message: text("message")?.to_owned() })
    };
    Ok((usage, findings.iter().map(finding).collect::<Result<_>>()?))
}

/// The members by which a problem says what an [`Error`] says: all but the HTTP status and the title.
pub fn error_members(error: &Error) -> Map<String, Value> {
    let conflict = |c: &Conflict| json!({"index": c.index, "position": c.position});
    let mut members = Map::new();
    members.insert("code".into(), json!(error.kind().code()));
    members.insert("detail".into(), json!(error.message()));
    members.insert("retryable".into(), json!(error.is_retryable()));
    members.insert("may_have_been_written".into(), json!(error.may_have_been_written()));
    members.insert("conflicts".into(), error.conflicts().iter().map(conflict).collect());
    members
}

/// Reads a problem. `kind_of` answers for codes that are not an [`ErrorKind`]'s. `None` if it is no problem at all.
pub fn parse_error(json: &[u8], kind_of: impl FnOnce(&str) -> ErrorKind) -> Option<Error> {
    let value: Value = serde_json::from_slice(json).ok()?;
    let code = value.get("code")?.as_str()?;
    let detail = value.get("detail").and_then(Value::as_str).unwrap_or(code);
    let kind = ErrorKind::from_code(code).unwrap_or_else(|| kind_of(code));
    let conflict = |value: &Value| {
        Some(Conflict {
            index: usize::try_from(value.get("index")?.as_u64()?).ok()?,
            position: value.get("position").and_then(Value::as_u64).map(Position),
        })
    };
    let conflicts = value.get("conflicts").and_then(Value::as_array);
    let conflicts = conflicts.map(|list| list.iter().filter_map(conflict).collect()).unwrap_or_default();
    let retry_after = value.get("retry_after").and_then(|secs| u32::try_from(secs.as_u64()?).ok());
    let error = Error::new(kind, detail).with_conflicts(conflicts);
    let error = match retry_after {
        Some(secs) => error.retry_after(secs),
        None => error,
    };
    match value.get("may_have_been_written").and_then(Value::as_bool) {
        Some(true) => Some(error.maybe_written()),
        _ => Some(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_come_back_with_everything_they_say() {
        for kind in ErrorKind::ALL {
            let conflicts = vec![Conflict { position: Some(Position(3)), index: 1 }];
            let error = Error::new(*kind, "why").with_conflicts(conflicts.clone());
            let json = Value::Object(error_members(&error)).to_string();
            let again = parse_error(json.as_bytes(), |_| ErrorKind::Internal).unwrap();
            assert_eq!((again.kind(), again.message()), (*kind, "why"));
            assert_eq!(again.conflicts(), conflicts);
            assert_eq!(again.may_have_been_written(), error.may_have_been_written());
        }
        assert!(parse_error(b"<html>", |_| ErrorKind::Internal).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_head(&bytes);
            let _ = parse_error(&bytes, |_| ErrorKind::Internal);
        }
    }
}

//! Decision logs of the Open Policy Agent, as `ai.policy.evaluated`.
//!
//! OPA uploads a JSON list of decisions, gzipped. Each becomes an event whose data is the decision as it was sent. Format:
//! <https://www.openpolicyagent.org/docs/management-decision-logs>.

use precedent_core::{AttributeValue, Error, Event, Result, Time};

use crate::funnel::{Draft, is_clean, seal, shortened, source, stream};
use crate::json::{self, member, unquoted};
use crate::redact::{Form, Redacted, Rules};
use crate::view::Kind;

/// The schema of an event whose data is a decision of OPA.
pub(crate) const SCHEMA: &str = "urn:precedent:opa:decision:1";

/// The decisions of an upload, each with its bytes.
///
/// # Errors
/// `invalid` if the body is no JSON list of objects.
pub fn decisions(body: &[u8]) -> Result<Vec<&str>> {
    let text = std::str::from_utf8(body)
        .map_err(|e| Error::invalid(format!("the decision log is not UTF-8 at byte {}", e.valid_up_to())))?;
    if !json::is_json(text) || !text.trim_ascii_start().starts_with('[') {
        return Err(Error::invalid("the decision log is no JSON list"));
    }
    let decisions: Vec<&str> = json::elements(text).collect();
    match decisions.iter().position(|decision| !decision.starts_with('{')) {
        Some(at) => Err(Error::invalid(format!("decision {at} of the decision log is no object"))),
        None => Ok(decisions),
    }
}

/// The event of one decision.
///
/// # Errors
/// `invalid` if the event cannot be built, which is a defect.
pub fn event(decision: &str, rules: &Rules) -> Result<Event> {
    let text = |name: &str| member(decision, name).and_then(unquoted).filter(|text| !text.is_empty());
    let labels = member(decision, "labels").unwrap_or("{}");
    let agent = member(labels, "id").and_then(unquoted);
    let id = text("decision_id").map(|id| shortened(&id, 256)).filter(|id| is_clean(id));
    let mut attributes: Vec<(&'static str, AttributeValue)> = Vec::new();
    if let Some(id) = &id {
        attributes.push(("correlationid", id.as_str().into()));
    }
    let hex = |name: &str, len: usize| {
        text(name).filter(|t| {
            t.len() == len && t.bytes().all(|b| b.is_ascii_hexdigit()) && t.bytes().any(|b| b != b'0')
        })
    };
    let trace = hex("trace_id", 32);
    if let (Some(trace), Some(span)) = (&trace, hex("span_id", 16)) {
        let parent = format!("00-{trace}-{span}-00").to_ascii_lowercase();
        attributes.push(("traceparent", parent.into()));
    }
    let mut tags: Vec<(&'static str, String)> =
        text("path").map(|path| ("policy", path)).into_iter().collect();
    tags.extend(json::members(member(decision, "bundles").unwrap_or("{}")).take(8).filter_map(
        |(_, bundle)| member(bundle, "revision").and_then(unquoted).map(|revision| ("revision", revision)),
    ));
    let draft = Draft {
        source: source("opa", agent.as_deref()),
        name: id.unwrap_or_else(|| "none".to_owned()),
        event_type: Kind::Policy.event_type(),
        stream: trace.and_then(|trace| stream("trace", &trace.to_ascii_lowercase())),
        time: text("timestamp").filter(|time| Time::parse(time).is_ok()),
        media_type: "application/json",
        schema: SCHEMA,
        tags,
        attributes,
        data: decision.as_bytes().to_vec(),
        form: Form::Json,
        redacted: Redacted::default(),
    };
    seal(draft, rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_recorded_as_it_was_sent() {
        let body = br#"[ {"decision_id":"d-1","labels":{"id":"opa 1"},"path":"loans/allow","result":false,
            "bundles":{"loans":{"revision":"r7"}},"timestamp":"2026-11-22T10:00:00.123456789Z","new":1.0} , {}]"#;
        let decisions = decisions(body).unwrap();
        let event = event(decisions[0], &Rules::default()).unwrap();
        assert_eq!(event.data().unwrap(), decisions[0].as_bytes());
        assert_eq!((event.event_type(), event.source()), ("ai.policy.evaluated", "opa/opa%201"));
        assert!(event.id().starts_with("d-1-") && event.id().len() == 20);
        assert_eq!(event.attribute("correlationid"), Some("d-1"));
        assert_eq!(
            event.tags().iter().map(|t| t.as_str()).collect::<Vec<_>>(),
            ["policy=loans/allow", "revision=r7"]
        );
        assert_eq!(event.time(), Some("2026-11-22T10:00:00.123456789Z"));
        let bare = super::event(decisions[1], &Rules::default()).unwrap();
        assert!(bare.id().starts_with("none-") && bare.time().is_none());
    }

    #[test]
    fn what_is_no_decision_log_is_refused() {
        for bad in [&b"{}"[..], b"[1]", b"[{}", b"\xff", b""] {
            assert!(decisions(bad).is_err());
        }
        assert_eq!(decisions(b"[]").unwrap().len(), 0);
    }
}

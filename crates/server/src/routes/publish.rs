//! `POST /v1/events`: CloudEvents over HTTP, in its three modes.
//!
//! The rules are those of the [HTTP binding 1.0.2](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md):
//! the media type tells structured and batched mode; everything else is binary mode, with the attributes in
//! `ce-` headers and the body as data. A binary event without body and without a media type has no data.

use axum::http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::percent_decode;
use precedent_core::cloudevents::{self, Shape};
use precedent_core::{Append, AttributeValue, Error, Event, LogName, Result, wire};

use super::{Answer, HeaderUse, Route, Scope, check_charset, parse, record};
use crate::body::receive;
use crate::call::Call;
use crate::capture;
use crate::problem::Problem;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

pub(super) const ROUTE: Route = Route {
    method: Method::POST,
    scope: Scope::Log,
    path: "/events",
    id: "publish",
    about: "Records CloudEvents: one in binary or structured mode, or a batch, all of it or nothing.",
    parameters: &[],
    headers: &[
        HeaderUse { name: "ce-specversion", about: "Binary mode: 1.0." },
        HeaderUse {
            name: "ce-id",
            about: "Binary mode: the id; with the source it makes the request idempotent.",
        },
        HeaderUse { name: "ce-source", about: "Binary mode: who produced the event." },
        HeaderUse { name: "ce-type", about: "Binary mode: what kind of fact it is." },
    ],
    takes: &[STRUCTURED, BATCH, "*/*"],
    status: 200,
    gives: &["application/json"],
    problems: &["already_exists", "read_only", "full", "clock", "unknown", "unsupported_media_type"],
    handle: |call| Box::pin(handle(call)),
};

async fn handle(mut call: Call) -> Answer {
    let mode = call.media_type().unwrap_or_default();
    let body = call.take_body();
    let events = match mode.as_str() {
        STRUCTURED | BATCH => {
            check_charset(&call.headers)?;
            let received = receive(&call.app, &call.headers, body).await?;
            let events = match mode == STRUCTURED {
                true => parse(&received.bytes, |json| cloudevents::parse_event(json, Shape::CloudEvents))
                    .map(|event| vec![event])?,
                false => parse(&received.bytes, wire::parse_batch)?,
            };
            (events, received)
        }
        other if other.starts_with("application/cloudevents") => {
            let detail = format!(
                "'{}' is not understood: CloudEvents come as {STRUCTURED}, {BATCH} or with ce- headers",
                other.escape_debug()
            );
            return Err(Problem::http("unsupported_media_type", detail));
        }
        _ => {
            let attributes = attributes_of(&call.headers)?;
            let received = receive(&call.app, &call.headers, body).await?;
            (vec![binary(attributes, &call.headers, &received.bytes)?], received)
        }
    };
    let (events, received) = events;
    let numbers = capture::numbers(&events);
    let is_main = call.log == LogName::default();
    let answer = record(&call.app, call.log, Append::new(events), received).await?;
    // Gaps stand in the log that capture writes to.
    if is_main && !numbers.is_empty() {
        call.app.capture.numbered(&call.app, numbers).await;
    }
    Ok(answer)
}

/// The attributes in `ce-` headers.
fn attributes_of(headers: &HeaderMap) -> Result<Vec<(String, AttributeValue)>> {
    let mut attributes = Vec::new();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Error::invalid(format!("the header {name} stands several times")));
        };
        if ["datacontenttype", "data"].contains(&attribute) {
            return Err(Error::invalid(format!(
                "the header {name} is not allowed: Content-Type and the body say that"
            )));
        }
        attributes.push((attribute.to_owned(), AttributeValue::String(decode(name.as_str(), value)?)));
    }
    if !attributes.iter().any(|(name, _)| name == "specversion") {
        return Err(Error::invalid(format!(
            "the header ce-specversion is missing: CloudEvents come as {STRUCTURED}, {BATCH} or with ce- headers"
        )));
    }
    Ok(attributes)
}

/// The value of a header as section 3.1.3.2 of the binding says: quotes are taken off, then one round of
/// percent-decoding.
fn decode(name: &str, value: &HeaderValue) -> Result<String> {
    let bytes = value.as_bytes();
    let unquoted = match bytes {
        [b'"', inner @ .., b'"'] => {
            let mut out = Vec::with_capacity(inner.len());
            let mut inner = inner.iter();
            while let Some(&byte) = inner.next() {
                out.push(if byte == b'\\' { inner.next().copied().unwrap_or(byte) } else { byte });
            }
            out
        }
        _ => bytes.to_vec(),
    };
    let text = percent_decode(&unquoted).decode_utf8();
    text.map(|t| t.into_owned())
        .map_err(|_| Error::invalid(format!("the header {name} is not UTF-8 once decoded")))
}

fn binary(
    mut attributes: Vec<(String, AttributeValue)>,
    headers: &HeaderMap,
    body: &bytes::Bytes,
) -> Result<Event> {
    let media_type = headers.get(header::CONTENT_TYPE);
    if let Some(value) = media_type {
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Error::invalid("the header Content-Type is not UTF-8"))?;
        attributes.push(("datacontenttype".to_owned(), text.into()));
    }
    let data = (!body.is_empty() || media_type.is_some()).then(|| body.clone());
    cloudevents::assemble(attributes, data)
}

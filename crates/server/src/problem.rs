//! Errors on the wire: RFC 9457 problems with a stable code.
//!
//! [`CODES`] is the one table: what status each code has, whether the same request may succeed later, and
//! whether anything may have been written. `docs/http.md` and the OpenAPI document are held against it.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use precedent_core::{Error, ErrorKind, wire};
use serde_json::{Map, Value, json};

/// Whether a request that failed may have been written all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing was written.
    No,
    /// It may have been written; sending it again is safe, its keys make it idempotent.
    Maybe,
    /// The problem's `may_have_been_written` says it.
    Said,
}

/// One row of the table of problems.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// The stable code, for programs.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What the problem is, the same for every occurrence.
    pub title: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Whether anything may have been written.
    pub written: Written,
    /// Seconds to wait before trying again, sent as `Retry-After`, unless the store says otherwise.
    pub retry_after_secs: Option<u32>,
}

const fn code(code: &'static str, status: u16, title: &'static str) -> Code {
    Code { code, status, title, retryable: false, written: Written::No, retry_after_secs: None }
}

const fn retry(row: Code, after_secs: u32) -> Code {
    Code { retryable: true, retry_after_secs: Some(after_secs), ..row }
}

const fn written(row: Code, written: Written) -> Code {
    Code { written, ..row }
}

/// Every code there is: first the kinds of a store's errors, then those that HTTP adds.
pub const CODES: &[Code] = &[
    code("invalid", 400, "The request is not what it has to be"),
    code("limit_exceeded", 413, "The request is larger than a declared limit"),
    code("conflict", 409, "A condition does not hold"),
    code("already_exists", 409, "An event with this source and id is already there"),
    code("not_found", 404, "There is no such thing"),
    retry(code("locked", 503, "Another process writes to this store"), 5),
    code("read_only", 403, "The store or log can only be read"),
    code("damaged", 500, "Stored bytes fail their check"),
    retry(code("full", 507, "No space is left"), 60),
    code("not_a_store", 500, "This is not a Precedent store"),
    code("unsupported_format", 500, "The format is newer than this program"),
    code("clock", 500, "The clock disagrees with the log's"),
    code("log_forked", 409, "The log holds another history"),
    code("log_went_backwards", 500, "The log is shorter than what was seen before"),
    code("unauthorized", 401, "The token is missing or not the right one"),
    retry(code("overloaded", 503, "Too many requests are under way"), 1),
    retry(code("unavailable", 503, "The store did not answer"), 1),
    written(code("stopped", 503, "The store has stopped"), Written::Said),
    written(retry(code("unknown", 504, "The outcome of the write is not known"), 1), Written::Maybe),
    written(code("io", 500, "The disk or the network failed"), Written::Said),
    written(code("internal", 500, "A defect of this program"), Written::Said),
    code("store_unauthorized", 502, "The store refuses this server's credentials"),
    code("forbidden_origin", 403, "A page of another site may not ask"),
    code("misdirected", 421, "This server does not answer for that host"),
    code("method_not_allowed", 405, "This path does not have that method"),
    code("not_acceptable", 406, "None of the accepted media types can be given"),
    retry(code("request_timeout", 408, "The request came too slowly"), 1),
    code("precondition_failed", 412, "The register is not as expected"),
    code("unsupported_media_type", 415, "The body's media type is not understood"),
    code("upgrade_required", 426, "This path is a WebSocket"),
    code("precondition_required", 428, "A register is only set under a condition"),
    retry(code("upstream_failed", 502, "The upstream of the proxy cannot be asked"), 1),
    retry(code("upstream_timeout", 504, "The upstream of the proxy did not answer in time"), 1),
    retry(code("not_recorded", 503, "The call could not be recorded, and the proxy fails closed"), 1),
];

fn row(code: &str) -> &'static Code {
    let found = CODES.iter().find(|row| row.code == code);
    found.or_else(|| CODES.iter().find(|row| row.code == "internal")).expect("the table has `internal`")
}

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Problem {
    row: &'static Code,
    error: Error,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem that only HTTP has, by its code.
    pub(crate) fn http(code: &str, detail: impl Into<String>) -> Self {
        // The kind is only what `retryable` and `written` default to; the code that goes out is the row's.
        let row = row(code);
        let kind = if row.retryable { ErrorKind::Overloaded } else { ErrorKind::Invalid };
        Self { row, error: Error::new(kind, detail), headers: Vec::new() }
    }

    /// The same problem under another code, as when a conflict is a failed precondition.
    pub(crate) fn recoded(mut self, code: &str) -> Self {
        self.row = row(code);
        self
    }

    /// The status it goes out with.
    pub(crate) fn status(&self) -> u16 {
        self.row.status
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        self.error.message()
    }

    /// Seconds to wait before trying again, if that makes sense.
    pub(crate) fn retry_after_secs(&self) -> Option<u32> {
        self.error.retry_after_secs().or(self.row.retry_after_secs)
    }

    /// The members of its JSON object.
    fn members(&self) -> Map<String, Value> {
        let Self { row, error, .. } = self;
        let mut members = wire::error_members(error);
        members.insert("type".into(), json!("about:blank"));
        members.insert("title".into(), json!(row.title));
        members.insert("status".into(), json!(row.status));
        members.insert("code".into(), json!(row.code));
        members.insert("retryable".into(), json!(row.retryable));
        members
    }

    /// The same where it cannot have a header: what `Retry-After` would say is `retry_after`.
    pub(crate) fn line(&self) -> Value {
        let mut members = self.members();
        if let Some(secs) = self.retry_after_secs() {
            members.insert("retry_after".into(), json!(secs));
        }
        Value::Object(members)
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // 401 is about the token of the request; the store's own credentials are not the client's business.
        let code = match error.kind() {
            ErrorKind::Unauthorized => "store_unauthorized",
            kind => kind.code(),
        };
        Self { row: row(code), error, headers: Vec::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (members, retry_after) = (self.members(), self.retry_after_secs());
        let Self { row, headers, .. } = self;
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(Value::Object(members).to_string()));
        *response.status_mut() = status;
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = retry_after {
            out.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        for (name, value) in headers {
            out.insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_row_that_agrees_with_it() {
        for kind in ErrorKind::ALL {
            let row = row(kind.code());
            assert_eq!(row.code, kind.code());
            assert_eq!(row.retryable, kind.is_retryable(), "{}", kind.code());
            assert_eq!(row.retryable, row.retry_after_secs.is_some(), "{}", kind.code());
            let may = Error::new(*kind, "").may_have_been_written();
            assert_eq!(may, row.written == Written::Maybe, "{}", kind.code());
        }
    }

    #[test]
    fn the_page_about_http_lists_every_code_as_the_table_has_it() {
        let page = include_str!("../../../docs/http.md");
        for row in CODES {
            let retry = if row.retryable { "yes" } else { "no" };
            let written = match row.written {
                Written::No => "no",
                Written::Maybe => "maybe",
                Written::Said => "as the problem says",
            };
            let line = format!("| `{}` | {} | {retry} | {written} |", row.code, row.status);
            assert!(page.contains(&line), "docs/http.md lacks: {line}");
        }
    }
}

//! `GET|PUT /v1/registers/{name}`: small named values with compare-and-swap. The ETag is the revision.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use precedent_core::{Error, ErrorKind, ExpectedRegister, RegisterName};
use serde_json::json as value;

use super::{Answer, HeaderUse, Route, Scope, json, text};
use crate::body::receive;
use crate::call::Call;
use crate::problem::Problem;

pub(super) const GET: Route = Route {
    method: Method::GET,
    scope: Scope::Store,
    path: "/registers/{name}",
    id: "readRegister",
    about: "The value of a register; its revision is the ETag.",
    parameters: &[],
    headers: &[HeaderUse {
        name: "If-None-Match",
        about: "The ETag that is known: 304 if it is still the same.",
    }],
    takes: &[],
    status: 200,
    gives: &["application/octet-stream"],
    problems: &[],
    handle: |call| Box::pin(get(call)),
};

pub(super) const PUT: Route = Route {
    method: Method::PUT,
    scope: Scope::Store,
    path: "/registers/{name}",
    id: "setRegister",
    about: "Sets a register if it is as expected: 201 the first time, 200 later.",
    parameters: &[],
    headers: &[
        HeaderUse { name: "If-Match", about: "The ETag the register has to have." },
        HeaderUse { name: "If-None-Match", about: "`*`: the register must never have been set." },
    ],
    takes: &["*/*"],
    status: 200,
    gives: &["application/json"],
    problems: &["precondition_failed", "precondition_required", "read_only", "full", "unknown"],
    handle: |call| Box::pin(put(call)),
};

async fn get(call: Call) -> Answer {
    let name: RegisterName = call.part("name").parse()?;
    let register =
        call.app.store.register(&name).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("register '{name}' has never been set"))
        })?;
    let known =
        one(&call.headers, &header::IF_NONE_MATCH)?.map(|known| known.trim().trim_start_matches("W/"));
    let same = known.is_some_and(|known| known == "*" || known == format!("\"{}\"", register.revision));
    let mut response = text(200, "application/octet-stream", register.value);
    if same {
        response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    tagged(response, register.revision)
}

async fn put(mut call: Call) -> Answer {
    let name: RegisterName = call.part("name").parse()?;
    let expected = expected(&call.headers)?;
    let body = call.take_body();
    let received = receive(&call.app, &call.headers, body).await?;
    let (app, busy) = (call.app.clone(), call.app.busy());
    let task = tokio::spawn(async move {
        // A value of its own, so that the body's room can be given back.
        let value = bytes::Bytes::copy_from_slice(&received.bytes);
        let set = app.store.set_register(&name, expected, value).await;
        drop((busy, received));
        set
    });
    let broken = |e| {
        let message = format!("setting the register was broken off: {e}");
        Error::new(ErrorKind::Internal, message).maybe_written()
    };
    let register = task.await.map_err(broken)?.map_err(|e| match e.kind() {
        ErrorKind::Conflict => Problem::from(e).recoded("precondition_failed"),
        _ => e.into(),
    })?;
    let status = if register.revision == 1 { 201 } else { 200 };
    tagged(json(status, &value!({ "revision": register.revision })), register.revision)
}

fn tagged(mut response: Response, revision: u64) -> Answer {
    let tag = HeaderValue::from_str(&format!("\"{revision}\""))
        .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}

/// The value of a header that may stand once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let bad = || Error::invalid(format!("the header {name} is not ASCII text"));
            value.to_str().map(Some).map_err(|_| bad())
        }
        _ => Err(Error::invalid(format!("the header {name} stands several times"))),
    }
}

fn expected(headers: &HeaderMap) -> Result<ExpectedRegister, Problem> {
    match (one(headers, &header::IF_MATCH)?, one(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Err(Problem::http(
            "precondition_required",
            "say what the register has to be: If-None-Match: * if it must never have been set, else If-Match with its ETag",
        )),
        (Some(_), Some(_)) => Err(Error::invalid("If-Match and If-None-Match contradict each other").into()),
        (None, Some(tag)) if tag.trim() == "*" => Ok(ExpectedRegister::Absent),
        (None, Some(_)) => {
            Err(Error::invalid("setting a register takes If-None-Match: * and no other value").into())
        }
        (Some(tag), None) => {
            let inner = tag.trim().strip_prefix('"').and_then(|t| t.strip_suffix('"'));
            inner.and_then(|revision| revision.parse().ok()).map(ExpectedRegister::Revision).ok_or_else(
                || {
                    let shown: String = tag.chars().take(64).collect();
                    Error::invalid(format!(
                        "If-Match is '{}', expected one ETag such as \"3\"",
                        shown.escape_debug()
                    ))
                    .into()
                },
            )
        }
    }
}

//! `GET|PUT /v1/registers/{name}`: small named values with compare-and-swap. The ETag is the revision.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use precedent_core::{Error, ErrorKind, ExpectedRegister, Register, RegisterName, Store};
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
        about: "The ETag that is known, or several: 304 if it is still one of them.",
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
        HeaderUse {
            name: "If-Match",
            about: "The ETag the register has to have, or one of several; `*`: it must have been set.",
        },
        HeaderUse { name: "If-None-Match", about: "`*`: the register must never have been set." },
    ],
    takes: &["*/*"],
    status: 200,
    gives: &["application/json"],
    problems: &[
        "precondition_failed",
        "precondition_required",
        "read_only",
        "full",
        "unknown",
        "unsupported_media_type",
    ],
    handle: |call| Box::pin(put(call)),
};

async fn get(call: Call) -> Answer {
    let name: RegisterName = call.part("name").parse()?;
    let register =
        call.app.store.register(&name).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("register '{name}' has never been set"))
        })?;
    let same = match tags(&call.headers, &header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        // Weak ones count here: RFC 9110, section 13.1.2.
        Some(Tags::Listed(tags)) => tags.iter().any(|tag| tag.value == register.revision.to_string()),
    };
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
        let set = set(app.store.as_ref(), &name, expected, value).await;
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

/// Sets a register that has to be as `expected`. What is expected of one that is there is held against what is
/// read, and then set if that has not changed meanwhile.
async fn set(
    store: &dyn Store,
    name: &RegisterName,
    expected: Expected,
    value: bytes::Bytes,
) -> Result<Register, Error> {
    const ATTEMPTS: usize = 16;
    let tags = match expected {
        Expected::Exactly(expected) => return store.set_register(name, expected, value).await,
        Expected::OneOf(tags) => tags,
    };
    for _ in 0..ATTEMPTS {
        let failed = |is: String| Error::new(ErrorKind::Conflict, format!("register '{name}' {is}"));
        let register = store.register(name).await?;
        let register = register.ok_or_else(|| failed("has never been set".to_owned()))?;
        let revision = register.revision;
        let fits = match &tags {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| !tag.weak && tag.value == revision.to_string()),
        };
        if !fits {
            return Err(failed(format!("is at revision {revision}, which If-Match does not name")));
        }
        match store.set_register(name, ExpectedRegister::Revision(revision), value.clone()).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            set => return set,
        }
    }
    Err(Error::new(
        ErrorKind::Overloaded,
        format!("register '{name}' was set by others {ATTEMPTS} times meanwhile"),
    ))
}

/// What a register has to be.
enum Expected {
    Exactly(ExpectedRegister),
    OneOf(Tags),
}

/// The value of `If-Match` or `If-None-Match`.
enum Tags {
    Any,
    Listed(Vec<EntityTag>),
}

struct EntityTag {
    weak: bool,
    value: String,
}

/// The entity tags of a header, which may stand several times: RFC 9110, section 13.1.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Error> {
    let mut texts = Vec::new();
    for value in headers.get_all(name) {
        let bad = |_| Error::invalid(format!("the header {name} is not ASCII text"));
        texts.push(value.to_str().map_err(bad)?.trim());
    }
    let text = match texts.as_slice() {
        [] => return Ok(None),
        ["*"] => return Ok(Some(Tags::Any)),
        texts => texts.join(","),
    };
    let bad = || {
        let shown: String = text.chars().take(64).collect();
        let shown = shown.escape_debug();
        Error::invalid(format!("the header {name} is '{shown}', expected * or ETags such as \"3\""))
    };
    let (mut list, mut rest) = (Vec::new(), text.as_str());
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let weak = rest.starts_with("W/");
        let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"').ok_or_else(bad)?;
        let (value, behind) = quoted.split_once('"').ok_or_else(bad)?;
        list.push(EntityTag { weak, value: value.to_owned() });
        rest = behind.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return Err(bad());
        }
    }
    if list.is_empty() { Err(bad()) } else { Ok(Some(Tags::Listed(list))) }
}

fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    match (tags(headers, &header::IF_MATCH)?, tags(headers, &header::IF_NONE_MATCH)?) {
        (None, None) => Err(Problem::http(
            "precondition_required",
            "say what the register has to be: If-None-Match: * if it must never have been set, else If-Match with its ETag",
        )),
        (Some(_), Some(_)) => Err(Error::invalid("If-Match and If-None-Match contradict each other").into()),
        (None, Some(Tags::Any)) => Ok(Expected::Exactly(ExpectedRegister::Absent)),
        (None, Some(Tags::Listed(_))) => {
            Err(Error::invalid("setting a register takes If-None-Match: * and no other value").into())
        }
        (Some(tags), None) => Ok(match &tags {
            Tags::Listed(list) => match list.as_slice() {
                [EntityTag { weak: false, value }] => match value.parse() {
                    Ok(revision) => Expected::Exactly(ExpectedRegister::Revision(revision)),
                    // No revision is called that: whatever the register is, it is something else.
                    Err(_) => Expected::OneOf(tags),
                },
                _ => Expected::OneOf(tags),
            },
            Tags::Any => Expected::OneOf(tags),
        }),
    }
}

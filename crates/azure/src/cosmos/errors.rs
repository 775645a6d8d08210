//! What the service's answers mean for us. No message holds what the service or the SDK said in free text, so none can
//! hold a credential.

use azure_data_cosmos::CosmosError;
use azure_data_cosmos::diagnostics::DiagnosticsContext;
use precedent_core::{Error, ErrorKind};

/// The sub-status of a 403 for a logical partition at its ceiling of 20 GB.
const PARTITION_FULL: u16 = 1014;

/// The error for a call that the service did not carry out, or nobody knows whether it did.
pub(super) fn from_cosmos(error: &CosmosError, what: &str, credential: &str) -> Error {
    let status = error.status();
    let code = u16::from(status.status_code());
    let substatus = status.sub_status().map_or(0, |sub| sub.value());
    let said = format!("{what}: the service answered {code}/{substatus}");
    let retry = |error: Error, after: Option<std::time::Duration>| {
        let secs = after.map_or(1, |after| after.as_secs().max(1));
        error.retry_after(u32::try_from(secs).unwrap_or(u32::MAX))
    };
    match (code, substatus) {
        (401, _) => Error::new(ErrorKind::Unauthorized, format!("{said}: the {credential} was refused")),
        (403, PARTITION_FULL) => {
            Error::new(ErrorKind::Full, format!("{said}: the logical partition is at its ceiling of 20 GB"))
        }
        (403, 3 | 1008) => {
            Error::new(ErrorKind::Unavailable, format!("{said}: the region takes no writes now"))
        }
        (403, _) => Error::new(ErrorKind::Unauthorized, format!("{said}: the {credential} may not do this")),
        (404, _) => Error::new(
            ErrorKind::NotFound,
            format!(
                "{said}: the database or container is not there; `precedent provision cosmos up` makes it"
            ),
        ),
        (429, _) => {
            let after = error.response().and_then(|answer| answer.headers().retry_after_ms);
            let after = after.map(std::time::Duration::from_millis);
            retry(Error::new(ErrorKind::Overloaded, format!("{said}: too many requests")), after)
        }
        (400 | 413, _) => Error::new(ErrorKind::Internal, format!("{said}: the request is not one it takes")),
        _ => Error::new(ErrorKind::Unavailable, said),
    }
}

/// The request units that a call which failed is charged, all its tries together, as far as the service said.
pub(super) fn charged(error: &CosmosError) -> f64 {
    let tries = error.diagnostics();
    tries.map_or(0.0, |tries| tries.requests().iter().map(|one| one.request_charge().value()).sum())
}

/// Whether it is certain that nothing was written: every try of the SDK was either not sent, or answered by the service
/// with a status that says so. One try whose answer was lost is enough not to know, whatever the last one was told.
pub(super) fn nothing_written(error: &CosmosError) -> bool {
    error.diagnostics().is_some_and(|tries| no_try_is_in_doubt(&tries))
}

/// Whether every try of a call is known to have written nothing, or to have been answered.
pub(super) fn no_try_is_in_doubt(tries: &DiagnosticsContext) -> bool {
    tries.requests().iter().all(|request| {
        let status = u16::from(request.status().status_code());
        let refused = matches!(status, 400 | 401 | 403 | 404 | 409 | 410 | 412 | 413 | 429 | 449);
        let answered = refused || (200..300).contains(&status);
        request.request_sent().definitely_not_sent() || (answered && !request.timed_out())
    })
}

//! What the service's answers mean for us. No message holds what the service or the SDK said in free text, so none can
//! hold a credential.

use azure_data_cosmos::CosmosError;
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

/// Whether the service says for certain that it wrote nothing.
pub(super) fn nothing_written(error: &CosmosError) -> bool {
    error.is_from_wire()
        && matches!(u16::from(error.status().status_code()), 400 | 401 | 403 | 404 | 412 | 413 | 429)
}

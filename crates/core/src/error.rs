//! The one public error: what went wrong, whether a retry makes sense, whether anything may have been
//! written.

use std::fmt;
use std::sync::Arc;

use crate::ids::Position;

/// The result of every fallible operation of a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong. A kind exists only where a caller would do something different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is not what it has to be. Sending it again changes nothing.
    Invalid,
    /// The input is well formed and larger than a declared limit; the message has both numbers.
    LimitExceeded,
    /// A condition of the append does not hold; [`Error::conflicts`] says which event is in the way.
    Conflict,
    /// An event with the same source and id is already there, and this append cannot be an exact retry of it.
    AlreadyExists,
    /// The log, event, register or position does not exist.
    NotFound,
    /// Another process writes to this store.
    Locked,
    /// The store or log can be read only: by permission, as a copy, or because its tail is damaged.
    ReadOnly,
    /// Bytes fail their check. The message names frame, position, file and offset as far as they are known.
    Damaged,
    /// No space is left on the device; what was acknowledged before is safe.
    Full,
    /// The directory or endpoint is not a Precedent store.
    NotAStore,
    /// The format is newer than this program.
    UnsupportedFormat,
    /// The writer's clock disagrees with the log's or the service's by more than five minutes.
    Clock,
    /// The target of a copy holds another history.
    LogForked,
    /// The log is shorter than, or different from, what was seen before.
    LogWentBackwards,
    /// The credentials are missing or refused.
    Unauthorized,
    /// Too many requests are under way; try again after [`Error::retry_after_secs`].
    Overloaded,
    /// The service or device did not answer, and nothing was written.
    Unavailable,
    /// The handle stopped after a failure it could not settle; open the store again.
    Stopped,
    /// The outcome of a write is not known: it may or may not have been written. Retrying with the same
    /// events is safe, their keys make the append idempotent.
    Unknown,
    /// The disk or the network failed.
    Io,
    /// A defect of this program.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: &'static [ErrorKind] = &[
        Self::Invalid,
        Self::LimitExceeded,
        Self::Conflict,
        Self::AlreadyExists,
        Self::NotFound,
        Self::Locked,
        Self::ReadOnly,
        Self::Damaged,
        Self::Full,
        Self::NotAStore,
        Self::UnsupportedFormat,
        Self::Clock,
        Self::LogForked,
        Self::LogWentBackwards,
        Self::Unauthorized,
        Self::Overloaded,
        Self::Unavailable,
        Self::Stopped,
        Self::Unknown,
        Self::Io,
        Self::Internal,
    ];

    /// The stable code of this kind, the same in the CLI, in HTTP problems and in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::LimitExceeded => "limit_exceeded",
            Self::Conflict => "conflict",
            Self::AlreadyExists => "already_exists",
            Self::NotFound => "not_found",
            Self::Locked => "locked",
            Self::ReadOnly => "read_only",
            Self::Damaged => "damaged",
            Self::Full => "full",
            Self::NotAStore => "not_a_store",
            Self::UnsupportedFormat => "unsupported_format",
            Self::Clock => "clock",
            Self::LogForked => "log_forked",
            Self::LogWentBackwards => "log_went_backwards",
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
            Self::Io => "io",
            Self::Internal => "internal",
        }
    }

    /// The kind with this code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Locked | Self::Full | Self::Overloaded | Self::Unavailable | Self::Unknown)
    }
}

/// An event that is in the way of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Where the event in the way stands; `None` if the conflict is that there is no such event.
    pub position: Option<Position>,
    /// The index of the event in the append (already exists) or of the condition (conflict), from 0.
    pub index: usize,
}

/// What went wrong, in one sentence, with the numbers in it.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    may_have_been_written: bool,
    conflicts: Vec<Conflict>,
    retry_after_secs: Option<u32>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. The message is lowercase, names the thing and gives the number.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            may_have_been_written: kind == ErrorKind::Unknown,
            conflicts: Vec::new(),
            retry_after_secs: None,
            source: None,
        }))
    }

    /// [`ErrorKind::Invalid`] with this message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::LimitExceeded`]: `what` has `actual` of something of which `limit` are allowed.
    pub fn limit(what: impl fmt::Display, actual: u64, limit: u64, unit: &str) -> Self {
        Self::new(ErrorKind::LimitExceeded, format!("{what} is {actual} {unit}, the limit is {limit}"))
    }

    /// [`ErrorKind::Damaged`] with this message.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// The same error with the events that are in the way.
    pub fn with_conflicts(mut self, conflicts: Vec<Conflict>) -> Self {
        self.0.conflicts = conflicts;
        self
    }

    /// The same error, saying that the write may have happened.
    pub fn maybe_written(mut self) -> Self {
        self.0.may_have_been_written = true;
        self
    }

    /// The same error, saying when to try again.
    pub fn retry_after(mut self, secs: u32) -> Self {
        self.0.retry_after_secs = Some(secs);
        self
    }

    /// The same error with its cause, for `std::error::Error::source`.
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The same error, its message preceded by where it happened.
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message);
        self
    }

    /// The kind, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence, for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Whether the write may have happened all the same. `false` is a promise: nothing was written.
    pub fn may_have_been_written(&self) -> bool {
        self.0.may_have_been_written
    }

    /// The events in the way, for `conflict` and `already_exists`.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.0.conflicts
    }

    /// How many seconds to wait before trying again, if the store said so.
    pub fn retry_after_secs(&self) -> Option<u32> {
        self.0.retry_after_secs
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.code(), self.0.message)?;
        if self.0.may_have_been_written {
            f.write_str(" (may have been written)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge => ErrorKind::Full,
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
                ErrorKind::ReadOnly
            }
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }
}

//! How a command ends when it does not end well: one line, a hint where it helps, and the exit code.

use std::process::ExitCode;

use precedent::{Error, ErrorKind};

use crate::output::say;
use crate::text::escaped;

/// The end of a command that did not do what was asked, or whose answer is no.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `None` if everything has been said.
    message: Option<String>,
    hint: Option<String>,
    code: u8,
}

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Something broke.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), hint: None, code: 2 }
    }

    /// The answer is no, and it has been printed.
    pub(crate) fn no() -> Self {
        Self { message: None, hint: None, code: 1 }
    }

    /// Nobody reads what is written any more: a quiet end, as with `| head`.
    pub(crate) fn nobody_reads() -> Self {
        Self { message: None, hint: None, code: 0 }
    }

    /// What to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, preceded by where it happened.
    #[must_use]
    pub(crate) fn context(mut self, place: impl std::fmt::Display) -> Self {
        self.message = self.message.map(|message| format!("{place}: {message}"));
        self
    }

    /// The same, followed by what is to be known besides.
    #[must_use]
    pub(crate) fn adding(mut self, more: impl std::fmt::Display) -> Self {
        self.message = self.message.map(|message| format!("{message}; {more}"));
        self
    }

    /// Says it on stderr.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = &self.message {
            say(format_args!("error: {}", escaped(message)));
        }
        if let Some(hint) = &self.hint {
            say(format_args!("  hint: {}", escaped(hint)));
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let hint = match error.kind() {
            ErrorKind::Locked => Some("stop that process, or name its server with --store URL"),
            ErrorKind::Unauthorized => {
                Some("the environment variable PRECEDENT_TOKEN holds the token of a server")
            }
            ErrorKind::Clock => Some("--accept-clock writes all the same, and that is recorded"),
            ErrorKind::Full => Some("what was recorded before is safe; make room and try again"),
            _ if error.may_have_been_written() => Some(
                "it may have been recorded: doing the same again is safe, since source and id make it idempotent",
            ),
            _ => None,
        };
        let code = match error.kind() {
            ErrorKind::Conflict | ErrorKind::AlreadyExists => 1,
            _ => 2,
        };
        let message = Some(error.message().to_owned());
        Self { message, hint: hint.map(str::to_owned), code }
    }
}

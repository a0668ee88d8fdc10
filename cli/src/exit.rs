//! The exit codes, and the one place that says which error has which. Prints nothing.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use muster_runtime::context::ContextError;
use muster_runtime::dial;
use tonic::{Code, Status};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Ok,
    /// An error; nothing is promised about what was done.
    Error,
    /// `plan`: the spec would change something.
    Changes,
    /// A safety gate refused; nothing was done.
    Refused,
    /// The operation is paused, failed or rolled back, or took too long.
    Paused,
    /// The drill ran and missed a threshold.
    Missed,
    /// No coordinator answered.
    Unreachable,
    /// The command line is wrong.
    Usage,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Changes => 2,
            Self::Refused => 3,
            Self::Paused => 4,
            Self::Missed => 5,
            Self::Unreachable => 6,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that knows its exit code and what to do about it.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// With this code.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// The exit code of an error.
#[must_use]
pub fn of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.exit;
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
            return of_status(status);
        }
    }
    Exit::Error
}

fn of_status(status: &Status) -> Exit {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::FailedPrecondition => Exit::Refused,
        _ => Exit::Error,
    }
}

/// Whether somebody closed the pipe that we write to: no error, they have seen enough.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    // A connection to a coordinator can break with the same error, but then a status is around it.
    error.chain().any(closed) && !error.chain().any(|cause| cause.is::<Status>())
}

/// What the user reads: the causes, outermost first, without repetitions and gRPC's wrapping.
#[must_use]
pub fn describe(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        let status = cause.downcast_ref::<Status>();
        let text = match status {
            Some(status) => match dial::unreachable(status) {
                Some(unreachable) => unreachable.to_string(),
                None => status_text(status),
            },
            None => cause.to_string(),
        };
        if !lines.iter().any(|line| line.contains(&text)) {
            lines.push(text);
        }
        if status.is_some() {
            break;
        }
    }
    lines.join("\n  because: ")
}

fn status_text(status: &Status) -> String {
    match (status.code(), status.message()) {
        (Code::Aborted, _) => "somebody changed the platform since; run `muster plan` again".to_owned(),
        (code, "") => code.description().to_owned(),
        (_, message) => message.to_owned(),
    }
}

/// What to do about an error, if there is something that usually helps.
#[must_use]
pub fn hint(error: &anyhow::Error) -> Option<String> {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.hint.clone();
        }
        if let Some(status) = cause.downcast_ref::<Status>() {
            return status_hint(status).map(str::to_owned);
        }
        if cause.is::<ContextError>() {
            return Some(
                "`muster context import FILE` stores a context file; `muster context ls` lists them"
                    .to_owned(),
            );
        }
    }
    None
}

fn status_hint(status: &Status) -> Option<&'static str> {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => Some(
            "check that a majority of coordinators runs (`systemctl status muster-coordinator`) and that this \
             machine reaches one of the addresses in `muster context ls`",
        ),
        Code::Unauthenticated => Some(
            "root on a coordinator can issue a new context: \
             `muster-coordinator admin issue --name NAME --role admin --out FILE`",
        ),
        Code::PermissionDenied => Some("ask an admin of this platform, or use a context with that role"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let of_code = |code| of(&anyhow::Error::from(Status::new(code, "x")).context("applying"));
        assert_eq!(of_code(Code::Unavailable), Exit::Unreachable);
        assert_eq!(of_code(Code::DeadlineExceeded), Exit::Unreachable);
        assert_eq!(of_code(Code::FailedPrecondition), Exit::Refused);
        for code in
            [Code::InvalidArgument, Code::NotFound, Code::Aborted, Code::Internal, Code::PermissionDenied]
        {
            assert_eq!(of_code(code), Exit::Error, "{code:?}");
        }
        assert_eq!(of(&anyhow!("x")), Exit::Error);
        assert_eq!(of(&anyhow::Error::from(Failure::new(Exit::Missed, "x")).context("y")), Exit::Missed);
    }

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let all = [
            Exit::Ok,
            Exit::Error,
            Exit::Changes,
            Exit::Refused,
            Exit::Paused,
            Exit::Missed,
            Exit::Unreachable,
            Exit::Usage,
        ];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6, 64]);
    }

    #[test]
    fn a_stale_index_is_said_in_words() {
        let error = anyhow::Error::from(Status::aborted("stale: the spec 7 9")).context("apply");
        assert_eq!(
            describe(&error),
            "apply\n  because: somebody changed the platform since; run `muster plan` again"
        );
    }

    #[test]
    fn only_our_own_output_counts_as_a_closed_pipe() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&anyhow::Error::from(closed)));
        let mut status = Status::unknown("transport error");
        status.set_source(std::sync::Arc::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(!is_closed_pipe(&anyhow::Error::from(status)));
    }
}

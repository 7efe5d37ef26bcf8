//! Why a command did not do what was asked: an exit code for scripts, a sentence for
//! people, and what to do next.

use std::{fmt, process::ExitCode};

/// The exit codes, as `sconce --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    Denied = 4,
    NotFound = 5,
    Conflict = 6,
    Interrupted = 130,
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same failure with what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Nobody answers at this address.
    pub(crate) fn unreachable(who: &str, address: &str, why: impl fmt::Display) -> Self {
        Self::new(Exit::Unreachable, format!("cannot reach the {who} at {address}: {why}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  {hint}"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error and all its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_next_on_a_line_of_its_own() {
        let failure = Failure::unreachable("control plane", "https://a:1", "refused").hint("start one");
        assert_eq!(
            failure.to_string(),
            "cannot reach the control plane at https://a:1: refused\n  start one"
        );
        assert_eq!(failure.exit as u8, 3);
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let inner = std::io::Error::other("refused");
        let failure = std::io::Error::other(inner);
        assert_eq!(chain(&failure), "refused");
    }
}

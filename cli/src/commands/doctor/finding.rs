//! What a check has to say.

use std::fmt;

use serde::Serialize;

use crate::troubles::Trouble;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// Which check found it: a word that stays the same.
    pub(super) check: &'static str,
    pub(super) object: String,
    pub(super) problem: String,
    pub(super) next: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something does not work.
    Error,
    /// It works, and will not for long, or not as it seems.
    Warning,
}

impl Finding {
    pub(super) fn error(
        check: &'static str,
        object: impl Into<String>,
        problem: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        let (object, problem, next) = (object.into(), problem.into(), next.into());
        Self { severity: Severity::Error, check, object, problem, next }
    }

    pub(super) fn warning(
        check: &'static str,
        object: impl Into<String>,
        problem: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(check, object, problem, next) }
    }

    pub(super) fn of(check: &'static str, trouble: Trouble) -> Self {
        Self::error(check, trouble.object, trouble.problem, trouble.next)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        // One line, whatever a message of somebody else's holds.
        let problem = self.problem.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{severity:<8} {}: {}: {problem}; next: {}", self.check, self.object, self.next)
    }
}

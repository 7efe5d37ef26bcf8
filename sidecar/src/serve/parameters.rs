//! Parameters of requests: the terms on which they are to run, and those that nobody here can honour.

use super::error::ServeError;
use crate::engine::Priority;

/// Each belongs to an extension of the protocol that is not offered, and asks for another
/// answer than the one that would be given. Every other parameter may be ignored.
const NOT_OFFERED: [&str; 2] = ["classification", "shared_memory_region"];

/// Of the schedule policy extension: 1 is the highest, and 0 leaves it to the server.
pub(super) const PRIORITY: &str = "priority";
/// Of the same: in microseconds, and 0 is none.
pub(super) const TIMEOUT: &str = "timeout";

/// What the parameters of a request say of when it should run.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) priority: Priority,
    /// In microseconds.
    pub(super) timeout: Option<u64>,
}

/// Refuses parameters that would be answered wrongly. Names of those that are set.
pub(super) fn check<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ServeError> {
    match names.into_iter().find(|name| NOT_OFFERED.contains(name)) {
        Some(name) => Err(ServeError::Unsupported(name.to_owned())),
        None => Ok(()),
    }
}

impl Terms {
    /// From the two parameters: `None` where one is not there, an error where it is no number.
    pub(super) fn read(number: impl Fn(&'static str) -> Option<Result<u64, ()>>) -> Result<Self, ServeError> {
        let read = |name| match number(name) {
            None => Ok(0),
            Some(Ok(number)) => Ok(number),
            Some(Err(())) => {
                Err(ServeError::Malformed(format!("the parameter {name} is not a whole number from 0 on")))
            }
        };
        let (priority, timeout) = (read(PRIORITY)?, read(TIMEOUT)?);
        Ok(Self { priority: Priority::new(priority), timeout: (timeout > 0).then_some(timeout) })
    }
}

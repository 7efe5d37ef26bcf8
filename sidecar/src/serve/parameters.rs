//! Parameters of requests: the terms on which they are to run, and what is wanted of outputs.

use super::{classify::Classes, error::ServeError};
use crate::engine::Priority;

/// Of the schedule policy extension: 1 is the highest, and 0 leaves it to the server.
pub(super) const PRIORITY: &str = "priority";
/// Of the same: in microseconds, and 0 is none.
pub(super) const TIMEOUT: &str = "timeout";

/// Of the classification extension, of an output: how many classes; 0 is none.
pub(super) const CLASSIFICATION: &str = "classification";

/// What the parameters of a request say of when it should run.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) priority: Priority,
    /// In microseconds.
    pub(super) timeout: Option<u64>,
}

/// The classes that are wanted of outputs, by the parameter of each: `None` where it is not there, an
/// error where it is no number.
pub(super) fn classes(
    outputs: impl Iterator<Item = (String, Option<Result<u64, ()>>)>,
) -> Result<Classes, ServeError> {
    let mut classes = Classes::new();
    for (output, count) in outputs {
        match count {
            None | Some(Ok(0)) => {}
            Some(Ok(count)) => drop(classes.insert(output, count)),
            Some(Err(())) => {
                return Err(ServeError::Malformed(format!(
                    "output `{output}`: the parameter {CLASSIFICATION} is not a whole number from 0 on"
                )));
            }
        }
    }
    Ok(classes)
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

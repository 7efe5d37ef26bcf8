//! Parameters of requests, inputs and outputs that nobody here can honour.

use super::error::ServeError;

/// Each belongs to an extension of the protocol that is not offered, and asks for another
/// answer than the one that would be given. Every other parameter may be ignored.
const NOT_OFFERED: [&str; 3] = ["classification", "sequence_id", "shared_memory_region"];

/// Refuses parameters that would be answered wrongly. Names of those that are set.
pub(super) fn check<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ServeError> {
    match names.into_iter().find(|name| NOT_OFFERED.contains(name)) {
        Some(name) => Err(ServeError::Unsupported(name.to_owned())),
        None => Ok(()),
    }
}

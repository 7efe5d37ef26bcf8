//! What a mesh says of a request, in a header that its route sets.

use sconce_catalog::{InvalidRoute, RouteHeader};
use sconce_identity::Principal;

use super::error::ServeError;

/// What the mesh's route says: `<model>/<version>@<generation>`, or `<model>@<generation>` of a sticky
/// model.
pub(super) const ROUTE: &str = "x-sconce-route";

/// The route that a request came by.
#[derive(Clone)]
pub(super) struct Routed {
    pub(super) header: RouteHeader,
    /// Whose Envoy has set it, for whoever asks which of them follow the latest one.
    pub(super) caller: Option<Principal>,
}

impl Routed {
    /// The route in this header, from this caller.
    pub(super) fn read(header: Option<&str>, caller: Option<&Principal>) -> Result<Option<Self>, ServeError> {
        let header = header.map(str::parse).transpose();
        let header = header
            .map_err(|error: InvalidRoute| ServeError::Malformed(format!("the header {ROUTE}: {error}")))?;
        Ok(header.map(|header| Self { header, caller: caller.cloned() }))
    }
}

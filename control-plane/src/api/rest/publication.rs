//! What the JSON says of a split on its way into the mesh.

use serde::Serialize;
use utoipa::ToSchema;

use crate::publish::{Lacking, Publication, State};

/// What has become of a model's split in the mesh.
#[derive(Serialize, ToSchema)]
pub(super) struct PublicationView {
    /// `published`, `waiting`, `conflict` or `failed`.
    state: &'static str,
    /// Why, where it is not published.
    reason: Option<String>,
    /// Generation of the route that the mesh was given last.
    generation: Option<u64>,
    /// When, in milliseconds since the Unix epoch.
    published_at_ms: Option<i64>,
    /// Pods that are endpoints although they lack a version.
    lacking: Vec<String>,
    /// Connected pods that are no endpoints, each with the version that it lacks.
    left_out: Vec<String>,
}

impl From<&Publication> for PublicationView {
    fn from(publication: &Publication) -> Self {
        let (state, reason) = match &publication.state {
            State::Published => ("published", None),
            State::Waiting(reason) => ("waiting", Some(reason.clone())),
            State::Conflict(reason) => ("conflict", Some(reason.clone())),
            State::Failed(reason) => ("failed", Some(reason.clone())),
        };
        let texts = |lacking: &[Lacking]| lacking.iter().map(|lacking| lacking.text().to_owned()).collect();
        Self {
            state,
            reason,
            generation: publication.in_force.map(|in_force| in_force.generation.0),
            published_at_ms: publication.in_force.map(|in_force| in_force.at_ms),
            lacking: texts(&publication.lacking),
            left_out: texts(&publication.left_out),
        }
    }
}

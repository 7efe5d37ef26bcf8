//! A model's split as objects of a cluster: a Service with a port for each lane, and a route
//! that is ours from end to end.
//!
//! A route has only destinations in the same pods. What tells versions apart is one header,
//! set on each weighted destination, over any copy that a client sent. Of a sticky model, whose pods
//! decide for each caller, there is one destination and the header names no version. Everything here is a
//! pure function, and [`read`] is the way back: what a cluster holds says what is published,
//! so nothing about it has to be remembered elsewhere.

use sconce_catalog::{Generation, Lane, Model, ModelName, RouteHeader, Share, Split, StickyHeader, Version};
use serde_json::{Value, json};

use crate::names::{LANES_SERVICE, MANAGED_BY, MANAGED_BY_LABEL, MODEL_LABEL, MODEL_LABEL_PREFIX};

mod http_route;
mod lanes;
mod owner;
mod read;
mod service;
mod snippets;
mod sticky;
mod virtual_service;

pub use http_route::{TooManyVersions, http_route};
pub use lanes::lanes;
pub use owner::{Owner, owner};
pub use read::{delegates, read};
pub use service::service;
pub use snippets::{Snippet, UnknownSnippet};
pub use virtual_service::virtual_service;

/// A model for which Kubernetes can have a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend(ModelName);

/// A model whose name Kubernetes allows no Service or label for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublishable {
    /// The name of a Service begins with a letter (RFC 1035), a model's need not.
    #[error("`{0}` cannot be published: the name of a Service begins with a letter; push under another name")]
    Digit(ModelName),
    /// A label's key has 63 characters after its prefix, and some of them are `model.`.
    #[error(
        "`{0}` cannot be published: its name has more than {LONGEST} characters; push under another name"
    )]
    Long(ModelName),
    /// The Service of that name is the namespace's own.
    #[error("`{0}` cannot be published: the Service of that name is Sconce's own; push under another name")]
    Reserved(ModelName),
}

const LONGEST: usize = 57;

/// Who answers how much, in which of the model's routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Who answers how much.
    pub split: Split,
    /// Which split it is.
    pub generation: Generation,
    /// The header by which callers are known, where pods decide for each caller and not the mesh for
    /// each request.
    pub sticky: Option<StickyHeader>,
}

/// How a model is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A root VirtualService of somebody else's delegates to ours, which then has no host of
    /// its own: Istio ignores a delegate that has one.
    pub delegate: bool,
    /// With this object goes everything published for the model.
    pub owner: Option<Owner>,
    /// How many other pods a request may be offered to that none has begun to answer. An
    /// HTTPRoute cannot say it.
    pub retries: u32,
}

/// The mesh's own number, unless somebody has set another.
pub const RETRIES: u32 = 2;

impl Default for Options {
    fn default() -> Self {
        Self { delegate: false, owner: None, retries: RETRIES }
    }
}

impl Routing {
    /// What a model's route should say; `None` while the model has no split.
    pub fn of(model: &Model) -> Option<Self> {
        let split = model.split.clone()?;
        Some(Self { split, generation: model.generation, sticky: model.sticky.clone() })
    }
}

impl Backend {
    /// The model, where its name can be a Service's.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn new(model: ModelName) -> Result<Self, Unpublishable> {
        if model.name().len() > LONGEST {
            return Err(Unpublishable::Long(model));
        }
        if model.name().starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Unpublishable::Digit(model));
        }
        if model.name() == LANES_SERVICE {
            return Err(Unpublishable::Reserved(model));
        }
        Ok(Self(model))
    }

    /// The model.
    pub fn model(&self) -> &ModelName {
        &self.0
    }

    /// The key of the label that makes a pod an endpoint.
    pub fn label(&self) -> String {
        format!("{MODEL_LABEL_PREFIX}{}", self.0.name())
    }

    fn metadata(&self, name: &str, options: &Options) -> Value {
        let mut metadata = json!({
            "labels": { MANAGED_BY_LABEL: MANAGED_BY, MODEL_LABEL: self.0.name() },
            "name": name,
            "namespace": self.0.namespace(),
        });
        if let Some(owner) = &options.owner {
            metadata["ownerReferences"] = json!([owner.reference(&self.0)]);
        }
        metadata
    }

    /// Of the model's route, which says what its destinations cannot.
    fn route_metadata(&self, routing: &Routing, options: &Options) -> Value {
        let mut metadata = self.metadata(&route_name(&self.0), options);
        if let Some(header) = &routing.sticky {
            sticky::annotate(&mut metadata, &routing.split, header);
        }
        metadata
    }
}

/// The name of a model's route. Not the model's own: a user's root VirtualService has that one.
pub fn route_name(model: &ModelName) -> String {
    format!("sconce-{}", model.name())
}

/// One of a route's weighted destinations.
struct Destination {
    lane: Lane,
    share: Share,
    header: RouteHeader,
}

/// The one for pins to the stable version.
fn stable(backend: &Backend, routing: &Routing) -> Destination {
    let version = routing.split.stable();
    Destination {
        lane: Lane::Live,
        share: routing.split.share(version),
        header: RouteHeader::new(&backend.0, Some(version), routing.generation),
    }
}

/// The stable version first: that is how people read them. Of a sticky model there is one, on the
/// lane that everybody may use: which version answers is not known before a pod has decided.
fn destinations(backend: &Backend, routing: &Routing) -> Vec<Destination> {
    if routing.sticky.is_some() {
        let header = RouteHeader::new(&backend.0, None, routing.generation);
        return vec![Destination { lane: Lane::Live, share: Share::WHOLE, header }];
    }
    let stable = routing.split.stable();
    let one = |(version, share): &(Version, Share)| Destination {
        lane: if version == stable { Lane::Live } else { Lane::Canary },
        share: *share,
        header: RouteHeader::new(&backend.0, Some(version), routing.generation),
    };
    let mut all: Vec<Destination> = routing.split.shares().iter().map(one).collect();
    all.sort_by_key(|destination| destination.lane);
    all
}

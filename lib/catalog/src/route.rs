//! What a mesh's route says about a request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ModelName, Version};

/// The value of the header that a published route sets on each of its weighted destinations:
/// `fraud/8@41`, the model, the version and the route's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    model: String,
    version: Version,
    generation: Generation,
}

/// Number of a model's split, and of the route that a mesh was given for it: the serial of the
/// catalog that brought it, so it only grows and is never used again, not even by a model of
/// the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Text that is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a route; expected `<model>/<version>@<generation>`, such as `fraud/8@41`")]
pub struct InvalidRoute(String);

impl Route {
    /// What a route of this generation sets for one of its destinations. The namespace is always
    /// spelled out: whoever reads it may look up bare names in another one.
    pub fn new(model: &ModelName, version: Version, generation: Generation) -> Self {
        Self { model: format!("{}/{}", model.namespace(), model.name()), version, generation }
    }

    /// The model that the route is for, as its publisher spells it: `name`, or `namespace/name`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The version that should answer.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Which of the model's routes it was.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

impl FromStr for Route {
    type Err = InvalidRoute;

    fn from_str(text: &str) -> Result<Self, InvalidRoute> {
        let parse = || {
            let (target, generation) = text.rsplit_once('@')?;
            let (model, version) = target.rsplit_once('/')?;
            let route = Self {
                model: model.to_owned(),
                version: version.parse().ok()?,
                generation: Generation(generation.parse().ok()?),
            };
            (!model.is_empty()).then_some(route)
        };
        parse().ok_or_else(|| InvalidRoute(text.to_owned()))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.model, self.version, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_route_always_names_the_namespace() {
        for (name, text) in [("fraud", "default/fraud/8@41"), ("pay/fraud", "pay/fraud/8@41")] {
            let route =
                Route::new(&name.parse().expect("valid"), "8".parse().expect("valid"), Generation(41));
            assert_eq!(route.to_string(), text);
            assert_eq!(text.parse(), Ok(route));
        }
    }

    #[test]
    fn a_route_survives_its_text() {
        for (text, model) in [("fraud/8@41", "fraud"), ("pay/fraud/2026-11-22@0", "pay/fraud")] {
            let route: Route = text.parse().expect("valid");
            assert_eq!((route.model(), route.to_string().as_str()), (model, text));
        }
        for text in
            ["", "fraud", "fraud/8", "fraud@41", "/8@41", "fraud/@41", "fraud/8@", "fraud/8@-1", "fraud/8@x"]
        {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }
}

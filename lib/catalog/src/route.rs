//! What a mesh's route says about a request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ModelName, Version};

/// What a mesh's route says of a request for its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The version that should answer; `None` where pods decide, since every one of them decides alike.
    pub version: Option<Version>,
    /// Which of the model's routes it was.
    pub generation: Generation,
}

/// The value of the header that a published route sets: `ml/fraud/8@41`, the model, the version and
/// the route's generation, or `ml/fraud@41` where no version is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteHeader {
    target: String,
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
#[error(
    "{0:?} is not a route; expected `<model>/<version>@<generation>`, such as `fraud/8@41`, or `<model>@<generation>`"
)]
pub struct InvalidRoute(String);

impl RouteHeader {
    /// What a route of this generation sets. The namespace is always spelled out: whoever reads it may
    /// look up bare names in another one.
    pub fn new(model: &ModelName, version: Option<&Version>, generation: Generation) -> Self {
        let mut target = format!("{}/{}", model.namespace(), model.name());
        if let Some(version) = version {
            target = format!("{target}/{version}");
        }
        Self { target, generation }
    }

    /// What it says of a model, or `None` where it is meant for another. `means` says whether a
    /// spelling, `name` or `namespace/name`, is the model's: without that, `ml/fraud` could as well be
    /// version `fraud` of a model `ml`. The spelling that is published wins.
    pub fn of(&self, means: impl Fn(&str) -> bool) -> Option<Route> {
        let generation = self.generation;
        if means(&self.target) {
            return Some(Route { version: None, generation });
        }
        let (model, version) = self.target.rsplit_once('/')?;
        let version = version.parse().ok().filter(|_| means(model))?;
        Some(Route { version: Some(version), generation })
    }
}

impl FromStr for RouteHeader {
    type Err = InvalidRoute;

    fn from_str(text: &str) -> Result<Self, InvalidRoute> {
        let parse = || {
            let (target, generation) = text.rsplit_once('@')?;
            let parts: Vec<&str> = target.split('/').collect();
            let last = parts.last()?;
            let named = last.parse::<Version>().is_ok() || last.parse::<ModelName>().is_ok();
            let shaped = parts.len() <= 3 && parts.iter().all(|part| !part.is_empty());
            let generation = Generation(generation.parse().ok()?);
            (named && shaped).then(|| Self { target: target.to_owned(), generation })
        };
        parse().ok_or_else(|| InvalidRoute(text.to_owned()))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RouteHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.target, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> RouteHeader {
        text.parse().expect("valid")
    }

    #[test]
    fn a_published_route_always_names_the_namespace() {
        let version: Version = "8".parse().expect("valid");
        for (name, text) in [("fraud", "default/fraud"), ("pay/fraud", "pay/fraud")] {
            let model: ModelName = name.parse().expect("valid");
            let (named, open) = (
                RouteHeader::new(&model, Some(&version), Generation(41)),
                RouteHeader::new(&model, None, Generation(41)),
            );
            assert_eq!((named.to_string(), open.to_string()), (format!("{text}/8@41"), format!("{text}@41")));
            let read = |written: &RouteHeader| header(&written.to_string()).of(|spelled| spelled == text);
            let generation = Generation(41);
            assert_eq!(read(&named), Some(Route { version: Some(version.clone()), generation }));
            assert_eq!(read(&open), Some(Route { version: None, generation }));
        }
    }

    #[test]
    fn a_route_says_something_of_its_own_model_only() {
        let version = |text: &str, model: &str| {
            let of =
                header(text).of(|spelled| spelled == model || Some(spelled) == model.strip_prefix("own/"));
            of.map(|route| route.version.map_or_else(|| "-".to_owned(), |version| version.to_string()))
        };
        assert_eq!(version("fraud/8@41", "own/fraud").as_deref(), Some("8"));
        assert_eq!(version("own/fraud/8@41", "own/fraud").as_deref(), Some("8"));
        assert_eq!(version("fraud@41", "own/fraud").as_deref(), Some("-"));
        assert_eq!(version("own/fraud@41", "own/fraud").as_deref(), Some("-"));
        assert_eq!(version("other/fraud@41", "own/fraud"), None);
        // Which of the two it is depends on the model that is asked for.
        assert_eq!(version("own/fraud@41", "own/own").as_deref(), Some("fraud"));
        assert_eq!(version("own/own@41", "own/own").as_deref(), Some("-"), "as it is published");
    }

    #[test]
    fn text_that_is_no_route_is_refused() {
        for text in [
            "",
            "fraud",
            "fraud/8",
            "@41",
            "/8@41",
            "fraud/@41",
            "fraud/8@",
            "fraud/8@-1",
            "fraud/8@x",
            "a/b/c/8@41",
            "a//8@41",
            "fraud/?@41",
        ] {
            assert!(text.parse::<RouteHeader>().is_err(), "{text}");
        }
        assert_eq!(header("pay/fraud/2026-11-22@0").to_string(), "pay/fraud/2026-11-22@0");
        assert_eq!(header("ml/auto@1").to_string(), "ml/auto@1");
    }
}

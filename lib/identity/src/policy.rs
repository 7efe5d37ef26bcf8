//! Which SPIFFE ids a connection accepts at its other end.

use std::{fmt, str::FromStr};

use crate::{InvalidSpiffeId, Reason, SpiffeId};

/// The peers a TLS configuration accepts, once their certificates have been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy(Accepts);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Accepts {
    OwnTrustDomain,
    PathInOwnTrustDomain(String),
    Exactly(SpiffeId),
    Patterns(Vec<IdPattern>),
}

/// One id, or every id below a path: `spiffe://td/ns/default/*`, `spiffe://td/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdPattern {
    /// This id alone.
    Exact(SpiffeId),
    /// Ids with more segments after those of this one.
    Below(SpiffeId),
}

/// Text that is no id pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is a SPIFFE id, or one followed by `/*` to mean every id below it: {0}")]
pub struct InvalidPattern(#[from] InvalidSpiffeId);

impl PeerPolicy {
    /// Every id of our own trust domain.
    ///
    /// A client that has no identity yet has no trust domain either; it accepts every
    /// one that its roots certify.
    pub fn own_trust_domain() -> Self {
        Self(Accepts::OwnTrustDomain)
    }

    /// The id with this path in our own trust domain, such as `/sconce/control-plane`.
    ///
    /// For a client without an identity: this path in any trust domain that its roots certify.
    pub fn path_in_own_trust_domain(path: impl Into<String>) -> Self {
        Self(Accepts::PathInOwnTrustDomain(path.into()))
    }

    /// This id alone.
    pub fn exactly(id: SpiffeId) -> Self {
        Self(Accepts::Exactly(id))
    }

    /// Ids that match one of the patterns; none if there is no pattern.
    ///
    /// A pattern may name a foreign trust domain: its ids are accepted if our roots
    /// certify them.
    pub fn patterns(patterns: Vec<IdPattern>) -> Self {
        Self(Accepts::Patterns(patterns))
    }

    /// Says why `id` is refused, given our own trust domain, if we have one yet.
    pub(crate) fn check(&self, id: &SpiffeId, own: Option<&str>) -> Result<(), Reason> {
        let is_own = own.is_none_or(|own| own == id.trust_domain());
        let (accepted, known_domain) = match &self.0 {
            Accepts::OwnTrustDomain => (is_own, is_own),
            Accepts::PathInOwnTrustDomain(path) => (is_own && path == id.path(), is_own),
            Accepts::Exactly(only) => (only == id, only.trust_domain() == id.trust_domain()),
            Accepts::Patterns(patterns) => (
                patterns.iter().any(|p| p.matches(id)),
                is_own || patterns.iter().any(|p| p.id().trust_domain() == id.trust_domain()),
            ),
        };
        match (accepted, known_domain) {
            (true, _) => Ok(()),
            (false, true) => Err(Reason::WrongId),
            (false, false) => Err(Reason::ForeignTrustDomain),
        }
    }
}

impl fmt::Display for PeerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Accepts::OwnTrustDomain => f.write_str("any id of the own trust domain"),
            Accepts::PathInOwnTrustDomain(path) => write!(f, "{path} in the own trust domain"),
            Accepts::Exactly(id) => write!(f, "{id}"),
            Accepts::Patterns(patterns) if patterns.is_empty() => f.write_str("no id at all"),
            Accepts::Patterns(patterns) => {
                let texts: Vec<_> = patterns.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(" or "))
            }
        }
    }
}

impl IdPattern {
    /// Whether the pattern covers this id.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(only) => only == id,
            Self::Below(above) => {
                id.as_str().strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }

    fn id(&self) -> &SpiffeId {
        match self {
            Self::Exact(id) | Self::Below(id) => id,
        }
    }
}

impl FromStr for IdPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_suffix("/*") {
            Some(above) => Self::Below(above.parse()?),
            None => Self::Exact(text.parse()?),
        })
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => write!(f, "{id}"),
            Self::Below(id) => write!(f, "{id}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_ends_at_a_segment() {
        let pattern: IdPattern = "spiffe://td/ns/default/*".parse().unwrap();
        assert!(pattern.matches(&id("spiffe://td/ns/default/sa/edge")));
        assert!(!pattern.matches(&id("spiffe://td/ns/default")));
        assert!(!pattern.matches(&id("spiffe://td/ns/default2/sa/edge")));
        let whole: IdPattern = "spiffe://td/*".parse().unwrap();
        assert!(whole.matches(&id("spiffe://td/a")));
        assert!(!whole.matches(&id("spiffe://td2/a")));
        assert_eq!(whole.to_string(), "spiffe://td/*");
        for bad in ["*", "spiffe://td/a*", "spiffe://*/a", "spiffe://td/*/a"] {
            assert!(bad.parse::<IdPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_id_is_told_from_a_foreign_trust_domain() {
        let check = |policy: &PeerPolicy, text| policy.check(&id(text), Some("td"));
        let own = PeerPolicy::own_trust_domain();
        assert_eq!(check(&own, "spiffe://td/a"), Ok(()));
        assert_eq!(check(&own, "spiffe://other/a"), Err(Reason::ForeignTrustDomain));
        let only = PeerPolicy::exactly(id("spiffe://td/a"));
        assert_eq!(check(&only, "spiffe://td/a"), Ok(()));
        assert_eq!(check(&only, "spiffe://td/b"), Err(Reason::WrongId));
        assert_eq!(check(&only, "spiffe://other/a"), Err(Reason::ForeignTrustDomain));
        let path = PeerPolicy::path_in_own_trust_domain("/a");
        assert_eq!(check(&path, "spiffe://td/a"), Ok(()));
        assert_eq!(check(&path, "spiffe://td/b"), Err(Reason::WrongId));
        assert_eq!(check(&path, "spiffe://other/a"), Err(Reason::ForeignTrustDomain));
        assert_eq!(path.check(&id("spiffe://other/a"), None), Ok(()));
        assert_eq!(check(&PeerPolicy::patterns(vec![]), "spiffe://td/a"), Err(Reason::WrongId));
        let listed = PeerPolicy::patterns(vec!["spiffe://other/x/*".parse().unwrap()]);
        assert_eq!(check(&listed, "spiffe://other/x/a"), Ok(()));
        assert_eq!(check(&listed, "spiffe://other/y"), Err(Reason::WrongId));
        assert_eq!(check(&listed, "spiffe://third/y"), Err(Reason::ForeignTrustDomain));
    }
}

//! SPIFFE ids: who a workload is, as a URI, with every rule of the specification.
//!
//! The rules are strict on purpose: two ids are equal exactly when their bytes are, so
//! nothing here folds case or decodes `%`.

use std::{fmt, str::FromStr};

/// The id of a workload, such as `spiffe://sconce.local/ns/default/sa/edge`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: String,
    path_starts: usize,
}

/// Text that is no SPIFFE id, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SPIFFE id: {rule}; write it as spiffe://<trust domain>/<path>")]
pub struct InvalidSpiffeId {
    text: String,
    rule: &'static str,
}

const SCHEME: &str = "spiffe://";
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

impl SpiffeId {
    /// The id of `path` (empty, or beginning with `/`) in a trust domain.
    ///
    /// # Errors
    /// Where the two make no SPIFFE id.
    pub fn new(trust_domain: &str, path: &str) -> Result<Self, InvalidSpiffeId> {
        let uri = format!("{SCHEME}{trust_domain}{path}");
        match check(trust_domain, path, uri.len()) {
            Ok(()) => Ok(Self { uri, path_starts: SCHEME.len() + trust_domain.len() }),
            Err(rule) => Err(InvalidSpiffeId::new(&uri, rule)),
        }
    }

    /// The trust domain, such as `sconce.local`.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..self.path_starts]
    }

    /// The path with its leading `/`; empty for the id of a trust domain itself.
    pub fn path(&self) -> &str {
        &self.uri[self.path_starts..]
    }

    /// The Kubernetes namespace that the id proves, where its path is that of a service account,
    /// `/ns/<namespace>/sa/<account>`, as Istio's are.
    pub fn namespace(&self) -> Option<&str> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some(namespace)
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.uri
    }
}

impl InvalidSpiffeId {
    fn new(text: &str, rule: &'static str) -> Self {
        // A peer chose this text, and a log line is no place for two kilobytes of it.
        Self { text: text.chars().take(200).collect(), rule }
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(InvalidSpiffeId::new(text, "it does not begin with `spiffe://`"));
        };
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self::new(trust_domain, path)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// Returns the broken rule, if any.
fn check(trust_domain: &str, path: &str, length: usize) -> Result<(), &'static str> {
    if length > MAX_ID {
        return Err("it is longer than 2048 bytes");
    }
    if trust_domain.is_empty() {
        return Err("it has no trust domain");
    }
    if trust_domain.len() > MAX_TRUST_DOMAIN {
        return Err("its trust domain is longer than 255 bytes");
    }
    if !trust_domain.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
        return Err("its trust domain may hold only a-z, 0-9, `.`, `-` and `_`");
    }
    let Some(segments) = path.strip_prefix('/') else {
        return if path.is_empty() { Ok(()) } else { Err("its path does not begin with `/`") };
    };
    segments.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" => Err("its path ends with `/` or has an empty segment"),
        "." | ".." => Err("its path has a segment `.` or `..`"),
        _ if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => {
            Err("its path segments may hold only letters, digits, `.`, `-` and `_`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_trust_domain_and_a_path() {
        let id: SpiffeId = "spiffe://sconce.local/ns/default/sa/edge".parse().unwrap();
        assert_eq!(id.trust_domain(), "sconce.local");
        assert_eq!(id.path(), "/ns/default/sa/edge");
        assert_eq!(id.to_string(), "spiffe://sconce.local/ns/default/sa/edge");
        assert_eq!("spiffe://td".parse::<SpiffeId>().unwrap().path(), "");
        assert!("spiffe://my_td-1.x/A.b-c_D/9".parse::<SpiffeId>().is_ok());
    }

    #[test]
    fn every_rule_of_the_specification_is_enforced() {
        let too_long = format!("spiffe://td/{}", "a".repeat(2048));
        let long_domain = format!("spiffe://{}/a", "a".repeat(256));
        let broken = [
            ("", "begin with"),
            ("SPIFFE://td/a", "begin with"),
            ("https://td/a", "begin with"),
            ("spiffe://", "no trust domain"),
            ("spiffe:///a", "no trust domain"),
            ("spiffe://TD/a", "trust domain may hold"),
            ("spiffe://td:80/a", "trust domain may hold"),
            ("spiffe://u@td/a", "trust domain may hold"),
            ("spiffe://td?q", "trust domain may hold"),
            (&long_domain, "longer than 255"),
            (&too_long, "longer than 2048"),
            ("spiffe://td/", "ends with"),
            ("spiffe://td/a/", "ends with"),
            ("spiffe://td//a", "empty segment"),
            ("spiffe://td/./a", "segment `.`"),
            ("spiffe://td/a/..", "segment `.`"),
            ("spiffe://td/a%20", "segments may hold"),
            ("spiffe://td/a#f", "segments may hold"),
            ("spiffe://td/ä", "segments may hold"),
            ("spiffe://td/a*", "segments may hold"),
        ];
        for (text, rule) in broken {
            let error = text.parse::<SpiffeId>().expect_err(text).to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
        let longest = format!("spiffe://td/{}", "a".repeat(2048 - "spiffe://td/".len()));
        assert!(longest.parse::<SpiffeId>().is_ok());
    }
}

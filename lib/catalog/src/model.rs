//! The model repository.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Generation, Labels, ModelName, Selector, Signature, Split, StickyHeader, Version};

/// Number of a catalog: grows by one with every change, as the serial of a DNS zone does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

/// Everything that should be served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// Which catalog this is.
    pub serial: Serial,
    /// By name.
    pub models: BTreeMap<ModelName, Model>,
}

/// One model: its versions, and who answers how much.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Which sidecars serve it.
    pub selector: Selector,
    /// By name.
    pub versions: BTreeMap<Version, VersionRecord>,
    /// `None` only while the model has no version.
    pub split: Option<Split>,
    /// Which split this is.
    #[serde(default)]
    pub generation: Generation,
    /// The header by which callers are known, each of which the split gives to one version; `None`
    /// where it is among requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyHeader>,
}

/// What is known of a version. Never changes once it is pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Identity of its bytes: the digest of its manifest.
    pub artifact: Digest,
    /// In bytes.
    pub size: u64,
    /// What it takes and gives.
    pub signature: Signature,
    /// Free text from the pusher, such as a git commit.
    pub metadata: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch.
    pub pushed_at_ms: i64,
    /// Who pushed it: a SPIFFE id, `token:<name>`, or the object of a cluster that declares it.
    pub pushed_by: String,
}

impl Catalog {
    /// What the next change calls a split that it sets.
    pub fn next_generation(&self) -> Generation {
        Generation(self.serial.0 + 1)
    }

    /// The part that a sidecar of this namespace with these labels serves.
    pub fn for_sidecar(&self, namespace: &str, labels: &Labels) -> Catalog {
        let chosen = self.models.iter();
        let chosen =
            chosen.filter(|(name, model)| name.namespace() == namespace && model.selector.matches(labels));
        Catalog {
            serial: self.serial,
            models: chosen.map(|(name, model)| (name.clone(), model.clone())).collect(),
        }
    }
}

impl Model {
    /// The version that `auto` stands for: one more than the highest number so far.
    pub fn next_version(&self) -> Version {
        let highest = self.versions.keys().filter_map(Version::number).max().unwrap_or(0);
        (highest.saturating_add(1).to_string())
            .parse()
            .unwrap_or_else(|_| unreachable!("a number is a valid version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> VersionRecord {
        VersionRecord {
            artifact: Digest::from_bytes([0; 32]),
            size: 1,
            signature: Signature::default(),
            metadata: BTreeMap::new(),
            pushed_at_ms: 0,
            pushed_by: String::new(),
        }
    }

    #[test]
    fn auto_counts_up_from_the_highest_number_by_value() {
        let mut model = Model::default();
        assert_eq!(model.next_version().as_str(), "1");
        for version in ["9", "10", "rc", "007"] {
            model.versions.insert(version.parse().expect("valid"), record());
        }
        assert_eq!(model.next_version().as_str(), "11");
    }

    #[test]
    fn a_sidecar_is_given_only_what_its_namespace_has_and_its_labels_match() {
        let mut catalog = Catalog { serial: Serial(4), ..Default::default() };
        let pay = Selector::new("team=pay".parse().expect("valid"));
        catalog.models.insert("fraud".parse().expect("valid"), Model { selector: pay, ..Default::default() });
        catalog.models.insert("open".parse().expect("valid"), Model::default());
        let seen = |namespace, labels: &str| {
            catalog.for_sidecar(namespace, &labels.parse().expect("valid")).models.len()
        };
        assert_eq!(
            (seen("default", "team=pay"), seen("default", "team=ads"), seen("default", "")),
            (2, 1, 1)
        );
        assert_eq!(seen("pay", "team=pay"), 0);
    }
}

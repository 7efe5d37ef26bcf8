//! The ways into the same pods.

use std::fmt;

/// A port of a model's Service, and so a cluster of Envoy's: with statistics, circuit
/// breakers and outlier ejection of its own. A bad canary cannot eject the stable version,
/// and only its port tells a mirrored request from a live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The stable version.
    Live,
    /// Every other version with a share.
    Canary,
    /// Mirrored requests, whose answers nobody reads.
    Shadow,
}

impl Lane {
    /// All of them.
    pub const ALL: [Lane; 3] = [Lane::Live, Lane::Canary, Lane::Shadow];

    /// Its name, such as `canary`.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Live => "live",
            Lane::Canary => "canary",
            Lane::Shadow => "shadow",
        }
    }

    /// The port that callers see, on the model's Service.
    pub fn service_port(self) -> u16 {
        match self {
            Lane::Live => 80,
            Lane::Canary => 81,
            Lane::Shadow => 82,
        }
    }

    /// The port of the sidecar behind it, unless its configuration says otherwise.
    pub fn container_port(self) -> u16 {
        match self {
            Lane::Live => 8443,
            Lane::Canary => 8444,
            Lane::Shadow => 8445,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

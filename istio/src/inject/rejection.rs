//! Why a pod that should have a sidecar cannot be given one, and what to change.

use crate::names;

/// A pod that is refused rather than started without the sidecar that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The value is no pod.
    #[error("this is no pod: {0}")]
    Malformed(String),
    /// An option has a value that it cannot have.
    #[error("{place} {key} is {value:?}; expected {expected}")]
    Option {
        /// Where it stands, such as `the pod's annotation`.
        place: String,
        /// Its name.
        key: String,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// There is no such option.
    #[error("{place} {key} is unknown; known are {known}", known = known())]
    UnknownOption {
        /// Where it stands.
        place: String,
        /// Its name.
        key: String,
    },
    /// The label that asks for a sidecar says neither yes nor no.
    #[error("the pod's label {label} is {0:?}; expected \"true\" or \"false\"", label = names::INJECT_LABEL)]
    UnclearLabel(String),
    /// Another container of the pod has a port that the sidecar listens on.
    #[error(
        "the container {container:?} uses port {port}, on which the sidecar listens{why}; give the container another port"
    )]
    Port {
        /// The port.
        port: u16,
        /// Whose it is.
        container: String,
        /// What makes them meet, in a pod on the node's network.
        why: &'static str,
    },
    /// An ordinary container would keep the pod from ever ending.
    #[error(
        "this cluster or pod has no native sidecars, and an ordinary container would keep a pod with restartPolicy {0} from ever ending; use Kubernetes 1.29 or later, or remove the label {label}",
        label = names::INJECT_LABEL
    )]
    NeverEnds(String),
    /// More time to drain than the pod has to end.
    #[error(
        "sconce.dev/drain-seconds is {drain}, but the pod's terminationGracePeriodSeconds is {grace}; raise that or lower this"
    )]
    Drain {
        /// What was asked for.
        drain: u64,
        /// What the pod has.
        grace: u64,
    },
    /// Which of two containers to merge over ours is unclear.
    #[error(
        "there is a container named {name:?} in containers and one in initContainers; the sidecar takes one partial container of that name",
        name = names::CONTAINER
    )]
    TwoPartials,
}

fn known() -> String {
    super::KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

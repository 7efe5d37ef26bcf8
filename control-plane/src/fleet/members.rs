//! The fleet as the rest of the control plane sees it: values, not messages.

use std::collections::BTreeMap;

use sconce_catalog::{Labels, ModelName, Version};
use sconce_proto::v1::VersionState;

use super::Sidecars;

/// Sidecars that are pods, by namespace and name.
pub(crate) type Members = BTreeMap<PodName, Member>;

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) connected: bool,
    pub(crate) labels: Labels,
    /// As it said last.
    pub(crate) versions: BTreeMap<ModelName, BTreeMap<Version, Standing>>,
}

/// Where a version stands on a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// And what keeps it, where something does that may pass, such as a full disk.
    Loading(Option<String>),
    Ready,
    /// And why.
    Rejected(String),
}

/// Those sidecars that are pods: they are called `<namespace>/<pod>`, and their certificates prove
/// the namespace, so that nobody can speak for the pod of another.
pub(crate) fn members(sidecars: &Sidecars) -> Members {
    let one = |(name, seen): (&String, &super::Seen)| {
        let (namespace, pod) = name.split_once('/')?;
        let status = &seen.status;
        let mut member = Member {
            connected: status.connected,
            labels: Labels::new(status.labels.clone()).unwrap_or_default(),
            versions: BTreeMap::new(),
        };
        for version in &status.versions {
            let standing = match version.state() {
                VersionState::Ready => Standing::Ready,
                VersionState::Rejected => Standing::Rejected(version.reason.clone()),
                VersionState::Loading | VersionState::Unspecified => {
                    Standing::Loading(Some(version.reason.clone()).filter(|reason| !reason.is_empty()))
                }
            };
            if let (Ok(model), Ok(version)) = (version.model.parse(), version.version.parse()) {
                member.versions.entry(model).or_default().insert(version, standing);
            }
        }
        let name = PodName { namespace: namespace.to_owned(), name: pod.to_owned() };
        (status.namespace == namespace).then_some((name, member))
    };
    sidecars.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use sconce_proto::v1::{SidecarStatus, VersionStatus};

    use super::*;
    use crate::fleet::Seen;

    fn seen(proven: &str, versions: Vec<VersionStatus>) -> Seen {
        let status =
            SidecarStatus { namespace: proven.into(), connected: true, versions, ..SidecarStatus::default() };
        let id = format!("spiffe://test.local/ns/{proven}/sa/a").parse().expect("an id");
        Seen { status, id, session: 0 }
    }

    #[test]
    fn a_sidecar_speaks_only_for_pods_of_the_namespace_that_it_proves() {
        let sidecars = [("ml/a", "ml"), ("ml/b", "shop"), ("laptop", "ml")];
        let sidecars = sidecars.map(|(name, proven)| (name.to_owned(), seen(proven, Vec::new())));
        let names: Vec<PodName> = members(&sidecars.into()).into_keys().collect();
        assert_eq!(names, [PodName { namespace: "ml".into(), name: "a".into() }]);
    }

    #[test]
    fn versions_stand_as_the_sidecar_said() {
        let version = |name: &str, state, reason: &str| {
            let mut status = VersionStatus {
                model: "ml/fraud".into(),
                version: name.into(),
                reason: reason.into(),
                ..VersionStatus::default()
            };
            status.set_state(state);
            status
        };
        let versions = vec![
            version("1", VersionState::Ready, ""),
            version("2", VersionState::Rejected, "bad"),
            version("3", VersionState::Loading, ""),
            version("4", VersionState::Loading, "no room"),
        ];
        let members = members(&[("ml/a".to_owned(), seen("ml", versions))].into());
        let member = members.values().next().expect("one");
        let standings: Vec<&Standing> =
            member.versions[&"ml/fraud".parse().expect("valid")].values().collect();
        let loading = [Standing::Loading(None), Standing::Loading(Some("no room".into()))];
        assert_eq!(
            standings,
            [&Standing::Ready, &Standing::Rejected("bad".into()), &loading[0], &loading[1]]
        );
    }
}

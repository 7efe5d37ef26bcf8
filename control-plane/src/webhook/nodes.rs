//! Whether the cluster's nodes have native sidecars, asked for now and then: nodes change
//! their version rarely, and their objects are large.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use sconce_istio::inject::Settings;
use tokio::sync::watch;

/// The oldest kubelet's minor version, where it is known.
#[derive(Clone)]
pub(super) struct Nodes(watch::Receiver<Option<Version>>);

type Version = (u32, u32);

/// Since then sidecar containers are on by default (KEP-753).
const NATIVE_SIDECARS: Version = (1, 29);
/// From there on Istio makes its own proxy one.
const NATIVE_PROXY: Version = (1, 33);
const PERIOD: Duration = Duration::from_secs(300);

impl Nodes {
    /// What is known, and the task that asks.
    pub(super) fn watch(client: Client) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = watch::channel(None);
        let ask = async move {
            let nodes: Api<Node> = Api::all(client);
            loop {
                match nodes.list(&ListParams::default()).await {
                    Ok(list) => {
                        let oldest = oldest(list.items.iter().filter_map(kubelet));
                        sender.send_if_modified(|known| std::mem::replace(known, oldest) != oldest);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the nodes' versions are not known; native sidecars are assumed");
                    }
                }
                tokio::time::sleep(PERIOD).await;
            }
        };
        (Self(receiver), ask)
    }

    /// The settings, with what they leave to the nodes.
    pub(super) fn complete(&self, mut settings: Settings) -> Settings {
        let oldest = *self.0.borrow();
        let since = |version| oldest.map(|oldest| oldest >= version);
        settings.native_sidecars = settings.native_sidecars.or(since(NATIVE_SIDECARS));
        settings.native_proxy = settings.native_proxy.or(since(NATIVE_PROXY));
        settings
    }
}

fn kubelet(node: &Node) -> Option<&str> {
    Some(&node.status.as_ref()?.node_info.as_ref()?.kubelet_version)
}

/// Nodes whose version is no version, such as virtual ones, have no say.
fn oldest<'a>(versions: impl Iterator<Item = &'a str>) -> Option<Version> {
    versions.filter_map(version).min()
}

fn version(text: &str) -> Option<Version> {
    let mut parts = text.strip_prefix('v')?.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_node_decides() {
        let known = |versions: &[&str]| {
            let (_sender, receiver) = watch::channel(oldest(versions.iter().copied()));
            let settings = Nodes(receiver).complete(Settings::default());
            (settings.native_sidecars, settings.native_proxy)
        };
        assert_eq!(known(&["v1.34.4", "v1.33.0-eks-1"]), (Some(true), Some(true)));
        assert_eq!(known(&["v1.34.4", "v1.29.1+k3s1"]), (Some(true), Some(false)));
        assert_eq!(known(&["v1.28.15-gke.100", "v1.34.4", "azure-aci"]), (Some(false), Some(false)));
        assert_eq!(known(&["azure-aci"]), (None, None));
        assert_eq!(known(&[]), (None, None));
    }

    #[test]
    fn what_the_settings_say_is_not_asked() {
        let (_sender, receiver) = watch::channel(Some((1, 20)));
        let said = Settings { native_sidecars: Some(true), native_proxy: Some(true), ..Settings::default() };
        assert_eq!(Nodes(receiver).complete(said.clone()), said);
    }
}

//! Istio's sidecar in the same pod: whether it is or will be there, and which ports it must
//! leave alone.

use serde_json::Value;

use super::{Request, shape};

/// Istio's sidecar, as it is in the pod or as its injector will put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// Not in this pod.
    None,
    /// Starts before the rest of the pod.
    Native,
    /// Starts only when every init container has started or ended.
    Ordinary,
}

/// A port that one of Istio's annotations keeps out of capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excluded {
    pub(super) annotation: &'static str,
    pub(super) port: u16,
}

pub(super) const PROXY: &str = "istio-proxy";
/// Istio's containers other than its proxy.
const OTHERS: [&str; 3] = ["istio-init", "istio-validation", "enable-core-dump"];
pub(super) const INBOUND: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
pub(super) const OUTBOUND: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";

/// Whether a container is Istio's and not the application's.
pub(super) fn is_istio(name: &Value) -> bool {
    name.as_str().is_some_and(|name| name == PROXY || OTHERS.contains(&name))
}

/// Whose sidecar is or will be there.
pub(super) fn proxy(pod: &Value, request: &Request<'_>) -> Proxy {
    // With `image: auto` it is the user's partial container, from which nothing follows.
    let there = |key: &str| {
        let proxy = |container: &&Value| container["name"] == PROXY;
        let found = shape::list(pod, key).iter().find(proxy);
        found.is_some_and(|proxy| proxy["image"].as_str().is_some_and(|image| image != "auto"))
    };
    if there("initContainers") {
        Proxy::Native
    } else if there("containers") {
        Proxy::Ordinary
    } else if !is_expected(pod, request) {
        Proxy::None
    } else if native_expected(pod, request) {
        Proxy::Native
    } else {
        Proxy::Ordinary
    }
}

/// What Istio's injector, which may run after us, will decide (istio.io, "Controlling the
/// injection policy": the pod's label wins over the namespace's, `disabled` over both).
fn is_expected(pod: &Value, request: &Request<'_>) -> bool {
    let of_namespace = request.namespace.labels.get("istio-injection").map(String::as_str);
    let revision = request.namespace.labels.contains_key("istio.io/rev")
        || shape::text(pod, "labels", "istio.io/rev").is_some();
    let inject = "sidecar.istio.io/inject";
    let of_pod = shape::text(pod, "labels", inject).or_else(|| shape::text(pod, "annotations", inject));
    if pod["spec"]["hostNetwork"] == true || of_namespace == Some("disabled") {
        return false;
    }
    match of_pod {
        Some("true") => true,
        Some("false") => false,
        _ => of_namespace == Some("enabled") || revision,
    }
}

fn native_expected(pod: &Value, request: &Request<'_>) -> bool {
    match shape::text(pod, "annotations", "sidecar.istio.io/nativeSidecar") {
        Some("true") => true,
        Some("false") => false,
        _ => request.settings.native_proxy.unwrap_or(true),
    }
}

/// Whether this list of ports has this one.
pub(super) fn excludes(list: Option<&str>, port: u16) -> bool {
    ports(list.unwrap_or_default()).any(|other| other.trim() == port.to_string())
}

/// The list with this port as well.
pub(super) fn exclude(list: Option<&str>, port: u16) -> String {
    match list.filter(|list| !list.trim().is_empty()) {
        Some(list) => format!("{list},{port}"),
        None => port.to_string(),
    }
}

/// The list without this port, as it was written otherwise.
pub(super) fn include(list: &str, port: u16) -> String {
    let left: Vec<&str> = ports(list).filter(|other| other.trim() != port.to_string()).collect();
    left.join(",")
}

fn ports(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_list_of_ports_comes_back_as_it_was_written() {
        for list in ["8443", "8443, 9000", "9000 ,1"] {
            let more = exclude(Some(list), 9443);
            assert!(excludes(Some(&more), 9443) && !excludes(Some(list), 9443), "{more}");
            assert_eq!(include(&more, 9443), list);
        }
        assert_eq!(exclude(None, 8440), "8440");
        assert_eq!(include("8440", 8440), "");
        assert!(!excludes(Some("18440"), 8440));
    }
}

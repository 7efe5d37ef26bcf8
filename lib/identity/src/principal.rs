//! The authenticated caller, as `serve` puts it into each request's extensions.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::SpiffeId;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A workload that proved this id with its certificate, to us or to our pod's Envoy.
    Spiffe(SpiffeId),
    /// A TLS client without a certificate (where the port allows it).
    Anonymous,
    /// A process of this pod, in plaintext over loopback or a Unix socket, whatever its headers say.
    Loopback,
}

/// Where a request's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A process of this machine, over a Unix socket.
    Unix,
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix => f.write_str("unix socket"),
        }
    }
}

impl Principal {
    /// What logs call it: the proven id, else `anonymous` or `loopback`.
    pub fn name(&self) -> &str {
        match self {
            Self::Spiffe(id) => id.as_str(),
            Self::Anonymous => "anonymous",
            Self::Loopback => "loopback",
        }
    }

    /// The proven id, where there is one.
    pub fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Spiffe(id) => Some(id),
            Self::Anonymous | Self::Loopback => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where Istio's Envoy binds what it hands over from other pods
/// (istio/istio `pilot/pkg/networking/core/cluster_builder.go`, `InboundPassthroughBindIpv4` and `Ipv6`).
const ENVOY_INBOUND: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))];

/// Whether a plaintext connection from here is one that Envoy forwards.
pub(crate) fn is_envoy(ip: IpAddr) -> bool {
    ENVOY_INBOUND.contains(&ip.to_canonical())
}

/// Whether a plaintext connection from here can only be the pod itself.
pub(crate) fn is_this_pod(ip: IpAddr) -> bool {
    // 127.0.0.6 is a loopback address: what Envoy forwards must never pass for our own pod.
    ip.to_canonical().is_loopback() && !is_envoy(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_pod_envoy_and_everybody_else_are_told_apart() {
        for (ip, pod, envoy) in [
            ("127.0.0.1", true, false),
            ("127.8.8.8", true, false),
            ("::1", true, false),
            ("::ffff:127.0.0.1", true, false),
            ("127.0.0.6", false, true),
            ("::ffff:127.0.0.6", false, true),
            ("::6", false, true),
            ("10.0.0.1", false, false),
            ("0.0.0.0", false, false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!((is_this_pod(ip), is_envoy(ip)), (pod, envoy), "{ip}");
        }
    }
}

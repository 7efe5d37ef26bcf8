//! The authenticated caller, as `serve` puts it into each request's extensions.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::SpiffeId;

/// Who is calling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A workload that proved this id with its certificate.
    Spiffe(SpiffeId),
    /// A TLS client without a certificate (where the port allows it).
    Anonymous,
    /// A process of this pod, in plaintext over loopback, whatever its headers say.
    Loopback,
}

/// The address a request's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

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

/// Whether a plaintext connection from here can only be the pod itself.
pub(crate) fn is_this_pod(ip: IpAddr) -> bool {
    // Envoy hands over what other pods sent from 127.0.0.6, which is a loopback address:
    // such a request must never pass for one of our own pod.
    const ENVOY_INBOUND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
    let ip = ip.to_canonical();
    ip.is_loopback() && ip != ENVOY_INBOUND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_that_is_not_envoy_is_this_pod() {
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.6", false),
            ("::ffff:127.0.0.6", false),
            ("::6", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_this_pod(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}

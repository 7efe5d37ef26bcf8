//! How the control plane is reached.

use std::{sync::Arc, time::Duration};

use http::Uri;
use rustls::ClientConfig;
use sconce_identity::Connector;
use tonic::transport::{Channel, Endpoint};

/// The control plane's address, and the TLS to reach it with. Connects when it is first
/// used, and again whenever a connection was lost.
#[derive(Clone)]
pub struct Link {
    channel: Channel,
    address: Arc<str>,
}

impl Link {
    /// A link to this address.
    pub fn new(address: &Uri, tls: Arc<ClientConfig>) -> Self {
        let endpoint = Endpoint::from(plain(address))
            .http2_keep_alive_interval(Duration::from_secs(15))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_timeout(Duration::from_secs(10));
        Self {
            channel: endpoint.connect_with_connector_lazy(Connector::new(tls)),
            address: address.to_string().trim_end_matches('/').into(),
        }
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Where it leads, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// The same address as `http`: tonic refuses `https` unless its own TLS is compiled in,
/// and here TLS is the connector's.
fn plain(address: &Uri) -> Uri {
    let authority = address.authority().map_or("", |authority| authority.as_str());
    let plain = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
    plain.unwrap_or_else(|_| address.clone())
}

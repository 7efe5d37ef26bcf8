//! Where the sidecar listens. All of it is bound before anything else is done: a taken port
//! should fail the pod before a model is fetched.

use std::net::SocketAddr;

use sconce_catalog::Lane;
use sconce_identity::LocalSocket;
use tokio::net::TcpListener;

use super::StartError;
use crate::config::Config;

/// The bound sockets.
pub(super) struct Ports {
    pub(super) lanes: Vec<(Lane, TcpListener)>,
    pub(super) local: Option<LocalSocket>,
    pub(super) admin: TcpListener,
    pub(super) addresses: Addresses,
}

/// What they are bound to.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Predictions, on the live lane.
    pub live: SocketAddr,
    /// The canary lane, where there is one.
    pub canary: Option<SocketAddr>,
    /// The shadow lane, where there is one.
    pub shadow: Option<SocketAddr>,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

impl Ports {
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let (live, live_at) = listen("SCONCE_LISTEN", config.listen).await?;
        let (admin, admin_at) = listen("SCONCE_ADMIN_LISTEN", config.admin_listen).await?;
        let mut addresses = Addresses { live: live_at, canary: None, shadow: None, admin: admin_at };
        let mut lanes = vec![(Lane::Live, live)];
        if let Some(address) = config.canary_listen {
            let (canary, at) = listen("SCONCE_CANARY_LISTEN", address).await?;
            lanes.push((Lane::Canary, canary));
            addresses.canary = Some(at);
        }
        if let Some(address) = config.shadow_listen {
            let (shadow, at) = listen("SCONCE_SHADOW_LISTEN", address).await?;
            lanes.push((Lane::Shadow, shadow));
            addresses.shadow = Some(at);
        }
        let local = config.unix_socket.as_deref().map(|path| {
            LocalSocket::bind(path).map_err(|source| StartError::Socket { path: path.to_owned(), source })
        });
        Ok(Self { lanes, local: local.transpose()?, admin, addresses })
    }
}

async fn listen(
    variable: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let taken = |source| StartError::Listen { variable, address, source };
    let listener = TcpListener::bind(address).await.map_err(taken)?;
    let bound = listener.local_addr().map_err(taken)?;
    Ok((listener, bound))
}

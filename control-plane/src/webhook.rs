//! The injector's webhook: `sconce-control-plane webhook`, a process of its own.
//!
//! It has no database and no identity of the mesh, so that pods can be created whatever else
//! is down, and as many replicas as wanted. What they share is a Secret with the CA that the
//! API server recognises them by.

mod certificates;
mod cluster;
pub mod config;
mod keys;
mod nodes;
mod register;
mod review;
mod secret;
mod server;
mod settings;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use kube::Client;
use sconce_identity::Doors;
use sconce_istio::inject::InvalidSettings;
use sconce_lifecycle::{Guard, Readiness, Render, Stopping, Tasks};
use tokio::net::TcpListener;

use self::{
    certificates::Certificates, cluster::Cluster, config::Config, nodes::Nodes, register::Registered,
    secret::SecretStore, server::Mutating,
};
use crate::notes::Notes;

/// Where the webhook listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For the API server.
    pub webhook: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Why the webhook did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not this machine's.
    #[error("{variable} {address} cannot be listened on: {source}")]
    Listen {
        /// The variable that names it.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The settings cannot be used.
    #[error("SCONCE_WEBHOOK_SETTINGS {path}: {source}")]
    Settings {
        /// The file.
        path: String,
        /// Why.
        source: InvalidSettings,
    },
}

/// Starts every part and returns once its sockets are bound. `/readyz` says when it can answer.
///
/// # Errors
/// Where a socket or the settings cannot be used.
pub async fn start(
    config: Config,
    client: Client,
    metrics: Render,
    tasks: &Tasks,
) -> Result<Addresses, StartError> {
    let listener = listen("SCONCE_WEBHOOK_LISTEN", config.listen).await?;
    let admin_listener = listen("SCONCE_WEBHOOK_ADMIN_LISTEN", config.admin_listen).await?;
    let addresses = Addresses {
        webhook: local(&listener, config.listen),
        admin: local(&admin_listener, config.admin_listen),
    };

    let readiness = Readiness::default();
    let (settings, reload) = settings::watch(config.settings.as_deref(), &config.namespace)?;
    let secret = SecretStore::new(client.clone(), &config.namespace, &config.secret);
    let (certificates, certify) = certificates::watch(secret, config.names());
    let (cluster, follow) = Cluster::watch(client.clone());
    let (nodes, count) = Nodes::watch(client.clone());
    let (notes, post) = Notes::new(client.clone(), "sconce-webhook", "Inject");
    let register = Registered::new(client, &config, certificates.clone()).keep();
    let doors = Doors::tls(certificates.server_config());
    let (certified, followed) = (readiness.guard("certificate"), readiness.guard("namespaces and limits"));
    let ready = Ready { certificates, cluster: cluster.clone(), certified, followed }.wait();
    let service = server::service(Arc::new(Mutating { cluster, settings, nodes, notes }));

    tasks.spawn_through_drain("settings", reload);
    tasks.spawn_through_drain("certificates", certify);
    tasks.spawn_through_drain("cluster", follow);
    tasks.spawn_through_drain("nodes", count);
    tasks.spawn_through_drain("events", post);
    tasks.spawn_through_drain("registration", register);
    tasks.spawn_through_drain("ready", ready);
    let last = Stopping::new();
    tasks.spawn("webhook", sconce_identity::serve(listener, doors, service, last.clone()));
    tasks.spawn("linger", linger(tasks.stopping(), last));
    tasks.spawn_through_drain(
        "admin",
        sconce_lifecycle::admin(admin_listener, readiness, metrics, tasks.stopping()),
    );
    tracing::info!(webhook = %addresses.webhook, admin = %addresses.admin, "webhook started");
    Ok(addresses)
}

/// Holds readiness back until there is a certificate to show and a namespace to look up.
struct Ready {
    certificates: Certificates,
    cluster: Cluster,
    certified: Guard,
    followed: Guard,
}

impl Ready {
    async fn wait(self) {
        self.certificates.ready().await;
        drop(self.certified);
        self.cluster.ready().await;
        drop(self.followed);
        std::future::pending().await
    }
}

/// How long a replica that stops is still called: until the API server knows its endpoint gone.
const LINGER: Duration = Duration::from_secs(5);

/// Nobody calls again where a webhook refused the connection: the pod is refused.
async fn linger(stopping: Stopping, last: Stopping) {
    stopping.cancelled().await;
    tokio::time::sleep(LINGER).await;
    last.cancel();
}

async fn listen(variable: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { variable, address, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

#[cfg(test)]
mod tests;

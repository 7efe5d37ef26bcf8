//! Wires the control plane together.

use std::{io, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use sconce_identity::{ClientAuth, Doors, Identity, PeerPolicy, authority::AuthorityError, source::NoSource};
use sconce_lifecycle::{Readiness, Render, Tasks};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    access::{Access, Role},
    api::{self, Api},
    config::Config,
    declared,
    fleet::Fleet,
    issuing::Issuing,
    publish::{self, NoCluster},
    pull::{NoWeb, Pulls},
    store::Store,
};

/// Where the control plane listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Why the control plane did not start.
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
    /// The CA cannot be used.
    #[error("SCONCE_DATA_DIR: {0}")]
    Authority(#[from] AuthorityError),
    /// There is no cluster to publish to.
    #[error("SCONCE_PUBLISH, SCONCE_CUSTOM_RESOURCES: {0}")]
    NoCluster(#[from] NoCluster),
    /// Nothing can be pulled.
    #[error(transparent)]
    NoWeb(#[from] NoWeb),
    /// Publishing is off.
    #[error("SCONCE_PUBLISH is off; set it to what it was to withdraw what was published")]
    NothingPublished,
    /// Nothing certifies this process.
    #[error(transparent)]
    Identity(#[from] NoSource),
    /// The store cannot be used.
    #[error("SCONCE_DATA_DIR: {0}")]
    Store(String),
}

/// Starts every part and returns once it is answering.
///
/// # Errors
/// Where a socket or the data folder cannot be used.
pub async fn start(config: Config, metrics: Render, tasks: &Tasks) -> Result<Addresses, StartError> {
    // Bind first: a taken port should fail before anything is written.
    let api_listener = listen("SCONCE_LISTEN", config.listen).await?;
    let admin_listener = listen("SCONCE_ADMIN_LISTEN", config.admin_listen).await?;
    let addresses = Addresses { api: local(&api_listener)?, admin: local(&admin_listener)? };
    let stored = |error: api::ApiError| StartError::Store(error.to_string());

    let readiness = Readiness::default();
    let (publisher, identity) = sconce_identity::identity();
    let store = Store::open(&config.data_dir).await.map_err(stored)?;
    let mut roles = config.roles;
    // Known before anything is answered, since it decides whether the CA issues at all.
    let source = config.identity.choose()?.settle().await;
    let (issuing, certify): (_, BoxFuture<'static, ()>) = match source {
        Some(source) => (None, source.watch(&config.data_dir, publisher)),
        None => {
            let issuing = Issuing::open(&config.data_dir.join("ca"), &config.trust_domain)?;
            let renew = issuing.certify_self(config.names, publisher).map_err(stored)?;
            issuing.write_operator(&config.data_dir.join("operator")).map_err(stored)?;
            roles.insert(issuing.operator().map_err(stored)?, Role::Operator);
            (Some(issuing), Box::pin(renew))
        }
    };
    let access = Access { store: store.clone(), roles: Arc::new(roles) };
    let fleet = Fleet::new(store.clone());
    let pulls = Pulls::new(config.pulls, store.clone())?;
    let (owners, owned) = watch::channel(None);
    let sources = publish::Sources {
        name: lease_holder(&config.hostname),
        store: store.clone(),
        fleet: fleet.clone(),
        owners: owned,
        stopping: tasks.stopping(),
    };
    let (publications, publishing) = publish::open(config.publish, sources).await?;
    let declared = declared::Sources {
        name: lease_holder(&config.hostname),
        store: store.clone(),
        fleet: fleet.clone(),
        publications: publications.clone(),
        pulls: pulls.clone(),
        owners,
        stopping: tasks.stopping(),
    };
    let reconciling = declared::open(config.custom_resources, declared).await?;
    let service =
        api::service(Api { store, access, fleet, issuing, publications, pulls, stopping: tasks.stopping() });
    // A certificate is optional here: token holders have none, and those who join not yet.
    let tls = identity.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain());
    let doors = Doors { identity: Some(identity.clone()), ..Doors::tls(tls) };

    let stopping = tasks.stopping();
    tasks.spawn("certificate", async move {
        stopping.run_until_cancelled(certify).await;
    });
    tasks.spawn_through_drain("identity", certified(identity, readiness.clone()));
    tasks.spawn("publish", publishing);
    tasks.spawn("reconcile", reconciling);
    tasks.spawn("api", sconce_identity::serve(api_listener, doors, service, tasks.stopping()));
    tasks.spawn_through_drain(
        "admin",
        sconce_lifecycle::admin(admin_listener, readiness, metrics, tasks.stopping()),
    );
    tracing::info!(api = %addresses.api, admin = %addresses.admin, "control plane ready");
    Ok(addresses)
}

/// Removes everything that was ever published, and returns when nothing is left.
///
/// # Errors
/// Where there is no cluster.
pub async fn withdraw(config: Config) -> Result<(), StartError> {
    let settings = config.publish.ok_or(StartError::NothingPublished)?;
    Ok(publish::withdraw(settings, &lease_holder(&config.hostname)).await?)
}

/// Unique also for a container that is started again in the same pod: its predecessor may still be
/// writing.
fn lease_holder(hostname: &str) -> String {
    format!("{hostname}_{:08x}", rand::random::<u32>())
}

/// Holds readiness back while this process is nobody.
fn certified(identity: Identity, readiness: Readiness) -> impl Future<Output = ()> + Send + use<> {
    // From now on, not from when the task first runs.
    let mut nobody = readiness.guard("identity");
    async move {
        loop {
            identity.ready().await;
            drop(nobody);
            identity.withdrawn().await;
            nobody = readiness.guard("identity");
        }
    }
}

async fn listen(variable: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { variable, address, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|error| StartError::Store(error.to_string()))
}

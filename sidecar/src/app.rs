//! Wires the sidecar together. Top to bottom, this is the data path of ARCHITECTURE.md.

mod ports;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::Extension;
use sconce_catalog::Lane;
use sconce_identity::{ClientAuth, Doors, Identity, PeerPolicy, Publisher};
use sconce_lifecycle::{Guard, Readiness, Render, Stopping, Tasks};
use tokio::sync::watch;

pub use self::ports::Addresses;
use self::ports::Ports;
use crate::{
    config::{Config, Join},
    control::{
        issuer::JoinIssuer,
        link::Link,
        watch::{Reporter, Watch},
    },
    engine::{Engine, Limits, Loader, Pool},
    models::{
        disk::{Disk, DiskError},
        live::Live,
        progress::Progress,
        reconcile::Reconcile,
    },
    serve::{self, SequenceLimits, Sequences},
};

/// Where the sidecar listens, and what must be stopped after its tasks.
pub struct Running {
    /// Its ports.
    pub addresses: Addresses,
    /// What holds `/readyz` back.
    pub readiness: Readiness,
    pool: Pool,
    loader: Loader,
}

/// Why the sidecar did not start.
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
    /// The Unix socket cannot be made.
    #[error("SCONCE_UNIX_SOCKET {}: {source}", .path.display())]
    Socket {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("SCONCE_DATA_DIR: {0}")]
    Disk(#[from] DiskError),
    /// The certificate source cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The system refused a thread.
    #[error("no thread could be started: {0}")]
    Threads(#[from] io::Error),
}

/// Starts every part and returns once all sockets are bound.
///
/// Serving becomes visible later: `/readyz` turns 200 when the last guard taken here has
/// been dropped. Only this function spawns, so its list of tasks is the complete list of
/// what the process does.
///
/// # Errors
/// Where a socket, the data folder or the certificate source cannot be used.
pub async fn start(
    config: Config,
    engine: Arc<dyn Engine>,
    metrics: Render,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let Ports { lanes, local, admin, addresses } = Ports::bind(&config).await?;

    let readiness = Readiness::default();
    let disk = Disk::open(&config.data_dir)?;
    let (publisher, identity) = sconce_identity::identity();
    let renew = certificates(&config, publisher, identity.clone(), tasks)?;
    let link = Link::new(&config.control_plane, identity.client_config(control_plane(&config)));
    let pool = Pool::start(&engine, limits(&config))?;
    let loader = Loader::start(Arc::clone(&engine))?;
    let live = Live::default();
    // The last good catalog is what is served until the control plane says otherwise.
    let (catalog, catalogs) = watch::channel(disk.catalog().map(Arc::new));
    let (progress, progresses) = watch::channel(Progress::default());
    let reporter = Reporter {
        sidecar: config.name.clone(),
        labels: config.labels.clone(),
        address: advertised(addresses.live),
    };
    let follow = Watch { link: link.clone(), reporter, progress: progresses, catalog, disk: disk.clone() };
    let reconcile = Reconcile {
        catalog: catalogs,
        live: live.clone(),
        progress,
        disk,
        origin: Arc::new(link),
        loader: loader.clone(),
        ready: Some(models_ready(&config, &readiness)),
    };
    let sequences = Sequences::new(sequence_limits(&config));
    let serving = serve::Config {
        sequences: sequences.clone(),
        leaving: tasks.leaving(),
        stopping: tasks.stopping(),
        ..serve_config(&config, engine.platform())
    };
    let stack = serve::stack(serving, live, pool.clone(), ready_probe(&readiness, tasks.leaving()));
    let doors = doors(&config, &identity);

    tasks.spawn("certificates", renew);
    tasks.spawn_through_drain("identity", certified(identity.clone(), readiness.clone()));
    tasks.spawn("catalog", follow.run(tasks.stopping()));
    tasks.spawn("sequences", sequences.expire(tasks.stopping()));
    tasks.spawn("reconcile", reconcile.run(tasks.stopping()));
    for (lane, listener) in lanes {
        let stack = stack.clone().layer(Extension(lane));
        tasks.spawn(task(lane), sconce_identity::serve(listener, doors.clone(), stack, tasks.stopping()));
    }
    if let Some(socket) = local {
        tasks.spawn("socket", sconce_identity::serve_local(socket, identity, stack, tasks.stopping()));
    }
    tasks.spawn_through_drain(
        "admin",
        sconce_lifecycle::admin(admin, readiness.clone(), metrics, tasks.leaving()),
    );
    Ok(Running { addresses, readiness, pool, loader })
}

impl Running {
    /// Ends the threads that are not tasks. Call it after the tasks have stopped.
    ///
    /// A process must not exit while a forward pass runs: libtorch's destructors would pull
    /// its memory away from under it.
    pub fn join(self) {
        self.pool.stop();
        self.loader.stop();
    }
}

/// The task that answers on a lane.
fn task(lane: Lane) -> &'static str {
    match lane {
        Lane::Live => "inference",
        Lane::Canary => "inference-canary",
        Lane::Shadow => "inference-shadow",
    }
}

/// What others should call: an unspecified address is known to them by another name.
fn advertised(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("https://:{}", address.port())
    } else {
        format!("https://{address}")
    }
}

/// Only the control plane is listened to, whatever else its CA has signed.
fn control_plane(config: &Config) -> PeerPolicy {
    PeerPolicy::path_in_own_trust_domain(config.control_plane_id.clone())
}

fn callers(config: &Config) -> PeerPolicy {
    if config.callers.is_empty() {
        PeerPolicy::own_trust_domain()
    } else {
        PeerPolicy::patterns(config.callers.clone())
    }
}

/// Who gets in by which door; the callers who may are the same behind each.
fn doors(config: &Config, identity: &Identity) -> Doors {
    Doors {
        identity: Some(identity.clone()),
        plaintext_loopback: config.plaintext_loopback,
        plaintext_mesh: config.plaintext_mesh.then(|| callers(config)),
        ..Doors::tls(identity.server_config(ClientAuth::Required, callers(config)))
    }
}

fn serve_config(config: &Config, platform: &'static str) -> serve::Config {
    serve::Config {
        namespace: config.namespace.clone(),
        max_body_bytes: config.max_body_bytes,
        limits: limits(config),
        logs: sconce_telemetry::logs(),
        default_timeout: config.default_timeout,
        platform,
        ..serve::Config::default()
    }
}

fn sequence_limits(config: &Config) -> SequenceLimits {
    let (most, idle, waiting) = (config.max_sequences, config.sequence_idle, config.queue_size);
    SequenceLimits { most, idle, waiting }
}

fn limits(config: &Config) -> Limits {
    Limits {
        runs: config.inference_threads,
        queue: config.queue_size,
        batch_rows: config.max_batch_rows,
        batch_target: config.batch_target,
    }
}

/// Dropped when the first catalog's models are ready or rejected, waited for or not.
fn models_ready(config: &Config, readiness: &Readiness) -> Guard {
    if config.wait_for_models { readiness.guard("models") } else { readiness.notice("models") }
}

fn ready_probe(readiness: &Readiness, leaving: Stopping) -> serve::Ready {
    let readiness = readiness.clone();
    Arc::new(move || readiness.is_ready() && !leaving.is_cancelled())
}

/// The task that keeps this process's certificate current.
fn certificates(
    config: &Config,
    publisher: Publisher,
    identity: Identity,
    tasks: &Tasks,
) -> Result<impl Future<Output = ()> + Send + use<>, StartError> {
    let unusable = |error: &dyn std::fmt::Display| StartError::Identity(error.to_string());
    let choice = config.identity.choose().map_err(|error| unusable(&error))?;
    let join = match &config.join {
        Some(Join { token_file, trust_bundle, names }) if choice.may_be_own() => {
            let policy = control_plane(config);
            let issuer = JoinIssuer::new(&config.control_plane, token_file, trust_bundle, policy, identity);
            Some((Arc::new(issuer.map_err(|error| unusable(&error))?), names.clone()))
        }
        _ => None,
    };
    let (data, stopping) = (config.data_dir.clone(), tasks.stopping());
    let follow = async move {
        match (choice.settle().await, join) {
            (Some(source), _) => source.watch(&data, publisher).await,
            (None, Some((issuer, names))) => {
                sconce_identity::issued::renew(data.join("identity"), names, issuer, publisher).await;
            }
            (None, None) => tracing::error!("there is no join token, and it was the only source"),
        }
    };
    Ok(async move {
        stopping.run_until_cancelled(follow).await;
    })
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

//! Gives the mesh what the catalog wants, as far as the fleet is ready for it.
//!
//! [`plan`] decides and knows no cluster; [`driver`] carries plans out and decides nothing; the
//! cluster stands behind a trait. Nothing is kept on disk: what is published is read back from
//! the cluster's own objects.

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::Client;
use sconce_catalog::{Catalog, Serial};
use sconce_lifecycle::Stopping;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use self::publications::InForce;
pub(crate) use self::{
    backoff::Backoff,
    cluster::{
        ClusterError,
        kubernetes::{Kubernetes, failure},
    },
    keeper::Drift,
    plan::Rules,
    publications::{Publication, Publications, State},
    reasons::{Lacking, together},
};
use self::{
    cluster::{Kind, Observed, watches},
    driver::{Driver, Inputs},
    publications::{Board, Journal},
};
use crate::{
    declared::{self, Owners},
    fleet::{self, Fleet, Members},
    store::Store,
};

mod backoff;
mod cluster;
mod driver;
mod keeper;
mod leading;
pub(crate) mod lease;
mod plan;
mod publications;
mod reasons;
mod world;

/// How models are published.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What a route is written as.
    pub(crate) form: Form,
    /// What is done about drift.
    pub(crate) drift: Drift,
    /// When a pod is an endpoint.
    pub(crate) rules: Rules,
    /// How often the mesh may offer a request to another pod.
    pub(crate) retries: u32,
}

/// What a route is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A VirtualService.
    Istio,
    /// An HTTPRoute.
    GatewayApi,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
#[error("no cluster can be found from KUBECONFIG or the pod's service account: {0}")]
pub struct NoCluster(String);

/// What publishing reads.
pub(crate) struct Sources {
    /// Unique among control planes: who holds the lease.
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) fleet: Fleet,
    /// Which models are declared by an object of the cluster, and by which.
    pub(crate) owners: watch::Receiver<Owners>,
    pub(crate) stopping: Stopping,
}

/// What is known of publishing, and the task that does it: for ever, where nothing is to be
/// published.
pub(crate) async fn open(
    settings: Option<Settings>,
    sources: Sources,
) -> Result<(Publications, BoxFuture<'static, ()>), NoCluster> {
    let Some(settings) = settings else {
        return Ok((Publications(None), Box::pin(sources.stopping.cancelled_owned())));
    };
    let (board, publications) = Board::new(journal(sources.store.clone()));
    let client = client().await?;
    let catalog = sources.store.catalog();
    Ok((Publications(Some(publications)), Box::pin(run(settings, client, catalog, board, sources))))
}

/// The cluster that this process is in, or that KUBECONFIG leads to.
pub(crate) async fn client() -> Result<Client, NoCluster> {
    let config = kube::Config::infer().await.map_err(|error| NoCluster(error.to_string()))?;
    Client::try_from(config).map_err(|error| NoCluster(error.to_string()))
}

async fn run(
    settings: Settings,
    client: Client,
    catalog: watch::Receiver<Arc<Catalog>>,
    board: Board,
    sources: Sources,
) {
    let cluster = Kubernetes::new(client.clone(), lease::PUBLISHING);
    let (held, holding) = watch::channel(None);
    let (observed, seen) = watch::channel(Observed::default());
    let (members, fleet) = watch::channel(Arc::new(Members::new()));
    let owners = sources.owners;
    let inputs = Inputs { catalog, members: fleet, owners, observed: seen, held: holding };
    let driver = Driver::new(settings, cluster.clone(), inputs, board);
    tokio::select! {
        () = sources.stopping.cancelled() => {}
        () = follow(&sources.fleet, &members) => {}
        () = watches::follow(client, &observed) => {}
        () = lease::hold(&cluster, &sources.name, &held, sources.stopping.clone()) => {}
        () = driver.run() => {}
    }
    // The driver is gone, so nothing is written any more: another need not wait for us.
    lease::give_up(&cluster, &sources.name).await;
}

/// Keeps `members` what the sidecars say.
pub(crate) async fn follow(fleet: &Fleet, members: &watch::Sender<Arc<Members>>) {
    let mut sidecars = fleet.watch();
    loop {
        let next = fleet::members(&sidecars.borrow_and_update());
        members.send_if_modified(|members| {
            let news = **members != next;
            *members = Arc::new(next);
            news
        });
        if sidecars.changed().await.is_err() {
            return;
        }
    }
}

fn journal(store: Store) -> Journal {
    Box::new(move |event| {
        let store = store.clone();
        Box::pin(async move {
            if let Err(error) = store.record(event).await {
                tracing::error!(%error, "an event was not recorded");
            }
        })
    })
}

/// Removes everything that was ever published, and every label, and returns when nothing is left.
/// It waits for whoever publishes now to stop: take the control plane down first.
///
/// # Errors
/// Where there is no cluster.
pub(crate) async fn withdraw(settings: Settings, name: &str) -> Result<(), NoCluster> {
    let client = client().await?;
    let cluster = Kubernetes::new(client.clone(), lease::PUBLISHING);
    let (held, holding) = watch::channel(None);
    let (observed, seen) = watch::channel(Observed::default());
    // A catalog without models, newer than any route: everything is left over from it.
    let empty = Catalog { serial: Serial(u64::MAX), ..Catalog::default() };
    let (_catalog, catalog) = watch::channel(Arc::new(empty));
    let (_members, members) = watch::channel(Arc::new(Members::new()));
    let (_owners, owners) = watch::channel(declared::nobody());
    let (board, _publications) = Board::new(Box::new(|_| Box::pin(async {})));
    let mut left = seen.clone();
    let inputs = Inputs { catalog, members, owners, observed: seen, held: holding };
    let driver = Driver::new(settings, cluster.clone(), inputs, board);
    let nothing_left = |observed: &Observed| {
        settings.needs().iter().all(|source| observed.listed.contains(source))
            && observed.objects.is_empty()
            && observed.pods.is_empty()
    };
    tokio::select! {
        _ = left.wait_for(nothing_left) => {}
        () = watches::follow(client, &observed) => {}
        () = lease::hold(&cluster, name, &held, Stopping::new()) => {}
        () = driver.run() => {}
    }
    lease::give_up(&cluster, name).await;
    Ok(())
}

impl Form {
    fn kind(self) -> Kind {
        match self {
            Form::Istio => Kind::VirtualService,
            Form::GatewayApi => Kind::HttpRoute,
        }
    }
}

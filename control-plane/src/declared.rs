//! `Model` and `ModelVersion`: what people who keep their wishes in git declare in a cluster, made
//! true through the same doors that people use.
//!
//! [`driver`] decides and acts; the cluster stands behind a trait. Nothing is kept on disk: who
//! made a version is written in the version.

use std::{sync::Arc, time::Instant};

use futures::future::BoxFuture;
use sconce_lifecycle::Stopping;
use tokio::sync::watch;

pub(crate) use self::owners::{Owners, nobody};
use self::{
    cluster::{
        Observed,
        kubernetes::{self, Kubernetes},
    },
    driver::{Driver, Inputs, Plane},
};
use crate::{
    fleet::{Fleet, Members},
    notes::Notes,
    publish::{self, NoCluster, Publications, lease},
    pull::Pulls,
    store::Store,
};

mod cluster;
mod driver;
mod objects;
mod owners;
mod pulling;
mod status;

/// What reconciling reads and changes.
pub(crate) struct Sources {
    /// Unique among control planes: who holds the lease.
    pub(crate) name: String,
    pub(crate) store: Store,
    pub(crate) fleet: Fleet,
    pub(crate) publications: Publications,
    pub(crate) pulls: Pulls,
    /// Where to say which models are declared.
    pub(crate) owners: watch::Sender<Owners>,
    pub(crate) stopping: Stopping,
}

/// The task that reconciles: for ever, where nothing is to be declared.
pub(crate) async fn open(on: bool, sources: Sources) -> Result<BoxFuture<'static, ()>, NoCluster> {
    if !on {
        return Ok(Box::pin(async move {
            sources.owners.send_replace(nobody());
            sources.stopping.cancelled().await;
        }));
    }
    let client = publish::client().await?;
    Ok(Box::pin(run(client, sources)))
}

async fn run(client: kube::Client, sources: Sources) {
    let Sources { name, store, fleet, publications, pulls, owners, stopping } = sources;
    let (notes, post) = Notes::new(client.clone(), "sconce-reconciler", "Reconcile");
    let cluster = Kubernetes::new(client.clone(), notes);
    let leases = publish::Kubernetes::new(client.clone(), lease::RECONCILING);
    let (held, holding) = watch::channel(None::<Instant>);
    let (observed, seen) = watch::channel(Observed::default());
    let (members, fleet_seen) = watch::channel(Arc::new(Members::new()));
    let declared = seen.clone();
    let inputs = Inputs { observed: seen, catalog: store.catalog(), members: fleet_seen, held: holding };
    let driver = Driver::new(cluster, inputs, Plane { store, fleet: fleet.clone(), publications, pulls });
    tokio::select! {
        () = stopping.cancelled() => {}
        () = publish::follow(&fleet, &members) => {}
        () = kubernetes::follow(client, &observed) => {}
        () = owners::follow(declared, &owners) => {}
        () = lease::hold(&leases, &name, &held, stopping.clone()) => {}
        () = post => {}
        () = driver.run() => {}
    }
    lease::give_up(&leases, &name).await;
}

//! Reads a cluster, as far as the caller may.

use sconce_catalog::{Catalog, ModelName};
use sconce_istio::install::{CONTROL_PLANE, INJECTOR, LEASE, NAME_LABEL, NAMESPACE, WEBHOOK};
use serde_json::Value;

use super::view::{Unread, View, text};
use crate::{
    args::{Doctor, Global},
    client::{Control, Sidecar, SplitProgress},
    cluster::{self, Cluster, Id, Kind},
    config::Surroundings,
    context::Access,
    failure::Failure,
};

/// Where Istio writes its roots into every namespace.
const MESH_ROOTS: &str = "istio-ca-root-cert";

/// Everything but the catalog.
pub(super) async fn view(cluster: &Cluster, args: &Doctor) -> Result<View, Failure> {
    let mut reader = Reader { cluster, unread: Vec::new() };
    let deployments = reader.deployments(args.namespace.as_deref()).await?;
    let system = args.namespace.clone().unwrap_or_else(|| system(deployments.as_deref()));
    let (own, workloads) = (Some(system.as_str()), args.workloads.as_deref());
    let istio = reader.kind(cluster::VIRTUAL_SERVICE, workloads).await?;
    let gateway_api = reader.kind(cluster::HTTP_ROUTE, workloads).await?;
    Ok(View {
        version: env!("CARGO_PKG_VERSION").into(),
        now: jiff::Timestamp::now().as_second(),
        has_istio: istio.as_ref().map(Option::is_some),
        has_gateway_api: gateway_api.as_ref().map(Option::is_some),
        virtual_services: istio.map(Option::unwrap_or_default),
        http_routes: gateway_api.map(Option::unwrap_or_default),
        registrations: reader.list(cluster::MUTATING_WEBHOOK, None).await?,
        namespaces: reader.list(cluster::NAMESPACE, None).await?,
        pods: reader.list(cluster::POD, workloads).await?,
        services: reader.list(cluster::SERVICE, workloads).await?,
        slices: reader.slices(own, workloads).await?,
        replica_sets: reader.list(cluster::REPLICA_SET, own).await?,
        system_pods: reader.list(cluster::POD, own).await?,
        events: reader.list(cluster::EVENT, own).await?,
        settings: reader.get(Id::new(cluster::CONFIG_MAP, own, INJECTOR)).await?,
        secret: reader.get(Id::new(cluster::SECRET, own, WEBHOOK)).await?,
        lease: reader.get(Id::new(cluster::LEASE, own, LEASE)).await?,
        mesh_roots: reader.get(Id::new(cluster::CONFIG_MAP, own, MESH_ROOTS)).await?,
        catalog: None,
        splits: None,
        sidecars: None,
        deployments,
        unread: reader.unread,
        system,
    })
}

/// Asks the control plane that was named, and no other: one that `sconce up` runs on this machine
/// knows nothing of a cluster.
pub(super) async fn catalog(view: &mut View, global: &Global, surroundings: &Surroundings) {
    let what = "what the control plane says of models and sidecars".to_owned();
    if global.control_plane.is_none() {
        let why = "no control plane is named; give --control-plane and who you are to it".to_owned();
        return view.unread.push(Unread { what, why });
    }
    match asked(global, surroundings).await {
        Ok(told) => {
            view.catalog = Some(told.catalog);
            view.splits = Some(told.splits);
            view.sidecars = Some(told.sidecars);
        }
        Err(failure) => view.unread.push(Unread { what, why: failure.to_string().replace('\n', ";") }),
    }
}

/// What a control plane says.
struct Told {
    catalog: Catalog,
    splits: Vec<(ModelName, SplitProgress)>,
    sidecars: Vec<Sidecar>,
}

async fn asked(global: &Global, surroundings: &Surroundings) -> Result<Told, Failure> {
    let access = Access::resolve(global, surroundings)?;
    let mut control = Control::connect(&access).await?;
    let models = control.models(None).await?;
    let mut splits = Vec::new();
    for (name, _) in &models {
        splits.push((name.clone(), control.model(name).await?.progress));
    }
    let sidecars = control.sidecars().await?;
    Ok(Told {
        catalog: Catalog { models: models.into_iter().collect(), ..Catalog::default() },
        splits,
        sidecars,
    })
}

/// Where the control plane runs; the usual place where nobody knows.
fn system(deployments: Option<&[Value]>) -> String {
    let mut named = deployments
        .into_iter()
        .flatten()
        .filter(|deployment| deployment["metadata"]["name"] == CONTROL_PLANE);
    named.next().map_or(NAMESPACE, |deployment| text(&deployment["metadata"]["namespace"])).to_owned()
}

struct Reader<'a> {
    cluster: &'a Cluster,
    unread: Vec<Unread>,
}

impl Reader<'_> {
    /// The objects of a kind.
    async fn list(&mut self, kind: Kind, namespace: Option<&str>) -> Result<Option<Vec<Value>>, Failure> {
        let listed = self.cluster.list(kind, namespace, "").await;
        self.seen(every(kind, namespace), listed)
    }

    /// The same of a kind that a cluster may lack.
    async fn kind(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> Result<Option<Option<Vec<Value>>>, Failure> {
        match self.cluster.list(kind, namespace, "").await {
            Err(error) if cluster::is_absent(&error) => Ok(Some(None)),
            other => Ok(self.seen(every(kind, namespace), other)?.map(Some)),
        }
    }

    /// One object, or none.
    async fn get(&mut self, id: Id) -> Result<Option<Vec<Value>>, Failure> {
        let got = self.cluster.get(&id).await.map(|object| object.into_iter().collect());
        self.seen(id.to_string(), got)
    }

    /// Of all namespaces; of the one alone where the others may not be seen.
    async fn deployments(&mut self, namespace: Option<&str>) -> Result<Option<Vec<Value>>, Failure> {
        let label = format!("{NAME_LABEL}=sconce");
        let everywhere = self.cluster.list(cluster::DEPLOYMENT, None, &label).await;
        match everywhere {
            Err(error) if cluster::refused(&error).is_some() => {
                let here = self
                    .cluster
                    .list(cluster::DEPLOYMENT, Some(namespace.unwrap_or(NAMESPACE)), &label)
                    .await;
                self.seen(every(cluster::DEPLOYMENT, namespace), here)
            }
            other => self.seen(every(cluster::DEPLOYMENT, None), other),
        }
    }

    /// Those of the webhook's Service are in another namespace than workloads.
    async fn slices(
        &mut self,
        own: Option<&str>,
        workloads: Option<&str>,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let all = self.list(cluster::ENDPOINT_SLICE, workloads).await?;
        if workloads.is_none() || workloads == own {
            return Ok(all);
        }
        let webhook = self.list(cluster::ENDPOINT_SLICE, own).await?;
        Ok(all.zip(webhook).map(|(all, webhook)| [all, webhook].concat()))
    }

    /// Notes a refusal; whoever does not answer at all ends everything.
    fn seen<T>(&mut self, what: String, got: Result<T, kube::Error>) -> Result<Option<T>, Failure> {
        match got {
            Ok(seen) => Ok(Some(seen)),
            Err(error) => match cluster::refused(&error) {
                Some(status) => {
                    self.unread.push(Unread { what, why: status.message.clone() });
                    Ok(None)
                }
                None => Err(self.cluster.failure(what, error)),
            },
        }
    }
}

fn every(kind: Kind, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("every {} of {namespace}", kind.kind),
        None => format!("every {}", kind.kind),
    }
}

//! Waits until what was installed runs, and says what keeps it from running.

use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, EVENT, Id, POD, REPLICA_SET, Waited},
    failure::{Exit, Failure},
    troubles::{self, Trouble, Workload},
};

/// Every Deployment among these.
pub(super) async fn for_deployments(
    cluster: &Cluster,
    objects: &[&Value],
    patience: Duration,
) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    for id in
        objects.iter().filter(|object| object["kind"] == "Deployment").filter_map(|object| Id::of(object))
    {
        let left = until.saturating_duration_since(Instant::now());
        let available = |object: Option<&DynamicObject>| holds(object, troubles::is_available);
        match cluster.until(&id, available, left).await {
            Ok(()) => eprintln!("{id} is available"),
            Err(waited) => return Err(explained(cluster, &id, patience, waited).await),
        }
    }
    Ok(())
}

/// Until each has the CA bundle that the webhook keeps in it: without, the API server would
/// recognise nobody, and refuse every labelled pod.
pub(super) async fn for_registrations(
    cluster: &Cluster,
    objects: &[&Value],
    patience: Duration,
) -> Result<(), Failure> {
    for id in objects.iter().filter_map(|object| Id::of(object)) {
        let complete = |object: Option<&DynamicObject>| {
            holds(object, |value| {
                let webhooks = value["webhooks"].as_array();
                webhooks.is_some_and(|all| {
                    all.iter().all(|webhook| webhook["clientConfig"]["caBundle"].is_string())
                })
            })
        };
        cluster.until(&id, complete, patience).await.map_err(|waited| {
            Failure::failed(format!("{id} has no CA bundle: {}", said(&waited, patience)))
                .hint("the injector's log says why: `sconce doctor` names its pods")
        })?;
    }
    Ok(())
}

fn holds(object: Option<&DynamicObject>, condition: impl Fn(&Value) -> bool) -> bool {
    object.and_then(|object| serde_json::to_value(object).ok()).is_some_and(|value| condition(&value))
}

fn said(waited: &Waited, patience: Duration) -> String {
    match waited {
        Waited::TooLong => format!("not in {} s", patience.as_secs()),
        Waited::Interrupted(why) => why.clone(),
    }
}

async fn explained(cluster: &Cluster, id: &Id, patience: Duration, waited: Waited) -> Failure {
    let what = format!("{id} is not available: {}", said(&waited, patience));
    let listed = match look(cluster, id).await {
        Ok(found) => listed(&found),
        Err(error) => format!("  why cannot be seen: {error}"),
    };
    Failure::new(Exit::Failed, format!("{what}\n{listed}"))
        .hint("the webhook was not registered, so nothing else is kept from starting; the same command goes on from here")
}

fn listed(troubles: &[Trouble]) -> String {
    let line = |trouble: &Trouble| format!("  {}: {}\n    {}", trouble.object, trouble.problem, trouble.next);
    troubles.iter().map(line).collect::<Vec<_>>().join("\n")
}

async fn look(cluster: &Cluster, id: &Id) -> Result<Vec<Trouble>, kube::Error> {
    let namespace = id.namespace.as_deref();
    let Some(deployment) = cluster.get(id).await? else { return Ok(Vec::new()) };
    let replica_sets = cluster.list(REPLICA_SET, namespace, "").await?;
    let pods = cluster.list(POD, namespace, "").await?;
    // Without the right to read events the rest is still worth telling.
    let events = cluster.list(EVENT, namespace, "").await.unwrap_or_default();
    Ok(troubles::of_workload(&Workload {
        deployment: &deployment,
        replica_sets: &replica_sets,
        pods: &pods,
        events: &events,
    }))
}

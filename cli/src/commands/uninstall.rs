//! `sconce uninstall`: out of a cluster, and nothing left that leads nowhere.
//!
//! The control plane is stopped first, because it would put back what is taken away; then what it
//! published goes, routes before their Services; then the webhook's registration, before the
//! webhook, or no labelled pod could be made any more; then the rest. What is gone already is no
//! error, so that the command can be repeated.

use std::time::Duration;

use sconce_istio::names::MODEL_LABEL_PREFIX;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    args::Uninstall,
    cluster::{self, Cluster, Id, Waited},
    failure::{Exit, Failure},
    output::Output,
    troubles::named,
};

mod found;
mod left;

use found::Found;

#[derive(Serialize)]
struct Step {
    object: String,
    done: &'static str,
}

/// Uninstalls Sconce, or says what that would do.
pub(super) async fn run(args: Uninstall, out: Output) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster).await?;
    cluster.reach().await?;
    let found = Found::look(&cluster, &args.namespace).await?;
    found.refuse(&args)?;
    let doing = Doing { cluster: &cluster, dry_run: args.dry_run, timeout: args.timeout, out };
    doing.permitted(&found, &args).await?;
    doing.stop(&found).await?;
    doing.withdraw(&found).await?;
    if args.published_only {
        eprintln!("nothing of what was published is left; the control plane has no replicas now");
        return Ok(());
    }
    for object in &found.installed {
        doing.release(object).await?;
        if let Some(why) = found::kept(object, args.purge) {
            eprintln!("{} is kept: {why}", named(object));
        } else {
            doing.delete(object).await?;
        }
    }
    if found.is_nothing() {
        eprintln!("nothing of Sconce is in this cluster");
    }
    eprint!("{}", left::text(&found));
    Ok(())
}

struct Doing<'a> {
    cluster: &'a Cluster,
    dry_run: bool,
    timeout: Duration,
    out: Output,
}

impl Doing<'_> {
    /// Whether all of it may be done, before any of it is.
    async fn permitted(&self, found: &Found, args: &Uninstall) -> Result<(), Failure> {
        let ids = |objects: &[Value]| objects.iter().filter_map(Id::of).collect::<Vec<Id>>();
        let installed: Vec<Value> = found
            .installed
            .iter()
            .filter(|object| found::kept(object, args.purge).is_none())
            .cloned()
            .collect();
        let installed = if args.published_only { Vec::new() } else { ids(&installed) };
        let deleted = [ids(&found.published), installed].concat();
        let changed = [ids(&found.endpoints), ids(found.control_plane.as_slice())].concat();
        let mut lacking = Vec::new();
        for (verb, ids) in [("delete", deleted), ("patch", changed)] {
            let asked = cluster::lacking(self.cluster, &[verb], &ids).await;
            lacking.extend(asked.map_err(|error| self.cluster.failure("your rights", error))?);
        }
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Denied, format!("you may not {}", lacking.join(", nor ")))
            .hint("nothing was changed; somebody who administers the cluster can run this"))
    }

    /// Until nobody publishes any more.
    async fn stop(&self, found: &Found) -> Result<(), Failure> {
        let Some(id) = found.control_plane.as_ref().and_then(Id::of) else { return Ok(()) };
        self.tell(&id.to_string(), "stopped")?;
        if self.dry_run {
            return Ok(());
        }
        let stopped = self.cluster.merge(&id, &json!({ "spec": { "replicas": 0 } })).await;
        stopped.map_err(|error| self.cluster.failure(&id, error))?;
        for pod in &found.control_pods {
            self.until_gone(pod).await?;
        }
        Ok(())
    }

    async fn until_gone(&self, object: &Value) -> Result<(), Failure> {
        let (Some(id), Some(uid)) = (Id::of(object), object["metadata"]["uid"].as_str()) else {
            return Ok(());
        };
        let gone = kube::runtime::conditions::is_deleted(uid);
        self.cluster.until(&id, gone, self.timeout).await.map_err(|waited| {
            let why = match waited {
                Waited::TooLong => format!("it is still there after {} s", self.timeout.as_secs()),
                Waited::Interrupted(why) => why,
            };
            Failure::failed(format!("{id} does not end: {why}"))
                .hint("nothing was taken out of the mesh yet; the same command goes on from here")
        })
    }

    async fn withdraw(&self, found: &Found) -> Result<(), Failure> {
        for object in &found.published {
            self.delete(object).await?;
        }
        for pod in &found.endpoints {
            self.unlabel(pod).await?;
        }
        if self.dry_run {
            return Ok(());
        }
        let again = found::published(self.cluster).await?;
        match again.first() {
            None => Ok(()),
            Some(object) => Err(Failure::new(Exit::Conflict, format!("{} was published again meanwhile", named(object)))
                .hint("a control plane still runs somewhere, perhaps outside this namespace: stop it, then repeat this")),
        }
    }

    async fn unlabel(&self, pod: &Value) -> Result<(), Failure> {
        let Some(id) = Id::of(pod) else { return Ok(()) };
        let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
        let ours = labels.filter(|(key, _)| key.starts_with(MODEL_LABEL_PREFIX));
        let gone: serde_json::Map<String, Value> = ours.map(|(key, _)| (key.clone(), Value::Null)).collect();
        let done = if self.dry_run {
            true
        } else {
            let patch = json!({ "metadata": { "labels": gone } });
            self.cluster.merge(&id, &patch).await.map_err(|error| self.cluster.failure(&id, error))?
        };
        self.tell(&id.to_string(), if done { "unlabelled" } else { "absent" })
    }

    /// Nobody is left who would take our finalizers off objects of our kinds: they could never be
    /// deleted again.
    async fn release(&self, definition: &Value) -> Result<(), Failure> {
        let Some(kind) = found::defined(definition) else { return Ok(()) };
        let what = format!("every {}", kind.kind);
        let objects = self.cluster.list_of(&kind, None, "").await;
        for object in objects.map_err(|error| self.cluster.failure(what, error))? {
            let (Some(id), Some(others)) = (Id::of(&object), found::released(&object)) else { continue };
            if !self.dry_run {
                let patch = json!({ "metadata": { "finalizers": others } });
                self.cluster.merge(&id, &patch).await.map_err(|error| self.cluster.failure(&id, error))?;
            }
            self.tell(&id.to_string(), "released")?;
        }
        Ok(())
    }

    async fn delete(&self, object: &Value) -> Result<(), Failure> {
        let (Some(id), Some(uid)) = (Id::of(object), object["metadata"]["uid"].as_str()) else {
            return Ok(());
        };
        let done = if self.dry_run {
            true
        } else {
            self.cluster.delete(&id, uid).await.map_err(|error| self.cluster.failure(&id, error))?
        };
        self.tell(&id.to_string(), if done { "deleted" } else { "absent" })
    }

    fn tell(&self, object: &str, done: &'static str) -> Result<(), Failure> {
        let would = if self.dry_run { "would be " } else { "" };
        let step = Step { object: object.to_owned(), done };
        self.out.line(&step, |step| format!("{would}{:<10} {}", step.done, step.object))
    }
}

//! `sconce install`: everything that Sconce needs in a cluster, by server-side apply.
//!
//! Whatever would stop it half way is looked for first. The webhook is registered last, once
//! something answers it: from then on pods that ask for the sidecar wait for it.

use std::fmt;

use sconce_istio::{
    install::{self, FIELD_MANAGER, Settings},
    yaml,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::{Format, Install},
    cluster::{Cluster, Id},
    failure::Failure,
    output::{self, Output},
};

mod preflight;
mod wait;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Done {
    Created,
    Configured,
    Unchanged,
}

#[derive(Serialize)]
struct Applied {
    object: String,
    done: Done,
}

/// Installs Sconce, or prints what would be applied.
pub(super) async fn run(args: Install, out: Output) -> Result<(), Failure> {
    let settings = Settings { namespace: args.namespace, image: args.image, ephemeral: args.ephemeral };
    let objects = install::objects(&settings);
    if args.dry_run {
        return print(&objects);
    }
    let cluster = Cluster::find(&args.cluster).await?;
    let version = cluster.reach().await?;
    eprintln!("installing into {} (Kubernetes {version})", cluster.address());
    for warning in preflight::check(&cluster, &settings, &objects).await? {
        eprintln!("warning: {warning}");
    }
    let apply = Apply { cluster: &cluster, force: args.force_conflicts, out };
    let (registrations, others): (Vec<&Value>, Vec<&Value>) =
        objects.iter().partition(|object| install::is_registration(object));
    apply.all(&others).await?;
    wait::for_deployments(&cluster, &others, args.timeout).await?;
    apply.all(&registrations).await?;
    wait::for_registrations(&cluster, &registrations, args.timeout).await?;
    if out.0 == Format::Table {
        eprint!("{}", next_steps(&settings.namespace));
    }
    Ok(())
}

fn print(objects: &[Value]) -> Result<(), Failure> {
    let text = yaml::write(objects)
        .map_err(|error| Failure::failed(format!("the objects cannot be written as YAML: {error}")))?;
    output::write(&text)
}

struct Apply<'a> {
    cluster: &'a Cluster,
    force: bool,
    out: Output,
}

impl Apply<'_> {
    async fn all(&self, objects: &[&Value]) -> Result<(), Failure> {
        for object in objects {
            let id = Id::of(object)
                .ok_or_else(|| Failure::failed(format!("an object without a name: {object}")))?;
            let done = self.one(&id, object).await.map_err(|error| self.cluster.failure(&id, error))?;
            self.out.line(&Applied { object: id.to_string(), done }, |one| {
                format!("{:<10} {}", one.done, one.object)
            })?;
        }
        Ok(())
    }

    async fn one(&self, id: &Id, object: &Value) -> Result<Done, kube::Error> {
        let before = self.cluster.get(id).await?;
        let after = self.cluster.apply(id, object, FIELD_MANAGER, self.force).await?;
        let revision = |object: &Value| object["metadata"]["resourceVersion"].clone();
        Ok(match before {
            None => Done::Created,
            // The server gives another one only where something has changed.
            Some(before) if revision(&before) == revision(&after) => Done::Unchanged,
            Some(_) => Done::Configured,
        })
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

fn next_steps(namespace: &str) -> String {
    format!(
        "Sconce runs in {namespace}. Give pods of a namespace the sidecar:\n  \
         kubectl label namespace NAMESPACE sconce.dev/injection=enabled\n  \
         kubectl patch deployment NAME -n NAMESPACE -p \
         '{{\"spec\":{{\"template\":{{\"metadata\":{{\"labels\":{{\"sconce.dev/inject\":\"true\"}}}}}}}}}}'\n"
    )
}

//! The pulls of declared versions: those that run, and those that failed and when each is tried again.

use std::{collections::BTreeMap, time::Instant};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    cluster::{Cluster, Secret},
    objects::{Object, ObjectId, VersionSpec},
};
use crate::{
    publish::{Backoff, ClusterError},
    pull::{Credentials, Policy, Progress, Pull, PullError, Pulls},
};

/// On a Secret: the addresses that it may be used for.
const SOURCES_ANNOTATION: &str = "sconce.dev/sources";

/// Pulls, by the object that declares the version.
pub(super) struct Pulling<C> {
    cluster: C,
    pulls: Pulls,
    running: BTreeMap<ObjectId, Running>,
    failed: BTreeMap<ObjectId, Failed>,
    tasks: JoinSet<(ObjectId, Edition, Result<(), Failure>)>,
}

/// Which object it was, and which edition of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edition {
    uid: String,
    generation: i64,
}

struct Running {
    edition: Edition,
    progress: watch::Receiver<Progress>,
    task: AbortHandle,
}

struct Failed {
    edition: Edition,
    failure: Failure,
    backoff: Backoff,
}

/// Why a version was not pulled.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// It may go well another time although the object stays as it is.
    may_pass: bool,
}

/// How a pull stands.
pub(super) enum Standing {
    Coming(Progress),
    /// And when it is tried again.
    Failed(Failure, Option<Instant>),
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Self { reason: error.reason(), message: error.to_string(), may_pass: error.may_pass() }
    }
}

impl Edition {
    fn of(object: &Object) -> Self {
        Self { uid: object.uid.clone(), generation: object.generation }
    }
}

impl<C: Cluster> Pulling<C> {
    pub(super) fn new(cluster: C, pulls: Pulls) -> Self {
        let (running, failed) = (BTreeMap::new(), BTreeMap::new());
        Self { cluster, pulls, running, failed, tasks: JoinSet::new() }
    }

    /// How the pull of an object stands. One that should run and does not is begun.
    pub(super) fn stand(
        &mut self,
        object: &Object,
        spec: impl FnOnce() -> (VersionSpec, Pull),
        now: Instant,
    ) -> Standing {
        let edition = Edition::of(object);
        if let Some(running) = self.running.get(&object.id) {
            if running.edition == edition {
                return Standing::Coming(*running.progress.borrow());
            }
            self.end(&object.id);
        }
        let before = self.failed.get(&object.id).filter(|failed| failed.edition == edition);
        if let Some(failed) = before {
            let due = failed.backoff.due(now);
            if !failed.failure.may_pass || due.is_some() {
                return Standing::Failed(failed.failure.clone(), due.filter(|_| failed.failure.may_pass));
            }
        }
        let (spec, pull) = spec();
        let (sender, progress) = watch::channel(Progress::default());
        let (cluster, pulls, id) = (self.cluster.clone(), self.pulls.clone(), object.id.clone());
        let begun = edition.clone();
        let task = self.tasks.spawn(async move {
            let outcome = run(&cluster, &pulls, &id, spec, pull, &sender).await;
            (id, begun, outcome)
        });
        self.running.insert(object.id.clone(), Running { edition, progress, task });
        Standing::Coming(Progress::default())
    }

    /// Ends a pull, if there is one. What it was committing at that moment is committed all the same.
    pub(super) fn end(&mut self, id: &ObjectId) -> bool {
        let running = self.running.remove(id);
        running.inspect(|running| running.task.abort()).is_some()
    }

    /// Ends all of them: another control plane leads.
    pub(super) fn end_all(&mut self) {
        self.tasks.abort_all();
        self.running.clear();
        self.failed.clear();
    }

    /// Ends those whose objects are gone, and forgets them.
    pub(super) fn keep(&mut self, there: impl Fn(&ObjectId) -> bool) {
        let gone: Vec<ObjectId> = self.running.keys().filter(|id| !there(id)).cloned().collect();
        for id in &gone {
            self.end(id);
        }
        self.failed.retain(|id, _| there(id));
    }

    /// Whether somebody may look for progress.
    pub(super) fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Waits until a pull is over.
    pub(super) async fn over(&mut self) {
        let Some(ended) = self.tasks.join_next().await else { return std::future::pending().await };
        // One that was aborted has been taken out already.
        let Ok((id, edition, outcome)) = ended else { return };
        if self.running.get(&id).is_some_and(|running| running.edition == edition) {
            self.running.remove(&id);
        }
        match outcome {
            Ok(()) => {
                self.failed.remove(&id);
            }
            Err(failure) => {
                tracing::info!(object = %id, reason = failure.reason, message = failure.message, "a version was not pulled");
                let before = self.failed.remove(&id).filter(|failed| failed.edition == edition);
                let mut backoff = before.map_or_else(Backoff::for_sources, |failed| failed.backoff);
                backoff.attempted(Instant::now());
                self.failed.insert(id, Failed { edition, failure, backoff });
            }
        }
    }
}

async fn run(
    cluster: &impl Cluster,
    pulls: &Pulls,
    id: &ObjectId,
    spec: VersionSpec,
    mut pull: Pull,
    progress: &watch::Sender<Progress>,
) -> Result<(), Failure> {
    if let Some(name) = &spec.secret {
        let secret = cluster.secret(&id.namespace, name).await;
        pull.credentials = credentials(&id.namespace, name, secret, &spec)?;
    }
    pulls.run(&id.principal(), pull, progress).await?;
    Ok(())
}

/// What a Secret holds, where it may be shown to the source. Whoever may make a ModelVersion may not
/// therefore read every Secret of the namespace, and could send one to a server of their own.
fn credentials(
    namespace: &str,
    name: &str,
    found: Result<Option<Secret>, ClusterError>,
    spec: &VersionSpec,
) -> Result<Credentials, Failure> {
    let failed = |reason, message| Failure { reason, message, may_pass: true };
    let secret = found.map_err(|error| {
        let next = "give the control plane's ServiceAccount `get` on it, as docs/declarative.md shows";
        failed("SecretNotReadable", format!("Secret {namespace}/{name}: {error}; {next}"))
    })?;
    let Some(secret) = secret else {
        return Err(failed("SecretMissing", format!("there is no Secret {namespace}/{name}")));
    };
    let allowed = secret.annotations.get(SOURCES_ANNOTATION).map(String::as_str).unwrap_or_default();
    let policy: Policy = allowed.parse().map_err(|error| {
        failed(
            "SecretNotAllowed",
            format!("Secret {namespace}/{name}, annotation {SOURCES_ANNOTATION}: {error}"),
        )
    })?;
    if policy.names_address(&spec.source.address) {
        return Ok(secret.values.into_iter().collect());
    }
    let address = &spec.source.address;
    Err(failed(
        "SecretNotAllowed",
        format!(
            "Secret {namespace}/{name} is not meant for {address}; whoever it belongs to can annotate it with \
             {SOURCES_ANNOTATION} and the addresses that it may be used for, such as s3://models/"
        ),
    ))
}

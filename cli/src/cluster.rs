//! A Kubernetes cluster, found as `kubectl` finds it. Objects are JSON values, as in
//! `sconce-istio`: what a newer API adds to them is no concern of ours.

use std::{fmt, time::Duration};

use clap::Args;
use kube::{
    Api, Client, Config,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
        Preconditions,
    },
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;

use crate::failure::{Failure, chain};

mod kinds;
mod refusal;
mod rights;

pub(crate) use kinds::{Kind, *};
pub(crate) use refusal::{is_absent, refused};
pub(crate) use rights::lacking;

/// Which cluster.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterChoice {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<std::path::PathBuf>,
    /// The context of the kubeconfig to use [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A connection to a cluster's API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// Where it is, for people.
    address: String,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

/// Long enough for a server that is busy.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a list: more would make the server's answers huge.
const PAGE: u32 = 500;

impl Cluster {
    /// Finds the cluster. Nothing is asked of it yet.
    pub(crate) async fn find(choice: &ClusterChoice) -> Result<Self, Failure> {
        let mut config = choice.config().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| {
            Failure::failed(format!("the kubeconfig for {address} cannot be used: {}", chain(&error)))
        })?;
        Ok(Self { client, address })
    }

    /// Asks the server for its version, so that whoever cannot reach it learns that first.
    pub(crate) async fn reach(&self) -> Result<String, Failure> {
        let version =
            self.client.apiserver_version().await.map_err(|error| self.failure("its version", error))?;
        Ok(version.git_version)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What an error means for whoever typed the command.
    pub(crate) fn failure(&self, what: impl fmt::Display, error: kube::Error) -> Failure {
        refusal::failure(&self.address, &what.to_string(), error)
    }

    /// The object as it is; nothing where it, or its kind, is not there.
    pub(crate) async fn get(&self, id: &Id) -> Result<Option<Value>, kube::Error> {
        match self.api(id).get(&id.name).await {
            Ok(object) => Ok(Some(value(&object, id.kind.as_str(), &id.api_version))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an object what is given, as the owner of what it says, and returns it.
    pub(crate) async fn apply(
        &self,
        id: &Id,
        object: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, kube::Error> {
        let params = PatchParams { force, ..PatchParams::apply(manager) };
        let held = self.api(id).patch(&id.name, &params, &Patch::Apply(object)).await?;
        Ok(value(&held, &id.kind, &id.api_version))
    }

    /// Changes some fields of an object and says whether it was there.
    pub(crate) async fn merge(&self, id: &Id, patch: &Value) -> Result<bool, kube::Error> {
        match self.api(id).patch(&id.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object if it is still the one with this uid, and says whether it was there.
    pub(crate) async fn delete(&self, id: &Id, uid: &str) -> Result<bool, kube::Error> {
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api(id).delete(&id.name, &params).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The objects of a kind, of one namespace or of all, page by page.
    pub(crate) async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, kube::Error> {
        self.list_of(&kind.resource(), namespace, labels).await
    }

    /// The same of a kind that somebody has defined.
    pub(crate) async fn list_of(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<Value>, kube::Error> {
        let api = self.objects(kind, namespace);
        let mut params = ListParams::default().limit(PAGE).labels(labels);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await?;
            all.extend(page.items.iter().map(|object| value(object, &kind.kind, &kind.api_version)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// Waits until an object is as it should be.
    pub(crate) async fn until(
        &self,
        id: &Id,
        condition: impl Condition<DynamicObject>,
        patience: Duration,
    ) -> Result<(), Waited> {
        match tokio::time::timeout(patience, await_condition(self.api(id), &id.name, condition)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Waited::Interrupted(chain(&error))),
            Err(_) => Err(Waited::TooLong),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    fn api(&self, id: &Id) -> Api<DynamicObject> {
        self.objects(&id.resource(), id.namespace.as_deref())
    }

    fn objects(&self, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }
}

/// Why a condition did not come true.
#[derive(Debug)]
pub(crate) enum Waited {
    TooLong,
    Interrupted(String),
}

impl ClusterChoice {
    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let unusable = |why: String| {
            Failure::usage(format!("no cluster can be found: {why}")).hint(
                "name a kubeconfig with --kubeconfig or KUBECONFIG, and one of its contexts with --context",
            )
        };
        match (&self.kubeconfig, &self.context) {
            (Some(file), _) => {
                let read = Kubeconfig::read_from(file).map_err(|error| unusable(chain(&error)))?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(|error| unusable(chain(&error)))
            }
            (None, Some(_)) => {
                Config::from_kubeconfig(&options).await.map_err(|error| unusable(chain(&error)))
            }
            (None, None) => Config::infer().await.map_err(|error| unusable(chain(&error))),
        }
    }
}

/// Entries of lists do not say what they are: the list does.
fn value(object: &DynamicObject, kind: &str, api_version: &str) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["kind"] = kind.into();
    value["apiVersion"] = api_version.into();
    value
}

impl Id {
    /// The id of an object that says what it is.
    pub(crate) fn of(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        Some(Self {
            api_version: text(&object["apiVersion"])?,
            kind: text(&object["kind"])?,
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"])?,
        })
    }

    pub(crate) fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self {
            api_version: kind.api_version.into(),
            kind: kind.kind.into(),
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        }
    }

    pub(crate) fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", &self.api_version));
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &self.kind))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

//! Where replicas keep their keys: one Secret, written by whoever is first.

use std::{collections::BTreeMap, time::SystemTime};

use futures::{Stream, StreamExt as _};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use sconce_istio::names;
use serde_json::json;

use super::keys::Keys;

/// The Secret.
pub(super) struct SecretStore {
    secrets: Api<Secret>,
    name: String,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    #[error(
        "the Secret {name} cannot be read or written: {source}; does the ServiceAccount's Role allow it?"
    )]
    Api { name: String, source: Box<kube::Error> },
    #[error("no keys can be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the Secret {0} is changed again and again by somebody else")]
    Contended(String),
}

/// Everything, for us; and the bundle by itself, for people and tools.
const KEYS: &str = "keys.json";
const BUNDLE: &str = "ca.crt";
const TRIES: usize = 10;

impl SecretStore {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self { secrets: Api::namespaced(client, namespace), name: name.to_owned() }
    }

    /// Yields whenever somebody has written the Secret, so that replicas follow each other at once.
    pub(super) fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        let events = watcher::watch_object(self.secrets.clone(), &self.name).default_backoff();
        events.filter_map(|event| {
            let news = event.inspect_err(|error| {
                tracing::debug!(%error, "the watch of the webhook's Secret broke off and is begun again");
            });
            std::future::ready(news.ok().map(drop))
        })
    }

    /// The keys as they should be now: made, or renewed where that is due, by this replica or
    /// by the one that was faster.
    pub(super) async fn current(&self, names: &[String], now: SystemTime) -> Result<Keys, SecretError> {
        for _ in 0..TRIES {
            let secret = self.secrets.get_opt(&self.name).await.map_err(|error| self.failed(error))?;
            let keys = secret.as_ref().and_then(|secret| self.keys(secret));
            let Some(next) = Keys::next(keys.as_ref(), names, now)? else {
                if let Some(keys) = keys {
                    return Ok(keys);
                }
                continue;
            };
            let written = match secret {
                None => self.create(&next).await,
                Some(secret) => self.replace(&next, secret.metadata.resource_version.as_deref()).await,
            };
            match written {
                Ok(()) => return Ok(next),
                // Another replica was faster, and what it wrote is as good.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Err(SecretError::Contended(self.name.clone()))
    }

    fn keys(&self, secret: &Secret) -> Option<Keys> {
        let bytes = &secret.data.as_ref()?.get(KEYS)?.0;
        serde_json::from_slice(bytes)
            .inspect_err(|error| {
                tracing::error!(secret = self.name, %error, "the Secret's keys are damaged; new ones are made");
            })
            .ok()
    }

    async fn create(&self, keys: &Keys) -> Result<(), kube::Error> {
        let labels = BTreeMap::from([("app.kubernetes.io/managed-by".into(), names::MANAGED_BY.into())]);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels),
                ..Default::default()
            },
            data: Some(data(keys)),
            ..Default::default()
        };
        self.secrets.create(&PostParams::default(), &secret).await?;
        tracing::info!(secret = self.name, "made a CA and a certificate for the webhook");
        Ok(())
    }

    async fn replace(&self, keys: &Keys, version: Option<&str>) -> Result<(), kube::Error> {
        let patch = json!({ "metadata": { "resourceVersion": version }, "data": data(keys) });
        self.secrets.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        tracing::info!(secret = self.name, ?keys, "renewed the webhook's certificates");
        Ok(())
    }

    fn failed(&self, error: kube::Error) -> SecretError {
        SecretError::Api { name: self.name.clone(), source: Box::new(error) }
    }
}

fn data(keys: &Keys) -> BTreeMap<String, ByteString> {
    let all = serde_json::to_vec(keys).expect("plain values have a JSON form");
    BTreeMap::from([
        (KEYS.to_owned(), ByteString(all)),
        (BUNDLE.to_owned(), ByteString(keys.bundle().into_bytes())),
    ])
}

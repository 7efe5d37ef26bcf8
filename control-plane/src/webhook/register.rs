//! The CA bundle in the MutatingWebhookConfiguration: put there, and put back whenever somebody
//! changes it, because with a wrong one no labelled pod can be created.

use std::time::Duration;

use futures::StreamExt as _;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, TestOperation};
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use super::{certificates::Certificates, config::Config};

/// The configuration to look after.
pub(super) struct Registered {
    configurations: Api<MutatingWebhookConfiguration>,
    name: String,
    namespace: String,
    service: String,
    certificates: Certificates,
}

/// Also without any news: a watch may have missed some.
const PERIOD: Duration = Duration::from_secs(60);
/// Between two changes of ours.
const PAUSE: Duration = Duration::from_secs(1);

impl Registered {
    pub(super) fn new(client: Client, config: &Config, certificates: Certificates) -> Self {
        Self {
            configurations: Api::all(client),
            name: config.configuration.clone(),
            namespace: config.namespace.clone(),
            service: config.service.clone(),
            certificates,
        }
    }

    /// Looks whenever the bundle or the configuration changes, for ever.
    pub(super) async fn keep(mut self) {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = watcher(self.configurations.clone(), only).default_backoff().boxed();
        loop {
            if let Some(bundle) = self.certificates.bundle()
                && let Err(error) = self.repair(&bundle).await
            {
                tracing::error!(configuration = self.name, %error, "the CA bundle was not put in its place");
            }
            tokio::select! {
                Some(_) = events.next() => {}
                () = self.certificates.changed() => {}
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Puts the bundle where it is another. The configuration itself belongs to whoever
    /// installed it: one that is gone was uninstalled, and must not come back by itself.
    async fn repair(&self, bundle: &str) -> Result<(), kube::Error> {
        let Some(found) = self.configurations.get_opt(&self.name).await? else {
            tracing::warn!(configuration = self.name, "it is not there, so no pod is injected; install it");
            return Ok(());
        };
        let webhooks = found.webhooks.unwrap_or_default();
        let patch = self.patch(&webhooks, bundle);
        if patch.0.is_empty() {
            return Ok(());
        }
        let patch: Patch<()> = Patch::Json(patch);
        self.configurations.patch(&self.name, &PatchParams::default(), &patch).await?;
        tracing::info!(configuration = self.name, "put the CA bundle in its place");
        // The other replica may not have heard of the same bundle yet, and puts its own back.
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Touches the bundles alone, and only where the webhook that was looked at still is.
    fn patch(&self, webhooks: &[MutatingWebhook], bundle: &str) -> JsonPatch {
        let bundle = ByteString(bundle.as_bytes().to_vec());
        let mut operations = Vec::new();
        for (at, webhook) in webhooks.iter().enumerate() {
            let client = &webhook.client_config;
            let ours = client
                .service
                .as_ref()
                .is_some_and(|service| service.name == self.service && service.namespace == self.namespace);
            if ours && client.ca_bundle.as_ref() != Some(&bundle) {
                let path = |rest: &[&str]| {
                    let at = at.to_string();
                    PointerBuf::from_tokens(["webhooks", at.as_str()].into_iter().chain(rest.iter().copied()))
                };
                operations.push(PatchOperation::Test(TestOperation {
                    path: path(&["name"]),
                    value: json!(webhook.name),
                }));
                operations.push(PatchOperation::Add(AddOperation {
                    path: path(&["clientConfig", "caBundle"]),
                    value: json!(bundle),
                }));
            }
        }
        JsonPatch(operations)
    }
}

//! The process's identity: one writer, many readers, changed while connections live on.
//!
//! A source (`files`, `issued`) owns the [`Publisher`]; everything that opens or accepts
//! connections holds an [`Identity`]. Both ends share one `watch` channel and nothing
//! else, so there are no two values that could disagree.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{ClientAuth, Material, PeerPolicy, tls};

/// The write half: replaces the certificate that new handshakes use.
#[derive(Debug)]
pub struct Publisher(watch::Sender<Option<Arc<Material>>>);

/// The read half. Clones see the same certificate.
#[derive(Clone, Debug)]
pub struct Identity(watch::Receiver<Option<Arc<Material>>>);

/// A new identity, which has no certificate yet.
pub fn identity() -> (Publisher, Identity) {
    let (sender, receiver) = watch::channel(None);
    (Publisher(sender), Identity(receiver))
}

impl Publisher {
    /// Makes this the certificate of every handshake from now on.
    ///
    /// Connections that are open stay open.
    pub fn publish(&self, material: Material) {
        tracing::info!(id = %material.id(), not_after = %seconds(&material), "identity certified");
        self.0.send_replace(Some(Arc::new(material)));
    }

    /// Leaves this process without an identity, until the next certificate is published:
    /// handshakes fail, and no request is answered.
    pub fn withdraw(&self, why: &str) {
        if self.0.send_replace(None).is_some() {
            tracing::error!(reason = why, "identity withdrawn, answering nobody");
        }
    }

    /// What was published last, if it was not withdrawn.
    pub fn current(&self) -> Option<Arc<Material>> {
        self.0.borrow().clone()
    }
}

impl Identity {
    /// The current certificate; none before the first and after a withdrawal.
    pub fn current(&self) -> Option<Arc<Material>> {
        self.0.borrow().clone()
    }

    /// Whether there is a certificate.
    pub fn is_certified(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until there is a certificate; for ever if its source is gone.
    pub async fn ready(&self) -> Arc<Material> {
        self.becomes(|current| current.clone()).await
    }

    /// Waits until there is none; for ever if its source is gone.
    pub async fn withdrawn(&self) {
        self.becomes(|current| current.is_none().then_some(())).await;
    }

    async fn becomes<T>(&self, wanted: impl Fn(&Option<Arc<Material>>) -> Option<T>) -> T {
        let mut changes = self.0.clone();
        loop {
            if let Some(it) = wanted(&changes.borrow_and_update()) {
                return it;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until another certificate than the one last seen by this handle is published.
    pub async fn changed(&mut self) -> Arc<Material> {
        loop {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(material) = self.0.borrow_and_update().clone() {
                return material;
            }
        }
    }

    /// TLS for a server: our current certificate, and callers as the policy says.
    ///
    /// One configuration serves for the life of the process. Before the first
    /// certificate every handshake fails.
    pub fn server_config(&self, callers: ClientAuth, policy: PeerPolicy) -> Arc<rustls::ServerConfig> {
        tls::server_config(self.clone(), callers, policy)
    }

    /// TLS for a client: our current certificate, and servers as the policy says.
    ///
    /// The server's certificate is judged by its SPIFFE id, not by the name dialled.
    pub fn client_config(&self, policy: PeerPolicy) -> Arc<rustls::ClientConfig> {
        tls::client_config(self.clone(), policy)
    }
}

fn seconds(material: &Material) -> u64 {
    material.not_after().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

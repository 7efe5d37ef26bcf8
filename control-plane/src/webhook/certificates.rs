//! The certificate that is served, and the roots it is recognised by: read at every handshake,
//! so that a new one needs no restart.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt as _;
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::{keys::Keys, secret::SecretStore};

/// Reads what the one task that keeps the certificates has last found.
#[derive(Clone)]
pub(super) struct Certificates(watch::Receiver<Option<Arc<Material>>>);

struct Material {
    bundle: String,
    certified: Arc<CertifiedKey>,
    keys: Keys,
}

/// Also without any news: certificates age, and a watch may have missed some.
const PERIOD: Duration = Duration::from_secs(60);
/// While there is nothing to serve, waiting is dearer than asking.
const IMPATIENT: Duration = Duration::from_millis(500);

/// The certificates for these names, and the task that keeps them.
pub(super) fn watch(
    store: SecretStore,
    names: Vec<String>,
) -> (Certificates, impl Future<Output = ()> + Send) {
    let (sender, receiver) = watch::channel(None);
    let keep = async move {
        let mut changes = store.changes().boxed();
        loop {
            match store.current(&names, SystemTime::now()).await {
                Ok(keys) => publish(&sender, keys),
                Err(error) => tracing::error!(%error, "the webhook's certificates were not read or renewed"),
            }
            let period = if sender.borrow().is_some() { PERIOD } else { IMPATIENT };
            tokio::select! {
                Some(()) = changes.next() => {}
                () = tokio::time::sleep(period) => {}
            }
        }
    };
    (Certificates(receiver), keep)
}

fn publish(sender: &watch::Sender<Option<Arc<Material>>>, keys: Keys) {
    if sender.borrow().as_ref().is_some_and(|material| material.keys == keys) {
        return;
    }
    match certified(&keys) {
        Ok(certified) => {
            let material = Material { bundle: keys.bundle(), certified: Arc::new(certified), keys };
            sender.send_replace(Some(Arc::new(material)));
        }
        Err(error) => tracing::error!(%error, "the Secret's certificate cannot be served; delete the Secret"),
    }
}

fn certified(keys: &Keys) -> Result<CertifiedKey, String> {
    let (chain, key) = keys.serving();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| error.to_string())?;
    let chain = chain.map_err(|error| error.to_string())?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

impl Certificates {
    /// Returns once there is a certificate.
    pub(super) async fn ready(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when there is another certificate or bundle.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// The roots that the API server should know, PEM.
    pub(super) fn bundle(&self) -> Option<String> {
        self.0.borrow().as_ref().map(|material| material.bundle.clone())
    }

    /// TLS that presents the current certificate and asks for none: whoever can reach the
    /// webhook learns only what `sconce inject` would tell.
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|material| Arc::clone(&material.certified))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

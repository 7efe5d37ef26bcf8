//! Certificates from a SPIFFE Workload API, such as that of SPIRE's agent.
//!
//! Each message on its one stream is the whole state: a certificate that is not in it any
//! more is revoked, and so is one for which the call is denied (SPIFFE Workload API,
//! sections 4.4 and 5.2.1). An agent that is only away changes nothing: it restarts more
//! often than certificates expire. Bundles of foreign trust domains are not used.

use std::{fmt, str::FromStr};

use futures::StreamExt as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context, transport};

use crate::{InvalidMaterial, Material, Publisher, retry::Retry};

/// Where the API answers, such as `unix:///run/spire/agent.sock`.
#[derive(Clone, Debug)]
pub struct Endpoint {
    text: String,
    parsed: transport::Endpoint,
}

/// Text that is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0}; write it as unix:///run/spire/agent.sock or tcp://127.0.0.1:8081")]
pub struct InvalidEndpoint(#[from] transport::EndpointError);

/// Why there is nothing new from the API.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Api(#[from] WorkloadApiError),
    #[error("the stream ended")]
    Over,
}

/// Why a state is not an identity.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("it holds no certificate")]
    NoCertificate,
    #[error("it holds no bundle for the trust domain {0}")]
    NoBundle(String),
    #[error(transparent)]
    Unusable(#[from] InvalidMaterial),
}

/// Publishes what the API says, now and whenever it changes, and withdraws what it revokes,
/// for ever.
pub async fn watch(endpoint: Endpoint, publisher: Publisher) {
    let mut retry = Retry::new();
    loop {
        let error = follow(&endpoint, &publisher, &mut retry).await;
        if let Some(why) = error.revokes() {
            publisher.withdraw(&why);
        }
        let log = |error: &str| {
            tracing::warn!(%endpoint, error, "no certificate from the workload api, trying again");
        };
        retry.failed(error, log).await;
    }
}

/// Follows the stream until it ends, and says why it did.
async fn follow(endpoint: &Endpoint, publisher: &Publisher, retry: &mut Retry) -> StreamError {
    let opened = async {
        let client = WorkloadApiClient::connect(endpoint.parsed.clone()).await?;
        client.stream_x509_contexts().await
    };
    let mut states = match opened.await {
        Ok(states) => states,
        Err(error) => return error.into(),
    };
    while let Some(state) = states.next().await {
        let state = match state {
            Ok(state) => state,
            Err(error) => return error.into(),
        };
        retry.worked();
        match material(&state) {
            Ok(material) => publisher.publish(material),
            Err(error) => {
                tracing::warn!(%endpoint, %error, "what the workload api says is no identity, keeping the one before");
            }
        }
    }
    StreamError::Over
}

/// The first certificate of a state, which is the default one, and the roots of its trust
/// domain.
fn material(state: &X509Context) -> Result<Material, StateError> {
    let own = state.default_svid().ok_or(StateError::NoCertificate)?;
    let trust_domain = own.spiffe_id().trust_domain();
    let bundle = state.bundle_set().get(trust_domain);
    let bundle = bundle.ok_or_else(|| StateError::NoBundle(trust_domain.to_string()))?;
    let owned = |der: &spiffe::Certificate| CertificateDer::from(der.as_bytes().to_vec());
    let key = PrivatePkcs8KeyDer::from(own.private_key().as_bytes().to_vec());
    let chain = own.cert_chain().iter().map(owned).collect();
    Ok(Material::from_der(chain, key, bundle.authorities().iter().map(owned))?)
}

impl StreamError {
    /// Whether it says that we are nobody any more, and how.
    fn revokes(&self) -> Option<String> {
        match self {
            Self::Api(
                error @ (WorkloadApiError::PermissionDenied(_) | WorkloadApiError::NoIdentityIssued),
            ) => Some(error.to_string()),
            // A state without any certificate, which the API should not send.
            Self::Api(error @ WorkloadApiError::MissingRequiredField { field: "X509SVIDResponse.svids" }) => {
                Some(error.to_string())
            }
            Self::Api(_) | Self::Over => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        Ok(Self { text: text.to_owned(), parsed: transport::Endpoint::parse(text)? })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

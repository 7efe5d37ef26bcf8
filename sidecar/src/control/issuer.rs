//! Certificates from the control plane's own CA, in exchange for a join token.
//!
//! The first certificate is asked for over a connection that only the control plane
//! proves itself on, by its CA and its SPIFFE id; the token proves this side. Every later
//! one is asked for the same way while the token lasts, or with the certificate at hand.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use futures::future::BoxFuture;
use http::Uri;
use sconce_identity::{
    Identity, PeerPolicy,
    issued::{IssueError, Issued, Issuer},
    trust_only_client_config,
};
use sconce_proto::v1::{IssueRequest, certificate_authority_client::CertificateAuthorityClient};

use super::link::Link;

/// Asks the control plane to sign.
pub struct JoinIssuer {
    token_file: PathBuf,
    /// Proves only the control plane.
    joining: Link,
    /// Proves both sides, once there is an identity.
    renewing: Link,
    identity: Identity,
}

/// The trust bundle cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("SCONCE_TRUST_BUNDLE {path}: {reason}")]
pub struct InvalidBundle {
    path: String,
    reason: String,
}

impl JoinIssuer {
    /// An issuer that recognises the control plane by the roots in `trust_bundle`.
    ///
    /// # Errors
    /// Where the bundle cannot be read or holds no certificate.
    pub fn new(
        control_plane: &Uri,
        token_file: &Path,
        trust_bundle: &Path,
        policy: PeerPolicy,
        identity: Identity,
    ) -> Result<Self, InvalidBundle> {
        let invalid = |reason: String| InvalidBundle { path: trust_bundle.display().to_string(), reason };
        let roots = fs::read(trust_bundle).map_err(|error| invalid(error.to_string()))?;
        let tls = trust_only_client_config(&roots, policy.clone()).map_err(|e| invalid(e.to_string()))?;
        Ok(Self {
            token_file: token_file.to_owned(),
            joining: Link::new(control_plane, tls),
            renewing: Link::new(control_plane, identity.client_config(policy)),
            identity,
        })
    }

    async fn ask(&self, csr_pem: String) -> Result<Issued, IssueError> {
        // After an outage longer than the certificate's life it proves nothing any more.
        let valid = self.identity.current().filter(|own| own.not_after() > SystemTime::now());
        let (link, join_token) = match valid {
            Some(_) => (&self.renewing, String::new()),
            None => (&self.joining, self.token()?),
        };
        let mut client = CertificateAuthorityClient::new(link.channel());
        let answer = client.issue(IssueRequest { csr_pem, join_token }).await;
        let issued = answer.map_err(|status| {
            IssueError(format!(
                "the control plane at {} refused: {}",
                link.address(),
                super::describe(&status)
            ))
        })?;
        let issued = issued.into_inner();
        Ok(Issued { chain_pem: issued.chain_pem, roots_pem: issued.roots_pem })
    }

    fn token(&self) -> Result<String, IssueError> {
        let read = fs::read_to_string(&self.token_file);
        read.map(|token| token.trim().to_owned()).map_err(|error| {
            IssueError(format!("SCONCE_JOIN_TOKEN_FILE {}: {error}", self.token_file.display()))
        })
    }
}

impl Issuer for JoinIssuer {
    fn issue(&self, csr_pem: String) -> BoxFuture<'_, Result<Issued, IssueError>> {
        Box::pin(self.ask(csr_pem))
    }
}

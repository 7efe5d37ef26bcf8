//! The embedded CA at work: who gets which certificate, and this process's own.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use sconce_identity::{
    Material, Publisher, SpiffeId,
    authority::{Authority, AuthorityError, Validity},
};
use sconce_proto::v1::IssueResponse;

use crate::api::ApiError;

/// Issues certificates.
#[derive(Clone)]
pub(crate) struct Issuing(Arc<Authority>);

/// The control plane's own id.
const SELF: &str = "/sconce/control-plane";
/// The first operator's.
pub(crate) const OPERATOR: &str = "/sconce/operator";
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// An operator's laptop may be off for a while.
const OPERATOR_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

impl Issuing {
    /// The CA in this folder, made the first time.
    pub(crate) fn open(folder: &Path, trust_domain: &str) -> Result<Self, AuthorityError> {
        Ok(Self(Arc::new(Authority::load_or_create(folder, trust_domain)?)))
    }

    fn id(&self, path: &str) -> Result<SpiffeId, ApiError> {
        SpiffeId::new(self.0.trust_domain(), path).map_err(|error| ApiError::Invalid(error.to_string()))
    }

    /// The first operator's id.
    pub(crate) fn operator(&self) -> Result<SpiffeId, ApiError> {
        self.id(OPERATOR)
    }

    /// The id at this path, if a sidecar may have it.
    pub(crate) fn joinable(&self, path: &str) -> Result<SpiffeId, ApiError> {
        if path.starts_with("/sconce/") {
            return Err(ApiError::Denied("ids under /sconce/ are the control plane's own".into()));
        }
        self.id(path)
    }

    pub(crate) fn requested_names(&self, csr_pem: &str) -> Result<Vec<String>, ApiError> {
        Authority::requested_names(csr_pem).map_err(|error| ApiError::Invalid(error.to_string()))
    }

    /// A certificate for whoever holds the key of this request.
    pub(crate) fn issue(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        names: &[String],
    ) -> Result<IssueResponse, ApiError> {
        let validity = Validity::of(LIFE);
        let chain = self.0.issue(csr_pem, id, names, validity);
        let not_after = validity.not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(IssueResponse {
            chain_pem: chain.map_err(|error| ApiError::Invalid(error.to_string()))?,
            roots_pem: self.0.roots_pem().to_owned(),
            spiffe_id: id.to_string(),
            not_after_ms: i64::try_from(not_after.as_millis()).unwrap_or(i64::MAX),
        })
    }

    /// Writes what the first operator needs: `cert.pem`, `key.pem`, `ca.pem`.
    pub(crate) fn write_operator(&self, folder: &Path) -> Result<(), ApiError> {
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(&"the operator's credentials", error);
        let credentials = self.0.issue_credentials(&self.operator()?, &[], Validity::of(OPERATOR_LIFE));
        let credentials = credentials.map_err(|error| failed(&error))?;
        sconce_identity::files::write(folder, &credentials, self.0.roots_pem())
            .map_err(|error| failed(&error))
    }

    /// Publishes a certificate for this process now; the returned task renews it.
    pub(crate) fn certify_self(
        &self,
        names: Vec<String>,
        publisher: Publisher,
    ) -> Result<impl Future<Output = ()> + Send + use<>, ApiError> {
        let issuing = self.clone();
        issuing.publish(&names, &publisher)?;
        Ok(async move {
            loop {
                tokio::time::sleep(LIFE / 2).await;
                if let Err(error) = issuing.publish(&names, &publisher) {
                    tracing::error!(%error, "the control plane's own certificate was not renewed");
                }
            }
        })
    }

    fn publish(&self, names: &[String], publisher: &Publisher) -> Result<(), ApiError> {
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(&"this server's certificate", error);
        let own = self
            .0
            .issue_credentials(&self.id(SELF)?, names, Validity::of(LIFE))
            .map_err(|error| failed(&error))?;
        let material = Material::from_pem(
            own.chain_pem.as_bytes(),
            own.key_pem.as_bytes(),
            self.0.roots_pem().as_bytes(),
        );
        publisher.publish(material.map_err(|error| failed(&error))?);
        Ok(())
    }
}

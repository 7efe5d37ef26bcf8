//! Certificates, for those who join and those who renew.

use sconce_identity::Principal;
use sconce_proto::v1;
use tonic::{Request, Response, Status};

use super::{Api, ApiError};

pub(super) struct Authority(pub(super) Api);

#[tonic::async_trait]
impl v1::certificate_authority_server::CertificateAuthority for Authority {
    async fn issue(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        let principal = request.extensions().get::<Principal>().cloned();
        let v1::IssueRequest { csr_pem, join_token } = request.into_inner();
        let issuing = self.0.issuing()?;
        let asked = issuing.requested_names(&csr_pem)?;
        let (id, allowed) = match (&principal, join_token.is_empty()) {
            (_, false) => {
                // Not in the audit log where it fails: anybody at all could fill it.
                let join = self.0.store.use_join_token(&join_token).await?;
                (issuing.joinable(&join.spiffe_path)?, join.names)
            }
            // Whoever has an identity may have it again, with the names it could have before.
            (Some(Principal::Spiffe(id)), true) => {
                let names = self.0.store.granted_names(id.path()).await?;
                (id.clone(), names)
            }
            _ => {
                let error = "show a join token, or the certificate to renew";
                return Err(ApiError::Unauthenticated(error.into()).into());
            }
        };
        let extra: Vec<&String> = asked.iter().filter(|name| !allowed.contains(name)).collect();
        if !extra.is_empty() {
            let error = format!("the join token of {id} does not allow the names {extra:?}");
            self.0.denied(id.as_str(), "certificate.issue", id.as_str(), error.clone()).await?;
            return Err(ApiError::Denied(error).into());
        }
        let issued = issuing.issue(&csr_pem, &id, &asked)?;
        self.0
            .done(id.as_str(), "certificate.issue", id.as_str(), format!("for the names {asked:?}"))
            .await?;
        Ok(Response::new(issued))
    }
}

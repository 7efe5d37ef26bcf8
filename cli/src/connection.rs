//! TLS to the control plane and to sidecars, by SPIFFE id.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::ClientConfig;
use sconce_identity::{
    ConnectError, Connector, Identity, InvalidMaterial, Material, PeerPolicy, identity,
    trust_only_client_config,
};

use crate::{
    context::{Access, Credentials},
    failure::{Exit, Failure, chain},
};

/// Whom we are about to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    ControlPlane,
    Sidecar,
}

impl Callee {
    /// The word for messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ControlPlane => "control plane",
            Self::Sidecar => "sidecar",
        }
    }

    fn policy(self, access: &Access) -> PeerPolicy {
        match self {
            Self::ControlPlane => PeerPolicy::path_in_own_trust_domain(access.control_plane_id.clone()),
            Self::Sidecar => PeerPolicy::own_trust_domain(),
        }
    }
}

/// How long a secret discovery service may take: it has the certificate, or is starting.
const SDS_PATIENCE: Duration = Duration::from_secs(15);

/// A connector with the credentials of `access`, for HTTP/2 to the control plane and
/// HTTP/1.1 to a sidecar.
pub(crate) async fn connector(access: &Access, callee: Callee) -> Result<Connector, Failure> {
    let tls = tls(&access.identity, callee.policy(access)).await?;
    Ok(match callee {
        Callee::ControlPlane => Connector::new(tls),
        Callee::Sidecar => Connector::http1(tls),
    })
}

/// TLS as whoever these credentials are of, to peers that this policy accepts.
pub(crate) async fn tls(credentials: &Credentials, policy: PeerPolicy) -> Result<Arc<ClientConfig>, Failure> {
    Ok(match credentials {
        Credentials::Sds(socket) => discovered(socket).await?.client_config(policy),
        Credentials::Files { ca, certificate: None } => trust_only_client_config(&read(ca)?, policy)
            .map_err(|error| Failure::failed(format!("{}: {}", ca.display(), chain(&error))))?,
        Credentials::Files { ca, certificate: Some((cert, key)) } => {
            let material = Material::from_pem(&read(cert)?, &read(key)?, &read(ca)?);
            let material = material.map_err(|error| unusable(cert, &error))?;
            let (publisher, identity) = identity();
            publisher.publish(material);
            identity.client_config(policy)
        }
    })
}

/// Who the service at this socket says we are. It is followed for as long as this runs.
async fn discovered(socket: &Path) -> Result<Identity, Failure> {
    let (publisher, identity) = identity();
    tokio::spawn(sconce_identity::sds::watch(socket.to_owned(), publisher));
    let ready = tokio::time::timeout(SDS_PATIENCE, identity.ready()).await;
    ready.map_err(|_| {
        let waited = SDS_PATIENCE.as_secs();
        Failure::failed(format!("{} gave no certificate in {waited} s", socket.display()))
            .hint("is it the socket of Istio's agent, /var/run/secrets/workload-spiffe-uds/socket?")
    })?;
    Ok(identity)
}

/// What a connection that was not made means for the user.
pub(crate) fn failure(callee: Callee, address: &str, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Refused { .. } => Failure::new(Exit::Denied, chain(error)).hint(match callee {
            Callee::ControlPlane => "are --ca, --cert and --key of this control plane's trust domain?",
            Callee::Sidecar => "does the sidecar belong to the same trust domain as --ca and --cert?",
        }),
        ConnectError::Address(_) => Failure::usage(chain(error)),
        ConnectError::Unreachable { source, .. } => {
            let failure = Failure::unreachable(callee.word(), address, source);
            failure.hint(match callee {
                Callee::ControlPlane => {
                    "start one with `sconce up`, or name another with --control-plane or SCONCE_CONTROL_PLANE"
                }
                Callee::Sidecar => "see `sconce sidecars`, and name one with --sidecar",
            })
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| {
        Failure::failed(format!("{} cannot be read: {error}", file.display()))
            .hint("`sconce up` writes the credentials that its context file names")
    })
}

fn unusable(cert: &Path, error: &InvalidMaterial) -> Failure {
    let failure = Failure::new(Exit::Denied, format!("{}: {}", cert.display(), chain(error)));
    match error {
        InvalidMaterial::Expired { .. } => failure.hint("`sconce up` renews it when it starts"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_there_is_told_from_somebody_who_refuses() {
        let gone = ConnectError::Unreachable {
            address: "127.0.0.1:1".into(),
            source: std::io::ErrorKind::ConnectionRefused.into(),
        };
        let failure = failure(Callee::ControlPlane, "https://127.0.0.1:1", &gone);
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.to_string().contains("https://127.0.0.1:1"), "{failure}");
        assert!(failure.to_string().contains("sconce up"), "{failure}");
    }
}

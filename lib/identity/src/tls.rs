//! The TLS configurations: ours look everything up at the handshake.
//!
//! Sessions are never resumed, because a resumed one skips the verifier: an id that is no
//! longer accepted, or a root that was withdrawn, must not outlive its connection.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    Identity, InvalidRoots, PeerPolicy,
    admission::{Admission, Peer, Trust, note_no_identity},
    roots::{Roots, provider},
};

/// Whether a TLS client must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// A caller without a certificate is `Anonymous`; one with a bad certificate is refused.
    Optional,
}

/// What a server offers: plain HTTP, and the names Istio's Envoy uses for the same.
///
/// Never `istio-peer-exchange`, which would start a preamble of its own.
const SERVER_ALPN: [&[u8]; 5] = [b"h2", b"http/1.1", b"istio-h2", b"istio-http/1.1", b"istio"];

pub(crate) fn server_config(
    identity: Identity,
    callers: ClientAuth,
    policy: PeerPolicy,
) -> Arc<ServerConfig> {
    let admission = Admission::new(Trust::Identity(identity.clone()), policy);
    let verifier = Callers(Verifier::new(admission), callers);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(Current(identity)));
    config.alpn_protocols = SERVER_ALPN.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

pub(crate) fn client_config(identity: Identity, policy: PeerPolicy) -> Arc<ClientConfig> {
    let admission = Admission::new(Trust::Identity(identity.clone()), policy);
    build_client(admission, Some(Current(identity)))
}

/// TLS for a client that has roots but no certificate of its own yet: it checks the
/// server and stays anonymous.
///
/// # Errors
/// Where the roots are no usable PEM certificates.
pub fn trust_only_client_config(
    roots_pem: &[u8],
    policy: PeerPolicy,
) -> Result<Arc<ClientConfig>, InvalidRoots> {
    let trust = Trust::Fixed(Roots::from_pem(roots_pem)?);
    Ok(build_client(Admission::new(trust, policy), None))
}

fn build_client(admission: Admission, current: Option<Current>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers(Verifier::new(admission))));
    let mut config = match current {
        Some(current) => builder.with_client_cert_resolver(Arc::new(current)),
        None => builder.with_no_client_auth(),
    };
    // The id decides, so a name would only tell onlookers what is dialled.
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Presents the current certificate.
#[derive(Debug)]
struct Current(Identity);

impl Current {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.0.current();
        if current.is_none() {
            note_no_identity();
        }
        current.map(|material| material.certified())
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Current {
    // The server's hints are not consulted: there is one certificate to offer.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    admission: Admission,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(admission: Admission) -> Self {
        Self { admission, provider: provider() }
    }
}

/// Judges those who call us.
#[derive(Debug)]
struct Callers(Verifier, ClientAuth);

/// Judges those whom we call.
#[derive(Debug)]
struct Servers(Verifier);

impl ClientCertVerifier for Callers {
    fn client_auth_mandatory(&self) -> bool {
        self.1 == ClientAuth::Required
    }

    // It borrows from self, so it cannot come from the current roots; a client then
    // offers the certificate it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.admission.judge(Peer::Caller, leaf, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.admission.judge(Peer::Server, leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}

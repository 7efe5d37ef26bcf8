//! The CAs we trust, and verification of a chain against them.

use std::{fmt, sync::Arc};

use rustls::{
    Error, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::CryptoProvider,
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};

/// Trusted root certificates.
#[derive(Clone)]
pub(crate) struct Roots {
    store: Arc<RootCertStore>,
    // Built once, since building it copies the roots.
    callers: Arc<dyn ClientCertVerifier>,
}

/// Roots that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoots {
    /// Not PEM.
    #[error("the trust bundle is not PEM: {0}")]
    NotPem(rustls_pki_types::pem::Error),
    /// No certificate among the PEM sections.
    #[error("the trust bundle holds no certificate; it needs at least one CA certificate in PEM")]
    Empty,
    /// One of the certificates is unusable.
    #[error("certificate {number} of the trust bundle cannot be used as a root: {cause}")]
    BadCertificate {
        /// Counted from 1.
        number: usize,
        /// What the TLS library said.
        cause: String,
    },
}

/// The one crypto provider, always passed explicitly: a default could be another one.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Roots {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, InvalidRoots> {
        Self::from_der(CertificateDer::pem_slice_iter(pem).map(|root| root.map_err(InvalidRoots::NotPem)))
    }

    pub(crate) fn from_der(
        roots: impl Iterator<Item = Result<CertificateDer<'static>, InvalidRoots>>,
    ) -> Result<Self, InvalidRoots> {
        let mut store = RootCertStore::empty();
        for (index, root) in roots.enumerate() {
            let root = root?;
            let bad = |e: Error| InvalidRoots::BadCertificate { number: index + 1, cause: e.to_string() };
            store.add(root).map_err(bad)?;
        }
        let store = Arc::new(store);
        // Fails only where there is no root.
        let callers = WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
            .build()
            .map_err(|_| InvalidRoots::Empty)?;
        Ok(Self { store, callers })
    }

    /// The roots alone, for servers that are known by a DNS name and not by a SPIFFE id.
    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }

    pub(crate) fn verify_caller(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.callers.verify_client_cert(leaf, intermediates, now).map(drop)
    }

    /// Like a browser's check, but for the name: a SPIFFE certificate need not have one.
    pub(crate) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.store, intermediates, now, algorithms)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roots", self.store.len())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;
    use crate::testing::uri;

    fn ca(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params, KeyPair::generate().unwrap())
    }

    #[test]
    fn a_chain_through_an_intermediate_leads_to_the_root() {
        let ((root_params, root_key), (between_params, between_key)) = (ca("root"), ca("between"));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let between = between_params.signed_by(&between_key, &root_issuer).unwrap();
        let between_issuer = Issuer::new(between_params, between_key);
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![uri("spiffe://td/a")];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &between_issuer).unwrap();

        let (roots, now) = (Roots::from_pem(root.pem().as_bytes()).unwrap(), UnixTime::now());
        let verify = |intermediates: &[CertificateDer<'_>]| {
            let caller = roots.verify_caller(leaf.der(), intermediates, now);
            (caller.is_ok(), roots.verify_server(leaf.der(), intermediates, now).is_ok())
        };
        assert_eq!(verify(&[between.der().clone()]), (true, true));
        assert_eq!(verify(&[]), (false, false));
    }
}

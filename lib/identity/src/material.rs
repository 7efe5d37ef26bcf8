//! A certificate chain, its key and the roots to trust, checked as one set.
//!
//! A [`Material`] that exists is usable: nothing half-written, mismatched or expired
//! reaches a handshake.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer,
    pem::{self, PemObject},
};

use crate::{
    BrokenRule, InvalidRoots, SpiffeId,
    roots::{Roots, provider},
    svid::Svid,
};

/// What a process needs to prove who it is and to check who others are.
pub struct Material {
    svid: Svid,
    certified: Arc<CertifiedKey>,
    roots: Roots,
}

/// Why a chain, key and roots cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMaterial {
    /// The chain is not PEM.
    #[error("the certificate chain is not PEM: {0}")]
    ChainNotPem(pem::Error),
    /// No certificate in the chain.
    #[error("the certificate chain holds no certificate")]
    NoCertificate,
    /// No private key, or one that is not PEM.
    #[error("the private key is not a PEM private key: {0}")]
    BadKey(pem::Error),
    /// The key's kind is not supported.
    #[error("the private key cannot be used: {0}")]
    UnusableKey(rustls::Error),
    /// Key and leaf are from different sets.
    #[error("the private key does not belong to the first certificate of the chain")]
    KeyMismatch,
    /// The leaf breaks a rule of X509-SVID.
    #[error("the certificate is no SPIFFE certificate: {0}")]
    NotSvid(#[from] BrokenRule),
    /// The leaf's time is over.
    #[error("the certificate of {id} expired {} s ago", .ago.as_secs())]
    Expired {
        /// Whom it was for.
        id: SpiffeId,
        /// For how long.
        ago: Duration,
    },
    /// The leaf's time has not begun.
    #[error("the certificate of {id} is valid only in {} s; are the clocks right?", .ahead.as_secs())]
    NotYetValid {
        /// Whom it is for.
        id: SpiffeId,
        /// How long from now.
        ahead: Duration,
    },
    /// The roots are unusable.
    #[error(transparent)]
    BadRoots(#[from] InvalidRoots),
}

impl Material {
    /// Checks and joins a chain (leaf first), its private key and the roots, all PEM.
    ///
    /// # Errors
    /// Where they do not fit together, the leaf is no SPIFFE certificate, or it is not
    /// valid now.
    pub fn from_pem(chain: &[u8], key: &[u8], roots: &[u8]) -> Result<Self, InvalidMaterial> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(InvalidMaterial::ChainNotPem)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(InvalidMaterial::BadKey);
        Self::of(chain, key, || Roots::from_pem(roots))
    }

    /// As [`Material::from_pem`], from DER: the chain leaf first, a PKCS #8 key, the roots.
    ///
    /// # Errors
    /// As [`Material::from_pem`].
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivatePkcs8KeyDer<'static>,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, InvalidMaterial> {
        Self::of(chain, Ok(key.into()), || Roots::from_der(roots.into_iter().map(Ok)))
    }

    fn of(
        chain: Vec<CertificateDer<'static>>,
        key: Result<PrivateKeyDer<'static>, InvalidMaterial>,
        roots: impl FnOnce() -> Result<Roots, InvalidRoots>,
    ) -> Result<Self, InvalidMaterial> {
        let leaf = chain.first().ok_or(InvalidMaterial::NoCertificate)?;
        let svid = Svid::from_der(leaf)?;
        let certified = CertifiedKey::from_der(chain, key?, &provider()).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => InvalidMaterial::KeyMismatch,
            other => InvalidMaterial::UnusableKey(other),
        })?;
        let roots = roots()?;
        let now = SystemTime::now();
        if let Ok(ago) = now.duration_since(svid.not_after) {
            return Err(InvalidMaterial::Expired { id: svid.id, ago });
        }
        match svid.not_before.duration_since(now) {
            Ok(ahead) if !ahead.is_zero() => Err(InvalidMaterial::NotYetValid { id: svid.id, ahead }),
            _ => Ok(Self { svid, certified: Arc::new(certified), roots }),
        }
    }

    /// Who this certificate says we are.
    pub fn id(&self) -> &SpiffeId {
        &self.svid.id
    }

    /// When the certificate begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.svid.not_before
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.svid.not_after
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    pub(crate) fn roots(&self) -> &Roots {
        &self.roots
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("svid", &self.svid)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authority::Validity,
        testing::{authority, expired, id, pem_set},
    };

    fn load([chain, key, roots]: [&str; 3]) -> Result<Material, InvalidMaterial> {
        Material::from_pem(chain.as_bytes(), key.as_bytes(), roots.as_bytes())
    }

    #[test]
    fn only_a_set_that_belongs_together_is_material() {
        let ca = authority();
        let [chain, key, roots] = pem_set(&ca, &id("/a"));
        let [_, other_key, _] = pem_set(&ca, &id("/b"));
        assert_eq!(*load([&chain, &key, &roots]).unwrap().id(), id("/a"));
        assert!(matches!(load([&chain, &other_key, &roots]), Err(InvalidMaterial::KeyMismatch)));
        assert!(matches!(load(["", &key, &roots]), Err(InvalidMaterial::NoCertificate)));
        assert!(matches!(load([&chain, "", &roots]), Err(InvalidMaterial::BadKey(_))));
        assert!(matches!(load([&chain, &key, ""]), Err(InvalidMaterial::BadRoots(InvalidRoots::Empty))));
        assert!(matches!(load([&roots, &key, &roots]), Err(InvalidMaterial::NotSvid(_))));
        let torn = &chain[..chain.len() / 2];
        assert!(load([torn, &key, &roots]).is_err());
    }

    #[test]
    fn der_is_held_to_the_same() {
        let ca = authority();
        let ([chain, key, roots], [_, other_key, _]) = (pem_set(&ca, &id("/a")), pem_set(&ca, &id("/b")));
        let ders = |pem: &str| -> Vec<_> {
            CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
        };
        let load = |chain: &str, key: &str, roots: &str| {
            let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).unwrap();
            Material::from_der(ders(chain), key, ders(roots))
        };
        assert_eq!(*load(&chain, &key, &roots).unwrap().id(), id("/a"));
        assert!(matches!(load(&chain, &other_key, &roots), Err(InvalidMaterial::KeyMismatch)));
        assert!(matches!(load("", &key, &roots), Err(InvalidMaterial::NoCertificate)));
        assert!(matches!(load(&chain, &key, ""), Err(InvalidMaterial::BadRoots(InvalidRoots::Empty))));
        assert!(matches!(load(&roots, &key, &roots), Err(InvalidMaterial::NotSvid(_))));
    }

    #[test]
    fn what_is_not_valid_now_is_no_material() {
        let ca = authority();
        let with = |validity| {
            let it = ca.issue_credentials(&id("/a"), &[], validity).unwrap();
            load([&it.chain_pem, &it.key_pem, ca.roots_pem()])
        };
        assert!(matches!(with(expired()), Err(InvalidMaterial::Expired { .. })));
        let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
        let later = Validity { not_before: tomorrow, not_after: tomorrow + Duration::from_secs(60) };
        assert!(matches!(with(later), Err(InvalidMaterial::NotYetValid { .. })));
    }
}

//! Whether a root certificate found on disk is the one to sign with.

use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

/// When the root expires; nothing where it cannot be parsed.
pub(super) fn expiry(root_pem: &str) -> Option<SystemTime> {
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).ok()?;
    let (_, root) = parse_x509_certificate(&root).ok()?;
    let seconds = u64::try_from(root.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Says what is wrong with a root for this trust domain and key.
pub(super) fn check(root_pem: &str, trust_domain: &str, key: &KeyPair) -> Result<(), String> {
    let unreadable = "root.pem holds no certificate; restore it from a backup";
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|_| unreadable)?;
    let (_, root) = parse_x509_certificate(&root).map_err(|_| unreadable)?;
    if root.public_key().raw != key.subject_public_key_info() {
        return Err("root.key does not belong to root.pem; restore both from one backup".to_owned());
    }
    if !root.is_ca() {
        return Err("root.pem is not the certificate of a CA".to_owned());
    }
    if !root.validity().is_valid() {
        return Err("root.pem has expired; move the folder away to start a new CA".to_owned());
    }
    match trust_domain_of(&root) {
        Some(found) if found == trust_domain => Ok(()),
        found => Err(format!(
            "root.pem is of the trust domain {}, not of {trust_domain}; start with the trust domain it was made for",
            found.unwrap_or_else(|| "(none)".to_owned())
        )),
    }
}

fn trust_domain_of(root: &X509Certificate<'_>) -> Option<String> {
    let names = root.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://").map(str::to_owned),
        _ => None,
    })
}

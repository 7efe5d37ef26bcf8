//! What a certificate must be like to prove a SPIFFE id (the X509-SVID rules).
//!
//! The same check guards our own certificate when it is loaded and every peer's at each
//! handshake. It looks at the leaf alone; whether its chain leads to a trusted root is
//! verified elsewhere.

use std::time::{Duration, SystemTime};

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, time::ASN1Time,
};

use crate::{InvalidSpiffeId, SpiffeId};

/// A leaf certificate that obeys the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Svid {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// The X509-SVID rule that a certificate breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each says it")]
pub enum BrokenRule {
    #[error("it cannot be parsed as an X.509 certificate")]
    Unreadable,
    #[error("it carries no SPIFFE id: it has no URI among its subject alternative names")]
    NoUri,
    #[error("it carries {0} URIs among its subject alternative names; exactly one is allowed")]
    SeveralUris(usize),
    #[error(transparent)]
    BadId(#[from] InvalidSpiffeId),
    #[error("its SPIFFE id {0} has no path: that names a trust domain, not a workload")]
    NoPath(SpiffeId),
    #[error("it is a CA certificate, and a signing certificate never proves who is calling")]
    IsCa,
    #[error("its key usage does not include digital signature")]
    NoDigitalSignature,
    #[error("its key usage is not marked critical")]
    NotCritical,
    #[error("its key usage allows signing certificates or revocation lists")]
    MaySign,
    #[error("its extended key usage does not allow both server and client authentication")]
    NotForBothEnds,
}

impl Svid {
    /// Checks a leaf against the rules.
    ///
    /// A certificate without any extended key usage is accepted: the X509-SVID rules ask
    /// for both purposes only where the extension is present, and SPIRE and file-based
    /// CAs leave it out.
    pub(crate) fn from_der(leaf: &[u8]) -> Result<Self, BrokenRule> {
        let certificate = parse(leaf)?;
        let id = only_id(&certificate)?;
        if id.path().is_empty() {
            return Err(BrokenRule::NoPath(id));
        }
        check_usage(&certificate)?;
        let validity = certificate.validity();
        Ok(Self { id, not_before: moment(validity.not_before), not_after: moment(validity.not_after) })
    }
}

/// The URIs that a certificate claims, for the log line about one that was not accepted.
pub(crate) fn claimed_id(leaf: &[u8]) -> Option<String> {
    parse(leaf).ok().and_then(|certificate| only_id(&certificate).ok()).map(|id| id.to_string())
}

fn parse(leaf: &[u8]) -> Result<X509Certificate<'_>, BrokenRule> {
    match parse_x509_certificate(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(BrokenRule::Unreadable),
    }
}

fn only_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, BrokenRule> {
    let names = certificate.subject_alternative_name().map_err(|_| BrokenRule::Unreadable)?;
    let mut uris = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let first = uris.next().ok_or(BrokenRule::NoUri)?;
    match uris.count() {
        0 => Ok(first.parse()?),
        more => Err(BrokenRule::SeveralUris(more + 1)),
    }
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), BrokenRule> {
    let unreadable = |_| BrokenRule::Unreadable;
    if certificate.basic_constraints().map_err(unreadable)?.is_some_and(|it| it.value.ca) {
        return Err(BrokenRule::IsCa);
    }
    let extension = certificate.key_usage().map_err(unreadable)?.ok_or(BrokenRule::NoDigitalSignature)?;
    if !extension.critical {
        return Err(BrokenRule::NotCritical);
    }
    let usage = extension.value;
    if !usage.digital_signature() {
        return Err(BrokenRule::NoDigitalSignature);
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(BrokenRule::MaySign);
    }
    match certificate.extended_key_usage().map_err(unreadable)? {
        Some(it) if !(it.value.server_auth && it.value.client_auth) => Err(BrokenRule::NotForBothEnds),
        _ => Ok(()),
    }
}

fn moment(time: ASN1Time) -> SystemTime {
    // A time before 1970 is long past either way.
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        KeyUsagePurpose,
    };

    use super::*;
    use crate::testing::uri;

    fn check(change: impl FnOnce(&mut CertificateParams)) -> Result<SpiffeId, String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("spiffe://td/a")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Svid::from_der(certificate.der()).map(|svid| svid.id).map_err(|rule| rule.to_string())
    }

    #[track_caller]
    fn refused(why: &str, change: impl FnOnce(&mut CertificateParams)) {
        let error = check(change).expect_err(why);
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_workload_certificate_is_accepted_also_without_extended_key_usage() {
        assert_eq!(check(|_| {}).unwrap().as_str(), "spiffe://td/a");
        assert!(check(|params| params.extended_key_usages.clear()).is_ok());
        let with_name = |params: &mut CertificateParams| {
            params.subject_alt_names.push(rcgen::SanType::DnsName("a.example".try_into().unwrap()));
        };
        assert!(check(with_name).is_ok());
    }

    #[test]
    fn every_rule_is_enforced() {
        refused("no SPIFFE id", |params| params.subject_alt_names.clear());
        refused("carries 2 URIs", |params| params.subject_alt_names.push(uri("https://x")));
        refused("not a SPIFFE id", |params| params.subject_alt_names = vec![uri("https://x")]);
        refused("has no path", |params| params.subject_alt_names = vec![uri("spiffe://td")]);
        refused("CA certificate", |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        refused("digital signature", |params| params.key_usages.clear());
        refused("digital signature", |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
        refused("not marked critical", |params| {
            // Digital signature, as a BIT STRING.
            let usage = CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]);
            (params.key_usages, params.custom_extensions) = (Vec::new(), vec![usage]);
        });
        refused("signing certificates", |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
        refused("revocation lists", |params| params.key_usages.push(KeyUsagePurpose::CrlSign));
        refused("both server and client", |params| params.extended_key_usages.truncate(1));
        assert_eq!(Svid::from_der(b"junk"), Err(BrokenRule::Unreadable));
    }
}

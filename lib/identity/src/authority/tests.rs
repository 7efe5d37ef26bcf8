//! What the CA signs, and what it refuses.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{CustomExtension, IsCa};
use x509_parser::{extensions::GeneralName, parse_x509_certificate, pem::parse_x509_pem};

use super::*;
use crate::testing::{TRUST_DOMAIN, authority, hour, id, request, uri};

/// The names in a certificate, its serial, and whether it may sign.
fn contents(pem: &str) -> (Vec<String>, Vec<u8>, bool) {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, certificate) = parse_x509_certificate(&pem.contents).unwrap();
    assert_eq!(certificate.subject().iter().count(), 0, "the subject says nothing");
    let san = certificate.subject_alternative_name().unwrap().unwrap();
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
        GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
        other => panic!("{other:?}"),
    };
    let names = san.value.general_names.iter().map(name).collect();
    (names, certificate.raw_serial().to_vec(), certificate.is_ca())
}

#[test]
fn a_request_cannot_smuggle_anything_into_its_certificate() {
    let key = KeyPair::generate().unwrap();
    let csr = request(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.subject_alt_names = vec![uri("spiffe://test.local/sconce/operator"), uri("spiffe://x/y")];
        params.subject_alt_names.push(SanType::DnsName("evil.example".try_into().unwrap()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let names = ["edge.example".to_owned(), "10.1.2.3".to_owned()];

    let chain = authority().issue(&csr, &id("/ns/default/sa/edge"), &names, hour()).unwrap();

    let (names, _, may_sign) = contents(&chain);
    assert_eq!(names, ["edge.example", "[10, 1, 2, 3]", "spiffe://test.local/ns/default/sa/edge"]);
    assert!(!may_sign);
    assert_eq!(Authority::requested_names(&csr).unwrap(), ["evil.example"]);
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let key = KeyPair::generate().unwrap();
    let csr = request(&key, |params| {
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]));
    });
    assert!(authority().issue(&csr, &id("/a"), &[], hour()).is_err(), "an extension nobody knows");
    assert!(authority().issue("no pem", &id("/a"), &[], hour()).is_err());
    let good = request(&key, |_| {});
    let mut der = parse_x509_pem(good.as_bytes()).unwrap().1.contents;
    *der.last_mut().unwrap() ^= 1;
    let forged = CertificateSigningRequestParams::from_der(&der.into());
    assert!(forged.is_err());
}

#[test]
fn serials_differ_and_lives_end_with_the_root() {
    let ca = authority();
    let key = KeyPair::generate().unwrap();
    let csr = request(&key, |_| {});
    let issue = |validity| contents(&ca.issue(&csr, &id("/a"), &[], validity).unwrap()).1;
    assert_ne!(issue(hour()), issue(hour()));

    let centuries = Validity::of(ROOT_LIFE * 10);
    let chain = ca.issue(&csr, &id("/a"), &[], centuries).unwrap();
    assert_eq!(root::expiry(&chain), root::expiry(ca.roots_pem()));
}

#[test]
fn an_id_of_another_trust_domain_is_refused() {
    let foreign = SpiffeId::new("other.local", "/a").unwrap();
    let error = authority().issue_credentials(&foreign, &[], hour()).err().unwrap();
    assert_eq!(error.to_string(), "spiffe://other.local/a is not of the trust domain test.local");
}

#[test]
fn a_ca_is_made_once_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("ca");
    let made = Authority::load_or_create(&folder, TRUST_DOMAIN).unwrap();
    let found = Authority::load_or_create(&folder, TRUST_DOMAIN).unwrap();
    assert_eq!(made.roots_pem(), found.roots_pem());
    let mode = fs::metadata(folder.join("root.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_crash_between_key_and_root_is_healed() {
    let folder = tempfile::tempdir().unwrap();
    Authority::load_or_create(folder.path(), TRUST_DOMAIN).unwrap();
    let key = fs::read(folder.path().join("root.key")).unwrap();
    fs::remove_file(folder.path().join("root.pem")).unwrap();
    Authority::load_or_create(folder.path(), TRUST_DOMAIN).unwrap();
    assert_eq!(fs::read(folder.path().join("root.key")).unwrap(), key, "a key is never replaced");
}

#[test]
fn a_ca_of_another_trust_domain_or_key_is_not_used() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::load_or_create(one.path(), TRUST_DOMAIN).unwrap();
    Authority::load_or_create(two.path(), TRUST_DOMAIN).unwrap();

    let error = Authority::load_or_create(one.path(), "other.local").err().unwrap().to_string();
    assert!(error.contains("is of the trust domain test.local, not of other.local"), "{error}");

    fs::copy(two.path().join("root.key"), one.path().join("root.key")).unwrap();
    let error = Authority::load_or_create(one.path(), TRUST_DOMAIN).err().unwrap().to_string();
    assert!(error.contains("root.key does not belong to root.pem"), "{error}");

    fs::remove_file(one.path().join("root.key")).unwrap();
    let error = Authority::load_or_create(one.path(), TRUST_DOMAIN).err().unwrap().to_string();
    assert!(error.contains("root.key"), "{error}");
    assert!(Authority::new("Not A Domain").is_err());
}

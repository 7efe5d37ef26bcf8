//! The webhook's CA and serving certificate, and when each is renewed: values and a clock.
//!
//! The API server recognises the webhook by a bundle of roots that reaches it only after a
//! while, so a root is in the bundle for a day before anything it has signed is served, and
//! for a day after the last of that is gone. At no time is a certificate served whose root
//! the API server may not know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

/// Everything that replicas share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys {
    /// Oldest first, never empty.
    roots: Vec<Root>,
    serving: Serving,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Root {
    number: u64,
    certificate: String,
    key: String,
    since: u64,
    until: u64,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Serving {
    /// The root that signed it.
    root: u64,
    names: Vec<String>,
    certificate: String,
    key: String,
    since: u64,
    until: u64,
}

const DAY: u64 = 24 * 3600;
const ROOT_LIFE: u64 = 365 * DAY;
/// How long before its end a root has a successor.
const NOTICE: u64 = 90 * DAY;
const SERVING_LIFE: u64 = 30 * DAY;
/// How long a change of the bundle takes to be known for sure.
const SETTLED: u64 = DAY;
/// Clocks differ a little from machine to machine.
const SKEW: u64 = 300;

impl Keys {
    /// What should be there next; nothing where that is what is there.
    pub(super) fn next(
        current: Option<&Self>,
        names: &[String],
        now: SystemTime,
    ) -> Result<Option<Self>, rcgen::Error> {
        let now = seconds(now);
        let mut keys = match current {
            Some(keys) => keys.clone(),
            None => {
                let root = Root::new(1, now)?;
                let serving = root.sign(names, now)?;
                return Ok(Some(Self { roots: vec![root], serving }));
            }
        };
        keys.renew_roots(now)?;
        keys.renew_serving(names, now)?;
        keys.retire_roots(now);
        Ok(Some(keys).filter(|keys| Some(keys) != current))
    }

    fn renew_roots(&mut self, now: u64) -> Result<(), rcgen::Error> {
        let newest = self.roots.iter().map(|root| root.number).max().unwrap_or_default();
        self.roots.retain(|root| root.until > now);
        if self.roots.last().is_none_or(|root| root.until < now + NOTICE) {
            self.roots.push(Root::new(newest + 1, now)?);
        }
        Ok(())
    }

    fn renew_serving(&mut self, names: &[String], now: u64) -> Result<(), rcgen::Error> {
        // Where none has been there long enough, waiting would serve nothing: the oldest.
        let settled = self.roots.iter().rfind(|root| root.since + SETTLED <= now);
        let Some(signer) = settled.or(self.roots.first()) else { return Ok(()) };
        let serving = &self.serving;
        let due = serving.until < now + SERVING_LIFE / 2;
        if due || serving.root != signer.number || serving.names != names {
            self.serving = signer.sign(names, now)?;
        }
        Ok(())
    }

    fn retire_roots(&mut self, now: u64) {
        let serving = &self.serving;
        if serving.since + SETTLED <= now {
            self.roots.retain(|root| root.number >= serving.root);
        }
    }

    /// The roots to recognise the webhook by, newest first.
    pub(super) fn bundle(&self) -> String {
        self.roots.iter().rev().map(|root| root.certificate.as_str()).collect()
    }

    /// The serving certificate and its key, PEM.
    pub(super) fn serving(&self) -> (&str, &str) {
        (&self.serving.certificate, &self.serving.key)
    }
}

impl Root {
    fn new(number: u64, now: u64) -> Result<Self, rcgen::Error> {
        let (since, until) = (now, now + ROOT_LIFE);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // A name of its own: two roots of one name and different keys confuse verifiers.
        params.distinguished_name.push(DnType::CommonName, format!("Sconce webhook CA {number} {now}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = moment(since.saturating_sub(SKEW)).into();
        params.not_after = moment(until).into();
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { number, certificate, key: key.serialize_pem(), since, until })
    }

    fn sign(&self, names: &[String], now: u64) -> Result<Serving, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate()?;
        // Nobody would accept it after its root has gone.
        let (since, until) = (now, (now + SERVING_LIFE).min(self.until));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(since.saturating_sub(SKEW)).into();
        params.not_after = moment(until).into();
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Serving {
            root: self.number,
            names: names.to_vec(),
            certificate,
            key: key.serialize_pem(),
            since,
            until,
        })
    }
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, since, until, .. } = self;
        write!(f, "Root {{ number: {number}, since: {since}, until: {until} }}")
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { root, since, until, .. } = self;
        write!(f, "Serving {{ root: {root}, since: {since}, until: {until} }}")
    }
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn moment(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use rustls::{
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    };

    use super::*;

    const NAME: &str = "sconce-webhook.sconce-system.svc";

    fn names() -> Vec<String> {
        vec![NAME.to_owned()]
    }

    /// What an API server that knows this bundle says of the certificate that is served.
    fn accepted(bundle: &str, keys: &Keys, now: u64) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(root.expect("PEM")).expect("a root");
        }
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("roots");
        let leaf = CertificateDer::from_pem_slice(keys.serving().0.as_bytes()).expect("PEM");
        let name = ServerName::try_from(NAME).expect("a name");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn through_years_of_rotation_whoever_learns_of_the_bundle_late_still_accepts() {
        let begin = 1_800_000_000;
        let mut keys = Keys::next(None, &names(), moment(begin)).expect("made").expect("the first");
        let mut bundles = vec![keys.bundle()];
        let (mut roots, mut served) = (0, 0);
        for hour in 1..(3 * 365 * 24) {
            let now = begin + hour * 3600;
            if let Some(next) = Keys::next(Some(&keys), &names(), moment(now)).expect("made") {
                roots += u64::from(next.bundle() != keys.bundle());
                served += u64::from(next.serving() != keys.serving());
                keys = next;
            }
            bundles.push(keys.bundle());
            // An API server that is up to date, and one that is hours behind.
            if hour % 24 == 0 || hour % 7 == 0 {
                assert!(accepted(&keys.bundle(), &keys, now), "hour {hour}: {keys:?}");
                let late = &bundles[bundles.len().saturating_sub(20)];
                assert!(accepted(late, &keys, now), "hour {hour}, late: {keys:?}");
            }
        }
        assert!(roots >= 6 && served > 60, "{roots} changes of the bundle, {served} of the certificate");
        assert!(keys.roots.len() <= 2, "old roots are retired: {keys:?}");
    }

    #[test]
    fn nothing_changes_while_nothing_is_due() {
        let now = moment(1_800_000_000);
        let keys = Keys::next(None, &names(), now).expect("made").expect("the first");
        assert_eq!(Keys::next(Some(&keys), &names(), now).expect("fine"), None);
        let later = now + Duration::from_secs(14 * DAY);
        assert_eq!(Keys::next(Some(&keys), &names(), later).expect("fine"), None);
    }

    #[test]
    fn another_name_of_the_service_is_certified_at_once_and_by_the_same_root() {
        let now = 1_800_000_000;
        let old = Keys::next(None, &["other.ns.svc".to_owned()], moment(now)).expect("made").expect("first");
        assert!(!accepted(&old.bundle(), &old, now));
        let new = Keys::next(Some(&old), &names(), moment(now)).expect("made").expect("another");
        assert!(accepted(&old.bundle(), &new, now));
    }

    #[test]
    fn after_years_of_sleep_it_begins_anew() {
        let now = 1_800_000_000;
        let old = Keys::next(None, &names(), moment(now)).expect("made").expect("the first");
        let late = now + 2 * ROOT_LIFE;
        let new = Keys::next(Some(&old), &names(), moment(late)).expect("made").expect("new ones");
        assert!(accepted(&new.bundle(), &new, late));
        assert!(!new.bundle().contains(&old.bundle()));
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = Keys::next(None, &names(), moment(1_800_000_000)).expect("made").expect("the first");
        assert!(!format!("{keys:?}").contains("PRIVATE"));
    }
}

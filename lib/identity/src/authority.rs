//! The embedded certificate authority: SPIFFE certificates where there is no mesh.

mod root;

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};

use crate::{
    InvalidSpiffeId, SpiffeId,
    disk::{self, Readers},
    issued::alt_names,
};

/// Signs certificates of one trust domain.
pub struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    expires: SystemTime,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

/// A key, and the certificate for it.
#[derive(Clone)]
pub struct Credentials {
    /// Leaf first.
    pub chain_pem: String,
    /// PKCS #8.
    pub key_pem: String,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA's files cannot be read or written.
    #[error("the CA's file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The id is of another trust domain.
    #[error("{id} is not of the trust domain {trust_domain}")]
    Foreign {
        /// What was asked for.
        id: SpiffeId,
        /// What this CA signs for.
        trust_domain: String,
    },
    /// The text is no trust domain.
    #[error(transparent)]
    BadTrustDomain(#[from] InvalidSpiffeId),
    /// The CA's files are not what they should be.
    #[error("the CA in {folder} cannot be used: {why}")]
    Unusable {
        /// Where they are.
        folder: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The request or the CA's own key is not valid.
    #[error("the certificate request or the CA's key is not valid: {0}")]
    Invalid(#[from] rcgen::Error),
}

const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks differ a little from machine to machine.
const SKEW: Duration = Duration::from_secs(60);

impl Validity {
    /// From now, less a minute for clocks that are late, for this long.
    pub fn of(life: Duration) -> Self {
        let now = SystemTime::now();
        Self { not_before: now - SKEW, not_after: now + life }
    }
}

impl Authority {
    /// A new CA, kept nowhere.
    ///
    /// # Errors
    /// Where no key can be made or the trust domain is none.
    pub fn new(trust_domain: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let root_pem = new_root(trust_domain, &key)?;
        Self::of(trust_domain, root_pem, key)
    }

    /// The CA in this folder, made there the first time: `root.pem`, and `root.key` that
    /// only this user may read.
    ///
    /// # Errors
    /// Where the files cannot be used or are of another trust domain.
    pub fn load_or_create(folder: &Path, trust_domain: &str) -> Result<Self, AuthorityError> {
        let (key_path, root_path) = (folder.join("root.key"), folder.join("root.pem"));
        let file = |path: &Path| {
            let path = path.display().to_string();
            move |source| AuthorityError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(file(folder))?;
        // Neither file is ever replaced: of two processes that start at once, or one that
        // starts after a crash in between, the second goes on with what it finds.
        if !root_path.exists() {
            let key = KeyPair::generate()?.serialize_pem();
            disk::create(&key_path, key.as_bytes(), Readers::Owner).map_err(file(&key_path))?;
        }
        let key = KeyPair::from_pem(&fs::read_to_string(&key_path).map_err(file(&key_path))?)?;
        if !root_path.exists() {
            let root = new_root(trust_domain, &key)?;
            disk::create(&root_path, root.as_bytes(), Readers::Everybody).map_err(file(&root_path))?;
            tracing::info!(trust_domain, folder = %folder.display(), "created a certificate authority");
        }
        let root = fs::read_to_string(&root_path).map_err(file(&root_path))?;
        root::check(&root, trust_domain, &key)
            .map_err(|why| AuthorityError::Unusable { folder: folder.display().to_string(), why })?;
        Self::of(trust_domain, root, key)
    }

    fn of(trust_domain: &str, root_pem: String, key: KeyPair) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)?;
        let expires = root::expiry(&root_pem).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        Ok(Self { trust_domain: trust_domain.to_owned(), issuer, root_pem, expires })
    }

    /// Every root of this CA.
    pub fn roots_pem(&self) -> &str {
        &self.root_pem
    }

    /// What this CA signs for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// A certificate for the public key of a request. Nothing else of the request counts:
    /// id, names and life are ours to say.
    ///
    /// # Errors
    /// Where the request is not valid or the id is of another trust domain.
    pub fn issue(
        &self,
        csr_pem: &str,
        id: &SpiffeId,
        names: &[String],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        self.sign(&request.public_key, id, names, validity)
    }

    /// A new key and its certificate.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_credentials(
        &self,
        id: &SpiffeId,
        names: &[String],
        validity: Validity,
    ) -> Result<Credentials, AuthorityError> {
        let key = KeyPair::generate()?;
        let chain_pem = self.sign(&key, id, names, validity)?;
        Ok(Credentials { chain_pem, key_pem: key.serialize_pem() })
    }

    /// DNS names and IP addresses that a request asks for, for the caller to judge.
    ///
    /// # Errors
    /// Where the request is not valid.
    pub fn requested_names(csr_pem: &str) -> Result<Vec<String>, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let name = |san: &SanType| match san {
            SanType::DnsName(name) => Some(name.as_str().to_owned()),
            SanType::IpAddress(ip) => Some(ip.to_string()),
            _ => None,
        };
        Ok(request.params.subject_alt_names.iter().filter_map(name).collect())
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        names: &[String],
        validity: Validity,
    ) -> Result<String, AuthorityError> {
        if id.trust_domain() != self.trust_domain {
            return Err(AuthorityError::Foreign { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        let mut params = CertificateParams::default();
        // The SPIFFE id says who it is; the default would add a made-up common name.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = alt_names(names)?;
        params.subject_alt_names.push(SanType::URI(id.as_str().try_into()?));
        // Said, not left out: some SPIFFE libraries refuse a leaf that does not say it is no CA.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = validity.not_before.into();
        // Nobody would accept it after its root has gone.
        params.not_after = validity.not_after.min(self.expires).into();
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// Random, so that a serial names one certificate also where a key is certified twice.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    // Positive and of full length, whatever the dice say.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes.to_vec().into()
}

fn new_root(trust_domain: &str, key: &KeyPair) -> Result<String, AuthorityError> {
    Ok(root_params(trust_domain)?.self_signed(key)?.pem())
}

fn root_params(trust_domain: &str) -> Result<CertificateParams, AuthorityError> {
    let id = SpiffeId::new(trust_domain, "")?;
    let validity = Validity::of(ROOT_LIFE);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Sconce CA of {trust_domain}"));
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.serial_number = Some(serial());
    Ok(params)
}

#[cfg(test)]
mod tests;

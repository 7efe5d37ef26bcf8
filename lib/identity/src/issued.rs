//! Certificates from an issuer, renewed at half their life and kept on disk.
//!
//! An outage of the issuer shorter than the other half is never felt, also across a
//! restart.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};

use crate::{
    Material, Publisher,
    disk::{self, Readers},
    files,
};

/// Signs certificates for keys that are made here.
pub trait Issuer: Send + Sync + 'static {
    /// A certificate for the key of this PKCS #10 request.
    fn issue(&self, csr_pem: String) -> BoxFuture<'_, Result<Issued, IssueError>>;
}

/// What an issuer gives.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf first.
    pub chain_pem: String,
    /// Every root to trust.
    pub roots_pem: String,
}

/// The issuer gave no certificate; worth another try.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct IssueError(pub String);

const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Publishes certificates from `issuer`, for ever. `names` are the DNS names and IP
/// addresses asked for besides the SPIFFE id.
pub async fn renew(folder: PathBuf, names: Vec<String>, issuer: Arc<dyn Issuer>, publisher: Publisher) {
    let mut renew_at = SystemTime::now();
    match files::read(&folder) {
        Ok(kept) => {
            renew_at = half_life(&kept);
            publisher.publish(kept);
        }
        Err(error) => tracing::info!(%error, "no certificate kept from before, asking for one"),
    }
    let mut retry = FIRST_RETRY;
    loop {
        tokio::time::sleep(renew_at.duration_since(SystemTime::now()).unwrap_or_default()).await;
        match once(&folder, &names, issuer.as_ref()).await {
            Ok(material) => {
                renew_at = half_life(&material);
                retry = FIRST_RETRY;
                publisher.publish(material);
            }
            Err(error) => {
                let expires = publisher.current().map(|current| current.not_after());
                let left = expires.and_then(|at| at.duration_since(SystemTime::now()).ok());
                tracing::warn!(%error, seconds_left = left.map(|left| left.as_secs()), "no new certificate, trying again");
                renew_at = SystemTime::now() + retry;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

async fn once(folder: &Path, names: &[String], issuer: &dyn Issuer) -> Result<Material, IssueError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| IssueError(format!("{what}: {error}"));
    let key = KeyPair::generate().map_err(|error| failed("no key could be made", &error))?;
    let request = request(&key, names).map_err(|error| failed("the certificate request", &error))?;
    let issued = issuer.issue(request).await?;
    let key = key.serialize_pem();
    let material =
        Material::from_pem(issued.chain_pem.as_bytes(), key.as_bytes(), issued.roots_pem.as_bytes())
            .map_err(|error| failed("the issuer's certificate cannot be used", &error))?;
    keep(folder, &issued, &key).map_err(|error| failed(&folder.display().to_string(), &error))?;
    Ok(material)
}

fn request(key: &KeyPair, names: &[String]) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = alt_names(names)?;
    params.serialize_request(key)?.pem()
}

/// Names as a certificate spells them: addresses as addresses, the rest as DNS names.
pub(crate) fn alt_names(names: &[String]) -> Result<Vec<SanType>, rcgen::Error> {
    let one = |name: &String| match name.parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
    };
    names.iter().map(one).collect()
}

/// The key last: a set that is read in between does not match and is not used.
fn keep(folder: &Path, issued: &Issued, key: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    disk::write(&folder.join("ca.pem"), issued.roots_pem.as_bytes(), Readers::Everybody)?;
    disk::write(&folder.join("cert.pem"), issued.chain_pem.as_bytes(), Readers::Everybody)?;
    disk::write(&folder.join("key.pem"), key.as_bytes(), Readers::Owner)
}

fn half_life(material: &Material) -> SystemTime {
    let life = material.not_after().duration_since(material.not_before()).unwrap_or_default();
    material.not_before() + life / 2
}

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
};

/// Signs certificates for keys that are made here.
pub trait Issuer: Send + Sync + 'static {
    /// A certificate for the key of this PKCS #10 request.
    fn issue(&self, csr_pem: String) -> BoxFuture<'_, Result<Issued, IssueError>>;

    /// Waits until there is a reason to ask anew before half of a certificate's life is over,
    /// such as other roots than when it was asked last.
    fn outdated(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
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
/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Timers stand still while a machine sleeps, so none is longer than this.
const LONGEST_NAP: Duration = Duration::from_secs(60);

/// Publishes certificates from `issuer`, for ever. `names` are the DNS names and IP
/// addresses asked for besides the SPIFFE id.
pub async fn renew(folder: PathBuf, names: Vec<String>, issuer: Arc<dyn Issuer>, publisher: Publisher) {
    let mut renew_at = SystemTime::now();
    match kept(&folder) {
        Ok(kept) => {
            renew_at = half_life(&kept);
            publisher.publish(kept);
        }
        Err(error) => tracing::info!(%error, "no certificate kept from before, asking for one"),
    }
    let mut retry = FIRST_RETRY;
    loop {
        tokio::select! {
            () = sleep_until(renew_at) => {}
            () = issuer.outdated() => {}
        }
        match once(&folder, &names, issuer.as_ref()).await {
            Ok(material) => {
                // An issuer that hands out half-spent certificates must not be asked in a loop.
                renew_at = half_life(&material).max(SystemTime::now() + FIRST_RETRY);
                retry = FIRST_RETRY;
                publisher.publish(material);
            }
            Err(error) => {
                let expires = publisher.current().map(|current| current.not_after());
                let left = expires.and_then(|at| at.duration_since(SystemTime::now()).ok());
                tracing::warn!(%error, seconds_left = left.map(|left| left.as_secs()), "no new certificate, trying again");
                // Spread, because a whole fleet loses its issuer at the same moment.
                renew_at = SystemTime::now() + retry.mul_f64(rand::random_range(0.5..1.0));
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

async fn sleep_until(when: SystemTime) {
    while let Ok(left) = when.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LONGEST_NAP)).await;
    }
}

async fn once(folder: &Path, names: &[String], issuer: &dyn Issuer) -> Result<Material, IssueError> {
    let failed = |what: &str, error: &dyn std::fmt::Display| IssueError(format!("{what}: {error}"));
    let key = KeyPair::generate().map_err(|error| failed("no key could be made", &error))?;
    let request = request(&key, names).map_err(|error| failed("the certificate request", &error))?;
    let issued = tokio::time::timeout(PATIENCE, issuer.issue(request))
        .await
        .map_err(|_| IssueError(format!("the issuer did not answer in {} s", PATIENCE.as_secs())))??;
    let key = key.serialize_pem();
    let material =
        Material::from_pem(issued.chain_pem.as_bytes(), key.as_bytes(), issued.roots_pem.as_bytes())
            .map_err(|error| failed("the issuer's certificate cannot be used", &error))?;
    // It is good without a disk too, and the join token it cost may not buy another.
    if let Err(error) = keep(folder, &issued, &key) {
        tracing::warn!(folder = %folder.display(), %error, "the new certificate will not survive a restart");
    }
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

/// Key and chain are one file, so that no moment of a crash leaves one without the other:
/// the join token that bought them may be spent. The roots before it fit both sets.
const IDENTITY: &str = "identity.pem";
const ROOTS: &str = "ca.pem";

fn keep(folder: &Path, issued: &Issued, key: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    disk::write(&folder.join(ROOTS), issued.roots_pem.as_bytes(), Readers::Everybody)?;
    disk::write(&folder.join(IDENTITY), format!("{key}{}", issued.chain_pem).as_bytes(), Readers::Owner)
}

fn kept(folder: &Path) -> Result<Material, IssueError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| IssueError(format!("{}: {error}", path.display())))
    };
    let (identity, roots) = (read(IDENTITY)?, read(ROOTS)?);
    Material::from_pem(&identity, &identity, &roots)
        .map_err(|error| IssueError(format!("{}: {error}", folder.join(IDENTITY).display())))
}

fn half_life(material: &Material) -> SystemTime {
    let life = material.not_after().duration_since(material.not_before()).unwrap_or_default();
    material.not_before() + life / 2
}

#[cfg(test)]
mod tests;

//! Where a version's bytes come from, and what they must be.

use std::{fmt, str::FromStr};

use url::Url;

/// An address that the control plane can pull from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) scheme: Scheme,
    /// A bucket, an account, or `host:port` without the port where it is 443.
    pub(super) authority: String,
    /// Without the leading slash: a key, `container/key`, a repository, or a URL's path.
    pub(super) path: String,
    /// Of an `https` address: what it asks. It may be a signature, so it is never shown.
    query: Option<String>,
}

/// How an address is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    S3,
    Gs,
    Az,
    Https,
    Oci,
}

/// SHA-256 of a file, or of an object of a registry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sha256(pub(super) [u8; 32]);

/// Text that is no address or no digest, with what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {why}")]
pub(crate) struct InvalidSource {
    text: String,
    why: String,
}

const SCHEMES: [(&str, Scheme); 5] = [
    ("s3", Scheme::S3),
    ("gs", Scheme::Gs),
    ("az", Scheme::Az),
    ("https", Scheme::Https),
    ("oci", Scheme::Oci),
];
/// As long as what people write; and it is kept with the version.
const LONGEST: usize = 1_024;

impl Address {
    /// What is asked for over HTTPS at `path`, on the host that the address names.
    pub(super) fn https(&self, path: &str) -> Result<Url, InvalidSource> {
        let text = format!("https://{}/{path}", self.authority);
        let mut url = Url::parse(&text).map_err(|error| invalid(&text, &error.to_string()))?;
        url.set_query(self.query.as_deref());
        Ok(url)
    }

    /// The repository of a registry, without a tag: the digest says which object is meant.
    pub(super) fn repository(&self) -> &str {
        self.path.split_once(':').map_or(self.path.as_str(), |(repository, _)| repository)
    }

    /// Whether this address is `prefix` or below it, part by part: `s3://a/b` is not below `s3://a/bc`.
    pub(super) fn is_below(&self, prefix: &Address) -> bool {
        let own = self.repository_or_path().split('/');
        let mut parts = own.map(Some).chain(std::iter::repeat(None));
        let wanted = prefix.repository_or_path();
        self.scheme == prefix.scheme
            && self.authority == prefix.authority
            && wanted.split('/').filter(|part| !part.is_empty()).all(|part| parts.next() == Some(Some(part)))
    }

    fn repository_or_path(&self) -> &str {
        if self.scheme == Scheme::Oci { self.repository() } else { &self.path }
    }

    /// A prefix of addresses: an address of which the end may be missing.
    pub(super) fn prefix(text: &str) -> Result<Self, InvalidSource> {
        parse(text)
    }
}

impl FromStr for Address {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let address = parse(text)?;
        let (wanted, example) = match address.scheme {
            Scheme::S3 | Scheme::Gs => (1, "a bucket and a key, such as s3://models/fraud/7.pt"),
            Scheme::Az => (2, "an account, a container and a name: az://account/models/fraud/7.pt"),
            Scheme::Https => (1, "a path, such as https://models.example.com/fraud/7.pt"),
            Scheme::Oci => (1, "a repository, such as oci://registry.example.com/models/fraud"),
        };
        if address.path.split('/').filter(|part| !part.is_empty()).count() < wanted {
            return Err(invalid(text, &format!("is not whole; expected {example}")));
        }
        Ok(address)
    }
}

fn parse(text: &str) -> Result<Address, InvalidSource> {
    let wrong = |why: &str| invalid(text, why);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        wrong("is no address to pull from; expected one of s3://, gs://, az://, https:// and oci://")
    })?;
    if scheme == "http" {
        return Err(wrong(
            "is not encrypted, so anybody on the way could read its credentials; serve it over https",
        ));
    }
    let scheme = SCHEMES.iter().find(|(name, _)| *name == scheme).map(|(_, scheme)| *scheme);
    let scheme = scheme.ok_or_else(|| {
        wrong("has a scheme that cannot be pulled from; there are s3, gs, az, https and oci")
    })?;
    if text.len() > LONGEST {
        return Err(wrong(&format!("is longer than {LONGEST} characters")));
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong("has a space or a control character in it"));
    }
    match scheme {
        Scheme::S3 | Scheme::Gs | Scheme::Az => bucket(scheme, rest, wrong),
        Scheme::Https | Scheme::Oci => host(scheme, rest, wrong),
    }
}

/// `bucket/key`: what is behind the bucket is a key to the last character.
fn bucket(
    scheme: Scheme,
    rest: &str,
    wrong: impl Fn(&str) -> InvalidSource,
) -> Result<Address, InvalidSource> {
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    // The name becomes a part of a host's name.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if bucket.is_empty() || !bucket.chars().all(plain) || bucket.contains("..") {
        return Err(wrong("does not begin with the name of a bucket or an account"));
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if !path.is_empty() && path.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return Err(wrong("has an empty part, a `.` or a `..` in its path"));
    }
    Ok(Address { scheme, authority: bucket.to_owned(), path: path.to_owned(), query: None })
}

/// A URL: hosts, ports and dots are what the URL standard makes of them, since that is where the
/// request goes.
fn host(scheme: Scheme, rest: &str, wrong: impl Fn(&str) -> InvalidSource) -> Result<Address, InvalidSource> {
    let url =
        Url::parse(&format!("https://{rest}")).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user in it; give user and password as credentials, which are never kept"));
    }
    if url.fragment().is_some() || (scheme == Scheme::Oci && url.query().is_some()) {
        return Err(wrong("has a `#` or `?` where none makes sense"));
    }
    let path = url.path().trim_start_matches('/').to_owned();
    if scheme == Scheme::Oci && path.contains('@') {
        return Err(wrong("has a digest in it; give the digest on its own"));
    }
    Ok(Address { scheme, authority: authority(&url), path, query: url.query().map(str::to_owned) })
}

/// Host and port as an address has them.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    // Of the scheme's own port the URL says nothing.
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn invalid(text: &str, why: &str) -> InvalidSource {
    // What follows a `?` or stands before an `@` may be a secret.
    let text = text.split('?').next().unwrap_or_default();
    let text = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => text.to_owned(),
    };
    InvalidSource { text, why: why.to_owned() }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = SCHEMES.iter().find(|(_, scheme)| *scheme == self.scheme).map_or("", |(name, _)| name);
        write!(f, "{scheme}://{}/{}", self.authority, self.path)?;
        if self.query.is_some() { f.write_str("?…") } else { Ok(()) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

const ALGORITHM: &str = "sha256:";

impl FromStr for Sha256 {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let expected = || invalid(text, "is not a digest; expected `sha256:` and 64 hexadecimal digits");
        let digits = text.strip_prefix(ALGORITHM).ok_or_else(expected)?;
        // The digest of a catalog has the same form with another algorithm.
        let digest: sconce_catalog::Digest = digits.parse().map_err(|_| expected())?;
        Ok(Self(*digest.as_bytes()))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALGORITHM)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_address_is_shown_as_it_was_written_but_for_what_may_be_a_secret() {
        for text in [
            "s3://models/fraud/7.pt",
            "gs://models/a b".replace(' ', "%20").as_str(),
            "az://account/container/fraud.pt",
            "https://models.example.com:8443/fraud.pt",
            "oci://registry.example.com/models/fraud:7",
        ] {
            assert_eq!(address(text).to_string(), text);
        }
        let signed = address("https://b.s3.amazonaws.com/fraud.pt?X-Amz-Signature=secret");
        assert_eq!(signed.to_string(), "https://b.s3.amazonaws.com/fraud.pt?…");
        assert_eq!(signed.https("fraud.pt").expect("a URL").query(), Some("X-Amz-Signature=secret"));
    }

    #[test]
    fn what_cannot_be_pulled_from_is_refused_with_what_can() {
        for (text, says) in [
            ("fraud.pt", "expected one of s3://"),
            ("http://models.example.com/fraud.pt", "serve it over https"),
            ("ftp://models.example.com/fraud.pt", "there are s3, gs, az, https and oci"),
            ("s3://models", "a bucket and a key"),
            ("s3:///fraud.pt", "name of a bucket"),
            ("s3://models@evil/fraud.pt", "name of a bucket"),
            ("s3://models/../fraud.pt", "`..`"),
            ("az://account/fraud.pt", "az://account/models"),
            ("https://models.example.com/", "a path"),
            ("https://user:secret@models.example.com/fraud.pt", "give user and password as credentials"),
            ("oci://registry.example.com/fraud@sha256:00", "give the digest on its own"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
        for text in ["", "sha256:00", &"a".repeat(64), &format!("md5:{}", "a".repeat(64))] {
            assert!(text.parse::<Sha256>().is_err(), "{text:?}");
        }
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(digest.parse::<Sha256>().map(|digest| digest.to_string()), Ok(digest));
    }

    #[test]
    fn a_prefix_ends_where_a_part_ends() {
        let below = |text: &str, prefix: &str| {
            address(text).is_below(&Address::prefix(prefix).unwrap_or_else(|error| panic!("{error}")))
        };
        assert!(below("s3://models/fraud/7.pt", "s3://models"));
        assert!(below("s3://models/fraud/7.pt", "s3://models/fraud/"));
        assert!(!below("s3://models/fraudulent/7.pt", "s3://models/fraud"));
        assert!(!below("s3://models-of-others/fraud", "s3://models"));
        assert!(!below("gs://models/fraud", "s3://models"));
        assert!(below("oci://r.example.com/ml/fraud:7", "oci://r.example.com/ml/fraud"));
        assert!(below("https://a.example.com:443/x", "https://a.example.com/"));
        assert!(!below("https://a.example.com.evil.example/x", "https://a.example.com"));
        assert!(!below("https://a.example.com/models/%2e%2e/secret", "https://a.example.com/models"));
    }
}

//! The places that bytes come from, behind one way to read them.

use super::{
    Source,
    address::{Scheme, Sha256},
    credentials::Credentials,
    failure::PullError,
    web::{Stream, Web},
};

mod bucket;
mod registry;

/// A source that has been found.
pub(super) enum Origin {
    /// A file behind a URL, with what it takes to read it.
    File { url: url::Url, headers: http::HeaderMap, tag: Option<http::HeaderValue> },
    /// An object of a bucket.
    Object(bucket::Object),
}

/// What is left of a file to read.
pub(super) struct Body {
    /// Where it begins: at the beginning, where the source cannot go on in the middle.
    pub(super) from: u64,
    /// Size of the whole, where the source says.
    pub(super) total: Option<u64>,
    pub(super) stream: Stream,
}

impl Origin {
    /// Finds a source, and the digest that its bytes must have.
    pub(super) async fn find(
        web: &Web,
        source: &Source,
        credentials: &Credentials,
    ) -> Result<(Self, Sha256), PullError> {
        let address = &source.address;
        web.policy().permits(address)?;
        Ok(match address.scheme {
            Scheme::Https => {
                let url =
                    address.https(&address.path).map_err(|error| PullError::Invalid(error.to_string()))?;
                let authorization = credentials.authorization();
                let headers = authorization.map(|value| (http::header::AUTHORIZATION, value)).into_iter();
                (Self::File { url, headers: headers.collect(), tag: None }, source.digest)
            }
            Scheme::Oci => registry::find(web, source, credentials).await?,
            Scheme::S3 | Scheme::Gs | Scheme::Az => {
                (Self::Object(bucket::Object::open(web, address, credentials)?), source.digest)
            }
        })
    }

    /// Reads from a place on.
    pub(super) async fn read(&mut self, web: &Web, source: &Source, from: u64) -> Result<Body, PullError> {
        match self {
            Self::File { url, headers, tag } => {
                web.file(&source.address, url.clone(), headers.clone(), from, tag).await
            }
            Self::Object(object) => object.read(&source.address, from).await,
        }
    }
}

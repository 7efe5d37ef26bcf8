//! Bodies that travel compressed: by gzip, or by deflate in its zlib form.
//!
//! No others, on the way out either: clients of the protocol undo these two by hand, and
//! one of them cannot be taught a third.

use std::io::{self, Read as _, Write as _};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{
    Compression,
    read::{MultiGzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};
use http::{HeaderMap, HeaderValue, header};
use hyper::body::Body as _;

use super::{super::error::ServeError, frames::Frames};

/// A way to make a body smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

/// An answer with fewer bytes fits one packet as it is.
const WORTH_IT: u64 = 1024;

impl Coding {
    fn named(name: &str) -> Option<Self> {
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                Some(Self::Gzip)
            }
            name if name.eq_ignore_ascii_case("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// The body of a request as it was before it was compressed. `limit` holds for that, too: a
/// few bytes can stand for more than there is memory.
pub(super) async fn decode(headers: &HeaderMap, body: Bytes, limit: usize) -> Result<Bytes, ServeError> {
    let Some(coding) = sent(headers)? else { return Ok(body) };
    blocking(move || inflate(coding, &body, limit)).await?
}

fn sent(headers: &HeaderMap) -> Result<Option<Coding>, ServeError> {
    let values: Vec<_> =
        headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    let text = String::from_utf8_lossy(&values.join(&b", "[..])).into_owned();
    if text.trim().is_empty() || text.trim().eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Coding::named(&text).map(Some).ok_or(ServeError::Encoding(text))
}

fn inflate(coding: Coding, body: &[u8], limit: usize) -> Result<Bytes, ServeError> {
    // One byte more than is accepted tells that there are more.
    let (most, mut plain) = (limit as u64 + 1, Vec::new());
    let read = match coding {
        Coding::Gzip => MultiGzDecoder::new(body).take(most).read_to_end(&mut plain),
        Coding::Deflate => ZlibDecoder::new(body).take(most).read_to_end(&mut plain),
    };
    read.map_err(|error| ServeError::Malformed(format!("the body is not {}: {error}", coding.name())))?;
    if plain.len() > limit {
        return Err(ServeError::TooLarge { limit });
    }
    Ok(plain.into())
}

/// What the caller would have its answer compressed by, if by anything.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best: (Option<Coding>, f32) = (None, 0.0);
    for item in values.flat_map(|value| value.split(',')) {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(1.0, |q| q.parse().unwrap_or(0.0));
        let coding = Coding::named(name);
        let known = coding.is_some() || name.trim().eq_ignore_ascii_case("identity");
        if known && weight > best.1 {
            best = (coding, weight);
        }
    }
    best.0
}

/// The reply, compressed where that was asked for and is worth it.
pub(super) async fn encode(reply: Response<Frames>, coding: Option<Coding>) -> Result<Response, ServeError> {
    let Some(coding) = coding.filter(|_| reply.body().size_hint().lower() >= WORTH_IT) else {
        return Ok(reply.map(Body::new));
    };
    let (mut parts, frames) = reply.into_parts();
    // Memory is all that is written to, so only a bug can fail here.
    let body = blocking(move || deflate(coding, frames)).await?.map_err(|_| ServeError::Panicked)?;
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn deflate(coding: Coding, frames: Frames) -> io::Result<Vec<u8>> {
    // Somebody waits for the answer, so speed goes before size.
    let level = Compression::fast();
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            frames.into_iter().try_for_each(|buffer| encoder.write_all(&buffer))?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            frames.into_iter().try_for_each(|buffer| encoder.write_all(&buffer))?;
            encoder.finish()
        }
    }
}

/// Compression of megabytes is no work for a thread that answers others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ServeError::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        accepted(&headers)
    }

    #[test]
    fn the_caller_chooses_among_what_is_known_here() {
        assert_eq!(chosen("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(chosen("br, deflate;q=0.9, gzip;q=0.1"), Some(Coding::Deflate));
        assert_eq!(chosen("br, zstd, *"), None);
        assert_eq!(chosen("gzip;q=0"), None);
        assert_eq!(chosen("identity, gzip;q=0.5"), None);
        assert_eq!(chosen("GZIP ; q=0.5"), Some(Coding::Gzip));
    }

    #[test]
    fn codings_on_top_of_each_other_are_refused_by_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(sent(&headers).unwrap(), Some(Coding::Gzip));
        headers.append(header::CONTENT_ENCODING, "deflate".parse().unwrap());
        assert!(sent(&headers).unwrap_err().to_string().contains("gzip, deflate"));
    }
}

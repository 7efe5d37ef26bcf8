//! Callers that are answered by the same version each time, whichever pod they reach.
//!
//! Nobody remembers anybody: a caller is what one header of its requests says, and its place on the
//! line of shares is a hash of that. Every pod has the same shares, so every pod decides alike.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ModelName, Share};

/// A request header (in gRPC: metadata) whose value says who is calling, such as `x-user-id`. Lower
/// case, as HTTP/2 has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StickyHeader(String);

/// Text that is no header by which callers could be told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no header that callers can be known by: {why}; name one such as `x-user-id`")]
pub struct InvalidStickyHeader {
    text: String,
    why: &'static str,
}

/// Where on the line of a model's shares a caller is: from 0 to 9,999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

/// Headers of one connection, which the next hop does not get (RFC 9110, section 7.6.1), and those
/// that say nothing of the caller.
const NOT_THE_CALLERS: [&str; 11] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];
/// Longer names are nobody's.
const LONGEST: usize = 64;

impl StickyHeader {
    /// Its name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Place {
    /// The place of whoever sends this value, for this model: the first eight bytes of BLAKE3 over
    /// `namespace/name`, a zero byte and the value, as a little-endian number, modulo 10,000. The name
    /// is the salt: who gets the canary of one model does not get that of every other.
    ///
    /// `None` where the value is empty, which names nobody.
    ///
    /// Pods of different releases must agree, so this never changes.
    pub fn of(model: &ModelName, value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(model.namespace().as_bytes()).update(b"/").update(model.name().as_bytes());
        hasher.update(&[0]).update(value);
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        let line = u64::from(Share::WHOLE.ten_thousandths());
        // Below 10,000, so it fits.
        Some(Self((u64::from_le_bytes(first) % line) as u32))
    }

    /// From 0 to 9,999.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for StickyHeader {
    type Err = InvalidStickyHeader;

    fn from_str(text: &str) -> Result<Self, InvalidStickyHeader> {
        let name = text.to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let why = match name.as_str() {
            name if name.is_empty() || name.len() > LONGEST || !name.bytes().all(token) => {
                "a header's name is a token of at most 64 characters"
            }
            name if NOT_THE_CALLERS.contains(&name) => "it says nothing of the caller",
            name if name.starts_with("x-sconce-") => "Sconce sets it itself",
            // Its text differs from client to client.
            name if name.ends_with("-bin") => "binary metadata of gRPC has more than one spelling",
            _ => return Ok(Self(name)),
        };
        Err(InvalidStickyHeader { text: text.to_owned(), why })
    }
}

impl TryFrom<String> for StickyHeader {
    type Error = InvalidStickyHeader;

    fn try_from(text: String) -> Result<Self, InvalidStickyHeader> {
        text.parse()
    }
}

impl From<StickyHeader> for String {
    fn from(header: StickyHeader) -> Self {
        header.0
    }
}

impl fmt::Display for StickyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(model: &str, value: &str) -> Option<u32> {
        Place::of(&model.parse().expect("valid"), value.as_bytes()).map(Place::get)
    }

    /// Pods of another release have the same numbers.
    #[test]
    fn a_callers_place_never_changes() {
        let known = [("fraud", "alice", 5_432), ("ml/fraud", "alice", 419), ("ml/fraud", "bob", 7_979)];
        for (model, value, expected) in known {
            assert_eq!(place(model, value), Some(expected), "{model} {value}");
        }
        assert_eq!(place("ml/fraud", ""), None, "nobody");
    }

    #[test]
    fn callers_are_spread_evenly_and_anew_for_each_model() {
        let of = |model: &'static str| {
            (0..20_000).map(move |n| place(model, &format!("user {n}")).expect("a place"))
        };
        let mut tenths = [0_u32; 10];
        for place in of("fraud") {
            tenths[place as usize / 1_000] += 1;
        }
        // 2,000 each; the standard deviation of a tenth is 42, and this is five of them.
        assert!(tenths.iter().all(|count| count.abs_diff(2_000) < 212), "{tenths:?}");
        let both = of("fraud").zip(of("churn")).filter(|(one, other)| *one < 1_000 && *other < 1_000).count();
        // A tenth of a tenth: 200, whose standard deviation is 14.
        assert!(both.abs_diff(200) < 71, "{both} are canaries of both");
    }

    #[test]
    fn a_header_that_tells_no_callers_apart_is_refused_with_the_reason() {
        let header = |text: &str| text.parse::<StickyHeader>();
        assert_eq!(header("X-User-ID").expect("valid").as_str(), "x-user-id");
        let long = "x".repeat(65);
        for (text, why) in [
            ("", "token"),
            ("x user", "token"),
            (":path", "token"),
            (long.as_str(), "64 characters"),
            ("Host", "nothing of the caller"),
            ("x-sconce-pin", "itself"),
            ("user-bin", "binary"),
        ] {
            let error = header(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}

//! Names that people choose.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A model's name: a namespace and a DNS label, written `namespace/name`.
///
/// Text without a `/` is a name in the namespace `default`, and a name there is
/// printed without it, as `kubectl` does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ModelName {
    namespace: String,
    name: String,
}

/// A version's name: immutable, chosen by whoever pushed it, such as `7` or `2026-11-22`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version(String);

/// A name that breaks a rule, with the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

const DEFAULT_NAMESPACE: &str = "default";
const LABEL_RULE: &str =
    "use 1 to 63 lower-case letters, digits and '-', beginning and ending with a letter or digit";
const VERSION_RULE: &str = "use 1 to 63 letters, digits, '.', '_' and '-', beginning and ending with a letter or digit, and not the word `auto`";

impl ModelName {
    /// A name in a namespace.
    ///
    /// # Errors
    /// Where either is no DNS label (RFC 1123).
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        for (what, text) in [("namespace", namespace), ("model name", name)] {
            if !is_dns_label(text) {
                return Err(InvalidName { what, text: text.to_owned(), rule: LABEL_RULE });
            }
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The namespace, `default` where none was written.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name without its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Version {
    /// The text as it was chosen.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, where the version is a plain decimal number.
    pub fn number(&self) -> Option<u64> {
        // Not "+7", and not "007", which is another version than "7".
        let plain = self.0.bytes().all(|b| b.is_ascii_digit()) && (self.0 == "0" || !self.0.starts_with('0'));
        plain.then(|| self.0.parse().ok()).flatten()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace == DEFAULT_NAMESPACE {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ModelName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
        Self::new(namespace, name)
    }
}

impl FromStr for Version {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let valid = bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
            && text != "auto";
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName { what: "version", text: text.to_owned(), rule: VERSION_RULE })
        }
    }
}

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

macro_rules! text_conversions {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.to_string()
            }
        }
    )*};
}
text_conversions!(ModelName, Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_namespace_lives_in_default() {
        let name: ModelName = "fraud".parse().expect("valid");
        assert_eq!((name.namespace(), name.name()), ("default", "fraud"));
        assert_eq!(name.to_string(), "fraud");
        assert_eq!("default/fraud".parse(), Ok(name));
        assert_eq!("pay/fraud".parse::<ModelName>().expect("valid").to_string(), "pay/fraud");
    }

    #[test]
    fn names_that_could_not_be_a_service_are_refused() {
        for text in ["", "Fraud", "a/b/c", "-a", "a-", "a_b", "../x", "/x", "x/", &"a".repeat(64)] {
            assert!(text.parse::<ModelName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn versions_that_could_not_be_a_path_segment_are_refused() {
        for text in ["", ".", "..", "a/b", "v 1", "auto", "-1", "1.", &"1".repeat(64)] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
        for text in ["7", "v10", "2026-11-22", "1.2.3_rc1"] {
            assert!(text.parse::<Version>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn only_plain_numbers_count_up() {
        let number = |text: &str| text.parse::<Version>().expect("valid").number();
        assert_eq!(number("12"), Some(12));
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("007"), None);
        assert_eq!(number("v1"), None);
    }
}

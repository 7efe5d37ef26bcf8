//! Which sidecars serve a model.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a sidecar says of itself, such as `team=pay`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

/// The labels a sidecar must carry to serve a model; empty means every sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(Labels);

/// Text that is no list of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of labels; write it as `team=pay,tier=edge`")]
pub struct InvalidLabel(String);

impl Labels {
    /// The labels with these keys and values.
    ///
    /// # Errors
    /// Where a key is empty, or a key or value holds `=`, `,`, white space or control characters,
    /// or is longer than 253 bytes.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, InvalidLabel> {
        let bad = |text: &str| {
            text.len() > 253
                || text.chars().any(|c| c == '=' || c == ',' || c.is_whitespace() || c.is_control())
        };
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            if key.is_empty() || bad(&key) || bad(&value) {
                return Err(InvalidLabel(format!("{key}={value}")));
            }
            labels.insert(key, value);
        }
        Ok(Self(labels))
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Selector {
    /// The selector that asks for these labels.
    pub fn new(labels: Labels) -> Self {
        Self(labels)
    }

    /// The labels asked for.
    pub fn labels(&self) -> &Labels {
        &self.0
    }

    /// Whether a sidecar with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.0.iter().all(|(key, value)| labels.0.get(key) == Some(value))
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Labels {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let pairs = text.split(',').filter(|part| !part.is_empty()).map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(|| InvalidLabel(text.to_owned()))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        });
        Self::new(pairs.collect::<Result<Vec<_>, InvalidLabel>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.parse().expect("valid labels")
    }

    #[test]
    fn a_selector_matches_supersets_only() {
        let selector = Selector::new(labels("team=pay,tier=edge"));
        assert!(selector.matches(&labels("team=pay,tier=edge,zone=a")));
        assert!(!selector.matches(&labels("team=pay")));
        assert!(!selector.matches(&labels("team=pay,tier=core")));
        assert!(Selector::default().matches(&Labels::default()));
    }

    #[test]
    fn text_that_is_no_list_of_labels_is_refused() {
        for text in ["team", "=pay", "a=b=c", "a=b c"] {
            assert!(text.parse::<Labels>().is_err(), "{text:?}");
        }
    }
}

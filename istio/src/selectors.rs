//! What the injector has to know of a namespace's models: by which labels they ask for pods.
//!
//! The injector has no database and asks no control plane, so that pods can be made whatever else is
//! down. The control plane writes the selectors onto the one Service that it keeps in each namespace
//! with models, and the injector watches these Services.

use std::collections::BTreeMap;

use sconce_catalog::{Labels, Selector};
use serde_json::Value;

use crate::names::SELECTORS_ANNOTATION;

/// The selectors of a namespace's models, by the model's name. A selector without labels is never
/// among them: it lets every sidecar serve the model, and asks for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors(BTreeMap<String, Selector>);

impl Selectors {
    /// Whether none of them asks for anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first model by name that asks for a pod with these labels, and its selector.
    pub fn asking(&self, labels: &Labels) -> Option<(&str, &Selector)> {
        let mut asking = self.0.iter().filter(|(_, selector)| selector.matches(labels));
        asking.next().map(|(model, selector)| (model.as_str(), selector))
    }

    /// As an annotation has them: `{"fraud":{"team":"pay"}}`.
    pub fn to_text(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// What the Service of a namespace says. One that says nothing, or nothing that can be
    /// understood, asks for no pod.
    pub fn of(service: &Value) -> Self {
        Self::read(service["metadata"]["annotations"][SELECTORS_ANNOTATION].as_str())
    }

    /// What the annotation says.
    pub fn read(text: Option<&str>) -> Self {
        let models: BTreeMap<String, Selector> =
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        models.into_iter().collect()
    }
}

impl FromIterator<(String, Selector)> for Selectors {
    fn from_iter<I: IntoIterator<Item = (String, Selector)>>(models: I) -> Self {
        Self(models.into_iter().filter(|(_, selector)| !selector.labels().is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.parse().expect("labels")
    }

    fn selectors() -> Selectors {
        let models = [("fraud", "team=pay,tier=edge"), ("everywhere", ""), ("churn", "team=pay")];
        models.map(|(model, asked)| (model.to_owned(), Selector::new(labels(asked)))).into_iter().collect()
    }

    #[test]
    fn a_selector_without_labels_asks_for_no_pod() {
        let selectors = selectors();
        assert_eq!(selectors.asking(&labels("team=ads")), None);
        assert_eq!(selectors.asking(&Labels::default()), None);
        assert_eq!(selectors.asking(&labels("team=pay,tier=edge")).map(|(model, _)| model), Some("churn"));
        // Nor does one that somebody has written into the annotation.
        let forged = Selectors::read(Some(r#"{"everywhere":{},"fraud":{"team":"pay"}}"#));
        assert_eq!(forged.asking(&labels("team=ads")), None);
    }

    #[test]
    fn selectors_survive_their_annotation_and_nonsense_asks_for_nothing() {
        let selectors = selectors();
        assert_eq!(Selectors::read(Some(&selectors.to_text())), selectors);
        for text in [None, Some(""), Some("[]"), Some(r#"{"fraud":"team=pay"}"#), Some("{")] {
            assert!(Selectors::read(text).is_empty(), "{text:?}");
        }
    }
}

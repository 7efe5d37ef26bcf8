//! `Model` and `ModelVersion` as the API server has them.
//!
//! Each is read on its own: one that an older or newer schema let in is told so itself, and keeps
//! nobody from reading the others.

use std::{collections::BTreeMap, fmt};

use sconce_catalog::{Labels, ModelName, Selector, Share, Split, Version};
use serde::Deserialize;
use serde_json::Value;

use super::status::Status;
use crate::{pull::Source, store::Sticky};

/// What both kinds belong to.
pub(super) const GROUP: &str = "sconce.dev";
pub(super) const API_VERSION: &str = "v1alpha1";
/// Keeps a ModelVersion until its version is gone from the catalog.
pub(super) const FINALIZER: &str = "sconce.dev/version";

/// The kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Model,
    Version,
}

/// One object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    pub(super) uid: String,
    pub(super) resource_version: String,
    pub(super) generation: i64,
    pub(super) created: String,
    pub(super) deleting: bool,
    pub(super) finalizers: Vec<String>,
    pub(super) spec: Value,
    pub(super) status: Status,
}

/// What a `Model` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelSpec {
    pub(super) selector: Option<Selector>,
    pub(super) split: Option<Split>,
    /// By what callers are known; as it is, where nothing is said.
    pub(super) sticky: Sticky,
}

/// What a `ModelVersion` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VersionSpec {
    pub(super) model: ModelName,
    pub(super) version: Version,
    pub(super) source: Source,
    pub(super) secret: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Model => "Model",
            Kind::Version => "ModelVersion",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Version => "modelversions",
        }
    }
}

impl ObjectId {
    /// Who this object is when it changes the catalog. No token and no certificate has such a name.
    pub(super) fn principal(&self) -> String {
        format!("kubernetes:{}/{}/{}", self.kind.plural(), self.namespace, self.name)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

impl Object {
    /// Reads an object; `None` where it has no name.
    pub(super) fn read(kind: Kind, object: &Value) -> Option<Self> {
        let metadata = &object["metadata"];
        let text = |key: &str| metadata[key].as_str().map(str::to_owned);
        let finalizers = metadata["finalizers"].as_array().into_iter().flatten();
        Some(Self {
            id: ObjectId { kind, namespace: text("namespace")?, name: text("name")? },
            uid: text("uid").unwrap_or_default(),
            resource_version: text("resourceVersion").unwrap_or_default(),
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            created: text("creationTimestamp").unwrap_or_default(),
            deleting: !metadata["deletionTimestamp"].is_null(),
            finalizers: finalizers.filter_map(Value::as_str).map(str::to_owned).collect(),
            spec: object["spec"].clone(),
            // One that is not understood is written anew.
            status: serde_json::from_value(object["status"].clone()).unwrap_or_default(),
        })
    }

    /// Whether it waits for us before it goes.
    pub(super) fn is_held(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
    }

    pub(super) fn model_name(&self) -> Result<ModelName, String> {
        ModelName::new(&self.id.namespace, &self.id.name).map_err(|error| error.to_string())
    }

    pub(super) fn model(&self) -> Result<ModelSpec, String> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            selector: Option<Labelled>,
            split: Option<Vec<Shared>>,
            sticky_header: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Labelled {
            match_labels: BTreeMap<String, String>,
        }
        #[derive(Deserialize)]
        struct Shared {
            version: Version,
            share: u32,
        }
        let spec: Spec =
            serde_json::from_value(self.spec.clone()).map_err(|error| format!("spec: {error}"))?;
        let labels = spec.selector.map(|selector| Labels::new(selector.match_labels)).transpose();
        let shares = spec.split.map(|shares| {
            let shares = shares.into_iter().map(|of| Ok((of.version, Share::new(of.share)?)));
            Split::new(shares.collect::<Result<Vec<_>, sconce_catalog::InvalidSplit>>()?)
        });
        Ok(ModelSpec {
            selector: labels.map_err(|error| format!("spec.selector: {error}"))?.map(Selector::new),
            split: shares.transpose().map_err(|error| format!("spec.split: {error}"))?,
            sticky: Sticky::read(spec.sticky_header.as_deref())
                .map_err(|error| format!("spec.stickyHeader: {error}"))?,
        })
    }

    pub(super) fn version(&self) -> Result<VersionSpec, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spec {
            model: String,
            version: Version,
            source: From,
            #[serde(default)]
            metadata: BTreeMap<String, String>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct From {
            address: String,
            digest: String,
            secret_ref: Option<Named>,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let spec: Spec =
            serde_json::from_value(self.spec.clone()).map_err(|error| format!("spec: {error}"))?;
        let wrong = |field: &str, error: &dyn fmt::Display| format!("spec.{field}: {error}");
        Ok(VersionSpec {
            model: ModelName::new(&self.id.namespace, &spec.model).map_err(|error| wrong("model", &error))?,
            version: spec.version,
            source: Source {
                address: spec.source.address.parse().map_err(|error| wrong("source.address", &error))?,
                digest: spec.source.digest.parse().map_err(|error| wrong("source.digest", &error))?,
            },
            secret: spec.source.secret_ref.map(|named| named.name),
            metadata: spec.metadata,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A ModelVersion of `ml`, as it is after it was applied.
    pub(in crate::declared) fn version(name: &str, version: &str, address: &str, digest: &str) -> Value {
        json!({
            "metadata": { "name": name, "namespace": "ml" },
            "spec": { "model": "fraud", "version": version, "source": { "address": address, "digest": digest } },
        })
    }

    /// What the API server does not know of a status it throws away, without a word.
    #[test]
    fn the_charts_definitions_have_the_names_and_fields_that_are_used_here() {
        let keys = |object: &Value| -> std::collections::BTreeSet<String> {
            object.as_object().expect("an object").keys().cloned().collect()
        };
        let mut status = Status::of(1);
        status.say("Ready", true, "Ready", "");
        let written = serde_json::to_value(&status).expect("JSON");
        let mut known = std::collections::BTreeSet::new();
        for kind in [Kind::Model, Kind::Version] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../istio/chart/resources");
            let text = std::fs::read_to_string(format!("{folder}/{}.yaml", kind.plural())).expect("there");
            let definition: Value = serde_saphyr::from_str(&text).expect("YAML");
            let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
            assert_eq!(definition["metadata"]["name"], format!("{}.{GROUP}", kind.plural()));
            assert_eq!((&names["kind"], &spec["group"]), (&json!(kind.name()), &json!(GROUP)));
            assert_eq!(spec["versions"][0]["name"], API_VERSION);
            let fields =
                &spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
            let condition = &fields["conditions"]["items"]["properties"];
            assert_eq!(keys(condition), keys(&written["conditions"][0]));
            known.extend(keys(fields));
        }
        assert_eq!(known, keys(&written));
    }

    #[test]
    fn an_object_says_what_is_wrong_with_it_by_the_field() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let read = |object: &Value| Object::read(Kind::Version, object).expect("an object").version();
        let fine = version("fraud-7", "7", "s3://models/7.pt", &digest);
        let spec = read(&fine).expect("valid");
        assert_eq!((spec.model.to_string(), spec.version.as_str()), ("ml/fraud".into(), "7"));
        for (object, says) in [
            (version("a", "auto", "s3://models/7.pt", &digest), "auto"),
            (version("a", "7", "http://models/7.pt", &digest), "spec.source.address"),
            (version("a", "7", "s3://models/7.pt", "sha256:00"), "spec.source.digest"),
            (json!({ "metadata": { "name": "a", "namespace": "ml" } }), "spec"),
        ] {
            let error = read(&object).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
        let model = |spec: Value| {
            let object = json!({ "metadata": { "name": "fraud", "namespace": "ml" }, "spec": spec });
            Object::read(Kind::Model, &object).expect("an object").model()
        };
        let spec =
            model(json!({ "split": [{ "version": "1", "share": 9_500 }, { "version": "2", "share": 500 }] }));
        assert_eq!(spec.expect("valid").split.expect("a split").to_string(), "1=95 %, 2=5 %");
        assert_eq!(model(json!({})), Ok(ModelSpec { selector: None, split: None, sticky: Sticky::AsItIs }));
        let sticky = |text: &str| model(json!({ "stickyHeader": text })).map(|spec| spec.sticky);
        assert_eq!(sticky("X-User-Id"), Ok(Sticky::By(Some("x-user-id".parse().expect("valid")))));
        assert_eq!(sticky(""), Ok(Sticky::By(None)));
        assert!(sticky("host").expect_err("no caller's").starts_with("spec.stickyHeader"));
        let short = model(json!({ "split": [{ "version": "1", "share": 9_500 }] })).expect_err("95 %");
        assert!(short.contains("spec.split") && short.contains("95 %"), "{short}");
    }
}

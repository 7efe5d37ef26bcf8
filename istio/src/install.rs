//! An installation as objects: the chart's own output, for those who install without helm.
//!
//! The text is `manifests/`, which `scripts/manifests.sh` renders from the chart and checks
//! against it. What can be chosen here is what nobody can do without; everything else is the
//! chart's business.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};

use crate::workload;

/// Where Sconce runs unless somebody says otherwise; also what `manifests/` say.
pub const NAMESPACE: &str = "sconce-system";
/// Who `sconce install` is in `managedFields`. Not the control plane's name: what is installed
/// and what is published have different owners.
pub const FIELD_MANAGER: &str = "sconce-install";
/// The control plane's Deployment, Service, ServiceAccount and data volume.
pub const CONTROL_PLANE: &str = "sconce";
/// The Deployment of the webhook, and its ConfigMap of settings.
pub const INJECTOR: &str = "sconce-injector";
/// The webhook's Service, and the Secret in which its replicas keep their keys.
pub const WEBHOOK: &str = "sconce-webhook";
/// The webhook's registration.
pub const REGISTRATION: &str = "a.sconce-injector";
/// The Lease of whichever control plane publishes.
pub const LEASE: &str = "sconce-publisher";
/// The Lease of whichever control plane reconciles models that are objects.
pub const RECONCILER_LEASE: &str = "sconce-reconciler";
/// The API group of those, and what their finalizers begin with.
pub const GROUP: &str = "sconce.dev";
/// On everything that is installed, with the value `sconce`.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

const MANIFESTS: [&str; 2] =
    [include_str!("../manifests/namespace.yaml"), include_str!("../manifests/sconce.yaml")];

/// What can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where Sconce runs.
    pub namespace: String,
    /// What its images are called.
    pub image: Image,
    /// Whether what was pushed goes with the control plane's pod.
    pub ephemeral: bool,
}

/// What the images are called: `<prefix>-control-plane:<tag>`, `<prefix>-sidecar:<tag>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    prefix: String,
    tag: String,
}

/// Text that names no images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no images; write what stands before `-control-plane` and `-sidecar`, and the tag, \
     such as `registry.example.org/sconce:{version}`",
    version = env!("CARGO_PKG_VERSION")
)]
pub struct InvalidImage(String);

/// Everything that is installed, in the order in which it is applied: what is needed by others
/// first, and the webhook's registration last, because from then on labelled pods wait for it.
///
/// # Panics
/// Never: that the manifests can be read is tested.
pub fn objects(settings: &Settings) -> Vec<Value> {
    let all = MANIFESTS.iter().flat_map(|text| workload::documents(text).expect("`manifests/` are YAML"));
    let mut objects: Vec<Value> = all.filter_map(|document| document.value).collect();
    for object in &mut objects {
        each_text(object, &|text| settings.fill(text));
        if settings.ephemeral && is(object, "Deployment", CONTROL_PLANE) {
            forget_data(object);
        }
    }
    objects.retain(|object| !(settings.ephemeral && object["kind"] == "PersistentVolumeClaim"));
    objects.sort_by_key(|object| rank(object["kind"].as_str().unwrap_or_default()));
    objects
}

/// Whether it is the registration of a webhook, which comes after what answers it.
pub fn is_registration(object: &Value) -> bool {
    rank(object["kind"].as_str().unwrap_or_default()) == LAST
}

const LAST: usize = 6;

fn rank(kind: &str) -> usize {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" => 2,
        "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => 3,
        "Deployment" => 5,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => LAST,
        // ConfigMap, Service, PersistentVolumeClaim, PodDisruptionBudget, NetworkPolicy.
        _ => 4,
    }
}

fn is(object: &Value, kind: &str, name: &str) -> bool {
    object["kind"] == kind && object["metadata"]["name"] == name
}

/// An `emptyDir` in place of the claim.
fn forget_data(deployment: &mut Value) {
    let volumes = deployment.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten().filter(|volume| volume["name"] == "data") {
        *volume = json!({ "name": "data", "emptyDir": {} });
    }
}

fn each_text(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Settings {
    /// Also inside of texts: addresses, SPIFFE ids and the injector's settings name the namespace
    /// and the images too.
    fn fill(&self, text: &str) -> String {
        let (Image { prefix, tag }, default) = (&self.image, Image::default());
        ["control-plane", "sidecar"].iter().fold(text.replace(NAMESPACE, &self.namespace), |text, part| {
            let found = format!("{}-{part}:{}", default.prefix, default.tag);
            text.replace(&found, &format!("{prefix}-{part}:{tag}"))
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { namespace: NAMESPACE.into(), image: Image::default(), ephemeral: false }
    }
}

impl Image {
    /// The image of one part, such as `sidecar`.
    pub fn of(&self, part: &str) -> String {
        format!("{}-{part}:{}", self.prefix, self.tag)
    }
}

impl Default for Image {
    fn default() -> Self {
        Self { prefix: "sconce".into(), tag: env!("CARGO_PKG_VERSION").into() }
    }
}

impl FromStr for Image {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let invalid = || InvalidImage(text.to_owned());
        let name_at = text.rfind('/').map_or(0, |slash| slash + 1);
        // A colon before the last slash is a registry's port.
        let (prefix, tag) = match text[name_at..].split_once(':') {
            Some((name, tag)) => (format!("{}{name}", &text[..name_at]), tag.to_owned()),
            None => (text.to_owned(), Self::default().tag),
        };
        let name_begins =
            prefix[name_at..].starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let fits = |text: &str, more: &str| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        let valid = name_begins && fits(&prefix, "._-/:") && !tag.is_empty() && fits(&tag, "._-");
        if valid { Ok(Self { prefix, tag }) } else { Err(invalid()) }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.prefix, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_a_prefix_and_a_tag() {
        let image = |text: &str| text.parse::<Image>().map(|image| image.of("sidecar"));
        assert_eq!(image("localhost/sconce:dev").expect("valid"), "localhost/sconce-sidecar:dev");
        assert_eq!(
            image("r.example.org:5000/ml/sconce").expect("valid"),
            format!("r.example.org:5000/ml/sconce-sidecar:{}", env!("CARGO_PKG_VERSION"))
        );
        for text in ["", ":1", "a:", "a b:1", "registry.example.org/", "r/sconce@sha256:12", "a:1:2"] {
            assert!(image(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_others_need_comes_first_and_the_webhook_last() {
        let objects = objects(&Settings::default());
        let at = |kind: &str| objects.iter().position(|object| object["kind"] == kind).expect("there is one");
        let order = [
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ConfigMap",
            "Deployment",
            "MutatingWebhookConfiguration",
        ];
        assert!(order.is_sorted_by_key(|kind| at(kind)));
        assert!(is_registration(objects.last().expect("there is one")));
        assert_eq!(objects.iter().filter(|object| is_registration(object)).count(), 1);
    }

    #[test]
    fn the_namespace_and_the_images_are_the_chosen_ones_everywhere() {
        let image = "registry.example.org/ml/sconce:7".parse().expect("valid");
        let settings = Settings { namespace: "serving".into(), image, ephemeral: true };
        let text = serde_json::to_string(&objects(&settings)).expect("JSON");
        assert!(!text.contains(NAMESPACE), "{text}");
        assert!(!text.contains("\"sconce-control-plane:"), "{text}");
        for expected in [
            "registry.example.org/ml/sconce-control-plane:7",
            "image: registry.example.org/ml/sconce-sidecar:7",
            "spiffe://cluster.local/ns/serving/sa/operator=operator",
            "https://sconce.serving.svc.cluster.local:8440",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("PersistentVolumeClaim") && !text.contains("persistentVolumeClaim"));
    }

    #[test]
    fn everything_carries_the_label_by_which_it_is_recognised() {
        for object in objects(&Settings::default()) {
            if object["kind"] == "CustomResourceDefinition" {
                assert_eq!(object["spec"]["group"], GROUP, "{object}");
                continue;
            }
            assert_eq!(object["metadata"]["labels"][NAME_LABEL], "sconce", "{object}");
        }
    }
}

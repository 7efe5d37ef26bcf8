//! Whose objects those of a declared model are: with the `Model`, Kubernetes' garbage collector
//! takes them away, whether or not a control plane still runs.

use sconce_catalog::ModelName;
use serde_json::{Value, json};

use crate::names::{API_VERSION, MODEL_KIND};

/// The `Model` that declares a model. It has the model's own namespace and name, so that only its
/// uid has to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.uid` of the `Model`. Another object of the same name, made later, is another owner.
    pub uid: String,
}

impl Owner {
    /// Not `blockOwnerDeletion`: nothing has to be gone before the `Model` may go, and where the
    /// admission plugin `OwnerReferencesPermissionEnforcement` is on, setting it asks for the right to
    /// update `models/finalizers`.
    pub(super) fn reference(&self, model: &ModelName) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "controller": true,
            "kind": MODEL_KIND,
            "name": model.name(),
            "uid": self.uid,
        })
    }
}

/// Which `Model` an object of ours, as a cluster holds it, belongs to.
pub fn owner(object: &Value) -> Option<Owner> {
    let references = object["metadata"]["ownerReferences"].as_array()?;
    let model = references
        .iter()
        .find(|reference| reference["apiVersion"] == API_VERSION && reference["kind"] == MODEL_KIND)?;
    Some(Owner { uid: model["uid"].as_str()?.to_owned() })
}

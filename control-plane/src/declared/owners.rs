//! Which models a `Model` declares, for whoever publishes them: what is published for a declared
//! model belongs to that object, and is collected with it.

use std::{collections::BTreeMap, sync::Arc};

use sconce_catalog::ModelName;
use sconce_istio::render::Owner;
use tokio::sync::watch;

use super::{cluster::Observed, objects::Kind};

/// The `Model` of each declared model. `None` until they have been listed: nothing follows from an
/// object that has not been seen yet.
pub(crate) type Owners = Option<Arc<BTreeMap<ModelName, Owner>>>;

/// Nobody declares anything.
pub(crate) fn nobody() -> Owners {
    Some(Arc::default())
}

/// Keeps `owners` what is observed, until nothing is observed any more.
pub(super) async fn follow(mut observed: watch::Receiver<Observed>, owners: &watch::Sender<Owners>) {
    loop {
        let next = of(&observed.borrow_and_update());
        owners.send_if_modified(|owners| {
            let news = *owners != next;
            *owners = next;
            news
        });
        if observed.changed().await.is_err() {
            return;
        }
    }
}

fn of(observed: &Observed) -> Owners {
    if !observed.listed.contains(&Kind::Model) {
        return None;
    }
    // One that is on its way out has nothing any more: who deletes it with `--cascade=orphan` wants
    // to keep what is published.
    let models = observed.objects.values().filter(|object| object.id.kind == Kind::Model && !object.deleting);
    let owner = |uid: &String| Owner { uid: uid.clone() };
    Some(Arc::new(
        models.filter_map(|object| Some((object.model_name().ok()?, owner(&object.uid)))).collect(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::declared::objects::Object;

    fn observed(kinds: &[Kind], objects: &[(Kind, &str, bool)]) -> Observed {
        let read = |(kind, name, deleting): &(Kind, &str, bool)| {
            let mut object =
                json!({ "metadata": { "name": name, "namespace": "ml", "uid": format!("u-{name}") } });
            if *deleting {
                object["metadata"]["deletionTimestamp"] = "now".into();
            }
            let object = Object::read(*kind, &object).expect("an object");
            (object.id.clone(), object)
        };
        Observed { listed: kinds.iter().copied().collect(), objects: objects.iter().map(read).collect() }
    }

    #[test]
    fn a_model_is_owned_by_the_object_of_its_name_while_that_is_there_to_stay() {
        let both = [Kind::Model, Kind::Version];
        let all = [
            (Kind::Model, "fraud", false),
            (Kind::Model, "leaving", true),
            (Kind::Version, "fraud-7", false),
        ];
        let owners = of(&observed(&both, &all)).expect("they are listed");
        let named: Vec<(String, &str)> =
            owners.iter().map(|(model, owner)| (model.to_string(), owner.uid.as_str())).collect();
        assert_eq!(named, [("ml/fraud".to_owned(), "u-fraud")]);
        assert_eq!(of(&observed(&[Kind::Version], &[])), None, "models have not been listed");
        assert_eq!(of(&observed(&both, &[])), nobody());
    }
}

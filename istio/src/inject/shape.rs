//! A pod as JSON: whether the parts that matter here have the shape they should have, and
//! reading them. Everything after the check may rely on it.

use serde_json::{Map, Value};

use super::Rejection;

const LISTS: [&str; 4] = ["containers", "initContainers", "volumes", "imagePullSecrets"];

/// Refuses what only looks like a pod.
pub(super) fn check(pod: &Value) -> Result<(), Rejection> {
    let malformed = |what: String| Err(Rejection::Malformed(what));
    if !pod["spec"].is_object() {
        return malformed("it has no `spec`".into());
    }
    if !(pod["metadata"].is_object() || pod["metadata"].is_null()) {
        return malformed("`metadata` is no object".into());
    }
    for key in ["labels", "annotations"] {
        let texts = match &pod["metadata"][key] {
            Value::Null => true,
            Value::Object(map) => map.values().all(Value::is_string),
            _ => false,
        };
        if !texts {
            return malformed(format!("`metadata.{key}` is no map of texts"));
        }
    }
    for key in LISTS {
        let objects = match &pod["spec"][key] {
            Value::Null => true,
            Value::Array(items) => items.iter().all(Value::is_object),
            _ => false,
        };
        if !objects {
            return malformed(format!("`spec.{key}` is no list of objects"));
        }
    }
    let mounts = |container: &Value| !matches!(container["volumeMounts"], Value::Null | Value::Array(_));
    match containers(pod).find(|container| mounts(container)) {
        Some(container) => {
            malformed(format!("`volumeMounts` of the container {} is no list", container["name"]))
        }
        None => Ok(()),
    }
}

/// A list of the pod's spec; empty where there is none.
pub(super) fn list<'a>(pod: &'a Value, key: &str) -> &'a [Value] {
    pod["spec"][key].as_array().map_or(&[], Vec::as_slice)
}

/// Every container: those that run first and those that run on.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "initContainers").iter().chain(list(pod, "containers"))
}

/// The text under a label or annotation.
pub(super) fn text<'a>(pod: &'a Value, map: &str, key: &str) -> Option<&'a str> {
    pod["metadata"][map].get(key)?.as_str()
}

/// Labels or annotations.
pub(super) fn texts<'a>(pod: &'a Value, map: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let entries = pod["metadata"][map].as_object().into_iter().flat_map(Map::iter);
    entries.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// Where in a list the object of this name is.
pub(super) fn position(items: &[Value], name: &str) -> Option<usize> {
    items.iter().position(|item| item["name"] == name)
}

//! Putting things into a pod and taking them out, so that a list or map which was not there
//! before is not there afterwards either.

use serde_json::{Map, Value};

/// A list of the pod's spec, made where there is none.
pub(super) fn list<'a>(pod: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    items(&mut pod["spec"], key)
}

/// A list of an object, made where there is none.
pub(super) fn items<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let list = &mut object[key];
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    list.as_array_mut().expect("it was made a list")
}

/// Removes the entries for which this holds, and the list with the last of them.
pub(super) fn remove_from(object: &mut Value, key: &str, out: impl Fn(&Value) -> bool) {
    let Some(items) = object.get_mut(key).and_then(Value::as_array_mut) else { return };
    let before = items.len();
    items.retain(|item| !out(item));
    if items.is_empty()
        && before > 0
        && let Some(object) = object.as_object_mut()
    {
        object.remove(key);
    }
}

/// Sets an annotation.
pub(super) fn annotate(pod: &mut Value, key: &str, value: &str) {
    set(pod, "annotations", key, value);
}

/// Sets a label.
pub(super) fn label(pod: &mut Value, key: &str, value: &str) {
    set(pod, "labels", key, value);
}

/// Removes an annotation.
pub(super) fn remove_annotation(pod: &mut Value, key: &str) {
    remove(pod, "annotations", key);
}

/// Removes a label.
pub(super) fn remove_label(pod: &mut Value, key: &str) {
    remove(pod, "labels", key);
}

fn set(pod: &mut Value, map: &str, key: &str, value: &str) {
    let metadata = &mut pod["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    if !metadata[map].is_object() {
        metadata[map] = Value::Object(Map::new());
    }
    metadata[map][key] = value.into();
}

fn remove(pod: &mut Value, map: &str, key: &str) {
    let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(texts) = metadata.get_mut(map).and_then(Value::as_object_mut) else { return };
    if texts.remove(key).is_some() && texts.is_empty() {
        metadata.remove(map);
        if metadata.is_empty()
            && let Some(pod) = pod.as_object_mut()
        {
            pod.remove("metadata");
        }
    }
}

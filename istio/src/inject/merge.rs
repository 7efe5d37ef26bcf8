//! The user's partial container over ours, as Kubernetes' strategic merge would do it for the
//! few lists that a container has.

use serde_json::{Map, Value};

/// An object may have one of these only.
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];

/// Puts `theirs` over `ours`: objects are merged, an entry of a keyed list replaces the one
/// of the same key, anything else is replaced, and `null` takes a field away.
pub(super) fn over(ours: &mut Map<String, Value>, theirs: &Map<String, Value>) {
    if HANDLERS.iter().any(|handler| theirs.contains_key(*handler)) {
        ours.retain(|key, _| !HANDLERS.contains(&key.as_str()));
    }
    for (key, value) in theirs {
        match (ours.get_mut(key), value) {
            (_, Value::Null) => {
                ours.remove(key);
            }
            (Some(Value::Object(mine)), Value::Object(value)) => over(mine, value),
            (Some(Value::Array(mine)), Value::Array(value)) if keyed(key).is_some() => {
                entries(mine, value, keyed(key).unwrap_or_default());
            }
            _ => {
                ours.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What tells the entries of a list apart (`x-kubernetes-patch-merge-key` of a container).
fn keyed(list: &str) -> Option<&'static str> {
    match list {
        "env" => Some("name"),
        "ports" => Some("containerPort"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        _ => None,
    }
}

/// Whole entries: one with parts of both, such as `value` and `valueFrom`, would be refused.
fn entries(ours: &mut Vec<Value>, theirs: &[Value], key: &str) {
    for entry in theirs {
        match ours.iter_mut().find(|mine| mine[key] == entry[key]) {
            Some(mine) => *mine = entry.clone(),
            None => ours.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut ours: Value, theirs: &Value) -> Value {
        over(ours.as_object_mut().expect("an object"), theirs.as_object().expect("an object"));
        ours
    }

    #[test]
    fn entries_with_a_key_replace_their_like_and_leave_the_others() {
        let ours = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] });
        let theirs = json!({ "env": [{ "name": "B", "valueFrom": {} }, { "name": "C", "value": "3" }] });
        let wanted = json!({ "env": [
            { "name": "A", "value": "1" }, { "name": "B", "valueFrom": {} }, { "name": "C", "value": "3" },
        ] });
        assert_eq!(merged(ours, &theirs), wanted);
    }

    #[test]
    fn a_probe_never_has_two_handlers() {
        let ours = json!({ "probe": { "httpGet": { "port": 1 }, "periodSeconds": 1 } });
        let theirs = json!({ "probe": { "exec": { "command": ["true"] } } });
        let wanted = json!({ "probe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } });
        assert_eq!(merged(ours, &theirs), wanted);
    }

    #[test]
    fn null_takes_a_field_away_and_lists_without_keys_are_replaced() {
        let ours = json!({ "args": ["a", "b"], "limits": { "memory": "1Gi", "cpu": "1" } });
        let theirs = json!({ "args": ["c"], "limits": { "cpu": null } });
        assert_eq!(merged(ours, &theirs), json!({ "args": ["c"], "limits": { "memory": "1Gi" } }));
    }
}

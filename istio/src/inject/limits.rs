//! Whether a namespace's LimitRanges let the sidecar in, asked before the API server refuses
//! the whole pod in words that do not say whose container it was.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Quantity;
use crate::names;

/// A limit of the namespace that the sidecar's resources break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the LimitRange {range} of the namespace wants {rule}, and {has}; {remedy}")]
pub struct LimitViolation {
    range: String,
    rule: String,
    has: String,
    remedy: String,
}

/// Checks the sidecar's container against the namespace's LimitRanges.
///
/// # Errors
/// Naming the first that it breaks.
pub fn check_limits<'a>(
    container: &Value,
    ranges: impl IntoIterator<Item = &'a Value>,
) -> Result<(), LimitViolation> {
    for range in ranges {
        let limits = range["spec"]["limits"].as_array().into_iter().flatten();
        for limit in limits.filter(|limit| limit["type"] == "Container") {
            for resource in named(limit) {
                let (rule, has) = match broken(limit, &container["resources"], resource) {
                    Some(broken) => broken,
                    None => continue,
                };
                let range = range["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                return Err(LimitViolation { range, rule, has, remedy: remedy(resource) });
            }
        }
    }
    Ok(())
}

/// Every resource that an entry of a LimitRange speaks of.
fn named(limit: &Value) -> BTreeSet<&str> {
    let kinds = ["min", "max", "default", "maxLimitRequestRatio"].into_iter();
    kinds
        .flat_map(|kind| limit[kind].as_object().into_iter().flat_map(Map::keys))
        .map(String::as_str)
        .collect()
}

/// What is wanted and what there is instead, where they differ.
fn broken(limit: &Value, resources: &Value, resource: &str) -> Option<(String, String)> {
    let of = |object: &Value, kind: &str| amount(&object[kind][resource]);
    // The API server fills in what a container does not say: a limit from the range, a request
    // from the container's own limit before the range's.
    let own_limit = of(resources, "limits");
    let limited = own_limit.or_else(|| of(limit, "default"));
    let requested = of(resources, "requests").or(own_limit).or_else(|| of(limit, "defaultRequest"));
    let shown = |has: Option<Quantity>| has.map_or("nothing".to_owned(), |has| has.to_string());
    if let Some(min) = of(limit, "min")
        && requested.is_none_or(|has| has < min)
    {
        let rule = format!("a container to request at least {min} of {resource}");
        return Some((rule, format!("the sidecar requests {}", shown(requested))));
    }
    if let Some(max) = of(limit, "max")
        && limited.is_none_or(|has| has > max)
    {
        let rule = format!("a container to be limited to at most {max} of {resource}");
        return Some((rule, format!("the sidecar is limited to {}", shown(limited))));
    }
    let (requested, limited) = (requested?, limited?);
    if requested > limited {
        let rule = format!("a container without a limit to be limited to {limited} of {resource}");
        return Some((rule, format!("the sidecar requests {requested}")));
    }
    let ratio = of(limit, "maxLimitRequestRatio")?;
    (!limited.is_within(requested, ratio)).then(|| {
        let rule = format!("a limit to be at most {ratio} times the request for {resource}");
        (rule, format!("the sidecar requests {requested} and is limited to {limited}"))
    })
}

fn remedy(resource: &str) -> String {
    let prefix = names::ANNOTATION_PREFIX;
    if resource == "cpu" || resource == "memory" {
        format!("set {prefix}{resource} or {prefix}{resource}-limit on the pod or its namespace")
    } else {
        format!("set its resources in a partial container named {}", names::CONTAINER)
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(limit: &Value, resources: &Value) -> Result<(), String> {
        let range = json!({ "metadata": { "name": "small" }, "spec": { "limits": [limit] } });
        check_limits(&json!({ "resources": resources }), [&range]).map_err(|violation| violation.to_string())
    }

    #[test]
    fn a_broken_limit_is_named_with_what_mends_it() {
        let resources = json!({ "requests": { "memory": "512Mi" }, "limits": { "memory": "2Gi" } });
        let broken = [
            (json!({ "max": { "memory": "1Gi" } }), "limited to 2147483648"),
            (json!({ "min": { "memory": "1Gi" } }), "requests 536870912"),
            (json!({ "maxLimitRequestRatio": { "memory": "3" } }), "at most 3 times"),
            (json!({ "min": { "ephemeral-storage": "1Gi" } }), "container named sconce"),
        ];
        for (mut limit, part) in broken {
            limit["type"] = json!("Container");
            let said = check(&limit, &resources).expect_err(part);
            assert!(said.contains("LimitRange small") && said.contains(part), "{part} in {said}");
            limit["type"] = json!("Pod");
            assert_eq!(check(&limit, &resources), Ok(()));
        }
        let roomy = json!({
            "type": "Container",
            "max": { "memory": "2048Mi" },
            "min": { "memory": "0.5Gi" },
            "maxLimitRequestRatio": { "memory": "4" },
        });
        assert_eq!(check(&roomy, &resources), Ok(()));
    }

    #[test]
    fn without_a_limit_of_its_own_it_has_the_ranges_default() {
        let resources = json!({ "requests": { "cpu": "100m" } });
        let with = |default: &str| json!({ "type": "Container", "max": { "cpu": "2" }, "default": { "cpu": default } });
        assert_eq!(check(&with("1"), &resources), Ok(()));
        let said = check(&with("50m"), &resources).expect_err("less than it requests");
        assert!(said.contains("limited to 50m") && said.contains("requests 100m"), "{said}");
        let without = json!({ "type": "Container", "max": { "cpu": "2" } });
        assert!(check(&without, &resources).expect_err("unlimited").contains("limited to nothing"));
    }
}

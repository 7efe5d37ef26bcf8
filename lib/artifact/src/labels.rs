//! What the classes of an output are called.
//!
//! They stay in the archive, in `extra/sconce.json`, and are read from there by who serves it: an
//! output of a thousand classes has as many labels, which the catalog need not carry to everybody.

use std::collections::BTreeMap;

use sconce_catalog::{Shape, Signature};
use serde_json::Value;

use crate::{Checked, SignatureError};

/// Labels of outputs, by the output's name; the first is of index 0 along the last dimension.
pub type Labels = BTreeMap<String, Vec<String>>;

/// The labels that an archive gives its outputs: none where it gives none.
///
/// # Errors
/// Where `extra/sconce.json` is not what it should be.
pub fn labels(checked: &Checked) -> Result<Labels, SignatureError> {
    checked.sconce_json.as_deref().map_or_else(|| Ok(Labels::new()), |json| Ok(declared(json)?.1))
}

/// What `extra/sconce.json` says: the signature, and apart from that the labels.
pub(crate) fn declared(json: &[u8]) -> Result<(Signature, Labels), SignatureError> {
    let mut said: Value = serde_json::from_slice(json).map_err(SignatureError::Json)?;
    let mut labels = BTreeMap::new();
    let outputs = said.get_mut("outputs").and_then(Value::as_array_mut);
    for output in outputs.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(of_output) = output.remove("labels") {
            let of_output = serde_json::from_value(of_output).map_err(SignatureError::Json)?;
            let name = output.get("name").and_then(Value::as_str).unwrap_or_default();
            labels.insert(name.to_owned(), of_output);
        }
    }
    let signature: Signature = serde_json::from_value(said).map_err(SignatureError::Json)?;
    fit(&signature, &labels)?;
    Ok((signature, labels))
}

/// Labels must be as many as there are classes, or they belong to something else.
fn fit(signature: &Signature, labels: &Labels) -> Result<(), SignatureError> {
    for field in &signature.outputs {
        let Some(given) = labels.get(&field.name).map(Vec::len) else { continue };
        let last = field.shape.as_ref().and_then(|Shape(sizes)| sizes.last().copied().flatten());
        if let Some(classes) = last
            && u64::try_from(given) != Ok(classes)
        {
            return Err(SignatureError::Labels { output: field.name.clone(), given, classes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(Signature, Labels), SignatureError> {
        declared(json.as_bytes())
    }

    #[test]
    fn labels_are_of_the_output_that_has_them_and_no_part_of_the_signature() {
        let json = |labels: &str| {
            format!(
                r#"{{"outputs":[{{"name":"other"}},{{"name":"scores","datatype":"FP32","shape":[-1,2]{labels}}}]}}"#
            )
        };
        let (signature, labels) = read(&json(r#","labels":["cat","dog"]"#)).expect("valid");
        assert_eq!(labels, [("scores".to_owned(), vec!["cat".to_owned(), "dog".to_owned()])].into());
        assert_eq!(signature, read(&json("")).expect("valid").0);
    }

    #[test]
    fn labels_that_are_not_as_many_as_the_classes_are_refused() {
        let json =
            |shape: &str| format!(r#"{{"outputs":[{{"name":"s","shape":{shape},"labels":["a","b"]}}]}}"#);
        let refused = read(&json("[-1,3]")).expect_err("3 classes").to_string();
        assert!(refused.contains("`s`") && refused.contains('2') && refused.contains('3'), "{refused}");
        for open in ["[-1,2]", "[-1,-1]", "[]"] {
            assert!(read(&json(open)).is_ok(), "{open}");
        }
        for odd in [r#""labels":[1]"#, r#""labels":"cat""#, r#""label":[]"#] {
            assert!(read(&format!(r#"{{"outputs":[{{"name":"s",{odd}}}]}}"#)).is_err(), "{odd}");
        }
    }
}

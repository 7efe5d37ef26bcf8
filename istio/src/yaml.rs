//! Objects as people read and review them.

use serde_json::Value;

/// One document for each object.
///
/// # Errors
/// Where an object cannot be written as YAML.
pub fn write(objects: &[Value]) -> Result<String, serde_saphyr::SerializeError> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}

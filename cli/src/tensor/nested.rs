//! Tensors written as JSON: nested arrays, or one flat array.

use serde_json::Value;

use super::{Elements, Tensor};

/// Reads nested arrays of numbers, booleans or texts.
pub(crate) fn from_json(value: &Value) -> Result<Tensor, String> {
    let mut shape = Vec::new();
    let mut inner = value;
    while let Value::Array(items) = inner {
        shape.push(items.len() as u64);
        let Some(first) = items.first() else { break };
        inner = first;
    }
    let mut leaves = Vec::new();
    flatten(value, &shape, &mut leaves)?;
    Ok(Tensor { shape, elements: elements(&leaves)?, own: None })
}

fn flatten<'a>(value: &'a Value, shape: &[u64], leaves: &mut Vec<&'a Value>) -> Result<(), String> {
    match (value, shape.split_first()) {
        (Value::Array(items), Some((length, rest))) if items.len() as u64 == *length => {
            items.iter().try_for_each(|item| flatten(item, rest, leaves))
        }
        (Value::Array(_), _) | (_, Some(_)) => Err("its rows have different lengths".into()),
        (leaf, None) => {
            leaves.push(leaf);
            Ok(())
        }
    }
}

fn elements(leaves: &[&Value]) -> Result<Elements, String> {
    let all = |read: fn(&Value) -> bool| leaves.iter().all(|leaf| read(leaf));
    if leaves.is_empty() {
        return Ok(Elements::Floats(Vec::new()));
    }
    if all(Value::is_boolean) {
        return Ok(Elements::Bools(leaves.iter().filter_map(|leaf| leaf.as_bool()).collect()));
    }
    if all(Value::is_string) {
        let text = |leaf: &&Value| leaf.as_str().map(|text| text.as_bytes().to_vec());
        return Ok(Elements::Texts(leaves.iter().filter_map(text).collect()));
    }
    if all(|leaf| leaf.is_i64() || leaf.is_u64()) {
        let int = |leaf: &&Value| leaf.as_i64().map(i128::from).or(leaf.as_u64().map(i128::from));
        return Ok(Elements::Ints(leaves.iter().filter_map(int).collect()));
    }
    if all(Value::is_number) {
        return Ok(Elements::Floats(leaves.iter().filter_map(|leaf| leaf.as_f64()).collect()));
    }
    Err("it must hold only numbers, only booleans or only texts".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nesting_is_the_shape() {
        let tensor = from_json(&json!([[1, 2, 3], [4, 5, 6.5]])).expect("valid");
        assert_eq!(tensor.shape, [2, 3]);
        assert_eq!(tensor.elements, Elements::Floats(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5]));
        assert_eq!(
            from_json(&json!(7)),
            Ok(Tensor { shape: vec![], elements: Elements::Ints(vec![7]), own: None })
        );
        assert_eq!(from_json(&json!([true])).expect("valid").elements, Elements::Bools(vec![true]));
    }

    #[test]
    fn ragged_and_mixed_arrays_are_refused() {
        for value in [json!([[1, 2], [3]]), json!([1, [2]]), json!([1, "a"]), json!([null]), json!([{}])] {
            assert!(from_json(&value).is_err(), "{value}");
        }
    }
}

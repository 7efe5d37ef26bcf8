//! The parameters extension: a request's own parameters, as the arguments of `forward` that are
//! numbers and texts.
//!
//! In Triton a parameter reaches a model whose backend asks for it. TorchScript asks for its arguments,
//! so a parameter that is called as one of them, and for which no tensor came, is that argument.

use std::collections::BTreeMap;

use bytes::Bytes;
use sconce_catalog::{Datatype, Kind, Signature};

use crate::engine::{Data, Tensor};

/// A parameter's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// A request's own parameters, by name.
pub(super) type Arguments = BTreeMap<String, Argument>;

/// Names that mean something to the server, whatever a model's arguments are called.
const RESERVED: [&str; 7] =
    ["binary_data_output", "headers", "priority", "sequence_end", "sequence_id", "sequence_start", "timeout"];

/// Whether a parameter may be an argument of the model's.
pub(super) fn is_free(name: &str) -> bool {
    !RESERVED.contains(&name)
}

/// Adds those arguments that the model takes and that did not come as tensors. Says which they are.
pub(super) fn add(
    signature: &Signature,
    arguments: &Arguments,
    given: &mut Vec<(String, Tensor)>,
) -> Result<Vec<String>, String> {
    let mut added = Vec::new();
    for field in &signature.inputs {
        let alone = matches!(field.kind, Kind::Int | Kind::Float | Kind::Bool | Kind::String);
        let Some(argument) = arguments.get(&field.name).filter(|_| alone) else { continue };
        if given.iter().any(|(name, _)| *name == field.name) {
            continue;
        }
        let tensor = tensor(field.kind, argument).ok_or_else(|| {
            format!(
                "the parameter `{}` is {argument:?}, and the model takes {} for it",
                field.name, field.kind
            )
        })?;
        given.push((field.name.clone(), tensor));
        added.push(field.name.clone());
    }
    Ok(added)
}

fn tensor(kind: Kind, argument: &Argument) -> Option<Tensor> {
    let fixed = |datatype, bytes: &[u8]| (datatype, Data::Fixed(Bytes::copy_from_slice(bytes)));
    let (datatype, data) = match (kind, argument) {
        (Kind::Bool, Argument::Bool(value)) => fixed(Datatype::Bool, &[u8::from(*value)]),
        (Kind::Int, Argument::Int(value)) => fixed(Datatype::Int64, &value.to_le_bytes()),
        (Kind::Float, Argument::Float(value)) => fixed(Datatype::Fp64, &value.to_le_bytes()),
        // Whole numbers are written without a point by whoever means a float, too.
        (Kind::Float, Argument::Int(value)) => fixed(Datatype::Fp64, &(*value as f64).to_le_bytes()),
        (Kind::String, Argument::Text(text)) => {
            (Datatype::Bytes, Data::Strings(vec![Bytes::copy_from_slice(text.as_bytes())]))
        }
        _ => return None,
    };
    Some(Tensor { datatype, shape: vec![1], data })
}

#[cfg(test)]
mod tests {
    use sconce_catalog::Field;

    use super::*;

    fn signature(kinds: &[(&str, Kind)]) -> Signature {
        let field = |(name, kind): &(&str, Kind)| Field {
            name: (*name).to_owned(),
            kind: *kind,
            datatype: kind.datatype(),
            shape: None,
            optional: true,
        };
        Signature { inputs: kinds.iter().map(field).collect(), ..Signature::default() }
    }

    fn arguments(pairs: &[(&str, Argument)]) -> Arguments {
        pairs.iter().map(|(name, argument)| ((*name).to_owned(), argument.clone())).collect()
    }

    #[test]
    fn parameters_are_arguments_by_name_and_a_tensor_comes_first() {
        let takes = signature(&[
            ("x", Kind::Tensor),
            ("n", Kind::Int),
            ("factor", Kind::Float),
            ("flag", Kind::Bool),
            ("mode", Kind::String),
        ]);
        let given = arguments(&[
            ("x", Argument::Int(1)),
            ("n", Argument::Int(-7)),
            ("factor", Argument::Int(2)),
            ("flag", Argument::Bool(true)),
            ("mode", Argument::Text("sum".to_owned())),
            ("mine", Argument::Float(0.5)),
        ]);
        let n = tensor(Kind::Int, &Argument::Int(3)).expect("a number");
        let mut tensors = vec![("n".to_owned(), n.clone())];
        let added = add(&takes, &given, &mut tensors).expect("they fit");
        assert_eq!(added, ["factor", "flag", "mode"], "a tensor is no parameter, and n has come");
        assert_eq!(tensors[0].1, n);
        assert_eq!(tensors[1].1.data, Data::Fixed(Bytes::copy_from_slice(&2f64.to_le_bytes())));
        assert_eq!(tensors[2].1.datatype, Datatype::Bool);
        assert_eq!(tensors[3].1.data, Data::Strings(vec![Bytes::from_static(b"sum")]));
    }

    #[test]
    fn a_parameter_of_another_type_is_refused_by_name() {
        let takes = signature(&[("n", Kind::Int)]);
        for argument in [Argument::Float(1.5), Argument::Bool(true), Argument::Text("3".to_owned())] {
            let refused = add(&takes, &arguments(&[("n", argument)]), &mut Vec::new()).expect_err("no int");
            assert!(refused.contains("`n`") && refused.contains("takes int"), "{refused}");
        }
    }

    #[test]
    fn what_means_something_to_the_server_is_no_argument() {
        assert!(is_free("temperature") && !is_free("priority") && !is_free("sequence_id"));
    }
}

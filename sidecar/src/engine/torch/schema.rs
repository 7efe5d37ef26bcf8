//! Whether what the catalog says of a model is what libtorch found in its code.

use sconce_catalog::{Kind, Signature};

use super::ffi::Argument;

/// For each argument of `forward`, which declared input goes there; `None` for one that
/// no request can give and that has a value of its own.
///
/// # Errors
/// The first contradiction, in words.
pub(super) fn places(schema: &[Argument], declared: &Signature) -> Result<Vec<Option<usize>>, String> {
    let places = schema.iter().enumerate().map(|(at, argument)| {
        let number = format!("INPUT__{at}");
        // The tracer may have lost a name; then the protocol's convention stands in for it.
        let place =
            declared.inputs.iter().position(|field| field.name == argument.name || field.name == number);
        match place {
            Some(place) => fits(argument, declared, place).map(|()| Some(place)),
            None if argument.may_be_left_out() => Ok(None),
            None => Err(format!("its forward takes `{}`, which the catalog does not list", argument.name)),
        }
    });
    let places = places.collect::<Result<Vec<_>, _>>()?;
    for (place, field) in declared.inputs.iter().enumerate() {
        if !places.contains(&Some(place)) {
            let names: Vec<&str> = schema.iter().map(|argument| argument.name.as_str()).collect();
            return Err(format!(
                "the catalog lists the input `{}`, and its forward takes {names:?}",
                field.name
            ));
        }
    }
    Ok(places)
}

fn fits(argument: &Argument, declared: &Signature, place: usize) -> Result<(), String> {
    let (field, Argument { name, type_name, .. }) = (&declared.inputs[place], argument);
    let kind = kind(type_name)
        .ok_or_else(|| format!("argument `{name}` is {type_name}, which has no form on the wire"))?;
    if kind != field.kind {
        return Err(format!("argument `{name}` is {type_name}, and the catalog says {}", field.kind));
    }
    if field.optional && !argument.may_be_left_out() {
        return Err(format!("argument `{name}` must be given, and the catalog says that it is optional"));
    }
    Ok(())
}

impl Argument {
    fn may_be_left_out(&self) -> bool {
        self.has_default || self.type_name.starts_with("Optional[")
    }
}

fn kind(type_name: &str) -> Option<Kind> {
    let plain =
        type_name.strip_prefix("Optional[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(type_name);
    Some(match plain {
        "Tensor" => Kind::Tensor,
        "int" => Kind::Int,
        "float" => Kind::Float,
        "bool" => Kind::Bool,
        "str" => Kind::String,
        "List[str]" => Kind::StringList,
        "List[Tensor]" => Kind::TensorList,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use sconce_catalog::Field;

    use super::*;

    fn argument(name: &str, type_name: &str, has_default: bool) -> Argument {
        Argument { name: name.into(), type_name: type_name.into(), has_default }
    }

    fn declared(inputs: &[(&str, Kind, bool)]) -> Signature {
        let field = |(name, kind, optional): &(&str, Kind, bool)| Field {
            name: (*name).into(),
            kind: *kind,
            datatype: None,
            shape: None,
            optional: *optional,
        };
        Signature { inputs: inputs.iter().map(field).collect(), ..Signature::default() }
    }

    #[test]
    fn inputs_find_their_argument_by_name_and_not_by_order() {
        let schema = [argument("a", "Tensor", false), argument("b", "Tensor", false)];
        let swapped = declared(&[("b", Kind::Tensor, false), ("a", Kind::Tensor, false)]);
        assert_eq!(places(&schema, &swapped), Ok(vec![Some(1), Some(0)]));
    }

    #[test]
    fn an_argument_without_a_name_is_found_by_its_number() {
        let schema = [argument("argument_1", "Tensor", false), argument("x", "Tensor", false)];
        let numbered = declared(&[("INPUT__0", Kind::Tensor, false), ("x", Kind::Tensor, false)]);
        assert_eq!(places(&schema, &numbered), Ok(vec![Some(0), Some(1)]));
    }

    #[test]
    fn only_an_argument_with_a_value_of_its_own_may_be_missing_from_the_catalog() {
        let schema = [argument("sizes", "Dict[str, int]", true), argument("w", "Optional[Tensor]", false)];
        assert_eq!(places(&schema, &declared(&[])), Ok(vec![None, None]));
        let needed = [argument("x", "Tensor", false)];
        let problem = places(&needed, &declared(&[])).expect_err("x is needed");
        assert_eq!(problem, "its forward takes `x`, which the catalog does not list");
    }

    #[test]
    fn a_contradiction_names_the_argument_and_both_sides() {
        let schema = [argument("n", "int", false)];
        let cases = [
            (("n", Kind::Tensor, false), "argument `n` is int, and the catalog says Tensor"),
            (("n", Kind::Int, true), "argument `n` must be given, and the catalog says that it is optional"),
            (("m", Kind::Int, false), "its forward takes `n`, which the catalog does not list"),
        ];
        for (field, expected) in cases {
            assert_eq!(places(&schema, &declared(&[field])).expect_err("contradicts"), expected);
        }
        let more = declared(&[("n", Kind::Int, false), ("y", Kind::Tensor, false)]);
        assert_eq!(
            places(&schema, &more).expect_err("contradicts"),
            "the catalog lists the input `y`, and its forward takes [\"n\"]"
        );
        let dict = [argument("d", "Dict[str, Tensor]", false)];
        assert!(places(&dict, &declared(&[("d", Kind::Tensor, false)])).is_err());
    }
}

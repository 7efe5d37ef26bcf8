//! What a model takes and gives, read from its own code.

use sconce_catalog::{Batching, Datatype, Field, Kind, NoRows, Signature};

use crate::{Checked, labels};

/// Why no signature could be made.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The class has no `forward`.
    #[error("the model's class `{0}` has no `forward` in the archive's code")]
    NoForward(String),
    /// An argument has no form on the wire.
    #[error(
        "argument `{argument}` of `forward` is {type_name}, which no request can carry; \
         known are Tensor, int, float, bool, str, List[str] and List[Tensor]"
    )]
    Argument {
        /// Its name.
        argument: String,
        /// Its TorchScript type.
        type_name: String,
    },
    /// `extra/sconce.json` is not what it should be.
    #[error("the archive's `extra/sconce.json` is not valid: {0}")]
    Json(serde_json::Error),
    /// An output has not as many labels as it has classes.
    #[error(
        "`extra/sconce.json` gives the output `{output}` {given} labels, and its last dimension is {classes}"
    )]
    Labels {
        /// The output.
        output: String,
        /// Labels.
        given: usize,
        /// Its last dimension.
        classes: u64,
    },
    /// A declaration names an input that the model has not.
    #[error("{source_name} names the input `{name}`, and `forward` takes {known:?}")]
    Unknown {
        /// Who declares it.
        source_name: &'static str,
        /// What is declared.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A declaration has rows batched, and there are none.
    #[error("{source_name} says that rows may be batched, but {reason}")]
    NoRows {
        /// Who declares it.
        source_name: &'static str,
        /// What has no rows.
        reason: NoRows,
    },
    /// A declaration contradicts the type in the code.
    #[error(
        "{source_name} says that `{name}` is {said}, and `forward` takes {kind}, which travels as {known}"
    )]
    Datatype {
        /// Who declares it.
        source_name: &'static str,
        /// The input.
        name: String,
        /// What is declared.
        said: Datatype,
        /// What the code says.
        kind: Kind,
        /// What that is on the wire.
        known: Datatype,
    },
}

/// The signature of a model: names and types from its code, datatypes and shapes from
/// `extra/sconce.json` and from whoever pushes it, who wins.
///
/// # Errors
/// Where the model takes what no request can carry, or a declaration does not fit it.
pub fn discover(checked: &Checked, overrides: &Signature) -> Result<Signature, SignatureError> {
    let (module, class) = &checked.class;
    let forward = forward(checked).ok_or_else(|| SignatureError::NoForward(format!("{module}.{class}")))?;
    let mut signature =
        Signature { inputs: inputs(&forward.arguments)?, outputs: outputs(&forward.result), batching: None };
    if let Some(json) = &checked.sconce_json {
        let (declared, _) = labels::declared(json)?;
        merge(&mut signature, &declared, "`extra/sconce.json`")?;
    }
    merge(&mut signature, overrides, "the push")?;
    // Not before both have spoken: each may give shapes that the other does not know.
    if signature.batching == Some(Batching::Rows) {
        let source_name = if overrides.batching.is_some() { "the push" } else { "`extra/sconce.json`" };
        signature.has_rows().map_err(|reason| SignatureError::NoRows { source_name, reason })?;
    }
    Ok(signature)
}

struct Forward {
    arguments: Vec<String>,
    result: String,
}

/// The declaration of `forward`, cut into its parts.
fn forward(checked: &Checked) -> Option<Forward> {
    let (module, class) = &checked.class;
    let path = module.replace('.', "/");
    let (_, code) = checked.code.iter().find(|(name, _)| *name == path)?;
    let body = code.split_once(&format!("class {class}(Module):"))?.1;
    // The next class begins in the first column.
    let body = body.split("\nclass ").next()?;
    let rest = body.split_once("  def forward(")?.1;
    let (arguments, rest) = split_list(rest)?;
    let result = rest.trim_start().strip_prefix("->")?.split(":\n").next()?.trim().to_owned();
    // The first is `self`.
    Some(Forward { arguments: arguments.into_iter().skip(1).collect(), result })
}

/// Cuts a list at its top-level commas, up to the bracket that closes it.
fn split_list(text: &str) -> Option<(Vec<String>, &str)> {
    let (mut parts, mut from, mut depth, mut quoted) = (Vec::new(), 0, 0usize, None);
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quoted, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(quote), c) if c == quote => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quoted = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') if depth == 0 => {
                parts.push(text[from..at].trim().to_owned());
                parts.retain(|part| !part.is_empty());
                return Some((parts, &text[at + 1..]));
            }
            (None, ')' | ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(text[from..at].trim().to_owned());
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

fn inputs(arguments: &[String]) -> Result<Vec<Field>, SignatureError> {
    let field = |(at, argument): (usize, &String)| {
        let (name, rest) = argument.split_once(':').unwrap_or((argument, "Tensor"));
        // A default may hold anything, a type has no `=`.
        let (type_name, default) = match rest.split_once('=') {
            Some((type_name, default)) => (type_name.trim(), Some(default)),
            None => (rest.trim(), None),
        };
        let (plain, optional) = match type_name.strip_prefix("Optional[").and_then(|t| t.strip_suffix(']')) {
            Some(inner) => (inner, true),
            None => (type_name, false),
        };
        let kind = match (kind(plain), default) {
            (Some(kind), _) => kind,
            // It has a value of its own, which is then the one it always has.
            (None, Some(_)) => return Ok(None),
            (None, None) => {
                return Err(SignatureError::Argument {
                    argument: name.to_owned(),
                    type_name: type_name.to_owned(),
                });
            }
        };
        Ok(Some(Field {
            name: name_of(name.trim(), at),
            kind,
            datatype: kind.datatype(),
            shape: None,
            optional: optional || default.is_some(),
        }))
    };
    arguments.iter().enumerate().map(field).filter_map(Result::transpose).collect()
}

/// `argument_1` is what the tracer calls an argument that has no name.
fn name_of(name: &str, at: usize) -> String {
    let number = name.strip_prefix("argument_");
    let nameless = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if nameless { format!("INPUT__{at}") } else { name.to_owned() }
}

fn kind(type_name: &str) -> Option<Kind> {
    Some(match type_name {
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

/// The outputs that the declared type alone tells; none where running tells more.
fn outputs(result: &str) -> Vec<Field> {
    let kinds: Option<Vec<Kind>> = match result.strip_prefix("Tuple[") {
        Some(list) => split_list(list).and_then(|(parts, _)| parts.iter().map(|part| kind(part)).collect()),
        None => kind(result).map(|kind| vec![kind]),
    };
    let kinds = kinds.unwrap_or_default();
    if kinds.contains(&Kind::TensorList) {
        return Vec::new();
    }
    let field = |(at, kind): (usize, Kind)| Field {
        name: format!("OUTPUT__{at}"),
        kind,
        datatype: kind.datatype(),
        shape: None,
        optional: false,
    };
    kinds.into_iter().enumerate().map(field).collect()
}

fn merge(
    signature: &mut Signature,
    declared: &Signature,
    source_name: &'static str,
) -> Result<(), SignatureError> {
    for said in &declared.inputs {
        let known: Vec<String> = signature.inputs.iter().map(|field| field.name.clone()).collect();
        let Some(field) = signature.inputs.iter_mut().find(|field| field.name == said.name) else {
            return Err(SignatureError::Unknown { source_name, name: said.name.clone(), known });
        };
        if let (Some(said), Some(known)) = (said.datatype, field.kind.datatype())
            && said != known
        {
            return Err(SignatureError::Datatype {
                source_name,
                name: field.name.clone(),
                said,
                kind: field.kind,
                known,
            });
        }
        field.datatype = said.datatype.or(field.datatype);
        field.shape = said.shape.clone().or(field.shape.take());
    }
    if !declared.outputs.is_empty() {
        signature.outputs = declared.outputs.clone();
    }
    signature.batching = declared.batching.or(signature.batching);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(code: &str, json: Option<&str>) -> Checked {
        Checked {
            code: vec![("__torch__".into(), code.into())],
            class: ("__torch__".into(), "Flow".into()),
            sconce_json: json.map(|json| json.as_bytes().to_vec()),
        }
    }

    fn flow(arguments: &str, result: &str) -> String {
        format!(
            "class Other(Module):\n  def forward(self: __torch__.Other) -> int:\n    return 1\nclass Flow(Module):\n  __parameters__ = []\n  def forward(self: __torch__.Flow{arguments}) -> {result}:\n    return x\n"
        )
    }

    fn inputs_of(arguments: &str) -> Vec<(String, Kind, bool)> {
        let signature =
            discover(&checked(&flow(arguments, "Tensor"), None), &Signature::default()).expect("valid");
        signature.inputs.into_iter().map(|field| (field.name, field.kind, field.optional)).collect()
    }

    #[test]
    fn names_kinds_and_defaults_come_from_the_code() {
        let found = inputs_of(
            ",\n    x: Tensor,\n    n: int=3,\n    mode: str=\"a,b)\",\n    w: Optional[Tensor]=None,\n    names: List[str]",
        );
        let expected = [
            ("x", Kind::Tensor, false),
            ("n", Kind::Int, true),
            ("mode", Kind::String, true),
            ("w", Kind::Tensor, true),
            ("names", Kind::StringList, false),
        ];
        assert_eq!(found, expected.map(|(name, kind, optional)| (name.to_owned(), kind, optional)));
    }

    #[test]
    fn only_an_argument_without_a_name_is_called_by_its_number() {
        assert_eq!(inputs_of(",\n    argument_1: Tensor, input: Tensor")[0].0, "INPUT__0");
        assert_eq!(inputs_of(",\n    argument_1: Tensor, input: Tensor")[1].0, "input");
    }

    #[test]
    fn outputs_come_from_the_result_type() {
        let names = |result| {
            let signature =
                discover(&checked(&flow("", result), None), &Signature::default()).expect("valid");
            signature.outputs.into_iter().map(|field| field.name).collect::<Vec<_>>()
        };
        assert_eq!(names("Tensor"), ["OUTPUT__0"]);
        assert_eq!(names("Tuple[Tensor, Tensor]"), ["OUTPUT__0", "OUTPUT__1"]);
        assert!(names("Dict[str, Tensor]").is_empty());
    }

    #[test]
    fn declarations_add_shapes_and_must_fit() {
        let json =
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,64]}],"outputs":[{"name":"logits"}]}"#;
        let code = flow(", x: Tensor", "Tensor");
        let signature = discover(&checked(&code, Some(json)), &Signature::default()).expect("valid");
        assert_eq!(signature.inputs[0].shape, Some(vec![-1, 64].into()));
        assert_eq!(signature.outputs[0].name, "logits");
        for bad in [r#"{"inputs":[{"name":"y"}]}"#, r#"{"input":[]}"#, "{"] {
            assert!(discover(&checked(&code, Some(bad)), &Signature::default()).is_err(), "{bad}");
        }
        assert!(
            discover(&checked(&flow(", d: Dict[str, int]", "Tensor"), None), &Signature::default()).is_err()
        );
        let json = r#"{"inputs":[{"name":"n","datatype":"FP32"}]}"#;
        let refused = discover(&checked(&flow(", n: int", "Tensor"), Some(json)), &Signature::default());
        let refused = refused.expect_err("an int is no FP32").to_string();
        assert!(refused.contains("`n` is FP32") && refused.contains("INT64"), "{refused}");
    }

    #[test]
    fn whoever_pushes_decides_whether_rows_are_batched_and_only_rows_can_be() {
        let json = r#"{"inputs":[{"name":"x","shape":[-1,64]}],"batching":"rows"}"#;
        let code = flow(", x: Tensor", "Tensor");
        let found = |push| {
            let overrides = Signature { batching: push, ..Signature::default() };
            discover(&checked(&code, Some(json)), &overrides).expect("valid").batching
        };
        assert_eq!(found(None), Some(Batching::Rows));
        assert_eq!(found(Some(Batching::Off)), Some(Batching::Off));
        let fixed = checked(&code, Some(r#"{"inputs":[{"name":"x","shape":[1,64]}]}"#));
        let overrides = Signature { batching: Some(Batching::Rows), ..Signature::default() };
        let refused = discover(&fixed, &overrides).expect_err("one row, always").to_string();
        assert!(refused.starts_with("the push") && refused.contains("[1,64]"), "{refused}");
        assert_eq!(discover(&fixed, &Signature::default()).expect("valid").batching, None);
    }

    #[test]
    fn an_argument_that_cannot_be_sent_keeps_the_value_it_has() {
        let found = inputs_of(", x: Tensor, sizes: Optional[Dict[str, int]]=None, y: Optional[Tensor]=None");
        let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["x", "y"]);
    }
}

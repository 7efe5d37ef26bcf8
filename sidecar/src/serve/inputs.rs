//! Fits what a request brings to what a model takes, and what a model gives to what was asked.
//!
//! Errors are sentences without the model's name, which the caller of these functions adds.

use bytes::Bytes;
use sconce_catalog::{Datatype, Field, Kind, Shape, Signature};

use super::raw;
use crate::engine::{Output, Tensor};

/// The inputs in the order of the model's `forward`.
pub(super) fn arrange(
    signature: &Signature,
    given: Vec<(String, Tensor)>,
) -> Result<Vec<Option<Tensor>>, String> {
    let mut slots: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
    for (name, tensor) in given {
        let Some(at) = signature.inputs.iter().position(|field| field.name == name) else {
            return Err(format!("there is no input `{name}`; the model takes {}", list(&signature.inputs)));
        };
        check(&signature.inputs[at], &tensor).map_err(|reason| format!("input `{name}` {reason}"))?;
        if slots[at].replace(tensor).is_some() {
            return Err(format!("input `{name}` is given twice"));
        }
    }
    for (field, slot) in signature.inputs.iter().zip(&slots) {
        if slot.is_none() && !field.optional {
            return Err(format!(
                "input `{}` is missing; the model takes {}",
                field.name,
                list(&signature.inputs)
            ));
        }
    }
    Ok(slots)
}

/// Arranged inputs as they were given.
pub(super) fn named(signature: &Signature, arranged: Vec<Option<Tensor>>) -> Vec<(String, Tensor)> {
    let fields = signature.inputs.iter().zip(arranged);
    fields.filter_map(|(field, tensor)| Some((field.name.clone(), tensor?))).collect()
}

/// A body without a header as the model's only input, as one row of whatever fits.
pub(super) fn whole(signature: &Signature, body: Bytes) -> Result<(String, Tensor), String> {
    let [field] = &signature.inputs[..] else {
        return Err(format!(
            "a body without a JSON part needs a model with one input, and this one takes {}",
            list(&signature.inputs)
        ));
    };
    let named = |reason: String| format!("input `{}`: {reason}", field.name);
    let datatype = datatype(field)
        .ok_or_else(|| named("its datatype is not known, so the request must have a JSON part".to_owned()))?;
    let sizes = match datatype.width() {
        None => vec![1],
        Some(width) => row(field.shape.as_ref(), body.len() / width).ok_or_else(|| {
            named(format!("{} bytes of {} do not make up one row of it", body.len(), datatype.name()))
        })?,
    };
    // A raw BYTES body is one string and has no length in front.
    let tensor = if datatype == Datatype::Bytes {
        Tensor { datatype, shape: vec![1], data: crate::engine::Data::Strings(vec![body]) }
    } else {
        raw::decode(datatype, &sizes, body).map_err(named)?
    };
    Ok((field.name.clone(), tensor))
}

/// The sizes of one row with this many elements; at most one may be free besides the first.
fn row(shape: Option<&Shape>, elements: usize) -> Option<Vec<i64>> {
    let elements = i64::try_from(elements).ok()?;
    let Some(Shape(sizes)) = shape else { return Some(vec![1, elements]) };
    let mut sizes: Vec<i64> = sizes
        .iter()
        .map(|size| size.map_or(Some(-1), |size| i64::try_from(size).ok()))
        .collect::<Option<_>>()?;
    if sizes.len() > 1 && sizes[0] == -1 {
        sizes[0] = 1;
    }
    let known = sizes.iter().filter(|size| **size >= 0).try_fold(1i64, |n, size| n.checked_mul(*size))?;
    let mut free = sizes.iter_mut().filter(|size| **size < 0);
    if let Some(size) = free.next() {
        *size = if known == 0 { return None } else { elements / known };
    }
    free.next().is_none().then_some(sizes)
}

fn check(field: &Field, tensor: &Tensor) -> Result<(), String> {
    // A Python number may come in any width: the engine converts it, or says why not.
    let number = matches!(field.kind, Kind::Int | Kind::Float | Kind::Bool);
    if let Some(wanted) = datatype(field)
        && wanted != tensor.datatype
        && !number
    {
        return Err(format!("must be {}, and {} came", wanted.name(), tensor.datatype.name()));
    }
    let fits = match (&field.shape, field.kind) {
        (Some(shape), _) => shape.admits(&tensor.shape),
        (None, Kind::Int | Kind::Float | Kind::Bool | Kind::String) => {
            Tensor::elements(&tensor.shape) == Some(1)
        }
        (None, Kind::StringList) => tensor.shape.len() == 1,
        (None, Kind::TensorList) => !tensor.shape.is_empty(),
        (None, Kind::Tensor) => true,
    };
    if fits {
        return Ok(());
    }
    Err(format!("must have shape {:?}, and {:?} came", sizes(field), tensor.shape))
}

/// Only the outputs that were asked for, in that order; all where none was named.
pub(super) fn select(asked: &[String], mut outputs: Vec<Output>) -> Result<Vec<Output>, String> {
    if asked.is_empty() {
        return Ok(outputs);
    }
    let mut selected = Vec::with_capacity(asked.len());
    for name in asked {
        let Some(at) = outputs.iter().position(|output| *output.name == **name) else {
            let names: Vec<String> = outputs.iter().map(|output| format!("`{}`", output.name)).collect();
            return Err(no_output(name, &names));
        };
        selected.push(outputs.swap_remove(at));
    }
    Ok(selected)
}

/// Refuses names that cannot be outputs, before the model runs for nothing.
pub(super) fn check_asked(signature: &Signature, asked: &[String]) -> Result<(), String> {
    for (at, name) in asked.iter().enumerate() {
        if asked[..at].contains(name) {
            return Err(format!("output `{name}` is asked for twice"));
        }
        if !signature.outputs.is_empty() && !signature.outputs.iter().any(|field| field.name == *name) {
            let names: Vec<String> =
                signature.outputs.iter().map(|field| format!("`{}`", field.name)).collect();
            return Err(no_output(name, &names));
        }
    }
    Ok(())
}

fn no_output(name: &str, names: &[String]) -> String {
    format!("there is no output `{name}`; the model gives {}", names.join(", "))
}

/// The datatype on the wire, where it is known.
pub(super) fn datatype(field: &Field) -> Option<Datatype> {
    field.datatype.or(field.kind.datatype())
}

/// The sizes on the wire; -1 is variable. Where not even their number is known: `[-1]`.
pub(super) fn sizes(field: &Field) -> Vec<i64> {
    match (&field.shape, field.kind) {
        (Some(Shape(sizes)), _) => {
            sizes.iter().map(|size| size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX))).collect()
        }
        (None, Kind::Int | Kind::Float | Kind::Bool | Kind::String) => vec![1],
        (None, Kind::Tensor | Kind::StringList | Kind::TensorList) => vec![-1],
    }
}

fn list(fields: &[Field]) -> String {
    if fields.is_empty() {
        return "no inputs".to_owned();
    }
    let fields = fields.iter().map(|field| {
        let datatype = datatype(field).map_or("of any datatype", Datatype::name);
        let optional = if field.optional { ", optional" } else { "" };
        format!("`{}` ({datatype} {:?}{optional})", field.name, sizes(field))
    });
    fields.collect::<Vec<_>>().join(", ")
}

//! Reads the body of a V1 request, once it is known what the model takes.

use std::collections::BTreeMap;

use half::{bf16, f16};
use sconce_catalog::{Datatype, Field, Kind, Signature};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::{
        super::{infer::Untyped, inputs},
        data, numbers,
    },
    outline::Outline,
};
use crate::engine::{Data, Tensor};

/// What a request brings: rows (`instances`), or tensors (`inputs`).
pub(super) enum Instances {
    /// An array with an entry for each row.
    Rows { text: Box<RawValue>, rows: usize },
    /// One tensor, or an object of them by input.
    Columns(Box<RawValue>),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    instances: Option<Box<RawValue>>,
    #[serde(default)]
    inputs: Option<Box<RawValue>>,
}

impl Instances {
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut read = serde_json::from_slice::<Wire>(body);
        if read.is_err()
            && let Some(text) = numbers::quoted(body)
        {
            read = serde_json::from_slice(&text);
        }
        let wrong =
            |error: serde_json::Error| format!("the request is not the JSON of a prediction: {error}");
        match read.map_err(wrong)? {
            Wire { instances: Some(_), inputs: Some(_) } => {
                Err("the request has both `instances` and `inputs`; send one of them".to_owned())
            }
            Wire { instances: Some(text), inputs: None } => {
                let rows = serde_json::from_str::<Vec<&RawValue>>(text.get())
                    .map_err(|error| format!("`instances` is no list of rows: {error}"))?;
                match rows.len() {
                    0 => Err("`instances` is empty: there is nothing to predict".to_owned()),
                    rows => Ok(Self::Rows { text, rows }),
                }
            }
            Wire { instances: None, inputs: Some(text) } => Ok(Self::Columns(text)),
            Wire { instances: None, inputs: None } => {
                Err("the request has neither `instances` (a list of rows) nor `inputs` (whole tensors)"
                    .to_owned())
            }
        }
    }

    /// How many rows there are, where the request counts them.
    pub(super) fn rows(&self) -> Option<usize> {
        match self {
            Self::Rows { rows, .. } => Some(*rows),
            Self::Columns(_) => None,
        }
    }
}

impl Untyped for Instances {
    fn tensors(&self, signature: &Signature) -> Result<Vec<(String, Tensor)>, String> {
        match self {
            Self::Columns(text) if is_object(text) => {
                let columns: BTreeMap<String, &RawValue> = object(text)?;
                let tensor = |(name, text): (String, &RawValue)| {
                    let tensor = tensor(field(signature, &name)?, text.get())?;
                    Ok((name, tensor))
                };
                columns.into_iter().map(tensor).collect()
            }
            Self::Rows { text, rows } => {
                let entries: Vec<&RawValue> = serde_json::from_str(text.get()).map_err(|e| e.to_string())?;
                if entries.iter().any(|entry| is_object(entry)) {
                    by_name(signature, &entries, *rows)
                } else {
                    only(signature, text)
                }
            }
            Self::Columns(text) => only(signature, text),
        }
    }
}

/// The model's only required input, in rows without a name.
fn only(signature: &Signature, text: &RawValue) -> Result<Vec<(String, Tensor)>, String> {
    let mut required = signature.inputs.iter().filter(|field| !field.optional);
    let (Some(field), None) = (required.next().or(signature.inputs.first()), required.next()) else {
        let names: Vec<String> = signature.inputs.iter().map(|field| format!("`{}`", field.name)).collect();
        return Err(format!("the model takes {}; name them, in an object for each row", names.join(", ")));
    };
    Ok(vec![(field.name.clone(), tensor(field, text.get())?)])
}

/// Rows that are objects of inputs, as one tensor for each input.
fn by_name(
    signature: &Signature,
    entries: &[&RawValue],
    rows: usize,
) -> Result<Vec<(String, Tensor)>, String> {
    let mut columns: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let entry: BTreeMap<String, &RawValue> = object(entry).map_err(|e| format!("row {at}: {e}"))?;
        for (name, value) in entry {
            columns.entry(name).or_default().push(value.get());
        }
    }
    let tensor = |(name, values): (String, Vec<&str>)| {
        let field = field(signature, &name)?;
        if values.len() != rows {
            return Err(format!("input `{name}` is in {} of {rows} rows", values.len()));
        }
        // Numbers and texts go with a request as a whole.
        let alone = matches!(field.kind, Kind::Int | Kind::Float | Kind::Bool | Kind::String);
        if alone && values.iter().any(|value| *value != values[0]) {
            return Err(format!("input `{name}` is one {} for all rows, and theirs differ", field.kind));
        }
        let text = if alone { values[0].to_owned() } else { format!("[{}]", values.join(",")) };
        let tensor = tensor(field, &text)?;
        Ok((name, tensor))
    };
    columns.into_iter().map(tensor).collect()
}

fn field<'a>(signature: &'a Signature, name: &str) -> Result<&'a Field, String> {
    signature.inputs.iter().find(|field| field.name == name).ok_or_else(|| {
        let names: Vec<String> = signature.inputs.iter().map(|field| format!("`{}`", field.name)).collect();
        format!("there is no input `{name}`; the model takes {}", names.join(", "))
    })
}

fn tensor(field: &Field, text: &str) -> Result<Tensor, String> {
    let wrong = |reason: String| format!("input `{}`: {reason}", field.name);
    let Outline { mut sizes, element } = Outline::of(text).map_err(wrong)?;
    // A number is a tensor of one.
    if sizes.is_empty() && field.kind != Kind::Tensor {
        sizes.push(1);
    }
    let guess = || element.map(super::outline::Element::datatype);
    let datatype = inputs::datatype(field)
        .or_else(guess)
        .ok_or_else(|| wrong("it is empty, and of no datatype that is known".to_owned()))?;
    // Half precision has no form in JSON, and V1 has no other.
    let narrow: fn([u8; 4]) -> [u8; 2] = match datatype {
        Datatype::Fp16 => |wide| f16::from_f32(f32::from_le_bytes(wide)).to_le_bytes(),
        Datatype::Bf16 => |wide| bf16::from_f32(f32::from_le_bytes(wide)).to_le_bytes(),
        _ => return data::decode(datatype, &sizes, text).map_err(wrong),
    };
    let wide = data::decode(Datatype::Fp32, &sizes, text).map_err(wrong)?;
    let data = match wide.data {
        Data::Fixed(bytes) => {
            bytes.as_chunks::<4>().0.iter().flat_map(|wide| narrow(*wide)).collect::<Vec<u8>>()
        }
        Data::Strings(_) => Vec::new(),
    };
    Ok(Tensor { datatype, shape: wide.shape, data: Data::Fixed(data.into()) })
}

fn is_object(text: &RawValue) -> bool {
    text.get().trim_start().starts_with('{')
}

fn object(text: &RawValue) -> Result<BTreeMap<String, &RawValue>, String> {
    serde_json::from_str(text.get()).map_err(|error| format!("it is no object of inputs: {error}"))
}

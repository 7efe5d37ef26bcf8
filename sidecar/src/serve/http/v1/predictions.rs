//! Writes the body of a V1 reply: nested lists, one entry for each row.

use axum::response::Response;
use bytes::Bytes;
use half::{bf16, f16};
use http::{HeaderValue, header};
use sconce_catalog::Datatype;

use super::super::{super::infer::Answer, VERSION, frames::Frames, numbers};
use crate::engine::{Data, Output, Tensor};

/// Elements, or texts.
#[derive(Clone, Copy)]
enum Elements<'a> {
    Fixed(&'a [u8], usize),
    Strings(&'a [Bytes]),
}

/// The reply to a request of so many rows.
///
/// One output is a list of its rows. Several are an object for each row, or one of whole tensors where
/// they have not one row for each of the request's.
pub(super) fn write(answer: &Answer, rows: Option<usize>) -> Result<Response<Frames>, String> {
    let outputs: Vec<Output> = answer.outputs.iter().map(widened).collect();
    let mut json = b"{\"predictions\":".to_vec();
    match (&outputs[..], rows_of(&outputs, rows)) {
        ([one], _) if one.tensor.shape.is_empty() => {
            json.push(b'[');
            write_whole(&mut json, one)?;
            json.push(b']');
        }
        ([one], _) => write_whole(&mut json, one)?,
        (outputs, Some(rows)) => {
            list(&mut json, rows, |json, row| {
                object(json, outputs, |json, output| {
                    let all = elements(&output.tensor);
                    nested(json, output, &output.tensor.shape[1..], all.part(row, rows))
                })
            })?;
        }
        (outputs, None) => object(&mut json, outputs, write_whole)?,
    }
    json.push(b'}');
    let mut response = Response::new(Frames::new([Bytes::from(json)]));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(version) = HeaderValue::from_str(answer.version.as_str()) {
        headers.insert(VERSION, version);
    }
    Ok(response)
}

/// The number of rows that all outputs have in common, and the request.
fn rows_of(outputs: &[Output], asked: Option<usize>) -> Option<usize> {
    let first = *outputs.first()?.tensor.shape.first()?;
    let rows = usize::try_from(first).ok()?;
    let alike = outputs.iter().all(|output| output.tensor.shape.first() == Some(&first));
    (alike && rows > 0 && asked.is_none_or(|asked| asked == rows)).then_some(rows)
}

/// Half precision as FP32, which JSON can carry: V1 has no other form for it.
fn widened(output: &Output) -> Output {
    let halves = |bytes: &Bytes, wide: fn([u8; 2]) -> f32| {
        bytes.as_chunks::<2>().0.iter().flat_map(|half| wide(*half).to_le_bytes()).collect::<Vec<u8>>()
    };
    let wide = match (&output.tensor.data, output.tensor.datatype) {
        (Data::Fixed(bytes), Datatype::Fp16) => halves(bytes, |half| f16::from_le_bytes(half).to_f32()),
        (Data::Fixed(bytes), Datatype::Bf16) => halves(bytes, |half| bf16::from_le_bytes(half).to_f32()),
        _ => return output.clone(),
    };
    let shape = output.tensor.shape.clone();
    let tensor = Tensor { datatype: Datatype::Fp32, shape, data: Data::Fixed(wide.into()) };
    Output { name: output.name.clone(), tensor }
}

fn elements(tensor: &Tensor) -> Elements<'_> {
    match &tensor.data {
        Data::Fixed(bytes) => Elements::Fixed(bytes, tensor.datatype.width().unwrap_or(1)),
        Data::Strings(strings) => Elements::Strings(strings),
    }
}

fn write_whole(json: &mut Vec<u8>, output: &Output) -> Result<(), String> {
    nested(json, output, &output.tensor.shape, elements(&output.tensor))
}

fn nested(json: &mut Vec<u8>, output: &Output, shape: &[u64], elements: Elements<'_>) -> Result<(), String> {
    match shape {
        [] => flat(json, output, elements),
        // Rows of nothing can be more than there is memory to list.
        [..] if elements.is_empty() => {
            json.extend_from_slice(b"[]");
            Ok(())
        }
        [_] => {
            json.push(b'[');
            flat(json, output, elements)?;
            json.push(b']');
            Ok(())
        }
        [length, inner @ ..] => {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            list(json, length, |json, at| nested(json, output, inner, elements.part(at, length)))
        }
    }
}

fn flat(json: &mut Vec<u8>, output: &Output, elements: Elements<'_>) -> Result<(), String> {
    let strings = match elements {
        // The other datatypes have a form, or have been given one.
        Elements::Fixed(bytes, _) => {
            numbers::write(json, output.tensor.datatype, bytes);
            return Ok(());
        }
        Elements::Strings(strings) => strings,
    };
    for (at, string) in strings.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        let text = std::str::from_utf8(string).map_err(|_| {
            format!("output `{}` holds bytes that are not UTF-8; ask for it over /v2", output.name)
        })?;
        text_of(json, text);
    }
    Ok(())
}

fn object(
    json: &mut Vec<u8>,
    outputs: &[Output],
    write: impl Fn(&mut Vec<u8>, &Output) -> Result<(), String>,
) -> Result<(), String> {
    json.push(b'{');
    for (at, output) in outputs.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        text_of(json, &output.name);
        json.push(b':');
        write(json, output)?;
    }
    json.push(b'}');
    Ok(())
}

fn list(
    json: &mut Vec<u8>,
    length: usize,
    write: impl Fn(&mut Vec<u8>, usize) -> Result<(), String>,
) -> Result<(), String> {
    json.push(b'[');
    for at in 0..length {
        if at > 0 {
            json.push(b',');
        }
        write(json, at)?;
    }
    json.push(b']');
    Ok(())
}

fn text_of(json: &mut Vec<u8>, text: &str) {
    // Text always has a form, and a `Vec` always has room.
    let _ = serde_json::to_writer(json, text);
}

impl<'a> Elements<'a> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Fixed(bytes, _) => bytes.is_empty(),
            Self::Strings(strings) => strings.is_empty(),
        }
    }

    /// One of so many equal parts.
    fn part(&self, at: usize, of: usize) -> Elements<'a> {
        let range = |length: usize| length / of * at..length / of * (at + 1);
        match *self {
            Self::Fixed(bytes, width) => {
                let range = range(bytes.len() / width);
                Elements::Fixed(&bytes[range.start * width..range.end * width], width)
            }
            Self::Strings(strings) => Elements::Strings(&strings[range(strings.len())]),
        }
    }
}

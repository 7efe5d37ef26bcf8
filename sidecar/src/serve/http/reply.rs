//! Writes the body of an inference reply: JSON, and behind it the outputs wanted as bytes.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use sconce_catalog::Datatype;

use super::{
    super::{infer::Answer, raw},
    JSON_LENGTH, VERSION,
    frames::Frames,
    numbers,
    request::Forms,
};
use crate::engine::{Data, Output};

/// The whole reply.
///
/// Written by hand rather than through a tree of values: an output may have millions of
/// elements.
pub(super) fn write(answer: Answer, forms: &Forms) -> Result<Response<Frames>, String> {
    let mut json = Vec::with_capacity(256);
    let mut blobs = Vec::new();
    let version = answer.version.as_str();
    json.extend_from_slice(b"{\"model_name\":");
    text(&mut json, &answer.model);
    json.extend_from_slice(b",\"model_version\":");
    text(&mut json, version);
    if let Some(id) = &answer.id {
        json.extend_from_slice(b",\"id\":");
        text(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    let named = HeaderValue::from_str(version);
    for (at, output) in answer.outputs.into_iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        blobs.extend(write_output(&mut json, output, forms)?);
    }
    json.extend_from_slice(b"]}");

    let length = HeaderValue::from(json.len());
    let binary = !blobs.is_empty();
    let mut response = Response::new(Frames::new([Bytes::from(json)].into_iter().chain(blobs)));
    let headers = response.headers_mut();
    if let Ok(version) = named {
        headers.insert(VERSION, version);
    }
    let kind = if binary { "application/octet-stream" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Clients take its presence for a binary part.
    if binary {
        headers.insert(JSON_LENGTH, length);
    }
    Ok(response)
}

/// Appends one output; gives back what goes behind the JSON.
fn write_output(json: &mut Vec<u8>, output: Output, forms: &Forms) -> Result<Option<Bytes>, String> {
    let Output { name, tensor } = output;
    json.extend_from_slice(b"{\"name\":");
    text(json, &name);
    json.extend_from_slice(b",\"shape\":");
    value(json, &tensor.shape);
    json.extend_from_slice(b",\"datatype\":");
    text(json, tensor.datatype.name());
    if let Some(sink) = forms.sink(&name) {
        let blob = raw::encode(tensor.data);
        sink.write(&name, &blob)?;
        json.extend_from_slice(b",\"parameters\":{\"shared_memory_region\":");
        text(json, &sink.place.region);
        json.extend_from_slice(b",\"shared_memory_offset\":");
        value(json, &sink.place.offset);
        json.extend_from_slice(b",\"shared_memory_byte_size\":");
        value(json, &blob.len());
        json.extend_from_slice(b"}}");
        return Ok(None);
    }
    if forms.binary(&name) {
        let blob = raw::encode(tensor.data);
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        value(json, &blob.len());
        json.extend_from_slice(b"}}");
        return Ok(Some(blob));
    }
    json.extend_from_slice(b",\"data\":[");
    match &tensor.data {
        Data::Fixed(bytes) => {
            if !numbers::write(json, tensor.datatype, bytes) {
                return Err(no_json(&name, tensor.datatype));
            }
        }
        Data::Strings(strings) => {
            for (at, string) in strings.iter().enumerate() {
                if at > 0 {
                    json.push(b',');
                }
                text(json, std::str::from_utf8(string).map_err(|_| no_json(&name, tensor.datatype))?);
            }
        }
    }
    json.extend_from_slice(b"]}");
    Ok(None)
}

fn no_json(output: &str, datatype: Datatype) -> String {
    let what = if datatype == Datatype::Bytes { "bytes that are not UTF-8" } else { datatype.name() };
    format!(
        "output `{output}` holds {what}, which JSON cannot carry; ask for it with the parameter binary_data"
    )
}

fn text(json: &mut Vec<u8>, text: &str) {
    value(json, text);
}

fn value<T: serde::Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) {
    // Text and numbers always have a form, and a `Vec` always has room.
    let _ = serde_json::to_writer(json, value);
}

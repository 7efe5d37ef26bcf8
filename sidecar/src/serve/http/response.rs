//! An inference reply's body.

use ::http::{HeaderName, HeaderValue, Response as HttpResponse, header};
use axum::{body::Body, response::Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use serde_json::json;

use super::request::{Form, JSON_LENGTH};
use crate::{
    engine::{Data, Output},
    serve::{ServeError, infer::Answer},
};

/// Names the version that answered.
pub(crate) const VERSION_HEADER: &str = "x-sconce-version";

pub(super) fn write(model: &str, id: &str, answer: Answer, form: &Form) -> Result<Response, ServeError> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    quote(&mut json, model);
    json.extend_from_slice(b",\"model_version\":");
    quote(&mut json, answer.version.as_str());
    if !id.is_empty() {
        json.extend_from_slice(b",\"id\":");
        quote(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    let mut blobs = Vec::new();
    for (at, output) in answer.outputs.into_iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        let binary = form.is_binary(&output.name);
        one(&mut json, &mut blobs, output, binary)?;
    }
    json.extend_from_slice(b"]}");
    reply(json, blobs, answer.version.as_str())
}

fn one(json: &mut Vec<u8>, blobs: &mut Vec<Bytes>, output: Output, binary: bool) -> Result<(), ServeError> {
    let tensor = output.tensor;
    let head = json!({ "name": &*output.name, "datatype": tensor.datatype.name(), "shape": tensor.shape });
    let mut head = head.to_string();
    // The object is closed below, behind the data.
    head.pop();
    json.extend_from_slice(head.as_bytes());
    if binary {
        let blob = to_binary(tensor.data);
        json.extend_from_slice(format!(",\"parameters\":{{\"binary_data_size\":{}}}", blob.len()).as_bytes());
        blobs.push(blob);
    } else {
        json.extend_from_slice(b",\"data\":");
        super::elements::write(&tensor, json)
            .map_err(|what| ServeError::Invalid(format!("output `{}` {what}", output.name)))?;
    }
    json.push(b'}');
    Ok(())
}

/// Elements as the binary extension and gRPC's raw contents have them.
pub(in crate::serve) fn to_binary(data: Data) -> Bytes {
    match data {
        Data::Fixed(bytes) => bytes,
        Data::Strings(strings) => {
            let mut out = BytesMut::with_capacity(strings.iter().map(|text| 4 + text.len()).sum());
            for text in strings {
                // An element came from memory as one text, so it is far below 4 GiB.
                out.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
                out.put(text);
            }
            out.freeze()
        }
    }
}

fn reply(json: Vec<u8>, blobs: Vec<Bytes>, version: &str) -> Result<Response, ServeError> {
    let json_length = json.len();
    let length = json_length + blobs.iter().map(Bytes::len).sum::<usize>();
    let mut response = HttpResponse::builder()
        .header(header::CONTENT_LENGTH, length)
        .header(HeaderName::from_static(VERSION_HEADER), version);
    let body = if blobs.is_empty() {
        response = response.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Body::from(json)
    } else {
        response = response
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
            .header(HeaderName::from_static(JSON_LENGTH), json_length);
        // The tensors go to the socket as they are, not through one large copy.
        let parts = std::iter::once(Bytes::from(json)).chain(blobs).filter(|part| !part.is_empty());
        Body::from_stream(stream::iter(parts.map(Ok::<_, std::convert::Infallible>).collect::<Vec<_>>()))
    };
    response.body(body).map_err(|error| ServeError::Model(format!("the reply has no form: {error}")))
}

fn quote(json: &mut Vec<u8>, text: &str) {
    json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
}

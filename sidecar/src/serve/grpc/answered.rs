//! Answers of gRPC's.

use std::collections::HashMap;

use bytes::Bytes;
use sconce_proto::inference::{ModelInferResponse, model_infer_response::InferOutputTensor};
use tonic::{Response, metadata::MetadataValue};

use super::{
    super::{error::ServeError, http::VERSION, infer::Answer, raw, shared_memory::Sinks},
    shared_memory,
};

/// The message of an answer, those of its outputs written to where they go that are not sent.
pub(super) fn message(answer: Answer, sinks: &Sinks) -> Result<ModelInferResponse, ServeError> {
    let mut reply = ModelInferResponse {
        model_name: answer.model,
        model_version: answer.version.to_string(),
        id: answer.id.unwrap_or_default(),
        ..Default::default()
    };
    for output in answer.outputs {
        let sizes = output.tensor.shape.iter();
        let mut bytes = raw::encode(output.tensor.data);
        let mut parameters = HashMap::new();
        if let Some(sink) = sinks.get(&*output.name) {
            sink.write(&output.name, &bytes).map_err(ServeError::Malformed)?;
            parameters = shared_memory::told(sink, bytes.len());
            // Clients find an output's bytes by its position, so what has none takes one all the same.
            bytes = Bytes::new();
        }
        reply.outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.datatype.name().to_owned(),
            // A size that exists in memory.
            shape: sizes.map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect(),
            parameters,
            ..Default::default()
        });
        // Always raw: clients read nothing else reliably.
        reply.raw_output_contents.push(bytes);
    }
    Ok(reply)
}

/// The same as a response, whose metadata say which version answered.
pub(super) fn write(answer: Answer, sinks: &Sinks) -> Result<Response<ModelInferResponse>, ServeError> {
    let mut response = Response::new(message(answer, sinks)?);
    if let Ok(value) = MetadataValue::try_from(&response.get_ref().model_version) {
        response.metadata_mut().insert(VERSION, value);
    }
    Ok(response)
}

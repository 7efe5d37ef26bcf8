//! The model configuration extension over HTTP.

use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};

use super::{
    super::{
        Server,
        error::ServeError,
        model_config::{BACKEND, ModelConfig, PLATFORM, TensorConfig, type_name},
    },
    Target,
};

pub(super) fn routes() -> Router<Server> {
    Router::new()
        .route("/v2/models/{model}/config", get(config))
        .route("/v2/models/{model}/versions/{version}/config", get(config))
}

async fn config(State(server): State<Server>, target: Target) -> Result<Json<Value>, ServeError> {
    Ok(Json(write(server.model_config(&target.model, target.version.as_deref())?)))
}

fn write(config: ModelConfig) -> Value {
    let mut json = json!({
        "name": config.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": { "all": {} },
        "max_batch_size": config.max_batch_size,
        "input": config.inputs.into_iter().map(input).collect::<Vec<_>>(),
        "output": config.outputs.into_iter().map(output).collect::<Vec<_>>(),
        "instance_group": [{ "name": config.name, "kind": "KIND_CPU", "count": config.runs, "gpus": [] }],
        "model_transaction_policy": { "decoupled": false },
    });
    if config.max_batch_size > 0 {
        json["dynamic_batching"] = json!({
            "max_queue_delay_microseconds": 0,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": u64::try_from(config.timeout.as_micros()).unwrap_or(u64::MAX),
                "allow_timeout_override": true,
                "max_queue_size": config.queue,
            },
        });
    }
    json
}

fn input(tensor: TensorConfig) -> Value {
    let optional = tensor.optional;
    let mut json = output(tensor);
    json["optional"] = optional.into();
    // Clients of Triton's read these of every input.
    json["format"] = "FORMAT_NONE".into();
    json["is_shape_tensor"] = false.into();
    json
}

fn output(TensorConfig { name, datatype, dims, .. }: TensorConfig) -> Value {
    json!({ "name": name, "data_type": type_name(datatype), "dims": dims })
}

//! The model configuration extension over gRPC.

use sconce_proto::inference::{
    self as wire, DataType, ModelConfigRequest, ModelConfigResponse, ModelDynamicBatching, ModelInput,
    ModelInstanceGroup, ModelOutput, ModelQueuePolicy, ModelTransactionPolicy, ModelVersionPolicy,
    model_instance_group, model_queue_policy, model_version_policy,
};

use super::{
    super::{
        Server,
        error::ServeError,
        model_config::{BACKEND, ModelConfig, PLATFORM, TensorConfig, type_name},
    },
    some,
};

pub(super) fn answer(
    server: &Server,
    request: ModelConfigRequest,
) -> Result<ModelConfigResponse, ServeError> {
    let ModelConfigRequest { name, version } = request;
    let config = server.model_config(&name, some(version).as_deref())?;
    Ok(ModelConfigResponse { config: Some(write(config)) })
}

fn write(config: ModelConfig) -> wire::ModelConfig {
    let all = model_version_policy::PolicyChoice::All(model_version_policy::All {});
    let queueing = ModelQueuePolicy {
        timeout_action: model_queue_policy::TimeoutAction::Reject.into(),
        default_timeout_microseconds: u64::try_from(config.timeout.as_micros()).unwrap_or(u64::MAX),
        allow_timeout_override: true,
        max_queue_size: config.queue,
    };
    let batching =
        ModelDynamicBatching { max_queue_delay_microseconds: 0, default_queue_policy: Some(queueing) };
    let group = ModelInstanceGroup {
        name: config.name.clone(),
        kind: model_instance_group::Kind::Cpu.into(),
        count: config.runs,
    };
    wire::ModelConfig {
        name: config.name,
        platform: PLATFORM.to_owned(),
        backend: BACKEND.to_owned(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(all) }),
        max_batch_size: config.max_batch_size,
        input: config.inputs.into_iter().map(input).collect(),
        output: config.outputs.into_iter().map(output).collect(),
        instance_group: vec![group],
        dynamic_batching: (config.max_batch_size > 0).then_some(batching),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
    }
}

fn input(TensorConfig { name, datatype, dims, optional }: TensorConfig) -> ModelInput {
    ModelInput { name, data_type: data_type(datatype), dims, optional }
}

fn output(TensorConfig { name, datatype, dims, .. }: TensorConfig) -> ModelOutput {
    ModelOutput { name, data_type: data_type(datatype), dims }
}

fn data_type(datatype: Option<sconce_catalog::Datatype>) -> i32 {
    DataType::from_str_name(type_name(datatype)).unwrap_or(DataType::TypeInvalid).into()
}

//! What the server says about itself and its models, in either protocol.

use std::collections::BTreeMap;

use sconce_catalog::{Datatype, Field, ModelName};
use sconce_identity::Principal;

use super::{Server, error::ServeError, infer, inputs};
use crate::{
    engine::State,
    models::live::{ServedModel, ServedVersion},
};

/// The extensions of the protocol that are really there for this caller.
pub(super) fn extensions(caller: Option<&Principal>) -> Vec<&'static str> {
    let local = (caller == Some(&Principal::Loopback)).then_some("system_shared_memory");
    EXTENSIONS.iter().copied().chain(local).collect()
}

const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "sequence",
    "sequence(string_id)",
    "statistics",
];

/// What a caller needs to know to use a model.
#[derive(serde::Serialize)]
pub(super) struct Description {
    pub name: String,
    pub versions: Vec<String>,
    pub platform: &'static str,
    pub inputs: Vec<TensorDescription>,
    pub outputs: Vec<TensorDescription>,
    /// What the protocol has no field for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<&'static str, &'static str>,
}

/// One input or output.
#[derive(serde::Serialize)]
pub(super) struct TensorDescription {
    pub name: String,
    /// Empty where the model does not say.
    pub datatype: &'static str,
    /// -1 is variable.
    pub shape: Vec<i64>,
}

impl Server {
    /// Describes a model by the version named, else by the one with the largest share.
    pub(super) fn describe(&self, spelled: &str, version: Option<&str>) -> Result<Description, ServeError> {
        let set = self.0.live.snapshot();
        let (_, model) = self.model(&set, spelled)?;
        let described = self.described(model, spelled, version)?;
        let signature = described.queue.module().signature();
        Ok(Description {
            name: spelled.to_owned(),
            versions: model.ready.keys().map(ToString::to_string).collect(),
            platform: self.0.config.platform,
            inputs: signature.inputs.iter().map(describe).collect(),
            outputs: signature.outputs.iter().map(describe).collect(),
            properties: state(described.queue.module().state()).into_iter().collect(),
        })
    }

    /// The version that a question about a model is about.
    pub(super) fn described<'a>(
        &self,
        model: &'a ServedModel,
        spelled: &str,
        version: Option<&str>,
    ) -> Result<&'a ServedVersion, ServeError> {
        match version {
            Some(text) => infer::named(model, spelled, text),
            None => model
                .split
                .as_ref()
                .and_then(|split| model.ready.get(split.split().stable()))
                .or_else(|| model.ready.values().next_back())
                .map(std::sync::Arc::as_ref)
                .ok_or_else(|| infer::nothing_ready(model, spelled)),
        }
    }

    /// Whether this version, or whoever the split chooses, can answer.
    pub(super) fn check_ready(&self, spelled: &str, version: Option<&str>) -> Result<(), ServeError> {
        let set = self.0.live.snapshot();
        let (_, model) = self.model(&set, spelled)?;
        match version {
            Some(text) => infer::named(model, spelled, text).map(drop),
            None if model.split.is_some() => Ok(()),
            None => Err(infer::nothing_ready(model, spelled)),
        }
    }

    /// Every model, as a caller would spell it.
    pub(super) fn models(&self) -> Vec<String> {
        self.0.live.snapshot().models.keys().map(|name| self.spell(name)).collect()
    }

    /// As a caller would spell it.
    pub(super) fn spell(&self, name: &ModelName) -> String {
        if name.namespace() == self.0.config.namespace {
            name.name().to_owned()
        } else {
            format!("{}/{}", name.namespace(), name.name())
        }
    }
}

fn state(state: State) -> Option<(&'static str, &'static str)> {
    let kept = match state {
        State::None => return None,
        State::Instance => "sequence",
        State::Shared => "shared",
    };
    Some(("state", kept))
}

fn describe(field: &Field) -> TensorDescription {
    TensorDescription {
        name: field.name.clone(),
        datatype: inputs::datatype(field).map_or("", Datatype::name),
        shape: inputs::sizes(field),
    }
}

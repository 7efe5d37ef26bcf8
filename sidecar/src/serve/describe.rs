//! What the server says about itself and its models, in either protocol.

use std::collections::BTreeMap;

use sconce_catalog::{Datatype, Field};

use super::{Server, error::ServeError, infer, inputs};
use crate::{engine::State, models::live::ServedVersion};

/// The extensions of the protocol that are really there.
pub(super) const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "schedule_policy", "sequence", "sequence(string_id)"];

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
        let described: &ServedVersion = match version {
            Some(text) => infer::named(model, spelled, text)?,
            None => model
                .split
                .as_ref()
                .and_then(|split| model.ready.get(split.split().stable()))
                .or_else(|| model.ready.values().next_back())
                .ok_or_else(|| infer::nothing_ready(model, spelled))?,
        };
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
        let own = &self.0.config.namespace;
        let spell = |name: &sconce_catalog::ModelName| {
            if name.namespace() == own {
                name.name().to_owned()
            } else {
                format!("{}/{}", name.namespace(), name.name())
            }
        };
        self.0.live.snapshot().models.keys().map(spell).collect()
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

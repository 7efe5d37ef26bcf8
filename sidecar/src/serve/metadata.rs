//! What the server says of itself and of its models.

use sconce_catalog::{Field, Version};

use super::{ServeError, Server, infer};

/// Only what really works is listed.
pub(super) const EXTENSIONS: &[&str] = &["binary_tensor_data"];
pub(super) const SERVER_NAME: &str = "sconce";
pub(super) const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A model as the protocol describes it.
pub(super) struct ModelMetadata {
    pub(super) name: String,
    pub(super) versions: Vec<String>,
    pub(super) platform: &'static str,
    pub(super) inputs: Vec<TensorMetadata>,
    pub(super) outputs: Vec<TensorMetadata>,
}

/// A tensor as the protocol describes it.
#[derive(serde::Serialize)]
pub(super) struct TensorMetadata {
    pub(super) name: String,
    pub(super) datatype: &'static str,
    /// -1 for a dimension of variable size.
    pub(super) shape: Vec<i64>,
}

impl Server {
    pub(super) fn metadata(&self, model: &str, pin: Option<&str>) -> Result<ModelMetadata, ServeError> {
        let set = self.live.snapshot();
        let (name, served) = self.model(&set, model)?;
        let pin = pin.map(|pin| infer::version(&name, pin)).transpose()?;
        let version = match &pin {
            Some(_) => infer::choose(&name, served, pin.as_ref())?,
            // Versions in one split fit one another, so the largest share speaks for all.
            None => {
                served.split.as_ref().and_then(|split| served.ready.get(split.split().stable())).ok_or_else(
                    || ServeError::Unavailable(format!("model `{name}` has no version that is ready")),
                )?
            }
        };
        let signature = version.module.signature();
        Ok(ModelMetadata {
            name: model.to_owned(),
            versions: served.ready.keys().map(Version::to_string).collect(),
            platform: self.config.platform,
            inputs: signature.inputs.iter().map(tensor).collect(),
            outputs: signature.outputs.iter().map(tensor).collect(),
        })
    }

    pub(super) fn is_model_ready(&self, model: &str, pin: Option<&str>) -> Result<bool, ServeError> {
        let set = self.live.snapshot();
        let (name, served) = self.model(&set, model)?;
        Ok(match pin.map(|pin| infer::version(&name, pin)).transpose()? {
            None => served.split.is_some(),
            Some(version) if served.ready.contains_key(&version) => true,
            Some(version) if served.unready.contains_key(&version) => false,
            Some(version) => {
                return Err(ServeError::NotFound(format!("model `{name}` has no version `{version}`")));
            }
        })
    }
}

fn tensor(field: &Field) -> TensorMetadata {
    TensorMetadata {
        name: field.name.clone(),
        // Neither the archive nor the pusher says: any datatype is taken.
        datatype: field.datatype.map_or("", |datatype| datatype.name()),
        shape: match &field.shape {
            Some(shape) => shape.clone().into(),
            None if field.kind.datatype().is_some() => {
                vec![if field.kind == sconce_catalog::Kind::StringList { -1 } else { 1 }]
            }
            None => vec![-1],
        },
    }
}

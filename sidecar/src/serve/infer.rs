//! One inference, whatever protocol it came by.

use std::{sync::Arc, time::Instant};

use sconce_catalog::{Ask, Field, ModelName, PickError, Shape, Ticket, Version, pick};
use sconce_telemetry::names;

use super::{ServeError, Server};
use crate::{
    engine::{EngineError, Module, Output, RunError, Tensor},
    models::live::{ModelSet, ServedModel, ServedVersion},
};

/// What is asked.
#[derive(Debug, Default)]
pub struct Infer {
    /// As the caller wrote it.
    pub model: String,
    /// The version the caller insists on.
    pub pin: Option<String>,
    /// Returned as it is.
    pub id: String,
    /// By name, in the caller's order.
    pub inputs: Vec<(String, Tensor)>,
    /// The outputs wanted; empty means all.
    pub outputs: Vec<String>,
    /// `http` or `grpc`, for the metrics.
    pub protocol: &'static str,
}

/// What is answered.
pub struct Answer {
    /// The version that answered.
    pub version: Version,
    /// In the order asked for, else in the model's.
    pub outputs: Vec<Output>,
}

impl Server {
    /// Answers one request from one snapshot of what is served.
    pub(super) async fn infer(&self, request: Infer) -> Result<Answer, ServeError> {
        let began = Instant::now();
        let (model, protocol) = (request.model.clone(), request.protocol);
        let mut answered_by = None;
        let result = self.answer(request, &mut answered_by).await;
        let outcome = result.as_ref().map_or_else(|error| error.label(), |_| "ok");
        // Names that no model has would make a series for every typing error.
        let (model, version) =
            answered_by.map_or(("unknown".to_owned(), String::new()), |v: Version| (model, v.to_string()));
        metrics::counter!(names::REQUESTS, "model" => model.clone(), "version" => version.clone(), "protocol" => protocol, "outcome" => outcome).increment(1);
        metrics::histogram!(names::REQUEST_SECONDS, "model" => model, "version" => version, "protocol" => protocol)
            .record(began.elapsed());
        result
    }

    async fn answer(&self, request: Infer, answered_by: &mut Option<Version>) -> Result<Answer, ServeError> {
        let set = self.live.snapshot();
        let (name, model) = self.model(&set, &request.model)?;
        let pin = request.pin.as_deref().map(|pin| version(&name, pin)).transpose()?;
        let served = choose(&name, model, pin.as_ref())?;
        *answered_by = Some(served.version.clone());
        let inputs = arrange(&name, served.module.as_ref(), request.inputs)?;
        let outputs = match self.pool.run(Arc::clone(&served.module), inputs).await {
            Ok(outputs) => outputs,
            Err(error) => {
                // Only the model's own failure counts against the version.
                if matches!(error, RunError::Engine(EngineError::Model(_) | EngineError::Output(_))) {
                    served.counts.count_failed();
                }
                return Err(named(&name, error));
            }
        };
        let outputs = select(&name, outputs, &request.outputs)?;
        served.counts.count_answered();
        Ok(Answer { version: served.version.clone(), outputs })
    }

    /// The model of this name: `name` in the sidecar's namespace, or `namespace/name`.
    pub(super) fn model<'a>(
        &self,
        set: &'a ModelSet,
        wanted: &str,
    ) -> Result<(ModelName, &'a ServedModel), ServeError> {
        let unknown = || ServeError::NotFound(format!("model `{wanted}` is not known here"));
        let name = match wanted.split_once('/') {
            Some((namespace, name)) => ModelName::new(namespace, name),
            None => ModelName::new(&self.config.namespace, wanted),
        };
        let name = name.map_err(|_| unknown())?;
        let model = set.models.get(&name).ok_or_else(unknown)?;
        Ok((name, model))
    }
}

fn named(model: &ModelName, error: RunError) -> ServeError {
    match ServeError::from(error) {
        ServeError::Invalid(text) => ServeError::Invalid(format!("model `{model}`: {text}")),
        ServeError::Model(text) => ServeError::Model(format!("model `{model}`: {text}")),
        other => other,
    }
}

pub(super) fn version(model: &ModelName, text: &str) -> Result<Version, ServeError> {
    text.parse().map_err(|_| ServeError::NotFound(format!("model `{model}` has no version `{text}`")))
}

/// The version that answers.
pub(super) fn choose<'a>(
    name: &ModelName,
    model: &'a ServedModel,
    pin: Option<&Version>,
) -> Result<&'a Arc<ServedVersion>, ServeError> {
    // A pinned request takes no place in the order: the shares are among the others.
    let ticket = if pin.is_some() { Ticket(0) } else { model.tickets.next() };
    let ask = Ask { pin, ticket };
    let unready = |version: &Version| match model.unready.get(version) {
        Some(reason) => {
            ServeError::Unavailable(format!("model `{name}` version `{version}` is not ready: {reason}"))
        }
        None => ServeError::NotFound(format!("model `{name}` has no version `{version}`")),
    };
    match pick(ask, model.split.as_ref(), |version| model.ready.contains_key(version)) {
        Ok(picked) => model.ready.get(picked.version()).ok_or_else(|| unready(picked.version())),
        Err(PickError::PinNotReady(version)) => Err(unready(&version)),
        Err(error @ PickError::NothingReady) => {
            let reasons: Vec<String> =
                model.unready.iter().map(|(v, reason)| format!("{v}: {reason}")).collect();
            Err(ServeError::Unavailable(format!("model `{name}`: {error} ({})", reasons.join("; "))))
        }
    }
}

/// Puts the inputs into the model's order, each held against what the model declares.
fn arrange(
    model: &ModelName,
    module: &dyn Module,
    mut given: Vec<(String, Tensor)>,
) -> Result<Vec<Option<Tensor>>, ServeError> {
    let signature = module.signature();
    let invalid = |text: String| ServeError::Invalid(format!("model `{model}`: {text}"));
    let mut arranged = Vec::with_capacity(signature.inputs.len());
    for field in &signature.inputs {
        let found = given.iter().position(|(name, _)| *name == field.name);
        match found.map(|at| given.swap_remove(at).1) {
            Some(tensor) => {
                fits(field, &tensor).map_err(invalid)?;
                arranged.push(Some(tensor));
            }
            None if field.optional => arranged.push(None),
            None => return Err(invalid(format!("input `{}` is missing", field.name))),
        }
    }
    if let Some((name, _)) = given.first() {
        let known: Vec<&str> = signature.inputs.iter().map(|field| field.name.as_str()).collect();
        let problem = if known.contains(&name.as_str()) { "is given twice" } else { "is not known" };
        return Err(invalid(format!("input `{name}` {problem}; the model takes {known:?}")));
    }
    Ok(arranged)
}

fn fits(field: &Field, tensor: &Tensor) -> Result<(), String> {
    if let Some(expected) = field.datatype
        && expected != tensor.datatype
        // A number for a Python number may come in any width: the engine converts it.
        && field.kind.datatype().is_none()
    {
        return Err(format!("input `{}` is {}, and the model takes {expected}", field.name, tensor.datatype));
    }
    match &field.shape {
        Some(shape) if !shape.admits(&tensor.shape) => Err(format!(
            "input `{}` has shape {}, and the model takes {shape}",
            field.name,
            Shape(tensor.shape.iter().copied().map(Some).collect())
        )),
        _ => Ok(()),
    }
}

fn select(model: &ModelName, mut outputs: Vec<Output>, wanted: &[String]) -> Result<Vec<Output>, ServeError> {
    if wanted.is_empty() {
        return Ok(outputs);
    }
    let known: Vec<String> = outputs.iter().map(|output| output.name.to_string()).collect();
    wanted
        .iter()
        .map(|name| {
            let at = outputs.iter().position(|output| *output.name == **name);
            at.map(|at| outputs.remove(at)).ok_or_else(|| {
                let problem = if known.contains(name) { "is asked for twice" } else { "is not known" };
                ServeError::Invalid(format!(
                    "model `{model}`: output `{name}` {problem}; the model gives {known:?}"
                ))
            })
        })
        .collect()
}

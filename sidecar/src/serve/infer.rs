//! What it means to answer one inference request, whatever protocol it came by.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::HeaderMap;
use sconce_catalog::{Ask, Lane, ModelName, Pick, PickError, Place, Route, Signature, Ticket, Version, pick};
use sconce_telemetry::names;

use super::{
    Server,
    arguments::{self, Arguments},
    classify::{Classes, classify},
    error::ServeError,
    inputs,
    measure::Measure,
    routed::Routed,
    sequence::Sequence,
    sequences::{Key, Visit},
};
use crate::{
    engine::{EngineError, Output, Permit, Priority, Queue, RunError, Tensor, Work},
    models::live::{ModelSet, ServedModel, ServedVersion},
};

/// A request to run a model, read and well-formed, not yet checked against the model.
pub(super) struct Infer {
    /// As the caller spells it: `name`, or `namespace/name`.
    pub model: String,
    /// The lane it came by.
    pub lane: Lane,
    /// The version that must answer.
    pub pin: Option<String>,
    /// What the mesh says, of this model or another.
    pub routed: Option<Routed>,
    /// Its headers, or its metadata: one of them may say who is calling.
    pub headers: HeaderMap,
    /// When it must be answered, where it says so.
    pub deadline: Option<Instant>,
    /// Who goes first.
    pub priority: Priority,
    /// The sequence it belongs to.
    pub sequence: Option<Sequence>,
    /// Given back with the answer.
    pub id: Option<String>,
    /// What to run it on.
    pub inputs: Inputs,
    /// Names of the outputs wanted; all where empty.
    pub outputs: Vec<String>,
    /// Of which of them classes are wanted.
    pub classes: Classes,
    /// Parameters that are the request's own.
    pub arguments: Arguments,
}

/// What a model is to run on.
pub(super) enum Inputs {
    /// By name.
    Named(Vec<(String, Tensor)>),
    /// The elements of the model's only input.
    Whole(Bytes),
    /// What only the signature of the version that answers gives datatypes and shapes.
    Untyped(Arc<dyn Untyped>),
}

/// Inputs whose form on the wire says too little of them.
pub(super) trait Untyped: Send + Sync {
    /// The tensors that they are for a model of this signature; why they are none, in words.
    fn tensors(&self, signature: &Signature) -> Result<Vec<(String, Tensor)>, String>;
}

/// The answer to an [`Infer`].
pub(super) struct Answer {
    /// As the caller spelled it.
    pub model: String,
    /// Who answered.
    pub version: Version,
    /// From the request.
    pub id: Option<String>,
    /// What was asked for.
    pub outputs: Vec<Output>,
}

/// What came of one try.
enum Attempt {
    Answered(Answer),
    /// The version that was picked must not begin any more; the request as it was.
    Withdrawn(Box<Infer>),
}

impl Server {
    /// Answers a request from one snapshot of what is served, or from the next where its version
    /// is withdrawn before it began.
    pub(super) async fn infer(&self, mut infer: Infer, measure: &mut Measure) -> Result<Answer, ServeError> {
        infer.deadline.get_or_insert_with(|| Instant::now() + self.0.config.default_timeout);
        loop {
            match self.attempt(infer, measure).await? {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Withdrawn(again) => infer = *again,
            }
        }
    }

    async fn attempt(&self, mut infer: Infer, measure: &mut Measure) -> Result<Attempt, ServeError> {
        let set = self.0.live.snapshot();
        let (name, model) = self.model(&set, &infer.model)?;
        // A header that was meant for another model says nothing here.
        let means = |spelled: &str| self.name(spelled).as_ref() == Some(&name);
        let routed = infer.routed.as_ref();
        let routed = routed.and_then(|routed| Some((routed.header.of(means)?, routed.caller.as_ref())));
        if let Some((route, Some(caller))) = &routed {
            model.routes.saw(caller.name(), route.generation, Instant::now());
        }
        let key = infer.sequence.as_ref().and_then(|sequence| Key::of(&name, infer.lane, sequence));
        let (served, permit) = match self.running(key.as_ref(), &infer)? {
            Some(served) => (served, None),
            None => {
                let caller = caller(&name, model, &infer);
                let (served, permit) =
                    choose(model, &infer, routed.as_ref().map(|(route, _)| route), caller)?;
                (Arc::clone(served), permit)
            }
        };
        measure.picked(&name.to_string(), served.version.as_str());

        let refuse = |reason| ServeError::Input {
            model: infer.model.clone(),
            version: served.version.to_string(),
            reason,
        };
        let signature = served.queue.module().signature();
        inputs::check_asked(signature, &infer.outputs).map_err(refuse)?;
        // The next version may call its only input otherwise, so the bytes are kept as they came.
        let mut as_it_came = None;
        let mut named = match infer.inputs {
            Inputs::Named(named) => named,
            Inputs::Whole(body) => {
                as_it_came = Some(Inputs::Whole(body.clone()));
                vec![inputs::whole(signature, body).map_err(refuse)?]
            }
            Inputs::Untyped(untyped) => {
                let tensors = untyped.tensors(signature).map_err(refuse)?;
                as_it_came = Some(Inputs::Untyped(untyped));
                tensors
            }
        };
        let added = arguments::add(signature, &infer.arguments, &mut named).map_err(refuse)?;
        let arranged = inputs::arrange(signature, named).map_err(refuse)?;
        let (deadline, priority) = (infer.deadline.unwrap_or_else(Instant::now), infer.priority);
        let visit = match &infer.sequence {
            Some(sequence) if served.queue.module().is_stateful() => {
                Some(self.0.config.sequences.enter(key, sequence, &served, &infer.model)?)
            }
            _ => None,
        };
        // Where a sequence starts it stays, whatever the split says meanwhile.
        let permit = permit.filter(|_| visit.is_none());
        let work = Work { inputs: arranged, permit, deadline, priority, turn: None };
        let outputs = match self.run(&served.queue, work, visit).await {
            Ok(outputs) => outputs,
            Err(RunError::Withdrawn(back)) => {
                infer.inputs = as_it_came.unwrap_or_else(|| {
                    let mut named = inputs::named(signature, back);
                    // The next version may not take them.
                    named.retain(|(name, _)| !added.contains(name));
                    Inputs::Named(named)
                });
                // Whatever led to the version that was withdrawn has had its say.
                infer.routed = None;
                return Ok(Attempt::Withdrawn(Box::new(infer)));
            }
            Err(error) => {
                count_failure(&error, &served, &name);
                return Err(match ServeError::ran(error, &infer.model, served.version.as_str()) {
                    // There is no point in coming back here.
                    ServeError::Busy { .. } if self.0.config.leaving.is_cancelled() => ServeError::Stopping,
                    error => error,
                });
            }
        };
        served.counts.count_answered();
        let outputs = inputs::select(&infer.outputs, outputs).map_err(refuse)?;
        let outputs = classify(outputs, &infer.classes, signature, &served.labels).map_err(refuse)?;
        let version = served.version.clone();
        Ok(Attempt::Answered(Answer { version, model: infer.model, id: infer.id, outputs }))
    }

    /// The version that the request's sequence is on, where it goes on with one.
    fn running(&self, key: Option<&Key>, infer: &Infer) -> Result<Option<Arc<ServedVersion>>, ServeError> {
        let Some(sequence) = &infer.sequence else { return Ok(None) };
        if sequence.start {
            // To begin what will be lost in a moment helps nobody.
            let leaving = self.0.config.leaving.is_cancelled() && !sequence.end;
            return if leaving { Err(ServeError::Stopping) } else { Ok(None) };
        }
        let Some(served) = key.and_then(|key| self.0.config.sequences.version(key)) else { return Ok(None) };
        match infer.pin.as_deref().filter(|_| infer.lane != Lane::Shadow) {
            Some(pin) if pin != served.version.as_str() => Err(ServeError::Sequence(format!(
                "the sequence runs on version `{}` of model `{}`, and the request names version `{pin}`",
                served.version, infer.model
            ))),
            _ => Ok(Some(served)),
        }
    }

    /// Runs a request, on the state of its sequence where it visits one.
    async fn run(
        &self,
        queue: &Queue,
        mut work: Work,
        visit: Option<Visit>,
    ) -> Result<Vec<Output>, RunError> {
        let Some(mut visit) = visit else { return self.0.runner.run(queue, work).await };
        let result = match visit.turn(work.deadline).await {
            Ok(turn) => {
                work.turn = Some(turn);
                self.0.runner.run(queue, work).await
            }
            Err(()) => Err(RunError::Late),
        };
        if !matches!(result, Ok(_) | Err(RunError::Engine(_))) {
            visit.undo();
        }
        result
    }

    /// The name that a caller or a route spells: `name` in our namespace, or `namespace/name`.
    ///
    /// No model's name has a `_`, as it becomes the name of a Service; Triton's often have. It is
    /// read as `-`, so that clients written for those need not be changed.
    fn name(&self, spelled: &str) -> Option<ModelName> {
        let (namespace, name) = spelled.split_once('/').unwrap_or((&self.0.config.namespace, spelled));
        ModelName::new(namespace, name).or_else(|_| ModelName::new(namespace, &name.replace('_', "-"))).ok()
    }

    /// The model that a caller means.
    pub(super) fn model<'a>(
        &self,
        set: &'a ModelSet,
        spelled: &str,
    ) -> Result<(ModelName, &'a ServedModel), ServeError> {
        self.name(spelled)
            .and_then(|name| set.models.get(&name).map(|model| (name, model)))
            .ok_or_else(|| ServeError::UnknownModel(spelled.to_owned()))
    }
}

/// Where the caller of a sticky model is; `None` where it does not say who it is. Of several headers
/// of the name the first counts, as everywhere.
fn caller(name: &ModelName, model: &ServedModel, infer: &Infer) -> Option<Place> {
    let value = infer.headers.get(model.sticky.as_ref()?.as_str())?;
    Place::of(name, value.as_bytes())
}

/// The version that answers this request, and what its beginning depends on.
fn choose<'a>(
    model: &'a ServedModel,
    infer: &Infer,
    route: Option<&Route>,
    caller: Option<Place>,
) -> Result<(&'a Arc<ServedVersion>, Option<Permit>), ServeError> {
    let (spelled, lane) = (infer.model.as_str(), infer.lane);
    let pin = infer.pin.as_deref().map(|pin| version(spelled, pin)).transpose();
    // Where pins are ignored, so is one that no version can have.
    let pin = if lane == Lane::Shadow { pin.unwrap_or_default() } else { pin? };
    // Such a request takes no ticket: the shares are of those that the split decides.
    let named = route.is_some_and(|route| route.version.is_some());
    let decided = pin.is_some() || named || caller.is_some() || lane == Lane::Shadow;
    let ticket = if decided { Ticket(0) } else { model.tickets.next() };
    let ask = Ask { lane, pin: pin.as_ref(), route, caller, generation: model.generation, ticket };
    match pick(ask, model.split.as_ref(), |version| model.ready.contains_key(version)) {
        Ok(picked) => {
            if matches!(picked, Pick::Stable(_)) {
                metrics::counter!(names::ROUTE_FALLBACKS, "model" => spelled.to_owned()).increment(1);
            }
            let served = model.ready.get(picked.version());
            let served = served.ok_or_else(|| nothing_ready(model, spelled))?;
            // Who asked for this very version gets it, and so does a route that is ahead of us.
            let unconditional = match picked {
                Pick::Pinned(_) => true,
                Pick::Routed(_) => route.is_some_and(|route| route.generation > model.generation),
                Pick::Stable(_) | Pick::Shadow(_) | Pick::Sticky(_) | Pick::Split(_) => false,
            };
            Ok((served, (!unconditional).then(|| served.permit.clone())))
        }
        Err(PickError::PinNotReady(version)) => Err(not_ready(model, spelled, &version)),
        Err(PickError::NothingReady) => Err(nothing_ready(model, spelled)),
    }
}

/// The version with this name, ready.
pub(super) fn named<'a>(
    model: &'a ServedModel,
    spelled: &str,
    text: &str,
) -> Result<&'a ServedVersion, ServeError> {
    let version = version(spelled, text)?;
    model.ready.get(&version).map(Arc::as_ref).ok_or_else(|| not_ready(model, spelled, &version))
}

fn version(model: &str, text: &str) -> Result<Version, ServeError> {
    // Text that no version can have is a version that does not exist.
    text.parse().map_err(|_| ServeError::UnknownVersion { model: model.to_owned(), version: text.to_owned() })
}

fn not_ready(model: &ServedModel, spelled: &str, version: &Version) -> ServeError {
    let (name, version_text) = (spelled.to_owned(), version.to_string());
    match model.unready.get(version) {
        Some(reason) => {
            ServeError::VersionNotReady { model: name, version: version_text, reason: reason.to_string() }
        }
        None => ServeError::UnknownVersion { model: name, version: version_text },
    }
}

pub(super) fn nothing_ready(model: &ServedModel, spelled: &str) -> ServeError {
    let reasons: Vec<String> =
        model.unready.iter().map(|(version, reason)| format!("version `{version}`: {reason}")).collect();
    let reason = if reasons.is_empty() {
        "no version with a share of the traffic is ready".to_owned()
    } else {
        reasons.join("; ")
    };
    ServeError::ModelNotReady { model: spelled.to_owned(), reason }
}

fn count_failure(error: &RunError, served: &ServedVersion, name: &ModelName) {
    match error {
        RunError::Engine(EngineError::Model(_) | EngineError::Output(_) | EngineError::Load(_)) => {
            served.counts.count_failed();
            tracing::warn!(model = %name, version = %served.version, %error, "a model failed a request");
        }
        // The caller's fault, or the server's: it says nothing about the version.
        RunError::Engine(EngineError::Input(_))
        | RunError::Overloaded { .. }
        | RunError::Late
        | RunError::Stopping
        | RunError::Withdrawn(_) => {}
    }
}

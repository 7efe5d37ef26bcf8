//! Giving a pod the sidecar, and taking it out again: one pure function of the pod, behind
//! the webhook and behind `sconce inject`.
//!
//! A pod goes in as JSON and comes out as JSON, so that fields this code has never heard of
//! survive. What was added is written into an annotation, with a hash of it. A second run
//! takes out what the first added, works out anew what there should be, and where the hash
//! is the same and everything is in its place it leaves the pod as it found it: other
//! webhooks may have changed our container since (Istio's rewrites probes), and that is
//! theirs to do.

mod limits;
mod merge;
mod mesh;
mod options;
mod permission;
mod place;
mod plan;
mod quantity;
mod registration;
mod rejection;
mod settings;
mod shape;
mod sidecar;
mod status;
mod strip;
mod volumes;

use json_patch::Patch;
use serde_json::Value;

pub use self::{
    limits::{LimitViolation, check_limits},
    options::{KEYS, Key},
    permission::{Asked, Skip},
    quantity::{InvalidQuantity, Quantity},
    registration::{LABELLED, SELECTED, WEBHOOK_PATH, registration},
    rejection::Rejection,
    settings::{InvalidSettings, Namespace, Settings},
    status::skipped,
};
use self::{permission::Asker, plan::Plan, strip::Bare};

/// What to judge a pod by.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pod's namespace.
    pub namespace: &'a Namespace,
    /// What holds for every pod.
    pub settings: &'a Settings,
    /// Who wants the sidecar.
    pub asked: Asked,
}

/// What became of a pod.
#[derive(Debug)]
pub enum Outcome {
    /// It has the sidecar now, or had it already.
    Injected(Injection),
    /// It is left as it is.
    Skipped(Skip),
}

/// A pod with the sidecar.
#[derive(Debug)]
pub struct Injection {
    /// The pod.
    pub pod: Value,
    /// What turns the pod that came in into it; empty where nothing changed.
    pub patch: Patch,
    /// The model whose selector asked for it, where the pod's own label does not.
    pub selected_by: Option<String>,
}

/// Gives a pod, or a pod template, the sidecar.
///
/// # Errors
/// Where somebody asked for a sidecar that the pod cannot be given as it is, with what to
/// change.
pub fn inject(pod: &Value, request: &Request<'_>) -> Result<Outcome, Rejection> {
    shape::check(pod)?;
    let asker = match permission::asker(pod, request)? {
        Ok(asker) => asker,
        Err(skip) => return Ok(Outcome::Skipped(skip)),
    };
    let Bare { pod: bare, status } = strip::strip(pod);
    let plan = match (Plan::new(&bare, request, &asker), &asker) {
        (Ok(plan), _) => plan,
        (Err(rejection), Asker::Model(model)) => {
            let (model, why) = (model.clone(), rejection.to_string());
            return Ok(Outcome::Skipped(Skip::Unfit { model, why }));
        }
        (Err(rejection), Asker::Owner) => return Err(rejection),
    };
    let pod_after = match &status {
        Some(status) if plan.is_in_place(pod, status) => pod.clone(),
        _ => plan.apply(bare, status),
    };
    let patch = json_patch::diff(pod, &pod_after);
    let selected_by = match asker {
        Asker::Model(model) => Some(model),
        Asker::Owner => None,
    };
    Ok(Outcome::Injected(Injection { pod: pod_after, patch, selected_by }))
}

/// Takes everything out of a pod that [`inject`] put in; the user's own stays, also what the
/// user has changed since. A pod that never had the sidecar comes back as it is.
///
/// # Errors
/// Where the value is no pod.
pub fn uninject(pod: &Value) -> Result<Value, Rejection> {
    shape::check(pod)?;
    let Bare { mut pod, status } = strip::strip(pod);
    if status.is_some_and(|status| status.label) {
        place::remove_label(&mut pod, crate::names::INJECT_LABEL);
    }
    Ok(pod)
}

/// The container that [`inject`] gave a pod, wherever it is in it.
pub fn container(pod: &Value) -> Option<&Value> {
    shape::containers(pod).find(|container| container["name"] == crate::names::CONTAINER)
}

//! A question of the API server's, and the answer to it: a function of values.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
};
use sconce_istio::{
    inject::{self, Asked, Injection, Namespace, Outcome, Request, Settings, Skip},
    names,
};
use serde_json::{Value, json};

use crate::notes::Note;

/// A question about a pod.
pub(super) struct Question {
    request: AdmissionRequest<DynamicObject>,
    /// As it was sent: through any type, fields that the type does not know would be lost.
    pod: Value,
}

/// What to judge it by.
pub(super) struct Surroundings<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) settings: &'a Settings,
    pub(super) limits: &'a [Value],
}

/// The answer, what became of the pod in a word, and what to tell people besides.
pub(super) struct Answer {
    pub(super) response: AdmissionResponse,
    pub(super) outcome: &'static str,
    pub(super) note: Option<Note>,
}

impl Question {
    /// Reads an `AdmissionReview`.
    ///
    /// # Errors
    /// Saying what is wrong with it.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        let mut review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let pod = review.pointer("/request/object").cloned().unwrap_or_default();
        if let Some(object) = review.pointer_mut("/request/object") {
            // Nothing of it is read, and metadata that no type here knows must not matter.
            *object = Value::Null;
        }
        let review: AdmissionReview<DynamicObject> =
            serde_json::from_value(review).map_err(|error| error.to_string())?;
        let request = review.try_into().map_err(|_| "it has no request".to_owned())?;
        Ok(Self { request, pod })
    }

    /// The namespace that the pod is to be created in.
    pub(super) fn namespace(&self) -> &str {
        self.request.namespace.as_deref().unwrap_or_default()
    }

    /// Refuses without having judged.
    pub(super) fn unanswerable(&self, why: &str) -> AdmissionResponse {
        AdmissionResponse::from(&self.request).deny(format!("sconce: {why}"))
    }

    /// Judges the pod.
    pub(super) fn answer(&self, surroundings: &Surroundings<'_>) -> Answer {
        let kind = &self.request.kind;
        let ours = kind.group.is_empty() && kind.kind == "Pod" && self.request.operation == Operation::Create;
        let response = AdmissionResponse::from(&self.request);
        if !ours {
            return Answer { response, outcome: "ignored", note: None };
        }
        let Surroundings { namespace, settings, limits } = surroundings;
        let request = Request { namespace, settings, asked: Asked::ByLabels };
        match inject::inject(&self.pod, &request) {
            Ok(Outcome::Injected(injection)) => self.injected(response, injection, limits),
            Ok(Outcome::Skipped(skip)) => self.skipped(response, &skip),
            Err(rejection) => self.rejected(response, &rejection.to_string()),
        }
    }

    fn injected(&self, response: AdmissionResponse, injection: Injection, limits: &[Value]) -> Answer {
        let sidecar = inject::container(&injection.pod).unwrap_or(&Value::Null);
        if let Err(violation) = inject::check_limits(sidecar, limits) {
            let why = violation.to_string();
            return match injection.selected_by {
                Some(model) => self.skipped(response, &Skip::Unfit { model, why }),
                None => self.rejected(response, &why),
            };
        }
        if injection.patch.0.is_empty() {
            return Answer { response, outcome: "unchanged", note: None };
        }
        // Who has not asked for it is told why it is there, once.
        let first = inject::container(&self.pod).is_none();
        let note = injection.selected_by.filter(|_| first).and_then(|model| {
            let text = format!("the selector of the model {model} asks for a sidecar");
            self.note("SidecarInjected", &text, false)
        });
        Answer { note, ..self.patched(response, injection.patch, "injected") }
    }

    fn skipped(&self, response: AdmissionResponse, skip: &Skip) -> Answer {
        let note = |warning| self.note("SidecarSkipped", &skip.to_string(), warning);
        match skip {
            // Most pods: not a word about what nobody has asked for.
            Skip::NotAsked => return Answer { response, outcome: "unasked", note: None },
            // A kubelet wrote it, and would not know the pod by another content.
            Skip::Static => return Answer { response, outcome: "skipped", note: note(false) },
            _ => {}
        }
        // What an earlier pass has put in goes: it would be in a pod that says that it has none.
        let mut pod = match inject::uninject(&self.pod) {
            Ok(pod) => pod,
            Err(rejection) => return self.rejected(response, &rejection.to_string()),
        };
        pod["metadata"]["annotations"][names::STATUS_ANNOTATION] = json!(inject::skipped(skip));
        let answer = self.patched(response, json_patch::diff(&self.pod, &pod), "skipped");
        let unfit = matches!(skip, Skip::Unfit { .. });
        Answer { note: if unfit { note(true) } else { answer.note }, ..answer }
    }

    fn rejected(&self, response: AdmissionResponse, why: &str) -> Answer {
        let response = response.deny(format!("sconce: {why}"));
        Answer { response, outcome: "rejected", note: self.note("SidecarRejected", why, true) }
    }

    fn patched(
        &self,
        response: AdmissionResponse,
        patch: json_patch::Patch,
        outcome: &'static str,
    ) -> Answer {
        match response.clone().with_patch(patch) {
            Ok(response) => Answer { response, outcome, note: None },
            Err(error) => self.rejected(response, &error.to_string()),
        }
    }

    /// On whoever makes the pod, which people look at when there is none; else on the namespace.
    fn note(&self, reason: &'static str, text: &str, warning: bool) -> Option<Note> {
        if self.request.dry_run {
            return None;
        }
        let namespace = self.namespace().to_owned();
        let owners = self.pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        let owner = owners.into_iter().find(|owner| owner["controller"] == true);
        let said = |key: &str| owner.and_then(|owner| Some(owner[key].as_str()?.to_owned()));
        let about = match said("name") {
            Some(name) => ObjectReference {
                api_version: said("apiVersion"),
                kind: said("kind"),
                // A node, which static pods belong to, is in no namespace.
                namespace: (said("kind").as_deref() != Some("Node")).then_some(namespace),
                name: Some(name),
                uid: said("uid"),
                ..ObjectReference::default()
            },
            None => ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Namespace".into()),
                name: Some(namespace.clone()),
                namespace: Some(namespace),
                ..ObjectReference::default()
            },
        };
        Some(Note { about, reason: reason.into(), text: format!("{}: {text}", self.name()), warning })
    }

    fn name(&self) -> String {
        let metadata = &self.pod["metadata"];
        let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
        format!("pod {}", name.unwrap_or("without a name"))
    }
}

#[cfg(test)]
mod tests;

//! Pods inside other objects: finding the templates in whatever a file holds, and injecting
//! them by the same function as the webhook.

mod documents;

use serde_json::Value;

pub use self::documents::{Document, InvalidDocument, documents};
use crate::inject::{self, Asked, Namespace, Outcome, Rejection, Request, Settings, Skip};

/// What became of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Such as `Deployment ml/fraud`.
    pub object: String,
    /// What was done.
    pub done: Done,
}

/// What was done to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// It is another now.
    Changed,
    /// It is as it should be already.
    AsItWas,
    /// It was left alone, for a reason.
    Skipped(Skip),
    /// It has no pods.
    NoPods,
}

/// An object whose pods cannot be given the sidecar.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{object}: {rejection}")]
pub struct RejectedObject {
    object: String,
    rejection: Rejection,
}

/// How objects of files are injected: whoever runs the command permits it and asks for it.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    /// What holds for every pod.
    pub settings: &'a Settings,
    /// The namespace of objects that do not name one.
    pub namespace: String,
    /// Whether their namespaces are in the mesh, which no file says.
    pub mesh: bool,
}

impl Walk<'_> {
    /// Gives every pod in an object the sidecar.
    ///
    /// # Errors
    /// Naming the object that cannot be given it as it is.
    pub fn inject(&self, object: &mut Value) -> Result<Vec<Report>, RejectedObject> {
        self.each(object, &|template, namespace| {
            let mesh = self.mesh.then(|| ("istio-injection".to_owned(), "enabled".to_owned()));
            let labels = mesh.into_iter().collect();
            let namespace = Namespace { name: namespace.to_owned(), labels, ..Namespace::default() };
            let asked = Asked::ByCommand;
            let request = Request { namespace: &namespace, settings: self.settings, asked };
            Ok(match inject::inject(template, &request)? {
                Outcome::Injected(injection) if injection.patch.0.is_empty() => Done::AsItWas,
                Outcome::Injected(injection) => {
                    *template = injection.pod;
                    Done::Changed
                }
                Outcome::Skipped(skip) => Done::Skipped(skip),
            })
        })
    }

    /// Takes the sidecar out of every pod in an object.
    ///
    /// # Errors
    /// Naming the object that has something else where its pods should be.
    pub fn uninject(&self, object: &mut Value) -> Result<Vec<Report>, RejectedObject> {
        self.each(object, &|template, _| {
            let bare = inject::uninject(template)?;
            let done = if bare == *template { Done::AsItWas } else { Done::Changed };
            *template = bare;
            Ok(done)
        })
    }

    fn each(
        &self,
        object: &mut Value,
        change: &dyn Fn(&mut Value, &str) -> Result<Done, Rejection>,
    ) -> Result<Vec<Report>, RejectedObject> {
        if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
            && let Some(items) = object.get_mut("items").and_then(Value::as_array_mut)
        {
            let reports: Result<Vec<_>, _> = items.iter_mut().map(|item| self.each(item, change)).collect();
            return Ok(reports?.into_iter().flatten().collect());
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&self.namespace).to_owned();
        let name = self.describe(object, &namespace);
        let template = template(object).and_then(|path| object.pointer_mut(path));
        let Some(template) = template else {
            return Ok(vec![Report { object: name, done: Done::NoPods }]);
        };
        match change(template, &namespace) {
            Ok(done) => Ok(vec![Report { object: name, done }]),
            Err(rejection) => Err(RejectedObject { object: name, rejection }),
        }
    }

    fn describe(&self, object: &Value, namespace: &str) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = text(&object["kind"]).unwrap_or_else(|| "an object without a kind".into());
        let metadata = &object["metadata"];
        match text(&metadata["name"]).or_else(|| text(&metadata["generateName"])) {
            Some(name) => format!("{kind} {namespace}/{name}"),
            None => kind,
        }
    }
}

/// Where the pod template of an object is; nothing for kinds that have none, or that only
/// share their name with one of Kubernetes'.
fn template(object: &Value) -> Option<&'static str> {
    let (group, _) = object["apiVersion"].as_str()?.rsplit_once('/').unwrap_or_default();
    match (group, object["kind"].as_str()?) {
        ("", "Pod") => Some(""),
        ("", "PodTemplate") => Some("/template"),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

//! What a pod should have, worked out from the pod without it; and putting it in.

use serde_json::{Value, json};

use super::{
    Rejection, Request, merge,
    mesh::{self, Excluded, Proxy},
    options::Options,
    permission::Asker,
    place, shape,
    sidecar::{self, Setting},
    status::{List, Partial, Status},
    volumes,
};
use crate::names;

/// Everything that is to be in the pod.
pub(super) struct Plan {
    container: Value,
    list: List,
    volumes: Vec<Value>,
    excluded: Vec<Excluded>,
    image_pull_secrets: Vec<String>,
    partial: Option<Partial>,
    label: bool,
    selected_by: Option<String>,
    hash: String,
}

/// What Kubernetes takes where a pod does not say.
const DEFAULT_GRACE: u64 = 30;

impl Plan {
    /// What this pod, which has nothing of ours in it, should have.
    pub(super) fn new(bare: &Value, request: &Request<'_>, asker: &Asker) -> Result<Self, Rejection> {
        let options = Options::of(bare, request.namespace, request.settings)?;
        let proxy = mesh::proxy(bare, request);
        let partial = partial(bare)?;
        refuse_taken_ports(bare)?;
        let native = native(bare, request, &options)?;
        let setting = Setting { pod: bare, native, proxy, drain_seconds: drain(bare, &options)? };
        let mut container = sidecar::container(&options, &setting);
        if let Some(partial) = &partial {
            overlay(&mut container, &partial.container);
        }
        let meshed = proxy != Proxy::None;
        let mut plan = Self {
            container,
            list: if native { List::InitContainers } else { List::Containers },
            volumes: volumes::volumes(&options, meshed),
            excluded: if meshed { excluded(&options) } else { Vec::new() },
            image_pull_secrets: request.settings.image_pull_secrets.clone(),
            partial,
            // Whoever else asked: the label is by what pods with a sidecar are known.
            label: shape::text(bare, "labels", names::INJECT_LABEL).is_none(),
            selected_by: match asker {
                Asker::Model(model) => Some(model.clone()),
                Asker::Owner => None,
            },
            hash: String::new(),
        };
        plan.hash = plan.digest();
        Ok(plan)
    }

    /// Of what should be there, not of what had to be added for it: the same whichever
    /// injector came first.
    fn digest(&self) -> String {
        let excluded: Vec<_> = self.excluded.iter().map(|port| (port.annotation, port.port)).collect();
        let all = json!([
            self.container,
            self.list,
            self.volumes,
            volumes::application_mount(),
            excluded,
            self.image_pull_secrets,
        ]);
        blake3::hash(all.to_string().as_bytes()).to_hex()[..16].to_owned()
    }

    /// Whether an earlier run put just this in, and nobody has taken any of it out since.
    pub(super) fn is_in_place(&self, pod: &Value, status: &Status) -> bool {
        let has = |key: &str, name: &str| shape::position(shape::list(pod, key), name).is_some();
        let other = if self.list == List::Containers { List::InitContainers } else { List::Containers };
        let socket = |name: &String| shape::containers(pod).filter(|c| c["name"] == *name).all(has_socket);
        status.hash == self.hash
            && has(self.list.key(), names::CONTAINER)
            && !has(other.key(), names::CONTAINER)
            && self.comes_after_proxy(pod)
            && self.volumes.iter().all(|volume| has("volumes", volume["name"].as_str().unwrap_or_default()))
            && status.mounts.iter().all(socket)
            && self.image_pull_secrets.iter().all(|name| has("imagePullSecrets", name))
            && self
                .excluded
                .iter()
                .all(|port| mesh::excludes(shape::text(pod, "annotations", port.annotation), port.port))
    }

    fn comes_after_proxy(&self, pod: &Value) -> bool {
        let list = shape::list(pod, self.list.key());
        let ours = shape::position(list, names::CONTAINER).unwrap_or_default();
        self.list == List::Containers || shape::position(list, mesh::PROXY).is_none_or(|proxy| proxy < ours)
    }

    /// Puts everything into the pod, which has nothing of ours in it.
    pub(super) fn apply(self, mut pod: Value, before: Option<Status>) -> Value {
        let mut status = Status {
            hash: self.hash.clone(),
            label: self.label || before.is_some_and(|status| status.label),
            selected_by: self.selected_by.clone(),
            ..Status::default()
        };
        self.add_volumes(&mut pod, &mut status);
        self.add_secrets(&mut pod, &mut status);
        self.add_exclusions(&mut pod, &mut status);
        let at = self.take_partial(&mut pod);
        self.mount_socket(&mut pod, &mut status);
        if self.label {
            place::label(&mut pod, names::INJECT_LABEL, "true");
        }
        place::annotate(&mut pod, names::STATUS_ANNOTATION, &json!(status).to_string());
        if let Some(partial) = &self.partial {
            place::annotate(&mut pod, names::OVERRIDES_ANNOTATION, &json!(partial).to_string());
        }
        self.insert(&mut pod, at);
        pod
    }

    fn add_volumes(&self, pod: &mut Value, status: &mut Status) {
        for volume in &self.volumes {
            let name = volume["name"].as_str().unwrap_or_default();
            if shape::position(shape::list(pod, "volumes"), name).is_none() {
                place::list(pod, "volumes").push(volume.clone());
                status.volumes.push(name.to_owned());
            }
        }
    }

    fn add_secrets(&self, pod: &mut Value, status: &mut Status) {
        for name in &self.image_pull_secrets {
            if shape::position(shape::list(pod, "imagePullSecrets"), name).is_none() {
                place::list(pod, "imagePullSecrets").push(json!({ "name": name }));
                status.image_pull_secrets.push(name.clone());
            }
        }
    }

    fn add_exclusions(&self, pod: &mut Value, status: &mut Status) {
        for Excluded { annotation, port } in &self.excluded {
            let list = shape::text(pod, "annotations", annotation);
            if !mesh::excludes(list, *port) {
                let more = mesh::exclude(list, *port);
                place::annotate(pod, annotation, &more);
                status.excluded.entry((*annotation).to_owned()).or_default().push(*port);
            }
        }
    }

    /// Takes the user's partial container out, and says where it stood.
    fn take_partial(&self, pod: &mut Value) -> Option<usize> {
        let partial = self.partial.as_ref()?;
        place::remove_from(&mut pod["spec"], partial.list.key(), |c| c["name"] == names::CONTAINER);
        (partial.list == self.list).then_some(partial.index)
    }

    /// Into the application's containers: not into Istio's, and not where the user has put
    /// something of that place or name.
    fn mount_socket(&self, pod: &mut Value, status: &mut Status) {
        // Containers that have ended before an ordinary one starts have no use for it.
        let lists: &[&str] = match self.list {
            List::InitContainers => &["initContainers", "containers"],
            List::Containers => &["containers"],
        };
        for key in lists {
            let Some(containers) = pod["spec"].get_mut(*key).and_then(Value::as_array_mut) else { continue };
            for container in containers {
                if !mesh::is_istio(&container["name"]) && !has_socket(container) {
                    place::items(container, "volumeMounts").push(volumes::application_mount());
                    status.mounts.extend(container["name"].as_str().map(str::to_owned));
                }
            }
        }
    }

    /// A native sidecar goes first, so that everything after it may use it, but after what
    /// Istio needs: the network's set-up, and the proxy that has the identity. An ordinary one
    /// goes last, so that `kubectl exec` finds the application, or stays where the user put it.
    fn insert(self, pod: &mut Value, at: Option<usize>) {
        let list = place::list(pod, self.list.key());
        let after_istio = || {
            let last = list.iter().rposition(|c| c["name"] == mesh::PROXY || c["name"] == "istio-validation");
            last.map_or(0, |last| last + 1)
        };
        let at = match self.list {
            List::InitContainers => after_istio(),
            List::Containers => at.unwrap_or(list.len()).min(list.len()),
        };
        list.insert(at, self.container);
    }
}

fn has_socket(container: &Value) -> bool {
    let mounts = container["volumeMounts"].as_array().map_or(&[][..], Vec::as_slice);
    mounts.iter().any(|mount| mount["name"] == volumes::SOCKET || mount["mountPath"] == volumes::SOCKET_DIR)
}

fn partial(bare: &Value) -> Result<Option<Partial>, Rejection> {
    let find = |list: List| {
        let items = shape::list(bare, list.key());
        let index = shape::position(items, names::CONTAINER)?;
        Some(Partial { list, index, container: items[index].clone() })
    };
    match (find(List::Containers), find(List::InitContainers)) {
        (Some(_), Some(_)) => Err(Rejection::TwoPartials),
        (one, other) => Ok(one.or(other)),
    }
}

/// Merges the user's container over ours. Where it says `image: auto`, which only stands
/// there because the API wants an image, the image is ours and so is when to pull it.
fn overlay(container: &mut Value, partial: &Value) {
    let (Some(ours), Some(theirs)) = (container.as_object_mut(), partial.as_object()) else { return };
    let mut theirs = theirs.clone();
    // Whether it is a native sidecar is not the container's to say.
    theirs.remove("restartPolicy");
    if theirs.get("image").is_none_or(|image| image == "auto" || image == "") {
        theirs.remove("image");
        theirs.remove("imagePullPolicy");
    }
    merge::over(ours, &theirs);
}

fn excluded(options: &Options) -> Vec<Excluded> {
    vec![
        Excluded { annotation: mesh::INBOUND, port: sidecar::ADMIN_PORT },
        Excluded { annotation: mesh::OUTBOUND, port: options.control_plane.port },
    ]
}

fn native(bare: &Value, request: &Request<'_>, options: &Options) -> Result<bool, Rejection> {
    // A pod must have an ordinary container: where there is no application, it is ours.
    let application = |c: &Value| c["name"] != names::CONTAINER && !mesh::is_istio(&c["name"]);
    let alone = !shape::list(bare, "containers").iter().any(application);
    let able = request.settings.native_sidecars.unwrap_or(true) && options.native_sidecar.unwrap_or(true);
    let ends = bare["spec"]["restartPolicy"].as_str().filter(|policy| *policy != "Always");
    match ends {
        Some(policy) if !able && !alone => Err(Rejection::NeverEnds(policy.to_owned())),
        _ => Ok(able && !alone),
    }
}

/// The pod's own grace period, less what it takes to stop in order.
fn drain(bare: &Value, options: &Options) -> Result<u64, Rejection> {
    let grace = bare["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE);
    match options.drain_seconds {
        Some(drain) if drain > grace => Err(Rejection::Drain { drain, grace }),
        Some(drain) => Ok(drain),
        None => Ok(grace - grace.div_ceil(2).min(5)),
    }
}

/// Containers of a pod share its network, or that of the node.
fn refuse_taken_ports(bare: &Value) -> Result<(), Rejection> {
    let on_node = bare["spec"]["hostNetwork"] == true;
    let why = if on_node { " (the pod is on the node's network)" } else { "" };
    for container in shape::containers(bare).filter(|container| container["name"] != names::CONTAINER) {
        for port in container["ports"].as_array().into_iter().flatten() {
            let tcp = matches!(port["protocol"].as_str(), None | Some("TCP"));
            let taken = sidecar::ports()
                .find(|ours| port["containerPort"] == *ours || (on_node && port["hostPort"] == *ours));
            if let Some(port) = taken.filter(|_| tcp) {
                let container = container["name"].as_str().unwrap_or_default().to_owned();
                return Err(Rejection::Port { port, container, why });
            }
        }
    }
    Ok(())
}

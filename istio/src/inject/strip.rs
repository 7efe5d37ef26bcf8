//! Taking out of a pod what an earlier run put in.

use serde_json::Value;

use super::{
    mesh, place, shape,
    status::{self, Status},
    volumes,
};
use crate::names;

/// A pod without the sidecar, and what the earlier run said it had added.
pub(super) struct Bare {
    pub(super) pod: Value,
    pub(super) status: Option<Status>,
}

/// The pod as it would be had it never been injected, but for the label that asks. One that
/// never was comes back as it is.
pub(super) fn strip(pod: &Value) -> Bare {
    let mut bare = pod.clone();
    let status = status::status(pod);
    let partial = status::partial(pod);
    if let Some(status) = &status {
        for key in ["initContainers", "containers"] {
            place::remove_from(&mut bare["spec"], key, |container| container["name"] == names::CONTAINER);
        }
        if let Some(partial) = partial {
            let list = place::list(&mut bare, partial.list.key());
            list.insert(partial.index.min(list.len()), partial.container);
        }
        remove_mounts(&mut bare, status);
        remove_volumes(&mut bare, status);
        place::remove_from(&mut bare["spec"], "imagePullSecrets", |secret| {
            status.image_pull_secrets.iter().any(|name| secret["name"] == *name)
        });
        remove_exclusions(&mut bare, status);
        place::remove_annotation(&mut bare, names::OVERRIDES_ANNOTATION);
    }
    place::remove_annotation(&mut bare, names::STATUS_ANNOTATION);
    Bare { pod: bare, status }
}

fn remove_mounts(pod: &mut Value, status: &Status) {
    for key in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(key).and_then(Value::as_array_mut) else { continue };
        let ours = |container: &&mut Value| status.mounts.iter().any(|name| container["name"] == *name);
        for container in containers.iter_mut().filter(ours) {
            place::remove_from(container, "volumeMounts", |mount| {
                mount["name"] == volumes::SOCKET && mount["mountPath"] == volumes::SOCKET_DIR
            });
        }
    }
}

/// A volume that Istio has come to mount stays: its agent uses one of ours where its injector
/// ran second.
fn remove_volumes(pod: &mut Value, status: &Status) {
    let mounted = |name: &String| {
        let istio = shape::containers(pod).filter(|container| mesh::is_istio(&container["name"]));
        let mounts = istio.filter_map(|container| container["volumeMounts"].as_array());
        mounts.flatten().any(|mount| mount["name"] == *name)
    };
    let gone: Vec<&String> = status.volumes.iter().filter(|name| !mounted(name)).collect();
    place::remove_from(&mut pod["spec"], "volumes", |volume| {
        gone.iter().any(|name| volume["name"] == **name)
    });
}

fn remove_exclusions(pod: &mut Value, status: &Status) {
    for (annotation, ports) in &status.excluded {
        let Some(list) = shape::text(pod, "annotations", annotation) else { continue };
        let left = ports.iter().fold(list.to_owned(), |list, port| mesh::include(&list, *port));
        if left.is_empty() {
            place::remove_annotation(pod, annotation);
        } else {
            place::annotate(pod, annotation, &left);
        }
    }
}

//! The volumes that the sidecar brings along, and where they are mounted.

use serde_json::{Value, json};

use super::options::Options;

/// Between the application and the sidecar: the folder with the Unix socket.
pub(super) const SOCKET: &str = "sconce-socket";
const DATA: &str = "sconce-data";
const IDENTITY: &str = "sconce-identity";
/// Istio's injector gives its agent a volume of this name as well; whichever injector comes
/// second finds it there.
const WORKLOAD_SOCKET: &str = "workload-socket";

/// Where the application finds the socket.
pub(super) const SOCKET_DIR: &str = "/var/run/sconce";
/// The socket.
pub(super) const SOCKET_FILE: &str = "/var/run/sconce/sconce.sock";
/// Keeps catalog, artifacts and certificate.
pub(super) const DATA_DIR: &str = "/data";
/// The token to ask istiod for a certificate with.
pub(super) const TOKEN_FILE: &str = "/var/run/secrets/sconce/istio-token";
/// The roots to recognise istiod by.
pub(super) const ROOT_FILE: &str = "/var/run/secrets/sconce/root-cert.pem";
const IDENTITY_DIR: &str = "/var/run/secrets/sconce";
const WORKLOAD_SOCKET_DIR: &str = "/var/run/secrets/workload-spiffe-uds";
/// Half a day: the token is read anew for each certificate, and the kubelet renews it.
const TOKEN_LIFE: u32 = 43_200;

/// The volumes of the pod.
pub(super) fn volumes(options: &Options, meshed: bool) -> Vec<Value> {
    let data = match &options.cache_claim {
        Some(claim) => json!({ "name": DATA, "persistentVolumeClaim": { "claimName": claim } }),
        None => json!({ "name": DATA, "emptyDir": { "sizeLimit": options.cache_size } }),
    };
    let mut volumes = vec![data, json!({ "name": SOCKET, "emptyDir": {} }), identity()];
    if meshed {
        volumes.push(json!({ "name": WORKLOAD_SOCKET, "emptyDir": {} }));
    }
    volumes
}

/// What it takes to be certified by istiod where no agent does it. The map is there in every
/// namespace of a mesh and nowhere else.
fn identity() -> Value {
    json!({ "name": IDENTITY, "projected": { "sources": [
        { "serviceAccountToken": { "audience": "istio-ca", "expirationSeconds": TOKEN_LIFE, "path": "istio-token" } },
        { "configMap": {
            "name": "istio-ca-root-cert",
            "optional": true,
            "items": [{ "key": "root-cert.pem", "path": "root-cert.pem" }],
        } },
    ] } })
}

/// What the sidecar mounts.
pub(super) fn mounts(meshed: bool) -> Vec<Value> {
    let mut mounts = vec![
        json!({ "name": DATA, "mountPath": DATA_DIR }),
        json!({ "name": SOCKET, "mountPath": SOCKET_DIR }),
        json!({ "name": IDENTITY, "mountPath": IDENTITY_DIR, "readOnly": true }),
    ];
    if meshed {
        mounts.push(json!({ "name": WORKLOAD_SOCKET, "mountPath": WORKLOAD_SOCKET_DIR, "readOnly": true }));
    }
    mounts
}

/// What the application mounts. Connecting to a socket writes nothing to its folder, and an
/// application cannot put another socket in its place.
pub(super) fn application_mount() -> Value {
    json!({ "name": SOCKET, "mountPath": SOCKET_DIR, "readOnly": true })
}

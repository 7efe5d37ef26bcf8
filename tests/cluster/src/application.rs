//! The application of `manifests/story.yaml`: it has been running for long and knows nothing of
//! Sconce, and somebody in the mesh calls it.

use crate::Cluster;

/// Starts it and its caller, then has its pods injected as its users do.
///
/// # Panics
/// Where something does not become ready.
pub fn injected(cluster: &Cluster) {
    cluster.apply("story.yaml", &[]);
    cluster.kubectl("label namespace models sconce.dev/injection=enabled --overwrite");
    let ask = r#"{"spec":{"template":{"metadata":{"labels":{"sconce.dev/inject":"true"}}}}}"#;
    let patched = cluster.try_kubectl(&["patch", "deployment", "server", "-n", "models", "-p", ask]);
    assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
    cluster.kubectl("rollout status -n models deployment/server --timeout=180s");
    cluster.kubectl("wait -n buyers --for=condition=Ready pod/buyer --timeout=120s");
}

//! The sidecar's container, before the user's own is merged over it.

use sconce_catalog::{Labels, Lane};
use serde_json::{Value, json};

use super::{mesh::Proxy, options::Options, shape, volumes};
use crate::names;

/// `/livez`, `/readyz`, `/metrics`.
pub(super) const ADMIN_PORT: u16 = 9443;
/// The number that the image's user has, which `runAsNonRoot` can check.
const USER: u32 = 65532;

/// What the container depends on, apart from its options.
pub(super) struct Setting<'a> {
    pub(super) pod: &'a Value,
    pub(super) native: bool,
    pub(super) proxy: Proxy,
    pub(super) drain_seconds: u64,
}

/// The ports that the sidecar listens on.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    Lane::ALL.into_iter().map(Lane::container_port).chain([ADMIN_PORT])
}

/// The container.
pub(super) fn container(options: &Options, setting: &Setting<'_>) -> Value {
    let mut container = json!({
        "name": names::CONTAINER,
        "image": options.image,
        "env": env(options, setting),
        "ports": container_ports(),
        "resources": resources(options),
        "securityContext": security_context(),
        "readinessProbe": probe("/readyz", 2, 3),
        // The process answers while it waits for anything else: only one that hangs is restarted.
        "livenessProbe": probe("/livez", 10, 6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": volumes::mounts(setting.proxy != Proxy::None),
    });
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if setting.native {
        container["restartPolicy"] = json!("Always");
    }
    if let Some(probe) = startup_probe(options, setting) {
        container["startupProbe"] = probe;
    }
    container
}

/// Holds what comes after a native sidecar back until it has an identity.
///
/// Not where Istio's proxy comes after it too: the identity is from there, and so is the
/// answer to a probe that Istio's injector has rewritten. And models are never waited for
/// here, or one that is missing would keep the application from starting.
fn startup_probe(options: &Options, setting: &Setting<'_>) -> Option<Value> {
    let holds = setting.native && options.hold_application && setting.proxy != Proxy::Ordinary;
    let path = if options.wait_for_models { "/livez" } else { "/readyz" };
    holds.then(|| probe(path, 1, 300))
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": ADMIN_PORT },
        "periodSeconds": period,
        "failureThreshold": failures,
    })
}

fn container_ports() -> Vec<Value> {
    let port = |name: String, port: u16| json!({ "name": name, "containerPort": port });
    let lanes = Lane::ALL.into_iter().map(|lane| port(format!("sconce-{lane}"), lane.container_port()));
    lanes.chain([port("sconce-admin".into(), ADMIN_PORT)]).collect()
}

fn resources(options: &Options) -> Value {
    let mut limits = json!({});
    for (name, limit) in [("cpu", &options.cpu_limit), ("memory", &options.memory_limit)] {
        if let Some(limit) = limit {
            limits[name] = json!(limit);
        }
    }
    json!({ "requests": { "cpu": options.cpu, "memory": options.memory }, "limits": limits })
}

/// All that Pod Security `restricted` asks of a container, and a root file system that
/// cannot be written.
fn security_context() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": USER,
        "runAsNonRoot": true,
        "runAsUser": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn env(options: &Options, setting: &Setting<'_>) -> Vec<Value> {
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let literal = |name: &str, value: &str| json!({ "name": name, "value": value });
    // A reference is replaced only by what stands above it.
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        literal("SCONCE_NAME", "$(POD_NAMESPACE)/$(POD_NAME)"),
        literal("SCONCE_NAMESPACE", "$(POD_NAMESPACE)"),
    ];
    let said = said(options, setting);
    env.extend(said.into_iter().map(|(name, value)| literal(name, &escaped(&value))));
    env
}

/// The variables whose values are ours or the user's own text.
fn said(options: &Options, setting: &Setting<'_>) -> Vec<(&'static str, String)> {
    let [live, canary, shadow] = Lane::ALL.map(|lane| listen(lane.container_port()));
    // On the node's network, loopback is every process of the node, not this pod alone.
    let own_loopback = setting.pod["spec"]["hostNetwork"] != true;
    let mut said = vec![
        ("SCONCE_CONTROL_PLANE", options.control_plane.url.clone()),
        ("SCONCE_CONTROL_PLANE_ID", options.control_plane_id.clone()),
        ("SCONCE_LISTEN", live),
        ("SCONCE_CANARY_LISTEN", canary),
        ("SCONCE_SHADOW_LISTEN", shadow),
        ("SCONCE_ADMIN_LISTEN", listen(ADMIN_PORT)),
        ("SCONCE_UNIX_SOCKET", volumes::SOCKET_FILE.into()),
        ("SCONCE_PLAINTEXT_LOOPBACK", own_loopback.to_string()),
        // Without Istio's proxy nobody may speak in a caller's name.
        ("SCONCE_PLAINTEXT_MESH", (setting.proxy != Proxy::None).to_string()),
        ("SCONCE_IDENTITY", "auto".into()),
        ("SCONCE_ISTIOD_TOKEN", volumes::TOKEN_FILE.into()),
        ("SCONCE_ISTIOD_ROOT", volumes::ROOT_FILE.into()),
        ("SCONCE_WAIT_FOR_MODELS", options.wait_for_models.to_string()),
        ("SCONCE_DRAIN_SECONDS", setting.drain_seconds.to_string()),
        ("SCONCE_DATA_DIR", volumes::DATA_DIR.into()),
        ("SCONCE_LOG_FORMAT", "json".into()),
    ];
    let labels = labels(setting.pod, &options.labels);
    let number = |option: Option<u64>| option.map(|number| number.to_string());
    let optional = [
        ("SCONCE_LABELS", (!labels.is_empty()).then(|| labels.to_string())),
        ("SCONCE_CALLERS", options.callers.clone()),
        ("SCONCE_LOG", options.log.clone()),
        ("SCONCE_INFERENCE_THREADS", number(options.inference_threads)),
        ("SCONCE_INTRA_OP_THREADS", number(options.intra_op_threads)),
        ("SCONCE_QUEUE_SIZE", number(options.queue_size)),
        ("SCONCE_MAX_BATCH_ROWS", number(options.max_batch_rows)),
        ("SCONCE_BATCH_TARGET_MS", number(options.batch_target_ms)),
        ("SCONCE_MAX_SEQUENCES", number(options.max_sequences)),
        ("SCONCE_SEQUENCE_IDLE_MS", number(options.sequence_idle_ms)),
        ("SCONCE_DEFAULT_TIMEOUT_MS", number(options.default_timeout_ms)),
        ("SCONCE_MAX_BODY_BYTES", number(options.max_body_bytes)),
    ];
    said.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    said
}

fn listen(port: u16) -> String {
    format!("0.0.0.0:{port}")
}

/// Kubernetes replaces `$(NAME)` in values; text of the user's means itself.
fn escaped(value: &str) -> String {
    value.replace("$(", "$$(")
}

/// What models select this sidecar by: the pod's labels, and those of the annotation.
///
/// Not the labels that controllers, Istio or Sconce itself write: a template has none of
/// them yet, and they are not what anybody means.
pub(super) fn labels(pod: &Value, more: &Labels) -> Labels {
    let own = shape::texts(pod, "labels").filter(|(key, _)| !is_written_by_machine(key));
    // One label that a list of labels cannot carry does not cost the others.
    let valid = own.filter_map(|(key, value)| Labels::new([(key.into(), value.into())]).ok());
    let mut pairs = Vec::new();
    for labels in valid.chain([more.clone()]) {
        pairs.extend(labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    Labels::new(pairs).unwrap_or_default()
}

fn is_written_by_machine(key: &str) -> bool {
    const PLAIN: [&str; 5] = [
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "controller-uid",
        "job-name",
    ];
    const DOMAINS: [&str; 5] =
        ["istio.io", "sconce.dev", "batch.kubernetes.io", "apps.kubernetes.io", "statefulset.kubernetes.io"];
    match key.split_once('/') {
        None => PLAIN.contains(&key),
        Some((domain, _)) => {
            DOMAINS.iter().any(|zone| domain == *zone || domain.ends_with(&format!(".{zone}")))
        }
    }
}

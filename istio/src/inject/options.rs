//! Everything that can be said of one pod's sidecar: a closed list, read from the settings'
//! defaults, then the namespace's annotations, then the pod's.

use sconce_catalog::Labels;
use serde_json::Value;

use super::{Namespace, Quantity, Rejection, Settings, shape};
use crate::names;

/// What was said, checked; the amounts as they were written.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) image: String,
    pub(super) image_pull_policy: Option<String>,
    pub(super) control_plane: ControlPlane,
    pub(super) control_plane_id: String,
    pub(super) cpu: String,
    pub(super) cpu_limit: Option<String>,
    pub(super) memory: String,
    pub(super) memory_limit: Option<String>,
    pub(super) cache_size: String,
    pub(super) cache_claim: Option<String>,
    pub(super) log: Option<String>,
    pub(super) callers: Option<String>,
    pub(super) labels: Labels,
    pub(super) drain_seconds: Option<u64>,
    pub(super) wait_for_models: bool,
    pub(super) hold_application: bool,
    pub(super) native_sidecar: Option<bool>,
    pub(super) inference_threads: Option<u64>,
    pub(super) intra_op_threads: Option<u64>,
    pub(super) queue_size: Option<u64>,
    pub(super) max_batch_rows: Option<u64>,
    pub(super) batch_target_ms: Option<u64>,
    pub(super) max_sequences: Option<u64>,
    pub(super) sequence_idle_ms: Option<u64>,
    pub(super) default_timeout_ms: Option<u64>,
    pub(super) max_body_bytes: Option<u64>,
}

/// Where the control plane is.
#[derive(Clone, Debug)]
pub(super) struct ControlPlane {
    pub(super) url: String,
    pub(super) port: u16,
}

/// One option.
pub struct Key {
    /// Its name, without the prefix that it has as an annotation.
    pub name: &'static str,
    /// What it may say.
    pub expected: &'static str,
    set: fn(&mut Options, &str) -> Option<()>,
}

/// Every option that there is.
pub const KEYS: &[Key] = &[
    key("image", "an image, such as registry.example.org/sconce-sidecar:1.2", |options, text| {
        options.image = image(text)?;
        Some(())
    }),
    key("image-pull-policy", "Always, IfNotPresent or Never", |options, text| {
        options.image_pull_policy = Some(one_of(&["Always", "IfNotPresent", "Never"], text)?);
        Some(())
    }),
    key("control-plane", "an address such as https://sconce.sconce-system.svc:8440", |options, text| {
        options.control_plane = control_plane(text)?;
        Some(())
    }),
    key(
        "control-plane-id",
        "the path of a SPIFFE id, such as /ns/sconce-system/sa/sconce",
        |options, text| {
            options.control_plane_id = word(text).filter(|path| path.len() > 1 && path.starts_with('/'))?;
            Some(())
        },
    ),
    key("cpu", "a quantity such as 250m", |options, text| {
        options.cpu = quantity(text)?;
        Some(())
    }),
    key("cpu-limit", "a quantity such as 2, or \"\" for no limit", |options, text| {
        options.cpu_limit = limit(text)?;
        Some(())
    }),
    key("memory", "a quantity such as 512Mi", |options, text| {
        options.memory = quantity(text)?;
        Some(())
    }),
    key("memory-limit", "a quantity such as 4Gi, or \"\" for no limit", |options, text| {
        options.memory_limit = limit(text)?;
        Some(())
    }),
    key("cache-size", "a quantity such as 8Gi", |options, text| {
        options.cache_size = quantity(text)?;
        Some(())
    }),
    key(
        "cache-claim",
        "the name of a PersistentVolumeClaim of the pod's namespace, or \"\" for none",
        |options, text| {
            options.cache_claim = if text.is_empty() { None } else { Some(object_name(text)?) };
            Some(())
        },
    ),
    key("log", "a level such as debug, or target=level,…", |options, text| {
        options.log = Some(word(text)?);
        Some(())
    }),
    key(
        "callers",
        "SPIFFE ids such as spiffe://cluster.local/ns/shop/*, separated by commas",
        |options, text| {
            options.callers = Some(callers(text)?);
            Some(())
        },
    ),
    key("labels", "labels such as team=pay,tier=edge, beside the pod's own", |options, text| {
        options.labels = text.parse().ok()?;
        Some(())
    }),
    key("drain-seconds", "a number of seconds", |options, text| {
        options.drain_seconds = Some(text.parse().ok()?);
        Some(())
    }),
    key("wait-for-models", "true or false", |options, text| {
        options.wait_for_models = text.parse().ok()?;
        Some(())
    }),
    key("hold-application", "true or false", |options, text| {
        options.hold_application = text.parse().ok()?;
        Some(())
    }),
    key("native-sidecar", "true or false", |options, text| {
        options.native_sidecar = Some(text.parse().ok()?);
        Some(())
    }),
    key("inference-threads", "a number of threads, at least 1", |options, text| {
        options.inference_threads = Some(positive(text)?);
        Some(())
    }),
    key("intra-op-threads", "a number of threads, at least 1", |options, text| {
        options.intra_op_threads = Some(positive(text)?);
        Some(())
    }),
    key("queue-size", "a number of requests, at least 1", |options, text| {
        options.queue_size = Some(positive(text)?);
        Some(())
    }),
    key("max-batch-rows", "a number of rows, at least 1", |options, text| {
        options.max_batch_rows = Some(positive(text)?);
        Some(())
    }),
    key("batch-target-ms", "a number of milliseconds, at least 1", |options, text| {
        options.batch_target_ms = Some(positive(text)?);
        Some(())
    }),
    key("max-sequences", "a number of sequences, at least 1", |options, text| {
        options.max_sequences = Some(positive(text)?);
        Some(())
    }),
    key("sequence-idle-ms", "a number of milliseconds, at least 1", |options, text| {
        options.sequence_idle_ms = Some(positive(text)?);
        Some(())
    }),
    key("default-timeout-ms", "a number of milliseconds, at least 1", |options, text| {
        options.default_timeout_ms = Some(positive(text)?);
        Some(())
    }),
    key("max-body-bytes", "a number of bytes, at least 1", |options, text| {
        options.max_body_bytes = Some(positive(text)?);
        Some(())
    }),
];

impl Default for Options {
    fn default() -> Self {
        Self {
            image: names::DEFAULT_IMAGE.into(),
            image_pull_policy: None,
            control_plane: ControlPlane {
                url: "https://sconce.sconce-system.svc.cluster.local:8440".into(),
                port: 8440,
            },
            control_plane_id: "/ns/sconce-system/sa/sconce".into(),
            cpu: "100m".into(),
            cpu_limit: None,
            memory: "512Mi".into(),
            memory_limit: Some("2Gi".into()),
            cache_size: "4Gi".into(),
            cache_claim: None,
            log: None,
            callers: None,
            labels: Labels::default(),
            drain_seconds: None,
            wait_for_models: false,
            hold_application: true,
            native_sidecar: None,
            inference_threads: None,
            intra_op_threads: None,
            queue_size: None,
            max_batch_rows: None,
            batch_target_ms: None,
            max_sequences: None,
            sequence_idle_ms: None,
            default_timeout_ms: None,
            max_body_bytes: None,
        }
    }
}

impl Options {
    /// What holds for this pod: later places win over earlier ones.
    pub(super) fn of(pod: &Value, namespace: &Namespace, settings: &Settings) -> Result<Self, Rejection> {
        let mut options = Self::default().with_defaults(settings)?;
        let of_namespace = namespace.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        options.annotations(&format!("the annotation of the namespace {}", namespace.name), of_namespace)?;
        options.annotations("the pod's annotation", shape::texts(pod, "annotations"))?;
        Ok(options)
    }

    /// With an installation's defaults.
    pub(super) fn with_defaults(mut self, settings: &Settings) -> Result<Self, Rejection> {
        for (name, value) in &settings.defaults {
            self.set("the default", name, name, value)?;
        }
        Ok(self)
    }

    fn annotations<'a>(
        &mut self,
        place: &str,
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Rejection> {
        for (key, value) in annotations {
            let own = [names::STATUS_ANNOTATION, names::OVERRIDES_ANNOTATION];
            if let Some(name) = key.strip_prefix(names::ANNOTATION_PREFIX)
                && !own.contains(&key)
            {
                self.set(place, key, name, value)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, place: &str, shown: &str, name: &str, value: &str) -> Result<(), Rejection> {
        let place = place.to_owned();
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(Rejection::UnknownOption { place, key: shown.to_owned() });
        };
        (key.set)(self, value).ok_or_else(|| Rejection::Option {
            place,
            key: shown.to_owned(),
            value: value.to_owned(),
            expected: key.expected,
        })
    }
}

const fn key(name: &'static str, expected: &'static str, set: fn(&mut Options, &str) -> Option<()>) -> Key {
    Key { name, expected, set }
}

fn word(text: &str) -> Option<String> {
    let fits = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    fits.then(|| text.to_owned())
}

/// `auto` in a partial container means ours, so as a name it means nothing.
fn image(text: &str) -> Option<String> {
    word(text).filter(|image| image != "auto")
}

fn one_of(known: &[&str], text: &str) -> Option<String> {
    known.contains(&text).then(|| text.to_owned())
}

fn quantity(text: &str) -> Option<String> {
    text.parse::<Quantity>().ok().map(|_| text.to_owned())
}

fn limit(text: &str) -> Option<Option<String>> {
    if text.is_empty() { Some(None) } else { quantity(text).map(Some) }
}

fn positive(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number > 0)
}

/// A DNS subdomain (RFC 1123), as names of objects are.
fn object_name(text: &str) -> Option<String> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    let fits = bytes.len() <= 253
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b));
    fits.then(|| text.to_owned())
}

fn control_plane(text: &str) -> Option<ControlPlane> {
    let (host, port) = text.strip_prefix("https://")?.trim_end_matches('/').rsplit_once(':')?;
    let plain = word(host).is_some_and(|host| !host.contains('/'));
    plain.then_some(())?;
    Some(ControlPlane { url: text.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
}

fn callers(text: &str) -> Option<String> {
    let id = |part: &str| {
        let rest = part.strip_prefix("spiffe://").filter(|rest| !rest.starts_with('/'))?;
        word(rest)
    };
    let all = text.split(',').map(str::trim).map(id);
    all.collect::<Option<Vec<_>>>().map(|_| text.to_owned())
}

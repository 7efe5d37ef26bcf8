//! Everything the sidecar can be told, read once from its environment.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use http::Uri;
use sconce_catalog::{Labels, Lane};
use sconce_identity::{
    IdPattern, SpiffeId,
    source::{Own, Sources},
};

/// What the environment says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `SCONCE_NAME`: unique among the sidecars of a control plane; default: the host's name.
    pub name: String,
    /// `SCONCE_LISTEN`: where predictions are answered; default `0.0.0.0:8443`.
    pub listen: SocketAddr,
    /// `SCONCE_CANARY_LISTEN`: the same for the canary lane; default: nowhere.
    pub canary_listen: Option<SocketAddr>,
    /// `SCONCE_SHADOW_LISTEN`: where mirrored requests are answered, whatever version they name;
    /// default: nowhere.
    pub shadow_listen: Option<SocketAddr>,
    /// `SCONCE_UNIX_SOCKET`: where processes of the same pod are answered in plaintext; default: nowhere.
    pub unix_socket: Option<PathBuf>,
    /// `SCONCE_ADMIN_LISTEN`: `/livez`, `/readyz`, `/metrics`; default `127.0.0.1:9443`.
    pub admin_listen: SocketAddr,
    /// `SCONCE_CONTROL_PLANE`: `https://host:port`.
    pub control_plane: Uri,
    /// `SCONCE_CONTROL_PLANE_ID`: path of the control plane's SPIFFE id in the own trust domain;
    /// default `/sconce/control-plane`, which the control plane's own CA gives it.
    pub control_plane_id: String,
    /// `SCONCE_IDENTITY` and what belongs to each source: where this process's certificate comes
    /// from.
    pub identity: Sources,
    /// The last of these sources.
    pub join: Option<Join>,
    /// `SCONCE_DATA_DIR`: keeps the catalog, artifacts and the certificate.
    pub data_dir: PathBuf,
    /// `SCONCE_LABELS`: `team=pay,tier=edge`; what models select by.
    pub labels: Labels,
    /// `SCONCE_NAMESPACE`: where a model's name without a namespace is looked up; default `default`.
    pub namespace: String,
    /// `SCONCE_PLAINTEXT_LOOPBACK`: `true` answers plaintext from this machine's loopback.
    pub plaintext_loopback: bool,
    /// `SCONCE_PLAINTEXT_MESH`: `true` answers plaintext from the pod's Envoy, for whom that names as
    /// the caller.
    pub plaintext_mesh: bool,
    /// `SCONCE_CALLERS`: SPIFFE ids, or prefixes ending in `/*`, that may call; default: every id
    /// of the own trust domain.
    pub callers: Vec<IdPattern>,
    /// `SCONCE_INFERENCE_THREADS`: how often one version may run at once; default: the CPUs this process
    /// may use, by its affinity and its cgroup's limit, divided by the next.
    pub inference_threads: usize,
    /// `SCONCE_INTRA_OP_THREADS`: threads that one run may use; default 1.
    pub intra_op_threads: usize,
    /// `SCONCE_QUEUE_SIZE`: how many requests may wait for one version; default 256.
    pub queue_size: usize,
    /// `SCONCE_MAX_BATCH_ROWS`: the largest batch; default 32.
    pub max_batch_rows: usize,
    /// `SCONCE_BATCH_TARGET_MS`: how long a batch should run at most; default: as long as it takes.
    pub batch_target: Option<Duration>,
    /// `SCONCE_MAX_SEQUENCES`: sequences of one version at a time; default 1,024.
    pub max_sequences: usize,
    /// `SCONCE_SEQUENCE_IDLE_MS`: how long a sequence may be idle; default 60,000.
    pub sequence_idle: Duration,
    /// `SCONCE_DEFAULT_TIMEOUT_MS`: how long a request may take that does not say; default 60,000.
    pub default_timeout: Duration,
    /// `SCONCE_MAX_BODY_BYTES`: the largest request; default 64 MiB.
    pub max_body_bytes: usize,
    /// `SCONCE_WAIT_FOR_MODELS`: `false` makes `/readyz` need an identity alone; default `true`.
    pub wait_for_models: bool,
    /// `SCONCE_LINGER_SECONDS`: how long requests are still taken at the end, not ready any more,
    /// while those who send them learn of it; default 3.
    pub linger: Duration,
    /// `SCONCE_DRAIN_SECONDS`: how long requests in flight may take at the end; default 25.
    pub drain: Duration,
    /// `SCONCE_LOG`: a level, or `target=level,…`; default `info`.
    pub log: String,
    /// `SCONCE_LOG_FORMAT`: `text` or `json`; default `text`.
    pub log_json: bool,
}

/// How to get a certificate from the control plane's own CA.
#[derive(Clone, Debug)]
pub struct Join {
    /// `SCONCE_JOIN_TOKEN_FILE`: needed only until the first certificate is on disk.
    pub token_file: PathBuf,
    /// `SCONCE_TRUST_BUNDLE`: PEM roots to recognise the control plane by.
    pub trust_bundle: PathBuf,
    /// `SCONCE_NAMES`: DNS names and IP addresses wanted in the certificate.
    pub names: Vec<String>,
}

/// Every variable that is wrong, each with what is expected.
#[derive(Debug, thiserror::Error)]
pub struct InvalidConfig(Vec<String>);

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is not valid:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// Naming every variable that is missing or not valid, not only the first.
    pub fn from_env() -> Result<Self, InvalidConfig> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads variables from `lookup`.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidConfig> {
        let mut read = Reader { lookup, problems: Vec::new() };
        // The smaller of the affinity and the quotas of cgroup v1 or v2, rounded down: what is left of
        // a CPU goes to the threads that parse and encrypt.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let intra_op = read.count("SCONCE_INTRA_OP_THREADS", 1, "threads");
        let host = || {
            std::fs::read_to_string("/proc/sys/kernel/hostname").map_or("sidecar".into(), |h| h.trim().into())
        };
        let join = read.join();
        let config = Self {
            name: read.text("SCONCE_NAME").unwrap_or_else(host),
            listen: read.or("SCONCE_LISTEN", ([0, 0, 0, 0], 8443).into(), "an address such as 0.0.0.0:8443"),
            canary_listen: read.lane("SCONCE_CANARY_LISTEN", Lane::Canary),
            shadow_listen: read.lane("SCONCE_SHADOW_LISTEN", Lane::Shadow),
            unix_socket: read.text("SCONCE_UNIX_SOCKET").map(PathBuf::from),
            admin_listen: read.or(
                "SCONCE_ADMIN_LISTEN",
                ([127, 0, 0, 1], 9443).into(),
                "an address such as 127.0.0.1:9443",
            ),
            control_plane: read.control_plane(),
            control_plane_id: read.control_plane_id(),
            identity: read.identity(join.as_ref()),
            join,
            data_dir: read.required("SCONCE_DATA_DIR", "a folder that this process may write"),
            labels: read.or("SCONCE_LABELS", Labels::default(), "labels such as team=pay,tier=edge"),
            namespace: read.text("SCONCE_NAMESPACE").unwrap_or_else(|| "default".into()),
            plaintext_loopback: read.or("SCONCE_PLAINTEXT_LOOPBACK", false, "true or false"),
            plaintext_mesh: read.or("SCONCE_PLAINTEXT_MESH", false, "true or false"),
            callers: read.list(
                "SCONCE_CALLERS",
                "SPIFFE ids such as spiffe://sconce.local/ns/default/*, separated by commas",
            ),
            inference_threads: read.count("SCONCE_INFERENCE_THREADS", (cpus / intra_op).max(1), "threads"),
            intra_op_threads: intra_op,
            queue_size: read.count("SCONCE_QUEUE_SIZE", 256, "requests"),
            max_batch_rows: read.count("SCONCE_MAX_BATCH_ROWS", 32, "rows"),
            batch_target: read
                .text("SCONCE_BATCH_TARGET_MS")
                .map(|_| read.millis("SCONCE_BATCH_TARGET_MS", 1)),
            max_sequences: read.count("SCONCE_MAX_SEQUENCES", 1024, "sequences"),
            sequence_idle: read.millis("SCONCE_SEQUENCE_IDLE_MS", 60_000),
            default_timeout: read.millis("SCONCE_DEFAULT_TIMEOUT_MS", 60_000),
            max_body_bytes: read.count("SCONCE_MAX_BODY_BYTES", 64 << 20, "bytes"),
            wait_for_models: read.or("SCONCE_WAIT_FOR_MODELS", true, "true or false"),
            linger: Duration::from_secs(read.or("SCONCE_LINGER_SECONDS", 3, "a number of seconds")),
            drain: Duration::from_secs(read.or("SCONCE_DRAIN_SECONDS", 25, "a number of seconds")),
            log: read.text("SCONCE_LOG").unwrap_or_else(|| "info".into()),
            log_json: read.or("SCONCE_LOG_FORMAT", LogFormat(false), "text or json").0,
        };
        if read.problems.is_empty() { Ok(config) } else { Err(InvalidConfig(read.problems)) }
    }
}

struct Reader<L> {
    lookup: L,
    problems: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    fn or<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| {
            self.problems.push(format!("{name} is {text:?}; expected {expected}"));
            default
        })
    }

    /// A number from 1 on.
    fn count(&mut self, name: &str, default: usize, of: &str) -> usize {
        self.or(name, Positive(default), &format!("a number of {of}, at least 1")).0
    }

    fn millis(&mut self, name: &str, default: usize) -> Duration {
        Duration::from_millis(self.count(name, default, "milliseconds") as u64)
    }

    fn required(&mut self, name: &str, expected: &str) -> PathBuf {
        self.text(name).map(PathBuf::from).unwrap_or_else(|| {
            self.problems.push(format!("{name} is not set; expected {expected}"));
            PathBuf::new()
        })
    }

    /// Where a lane listens that need not be there.
    fn lane(&mut self, name: &str, lane: Lane) -> Option<SocketAddr> {
        self.text(name)?;
        let usual = SocketAddr::from(([0, 0, 0, 0], lane.container_port()));
        Some(self.or(name, usual, &format!("an address such as {usual}")))
    }

    fn list<T: FromStr>(&mut self, name: &str, expected: &str) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let parts: Result<Vec<T>, _> =
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect();
        parts.unwrap_or_else(|_| {
            self.problems.push(format!("{name} is {text:?}; expected {expected}"));
            Vec::new()
        })
    }

    fn control_plane(&mut self) -> Uri {
        let expected = "an address such as https://sconce.sconce-system:8440";
        let text = self.text("SCONCE_CONTROL_PLANE").unwrap_or_default();
        match text.parse::<Uri>() {
            Ok(uri) if uri.scheme_str() == Some("https") && uri.port().is_some() => uri,
            _ => {
                self.problems.push(format!("SCONCE_CONTROL_PLANE is {text:?}; expected {expected}"));
                Uri::default()
            }
        }
    }

    fn control_plane_id(&mut self) -> String {
        let path = self.text("SCONCE_CONTROL_PLANE_ID").unwrap_or_else(|| "/sconce/control-plane".into());
        // Any trust domain will do here: which one it is, the own certificate says.
        if SpiffeId::new("example.org", &path).is_err() {
            self.problems.push(format!(
                "SCONCE_CONTROL_PLANE_ID is {path:?}; expected a path such as /ns/sconce-system/sa/sconce"
            ));
        }
        path
    }

    fn join(&mut self) -> Option<Join> {
        let token_file = self.text("SCONCE_JOIN_TOKEN_FILE")?.into();
        let expected = "a file with the control plane's CA certificates in PEM";
        Some(Join {
            token_file,
            trust_bundle: self.required("SCONCE_TRUST_BUNDLE", expected),
            names: self.list("SCONCE_NAMES", "DNS names and IP addresses, separated by commas"),
        })
    }

    fn identity(&mut self, join: Option<&Join>) -> Sources {
        let missing = join.is_none().then_some("SCONCE_JOIN_TOKEN_FILE is not set");
        Sources::read(&self.lookup, Own { name: "join", missing }, &mut self.problems)
    }
}

struct Positive(usize);

impl FromStr for Positive {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|n| *n > 0).map(Self).ok_or(())
    }
}

struct LogFormat(bool);

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "json" => Ok(Self(true)),
            "text" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, InvalidConfig> {
        Config::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    const GOOD: [(&str, &str); 3] = [
        ("SCONCE_CONTROL_PLANE", "https://127.0.0.1:8440"),
        ("SCONCE_DATA_DIR", "/data"),
        ("SCONCE_IDENTITY_DIR", "/identity"),
    ];

    #[test]
    fn the_defaults_are_closed() {
        let config = read(&GOOD).expect("valid");
        assert!(!config.plaintext_loopback && !config.plaintext_mesh);
        assert_eq!((config.canary_listen, config.shadow_listen, config.unix_socket), (None, None, None));
        assert!(config.callers.is_empty());
        assert_eq!(config.namespace, "default");
    }

    #[test]
    fn threads_of_a_run_leave_fewer_runs_at_once() {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let with = |variables: &[(&str, &str)]| read(&[&GOOD[..], variables].concat()).expect("valid");
        assert_eq!((with(&[]).inference_threads, with(&[]).intra_op_threads), (cpus, 1));
        let all = cpus.to_string();
        let one = with(&[("SCONCE_INTRA_OP_THREADS", &all)]);
        assert_eq!((one.inference_threads, one.intra_op_threads), (1, cpus));
        let said = with(&[("SCONCE_INTRA_OP_THREADS", &all), ("SCONCE_INFERENCE_THREADS", "3")]);
        assert_eq!(said.inference_threads, 3);
        assert_eq!(said.batch_target, None);
        let target = with(&[("SCONCE_BATCH_TARGET_MS", "20")]).batch_target;
        assert_eq!(target, Some(Duration::from_millis(20)));
    }

    #[test]
    fn every_wrong_variable_is_named_at_once() {
        let wrong = [
            ("SCONCE_LISTEN", "8443"),
            ("SCONCE_CANARY_LISTEN", "8444"),
            ("SCONCE_PLAINTEXT_MESH", "yes"),
            ("SCONCE_WAIT_FOR_MODELS", "0"),
            ("SCONCE_LABELS", "team"),
            ("SCONCE_INFERENCE_THREADS", "0"),
            ("SCONCE_INTRA_OP_THREADS", "two"),
            ("SCONCE_BATCH_TARGET_MS", "0.5"),
            ("SCONCE_DEFAULT_TIMEOUT_MS", "0"),
            ("SCONCE_MAX_SEQUENCES", "0"),
            ("SCONCE_SEQUENCE_IDLE_MS", "never"),
            ("SCONCE_CONTROL_PLANE", "http://plain:1"),
            ("SCONCE_IDENTITY", "spire"),
        ];
        let joining = [("SCONCE_JOIN_TOKEN_FILE", "/token")];
        let message = read(&[&wrong[..], &joining].concat()).expect_err("not valid").to_string();
        for (name, _) in wrong {
            assert!(message.contains(name), "{name} in {message}");
        }
        for name in ["SCONCE_DATA_DIR", "SCONCE_TRUST_BUNDLE"] {
            assert!(message.contains(name), "{name} in {message}");
        }
    }
}

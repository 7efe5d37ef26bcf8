//! Everything the control plane can be told, read once from its environment.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use sconce_identity::{
    SpiffeId,
    source::{Own, Sources},
};

use crate::{access::Role, publish::Settings, pull};

mod publish;

/// What the environment says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `SCONCE_LISTEN`: the API, for people, sidecars and joining; default `0.0.0.0:8440`.
    pub listen: SocketAddr,
    /// `SCONCE_ADMIN_LISTEN`: `/livez`, `/readyz`, `/metrics`; default `127.0.0.1:9440`.
    pub admin_listen: SocketAddr,
    /// `SCONCE_DATA_DIR`: database, chunks, CA and the first operator's credentials.
    pub data_dir: PathBuf,
    /// `SCONCE_IDENTITY` and what belongs to each source: what certifies this process. Where
    /// nothing else does, the built-in CA, which then certifies sidecars and operators as well.
    pub identity: Sources,
    /// `SCONCE_TRUST_DOMAIN`: of the built-in CA; default `sconce.local`.
    pub trust_domain: String,
    /// `SCONCE_NAMES`: DNS names and IP addresses of this server; default `localhost,127.0.0.1`.
    pub names: Vec<String>,
    /// `SCONCE_ROLES`: `spiffe://sconce.local/ns/ci/sa/push=pusher,…`.
    pub roles: BTreeMap<SpiffeId, Role>,
    /// `SCONCE_PUBLISH`: `istio`, `gateway-api` or `off`, the default; with `SCONCE_PUBLISH_DRIFT`,
    /// `SCONCE_PUBLISH_FLOOR` and `SCONCE_PUBLISH_GRACE_SECONDS`.
    pub publish: Option<Settings>,
    /// `SCONCE_CUSTOM_RESOURCES`: `on` makes the catalog what `Model` and `ModelVersion` objects of the
    /// cluster declare; `off` is the default.
    pub custom_resources: bool,
    /// `SCONCE_SOURCES`: what may be pulled from: `public`, the default, `off`, and prefixes such as
    /// `s3://models/`; with `SCONCE_SOURCES_CA`.
    pub pulls: pull::Settings,
    /// `HOSTNAME`: what this control plane is called among its replicas; a pod's is its name.
    pub hostname: String,
    /// `SCONCE_LOG`: a level, or `target=level,…`; default `info`.
    pub log: String,
    /// `SCONCE_LOG_FORMAT`: `text` or `json`; default `text`.
    pub log_json: bool,
}

/// Every variable that is wrong, each with what is expected.
#[derive(Debug, thiserror::Error)]
pub struct InvalidConfig(pub(crate) Vec<String>);

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
        let mut problems = Vec::new();
        let text = |name: &str| lookup(name).filter(|text| !text.is_empty());
        let mut address = |name: &str, default: SocketAddr| {
            let Some(text) = text(name) else { return default };
            text.parse().unwrap_or_else(|_| {
                problems.push(format!("{name} is {text:?}; expected an address such as {default}"));
                default
            })
        };
        let listen = address("SCONCE_LISTEN", ([0, 0, 0, 0], 8440).into());
        let admin_listen = address("SCONCE_ADMIN_LISTEN", ([127, 0, 0, 1], 9440).into());
        let data_dir = text("SCONCE_DATA_DIR").map(PathBuf::from);
        if data_dir.is_none() {
            problems.push("SCONCE_DATA_DIR is not set; expected a folder that this process may write".into());
        }
        let trust_domain = text("SCONCE_TRUST_DOMAIN").unwrap_or_else(|| "sconce.local".into());
        if SpiffeId::new(&trust_domain, "/x").is_err() {
            problems.push(format!(
                "SCONCE_TRUST_DOMAIN is {trust_domain:?}; expected a name such as sconce.local"
            ));
        }
        let roles = roles(&text("SCONCE_ROLES").unwrap_or_default());
        problems.extend(roles.as_ref().err().cloned());
        let publish = publish::read(&text, &mut problems);
        let custom_resources = text("SCONCE_CUSTOM_RESOURCES").unwrap_or_else(|| "off".into());
        if custom_resources != "on" && custom_resources != "off" {
            problems.push(format!("SCONCE_CUSTOM_RESOURCES is {custom_resources:?}; expected on or off"));
        }
        let policy = text("SCONCE_SOURCES").unwrap_or_else(|| "public".into()).parse();
        problems.extend(policy.as_ref().err().map(|error| {
            format!("SCONCE_SOURCES: {error}; expected public, off, and prefixes such as s3://models/")
        }));
        let identity = Sources::read(&lookup, Own { name: "ca", missing: None }, &mut problems);
        let format = text("SCONCE_LOG_FORMAT").unwrap_or_else(|| "text".into());
        if format != "text" && format != "json" {
            problems.push(format!("SCONCE_LOG_FORMAT is {format:?}; expected text or json"));
        }
        if !problems.is_empty() {
            return Err(InvalidConfig(problems));
        }
        Ok(Self {
            listen,
            admin_listen,
            data_dir: data_dir.unwrap_or_default(),
            identity,
            trust_domain,
            names: list(&text("SCONCE_NAMES").unwrap_or_else(|| "localhost,127.0.0.1".into())),
            roles: roles.unwrap_or_default(),
            publish,
            custom_resources: custom_resources == "on",
            pulls: pull::Settings {
                policy: policy.unwrap_or_default(),
                ca: text("SCONCE_SOURCES_CA").map(PathBuf::from),
            },
            hostname: text("HOSTNAME").unwrap_or_else(|| "sconce".into()),
            log: text("SCONCE_LOG").unwrap_or_else(|| "info".into()),
            log_json: format == "json",
        })
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn roles(text: &str) -> Result<BTreeMap<SpiffeId, Role>, String> {
    let one = |part: String| {
        let (id, role) = part.rsplit_once('=')?;
        Some((id.parse().ok()?, role.parse().ok()?))
    };
    let all: Option<BTreeMap<_, _>> = list(text).into_iter().map(one).collect();
    all.ok_or_else(|| {
        format!("SCONCE_ROLES is {text:?}; expected spiffe://…=reader|pusher|operator, separated by commas")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_variable_is_named_at_once() {
        let wrong = [
            ("SCONCE_LISTEN", "8440"),
            ("SCONCE_TRUST_DOMAIN", "Not/A/Domain"),
            ("SCONCE_ROLES", "spiffe://a/b=king"),
            ("SCONCE_LOG_FORMAT", "xml"),
            ("SCONCE_PUBLISH", "linkerd"),
            ("SCONCE_PUBLISH_DRIFT", "fight"),
            ("SCONCE_PUBLISH_FLOOR", "101"),
            ("SCONCE_PUBLISH_GRACE_SECONDS", "soon"),
            ("SCONCE_IDENTITY", "join"),
            ("SCONCE_CUSTOM_RESOURCES", "yes"),
            ("SCONCE_SOURCES", "http://models.example.com"),
        ];
        let lookup =
            |name: &str| wrong.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let message = Config::read(lookup).expect_err("not valid").to_string();
        for name in wrong.iter().map(|(name, _)| *name).chain(["SCONCE_DATA_DIR"]) {
            assert!(message.contains(name), "{name} in {message}");
        }
    }
}

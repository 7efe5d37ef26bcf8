//! Everything the webhook can be told, read once from its environment.

use std::{net::SocketAddr, path::PathBuf};

pub use crate::config::InvalidConfig;

/// What the environment says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `SCONCE_WEBHOOK_LISTEN`: for the API server; default `0.0.0.0:8441`.
    pub listen: SocketAddr,
    /// `SCONCE_WEBHOOK_ADMIN_LISTEN`: `/livez`, `/readyz`, `/metrics`; default `127.0.0.1:9440`.
    pub admin_listen: SocketAddr,
    /// `SCONCE_WEBHOOK_NAMESPACE`: where it runs; pods there are never injected.
    pub namespace: String,
    /// `SCONCE_WEBHOOK_SERVICE`: its Service; default `sconce-webhook`.
    pub service: String,
    /// `SCONCE_WEBHOOK_SECRET`: where all replicas keep CA and certificate; default
    /// `sconce-webhook`.
    pub secret: String,
    /// `SCONCE_WEBHOOK_CONFIGURATION`: the MutatingWebhookConfiguration to keep the CA bundle
    /// of; default `a.sconce-injector`.
    pub configuration: String,
    /// `SCONCE_WEBHOOK_SETTINGS`: a YAML file that says how to inject, read again when it changes.
    pub settings: Option<PathBuf>,
    /// `SCONCE_LOG`: a level, or `target=level,…`; default `info`.
    pub log: String,
    /// `SCONCE_LOG_FORMAT`: `text` or `json`; default `text`.
    pub log_json: bool,
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
        let listen = address("SCONCE_WEBHOOK_LISTEN", ([0, 0, 0, 0], 8441).into());
        let admin_listen = address("SCONCE_WEBHOOK_ADMIN_LISTEN", ([127, 0, 0, 1], 9440).into());
        let mut name = |variable: &str, default: &str| {
            let name = text(variable).unwrap_or_else(|| default.to_owned());
            if !is_object_name(&name) {
                problems.push(format!("{variable} is {name:?}; expected the name of a Kubernetes object"));
            }
            name
        };
        let namespace = name("SCONCE_WEBHOOK_NAMESPACE", "");
        let service = name("SCONCE_WEBHOOK_SERVICE", "sconce-webhook");
        let secret = name("SCONCE_WEBHOOK_SECRET", "sconce-webhook");
        let configuration = name("SCONCE_WEBHOOK_CONFIGURATION", "a.sconce-injector");
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
            namespace,
            service,
            secret,
            configuration,
            settings: text("SCONCE_WEBHOOK_SETTINGS").map(PathBuf::from),
            log: text("SCONCE_LOG").unwrap_or_else(|| "info".into()),
            log_json: format == "json",
        })
    }

    /// What the API server calls the Service.
    pub(crate) fn names(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.service, self.namespace);
        vec![format!("{short}.cluster.local"), short]
    }
}

/// A DNS subdomain (RFC 1123).
fn is_object_name(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_variable_is_named_at_once() {
        let wrong = [
            ("SCONCE_WEBHOOK_LISTEN", "8441"),
            ("SCONCE_WEBHOOK_SECRET", "Not A Name"),
            ("SCONCE_LOG_FORMAT", "xml"),
        ];
        let lookup =
            |name: &str| wrong.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let message = Config::read(lookup).expect_err("not valid").to_string();
        for name in wrong.iter().map(|(name, _)| *name).chain(["SCONCE_WEBHOOK_NAMESPACE"]) {
            assert!(message.contains(name), "{name} in {message}");
        }
    }
}

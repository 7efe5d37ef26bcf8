//! The variables that say where certificates come from: the same for every process.

use std::{path::PathBuf, time::Duration};

use http::Uri;
use rustls_pki_types::ServerName;

use super::{Kind, Own, Sources};
use crate::istiod::Istiod;

/// Where Istio's injector mounts the agent's socket, its token and istiod's roots
/// (istio/istio `manifests/charts/istio-control/istio-discovery/files/injection-template.yaml`).
const ISTIO_SOCKET: &str = "/var/run/secrets/workload-spiffe-uds/socket";
const ISTIO_TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const ISTIO_ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
const ISTIOD: &str = "https://istiod.istio-system.svc:15012";
/// A native sidecar's agent is there before us, an ordinary one takes a few seconds.
const ISTIO_PATIENCE: Duration = Duration::from_secs(20);

impl Sources {
    /// Reads variables from `lookup`, and adds to `problems` each that is missing or not valid,
    /// with what is expected.
    pub fn read(lookup: impl Fn(&str) -> Option<String>, own: Own, problems: &mut Vec<String>) -> Self {
        let before = problems.len();
        let text = |name: &str| lookup(name).filter(|text| !text.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        let only = wanted(text("SCONCE_IDENTITY"), own, problems);
        let workload_api = text("SPIFFE_ENDPOINT_SOCKET").and_then(|text| {
            let invalid = |error| problems.push(format!("SPIFFE_ENDPOINT_SOCKET is {text:?}: {error}"));
            text.parse().map_err(invalid).ok()
        });
        let sources = Self {
            only,
            workload_api,
            sds_socket: path("SCONCE_SDS_SOCKET"),
            istio_socket: ISTIO_SOCKET.into(),
            istio_patience: ISTIO_PATIENCE,
            files: path("SCONCE_IDENTITY_DIR"),
            istiod: Istiod {
                address: istiod(text("SCONCE_ISTIOD"), problems),
                token: path("SCONCE_ISTIOD_TOKEN").unwrap_or_else(|| ISTIO_TOKEN.into()),
                roots: path("SCONCE_ISTIOD_ROOT").unwrap_or_else(|| ISTIO_ROOT.into()),
            },
            own,
        };
        // One that is asked for must be told where it is.
        if let Some(Err(why)) = only.filter(|_| problems.len() == before).map(|kind| sources.source(kind)) {
            problems.push(format!("{why}, though SCONCE_IDENTITY asks for that source"));
        }
        sources
    }
}

fn wanted(text: Option<String>, own: Own, problems: &mut Vec<String>) -> Option<Kind> {
    let text = text.filter(|text| text != "auto")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name(own.name) == text);
    if kind.is_none() {
        problems.push(format!(
            "SCONCE_IDENTITY is {text:?}; expected auto, {}",
            Kind::ALL.map(|kind| kind.name(own.name)).join(", ")
        ));
    }
    kind
}

fn istiod(text: Option<String>, problems: &mut Vec<String>) -> Uri {
    let Some(text) = text else { return Uri::from_static(ISTIOD) };
    let named = |uri: &Uri| {
        let host = uri.host().map(str::to_owned);
        uri.scheme_str() == Some("https")
            && uri.port().is_some()
            && host.is_some_and(|it| ServerName::try_from(it).is_ok())
    };
    text.parse().ok().filter(named).unwrap_or_else(|| {
        problems.push(format!("SCONCE_ISTIOD is {text:?}; expected an address such as {ISTIOD}"));
        Uri::default()
    })
}

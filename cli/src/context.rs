//! Which control plane is meant and how to prove who we are: options and variables first,
//! then the context file that `sconce up` writes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    args::Global,
    config::Surroundings,
    failure::{Exit, Failure},
};

/// The context file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) control_plane: String,
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    #[serde(default)]
    pub(crate) sidecars: Vec<Sidecar>,
}

/// A sidecar that `sconce up` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) admin: String,
}

/// Everything a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) control_plane: String,
    /// Path of its SPIFFE id.
    pub(crate) control_plane_id: String,
    pub(crate) identity: Credentials,
    pub(crate) token: Option<String>,
    pub(crate) sidecars: Vec<Sidecar>,
}

/// Whom to trust, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// PEM files; without a certificate we are nobody, or whoever the token says.
    Files {
        /// The roots to trust.
        ca: PathBuf,
        /// Our chain and its key.
        certificate: Option<(PathBuf, PathBuf)>,
    },
    /// A secret discovery service tells both.
    Sds(PathBuf),
}

/// The id that the control plane's own CA gives it.
pub(crate) const CONTROL_PLANE_ID: &str = "/sconce/control-plane";

impl Credentials {
    /// What the options alone say, for a server that belongs to no control plane.
    pub(crate) fn given(global: &Global) -> Option<Self> {
        let files = || {
            let certificate = global.cert.clone().zip(global.key.clone());
            global.ca.clone().map(|ca| Self::Files { ca, certificate })
        };
        global.sds_socket.clone().map(Self::Sds).or_else(files)
    }
}

const START_ONE: &str = "start one on this machine with `sconce up`, or give --control-plane, --ca and \
                         --cert with --key (or --token)";

/// The home folder: the option, else where the surroundings put it.
pub(crate) fn home(option: Option<&Path>, surroundings: &Surroundings) -> Result<PathBuf, Failure> {
    let home = option.map(Path::to_owned).or_else(|| surroundings.home.clone());
    home.ok_or_else(|| Failure::usage("there is no home folder: set HOME or SCONCE_HOME, or give --home"))
}

impl Context {
    /// The file's place in a home folder.
    pub(crate) fn file(home: &Path) -> PathBuf {
        home.join("context.json")
    }

    fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let text = match fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Failure::failed(format!("{} cannot be read: {error}", file.display())));
            }
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Failure::failed(format!("{} is no context file: {error}", file.display()))
                .hint("`sconce up` writes a new one")
        })
    }
}

impl Access {
    /// What the command line says, and the context file for what it leaves out.
    pub(crate) fn resolve(global: &Global, surroundings: &Surroundings) -> Result<Self, Failure> {
        let context = match home(global.home.as_deref(), surroundings) {
            Ok(home) => Context::read(&Context::file(&home))?,
            // Without a home there is no context file, and the options may be enough.
            Err(_) => None,
        };
        Self::merge(global, context)
    }

    fn merge(global: &Global, context: Option<Context>) -> Result<Self, Failure> {
        let missing = |what: &str| Failure::new(Exit::Usage, format!("{what} unknown")).hint(START_ONE);
        let ours = context.as_ref();
        let control_plane = global.control_plane.clone().or(ours.map(|c| c.control_plane.clone()));
        let identity = match &global.sds_socket {
            Some(socket) => Credentials::Sds(socket.clone()),
            None => {
                let named = global.cert.clone().zip(global.key.clone());
                // A token replaces the context's certificate, but not one named beside it.
                let found = ours.filter(|_| global.token.is_none()).map(|c| (c.cert.clone(), c.key.clone()));
                let certificate = named.or(found);
                if certificate.is_none() && global.token.is_none() {
                    return Err(missing("the control plane and who you are to it are"));
                }
                let ca = global.ca.clone().or(ours.map(|c| c.ca.clone()));
                Credentials::Files { ca: ca.ok_or_else(|| missing("the CA to trust is"))?, certificate }
            }
        };
        let id = global.control_plane_id.clone().unwrap_or_else(|| CONTROL_PLANE_ID.into());
        Ok(Self {
            control_plane: control_plane.ok_or_else(|| missing("the address of the control plane is"))?,
            control_plane_id: id,
            identity,
            token: global.token.clone(),
            sidecars: context.map(|c| c.sidecars).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    fn global() -> Global {
        Global {
            control_plane: None,
            ca: None,
            cert: None,
            key: None,
            sds_socket: None,
            control_plane_id: None,
            token: None,
            home: None,
            format: Format::Table,
        }
    }

    fn context() -> Context {
        Context {
            control_plane: "https://127.0.0.1:8440".into(),
            ca: "ca.pem".into(),
            cert: "cert.pem".into(),
            key: "key.pem".into(),
            sidecars: vec![],
        }
    }

    #[test]
    fn options_win_over_the_context_file() {
        let options = Global { control_plane: Some("https://elsewhere:1".into()), ..global() };
        let access = Access::merge(&options, Some(context())).expect("complete");
        assert_eq!(access.control_plane, "https://elsewhere:1");
        let certificate = Some(("cert.pem".into(), "key.pem".into()));
        assert_eq!(access.identity, Credentials::Files { ca: "ca.pem".into(), certificate });
    }

    #[test]
    fn a_token_is_not_sent_along_with_somebody_elses_certificate() {
        let options = Global { token: Some("t".into()), ..global() };
        let access = Access::merge(&options, Some(context())).expect("complete");
        assert_eq!(access.identity, Credentials::Files { ca: "ca.pem".into(), certificate: None });
        assert_eq!(access.token.as_deref(), Some("t"));
    }

    #[test]
    fn a_secret_discovery_service_needs_no_files() {
        let options = Global {
            control_plane: Some("https://elsewhere:1".into()),
            sds_socket: Some("socket".into()),
            ..global()
        };
        let access = Access::merge(&options, None).expect("complete");
        assert_eq!(access.identity, Credentials::Sds("socket".into()));
    }

    #[test]
    fn without_any_context_the_failure_says_how_to_get_one() {
        let failure = Access::merge(&global(), None).expect_err("nothing is known");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.to_string().contains("sconce up"), "{failure}");
    }

    #[test]
    fn a_missing_context_file_is_no_error_and_a_broken_one_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Context::file(folder.path());
        assert_eq!(Context::read(&file).expect("no file is fine"), None);
        fs::write(&file, serde_json::to_vec(&context()).expect("valid")).expect("written");
        assert_eq!(Context::read(&file).expect("valid"), Some(context()));
        fs::write(&file, "{").expect("written");
        assert!(Context::read(&file).is_err());
    }
}

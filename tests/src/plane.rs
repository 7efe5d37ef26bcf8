//! A control plane and its sidecars, in this process.

use std::{fs::File, path::Path, sync::Arc, time::Duration};

use rustls::ClientConfig;
use sconce_artifact::{Assembly, chunk_file};
use sconce_control_plane::{app as control, config::Config as ControlConfig};
use sconce_identity::{
    Connector, Identity, Material, PeerPolicy, Publisher, SpiffeId,
    authority::{Authority, Validity},
    files, identity, trust_only_client_config,
};
use sconce_lifecycle::Tasks;
use sconce_proto::v1::{self, registry_client::RegistryClient};
use sconce_sidecar::{app as sidecar, config::Config as SidecarConfig, engine::torch::TorchEngine};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{Client, eventually};

const GRACE: Duration = Duration::from_secs(30);

/// A control plane, and the folder that everything is in.
pub struct Plane {
    folder: TempDir,
    tasks: Option<Tasks>,
    address: String,
    operator: Identity,
    _publisher: Publisher,
}

/// A running sidecar.
pub struct Sidecar {
    /// Where it answers: `https://localhost:port`.
    pub address: String,
    name: String,
    tasks: Tasks,
    running: sidecar::Running,
}

impl Plane {
    /// Starts a control plane with an empty store.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one that is told something.
    ///
    /// # Panics
    /// Where it does not start.
    pub async fn start_with(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("control-plane").display().to_string();
        let config = ControlConfig::read(|name| match name {
            "SCONCE_LISTEN" | "SCONCE_ADMIN_LISTEN" => Some("127.0.0.1:0".into()),
            "SCONCE_DATA_DIR" => Some(data.clone()),
            name => variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        });
        let (tasks, _) = Tasks::new();
        let addresses =
            control::start(config.expect("valid"), Arc::new(String::new), &tasks).await.expect("it starts");
        let material: Material =
            files::read(&folder.path().join("control-plane/operator")).expect("the operator's files");
        let (publisher, operator) = identity();
        publisher.publish(material);
        let address = format!("https://localhost:{}", addresses.api.port());
        Self { folder, tasks: Some(tasks), address, operator, _publisher: publisher }
    }

    /// Ends the control plane, and leaves the sidecars alone.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn stop(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            assert!(tasks.stop(GRACE).await, "the control plane stops in time");
        }
    }

    /// Where the control plane keeps everything.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("control-plane")
    }

    /// The control plane's CA, for certificates of all kinds.
    ///
    /// # Panics
    /// Where its files cannot be read.
    pub fn authority(&self) -> Authority {
        Authority::load_or_create(&self.folder.path().join("control-plane/ca"), "sconce.local")
            .expect("the CA")
    }

    /// A caller with this SPIFFE path.
    ///
    /// # Panics
    /// Where no certificate can be made.
    pub fn caller(&self, path: &str) -> Client {
        let authority = self.authority();
        let id = SpiffeId::new("sconce.local", path).expect("a valid id");
        let credentials = authority.issue_credentials(&id, &[], Validity::of(Duration::from_secs(3600)));
        Client::new(&credentials.expect("a certificate"), authority.roots_pem())
    }

    /// The API, as the operator.
    ///
    /// # Panics
    /// Where the address is none.
    pub fn registry(&self) -> RegistryClient<Channel> {
        let tls = self.operator.client_config(PeerPolicy::own_trust_domain());
        let endpoint = Endpoint::from_shared(self.address.replace("https", "http")).expect("an address");
        RegistryClient::new(endpoint.connect_with_connector_lazy(Connector::new(tls)))
    }

    /// Where the API answers: `https://localhost:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection to the API with a certificate of this SPIFFE path, or without any.
    ///
    /// # Panics
    /// Where no certificate can be made.
    pub fn channel(&self, path: Option<&str>) -> Channel {
        self.channel_to(&self.address, path)
    }

    /// A connection for gRPC to an `https` address of this control plane's trust domain.
    ///
    /// # Panics
    /// Where no certificate can be made.
    pub fn channel_to(&self, address: &str, path: Option<&str>) -> Channel {
        let endpoint = Endpoint::from_shared(address.replace("https", "http")).expect("an address");
        endpoint.connect_with_connector_lazy(Connector::new(self.tls(path)))
    }

    /// TLS for a caller with this SPIFFE path, or for one without a certificate.
    ///
    /// # Panics
    /// Where no certificate can be made.
    pub fn tls(&self, path: Option<&str>) -> Arc<ClientConfig> {
        let (authority, policy) = (self.authority(), PeerPolicy::own_trust_domain());
        let roots = authority.roots_pem().as_bytes();
        let Some(path) = path else {
            return trust_only_client_config(roots, policy).expect("valid roots");
        };
        let id = SpiffeId::new("sconce.local", path).expect("a valid id");
        let own = authority.issue_credentials(&id, &[], Validity::of(Duration::from_secs(3600)));
        let own = own.expect("a certificate");
        let (publisher, identity) = identity();
        let material = Material::from_pem(own.chain_pem.as_bytes(), own.key_pem.as_bytes(), roots);
        publisher.publish(material.expect("valid credentials"));
        identity.client_config(policy)
    }

    /// Starts a sidecar. One that was here before under this name comes back with its folder.
    ///
    /// # Panics
    /// Where it does not start or is not let in.
    pub async fn sidecar(&self, name: &str, variables: &[(&str, &str)]) -> Sidecar {
        let data = self.folder.path().join(name);
        std::fs::create_dir_all(&data).expect("a folder");
        let token_file = data.join("join-token");
        let namespace = variables.iter().find(|(name, _)| *name == "SCONCE_NAMESPACE");
        let namespace = namespace.map_or("default", |(_, namespace)| namespace);
        if !token_file.exists() {
            let request = v1::CreateJoinTokenRequest {
                spiffe_path: format!("/ns/{namespace}/sa/{name}"),
                names: vec!["localhost".into(), "127.0.0.1".into()],
                ..Default::default()
            };
            let token = self.registry().create_join_token(request).await.expect("a token").into_inner().token;
            std::fs::write(&token_file, token).expect("it writes");
        }
        let bundle = self.folder.path().join("control-plane/ca/root.pem");
        let config = SidecarConfig::read(|variable| {
            let given =
                variables.iter().find(|(name, _)| *name == variable).map(|(_, value)| (*value).to_owned());
            given.or_else(|| match variable {
                "SCONCE_NAME" => Some(name.to_owned()),
                "SCONCE_LISTEN" | "SCONCE_ADMIN_LISTEN" => Some("127.0.0.1:0".into()),
                "SCONCE_CONTROL_PLANE" => Some(self.address.clone()),
                "SCONCE_DATA_DIR" => Some(data.display().to_string()),
                "SCONCE_JOIN_TOKEN_FILE" => Some(token_file.display().to_string()),
                "SCONCE_TRUST_BUNDLE" => Some(bundle.display().to_string()),
                "SCONCE_NAMES" => Some("localhost,127.0.0.1".into()),
                _ => None,
            })
        });
        let (tasks, _) = Tasks::new();
        let config = config.expect("valid");
        let running =
            sidecar::start(config, Arc::new(TorchEngine::new()), Arc::new(String::new), &tasks).await;
        let running = running.expect("it starts");
        let address = format!("https://localhost:{}", running.addresses.live.port());
        let sidecar = Sidecar { address, name: name.to_owned(), tasks, running };
        let readiness = &sidecar.running.readiness;
        let is_ready = eventually("the sidecar is ready", || async { readiness.is_ready() });
        tokio::select! {
            // What it still waits for says more than that it waits.
            () = tokio::time::sleep(crate::PATIENCE / 2) => panic!("{name} still waits for {:?}", readiness.pending()),
            () = is_ready => {}
        }
        sidecar
    }

    /// Pushes a version.
    ///
    /// # Errors
    /// As the control plane answers.
    ///
    /// # Panics
    /// Where the file cannot be read.
    pub async fn push(
        &self,
        file: &Path,
        model: &str,
        version: &str,
        labels: &[(&str, &str)],
    ) -> Result<(), tonic::Status> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let request = v1::BeginPushRequest {
            model: model.into(),
            version: version.into(),
            selector: Some(v1::Selector { labels }),
            ..Default::default()
        };
        self.push_as(file, request).await
    }

    /// Pushes a file on any terms; what it is made of is filled in.
    ///
    /// # Errors
    /// As the control plane answers.
    ///
    /// # Panics
    /// Where the file cannot be read.
    pub async fn push_as(&self, file: &Path, request: v1::BeginPushRequest) -> Result<(), tonic::Status> {
        let file = File::open(file).expect("the model's file");
        let manifest =
            chunk_file(&file).map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        let mut registry = self.registry();
        let request = v1::BeginPushRequest { manifest: Some((&manifest).into()), ..request };
        let begun = registry.begin_push(request).await?.into_inner();
        let (assembly, push) = (Assembly::new(manifest), begun.push.clone());
        let messages: Vec<v1::UploadChunksRequest> = begun
            .missing
            .iter()
            .map(|digest| {
                let number =
                    assembly.chunk_with(&digest[..].try_into().expect("a digest")).expect("one of ours");
                let data = assembly.read_chunk(&file, number).expect("readable").into();
                v1::UploadChunksRequest {
                    push: push.clone(),
                    chunk: Some(v1::Chunk { digest: digest.clone(), data }),
                }
            })
            .collect();
        if !messages.is_empty() {
            registry.upload_chunks(futures::stream::iter(messages)).await?;
        }
        registry.commit_push(v1::CommitPushRequest { push: begun.push, activate: false }).await.map(drop)
    }

    /// Gives one version everything.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn activate(&self, model: &str, version: &str) {
        let share = v1::Share { version: version.into(), share: 10_000 };
        let split = Some(v1::Split { shares: vec![share] });
        let request = v1::SetSplitRequest { model: model.into(), split, sticky_header: None };
        self.registry().set_split(request).await.expect("the split is set");
    }

    /// Waits until a version is in this state on a sidecar, and returns the reason.
    ///
    /// # Panics
    /// When patience runs out.
    pub async fn stands(
        &self,
        sidecar: &Sidecar,
        model: &str,
        version: &str,
        state: v1::VersionState,
    ) -> String {
        let mut reason = String::new();
        let wanted = format!("{model}:{version} is {state:?} on {}", sidecar.name);
        let found = std::sync::Mutex::new(None);
        eventually(&wanted, || async {
            let listed =
                self.registry().list_sidecars(v1::ListSidecarsRequest {}).await.expect("listed").into_inner();
            let own = listed.sidecars.into_iter().find(|known| known.sidecar == sidecar.name);
            let version = own.and_then(|own| {
                own.versions
                    .into_iter()
                    .find(|v| v.model == model && v.version == version && v.state() == state)
            });
            let is_there = version.is_some();
            *found.lock().expect("not poisoned") = version;
            is_there
        })
        .await;
        if let Some(version) = found.lock().expect("not poisoned").take() {
            reason = version.reason;
        }
        reason
    }
}

impl Sidecar {
    /// Takes requests for this much longer while it says that it is about to stop.
    pub async fn leave(&self, linger: Duration) {
        self.tasks.leave(linger).await;
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn stop(self) {
        assert!(self.tasks.stop(GRACE).await, "the sidecar stops in time");
        tokio::task::spawn_blocking(move || self.running.join()).await.expect("its threads end");
    }

    /// Where its lanes and its probes are.
    pub fn addresses(&self) -> sidecar::Addresses {
        self.running.addresses
    }

    /// The path of the digits model's predictions.
    pub fn infer(&self, model: &str) -> String {
        format!("{}/v2/models/{model}/infer", self.address)
    }
}

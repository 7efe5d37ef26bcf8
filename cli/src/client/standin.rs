//! For tests: a registry in memory behind real mTLS, which keeps what it is sent and has
//! one sidecar that is ready the second time somebody asks.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use sconce_identity::{
    ClientAuth, Doors, Material, PeerPolicy,
    authority::{Authority, Validity},
    identity,
};
use sconce_proto::v1::{
    self,
    registry_server::{Registry, RegistryServer},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming, service::Routes};

use crate::context::{Access, CONTROL_PLANE_ID, Credentials};

/// What the registry holds.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) chunks: HashMap<Vec<u8>, Vec<u8>>,
    /// Chunks in the order they arrived, also those that were there.
    pub(crate) uploads: Vec<Vec<u8>>,
    pub(crate) pulled: Vec<v1::PullVersionRequest>,
    pub(crate) committed: Vec<(v1::BeginPushRequest, bool)>,
    begun: Option<v1::BeginPushRequest>,
    looks: u32,
    news: Option<tokio::sync::mpsc::UnboundedSender<Result<v1::Event, Status>>>,
}

/// A running registry; it ends when dropped.
pub(crate) struct Standin {
    pub(crate) held: Arc<Mutex<Held>>,
    pub(crate) access: Access,
    _server: JoinSet<()>,
    _folder: tempfile::TempDir,
}

#[derive(Clone)]
struct Answers(Arc<Mutex<Held>>);

type Answer<T> = Result<Response<T>, Status>;

impl Standin {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new("test.local").expect("a CA");
        let (publisher, server) = identity();
        let issue = |id: &str| {
            let id = id.parse().expect("valid");
            authority.issue_credentials(&id, &[], Validity::of(Duration::from_secs(600))).expect("issued")
        };
        let ours = issue("spiffe://test.local/sconce/control-plane");
        let roots = authority.roots_pem().as_bytes();
        publisher.publish(
            Material::from_pem(ours.chain_pem.as_bytes(), ours.key_pem.as_bytes(), roots).expect("valid"),
        );
        let theirs = issue("spiffe://test.local/sconce/operator");
        let write = |name: &str, text: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let access = Access {
            control_plane: format!("https://{}", listener.local_addr().expect("bound")),
            control_plane_id: CONTROL_PLANE_ID.into(),
            identity: Credentials::Files {
                ca: write("ca.pem", roots),
                certificate: Some((
                    write("cert.pem", theirs.chain_pem.as_bytes()),
                    write("key.pem", theirs.key_pem.as_bytes()),
                )),
            },
            token: None,
            sidecars: vec![],
        };
        let held = Arc::new(Mutex::new(Held::default()));
        let doors = Doors::tls(server.server_config(ClientAuth::Optional, PeerPolicy::own_trust_domain()));
        let routes =
            Routes::new(RegistryServer::new(Answers(held.clone())).max_decoding_message_size(64 << 20));
        let mut running = JoinSet::new();
        running.spawn(sconce_identity::serve(listener, doors, routes.prepare(), Default::default()));
        Self { held, access, _server: running, _folder: folder }
    }
}

/// A model file of this repository.
pub(crate) fn model_file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lib/artifact/testdata").join(name)
}

impl Answers {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().expect("no test panics while it holds the registry")
    }
}

fn none<T>() -> Answer<T> {
    Err(Status::permission_denied("the stand-in allows nothing else"))
}

#[tonic::async_trait]
impl Registry for Answers {
    type WatchEventsStream = BoxStream<'static, Result<v1::Event, Status>>;

    async fn begin_push(&self, request: Request<v1::BeginPushRequest>) -> Answer<v1::BeginPushResponse> {
        let request = request.into_inner();
        let mut held = self.held();
        let chunks = request.manifest.iter().flat_map(|manifest| &manifest.chunks);
        let missing = chunks.map(|c| c.digest.clone()).filter(|d| !held.chunks.contains_key(d)).collect();
        held.begun = Some(request);
        let push = "the push".to_owned();
        Ok(Response::new(v1::BeginPushResponse { push, version: "1".into(), missing, ..Default::default() }))
    }

    async fn upload_chunks(
        &self,
        request: Request<Streaming<v1::UploadChunksRequest>>,
    ) -> Answer<v1::UploadChunksResponse> {
        let mut messages = request.into_inner();
        let mut pushes = HashSet::new();
        while let Some(message) = messages.next().await {
            let message = message?;
            if !message.push.is_empty() {
                pushes.insert(message.push);
            }
            let chunk = message.chunk.ok_or_else(|| Status::invalid_argument("no chunk"))?;
            let mut held = self.held();
            held.uploads.push(chunk.digest.clone());
            held.chunks.insert(chunk.digest, chunk.data.to_vec());
        }
        if pushes != HashSet::from(["the push".to_owned()]) {
            return Err(Status::invalid_argument("the push is named in the first message"));
        }
        Ok(Response::new(v1::UploadChunksResponse::default()))
    }

    async fn commit_push(&self, request: Request<v1::CommitPushRequest>) -> Answer<v1::CommitPushResponse> {
        let mut held = self.held();
        let begun = held.begun.take().ok_or_else(|| Status::failed_precondition("nothing was begun"))?;
        let version = v1::Version {
            version: "1".into(),
            artifact: vec![7; 32],
            size: begun.manifest.as_ref().map_or(0, |manifest| manifest.size),
            ..Default::default()
        };
        held.committed.push((begun, request.into_inner().activate));
        Ok(Response::new(v1::CommitPushResponse { version: Some(version), serial: 1, split: None }))
    }

    async fn get_model(&self, _: Request<v1::GetModelRequest>) -> Answer<v1::GetModelResponse> {
        let mut held = self.held();
        held.looks += 1;
        let state = if held.looks == 1 { v1::VersionState::Loading } else { v1::VersionState::Ready };
        if let Some(news) = &held.news {
            let _ = news.send(Ok(v1::Event { version: "1".into(), ..Default::default() }));
        }
        let status = v1::VersionStatus {
            model: "layers".into(),
            version: "1".into(),
            state: state.into(),
            ..Default::default()
        };
        let sidecar = v1::SidecarStatus {
            sidecar: "edge".into(),
            connected: true,
            versions: vec![status],
            ..Default::default()
        };
        let model = v1::Model { name: "layers".into(), ..Default::default() };
        Ok(Response::new(v1::GetModelResponse {
            model: Some(model),
            sidecars: vec![sidecar],
            ..Default::default()
        }))
    }

    async fn watch_events(&self, _: Request<v1::WatchEventsRequest>) -> Answer<Self::WatchEventsStream> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        self.held().news = Some(sender);
        Ok(Response::new(UnboundedReceiverStream::new(receiver).boxed()))
    }

    type PullVersionStream = BoxStream<'static, Result<v1::PullVersionResponse, Status>>;

    async fn pull_version(
        &self,
        request: Request<v1::PullVersionRequest>,
    ) -> Answer<Self::PullVersionStream> {
        use v1::pull_version_response::State;
        let request = request.into_inner();
        let told = |stage: v1::PullStage, bytes| {
            State::Progress(v1::PullProgress { stage: stage.into(), bytes, total: 10 })
        };
        let version = v1::Version {
            version: request.version.clone(),
            artifact: vec![7; 32],
            size: 10,
            ..Default::default()
        };
        let pulled = v1::Pulled { version: Some(version), serial: 1, bytes_stored: 4, ..Default::default() };
        self.held().pulled.push(request);
        let states = [
            told(v1::PullStage::Waiting, 0),
            told(v1::PullStage::Fetching, 5),
            told(v1::PullStage::Checking, 10),
            State::Pulled(pulled),
        ];
        let messages = states.map(|state| Ok(v1::PullVersionResponse { state: Some(state) }));
        Ok(Response::new(futures::stream::iter(messages).boxed()))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        none()
    }
    async fn delete_version(
        &self,
        _: Request<v1::DeleteVersionRequest>,
    ) -> Answer<v1::DeleteVersionResponse> {
        none()
    }
    async fn set_split(&self, _: Request<v1::SetSplitRequest>) -> Answer<v1::SetSplitResponse> {
        none()
    }
    async fn list_sidecars(&self, _: Request<v1::ListSidecarsRequest>) -> Answer<v1::ListSidecarsResponse> {
        none()
    }
    async fn list_audit(&self, _: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        none()
    }
    async fn create_token(&self, _: Request<v1::CreateTokenRequest>) -> Answer<v1::CreateTokenResponse> {
        none()
    }
    async fn revoke_token(&self, _: Request<v1::RevokeTokenRequest>) -> Answer<v1::RevokeTokenResponse> {
        none()
    }
    async fn create_join_token(
        &self,
        _: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        none()
    }
}

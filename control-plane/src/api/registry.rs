//! For people, CI and Python: push, list, describe, delete, split, watch.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use sconce_catalog::{Digest, Labels, Manifest, ModelName, Selector, Signature, Split};
use sconce_proto::{model_to_wire, sticky_to_wire, v1, version_to_wire};
use tonic::{Request, Response, Status, Streaming};

use super::{Api, ApiError, events, pulls, wire};
use crate::{
    access::Role,
    store::{Begin, Join, Sticky},
};

pub(super) struct Registry(pub(super) Api);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::registry_server::Registry for Registry {
    async fn begin_push(&self, request: Request<v1::BeginPushRequest>) -> Answer<v1::BeginPushResponse> {
        self.0.allow(&request, Role::Pusher, ("push", &request.get_ref().model)).await?;
        let begun = self.0.store.begin_push(begin(request.into_inner())?).await?;
        Ok(Response::new(v1::BeginPushResponse {
            push: begun.push,
            version: begun.version.to_string(),
            missing: begun.missing.iter().map(|digest| digest.as_bytes().to_vec()).collect(),
            bytes_present: begun.bytes_present,
            already_committed: begun.already_committed,
        }))
    }

    async fn upload_chunks(
        &self,
        request: Request<Streaming<v1::UploadChunksRequest>>,
    ) -> Answer<v1::UploadChunksResponse> {
        self.0.allow(&request, Role::Pusher, "push").await?;
        let mut stream = request.into_inner();
        let (mut push, mut stored) = (None, v1::UploadChunksResponse::default());
        while let Some(message) = stream.message().await? {
            if push.is_none() {
                push = Some(self.0.store.push(&message.push).await?);
            }
            let (Some(push), Some(chunk)) = (&push, message.chunk) else { continue };
            let digest =
                Digest::try_from(&chunk.digest[..]).map_err(|error| ApiError::Invalid(error.to_string()))?;
            let size = chunk.data.len() as u64;
            self.0.store.put_chunk(push, digest, chunk.data).await?;
            metrics::counter!(sconce_telemetry::names::PUSHED_BYTES).increment(size);
            stored.chunks += 1;
            stored.bytes += size;
        }
        Ok(Response::new(stored))
    }

    async fn commit_push(&self, request: Request<v1::CommitPushRequest>) -> Answer<v1::CommitPushResponse> {
        // To activate is to move everybody's traffic, which is an operator's to do.
        let role = if request.get_ref().activate { Role::Operator } else { Role::Pusher };
        let caller = self.0.allow(&request, role, ("push", &request.get_ref().push)).await?;
        let v1::CommitPushRequest { push, activate } = request.into_inner();
        let committed = self.0.store.commit_push(&caller.name, &push, activate).await?;
        Ok(Response::new(v1::CommitPushResponse {
            version: Some(version_to_wire(&committed.version, &committed.record)),
            serial: committed.serial.0,
            split: committed.split.as_ref().map(v1::Split::from),
        }))
    }

    type PullVersionStream = pulls::Told;

    async fn pull_version(&self, request: Request<v1::PullVersionRequest>) -> Answer<pulls::Told> {
        let wanted = request.get_ref();
        let role = if wanted.activate { Role::Operator } else { Role::Pusher };
        let subject = format!("{}:{}", wanted.model, wanted.version);
        let caller = self.0.allow(&request, role, ("pull", &subject)).await?;
        let pull = pulls::from_wire(request.into_inner())?;
        Ok(Response::new(self.0.pull_and_tell(caller, pull)))
    }

    async fn list_models(&self, request: Request<v1::ListModelsRequest>) -> Answer<v1::ListModelsResponse> {
        self.0.allow(&request, Role::Reader, "list").await?;
        let namespace = request.into_inner().namespace;
        let catalog = self.0.store.catalog().borrow().clone();
        let wanted =
            catalog.models.iter().filter(|(name, _)| namespace.is_empty() || name.namespace() == namespace);
        let models = wanted.map(|(name, model)| model_to_wire(name, model)).collect();
        Ok(Response::new(v1::ListModelsResponse { models, serial: catalog.serial.0 }))
    }

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Answer<v1::GetModelResponse> {
        self.0.allow(&request, Role::Reader, "list").await?;
        let name = model_name(&request.into_inner().model)?;
        let catalog = self.0.store.catalog().borrow().clone();
        let model = catalog.models.get(&name);
        let model = model.ok_or_else(|| ApiError::NotFound(format!("there is no model `{name}`")))?;
        let sidecars = self.0.fleet.serving(&name, &model.selector);
        let progress = self.0.progress(&name, model, &sidecars);
        Ok(Response::new(v1::GetModelResponse {
            model: Some(model_to_wire(&name, model)),
            sidecars,
            split_state: progress.state.into(),
            split_message: progress.message,
        }))
    }

    async fn delete_version(
        &self,
        request: Request<v1::DeleteVersionRequest>,
    ) -> Answer<v1::DeleteVersionResponse> {
        let subject = format!("{}:{}", request.get_ref().model, request.get_ref().version);
        let caller = self.0.allow(&request, Role::Operator, ("delete", &subject)).await?;
        let v1::DeleteVersionRequest { model, version } = request.into_inner();
        let version = version.parse().map_err(ApiError::from)?;
        let serial = self.0.store.delete(&caller.name, &model_name(&model)?, &version).await?;
        Ok(Response::new(v1::DeleteVersionResponse { serial: serial.0 }))
    }

    async fn set_split(&self, request: Request<v1::SetSplitRequest>) -> Answer<v1::SetSplitResponse> {
        let caller = self.0.allow(&request, Role::Operator, ("split", &request.get_ref().model)).await?;
        let v1::SetSplitRequest { model, split, sticky_header } = request.into_inner();
        let name = model_name(&model)?;
        let split = Split::try_from(split.unwrap_or_default()).map_err(ApiError::from)?;
        let sticky = Sticky::read(sticky_header.as_deref()).map_err(ApiError::from)?;
        let serial = self.0.store.set_split(&caller.name, &name, split.clone(), sticky).await?;
        let catalog = self.0.store.catalog().borrow().clone();
        let sticky = catalog.models.get(&name).and_then(|model| model.sticky.as_ref());
        Ok(Response::new(v1::SetSplitResponse {
            serial: serial.0,
            split: Some((&split).into()),
            sticky_header: sticky_to_wire(sticky),
        }))
    }

    type WatchEventsStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        self.0.allow(&request, Role::Reader, "watch").await?;
        let v1::WatchEventsRequest { after, past_only } = request.into_inner();
        let events = events::follow(self.0.clone(), after, past_only);
        Ok(Response::new(Box::pin(events.map(|event| Ok(wire::event(event?))))))
    }

    async fn list_sidecars(
        &self,
        request: Request<v1::ListSidecarsRequest>,
    ) -> Answer<v1::ListSidecarsResponse> {
        self.0.allow(&request, Role::Reader, "list").await?;
        Ok(Response::new(v1::ListSidecarsResponse { sidecars: self.0.fleet.list() }))
    }

    async fn list_audit(&self, request: Request<v1::ListAuditRequest>) -> Answer<v1::ListAuditResponse> {
        self.0.allow(&request, Role::Operator, "audit").await?;
        let v1::ListAuditRequest { after, limit } = request.into_inner();
        let entries = self.0.store.audit_log(after, limit).await?;
        Ok(Response::new(v1::ListAuditResponse { entries: entries.into_iter().map(wire::audit).collect() }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let caller =
            self.0.allow(&request, Role::Operator, ("token.create", &request.get_ref().name)).await?;
        let role = match request.get_ref().role() {
            v1::Role::Reader => Role::Reader,
            v1::Role::Pusher => Role::Pusher,
            v1::Role::Operator => Role::Operator,
            v1::Role::Unspecified => return Err(ApiError::Invalid("the token needs a role".into()).into()),
        };
        let token = self.0.create_token(&caller, &request.into_inner().name, role).await?;
        Ok(Response::new(v1::CreateTokenResponse { token }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Answer<v1::RevokeTokenResponse> {
        let caller =
            self.0.allow(&request, Role::Operator, ("token.revoke", &request.get_ref().name)).await?;
        self.0.revoke_token(&caller, &request.into_inner().name).await?;
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<v1::CreateJoinTokenRequest>,
    ) -> Answer<v1::CreateJoinTokenResponse> {
        let caller = self
            .0
            .allow(&request, Role::Operator, ("join-token.create", &request.get_ref().spiffe_path))
            .await?;
        let v1::CreateJoinTokenRequest { spiffe_path, names, ttl_seconds, uses } = request.into_inner();
        let join = Join { spiffe_path, names };
        let token = self.0.create_join_token(&caller, &join, ttl_seconds, uses).await?;
        Ok(Response::new(v1::CreateJoinTokenResponse { token }))
    }
}

fn begin(wire: v1::BeginPushRequest) -> Result<Begin, ApiError> {
    let version = wire.version;
    let version = if version.is_empty() || version == "auto" { None } else { Some(version.parse()?) };
    let manifest = wire.manifest.ok_or_else(|| ApiError::Invalid("the push has no manifest".into()))?;
    let selector = wire.selector.map(|selector| Labels::new(selector.labels)).transpose();
    Ok(Begin {
        model: model_name(&wire.model)?,
        version,
        manifest: Manifest::try_from(manifest)?,
        metadata: wire.metadata.into_iter().collect(),
        selector: selector.map_err(|error| ApiError::Invalid(error.to_string()))?.map(Selector::new),
        overrides: Signature::try_from(wire.overrides.unwrap_or_default())?,
    })
}

fn model_name(text: &str) -> Result<ModelName, ApiError> {
    Ok(text.parse()?)
}

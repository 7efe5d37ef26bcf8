//! The same API in JSON, for curl and for whoever has no gRPC.
//!
//! Its OpenAPI document is served at `/api/v1/openapi.json`.

mod document;
mod extract;
mod publication;
mod pulls;
mod pushes;
mod tokens;
mod upload;
mod views;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response, sse},
};
use futures::StreamExt as _;
use sconce_catalog::{ModelName, Share, Split, Version};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    extract::{Body, Options, Segments, Who},
    publication::PublicationView,
    views::{
        AuditView, Changed, Described, EventView, Failed, ModelView, SidecarView, SplitView, split_state,
    },
};
use super::{Api, ApiError};
use crate::{access::Role, store::Sticky};

/// The routes, with their document among them.
pub(super) fn router(api: Api) -> Router {
    let (router, document) = OpenApiRouter::new()
        .routes(routes!(models))
        .routes(routes!(model))
        .routes(routes!(set_split))
        .routes(routes!(upload::push, delete))
        .routes(routes!(pulls::pull))
        .routes(routes!(pushes::begin))
        .routes(routes!(pushes::chunk))
        .routes(routes!(pushes::commit))
        .routes(routes!(tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::create_join))
        .routes(routes!(sidecars))
        .routes(routes!(events))
        .routes(routes!(watch_events))
        .routes(routes!(audit))
        .split_for_parts();
    let document = document::complete(document);
    // A manifest is the largest body that is held in memory; archives are streamed to disk.
    router
        .with_state(api)
        .layer(DefaultBodyLimit::max(super::MAX_MESSAGE))
        .route("/api/v1/openapi.json", axum::routing::get(async move || Json(document)))
}

/// By what callers are known.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Known {
    /// The request header by which callers are known, such as `x-user-id`: each of them is answered by
    /// the same version every time. Empty for none; absent leaves it as it is.
    sticky: Option<String>,
}

#[derive(Deserialize, IntoParams)]
struct After {
    /// Only what came after this id.
    #[serde(default)]
    after: u64,
}

/// Model and namespace as they stand in a path.
type Named = (String, String);

/// Every model.
#[utoipa::path(get, path = "/api/v1/models", responses((status = 200, body = Vec<ModelView>), (status = 401, body = Failed), (status = 403, body = Failed)))]
async fn models(State(api): State<Api>, who: Who) -> Result<Json<Vec<ModelView>>, ApiError> {
    api.rest_allow(&who, Role::Reader, "list").await?;
    let catalog = api.store.catalog().borrow().clone();
    Ok(Json(catalog.models.iter().map(|(name, model)| ModelView::new(name, model)).collect()))
}

/// One model, and where its versions stand on the sidecars that serve it.
#[utoipa::path(get, path = "/api/v1/models/{namespace}/{model}", params(("namespace" = String, Path), ("model" = String, Path)), responses((status = 200, body = Described), (status = 404, body = Failed)))]
async fn model(
    State(api): State<Api>,
    Segments(named): Segments<Named>,
    who: Who,
) -> Result<Json<Described>, ApiError> {
    api.rest_allow(&who, Role::Reader, "list").await?;
    let name = name(&named)?;
    let catalog = api.store.catalog().borrow().clone();
    let model = catalog.models.get(&name);
    let model = model.ok_or_else(|| ApiError::NotFound(format!("there is no model `{name}`")))?;
    let sidecars = api.fleet.serving(&name, &model.selector);
    let progress = api.progress(&name, model, &sidecars);
    Ok(Json(Described {
        model: ModelView::new(&name, model),
        sidecars: sidecars.into_iter().map(SidecarView::from).collect(),
        split_state: split_state(progress.state),
        split_message: progress.message,
        publication: api.publications.of(&name).as_ref().map(PublicationView::from),
    }))
}

/// Sets who answers how much, in percent by version.
#[utoipa::path(put, path = "/api/v1/models/{namespace}/{model}/split", params(("namespace" = String, Path), ("model" = String, Path), Known), request_body = SplitView, responses((status = 200, body = Changed), (status = 409, body = Failed)))]
async fn set_split(
    State(api): State<Api>,
    Segments(named): Segments<Named>,
    Options(known): Options<Known>,
    who: Who,
    Body(wanted): Body<SplitView>,
) -> Result<Json<Changed>, ApiError> {
    let subject = format!("{}/{}", named.0, named.1);
    let caller = api.rest_allow(&who, Role::Operator, ("split", &subject)).await?;
    let shares = wanted.0.iter().map(|(version, percent)| {
        let parts = (percent * 100.0).round();
        if !(0.0..=10_000.0).contains(&parts) {
            return Err(ApiError::Invalid(format!("{percent} is no percentage")));
        }
        // In range, as was just seen.
        let share = Share::new(parts as u32).map_err(|error| ApiError::Invalid(error.to_string()))?;
        Ok((version.parse::<Version>()?, share))
    });
    let shares: Result<Vec<_>, ApiError> = shares.collect();
    let split = Split::new(shares?).map_err(|error| ApiError::Invalid(error.to_string()))?;
    let sticky = Sticky::read(known.sticky.as_deref())?;
    let serial = api.store.set_split(&caller.name, &name(&named)?, split, sticky).await?;
    Ok(Json(Changed { serial: serial.0 }))
}

/// Deletes a version that answers nothing.
#[utoipa::path(delete, path = "/api/v1/models/{namespace}/{model}/versions/{version}", params(("namespace" = String, Path), ("model" = String, Path), ("version" = String, Path)), responses((status = 200, body = Changed), (status = 404, body = Failed), (status = 409, body = Failed)))]
async fn delete(
    State(api): State<Api>,
    Segments((namespace, model, version)): Segments<(String, String, String)>,
    who: Who,
) -> Result<Json<Changed>, ApiError> {
    let subject = format!("{namespace}/{model}:{version}");
    let caller = api.rest_allow(&who, Role::Operator, ("delete", &subject)).await?;
    let serial = api.store.delete(&caller.name, &name(&(namespace, model))?, &version.parse()?).await?;
    Ok(Json(Changed { serial: serial.0 }))
}

/// Every sidecar, and where each version stands on it.
#[utoipa::path(get, path = "/api/v1/sidecars", responses((status = 200, body = Vec<SidecarView>)))]
async fn sidecars(State(api): State<Api>, who: Who) -> Result<Json<Vec<SidecarView>>, ApiError> {
    api.rest_allow(&who, Role::Reader, "list").await?;
    Ok(Json(api.fleet.list().into_iter().map(SidecarView::from).collect()))
}

/// What happened, oldest first, at most a thousand at a time.
#[utoipa::path(get, path = "/api/v1/events", params(After), responses((status = 200, body = Vec<EventView>)))]
async fn events(
    State(api): State<Api>,
    Options(after): Options<After>,
    who: Who,
) -> Result<Json<Vec<EventView>>, ApiError> {
    api.rest_allow(&who, Role::Reader, "watch").await?;
    Ok(Json(api.store.events(after.after).await?.into_iter().map(EventView::from).collect()))
}

/// What happened after an id, then each event as it happens, as server-sent events.
#[utoipa::path(get, path = "/api/v1/events/watch", params(After), responses((status = 200, body = EventView, content_type = "text/event-stream")))]
async fn watch_events(
    State(api): State<Api>,
    Options(after): Options<After>,
    who: Who,
) -> Result<Response, ApiError> {
    api.rest_allow(&who, Role::Reader, "watch").await?;
    let events = super::events::follow(api, after.after, false).map(|event| {
        let event = event.map_err(axum::Error::new)?;
        let (id, kind) = (event.id.to_string(), event.kind.clone());
        // The id lets a browser's EventSource say where it was; `after` does the same for others.
        sse::Event::default().id(id).event(kind).json_data(EventView::from(event)).map_err(axum::Error::new)
    });
    Ok(sse::Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response())
}

/// Who changed what, oldest first, at most a thousand at a time.
#[utoipa::path(get, path = "/api/v1/audit", params(After), responses((status = 200, body = Vec<AuditView>)))]
async fn audit(
    State(api): State<Api>,
    Options(after): Options<After>,
    who: Who,
) -> Result<Json<Vec<AuditView>>, ApiError> {
    api.rest_allow(&who, Role::Operator, "audit").await?;
    Ok(Json(api.store.audit_log(after.after, 0).await?.into_iter().map(AuditView::from).collect()))
}

fn name((namespace, model): &Named) -> Result<ModelName, ApiError> {
    Ok(ModelName::new(namespace, model)?)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if matches!(self, Self::Internal(_)) {
            tracing::error!(error = %self, "a call failed");
        }
        let status = match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::Failed(_) => StatusCode::CONFLICT,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(_) => StatusCode::FORBIDDEN,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(Failed { error: self.to_string() })).into_response()
    }
}

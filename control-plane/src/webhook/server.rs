//! The HTTP side: one path, one question, one answer.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{Request, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use bytes::Bytes;
use hyper::body::Incoming;
use kube::core::admission::AdmissionResponse;
use sconce_istio::inject::{Settings, WEBHOOK_PATH};
use sconce_telemetry::names::WEBHOOK_REVIEWS;
use tokio::sync::watch;
use tower::{Service, ServiceExt as _, limit::GlobalConcurrencyLimitLayer};
use tower_http::timeout::RequestBodyTimeoutLayer;

use super::{
    cluster::Cluster,
    nodes::Nodes,
    review::{Question, Surroundings},
};
use crate::notes::Notes;

/// What answering takes.
pub(super) struct Mutating {
    pub(super) cluster: Cluster,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) nodes: Nodes,
    pub(super) notes: Notes,
}

/// An object of the API server's, twice, and something for what is around it.
const MAX_BODY: usize = 4 << 20;
/// Anybody can reach the port, and one replica must not be made to hold more than its memory.
const MOST_AT_A_TIME: usize = 16;
/// Less than the API server waits, so that it hears why.
const PATIENCE: Duration = Duration::from_secs(3);

/// The service behind the webhook's port, for `sconce_identity::serve`.
pub(super) fn service(
    mutating: Arc<Mutating>,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    let router = Router::new()
        .route(WEBHOOK_PATH, post(mutate))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(RequestBodyTimeoutLayer::new(PATIENCE))
        .layer(GlobalConcurrencyLimitLayer::new(MOST_AT_A_TIME))
        .with_state(mutating);
    router.map_request(|request: Request<Incoming>| request.map(Body::new))
}

async fn mutate(State(mutating): State<Arc<Mutating>>, body: Bytes) -> Response {
    let question = match Question::read(&body) {
        Ok(question) => question,
        Err(why) => {
            tracing::warn!(why, "a request was no review of a pod");
            return (StatusCode::BAD_REQUEST, format!("this is no AdmissionReview: {why}\n")).into_response();
        }
    };
    let (response, outcome) = mutating.answer(&question).await;
    metrics::counter!(WEBHOOK_REVIEWS, "outcome" => outcome).increment(1);
    Json(response.into_review()).into_response()
}

impl Mutating {
    async fn answer(&self, question: &Question) -> (AdmissionResponse, &'static str) {
        let name = question.namespace();
        let namespace = match tokio::time::timeout(PATIENCE, self.cluster.namespace(name)).await {
            Ok(Ok(namespace)) => namespace,
            Ok(Err(error)) => return self.unknown(question, &error.to_string()),
            Err(_) => return self.unknown(question, "the API server does not answer"),
        };
        let settings = self.nodes.complete(self.settings.borrow().clone());
        let limits = self.cluster.limits(name);
        let surroundings = Surroundings { namespace: &namespace, settings: &settings, limits: &limits };
        let answer = question.answer(&surroundings);
        let why = &answer.response.result.message;
        tracing::info!(namespace = name, outcome = answer.outcome, why, "judged a pod");
        if let Some(note) = answer.note {
            self.notes.leave(note);
        }
        (answer.response, answer.outcome)
    }

    fn unknown(&self, question: &Question, why: &str) -> (AdmissionResponse, &'static str) {
        let name = question.namespace();
        tracing::error!(namespace = name, why, "a namespace cannot be read");
        (question.unanswerable(&format!("the namespace {name} cannot be read: {why}; try again")), "failed")
    }
}

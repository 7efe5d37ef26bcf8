//! `grpc.health.v1.Health`, from the same readiness as every other probe.

use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use super::Server;

/// Answers from the moment's state, so that nothing has to keep a copy up to date.
pub(super) struct Probe(pub(super) Server);

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !["", "inference.GRPCInferenceService"].contains(&service.as_str()) {
            return Err(Status::not_found(format!("there is no service `{service}` here")));
        }
        let status = if self.0.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, Status>>;

    /// The protocol allows leaving it out; a stream without end would hold up every drain.
    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watching is not offered; call Check"))
    }
}

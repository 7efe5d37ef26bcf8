//! Lets in only callers who are known.

use axum::{extract::Request, middleware::Next, response::Response};
use sconce_identity::Principal;

use super::{
    error::ServeError,
    measure::{self, Protocol},
};

/// Refuses a caller without an identity, and gRPC where it cannot work.
pub(super) async fn authorise(request: Request, next: Next) -> Response {
    let protocol = Protocol::of(request.headers());
    match check(&request, protocol) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            measure::refused(protocol, &error);
            error.reply(protocol)
        }
    }
}

fn check(request: &Request, protocol: Protocol) -> Result<(), ServeError> {
    match request.extensions().get::<Principal>() {
        Some(Principal::Spiffe(_) | Principal::Loopback) => {}
        // A request without any came through a door that does not ask who is there.
        Some(Principal::Anonymous) | None => return Err(ServeError::Unauthenticated),
    }
    // tonic would answer it with 200 and trailers that HTTP/1.1 clients never see.
    if protocol == Protocol::Grpc && request.version() != http::Version::HTTP_2 {
        return Err(ServeError::GrpcVersion(request.version()));
    }
    Ok(())
}

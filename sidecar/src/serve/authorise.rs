//! Lets in only callers who are known.

use axum::{extract::Request, middleware::Next, response::Response};
use sconce_identity::{Principal, Reason, Refusal};

use super::{
    error::ServeError,
    measure::{self, Protocol},
};

/// Refuses a caller without an identity or one that may not call, and gRPC where it cannot
/// work.
pub(super) async fn authorise(request: Request, next: Next) -> Response {
    let (protocol, lane) = (Protocol::of(request.headers()), measure::lane(request.extensions()));
    match check(&request, protocol) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            measure::refused(protocol, lane, &error);
            error.reply(protocol)
        }
    }
}

fn check(request: &Request, protocol: Protocol) -> Result<(), ServeError> {
    match request.extensions().get::<Principal>() {
        Some(Principal::Spiffe(_) | Principal::Loopback) => {}
        // A request without any came through a door that does not ask who is there.
        Some(Principal::Anonymous) => return Err(ServeError::Unauthenticated),
        None => return Err(request.extensions().get().map_or(ServeError::Unauthenticated, refused)),
    }
    // tonic would answer it with 200 and trailers that HTTP/1.1 clients never see.
    if protocol == Protocol::Grpc && request.version() != http::Version::HTTP_2 {
        return Err(ServeError::GrpcVersion(request.version()));
    }
    Ok(())
}

/// What the door's refusal means for the caller. Its details are for the log alone.
fn refused(refusal: &Refusal) -> ServeError {
    match refusal.reason() {
        Reason::WrongId | Reason::ForeignTrustDomain => {
            ServeError::Denied(refusal.claimed_id().unwrap_or("the caller").to_owned())
        }
        Reason::NoIdentity => ServeError::NoIdentity,
        _ => ServeError::Unauthenticated,
    }
}

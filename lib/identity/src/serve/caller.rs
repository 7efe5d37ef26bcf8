//! Who a request is from: by its connection, or by what Envoy says with it.

use http::Request;

use crate::{Identity, PeerAddr, PeerPolicy, Principal, Refusal, forwarded};

/// What is known about the callers of one connection.
pub(super) struct Caller {
    pub(super) proof: Proof,
    /// Our own: without a certificate nobody is answered.
    pub(super) identity: Option<Identity>,
}

/// How the caller of a request is known.
pub(super) enum Proof {
    /// By the connection: the same for each of its requests, whatever their headers say.
    Connection(Principal),
    /// By Envoy, which carries the requests of many callers on one connection.
    Forwarded(PeerPolicy),
}

impl Caller {
    /// Whether it is somebody whose idle connections are kept.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.proof, Proof::Connection(Principal::Anonymous))
    }

    /// Puts into the request's extensions who sent it, or why that is not accepted.
    pub(super) fn mark<B>(&self, request: &mut Request<B>, peer: PeerAddr) {
        match self.principal(request) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
            }
            Err(refusal) => {
                refusal.log_request(peer);
                request.extensions_mut().insert(refusal);
            }
        }
        request.extensions_mut().insert(peer);
    }

    fn principal<B>(&self, request: &Request<B>) -> Result<Principal, Refusal> {
        match (&self.proof, &self.identity) {
            (_, Some(identity)) if !identity.is_certified() => Err(Refusal::no_identity()),
            (Proof::Connection(principal), _) => Ok(principal.clone()),
            (Proof::Forwarded(policy), Some(identity)) => {
                forwarded::caller(request.headers(), identity, policy).map(Principal::Spiffe)
            }
            (Proof::Forwarded(_), None) => Err(Refusal::no_identity()),
        }
    }
}

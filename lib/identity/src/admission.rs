//! Judging a peer's certificate at a handshake: its chain, the SPIFFE rules, the policy.
//!
//! Everything is read anew for each handshake, so roots that rotate and an identity that
//! appears late need no new TLS configuration. A refusal is noted with its reason before
//! the TLS library turns it into an alert.

use std::sync::Arc;

use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{Identity, Material, PeerPolicy, Refusal, refusal::note, roots::Roots, svid::Svid};

/// Where the roots come from, and which ids pass.
#[derive(Debug)]
pub(crate) struct Admission {
    trust: Trust,
    policy: PeerPolicy,
}

/// The roots to verify against.
#[derive(Debug)]
pub(crate) enum Trust {
    /// Those of our own identity, at the time of the handshake.
    Identity(Identity),
    /// Fixed ones, of a client that has no identity yet.
    Fixed(Roots),
}

/// Which end of the connection is being judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Caller,
    Server,
}

impl Admission {
    pub(crate) fn new(trust: Trust, policy: PeerPolicy) -> Self {
        Self { trust, policy }
    }

    pub(crate) fn judge(
        &self,
        peer: Peer,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let own: Option<Arc<Material>>;
        let roots = match &self.trust {
            Trust::Fixed(roots) => {
                own = None;
                roots
            }
            Trust::Identity(identity) => {
                own = identity.current();
                own.as_ref().map(|material| material.roots()).ok_or_else(no_identity)?
            }
        };
        let verified = match peer {
            Peer::Caller => roots.verify_caller(leaf, intermediates, now),
            Peer::Server => roots.verify_server(leaf, intermediates, now),
        };
        verified.inspect_err(|error| note(Refusal::of_chain(leaf, error)))?;
        self.judge_id(leaf, own.as_ref().map(|material| material.id().trust_domain()))
    }

    fn judge_id(&self, leaf: &CertificateDer<'_>, own: Option<&str>) -> Result<(), Error> {
        let refusal = match Svid::from_der(leaf) {
            Err(rule) => Refusal::not_svid(leaf, &rule),
            Ok(svid) => match self.policy.check(&svid.id, own) {
                Ok(()) => return Ok(()),
                Err(reason) => Refusal::of_id(reason, &svid.id, &self.policy),
            },
        };
        note(refusal);
        // The peer is told "access denied", not what would have been accepted.
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// Notes that this process has no certificate.
pub(crate) fn note_no_identity() {
    note(Refusal::no_identity());
}

fn no_identity() -> Error {
    note_no_identity();
    Error::General("this process has no certificate of its own".to_owned())
}

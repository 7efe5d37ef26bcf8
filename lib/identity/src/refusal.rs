//! Why a connection or a request was not accepted, in words for the log and for the caller.
//!
//! The TLS library asks our verifiers without saying who is at the other end, and its
//! error keeps neither the id nor the reason. So a verifier notes its refusal in a
//! task-local slot, and whoever runs the handshake reads it there ([`observe`]) and adds
//! the address.

use std::{cell::RefCell, fmt, future::Future};

use rustls::{CertificateError, Error, InvalidMessage};

use crate::{BrokenRule, PeerAddr, PeerPolicy, SpiffeId, svid::claimed_id};

/// Why a peer was refused; its text is the `reason` field of the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "`as_str` says it")]
pub enum Reason {
    WrongCa,
    Expired,
    NotYetValid,
    NoCertificate,
    NotSvid,
    WrongId,
    ForeignTrustDomain,
    Plaintext,
    NotForwarded,
    BadlyForwarded,
    NoIdentity,
    TooSlow,
    RefusedByPeer,
    HandshakeFailed,
}

/// A refusal: the reason, the id the peer claimed (proven or not), and the details.
///
/// A request carries one as an extension where its caller is not accepted, in place of a
/// [`Principal`](crate::Principal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    claimed: Option<String>,
    detail: String,
}

impl Reason {
    /// Stable text, such as `expired certificate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongCa => "wrong CA",
            Self::Expired => "expired certificate",
            Self::NotYetValid => "certificate not valid yet",
            Self::NoCertificate => "no certificate",
            Self::NotSvid => "not a SPIFFE certificate",
            Self::WrongId => "wrong SPIFFE id",
            Self::ForeignTrustDomain => "foreign trust domain",
            Self::Plaintext => "plaintext to the TLS port",
            Self::NotForwarded => "no caller named by the mesh",
            Self::BadlyForwarded => "unusable x-forwarded-client-cert",
            Self::NoIdentity => "no identity",
            Self::TooSlow => "handshake too slow",
            Self::RefusedByPeer => "refused by the peer",
            Self::HandshakeFailed => "handshake failed",
        }
    }
}

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, claimed: None, detail: detail.into() }
    }

    /// About the certificate of a peer, which may be quoted but is not believed.
    pub(crate) fn of_certificate(reason: Reason, leaf: &[u8], detail: impl Into<String>) -> Self {
        Self { claimed: claimed_id(leaf), ..Self::new(reason, detail) }
    }

    /// That the policy does not cover this id.
    pub(crate) fn of_id(reason: Reason, id: &SpiffeId, policy: &PeerPolicy) -> Self {
        let detail = format!("{id} is not accepted here; accepted: {policy}");
        Self { claimed: Some(id.to_string()), ..Self::new(reason, detail) }
    }

    /// That this process has no certificate, and so no say in who is who.
    pub(crate) fn no_identity() -> Self {
        Self::new(Reason::NoIdentity, "this process has no certificate of its own, not yet or no longer")
    }

    pub(crate) fn not_svid(leaf: &[u8], rule: &BrokenRule) -> Self {
        Self::of_certificate(Reason::NotSvid, leaf, rule.to_string())
    }

    /// What a chain that did not verify means.
    pub(crate) fn of_chain(leaf: &[u8], error: &Error) -> Self {
        use CertificateError as C;
        let reason = match error {
            // A foreign CA that calls itself the same as ours is found by its signature.
            Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => Reason::WrongCa,
            Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => Reason::Expired,
            Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => Reason::NotYetValid,
            _ => Reason::NotSvid,
        };
        let detail = match reason {
            Reason::WrongCa => "its certificate is not signed by a CA of our trust bundle".to_owned(),
            _ => error.to_string(),
        };
        Self::of_certificate(reason, leaf, detail)
    }

    /// What an error of the TLS library means, where no verifier noted anything.
    pub(crate) fn of_handshake(error: &std::io::Error) -> Self {
        let detail = error.to_string();
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::NoCertificatesPresented) => Self::new(Reason::NoCertificate, detail),
            Some(Error::AlertReceived(_)) => Self::new(Reason::RefusedByPeer, detail),
            Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
                Self::new(Reason::HandshakeFailed, "what answers there does not speak TLS")
            }
            _ if error.kind() == std::io::ErrorKind::TimedOut => Self::new(Reason::TooSlow, detail),
            _ => Self::new(Reason::HandshakeFailed, detail),
        }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The SPIFFE id that the peer claimed, which is not proven.
    pub fn claimed_id(&self) -> Option<&str> {
        self.claimed.as_deref()
    }

    pub(crate) fn log_connection(&self, peer: PeerAddr) {
        let (reason, detail) = (self.reason.as_str(), self.detail.as_str());
        tracing::warn!(reason, %peer, id = self.claimed_or_unknown(), detail, "refused a connection");
    }

    pub(crate) fn log_request(&self, peer: PeerAddr) {
        let (reason, detail) = (self.reason.as_str(), self.detail.as_str());
        tracing::warn!(reason, %peer, id = self.claimed_or_unknown(), detail, "refused a request");
    }

    fn claimed_or_unknown(&self) -> &str {
        self.claimed.as_deref().unwrap_or("unknown")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)?;
        match &self.claimed {
            Some(id) => write!(f, " (it says it is {id})"),
            None => Ok(()),
        }
    }
}

tokio::task_local! {
    static NOTED: RefCell<Option<Refusal>>;
}

/// Leaves a refusal for whoever runs this handshake; without anybody it is dropped.
pub(crate) fn note(refusal: Refusal) {
    let _ = NOTED.try_with(|slot| slot.replace(Some(refusal)));
}

/// Runs a handshake and returns what its verifiers noted.
pub(crate) async fn observe<F: Future>(handshake: F) -> (F::Output, Option<Refusal>) {
    let run = async {
        let output = handshake.await;
        (output, NOTED.with(RefCell::take))
    };
    NOTED.scope(RefCell::new(None), run).await
}

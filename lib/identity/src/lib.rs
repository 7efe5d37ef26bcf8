//! Who I am and who is calling: SPIFFE identities, certificates that rotate, mTLS.
//!
//! One [`Publisher`] writes the process's certificate, every [`Identity`] reads it, and
//! the TLS configurations made from an identity look it up at each handshake: a new
//! certificate needs no restart and drops no connection, and before the first one every
//! handshake fails. Where certificates come from is behind the publisher: a SPIFFE Workload
//! API ([`workload_api`]), a secret discovery service ([`sds`]), such as Istio's agent, a
//! folder ([`files`]), or an issuer ([`issued`]), such as [`istiod`] or the embedded CA
//! ([`authority`]). [`source`] chooses among them.

mod admission;
pub mod authority;
mod connect;
mod disk;
pub mod files;
mod forwarded;
mod identity;
pub mod issued;
pub mod istiod;
mod lingering;
mod material;
mod policy;
mod principal;
mod refusal;
mod retry;
mod roots;
pub mod sds;
mod serve;
pub mod source;
mod spiffe;
mod svid;
#[cfg(test)]
mod testing;
mod tls;
pub mod workload_api;

pub use self::{
    connect::{ConnectError, Connection, Connector},
    identity::{Identity, Publisher, identity},
    lingering::{Lingering, lingering},
    material::{InvalidMaterial, Material},
    policy::{IdPattern, InvalidPattern, PeerPolicy},
    principal::{PeerAddr, Principal},
    refusal::{Reason, Refusal},
    roots::InvalidRoots,
    serve::{Doors, LocalSocket, serve, serve_local},
    spiffe::{InvalidSpiffeId, SpiffeId},
    svid::BrokenRule,
    tls::{ClientAuth, trust_only_client_config},
};

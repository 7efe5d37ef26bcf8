//! The control plane: store, API, certificate authority, fleet and publishing.
//!
//! `ARCHITECTURE.md` at the root has the picture. The store is the one writer
//! of the catalog; everything else reads its `watch` channel or goes through it.

mod access;
mod api;
pub mod app;
pub mod config;
mod declared;
mod fleet;
mod issuing;
mod notes;
mod proof;
mod publish;
mod pull;
mod store;
pub mod webhook;

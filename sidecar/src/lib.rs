//! The model-serving sidecar.
//!
//! `ARCHITECTURE.md` at the root has the picture; [`engine`] runs models, [`models`]
//! decides which are there, and `serve` answers requests from them.

pub mod engine;
pub mod models;

//! The model-serving sidecar.
//!
//! `ARCHITECTURE.md` at the root has the picture; [`control`] follows the control plane,
//! [`models`] decides what is there, [`engine`] runs it, `serve` answers requests.

pub mod app;
pub mod config;
pub mod control;
pub mod engine;
pub mod models;
pub mod serve;

//! Everything that Sconce writes into a cluster, as pure functions of values.
//!
//! Nothing here talks to a cluster: the same functions stand behind the control plane,
//! which applies what they return, and behind the command line, which prints it. Objects
//! are JSON values, not generated types, so that fields of a newer API survive.

pub mod inject;
pub mod install;
pub mod names;
pub mod render;
pub mod selectors;
pub mod workload;
pub mod yaml;

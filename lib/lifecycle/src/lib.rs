//! Readiness guards, named tasks, drain and the admin port.
//!
//! A process is ready when every guard has been dropped, and it ends when a task
//! that should run for ever does not. Both binaries are built from these parts.

mod admin;
mod readiness;
mod tasks;

pub use admin::{Render, admin};
pub use readiness::{Guard, Readiness};
pub use tasks::{EndedEarly, Stopping, Tasks, terminated};

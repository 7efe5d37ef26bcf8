//! Which models are there, and how they come and go.
//!
//! [`reconcile`] follows the catalog: it has [`fetch`] bring what is missing, has it
//! checked, loaded and warmed on the loader's thread, and publishes the next
//! [`live::ModelSet`]. [`disk`] keeps enough to do all of that again after a restart
//! with the control plane gone.

pub mod disk;
pub mod fetch;
pub mod live;
pub mod progress;
pub mod reconcile;
mod retiring;
pub mod routes;

//! Which models are there, and how they come and go.

pub mod live;

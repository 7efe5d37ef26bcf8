//! Logs, and the name of every metric.

mod logs;
mod metrics;
pub mod names;

pub use logs::{InvalidFilter, Logs, Verbosity, init_logs, logs};
pub use metrics::{Metrics, MetricsTaken};

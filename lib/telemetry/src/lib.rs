//! Logs and the name of every metric.

//! Readiness guards, named tasks, drain and the admin port.

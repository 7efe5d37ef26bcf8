//! What crosses crates, in process: a real control plane, real sidecars, real sockets and mTLS.
//!
//! One program, because linking libtorch costs more than most of these tests, and because those of
//! one program run beside each other. What watches its own process (memory, metrics) has a program of
//! its own next to this one.

mod bench;
mod buckets;
mod clients;
mod clouds;
mod hostile;
mod joining;
mod leaving;
mod models;
mod namespaces;
mod openapi;
mod outage;
mod protocol;
mod pulls;
mod pushes;
mod readiness;
mod refusals;
mod registries;
mod roles;
mod sequences;
mod sources;
mod sticky;
mod swap;

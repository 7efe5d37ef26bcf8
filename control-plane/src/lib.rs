//! The control plane: store, API, certificate authority and fleet.

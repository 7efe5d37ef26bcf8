//! The command line: push, models, split, sidecars, infer, up.
fn main() {}

//! What it was measured on, and where that is written down.

use std::{fs, path::Path, thread};

/// Between these lines of the document stands what the last run showed.
const BEGIN: &str = "<!-- what `make bench` showed last -->";
const END: &str = "<!-- until here -->";

pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// In one line.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = named.map_or(std::env::consts::ARCH, |(_, name)| name);
    let libtorch = std::env::var("LIBTORCH").ok();
    let version = libtorch.and_then(|home| fs::read_to_string(Path::new(&home).join("build-version")).ok());
    let version = version.unwrap_or_default();
    let version = version.trim();
    format!("{} cores of {processor}, libtorch {version}, Sconce {}", cores(), env!("CARGO_PKG_VERSION"))
}

/// Puts the table in the place of the last one.
pub(crate) fn document(file: &Path, machine: &str, rounds: usize, table: &str) {
    let text = fs::read_to_string(file).expect("docs/benchmarks.md");
    let (before, rest) = text.split_once(BEGIN).expect("docs/benchmarks.md has a place for the table");
    let (_, after) = rest.split_once(END).expect("docs/benchmarks.md says where the table ends");
    let text = format!("{before}{BEGIN}\n\n{machine}; {rounds} rounds.\n\n{table}\n{END}{after}");
    fs::write(file, text).expect("docs/benchmarks.md can be written");
}

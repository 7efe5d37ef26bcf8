//! House rules that a reader would otherwise have to remember.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sconce_tests::repository;

const LONGEST: usize = 400;

/// Every Rust file that is ours: path from the root, and text.
fn sources() -> Vec<(String, String)> {
    let root = repository().canonicalize().expect("the repository");
    let (mut folders, mut found) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("text");
                found.push((relative(&path, &root), text));
            }
        }
    }
    assert!(found.len() > 50, "the whole repository was read");
    found
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).expect("inside").display().to_string()
}

/// Fails with every file that breaks a rule, not only the first.
fn none(rule: &str, breaks: impl Fn(&str, &str) -> bool) {
    let bad: Vec<String> =
        sources().into_iter().filter(|(path, text)| breaks(path, text)).map(|(path, _)| path).collect();
    assert!(bad.is_empty(), "{rule}: {bad:#?}");
}

/// The part before the unit tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// Whether the text has this name, and not another that ends like it (`watch::`).
fn names(text: &str, name: &str) -> bool {
    let starts_there =
        |(at, _): (usize, &str)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    text.match_indices(name).any(starts_there)
}

#[test]
fn every_file_says_why_it_exists() {
    none("a file begins with `//!`", |_, text| !text.starts_with("//!"));
}

#[test]
fn no_file_is_long() {
    none("a file has at most 400 lines: is a noun missing?", |_, text| text.lines().count() > LONGEST);
}

#[test]
fn modules_have_names_that_say_something() {
    let empty = ["mod.rs", "common.rs", "util.rs", "utils.rs", "core.rs", "types.rs", "helpers.rs"];
    none("a module is named for what it is", |path, _| {
        empty.iter().any(|name| path.ends_with(&format!("/{name}")))
    });
}

#[test]
fn only_the_engine_knows_libtorch() {
    none("`tch` stays in sidecar/src/engine/torch", |path, text| {
        names(product(text), "tch::")
            && !path.starts_with("sidecar/src/engine/torch")
            && !path.starts_with("sidecar/tests/")
            && !path.starts_with("tests/")
    });
}

#[test]
fn sidecar_and_control_plane_know_each_other_only_by_the_wire() {
    none("sidecar → control plane", |path, text| {
        path.starts_with("sidecar/") && text.contains("sconce_control_plane::")
    });
    none("control plane → sidecar", |path, text| {
        path.starts_with("control-plane/") && text.contains("sconce_sidecar::")
    });
    none("lib → proto or a process", |path, text| {
        path.starts_with("lib/")
            && ["sconce_proto::", "sconce_sidecar::", "sconce_control_plane::"]
                .iter()
                .any(|name| text.contains(name))
    });
}

#[test]
fn wire_types_stay_with_those_who_speak_the_wire() {
    let speakers = [
        "proto/",
        "tests/",
        "sidecar/src/control",
        "sidecar/src/serve",
        "control-plane/src/api",
        "control-plane/tests/",
        "cli/",
    ];
    // The fleet keeps sidecars' reports as they came, the proof of a split reads them, and the CA
    // keeps its reply.
    let keepers = ["control-plane/src/fleet", "control-plane/src/proof.rs", "control-plane/src/issuing.rs"];
    none("`sconce_proto::` only where the wire is spoken", |path, text| {
        product(text).contains("sconce_proto::")
            && !speakers.iter().chain(&keepers).any(|speaker| path.starts_with(speaker))
    });
}

#[test]
fn the_environment_is_read_in_one_place() {
    let readers = ["build.rs", "config.rs"];
    none("`env::var` only in config.rs", |path, text| {
        product(text).contains("env::var")
            && !readers.iter().any(|name| path.ends_with(name))
            && !path.contains("tests/")
    });
}

#[test]
fn versions_stand_in_the_root_manifest_only() {
    let manifests = [
        "proto",
        "sidecar",
        "control-plane",
        "istio",
        "cli",
        "tests",
        "tests/cluster",
        "examples/digits",
        "lib/catalog",
        "lib/artifact",
        "lib/identity",
        "lib/lifecycle",
        "lib/telemetry",
    ];
    for folder in manifests {
        let path: PathBuf = repository().join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let dependencies = text.split("dependencies]").skip(1).filter_map(|rest| rest.split("\n[").next());
        let dependencies = dependencies.collect::<String>();
        let numbered: Vec<&str> =
            dependencies.lines().filter(|line| line.contains("= \"") || line.contains("version =")).collect();
        assert!(numbered.is_empty(), "{}: {numbered:?}", path.display());
    }
}

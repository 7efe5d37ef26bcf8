//! `sconce inject` and `sconce uninject`: the sidecar in the pods of files, without a cluster.
//!
//! What changes is written as YAML to standard output, what does not is written as it was
//! read; who was injected, who was not and why goes to standard error.

use std::{
    fs,
    io::{Read as _, stdin},
    path::Path,
};

use sconce_istio::{
    inject::Settings,
    workload::{Done, Report, Walk, documents},
};
use serde_json::Value;
use similar::TextDiff;

use crate::{args, failure::Failure, output};

/// A file with its workloads changed.
struct Changed {
    /// All of it.
    text: String,
    /// What differs.
    diff: String,
    reports: Vec<Report>,
}

/// What is done to an object.
type Change<'a> = &'a dyn Fn(&mut Value) -> Result<Vec<Report>, Failure>;

/// Gives the pods in files the sidecar, or shows what that would change.
pub(super) fn inject(args: &args::Inject) -> Result<(), Failure> {
    let settings = settings(args)?;
    let walk = Walk { settings: &settings, namespace: args.namespace.clone(), mesh: !args.no_mesh };
    let change = |object: &mut Value| walk.inject(object).map_err(|error| Failure::failed(error.to_string()));
    let changed = each(&args.files, &change)?;
    report(&changed, "injected", "has the sidecar already");
    if !args.check {
        return output::write(&joined(&changed));
    }
    let diff: String = changed.iter().map(|file| file.diff.as_str()).collect();
    output::write(&diff)?;
    if diff.is_empty() { Ok(()) } else { Err(Failure::failed("not everything that could be is injected")) }
}

/// Takes the sidecar out of the pods in files.
pub(super) fn uninject(args: &args::Uninject) -> Result<(), Failure> {
    let settings = Settings::default();
    let walk = Walk { settings: &settings, namespace: args.namespace.clone(), mesh: false };
    let change =
        |object: &mut Value| walk.uninject(object).map_err(|error| Failure::failed(error.to_string()));
    let changed = each(&args.files, &change)?;
    report(&changed, "uninjected", "has no sidecar of ours");
    output::write(&joined(&changed))
}

fn settings(args: &args::Inject) -> Result<Settings, Failure> {
    let mut settings = match &args.settings {
        Some(path) => Settings::from_yaml(&read(path)?)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
        None => Settings::default(),
    };
    settings.defaults.extend(args.set.iter().cloned());
    settings.check().map_err(|error| Failure::usage(format!("--set: {error}")))?;
    Ok(settings)
}

/// Nothing is written before every file has been changed: half of it would be applied.
fn each(files: &[std::path::PathBuf], change: Change<'_>) -> Result<Vec<Changed>, Failure> {
    files.iter().map(|path| changed(&path.display().to_string(), &read(path)?, change)).collect()
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    read.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", path.display())))
}

fn changed(file: &str, text: &str, change: Change<'_>) -> Result<Changed, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::failed(format!("{file}: {error}"));
    let mut all = Changed { text: String::new(), diff: String::new(), reports: Vec::new() };
    for document in documents(text).map_err(|error| fail(&error))? {
        let before = document.value.clone();
        let Some(mut after) = document.value.clone() else {
            all.text.push_str(document.text);
            continue;
        };
        all.reports.extend(change(&mut after)?);
        if before.as_ref() == Some(&after) {
            all.text.push_str(document.text);
        } else {
            let written = |value: &Value| document.with(value).map_err(|error| fail(&error));
            // Against the document as we would write it: comments and the order of keys go, and
            // hiding what was added among that would help nobody.
            let (old, new) = (written(before.as_ref().unwrap_or_default())?, written(&after)?);
            all.diff.push_str(&unified(file, &old, &new));
            all.text.push_str(&new);
        }
        if !all.text.ends_with('\n') {
            all.text.push('\n');
        }
    }
    Ok(all)
}

fn unified(file: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    diff.unified_diff().context_radius(3).header(file, &format!("{file} (injected)")).to_string()
}

/// One stream of documents, whatever the files begin and end with.
fn joined(files: &[Changed]) -> String {
    let mut text = String::new();
    for file in files {
        if !text.is_empty() && !file.text.starts_with("---") {
            text.push_str("---\n");
        }
        text.push_str(&file.text);
    }
    text
}

fn report(files: &[Changed], changed: &str, unchanged: &str) {
    for Report { object, done } in files.iter().flat_map(|file| &file.reports) {
        match done {
            Done::Changed => eprintln!("{changed}  {object}"),
            Done::AsItWas => eprintln!("unchanged  {object}: it {unchanged}"),
            Done::Skipped(skip) => eprintln!("skipped  {object}: {skip}"),
            Done::NoPods => eprintln!("unchanged  {object}: it has no pods"),
        }
    }
}

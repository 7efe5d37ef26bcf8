//! What can be typed about the workloads of files.

use std::path::PathBuf;

use clap::Args as Options;

use super::values;

#[derive(Debug, Options)]
pub(crate) struct Inject {
    /// A file of workloads, YAML or JSON (repeatable; `-`: standard input)
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write what would change as a diff, and exit with 1 if anything would
    #[arg(long)]
    pub(crate) check: bool,
    /// How the cluster injects: the file that its webhook reads
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// An option for every sidecar, such as `image=registry.example.org/sconce-sidecar:1` or
    /// `control-plane=https://sconce.models.svc:8440` (repeatable)
    #[arg(long, value_name = "OPTION=VALUE", value_parser = values::pair, verbatim_doc_comment)]
    pub(crate) set: Vec<(String, String)>,
    /// Namespace of workloads that do not name one
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// Istio's sidecar will not be in these pods
    #[arg(long)]
    pub(crate) no_mesh: bool,
}

#[derive(Debug, Options)]
pub(crate) struct Uninject {
    /// A file of workloads, YAML or JSON (repeatable; `-`: standard input)
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of workloads that do not name one
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
}

//! What can be typed about an installation in a cluster.

use std::time::Duration;

use clap::Args as Options;
use sconce_istio::install::{self, Image};

use super::values;
use crate::cluster::ClusterChoice;

#[derive(Debug, Options)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) cluster: ClusterChoice,
    /// The namespace for Sconce itself; it is made where it is not there
    #[arg(long, short, default_value = install::NAMESPACE, value_parser = values::label)]
    pub(crate) namespace: String,
    /// What its images are called, before `-control-plane` and `-sidecar`
    #[arg(long, value_name = "PREFIX[:TAG]", default_value_t = Image::default())]
    pub(crate) image: Image,
    /// No data volume: what is pushed goes with the control plane's pod. For trying it out
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// Take over fields that somebody else has set since
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// How long to wait until everything runs, such as `90s` or `5m`
    #[arg(long, default_value = "2m", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    /// Print what would be applied, as YAML, and ask no cluster
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Options)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(crate) cluster: ClusterChoice,
    /// The namespace of Sconce itself
    #[arg(long, short, default_value = install::NAMESPACE, value_parser = values::label)]
    pub(crate) namespace: String,
    /// Take only what was published out of the mesh, and stop the control plane, which would put it
    /// back: what comes before `helm uninstall`
    #[arg(long)]
    pub(crate) published_only: bool,
    /// The data volume as well, with all that was ever pushed, the definitions of Sconce's kinds
    /// with every object of theirs, and the namespace where `sconce install` made it
    #[arg(long, conflicts_with = "published_only")]
    pub(crate) purge: bool,
    /// Although VirtualServices of yours hand requests to routes of Sconce's
    #[arg(long)]
    pub(crate) force: bool,
    /// How long to wait for what is told to end, such as `90s` or `5m`
    #[arg(long, default_value = "2m", value_parser = values::duration)]
    pub(crate) timeout: Duration,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Options)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) cluster: ClusterChoice,
    /// The namespace of Sconce itself [default: wherever in the cluster it runs]
    #[arg(long, short, value_parser = values::label)]
    pub(crate) namespace: Option<String>,
    /// Look at the workloads and routes of this namespace only, for those who may not see the others
    #[arg(long, value_name = "NAMESPACE", value_parser = values::label)]
    pub(crate) workloads: Option<String>,
}

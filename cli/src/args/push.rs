//! What a push can be told.

use std::{path::PathBuf, time::Duration};

use clap::Args as Options;
use sconce_catalog::{Batching, Field, Labels, ModelName};

use super::{Archive, VersionChoice, values};

#[derive(Debug, Options)]
pub(crate) struct Push {
    /// The archive, as `torch.jit.save` writes it; or an address for the control plane to fetch it
    /// from: s3://BUCKET/KEY, gs://BUCKET/KEY, az://ACCOUNT/CONTAINER/NAME, https://HOST/PATH,
    /// oci://REGISTRY/REPOSITORY
    #[arg(value_name = "FILE|ADDRESS", verbatim_doc_comment)]
    pub(crate) what: Archive,
    /// What an address must hold, `sha256:` and 64 digits; of a registry, the manifest's or the layer's
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<String>,
    /// A file of NAME=VALUE lines that the address wants to be shown, such as AWS_ACCESS_KEY_ID=…
    /// (`-`: standard input); they are used for this once and not kept
    #[arg(long, value_name = "FILE", requires = "digest", verbatim_doc_comment)]
    pub(crate) credentials: Option<PathBuf>,
    /// The model's name, `name` or `namespace/name`
    #[arg(long, short)]
    pub(crate) model: ModelName,
    /// The version's name; `auto` counts up
    #[arg(long, default_value = "auto")]
    pub(crate) version: VersionChoice,
    /// Give this version the model's whole traffic
    #[arg(long)]
    pub(crate) activate: bool,
    /// Wait until every sidecar has loaded it or rejected it, this long at most
    /// [default with --activate: 60]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", value_parser = values::seconds, verbatim_doc_comment)]
    pub(crate) wait: Option<Duration>,
    /// Free text to keep with the version, such as a git commit
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    pub(crate) meta: Vec<(String, String)>,
    /// Labels a sidecar must carry to serve this model
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) selector: Option<Labels>,
    /// What the archive does not say of an input, such as `image:FP32[-1,64]`
    #[arg(long, value_name = "NAME:DATATYPE[SHAPE]", value_parser = values::field)]
    pub(crate) input: Vec<Field>,
    /// The same of an output
    #[arg(long, value_name = "NAME:DATATYPE[SHAPE]", value_parser = values::field)]
    pub(crate) output: Vec<Field>,
    /// `rows`: dimension 0 counts rows that do not depend on one another, so that sidecars may run
    /// those of several requests as one batch; `off`: they never do [default: what the archive says]
    #[arg(long, value_name = "rows|off", verbatim_doc_comment)]
    pub(crate) batching: Option<Batching>,
}

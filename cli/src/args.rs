//! What can be typed: every command, option and environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args as Options, Parser, Subcommand, ValueEnum};
use sconce_catalog::{ModelName, StickyHeader, Version};
use sconce_istio::render::Snippet;

mod bench;
mod operate;
mod push;
mod values;
mod workloads;

pub(crate) use bench::{Arrivals, Bench, Protocol, Shape};
pub(crate) use operate::{Doctor, Install, Uninstall};
pub(crate) use push::Push;
pub(crate) use values::{Archive, InputFile, Pinned, SplitShare, VersionChoice};
pub(crate) use workloads::{Inject, Uninject};

const AFTER_HELP: &str = "\
Exit codes:
    0  done
    1  failed: refused by the server, rejected by a sidecar, a file that cannot be read
    2  the command line makes no sense
    3  the control plane or sidecar cannot be reached
    4  denied: wrong or expired certificate or token, or a role that may not
    5  not found
    6  conflict, such as a version that exists with other bytes
  130  interrupted

`sconce up` writes $SCONCE_HOME/context.json, where every other command finds the
control plane and its credentials; options and variables win over it.";

/// Pushes TorchScript models, splits traffic between their versions, shows what serves them.
#[derive(Debug, Parser)]
#[command(name = "sconce", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the control plane is and who we are; for every command.
#[derive(Debug, Options)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Global {
    /// Address of the control plane, such as `https://127.0.0.1:8440`
    #[arg(long, global = true, env = "SCONCE_CONTROL_PLANE", value_name = "URL")]
    pub(crate) control_plane: Option<String>,
    /// Roots to trust, PEM
    #[arg(long, global = true, env = "SCONCE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate chain, PEM
    #[arg(long, global = true, env = "SCONCE_CERT", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of our certificate, PEM
    #[arg(long, global = true, env = "SCONCE_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Socket of a secret discovery service that says who you are, such as Istio's agent; instead
    /// of --ca, --cert and --key
    #[arg(long, global = true, env = "SCONCE_SDS_SOCKET", value_name = "SOCKET", conflicts_with = "cert")]
    pub(crate) sds_socket: Option<PathBuf>,
    /// Path of the control plane's SPIFFE id [default: /sconce/control-plane]
    #[arg(long, global = true, env = "SCONCE_CONTROL_PLANE_ID", value_name = "PATH")]
    pub(crate) control_plane_id: Option<String>,
    /// A token made by `sconce token create`, in place of a certificate
    #[arg(long, global = true, env = "SCONCE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Folder of `sconce up` and of the context file
    /// [default: $XDG_DATA_HOME/sconce or ~/.local/share/sconce]
    #[arg(long, global = true, env = "SCONCE_HOME", value_name = "DIR", verbatim_doc_comment)]
    pub(crate) home: Option<PathBuf>,
    /// For people (table) or machines (json)
    #[arg(short = 'o', long = "format", global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload a TorchScript archive as a new version of a model, or have it fetched
    Push(Push),
    /// List the models
    Models(Models),
    /// List the versions of a model, and where they are ready
    Versions(OneModel),
    /// Show what a model or version takes and gives
    Describe {
        /// `MODEL` or `MODEL:VERSION`
        #[arg(value_name = "MODEL[:VERSION]")]
        what: Pinned,
    },
    /// Delete a version that has no share
    Delete {
        /// `MODEL:VERSION`
        #[arg(value_name = "MODEL:VERSION")]
        what: Pinned,
    },
    /// Set or show which version answers how much of a model's traffic
    Split(Split),
    /// Print what a cluster is given for a model, as YAML
    Render(Render),
    /// List the sidecars and what they serve
    Sidecars,
    /// Show what happened
    Events(Events),
    /// Show who did what, and who was denied
    Audit(Audit),
    /// Ask a sidecar for a prediction
    Infer(Infer),
    /// Measure how fast a server answers: any that speaks the Open Inference Protocol
    Bench(Box<Bench>),
    /// Give the pods in Kubernetes files the sidecar, as the webhook would
    Inject(Inject),
    /// Take the sidecar out of the pods in Kubernetes files
    Uninject(Uninject),
    /// Install Sconce in a cluster
    Install(Install),
    /// Take Sconce out of a cluster, and everything that it published first
    Uninstall(Uninstall),
    /// Find what is wrong with Sconce in a cluster, each with its next step
    Doctor(Doctor),
    /// Create and revoke tokens for people and CI
    #[command(subcommand)]
    Token(Token),
    /// Create tokens that sidecars exchange for certificates
    #[command(subcommand)]
    JoinToken(JoinToken),
    /// Run a control plane and sidecars on this machine
    Up(Up),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Options)]
pub(crate) struct Models {
    /// Only the models of this namespace
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Options)]
pub(crate) struct OneModel {
    pub(crate) model: ModelName,
}

#[derive(Debug, Options)]
pub(crate) struct Split {
    pub(crate) model: ModelName,
    /// Shares in percent, such as `1=90 2=10`; they sum to 100
    #[arg(value_name = "VERSION=PERCENT")]
    pub(crate) shares: Vec<SplitShare>,
    /// Show the split as it is (as without any share)
    #[arg(long, conflicts_with_all = ["shares", "sticky", "no_sticky"])]
    pub(crate) show: bool,
    /// Answer each caller with the same version every time; the header says who is calling, such as
    /// x-user-id. It stays so until told otherwise
    #[arg(long, value_name = "HEADER")]
    pub(crate) sticky: Option<StickyHeader>,
    /// Split among requests again, whoever sends them
    #[arg(long, conflicts_with = "sticky")]
    pub(crate) no_sticky: bool,
    /// How long to wait until it is in force everywhere; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
}

#[derive(Debug, Options)]
pub(crate) struct Render {
    pub(crate) model: ModelName,
    /// What the route is written as
    #[arg(long = "as", value_name = "KIND", default_value = "virtual-service")]
    pub(crate) route: RouteKind,
    /// Without hosts, for a root VirtualService of yours to delegate to
    #[arg(long)]
    pub(crate) delegate: bool,
    /// Policies to print as well: authorization-policy, peer-authentication, telemetry,
    /// destination-rule
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',')]
    pub(crate) with: Vec<Snippet>,
    /// Shares in percent, such as `1=90,2=10`, in place of the control plane's
    #[arg(long, value_name = "VERSION=PERCENT,…", value_delimiter = ',', requires = "generation")]
    pub(crate) split: Vec<SplitShare>,
    /// Number of that split
    #[arg(long, value_name = "N", requires = "split")]
    pub(crate) generation: Option<u64>,
    /// The header by which the callers of that split are known
    #[arg(long, value_name = "HEADER", requires = "split")]
    pub(crate) sticky: Option<StickyHeader>,
}

/// What a route is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RouteKind {
    VirtualService,
    HttpRoute,
}

#[derive(Debug, Options)]
pub(crate) struct Events {
    /// Go on with every new one
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only what came after the event of this number
    #[arg(long, default_value_t = 0)]
    pub(crate) after: u64,
}

#[derive(Debug, Options)]
pub(crate) struct Audit {
    /// Only what came after the entry of this number
    #[arg(long, default_value_t = 0)]
    pub(crate) after: u64,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
}

#[derive(Debug, Options)]
pub(crate) struct Infer {
    pub(crate) model: ModelName,
    /// Ask this version, whatever the split says
    #[arg(long)]
    pub(crate) version: Option<Version>,
    /// An input from a .npy, .json, .png or .jpg file, or JSON from standard input (`@-`).
    /// The name may be left out where the model has one input
    #[arg(long, short, value_name = "[NAME=]FILE", verbatim_doc_comment)]
    pub(crate) input: Vec<InputFile>,
    /// A whole Open Inference Protocol request in place of --input (`-`: standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub(crate) json: Option<PathBuf>,
    /// Pixels become 0 to MAX in place of 0 to 255
    #[arg(long, value_name = "MAX", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub(crate) scale: Option<f64>,
    /// Show this many of the highest classes
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) top: usize,
    /// Address of the sidecar, `https://host:port`, or its name in the context file
    #[arg(long, env = "SCONCE_SIDECAR", value_name = "ADDRESS")]
    pub(crate) sidecar: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Create a token; it is shown once
    Create {
        name: String,
        #[arg(long)]
        role: Role,
    },
    /// Revoke a token
    Revoke { name: String },
}

/// What the bearer of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Look
    Reader,
    /// Look and push
    Pusher,
    /// Everything
    Operator,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JoinToken {
    /// Create a join token; it is shown once
    Create(CreateJoinToken),
}

#[derive(Debug, Options)]
pub(crate) struct CreateJoinToken {
    /// Path of the SPIFFE id that the bearer receives, such as `/ns/default/sa/fraud`
    #[arg(long, value_parser = values::spiffe_path)]
    pub(crate) path: String,
    /// A DNS name or IP address its certificate may carry (repeatable)
    #[arg(long, value_name = "DNS")]
    pub(crate) name: Vec<String>,
    /// How long it is valid, such as `90s`, `10m` or `2h`
    #[arg(long, default_value = "10m", value_parser = values::duration)]
    pub(crate) ttl: Duration,
    /// How many certificates it may be exchanged for
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
}

#[derive(Debug, Options)]
pub(crate) struct Up {
    /// Folder for everything [default: the home folder]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// How many sidecars
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) sidecars: u16,
    /// Where the control plane listens; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8440", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Port of the first sidecar, the others follow; 0 takes free ones
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    pub(crate) sidecar_port: u16,
    /// Let processes of this machine ask sidecars without TLS
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Write the context here once everything is ready, for scripts that wait
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Args::try_parse_from(line.split(' ')).map(|args| args.command)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_push_waits_when_asked_and_says_how_long() {
        let wait = |line: &str| match parse(line).expect("valid") {
            Command::Push(push) => push.wait.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("sconce push a.pt --model m"), None);
        assert_eq!(wait("sconce push a.pt --model m --wait"), Some(60));
        assert_eq!(wait("sconce push --wait=5 a.pt --model m"), Some(5));
    }

    #[test]
    fn usage_errors_are_caught_before_anything_is_sent() {
        for line in [
            "sconce push a.pt",
            "sconce push a.pt --model M!",
            "sconce push a.pt --model m --meta novalue",
            "sconce split m 1=50 2=abc",
            "sconce split m 1=50 --show",
            "sconce render m --split 1=100",
            "sconce render m --with quotas",
            "sconce join-token create --path ns/x",
            "sconce join-token create --path /ns/x --uses 0",
            "sconce --cert only.pem models",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}

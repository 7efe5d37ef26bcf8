//! Log lines: for people on a terminal, JSON for machines.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Text that is no log filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not a log filter ({reason}); write a level such as `info`, or `info,sconce_identity=debug`"
)]
pub struct InvalidFilter {
    text: String,
    reason: String,
}

/// kube's client calls every attempt that fails an error. Whoever makes it tells it once.
const QUIET: &str = "kube_client::client::builder=off";

/// Starts logging to standard error.
///
/// `filter` is a level or a list of `target=level`. A second call in one process changes
/// nothing: tests start several servers in one.
///
/// # Errors
/// Where `filter` is neither.
pub fn init_logs(filter: &str, json: bool) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| InvalidFilter { text: filter.to_owned(), reason: error.to_string() })?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let registry = tracing_subscriber::registry().with(filter);
    let _already_logging = if json {
        registry.with(lines.json().flatten_event(true)).try_init()
    } else {
        registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
    };
    Ok(())
}

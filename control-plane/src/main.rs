//! The control plane's process: configuration, start, signal, drain.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use sconce_control_plane::{app, config::Config};
use sconce_lifecycle::{Tasks, terminated};
use sconce_telemetry::{Metrics, init_logs};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let withdraw = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("withdraw") => true,
        Some(other) => {
            eprintln!("sconce-control-plane: {other:?} is no command; there is `withdraw`, and none at all");
            return ExitCode::from(USAGE);
        }
    };
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sconce-control-plane: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match if withdraw { remove(config) } else { run(config) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sconce-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Takes out of the cluster what was ever published there, for whoever uninstalls.
#[tokio::main]
async fn remove(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!("withdrawing everything from the mesh, once no control plane publishes any more");
    Ok(app::withdraw(config).await?)
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!(?config, "starting");
    let metrics = Metrics::install()?;
    let (tasks, mut ended) = Tasks::new();
    tasks.spawn_through_drain("metrics", metrics.clone().upkeep());
    app::start(config, Arc::new(move || metrics.render()), &tasks).await?;
    let failed = tokio::select! {
        signal = terminated() => { tracing::info!(signal = signal?, "stopping"); None }
        task = ended.next() => Some(task),
    };
    tasks.stop(DRAIN).await;
    failed.map_or(Ok(()), |task| anyhow::bail!("the task `{task}` ended early; the log has the reason"))
}

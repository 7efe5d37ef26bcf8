//! The control plane's process: configuration, start, signal, drain.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use sconce_control_plane::{
    app,
    config::{Config, InvalidConfig},
    webhook,
};
use sconce_lifecycle::{EndedEarly, Tasks, terminated};
use sconce_telemetry::{Metrics, init_logs};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => with(Config::from_env(), run),
        ["withdraw"] => with(Config::from_env(), withdraw),
        ["webhook"] => with(webhook::config::Config::from_env(), run_webhook),
        _ => {
            eprintln!(
                "sconce-control-plane: {arguments:?} makes no sense; expected nothing, `webhook` or `withdraw`"
            );
            ExitCode::from(USAGE)
        }
    }
}

/// Runs a process that has read its environment.
fn with<C>(config: Result<C, InvalidConfig>, run: impl FnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sconce-control-plane: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sconce-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Takes out of the cluster what was ever published there, for whoever uninstalls.
#[tokio::main]
async fn withdraw(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!("withdrawing everything from the mesh, once no control plane publishes any more");
    Ok(app::withdraw(config).await?)
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!(?config, "starting");
    let metrics = Metrics::install()?;
    let (tasks, ended) = Tasks::new();
    tasks.spawn_through_drain("metrics", metrics.clone().upkeep());
    app::start(config, Arc::new(move || metrics.render()), &tasks).await?;
    until_stopped(tasks, ended).await
}

#[tokio::main]
async fn run_webhook(config: webhook::config::Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!(?config, "starting");
    let metrics = Metrics::install()?;
    let client = kube::Client::try_default().await.context("the cluster's API server")?;
    let (tasks, ended) = Tasks::new();
    tasks.spawn_through_drain("metrics", metrics.clone().upkeep());
    webhook::start(config, client, Arc::new(move || metrics.render()), &tasks).await?;
    until_stopped(tasks, ended).await
}

async fn until_stopped(tasks: Tasks, mut ended: EndedEarly) -> anyhow::Result<()> {
    let failed = tokio::select! {
        signal = terminated() => { tracing::info!(signal = signal?, "stopping"); None }
        task = ended.next() => Some(task),
    };
    tasks.stop(DRAIN).await;
    failed.map_or(Ok(()), |task| anyhow::bail!("the task `{task}` ended early; the log has the reason"))
}

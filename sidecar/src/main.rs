//! The sidecar's process: configuration, start, signal, drain.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use sconce_lifecycle::{Tasks, terminated};
use sconce_sidecar::{app, config::Config, engine::torch::TorchEngine};
use sconce_telemetry::{Metrics, init_logs};

/// `EX_USAGE` of sysexits.h, as the process was told something it cannot use.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sconce-sidecar: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sconce-sidecar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    init_logs(&config.log, config.log_json).context("SCONCE_LOG")?;
    tracing::info!(?config, "starting");
    let (metrics, linger, drain) = (Metrics::install()?, config.linger, config.drain);
    let (tasks, mut ended) = Tasks::new();
    tasks.spawn_through_drain("metrics", metrics.clone().upkeep());
    let engine = TorchEngine::with_threads(config.intra_op_threads);
    let running = app::start(config, Arc::new(engine), Arc::new(move || metrics.render()), &tasks).await?;
    let failed = tokio::select! {
        signal = terminated() => { tracing::info!(signal = signal?, "stopping"); None }
        task = ended.next() => Some(task),
    };
    if failed.is_none() {
        tokio::select! {
            () = tasks.leave(linger) => {}
            // Whoever asks twice is in a hurry.
            _ = terminated() => {}
        }
    }
    if !tasks.stop(drain).await {
        tracing::warn!(seconds = drain.as_secs(), "some requests did not finish in time");
    }
    running.join();
    failed.map_or(Ok(()), |task| anyhow::bail!("the task `{task}` ended early; the log has the reason"))
}

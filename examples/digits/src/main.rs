//! Watches the product do what it exists for: versions of a model change and share
//! traffic while real images keep coming, and no request fails.

mod config;
mod images;
mod sconce;
mod show;
mod tally;
mod traffic;

use std::{process::ExitCode, sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};

use crate::{config::Config, sconce::Sconce, show::Show, tally::Tally, traffic::Traffic};

/// Answers to wait for in each phase: enough for shares within a percent or two.
const ANSWERS: u64 = 1_000;
/// 128 and SIGINT's number, as shells have it.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let ended = tokio::select! {
        done = demo(Config::from_env()) => done,
        signal = terminated() => match signal {
            Ok(()) => {
                eprintln!("interrupted; everything it had started is stopped");
                return ExitCode::from(INTERRUPTED);
            }
            Err(error) => Err(error),
        },
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Everything it started and wrote is gone when this returns or is dropped.
async fn demo(config: Config) -> anyhow::Result<()> {
    let began = Instant::now();
    let show = Show::new();
    show.say("starting a control plane and two sidecars with mTLS");
    let mut sconce = Sconce::up().await?;
    let tally = Arc::new(Tally::default());
    let model = |version: &str| config.example.join("models").join(version).join("digits.pt");

    show.say("pushing version 1 of a classifier of handwritten digits");
    let first = sconce.push(&model("v1"), "1", true).await?;
    let images = images::read(&config.example.join("held-out.csv"))?;
    let traffic = Traffic::start(sconce.context(), images, Arc::clone(&tally))?;
    tally.answers(1).await;
    let seconds_to_first_prediction = began.elapsed().as_secs_f64();
    phase(&mut sconce, &tally, &show, "version 1 alone", &[("1", 100)]).await?;

    show.say("pushing version 2 while images keep coming");
    let second = sconce.push(&model("v2"), "2", false).await?;
    show.say(&format!(
        "  {} of {} had to be sent: the layers that did not change were there already",
        indicatif::HumanBytes(second.bytes_moved),
        indicatif::HumanBytes(second.bytes_total)
    ));
    phase(&mut sconce, &tally, &show, "both loaded, 100/0", &[("1", 100), ("2", 0)]).await?;
    phase(&mut sconce, &tally, &show, "split 50/50", &[("1", 50), ("2", 50)]).await?;
    phase(&mut sconce, &tally, &show, "split 0/100", &[("1", 0), ("2", 100)]).await?;
    traffic.stop().await;

    let seen = tally.report(vec![first, second], seconds_to_first_prediction);
    show.summary(&seen);
    if let Some(out) = &config.out {
        std::fs::write(out, serde_json::to_vec_pretty(&seen)?).with_context(|| out.display().to_string())?;
    }
    sconce.stop().await?;
    ensure!(seen.failed == 0, "{} requests failed; the first: {}", seen.failed, tally.first_failure());
    show.farewell();
    Ok(())
}

/// Sets the split, waits until it is served everywhere, and watches it.
async fn phase(
    sconce: &mut Sconce,
    tally: &Arc<Tally>,
    show: &Show,
    name: &str,
    asked: &[(&str, u32)],
) -> anyhow::Result<()> {
    sconce.split(asked).await?;
    tally.begin(name, asked);
    tokio::select! {
        () = tally.answers(ANSWERS) => {}
        () = show.live(tally) => {}
        died = sconce.died() => died?,
    }
    show.phase(&tally.end());
    Ok(())
}

async fn terminated() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

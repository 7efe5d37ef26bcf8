//! Waiting until a split is in force: on every connected sidecar, and where routes are
//! published into a mesh, for every caller.

use std::time::{Duration, Instant};

use sconce_catalog::ModelName;

use crate::{
    client::{Control, SplitProgress, SplitState},
    failure::Failure,
};

/// Soon enough for a person, and far more often than sidecars report.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Waits until the split is in force, and says what is missing meanwhile.
///
/// # Errors
/// Where it is not in force in time, or cannot get there without help.
pub(super) async fn in_force(
    control: &mut Control,
    model: &ModelName,
    limit: Duration,
) -> Result<SplitProgress, Failure> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let progress = control.model(model).await?.progress;
        match progress.state {
            SplitState::Applied | SplitState::Unknown => return Ok(progress),
            SplitState::Stuck => {
                return Err(Failure::failed(format!("the split of {model} is stuck: {}", progress.message))
                    .hint(format!(
                        "it is set, and takes effect once that is mended; see `sconce versions {model}`"
                    )));
            }
            SplitState::Moving => {}
        }
        if began.elapsed() >= limit {
            return Err(Failure::failed(format!(
                "after {} s the split of {model} is not in force: {}",
                limit.as_secs(),
                progress.message
            ))
            .hint("it is set and goes on; wait longer with --wait=SECONDS, or undo it with another split"));
        }
        if said != progress.message && began.elapsed() > LOOK_AGAIN * 5 {
            said.clone_from(&progress.message);
            eprintln!("{said}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

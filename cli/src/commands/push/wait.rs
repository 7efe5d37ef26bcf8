//! Waiting until every connected sidecar has loaded a version or rejected it.

use std::{fmt, time::Duration};

use futures::StreamExt;
use sconce_catalog::{ModelName, Version};
use serde::Serialize;

use crate::{
    client::{Control, Sidecar, State},
    commands::models::status,
    failure::Failure,
};

/// A sidecar may leave without an event about the version: look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a version stands on the sidecars that are connected.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Standing {
    ready: Vec<String>,
    rejected: Vec<Rejection>,
    loading: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rejection {
    sidecar: String,
    reason: String,
}

/// Waits until no sidecar is loading any more, or the time is over.
pub(super) async fn settle(
    control: &mut Control,
    model: &ModelName,
    version: &Version,
    limit: Duration,
) -> Result<Standing, Failure> {
    // Events first, so that what happens between a look and the next is not missed.
    let mut events = control.events(0, false).await?;
    let deadline = tokio::time::Instant::now() + limit;
    let mut said = 0;
    loop {
        let standing = Standing::of(&control.model(model).await?.sidecars, model, version);
        if standing.loading.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(standing);
        }
        if said != standing.loading.len() {
            said = standing.loading.len();
            eprintln!("waiting for {}", standing.loading.join(", "));
        }
        let again = deadline.min(tokio::time::Instant::now() + LOOK_AGAIN);
        // Ends with news of this version, with the stream, or when it is time to look again.
        let _ = tokio::time::timeout_at(again, async {
            while let Some(Ok(event)) = events.next().await {
                if event.version == version.as_str() {
                    return;
                }
            }
            std::future::pending().await
        })
        .await;
    }
}

impl Standing {
    fn of(sidecars: &[Sidecar], model: &ModelName, version: &Version) -> Self {
        let mut standing = Self::default();
        for sidecar in sidecars.iter().filter(|sidecar| sidecar.connected) {
            let name = sidecar.name.clone();
            match status(sidecar, model, version) {
                Some(status) if status.state == State::Ready => standing.ready.push(name),
                Some(status) if status.state == State::Rejected => {
                    standing.rejected.push(Rejection { sidecar: name, reason: status.reason.clone() });
                }
                _ => standing.loading.push(name),
            }
        }
        standing
    }

    /// Whether the push did what was wanted.
    pub(super) fn verdict(&self, model: &ModelName, version: &Version) -> Result<(), Failure> {
        let count = self.rejected.len();
        if count > 0 {
            let of = count + self.ready.len() + self.loading.len();
            return Err(Failure::failed(format!(
                "{count} of {of} sidecars rejected version {version} of {model}"
            )));
        }
        if !self.loading.is_empty() {
            return Err(Failure::failed(format!(
                "version {version} of {model} is not ready yet on {}",
                self.loading.join(", ")
            ))
            .hint(format!(
                "it is pushed; see `sconce versions {model}`, or wait longer with --wait=SECONDS"
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("no sidecar that serves this model is connected; it loads when one comes");
        }
        let all = self.ready.len() + self.rejected.len() + self.loading.len();
        write!(f, "ready on {} of {all} sidecars", self.ready.len())?;
        for Rejection { sidecar, reason } in &self.rejected {
            write!(f, "\n{sidecar} rejected it: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::VersionStatus;

    fn sidecar(name: &str, connected: bool, state: Option<State>) -> Sidecar {
        let status = |state| VersionStatus {
            model: "m".into(),
            version: "1".into(),
            state,
            reason: "it is no zip archive".into(),
            answered: 0,
            failed: 0,
            bytes_fetched: 0,
        };
        Sidecar {
            namespace: "default".into(),
            name: name.into(),
            connected,
            last_seen: String::new(),
            address: String::new(),
            labels: Default::default(),
            serial: 0,
            versions: state.map(status).into_iter().collect(),
        }
    }

    fn standing(sidecars: &[Sidecar]) -> Standing {
        Standing::of(sidecars, &"m".parse().expect("valid"), &"1".parse().expect("valid"))
    }

    fn verdict(standing: &Standing) -> Result<(), Failure> {
        standing.verdict(&"m".parse().expect("valid"), &"1".parse().expect("valid"))
    }

    #[test]
    fn a_rejection_fails_the_push_and_is_shown_with_its_reason() {
        let mixed = standing(&[
            sidecar("a", true, Some(State::Ready)),
            sidecar("b", true, Some(State::Rejected)),
            sidecar("gone", false, Some(State::Loading)),
        ]);
        assert!(verdict(&mixed).is_err());
        assert_eq!(mixed.to_string(), "ready on 1 of 2 sidecars\nb rejected it: it is no zip archive");
    }

    #[test]
    fn a_sidecar_that_has_not_heard_of_the_version_is_still_loading() {
        let waiting = standing(&[sidecar("a", true, None), sidecar("b", true, Some(State::Loading))]);
        assert_eq!(waiting.loading, ["a", "b"]);
        assert!(verdict(&waiting).expect_err("not ready").to_string().contains("a, b"));
        assert!(verdict(&standing(&[sidecar("a", true, Some(State::Ready))])).is_ok());
    }

    #[test]
    fn without_sidecars_there_is_nothing_to_wait_for() {
        let nobody = standing(&[sidecar("gone", false, None)]);
        assert!(nobody.loading.is_empty() && verdict(&nobody).is_ok());
        assert!(nobody.to_string().contains("no sidecar"));
    }
}

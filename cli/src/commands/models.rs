//! `sconce models` and `sconce versions`: what is in the repository, and where it is ready.

use std::collections::BTreeMap;

use sconce_catalog::{Model, ModelName, Split, Version, VersionRecord};
use serde::Serialize;

use crate::{
    args::Models,
    client::{Control, Described, Sidecar, State, VersionStatus},
    failure::Failure,
    output::{Output, Table, bytes, pairs, time},
};

/// A share as machines read it.
#[derive(Serialize)]
pub(super) struct ShareView {
    version: String,
    percent: f64,
}

#[derive(Serialize)]
struct ModelView {
    name: String,
    versions: Vec<String>,
    split: Vec<ShareView>,
    /// The header by which callers are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<String>,
    selector: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct VersionView {
    version: String,
    percent: f64,
    size: u64,
    artifact: String,
    pushed_at: String,
    pushed_by: String,
    /// On how many connected sidecars it is ready, out of how many that serve the model.
    ready: usize,
    of: usize,
    metadata: BTreeMap<String, String>,
    sidecars: Vec<StandingView>,
}

/// Where one version stands on one sidecar, as machines read it.
#[derive(Serialize)]
struct StandingView {
    sidecar: String,
    connected: bool,
    state: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    answered: u64,
    failed: u64,
    bytes_fetched: u64,
}

impl ShareView {
    /// Whether it is this version's.
    pub(super) fn is_of(&self, version: &str) -> bool {
        self.version == version
    }
}

/// The split as machines read it.
pub(super) fn shares(split: Option<&Split>) -> Vec<ShareView> {
    let share = |(version, share): &(Version, sconce_catalog::Share)| ShareView {
        version: version.to_string(),
        percent: f64::from(share.ten_thousandths()) / 100.0,
    };
    split.map(|split| split.shares().iter().map(share).collect()).unwrap_or_default()
}

/// The split as people read it, and by what callers are known.
pub(super) fn split(model: &Model) -> String {
    let shares = model.split.as_ref().map_or_else(|| "-".to_owned(), Split::to_string);
    match &model.sticky {
        Some(header) => format!("{shares} by {header}"),
        None => shares,
    }
}

/// What a sidecar says of one version of a model.
pub(super) fn status<'a>(
    sidecar: &'a Sidecar,
    model: &ModelName,
    version: &Version,
) -> Option<&'a VersionStatus> {
    let same = |text: &str| text.parse::<ModelName>().is_ok_and(|name| name == *model);
    sidecar.versions.iter().find(|status| status.version == version.as_str() && same(&status.model))
}

/// Lists the models.
pub(super) async fn list(args: Models, mut control: Control, out: Output) -> Result<(), Failure> {
    let models = control.models(args.namespace).await?;
    let views: Vec<ModelView> = models.iter().map(|(name, model)| model_view(name, model)).collect();
    out.show(&views, |views| {
        let mut table = Table::new(
            ["MODEL", "VERSIONS", "SPLIT", "SELECTOR"],
            "no models yet; push one with `sconce push`",
        );
        for (view, (_, model)) in views.iter().zip(&models) {
            table.row([
                view.name.clone(),
                view.versions.len().to_string(),
                split(model),
                pairs(model.selector.labels().iter()),
            ]);
        }
        table.to_string()
    })
}

fn model_view(name: &ModelName, model: &Model) -> ModelView {
    let labels = model.selector.labels().iter();
    ModelView {
        name: name.to_string(),
        versions: model.versions.keys().map(Version::to_string).collect(),
        split: shares(model.split.as_ref()),
        sticky: model.sticky.as_ref().map(ToString::to_string),
        selector: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    }
}

/// Lists the versions of a model.
pub(super) async fn versions(name: &ModelName, mut control: Control, out: Output) -> Result<(), Failure> {
    let described = control.model(name).await?;
    out.show(&views(name, &described), |views| people(views))
}

/// Newest first: by the time they were pushed.
fn views(name: &ModelName, described: &Described) -> Vec<VersionView> {
    let mut versions: Vec<_> = described.model.versions.iter().collect();
    versions.sort_by_key(|(_, record)| std::cmp::Reverse(record.pushed_at_ms));
    versions.into_iter().map(|(version, record)| version_view(name, version, record, described)).collect()
}

fn version_view(
    name: &ModelName,
    version: &Version,
    record: &VersionRecord,
    described: &Described,
) -> VersionView {
    let share = described.model.split.as_ref().map_or(0, |split| split.share(version).ten_thousandths());
    let sidecars: Vec<StandingView> = described
        .sidecars
        .iter()
        .filter_map(|sidecar| Some((sidecar, status(sidecar, name, version)?)))
        .map(|(sidecar, status)| StandingView {
            sidecar: sidecar.name.clone(),
            connected: sidecar.connected,
            state: status.state,
            reason: status.reason.clone(),
            answered: status.answered,
            failed: status.failed,
            bytes_fetched: status.bytes_fetched,
        })
        .collect();
    VersionView {
        version: version.to_string(),
        percent: f64::from(share) / 100.0,
        size: record.size,
        artifact: record.artifact.to_string(),
        pushed_at: time(record.pushed_at_ms),
        pushed_by: record.pushed_by.clone(),
        ready: sidecars.iter().filter(|s| s.connected && s.state == State::Ready).count(),
        of: described.sidecars.iter().filter(|sidecar| sidecar.connected).count(),
        metadata: record.metadata.clone(),
        sidecars,
    }
}

fn people(views: &[VersionView]) -> String {
    let mut table = Table::new(
        ["VERSION", "SHARE", "SIZE", "PUSHED", "BY", "ARTIFACT", "READY ON", "METADATA"],
        "no versions yet; push one with `sconce push`",
    );
    let mut rejections = String::new();
    for view in views {
        let artifact = view.artifact.rsplit(':').next().unwrap_or_default();
        table.row([
            view.version.clone(),
            format!("{} %", view.percent),
            bytes(view.size),
            view.pushed_at.clone(),
            view.pushed_by.clone(),
            artifact.chars().take(12).collect(),
            format!("{}/{} sidecars", view.ready, view.of),
            pairs(view.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        ]);
        for standing in view.sidecars.iter().filter(|standing| standing.state == State::Rejected) {
            rejections += &format!("{} rejected {}: {}\n", standing.sidecar, view.version, standing.reason);
        }
    }
    if rejections.is_empty() { table.to_string() } else { format!("{table}\n{rejections}") }
}

#[cfg(test)]
mod tests {
    use sconce_catalog::{Digest, Signature};

    use super::*;
    use crate::client::{SplitProgress, SplitState};

    fn described() -> Described {
        let version: Version = "7".parse().expect("valid");
        let record = VersionRecord {
            artifact: Digest::from_bytes([0xab; 32]),
            size: 63_488,
            signature: Signature::default(),
            metadata: [("git".to_owned(), "4f2a".to_owned())].into(),
            pushed_at_ms: 1_763_972_400_000,
            pushed_by: "token:ci".into(),
        };
        let sidecar = |name: &str, connected, state, reason: &str| Sidecar {
            name: name.into(),
            namespace: "default".into(),
            connected,
            last_seen: String::new(),
            address: String::new(),
            labels: BTreeMap::new(),
            serial: 1,
            versions: vec![VersionStatus {
                model: "default/fraud".into(),
                version: "7".into(),
                state,
                reason: reason.into(),
                answered: 3,
                failed: 0,
                bytes_fetched: 9,
            }],
        };
        Described {
            model: Model {
                versions: [(version.clone(), record)].into(),
                split: Some(Split::whole(version)),
                ..Default::default()
            },
            sidecars: vec![
                sidecar("a", true, State::Ready, ""),
                sidecar("b", true, State::Rejected, "it calls aten::from_file"),
                sidecar("c", false, State::Ready, ""),
            ],
            progress: SplitProgress { state: SplitState::Applied, message: String::new() },
        }
    }

    #[test]
    fn a_version_counts_as_ready_only_where_a_sidecar_is_connected() {
        let text = people(&views(&"fraud".parse().expect("valid"), &described()));
        assert!(text.contains("100 %") && text.contains("62 KiB") && text.contains("abababababab"), "{text}");
        assert!(text.contains("1/2 sidecars"), "{text}");
        assert!(text.contains("b rejected 7: it calls aten::from_file"), "{text}");
    }

    #[test]
    fn the_json_of_a_version_has_stable_keys() {
        let json = serde_json::to_value(views(&"fraud".parse().expect("valid"), &described()));
        let json = json.expect("valid");
        let keys: Vec<_> = json[0].as_object().expect("an object").keys().map(String::as_str).collect();
        let expected = [
            "artifact",
            "metadata",
            "of",
            "percent",
            "pushed_at",
            "pushed_by",
            "ready",
            "sidecars",
            "size",
            "version",
        ];
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!(json[0]["sidecars"][1]["state"], "rejected");
    }
}

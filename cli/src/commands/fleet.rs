//! `sconce sidecars`: who serves what.

use crate::{
    client::{Control, Sidecar, State},
    failure::Failure,
    output::{Output, Table, pairs},
};

/// Lists the sidecars.
pub(super) async fn run(mut control: Control, out: Output) -> Result<(), Failure> {
    let sidecars = control.sidecars().await?;
    out.show(&sidecars, |sidecars| people(sidecars))
}

fn people(sidecars: &[Sidecar]) -> String {
    let mut table = Table::new(
        ["SIDECAR", "STATE", "LAST SEEN", "SERIAL", "ADDRESS", "LABELS", "VERSIONS"],
        "no sidecars yet; `sconce up` runs one on this machine",
    );
    let mut rejections = String::new();
    for sidecar in sidecars {
        let versions: Vec<String> = sidecar
            .versions
            .iter()
            .map(|v| format!("{}:{} {}", v.model, v.version, v.state.word()))
            .collect();
        table.row([
            sidecar.name.clone(),
            (if sidecar.connected { "connected" } else { "gone" }).to_owned(),
            sidecar.last_seen.clone(),
            sidecar.serial.to_string(),
            sidecar.address.clone(),
            pairs(sidecar.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
            if versions.is_empty() { "-".into() } else { versions.join(", ") },
        ]);
        for version in sidecar.versions.iter().filter(|version| version.state == State::Rejected) {
            rejections += &format!(
                "{} rejected {}:{}: {}\n",
                sidecar.name, version.model, version.version, version.reason
            );
        }
    }
    if rejections.is_empty() { table.to_string() } else { format!("{table}\n{rejections}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::VersionStatus;

    #[test]
    fn a_rejection_is_shown_with_its_reason() {
        let sidecar = Sidecar {
            namespace: "default".into(),
            name: "edge".into(),
            connected: true,
            last_seen: "2025-11-24T08:20:00Z".into(),
            address: "https://127.0.0.1:8443".into(),
            labels: [("team".to_owned(), "pay".to_owned())].into(),
            serial: 4,
            versions: vec![VersionStatus {
                model: "fraud".into(),
                version: "7".into(),
                state: State::Rejected,
                reason: "it is no zip archive".into(),
                answered: 0,
                failed: 0,
                bytes_fetched: 0,
            }],
        };
        let text = people(&[sidecar]);
        assert!(text.contains("team=pay") && text.contains("fraud:7 rejected"), "{text}");
        assert!(text.ends_with("edge rejected fraud:7: it is no zip archive\n"), "{text}");
    }
}

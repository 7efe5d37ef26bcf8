//! `sconce doctor`: what is wrong with Sconce in a cluster, each with its next step.
//!
//! [`look`] reads what the caller may read into a [`View`]; [`checks`] are pure functions of it.
//! What could not be read is said, and never taken for what is not there.

use serde::Serialize;

use crate::{
    args::{Doctor, Global},
    cluster::Cluster,
    config::Surroundings,
    failure::Failure,
    output::Output,
};

mod checks;
mod finding;
mod look;
#[cfg(test)]
mod specimen;
mod view;

use finding::Finding;
use view::{Unread, View};

#[derive(Serialize)]
struct Report {
    healthy: bool,
    namespace: String,
    findings: Vec<Finding>,
    unread: Vec<Unread>,
}

/// Looks at a cluster, and fails where something is wrong with it.
pub(super) async fn run(
    args: Doctor,
    global: &Global,
    surroundings: &Surroundings,
    out: Output,
) -> Result<(), Failure> {
    let cluster = Cluster::find(&args.cluster).await?;
    cluster.reach().await?;
    let mut view = look::view(&cluster, &args).await?;
    look::catalog(&mut view, global, surroundings).await;
    let findings = checks::all(&view);
    let report =
        Report { healthy: findings.is_empty(), namespace: view.system, findings, unread: view.unread };
    out.show(&report, people)?;
    match report.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::failed("there is 1 finding")),
        count => Err(Failure::failed(format!("there are {count} findings"))),
    }
}

fn people(report: &Report) -> String {
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    for unread in &report.unread {
        text += &format!("not read: {}: {}\n", unread.what, unread.why);
    }
    if report.healthy {
        let so_far = if report.unread.is_empty() { "" } else { ", as far as could be read" };
        text += &format!("nothing is wrong{so_far}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{finding::Severity, *};

    #[test]
    fn a_finding_is_one_line_with_its_object_and_the_next_step() {
        let finding = Finding {
            severity: Severity::Error,
            check: "no-endpoints",
            object: "Service shop/digits".into(),
            problem: "no pod is behind it".into(),
            next: "look at `sconce sidecars`".into(),
        };
        let unread = Unread { what: "Secret s/sconce-webhook".into(), why: "forbidden".into() };
        let mut report =
            Report { healthy: false, namespace: "s".into(), findings: vec![finding], unread: vec![unread] };
        assert_eq!(
            people(&report),
            "error    no-endpoints: Service shop/digits: no pod is behind it; next: look at `sconce sidecars`\n\
             not read: Secret s/sconce-webhook: forbidden\n"
        );
        report.findings.clear();
        report.healthy = true;
        assert!(people(&report).ends_with("nothing is wrong, as far as could be read\n"));
        report.unread.clear();
        assert_eq!(people(&report), "nothing is wrong\n");
    }
}

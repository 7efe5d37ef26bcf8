//! The checks: objects in, findings out.

use super::{Finding, View};

mod certificates;
mod installation;
mod lanes;
mod owners;
mod pods;
mod reports;
mod routes;
mod versions;
mod webhook;

/// What all checks find, the worst first.
pub(super) fn all(view: &View) -> Vec<Finding> {
    let mut findings = installation::check(view);
    // Where nothing is installed, everything else follows from that.
    if !installation::is_absent(view) {
        for check in [webhook::check, certificates::check, pods::check, versions::check] {
            findings.extend(check(view));
        }
    }
    for check in [routes::check, lanes::check, owners::check, reports::check] {
        findings.extend(check(view));
    }
    findings.sort_by_key(|finding| finding.severity);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::specimen::healthy;

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        assert_eq!(all(&healthy()), []);
    }

    #[test]
    fn what_could_not_be_read_is_not_taken_for_what_is_not_there() {
        let nothing_read =
            View { system: "sconce-system".into(), version: healthy().version, ..View::default() };
        assert_eq!(all(&nothing_read), []);
    }

    #[test]
    fn a_cluster_without_sconce_has_one_finding() {
        let lists = || Some(Vec::new());
        let empty = View {
            registrations: lists(),
            namespaces: lists(),
            pods: lists(),
            services: lists(),
            slices: lists(),
            virtual_services: lists(),
            http_routes: lists(),
            deployments: lists(),
            settings: lists(),
            secret: lists(),
            lease: lists(),
            ..View::default()
        };
        let findings = all(&empty);
        assert_eq!(findings.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["not-installed"]);
    }
}

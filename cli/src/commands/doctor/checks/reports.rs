//! What only the control plane knows: whether splits get anywhere, and who is connected to it.

use super::super::{Finding, View, view::place};
use crate::{client::SplitState, pods};

pub(super) fn check(view: &View) -> Vec<Finding> {
    let mut findings = stuck(view);
    findings.extend(disconnected(view));
    findings
}

fn stuck(view: &View) -> Vec<Finding> {
    let stuck = view.splits.iter().flatten().filter(|(_, progress)| progress.state == SplitState::Stuck);
    stuck
        .map(|(model, progress)| {
            let next = format!(
                "mend that, or `sconce split {model}` to something else; `sconce events` has what was tried"
            );
            Finding::error("split-stuck", format!("Model {model}"), &progress.message, next)
        })
        .collect()
}

/// A sidecar that the control plane cannot be heard by serves what it has, and nothing new.
fn disconnected(view: &View) -> Vec<Finding> {
    let Some(sidecars) = &view.sidecars else { return Vec::new() };
    let connected = |namespace: &str, pod: &str| {
        let name = format!("{namespace}/{pod}");
        sidecars.iter().any(|sidecar| sidecar.connected && sidecar.name == name)
    };
    let ready = view.pods.iter().flatten().filter(|pod| {
        let serves = pods::sidecar_status(pod).is_some_and(|status| status["ready"] == true);
        pods::is_current(pod) && pods::sidecar(pod).is_some() && serves
    });
    ready
        .map(place)
        .filter(|(namespace, pod)| !connected(namespace, pod))
        .map(|(namespace, pod)| {
            let problem = "its sidecar is not connected to the control plane, and is given nothing new";
            let next = format!("`kubectl logs -n {namespace} {pod} -c sconce`; may it reach port 8440 of {} (NetworkPolicies), and do both have one trust domain?", view.system);
            Finding::error("sidecar-disconnected", format!("Pod {namespace}/{pod}"), problem, next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::specimen::{checks, healthy};

    #[test]
    fn a_split_that_gets_nowhere_is_found_with_the_reason() {
        let mut view = healthy();
        let progress = &mut view.splits.as_mut().expect("seen")[0].1;
        progress.state = SplitState::Stuck;
        progress.message = "Service shop/digits exists and is not managed by Sconce".into();
        let found = check(&view);
        assert_eq!(checks(&found), ["split-stuck"]);
        assert!(found[0].problem.contains("not managed by Sconce"), "{found:?}");
    }

    #[test]
    fn a_sidecar_that_nobody_hears_is_found() {
        let mut view = healthy();
        view.sidecars.as_mut().expect("seen")[0].connected = false;
        let found = check(&view);
        assert_eq!(checks(&found), ["sidecar-disconnected"]);
        assert_eq!(found[0].object, "Pod shop/checkout-1");
        view.pods.as_mut().expect("seen")[0]["status"]["initContainerStatuses"][0]["ready"] = false.into();
        assert_eq!(check(&view), [], "that is another finding's");
    }
}

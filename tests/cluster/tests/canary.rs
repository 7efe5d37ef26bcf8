//! `examples/canary`: every command of its README, in order, and what they should show.

use std::time::Instant;

use sconce_cluster_tests::{Cluster, Scenario, Walk, binary, binomial, blocks, eventually, repository};
use serde_json::Value;

/// How improbable a share must be that is taken for a wrong one.
const ALPHA: f64 = 1e-6;

/// Answers by version, as `uniq -c` counts them.
fn answers(said: &str, version: &str) -> u64 {
    let counted = format!("\"model_version\":\"{version}\"");
    let line = said.lines().find(|line| line.ends_with(&counted));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

fn root(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.kubectl("get virtualservice digits -n shop -o json")).expect("JSON")
}

/// What a reader sees after each command that shows something.
fn check(block: &str, said: &str, scenario: &mut Scenario) {
    if block.contains("sconce install") {
        assert!(said.contains("created    MutatingWebhookConfiguration a.sconce-injector"), "{said}");
        assert!(said.contains("Deployment sconce-system/sconce is available"), "{said}");
    }
    if block.starts_with("sconce push") {
        assert!(said.contains("ready on 2 of 2 sidecars"), "{said}");
    }
    if block.starts_with("sconce split") {
        assert!(said.contains("proven by"), "{said}");
    }
    if block.contains("uniq -c") {
        let (first, second) = (answers(said, "1"), answers(said, "2"));
        let asked = if block.contains("seq 100") { 100 } else { 400 };
        scenario.count(asked, asked - first - second);
        assert_eq!(first + second, asked, "nothing failed: {said}");
        let share = if asked == 100 { 1.0 } else { 0.05 };
        let expected = binomial::interval(asked, share, ALPHA);
        assert!(expected.contains(&second), "{second} of {asked}, expected {expected:?}: {said}");
    }
    if block.contains("until kubectl exec") || block.contains("until curl") {
        assert!(said.contains("\"model_name\":\"digits\""), "{said}");
    }
    if block.contains("/about") {
        assert!(said.contains("digits, by the shop"), "{said}");
    }
    if block.starts_with("sconce doctor") {
        assert_eq!(said.trim(), "nothing is wrong");
    }
    if block.contains("sconce uninstall") {
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what} in {said}"));
        let order = [
            at("deleted    VirtualService shop/sconce-digits"),
            at("deleted    Service shop/digits"),
            at("deleted    MutatingWebhookConfiguration a.sconce-injector"),
            at("deleted    Deployment sconce-system/sconce-injector"),
        ];
        assert!(order.is_sorted(), "{said}");
        assert!(
            said.contains(
                "2 of deployment/checkout -n shop: `kubectl rollout restart deployment/checkout -n shop`"
            ),
            "{said}"
        );
    }
}

#[test]
fn every_command_of_the_example_does_what_its_text_says() {
    let Some(cluster) = Cluster::from_env() else { return };
    let mut scenario = Scenario::begin("canary-by-hand");
    let began = Instant::now();
    let document =
        std::fs::read_to_string(repository().join("examples/canary/README.md")).expect("the example");
    let all = blocks(&document);
    assert!(
        all.len() > 10 && all[0].contains("export SCONCE="),
        "the first block says what images are called"
    );
    let programs = binary("sconce");
    let mut walk = Walk::begin(&repository(), programs.parent().expect("a folder"));
    walk.run(&format!(
        "export SCONCE={} TAG={} TOOLS=localhost/tools:1; mkdir -p target",
        cluster.image(),
        cluster.tag()
    ));
    let mut written = None;
    for block in &all[1..] {
        if block.contains("kubectl delete -f examples/canary/route.yaml") {
            // Whatever Sconce did meanwhile, the user's own route is as the user wrote it.
            assert_eq!(written.as_ref(), Some(&root(&cluster)), "it was written to");
        }
        let said = walk.run(block);
        check(block, &said, &mut scenario);
        if block.contains("kubectl apply -f examples/canary/route.yaml") {
            written = Some(root(&cluster));
        }
    }
    drop(walk);
    scenario.figure("commands", all.iter().map(|block| block.lines().count()).sum::<usize>());
    scenario.figure("seconds", began.elapsed().as_secs_f64());

    // Nothing of Sconce's is left, and pods can be made as ever.
    let left = "get mutatingwebhookconfigurations,clusterroles,clusterrolebindings -o name -l app.kubernetes.io/name=sconce";
    assert_eq!(cluster.kubectl(left), "");
    eventually("its namespaces are gone", || {
        let all = cluster.kubectl("get namespaces -o name");
        !["sconce-system", "shop", "ingress"]
            .iter()
            .any(|name| all.lines().any(|line| line == format!("namespace/{name}")))
    });
}

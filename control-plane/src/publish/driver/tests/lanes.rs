//! The Service that each namespace with models has.

use sconce_catalog::Selector;
use sconce_istio::names::SELECTORS_ANNOTATION;

use super::*;
use crate::publish::world::lanes_id;

#[tokio::test]
async fn the_mesh_knows_what_lanes_speak_while_a_namespace_has_models() {
    let bench = Bench::start();
    // A model that has no split yet is on pods already.
    bench.set(Some(("ml/fraud", Model::default())), 1);
    let lanes = lanes_id("ml");
    bench.memory.observed().wait_for(|seen| seen.objects.contains_key(&lanes)).await.expect("told");
    let service = bench.memory.object(&lanes).expect("the Service");
    assert!(service["spec"]["ports"].as_array().is_some_and(|ports| {
        ports.len() == 3 && ports.iter().all(|port| port["appProtocol"] == "kubernetes.io/h2c")
    }));
    bench.set(None, 2);
    bench.memory.observed().wait_for(|seen| !seen.objects.contains_key(&lanes)).await.expect("gone");
}

#[tokio::test]
async fn the_injector_is_told_what_models_select_and_an_edit_of_that_is_put_back() {
    let bench = Bench::start();
    let selecting = |labels: &str| {
        let selector = Selector::new(labels.parse().expect("labels"));
        bench.set(Some(("ml/fraud", Model { selector, ..Model::default() })), 1);
    };
    let said = |seen: &Observed| {
        let lanes = seen.objects.get(&lanes_id("ml"))?;
        Some(lanes["metadata"]["annotations"][SELECTORS_ANNOTATION].as_str().map(str::to_owned))
    };
    let until = async |text: Option<&str>| {
        let wanted = Some(text.map(str::to_owned));
        let mut observed = bench.memory.observed();
        let told = observed.wait_for(|seen| said(seen) == wanted);
        tokio::time::timeout(Duration::from_secs(20), told).await.expect("in time").expect("told");
    };
    selecting("team=pay");
    until(Some(r#"{"fraud":{"team":"pay"}}"#)).await;
    bench.memory.edit(&lanes_id("ml"), "kubectl", "Update", |service| {
        service["metadata"]["annotations"][SELECTORS_ANNOTATION] = json!("{}");
    });
    until(Some(r#"{"fraud":{"team":"pay"}}"#)).await;
    // A model for every sidecar asks for none.
    selecting("");
    until(None).await;
}

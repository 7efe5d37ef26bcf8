//! Extensions of the protocol on a whole sidecar: what a model's archive and a real run have a part in.

use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, archives, image};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_labels_of_an_archive_name_the_classes_of_its_outputs() {
    let mut plane = Plane::start().await;
    let (folder, sidecar) = (tempfile::tempdir().expect("a folder"), plane.sidecar("labels", &[]).await);
    let archive = archives::labelled(folder.path(), "probabilities", 10);
    plane.push(&archive, "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;

    let mut asked = image(1);
    asked["outputs"] = json!([
        { "name": "probabilities" },
    ]);
    let caller = plane.caller("/ns/default/sa/app");
    let scores = caller.send("POST", &sidecar.infer("digits"), Some(&asked)).await.expect("answered").json;
    let scores: Vec<f64> = serde_json::from_value(scores["outputs"][0]["data"].clone()).expect("scores");
    asked["outputs"][0]["parameters"] = json!({ "classification": 3 });
    let reply = caller.send("POST", &sidecar.infer("digits"), Some(&asked)).await.expect("answered").json;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let texts = order[..3].iter().map(|at| format!("{:.6}:{at}:class {at}", scores[*at]));
    let expected = json!({ "name": "probabilities", "shape": [1, 3], "datatype": "BYTES",
        "data": texts.collect::<Vec<_>>() });
    assert_eq!(reply["outputs"][0], expected);

    let wrong = archives::labelled(folder.path(), "probabilities", 9);
    let refused = plane.push(&wrong, "digits", "2", &[]).await.expect_err("10 classes").to_string();
    assert!(refused.contains("`probabilities` 9 labels"), "{refused}");
    plane.stop().await;
    sidecar.stop().await;
}

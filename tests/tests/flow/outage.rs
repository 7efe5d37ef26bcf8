//! The control plane is gone: sidecars serve on, also after a restart of their own.

use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, digits, image};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_restarts_without_its_control_plane_serves_what_it_had() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("edge", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let client = plane.caller("/ns/default/sa/app");
    let before = client.send("POST", &sidecar.infer("digits"), Some(&image(1))).await.expect("answered");
    plane.stop().await;
    let during = client.send("POST", &sidecar.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!(during.json, before.json);
    sidecar.stop().await;

    let again = plane.sidecar("edge", &[]).await;
    let after = client.send("POST", &again.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!(after.json, before.json);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_sidecars_with_the_labels_serve_a_model() {
    let mut plane = Plane::start().await;
    let pay = plane.sidecar("pay", &[("SCONCE_LABELS", "team=pay")]).await;
    let ads = plane.sidecar("ads", &[("SCONCE_LABELS", "team=ads")]).await;
    plane.push(&digits("v1"), "digits", "1", &[("team", "pay")]).await.expect("pushed");
    plane.stands(&pay, "digits", "1", VersionState::Ready).await;
    let client = plane.caller("/ns/default/sa/app");
    let served = client.send("POST", &pay.infer("digits"), Some(&image(1))).await.expect("answered");
    let other = client.send("POST", &ads.infer("digits"), Some(&image(1))).await.expect("answered");
    assert_eq!((served.status, other.status), (200, 404), "{:?}", other.json);
    plane.stop().await;
    pay.stop().await;
    ads.stop().await;
}

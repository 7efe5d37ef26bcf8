//! A hundred swaps under load: nothing fails, and every answer is one version's.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use sconce_proto::v1::VersionState;
use sconce_tests::{Plane, digits, eventually, image};

const SWAPS: usize = 100;
const IMAGES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_swaps_under_load_fail_nothing_and_mix_nothing() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("swap", &[]).await;
    for version in ["1", "2"] {
        plane.push(&digits(&format!("v{version}")), "digits", version, &[]).await.expect("pushed");
        plane.stands(&sidecar, "digits", version, VersionState::Ready).await;
    }
    let client = Arc::new(plane.caller("/ns/default/sa/app"));
    // What each version says of each image, asked by name.
    let mut expected = Vec::new();
    for version in ["1", "2"] {
        let uri = format!("{}/v2/models/digits/versions/{version}/infer", sidecar.address);
        let mut answers = Vec::new();
        for seed in 0..IMAGES {
            answers.push(
                client.send("POST", &uri, Some(&image(seed))).await.expect("answered").json["outputs"]
                    .clone(),
            );
        }
        expected.push(answers);
    }
    assert_ne!(expected[0], expected[1], "the versions must differ for this test to mean anything");
    let (expected, stop) = (Arc::new(expected), Arc::new(AtomicBool::new(false)));
    let seen = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (client, expected, stop, seen) =
            (Arc::clone(&client), Arc::clone(&expected), Arc::clone(&stop), Arc::clone(&seen));
        let uri = sidecar.infer("digits");
        callers.spawn(async move {
            let mut seed = number;
            while !stop.load(Ordering::Relaxed) {
                seed = (seed + 1) % IMAGES;
                let reply = client.send("POST", &uri, Some(&image(seed))).await.expect("no request fails");
                assert_eq!(reply.status, 200, "{:?}", reply.json);
                let version = if reply.json["model_version"] == "1" { 0 } else { 1 };
                assert_eq!(
                    reply.json["outputs"], expected[version][seed],
                    "an answer is entirely one version's"
                );
                seen[version].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for swap in 0..SWAPS {
        let to = (swap + 1) % 2;
        plane.activate("digits", &(to + 1).to_string()).await;
        let before = seen[to].load(Ordering::Relaxed);
        eventually("the new version answers", || async { seen[to].load(Ordering::Relaxed) > before }).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no caller saw a failure");
    }
    plane.stop().await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_activated_before_it_is_loaded_takes_over_without_a_failure() {
    let mut plane = Plane::start().await;
    let sidecar = plane.sidecar("early", &[]).await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.stands(&sidecar, "digits", "1", VersionState::Ready).await;
    let (client, uri) = (plane.caller("/ns/default/sa/app"), sidecar.infer("digits"));
    let (answered, taken_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let asking = async {
        while !taken_over.load(Ordering::Relaxed) {
            let reply = client.send("POST", &uri, Some(&image(1))).await.expect("no request fails");
            assert_eq!(reply.status, 200, "{:?}", reply.json);
            answered.fetch_add(1, Ordering::Relaxed);
            taken_over.store(reply.json["model_version"] == "2", Ordering::Relaxed);
        }
    };
    let activating = async {
        eventually("requests are on their way", || async { answered.load(Ordering::Relaxed) > 10 }).await;
        plane.push(&digits("v2"), "digits", "2", &[]).await.expect("pushed");
        plane.activate("digits", "2").await;
    };
    tokio::join!(asking, activating);
    plane.stop().await;
    sidecar.stop().await;
}

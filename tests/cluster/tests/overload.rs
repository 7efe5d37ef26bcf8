//! Twice as much as the pods can do, through the mesh and with its retries on: what one pod refuses, the
//! mesh does not ask another for as well.

use sconce_cluster_tests::{Cluster, Scenario, Seen, stage::Stage};

const SERVICE: &str = "digits.models:80";
/// Rows enough that a run takes longer than bringing them does: then it is the queues that fill.
const ROWS: u32 = 4_000;
const SECONDS: f64 = 6.0;

#[test]
fn refusals_are_not_multiplied_by_the_mesh() {
    let Some(cluster) = Cluster::from_env() else { return };
    // The shortest queues, one run at a time. The namespace says so, for all its pods.
    cluster.apply("story.yaml", &[]);
    cluster.kubectl(
        "annotate namespace models sconce.dev/queue-size=1 sconce.dev/inference-threads=1 --overwrite",
    );
    let stage = Stage::set(&cluster);
    for protocol in ["http", "grpc"] {
        let mut scenario = Scenario::begin(match protocol {
            "http" => "overload-http",
            _ => "overload-grpc",
        });
        let call = |times: u64, more: &str| -> Seen {
            stage.buyer().call(&format!("{protocol} {SERVICE} {times} --rows {ROWS} {more}"))
        };
        let peak = rate(&call(400, "--callers 2"));
        let before = arrived(&stage);
        let seen = call((2.0 * peak * SECONDS) as u64, &format!("--callers 100 --rate {}", 2.0 * peak));
        let came = arrived(&stage) - before;
        scenario.count(seen.requests(), seen.failed());
        scenario.figure("answered_per_second_at_peak", peak);
        scenario.figure("asked_per_second", rate(&seen));
        scenario.figure("refused", seen.refused());
        let answered = seen.requests() - seen.refused() - seen.failed();
        scenario.figure("answered_per_second", rate(&seen) * answered as f64 / seen.requests() as f64);
        scenario.figure("p99_ms", seen.figure("p99_ms"));
        scenario.figure("requests_in_pods_for_each_asked", came / seen.requests() as f64);
        assert!(seen.failed() == 0 && answered > 0, "{seen:?}");
        assert!(seen.refused() > seen.requests() / 20, "that was no overload: {seen:?}");
        // Each request is in one pod once, whatever became of it.
        assert_eq!(came as u64, seen.requests(), "requests that came to the pods");
    }
    stage.sconce.uninstall("models buyers");
}

/// Requests that the sidecars of all pods have seen so far.
fn arrived(stage: &Stage<'_>) -> f64 {
    stage.servers().iter().map(|pod| stage.counter(pod, "sconce_requests_total")).sum()
}

/// Requests per second.
fn rate(seen: &Seen) -> f64 {
    seen.requests() as f64 / seen.figure("seconds").as_f64().expect("how long it took")
}

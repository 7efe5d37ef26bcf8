//! A sidecar gets the models of the namespace that its certificate proves, and of no other.

use sconce_proto::v1::{self, SplitState, VersionState, sidecar_control_client::SidecarControlClient};
use sconce_tests::{Plane, digits, eventually, image};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_served_in_its_own_namespace_only() {
    let mut plane = Plane::start().await;
    let own = plane.sidecar("own", &[("SCONCE_NAMESPACE", "pay")]).await;
    // What a sidecar says of itself counts for nothing: this one is of the namespace `default`.
    let other = plane.sidecar("other", &[]).await;
    plane.push(&digits("v1"), "pay/digits", "1", &[]).await.expect("pushed");
    plane.stands(&own, "pay/digits", "1", VersionState::Ready).await;
    let client = plane.caller("/ns/default/sa/app");
    let served = client.send("POST", &own.infer("digits"), Some(&image(1))).await.expect("answered");
    let refused = client.send("POST", &other.infer("pay%2Fdigits"), Some(&image(1))).await.expect("answered");
    assert_eq!((served.status, refused.status), (200, 404), "{:?} {:?}", served.json, refused.json);
    plane.stop().await;
    own.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_another_namespace_are_not_sent() {
    let mut plane = Plane::start().await;
    plane.push(&digits("v1"), "pay/digits", "1", &[]).await.expect("pushed");
    plane.push(&digits("v2"), "digits", "1", &[]).await.expect("pushed");
    let artifact = |model: &'static str| {
        let mut registry = plane.registry();
        async move {
            let request = v1::GetModelRequest { model: model.into() };
            let model = registry.get_model(request).await.expect("described").into_inner().model;
            model.expect("a model").versions[0].artifact.clone()
        }
    };
    let (theirs, ours) = (artifact("pay/digits").await, artifact("digits").await);
    let stranger = |path| SidecarControlClient::new(plane.channel(Some(path)));
    let manifest = |path, artifact: &[u8]| {
        let request = v1::GetManifestRequest { artifact: artifact.to_vec() };
        let mut client = stranger(path);
        async move { client.get_manifest(request).await }
    };
    let chunks = manifest("/ns/pay/sa/app", &theirs).await.expect("its own").into_inner().chunks;
    let refused = manifest("/ns/default/sa/app", &theirs).await.expect_err("not its own");
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");

    let digests: Vec<Vec<u8>> = chunks.into_iter().map(|chunk| chunk.digest).collect();
    // Neither under the name of their artifact nor under that of one's own.
    for artifact in [&theirs, &ours] {
        let request = v1::FetchChunksRequest { digests: digests.clone(), artifact: artifact.clone() };
        let refused = stranger("/ns/default/sa/app").fetch_chunks(request).await.expect_err("not its own");
        assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
    }
    let nowhere = manifest("/somebody", &theirs).await.expect_err("it proves no namespace");
    assert_eq!(nowhere.code(), tonic::Code::PermissionDenied);
    assert!(nowhere.message().contains("/ns/<namespace>/sa/<account>"), "{nowhere}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_another_workload_is_connected_under_is_refused() {
    let mut plane = Plane::start().await;
    let first = plane.sidecar("twin", &[]).await;
    let report = v1::Report { sidecar: "twin".into(), ..Default::default() };
    let watch = |path| {
        let mut client = SidecarControlClient::new(plane.channel(Some(path)));
        let reports = futures::stream::iter([report.clone()]);
        async move { client.watch(reports).await.map(drop) }
    };
    let refused = watch("/ns/default/sa/impostor").await.expect_err("taken");
    assert!(refused.message().contains("/ns/default/sa/twin is connected"), "{refused}");
    // Nor is a name of another namespace, taken or not: pods there will need it.
    let report = v1::Report { sidecar: "pay/server-0".into(), ..Default::default() };
    let mut impostor = SidecarControlClient::new(plane.channel(Some("/ns/default/sa/impostor")));
    let refused = impostor.watch(futures::stream::iter([report])).await.expect_err("not its namespace");
    assert!(refused.message().contains("not of the namespace"), "{refused}");
    first.stop().await;
    // Once it has gone the name is free: pods are replaced by others.
    eventually("the name is free", || async { watch("/ns/default/sa/impostor").await.is_ok() }).await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_tells_how_far_it_has_come() {
    let mut plane = Plane::start().await;
    plane.push(&digits("v1"), "digits", "1", &[]).await.expect("pushed");
    plane.push(&digits("v2"), "digits", "2", &[]).await.expect("pushed");
    let told = || async {
        let request = v1::GetModelRequest { model: "digits".into() };
        let told = plane.registry().get_model(request).await.expect("described").into_inner();
        (told.split_state(), told.split_message)
    };
    assert_eq!(told().await, (SplitState::Applied, "no sidecar that serves it is connected".into()));
    let sidecar = plane.sidecar("edge", &[]).await;
    plane.stands(&sidecar, "digits", "2", VersionState::Ready).await;
    plane.activate("digits", "2").await;
    eventually("it is in force", || async {
        told().await == (SplitState::Applied, "in force on 1 of 1".into())
    })
    .await;
    // In force means in force: no answer after that is the other version's.
    let client = plane.caller("/ns/default/sa/app");
    for seed in 0..50 {
        let reply =
            client.send("POST", &sidecar.infer("digits"), Some(&image(seed))).await.expect("answered");
        assert_eq!(reply.json["model_version"], "2");
    }
    plane.stop().await;
    sidecar.stop().await;
}

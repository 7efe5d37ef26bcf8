//! Versions from a registry, by their manifests or by their layers.

use bytes::Bytes;
use sconce_proto::v1;
use sconce_tests::{
    files::{Entry, Files},
    pulls::{example, plane_for, pull, refused, sha256, wanted},
};
use serde_json::{Value, json};
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registrys_artifact_is_pulled_by_its_manifest_or_by_its_layer() {
    let files = Files::start().await;
    let mut plane = plane_for(&files).await;
    let bytes = example("v1");
    let layer = sha256(&bytes);
    let manifest = |layers: Value| {
        let config =
            json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2 });
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers }).to_string()
    };
    let title = |title: &str| json!({ "mediaType": "application/octet-stream", "digest": layer, "size": bytes.len(), "annotations": { "org.opencontainers.image.title": title } });
    let token = Some("Bearer abc".to_owned());
    let challenge = format!(
        r#"Bearer realm="https://{}/token",service="files",scope="repository:ml/digits:pull""#,
        files.authority
    );
    let put = |path: &str, bytes: Bytes| {
        let entry = Entry {
            bytes,
            authorization: token.clone(),
            challenge: Some(challenge.clone()),
            ..Entry::default()
        };
        files.put(&format!("/v2/ml/digits/{path}"), entry);
    };
    let service = Entry {
        bytes: r#"{"token": "abc"}"#.into(),
        authorization: Some("Basic Y2k6c2VjcmV0".into()),
        ..Entry::default()
    };
    files.put("/token", service);
    put(&format!("blobs/{layer}"), bytes.clone());
    let none = Entry {
        status: Some(404),
        authorization: token.clone(),
        challenge: Some(challenge.clone()),
        ..Entry::default()
    };
    files.put(&format!("/v2/ml/digits/manifests/{layer}"), none);
    let publish = |manifest: String| {
        let digest = sha256(manifest.as_bytes());
        put(&format!("manifests/{digest}"), manifest.into());
        digest
    };
    let source = format!("oci://{}/ml/digits:1", files.authority);
    let with = |version: &str, digest: &str| v1::PullVersionRequest {
        credentials: [("username".to_owned(), "ci".to_owned()), ("password".to_owned(), "secret".to_owned())]
            .into(),
        ..wanted(version, &source, digest)
    };
    let one = publish(manifest(json!([title("weights")])));
    refused(&plane, wanted("1", &source, &one), Code::FailedPrecondition, "its token service answers 401")
        .await;
    let (pulled, _) = pull(&plane, with("1", &one)).await.expect("by its manifest");
    assert_eq!(pulled.version.expect("a version").metadata["sconce.dev/source-digest"], one);
    let asked = files
        .asked()
        .into_iter()
        .find(|asked| asked.path.starts_with("/token") && asked.authorization.is_some());
    assert_eq!(asked.expect("asked").path, "/token?service=files&scope=repository%3Aml%2Fdigits%3Apull");
    let (pulled, _) = pull(&plane, with("2", &layer)).await.expect("by its layer");
    assert_eq!((pulled.bytes_stored, pulled.already_committed), (0, false));

    let readme = json!({ "mediaType": "text/plain", "digest": sha256(b"x"), "size": 1 });
    let two = publish(manifest(json!([readme, title("digits.pt")])));
    pull(&plane, with("3", &two)).await.expect("the one that is called .pt");
    let none = publish(manifest(json!([readme, title("weights")])));
    refused(&plane, with("4", &none), Code::InvalidArgument, "2 layers").await;
    let index = publish(json!({ "schemaVersion": 2, "manifests": [] }).to_string());
    refused(&plane, with("4", &index), Code::InvalidArgument, "an index").await;
    let forged = sha256(b"asked for");
    put(&format!("manifests/{forged}"), manifest(json!([title("weights")])).into());
    refused(&plane, with("4", &forged), Code::InvalidArgument, "has other bytes").await;
    plane.stop().await;
}

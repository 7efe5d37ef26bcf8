//! Pushing real model files to a registry in memory, over real mTLS.

use clap::Parser;

use crate::{
    args::{Args, Command, Format, Push},
    client::{
        Control,
        standin::{Standin, model_file},
    },
    context::Credentials,
    failure::{Exit, Failure},
    output::Output,
};

fn push(file: &str, more: &[&str]) -> Push {
    let file = model_file(file).display().to_string();
    let line = ["sconce", "push", &file, "--model", "layers"].into_iter().chain(more.iter().copied());
    match Args::try_parse_from(line).expect("valid").command {
        Command::Push(push) => push,
        other => panic!("{other:?}"),
    }
}

async fn run(standin: &Standin, push: Push) -> Result<(), Failure> {
    let control = Control::connect(&standin.access).await.expect("it is there");
    super::run(push, control, Output(Format::Json)).await
}

#[tokio::test]
async fn only_chunks_that_are_missing_are_sent_and_together_they_are_the_file() {
    let standin = Standin::start().await;
    run(&standin, push("layers_a.pt", &["--meta", "git=4f2a"])).await.expect("pushed");
    let first = {
        let held = standin.held.lock().expect("held");
        let (begun, activated) = &held.committed[0];
        assert!(!activated && begun.metadata["git"] == "4f2a" && begun.version == "auto");
        assert_eq!(begun.overrides, None, "what nobody says leaves the archive's word");
        let manifest = begun.manifest.as_ref().expect("sent");
        let file: Vec<u8> = manifest
            .pieces
            .iter()
            .flat_map(|piece| {
                let chunk = &held.chunks[&manifest.chunks[piece.chunk as usize].digest];
                chunk[piece.offset as usize..][..piece.length as usize].to_vec()
            })
            .collect();
        assert!(file == std::fs::read(model_file("layers_a.pt")).expect("there"), "other bytes arrived");
        held.uploads.len()
    };
    run(&standin, push("layers_b.pt", &[])).await.expect("pushed");
    let held = standin.held.lock().expect("held");
    let second = held.uploads.len() - first;
    assert!(second > 0 && second < first, "{second} chunks after {first}");
    let distinct: std::collections::HashSet<_> = held.uploads.iter().collect();
    assert_eq!(distinct.len(), held.uploads.len(), "a chunk was sent twice");
}

#[tokio::test]
async fn whether_rows_are_batched_is_said_with_the_push() {
    let standin = Standin::start().await;
    run(&standin, push("layers_a.pt", &["--batching", "rows"])).await.expect("pushed");
    let held = standin.held.lock().expect("held");
    let overrides = held.committed[0].0.overrides.as_ref().expect("said");
    assert_eq!(overrides.batching(), sconce_proto::v1::Batching::Rows);
    let line = ["sconce", "push", "layers_a.pt", "--model", "layers", "--batching", "columns"];
    let refused = Args::try_parse_from(line).expect_err("no such way").to_string();
    assert!(refused.contains("`rows` or `off`"), "{refused}");
}

#[tokio::test]
async fn an_address_is_left_to_the_control_plane_and_needs_a_digest() {
    let standin = Standin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = folder.path().join("credentials");
    std::fs::write(&credentials, "AWS_ACCESS_KEY_ID=a\n").expect("written");
    let address = |more: &[&str]| {
        let line = ["sconce", "push", "s3://models/layers.pt", "--model", "layers", "--version", "7"];
        match Args::try_parse_from(line.into_iter().chain(more.iter().copied())).expect("valid").command {
            Command::Push(push) => push,
            other => panic!("{other:?}"),
        }
    };
    let failure = run(&standin, address(&[])).await.expect_err("no digest");
    assert!(failure.exit == Exit::Usage && failure.to_string().contains("--digest"), "{failure}");
    let digest = format!("sha256:{}", "0".repeat(64));
    let file = credentials.to_str().expect("text");
    run(&standin, address(&["--digest", &digest, "--credentials", file])).await.expect("pulled");
    let held = standin.held.lock().expect("held");
    let asked = &held.pulled[0];
    assert_eq!((asked.source.as_str(), &asked.digest), ("s3://models/layers.pt", &digest));
    assert_eq!((asked.version.as_str(), asked.credentials["AWS_ACCESS_KEY_ID"].as_str()), ("7", "a"));
    assert!(held.uploads.is_empty() && held.committed.is_empty());
}

#[tokio::test]
async fn activating_waits_until_the_sidecar_is_ready() {
    let standin = Standin::start().await;
    run(&standin, push("layers_a.pt", &["--activate"])).await.expect("it is ready at the second look");
    assert!(standin.held.lock().expect("held").committed[0].1);
}

#[tokio::test]
async fn a_file_that_is_no_archive_is_refused_before_anything_is_sent() {
    let standin = Standin::start().await;
    let failure = run(&standin, push("make.py", &[])).await.expect_err("it is a script");
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.to_string().contains("make.py"), "{failure}");
    assert!(standin.held.lock().expect("held").committed.is_empty());
}

#[tokio::test]
async fn a_denied_call_and_a_foreign_ca_are_both_denials() {
    let standin = Standin::start().await;
    let mut control = Control::connect(&standin.access).await.expect("it is there");
    assert_eq!(control.models(None).await.expect_err("it allows nothing").exit, Exit::Denied);

    let other = Standin::start().await;
    let mut mixed = standin.access.clone();
    let (Credentials::Files { ca: ours, .. }, Credentials::Files { ca: theirs, .. }) =
        (&mut mixed.identity, &other.access.identity)
    else {
        panic!("both have files");
    };
    ours.clone_from(theirs);
    assert_eq!(Control::connect(&mixed).await.err().expect("foreign").exit, Exit::Denied);
    let mixed = crate::context::Access { control_plane: other.access.control_plane.clone(), ..mixed };
    let failure = match Control::connect(&mixed).await {
        Ok(mut control) => control.models(None).await.expect_err("our certificate is foreign there"),
        Err(failure) => failure,
    };
    assert_eq!(failure.exit, Exit::Denied, "{failure}");
}

//! The Unix socket: who is behind it, and what becomes of its file.

use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, path::Path};

use tokio::{net::UnixStream, task::JoinHandle};

use super::*;
use crate::testing::{get_with, who};

fn start(path: &Path, identity: &Identity) -> (CancellationToken, JoinHandle<()>) {
    let (socket, stopping) = (LocalSocket::bind(path).unwrap(), CancellationToken::new());
    let serving = serve_local(socket, identity.clone(), tower::service_fn(who), stopping.clone());
    (stopping, tokio::spawn(serving))
}

#[tokio::test]
async fn whoever_comes_through_the_socket_is_the_pod_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sconce.sock");
    let (_keep, identity) = certified(&authority(), "/server");
    let (stopping, serving) = start(&path, &identity);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);

    let forged = "x-forwarded-client-cert: URI=spiffe://test.local/king\r\n";
    let answer = get_with(UnixStream::connect(&path).await.unwrap(), forged).await.unwrap();
    assert!(answer.ends_with("loopback by HTTP/1.1"), "{answer}");

    let stream = TokioIo::new(UnixStream::connect(&path).await.unwrap());
    let (mut h2, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://test/").body(Empty::<Bytes>::new()).unwrap();
    let answer = h2.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), "loopback by HTTP/2.0");

    // Neither one that says nothing nor an idle one is waited for.
    let _silent = UnixStream::connect(&path).await.unwrap();
    stopping.cancel();
    patiently(serving).await.unwrap();
    patiently(connection).await.unwrap().unwrap();
    assert!(!path.exists(), "the file goes with the socket");
}

#[tokio::test]
async fn a_file_left_behind_is_replaced_and_a_socket_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sconce.sock");
    let (_keep, identity) = certified(&authority(), "/server");
    // As after a crash: bound once, and nobody there to listen.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (stopping, serving) = start(&path, &identity);
    assert!(get(UnixStream::connect(&path).await.unwrap()).await.unwrap().ends_with("loopback by HTTP/1.1"));

    let error = LocalSocket::bind(&path).expect_err("somebody listens");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(get(UnixStream::connect(&path).await.unwrap()).await.is_ok(), "the first goes on");
    stopping.cancel();
    patiently(serving).await.unwrap();

    fs::write(&path, "precious").unwrap();
    let error = LocalSocket::bind(&path).expect_err("somebody's file");
    assert!(error.to_string().contains("no socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_socket_that_took_the_place_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sconce.sock");
    let first = LocalSocket::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _second = LocalSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

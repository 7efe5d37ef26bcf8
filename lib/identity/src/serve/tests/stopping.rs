//! A stop that loses no request and waits for nobody idle.

use tokio::sync::Notify;

use super::*;
use crate::testing::hour;

/// A server whose answers wait for `release`, after telling `arrived`.
struct Slow {
    server: SocketAddr,
    stopping: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
}

async fn slow(doors: Doors) -> Slow {
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = (arrived.clone(), release.clone());
    let service = tower::service_fn(move |_: Request<Incoming>| {
        let (arrived, release) = handler.clone();
        async move {
            arrived.notify_one();
            release.notified().await;
            Ok::<_, Infallible>(Response::new(http_body_util::Full::new(Bytes::from("done"))))
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, stopping) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, doors, service, stopping.clone()));
    Slow { server, stopping, task, arrived, release }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_nobody_new_is_let_in() {
    for connector in [Connector::new, Connector::http1] {
        let ca = authority();
        let (_keep, identity) = certified(&ca, "/server");
        let (_keep, caller) = certified(&ca, "/caller");
        let it = slow(plaintext_too(&identity)).await;
        let in_flight = tokio::spawn(ask(it.server, connector(own(&caller))));
        patiently(it.arrived.notified()).await;

        it.stopping.cancel();
        // The port closes at once, though not in the same instant.
        patiently(async { while TcpStream::connect(it.server).await.is_ok() {} }).await;
        assert!(!it.task.is_finished(), "it waits for the request");
        it.release.notify_one();

        assert_eq!(patiently(in_flight).await.unwrap().unwrap(), "done");
        patiently(it.task).await.unwrap();
    }
}

#[tokio::test]
async fn idle_connections_and_half_open_handshakes_do_not_delay_a_stop() {
    let ca = authority();
    let (_keep, identity) = certified(&ca, "/server");
    let it = slow(plaintext_too(&identity)).await;
    let _silent = TcpStream::connect(it.server).await.unwrap();
    let caller = ca.issue_credentials(&id("/caller"), &[], hour()).unwrap();
    let mut idle = Vec::new();
    for alpn in ["h2", "http/1.1"] {
        let mut tls = client_with(&caller, ca.roots_pem());
        tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let uri = format!("https://{}", it.server).parse().unwrap();
        idle.push(Connector::http(Arc::new(tls)).oneshot(uri).await.unwrap());
    }
    // The first has said nothing yet; this one is an HTTP/2 connection that waits for work.
    let uri = format!("https://{}", it.server).parse().unwrap();
    let tls = Arc::new(client_with(&caller, ca.roots_pem()));
    let stream = Connector::new(tls).oneshot(uri).await.unwrap();
    let (_sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let began = std::time::Instant::now();
    it.stopping.cancel();
    patiently(it.task).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "less than the handshake timeout");
    patiently(connection).await.unwrap().unwrap();
}

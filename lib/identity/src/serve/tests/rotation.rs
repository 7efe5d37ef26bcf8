//! Certificates and roots that change while connections are open.

use hyper::client::conn::http2::SendRequest;

use super::*;
use crate::{
    Reason, identity,
    testing::{material, material_trusting},
};

type Caller = SendRequest<Empty<Bytes>>;

async fn connect(server: SocketAddr, identity: &Identity) -> Result<Caller, crate::ConnectError> {
    let uri = format!("https://{server}").parse().unwrap();
    let stream = patiently(Connector::new(own(identity)).oneshot(uri)).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    Ok(sender)
}

async fn call(caller: &mut Caller) -> hyper::Result<String> {
    let request = Request::get("https://test/").body(Empty::new()).unwrap();
    let answer = patiently(caller.send_request(request)).await?.into_body().collect().await?;
    Ok(String::from_utf8(answer.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn a_rotation_to_another_ca_drops_no_connection_and_leaves_no_door_open() {
    let (old_ca, new_ca) = (authority(), authority());
    let (server_source, server_identity) = certified(&old_ca, "/server");
    let (caller_source, caller_identity) = certified(&old_ca, "/caller");
    let (_keep, left_behind) = certified(&old_ca, "/left-behind");
    let server = Server::strict(&server_identity).await;
    let mut open = connect(server.address, &caller_identity).await.unwrap();
    assert_eq!(call(&mut open).await.unwrap(), "spiffe://test.local/caller by HTTP/2.0");

    server_source.publish(material(&new_ca, &id("/server")));
    caller_source.publish(material(&new_ca, &id("/caller-renewed")));

    assert_eq!(call(&mut open).await.unwrap(), "spiffe://test.local/caller by HTTP/2.0");
    let mut new = connect(server.address, &caller_identity).await.unwrap();
    assert_eq!(call(&mut new).await.unwrap(), "spiffe://test.local/caller-renewed by HTTP/2.0");
    let refused = connect(server.address, &left_behind).await.err().unwrap();
    assert_eq!(refused.reason(), Some(Reason::WrongCa));
    assert_eq!(call(&mut open).await.unwrap(), "spiffe://test.local/caller by HTTP/2.0");
}

#[tokio::test]
async fn while_roots_overlap_both_generations_get_in() {
    let (old_ca, new_ca) = (authority(), authority());
    let overlap = format!("{}{}", old_ca.roots_pem(), new_ca.roots_pem());
    let (source, server_identity) = identity();
    source.publish(material_trusting(&old_ca, &id("/server"), &overlap));
    let server = Server::strict(&server_identity).await;
    for ca in [&old_ca, &new_ca] {
        let (caller_source, caller) = identity();
        caller_source.publish(material_trusting(ca, &id("/caller"), &overlap));
        let mut caller = connect(server.address, &caller).await.unwrap();
        assert_eq!(call(&mut caller).await.unwrap(), "spiffe://test.local/caller by HTTP/2.0");
    }
}

#[tokio::test]
async fn requests_go_on_through_a_hundred_rotations() {
    let ca = authority();
    let (server_source, server_identity) = certified(&ca, "/server");
    let (caller_source, caller_identity) = certified(&ca, "/caller");
    let server = Server::strict(&server_identity).await;
    let mut open = connect(server.address, &caller_identity).await.unwrap();
    for _ in 0..100 {
        server_source.publish(material(&ca, &id("/server")));
        caller_source.publish(material(&ca, &id("/caller")));
        call(&mut open).await.unwrap();
        call(&mut connect(server.address, &caller_identity).await.unwrap()).await.unwrap();
    }
}

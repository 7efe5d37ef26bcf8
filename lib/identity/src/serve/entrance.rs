//! Letting a connection in, or turning it away with a reason in the log and, where the
//! protocol has one, a word to the caller.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Doors,
    caller::{Caller, Proof},
};
use crate::{
    PeerAddr, Principal, Reason, Refusal, SpiffeId,
    principal::{is_envoy, is_this_pod},
    refusal,
    svid::Svid,
};

/// A connection that is in, by either door.
pub(super) struct Entered {
    pub(super) stream: Box<dyn Stream>,
    pub(super) caller: Caller,
    pub(super) http: Http,
}

/// Which HTTP is spoken behind the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http {
    One,
    Two,
    Either,
}

/// Bytes, encrypted or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A refusal, and the connection to close once it has been logged.
type TurnedAway = (Refusal, TcpStream);

const TLS_HANDSHAKE: u8 = 0x16;
const H2_PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
const LAST_WORDS: Duration = Duration::from_secs(1);
const MOST_UNREAD: u64 = 64 << 10;

/// Lets a connection in; returns nothing once it has been turned away.
pub(super) async fn enter(tcp: TcpStream, peer: SocketAddr, doors: &Doors) -> Option<Entered> {
    // Answers are small and waited for: Nagle would only add its delay.
    let _ = tcp.set_nodelay(true);
    match tokio::time::timeout(doors.handshake_timeout, choose(tcp, peer, doors)).await {
        Ok(Ok(entered)) => entered,
        Ok(Err((refusal, tcp))) => {
            refusal.log_connection(PeerAddr::Tcp(peer));
            close(tcp).await;
            None
        }
        Err(_) => {
            Refusal::new(Reason::TooSlow, format!("over {:?}", doors.handshake_timeout))
                .log_connection(PeerAddr::Tcp(peer));
            None
        }
    }
}

async fn choose(mut tcp: TcpStream, peer: SocketAddr, doors: &Doors) -> Result<Option<Entered>, TurnedAway> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        // A probe of the port, not a caller.
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) => {}
    }
    if first[0] == TLS_HANDSHAKE {
        let (stream, principal) = tls(tcp, doors).await?;
        let http = spoken(stream.get_ref().1.alpn_protocol());
        let caller = Caller { proof: Proof::Connection(principal), identity: doors.identity.clone() };
        return Ok(greeted(stream, caller, http).await);
    }
    let proof = match &doors.plaintext_mesh {
        _ if doors.plaintext_loopback && is_this_pod(peer.ip()) => {
            Some(Proof::Connection(Principal::Loopback))
        }
        Some(policy) if is_envoy(peer.ip()) => Some(Proof::Forwarded(policy.clone())),
        _ => None,
    };
    if let Some(proof) = proof {
        let caller = Caller { proof, identity: doors.identity.clone() };
        return Ok(Some(Entered { stream: Box::new(tcp), caller, http: Http::Either }));
    }
    let _ = tcp.write_all(ADVICE.as_bytes()).await;
    Err((Refusal::new(Reason::Plaintext, "this port speaks TLS"), tcp))
}

async fn tls(tcp: TcpStream, doors: &Doors) -> Result<(TlsStream<TcpStream>, Principal), TurnedAway> {
    let handshake = TlsAcceptor::from(Arc::clone(&doors.tls)).accept(tcp).into_fallible();
    let (accepted, noted) = refusal::observe(handshake).await;
    let stream =
        accepted.map_err(|(error, tcp)| (noted.unwrap_or_else(|| Refusal::of_handshake(&error)), tcp))?;
    let principal = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => Ok(Principal::Anonymous),
        Some(leaf) => proven(leaf).map(Principal::Spiffe),
    };
    match principal {
        Ok(principal) => Ok((stream, principal)),
        Err(refusal) => Err((refusal, stream.into_inner().0)),
    }
}

/// Waits for the greeting that an HTTP/2 client sends at once. The HTTP library would wait
/// for it without limit, and no stop would end that; an HTTP/1 client may take its time
/// until its first request.
pub(super) async fn greeted(stream: impl Stream + 'static, caller: Caller, http: Http) -> Option<Entered> {
    if http == Http::One {
        return Some(Entered { stream: Box::new(stream), caller, http });
    }
    // As small as the greeting: reads larger than the buffer go past it.
    let mut stream = BufReader::with_capacity(H2_PREFACE, stream);
    let came = stream.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty());
    came.then(|| Entered { stream: Box::new(stream), caller, http })
}

/// The id in a certificate that the verifier has accepted.
fn proven(leaf: &[u8]) -> Result<SpiffeId, Refusal> {
    Svid::from_der(leaf).map(|svid| svid.id).map_err(|rule| Refusal::not_svid(leaf, &rule))
}

/// What was agreed on; a client that names no protocol speaks HTTP/1.1.
fn spoken(alpn: Option<&[u8]>) -> Http {
    match alpn {
        Some(b"h2" | b"istio-h2") => Http::Two,
        // Envoy says only that it is Istio's, and then speaks either.
        Some(b"istio") => Http::Either,
        _ => Http::One,
    }
}

/// What a plaintext caller reads, who would not learn it from a closed connection.
const ADVICE: &str = concat!(
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 78\r\n",
    "connection: close\r\n\r\n",
    "{\"error\":\"this port speaks TLS: call it with https and a client certificate\"}\n"
);

/// Closes so that the last words arrive. Closing with input unread makes the kernel reset
/// the connection, and a reset overtakes what was written: the caller would see "connection
/// reset" in place of the alert that says why.
async fn close(mut tcp: TcpStream) {
    let last_words = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_whole_http_answer() {
        let (head, body) = ADVICE.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}

//! How long a caller may pause while it sends.
//!
//! Who sends half a request and no more would hold memory for as long as it likes. Between two
//! messages of a gRPC stream, though, a caller may think for as long as it likes: there the pause
//! counts within a message only. Source of the framing: gRPC over HTTP/2, "Length-Prefixed-Message":
//! one byte of flags, four of the length, then the message.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http::Request;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;
use tower::BoxError;
use tower_http::timeout::TimeoutBody;

/// The only method with more than one message from the caller.
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const PREFIX: usize = 5;

/// The request with a body that fails where its caller pauses for longer.
pub(super) fn limited(longest: Duration, request: Request<Body>) -> Request<Body> {
    if request.uri().path() == STREAM {
        request.map(|body| Body::new(Messages { body, longest, messages: Prefixes::default(), alarm: None }))
    } else {
        request.map(|body| Body::new(TimeoutBody::new(longest, body)))
    }
}

/// A body of messages, within which its caller may not pause for long.
struct Messages {
    body: Body,
    longest: Duration,
    messages: Prefixes,
    /// Runs while a message has come in part.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// Follows where messages begin and end.
#[derive(Default)]
struct Prefixes {
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: u64,
}

/// The caller paused within a message.
#[derive(Debug, thiserror::Error)]
#[error("the caller paused for more than {0:?} within a message")]
struct Paused(Duration);

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.alarm = None;
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref)
            {
                this.messages.follow(data.clone());
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.messages.is_between() {
            return Poll::Pending;
        }
        let longest = this.longest;
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)));
        alarm.as_mut().poll(context).map(|()| Some(Err(Paused(longest).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Prefixes {
    fn follow(&mut self, mut data: Bytes) {
        while !data.is_empty() {
            let part = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
            data.advance(part);
            self.left -= part as u64;
            let wanted = if self.left == 0 { (PREFIX - self.prefix.len()).min(data.len()) } else { 0 };
            self.prefix.extend_from_slice(&data.split_to(wanted));
            if let [_, length @ ..] = &self.prefix[..]
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length).into();
                self.prefix.clear();
            }
        }
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.prefix.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    const LONGEST: Duration = Duration::from_millis(20);

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let bytes = b"\0\0\0\0\x02ab\0\0\0\0\0\x01\0\0\x01\x00".iter().copied();
        let bytes: Vec<u8> = bytes.chain([7; 256]).collect();
        for size in [1, 2, 3, 7, 100, 1000] {
            let mut prefixes = Prefixes::default();
            let mut ends = 0;
            for chunk in bytes.chunks(size) {
                prefixes.follow(Bytes::copy_from_slice(chunk));
                ends += usize::from(prefixes.is_between());
            }
            assert!(prefixes.is_between() && ends >= 1, "{size}");
        }
        let mut half = Prefixes::default();
        half.follow(Bytes::from_static(b"\0\0\0\0\x02a"));
        assert!(!half.is_between());
    }

    /// A stream's body that gives these pieces and then nothing for ever.
    fn stalling(path: &str, pieces: &[&'static [u8]]) -> Request<Body> {
        let pieces: Vec<_> =
            pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
        let body = futures::stream::iter(pieces).chain(futures::stream::pending());
        limited(LONGEST, Request::post(path).body(Body::from_stream(body)).unwrap())
    }

    #[tokio::test]
    async fn a_pause_between_messages_may_last_and_one_within_may_not() {
        let whole: &[u8] = b"\0\0\0\0\x02ab";
        let mut body = stalling(STREAM, &[whole]).into_body();
        assert!(body.frame().await.expect("a frame").is_ok());
        let much_later = tokio::time::timeout(LONGEST * 5, body.frame()).await;
        assert!(much_later.is_err(), "it is still waited for");

        let mut body = stalling(STREAM, &[whole, b"\0\0\0\0\x02a"]).into_body();
        assert!(body.frame().await.expect("a frame").is_ok() && body.frame().await.expect("a frame").is_ok());
        assert!(body.frame().await.expect("it ends").is_err());
        let mut other = stalling("/v2/models/m/infer", &[]).into_body();
        assert!(other.frame().await.expect("it ends").is_err());
    }
}

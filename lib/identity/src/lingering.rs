//! Bodies of requests that are answered before they have come.
//!
//! HTTP/2 resets a stream once nobody wants the rest of its body, and a client that is
//! still sending may take the reset for the answer: curl 7.88, which is Debian 12's, says
//! "Stream error in the HTTP/2 framing layer" in place of the refusal it was sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Version};
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;

/// For an answer to arrive. What comes meanwhile is not read, so flow control keeps it small.
const MOMENT: Duration = Duration::from_secs(1);

/// A body that, dropped before its end, is kept for a moment.
pub struct Lingering<B: Send + Body + 'static> {
    /// `Some` until the drop.
    body: Option<B>,
    lingers: bool,
}

/// The request with a body that lingers, where its protocol has need of that.
pub fn lingering<B: Send + Body + 'static>(request: Request<B>) -> Request<Lingering<B>> {
    // HTTP/1 has no way to end a body but to close the connection, which waits for the answer.
    let lingers = request.version() == Version::HTTP_2;
    request.map(|body| Lingering { body: Some(body), lingers })
}

impl<B: Send + Unpin + Body + 'static> Body for Lingering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl<B: Send + Body + 'static> Drop for Lingering<B> {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| self.lingers && !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (body, Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(MOMENT).await;
                drop(body);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use bytes::Bytes;

    use super::*;

    /// A body without end.
    struct Endless(#[expect(dead_code, reason = "tells when it is dropped")] Arc<()>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }
    }

    fn dropped(version: Version) -> Weak<()> {
        let held = Arc::new(());
        let alive = Arc::downgrade(&held);
        let mut request = Request::new(Endless(held));
        *request.version_mut() = version;
        drop(lingering(request));
        alive
    }

    #[tokio::test]
    async fn the_rest_of_a_body_is_held_over_http2_for_a_moment_and_no_longer() {
        let (old, new) = (dropped(Version::HTTP_11), dropped(Version::HTTP_2));
        assert_eq!((old.strong_count(), new.strong_count()), (0, 1));
        let gone = async {
            while new.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(5 * MOMENT, gone).await.expect("it is let go");
    }
}

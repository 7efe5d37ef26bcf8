//! A body that is sent from several buffers without joining them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The buffers in order. Its length is known, so the reply has a `content-length`.
pub(super) struct Frames(VecDeque<Bytes>);

impl Frames {
    pub(super) fn new(buffers: impl IntoIterator<Item = Bytes>) -> Self {
        Self(buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect())
    }
}

impl IntoIterator for Frames {
    type Item = Bytes;
    type IntoIter = std::collections::vec_deque::IntoIter<Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|buffer| Ok(Frame::data(buffer))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|buffer| buffer.len() as u64).sum())
    }
}

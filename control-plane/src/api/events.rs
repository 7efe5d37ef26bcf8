//! Events as a stream: the past, then each as it happens.

use std::collections::VecDeque;

use futures::{Stream, StreamExt as _};

use super::{Api, ApiError};
use crate::store::Event;

/// Someone who reads events, a page at a time.
struct Following {
    api: Api,
    newest: tokio::sync::watch::Receiver<u64>,
    after: u64,
    /// The last one that is wanted.
    until: Option<u64>,
    page: VecDeque<Event>,
}

/// Events after this id. With `past_only` the stream ends with those that have happened by
/// now; otherwise with the process, since a stream that nobody ends would hold up its end.
pub(super) fn follow(
    api: Api,
    after: u64,
    past_only: bool,
) -> impl Stream<Item = Result<Event, ApiError>> + Send {
    let newest = api.store.newest_event();
    let until = past_only.then(|| *newest.borrow());
    let stopping = api.stopping.clone();
    let following = Following { newest, after, until, page: VecDeque::new(), api };
    futures::stream::try_unfold(following, Following::next).take_until(stopping.cancelled_owned())
}

impl Following {
    async fn next(mut self) -> Result<Option<(Event, Self)>, ApiError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.id;
                return Ok(Some((event, self)));
            }
            let after = self.after;
            if self.until.is_some_and(|until| after >= until) {
                return Ok(None);
            }
            if self.newest.wait_for(|newest| *newest > after).await.is_err() {
                return Ok(None);
            }
            self.page = self.api.store.events(after).await?.into();
        }
    }
}

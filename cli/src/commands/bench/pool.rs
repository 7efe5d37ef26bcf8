//! Connections of one thread: with HTTP/1.1 as many as there are requests under way, with
//! HTTP/2 a fixed number that requests share.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use hyper::client::conn::{http1, http2};

use super::{
    call::{Answer, Call},
    record::Failed,
    target::{Link, Sender, Target, failed},
};

/// Connections to a server, opened when they are needed first.
pub(super) struct Pool {
    target: Target,
    connections: Connections,
    opened: AtomicU64,
}

enum Connections {
    /// Those that wait for a request; the one used last is the first to be used again.
    Idle(Mutex<Vec<Link>>),
    Shared(Vec<tokio::sync::Mutex<Option<Link>>>),
}

impl Pool {
    /// With HTTP/2, this many connections.
    pub(super) fn new(target: Target, shared: usize) -> Self {
        let connections = if target.http2 {
            Connections::Shared((0..shared.max(1)).map(|_| tokio::sync::Mutex::new(None)).collect())
        } else {
            Connections::Idle(Mutex::new(vec![]))
        };
        Self { target, connections, opened: AtomicU64::new(0) }
    }

    /// How many were opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Sends a request and reads the whole answer. `lane` chooses among shared connections.
    pub(super) async fn send(&self, call: &Call, lane: usize) -> Result<Answer, Failed> {
        match &self.connections {
            Connections::Idle(idle) => self.alone(idle, call).await,
            Connections::Shared(links) => self.among_others(&links[lane % links.len()], call).await,
        }
    }

    async fn open(&self) -> Result<Link, Failed> {
        let link = self.target.open().await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(link)
    }

    async fn alone(&self, idle: &Mutex<Vec<Link>>, call: &Call) -> Result<Answer, Failed> {
        let waiting = || idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let used = waiting().pop();
            let (mut link, fresh) = match used {
                Some(link) => (link, false),
                None => (self.open().await?, true),
            };
            match http1(&mut link.sender).send_request(call.request()).await {
                Ok(response) => {
                    let answer = Answer::read(response).await?;
                    if !http1(&mut link.sender).is_closed() {
                        waiting().push(link);
                    }
                    return Ok(answer);
                }
                // The server had closed it while it was idle: nothing was sent, another may do.
                Err(error) if error.is_canceled() && !fresh => {}
                Err(error) => return Err(failed("connection lost", &error)),
            }
        }
    }

    async fn among_others(
        &self,
        link: &tokio::sync::Mutex<Option<Link>>,
        call: &Call,
    ) -> Result<Answer, Failed> {
        let mut sender = {
            let mut link = link.lock().await;
            match link.as_mut().map(|link| http2(&mut link.sender)) {
                Some(sender) if !sender.is_closed() => sender.clone(),
                _ => http2(&mut link.insert(self.open().await?).sender).clone(),
            }
        };
        sender.ready().await.map_err(|error| failed("connection lost", &error))?;
        let response = sender.send_request(call.request()).await;
        Answer::read(response.map_err(|error| failed("connection lost", &error))?).await
    }
}

fn http1(sender: &mut Sender) -> &mut http1::SendRequest<http_body_util::Full<bytes::Bytes>> {
    match sender {
        Sender::Http1(sender) => sender,
        Sender::Http2(_) => unreachable!("a target opens connections of one kind"),
    }
}

fn http2(sender: &mut Sender) -> &mut http2::SendRequest<http_body_util::Full<bytes::Bytes>> {
    match sender {
        Sender::Http2(sender) => sender,
        Sender::Http1(_) => unreachable!("a target opens connections of one kind"),
    }
}

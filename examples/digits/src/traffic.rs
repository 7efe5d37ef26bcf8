//! Images, sent through mTLS as an application would.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use sconce_identity::{Connector, Material, PeerPolicy, Publisher, identity};
use serde::Deserialize;
use tokio::{sync::watch, task::JoinSet};

use crate::{images::Image, sconce::Context, tally::Tally};

/// Clients that send until they are told to stop.
pub(crate) struct Traffic {
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    // The clients' certificate is published for as long as this lives.
    _publisher: Publisher,
}

/// What a client shares with the others.
struct Shared {
    images: Vec<Image>,
    next: AtomicUsize,
    tally: Arc<Tally>,
}

#[derive(Deserialize)]
struct Answer {
    model_version: String,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    data: Vec<f32>,
}

const CLIENTS: usize = 4;
/// Each client's pace. Together 400 images a second: a trickle for two sidecars.
const EVERY: Duration = Duration::from_millis(10);

type Sender = Client<Connector, Full<Bytes>>;

impl Traffic {
    pub(crate) fn start(context: &Context, images: Vec<Image>, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let read = |file: &std::path::Path| fs::read(file).with_context(|| file.display().to_string());
        let (publisher, own) = identity();
        publisher.publish(Material::from_pem(
            &read(&context.cert)?,
            &read(&context.key)?,
            &read(&context.ca)?,
        )?);
        let connector = Connector::http1(own.client_config(PeerPolicy::own_trust_domain()));
        let shared = Arc::new(Shared { images, next: AtomicUsize::new(0), tally });
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let sidecar = &context.sidecars[number % context.sidecars.len()].address;
            let uri = format!("{}/v2/models/digits/infer", sidecar.trim_end_matches('/'));
            let client =
                Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector.clone());
            clients.spawn(send(client, uri, Arc::clone(&shared), stopped.clone()));
        }
        Ok(Self { clients, stop, _publisher: publisher })
    }

    /// Lets requests under way finish.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

async fn send(client: Sender, uri: String, shared: Arc<Shared>, stopped: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(EVERY);
    while !*stopped.borrow() {
        tick.tick().await;
        let image = &shared.images[shared.next.fetch_add(1, Ordering::Relaxed) % shared.images.len()];
        let sent = Instant::now();
        match ask(&client, &uri, image).await {
            Ok((version, digit)) => shared.tally.answered(sent, &version, digit == Some(image.label)),
            Err(error) => shared.tally.failed(format!("{error:#}")),
        }
    }
}

/// The version that answered, and the digit that it finds most likely.
async fn ask(client: &Sender, uri: &str, image: &Image) -> anyhow::Result<(String, Option<usize>)> {
    let request = Request::post(uri).header("content-type", "application/json");
    let response = client.request(request.body(Full::new(image.request.clone()))?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    let answer: Answer = serde_json::from_slice(&body)?;
    let scores = answer.outputs.first().context("no outputs")?.data.iter().enumerate();
    let digit = scores.max_by(|a, b| a.1.total_cmp(b.1)).map(|(digit, _)| digit);
    Ok((answer.model_version, digit))
}

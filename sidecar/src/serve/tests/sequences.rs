//! Requests that belong together, to a model that keeps state.

use std::{sync::Mutex, time::Duration};

use sconce_catalog::Lane;
use sconce_lifecycle::Stopping;
use serde_json::{Value, json};

use super::*;
use crate::{
    engine::State,
    serve::{SequenceLimits, Sequences},
};

/// Adds up what it is given: one INT8.
pub(super) struct Adds {
    signature: Signature,
    state: State,
    /// Of an instance alone.
    sum: Option<Mutex<u8>>,
}

impl Adds {
    fn model(state: State) -> Arc<dyn Module> {
        let x = field("x", Some(Datatype::Int8), None);
        let signature = Signature { inputs: vec![x], ..Default::default() };
        Arc::new(Self { signature, state, sum: None })
    }
}

impl Module for Adds {
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn state(&self) -> State {
        self.state
    }
    fn instance(&self) -> Result<Arc<dyn Module>, EngineError> {
        let Self { signature, state, .. } = self;
        Ok(Arc::new(Self { signature: signature.clone(), state: *state, sum: Some(Mutex::new(0)) }))
    }
    fn forward(&self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Output>, EngineError> {
        let mut tensor = given(inputs).remove(0);
        let Data::Fixed(bytes) = &tensor.data else { panic!("INT8") };
        let mut sum = self.sum.as_ref().map(|sum| sum.lock().unwrap());
        let so_far = sum.as_deref().copied().unwrap_or(0) + bytes[0];
        if let Some(sum) = &mut sum {
            **sum = so_far;
        }
        tensor.data = Data::Fixed(vec![so_far].into());
        Ok(vec![output("y", tensor)])
    }
}

pub(super) fn adding(versions: &[(&str, u32)]) -> ModelSet {
    let mut set = ModelSet { serial: Serial(1), ..Default::default() };
    set.models.insert("adds".parse().unwrap(), served(versions, &Adds::model(State::Instance)));
    set.models.insert("shares".parse().unwrap(), served(&[("1", 10_000)], &Adds::model(State::Shared)));
    set
}

/// A server of these models, with these limits.
struct Served {
    live: Live,
    leaving: Stopping,
    router: Router,
}

fn serving(limits: SequenceLimits, runner: impl Run) -> Served {
    let (live, leaving) = (Live::default(), Stopping::new());
    let mut set = adding(&[("1", 10_000)]);
    let echo = module(vec![field("x", None, None)], Vec::new(), echo);
    set.models.insert("echo".parse().unwrap(), super::served(&[("7", 10_000)], &echo));
    let _before = live.publish(set);
    let (sequences, leaves) = (Sequences::new(limits), leaving.clone());
    let config = Config { sequences, leaving: leaves, ..Config::default() };
    let router = stack(config, live.clone(), runner, Arc::new(|| true));
    Served { live, leaving, router }
}

fn plain() -> Served {
    serving(SequenceLimits::default(), Inline)
}

impl Served {
    async fn send(&self, path: &str, caller: Principal, parameters: Value) -> Reply {
        let body = json!({ "inputs": [{ "name": "x", "shape": [1], "datatype": "INT8", "data": [1] }],
                           "parameters": parameters });
        let request =
            Request::post(format!("/v2/models/{path}/infer")).body(body.to_string().into()).unwrap();
        send(self.router.clone().layer(Extension(caller)), request).await
    }

    async fn ask(&self, parameters: Value) -> Reply {
        self.send("adds", Principal::Loopback, parameters).await
    }

    /// The sum so far and the version that gave it.
    async fn sum(&self, parameters: Value) -> (i64, String) {
        let reply = self.ask(parameters).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        let json = reply.json();
        (json["outputs"][0]["data"][0].as_i64().unwrap(), json["model_version"].as_str().unwrap().to_owned())
    }
}

fn first(id: impl Into<Value>) -> Value {
    json!({ "sequence_id": id.into(), "sequence_start": true, "sequence_end": false })
}

fn next(id: impl Into<Value>) -> Value {
    json!({ "sequence_id": id.into() })
}

fn last(id: impl Into<Value>) -> Value {
    json!({ "sequence_id": id.into(), "sequence_end": true })
}

#[tokio::test]
async fn each_sequence_has_its_own_state_from_its_start_to_its_end() {
    let served = plain();
    // A number, the same as text, and a text are three.
    for id in [json!(7), json!("7"), json!("speech")] {
        assert_eq!(served.sum(first(id)).await.0, 1);
    }
    assert_eq!(served.sum(next(7)).await.0, 2);
    assert_eq!(served.sum(next("7")).await.0, 2);
    assert_eq!(served.sum(last(7)).await.0, 3);
    let over = served.ask(next(7)).await;
    assert_eq!(over.status, 400);
    let words = "inference request for sequence 7 to model 'adds' must specify the START flag on the first request \
                 of the sequence";
    assert!(over.error().starts_with(words), "{}", over.error());
    assert_eq!(served.sum(next("7")).await.0, 3, "the other goes on");
    assert_eq!(served.sum(first("7")).await.0, 1, "a start begins it anew");
    let all = json!({ "sequence_id": 9, "sequence_start": true, "sequence_end": true });
    assert_eq!(served.sum(all).await.0, 1);
    assert_eq!(served.ask(next(9)).await.status, 400);
}

#[tokio::test]
async fn callers_and_mirrored_requests_do_not_meet_in_one_sequence() {
    let served = plain();
    let caller = |name: &str| Principal::Spiffe(format!("spiffe://a.test/{name}").parse().unwrap());
    for name in ["one", "two"] {
        assert_eq!(
            served.send("adds", caller(name), first(1)).await.json()["outputs"][0]["data"],
            json!([1])
        );
    }
    assert_eq!(served.send("adds", caller("one"), next(1)).await.json()["outputs"][0]["data"], json!([2]));
    assert_eq!(served.send("adds", caller("three"), next(1)).await.status, 400);
    let mirror = Served { router: served.router.clone().layer(Extension(Lane::Shadow)), ..plain() };
    assert_eq!(mirror.send("adds", caller("one"), next(1)).await.status, 400);
}

#[tokio::test]
async fn a_request_without_a_sequence_is_a_sequence_of_its_own() {
    let served = plain();
    assert_eq!(served.sum(json!({})).await.0, 1);
    assert_eq!(served.sum(json!({ "sequence_id": 0 })).await.0, 1);
    assert_eq!(served.sum(first(1)).await.0, 1);
    assert_eq!(served.sum(json!({})).await.0, 1);
    assert_eq!(served.sum(next(1)).await.0, 2);
    let nameless = served.ask(json!({ "sequence_start": true })).await;
    let words = "inference request to model 'adds' must specify a non-zero or non-empty correlation ID";
    assert!(nameless.status == 400 && nameless.error().starts_with(words), "{}", nameless.error());
}

#[tokio::test]
async fn a_model_that_keeps_nothing_takes_part_in_any_sequence_and_one_that_cannot_says_so() {
    let served = plain();
    for parameters in [next(1), first("a"), json!({ "sequence_end": true })] {
        assert_eq!(served.send("echo", Principal::Loopback, parameters).await.status, 200);
    }
    for (model, properties) in [
        ("echo", Value::Null),
        ("adds", json!({ "state": "sequence" })),
        ("shares", json!({ "state": "shared" })),
    ] {
        let request = Request::get(format!("/v2/models/{model}")).body(Body::empty()).unwrap();
        let described = send(served.router.clone().layer(Extension(Principal::Loopback)), request).await;
        assert_eq!(described.json()["properties"], properties, "{model}");
    }
    let shares = served.send("shares", Principal::Loopback, first(1)).await;
    assert!(shares.status == 400 && shares.error().contains("one state for all"), "{}", shares.error());
}

#[tokio::test]
async fn a_sequence_stays_on_its_version_when_another_takes_over() {
    let served = plain();
    assert_eq!(served.sum(first(1)).await, (1, "1".to_owned()));
    let _before = served.live.publish(adding(&[("2", 10_000)]));
    assert_eq!(served.sum(next(1)).await, (2, "1".to_owned()), "also where the catalog has it no longer");
    assert_eq!(served.sum(first(2)).await, (1, "2".to_owned()));
    let pinned = served.send("adds/versions/2", Principal::Loopback, next(1)).await;
    assert!(pinned.status == 400 && pinned.error().contains("runs on version `1`"), "{}", pinned.error());
    assert_eq!(served.sum(first(1)).await, (1, "2".to_owned()), "begun anew it is on the new one");
}

#[tokio::test]
async fn there_are_only_so_many_and_an_idle_one_makes_room() {
    let limits = SequenceLimits { most: 2, ..SequenceLimits::default() };
    let served = serving(limits, Inline);
    for id in [1, 2, 1] {
        served.sum(first(id)).await;
    }
    let refused = served.ask(first(3)).await;
    assert!(refused.status == 429 && refused.headers.contains_key("retry-after"));
    assert!(refused.error().contains("SCONCE_MAX_SEQUENCES"), "{}", refused.error());
    served.sum(last(2)).await;
    served.sum(first(3)).await;

    let idle = Duration::from_millis(1);
    let served = serving(SequenceLimits { most: 1, idle, ..limits }, Inline);
    served.sum(first(1)).await;
    tokio::time::timeout(Duration::from_secs(60), async {
        while served.ask(first(2)).await.status != 200 {}
    })
    .await
    .expect("the first expires");
    let expired = served.ask(next(1)).await;
    assert!(expired.error().contains("idle for 1 ms"), "{}", expired.error());
}

#[tokio::test]
async fn idle_sequences_end_without_anybody_asking() {
    let limits = SequenceLimits { idle: Duration::from_millis(20), ..SequenceLimits::default() };
    let (sequences, live, stopping) = (Sequences::new(limits), Live::default(), Stopping::new());
    let _before = live.publish(adding(&[("1", 10_000)]));
    let held = Arc::downgrade(&live.snapshot().models[&"adds".parse().unwrap()].ready[&"1".parse().unwrap()]);
    let config = Config { sequences: sequences.clone(), ..Config::default() };
    let router = stack(config, live.clone(), Inline, Arc::new(|| true));
    let served = Served { live, leaving: Stopping::new(), router };
    served.sum(first(1)).await;
    let _before = served.live.publish(ModelSet::default());
    drop(_before);
    assert!(held.upgrade().is_some(), "the sequence keeps its version");
    let ends = async {
        while held.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        stopping.cancel();
    };
    let both = futures::future::join(sequences.expire(stopping.clone()), ends);
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends, and the version with it");
}

/// Runs models like the pool, but says of every other request that there is too much to do.
#[derive(Default)]
struct Refuses(Mutex<u32>);

impl Run for Refuses {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        if asked.is_multiple_of(2) {
            return Inline.run(queue, work);
        }
        Box::pin(async { Err(RunError::Overloaded { retry: Duration::from_secs(1) }) })
    }
}

#[tokio::test]
async fn a_request_that_was_refused_has_changed_nothing_and_may_be_tried_again() {
    let served = serving(SequenceLimits { most: 1, ..SequenceLimits::default() }, Refuses::default());
    assert_eq!(served.ask(first(1)).await.status, 429);
    // It takes no place either.
    assert_eq!(served.sum(first(2)).await.0, 1);
    assert_eq!(served.ask(next(2)).await.status, 429);
    assert_eq!(served.sum(next(2)).await.0, 2);
    assert_eq!(served.ask(last(2)).await.status, 429);
    assert_eq!(served.sum(last(2)).await.0, 3, "it has not ended");
    assert_eq!(served.ask(next(2)).await.status, 400);
}

#[tokio::test]
async fn who_leaves_finishes_sequences_and_begins_none() {
    let served = plain();
    served.sum(first(1)).await;
    served.leaving.cancel();
    assert_eq!(served.sum(next(1)).await.0, 2);
    assert_eq!(served.ask(first(2)).await.status, 503);
    let all = json!({ "sequence_id": 3, "sequence_start": true, "sequence_end": true });
    assert_eq!(served.sum(all).await.0, 1);
}

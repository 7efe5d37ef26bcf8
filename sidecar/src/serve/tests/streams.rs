//! `ModelStreamInfer`, asked by a generated client.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use sconce_lifecycle::Stopping;
use sconce_proto::inference::{
    InferParameter, ModelInferRequest, ModelStreamInferResponse,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice,
};
use tokio::sync::oneshot;
use tonic::{Code, IntoStreamingRequest, Request as Call, Status, Streaming};

use super::{
    rpc::{input, request},
    *,
};

fn ask(model: &str, id: &str) -> ModelInferRequest {
    ModelInferRequest {
        id: id.to_owned(),
        ..request(model, vec![input("x", "INT8", &[1], None)], &[b"\x01"])
    }
}

async fn open(
    server: Router,
    requests: impl IntoStreamingRequest<Message = ModelInferRequest>,
) -> Result<Streaming<ModelStreamInferResponse>, Status> {
    let mut client = GrpcInferenceServiceClient::new(server);
    Ok(client.model_stream_infer(requests).await?.into_inner())
}

/// Each answer's error and id, and how the stream ended.
type Read = (Vec<(String, String)>, Option<Status>);

async fn all(mut answers: Streaming<ModelStreamInferResponse>) -> Read {
    let mut read = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                read.push((answer.error_message, answer.infer_response.unwrap_or_default().id));
            }
            Ok(None) => return (read, None),
            Err(status) => return (read, Some(status)),
        }
    }
}

fn ids(answers: &[(String, String)]) -> Vec<&str> {
    answers.iter().map(|(_, id)| id.as_str()).collect()
}

#[tokio::test]
async fn a_failure_is_an_answer_with_its_id_and_the_stream_goes_on() {
    let asked =
        [ask("echo", "a"), ask("none", "b"), ask("panicking", "c"), ask("failing", "d"), ask("echo", "e")];
    let mut answers = open(server(Config::default(), Inline), stream::iter(asked)).await.unwrap();
    let first = answers.message().await.unwrap().expect("an answer");
    let answer = first.infer_response.expect("answered");
    assert_eq!((answer.id.as_str(), &answer.raw_output_contents[0][..]), ("a", &b"\x01"[..]));
    assert_eq!(
        answer.parameters["triton_final_response"].parameter_choice,
        Some(ParameterChoice::BoolParam(true))
    );
    let (rest, end) = all(answers).await;
    assert_eq!(ids(&rest), ["b", "c", "d", "e"]);
    assert!(rest[0].0.contains("`none`") && rest[2].0.contains("division by zero"), "{rest:?}");
    assert!(!rest[1].0.is_empty() && rest[3].0.is_empty() && end.is_none(), "{rest:?}, {end:?}");
}

#[tokio::test]
async fn who_asks_for_statuses_gets_one_and_nothing_after_it() {
    let mut asked = Call::new(stream::iter([ask("echo", "a"), ask("none", "b"), ask("echo", "c")]));
    asked.metadata_mut().insert("triton_grpc_error", "true".parse().unwrap());
    let (answers, end) = all(open(server(Config::default(), Inline), asked).await.unwrap()).await;
    assert_eq!(ids(&answers), ["a"]);
    assert_eq!(end.map(|status| status.code()), Some(Code::NotFound));
}

#[tokio::test]
async fn what_a_call_says_counts_for_each_of_its_requests() {
    let add = || request("halves", vec![input("a", "FP32", &[1, 2], None)], &[&[0; 8]]);
    let mut pinned = Call::new(stream::iter([add(), add()]));
    pinned.metadata_mut().insert("x-sconce-pin", "v10".parse().unwrap());
    let answers = open(server(Config::default(), Inline), pinned).await.unwrap();
    let versions: Vec<_> =
        answers.map(|answer| answer.unwrap().infer_response.unwrap().model_version).collect().await;
    assert_eq!(versions, ["v10", "v10"]);
}

/// Answers when it is told to. Knows how many have begun and how many are here.
#[derive(Clone, Default)]
struct Holds {
    held: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
    begun: Arc<AtomicUsize>,
    here: Arc<()>,
}

impl Run for Holds {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let (sender, receiver) = oneshot::channel();
        self.held.lock().unwrap().push(sender);
        self.begun.fetch_add(1, Ordering::Relaxed);
        let (running, here) = (Inline.run(queue, work), Arc::clone(&self.here));
        Box::pin(async move {
            let _here = here;
            let _ = receiver.await;
            running.await
        })
    }
}

impl Holds {
    fn release(&self, at: usize) {
        drop(self.held.lock().unwrap().remove(at));
    }

    fn here(&self) -> usize {
        // One is its own, and one that of the server while that is there.
        Arc::strong_count(&self.here).saturating_sub(2)
    }
}

/// Lets everything run until this holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Reads answers on a task of its own, as a client does.
fn reading(
    server: Router,
    requests: impl stream::Stream<Item = ModelInferRequest> + Send + 'static,
) -> tokio::task::JoinHandle<Read> {
    tokio::spawn(async move { all(open(server, requests).await.unwrap()).await })
}

#[tokio::test]
async fn requests_run_beside_each_other_and_are_answered_in_their_order() {
    let holds = Holds::default();
    let asked = stream::iter(["a", "b", "c"].map(|id| ask("echo", id)));
    let answers = reading(server(Config::default(), holds.clone()), asked);
    until("all three have begun", || holds.begun.load(Ordering::Relaxed) == 3).await;
    for at in [2, 1, 0] {
        holds.release(at);
    }
    let (answers, end) = answers.await.unwrap();
    assert_eq!((ids(&answers), end.is_none()), (vec!["a", "b", "c"], true));
}

#[tokio::test]
async fn a_stream_has_only_so_many_requests_at_a_time_and_all_streams_together_too() {
    let holds = Holds::default();
    let (sent, most) = (Arc::new(AtomicUsize::new(0)), crate::serve::grpc::stream::MOST);
    let count = Arc::clone(&sent);
    let asked = stream::iter(0..3 * most).map(move |n| {
        count.fetch_add(1, Ordering::Relaxed);
        ask("echo", &n.to_string())
    });
    let answers = reading(server(Config::default(), holds.clone()), asked);
    until("as many as may have begun", || holds.begun.load(Ordering::Relaxed) == most).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(holds.begun.load(Ordering::Relaxed), most, "{} were sent", sent.load(Ordering::Relaxed));
    for _ in 0..3 * most {
        until("another one has begun", || !holds.held.lock().unwrap().is_empty()).await;
        holds.release(0);
    }
    assert_eq!(answers.await.unwrap().0.len(), 3 * most);

    let config = Config { max_in_flight: 1, ..Config::default() };
    let holds = Holds::default();
    let answers = reading(server(config, holds.clone()), stream::iter([ask("echo", "a"), ask("echo", "b")]));
    until("the first has begun", || holds.begun.load(Ordering::Relaxed) == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    holds.release(0);
    let (answers, _) = answers.await.unwrap();
    assert!(answers[0].0.is_empty() && answers[1].0.contains("more requests than it takes"), "{answers:?}");
}

#[tokio::test]
async fn a_stream_has_only_so_many_bytes_at_a_time() {
    let holds = Holds::default();
    let config = Config { max_body_bytes: 1000, ..Config::default() };
    let large = || request("echo", vec![input("x", "INT8", &[400], None)], &[&[0; 400]]);
    let answers = reading(server(config, holds.clone()), stream::iter([large(), large(), large(), large()]));
    // Two do not fill it, and the third is more than there is room for.
    until("three have begun", || holds.begun.load(Ordering::Relaxed) == 3).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(holds.begun.load(Ordering::Relaxed), 3);
    for _ in 0..4 {
        until("another one has begun", || !holds.held.lock().unwrap().is_empty()).await;
        holds.release(0);
    }
    assert_eq!(answers.await.unwrap().0.len(), 4);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_requests_along() {
    let holds = Holds::default();
    let asked = stream::iter([ask("echo", "a"), ask("echo", "b")]).chain(stream::pending());
    let answers = reading(server(Config::default(), holds.clone()), asked);
    until("both are here", || holds.here() == 2).await;
    answers.abort();
    until("neither is", || holds.here() == 0).await;
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_here_and_ends_the_stream() {
    let (holds, stopping) = (Holds::default(), Stopping::new());
    let config = Config { stopping: stopping.clone(), ..Config::default() };
    let asked = stream::iter([ask("echo", "a")]).chain(stream::pending());
    let answers = reading(server(config, holds.clone()), asked);
    until("it is here", || holds.here() == 1).await;
    stopping.cancel();
    holds.release(0);
    let (answers, end) = answers.await.unwrap();
    assert_eq!((ids(&answers), end.map(|end| end.code())), (vec!["a"], Some(Code::Unavailable)));
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_stream_after_what_came_before() {
    let server = server(Config { max_body_bytes: 64, ..Config::default() }, Inline);
    let large = request("echo", vec![input("x", "INT8", &[100], None)], &[&[0; 100]]);
    let (answers, end) = all(open(server, stream::iter([ask("echo", "a"), large])).await.unwrap()).await;
    assert_eq!((ids(&answers), end.map(|end| end.code())), (vec!["a"], Some(Code::OutOfRange)));
}

#[tokio::test]
async fn requests_of_a_sequence_may_be_sent_without_waiting_for_answers() {
    let live = Live::default();
    let _before = live.publish(super::sequences::adding(&[("1", 10_000)]));
    let server =
        stack(Config::default(), live, Inline, Arc::new(|| true)).layer(Extension(Principal::Loopback));
    let step = |n: u64| {
        let mut asked = ask("adds", &n.to_string());
        let mut set = |name: &str, value| {
            asked.parameters.insert(name.to_owned(), InferParameter { parameter_choice: Some(value) });
        };
        // Two sequences, in turns: one by number, one by text.
        set(
            "sequence_id",
            if n.is_multiple_of(2) {
                ParameterChoice::Uint64Param(1 << 63)
            } else {
                ParameterChoice::StringParam("odd".into())
            },
        );
        set("sequence_start", ParameterChoice::BoolParam(n < 2));
        set("sequence_end", ParameterChoice::BoolParam(n >= 98));
        asked
    };
    let answers = open(server, stream::iter((0..100).map(step))).await.unwrap();
    let sums: Vec<u8> = answers
        .map(|answer| {
            let answer = answer.unwrap();
            assert_eq!(answer.error_message, "");
            answer.infer_response.unwrap().raw_output_contents[0][0]
        })
        .collect()
        .await;
    let expected: Vec<u8> = (0..100).map(|n| n / 2 + 1).collect();
    assert_eq!(sums, expected);
}

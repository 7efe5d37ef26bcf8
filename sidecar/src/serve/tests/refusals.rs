//! Every way to be refused: the status, and a message that says what to do.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::*;
use crate::engine::Priority;

const X: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;

#[tokio::test]
async fn names_that_mean_nothing_here_are_told_from_what_is_not_ready() {
    for (path, status, says) in [
        ("/v2/models/none", 404, "`none`"),
        ("/v2/models/UPPER_case", 404, "`UPPER_case`"),
        ("/v2/models/echo/versions/9", 404, "no version `9`"),
        ("/v2/models/echo/versions/-x", 404, "no version `-x`"),
        ("/v2/models/loading/versions/2", 503, "it is still loading"),
        ("/v2/models/loading/versions/2/ready", 503, "it is still loading"),
        ("/v2/models/absent/ready", 503, "its digest is wrong"),
        ("/v2/nothing", 404, "Not Found"),
        ("/", 404, "Not Found"),
        ("/v2/models/echo/infer", 405, "Method Not Allowed"),
        ("/v2/models/%ff", 400, "path"),
    ] {
        let reply = get(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.error().contains(says), "{path}: {}", reply.error());
    }
    for (model, status) in
        [("none", 404), ("absent", 503), ("echo/versions/9", 404), ("loading/versions/2", 503)]
    {
        assert_eq!(infer(model, X).await.status, status, "{model}");
    }
}

#[tokio::test]
async fn inputs_that_do_not_fit_the_model_are_named_with_what_was_expected() {
    let tensor = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
    };
    let a = tensor("a", "[1,2]", "FP32", "[1,2]");
    for (inputs, says) in [
        (
            String::new(),
            "input `a` is missing; the model takes `a` (FP32 [-1, 2]), `b` (FP32 [-1, 2], optional)",
        ),
        (format!("{a},{a}"), "input `a` is given twice"),
        (format!("{a},{}", tensor("c", "[1]", "FP32", "[1]")), "there is no input `c`"),
        (tensor("a", "[1,2]", "INT64", "[1,2]"), "input `a` must be FP32, and INT64 came"),
        (tensor("a", "[1,3]", "FP32", "[1,2,3]"), "input `a` must have shape [-1, 2], and [1, 3] came"),
        (tensor("a", "[1,2]", "FP32", "[1]"), "an array at depth 0 has 1 entries"),
        (tensor("a", "[1,2]", "FP32", "[1,2,3]"), "more than the 2 elements"),
        (tensor("a", "[1,2]", "FP31", "[1,2]"), "\"FP31\" is not a datatype"),
        (format!("{a},{}", tensor("b", "[2,2]", "FP32", "[1,2,3,4]")), "the sizes of a and b differ"),
        (
            r#"{"name":"a","shape":[1,2],"datatype":"FP32"}"#.to_owned(),
            "neither `data` nor `binary_data_size`",
        ),
    ] {
        let reply = infer("add", format!(r#"{{"inputs":[{inputs}]}}"#)).await;
        assert_eq!(reply.status, 400, "{inputs}");
        assert!(reply.error().contains(says), "{}", reply.error());
    }
    let asked = |names: &str| infer("add", format!(r#"{{"inputs":[{a}],"outputs":[{names}]}}"#));
    for (names, says) in
        [(r#"{"name":"z"}"#, "`sum`, `difference`"), (r#"{"name":"sum"},{"name":"sum"}"#, "twice")]
    {
        let reply = asked(names).await;
        assert!(reply.status == 400 && reply.error().contains(says), "{}", reply.error());
    }
}

#[tokio::test]
async fn a_model_that_fails_is_counted_and_says_why() {
    let live = live();
    let server = stack(Config::default(), live.clone(), Inline, Arc::new(|| true))
        .layer(Extension(Principal::Loopback));
    let post = |path: &str| send(server.clone(), Request::post(path).body(X.into()).unwrap());
    let reply = post("/v2/models/failing/infer").await;
    assert_eq!(reply.status, 500);
    assert!(reply.error().contains("model `failing`, version `1`: the model failed: division by zero"));
    assert_eq!(post("/v2/models/echo/infer").await.status, 200);

    let set = live.snapshot();
    let counts = |name: &str| {
        set.models[&name.parse::<ModelName>().unwrap()].ready.values().next().unwrap().counts.read()
    };
    assert_eq!((counts("failing"), counts("echo")), ((0, 1), (1, 0)));
}

#[tokio::test]
async fn a_bug_ends_one_request() {
    let reply = infer("panicking", X).await;
    assert_eq!((reply.status.as_u16(), reply.error().as_str()), (500, "the server failed on this request"));
}

#[tokio::test]
async fn an_unknown_model_is_refused_in_the_words_that_scripts_look_for() {
    for reply in [get("/v2/models/none").await, infer("none", X).await] {
        let error = reply.error();
        assert!(reply.status == 404 && error.starts_with("Request for unknown model: `none`"), "{error}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = server(Config { max_body_bytes: 16, ..Config::default() }, Inline);
    let reply = send(server, Request::post("/v2/models/echo/infer").body(X.into()).unwrap()).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("16 bytes"));
}

#[tokio::test]
async fn parameters_that_mean_nothing_here_are_ignored() {
    let x = |of_input: &str, of_output: &str, of_request: &str| {
        format!(
            r#"{{"inputs":[{{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2],"parameters":{of_input}}}],
            "outputs":[{{"name":"sum","parameters":{of_output}}}],"parameters":{of_request}}}"#
        )
    };
    // A sequence of 0 or "" is none; null is how some clients write what they do not mean.
    for of_request in
        [r#"{"sequence_id":0,"priority":1,"timeout":5,"mine":"x","f":1.5}"#, r#"{"sequence_id":""}"#, "null"]
    {
        assert_eq!(infer("add", x("null", "null", of_request)).await.status, 200, "{of_request}");
    }
    let nulls =
        r#"{"id":null,"outputs":null,"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    assert_eq!(infer("echo", nulls).await.status, 200);
}

#[tokio::test]
async fn callers_without_an_identity_get_nothing() {
    let bare = || stack(Config::default(), live(), Inline, Arc::new(|| true));
    let spiffe = Principal::Spiffe("spiffe://sconce.local/ns/a/sa/b".parse().unwrap());
    for (server, status) in [
        (bare(), 401),
        (bare().layer(Extension(Principal::Anonymous)), 401),
        (bare().layer(Extension(spiffe)), 200),
    ] {
        let reply = send(server, Request::get("/v2").body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status);
    }
}

/// Refuses everything for the same reason.
struct Refuses(fn() -> RunError);

impl Run for Refuses {
    fn run(&self, _: &Queue, _: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let error = self.0();
        Box::pin(async { Err(error) })
    }
}

async fn refused(config: Config, error: fn() -> RunError) -> Reply {
    let request = Request::post("/v2/models/echo/infer").body(X.into()).unwrap();
    send(server(config, Refuses(error)), request).await
}

#[tokio::test]
async fn a_full_queue_is_a_429_that_says_when_to_come_back() {
    let full = || RunError::Overloaded { retry: Duration::from_millis(2_100) };
    let reply = refused(Config::default(), full).await;
    assert_eq!((reply.status.as_u16(), reply.headers["retry-after"].to_str().unwrap()), (429, "3"));
    assert!(reply.error().contains("`echo`, version `7`"), "{}", reply.error());
}

#[tokio::test]
async fn a_full_queue_of_a_server_that_leaves_sends_callers_elsewhere() {
    let config = Config::default();
    config.leaving.cancel();
    let reply = refused(config, || RunError::Overloaded { retry: Duration::ZERO }).await;
    assert_eq!((reply.status.as_u16(), reply.headers["retry-after"].to_str().unwrap()), (503, "1"));
}

#[tokio::test]
async fn what_cannot_be_answered_in_time_is_a_504_that_no_retry_helps() {
    let reply = refused(Config::default(), || RunError::Late).await;
    assert_eq!((reply.status.as_u16(), reply.headers.get("retry-after")), (504, None));
}

/// Says when it would have been late, and how urgent it was.
#[derive(Clone, Default)]
struct Notes(Arc<std::sync::Mutex<Vec<(Duration, Priority)>>>);

impl Run for Notes {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let left = work.deadline.saturating_duration_since(Instant::now());
        self.0.lock().unwrap().push((left, work.priority));
        Inline.run(queue, work)
    }
}

/// What the engine is told of a request with these parameters and headers.
async fn terms(parameters: &str, headers: &[(&str, &str)]) -> (Duration, Priority) {
    let notes = Notes::default();
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":[1]}}],"parameters":{parameters}}}"#
    );
    let request = headers
        .iter()
        .fold(Request::post("/v2/models/echo/infer"), |request, (name, value)| request.header(*name, *value));
    let reply = send(server(Config::default(), notes.clone()), request.body(body.into()).unwrap()).await;
    assert_eq!(reply.status, 200);
    notes.0.lock().unwrap()[0]
}

#[tokio::test]
async fn deadlines_and_priorities_reach_the_engine() {
    let minute = Duration::from_secs(60);
    let (left, priority) = terms("{}", &[]).await;
    assert!(left <= minute && left > minute / 2, "{left:?}");
    assert_eq!(priority, Priority::default());
    let (left, priority) = terms(r#"{"timeout":20000000,"priority":1}"#, &[]).await;
    assert!(left <= minute / 3 && left > minute / 6, "microseconds: {left:?}");
    assert_eq!(priority, Priority::new(1));
    let both = [("x-envoy-expected-rq-timeout-ms", "8000")];
    let (left, _) = terms(r#"{"timeout":20000000}"#, &both).await;
    assert!(left <= Duration::from_secs(8) && left > Duration::from_secs(4), "{left:?}");
    assert_eq!(terms(r#"{"timeout":0,"priority":0}"#, &[]).await.1, Priority::default());
}

#[tokio::test]
async fn terms_that_are_no_numbers_are_refused_by_name() {
    for parameters in [r#"{"timeout":"5"}"#, r#"{"priority":-1}"#, r#"{"priority":1.5}"#] {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":[1]}}],"parameters":{parameters}}}"#
        );
        let reply = infer("echo", body).await;
        let name = if parameters.contains("timeout") { "timeout" } else { "priority" };
        assert!(reply.status == 400 && reply.error().contains(name), "{}", reply.error());
    }
    let request = Request::post("/v2/models/echo/infer").header("x-envoy-expected-rq-timeout-ms", "1s");
    let reply = ask(request, X).await;
    assert!(reply.status == 400 && reply.error().contains("x-envoy-expected-rq-timeout-ms"));
}

/// Answers nothing until told to.
#[derive(Clone, Default)]
struct Held(Arc<(AtomicUsize, Notify, Notify)>);

impl Run for Held {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let (held, module) = (Arc::clone(&self.0), Arc::clone(queue.module()));
        Box::pin(async move {
            held.0.fetch_add(1, Ordering::SeqCst);
            held.1.notify_one();
            held.2.notified().await;
            module.forward(work.inputs).map_err(RunError::Engine)
        })
    }
}

#[tokio::test]
async fn one_request_too_many_is_refused_while_the_others_go_on() {
    let held = Held::default();
    let server = server(Config { max_in_flight: 1, ..Config::default() }, held.clone());
    let post = || Request::post("/v2/models/echo/infer").body(X.into()).unwrap();
    let first = tokio::spawn(send(server.clone(), post()));
    held.0.1.notified().await;

    let refused = send(server, post()).await;
    assert_eq!(refused.status, 429);
    assert!(refused.error().contains("try again"));
    held.0.2.notify_one();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(held.0.0.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_caller_who_stops_half_way_gives_its_place_back() {
    let longest_pause = Duration::from_millis(20);
    let server = server(Config { max_in_flight: 1, longest_pause, ..Config::default() }, Inline);
    let half = futures::stream::iter([Ok::<_, std::io::Error>(&X[..9])]);
    let half = Body::from_stream(futures::StreamExt::chain(half, futures::stream::pending()));
    let reply = send(server.clone(), Request::post("/v2/models/echo/infer").body(half).unwrap()).await;
    assert!(reply.status == 400 && reply.error().contains("timeout"), "{}", reply.error());
    assert_eq!(
        send(server, Request::post("/v2/models/echo/infer").body(X.into()).unwrap()).await.status,
        200
    );
}

//! Every way to be refused: the status, and a message that says what to do.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

const X: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;

#[tokio::test]
async fn names_that_mean_nothing_here_are_told_from_what_is_not_ready() {
    for (path, status, says) in [
        ("/v2/models/none", 404, "`none`"),
        ("/v2/models/UPPER_case", 404, "`UPPER_case`"),
        ("/v2/models/echo/versions/9", 404, "no version `9`"),
        ("/v2/models/echo/versions/-x", 404, "no version `-x`"),
        ("/v2/models/loading/versions/2", 503, "it is loading"),
        ("/v2/models/loading/versions/2/ready", 503, "it is loading"),
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
async fn a_body_beyond_the_limit_is_refused() {
    let server = server(Config { max_body_bytes: 16, ..Config::default() }, Inline);
    let reply = send(server, Request::post("/v2/models/echo/infer").body(X.into()).unwrap()).await;
    assert_eq!(reply.status, 413);
    assert!(reply.error().contains("16 bytes"));
}

#[tokio::test]
async fn an_encoding_that_nobody_decodes_here_is_refused() {
    let reply = ask(Request::post("/v2/models/echo/infer").header("content-encoding", "br"), X).await;
    assert_eq!(
        (reply.status.as_u16(), reply.headers["accept-encoding"].to_str().unwrap()),
        (415, "identity")
    );
    assert!(reply.error().contains("\"br\""));
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

struct Full;

impl Run for Full {
    fn run(
        &self,
        _: Arc<dyn Module>,
        _: Vec<Option<Tensor>>,
        _: Option<Permit>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        Box::pin(async { Err(RunError::Overloaded) })
    }
}

#[tokio::test]
async fn a_full_queue_is_a_429_that_says_when_to_come_back() {
    let request = Request::post("/v2/models/echo/infer").body(X.into()).unwrap();
    let reply = send(server(Config::default(), Full), request).await;
    assert_eq!((reply.status.as_u16(), reply.headers["retry-after"].to_str().unwrap()), (429, "1"));
}

/// Answers nothing until told to.
#[derive(Clone, Default)]
struct Held(Arc<(AtomicUsize, Notify, Notify)>);

impl Run for Held {
    fn run(
        &self,
        module: Arc<dyn Module>,
        inputs: Vec<Option<Tensor>>,
        _: Option<Permit>,
    ) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let held = Arc::clone(&self.0);
        Box::pin(async move {
            held.0.fetch_add(1, Ordering::SeqCst);
            held.1.notify_one();
            held.2.notified().await;
            module.forward(inputs).map_err(RunError::Engine)
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
    assert!(refused.error().contains("overloaded"));
    held.0.2.notify_one();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(held.0.0.load(Ordering::SeqCst), 1);
}

//! What happens to a request whose version is withdrawn while it waits.

use std::sync::Mutex;

use super::*;

/// Runs models like the pool, but the first request finds that its version has been withdrawn,
/// and that the other one has everything now.
struct Withdraws {
    live: Live,
    models: Mutex<Option<ModelSet>>,
}

impl Run for Withdraws {
    fn run(&self, queue: &Queue, work: Work) -> BoxFuture<'static, Result<Vec<Output>, RunError>> {
        let next = self.models.lock().unwrap().take();
        if let (Some(next), Some(_)) = (next, work.permit) {
            let _before = self.live.publish(next);
            return Box::pin(async { Err(RunError::Withdrawn(work.inputs)) });
        }
        let module = Arc::clone(queue.module());
        Box::pin(async move { module.forward(work.inputs).map_err(RunError::Engine) })
    }
}

fn set(shares: &[(&str, u32)]) -> ModelSet {
    let fp32 = Some(Datatype::Fp32);
    let module = module(vec![field("a", fp32, None), field("b", fp32, None)], Vec::new(), add);
    let models = [("pair".parse().unwrap(), served(shares, &module))];
    ModelSet { serial: Serial(1), models: models.into() }
}

async fn answered_by(path: &str, headers: &[(&str, &str)]) -> String {
    let live = Live::default();
    let _before = live.publish(set(&[("1", 0), ("2", 10_000)]));
    let withdraws =
        Withdraws { live: live.clone(), models: Mutex::new(Some(set(&[("1", 10_000), ("2", 0)]))) };
    let server = stack(Config::default(), live, withdraws, Arc::new(|| true));
    let body = r#"{"inputs":[{"name":"a","shape":[2],"datatype":"FP32","data":[1,2]},
                             {"name":"b","shape":[2],"datatype":"FP32","data":[10,20]}]}"#;
    let request =
        headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
    let reply = send(server.layer(Extension(Principal::Loopback)), request.body(body.into()).unwrap()).await;
    assert_eq!(reply.json()["outputs"][0]["data"], serde_json::json!([11.0, 22.0]), "with all of its inputs");
    reply.json()["model_version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn it_goes_to_the_version_that_answers_now_with_all_of_its_inputs() {
    assert_eq!(answered_by("/v2/models/pair/infer", &[]).await, "1");
}

#[tokio::test]
async fn a_request_that_named_the_version_itself_gets_it_all_the_same() {
    assert_eq!(answered_by("/v2/models/pair/versions/2/infer", &[]).await, "2");
    assert_eq!(answered_by("/v2/models/pair/infer", &[("x-sconce-pin", "2")]).await, "2");
    // A route that is ahead of the catalog here knows better.
    assert_eq!(answered_by("/v2/models/pair/infer", &[("x-sconce-route", "pair/2@9")]).await, "2");
}

//! Settings of logs and traces, in both protocols, where nothing is logged.

use sconce_proto::inference::{
    LogSettingsRequest, TraceSettingRequest, grpc_inference_service_client::GrpcInferenceServiceClient,
    trace_setting_request,
};
use serde_json::json;
use tonic::Code;

use super::*;

async fn post(path: &str, body: &str) -> Reply {
    ask(Request::post(path), body.to_owned()).await
}

#[tokio::test]
async fn log_settings_can_be_read_and_not_changed_where_nothing_is_logged() {
    let settings = get("/v2/logging").await.json();
    assert_eq!(
        settings,
        json!({ "log_error": false, "log_warning": false, "log_info": false, "log_verbose_level": 0,
            "log_file": "", "log_format": "default" })
    );
    assert_eq!(post("/v2/logging", "{}").await.json(), settings);
    let refused = post("/v2/logging", r#"{"log_error":true}"#).await;
    assert!(refused.status == 501 && refused.error().contains("does not log"), "{}", refused.error());
    for (body, says) in
        [("[]", "JSON"), (r#"{"log_error":1.5}"#, "a bool"), (r#"{"log_error":-1}"#, "a bool")]
    {
        let refused = post("/v2/logging", body).await;
        assert!(refused.status == 400 && refused.error().contains(says), "{}", refused.error());
    }
    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let told = client.log_settings(LogSettingsRequest::default()).await.unwrap().into_inner().settings;
    assert_eq!(told.len(), settings.as_object().map_or(0, serde_json::Map::len));
}

#[tokio::test]
async fn nothing_is_traced_and_who_would_have_it_so_is_told() {
    for path in ["/v2/trace/setting", "/v2/models/echo/trace/setting"] {
        let off = json!({ "trace_level": ["OFF"] });
        assert_eq!(get(path).await.json(), off);
        for body in ["", r#"{"trace_level":["OFF"],"trace_rate":null}"#, r#"{"trace_level":"OFF"}"#] {
            assert_eq!(post(path, body).await.json(), off, "{path} {body}");
        }
        let refused = post(path, r#"{"trace_level":["TIMESTAMPS"]}"#).await;
        assert!(refused.status == 501 && refused.error().contains("`trace_level`"), "{}", refused.error());
    }
    assert_eq!(get("/v2/models/none/trace/setting").await.status, 404);

    let mut client = GrpcInferenceServiceClient::new(server(Config::default(), Inline));
    let told = client.trace_setting(TraceSettingRequest::default()).await.unwrap().into_inner().settings;
    assert_eq!(told["trace_level"].value, ["OFF"]);
    let rate = trace_setting_request::SettingValue { value: vec!["1".to_owned()] };
    let asked = TraceSettingRequest {
        settings: [("trace_rate".to_owned(), rate)].into(),
        model_name: "echo".to_owned(),
    };
    assert_eq!(client.trace_setting(asked).await.unwrap_err().code(), Code::Unimplemented);
}

//! What is answered over HTTP: predictions in every form, metadata, versions.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// Every datatype that JSON can carry: elements as JSON, and as bytes.
fn elements() -> Vec<(Datatype, &'static str, Vec<u8>)> {
    fn bytes<const N: usize>(elements: [[u8; N]; 2]) -> Vec<u8> {
        elements.concat()
    }
    vec![
        (Datatype::Bool, "[true,false]", vec![1, 0]),
        (Datatype::Uint8, "[0,255]", vec![0, 255]),
        (Datatype::Uint16, "[0,65535]", bytes([0u16, u16::MAX].map(u16::to_le_bytes))),
        (Datatype::Uint32, "[0,4294967295]", bytes([0u32, u32::MAX].map(u32::to_le_bytes))),
        (Datatype::Uint64, "[1,18446744073709551615]", bytes([1u64, u64::MAX].map(u64::to_le_bytes))),
        (Datatype::Int8, "[-128,127]", vec![0x80, 0x7f]),
        (Datatype::Int16, "[-32768,1]", bytes([i16::MIN, 1].map(i16::to_le_bytes))),
        (Datatype::Int32, "[-2147483648,1]", bytes([i32::MIN, 1].map(i32::to_le_bytes))),
        (
            Datatype::Int64,
            "[-9223372036854775808,9007199254740993]",
            bytes([i64::MIN, 9_007_199_254_740_993].map(i64::to_le_bytes)),
        ),
        (Datatype::Fp32, "[0.1,-3.4028235e38]", bytes([0.1f32, f32::MIN].map(f32::to_le_bytes))),
        (Datatype::Fp64, "[0.30000000000000004,5e-324]", bytes([0.1 + 0.2, 5e-324f64].map(f64::to_le_bytes))),
        (Datatype::Bytes, r#"["a\n\u00e9",""]"#, b"\x04\0\0\0a\n\xc3\xa9\0\0\0\0".to_vec()),
    ]
}

#[tokio::test]
async fn every_datatype_survives_json_and_binary_in_all_four_combinations() {
    for (datatype, text, bytes) in elements() {
        let name = datatype.name();
        let json_in = format!(r#"{{"inputs":[{{"name":"x","data":{text},"shape":[2],"datatype":"{name}"}}]"#);
        let binary_in = format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{name}","parameters":{{"binary_data_size":{}}}}}]"#,
            bytes.len()
        );
        let wanted: serde_json::Value = serde_json::from_str(text).unwrap();
        for (head, binary) in [(json_in, &[][..]), (binary_in, &bytes)] {
            let reply = infer_binary("echo", &format!("{head}}}"), binary).await;
            assert_eq!(reply.status, 200, "{name}: {:?}", reply.body);
            assert_eq!(reply.json()["outputs"][0]["data"], wanted, "{name}");
            assert!(!reply.headers.contains_key("inference-header-content-length"), "nothing binary follows");
            assert_eq!(reply.headers["content-type"], "application/json");

            let asked = format!(r#"{head},"parameters":{{"binary_data_output":true}}}}"#);
            let reply = infer_binary("echo", &asked, binary).await;
            let parameters = &reply.json()["outputs"][0]["parameters"];
            assert_eq!(parameters["binary_data_size"], bytes.len(), "{name}");
            assert!(reply.body.ends_with(&bytes), "{name}");
            assert_eq!(reply.headers["content-type"], "application/octet-stream");
        }
    }
}

#[tokio::test]
async fn half_precision_travels_as_bytes_alone() {
    for name in ["FP16", "BF16"] {
        let input = format!(r#""name":"x","shape":[2],"datatype":"{name}""#);
        let binary = format!(r#"{{"inputs":[{{{input},"parameters":{{"binary_data_size":4}}}}]"#);
        let asked = format!(r#"{binary},"parameters":{{"binary_data_output":true}}}}"#);
        assert!(infer_binary("echo", &asked, b"abcd").await.body.ends_with(b"abcd"));

        let refused = infer_binary("echo", &format!("{binary}}}"), b"abcd").await;
        assert_eq!(refused.status, 400);
        assert!(refused.error().contains("binary_data"), "{}", refused.error());
        let refused = infer("echo", format!(r#"{{"inputs":[{{{input},"data":[1,2]}}]}}"#)).await;
        assert!(refused.error().contains("binary_data_size"), "{}", refused.error());
    }
}

#[tokio::test]
async fn data_may_be_nested_flat_or_flat_from_some_dimension_on() {
    for data in ["[[[1,2],[3,4]]]", "[1,2,3,4]", "[[1,2,3,4]]"] {
        let body =
            format!(r#"{{"inputs":[{{"name":"x","shape":[1,2,2],"datatype":"INT8","data":{data}}}]}}"#);
        let reply = infer("echo", body).await;
        assert_eq!(reply.json()["outputs"][0]["data"], json!([1, 2, 3, 4]), "{data}");
    }
    for (shape, data) in [("[]", "[5]"), ("[]", "5"), ("[1]", "[5]")] {
        let body =
            format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"INT8","data":{data}}}]}}"#);
        assert_eq!(infer("echo", body).await.json()["outputs"][0]["data"], json!([5]), "{shape} {data}");
    }
    for (shape, data) in [("[0,3]", "[]"), ("[2,0]", "[[],[]]"), ("[2,0]", "[]")] {
        let body =
            format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":{data}}}]}}"#);
        assert_eq!(infer("echo", body).await.json()["outputs"][0]["data"], json!([]), "{shape} {data}");
    }
}

#[tokio::test]
async fn a_tensor_without_elements_has_a_binary_form() {
    let json = r#"{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","parameters":{"binary_data_size":0}}],"parameters":{"binary_data_output":true}}"#;
    let reply = infer_binary("echo", json, b"").await;
    assert_eq!(reply.json()["outputs"][0]["parameters"]["binary_data_size"], 0);
    assert!(reply.headers.contains_key("inference-header-content-length"));
}

#[tokio::test]
async fn one_answer_mixes_binary_and_json_outputs_in_the_order_asked() {
    let json = r#"{"id":"42","inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]},
        {"name":"b","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],
        "outputs":[{"name":"difference","parameters":{"binary_data":true}},{"name":"sum"}]}"#;
    let b: Vec<u8> = [10f32, 20.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let reply = infer_binary("add", json, &b).await;

    let body = reply.json();
    assert_eq!(
        (&body["id"], &body["model_name"], &body["model_version"]),
        (&json!("42"), &json!("add"), &json!("1"))
    );
    assert_eq!(reply.headers["x-sconce-version"], "1");
    assert_eq!(body["outputs"][0]["name"], "difference");
    assert_eq!(body["outputs"][1]["data"], json!([11.0, 22.0]));
    let difference: Vec<u8> = [-9f32, -18.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert!(reply.body.ends_with(&difference));
}

#[tokio::test]
async fn numbers_that_json_lacks_are_read_and_written_as_python_does() {
    for data in
        [r#"["NaN","Infinity","-Infinity"]"#, "[NaN, Infinity, -Infinity]", "[[NaN],[Infinity],[-Infinity]]"]
    {
        let body = format!(r#"{{"inputs":[{{"name":"x","shape":[3,1],"datatype":"FP32","data":{data}}}]}}"#);
        let reply = infer("echo", body).await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        assert!(text.contains(r#""data":[NaN,Infinity,-Infinity]"#), "{data}: {text}");
    }
}

#[tokio::test]
async fn a_body_without_json_is_the_only_input() {
    let reply = infer_binary("echo", "", b"abcd").await;
    assert!(reply.error().contains("datatype is not known"), "{}", reply.error());
    let reply = infer_binary("add", "", b"abcd").await;
    assert!(reply.error().contains("`a` (FP32 [-1, 2])"), "{}", reply.error());

    let signature = Signature {
        inputs: vec![field("x", Some(Datatype::Fp32), Some(&[-1, -1, 2]))],
        outputs: vec![],
        batching: None,
    };
    let (name, tensor) = super::super::inputs::whole(&signature, Bytes::from(vec![0; 24])).unwrap();
    assert_eq!((name.as_str(), tensor.shape), ("x", vec![1, 3, 2]));
    assert!(super::super::inputs::whole(&signature, Bytes::from(vec![0; 20])).is_err());
}

#[tokio::test]
async fn an_optional_input_may_be_left_out() {
    let reply =
        infer("add", r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#).await;
    assert_eq!(reply.json()["outputs"][0]["data"], json!([1.0, 2.0]));
}

const ONE: &str = r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;

#[tokio::test]
async fn shares_are_exact_over_ten_thousand_requests_whatever_pinned_ones_come_between() {
    let server = server(Config::default(), Inline);
    let mut counts = BTreeMap::<String, u32>::new();
    for number in 0..10_000 {
        let request = Request::post("/v2/models/halves/infer").body(ONE.into()).unwrap();
        let reply = send(server.clone(), request).await;
        *counts.entry(reply.headers["x-sconce-version"].to_str().unwrap().to_owned()).or_default() += 1;
        if number % 3 == 0 {
            let pinned = Request::post("/v2/models/halves/versions/v10/infer").body(ONE.into()).unwrap();
            assert_eq!(send(server.clone(), pinned).await.json()["model_version"], "v10");
        }
    }
    assert_eq!(counts, BTreeMap::from([("1".to_owned(), 2_500), ("v10".to_owned(), 7_500)]));
}

#[tokio::test]
async fn a_pin_in_the_header_counts_and_must_not_contradict_the_path() {
    let pinned = |path: &str, pin: &str| ask(Request::post(path).header("x-sconce-pin", pin), ONE);
    assert_eq!(pinned("/v2/models/halves/infer", "v10").await.json()["model_version"], "v10");
    assert_eq!(pinned("/v2/models/halves/versions/1/infer", "1").await.json()["model_version"], "1");
    assert_eq!(pinned("/v2/models/halves/versions/1/infer", "v10").await.status, 400);
}

#[tokio::test]
async fn an_underscore_in_a_name_is_read_as_a_hyphen_and_comes_back_as_it_was() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    for spelled in ["echo_int8", "echo-int8", "default%2Fecho_int8"] {
        let reply = infer(spelled, body).await.json();
        assert_eq!(reply["model_name"], spelled.replace("%2F", "/"), "{reply}");
        assert_eq!(get(&format!("/v2/models/{spelled}/ready")).await.status, 200, "{spelled}");
    }
    assert!(infer("no_model", body).await.error().contains("`no_model`"));
}

#[tokio::test]
async fn a_name_with_a_namespace_reaches_the_model_there() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    assert_eq!(infer("echo", body).await.json()["model_version"], "7");
    let reply = infer("other%2Fecho", body).await.json();
    assert_eq!((&reply["model_version"], &reply["model_name"]), (&json!("8"), &json!("other/echo")));
}

#[tokio::test]
async fn a_route_of_the_mesh_chooses_below_a_pin_and_only_for_its_own_model() {
    let body = r#"{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let asked = async |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::post("/v2/models/halves/infer"), |request, (name, value)| {
                request.header(*name, *value)
            });
        ask(request, body).await
    };
    let route = |text| ("x-sconce-route", text);
    for (headers, version) in [
        (vec![route("halves/1@41")], "1"),
        (vec![route("default/halves/1@41")], "1"),
        (vec![route("halves/1@41"), ("x-sconce-pin", "v10")], "v10"),
        // It has left, so the stable one answers.
        (vec![route("halves/9@41")], "v10"),
    ] {
        let reply = asked(&headers).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["x-sconce-version"]),
            (200, &version.parse().unwrap()),
            "{headers:?}"
        );
    }
    assert_eq!(asked(&[route("other/1@41")]).await.status, 200);
    let garbled = asked(&[route("halves")]).await;
    assert!(garbled.status == 400 && garbled.error().contains("<model>/<version>@<generation>"));
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let extensions = [
        "binary_tensor_data",
        "classification",
        "logging",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "sequence",
        "sequence(string_id)",
        "statistics",
        "system_shared_memory",
    ];
    assert_eq!(get("/v2").await.json()["extensions"], json!(extensions));
    assert_eq!(get("/v2/health/live").await.json()["live"], true);
    assert!(get("/v2/models").await.json()["models"].as_array().unwrap().contains(&json!("other/echo")));
    assert_eq!(
        get("/v2/models/add").await.json(),
        json!({
            "name": "add", "versions": ["1"], "platform": "pytorch_torchscript",
            "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}, {"name": "b", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1, 2]}, {"name": "difference", "datatype": "FP32", "shape": [-1, 2]}],
        })
    );
    assert_eq!(get("/v2/models/add/versions/1/ready").await.json(), json!({"name": "add", "ready": true}));
    // One model here has no ready version, which is that model's affair.
    let ready = get("/v2/health/ready").await;
    assert_eq!((ready.status, ready.json()["ready"].clone()), (StatusCode::OK, json!(true)));
    let starting =
        stack(Config::default(), live(), Inline, Arc::new(|| false)).layer(Extension(Principal::Loopback));
    let ready = send(starting, Request::get("/v2/health/ready").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (ready.status, ready.json()["ready"].clone()),
        (StatusCode::SERVICE_UNAVAILABLE, json!(false))
    );
}

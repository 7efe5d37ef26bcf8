//! Requests that are meant to hurt: each gets a clear 400, and the process lives.

use super::*;

fn echo(shape: &str, datatype: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
}

#[tokio::test]
async fn json_that_is_wrong_or_wants_too_much_is_refused() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for body in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        r#"{"inputs":{}}"#.to_owned(),
        r#"{"inputs":[],"inputs":[]}"#.to_owned(),
        r#"{"inputs":[{"name":"x","name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#.to_owned(),
        format!(r#"{{"id":{},"inputs":[]}}"#, deep(100_000)),
        format!(r#"{{"inputs":[],"parameters":{{"p":{}}}}}"#, deep(100_000)),
        echo("[1]", "INT8", &deep(100_000)),
        echo("[1]", "INT8", "[[1]]"),
        echo("[1]", "INT8", "{}"),
        echo("[1]", "INT8", "null"),
        echo("[1]", "INT8", "[null]"),
        echo("[1]", "INT8", "[NaN]"),
        echo("[1]", "FP32", "[NaN,]"),
        echo("[1]", "FP32", "[-NaN]"),
        echo("[1]", "FP32", "[NaNInfinity]"),
        echo("[2,2]", "INT8", "[[1,2,3],[4]]"),
        echo("[2,2]", "INT8", "[[1,2],3]"),
        echo("[1]", "INT8", "[128]"),
        echo("[1]", "INT8", "[1.0]"),
        echo("[1]", "UINT8", "[-1]"),
        echo("[1]", "UINT64", "[18446744073709551616]"),
        echo("[1]", "INT64", "[-9223372036854775809]"),
        echo("[1]", "INT64", &format!("[{}]", "9".repeat(100_000))),
        echo("[1]", "FP32", "[1e39]"),
        echo("[1]", "FP64", "[1e999]"),
        echo("[1]", "FP32", r#"["1"]"#),
        echo("[1]", "BOOL", "[1]"),
        echo("[1]", "BYTES", "[1]"),
        echo("[1]", "BYTES", r#"["\ud800"]"#),
        echo("[-1]", "INT8", "[1]"),
        echo("[1.5]", "INT8", "[1]"),
        echo("[18446744073709551615]", "INT8", "[1]"),
        echo("[9223372036854775807,9223372036854775807]", "INT8", "[]"),
        echo("[4611686018427387904]", "FP64", "[]"),
        echo("[1000000000000]", "INT8", "[1]"),
        echo("[1000000000]", "BYTES", "[]"),
        echo(&format!("[{}1]", "1,".repeat(100_000)), "INT8", "[1]"),
    ] {
        let reply = infer("echo", body.clone()).await;
        assert_eq!(reply.status, 400, "{}", &body[..body.len().min(200)]);
        assert!(reply.error().len() < 1_000_000, "a message, not the request again");
    }
}

#[tokio::test]
async fn binary_parts_that_lie_about_their_size_are_refused() {
    let sized = |shape: &str, datatype: &str, size: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    for (json, binary) in [
        (sized("[1]", "INT8", "10000000000"), &b"a"[..]),
        (sized("[1]", "INT8", "18446744073709551615"), b"a"),
        (sized("[1]", "INT8", "-1"), b"a"),
        (sized("[1]", "INT8", "\"1\""), b"a"),
        (sized("[2]", "INT8", "1"), b"a"),
        (sized("[1]", "INT8", "1"), b"ab"),
        (sized("[1]", "BOOL", "1"), b"\x02"),
        (sized("[1]", "BYTES", "5"), b"\xff\xff\xff\xffa"),
        (sized("[2]", "BYTES", "5"), b"\x01\0\0\0a"),
        (sized("[1]", "BYTES", "3"), b"\x01\0\0"),
    ] {
        let reply = infer_binary("echo", &json, binary).await;
        assert_eq!(reply.status, 400, "{json}");
        reply.error();
    }
    for length in ["99999999999999999999", "1000000", "-1", "x"] {
        let request =
            Request::post("/v2/models/echo/infer").header("inference-header-content-length", length);
        let reply = ask(request, "{}").await;
        assert!(reply.status == 400 && reply.error().contains("inference-header-content-length"));
    }
}

//! Bodies that come compressed, and answers that are wanted so.

use std::io::{Read as _, Write as _};

use flate2::{
    Compression,
    read::{GzDecoder, ZlibDecoder},
    write::{GzEncoder, ZlibEncoder},
};

use super::*;

fn compressed(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn plain(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(body).read_to_end(&mut plain).unwrap(),
        _ => ZlibDecoder::new(body).read_to_end(&mut plain).unwrap(),
    };
    plain
}

#[tokio::test]
async fn a_compressed_request_is_read_and_its_answer_compressed_as_it_asks() {
    const COUNT: usize = 4_000;
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{COUNT}],"datatype":"INT8","parameters":{{"binary_data_size":{COUNT}}}}}],"parameters":{{"binary_data_output":true}}}}"#
    );
    let body = [json.as_bytes(), &[7; COUNT]].concat();
    for coding in ["gzip", "deflate"] {
        let request = Request::post("/v2/models/echo/infer")
            .header("content-encoding", coding)
            // Of the body before it was compressed.
            .header("inference-header-content-length", json.len())
            .header("accept-encoding", coding);
        let reply = ask(request, compressed(coding, &body)).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.headers["content-encoding"]),
            (200, &coding.parse().unwrap())
        );
        assert!(reply.body.len() < COUNT / 4, "{} bytes", reply.body.len());
        let reply = Reply { body: plain(coding, &reply.body).into(), ..reply };
        assert_eq!(reply.json()["outputs"][0]["parameters"]["binary_data_size"], COUNT);
        assert!(reply.body.ends_with(&[7; COUNT]));
    }
}

#[tokio::test]
async fn small_answers_and_errors_are_never_compressed() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]}"#;
    for (path, status) in [("/v2/models/echo/infer", 200), ("/v2/models/none/infer", 404)] {
        let reply = ask(Request::post(path).header("accept-encoding", "gzip"), body).await;
        assert_eq!(reply.status, status);
        assert!(!reply.headers.contains_key("content-encoding"));
        reply.json();
    }
}

#[tokio::test]
async fn an_encoding_that_nobody_undoes_here_is_refused_with_those_that_are() {
    for coding in ["br", "zstd", "gzip, gzip"] {
        let reply = ask(Request::post("/v2/models/echo/infer").header("content-encoding", coding), "x").await;
        assert_eq!(
            (reply.status.as_u16(), reply.headers["accept-encoding"].to_str().unwrap()),
            (501, "gzip, deflate")
        );
        assert!(reply.error().contains(coding), "{}", reply.error());
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_or_much_larger_than_it_looks_is_refused() {
    let whole = compressed("gzip", br#"{"inputs":[]}"#);
    for body in [&b"not compressed"[..], &whole[..whole.len() - 6], b""] {
        let request = Request::post("/v2/models/echo/infer").header("content-encoding", "gzip");
        let reply = ask(request, body.to_vec()).await;
        assert!(reply.status == 400 && reply.error().contains("not gzip"), "{}", reply.error());
    }
    for coding in ["gzip", "deflate"] {
        let bomb = compressed(coding, &vec![b' '; 4 << 20]);
        let small = server(Config { max_body_bytes: 1 << 20, ..Config::default() }, Inline);
        let request = Request::post("/v2/models/echo/infer").header("content-encoding", coding);
        let reply = send(small, request.body(bomb.into()).unwrap()).await;
        assert!(reply.status == 413 && reply.error().contains("1048576 bytes"), "{}", reply.error());
    }
}

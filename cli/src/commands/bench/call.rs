//! One request, made before anything is measured and sent as often as needed, and what its
//! answer says.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use prost::Message;
use sconce_proto::inference::ModelInferResponse;
use serde::Deserialize;
use tonic::{Code, Status};

use super::{
    record::Failed,
    target::{Target, failed},
};
use crate::{commands::question::JSON_LENGTH, failure::Failure};

/// The header in which a sidecar names the version that answered.
const VERSION: &str = "x-sconce-version";
/// Of an error in another form than the protocol's, this much is shown.
const SHOWN: usize = 300;

/// A request that can be sent many times.
#[derive(Clone)]
pub(super) struct Call {
    parts: http::request::Parts,
    body: Bytes,
    grpc: bool,
}

/// An answer that arrived whole.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Call {
    /// A request over HTTP: `GET` without a body.
    pub(super) fn http(
        target: &Target,
        path: &str,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Self, Failure> {
        let method = if body.is_empty() { Method::GET } else { Method::POST };
        Self::new(target, method, path, body, headers)
    }

    /// A unary call over gRPC, with its message.
    pub(super) fn grpc(
        target: &Target,
        method: &str,
        message: &impl Message,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Self, Failure> {
        let length = message.encoded_len();
        let framed = u32::try_from(length).map_err(|_| {
            Failure::usage("the request is larger than the 4 GiB that a message of gRPC can have")
        })?;
        // Not compressed, then the length: gRPC over HTTP/2, "Length-Prefixed-Message".
        let mut body = BytesMut::with_capacity(length + 5);
        body.put_u8(0);
        body.put_u32(framed);
        message.encode(&mut body).map_err(|error| Failure::failed(error.to_string()))?;
        let grpc = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (header::TE, HeaderValue::from_static("trailers")),
        ];
        let path = format!("/inference.GRPCInferenceService/{method}");
        let mut call = Self::new(target, Method::POST, &path, body.freeze(), &[&grpc[..], headers].concat())?;
        call.grpc = true;
        Ok(call)
    }

    fn new(
        target: &Target,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Self, Failure> {
        // HTTP/2 has the host in the address, HTTP/1.1 in a header.
        let uri = if target.http2 {
            let scheme = target.address.split("://").next().unwrap_or("https");
            format!("{scheme}://{}{path}", target.authority)
        } else {
            path.to_owned()
        };
        let invalid =
            |error: &dyn std::fmt::Display| Failure::usage(format!("no request can be made: {error}"));
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse::<Uri>().map_err(|error| invalid(&error))?;
        if !target.http2 {
            let host = HeaderValue::from_str(&target.authority).map_err(|error| invalid(&error))?;
            request.headers_mut().insert(header::HOST, host);
        }
        for (name, value) in headers {
            request.headers_mut().append(name, value.clone());
        }
        Ok(Self { parts: request.into_parts().0, body, grpc: false })
    }

    /// The bytes of its body.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }

    /// A copy to send; the body is shared.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        Request::from_parts(self.parts.clone(), Full::new(self.body.clone()))
    }

    /// Whether the answer is one, as far as the protocol says.
    pub(super) fn accepted(&self, answer: &Answer) -> Result<(), Failed> {
        if self.grpc { answer.grpc() } else { answer.http() }
    }

    /// The version that answered, empty where the server does not say.
    pub(super) fn version(&self, answer: &Answer) -> String {
        if let Some(version) = answer.headers.get(VERSION).and_then(|value| value.to_str().ok()) {
            return version.to_owned();
        }
        if self.grpc {
            return answer
                .message::<ModelInferResponse>()
                .map(|message| message.model_version)
                .unwrap_or_default();
        }
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            model_version: String,
        }
        let length = answer.headers.get(JSON_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let json = answer.body.get(..length.unwrap_or(answer.body.len())).unwrap_or_default();
        serde_json::from_slice::<Named>(json).map(|named| named.model_version).unwrap_or_default()
    }
}

impl Answer {
    /// Reads the whole of a response.
    pub(super) async fn read(response: Response<Incoming>) -> Result<Self, Failed> {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| failed("connection lost", &error))?;
        let trailers = body.trailers().cloned();
        Ok(Self { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers })
    }

    fn http(&self) -> Result<(), Failed> {
        if self.status.is_success() {
            return Ok(());
        }
        let json = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        let text = json["error"].as_str().map_or_else(
            || String::from_utf8_lossy(&self.body).trim().chars().take(SHOWN).collect(),
            str::to_owned,
        );
        Err(Failed { kind: format!("HTTP {}", self.status.as_u16()), text })
    }

    fn grpc(&self) -> Result<(), Failed> {
        // An answer without a message has its status among the headers.
        let trailers = self.trailers.as_ref().and_then(Status::from_header_map);
        match trailers.or_else(|| Status::from_header_map(&self.headers)) {
            Some(status) if status.code() == Code::Ok => Ok(()),
            Some(status) => Err(Failed {
                kind: format!("gRPC {}", name(status.code())),
                text: status.message().to_owned(),
            }),
            None if self.status.is_success() => {
                Err(Failed { kind: "no gRPC".into(), text: "the answer has no grpc-status".into() })
            }
            None => self.http(),
        }
    }

    /// The message in gRPC's frame.
    pub(super) fn message<M: Message + Default>(&self) -> Result<M, String> {
        match self.body.first() {
            Some(0) if self.body.len() >= 5 => {
                M::decode(self.body.slice(5..)).map_err(|error| error.to_string())
            }
            Some(0) | None => Err("the answer has no message".into()),
            Some(_) => Err("the answer is compressed, which was not asked for".into()),
        }
    }
}

/// The name of a code as gRPC's documents write it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
            trailers: None,
        }
    }

    async fn call() -> Call {
        let trust = crate::commands::bench::target::Trust { credentials: None, name: None };
        let target = Target::new("http://127.0.0.1:1", trust, false).await.expect("an address");
        Call::http(&target, "/v2/models/m/infer", Bytes::from_static(b"{}"), &[]).expect("a request")
    }

    #[test]
    fn a_refusal_keeps_the_servers_words() {
        let refused = |body| answer(503, &[], body).http().expect_err("refused");
        assert_eq!(refused(r#"{"error": "the queue is full"}"#).text, "the queue is full");
        assert_eq!(refused("upstream connect error\n").text, "upstream connect error");
        assert_eq!(refused("").kind, "HTTP 503");
    }

    #[test]
    fn a_grpc_status_comes_in_trailers_or_alone_in_headers() {
        let alone = answer(200, &[("grpc-status", "8"), ("grpc-message", "too%20many")], "");
        let failed = alone.grpc().expect_err("refused");
        assert_eq!((failed.kind.as_str(), failed.text.as_str()), ("gRPC RESOURCE_EXHAUSTED", "too many"));
        let mut whole = answer(200, &[], "");
        assert_eq!(whole.grpc().expect_err("no status").kind, "no gRPC");
        whole.trailers = Some(HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]));
        assert_eq!(whole.grpc(), Ok(()));
        assert_eq!(answer(502, &[], "bad gateway").grpc().expect_err("a proxy's").kind, "HTTP 502");
    }

    #[tokio::test]
    async fn the_version_is_read_from_the_header_else_from_the_body() {
        let call = call().await;
        assert_eq!(call.version(&answer(200, &[("x-sconce-version", "7")], "{}")), "7");
        assert_eq!(call.version(&answer(200, &[], r#"{"model_name":"m","model_version":"3"}"#)), "3");
        let binary = answer(200, &[(JSON_LENGTH, "21")], "{\"model_version\":\"42\"}\u{1}\u{2}");
        assert_eq!(call.version(&binary), "", "cut one short, it is no JSON");
        let binary = answer(200, &[(JSON_LENGTH, "22")], "{\"model_version\":\"42\"}\u{1}\u{2}");
        assert_eq!(call.version(&binary), "42");
        assert_eq!(call.version(&answer(200, &[], r#"{"model_name":"m"}"#)), "");
    }

    #[tokio::test]
    async fn a_host_is_sent_once_in_the_way_of_each_http() {
        assert_eq!(call().await.request().headers()[header::HOST], "127.0.0.1:1");
        let trust = crate::commands::bench::target::Trust { credentials: None, name: None };
        let target = Target::new("http://127.0.0.1:1", trust, true).await.expect("an address");
        let message = sconce_proto::inference::ServerLiveRequest {};
        let request = Call::grpc(&target, "ServerLive", &message, &[]).expect("a call").request();
        assert_eq!(request.uri(), "http://127.0.0.1:1/inference.GRPCInferenceService/ServerLive");
        assert!(!request.headers().contains_key(header::HOST));
    }
}

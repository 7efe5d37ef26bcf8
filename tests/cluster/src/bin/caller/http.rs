//! Over HTTP/1.1.

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::{Connection, INPUT, MODEL, Question, Unanswered, VALUES, tensor};

#[derive(Default)]
pub(crate) struct Kept(Option<http1::SendRequest<Full<Bytes>>>);

impl Connection for Kept {
    async fn ask(&mut self, question: &Question<'_>) -> Result<String, Unanswered> {
        let mut connection = self.ready(question.authority).await?;
        let request = request(question).map_err(|error| error.to_string())?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        if parts.status == StatusCode::TOO_MANY_REQUESTS {
            self.0 = Some(connection);
            return Err(Unanswered::Refused);
        }
        if !parts.status.is_success() {
            return Err(format!("{}: {}", parts.status, String::from_utf8_lossy(&body)).into());
        }
        self.0 = Some(connection);
        Ok(version(&parts.headers)?)
    }
}

impl Kept {
    async fn ready(&mut self, authority: &str) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        // One that was closed between two requests is no failure: any client opens another.
        if let Some(mut before) = self.0.take()
            && before.ready().await.is_ok()
        {
            return Ok(before);
        }
        open(authority).await.map_err(|error| format!("no connection: {error}"))
    }
}

async fn open(authority: &str) -> Result<http1::SendRequest<Full<Bytes>>, Box<dyn std::error::Error>> {
    let tcp = match authority.split_once(':') {
        Some(_) => TcpStream::connect(authority).await?,
        None => TcpStream::connect((authority, 80)).await?,
    };
    tcp.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One row travels as JSON; more as bytes behind a JSON that says how long it is.
fn request(question: &Question<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let (host, rows) = (question.authority.trim_end_matches(":80"), question.rows);
    let mut request = Request::post(format!("/v2/models/{MODEL}/infer")).header("host", host);
    if let Some((header, person)) = &question.person {
        request = request.header(*header, person);
    }
    let mut input = json!({ "name": INPUT, "datatype": "FP32", "shape": [rows, VALUES] });
    if rows == 1 {
        input["data"] = json!(vec![0.5; VALUES]);
        let body = json!({ "inputs": [input] }).to_string();
        return request.header("content-type", "application/json").body(Full::from(body));
    }
    let tensor = tensor(rows);
    input["parameters"] = json!({ "binary_data_size": tensor.len() });
    let mut body = json!({ "inputs": [input] }).to_string().into_bytes();
    let request = request
        .header("content-type", "application/octet-stream")
        .header("inference-header-content-length", body.len());
    body.extend(tensor);
    request.body(Full::from(body))
}

fn version(headers: &hyper::HeaderMap) -> Result<String, String> {
    let version = headers.get("x-sconce-version").and_then(|version| version.to_str().ok());
    version.map(str::to_owned).ok_or_else(|| "an answer of no version".to_owned())
}

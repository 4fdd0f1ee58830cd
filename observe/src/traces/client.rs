//! Posts one request to the collector, on the exporting thread.

use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// Of an answer; what a collector says is a few bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An HTTP client with a runtime of its own: it depends on nothing that it reports about, and spans can be
/// sent when the engine's runtime is gone.
#[derive(Debug)]
pub(super) struct Client {
    timeout: Duration,
    /// Made by the exporting thread, which also drops it.
    runtime: OnceLock<Runtime>,
}

impl Client {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            runtime: OnceLock::new(),
        }
    }

    fn runtime(&self) -> Result<&Runtime, HttpError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = Builder::new_current_thread().enable_all().build()?;
        Ok(self.runtime.get_or_init(|| made))
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let posted = async {
            let timed = tokio::time::timeout(self.timeout, post(request));
            timed.await.map_err(|_| "it did not answer in time")?
        };
        self.runtime()?.block_on(posted)
    }
}

async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("no host")?.clone();
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    // To a server, the target is the path alone.
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse()?;
    head.headers
        .insert(HOST, HeaderValue::from_str(authority.as_str())?);
    let answer = sender.send_request(Request::from_parts(head, Full::new(body)));
    let (head, body) = answer.await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
    connection.abort();
    Ok(Response::from_parts(head, body.to_bytes()))
}

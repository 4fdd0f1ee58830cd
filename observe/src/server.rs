//! The HTTP server: three paths, bounded connections, bounded time and size of a request.

use flowkit_runtime::Engine;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::health::Process;
use crate::memory::Memory;
use crate::metrics;
use crate::probe;

/// A request's head, which is all that is read of it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests within this time share one look.
const LOOK_SHARED: Duration = Duration::from_millis(200);

/// Limits of the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthOptions {
    /// Time for a request's head to arrive, and again for its answer to be taken; default 5 s.
    pub patience: Duration,
    /// Connections served at once; more wait, default 64.
    pub connections_max: usize,
    /// Time between two samples of the process's memory; default 10 s.
    pub sample_every: Duration,
}

impl Default for HealthOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(5),
            connections_max: 64,
            sample_every: Duration::from_secs(10),
        }
    }
}

/// Why health cannot be served.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// `health_listen` is no address.
    Address(String),
    /// Nobody can listen there.
    Listen(SocketAddr, std::io::Error),
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(text) => write!(
                f,
                "health_listen: `{}` is no address; such as 127.0.0.1:9600",
                text.chars().take(100).collect::<String>().escape_debug()
            ),
            Self::Listen(address, error) => write!(
                f,
                "health_listen: cannot listen on {address}: {error}; name another address, or port 0 \
                 for any that is free"
            ),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(_) => None,
            Self::Listen(_, error) => Some(error),
        }
    }
}

/// Health that is being served; dropped, it is served no more.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

impl HealthServer {
    /// Where it listens: with port 0 the one that was free.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Serves health and metrics of all that runs on this engine in this process.
///
/// `listen` is `IP:PORT`. The paths: `/healthz` (200 while every driver turns), `/readyz` (200
/// while it really takes and confirms work), both with one JSON object, and `/metrics` in
/// Prometheus' text format. Nothing is asked of the caller: listen where only your monitoring gets.
///
/// # Errors
/// [`ServeError`]: the address is none, or nobody can listen there.
pub async fn serve(listen: &str, engine: &Engine) -> Result<HealthServer, ServeError> {
    serve_with(listen, engine, HealthOptions::default()).await
}

/// The same with other limits.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    listen: &str,
    engine: &Engine,
    options: HealthOptions,
) -> Result<HealthServer, ServeError> {
    let address: SocketAddr = listen
        .parse()
        .map_err(|_| ServeError::Address(listen.to_owned()))?;
    let failed = |error| ServeError::Listen(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let site = Arc::new(Site {
        engine: engine.clone(),
        started: Instant::now(),
        memory: Memory::default(),
        looks: [Mutex::new(None), Mutex::new(None)],
    });
    let sampled = site.clone();
    let sampler = tokio::spawn(async move {
        loop {
            sampled.memory.sample();
            tokio::time::sleep(options.sample_every).await;
        }
    });
    let acceptor = tokio::spawn(accept(listener, site, options));
    Ok(HealthServer {
        address,
        tasks: vec![sampler, acceptor],
    })
}

/// A process, and when it was looked at.
type Looked = (Instant, Arc<Process>);

/// What is served.
#[derive(Debug)]
struct Site {
    engine: Engine,
    started: Instant,
    memory: Memory,
    /// The newest looks, the hurried one first.
    looks: [Mutex<Option<Looked>>; 2],
}

impl Site {
    /// In a hurry, servers that hang are not waited for as long, and nobody who is waits in between.
    async fn look(&self, hurried: bool) -> Arc<Process> {
        let [hurried_look, look] = &self.looks;
        let (last, patience) = match hurried {
            true => (hurried_look, probe::SHORT_PATIENCE),
            false => (look, probe::PATIENCE),
        };
        let mut last = last.lock().await;
        if let Some((at, process)) = &*last
            && at.elapsed() < LOOK_SHARED
        {
            return process.clone();
        }
        let look = Process::look(&self.engine, self.started.elapsed(), &self.memory, patience);
        let process = Arc::new(look.await);
        *last = Some((Instant::now(), process.clone()));
        process
    }
}

async fn accept(listener: TcpListener, site: Arc<Site>, options: HealthOptions) {
    let free = Arc::new(Semaphore::new(options.connections_max.max(1)));
    // Dropped with the acceptor: no connection outlives it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the peer went away meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (site, patience) = (site.clone(), options.patience);
        connections.spawn(async move {
            connection(stream, site, patience).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, site: Arc<Site>, patience: Duration) {
    let service = service_fn(move |request| answer(request, site.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // The head has its time, the looks have theirs (a few seconds at worst), the answer has its own;
    // whoever takes it byte by byte is not waited for.
    let all = patience.saturating_mul(2) + Duration::from_secs(10);
    if let Ok(Err(error)) = tokio::time::timeout(all, served).await {
        tracing::debug!("a request for health was none: {error}");
    }
}

async fn answer(
    request: Request<Incoming>,
    site: Arc<Site>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        let paths = json!({"error": "no such path; there are /healthz, /readyz and /metrics"});
        return Ok(response(StatusCode::NOT_FOUND, JSON, paths.to_string()));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let why = json!({"error": "only GET and HEAD"});
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, JSON, why.to_string());
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(ALLOW, allowed);
        return Ok(refused);
    }
    let process = site.look(path == "/healthz").await;
    if path == "/metrics" {
        let text = metrics::text(&process);
        return Ok(response(StatusCode::OK, metrics::MEDIA_TYPE, text));
    }
    let good = match path {
        "/healthz" => process.is_alive(),
        _ => process.not_ready().is_empty(),
    };
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(response(status, JSON, format!("{}\n", process.json())))
}

const JSON: &str = "application/json";

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

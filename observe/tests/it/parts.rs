//! What health and metrics say of workers and coordinators that work, and of those that do not.

use async_trait::async_trait;
use flowkit_core::port::{
    ErrorKind, PortError, Store, StoreReply, StoreRequest, Transport, TransportReply,
    TransportRequest,
};
use flowkit_memory::{LocalTransport, MemoryStore};
use flowkit_observe::{HealthServer, serve};
use flowkit_runtime::{
    Batch, BatchResult, Engine, HandlerError, Json, RunContext, SubmitOptions, TaskHandle, Worker,
    WorkerHandle, handler_fn,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, watch};

use super::client::{Answer, get};

/// Ports that can be cut off.
#[derive(Debug, Default)]
struct Cut {
    store: AtomicBool,
    deaf: watch::Sender<bool>,
}

#[derive(Debug)]
struct CutStore(Arc<MemoryStore>, Arc<Cut>);

#[async_trait]
impl Store for CutStore {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        if self.1.store.load(Ordering::SeqCst) {
            return Err(PortError::new(ErrorKind::Retry, "call", "no route to host"));
        }
        self.0.call(request).await
    }
}

#[derive(Debug)]
struct CutTransport(LocalTransport, Arc<Cut>);

#[async_trait]
impl Transport for CutTransport {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        if matches!(
            &request,
            TransportRequest::Read {
                stream: flowkit_core::port::Stream::Inbox(_),
                ..
            }
        ) {
            let mut deaf = self.1.deaf.subscribe();
            let cut = async {
                let _ = deaf.wait_for(|deaf| *deaf).await.map(|_| ());
            };
            tokio::select! {
                biased;
                () = cut => {}
                answer = self.0.call(request) => return answer,
            }
            return std::future::pending().await;
        }
        self.0.call(request).await
    }
}

/// An engine with a worker of role `r` whose handler says when it began, and waits to be let go.
struct Bench {
    engine: Engine,
    worker: WorkerHandle,
    server: HealthServer,
    cut: Arc<Cut>,
    began: mpsc::Receiver<()>,
    go: watch::Sender<bool>,
}

impl Bench {
    async fn new() -> Self {
        let cut = Arc::new(Cut::default());
        let store = CutStore(Arc::new(MemoryStore::new()), cut.clone());
        let transport = CutTransport(LocalTransport::new(), cut.clone());
        let engine = Engine::with(Arc::new(store), Arc::new(transport));
        engine.start().await.expect("it starts");
        let (begins, began) = mpsc::channel(16);
        let (go, gone) = watch::channel(false);
        let handler = handler_fn(move |_: RunContext, _: Batch<Json>| {
            let (begins, mut gone) = (begins.clone(), gone.clone());
            async move {
                let _ = begins.send(()).await;
                let _ = gone.wait_for(|gone| *gone).await;
                Ok::<_, HandlerError>(BatchResult::of(1))
            }
        });
        let worker = Worker::builder(&engine)
            .role("r", handler)
            .worker_id("w")
            .capacity(2)
            .build()
            .expect("no fault")
            .start();
        let server = serve("127.0.0.1:0", &engine).await.expect("it listens");
        Self {
            engine,
            worker,
            server,
            cut,
            began,
            go,
        }
    }

    async fn submit(&self) -> TaskHandle {
        let graph = json!({"nodes": [{"node_id": "n", "type": "r"}]});
        let client = self.engine.client();
        client
            .submit(&graph, SubmitOptions::default())
            .await
            .expect("taken")
    }

    async fn get(&self, path: &str) -> Answer {
        get(self.server.address(), path).await
    }

    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// The value of a metric's line.
fn metric(text: &str, line: &str) -> Option<f64> {
    let found = text.lines().find_map(|l| l.strip_prefix(line))?;
    found.trim().parse().ok()
}

/// It blocks its thread, so that even dropping it is of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_ignores_its_cancel_is_counted_as_abandoned_until_it_returns() {
    let engine = Engine::memory();
    engine.start().await.expect("it starts");
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let (begin, mut began) = mpsc::unbounded_channel();
    let deaf = handler_fn(move |_: RunContext, _: Batch<Json>| {
        let (begin, blocked) = (begin.clone(), blocked.clone());
        async move {
            let _ = begin.send(());
            let _ = blocked.lock().expect("no panic").recv();
            Ok::<_, HandlerError>(BatchResult::of(1))
        }
    });
    let worker = Worker::builder(&engine).role("r", deaf).build();
    worker.expect("no fault").start();
    let server = serve("127.0.0.1:0", &engine).await.expect("it listens");
    let graph = json!({"nodes": [{"node_id": "n", "type": "r"}]});
    let client = engine.client();
    let task = client.submit(&graph, SubmitOptions::default()).await;
    let task = task.expect("taken");
    began.recv().await.expect("it runs");
    let grace = Some(std::time::Duration::from_millis(10));
    task.cancel("now", grace).await.expect("durable");
    task.wait().await.expect("nobody waits for it");
    let worker = async || get(server.address(), "/healthz").await.json()["workers"][0].clone();
    let health = worker().await;
    assert_eq!(health["abandoned"], 1, "{health}");
    assert_eq!(health["active_tasks"][0]["abandoned"], true, "{health}");
    let metrics = get(server.address(), "/metrics").await.body;
    let line = metrics
        .lines()
        .find(|line| line.contains("abandoned_runs{"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");
    release.send(()).expect("it waits");
    let over = async {
        while worker().await["abandoned"] != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let over = tokio::time::timeout(std::time::Duration::from_secs(30), over).await;
    over.expect("it says that the handler is over");
    engine.stop().await;
}

#[tokio::test]
async fn a_working_process_says_who_it_is_and_what_it_runs() {
    let mut bench = Bench::new().await;
    bench.until("/readyz", |answer| answer.status == 200).await;
    let task = bench.submit().await;
    bench.began.recv().await.expect("it runs");
    // The heartbeat that accepted the START was confirmed before the handler began.
    let is_busy = |answer: &Answer| answer.json()["workers"][0]["busy"] == json!(true);
    let health = bench.until("/healthz", is_busy).await.json();
    let worker = &health["workers"][0];
    assert_eq!(worker["worker_id"], "w", "{health}");
    assert_eq!(worker["roles"], json!(["r"]));
    assert_eq!(worker["active_tasks"][0]["task_id"], json!(task.id()));
    assert_eq!(worker["active_tasks"][0]["node_id"], "n");
    assert_eq!(worker["free_slots"], 1);
    assert_eq!(worker["lag"], 0);
    assert_eq!(worker["abandoned"], 0);
    assert_eq!(worker["last_error"], Value::Null);
    assert!(worker["last_heartbeat_ms_ago"].is_u64(), "{health}");
    assert_eq!(health["coordinator"]["shards"][0]["shard"], 0);
    assert_eq!(health["coordinator"]["tasks_in_flight"], 1);
    assert_eq!(health["ready"], true, "{health}");
    bench.go.send_replace(true);
    task.wait().await.expect("it ends");

    let done = r#"flowkit_worker_runs_ended_total{worker="w",type="r",outcome="TASK_DONE"}"#;
    let settled = r#"flowkit_coordinator_tasks_settled_total{outcome="finished"}"#;
    let text = bench
        .until("/metrics", |a| metric(&a.body, settled) == Some(1.0))
        .await
        .body;
    assert_eq!(metric(&text, done), Some(1.0), "{text}");
    for (line, value) in [
        (
            r#"flowkit_worker_runs_started_total{worker="w",type="r"}"#,
            1.0,
        ),
        (
            r#"flowkit_worker_batch_seconds_count{worker="w",type="r"}"#,
            1.0,
        ),
        (
            r#"flowkit_worker_batches_failed_total{worker="w",type="r"}"#,
            0.0,
        ),
        (
            r#"flowkit_worker_run_seconds_count{worker="w",type="r"}"#,
            1.0,
        ),
        (
            r#"flowkit_coordinator_task_seconds_count{outcome="finished"}"#,
            1.0,
        ),
        ("flowkit_coordinator_batches_accepted_total", 1.0),
        ("flowkit_coordinator_shards_owned", 1.0),
        ("flowkit_alive", 1.0),
        ("flowkit_ready", 1.0),
    ] {
        assert_eq!(metric(&text, line), Some(value), "{line}: {text}");
    }
    // Each metric is described once, before its lines.
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name").to_owned();
            let row = format!("`{name}`");
            let page = include_str!("../../../docs/guide/monitoring.md");
            assert!(page.contains(&row), "{name} stands in no row of the guide");
            assert!(described.insert(name), "{line}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            let stem = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|s| name.strip_suffix(s));
            let known = described.contains(name) || stem.is_some_and(|s| described.contains(s));
            assert!(known, "{line}");
        }
    }
    bench.engine.stop().await;
}

#[tokio::test]
async fn a_worker_without_its_store_is_not_ready_and_is_again_once_it_answers() {
    let bench = Bench::new().await;
    bench.until("/readyz", |answer| answer.status == 200).await;
    bench.cut.store.store(true, Ordering::SeqCst);
    let answer = bench.until("/readyz", |answer| answer.status == 503).await;
    assert!(
        answer.body.contains("coordinator: "),
        "its lease is not renewed: {}",
        answer.body
    );
    let last = &answer.json()["coordinator"]["last_error"]["error"];
    assert!(
        last.as_str()
            .is_some_and(|e| e.contains("no route to host")),
        "{last}"
    );
    // The drivers turn all the same.
    assert_eq!(bench.get("/healthz").await.status, 200);
    bench.cut.store.store(false, Ordering::SeqCst);
    bench.until("/readyz", |answer| answer.status == 200).await;
    bench.engine.stop().await;
}

#[tokio::test]
async fn a_deaf_worker_is_not_ready() {
    let bench = Bench::new().await;
    bench.until("/readyz", |answer| answer.status == 200).await;
    bench.cut.deaf.send_replace(true);
    // The client hears no reply either; its task is taken all the same.
    let client = bench.engine.client();
    tokio::spawn(async move {
        let graph = json!({"nodes": [{"node_id": "n", "type": "r"}]});
        client.submit(&graph, SubmitOptions::default()).await
    });
    // The START is sent again and again; how many wait depends on when it is asked.
    let is_deaf = |answer: &Answer| answer.body.contains("it is deaf: ");
    let answer = bench.until("/readyz", is_deaf).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let lag = &answer.json()["workers"][0]["lag"];
    assert!(lag.as_u64().is_some_and(|lag| lag > 0), "{lag}");
    drop(bench.worker);
}

#[tokio::test]
async fn a_process_with_nothing_in_it_is_not_ready_and_a_stopped_one_neither() {
    let engine = Engine::memory();
    let server = serve("127.0.0.1:0", &engine).await.expect("it listens");
    let answer = get(server.address(), "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("neither a worker nor a coordinator"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_process_that_is_one_worker_says_so_at_the_top() {
    let store = CutStore(Arc::new(MemoryStore::new()), Arc::default());
    let transport = CutTransport(LocalTransport::new(), Arc::default());
    let engine = Engine::with(Arc::new(store), Arc::new(transport));
    let handler = handler_fn(|_: RunContext, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let built = Worker::builder(&engine)
        .role("r", handler)
        .worker_id("solo")
        .build();
    let _worker = built.expect("no fault").start();
    let server = serve("127.0.0.1:0", &engine).await.expect("it listens");
    let health = get(server.address(), "/healthz").await.json();
    assert_eq!(health["worker_id"], "solo", "{health}");
    assert_eq!(health["busy"], false);
    assert_eq!(health["workers"][0]["worker_id"], "solo");
    assert!(health.get("coordinator").is_none());
}

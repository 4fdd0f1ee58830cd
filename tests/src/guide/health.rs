//! Health and metrics of processes over HTTP, as whoever watches them asks.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Handler, HandlerError, RunContext, SubmitOptions, TaskInput,
    TaskState,
};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use super::{Ground, Site, finished, one_node, until};

/// Status and body of a path. The server answers from a process of its own.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// Waits until a path answers so; the body.
async fn answers(address: SocketAddr, path: &str, status: u16) -> Value {
    let body = until(async || {
        let (now, body) = get(address, path);
        (now == status).then_some(body)
    })
    .await;
    serde_json::from_str(&body).expect("JSON")
}

/// Waits for a line of the metrics: requests that come close together share one look.
async fn counts(address: SocketAddr, line: &str) {
    until(async || {
        let (_, metrics) = get(address, "/metrics");
        metrics.lines().any(|said| said == line).then_some(())
    })
    .await;
}

/// As many batches as its input says, and one that fails once.
struct Batches;

impl Handler for Batches {
    type Run = ();
    type Input = u64;
    type Output = u64;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let count = input.decode::<Value>()?["batches"].as_u64().unwrap_or(0);
        let batches = (0..count).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<u64>, HandlerError> {
        if cx.info().epoch.0 == 1 && batch.payload == 2 {
            return Err(HandlerError::transient("flaky", "once"));
        }
        Ok(BatchResult::of(batch.payload))
    }
}

pub async fn metrics_count_what_workers_and_the_coordinator_have_done(ground: impl Ground) {
    let site = Site::new(ground).await;
    let process = site.process().await;
    process.start(process.builder().worker_id("w").role("r", Batches));
    let (worker, coordinator) = (process.health().await, site.health().await);
    let task = site.submit(&one_node("r", json!({"batches": 4}))).await;
    finished(&task).await;
    for server in [&worker, &coordinator] {
        answers(server.address(), "/healthz", 200).await;
        answers(server.address(), "/readyz", 200).await;
    }
    let body = answers(coordinator.address(), "/readyz", 200).await;
    let shards = body["coordinator"]["shards"].as_array();
    assert_eq!(shards.map(Vec::len), Some(1), "{body}");
    for line in [
        "flowkit_ready 1",
        "flowkit_coordinator_ready 1",
        "flowkit_coordinator_shards_owned 1",
        "flowkit_coordinator_tasks_in_flight 0",
        "flowkit_coordinator_batches_accepted_total 4",
        "flowkit_coordinator_tasks_settled_total{outcome=\"finished\"} 1",
        "flowkit_coordinator_task_seconds_count{outcome=\"finished\"} 1",
    ] {
        counts(coordinator.address(), line).await;
    }
    let of = r#"worker="w",type="r""#;
    for line in [
        "flowkit_worker_ready{worker=\"w\"} 1".to_owned(),
        format!("flowkit_worker_runs_started_total{{{of}}} 2"),
        format!("flowkit_worker_runs_ended_total{{{of},outcome=\"TASK_DONE\"}} 1"),
        format!("flowkit_worker_runs_ended_total{{{of},outcome=\"TASK_FAILED\"}} 1"),
        format!("flowkit_worker_run_seconds_count{{{of}}} 2"),
        format!("flowkit_worker_batch_seconds_count{{{of}}} 4"),
        format!("flowkit_worker_batches_failed_total{{{of}}} 1"),
    ] {
        counts(worker.address(), &line).await;
    }
    site.stop().await;
}

/// Its process is there, sends what it has to and reaches the store; only what it is told it does not hear.
pub async fn a_deaf_worker_is_alive_and_not_ready_until_it_hears_again(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (process, cut) = site.cut_process().await;
    process.start(process.builder().worker_id("w").role("r", Batches));
    let server = process.health().await;
    let address = server.address();
    answers(address, "/readyz", 200).await;
    cut.inbox.store(true, Ordering::SeqCst);
    let graph = one_node("r", json!({"batches": 1}));
    let task = site.client().submit(&graph, SubmitOptions::default()).await;
    let task = task.expect("a valid graph");
    let body = until(async || {
        let (status, body) = get(address, "/readyz");
        (status == 503 && body.contains("it is deaf: ")).then_some(body)
    })
    .await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        (&body["alive"], &body["ready"]),
        (&json!(true), &json!(false))
    );
    // Its START, and whatever repeats of it have come.
    let lag = body["workers"][0]["lag"].as_u64();
    assert!(lag.is_some_and(|lag| lag > 0), "{body}");
    let status = task.status().await.expect("there");
    assert_eq!(
        (status.state, status.nodes[0].batches),
        (TaskState::Running, 0)
    );
    answers(address, "/healthz", 200).await;
    cut.inbox.store(false, Ordering::SeqCst);
    finished(&task).await;
    answers(address, "/readyz", 200).await;
    site.stop().await;
}

pub async fn a_coordinator_that_cannot_renew_its_lease_is_not_ready_until_it_can(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let server = site.health().await;
    let address = server.address();
    answers(address, "/readyz", 200).await;
    site.cut().store.store(true, Ordering::SeqCst);
    let body = answers(address, "/readyz", 503).await;
    let why = body["not_ready"].to_string();
    assert!(why.contains("lease") || why.contains("store"), "{body}");
    assert_eq!(body["alive"], true, "{body}");
    site.cut().store.store(false, Ordering::SeqCst);
    answers(address, "/readyz", 200).await;
    site.stop().await;
}

//! Throughput: a constant number of tasks in flight, and nodes of many batches.

use flowkit::prelude::*;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::recorder::{Log, Recorder};
use crate::{Outcome, engine, finished, one_node};

/// What a run with a constant number of tasks in flight gave.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// Finished nodes per second while that many tasks were in flight.
    pub(crate) nodes_per_s: f64,
    /// Every write of the run, if asked for.
    pub(crate) log: Log,
    /// Nodes that these writes are of.
    pub(crate) nodes_logged: u64,
}

/// Keeps `in_flight` tasks of one no-op node each unsettled: whenever one is done, its lane submits
/// the next. So a node's figure includes its task's submission, and the wait for its end.
pub(crate) async fn nodes(
    path: &Path,
    in_flight: usize,
    seconds: u64,
    record: bool,
) -> Outcome<Nodes> {
    let recorder = Arc::new(Recorder::new(engine::store(path).await?, record));
    let engine = engine::start(recorder.clone()).await?;
    // The backlog first, then the workers: the measurement begins with all tasks in flight.
    let client = engine.client();
    let graph = Arc::new(Json::encode(&one_node("noop"))?);
    let done = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let submitted = Arc::new(tokio::sync::Semaphore::new(0));
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (client, graph) = (client.clone(), graph.clone());
        let (done, enough, submitted) = (done.clone(), enough.clone(), submitted.clone());
        lanes.spawn(async move {
            let mut first = true;
            while !enough.load(Ordering::Relaxed) {
                let task = client.submit(&*graph, SubmitOptions::default()).await?;
                if std::mem::take(&mut first) {
                    submitted.add_permits(1);
                }
                finished(&task).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Ok(())
        });
    }
    let all = u32::try_from(in_flight)?;
    let _all_submitted = submitted.acquire_many(all).await?;
    let workers = engine::workers(&engine, "noop", engine::noop)?;

    // The steady state begins when the backlog that was there before the workers is worked off.
    tokio::time::sleep(Duration::from_millis(500)).await;
    while done.load(Ordering::Relaxed) < u64::from(all) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (before, started) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let counted = done.load(Ordering::Relaxed) - before;
    let nodes_per_s = counted as f64 / started.elapsed().as_secs_f64();
    let log = recorder.take();
    let nodes_logged = done.load(Ordering::Relaxed);

    // What is left of a large backlog need not be worked off.
    enough.store(true, Ordering::Relaxed);
    lanes.abort_all();
    while let Some(ended) = lanes.join_next().await {
        if let Ok(outcome) = ended {
            outcome?;
        }
    }
    drop(workers);
    engine.stop().await;
    Ok(Nodes {
        nodes_per_s,
        log,
        nodes_logged,
    })
}

/// Nodes that give batches for as long as they are asked.
struct Stream {
    stop_at: Instant,
}

impl Handler for Stream {
    type Run = ();
    type Input = u64;
    type Output = ();

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _cx: &RunContext,
        _input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let stop_at = self.stop_at;
        let numbers = (0_u64..).take_while(move |_| Instant::now() < stop_at);
        Ok(BatchStream::iter(
            numbers.map(|n| Batch::new(format!("{n:08}"), n)),
        ))
    }

    async fn process(
        &self,
        _cx: &RunContext,
        _run: &mut (),
        _batch: Batch<u64>,
    ) -> Result<BatchResult<()>, HandlerError> {
        Ok(BatchResult::new())
    }
}

/// Accepted no-op batches per second, over 64 nodes that stream at once.
pub(crate) async fn batches(path: &Path, seconds: u64) -> Outcome<f64> {
    const NODES: usize = 64;
    let engine = engine::start(engine::store(path).await?).await?;
    let nodes: Vec<_> = (0..NODES)
        .map(|n| json!({"node_id": format!("n{n}"), "type": "stream"}))
        .collect();
    let started = Instant::now();
    let stop_at = started + Duration::from_secs(seconds);
    let workers = engine::workers(&engine, "stream", || Stream { stop_at })?;
    let graph = json!({"nodes": nodes});
    let task = engine
        .client()
        .submit(&graph, SubmitOptions::default())
        .await?;
    finished(&task).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let status = task.status().await?;
    let accepted: u64 = status.nodes.iter().map(|node| node.batches).sum();
    drop(workers);
    engine.stop().await;
    Ok(accepted as f64 / elapsed)
}

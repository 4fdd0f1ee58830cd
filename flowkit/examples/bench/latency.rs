//! Latency of a machine with nothing else to do.

use flowkit::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

use crate::{Outcome, engine, finished, one_node, percentile};

/// Milliseconds.
#[derive(Debug)]
pub(crate) struct Latency {
    /// `submit` called -> `wait` returned, task of one no-op node.
    pub(crate) node_ms_p50: f64,
    /// The same.
    pub(crate) node_ms_p99: f64,
    /// The same for three no-op nodes in a chain.
    pub(crate) chain3_ms_p50: f64,
    /// A handler returned its first batch -> `init` of the downstream node that streams from it.
    pub(crate) first_batch_ms_p50: f64,
}

pub(crate) async fn measure(path: &Path, repeats: usize) -> Outcome<Latency> {
    let engine = engine::start(engine::store(path).await?).await?;
    let first = Arc::new(First::default());
    let worker = Worker::builder(&engine)
        .worker_id("bench")
        .role("noop", engine::noop())
        .role("up", Up(first.clone()))
        .role("down", Down(first.clone()))
        .capacity(8)
        .build()?
        .start();
    let client = engine.client();

    let mut node = tasks(&client, &one_node("noop"), repeats).await?;
    let chain = json!({"nodes": [
        {"node_id": "a", "type": "noop"},
        {"node_id": "b", "type": "noop", "depends_on": ["a"]},
        {"node_id": "c", "type": "noop", "depends_on": ["b"]},
    ]});
    let mut chain = tasks(&client, &chain, repeats).await?;
    let streaming = json!({"nodes": [
        {"node_id": "up", "type": "up"},
        {"node_id": "down", "type": "down", "depends_on": ["up"], "io": {
            "start_when": "first_batch",
            "input_inline": {
                "input_adapter": "pull.from_artifacts",
                "input_args": {"from_nodes": ["up"]},
            },
        }},
    ]});
    tasks(&client, &streaming, repeats).await?;
    let mut first = first.take();
    worker.stop().await?;
    engine.stop().await;
    Ok(Latency {
        node_ms_p50: percentile(&mut node, 0.5),
        node_ms_p99: percentile(&mut node, 0.99),
        chain3_ms_p50: percentile(&mut chain, 0.5),
        first_batch_ms_p50: percentile(&mut first, 0.5),
    })
}

/// Runs tasks one after the other; the first ones warm up and are not counted.
async fn tasks(client: &Client, graph: &Value, repeats: usize) -> Outcome<Vec<f64>> {
    let mut times = Vec::with_capacity(repeats);
    let warm_up = repeats / 10;
    for number in 0..repeats + warm_up {
        let started = Instant::now();
        let task = client.submit(graph, SubmitOptions::default()).await?;
        finished(&task).await?;
        if number >= warm_up {
            times.push(started.elapsed().as_secs_f64() * 1_000.0);
        }
    }
    Ok(times)
}

/// From the first upstream batch to the downstream start.
#[derive(Debug, Default)]
struct First {
    returned: Mutex<Option<Instant>>,
    times: Mutex<Vec<f64>>,
    started: Notify,
}

impl First {
    fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *Self::lock(&self.times))
    }
}

/// Gives one batch, then a second one that waits until the reader has started: a reader that
/// started only at the end would never start.
struct Up(Arc<First>);

impl Handler for Up {
    type Run = ();
    type Input = bool;
    type Output = u64;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _cx: &RunContext,
        _input: TaskInput,
    ) -> Result<BatchStream<bool>, HandlerError> {
        let batches = [Batch::new("first", true), Batch::new("second", false)];
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        _cx: &RunContext,
        _run: &mut (),
        batch: Batch<bool>,
    ) -> Result<BatchResult<u64>, HandlerError> {
        if batch.payload {
            *First::lock(&self.0.returned) = Some(Instant::now());
        } else {
            self.0.started.notified().await;
        }
        Ok(BatchResult::of(1))
    }
}

struct Down(Arc<First>);

impl Handler for Down {
    type Run = ();
    type Input = Pulled<u64>;
    type Output = ();

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        if let Some(returned) = First::lock(&self.0.returned).take() {
            let elapsed = returned.elapsed().as_secs_f64() * 1_000.0;
            First::lock(&self.0.times).push(elapsed);
        }
        self.0.started.notify_one();
        Ok(())
    }

    async fn process(
        &self,
        _cx: &RunContext,
        _run: &mut (),
        _batch: Batch<Pulled<u64>>,
    ) -> Result<BatchResult<()>, HandlerError> {
        Ok(BatchResult::new())
    }
}

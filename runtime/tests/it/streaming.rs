//! Nodes that read what other nodes write, while these still run.

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Handler, HandlerError, Pulled, RunContext, TaskInput,
    TaskState, handler_fn,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{engine, submit, worker};

/// A page of numbers, as the source writes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    numbers: Vec<u64>,
}

#[derive(Deserialize)]
struct Pages {
    pages: u64,
}

/// Writes pages of five numbers each; before every page it takes a permit.
struct Source(Arc<Semaphore>);

impl Handler for Source {
    type Run = ();
    type Input = u64;
    type Output = Page;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let pages = input.decode::<Pages>()?.pages;
        Ok(BatchStream::iter(
            (0..pages).map(|n| Batch::new(format!("page-{n}"), n)),
        ))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<Page>, HandlerError> {
        self.0.acquire().await?.forget();
        let first = batch.payload * 5;
        Ok(BatchResult::of(Page {
            numbers: (first..first + 5).collect(),
        }))
    }
}

fn graph(pages: u64, adapter: &str, args: Value) -> Value {
    json!({
        "nodes": [
            {"node_id": "source", "type": "source", "io": {"input_inline": {"pages": pages}}},
            {
                "node_id": "reader",
                "type": "reader",
                "depends_on": ["source"],
                "io": {
                    "start_when": "first_batch",
                    "input_inline": {"input_adapter": adapter, "input_args": args},
                },
            },
        ],
        "edges": [],
    })
}

#[tokio::test]
async fn a_reader_takes_every_artifact_once() {
    let engine = engine().await;
    worker(&engine, "source", Source(Arc::new(Semaphore::new(100))));
    worker(
        &engine,
        "reader",
        handler_fn(|_, batch: Batch<Pulled<Page>>| async move {
            assert_eq!(batch.payload.from_node.as_str(), "source");
            let sum: u64 = batch.payload.meta.numbers.iter().sum();
            Ok(BatchResult::of(sum).metric("sum", sum))
        }),
    );
    let args = json!({"from_nodes": ["source"]});
    let task = submit(&engine, &graph(20, "pull.from_artifacts", args)).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    let reader = status.node("reader").unwrap();
    assert_eq!(reader.batches, 20);
    assert_eq!(reader.totals["sum"].sum.0, 4_950.0);
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_begins_while_its_source_still_works() {
    let engine = engine().await;
    let pages = Arc::new(Semaphore::new(1));
    let seen = Arc::new(Semaphore::new(0));
    worker(&engine, "source", Source(pages.clone()));
    let reader_saw = seen.clone();
    worker(
        &engine,
        "reader",
        handler_fn(move |_, batch: Batch<Pulled<Page>>| {
            let seen = reader_saw.clone();
            async move {
                seen.add_permits(1);
                Ok(BatchResult::of(batch.payload.meta.numbers.len()))
            }
        }),
    );
    let args = json!({"from_nodes": ["source"]});
    let task = submit(&engine, &graph(3, "pull.from_artifacts", args)).await;
    let submitted = Instant::now();
    for _ in 0..3 {
        // The source may write a page only after the reader has seen the one before.
        seen.acquire().await.unwrap().forget();
        pages.add_permits(1);
    }
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    // Time stands still unless everybody waits for a timer: nothing polled.
    assert!(
        submitted.elapsed() < Duration::from_millis(50),
        "{:?}",
        submitted.elapsed()
    );
    engine.stop().await;
}

//! A process that dies, and the next one on the same store.

use flowkit_memory::{MemoryStore, StoreModel};
use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Engine, Handler, HandlerError, RunContext, SubmitOptions,
    TaskInput, TaskState, Worker,
};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Six batches; each takes a permit. Notes every batch it works on.
struct Steps {
    permits: Arc<Semaphore>,
    worked: Arc<Mutex<Vec<u32>>>,
}

impl Handler for Steps {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        Ok(BatchStream::iter(
            (0..6).map(|n| Batch::new(format!("b{n}"), n)),
        ))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        self.worked.lock().unwrap().push(batch.payload);
        self.permits.acquire().await?.forget();
        Ok(BatchResult::of(batch.payload).metric("sum", batch.payload))
    }
}

fn process() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn the_next_process_goes_on_at_once_whatever_starts_first() {
    let time = Arc::new(AtomicU64::new(0));
    let clock = time.clone();
    let clock: flowkit_memory::Clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let store = Arc::new(MemoryStore::over(StoreModel::durable(), clock));
    let worked = Arc::new(Mutex::new(Vec::new()));
    let start = |engine: &Engine, permits| {
        let handler = Steps {
            permits: Arc::new(Semaphore::new(permits)),
            worked: worked.clone(),
        };
        let worker = Worker::builder(engine).role("steps", handler).build();
        worker.unwrap().start();
    };
    let graph = json!({"nodes": [{"node_id": "n", "type": "steps"}]});

    let first = process();
    first.block_on(async {
        let engine = Engine::local(store.clone()).await.unwrap();
        engine.start().await.unwrap();
        start(&engine, 3);
        let client = engine.client();
        let task = client.submit(&graph, SubmitOptions::with_key("k")).await;
        let mut watch = task.unwrap().watch(Duration::from_millis(1));
        // Three batches are accepted; the fourth is in work when the process dies.
        while watch.next().await.unwrap().unwrap().nodes[0].batches < 3 {}
        while worked.lock().unwrap().len() < 4 {
            tokio::task::yield_now().await;
        }
    });
    drop(first); // every task of the process is gone, wherever it was
    assert_eq!(*worked.lock().unwrap(), [0, 1, 2, 3]);
    // The lease on the shard; stores that a process holds alone have none to wait for.
    time.store(5_001, Ordering::Relaxed);

    let began = Instant::now();
    process().block_on(async {
        let engine = Engine::local(store.clone()).await.unwrap();
        start(&engine, 6); // before the coordinator
        engine.start().await.unwrap();
        let task = engine.client().task_of_key("k");
        assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
        let status = task.status().await.unwrap();
        let node = status.node("n").unwrap();
        assert_eq!((node.attempts.0, node.grants, node.batches), (1, 2, 6));
        assert_eq!(
            (node.totals["sum"].sum.0, node.totals["sum"].count),
            (15.0, 6)
        );
        engine.stop().await;
    });
    // A worker's lease is a minute long, and a START that nobody answers is given up after 5 s; nothing
    // waited for either.
    assert!(
        began.elapsed() < Duration::from_millis(4_500),
        "{:?}",
        began.elapsed()
    );
    // What was accepted was not worked on again.
    assert_eq!(*worked.lock().unwrap(), [0, 1, 2, 3, 3, 4, 5]);
}

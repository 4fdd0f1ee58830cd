//! Health of processes whose servers hang, and of workers that wait for theirs.

use async_trait::async_trait;
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest};
use flowkit_memory::{LocalTransport, MemoryStore};
use flowkit_runtime::{Batch, BatchResult, Engine, Json, RunContext, Worker, handler_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use super::Process;
use crate::memory::Memory;
use crate::probe::{PATIENCE, SHORT_PATIENCE};

/// A store that may stop to answer, without an error.
#[derive(Debug, Default)]
struct Hanging {
    store: MemoryStore,
    hangs: AtomicBool,
}

#[async_trait]
impl Store for Hanging {
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        if self.hangs.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        self.store.call(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_of_many_workers_is_alive_and_says_so_soon_although_its_store_hangs() {
    const WORKERS: usize = 12;
    let store = Arc::new(Hanging::default());
    let engine = Engine::with(store.clone(), Arc::new(LocalTransport::new()));
    engine.start().await.expect("it starts");
    for n in 0..WORKERS {
        let handler =
            handler_fn(|_: RunContext, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
        let worker = Worker::builder(&engine).role("r", handler);
        let worker = worker.worker_id(format!("w{n}")).build();
        let worker = worker.expect("no fault").start();
        let is_new = async || {
            let vitals = worker.vitals().await;
            vitals.is_none_or(|vitals| vitals.incarnation.is_none())
        };
        while is_new().await {
            tokio::task::yield_now().await;
        }
    }
    store.hangs.store(true, Ordering::SeqCst);
    for patience in [SHORT_PATIENCE, PATIENCE] {
        let asked = Instant::now();
        let process = Process::look(&engine, Duration::ZERO, &Memory::default(), patience).await;
        // The drivers answer at once, and the paused clock moves for nothing but a wait.
        assert!(asked.elapsed() < 2 * patience, "{:?}", asked.elapsed());
        assert!(process.is_alive(), "{process:?}");
        assert_eq!(process.workers.len(), WORKERS);
        assert!(process.workers.iter().all(|w| w.look.store.is_err()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_never_reached_its_store_is_alive_and_not_ready() {
    let store = Arc::new(Hanging::default());
    store.hangs.store(true, Ordering::SeqCst);
    let engine = Engine::with(store, Arc::new(LocalTransport::new()));
    let handler = handler_fn(|_: RunContext, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let worker = Worker::builder(&engine).role("r", handler).build();
    let worker = worker.expect("no fault").start();
    let memory = Memory::default();
    let look = || Process::look(&engine, Duration::ZERO, &memory, SHORT_PATIENCE);
    let process = look().await;
    assert!(process.is_alive(), "{process:?}");
    let why = process.not_ready();
    assert!(why[0].contains("it waits for the store"), "{why:?}");
    worker.stop().await.expect("in order");
    assert!(look().await.is_alive(), "there is no worker any more");
}

//! The engine under measurement: one process, embedded store, two workers.

use flowkit::prelude::*;
use flowkit_core::port::Store;
use std::path::Path;
use std::sync::Arc;

use crate::Outcome;

/// Nodes that run at once, over all workers.
pub(crate) const SLOTS: u32 = 512;
const WORKERS: u32 = 2;

/// Opens a store.
pub(crate) async fn store(path: &Path) -> Outcome<Arc<EmbeddedStore>> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await?;
    Ok(Arc::new(opened?))
}

/// An engine with a coordinator; no worker yet.
pub(crate) async fn start(store: Arc<dyn Store>) -> Outcome<Engine> {
    let engine = Engine::local(store).await?;
    engine.start().await?;
    Ok(engine)
}

/// Starts workers for a role.
pub(crate) fn workers<H: Handler>(
    engine: &Engine,
    role: &str,
    handler: impl Fn() -> H,
) -> Outcome<Vec<WorkerHandle>> {
    let worker = |number: u32| -> Outcome<WorkerHandle> {
        let worker = Worker::builder(engine)
            .worker_id(format!("bench-{number}"))
            .role(role, handler())
            .capacity(SLOTS / WORKERS)
            .build()?;
        Ok(worker.start())
    };
    (1..=WORKERS).map(worker).collect()
}

/// Does nothing.
pub(crate) fn noop() -> impl Handler {
    handler_fn(|_cx, _batch: Batch<Option<u64>>| async move { Ok(BatchResult::<()>::new()) })
}

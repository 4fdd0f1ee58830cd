//! The store model passes the suite in both modes.

use async_trait::async_trait;
use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::port::Store;
use flowkit_memory::{Clock, MemoryStore, StoreFault, StoreModel};
use flowkit_tests::{StoreBackend, StoreCaps, StoreInstance};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Model {
    store: Arc<MemoryStore>,
    now_ms: Arc<AtomicU64>,
}

#[async_trait]
impl StoreBackend for Model {
    async fn crash_and_reopen(&mut self) -> Arc<dyn Store> {
        self.store.model().crash();
        self.store.clone()
    }

    async fn pass_time(&mut self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        self.store.model().inject(StoreFault::Poison {
            task_id: task.clone(),
            node_id: node.cloned(),
        });
        true
    }

    async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool {
        let mut model = self.store.model();
        let is_there = model.workers().any(|known| known.worker_id == *worker);
        model.inject(StoreFault::PoisonWorker {
            worker_id: worker.clone(),
        });
        is_there
    }
}

async fn open(model: StoreModel) -> StoreInstance {
    let now_ms = Arc::new(AtomicU64::new(0));
    let clock = now_ms.clone();
    let clock: Clock = Arc::new(move || clock.load(Ordering::Relaxed));
    let store = Arc::new(MemoryStore::over(model, clock));
    let backend = Model {
        store: store.clone(),
        now_ms,
    };
    StoreInstance::new(store, StoreCaps::default(), Box::new(backend))
}

flowkit_tests::store_conformance!(durable_model, open(StoreModel::durable()));
flowkit_tests::store_conformance!(two_phase_model, open(StoreModel::two_phase()));

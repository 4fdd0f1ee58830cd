//! The features of the guide, in memory.

use async_trait::async_trait;
use flowkit_memory::{LocalTransport, MemoryStore, StoreFault};
use flowkit_runtime::{Engine, NodeId, TaskId};
use flowkit_tests::guide::{Ground, Ports};
use std::sync::Arc;
use tokio::sync::Mutex;

/// The store outlives its processes here, so that there can be a next one.
#[derive(Default)]
struct Memory {
    store: Arc<MemoryStore>,
    streams: Mutex<Option<Arc<LocalTransport>>>,
}

#[async_trait]
impl Ground for Memory {
    async fn ports(&self) -> Ports {
        let mut streams = self.streams.lock().await;
        if streams.is_none() {
            let made = Engine::local_streams(&*self.store).await;
            *streams = Some(Arc::new(made.expect("a store in memory can be read")));
        }
        let streams = streams.clone().expect("they were made");
        Ports::alone(self.store.clone(), streams)
    }

    async fn all_dead(&self) {
        *self.streams.lock().await = None;
    }

    async fn damage(&self, task: &TaskId, node: Option<&NodeId>) {
        self.store.model().inject(StoreFault::Poison {
            task_id: task.clone(),
            node_id: node.cloned(),
        });
    }
}

async fn open() -> Memory {
    Memory::default()
}

flowkit_tests::guide_conformance!(memory, open());

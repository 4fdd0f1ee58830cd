//! The features of the guide on one machine: the embedded store in a folder.

use async_trait::async_trait;
use flowkit_memory::LocalTransport;
use flowkit_runtime::{Engine, NodeId, TaskId};
use flowkit_store_embedded::EmbeddedStore;
use flowkit_tests::guide::{Ground, Ports};
use std::sync::Arc;
use tokio::sync::Mutex;

struct Folder {
    folder: tempfile::TempDir,
    open: Mutex<Option<(Arc<EmbeddedStore>, Arc<LocalTransport>)>>,
}

#[async_trait]
impl Ground for Folder {
    async fn ports(&self) -> Ports {
        let mut open = self.open.lock().await;
        if open.is_none() {
            let store = EmbeddedStore::open(self.folder.path());
            let store = store.unwrap_or_else(|error| panic!("{error}"));
            let streams = Engine::local_streams(&store).await;
            let streams = streams.expect("what was opened can be read");
            *open = Some((Arc::new(store), Arc::new(streams)));
        }
        let (store, streams) = open.clone().expect("it was opened");
        Ports::alone(store, streams)
    }

    async fn all_dead(&self) {
        *self.open.lock().await = None;
    }

    async fn damage(&self, task: &TaskId, node: Option<&NodeId>) {
        let open = self.open.lock().await.clone();
        let (store, _) = open.expect("it is open");
        assert!(store.damage(task, node).await);
    }
}

async fn open() -> Folder {
    Folder {
        folder: tempfile::tempdir().expect("a folder"),
        open: Mutex::default(),
    }
}

flowkit_tests::guide_conformance!(embedded, open());

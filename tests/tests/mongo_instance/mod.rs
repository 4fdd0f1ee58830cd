//! A store on the real MongoDB, in a database of its own.

use async_trait::async_trait;
use flowkit_core::id::{NodeId, TaskId, WorkerId};
use flowkit_core::port::Store;
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_tests::{StoreBackend, StoreCaps, StoreInstance, servers};
use mongodb::bson::{Document, doc};
use std::sync::Arc;
use std::time::Duration;

/// A database of its own; it goes when the case is over.
struct Fresh {
    uri: String,
    name: String,
    /// How many records were damaged: each in the next way.
    damaged: usize,
}

impl Fresh {
    async fn open(&self) -> Arc<dyn Store> {
        let settings = MongoSettings::new(&servers::mongo())
            .database(&self.name)
            .pool_max(8);
        let store = MongoStore::connect(settings).await;
        Arc::new(store.unwrap_or_else(|error| panic!("{error}")))
    }

    async fn raw(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(&self.uri).await;
        client.expect("MongoDB is up").database(&self.name)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let (name, uri) = (self.name.clone(), self.uri.clone());
        // The case's runtime is ending: a short one of its own drops the database.
        let dropped = std::thread::spawn(move || {
            flowkit_tests::run(async {
                if let Ok(client) = mongodb::Client::with_uri_str(uri).await {
                    let _ = client.database(&name).drop().await;
                }
            });
        });
        let _ = dropped.join();
    }
}

#[async_trait]
impl StoreBackend for Fresh {
    async fn crash_and_reopen(&mut self) -> Arc<dyn Store> {
        self.open().await
    }

    async fn pass_time(&mut self, ms: u64) {
        // The server's clock is a real one.
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn make_unreadable(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        let (collection, id) = match node {
            Some(node) => ("nodes", format!("{task}\n{node}")),
            None => ("tasks", task.to_string()),
        };
        let rot = match self.damaged % 4 {
            0 => doc! { "$set": { "v": 999, "body": "rotten" } },
            1 => doc! { "$set": { "v": 999 } },
            2 => doc! { "$set": { "body": "rotten" } },
            _ => doc! { "$unset": { "body": true } },
        };
        self.damaged += 1;
        let database = self.raw().await;
        let collection = database.collection::<Document>(collection);
        let done = collection.update_one(doc! { "_id": id }, rot).await;
        done.expect("MongoDB is up").matched_count == 1
    }

    async fn make_worker_unreadable(&mut self, worker: &WorkerId) -> bool {
        let database = self.raw().await;
        let workers = database.collection::<Document>("workers");
        let rot = doc! { "$set": { "v": 999 } };
        let done = workers
            .update_one(doc! { "_id": worker.as_str() }, rot)
            .await;
        done.expect("MongoDB is up").matched_count == 1
    }
}

/// A store on an empty database.
pub(crate) async fn open() -> StoreInstance {
    let fresh = Fresh {
        uri: servers::mongo(),
        name: servers::fresh_name("flowkit_store"),
        damaged: 0,
    };
    let caps = StoreCaps {
        unreadable: true,
        lease_ms: 400,
    };
    StoreInstance::new(fresh.open().await, caps, Box::new(fresh))
}

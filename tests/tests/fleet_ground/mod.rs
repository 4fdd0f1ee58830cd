//! A deployment on a real Kafka and MongoDB: each process with connections of its own, as
//! `flowkit coordinator` and `flowkit worker` make them.

use async_trait::async_trait;
use flowkit_core::port::Store;
use flowkit_runtime::{Engine, EngineSettings, NodeId, TaskId};
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_tests::guide::{Ground, Ports};
use flowkit_tests::servers;
use flowkit_transport_kafka::KafkaTransport;
use mongodb::bson::{Document, doc};
use std::sync::Arc;

use super::kafka_topics::Topics;

/// A database and topics that no other case uses.
pub(crate) struct Fleet {
    database: Database,
    topics: Topics,
}

/// Dropped when the case is over.
struct Database(String);

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.0.clone();
        // The case's runtime is ending: a short one of its own drops the database.
        let dropped = std::thread::spawn(move || {
            flowkit_tests::run(async {
                if let Ok(client) = mongodb::Client::with_uri_str(servers::mongo()).await {
                    let _ = client.database(&name).drop().await;
                }
            });
        });
        let _ = dropped.join();
    }
}

impl Fleet {
    pub(crate) fn open() -> Self {
        Self {
            database: Database(servers::fresh_name("flowkit_guide")),
            topics: Topics::fresh("flowkit_guide"),
        }
    }
}

#[async_trait]
impl Ground for Fleet {
    async fn ports(&self) -> Ports {
        let mongo = MongoSettings::new(&servers::mongo()).database(&self.database.0);
        let store = MongoStore::connect(mongo).await;
        let store: Arc<dyn Store> = Arc::new(store.unwrap_or_else(|error| panic!("{error}")));
        let mut settings = EngineSettings::default();
        settings.inboxes = 2;
        let deployment = Engine::deployment_of(&*store, &settings).await;
        let deployment = deployment.unwrap_or_else(|error| panic!("{error}"));
        let kafka = self.topics.settings().shards(deployment.shards);
        let transport = KafkaTransport::connect(kafka.inboxes(deployment.inboxes)).await;
        Ports {
            store,
            transport: Arc::new(transport.unwrap_or_else(|error| panic!("{error}"))),
            settings,
            alone: false,
        }
    }

    async fn damage(&self, task: &TaskId, node: Option<&NodeId>) {
        let (collection, id) = match node {
            Some(node) => ("nodes", format!("{task}\n{node}")),
            None => ("tasks", task.to_string()),
        };
        let client = mongodb::Client::with_uri_str(servers::mongo()).await;
        let database = client.expect("MongoDB is up").database(&self.database.0);
        let records = database.collection::<Document>(collection);
        let rot = doc! { "$set": { "body": "rotten" } };
        let done = records.update_one(doc! { "_id": id }, rot).await;
        assert_eq!(done.expect("MongoDB is up").matched_count, 1);
    }
}

//! An engine over Kafka and MongoDB: for workers, coordinators and clients as processes of their own.
//!
//! `docs/guide/deployment.md` shows a worker and a coordinator.

use flowkit_core::port::{PortError, Store};
use flowkit_runtime::{Engine, EngineSettings};
use std::sync::Arc;

use crate::settings::Settings;

pub use flowkit_store_mongo::{MongoSettings, MongoStore};
pub use flowkit_transport_kafka::{KafkaSettings, KafkaTransport};

/// Why there is no engine over the servers that the settings name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings name no server: each key that is missing, with the cure.
    #[error("{}", .0.join("\n  "))]
    Unnamed(Vec<&'static str>),
    /// MongoDB cannot be used.
    #[error(transparent)]
    Store(#[from] flowkit_store_mongo::OpenError),
    /// Kafka cannot be used.
    #[error(transparent)]
    Transport(#[from] flowkit_transport_kafka::OpenError),
    /// What was fixed when the deployment was created cannot be read.
    #[error("the deployment's record cannot be read: {0}")]
    Deployment(#[from] PortError),
}

/// The engine over the servers that the settings name (`kafka_bootstrap`, `mongo_uri` and the rest of
/// [`FleetSettings`](crate::settings::FleetSettings)); nothing runs in it yet.
///
/// Of a deployment that nobody has used yet it makes the collections and topics, with `shards` and
/// `inboxes` as the settings say; later ones find them as they are. `settings.worker` and
/// `settings.coordinator` are for
/// [`WorkerBuilder::settings`](crate::WorkerBuilder::settings) and
/// [`Engine::start_with`](crate::Engine::start_with).
///
/// # Errors
/// A server is not named, not there, or not as it must be. It is not tried again: whoever supervises the
/// process starts it again.
///
/// # Cancel safety
/// Cancel safe: what was made on the servers stays, and may be asked for again.
pub async fn connect(settings: &Settings) -> Result<Engine, ConnectError> {
    let fleet = &settings.fleet;
    let mut unnamed = Vec::new();
    if fleet.kafka_bootstrap.is_empty() {
        unnamed.push("kafka_bootstrap: name the brokers with --kafka HOST:PORT or FLOWKIT_KAFKA");
    }
    if fleet.mongo_uri.is_empty() {
        unnamed.push("mongo_uri: name MongoDB with --mongo URI or FLOWKIT_MONGO");
    }
    if !unnamed.is_empty() {
        return Err(ConnectError::Unnamed(unnamed));
    }
    let mongo = MongoSettings::new(&fleet.mongo_uri).database(&fleet.database);
    let store: Arc<dyn Store> = Arc::new(MongoStore::connect(mongo).await?);
    let mut engine = EngineSettings::default();
    engine.shards = fleet.shards;
    engine.inboxes = fleet.inboxes;
    let deployment = Engine::deployment_of(&*store, &engine).await?;
    let mut kafka = KafkaSettings::new(&fleet.kafka_bootstrap)
        .topic_prefix(&fleet.topic_prefix)
        .shards(deployment.shards)
        .inboxes(deployment.inboxes);
    for (name, value) in &fleet.kafka_properties {
        kafka = kafka.property(name, value);
    }
    let transport = KafkaTransport::connect(kafka).await?;
    Ok(Engine::with_settings(store, Arc::new(transport), engine))
}

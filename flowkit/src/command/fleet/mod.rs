//! The engine as separate processes over Kafka and MongoDB.

pub(crate) mod coordinator;
pub(crate) mod worker;

use flowkit::prelude::*;

use super::failure::Failure;
use flowkit::settings::Settings;

/// Connects to the servers that the settings name.
#[cfg(feature = "fleet")]
pub(crate) async fn connect(settings: &Settings) -> Result<Engine, Failure> {
    use flowkit_store_mongo::{MongoSettings, MongoStore};
    use flowkit_transport_kafka::{KafkaSettings, KafkaTransport};
    use std::sync::Arc;

    let fleet = &settings.fleet;
    let mut missing = Vec::new();
    if fleet.kafka_bootstrap.is_empty() {
        missing.push("kafka_bootstrap: name the brokers with --kafka HOST:PORT or FLOWKIT_KAFKA");
    }
    if fleet.mongo_uri.is_empty() {
        missing.push("mongo_uri: name MongoDB with --mongo URI or FLOWKIT_MONGO");
    }
    if !missing.is_empty() {
        return Err(Failure::input(missing.join("\n  ")));
    }
    let mongo = MongoSettings::new(&fleet.mongo_uri).database(&fleet.database);
    let store = MongoStore::connect(mongo).await.map_err(Failure::input)?;
    let mut engine = EngineSettings::default();
    engine.shards = fleet.shards;
    engine.inboxes = fleet.inboxes;
    let store: Arc<dyn flowkit_core::port::Store> = Arc::new(store);
    // Like all before the start: whoever supervises the process starts it again.
    let deployment = Engine::deployment_of(&*store, &engine)
        .await
        .map_err(Failure::input)?;
    let mut kafka = KafkaSettings::new(&fleet.kafka_bootstrap)
        .topic_prefix(&fleet.topic_prefix)
        .shards(deployment.shards)
        .inboxes(deployment.inboxes);
    for (name, value) in &fleet.kafka_properties {
        kafka = kafka.property(name, value);
    }
    let transport = KafkaTransport::connect(kafka)
        .await
        .map_err(Failure::input)?;
    if deployment.shards != fleet.shards && fleet.shards != 1 {
        eprintln!(
            "note: this deployment was created with {} shards; --shards {} changes nothing",
            deployment.shards, fleet.shards
        );
    }
    Ok(Engine::with_settings(store, Arc::new(transport), engine))
}

/// This build has no adapters.
#[cfg(not(feature = "fleet"))]
pub(crate) async fn connect(_settings: &Settings) -> Result<Engine, Failure> {
    Err(Failure::input(
        "this `flowkit` is built for one machine, without the adapters for Kafka and MongoDB; build \
         it with them: cargo build --release --features fleet",
    ))
}

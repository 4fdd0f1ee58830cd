//! The engine as separate processes over Kafka and MongoDB.

pub(crate) mod coordinator;
pub(crate) mod worker;

use flowkit::prelude::*;
use serde_json::json;

use super::args::{FleetArgs, HealthArgs};
use super::failure::Failure;
use flowkit::settings::{Given, Settings};

impl FleetArgs {
    /// The flags over the environment over the file.
    pub(crate) fn given(&self) -> Result<Given, Failure> {
        let mut given = Given::default();
        if let Some(path) = &self.config {
            given.file(path).map_err(Failure::input)?;
        }
        given.environment(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        given.flag(
            "kafka_bootstrap",
            "--kafka",
            self.kafka.as_ref().map(|v| json!(v)),
        );
        given.flag(
            "mongo_uri",
            "--mongo",
            self.mongo.as_ref().map(|v| json!(v)),
        );
        given.flag(
            "database",
            "--database",
            self.database.as_ref().map(|v| json!(v)),
        );
        let prefix = self.topic_prefix.as_ref().map(|v| json!(v));
        given.flag("topic_prefix", "--topic-prefix", prefix);
        given.flag("shards", "--shards", self.shards.map(|v| json!(v)));
        Ok(given)
    }

    /// Flags that say that servers are meant, not a data folder.
    pub(crate) const fn is_given(&self) -> bool {
        self.kafka.is_some()
            || self.mongo.is_some()
            || self.database.is_some()
            || self.topic_prefix.is_some()
            || self.shards.is_some()
            || self.config.is_some()
    }
}

impl HealthArgs {
    /// The flags, over what was given before.
    pub(crate) fn give(&self, given: &mut Given) {
        let listen = self.health_listen.as_ref().map(|at| json!(at));
        given.flag("health_listen", "--health-listen", listen);
        let traces = self.otlp_endpoint.as_ref().map(|at| json!(at));
        given.flag("otlp_endpoint", "--otlp-endpoint", traces);
    }
}

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

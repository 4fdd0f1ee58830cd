//! One deployment of its own: a database and topics that nobody else uses, and its processes.

use flowkit_core::port::Store;
use flowkit_runtime::{Engine, EngineSettings};
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_transport_kafka::{KafkaSettings, KafkaTransport};
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::Outcome;
use crate::process::Process;

/// Where the servers are, and the command whose processes are measured.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    pub(crate) kafka: String,
    pub(crate) mongo: String,
    pub(crate) flowkit: PathBuf,
}

/// A deployment. Call [`Deployment::remove`] at its end.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) servers: Servers,
    /// Of its database, and what its topics begin with.
    pub(crate) name: String,
    pub(crate) shards: u32,
    /// Settings of its processes that are not the defaults, by variable.
    settings: Vec<(&'static str, String)>,
}

/// Runs one measurement on a deployment of its own and removes it, whatever came of it.
pub(crate) async fn with<T>(
    servers: &Servers,
    shards: u32,
    settings: &[(&'static str, String)],
    part: impl AsyncFnOnce(&Deployment) -> Outcome<T>,
) -> Outcome<T> {
    let deployment = Deployment {
        servers: servers.clone(),
        name: flowkit_tests::servers::fresh_name("flowkit_bench"),
        shards,
        settings: settings.to_vec(),
    };
    let outcome = part(&deployment).await;
    let removed = deployment.remove().await;
    let value = outcome?;
    removed?;
    Ok(value)
}

impl Deployment {
    fn start(&self, words: &[&str]) -> Outcome<Process> {
        let mut command = Command::new(&self.servers.flowkit);
        command
            .args(words)
            .args(["--database", &self.name, "--topic-prefix", &self.name])
            .args(["--shards", &self.shards.to_string()])
            .env("FLOWKIT_KAFKA", &self.servers.kafka)
            .env("FLOWKIT_MONGO", &self.servers.mongo)
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        Process::start(command)
    }

    pub(crate) fn coordinator(&self) -> Outcome<Process> {
        self.start(&["coordinator"])
    }

    pub(crate) fn worker(&self, id: &str, role: &str, capacity: u32) -> Outcome<Process> {
        let capacity = capacity.to_string();
        let who = ["--worker-id", id, "--capacity", &capacity];
        self.start(&[&["worker", "--role", role], &who[..]].concat())
    }

    /// This process as one that only submits and asks.
    pub(crate) async fn engine(&self) -> Outcome<Engine> {
        let settings = MongoSettings::new(&self.servers.mongo).database(&self.name);
        let store: Arc<dyn Store> = Arc::new(MongoStore::connect(settings).await?);
        let mut engine = EngineSettings::default();
        engine.shards = self.shards;
        let created = Engine::deployment_of(&*store, &engine).await?;
        let settings = KafkaSettings::new(&self.servers.kafka)
            .topic_prefix(&self.name)
            .shards(created.shards)
            .inboxes(created.inboxes);
        let transport = Arc::new(KafkaTransport::connect(settings).await?);
        Ok(Engine::with_settings(store, transport, engine))
    }

    /// Its database, seen from outside.
    pub(crate) async fn database(&self) -> Outcome<Database> {
        let mut options = ClientOptions::parse(&self.servers.mongo).await?;
        let durable = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .build();
        options.write_concern = Some(durable);
        options.read_concern = Some(ReadConcern::majority());
        let client = mongodb::Client::with_options(options)?;
        Ok(client.database(&self.name))
    }

    pub(crate) fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers.kafka);
        config
    }

    /// Drops its database and its topics.
    async fn remove(&self) -> Outcome {
        let database = self.database().await?;
        // What was killed in the middle of a commit would hold the drop up for a minute.
        let shards = database.collection::<Document>("shards");
        let shards: Vec<Document> = shards.find(doc! {}).await?.try_collect().await?;
        for session in shards.iter().filter_map(|shard| shard.get("session")) {
            let command = doc! { "killSessions": [{ "id": session.clone() }] };
            database
                .client()
                .database("admin")
                .run_command(command)
                .await?;
        }
        database.drop().await?;
        let mut config = self.kafka();
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let reader: BaseConsumer = config.set("group.id", &self.name).create()?;
        let topics = reader.fetch_metadata(None, Duration::from_secs(10))?;
        let names = topics.topics().iter().map(|topic| topic.name());
        let names: Vec<&str> = names.filter(|name| name.starts_with(&self.name)).collect();
        if !names.is_empty() {
            admin.delete_topics(&names, &AdminOptions::new()).await?;
        }
        Ok(())
    }
}

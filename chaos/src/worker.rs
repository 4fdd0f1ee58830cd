//! A worker process: the real drivers and adapters, with handlers that follow a plan.

use clap::Args;
use flowkit_core::id::WorkerId;
use flowkit_core::port::Store;
use flowkit_runtime::{
    Engine, EngineSettings, Worker, WorkerError, WorkerSettings, shutdown_signal,
};
use flowkit_sim::acting::Scripted;
use flowkit_sim::plan::Plan;
use flowkit_store_mongo::{MongoSettings, MongoStore};
use flowkit_transport_kafka::{KafkaSettings, KafkaTransport};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::journal::Journal;
use crate::recorder::Recorded;

/// A newer process of the same worker is alive.
pub(crate) const SUPERSEDED: u8 = 3;
/// It could not start: its servers are not there.
pub(crate) const NOT_STARTED: u8 = 2;

/// What the process is and where its servers are.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// File of the plan.
    #[arg(long)]
    pub(crate) plan: PathBuf,
    /// Which worker of the plan it is.
    #[arg(long)]
    pub(crate) worker: usize,
    /// File that it appends to.
    #[arg(long)]
    pub(crate) journal: PathBuf,
    /// Kafka.
    #[arg(long)]
    pub(crate) kafka: String,
    /// MongoDB.
    #[arg(long)]
    pub(crate) mongo: String,
    /// Database, and prefix of the topics.
    #[arg(long)]
    pub(crate) name: String,
}

pub(crate) fn run(options: &Options) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work(options)),
        Err(error) => not_started(&error.to_string()),
    }
}

fn not_started(why: &str) -> ExitCode {
    eprintln!("not started: {why}");
    ExitCode::from(NOT_STARTED)
}

async fn work(options: &Options) -> ExitCode {
    let worker = match build(options).await {
        Ok(worker) => worker,
        Err(why) => return not_started(&why),
    };
    match worker.run(shutdown_signal()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(WorkerError::Superseded) => ExitCode::from(SUPERSEDED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn build(options: &Options) -> Result<Worker, String> {
    let plan = crate::read_plan(&options.plan)?;
    let world = &plan.world;
    let mine = world.workers.get(options.worker);
    let mine = mine.ok_or_else(|| format!("the plan has no worker {}", options.worker))?;
    let id = WorkerId::new(&mine.id).map_err(|e| format!("{}: {e}", mine.id))?;
    let (roles, capacity) = (mine.roles.clone(), mine.capacity);
    let settings = WorkerSettings::default()
        .hb_interval_sec(crate::seconds(world.hb_interval_ms))
        .announce_interval_sec(crate::seconds(world.announce_interval_ms))
        .db_cancel_poll_ms(world.db_cancel_poll_ms)
        .shutdown_grace_sec(crate::seconds(Plan::PROCESS_GRACE_MS));
    let journal = Arc::new(Journal::create(&options.journal)?);
    let incarnation = Arc::new(AtomicU64::new(0));
    let (store, transport) = connect(&plan, &options.kafka, &options.mongo, &options.name).await?;
    let store = Recorded {
        port: store,
        worker: id.clone(),
        journal: journal.clone(),
        incarnation: incarnation.clone(),
    };
    let transport = Recorded {
        port: transport,
        worker: id,
        journal: journal.clone(),
        incarnation,
    };
    let engine =
        Engine::with_settings(Arc::new(store), Arc::new(transport), engine_settings(&plan));
    let worker_id = plan.world.workers[options.worker].id.clone();
    let handler = Arc::new(Scripted {
        plan: Arc::new(plan),
        journal,
    });
    let mut builder = Worker::builder(&engine)
        .worker_id(worker_id)
        .capacity(capacity)
        .settings(settings);
    for role in roles {
        builder = builder.role(role, handler.clone());
    }
    builder.build().map_err(|e| e.to_string())
}

fn engine_settings(plan: &Plan) -> EngineSettings {
    let mut settings = EngineSettings::default();
    settings.shards = plan.world.shards;
    settings.inboxes = plan.world.inboxes;
    settings
}

/// Both adapters for a plan's deployment.
async fn connect(
    plan: &Plan,
    kafka: &str,
    mongo: &str,
    name: &str,
) -> Result<(MongoStore, KafkaTransport), String> {
    let store = MongoStore::connect(MongoSettings::new(mongo).database(name)).await;
    let store = store.map_err(|e| e.to_string())?;
    let kafka = KafkaSettings::new(kafka)
        .topic_prefix(name)
        .shards(plan.world.shards)
        .inboxes(plan.world.inboxes);
    let transport = KafkaTransport::connect(kafka).await;
    Ok((store, transport.map_err(|e| e.to_string())?))
}

/// An engine for clients; creates the deployment.
pub(crate) async fn engine(
    plan: &Plan,
    kafka: &str,
    mongo: &str,
    name: &str,
) -> Result<Engine, String> {
    let (store, transport) = connect(plan, kafka, mongo, name).await?;
    let settings = engine_settings(plan);
    let store: Arc<dyn Store> = Arc::new(store);
    let deployment = Engine::deployment_of(&*store, &settings).await;
    deployment.map_err(|e| e.to_string())?;
    Ok(Engine::with_settings(store, Arc::new(transport), settings))
}

//! Store, transport and clock of one deployment, in one handle.

use flowkit_core::coordinator::{Config, Limits};
use flowkit_core::function::Functions;
use flowkit_core::id::{ClientId, ShardId};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{PortError, Store, StoreReply, StoreRequest, Stream, Transport};
use flowkit_core::record::DeploymentRecord;
use flowkit_memory::{LocalTransport, MemoryStore};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, watch};

use crate::clock::Clock;
use crate::driver::{Told, drive_coordinator};
use crate::environment::{Environment, Pace};
use crate::ids::IdSource;
use crate::vitals::{Asks, CoordinatorVitals};
use crate::worker::WorkerHandle;
use crate::{BuildError, Client, CoordinatorSettings};

/// A deployment as this process sees it: where its truth lives and how its messages travel.
///
/// Cheap to clone; clones are the same engine. A process that is a whole deployment by itself
/// calls [`Engine::start`] for the coordinator, builds workers with
/// [`Worker::builder`](crate::Worker::builder), submits with [`Engine::client`], and ends with
/// [`Engine::stop`]:
///
/// ```
/// use flowkit_runtime::*;
/// use serde_json::json;
///
/// #[derive(serde::Deserialize)]
/// struct Page {
///     text: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::memory();
/// engine.start().await?;
/// let count = handler_fn(|_cx, batch: Batch<Page>| async move {
///     let words = batch.payload.text.split_whitespace().count();
///     Ok(BatchResult::of(words).metric("words", words))
/// });
/// let worker = Worker::builder(&engine).role("count", count).capacity(4).build()?.start();
///
/// let graph = json!({"nodes": [
///     {"node_id": "c", "type": "count", "io": {"input_inline": {"text": "to be or not"}}},
/// ]});
/// let task = engine.client().submit(&graph, SubmitOptions::default()).await?;
/// assert_eq!(task.wait().await?.state, TaskState::Finished);
/// assert_eq!(task.artifacts("c").all().await?[0].value.text(), "4");
///
/// worker.stop().await?;
/// engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    transport: Arc<dyn Transport>,
    settings: EngineSettings,
    /// Every other process of this deployment is dead: it is the only one.
    alone: bool,
    functions: Functions,
    environment: Option<Arc<dyn Environment>>,
    clock: Clock,
    ids: IdSource,
    deployment: OnceCell<DeploymentRecord>,
    parts: Mutex<Parts>,
}

/// What runs in this process.
#[derive(Debug, Default)]
struct Parts {
    coordinator: Option<CoordinatorHandle>,
    workers: Vec<WorkerHandle>,
}

/// Settings of an engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineSettings {
    /// A call to a port without an answer after this long counts as unknown; default 10 s.
    pub rpc_timeout: Duration,
    /// Shards, used when the deployment is created; default 1.
    pub shards: u32,
    /// Inbox partitions, used when the deployment is created; default 16.
    pub inboxes: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            rpc_timeout: Duration::from_secs(10),
            shards: 1,
            inboxes: 16,
        }
    }
}

impl Engine {
    /// An engine in the memory of this process: for tests, and for work that need not outlive it.
    #[must_use]
    pub fn memory() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::alone(store, Arc::new(LocalTransport::new()))
    }

    /// An engine on one machine: a store that this process holds alone, and streams in memory.
    ///
    /// The streams die with the process; what must still be sent follows from the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn local(store: Arc<dyn Store>) -> Result<Self, PortError> {
        let transport = Self::local_streams(&*store).await?;
        Ok(Self::alone(store, Arc::new(transport)))
    }

    /// The streams of an engine on one machine, each starting where its store stopped.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn local_streams(store: &dyn Store) -> Result<LocalTransport, PortError> {
        let deployment = read_deployment(store, &EngineSettings::default()).await?;
        let mut transport = LocalTransport::new();
        for shard in (0..deployment.shards).map(ShardId) {
            let reply = store.call(StoreRequest::ReadShard { shard }).await?;
            let StoreReply::Shard(record) = reply else {
                return Err(unexpected("read shard", &reply));
            };
            transport = transport.starting_at(Stream::Shard(shard), record.next);
        }
        Ok(transport)
    }

    /// An engine that is the whole deployment: no other process uses this store or this transport,
    /// and none that did is alive.
    #[must_use]
    pub fn alone(store: Arc<dyn Store>, transport: Arc<dyn Transport>) -> Self {
        Self::made(store, transport, EngineSettings::default(), true)
    }

    /// An engine over any store and transport, shared with other processes.
    #[must_use]
    pub fn with(store: Arc<dyn Store>, transport: Arc<dyn Transport>) -> Self {
        Self::with_settings(store, transport, EngineSettings::default())
    }

    /// The same with settings.
    #[must_use]
    pub fn with_settings(
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        settings: EngineSettings,
    ) -> Self {
        Self::made(store, transport, settings, false)
    }

    fn made(
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        settings: EngineSettings,
        alone: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                transport,
                settings,
                alone,
                functions: Functions::default(),
                environment: None,
                clock: Clock::new(),
                ids: IdSource::new(),
                deployment: OnceCell::new(),
                parts: Mutex::default(),
            }),
        }
    }

    /// The same engine, whose coordinator knows these functions and detectors. To be called before
    /// anything else is done with it. Every coordinator of a deployment must know the same ones.
    ///
    /// ```
    /// use flowkit_runtime::function::{Call, Changes, Functions};
    /// use flowkit_runtime::*;
    /// use serde_json::json;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let functions = Functions::default().function("price.gross", |call: &Call<'_>| {
    ///     let net = call.var("net").and_then(|net| net.as_i64()).unwrap_or(0);
    ///     Ok(Changes::new().set("gross", net * 119 / 100))
    /// });
    /// let engine = Engine::memory().with_functions(functions);
    /// engine.start().await?;
    ///
    /// let graph = json!({"nodes": [
    ///     {"node_id": "g", "type": "coordinator_fn", "io": {"fn": "price.gross"}},
    /// ]});
    /// let vars = Json::encode(&json!({"net": 200}))?;
    /// let task = engine.client().submit(&graph, SubmitOptions::default().vars(vars)).await?;
    /// task.wait().await?;
    /// assert_eq!(task.status().await?.vars.text(), r#"{"gross":238,"net":200}"#);
    /// # engine.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_functions(&self, functions: Functions) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                store: inner.store.clone(),
                transport: inner.transport.clone(),
                settings: inner.settings.clone(),
                alone: inner.alone,
                functions,
                clock: Clock::within(inner.environment.clone()),
                ids: match &inner.environment {
                    Some(environment) => IdSource::seeded(environment.seed()),
                    None => IdSource::new(),
                },
                environment: inner.environment.clone(),
                deployment: OnceCell::new(),
                parts: Mutex::default(),
            }),
        }
    }

    /// The same engine in a simulated process. To be called before anything else is done with it.
    #[must_use]
    pub fn within(&self, environment: Arc<dyn Environment>) -> Self {
        let inner = &self.inner;
        Self {
            inner: Arc::new(Inner {
                store: inner.store.clone(),
                transport: inner.transport.clone(),
                settings: inner.settings.clone(),
                alone: inner.alone,
                functions: inner.functions.clone(),
                clock: Clock::within(Some(environment.clone())),
                ids: IdSource::seeded(environment.seed()),
                environment: Some(environment),
                deployment: OnceCell::new(),
                parts: Mutex::default(),
            }),
        }
    }

    /// A client of this deployment. Each call makes a new one, with an inbox of its own; clone it
    /// to share.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    /// Starts a coordinator with default settings in this process; see [`Engine::start_with`].
    ///
    /// # Errors
    /// The deployment's record cannot be read.
    pub async fn start(&self) -> Result<(), StartError> {
        self.start_with(CoordinatorSettings::default()).await
    }

    /// Starts a coordinator in this process, on the current tokio runtime. Does nothing if one runs
    /// already.
    ///
    /// # Errors
    /// The settings are faulty (limits with more than one shard, too), or the deployment's record
    /// cannot be read.
    pub async fn start_with(&self, settings: CoordinatorSettings) -> Result<(), StartError> {
        let mut faults = Vec::new();
        settings.faults(&mut faults);
        faults.extend(self.inner.functions.faults().iter().cloned());
        if !faults.is_empty() {
            return Err(BuildError { faults }.into());
        }
        let deployment = self.deployment().await?;
        let limits = settings.limits.clone();
        if deployment.shards > 1 && !settings.limits.is_none() {
            let faults = vec![format!(
                "limits: need a deployment of one shard, and this one has {}: an owner knows only \
                 what runs of its own shard; leave them out, or create a deployment with shards 1",
                deployment.shards
            )];
            return Err(BuildError { faults }.into());
        }
        let mut config = Config::new(self.client_id("coordinator"), self.ids().random64());
        settings.apply(&mut config);
        config.functions = self.inner.functions.clone();
        config.shards = deployment.shards;
        config.inboxes = deployment.inboxes;
        config.applies_before_sync =
            self.store().applies_before_sync() && !is_planted(Bug::SyncUnasked);

        // One that is told to stop ends first.
        let ending = self.parts().coordinator.as_ref().and_then(|running| {
            let told = *running.stop.borrow() != Told::GoOn;
            told.then(|| running.done.clone())
        });
        if let Some(mut done) = ending {
            let _ = done.wait_for(|done| *done).await;
        }
        let mut parts = self.parts();
        if parts.coordinator.as_ref().is_some_and(|c| !c.has_ended()) {
            return Ok(());
        }
        // Workers that were told to stop may still hold grants, if a stop was given up. (So may one that was
        // started while a stop waited for others; its token is fenced.)
        let over = !parts.workers.iter().any(WorkerHandle::is_stopping);
        config.predecessors_dead = self.inner.alone && over || is_planted(Bug::AllDead);
        let (stop, stopped) = watch::channel(Told::GoOn);
        let (ended, done) = watch::channel(false);
        let (asks, asked) = Asks::channel();
        let engine = self.clone();
        tokio::spawn(async move {
            drive_coordinator(engine, config, stopped, asked).await;
            ended.send_replace(true);
        });
        parts.coordinator = Some(CoordinatorHandle {
            stop,
            done,
            asks,
            limits,
        });
        Ok(())
    }

    /// Stops what runs in this process: first the workers, which hand their runs over, then the
    /// coordinator, which hears and commits their last words. Work that is not done goes on with the next
    /// start, where the store is durable.
    ///
    /// Cancelled, it leaves the workers to stop by themselves, and the coordinator as it is; call it
    /// again to wait for the rest.
    pub async fn stop(&self) {
        let (workers, coordinator) = {
            let parts = self.parts();
            let coordinator = parts.coordinator.as_ref();
            let handles = coordinator.map(|c| (c.stop.clone(), c.done.clone()));
            (parts.workers.clone(), handles)
        };
        if let Some((stop, _)) = &coordinator
            && is_planted(Bug::CoordinatorFirst)
        {
            stop.send_replace(Told::Stop {
                workers_left: false,
            });
        }
        // All the workers there are, if the deployment is this process.
        let mut workers_left = self.inner.alone;
        let stops = workers.iter().map(WorkerHandle::stop);
        for outcome in futures_util::future::join_all(stops).await {
            if let Err(error) = outcome {
                workers_left = false;
                tracing::warn!("a worker did not stop in order: {error}");
            }
        }
        // One may have been started meanwhile.
        workers_left &= self.workers().is_empty();
        if let Some((stop, mut done)) = coordinator {
            stop.send_replace(Told::Stop { workers_left });
            let _ = done.wait_for(|done| *done).await;
        }
        let mut parts = self.parts();
        parts.workers.retain(|worker| !worker.has_stopped());
        if parts
            .coordinator
            .as_ref()
            .is_some_and(CoordinatorHandle::has_ended)
        {
            parts.coordinator = None;
        }
    }

    /// The workers of this process that have not stopped.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerHandle> {
        let parts = self.parts();
        let live = parts.workers.iter().filter(|worker| !worker.has_stopped());
        live.cloned().collect()
    }

    /// What the driver of this process's coordinator saw: `None` if there is no coordinator,
    /// `Some(None)` if it does not answer within a second. Cancel safe.
    pub async fn coordinator_vitals(&self) -> Option<Option<CoordinatorVitals>> {
        let coordinator = self.parts().coordinator.as_ref().map(|c| c.asks.clone());
        match coordinator {
            Some(asks) => Some(asks.ask().await),
            None => None,
        }
    }

    /// The limits of this process's coordinator; none if there is no coordinator.
    pub(crate) fn limits(&self) -> Limits {
        let parts = self.parts();
        let coordinator = parts.coordinator.as_ref();
        coordinator.map(|c| c.limits.clone()).unwrap_or_default()
    }

    /// The whole deployment is this process, and no coordinator runs in it: nothing moves.
    pub(crate) fn is_idle_and_alone(&self) -> bool {
        self.inner.alone && self.parts().coordinator.is_none()
    }

    pub(crate) fn adopt(&self, worker: WorkerHandle) {
        let mut parts = self.parts();
        parts.workers.retain(|worker| !worker.has_stopped());
        parts.workers.push(worker);
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.inner
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        &*self.inner.transport
    }

    pub(crate) fn rpc_timeout(&self) -> Duration {
        self.inner.settings.rpc_timeout
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace(self.inner.environment.clone())
    }

    pub(crate) fn ids(&self) -> &IdSource {
        &self.inner.ids
    }

    pub(crate) fn client_id(&self, prefix: &str) -> ClientId {
        match ClientId::new(self.ids().name(prefix)) {
            Ok(id) => id,
            Err(error) => unreachable!("a prefix and digits are an id: {error}"),
        }
    }

    /// What was fixed when a deployment was created, read from its store before there is an engine:
    /// a transport has to know the number of its partitions. Creates the deployment as `settings`
    /// say if this is the first use.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn deployment_of(
        store: &dyn Store,
        settings: &EngineSettings,
    ) -> Result<DeploymentRecord, PortError> {
        read_deployment(store, settings).await
    }

    /// What was fixed when the deployment was created; creates it if this is the first use.
    pub(crate) async fn deployment(&self) -> Result<DeploymentRecord, PortError> {
        self.inner
            .deployment
            .get_or_try_init(|| read_deployment(self.store(), &self.inner.settings))
            .await
            .copied()
    }
}

async fn read_deployment(
    store: &dyn Store,
    settings: &EngineSettings,
) -> Result<DeploymentRecord, PortError> {
    let propose = DeploymentRecord {
        shards: settings.shards.max(1),
        inboxes: settings.inboxes.max(1),
    };
    match store.call(StoreRequest::Deployment { propose }).await? {
        StoreReply::Deployment(record)
            if record != propose && is_planted(Bug::DeploymentProposed) =>
        {
            Ok(propose)
        }
        StoreReply::Deployment(record) => Ok(record),
        other => Err(unexpected("read deployment", &other)),
    }
}

/// An answer to another question. Only its kind is told: the rest may be the payloads of users.
pub(crate) fn unexpected(op: &str, reply: &impl std::fmt::Debug) -> PortError {
    PortError::unexpected(op, reply)
}

/// A coordinator of this process.
#[derive(Debug)]
struct CoordinatorHandle {
    stop: watch::Sender<Told>,
    done: watch::Receiver<bool>,
    asks: Asks<CoordinatorVitals>,
    limits: Limits,
}

impl CoordinatorHandle {
    /// It has ended, for whatever reason: its task may have gone with its runtime.
    fn has_ended(&self) -> bool {
        *self.done.borrow() || self.done.has_changed().is_err()
    }
}

/// Why a coordinator could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its settings are faulty.
    #[error(transparent)]
    Settings(#[from] BuildError),
    /// The deployment's record cannot be read.
    #[error("the deployment's record cannot be read")]
    Store(#[from] PortError),
}

#[cfg(test)]
mod tests {
    use super::unexpected;
    use flowkit_core::json::Json;
    use flowkit_core::port::StoreReply;
    use flowkit_core::record::ScratchRecord;

    #[test]
    fn of_an_answer_to_another_question_only_the_kind_is_told() {
        let secret = StoreReply::Scratch(Some(ScratchRecord {
            token: flowkit_core::id::Token(1),
            save_no: 0,
            batch_uid: None,
            checkpoint: Json::parse("\"geheim\"").unwrap(),
        }));
        let error = unexpected("read task", &secret).to_string();
        assert!(error.contains("of another kind: Scratch"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
        assert!(
            unexpected("read", &StoreReply::Done)
                .detail
                .ends_with(": Done")
        );
    }
}

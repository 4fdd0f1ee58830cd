//! Workers: handlers, capacity and settings, built once and run until told to stop.

use flowkit_core::id::{Role, WorkerId};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{ErrorKind, PortError};
use flowkit_core::worker::Config;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

use crate::driver::{Handlers, Running, WorkerDrive, drive_worker};
use crate::engine::Engine;
use crate::vitals::{Asks, WorkerVitals};
use crate::{BuildError, Handler, Progress, RunInfo, WorkerSettings};

/// A worker that is built but not running yet.
pub struct Worker {
    engine: Engine,
    worker_id: WorkerId,
    roles: Vec<Role>,
    capacity: u32,
    settings: WorkerSettings,
    handlers: Handlers,
}

/// Builds a [`Worker`]; [`WorkerBuilder::build`] reports every fault at once.
#[must_use]
pub struct WorkerBuilder {
    engine: Engine,
    worker_id: Option<String>,
    roles: Vec<(String, Arc<dyn crate::run::ErasedHandler>)>,
    capacity: u32,
    settings: WorkerSettings,
}

impl Worker {
    /// Begins a worker of a deployment. Many may run in one process.
    pub fn builder(engine: &Engine) -> WorkerBuilder {
        WorkerBuilder {
            engine: engine.clone(),
            worker_id: None,
            roles: Vec::new(),
            capacity: 1,
            settings: WorkerSettings::default(),
        }
    }

    /// The worker's id, given or generated.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.worker_id
    }

    /// Runs the worker until `shutdown` is ready, then stops it gracefully: it takes no new work,
    /// running batches end within the grace, and what is left is handed over at once.
    ///
    /// ```no_run
    /// # use flowkit_runtime::*;
    /// # async fn example(worker: Worker) -> Result<(), WorkerError> {
    /// worker.run(shutdown_signal()).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`WorkerError`].
    ///
    /// # Cancel safety
    /// Dropped, it tells the worker to stop and does not wait for it.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let handle = self.start();
        let _stop = StopOnDrop(handle.clone());
        tokio::select! {
            biased;
            () = shutdown => handle.stop().await,
            outcome = handle.stopped() => outcome,
        }
    }

    /// Starts the worker on the current tokio runtime.
    ///
    /// Dropping the handle leaves the worker running; [`Engine::stop`] stops it too.
    pub fn start(self) -> WorkerHandle {
        let Self {
            engine,
            worker_id,
            roles,
            capacity,
            settings,
            handlers,
        } = self;
        let (stop, stop_seen) = watch::channel(false);
        let (ended, done) = watch::channel(None);
        let (asks, asked) = Asks::channel();
        let running = Running::default();
        let begun = Arc::new(AtomicBool::new(false));
        let handle = WorkerHandle {
            shared: Arc::new(Shared {
                worker_id: worker_id.clone(),
                roles: roles.clone(),
                capacity,
                running: running.clone(),
                stop,
                asks,
                begun: begun.clone(),
            }),
            done,
        };
        engine.adopt(handle.clone());
        if !engine.clock().is_simulated() {
            crate::folder::sweep();
        }
        let mut start_nonce = engine.ids().random64();
        if is_planted(Bug::NonceKept) {
            start_nonce = 1;
        }
        tokio::spawn(async move {
            let mut config = Config::new(worker_id, roles, capacity, start_nonce);
            settings.apply(&mut config);
            let outcome = async {
                if let Some(deployment) = deployment(&engine, stop_seen.clone()).await? {
                    begun.store(true, Ordering::Relaxed);
                    config.shards = deployment.shards;
                    config.inboxes = deployment.inboxes;
                    let drive = WorkerDrive {
                        engine,
                        config,
                        handlers,
                        running,
                        shutdown_grace_ms: settings.shutdown_grace_ms(),
                        stop: stop_seen,
                        asked,
                    };
                    drive_worker(drive).await?;
                }
                Ok(())
            };
            let outcome: Result<(), WorkerError> = outcome.await;
            ended.send_replace(Some(outcome));
        });
        handle
    }
}

/// Waits for a store that is away; `None` if the worker is stopped before it is back.
async fn deployment(
    engine: &Engine,
    mut stop: watch::Receiver<bool>,
) -> Result<Option<flowkit_core::record::DeploymentRecord>, WorkerError> {
    let mut wait = Duration::from_millis(50);
    loop {
        // A call that hangs must not hold up a stop.
        let read = tokio::select! {
            biased;
            read = engine.deployment() => read,
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        };
        match read {
            Ok(deployment) => return Ok(Some(deployment)),
            Err(error) if matches!(error.kind, ErrorKind::Retry | ErrorKind::Unknown) => {
                tracing::warn!("the deployment's record cannot be read yet: {error}");
            }
            Err(error) => return Err(WorkerError::Store(error)),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(2)),
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({} {:?})", self.worker_id, self.roles)
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerBuilder")
    }
}

impl WorkerBuilder {
    /// Adds a handler for a role: nodes of that `type` run on it.
    pub fn role(mut self, role: impl Into<String>, handler: impl Handler) -> Self {
        self.roles.push((role.into(), Arc::new(handler)));
        self
    }

    /// How many nodes run at once, all roles together; default 1.
    pub fn capacity(mut self, capacity: u32) -> Self {
        self.capacity = capacity;
        self
    }

    /// The worker's id: a restart with the same id is the same worker, and its predecessor's work
    /// is granted anew at once. Two live processes must not share one: the older is stopped.
    /// Default: generated, so a restart is a new worker.
    pub fn worker_id(mut self, worker_id: impl Into<String>) -> Self {
        self.worker_id = Some(worker_id.into());
        self
    }

    /// Everything else.
    pub fn settings(mut self, settings: WorkerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Checks everything and builds the worker.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn build(self) -> Result<Worker, BuildError> {
        let mut faults = Vec::new();
        self.settings.faults(&mut faults);
        if self.capacity == 0 {
            faults.push("capacity: must be 1 or more, not 0".to_owned());
        }
        if self.roles.is_empty() {
            faults.push("role: a worker needs at least one; add it with `role`".to_owned());
        }
        let name = self
            .worker_id
            .unwrap_or_else(|| self.engine.ids().name("worker"));
        let worker_id = WorkerId::new(&name)
            .map_err(|error| faults.push(format!("worker_id {name:?}: {error}")))
            .ok();
        let mut roles = Vec::new();
        let mut handlers = Handlers::new();
        for (name, handler) in self.roles {
            match Role::new(&name) {
                Err(error) => faults.push(format!("role {name:?}: {error}")),
                // Roles are joined by commas where a worker announces itself.
                Ok(_) if name.contains(',') => {
                    faults.push(format!("role {name:?}: must not hold a comma"));
                }
                Ok(role) => {
                    if handlers.insert(Arc::from(name.as_str()), handler).is_some() {
                        faults.push(format!("role {name:?}: has two handlers"));
                    } else {
                        roles.push(role);
                    }
                }
            }
        }
        match worker_id {
            Some(worker_id) if faults.is_empty() => Ok(Worker {
                engine: self.engine,
                worker_id,
                roles,
                capacity: self.capacity,
                settings: self.settings,
                handlers,
            }),
            _ => Err(BuildError { faults }),
        }
    }
}

/// A running worker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    shared: Arc<Shared>,
    done: watch::Receiver<Option<Result<(), WorkerError>>>,
}

struct Shared {
    worker_id: WorkerId,
    roles: Vec<Role>,
    capacity: u32,
    running: Running,
    stop: watch::Sender<bool>,
    asks: Asks<WorkerVitals>,
    /// The deployment's record was read, and the driver turns.
    begun: Arc<AtomicBool>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.worker_id)
    }
}

/// What a worker does right now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker.
    pub worker_id: WorkerId,
    /// Its roles.
    pub roles: Vec<Role>,
    /// How many nodes it runs at once.
    pub capacity: u32,
    /// What it runs.
    pub running: Vec<RunStatus>,
    /// It was told to stop, or has stopped.
    pub stopping: bool,
    /// It has not begun: the store has not said yet what the deployment is.
    pub waiting: bool,
}

/// One run of a worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunStatus {
    /// Who and what it is.
    pub info: RunInfo,
    /// How far the batch in work is, if the handler says so.
    pub progress: Progress,
    /// It was told to end.
    pub cancelled: bool,
    /// It ignored that beyond its grace and was given up: the run is over, its slot stays taken for as
    /// long as the handler does not return.
    pub abandoned: bool,
}

impl WorkerHandle {
    /// The worker's id.
    #[must_use]
    pub fn id(&self) -> &WorkerId {
        &self.shared.worker_id
    }

    /// What the worker does right now.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        let running = self
            .shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        WorkerStatus {
            worker_id: self.shared.worker_id.clone(),
            roles: self.shared.roles.clone(),
            capacity: self.shared.capacity,
            running: running
                .values()
                .map(|cx| RunStatus {
                    info: cx.info().clone(),
                    progress: cx.progress(),
                    cancelled: cx.is_cancelled(),
                    abandoned: cx.is_abandoned(),
                })
                .collect(),
            stopping: *self.shared.stop.borrow() || self.has_stopped(),
            waiting: !self.shared.begun.load(Ordering::Relaxed) && !self.has_stopped(),
        }
    }

    /// What the worker's driver saw of its machine, the store and the transport; `None` if it has
    /// ended, waits for the deployment's record, or does not answer within a second. Cancel safe.
    pub async fn vitals(&self) -> Option<WorkerVitals> {
        self.shared.asks.ask().await
    }

    /// Stops the worker gracefully and waits for its end: no new work, running batches end within
    /// `shutdown_grace_sec`, what is left is handed over at once.
    ///
    /// # Errors
    /// See [`WorkerError`].
    ///
    /// # Cancel safety
    /// The worker stops even if this is dropped.
    pub async fn stop(&self) -> Result<(), WorkerError> {
        self.shared.stop.send_replace(true);
        self.stopped().await
    }

    /// Waits until the worker has stopped, for whatever reason. Cancel safe.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn stopped(&self) -> Result<(), WorkerError> {
        let mut done = self.done.clone();
        match done
            .wait_for(Option::is_some)
            .await
            .map(|outcome| outcome.clone())
        {
            Ok(Some(outcome)) => outcome,
            _ => Err(WorkerError::Panicked("its driver is gone".to_owned())),
        }
    }

    /// It was told to stop, and has not ended.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.shared.stop.borrow() && !self.has_stopped()
    }

    /// It has ended, for whatever reason.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.done.borrow().is_some() || self.done.has_changed().is_err()
    }
}

struct StopOnDrop(WorkerHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.shared.stop.send_replace(true);
    }
}

/// Why a worker ended other than by being stopped.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A newer process with the same worker id is alive; this one must not go on.
    #[error("a newer process with the same worker id is alive")]
    Superseded,
    /// The deployment's record cannot be read.
    #[error("the deployment's record cannot be read")]
    Store(#[source] PortError),
    /// The store has a record of this worker that cannot be read: a newer version of FlowKit wrote it, or it
    /// is damaged. It cannot be registered, now or later.
    #[error(
        "the record of worker {worker_id} cannot be read, so it cannot be registered: {}; run a version of \
         FlowKit as new as the one that wrote it, or start it under another worker_id", .error.detail
    )]
    Unregistered {
        /// Whose record it is.
        worker_id: WorkerId,
        /// What the store says of it.
        error: PortError,
    },
    /// A bug of FlowKit: the worker machine broke one of its invariants. Its runs are dropped; other
    /// workers get them once its lease ends, or at once when it is started again.
    #[error("the worker machine panicked: {0}")]
    Panicked(String),
}

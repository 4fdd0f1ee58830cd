//! Where a case runs: processes of a deployment, and a client of it.

use async_trait::async_trait;
use flowkit_core::message::{Body, WorkerOnline};
use flowkit_core::port::{Entry, Store, Stream, Transport, TransportReply, TransportRequest};
use flowkit_core::report::ReportKind;
use flowkit_observe::{HealthServer, serve};
use flowkit_runtime::function::Functions;
use flowkit_runtime::{
    Client, CoordinatorSettings, Engine, EngineSettings, Handler, NodeId, SubmitOptions,
    TaskHandle, TaskId, Worker, WorkerBuilder, WorkerHandle, WorkerSettings,
};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::runtime::{Builder, Runtime};

use super::cut::{Cut, CutStore, CutTransport};

/// What a deployment stands on. One per case.
#[async_trait]
pub trait Ground: Send + Sync + 'static {
    /// The ports of one more process, connected anew. Where all is one process they are the same until
    /// it dies.
    async fn ports(&self) -> Ports;

    /// Every process is dead: what they held open goes.
    async fn all_dead(&self) {}

    /// Makes the record of a task, or of one of its nodes, one that nobody can read.
    async fn damage(&self, task: &TaskId, node: Option<&NodeId>);
}

/// What an engine is made of.
pub struct Ports {
    /// Where the truth lives.
    pub store: Arc<dyn Store>,
    /// How messages travel.
    pub transport: Arc<dyn Transport>,
    /// The engine's settings.
    pub settings: EngineSettings,
    /// The whole deployment is one process.
    pub alone: bool,
}

impl Ports {
    /// Those of a deployment that is one process.
    pub fn alone(store: Arc<dyn Store>, transport: Arc<dyn Transport>) -> Self {
        Self {
            store,
            transport,
            settings: EngineSettings::default(),
            alone: true,
        }
    }

    fn engine(self, functions: &Functions, cut: &Arc<Cut>, alone: bool) -> Engine {
        let store = Arc::new(CutStore(self.store, cut.clone()));
        let transport = Arc::new(CutTransport(self.transport, cut.clone()));
        let engine = if alone {
            Engine::alone(store, transport)
        } else {
            Engine::with_settings(store, transport, self.settings)
        };
        engine.with_functions(functions.clone())
    }
}

/// A deployment with a coordinator.
pub struct Site {
    ground: Arc<dyn Ground>,
    settings: CoordinatorSettings,
    functions: Functions,
    /// What is lost of what the coordinator sends.
    cut: Arc<Cut>,
    /// The one engine of all where the deployment is one process.
    shared: Option<Engine>,
    processes: Mutex<Vec<Arc<Process>>>,
    client: Client,
}

impl Site {
    /// With default settings.
    pub async fn new(ground: impl Ground) -> Self {
        Self::with(ground, CoordinatorSettings::default()).await
    }

    /// With settings of the coordinator.
    pub async fn with(ground: impl Ground, settings: CoordinatorSettings) -> Self {
        Self::made(Arc::new(ground), settings, Functions::default()).await
    }

    /// With functions and detectors of the user.
    pub async fn knowing(ground: impl Ground, functions: Functions) -> Self {
        Self::made(Arc::new(ground), CoordinatorSettings::default(), functions).await
    }

    async fn made(
        ground: Arc<dyn Ground>,
        settings: CoordinatorSettings,
        functions: Functions,
    ) -> Self {
        let cut = Arc::default();
        let ports = ground.ports().await;
        let alone = ports.alone;
        let engine = ports.engine(&functions, &cut, alone);
        let site = Self {
            ground,
            settings,
            functions,
            cut: cut.clone(),
            client: engine.client(),
            shared: alone.then_some(engine),
            processes: Mutex::default(),
        };
        let process = site.process_of(site.shared.clone(), cut).await;
        let (engine, settings) = (process.engine.clone(), site.settings.clone());
        let started = process.spawn(async move { engine.start_with(settings).await });
        started.await.expect("no panic").expect("it starts");
        site
    }

    /// One more process, in which nothing runs yet.
    pub async fn process(&self) -> Arc<Process> {
        self.process_of(self.shared.clone(), Arc::default()).await
    }

    /// The same with ports that can be cut.
    pub async fn cut_process(&self) -> (Arc<Process>, Arc<Cut>) {
        let cut = Arc::default();
        let process = self.process_of(None, Arc::clone(&cut)).await;
        (process, cut)
    }

    async fn process_of(&self, shared: Option<Engine>, cut: Arc<Cut>) -> Arc<Process> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let engine = match shared {
            Some(engine) => engine,
            None => {
                let (ground, functions) = (self.ground.clone(), self.functions.clone());
                let connected = runtime.spawn(async move {
                    let ports = ground.ports().await;
                    ports.engine(&functions, &cut, false)
                });
                connected.await.expect("no panic")
            }
        };
        let process = Arc::new(Process {
            runtime: Mutex::new(Some(runtime)),
            engine,
        });
        let mut processes = self.processes.lock().expect("no case panics inside");
        processes.push(process.clone());
        process
    }

    /// A worker of one role and one slot in a process of its own.
    pub async fn worker(&self, role: &str, handler: impl Handler) -> WorkerHandle {
        let process = self.process().await;
        process.start(process.builder().role(role, handler))
    }

    /// A client in no process of those that run something.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What is lost of what the coordinator sends.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Submits a graph.
    pub async fn submit(&self, graph: &Value) -> TaskHandle {
        let task = self.client.submit(graph, SubmitOptions::default()).await;
        task.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes a record one that nobody can read: of a task, or of one of its nodes.
    pub async fn damage(&self, task: &TaskId, node: Option<&NodeId>) {
        self.ground.damage(task, node).await;
    }

    /// The coordinator's.
    fn first_process(&self) -> Arc<Process> {
        let processes = self.processes.lock().expect("no case panics inside");
        processes[0].clone()
    }

    /// Serves the health of the coordinator's process.
    pub async fn health(&self) -> HealthServer {
        self.first_process().health().await
    }

    /// How often the coordinator reported something of this kind.
    pub async fn reports(&self, kind: ReportKind) -> u64 {
        let engine = self.first_process().engine.clone();
        let vitals = engine.coordinator_vitals().await.flatten();
        let vitals = vitals.expect("it lives and answers");
        vitals.reports.get(&kind).copied().unwrap_or(0)
    }

    /// How workers have announced themselves, the oldest first.
    pub async fn announced(&self) -> Vec<WorkerOnline> {
        let process = self.first_process();
        let engine = process.engine.clone();
        let read = process.spawn(async move {
            let stream = Stream::Announcements;
            let transport = engine.transport();
            let bounds = transport.call(TransportRequest::Bounds { stream }).await;
            let Ok(TransportReply::Bounds { start, end, .. }) = bounds else {
                panic!("{bounds:?}");
            };
            let (mut from, mut said) = (start, Vec::new());
            while from < end {
                let request = TransportRequest::Read {
                    stream,
                    from,
                    limit: 100,
                    wait_ms: 1_000,
                };
                let read = transport.call(request).await;
                let Ok(TransportReply::Entries { entries, next }) = read else {
                    panic!("{read:?}");
                };
                from = next;
                said.extend(entries.into_iter().filter_map(online));
            }
            said
        });
        read.await.expect("no panic")
    }

    /// Kills all processes and starts a coordinator in a new one. Handles of before are dead, too: on
    /// one machine none may be left.
    pub async fn restart(self) -> Self {
        let Self {
            ground,
            settings,
            functions,
            processes,
            client,
            shared,
            ..
        } = self;
        drop((client, shared));
        kill(&*ground, processes).await;
        Self::made(ground, settings, functions).await
    }

    /// Stops all in order: the coordinator last.
    pub async fn stop(self) {
        let processes = self.processes;
        let running = processes.lock().expect("no case panics inside").clone();
        for process in running.iter().rev() {
            process.engine.stop().await;
        }
        drop(running);
        kill(&*self.ground, processes).await;
    }
}

fn online(entry: Entry) -> Option<WorkerOnline> {
    match &entry.message.as_ref().ok()?.body {
        Body::WorkerOnline(online) => Some(online.clone()),
        _ => None,
    }
}

async fn kill(ground: &dyn Ground, processes: Mutex<Vec<Arc<Process>>>) {
    let processes = processes.into_inner().expect("no case panics inside");
    for process in processes {
        process.kill().await;
    }
    ground.all_dead().await;
}

/// A process: what runs in it dies with it.
pub struct Process {
    /// Taken when it dies.
    runtime: Mutex<Option<Runtime>>,
    engine: Engine,
}

impl Process {
    /// A worker of it that is not started, with settings that leave the case soon.
    pub fn builder(&self) -> WorkerBuilder {
        let settings = WorkerSettings::default().shutdown_grace_sec(0.2);
        Worker::builder(&self.engine).settings(settings)
    }

    /// Serves its health.
    pub async fn health(&self) -> HealthServer {
        let engine = self.engine.clone();
        let served = self.spawn(async move { serve("127.0.0.1:0", &engine).await });
        served.await.expect("no panic").expect("it listens")
    }

    /// Starts a worker in it.
    pub fn start(&self, worker: WorkerBuilder) -> WorkerHandle {
        let runtime = self.runtime.lock().expect("no case panics inside");
        let _inside = runtime.as_ref().expect("it lives").enter();
        let built = worker.build();
        built.unwrap_or_else(|error| panic!("{error}")).start()
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let runtime = self.runtime.lock().expect("no case panics inside");
        runtime.as_ref().expect("it lives").spawn(work)
    }

    /// Kills it: nothing is said to anybody. Returns when nothing of it runs any more.
    pub async fn kill(&self) {
        let runtime = self.runtime.lock().expect("no case panics inside").take();
        if let Some(runtime) = runtime {
            let dead = tokio::task::spawn_blocking(move || drop(runtime));
            dead.await.expect("no panic");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().map(Option::take);
        if let Ok(Some(runtime)) = runtime {
            runtime.shutdown_background();
        }
    }
}

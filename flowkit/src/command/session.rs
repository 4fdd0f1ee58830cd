//! An engine over a data folder with workers for the built-in roles.

use flowkit::health::HealthServer;
use flowkit::of_command::Folder;
use flowkit::prelude::*;
use flowkit::settings::Settings;
use flowkit_core::port::PortError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::args::{DataArgs, OperatedArgs, TaskArgs, WORKERS_MAX};
use super::exec::Programs;
use super::failure::{Ending, Failure};
use super::health;
use super::interrupt::Interrupt;
use super::nodes::failure_line;
use super::output::eputln;
use super::progress::Progress;
use super::stuck::Stuck;

/// How often progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long servers that do not answer are waited for while a task is followed.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Time between two looks for servers that did not answer.
const AWAY_INTERVAL: Duration = Duration::from_millis(500);

/// Where an engine's state lives.
#[derive(Debug)]
pub(crate) enum DataFolder {
    /// The user's; it stays.
    Kept(PathBuf),
    /// Ours; it goes when dropped, or is deleted by a later command if this one is killed.
    Temporary(Folder),
}

impl DataFolder {
    /// The user's folder, made if absent, or a temporary one.
    pub(crate) fn new(data: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = data else {
            return Folder::for_state().map(Self::Temporary).map_err(|e| {
                Failure::input(format!(
                    "cannot make a temporary folder: {e}; name one with --data PATH"
                ))
            });
        };
        let cannot = |e| {
            let path = path.display();
            Failure::input(format!(
                "cannot use the data folder {path}: {e}; name another with --data PATH"
            ))
        };
        std::fs::create_dir_all(path).map_err(cannot)?;
        std::fs::canonicalize(path).map(Self::Kept).map_err(cannot)
    }

    /// A folder that an earlier command made.
    pub(crate) fn existing(path: &Path) -> Result<Self, Failure> {
        if !EmbeddedStore::exists(path) {
            if let Err(error) = std::fs::read_dir(path)
                && error.kind() == std::io::ErrorKind::PermissionDenied
            {
                let path = path.display();
                return Err(Failure::input(format!(
                    "cannot read the data folder {path}: permission denied"
                )));
            }
            return Err(Failure::input(format!(
                "{} holds no FlowKit data; name the folder that an earlier `flowkit demo --data` \
                 or `flowkit run --data` used",
                path.display()
            )));
        }
        Self::new(Some(path))
    }

    /// Its path, absolute.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    /// What is in it outlives the command.
    pub(crate) const fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Session {
    engine: Engine,
    workers: Vec<WorkerHandle>,
    home: Home,
    settings: Settings,
}

/// What is behind an engine.
#[derive(Debug)]
enum Home {
    /// A data folder on this machine.
    Folder(Arc<EmbeddedStore>, DataFolder),
    /// Kafka and MongoDB.
    Servers,
}

/// How following a task ended.
#[derive(Debug)]
pub(crate) enum Followed {
    /// The task is settled.
    Settled(TaskStatus),
    /// Ctrl-C; the task as it was after the workers had stopped.
    Interrupted(TaskStatus),
}

impl Followed {
    /// The task's status, and what the command makes of it.
    pub(crate) fn ending(&self) -> (&TaskStatus, Ending) {
        match self {
            Self::Settled(status) if status.state == TaskState::Finished => {
                (status, Ending::Finished)
            }
            Self::Settled(status) => (status, Ending::Failed),
            Self::Interrupted(status) => (status, Ending::Interrupted),
        }
    }

    /// Says on standard error why it did not finish, if it did not.
    pub(crate) fn explain(&self, kept: bool) {
        if let Some(failure) = &self.ending().0.failure {
            eputln!("error: {}", failure_line(failure));
        }
        match self {
            Self::Settled(_) => {}
            Self::Interrupted(_) if kept => {
                eputln!("interrupted; the same command goes on where this one stopped");
            }
            Self::Interrupted(_) => eputln!("interrupted; without --data nothing is kept"),
        }
    }
}

impl Session {
    /// Opens the engine to look at it: no coordinator and no worker, so nothing moves.
    pub(crate) async fn look(folder: DataFolder, settings: Settings) -> Result<Self, Failure> {
        let path = folder.path().to_owned();
        // Opening reads the whole file.
        let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await;
        let store = opened.map_err(Failure::engine)?.map_err(cannot_open)?;
        let store = Arc::new(store);
        let engine = Engine::local(store.clone()).await.map_err(Failure::input)?;
        Ok(Self {
            engine,
            workers: Vec::new(),
            home: Home::Folder(store, folder),
            settings,
        })
    }

    /// The data folder or the deployment that the arguments name, to look at it.
    pub(crate) async fn to_look(args: &TaskArgs) -> Result<Self, Failure> {
        let settings = args.given()?.settings().map_err(Failure::input)?;
        match &args.data {
            Some(data) => Self::look(DataFolder::existing(data)?, settings).await,
            None if cfg!(not(feature = "fleet")) && !args.fleet.is_given() => Err(no_place()),
            None => Self::connect(settings).await,
        }
    }

    /// An engine over the servers that the settings name; nothing runs in it yet.
    pub(crate) async fn connect(settings: Settings) -> Result<Self, Failure> {
        Ok(Self {
            engine: super::fleet::connect(&settings).await?,
            workers: Vec::new(),
            home: Home::Servers,
            settings,
        })
    }

    /// An engine that a test made.
    #[cfg(test)]
    pub(crate) const fn over(engine: Engine, settings: Settings) -> Self {
        Self {
            engine,
            workers: Vec::new(),
            home: Home::Servers,
            settings,
        }
    }

    /// Starts a coordinator in this process.
    pub(crate) async fn coordinate(&self) -> Result<(), Failure> {
        let settings = self.settings.coordinator.clone();
        let started = self.engine.start_with(settings).await;
        started.map_err(|error| match error {
            StartError::Settings(_) => Failure::input(error),
            _ => Failure::engine(error),
        })
    }

    /// Opens the engine and starts its coordinator; no worker yet.
    pub(crate) async fn open(folder: DataFolder, settings: Settings) -> Result<Self, Failure> {
        let session = Self::look(folder, settings).await?;
        session.coordinate().await?;
        Ok(session)
    }

    /// Serves health of this process, if the settings say where.
    pub(crate) async fn serve_health(&self) -> Result<Option<HealthServer>, Failure> {
        health::serve(&self.settings.fleet.health_listen, &self.engine).await
    }

    /// What the command was given.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// It is a data folder, not servers.
    pub(crate) const fn is_folder(&self) -> bool {
        matches!(self.home, Home::Folder(..))
    }

    /// The engine.
    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts workers for the built-in roles, and for those that programs run.
    pub(crate) fn start_workers(
        &mut self,
        data: &DataArgs,
        programs: &Programs,
    ) -> Result<(), Failure> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let default = u32::try_from(cores.max(2)).unwrap_or(2);
        let count = data.workers.unwrap_or(default.min(WORKERS_MAX));
        for number in 1..=count {
            let mut worker = Worker::builder(&self.engine);
            worker = programs.with_built_in(worker);
            if matches!(self.home, Home::Folder(..)) {
                // A restart is the same worker, so what it held is granted anew at once. (Over
                // servers, another process may be alive under the same id.)
                worker = worker.worker_id(format!("local-{number}"));
            }
            let worker = worker
                .settings(self.settings.worker.clone())
                .build()
                .map_err(Failure::engine)?;
            self.workers.push(worker.start());
        }
        Ok(())
    }

    /// A client of the engine.
    pub(crate) fn client(&self) -> Client {
        self.engine.client()
    }

    /// The unfinished task that an earlier run of the same command left under `key`, or a new one.
    ///
    /// A task id follows from the key and a number: 1 for the first task of this command, 2 for
    /// the one after it has ended, and so on. So a crash between two steps cannot make two tasks.
    pub(crate) async fn task(
        &self,
        key: &str,
        graph: &serde_json::Value,
        vars: Option<Json>,
        operated: Option<&OperatedArgs>,
    ) -> Result<TaskHandle, Failure> {
        let client = self.client();
        let key = self.unfinished(key).await?;
        let task = client.task_of_key(&key);
        match task.status().await {
            Ok(status) => {
                let goes_on = match status.state {
                    TaskState::Paused => "paused",
                    _ => "goes on",
                };
                eputln!("task {}: {goes_on}", task.id());
                let unlike = operated.map_or_else(Vec::new, |args| args.unlike(&status.options));
                if !unlike.is_empty() {
                    eputln!(
                        "note: {} changes nothing: the task goes on with what it was submitted with",
                        unlike.join(", ")
                    );
                }
            }
            Err(_) => {
                let mut options = SubmitOptions::with_key(key);
                if let Some(args) = operated {
                    options = args.given(options);
                }
                options.vars = vars;
                client.submit(graph, options).await.map_err(refused)?;
                eputln!("task {}: new", task.id());
            }
        }
        Ok(task)
    }

    /// The key, with a number, whose task is not there yet or has not ended.
    pub(crate) async fn unfinished(&self, key: &str) -> Result<String, Failure> {
        let client = self.client();
        for number in 1_u64.. {
            let key = format!("{key}#{number}");
            let task = client.task_of_key(&key);
            match task.status().await {
                Ok(status) if status.state.is_terminal() => {}
                Ok(status) if status.state == TaskState::Paused => {
                    // Nobody else can let it go on while this process has the folder.
                    if let Home::Folder(_, folder) = &self.home {
                        return Err(Failure::input(format!(
                            "task {} is paused; `flowkit task resume {} --data {}` lets it go on",
                            task.id(),
                            task.id(),
                            folder.path().display()
                        )));
                    }
                    return Ok(key);
                }
                Err(ClientError::Swept(_)) => {}
                Ok(_) | Err(ClientError::NoSuchTask(_)) => return Ok(key),
                Err(error) => return Err(Failure::engine(error)),
            }
        }
        unreachable!("2^64 tasks")
    }

    /// Follows a task to its end or to Ctrl-C. While nothing of it runs, it is said why.
    pub(crate) async fn follow(
        &self,
        task: &TaskHandle,
        interrupt: &mut Interrupt,
    ) -> Result<Followed, Failure> {
        let mut progress = Progress::new();
        let mut watch = task.watch(LOOK_INTERVAL);
        let (mut last, mut away) = (None, None);
        let mut stuck = Stuck::default();
        let limits = &self.settings.coordinator.limits;
        let followed = loop {
            tokio::select! {
                next = next_of(&mut watch, &mut away) => match next.map_err(Failure::engine)? {
                    Some(status) => {
                        progress.show(&status);
                        stuck.seen(&status);
                        last = Some(status);
                    }
                    None => match last {
                        Some(status) => break Followed::Settled(status),
                        None => return Err(Failure::engine("the task has no status")),
                    },
                },
                sentence = stuck.sentence(task, limits) => progress.note(&sentence),
                () = progress.draw() => {}
                error = self.worker_ended() => return Err(error),
                () = interrupt.raised() => {
                    self.engine.stop().await;
                    let status = task.status().await.map_err(Failure::engine)?;
                    progress.show(&status);
                    break Followed::Interrupted(status);
                }
            }
        };
        progress.end();
        Ok(followed)
    }

    /// Waits for `work`, unless the data folder fails before: then nothing of the engine goes on.
    pub(crate) async fn unless_failed<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Home::Folder(store, folder) = &self.home else {
            return work.await;
        };
        tokio::select! {
            biased;
            // Not its kind: to the engine no more can be read, to people the disk is full.
            PortError { op, detail, .. } = store.fatal() => Err(Failure::engine(format!(
                "{op}: {detail}\n  the data folder {} cannot be written any more. What was accepted before \
                 is safe: see to the disk, then type the same command again",
                folder.path().display()
            ))),
            outcome = work => outcome,
        }
    }

    /// Returns when a worker has ended by itself.
    async fn worker_ended(&self) -> Failure {
        if self.workers.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.workers.iter().map(|worker| Box::pin(worker.stopped()));
        match futures_util::future::select_all(ends).await.0 {
            Ok(()) => Failure::engine("a worker stopped by itself"),
            Err(error) => Failure::engine(error),
        }
    }

    /// What is in the data folder outlives the command.
    pub(crate) const fn is_kept(&self) -> bool {
        match &self.home {
            Home::Folder(_, folder) => folder.is_kept(),
            Home::Servers => true,
        }
    }

    /// Stops what runs; a temporary data folder goes.
    pub(crate) async fn close(self) {
        self.engine.stop().await;
    }
}

/// The next status of a task. Servers that are away for a while are waited for; since when is kept in
/// `away`. Cancel safe.
async fn next_of(
    watch: &mut TaskWatch,
    away: &mut Option<Instant>,
) -> Result<Option<TaskStatus>, ClientError> {
    loop {
        match watch.next().await {
            Err(error) if error.is_passing() => {
                // Statuses that change nothing are waited through: they end an outage, too.
                let heard = watch.answered_at();
                *away = away.filter(|since| heard.is_none_or(|heard| heard < *since));
                let since = *away.get_or_insert_with(|| {
                    let patience = AWAY_MAX.as_secs();
                    eputln!("note: {error}; the task goes on, trying again for up to {patience} s");
                    Instant::now()
                });
                if since.elapsed() >= AWAY_MAX {
                    return Err(error);
                }
                tokio::time::sleep(AWAY_INTERVAL).await;
            }
            next => {
                if next.is_ok() && away.take().is_some() {
                    eputln!("note: the servers answer again");
                }
                return next;
            }
        }
    }
}

/// Neither a data folder nor servers were named.
pub(crate) fn no_place() -> Failure {
    Failure::input("name the data folder of an earlier `demo` or `run`: --data PATH")
}

fn cannot_open(error: OpenError) -> Failure {
    let hint = match error {
        OpenError::InUse { .. } => ": wait until it has ended, or stop it with Ctrl-C",
        _ => "",
    };
    Failure::input(format!("{error}{hint}"))
}

/// A refused graph is the user's to mend, the rest is not.
pub(crate) fn refused(error: ClientError) -> Failure {
    match error.refusal() {
        Some(_) => Failure::input(error),
        None => Failure::engine(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use flowkit::settings::Given;
    use flowkit_core::port::{ErrorKind, Store, StoreReply, StoreRequest};
    use flowkit_memory::{LocalTransport, MemoryStore};
    use serde_json::json;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// The way of a client to the store, which may be cut.
    #[derive(Debug)]
    struct Cut(Arc<MemoryStore>, AtomicBool);

    #[async_trait]
    impl Store for Cut {
        async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
            if self.1.load(Ordering::SeqCst) {
                return Err(PortError::new(ErrorKind::Retry, request.name(), "no route"));
            }
            self.0.call(request).await
        }
    }

    /// Follows a task that runs elsewhere for 20 s, with a store that is away for so long from the 5th on.
    async fn followed(away: Duration) -> (Result<Followed, Failure>, Duration) {
        let (store, transport) = (
            Arc::new(MemoryStore::new()),
            Arc::new(LocalTransport::new()),
        );
        let elsewhere = Engine::with(store.clone(), transport.clone());
        elsewhere.start().await.expect("started");
        let long = handler_fn(|cx: RunContext, _: Batch<Json>| async move {
            cx.sleep(Duration::from_secs(20)).await?;
            Ok(BatchResult::of(1))
        });
        let worker = Worker::builder(&elsewhere).role("long", long).build();
        worker.expect("a worker").start();
        let cut = Arc::new(Cut(store, AtomicBool::new(false)));
        let settings = Given::default().settings().expect("defaults fit");
        let session = Session::over(Engine::with(cut.clone(), transport), settings);
        let graph = json!({"nodes": [{"node_id": "n", "type": "long"}]});
        let options = SubmitOptions::default();
        let task = session.client().submit(&graph, options).await;
        let task = task.expect("submitted");
        let began = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cut.1.store(true, Ordering::SeqCst);
            tokio::time::sleep(away).await;
            cut.1.store(false, Ordering::SeqCst);
        });
        let mut interrupt = Interrupt::listen();
        let followed = session.follow(&task, &mut interrupt).await;
        (followed, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_followed_through_a_short_outage_of_the_store() {
        let (followed, _) = followed(Duration::from_secs(30)).await;
        let followed = followed.expect("it waits");
        assert_eq!(followed.ending().1, Ending::Finished, "{followed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stays_away_is_waited_for_a_minute() {
        let (followed, took) = followed(Duration::from_secs(600)).await;
        let error = followed.expect_err("a minute is over").to_string();
        assert!(error.contains("no route"), "{error}");
        let expected = Duration::from_secs(65)..Duration::from_secs(80);
        assert!(expected.contains(&took), "{took:?}");
    }
}

//! The client: submits tasks and asks about them.

mod control;
mod inbox;
mod presence;
mod rerun;
mod task;
mod why;
mod worker;

pub use presence::{Heard, Presence, ShardLag};
pub use rerun::RerunOptions;
pub use task::{
    ArtifactView, Artifacts, NodeStatus, TaskHandle, TaskOutcome, TaskStatus, TaskWatch,
};
pub use worker::{ActiveRun, WorkerView};

use flowkit_core::control::TaskOptions;
use flowkit_core::id::{ShardId, TaskId, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{Body, Envelope, ErrorReply, Reply, ReplyError, Submit};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{
    ErrorKind, PortError, StoreReply, StoreRequest, Stream, TaskWithNodes, TransportRequest,
    WorkerList,
};
use flowkit_core::record::WorkerRecord;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

use crate::engine::{Engine, unexpected};
use crate::ids::task_id_of_key;
use inbox::Inbox;

/// First wait for a reply before the request is sent again; doubles up to 15 s.
const REPLY_PATIENCE: Duration = Duration::from_secs(2);
const REPLY_PATIENCE_MAX: Duration = Duration::from_secs(15);
/// How long a request is repeated before the caller is told.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Submits tasks and asks about them. Cheap to clone; clones share one inbox.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Engine,
    inbox: OnceCell<Inbox>,
    request_timeout: Duration,
}

/// A page of tasks, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskList {
    /// The tasks, without their nodes.
    pub tasks: Vec<TaskStatus>,
    /// Tasks that are set aside because their record cannot be read, and why.
    pub unreadable: Vec<(TaskId, Arc<str>)>,
    /// More follow: ask again with `after` = this.
    pub next: Option<TaskId>,
}

/// How a task is submitted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SubmitOptions {
    /// The same key with the same graph is the same task, however often it is submitted; with
    /// another graph it is refused as `idempotency_conflict`.
    pub idempotency_key: Option<String>,
    /// The task's id. Default: derived from the idempotency key, else new and ordered by time.
    pub task_id: Option<TaskId>,
    /// The task's vars at its start: a JSON object.
    pub vars: Option<Json>,
    /// Priority, delayed start, and the key of a limit.
    pub operated: TaskOptions,
}

impl SubmitOptions {
    /// Options with an idempotency key.
    #[must_use]
    pub fn with_key(key: impl Into<String>) -> Self {
        Self {
            idempotency_key: Some(key.into()),
            ..Self::default()
        }
    }

    /// Options with a task id.
    #[must_use]
    pub fn with_task_id(task_id: TaskId) -> Self {
        Self {
            task_id: Some(task_id),
            ..Self::default()
        }
    }

    /// Sets the task's priority: where nodes of several tasks are ready, those of the highest one are
    /// granted first; default 0.
    #[must_use]
    pub const fn priority(mut self, priority: i32) -> Self {
        self.operated.priority = priority;
        self
    }

    /// No node of the task starts before so long after its submission was taken; at most ten years.
    /// Counted by the store's clock where it outlives a coordinator: never early by that.
    #[must_use]
    pub fn start_delay(mut self, delay: Duration) -> Self {
        self.operated.start_delay_ms = crate::clock::millis(delay);
        self
    }

    /// The task's nodes count against the coordinator's limit for this key (`limits.keys`).
    #[must_use]
    pub fn limit_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.operated.limit_key = Some(key.into());
        self
    }

    /// Sets the task's vars.
    #[must_use]
    pub fn vars(mut self, vars: Json) -> Self {
        self.vars = Some(vars);
        self
    }
}

/// Why a request of a client failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The coordinator refused it.
    #[error("{message}{}", list(faults))]
    #[non_exhaustive]
    Refused {
        /// What to do next depends on this.
        kind: ReplyError,
        /// One sentence for people.
        message: Arc<str>,
        /// Every fault of the graph, each with its path and the cure.
        faults: Vec<Arc<str>>,
    },
    /// Nobody answered in time. The request may have been carried out: the same submission again
    /// (same task id or idempotency key) is safe.
    #[error("no coordinator answered within {} s; is one running?", .0.as_secs())]
    NoAnswer(Duration),
    /// There is no such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskId),
    /// The task's retention ended: it was swept, and only its id is left.
    #[error("task {0} was swept: its retention ended")]
    Swept(TaskId),
    /// A record of the task cannot be read: a newer version wrote it, or it is damaged. The task is set
    /// aside, and all others go on.
    #[error(
        "task {task_id} is set aside: a record of it cannot be read ({why}); `flowkit doctor` checks what is \
         stored"
    )]
    #[non_exhaustive]
    Unreadable {
        /// The task.
        task_id: TaskId,
        /// What the store says of the record.
        why: Arc<str>,
    },
    /// A value has no JSON form.
    #[error("the value has no JSON form: {0}")]
    Encode(Arc<serde_json::Error>),
    /// The store or the transport failed.
    #[error(transparent)]
    Port(#[from] PortError),
}

fn list(faults: &[Arc<str>]) -> String {
    faults
        .iter()
        .map(|fault| format!("\n  - {fault}"))
        .collect()
}

impl ClientError {
    /// The kind of refusal, if the coordinator refused the request.
    #[must_use]
    pub fn refusal(&self) -> Option<ReplyError> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// The servers, or the coordinators, did not answer: the same again may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Port(error) => matches!(error.kind, ErrorKind::Retry | ErrorKind::Unknown),
            _ => false,
        }
    }
}

impl Client {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                inbox: OnceCell::new(),
                request_timeout: REQUEST_TIMEOUT,
            }),
        }
    }

    /// Submits a task. Returns once it is durably accepted, or was before.
    ///
    /// `graph` is anything that serializes to the graph format: a `serde_json::Value`, a [`Json`],
    /// a graph type. (Text must be parsed first, with [`Json::parse`].) The request is repeated
    /// until it is answered, for a minute at most; a repeat never makes a second task.
    ///
    /// # Errors
    /// [`ClientError::Refused`] lists every fault of the graph. [`ClientError::NoAnswer`].
    ///
    /// # Cancel safety
    /// If dropped while waiting, the task may or may not exist; submit it again with the same id
    /// or idempotency key to find out.
    pub async fn submit<G: Serialize + ?Sized>(
        &self,
        graph: &G,
        options: SubmitOptions,
    ) -> Result<TaskHandle, ClientError> {
        let graph = Json::encode(graph).map_err(|error| ClientError::Encode(Arc::new(error)))?;
        let key = options.idempotency_key;
        let task_id = options.task_id.unwrap_or_else(|| match &key {
            Some(key) if !is_planted(Bug::KeyUnused) => task_id_of_key(key),
            _ => {
                let engine = &self.inner.engine;
                engine.ids().task_id(engine.clock())
            }
        });
        let inbox = self.inbox().await?;
        let body = Body::Submit(Submit {
            graph,
            vars: options.vars.unwrap_or_default(),
            idempotency_key: key.map(Arc::from),
            options: options.operated,
            inbox: inbox.partition(),
        });
        self.request(&task_id, body).await?;
        Ok(self.task(task_id))
    }

    /// A handle of a task that exists, or may.
    #[must_use]
    pub fn task(&self, task_id: TaskId) -> TaskHandle {
        TaskHandle::new(self.clone(), task_id)
    }

    /// The handle of the task that was, or would be, submitted with this idempotency key.
    #[must_use]
    pub fn task_of_key(&self, key: &str) -> TaskHandle {
        self.task(task_id_of_key(key))
    }

    /// A page of tasks by id, without their nodes. Generated ids are ordered by time.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self, after: Option<TaskId>, limit: u32) -> Result<TaskList, ClientError> {
        match self.read(StoreRequest::ListTasks { after, limit }).await? {
            StoreReply::Tasks(page) => {
                let read = page.tasks.last().map(|task| &task.task.task_id);
                let last = read.max(page.unreadable.last().map(|(id, _)| id)).cloned();
                let mut tasks: Vec<_> = page.tasks.into_iter().map(TaskStatus::from).collect();
                if is_planted(Bug::ListSkips) {
                    tasks.pop();
                }
                Ok(TaskList {
                    next: last.filter(|_| page.more),
                    tasks,
                    unreadable: page.unreadable,
                })
            }
            other => Err(unexpected("list tasks", &other).into()),
        }
    }

    /// A task with its nodes.
    async fn read_task(&self, task_id: &TaskId) -> Result<TaskWithNodes, ClientError> {
        let request = StoreRequest::ReadTask {
            task_id: task_id.clone(),
        };
        match self.read(request).await {
            Err(_) if is_planted(Bug::UnreadIsAbsent) => Err(self.missing(task_id).await),
            Ok(StoreReply::Task(Some(task))) => Ok(*task),
            Ok(StoreReply::Task(None)) => Err(self.missing(task_id).await),
            Ok(other) => Err(unexpected("read task", &other).into()),
            Err(error) if error.kind == ErrorKind::Corrupt => Err(ClientError::Unreadable {
                task_id: task_id.clone(),
                why: error.detail,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Every worker that ever registered, with its newest process.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, ClientError> {
        Ok(self.worker_list().await?.workers)
    }

    /// Workers whose record cannot be read, and why: they are in no list of workers. Such a worker cannot
    /// start again under its id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn unreadable_workers(&self) -> Result<Vec<(WorkerId, Arc<str>)>, ClientError> {
        Ok(self.worker_list().await?.unreadable)
    }

    async fn worker_list(&self) -> Result<WorkerList, ClientError> {
        match self.read(StoreRequest::ReadWorkers).await? {
            StoreReply::Workers(found) => Ok(found),
            other => Err(unexpected("read workers", &other).into()),
        }
    }

    /// The nodes that a worker runs now, with their checkpoints: its state.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn active_runs(&self, worker_id: WorkerId) -> Result<Vec<NodeStatus>, ClientError> {
        match self.read(StoreRequest::ActiveRuns { worker_id }).await? {
            StoreReply::Nodes(nodes) => Ok(nodes.into_iter().map(NodeStatus::from).collect()),
            other => Err(unexpected("read active runs", &other).into()),
        }
    }

    /// Why a task cannot be read that the store does not show.
    async fn missing(&self, task_id: &TaskId) -> ClientError {
        let tasks = vec![task_id.clone()];
        match self.read(StoreRequest::LookupTasks { tasks }).await {
            Ok(StoreReply::Answers(known)) if known.iter().flatten().any(|known| known.swept) => {
                ClientError::Swept(task_id.clone())
            }
            Ok(_) => ClientError::NoSuchTask(task_id.clone()),
            Err(error) => error.into(),
        }
    }

    /// Retention has begun to take the task away.
    async fn is_swept(&self, task_id: &TaskId) -> Result<bool, ClientError> {
        let tasks = vec![task_id.clone()];
        match self.read(StoreRequest::LookupTasks { tasks }).await? {
            StoreReply::Answers(known) => Ok(known.iter().flatten().any(|known| known.swept)),
            other => Err(unexpected("look tasks up", &other).into()),
        }
    }

    fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    async fn read(&self, request: StoreRequest) -> Result<StoreReply, PortError> {
        let engine = &self.inner.engine;
        let call = engine.store().call(request);
        tokio::time::timeout(engine.rpc_timeout(), call)
            .await
            .unwrap_or_else(|_| {
                let detail = "the store did not answer in time";
                Err(PortError::new(ErrorKind::Unknown, "read", detail))
            })
    }

    async fn inbox(&self) -> Result<&Inbox, PortError> {
        let engine = &self.inner.engine;
        self.inner
            .inbox
            .get_or_try_init(|| Inbox::open(engine.clone()))
            .await
    }

    /// Sends a request until it is answered.
    async fn request(&self, task_id: &TaskId, body: Body) -> Result<Reply, ClientError> {
        let timeout = self.inner.request_timeout;
        tokio::time::timeout(
            timeout,
            self.request_until_answered(task_id, body, REPLY_PATIENCE),
        )
        .await
        .unwrap_or_else(|_| {
            if is_planted(Bug::NoAnswerIsOk) {
                return Ok(Reply {
                    ok: true,
                    state: None,
                    failure: None,
                    error: None,
                });
            }
            Err(ClientError::NoAnswer(timeout))
        })
    }

    async fn request_until_answered(
        &self,
        task_id: &TaskId,
        body: Body,
        mut patience: Duration,
    ) -> Result<Reply, ClientError> {
        let inbox = self.inbox().await?;
        let engine = &self.inner.engine;
        let shards = engine.deployment().await?.shards;
        let mut waiting = inbox.expect_reply();
        let mut envelope = Envelope::new(inbox.sender(), engine.clock().wall_ms(), body);
        envelope.corr_id = Some(waiting.corr_id());
        envelope.task_id = Some(task_id.clone());
        let mut envelope = Arc::new(envelope.identified(0));
        let stream = Stream::Shard(ShardId::of(task_id, shards));
        loop {
            // A repeat is the same message: who has answered it answers again, from state.
            let send = async {
                match send(engine, stream, &envelope).await {
                    Ok(()) => std::future::pending().await,
                    Err(error) => error,
                }
            };
            tokio::select! {
                biased;
                reply = waiting.reply() => return accepted(reply),
                error = send => return Err(error.into()),
                () = tokio::time::sleep(patience), if !is_planted(Bug::AsksOnce) => {
                    patience = (patience * 2).min(REPLY_PATIENCE_MAX);
                    if is_planted(Bug::RepeatRenamed) {
                        let other = engine.ids().task_id(engine.clock());
                        Arc::make_mut(&mut envelope).task_id = Some(other);
                    }
                }
            }
        }
    }
}

/// Appends a request, or may have. A full or absent stream is tried again soon.
async fn send(engine: &Engine, stream: Stream, envelope: &Arc<Envelope>) -> Result<(), PortError> {
    let mut pause = Duration::from_millis(20);
    loop {
        let append = TransportRequest::Append {
            stream,
            envelope: envelope.clone(),
        };
        match engine.transport().call(append).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == ErrorKind::Unknown => return Ok(()),
            Err(error) if error.kind == ErrorKind::Retry => {}
            // What is wrong with it will be wrong again.
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn accepted(reply: Reply) -> Result<Reply, ClientError> {
    match reply.error {
        Some(ErrorReply {
            kind,
            message,
            faults,
        }) if !reply.ok => Err(ClientError::Refused {
            kind,
            message,
            faults,
        }),
        _ => Ok(reply),
    }
}

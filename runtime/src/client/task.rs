//! One task, as a client sees it.

use flowkit_core::control::TaskOptions;
use flowkit_core::id::{BatchUid, Epoch, NodeId, TaskId, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::{Artifact, Body, CancelTask, Metrics, WaitTask};
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{StoreReply, StoreRequest, TaskWithNodes};
use flowkit_core::record::{
    ArtifactRecord, Failure, History, NodeRecord, NodeState, TaskState, Totals,
};
use flowkit_core::text::{REASON_BYTES_MAX, cut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Client, ClientError};
use crate::engine::unexpected;

/// A task. Cheap to clone; dropping it changes nothing about the task.
#[derive(Clone, Debug)]
pub struct TaskHandle {
    pub(super) client: Client,
    pub(super) task_id: TaskId,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskOutcome {
    /// A terminal state.
    pub state: TaskState,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// A task as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// Terminal, and nothing of it runs any more.
    pub settled: bool,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Pauses and resumes that were carried out.
    pub control_no: u64,
    /// Priority, delayed start, and the key of a limit.
    pub options: TaskOptions,
    /// Wall time of the submission, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// Its graph as submitted.
    pub graph: Json,
    /// Its vars: a JSON object, or `null`.
    pub vars: Json,
    /// The task that it runs again, if it is a rerun.
    pub rerun_of: Option<TaskId>,
    /// Every change of its state, with time and cause: the reasons of cancels and pauses, too.
    pub history: History<TaskState>,
    /// Its nodes by id. Empty in a list of tasks.
    pub nodes: Vec<NodeStatus>,
}

/// A node as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// Its state.
    pub state: NodeState,
    /// Attempts so far.
    pub attempts: Epoch,
    /// Grants so far: attempts, and repeats after a lost worker or a hand-over.
    pub grants: u32,
    /// Accepted batches over all attempts.
    pub batches: u64,
    /// Attempts that the handler ended in failure.
    pub failures: u32,
    /// Grants lost in a row.
    pub losses: u32,
    /// Who runs it now.
    pub worker_id: Option<WorkerId>,
    /// Newest checkpoint of an accepted batch.
    pub checkpoint: Option<Json>,
    /// Totals of its numeric metrics over accepted batches.
    pub totals: Totals,
    /// What `finalize` returned.
    pub result: Option<Json>,
    /// Why it failed or was skipped, if it was.
    pub failure: Option<Failure>,
    /// A rerun kept it: its batches are those of the same node of this task.
    pub kept_from: Option<TaskId>,
    /// Every change of its state, with time and cause.
    pub history: History<NodeState>,
}

impl From<NodeRecord> for NodeStatus {
    fn from(node: NodeRecord) -> Self {
        Self {
            task_id: node.task_id,
            node_id: node.node_id,
            state: node.state,
            attempts: node.epoch,
            grants: node.grants,
            batches: if is_planted(Bug::BatchesUnshown) {
                0
            } else {
                node.accepted
            },
            failures: node.failures,
            losses: node.losses,
            worker_id: node.grant.map(|grant| grant.worker_id),
            checkpoint: node.checkpoint,
            totals: node.totals,
            result: node.result,
            failure: node.failure,
            kept_from: node.kept_from,
            history: node.history,
        }
    }
}

impl From<TaskWithNodes> for TaskStatus {
    fn from(found: TaskWithNodes) -> Self {
        let task = found.task;
        Self {
            task_id: task.task_id,
            state: task.state,
            settled: task.settled,
            failure: task.failure,
            control_no: task.control.no,
            options: task.control.options,
            created_at_ms: task.created_at_ms,
            graph: task.graph,
            vars: task.vars,
            rerun_of: task.rerun.map(|rerun| rerun.of),
            history: task.history,
            nodes: found.nodes.into_iter().map(NodeStatus::from).collect(),
        }
    }
}

impl TaskStatus {
    /// A node by its id.
    #[must_use]
    pub fn node(&self, node_id: &str) -> Option<&NodeStatus> {
        self.nodes
            .iter()
            .find(|node| node.node_id.as_str() == node_id)
    }

    /// The sum of each metric over the accepted batches of all nodes; what a rerun kept counts as well.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<Arc<str>, f64> {
        let mut sums = BTreeMap::new();
        for (name, total) in self.nodes.iter().flat_map(|node| &node.totals) {
            let sum: &mut f64 = sums.entry(name.clone()).or_default();
            // Infinity has no form in JSON.
            *sum = (*sum + total.sum.0).clamp(f64::MIN, f64::MAX);
        }
        sums
    }
}

/// First wait of `wait` before it asks again; doubles up to a minute. Nothing is late by it: the
/// answer comes when the task settles, and only a new owner of the shard has to be asked again
/// (and one that more than 1,000 wait for at once).
const WAIT_PATIENCE: Duration = Duration::from_secs(5);

impl TaskHandle {
    pub(super) fn new(client: Client, task_id: TaskId) -> Self {
        Self { client, task_id }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> &TaskId {
        &self.task_id
    }

    /// The task with its nodes, as the store has it now.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::Swept`], [`ClientError::Unreadable`], or the store
    /// cannot be read.
    pub async fn status(&self) -> Result<TaskStatus, ClientError> {
        let found = self.client.read_task(&self.task_id).await?;
        Ok(TaskStatus::from(found))
    }

    /// Waits until the task is settled: terminal, and nothing of it runs any more. Asks once and is
    /// answered then; nothing polls.
    ///
    /// # Errors
    /// The coordinator does not know the task, or the transport failed.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping it changes nothing, and it may be called again.
    pub async fn wait(&self) -> Result<TaskOutcome, ClientError> {
        let inbox = self.client.inbox().await?.partition();
        let body = Body::WaitTask(WaitTask { inbox });
        let reply = self
            .client
            .request_until_answered(&self.task_id, body, WAIT_PATIENCE)
            .await?;
        match reply.state {
            Some(state) => Ok(TaskOutcome {
                state,
                failure: reply.failure,
            }),
            None => {
                let status = self.status().await?;
                Ok(TaskOutcome {
                    state: status.state,
                    failure: status.failure,
                })
            }
        }
    }

    /// Cancels the task. Returns once the cancel is durable: from then on no node of it starts.
    /// Running handlers are told, and end or are dropped within `grace` (default: the deployment's
    /// `cancel_grace_sec`); [`TaskHandle::wait`] returns when they have. The state as of the answer
    /// is returned: a task that had ended before stays as it was. The reason is kept in the histories of the
    /// task and its nodes, of a long one the first KiB ([`REASON_BYTES_MAX`]).
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::NoAnswer`].
    ///
    /// # Cancel safety
    /// If dropped while waiting, the task may or may not be cancelled; asking again is safe.
    pub async fn cancel(
        &self,
        reason: &str,
        grace: Option<Duration>,
    ) -> Result<Option<TaskState>, ClientError> {
        let body = Body::CancelTask(CancelTask {
            reason: cut(reason, REASON_BYTES_MAX).into(),
            grace_ms: grace.map(crate::clock::millis),
            inbox: self.client.inbox().await?.partition(),
        });
        let reply = self.client.request(&self.task_id, body).await?;
        Ok(reply.state)
    }

    /// Follows the task for display: its status whenever it has changed, looked at every
    /// `interval` and at once when it settles, which is the last one.
    #[must_use]
    pub fn watch(&self, interval: Duration) -> TaskWatch {
        TaskWatch {
            task: self.clone(),
            interval,
            shown: None,
            settled: None,
            ended: false,
            answered_at: None,
        }
    }

    /// The accepted artifacts of a node, in order. Those of a node that a rerun kept are read where
    /// they are.
    #[must_use]
    pub fn artifacts(&self, node_id: &str) -> Artifacts {
        Artifacts {
            task: self.clone(),
            node_id: node_id.to_owned(),
            of: None,
            after: 0,
            page: VecDeque::new(),
        }
    }
}

type Settling = futures_util::future::BoxFuture<'static, Result<TaskOutcome, ClientError>>;

/// See [`TaskHandle::watch`].
pub struct TaskWatch {
    task: TaskHandle,
    interval: Duration,
    shown: Option<TaskStatus>,
    settled: Option<Settling>,
    ended: bool,
    answered_at: Option<tokio::time::Instant>,
}

impl std::fmt::Debug for TaskWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskWatch({})", self.task.task_id)
    }
}

impl TaskWatch {
    /// When the store last told the task's status, shown or not: since when it has been away, if it is.
    #[must_use]
    pub const fn answered_at(&self) -> Option<tokio::time::Instant> {
        self.answered_at
    }

    /// The next status; `None` after the one that is settled.
    ///
    /// # Errors
    /// See [`TaskHandle::status`]. It may be called again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<TaskStatus>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let mut outcome = None;
            if self.shown.is_some() {
                let task = self.task.clone();
                let settled = self
                    .settled
                    .get_or_insert_with(|| Box::pin(async move { task.wait().await }));
                tokio::select! {
                    biased;
                    settled = settled => {
                        self.settled = None;
                        outcome = Some(settled?);
                    }
                    () = tokio::time::sleep(self.interval) => {}
                }
            }
            let status = match (self.task.status().await, outcome, &self.shown) {
                // Its retention is so short that only its end is left to tell.
                (Err(ClientError::Swept(_)), Some(outcome), Some(shown)) => TaskStatus {
                    state: outcome.state,
                    settled: true,
                    failure: outcome.failure,
                    ..shown.clone()
                },
                (status, ..) => status?,
            };
            self.answered_at = Some(tokio::time::Instant::now());
            if self.shown.as_ref() != Some(&status) {
                self.ended = status.settled;
                self.shown = Some(status.clone());
                return Ok(Some(status));
            }
        }
    }
}

/// An accepted artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactView {
    /// Its place in the node's accepted sequence, from 1.
    pub number: u64,
    /// The batch it is of.
    pub batch_uid: BatchUid,
    /// The batch's metrics.
    pub metrics: Metrics,
    /// What the handler wrote; the metrics, if it wrote nothing.
    pub value: Json,
}

/// See [`TaskHandle::artifacts`].
#[derive(Debug)]
pub struct Artifacts {
    task: TaskHandle,
    node_id: String,
    /// The task that has them, once one was found or looked for.
    of: Option<TaskId>,
    after: u64,
    page: VecDeque<ArtifactRecord>,
}

impl Artifacts {
    /// The next artifact; `None` when there is no more *now*. Asking again later may find more.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::Swept`], or the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<ArtifactView>, ClientError> {
        if self.page.is_empty() {
            let Ok(node_id) = NodeId::new(&self.node_id) else {
                return Ok(None); // no node has such an id
            };
            self.read(&node_id).await?;
            if self.page.is_empty() && self.of.is_none() {
                // Nothing of its own: a rerun may have kept the node.
                self.of = self.kept_from(&node_id).await?;
                if self.of.is_some() {
                    self.read(&node_id).await?;
                }
            }
        }
        let next = self.page.front().map(|record| record.number);
        if let Some(of) = &self.of
            && next != Some(self.after + 1)
            && self.task.client.is_swept(of).await?
        {
            // What is left of a task that is being swept is not all that there was.
            return Err(ClientError::Swept(of.clone()));
        }
        let Some(record) = self.page.pop_front() else {
            return Ok(None);
        };
        self.after = record.number;
        let value = match record.artifact {
            Some(Artifact::Inline(value)) => value,
            // The store resolves staged bodies; without one, the metrics are the artifact.
            Some(Artifact::Staged(_)) | None => Json::encode(&record.metrics)
                .map_err(|error| ClientError::Encode(Arc::new(error)))?,
        };
        Ok(Some(ArtifactView {
            number: record.number,
            batch_uid: record.batch_uid,
            metrics: record.metrics,
            value,
        }))
    }

    async fn read(&mut self, node_id: &NodeId) -> Result<(), ClientError> {
        let request = StoreRequest::ReadArtifacts {
            task_id: self.of.as_ref().unwrap_or(&self.task.task_id).clone(),
            node_id: node_id.clone(),
            after: if self.after > 0 && is_planted(Bug::PageSkipped) {
                self.after + 1
            } else {
                self.after
            },
            limit: 256,
        };
        match self.task.client.read(request).await? {
            StoreReply::Artifacts(page) => self.page = page.into(),
            other => return Err(unexpected("read artifacts", &other).into()),
        }
        if !self.page.is_empty() && self.of.is_none() {
            self.of = Some(self.task.task_id.clone());
        }
        Ok(())
    }

    async fn kept_from(&self, node_id: &NodeId) -> Result<Option<TaskId>, ClientError> {
        let found = self.task.client.read_task(&self.task.task_id).await?;
        let mut nodes = found.nodes.into_iter();
        let node = nodes.find(|node| node.node_id == *node_id);
        Ok(node.and_then(|node| node.kept_from))
    }

    /// All that there are now.
    ///
    /// # Errors
    /// As [`Artifacts::next`].
    pub async fn all(mut self) -> Result<Vec<ArtifactView>, ClientError> {
        let mut all = Vec::new();
        while let Some(artifact) = self.next().await? {
            all.push(artifact);
        }
        Ok(all)
    }
}

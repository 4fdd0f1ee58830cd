//! Running a settled task again.

use flowkit_core::id::{NodeId, ShardId, TaskId};
use flowkit_core::message::{Body, ReplyError, RerunTask};
use std::sync::Arc;

use super::{ClientError, TaskHandle};
use crate::ids::{in_shard, task_id_of_key};

/// What of a settled task runs again. By default: every node that did not finish, and everything
/// below such a node; the others are kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RerunOptions {
    /// Nodes that run again although they finished, with everything below them.
    pub from: Vec<String>,
    /// Every node runs again; nothing is kept. Excludes `from`.
    pub all: bool,
    /// The same key with the same options is the same rerun, however often it is asked for; with
    /// others it is refused as `idempotency_conflict`.
    pub idempotency_key: Option<String>,
    /// The new task's id, which must be of the same shard as the old one's. Default: derived from
    /// the idempotency key, else new and ordered by time.
    pub task_id: Option<TaskId>,
}

impl RerunOptions {
    /// Runs these nodes again although they finished, and everything below them.
    #[must_use]
    pub fn from_nodes<N: Into<String>>(nodes: impl IntoIterator<Item = N>) -> Self {
        Self {
            from: nodes.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Runs every node again.
    #[must_use]
    pub fn all() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Options with an idempotency key.
    #[must_use]
    pub fn with_key(key: impl Into<String>) -> Self {
        Self {
            idempotency_key: Some(key.into()),
            ..Self::default()
        }
    }

    /// Options with an id of the new task.
    #[must_use]
    pub fn with_task_id(task_id: TaskId) -> Self {
        Self {
            task_id: Some(task_id),
            ..Self::default()
        }
    }
}

impl TaskHandle {
    /// Runs a settled task again as a new task, which keeps what this one has done: a kept node is
    /// finished from the start, and its readers read the old task's artifacts, which stay as long as
    /// the new task does. This task does not change. Returns once the new one is durably accepted.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: the task has not ended (`NotSettled`), does not exist, was set
    /// aside, has no node of that name, or has nothing left to run. [`ClientError::NoAnswer`].
    ///
    /// # Cancel safety
    /// If dropped while waiting, the new task may or may not exist; asking again with the same id or
    /// idempotency key is safe.
    pub async fn rerun(&self, options: RerunOptions) -> Result<Self, ClientError> {
        let mut from = Vec::with_capacity(options.from.len());
        let mut faults: Vec<Arc<str>> = Vec::new();
        for name in &options.from {
            match NodeId::new(name) {
                Ok(node) => from.push(node),
                Err(error) => faults.push(Arc::from(format!("from: the node's name {error}"))),
            }
        }
        if !faults.is_empty() {
            return Err(ClientError::Refused {
                kind: ReplyError::Invalid,
                message: Arc::from("`from` names what cannot be a node"),
                faults,
            });
        }
        let engine = self.client().engine();
        let shards = engine.deployment().await?.shards;
        let task_id = options.task_id.unwrap_or_else(|| {
            let shard = ShardId::of(self.id(), shards);
            in_shard(shard, shards, |number| match &options.idempotency_key {
                Some(key) if number == 0 => task_id_of_key(key),
                Some(key) => task_id_of_key(&format!("{key}\n{number}")),
                None => engine.ids().task_id(engine.clock()),
            })
        });
        let body = Body::RerunTask(RerunTask {
            of: self.id().clone(),
            from,
            all: options.all,
            inbox: self.client().inbox().await?.partition(),
        });
        self.client().request(&task_id, body).await?;
        Ok(self.client().task(task_id))
    }
}

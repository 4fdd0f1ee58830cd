//! Workers as a client sees them: their record, when they were heard, and what they run.

use flowkit_core::id::{ShardId, Token, WorkerId};
use flowkit_core::message::CancelReason;
use flowkit_core::planted::{Bug, is_planted};
use flowkit_core::port::{StoreReply, StoreRequest};
use flowkit_core::record::{NodeRecord, WorkerRecord};
use std::sync::Arc;

use super::presence::{Heard, Presence};
use super::{Client, ClientError, NodeStatus};
use crate::TaskId;
use crate::engine::unexpected;

/// Tasks read at once.
const LOAD_PAGE: u32 = 500;

/// A worker: its state, as the store and the streams have it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerView {
    /// Its newest process, as it registered.
    pub record: WorkerRecord,
    /// When it was heard last; `None` if the newest entries of the streams do not name it. (On one
    /// machine the streams go with the process.)
    pub heard: Option<Heard>,
    /// The nodes it runs now, with their checkpoints.
    pub runs: Vec<ActiveRun>,
}

/// A node that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveRun {
    /// The node, with its newest checkpoint.
    pub node: NodeStatus,
    /// The token it runs under.
    pub token: Token,
    /// Length of its lease in milliseconds.
    pub lease_ttl_ms: u64,
    /// Why it was told to end, if it was.
    pub told_to_end: Option<CancelReason>,
    /// Wall time of the grant, in milliseconds since the Unix epoch.
    pub granted_at_ms: Option<i64>,
    /// Batches of this run and how long its batch is in work, as of its newest heartbeat.
    pub beat: Option<(u64, u64)>,
}

impl ActiveRun {
    fn of(node: NodeRecord, heard: Option<&Heard>) -> Self {
        let token = node.lease_no;
        let key = (node.task_id.clone(), node.node_id.clone());
        let beat = heard
            .and_then(|heard| heard.beats.get(&key))
            .filter(|beat| beat.token == token);
        Self {
            token,
            lease_ttl_ms: node.grant.as_ref().map_or(0, |grant| grant.lease_ttl_ms),
            told_to_end: node
                .grant
                .as_ref()
                .and_then(|grant| grant.cancel)
                .map(|cancel| cancel.reason),
            granted_at_ms: node.history.entries.last().map(|entry| entry.at_ms),
            beat: beat.map(|beat| (beat.batches, beat.in_batch_ms)),
            node: NodeStatus::from(node),
        }
    }
}

impl Client {
    /// Every worker that ever registered, with what it runs and when it was heard; those whose record
    /// cannot be read are in [`Client::unreadable_workers`] instead.
    ///
    /// # Errors
    /// The store or the transport cannot be read.
    pub async fn worker_views(&self) -> Result<Vec<WorkerView>, ClientError> {
        let presence = self.presence().await?;
        let mut views = Vec::new();
        for record in self.workers().await? {
            views.push(self.view(record, &presence).await?);
        }
        Ok(views)
    }

    /// One worker; `None` if none of this id ever registered.
    ///
    /// # Errors
    /// The store or the transport cannot be read.
    pub async fn worker(&self, worker_id: &WorkerId) -> Result<Option<WorkerView>, ClientError> {
        let records = self.workers().await?;
        let Some(record) = records.into_iter().find(|r| r.worker_id == *worker_id) else {
            return Ok(None);
        };
        let presence = self.presence().await?;
        Ok(Some(self.view(record, &presence).await?))
    }

    async fn view(
        &self,
        record: WorkerRecord,
        presence: &Presence,
    ) -> Result<WorkerView, ClientError> {
        let heard = presence.workers.get(&record.worker_id).cloned();
        let mut nodes = self.granted_to(record.worker_id.clone()).await?;
        if is_planted(Bug::RunsUnshown) {
            nodes.pop();
        }
        let runs = nodes
            .into_iter()
            .map(|node| ActiveRun::of(node, heard.as_ref()))
            .collect();
        Ok(WorkerView {
            record,
            heard,
            runs,
        })
    }

    /// The records of the nodes that a worker holds.
    pub(crate) async fn granted_to(
        &self,
        worker_id: WorkerId,
    ) -> Result<Vec<NodeRecord>, ClientError> {
        match self.read(StoreRequest::ActiveRuns { worker_id }).await? {
            StoreReply::Nodes(nodes) => Ok(nodes),
            other => Err(unexpected("read active runs", &other).into()),
        }
    }

    /// Unsettled tasks that are set aside because a record of theirs, the task's or a node's, cannot
    /// be read, and why. Nodes of such a task are in no list of active runs. Reads every task that is
    /// not settled.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn unreadable(&self) -> Result<Vec<(TaskId, Arc<str>)>, ClientError> {
        let mut found = Vec::new();
        let shards = self.inner.engine.deployment().await?.shards;
        for shard in (0..shards).map(ShardId) {
            let mut after = None;
            loop {
                let request = StoreRequest::LoadTasks {
                    shard,
                    after,
                    limit: LOAD_PAGE,
                };
                let page = match self.read(request).await? {
                    StoreReply::Tasks(page) => page,
                    other => return Err(unexpected("load tasks", &other).into()),
                };
                let read = page.tasks.last().map(|task| task.task.task_id.clone());
                let set_aside = page.unreadable.last().map(|(id, _)| id.clone());
                found.extend(page.unreadable);
                after = read.max(set_aside);
                if !page.more || after.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }
}

//! Faults that only the inside of a store can have, as plain data.

use flowkit_core::id::{BatchUid, NodeId, TaskId, WorkerId};
use flowkit_core::port::{Commit, ErrorKind, PortError, Record, StoreRequest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A fault to inject into a [`StoreModel`](super::StoreModel).
///
/// Every kind has a name; [`StoreModel::fired`](super::StoreModel::fired) counts how often each one
/// took effect, so that a test can prove it was not idle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StoreFault {
    /// Answer the next `times` commits that write a record of this task with `Invalid`.
    ///
    /// Two times reach the path of one event per commit: the group and the event alone.
    RefuseTask {
        /// The task.
        task_id: TaskId,
        /// How many commits.
        times: u32,
    },
    /// Answer every commit that inserts this artifact with `Invalid`, until healed: an event
    /// that no store will ever take.
    RefuseArtifact {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// The batch.
        batch_uid: BatchUid,
    },
    /// The task's record, or one of its nodes' records, can no longer be decoded, durably. A later
    /// commit that writes the record cures it. No effect if there is no such record.
    Poison {
        /// The task.
        task_id: TaskId,
        /// The node; `None` = the task record itself.
        node_id: Option<NodeId>,
    },
    /// The worker's record can no longer be decoded, durably. A registration that writes it cures it. No
    /// effect if there is no such record.
    PoisonWorker {
        /// The worker.
        worker_id: WorkerId,
    },
    /// Answer the next `times` requests of any kind with `Retry`; nothing happens.
    RetryNext {
        /// How many requests.
        times: u32,
    },
    /// Answer every request that writes with `Retry`, until healed.
    DiskFull,
}

/// The faults in force, and how often each kind took effect.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    refuse_task: BTreeMap<TaskId, u32>,
    refuse_artifact: BTreeSet<(TaskId, NodeId, BatchUid)>,
    retry_next: u32,
    disk_full: bool,
    pub(super) fired: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Takes a fault in; what makes records rot is a change of state and no business of this one.
    pub(super) fn add(&mut self, fault: StoreFault) {
        match fault {
            StoreFault::RefuseTask { task_id, times } => {
                self.refuse_task.insert(task_id, times);
            }
            StoreFault::RefuseArtifact {
                task_id,
                node_id,
                batch_uid,
            } => {
                self.refuse_artifact.insert((task_id, node_id, batch_uid));
            }
            StoreFault::RetryNext { times } => self.retry_next = times,
            StoreFault::DiskFull => self.disk_full = true,
            StoreFault::Poison { .. } | StoreFault::PoisonWorker { .. } => {}
        }
    }

    /// Ends every fault; what already rotted stays.
    pub(super) fn heal(&mut self) {
        let fired = std::mem::take(&mut self.fired);
        *self = Self {
            fired,
            ..Self::default()
        };
    }

    pub(super) fn note(&mut self, name: &'static str) {
        *self.fired.entry(name).or_default() += 1;
    }

    /// The answer of a faulty store to any request, if a fault is in force.
    pub(super) fn before(&mut self, op: &str, writes: bool) -> Result<(), PortError> {
        if self.retry_next > 0 {
            self.retry_next -= 1;
            self.note("retry_next");
            return Err(PortError::new(ErrorKind::Retry, op, "not available"));
        }
        if self.disk_full && writes {
            self.note("disk_full");
            return Err(PortError::new(ErrorKind::Retry, op, "disk full"));
        }
        Ok(())
    }

    /// Why a faulty store refuses a commit, if it does.
    pub(super) fn refusal(&mut self, commit: &Commit) -> Option<&'static str> {
        if self.refuse_task.is_empty() && self.refuse_artifact.is_empty() {
            return None;
        }
        for record in &commit.records {
            if let Record::Artifact(artifact) = record {
                let key = (
                    artifact.task_id.clone(),
                    artifact.node_id.clone(),
                    artifact.batch_uid.clone(),
                );
                if self.refuse_artifact.contains(&key) {
                    self.note("refuse_artifact");
                    return Some("an artifact is refused");
                }
            }
            if let Some(times) = self.refuse_task.get_mut(record.task_id())
                && *times > 0
            {
                *times -= 1;
                self.note("refuse_task");
                return Some("a record is refused");
            }
        }
        None
    }
}

/// Whether a request may write to the disk.
pub(super) fn writes(request: &StoreRequest) -> bool {
    matches!(
        request,
        StoreRequest::Deployment { .. }
            | StoreRequest::AcquireShard { .. }
            | StoreRequest::ReleaseShard { .. }
            | StoreRequest::RaiseEpoch { .. }
            | StoreRequest::Commit(_)
            | StoreRequest::RegisterWorker { .. }
            | StoreRequest::TakeScratch { .. }
            | StoreRequest::PutScratch { .. }
            | StoreRequest::StageArtifact { .. }
            | StoreRequest::SweepStaged { .. }
    )
}

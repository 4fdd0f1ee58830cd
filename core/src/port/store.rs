//! The store port.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::PortError;
use crate::id::{
    BatchUid, ClientId, DedupId, Incarnation, NodeId, Offset, Role, ShardId, TaskId, Token,
    WorkerId,
};
use crate::json::Json;
use crate::record::{
    ArtifactRecord, DeploymentRecord, Failure, NodeRecord, ScratchRecord, ShardRecord, TaskRecord,
    TaskState, TombstoneRecord, WorkerRecord,
};

/// A record that a commit writes, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Written over whatever is there.
    Task(Box<TaskRecord>),
    /// Written over whatever is there.
    Node(Box<NodeRecord>),
    /// Inserted; the same number or batch uid again makes the commit `Invalid`.
    Artifact(Box<ArtifactRecord>),
    /// Written over whatever is there. From then on the task is hidden from `ReadTask` and the lists,
    /// and lookups answer that it was swept.
    Tombstone(Box<TombstoneRecord>),
    /// Takes records away, after everything that the commit writes. What is not there is no fault.
    Remove(Removal),
}

/// What a commit takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Removal {
    /// Artifacts of a node by number, with the staged bodies that they point to.
    Artifacts {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// The first number.
        from: u64,
        /// The last number.
        to: u64,
    },
    /// A node's record and scratch, and every staged body that is left of it.
    Node {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
    },
    /// A task's record. Its tombstone stays.
    Task {
        /// The task.
        task_id: TaskId,
    },
}

impl Removal {
    /// The task that it is about.
    #[must_use]
    pub const fn task_id(&self) -> &TaskId {
        match self {
            Self::Artifacts { task_id, .. }
            | Self::Node { task_id, .. }
            | Self::Task { task_id } => task_id,
        }
    }
}

impl Record {
    /// The task that it is about.
    #[must_use]
    pub fn task_id(&self) -> &TaskId {
        match self {
            Self::Task(record) => &record.task_id,
            Self::Node(record) => &record.task_id,
            Self::Artifact(record) => &record.task_id,
            Self::Tombstone(record) => &record.task_id,
            Self::Remove(removal) => removal.task_id(),
        }
    }
}

/// One group commit of a shard: applied whole, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The shard.
    pub shard: ShardId,
    /// Must equal the stored shard epoch.
    pub epoch: u64,
    /// Must equal the stored `commit_seq` + 1.
    pub seq: u64,
    /// Identity of this commit: the same seq with the same id stored = it had happened.
    pub id: u64,
    /// First offset that is not folded in.
    pub next: Offset,
    /// `dedup_id` of the entry before `next`.
    pub last_entry: Option<DedupId>,
    /// Records to write; at most one per key.
    pub records: Vec<Record>,
}

/// A request to the store.
///
/// Every request is safe to repeat. "Store time" is the store's own clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreRequest {
    /// Read the deployment record, creating it as proposed if there is none. -> `Deployment`
    Deployment {
        /// Used only if there is no record yet.
        propose: DeploymentRecord,
    },
    /// Take or renew the lease on a shard if it is free, lapsed (by store time) or ours. -> `Lease`
    AcquireShard {
        /// The shard.
        shard: ShardId,
        /// This start of this coordinator.
        owner: ClientId,
        /// Length of the lease from now.
        ttl_ms: u64,
    },
    /// Give the lease up if it is ours. -> `Done`
    ReleaseShard {
        /// The shard.
        shard: ShardId,
        /// This start of this coordinator.
        owner: ClientId,
    },
    /// Read the shard record (all zero if there is none). -> `Shard`
    ReadShard {
        /// The shard.
        shard: ShardId,
    },
    /// Raise the shard epoch by one if epoch and commit_seq are as read and the lease is `owner`'s.
    /// -> `Shard` (as raised), or `Fenced`. A repeat may find its own raise and answer `Fenced`;
    /// the caller then starts over with the lease.
    RaiseEpoch {
        /// The shard.
        shard: ShardId,
        /// This start of this coordinator.
        owner: ClientId,
        /// Epoch as read.
        epoch: u64,
        /// Commit_seq as read.
        commit_seq: u64,
    },
    /// Page through the shard's tasks that are not settled, by task id. -> `Tasks`
    LoadTasks {
        /// The shard.
        shard: ShardId,
        /// Only ids greater than this.
        after: Option<TaskId>,
        /// Most tasks per page.
        limit: u32,
    },
    /// One group commit. -> `Committed` once durable; where [`Store::applies_before_sync`] is
    /// true, once *applied* (visible to reads, in order; a crash may lose a suffix of commits).
    /// `Fenced`: another epoch. `Invalid`: refused whole, nothing written.
    Commit(Arc<Commit>),
    /// Make every applied commit of the shard durable. -> `Synced`. Only where
    /// [`Store::applies_before_sync`] is true.
    Sync {
        /// The shard.
        shard: ShardId,
    },
    /// What is known of tasks that the owner does not hold in memory. -> `Answers`, in order
    LookupTasks {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// Every worker's record, and whose cannot be read. -> `Workers`
    ReadWorkers,
    /// Raise a worker's incarnation from the expected one and write its record. -> `Registered`;
    /// also if the very same start had raised it. `IncarnationIs` if another one is stored:
    /// nothing was written. So a late copy never raises above a living process.
    RegisterWorker {
        /// The worker.
        worker_id: WorkerId,
        /// The incarnation before; 0 for a worker that never registered.
        expected: Incarnation,
        /// Drawn by this process start.
        start_nonce: u64,
        /// Its roles.
        roles: Vec<Role>,
        /// Nodes it runs at once.
        capacity: u32,
        /// Its inbox partition.
        inbox: u32,
        /// Its version, for people.
        worker_version: Arc<str>,
    },
    /// The worker's own newest incarnation and the current grants of nodes. -> `Grants`, in order
    ReadGrants {
        /// The asking worker.
        worker_id: WorkerId,
        /// The nodes.
        nodes: Vec<(TaskId, NodeId)>,
    },
    /// Batch uids of accepted artifacts with a number above `after`, by number. -> `Accepted`
    ReadAccepted {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// Only numbers above this.
        after: u64,
        /// Most uids per reply.
        limit: u32,
    },
    /// Artifacts with a number above `after`, by number, staged bodies resolved. -> `Artifacts`
    ReadArtifacts {
        /// The task.
        task_id: TaskId,
        /// The source node.
        node_id: NodeId,
        /// Only numbers above this.
        after: u64,
        /// Most artifacts per reply (and about 4 MiB; at least one if there is one).
        limit: u32,
    },
    /// Read a node's scratch and raise its token in the same operation. -> `Scratch`, or `Fenced`
    /// if a greater token was there.
    TakeScratch {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// The token of the run that reads.
        token: Token,
    },
    /// Write a node's scratch if the token is not below the stored one. -> `Done`, or `Fenced`.
    /// A save with a lower number than the stored one of the same token is a late copy: `Done`,
    /// and nothing is written.
    PutScratch {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// The token of the run that writes.
        token: Token,
        /// Counts the saves of the run from 1.
        save_no: u64,
        /// The batch in work.
        batch_uid: BatchUid,
        /// Its checkpoint.
        checkpoint: Json,
    },
    /// Stage the body of a large artifact, immutable. -> `Done`
    StageArtifact {
        /// The task.
        task_id: TaskId,
        /// The node.
        node_id: NodeId,
        /// The batch.
        batch_uid: BatchUid,
        /// The token of the run that writes.
        token: Token,
        /// The artifact.
        body: Json,
    },
    /// A page of the shard's settled tasks whose record was last written so long ago by store time,
    /// longest ago first. -> `Expired`
    ReadExpired {
        /// The shard.
        shard: ShardId,
        /// Those that did not finish; else those that did.
        failed: bool,
        /// How long ago at least.
        age_ms: u64,
        /// Only what comes after this one: its time and id.
        after: Option<(i64, TaskId)>,
        /// Most tasks per page.
        limit: u32,
    },
    /// What is left of a task that is swept: as `ReadTask`, but a tombstone does not hide it, and as
    /// of the newest applied commit. -> `Task`
    ReadRemains {
        /// The task.
        task_id: TaskId,
    },
    /// Page through the tasks that have staged bodies, whether they exist or not, by id. -> `Staged`
    ReadStaged {
        /// Only ids greater than this.
        after: Option<TaskId>,
        /// Most tasks per page.
        limit: u32,
    },
    /// Look at staged bodies of a task and take away those that no artifact points to and whose node
    /// is terminal or does not exist. Such a body is never pointed to any more, so a late copy of
    /// this request does no harm. -> `Swept`
    SweepStaged {
        /// The task.
        task_id: TaskId,
        /// Only what comes after this one.
        after: Option<StagedKey>,
        /// Most bodies to look at.
        limit: u32,
    },
    /// A task with all its nodes; none if it was swept. -> `Task`
    ReadTask {
        /// The task.
        task_id: TaskId,
    },
    /// Page through all tasks by id, newest state of each. -> `Tasks` without nodes
    ListTasks {
        /// Only ids greater than this.
        after: Option<TaskId>,
        /// Most tasks per page.
        limit: u32,
    },
    /// Every node granted to a worker: its active runs. -> `Nodes`
    ActiveRuns {
        /// The worker.
        worker_id: WorkerId,
    },
}

impl StoreRequest {
    /// What is asked, in one word: for errors and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Deployment { .. } => "deployment",
            Self::AcquireShard { .. } => "acquire_shard",
            Self::ReleaseShard { .. } => "release_shard",
            Self::ReadShard { .. } => "read_shard",
            Self::RaiseEpoch { .. } => "raise_epoch",
            Self::LoadTasks { .. } => "load_tasks",
            Self::Commit(_) => "commit",
            Self::Sync { .. } => "sync",
            Self::LookupTasks { .. } => "lookup_tasks",
            Self::ReadWorkers => "read_workers",
            Self::RegisterWorker { .. } => "register_worker",
            Self::ReadGrants { .. } => "read_grants",
            Self::ReadAccepted { .. } => "read_accepted",
            Self::ReadArtifacts { .. } => "read_artifacts",
            Self::TakeScratch { .. } => "take_scratch",
            Self::PutScratch { .. } => "put_scratch",
            Self::StageArtifact { .. } => "stage_artifact",
            Self::ReadTask { .. } => "read_task",
            Self::ListTasks { .. } => "list_tasks",
            Self::ActiveRuns { .. } => "active_runs",
            Self::ReadExpired { .. } => "read_expired",
            Self::ReadRemains { .. } => "read_remains",
            Self::ReadStaged { .. } => "read_staged",
            Self::SweepStaged { .. } => "sweep_staged",
        }
    }
}

/// The answer to a [`StoreRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreReply {
    /// It is done.
    Done,
    /// The deployment's fixed numbers.
    Deployment(DeploymentRecord),
    /// Who holds the shard now.
    Lease(LeaseView),
    /// The shard record.
    Shard(ShardRecord),
    /// A page of tasks.
    Tasks(TaskPage),
    /// The commit is durable (or applied, see [`StoreRequest::Commit`]).
    Committed {
        /// Its seq.
        seq: u64,
    },
    /// Every commit applied before the request is durable.
    Synced {
        /// Seq of the newest durable commit.
        seq: u64,
    },
    /// What is known of the asked tasks, in order.
    Answers(Vec<Option<TaskAnswer>>),
    /// Workers.
    Workers(WorkerList),
    /// The new incarnation.
    Registered(Incarnation),
    /// Not registered: the stored incarnation is not the expected one.
    IncarnationIs(Incarnation),
    /// Grants of the asked nodes, in order; the asking worker's newest incarnation.
    Grants {
        /// The asking worker's newest incarnation, as stored.
        incarnation: Incarnation,
        /// One per asked node; `None` if there is no such node.
        grants: Vec<Option<GrantView>>,
    },
    /// Number and uid of accepted batches.
    Accepted(Vec<(u64, BatchUid)>),
    /// Artifacts with their bodies inline.
    Artifacts(Vec<ArtifactRecord>),
    /// The scratch as it was, if one was saved.
    Scratch(Option<ScratchRecord>),
    /// A task with its nodes.
    Task(Option<Box<TaskWithNodes>>),
    /// Settled tasks by time and id.
    Expired(ExpiredPage),
    /// Tasks with staged bodies.
    Staged {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// Ask again with `after` = the last one.
        more: bool,
    },
    /// Staged bodies were looked at.
    Swept {
        /// How many were taken away.
        removed: u32,
        /// Ask again with this as `after`; none if that was all.
        next: Option<StagedKey>,
    },
    /// Nodes.
    Nodes(Vec<NodeRecord>),
}

/// A page of settled tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredPage {
    /// The tasks.
    pub tasks: Vec<ExpiredTask>,
    /// Ask again with `after` = the last one.
    pub more: bool,
}

/// A settled task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredTask {
    /// The task.
    pub task_id: TaskId,
    /// When its record was last written, by the store's clock. Only for the next page.
    pub written_ms: i64,
    /// The record of another task points to it: a rerun.
    pub pointed: bool,
}

/// Names a staged body of a task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StagedKey {
    /// The node.
    pub node_id: NodeId,
    /// The batch.
    pub batch_uid: BatchUid,
    /// The token of the run that wrote it.
    pub token: Token,
}

/// Who holds a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The asker holds it.
    pub held: bool,
    /// Who holds it.
    pub owner: ClientId,
    /// Rest of the lease by store time.
    pub remaining_ms: u64,
}

/// What is known of a task that is not in the owner's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAnswer {
    /// Hash of its submission.
    pub submission_hash: u128,
    /// Its state.
    pub state: TaskState,
    /// Terminal and no grant left.
    pub settled: bool,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its retention ended: this is what its tombstone says.
    pub swept: bool,
}

/// The grant of a node as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantView {
    /// The current token; `None` if the node is not granted.
    pub token: Option<Token>,
    /// The task is cancelled or failed, or the grant was told to end.
    pub cancelled: bool,
    /// A record of it cannot be read just now. Its run is to end, but which token is current nobody can
    /// say: once the record is written again, the same one may be.
    pub unreadable: bool,
}

/// A task and its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskWithNodes {
    /// The task.
    pub task: TaskRecord,
    /// Its nodes, by node id.
    pub nodes: Vec<NodeRecord>,
    /// How long ago, by store time, each node record was written.
    pub node_age_ms: Vec<u64>,
}

/// A page of tasks, by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskWithNodes>,
    /// Tasks with a record that cannot be read: set aside, and why.
    pub unreadable: Vec<(TaskId, Arc<str>)>,
    /// Ask again with `after` = the last id of this page.
    pub more: bool,
}

/// Every worker that ever registered, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerList {
    /// Their newest records.
    pub workers: Vec<WorkerRecord>,
    /// Workers whose record cannot be read: left out, and why.
    pub unreadable: Vec<(WorkerId, Arc<str>)>,
}

impl From<Vec<WorkerRecord>> for WorkerList {
    fn from(workers: Vec<WorkerRecord>) -> Self {
        Self {
            workers,
            unreadable: Vec::new(),
        }
    }
}

/// A store.
///
/// Implementations keep no policy: every decision is in the request. A call that is dropped
/// before it returns may or may not have happened.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Carries out one request.
    ///
    /// # Errors
    /// [`PortError`], whose kind says what to do next.
    async fn call(&self, request: StoreRequest) -> Result<StoreReply, PortError>;

    /// `Commit` returns when applied, and `Sync` makes it durable (one process, one fate).
    fn applies_before_sync(&self) -> bool {
        false
    }
}

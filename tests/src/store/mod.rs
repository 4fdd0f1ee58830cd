//! The suite of every store.

pub mod artifacts;
pub mod commit;
pub mod crash;
pub mod ownership;
pub mod reads;
pub mod scratch;
pub mod sweep;
pub mod workers;

use flowkit_core::id::{ClientId, Offset, ShardId, TaskId};
use flowkit_core::port::{
    Commit, ErrorKind, GrantView, LeaseView, PortError, Record, StoreReply, StoreRequest,
    TaskAnswer, TaskPage, TaskWithNodes,
};
use flowkit_core::record::{ArtifactRecord, ShardRecord};
use std::sync::Arc;

use crate::StoreInstance;
use crate::records::{node_id, owner_id, task_id};

/// The shard that most cases use.
const SHARD: ShardId = ShardId(0);
/// A lease that no case outlasts by accident.
const LONG_MS: u64 = 3_600_000;

/// An owner of a shard, in the middle of its commits.
#[derive(Clone, Debug)]
struct Owner {
    name: ClientId,
    shard: ShardRecord,
}

impl Owner {
    /// Takes the shard over: lease, read, raise.
    async fn take(store: &StoreInstance, name: &str) -> Self {
        Self::take_shard(store, name, SHARD).await
    }

    async fn take_shard(store: &StoreInstance, name: &str, shard: ShardId) -> Self {
        let lease = acquire(store, shard, name, LONG_MS).await;
        assert!(lease.held, "{name} cannot have the lease: {lease:?}");
        let read = shard_record(store, shard).await;
        let raised = store.ok(raise_request(name, &read)).await;
        let StoreReply::Shard(shard) = raised else {
            panic!("not a shard: {raised:?}");
        };
        Self {
            name: owner_id(name),
            shard,
        }
    }

    /// The commit that comes next, not submitted.
    fn next(&self, records: Vec<Record>) -> Commit {
        let seq = self.shard.commit_seq + 1;
        Commit {
            shard: self.shard.shard,
            epoch: self.shard.epoch,
            seq,
            id: self.shard.epoch * 1_000_000 + seq,
            next: Offset(self.shard.next.0 + 1),
            last_entry: None,
            records,
        }
    }

    /// Notes that a commit is applied.
    fn done(&mut self, commit: &Commit) {
        self.shard.commit_seq = commit.seq;
        self.shard.commit_id = commit.id;
        self.shard.next = commit.next;
        self.shard.last_entry = commit.last_entry;
    }

    /// Commits, without making it durable where that is a step of its own.
    async fn apply(&mut self, store: &StoreInstance, records: Vec<Record>) {
        let commit = self.next(records);
        assert_eq!(submit(store, &commit).await, Ok(commit.seq));
        self.done(&commit);
    }

    /// Commits durably.
    async fn commit(&mut self, store: &StoreInstance, records: Vec<Record>) {
        self.apply(store, records).await;
        sync(store, self.shard.shard, self.shard.commit_seq).await;
    }
}

/// Makes everything applied durable, where that is a step of its own.
async fn sync(store: &StoreInstance, shard: ShardId, expected: u64) {
    if store.is_two_phase() {
        let reply = store.ok(StoreRequest::Sync { shard }).await;
        assert_eq!(reply, StoreReply::Synced { seq: expected });
    }
}

async fn submit(store: &StoreInstance, commit: &Commit) -> Result<u64, ErrorKind> {
    committed(
        store
            .call(StoreRequest::Commit(Arc::new(commit.clone())))
            .await,
    )
}

fn committed(result: Result<StoreReply, PortError>) -> Result<u64, ErrorKind> {
    match result {
        Ok(StoreReply::Committed { seq }) => Ok(seq),
        Ok(other) => panic!("not an answer to a commit: {other:?}"),
        Err(error) => Err(error.kind),
    }
}

async fn acquire(store: &StoreInstance, shard: ShardId, owner: &str, ttl_ms: u64) -> LeaseView {
    let request = StoreRequest::AcquireShard {
        shard,
        owner: owner_id(owner),
        ttl_ms,
    };
    match store.ok(request).await {
        StoreReply::Lease(lease) => lease,
        other => panic!("not a lease: {other:?}"),
    }
}

async fn shard_record(store: &StoreInstance, shard: ShardId) -> ShardRecord {
    match store.ok(StoreRequest::ReadShard { shard }).await {
        StoreReply::Shard(record) => record,
        other => panic!("not a shard: {other:?}"),
    }
}

fn raise_request(owner: &str, read: &ShardRecord) -> StoreRequest {
    StoreRequest::RaiseEpoch {
        shard: read.shard,
        owner: owner_id(owner),
        epoch: read.epoch,
        commit_seq: read.commit_seq,
    }
}

async fn load(store: &StoreInstance, shard: ShardId, after: Option<&str>, limit: u32) -> TaskPage {
    let request = StoreRequest::LoadTasks {
        shard,
        after: after.map(task_id),
        limit,
    };
    match store.ok(request).await {
        StoreReply::Tasks(page) => page,
        other => panic!("not a page: {other:?}"),
    }
}

async fn list(store: &StoreInstance, after: Option<TaskId>, limit: u32) -> TaskPage {
    match store.ok(StoreRequest::ListTasks { after, limit }).await {
        StoreReply::Tasks(page) => page,
        other => panic!("not a page: {other:?}"),
    }
}

fn ids(page: &TaskPage) -> Vec<&str> {
    page.tasks.iter().map(|t| t.task.task_id.as_str()).collect()
}

async fn lookup(store: &StoreInstance, tasks: &[&str]) -> Vec<Option<TaskAnswer>> {
    let tasks = tasks.iter().map(|id| task_id(id)).collect();
    match store.ok(StoreRequest::LookupTasks { tasks }).await {
        StoreReply::Answers(answers) => answers,
        other => panic!("not answers: {other:?}"),
    }
}

async fn exists(store: &StoreInstance, task: &str) -> bool {
    lookup(store, &[task]).await[0].is_some()
}

async fn read_task(store: &StoreInstance, task: &str) -> Option<TaskWithNodes> {
    let request = StoreRequest::ReadTask {
        task_id: task_id(task),
    };
    match store.ok(request).await {
        StoreReply::Task(task) => task.map(|boxed| *boxed),
        other => panic!("not a task: {other:?}"),
    }
}

async fn grants(store: &StoreInstance, nodes: &[(&str, &str)]) -> Vec<Option<GrantView>> {
    let request = StoreRequest::ReadGrants {
        worker_id: crate::records::worker_id("asks"),
        nodes: nodes
            .iter()
            .map(|(task, node)| (task_id(task), node_id(node)))
            .collect(),
    };
    match store.ok(request).await {
        StoreReply::Grants { grants, .. } => grants,
        other => panic!("not grants: {other:?}"),
    }
}

async fn accepted(store: &StoreInstance, node: (&str, &str), after: u64, limit: u32) -> Vec<u64> {
    let request = StoreRequest::ReadAccepted {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        after,
        limit,
    };
    match store.ok(request).await {
        StoreReply::Accepted(found) => found.into_iter().map(|(number, _)| number).collect(),
        other => panic!("not accepted batches: {other:?}"),
    }
}

fn artifacts_request(node: (&str, &str), after: u64, limit: u32) -> StoreRequest {
    StoreRequest::ReadArtifacts {
        task_id: task_id(node.0),
        node_id: node_id(node.1),
        after,
        limit,
    }
}

async fn artifacts(
    store: &StoreInstance,
    node: (&str, &str),
    after: u64,
    limit: u32,
) -> Vec<ArtifactRecord> {
    match store.ok(artifacts_request(node, after, limit)).await {
        StoreReply::Artifacts(found) => found,
        other => panic!("not artifacts: {other:?}"),
    }
}

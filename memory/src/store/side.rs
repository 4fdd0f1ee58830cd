//! What is written beside commits, each request on its own: durable when it is answered, except
//! for shard leases where one process is everything (see [`StoreModel`](super::StoreModel)).

use flowkit_core::id::{BatchUid, ClientId, Incarnation, NodeId, ShardId, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::port::{LeaseView, StagedKey, StoreReply, WorkerList};
use flowkit_core::record::{DeploymentRecord, ScratchRecord, WorkerRecord};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sweep::Orphan;

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Side {
    pub(super) deployment: Option<DeploymentRecord>,
    pub(super) workers: BTreeMap<WorkerId, WorkerRecord>,
    /// Workers whose record cannot be read.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    rotten_workers: BTreeSet<WorkerId>,
    leases: BTreeMap<ShardId, Lease>,
    scratch: BTreeMap<(TaskId, NodeId), ScratchRecord>,
    staged: BTreeMap<(TaskId, NodeId), BTreeMap<(BatchUid, Token), Json>>,
    /// Counts the writes that a crash does not take back.
    pub(super) durable_writes: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Lease {
    owner: ClientId,
    until_ms: u64,
}

impl Side {
    /// Takes or renews a lease if it is free, lapsed or `owner`'s.
    pub(super) fn acquire(
        &mut self,
        now_ms: u64,
        shard: ShardId,
        owner: &ClientId,
        ttl_ms: u64,
    ) -> LeaseView {
        if let Some(lease) = self.leases.get(&shard)
            && lease.owner != *owner
            && lease.until_ms > now_ms
        {
            return LeaseView {
                held: false,
                owner: lease.owner.clone(),
                remaining_ms: lease.until_ms - now_ms,
            };
        }
        let lease = Lease {
            owner: owner.clone(),
            until_ms: now_ms.saturating_add(ttl_ms),
        };
        self.leases.insert(shard, lease);
        LeaseView {
            held: true,
            owner: owner.clone(),
            remaining_ms: ttl_ms,
        }
    }

    pub(super) fn release(&mut self, shard: ShardId, owner: &ClientId) {
        if self.leases.get(&shard).is_some_and(|l| l.owner == *owner) {
            self.leases.remove(&shard);
        }
    }

    pub(super) fn holds(&self, now_ms: u64, shard: ShardId, owner: &ClientId) -> bool {
        let lease = self.leases.get(&shard);
        lease.is_some_and(|l| l.owner == *owner && l.until_ms > now_ms)
    }

    pub(super) fn drop_leases(&mut self) {
        self.leases.clear();
    }

    /// False if there is no such record.
    pub(super) fn poison(&mut self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker) && self.rotten_workers.insert(worker.clone())
    }

    /// Those whose record can be read, and those whose cannot.
    pub(super) fn all_workers(&self) -> WorkerList {
        let rotten = |worker: &&WorkerRecord| self.rotten_workers.contains(&worker.worker_id);
        let workers = self.workers.values();
        let unreadable = workers.clone().filter(rotten);
        WorkerList {
            unreadable: unreadable
                .map(|worker| (worker.worker_id.clone(), Arc::from("it is rotten")))
                .collect(),
            workers: workers.filter(|worker| !rotten(worker)).cloned().collect(),
        }
    }

    pub(super) fn register(&mut self, worker: WorkerRecord) -> StoreReply {
        let raised = worker.incarnation;
        let before = self.workers.get(&worker.worker_id);
        let stored = before.map_or(Incarnation(0), |known| known.incarnation);
        let repeated =
            stored == raised && before.is_some_and(|known| known.start_nonce == worker.start_nonce);
        if stored.next() == raised {
            self.rotten_workers.remove(&worker.worker_id);
            self.workers.insert(worker.worker_id.clone(), worker);
            self.durable_writes += 1;
        } else if !repeated {
            return StoreReply::IncarnationIs(stored);
        }
        StoreReply::Registered(raised)
    }

    /// The scratch as it was and its token raised, or the greater token that is there.
    pub(super) fn take_scratch(
        &mut self,
        task: &TaskId,
        node: &NodeId,
        token: Token,
    ) -> Result<Option<ScratchRecord>, Token> {
        let key = (task.clone(), node.clone());
        let writes = &mut self.durable_writes;
        let stored = self.scratch.entry(key).or_insert_with(|| {
            *writes += 1;
            ScratchRecord {
                token,
                save_no: 0,
                batch_uid: None,
                checkpoint: Json::null(),
            }
        });
        if stored.token > token {
            return Err(stored.token);
        }
        let before = stored.batch_uid.is_some().then(|| stored.clone());
        if stored.token < token {
            stored.token = token;
            stored.save_no = 0;
            self.durable_writes += 1;
        }
        Ok(before)
    }

    /// Writes a scratch, unless a greater token is there.
    pub(super) fn put_scratch(
        &mut self,
        task: &TaskId,
        node: &NodeId,
        scratch: ScratchRecord,
    ) -> Result<(), Token> {
        let key = (task.clone(), node.clone());
        match self.scratch.get(&key) {
            Some(stored) if stored.token > scratch.token => Err(stored.token),
            Some(stored) if stored.token == scratch.token && stored.save_no > scratch.save_no => {
                Ok(())
            }
            _ => {
                self.scratch.insert(key, scratch);
                self.durable_writes += 1;
                Ok(())
            }
        }
    }

    pub(super) fn staged(
        &self,
        task: &TaskId,
        node: &NodeId,
        uid: &BatchUid,
        token: Token,
    ) -> Option<&Json> {
        let bodies = self.staged.get(&(task.clone(), node.clone()))?;
        bodies.get(&(uid.clone(), token))
    }

    pub(super) fn stage(
        &mut self,
        task: &TaskId,
        node: &NodeId,
        uid: &BatchUid,
        token: Token,
        body: &Json,
    ) {
        let bodies = self.staged.entry((task.clone(), node.clone())).or_default();
        let old = bodies.insert((uid.clone(), token), body.clone());
        self.durable_writes += u64::from(old.as_ref() != Some(body));
    }

    /// Something went with a commit.
    pub(super) fn forget(&mut self, orphan: &Orphan) {
        match orphan {
            Orphan::Body(task, node, uid, token) => self.forget_body(task, node, uid, *token),
            Orphan::Node(task, node) => {
                let key = (task.clone(), node.clone());
                self.scratch.remove(&key);
                self.staged.remove(&key);
            }
        }
    }

    pub(super) fn forget_body(
        &mut self,
        task: &TaskId,
        node: &NodeId,
        uid: &BatchUid,
        token: Token,
    ) {
        let key = (task.clone(), node.clone());
        if let Some(bodies) = self.staged.get_mut(&key) {
            bodies.remove(&(uid.clone(), token));
            if bodies.is_empty() {
                self.staged.remove(&key);
            }
        }
    }

    /// Staged bodies of a task in order.
    pub(super) fn staged_after(
        &self,
        task: &TaskId,
        after: Option<&StagedKey>,
        most: usize,
    ) -> Vec<StagedKey> {
        let nodes = self.staged.iter().filter(|((of, _), _)| of == task);
        let keys = nodes.flat_map(|((_, node), bodies)| {
            bodies.keys().map(|(uid, token)| StagedKey {
                node_id: node.clone(),
                batch_uid: uid.clone(),
                token: *token,
            })
        });
        keys.filter(|key| after.is_none_or(|after| key > after))
            .take(most)
            .collect()
    }

    /// Tasks with staged bodies, by id.
    pub(super) fn staged_tasks(&self, after: Option<&TaskId>, most: usize) -> (Vec<TaskId>, bool) {
        let tasks = self.staged.keys().map(|(task, _)| task);
        let mut tasks: Vec<TaskId> = tasks
            .filter(|task| after.is_none_or(|after| *task > after))
            .cloned()
            .collect();
        tasks.dedup();
        let more = tasks.len() > most;
        tasks.truncate(most);
        (tasks, more)
    }
}

//! What commits write: shard records, tasks, nodes, accepted artifacts, and their indexes.

use flowkit_core::id::{BatchUid, NodeId, Offset, ShardId, TaskId, WorkerId};
use flowkit_core::port::{Commit, Record, Removal};
use flowkit_core::record::{ArtifactRecord, NodeRecord, ShardRecord, TaskRecord, TombstoneRecord};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::sweep::Orphan;

/// One consistent state of everything that commits write. Read-only from outside: checkers look
/// into it instead of asking the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tables {
    shards: BTreeMap<ShardId, ShardRecord>,
    pub(super) tasks: BTreeMap<TaskId, TaskRow>,
    /// Index: tasks that are not settled, by shard.
    pub(super) unsettled: BTreeMap<ShardId, BTreeSet<TaskId>>,
    /// Index: granted nodes by worker.
    pub(super) active: BTreeMap<WorkerId, BTreeSet<(TaskId, NodeId)>>,
    /// Index: settled tasks by shard, whether they failed, and when they were written.
    pub(super) ended: BTreeMap<(ShardId, bool), BTreeSet<(u64, TaskId)>>,
    /// Index: who points to a task.
    pub(super) pointers: BTreeMap<TaskId, BTreeSet<TaskId>>,
    pub(super) tombstones: BTreeMap<TaskId, Arc<TombstoneRecord>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct TaskRow {
    pub(super) record: Option<Arc<TaskRecord>>,
    pub(super) unreadable: Option<Arc<str>>,
    /// Store time of the newest write of the record.
    pub(super) written_ms: u64,
    pub(super) nodes: BTreeMap<NodeId, NodeRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct NodeRow {
    pub(super) record: Option<Arc<NodeRecord>>,
    pub(super) unreadable: Option<Arc<str>>,
    /// Store time of the newest write of the record.
    pub(super) written_ms: u64,
    /// Accepted artifacts by number.
    pub(super) artifacts: BTreeMap<u64, Arc<ArtifactRecord>>,
    /// Index: number by batch uid.
    pub(super) numbers: BTreeMap<BatchUid, u64>,
}

impl TaskRow {
    /// Why the task has to be set aside, if a record of it cannot be read.
    pub(super) fn unreadable(&self) -> Option<Arc<str>> {
        let nodes = self.nodes.values().map(|node| &node.unreadable);
        std::iter::once(&self.unreadable)
            .chain(nodes)
            .find_map(Clone::clone)
    }
}

/// A commit whose records are shared instead of copied: it may be applied to two states.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Write {
    pub(super) shard: ShardRecord,
    pub(super) now_ms: u64,
    records: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
enum Row {
    Task(Arc<TaskRecord>),
    Node(Arc<NodeRecord>),
    Artifact(Arc<ArtifactRecord>),
    Tombstone(Arc<TombstoneRecord>),
    Remove(Removal),
}

impl Write {
    pub(super) fn new(now_ms: u64, commit: Commit) -> Self {
        let shard = ShardRecord {
            shard: commit.shard,
            epoch: commit.epoch,
            commit_seq: commit.seq,
            commit_id: commit.id,
            next: commit.next,
            last_entry: commit.last_entry,
        };
        let shared = |record| match record {
            Record::Task(task) => Row::Task(Arc::from(task)),
            Record::Node(node) => Row::Node(Arc::from(node)),
            Record::Artifact(artifact) => Row::Artifact(Arc::from(artifact)),
            Record::Tombstone(tombstone) => Row::Tombstone(Arc::from(tombstone)),
            Record::Remove(removal) => Row::Remove(removal),
        };
        Self {
            shard,
            now_ms,
            records: commit.records.into_iter().map(shared).collect(),
        }
    }
}

impl Tables {
    /// The record of a shard; `None` before its first takeover.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardRecord> {
        self.shards.get(&shard)
    }

    /// Every task record that can be read, by task id.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskRecord> {
        self.tasks.values().filter_map(|row| row.record.as_deref())
    }

    /// One task record.
    #[must_use]
    pub fn task(&self, task: &TaskId) -> Option<&TaskRecord> {
        self.tasks.get(task)?.record.as_deref()
    }

    /// What is left of a task that was swept.
    #[must_use]
    pub fn tombstone(&self, task: &TaskId) -> Option<&TombstoneRecord> {
        self.tombstones.get(task).map(|tombstone| &**tombstone)
    }

    /// The node records of a task, by node id.
    pub fn nodes(&self, task: &TaskId) -> impl Iterator<Item = &NodeRecord> {
        let row = self.tasks.get(task);
        row.into_iter()
            .flat_map(|row| row.nodes.values())
            .filter_map(|node| node.record.as_deref())
    }

    /// One node record.
    #[must_use]
    pub fn node(&self, task: &TaskId, node: &NodeId) -> Option<&NodeRecord> {
        self.node_row(task, node)?.record.as_deref()
    }

    /// The accepted artifacts of a node, by number.
    pub fn artifacts(&self, task: &TaskId, node: &NodeId) -> impl Iterator<Item = &ArtifactRecord> {
        let row = self.node_row(task, node);
        row.into_iter()
            .flat_map(|row| row.artifacts.values())
            .map(|artifact| &**artifact)
    }

    pub(super) fn node_row(&self, task: &TaskId, node: &NodeId) -> Option<&NodeRow> {
        self.tasks.get(task)?.nodes.get(node)
    }

    /// The shard record, all zero if there is none.
    pub(super) fn shard_or_zero(&self, shard: ShardId) -> ShardRecord {
        self.shards.get(&shard).copied().unwrap_or(ShardRecord {
            shard,
            epoch: 0,
            commit_seq: 0,
            commit_id: 0,
            next: Offset(0),
            last_entry: None,
        })
    }

    pub(super) fn set_shard(&mut self, record: ShardRecord) {
        self.shards.insert(record.shard, record);
    }

    /// Why the records of a commit cannot be written, if they cannot.
    pub(super) fn refusal(&self, commit: &Commit) -> Option<String> {
        let mut tasks = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        let mut tombstones = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let mut uids = BTreeSet::new();
        for record in &commit.records {
            let twice = match record {
                Record::Task(r) => !tasks.insert(&r.task_id),
                Record::Node(r) => !nodes.insert((&r.task_id, &r.node_id)),
                Record::Tombstone(r) => !tombstones.insert(&r.task_id),
                Record::Remove(_) => false,
                Record::Artifact(r) => {
                    let stored = self.node_row(&r.task_id, &r.node_id).is_some_and(|row| {
                        row.artifacts.contains_key(&r.number)
                            || row.numbers.contains_key(&r.batch_uid)
                    });
                    let number = numbers.insert((&r.task_id, &r.node_id, r.number));
                    let uid = uids.insert((&r.task_id, &r.node_id, &r.batch_uid));
                    if stored || !number || !uid {
                        return Some(format!(
                            "artifact {} ({}) of {}/{} exists already",
                            r.number, r.batch_uid, r.task_id, r.node_id
                        ));
                    }
                    false
                }
            };
            if twice {
                return Some("a key is written twice in one commit".to_owned());
            }
        }
        None
    }

    /// Writes a commit that was found in order; what of the side goes with it.
    pub(super) fn write(&mut self, write: &Write) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        self.set_shard(write.shard);
        for record in &write.records {
            match record {
                Row::Task(task) => self.write_task(write.shard.shard, write.now_ms, task),
                Row::Node(node) => self.write_node(write.now_ms, node),
                Row::Artifact(artifact) => {
                    let task = self.tasks.entry(artifact.task_id.clone()).or_default();
                    let node = task.nodes.entry(artifact.node_id.clone()).or_default();
                    node.numbers
                        .insert(artifact.batch_uid.clone(), artifact.number);
                    node.artifacts.insert(artifact.number, artifact.clone());
                }
                Row::Tombstone(tombstone) => {
                    let key = tombstone.task_id.clone();
                    self.tombstones.insert(key, tombstone.clone());
                }
                Row::Remove(_) => {}
            }
        }
        for record in &write.records {
            if let Row::Remove(removal) = record {
                self.remove(write.shard.shard, removal, &mut orphans);
            }
        }
        orphans
    }

    fn write_task(&mut self, shard: ShardId, now_ms: u64, task: &Arc<TaskRecord>) {
        self.move_ended(shard, now_ms, task);
        let unsettled = self.unsettled.entry(shard).or_default();
        if task.settled {
            unsettled.remove(&task.task_id);
        } else {
            unsettled.insert(task.task_id.clone());
        }
        let row = self.tasks.entry(task.task_id.clone()).or_default();
        row.record = Some(task.clone());
        row.unreadable = None;
        row.written_ms = now_ms;
    }

    fn write_node(&mut self, now_ms: u64, node: &Arc<NodeRecord>) {
        let task = self.tasks.entry(node.task_id.clone()).or_default();
        let row = task.nodes.entry(node.node_id.clone()).or_default();
        let holder = |record: &NodeRecord| record.grant.as_ref().map(|g| g.worker_id.clone());
        let old = row.record.as_deref().and_then(holder);
        let new = holder(node);
        row.record = Some(node.clone());
        row.unreadable = None;
        row.written_ms = now_ms;
        if old == new {
            return;
        }
        let key = (node.task_id.clone(), node.node_id.clone());
        if let Some(old) = old
            && let Some(runs) = self.active.get_mut(&old)
        {
            runs.remove(&key);
            if runs.is_empty() {
                self.active.remove(&old);
            }
        }
        if let Some(new) = new {
            self.active.entry(new).or_default().insert(key);
        }
    }

    /// Makes a record undecodable; false if there is none.
    pub(super) fn poison(&mut self, task: &TaskId, node: Option<&NodeId>) -> bool {
        let Some(row) = self.tasks.get_mut(task) else {
            return false;
        };
        let reason = Some(Arc::from("record version 65535 is not known"));
        match node {
            None if row.record.is_some() => row.unreadable = reason,
            Some(node) => match row.nodes.get_mut(node) {
                Some(node) if node.record.is_some() => node.unreadable = reason,
                _ => return false,
            },
            None => return false,
        }
        true
    }
}

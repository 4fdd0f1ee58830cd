//! Sweeping: what goes when retention ends, and what is found for it.

use flowkit_core::id::{BatchUid, NodeId, ShardId, TaskId, Token};
use flowkit_core::message::Artifact;
use flowkit_core::port::{ExpiredPage, ExpiredTask, Removal, StagedKey};
use flowkit_core::record::{NodeRecord, TaskRecord, TaskState};
use std::ops::Bound;

use super::read::limit_of;
use super::side::Side;
use super::tables::Tables;

/// Something beside the tables that goes with a commit.
#[derive(Clone, Debug)]
pub(super) enum Orphan {
    /// A staged body.
    Body(TaskId, NodeId, BatchUid, Token),
    /// A node's scratch and staged bodies.
    Node(TaskId, NodeId),
}

/// A task's place among the settled ones.
fn class_of(task: &TaskRecord) -> bool {
    task.state != TaskState::Finished
}

impl Tables {
    /// A task's record is about to be written: moves it among the settled ones, and its pointers.
    pub(super) fn move_ended(&mut self, shard: ShardId, now_ms: u64, task: &TaskRecord) {
        self.forget_ended(shard, &task.task_id);
        if task.settled {
            let ended = self.ended.entry((shard, class_of(task))).or_default();
            ended.insert((now_ms, task.task_id.clone()));
        }
        for held in task.rerun.iter().flat_map(|rerun| &rerun.holds) {
            let pointers = self.pointers.entry(held.clone()).or_default();
            pointers.insert(task.task_id.clone());
        }
    }

    fn forget_ended(&mut self, shard: ShardId, task: &TaskId) {
        let Some(row) = self.tasks.get(task) else {
            return;
        };
        let Some(record) = row.record.as_deref().filter(|record| record.settled) else {
            return;
        };
        let key = (shard, class_of(record));
        if let Some(ended) = self.ended.get_mut(&key) {
            ended.remove(&(row.written_ms, task.clone()));
            if ended.is_empty() {
                self.ended.remove(&key);
            }
        }
    }

    /// Takes records away.
    pub(super) fn remove(&mut self, shard: ShardId, removal: &Removal, orphans: &mut Vec<Orphan>) {
        match removal {
            Removal::Artifacts {
                task_id,
                node_id,
                from,
                to,
            } => {
                let row = self.tasks.get_mut(task_id);
                let Some(row) = row.and_then(|row| row.nodes.get_mut(node_id)) else {
                    return;
                };
                let gone: Vec<u64> = if from > to {
                    Vec::new()
                } else {
                    row.artifacts.range(from..=to).map(|(n, _)| *n).collect()
                };
                for number in gone {
                    let Some(artifact) = row.artifacts.remove(&number) else {
                        continue;
                    };
                    row.numbers.remove(&artifact.batch_uid);
                    if let Some(Artifact::Staged(_)) = artifact.artifact {
                        let uid = artifact.batch_uid.clone();
                        let (task, node) = (task_id.clone(), node_id.clone());
                        orphans.push(Orphan::Body(task, node, uid, artifact.token));
                    }
                }
            }
            Removal::Node { task_id, node_id } => {
                orphans.push(Orphan::Node(task_id.clone(), node_id.clone()));
                let Some(row) = self.tasks.get_mut(task_id) else {
                    return;
                };
                if let Some(node) = row.nodes.get_mut(node_id) {
                    let holder = node.record.take();
                    let holder = holder.and_then(|record| record.grant.clone());
                    node.unreadable = None;
                    if node.artifacts.is_empty() {
                        row.nodes.remove(node_id);
                    }
                    let runs = holder.and_then(|grant| self.active.get_mut(&grant.worker_id));
                    if let Some(runs) = runs {
                        runs.remove(&(task_id.clone(), node_id.clone()));
                    }
                }
                self.drop_empty(task_id);
            }
            Removal::Task { task_id } => {
                self.forget_ended(shard, task_id);
                if let Some(unsettled) = self.unsettled.get_mut(&shard) {
                    unsettled.remove(task_id);
                }
                let Some(row) = self.tasks.get_mut(task_id) else {
                    return;
                };
                row.unreadable = None;
                let record = row.record.take();
                let rerun = record.as_ref().and_then(|record| record.rerun.as_ref());
                for held in rerun.iter().flat_map(|rerun| &rerun.holds) {
                    if let Some(pointers) = self.pointers.get_mut(held) {
                        pointers.remove(task_id);
                        if pointers.is_empty() {
                            self.pointers.remove(held);
                        }
                    }
                }
                self.drop_empty(task_id);
            }
        }
    }

    /// A task of which nothing is left.
    fn drop_empty(&mut self, task: &TaskId) {
        let row = self.tasks.get(task);
        if row.is_some_and(|row| row.record.is_none() && row.nodes.is_empty()) {
            self.tasks.remove(task);
        }
    }

    pub(super) fn expired(
        &self,
        now_ms: u64,
        (shard, failed): (ShardId, bool),
        age_ms: u64,
        after: Option<&(i64, TaskId)>,
        limit: u32,
    ) -> ExpiredPage {
        let Some(ended) = self.ended.get(&(shard, failed)) else {
            return ExpiredPage::default();
        };
        let after = after.map(|(at, task)| (u64::try_from(*at).unwrap_or(0), task.clone()));
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let old = ended
            .range((start, Bound::Unbounded))
            .take_while(|(at, _)| at.saturating_add(age_ms) <= now_ms);
        let mut old = old.peekable();
        let mut page = ExpiredPage::default();
        while page.tasks.len() < limit_of(limit)
            && let Some((at, task)) = old.next()
        {
            page.tasks.push(ExpiredTask {
                task_id: task.clone(),
                written_ms: i64::try_from(*at).unwrap_or(i64::MAX),
                pointed: self.pointers.contains_key(task),
            });
        }
        page.more = old.peek().is_some();
        page
    }

    /// Nothing can point to the body any more.
    fn is_unclaimed(&self, task: &TaskId, key: &StagedKey) -> bool {
        let Some(row) = self.node_row(task, &key.node_id) else {
            return true;
        };
        if row.unreadable.is_some() {
            return false;
        }
        let live = |record: &NodeRecord| !record.state.is_terminal();
        let accepted = row.numbers.get(&key.batch_uid);
        let accepted = accepted.and_then(|number| row.artifacts.get(number));
        !row.record.as_deref().is_some_and(live)
            && accepted.is_none_or(|artifact| artifact.token != key.token)
    }

    /// Takes away what nothing can point to among the next staged bodies of a task.
    pub(super) fn sweep_staged(
        &self,
        side: &mut Side,
        task: &TaskId,
        after: Option<&StagedKey>,
        limit: u32,
    ) -> (u32, Option<StagedKey>) {
        let most = limit_of(limit);
        let mut keys = side.staged_after(task, after, most.saturating_add(1));
        let next = if keys.len() > most {
            keys.truncate(most);
            keys.last().cloned()
        } else {
            None
        };
        let mut removed = 0;
        for key in keys.iter().filter(|key| self.is_unclaimed(task, key)) {
            side.forget_body(task, &key.node_id, &key.batch_uid, key.token);
            side.durable_writes += 1;
            removed += 1;
        }
        (removed, next)
    }
}

//! The reads: pages of tasks, grants, accepted batches, artifacts.

use flowkit_core::id::{NodeId, ShardId, TaskId, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{GrantView, TaskAnswer, TaskPage, TaskWithNodes};
use flowkit_core::record::{ArtifactRecord, NodeRecord, TaskRecord, TaskState};
use std::ops::Bound;
use std::sync::Arc;

use super::side::Side;
use super::tables::{Tables, TaskRow};

/// Artifacts stop to be added to a reply beyond this many bytes.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Everything greater than `after`.
fn above<T>(after: Option<&T>) -> (Bound<&T>, Bound<&T>) {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    (start, Bound::Unbounded)
}

pub(super) fn limit_of(limit: u32) -> usize {
    // A page of nothing would be asked for again for ever.
    usize::try_from(limit).unwrap_or(usize::MAX).max(1)
}

fn with_nodes(row: &TaskRow, now_ms: u64) -> Option<TaskWithNodes> {
    let task = row.record.as_deref()?.clone();
    let rows = row.nodes.values();
    let written = rows.filter_map(|node| Some((node.record.as_deref()?, node.written_ms)));
    let (nodes, node_age_ms) = written
        .map(|(record, written_ms)| (record.clone(), now_ms.saturating_sub(written_ms)))
        .unzip();
    Some(TaskWithNodes {
        task,
        nodes,
        node_age_ms,
    })
}

impl Tables {
    pub(super) fn load_tasks(
        &self,
        now_ms: u64,
        shard: ShardId,
        after: Option<&TaskId>,
        limit: u32,
    ) -> TaskPage {
        let mut page = TaskPage {
            tasks: Vec::new(),
            unreadable: Vec::new(),
            more: false,
        };
        let ids = self.unsettled.get(&shard);
        let mut ids = ids
            .into_iter()
            .flat_map(|ids| ids.range::<TaskId, _>(above(after)));
        for id in ids.by_ref().take(limit_of(limit)) {
            let Some(row) = self.tasks.get(id) else {
                continue;
            };
            match row.unreadable() {
                Some(reason) => page.unreadable.push((id.clone(), reason)),
                None => page.tasks.extend(with_nodes(row, now_ms)),
            }
        }
        page.more = ids.next().is_some();
        page
    }

    pub(super) fn list_tasks(&self, after: Option<&TaskId>, limit: u32) -> TaskPage {
        let mut page = TaskPage {
            tasks: Vec::new(),
            unreadable: Vec::new(),
            more: false,
        };
        let rows = self.tasks.range::<TaskId, _>(above(after));
        let hidden = |id: &TaskId| self.tombstones.contains_key(id);
        let mut rows = rows.filter(|(id, row)| row.record.is_some() && !hidden(id));
        for (id, row) in rows.by_ref().take(limit_of(limit)) {
            match (&row.unreadable, &row.record) {
                (Some(reason), _) => page.unreadable.push((id.clone(), reason.clone())),
                (None, Some(task)) => page.tasks.push(TaskWithNodes {
                    task: TaskRecord::clone(task),
                    nodes: Vec::new(),
                    node_age_ms: Vec::new(),
                }),
                (None, None) => {}
            }
        }
        page.more = rows.next().is_some();
        page
    }

    pub(super) fn lookup(&self, task: &TaskId) -> Option<TaskAnswer> {
        if let Some(tombstone) = self.tombstones.get(task) {
            return Some(TaskAnswer {
                submission_hash: tombstone.submission_hash,
                state: tombstone.state,
                settled: true,
                failure: None,
                swept: true,
            });
        }
        let row = self.tasks.get(task)?;
        let record = row.record.as_deref()?;
        if row.unreadable.is_some() {
            // The id is taken for good, and no submission can be told to be the same one.
            return Some(TaskAnswer {
                submission_hash: 0,
                state: TaskState::Quarantined,
                settled: true,
                failure: None,
                swept: false,
            });
        }
        Some(TaskAnswer {
            submission_hash: record.submission_hash,
            state: record.state,
            settled: record.settled,
            failure: record.failure.clone(),
            swept: false,
        })
    }

    pub(super) fn grant(&self, task: &TaskId, node: &NodeId) -> Option<GrantView> {
        let row = self.tasks.get(task)?;
        let node_row = row.nodes.get(node)?;
        let node = node_row.record.as_deref()?;
        if row.unreadable.is_some() || node_row.unreadable.is_some() {
            // One rotten record must not fail the read of all the others: the run is told to end.
            return Some(GrantView {
                token: None,
                cancelled: true,
                unreadable: true,
            });
        }
        let ending = row
            .record
            .as_deref()
            .is_none_or(|task| task.state == TaskState::Cancelling || task.state.is_terminal());
        let told = node.grant.as_ref().is_some_and(|g| g.cancel.is_some());
        Some(GrantView {
            token: node.grant.as_ref().map(|_| node.lease_no),
            cancelled: ending || told,
            unreadable: false,
        })
    }

    pub(super) fn read_task(
        &self,
        now_ms: u64,
        task: &TaskId,
    ) -> Result<Option<TaskWithNodes>, Arc<str>> {
        if self.tombstones.contains_key(task) {
            return Ok(None);
        }
        self.read_remains(now_ms, task)
    }

    pub(super) fn read_remains(
        &self,
        now_ms: u64,
        task: &TaskId,
    ) -> Result<Option<TaskWithNodes>, Arc<str>> {
        let Some(row) = self.tasks.get(task) else {
            return Ok(None);
        };
        match row.unreadable() {
            Some(reason) => Err(reason),
            None => Ok(with_nodes(row, now_ms)),
        }
    }

    pub(super) fn active_runs(&self, worker: &WorkerId) -> Vec<NodeRecord> {
        let keys = self.active.get(worker);
        keys.into_iter()
            .flatten()
            .filter_map(|(task, node)| self.node_row(task, node))
            .filter(|row| row.unreadable.is_none())
            .filter_map(|row| row.record.as_deref().cloned())
            .collect()
    }

    /// Accepted artifacts with a number above `after`.
    pub(super) fn accepted(
        &self,
        task: &TaskId,
        node: &NodeId,
        after: u64,
        limit: u32,
    ) -> impl Iterator<Item = &ArtifactRecord> {
        let row = self.node_row(task, node);
        row.into_iter()
            .flat_map(move |row| {
                row.artifacts
                    .range((Bound::Excluded(after), Bound::Unbounded))
            })
            .map(|(_, artifact)| &**artifact)
            .take(limit_of(limit))
    }

    /// The same with staged bodies put in; names the artifact whose body is missing.
    pub(super) fn resolved(
        &self,
        side: &Side,
        (task, node): (&TaskId, &NodeId),
        after: u64,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, String> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for record in self.accepted(task, node, after, limit) {
            let mut record = record.clone();
            if let Some(Artifact::Staged(_)) = record.artifact {
                let body = side.staged(task, node, &record.batch_uid, record.token);
                let Some(body) = body else {
                    let number = record.number;
                    return Err(format!(
                        "no staged body for artifact {number} of {task}/{node}"
                    ));
                };
                record.artifact = Some(Artifact::Inline(body.clone()));
            }
            let body = match &record.artifact {
                Some(Artifact::Inline(body)) => body.len(),
                _ => 0,
            };
            bytes += body + record.metrics.values().map(Json::len).sum::<usize>();
            if bytes > REPLY_BYTES_MAX && !found.is_empty() {
                break;
            }
            found.push(record);
        }
        Ok(found)
    }
}

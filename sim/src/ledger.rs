//! The committed state of a run, kept up from the commits that the store applied.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::{BatchUid, NodeId, TaskId, Token};
use flowkit_core::message::Artifact;
use flowkit_core::port::{Record, Removal};
use flowkit_core::record::{ArtifactRecord, NodeRecord, TaskRecord, TaskState};

use crate::history::{ArtifactFact, Change, NodeFact, TaskFact};

/// What commits made of every task.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) tasks: BTreeMap<TaskId, TaskLedger>,
    /// Records of tasks and nodes that cannot be read until they are written again, and the newest commit that
    /// a crash could still undo when they rotted. The next owner sets their tasks aside.
    rotten: BTreeMap<(TaskId, Option<NodeId>), u64>,
    /// Tasks of which the store refused to take anything: an owner may have left them alone for a while.
    refused: BTreeSet<TaskId>,
    /// Tasks of a commit that the store refused once: one of them may have been set aside, with its grants.
    blamed: BTreeSet<TaskId>,
    /// Commits that a crash of the process would undo (embedded), with their seq.
    unsynced: Vec<(u64, Vec<Change>)>,
}

/// One task.
#[derive(Debug, Default)]
pub(crate) struct TaskLedger {
    /// How the task ended, if it was swept or is being swept.
    pub(crate) tombstone: Option<TaskState>,
    pub(crate) fact: Option<Rc<TaskFact>>,
    pub(crate) nodes: BTreeMap<NodeId, NodeLedger>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeLedger {
    pub(crate) fact: Option<Rc<NodeFact>>,
    pub(crate) artifacts: BTreeMap<u64, Rc<ArtifactFact>>,
    /// Number and token of each accepted batch.
    pub(crate) uids: BTreeMap<BatchUid, (u64, Token)>,
}

impl Ledger {
    /// The record of a task, or of a node of it, can no longer be read.
    pub(crate) fn rot(&mut self, task: TaskId, node: Option<NodeId>) {
        let newest = self.unsynced.last().map_or(0, |(seq, _)| *seq);
        self.rotten.insert((task, node), newest);
    }

    /// A record that is written anew can be read again.
    fn is_written(&mut self, fact: &Fact) {
        let (task, node) = match fact {
            Fact::Task(task, _) => (task, None),
            Fact::Node(task, node, _) => (task, Some(node.clone())),
            _ => return,
        };
        self.rotten.remove(&(task.clone(), node));
    }

    /// A record of the task cannot be read.
    pub(crate) fn is_rotten(&self, task: &TaskId) -> bool {
        let mut rotten = self.rotten.keys();
        rotten.any(|(of, _)| of == task)
    }

    /// The store takes nothing of the task now.
    pub(crate) fn refuse(&mut self, task: TaskId) {
        self.refused.insert(task);
    }

    /// The store refused a commit with something of the task, for once.
    pub(crate) fn blame(&mut self, task: TaskId) {
        self.blamed.insert(task);
    }

    pub(crate) fn was_refused(&self, task: &TaskId) -> bool {
        self.refused.contains(task)
    }

    /// The task is nobody's business any more, or was nobody's for a while; its records stay as they were.
    pub(crate) fn is_set_aside(&self, task: &TaskId) -> bool {
        let state = self.tasks.get(task).and_then(|task| task.fact.as_ref());
        let quarantined = state.is_some_and(|fact| fact.state == TaskState::Quarantined);
        let aside = state.is_some_and(|fact| fact.settled) && self.blamed.contains(task);
        quarantined || aside || self.is_rotten(task) || self.was_refused(task)
    }

    pub(crate) fn node(&self, task: &TaskId, node: &NodeId) -> Option<&NodeLedger> {
        self.tasks.get(task)?.nodes.get(node)
    }

    pub(crate) fn fact(&self, task: &TaskId, node: &NodeId) -> Option<&Rc<NodeFact>> {
        self.node(task, node)?.fact.as_ref()
    }

    /// Applies a commit's records; `keep` = a crash may still undo it.
    pub(crate) fn commit(&mut self, seq: u64, facts: Vec<Fact>, keep: bool) -> Vec<Change> {
        // What a crash may undo is not written for good, and not what readers see yet.
        if !keep && !self.rotten.is_empty() {
            facts.iter().for_each(|fact| self.is_written(fact));
        }
        let changes: Vec<Change> = facts.into_iter().map(|fact| self.apply(fact)).collect();
        if keep {
            self.unsynced.push((seq, changes.clone()));
        }
        changes
    }

    /// Every commit up to `seq` is durable.
    pub(crate) fn synced(&mut self, seq: u64) {
        let synced = self.unsynced.iter().filter(|(at, _)| *at <= seq);
        for (at, change) in synced.flat_map(|(at, changes)| changes.iter().map(move |c| (at, c))) {
            let record = match change {
                Change::Task { task, .. } => (task.clone(), None),
                Change::Node { task, node, .. } => (task.clone(), Some(node.clone())),
                _ => continue,
            };
            // What was written before it rotted does not mend it.
            if self.rotten.get(&record).is_some_and(|newest| at > newest) {
                self.rotten.remove(&record);
            }
        }
        self.unsynced.retain(|(at, _)| *at > seq);
    }

    /// What a crash may still undo of a task, oldest first (embedded).
    pub(crate) fn unsynced<'l>(&'l self, id: &'l TaskId) -> impl Iterator<Item = &'l Change> {
        let changes = self.unsynced.iter().flat_map(|(_, changes)| changes);
        changes.filter(move |change| match change {
            Change::Task { task, .. } | Change::Node { task, .. } => task == id,
            _ => false,
        })
    }

    /// Every commit above `seq` is gone; what that undid, newest first.
    pub(crate) fn undo_above(&mut self, seq: u64) -> Vec<Change> {
        let mut undone = Vec::new();
        for (at, changes) in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if at > seq {
                undone.extend(changes.into_iter().rev());
            }
        }
        for change in &undone {
            match change {
                Change::Task { task, old, .. } => {
                    self.tasks
                        .entry(task.clone())
                        .or_default()
                        .fact
                        .clone_from(old);
                }
                Change::Node {
                    task, node, old, ..
                } => {
                    self.node_mut(task, node).fact.clone_from(old);
                }
                Change::Artifact { task, node, fact } => {
                    let node = self.node_mut(task, node);
                    node.artifacts.remove(&fact.number);
                    node.uids.remove(&fact.uid);
                }
                Change::Tombstone { task, .. } => {
                    self.tasks.entry(task.clone()).or_default().tombstone = None;
                }
                Change::Removed { removal, old } => self.restore(removal, old),
            }
        }
        undone
    }

    /// A task's record as no crash can undo it any more.
    pub(crate) fn durable(&self, id: &TaskId) -> Option<Rc<TaskFact>> {
        let mut changes = self.unsynced.iter().flat_map(|(_, changes)| changes);
        let first = changes.find_map(|change| match change {
            Change::Task { task, old, .. } if task == id => Some(old.clone()),
            Change::Removed { removal, old } if removal.task_id() == id => {
                old.task.clone().map(Some)
            }
            _ => None,
        });
        first.unwrap_or_else(|| self.tasks.get(id)?.fact.clone())
    }

    fn node_mut(&mut self, task: &TaskId, node: &NodeId) -> &mut NodeLedger {
        let task = self.tasks.entry(task.clone()).or_default();
        task.nodes.entry(node.clone()).or_default()
    }

    fn remove(&mut self, removal: &Removal) -> Removed {
        let mut old = Removed::default();
        let Some(task) = self.tasks.get_mut(removal.task_id()) else {
            return old;
        };
        match removal {
            Removal::Artifacts {
                node_id, from, to, ..
            } => {
                let Some(node) = task.nodes.get_mut(node_id) else {
                    return old;
                };
                let mut above = node.artifacts.split_off(from);
                node.artifacts.append(&mut above.split_off(&(to + 1)));
                for fact in above.into_values() {
                    node.uids.remove(&fact.uid);
                    old.artifacts.push(fact);
                }
            }
            Removal::Node { node_id, .. } => old.node = task.nodes.remove(node_id),
            Removal::Task { .. } => {
                old.task = task.fact.take();
                old.nodes_left = task.nodes.values().filter(|n| n.fact.is_some()).count();
            }
        }
        old
    }

    fn restore(&mut self, removal: &Removal, old: &Removed) {
        let task = self.tasks.entry(removal.task_id().clone()).or_default();
        match removal {
            Removal::Artifacts { node_id, .. } => {
                let node = task.nodes.entry(node_id.clone()).or_default();
                for fact in &old.artifacts {
                    node.artifacts.insert(fact.number, fact.clone());
                    node.uids
                        .insert(fact.uid.clone(), (fact.number, fact.token));
                }
            }
            Removal::Node { node_id, .. } => {
                if let Some(node) = &old.node {
                    task.nodes.insert(node_id.clone(), node.clone());
                }
            }
            Removal::Task { .. } => task.fact.clone_from(&old.task),
        }
    }

    fn apply(&mut self, fact: Fact) -> Change {
        match fact {
            Fact::Tombstone(task, state) => {
                let entry = self.tasks.entry(task.clone()).or_default();
                let first = entry.tombstone.replace(state).is_none();
                Change::Tombstone { task, state, first }
            }
            Fact::Removed(removal) => {
                let old = Rc::new(self.remove(&removal));
                Change::Removed { removal, old }
            }
            Fact::Task(task, new) => {
                let entry = self.tasks.entry(task.clone()).or_default();
                let new = Rc::new(new);
                let old = entry.fact.replace(new.clone());
                Change::Task { task, old, new }
            }
            Fact::Node(task, node, new) => {
                let entry = self.node_mut(&task, &node);
                let new = Rc::new(new);
                let old = entry.fact.replace(new.clone());
                Change::Node {
                    task,
                    node,
                    old,
                    new,
                }
            }
            Fact::Artifact(task, node, fact) => {
                let entry = self.node_mut(&task, &node);
                let fact = Rc::new(fact);
                entry.artifacts.insert(fact.number, fact.clone());
                entry
                    .uids
                    .insert(fact.uid.clone(), (fact.number, fact.token));
                Change::Artifact { task, node, fact }
            }
        }
    }
}

/// One record of a commit, reduced to what checkers look at.
#[derive(Debug)]
pub(crate) enum Fact {
    Task(TaskId, TaskFact),
    Node(TaskId, NodeId, NodeFact),
    Artifact(TaskId, NodeId, ArtifactFact),
    Tombstone(TaskId, TaskState),
    Removed(Removal),
}

/// What a removal took away.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub(crate) task: Option<Rc<TaskFact>>,
    /// Node records that were there when the task's record went.
    pub(crate) nodes_left: usize,
    pub(crate) node: Option<NodeLedger>,
    pub(crate) artifacts: Vec<Rc<ArtifactFact>>,
}

impl Fact {
    pub(crate) fn of(record: &Record) -> Self {
        match record {
            Record::Task(task) => Self::Task(task.task_id.clone(), task_fact(task)),
            Record::Node(node) => {
                Self::Node(node.task_id.clone(), node.node_id.clone(), node_fact(node))
            }
            Record::Artifact(artifact) => Self::Artifact(
                artifact.task_id.clone(),
                artifact.node_id.clone(),
                artifact_fact(artifact),
            ),
            Record::Tombstone(tombstone) => {
                Self::Tombstone(tombstone.task_id.clone(), tombstone.state)
            }
            Record::Remove(removal) => Self::Removed(removal.clone()),
        }
    }
}

fn code(failure: Option<&flowkit_core::record::Failure>) -> Option<Arc<str>> {
    failure.map(|failure| failure.reason_code.clone())
}

fn task_fact(task: &TaskRecord) -> TaskFact {
    TaskFact {
        state: task.state,
        settled: task.settled,
        failure_code: code(task.failure.as_ref()),
        failed_node: task.failure.as_ref().map(|failure| failure.node_id.clone()),
        control_no: task.control.no,
        vars: task.vars.clone(),
        vars_version: task.vars_version,
        holds: task
            .rerun
            .as_ref()
            .map_or_else(Vec::new, |r| r.holds.clone()),
    }
}

fn node_fact(node: &NodeRecord) -> NodeFact {
    NodeFact {
        state: node.state,
        epoch: node.epoch,
        token: node.lease_no,
        holder: node
            .grant
            .as_ref()
            .map(|grant| (grant.worker_id.clone(), grant.incarnation)),
        told_to_end: node
            .grant
            .as_ref()
            .and_then(|grant| grant.cancel)
            .map(|cancel| cancel.reason),
        last_seq: node.last_seq,
        accepted: node.accepted,
        checkpoint: node.checkpoint.clone(),
        checkpoint_batches: node.checkpoint_batches,
        failures: node.failures,
        losses: node.losses,
        wait_ms: node.wait_ms,
        failure_code: code(node.failure.as_ref()),
        result: node.result.clone(),
        when_vars: node.when_vars,
        made_vars: node.made_vars,
        kept_from: node.kept_from.clone(),
    }
}

fn artifact_fact(artifact: &ArtifactRecord) -> ArtifactFact {
    ArtifactFact {
        number: artifact.number,
        uid: artifact.batch_uid.clone(),
        token: artifact.token,
        staged: matches!(artifact.artifact, Some(Artifact::Staged(_))),
    }
}

//! A task in the owner's memory: its records, its compiled graph and what follows from them.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ready::Place;
use crate::graph::{
    EdgeState, FanInTally, ParentView, Plan, PlanNode, edge_state, failure_handled,
};
use crate::id::{Epoch, TaskId, Token};
use crate::json::Json;
use crate::message::{Cursor, SourceState};
use crate::record::{
    History, NodeRecord, NodeState, RECORD_VERSION, TaskRecord, TaskState, Totals,
};
use crate::time::Mono;

/// Parents that a START names to a node whose graph names no adapter.
const START_PARENTS_MAX: usize = 256;

/// A node in memory. Task numbers grow and are never used again within one ownership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct NodeKey {
    pub(super) task: u64,
    pub(super) node: usize,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Task {
    pub(super) record: TaskRecord,
    #[serde(skip)]
    pub(super) plan: Arc<Plan>,
    pub(super) nodes: Vec<Node>,
    /// Nodes that are not terminal.
    pub(super) open: usize,
    /// Nodes that hold a grant.
    pub(super) grants: usize,
    /// The key that limits its nodes, if one does.
    pub(super) limit_key: Option<Arc<str>>,
    /// Clients that wait until it is settled: inbox partition, id, correlation id.
    pub(super) watchers: BTreeMap<(Arc<str>, Arc<str>), u32>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Node {
    pub(super) record: NodeRecord,
    /// State of the edge from each parent, by the plan's parent slots.
    pub(super) edges: Vec<EdgeState>,
    pub(super) tally: FanInTally,
    /// What is known of the current grant's run.
    pub(super) run: Option<Run>,
    /// Its place among the ready nodes, while it is queued.
    pub(super) queued: Option<Place>,
    /// When a deferred node becomes ready.
    pub(super) retry_at: Option<Mono>,
    /// Its entry in the timer queue.
    pub(super) due: Option<Mono>,
    /// Whether its failure was handled, once that is known.
    pub(super) handled: Option<bool>,
    /// The worker that left its last START unanswered: others are tried first.
    pub(super) avoid: Option<crate::id::WorkerId>,
}

/// The owner's view of one grant. Nothing of it is stored.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    /// START was sent: its commit is in the store.
    pub(super) released: bool,
    /// A heartbeat or event with the token arrived.
    pub(super) heard: bool,
    /// When it was last heard, or released.
    pub(super) heard_at: Mono,
    /// When the next START, CANCEL or INPUT_READY is due.
    pub(super) resend_at: Option<Mono>,
    pub(super) resend_backoff_ms: u64,
    /// When the grant is closed whatever the worker says, once it was told to end.
    pub(super) close_at: Option<Mono>,
    /// Its worker's process is known to be dead.
    pub(super) dead: bool,
    /// It waits for an end offset to be folded before it may be ended.
    pub(super) gated: bool,
}

impl Run {
    pub(super) fn new(now: Mono, resend_backoff_ms: u64) -> Self {
        Self {
            released: false,
            heard: false,
            heard_at: now,
            resend_at: None,
            resend_backoff_ms,
            close_at: None,
            dead: false,
            gated: false,
        }
    }
}

/// Nodes whose accepted batches a node reads while they may still grow.
pub(super) fn sources(plan: &PlanNode) -> impl Iterator<Item = usize> + '_ {
    let streamed = plan
        .parents
        .iter()
        .filter(|p| p.first_batch && !plan.reads.contains(&p.node));
    plan.reads.iter().copied().chain(streamed.map(|p| p.node))
}

impl Node {
    fn new(record: NodeRecord, plan: &PlanNode) -> Self {
        Self {
            record,
            edges: vec![EdgeState::Pending; plan.parents.len()],
            tally: FanInTally::new(plan.parents.len()),
            run: None,
            queued: None,
            retry_at: None,
            due: None,
            avoid: None,
            handled: None,
        }
    }

    /// The node as its children's edges see it.
    pub(super) fn view(&self) -> ParentView {
        ParentView {
            state: self.record.state,
            accepted: self.record.accepted,
        }
    }

    pub(super) fn is_granted(&self) -> bool {
        self.record.grant.is_some()
    }
}

impl Task {
    /// A task as just submitted: every node queued.
    pub(super) fn submitted(record: TaskRecord, plan: Arc<Plan>, now_ms: i64) -> Self {
        let nodes: Vec<Node> = plan
            .nodes()
            .iter()
            .map(|node| {
                let mut history = History::default();
                history.push(NodeState::Queued, now_ms, "submitted");
                Node::new(new_record(&record.task_id, node, history), node)
            })
            .collect();
        let open = nodes.len();
        Self {
            record,
            plan,
            nodes,
            open,
            grants: 0,
            limit_key: None,
            watchers: BTreeMap::new(),
        }
    }

    /// A task as read from the store; nodes in the order of its plan. `None` if records and graph
    /// do not fit together.
    pub(super) fn loaded(
        record: TaskRecord,
        plan: Arc<Plan>,
        records: Vec<NodeRecord>,
    ) -> Option<Self> {
        let mut by_id: BTreeMap<_, _> = records
            .into_iter()
            .map(|r| (r.node_id.clone(), r))
            .collect();
        let mut nodes = Vec::with_capacity(plan.len());
        for node in plan.nodes() {
            nodes.push(Node::new(by_id.remove(&node.id)?, node));
        }
        let open = nodes
            .iter()
            .filter(|n| !n.record.state.is_terminal())
            .count();
        let grants = nodes.iter().filter(|n| n.is_granted()).count();
        let mut task = Self {
            record,
            plan,
            nodes,
            open,
            grants,
            limit_key: None,
            watchers: BTreeMap::new(),
        };
        for parent in 0..task.nodes.len() {
            task.move_edges(parent, &mut Vec::new());
        }
        for node in 0..task.nodes.len() {
            task.resolve(node);
        }
        Some(task)
    }

    pub(super) fn id(&self) -> &TaskId {
        &self.record.task_id
    }

    /// Moves the edges from a parent to where its state puts them; pushes the children whose
    /// tally changed.
    pub(super) fn move_edges(&mut self, parent: usize, changed: &mut Vec<usize>) {
        let plan = self.plan.clone();
        let view = self.nodes[parent].view();
        for child in &plan.node(parent).children {
            let edge = &plan.node(child.node).parents[child.slot];
            let node = &mut self.nodes[child.node];
            let (from, to) = (node.edges[child.slot], edge_state(edge, view));
            if from != to {
                node.edges[child.slot] = to;
                node.tally.move_edge(from, to);
                changed.push(child.node);
            }
        }
    }

    /// Was a failed node's failure handled? `None` while a target that may handle it is open.
    fn judge_failure(&self, node: usize) -> Option<bool> {
        let targets = self.plan.node(node).on_failure.iter();
        failure_handled(targets.map(|&target| self.nodes[target].record.state))
    }

    /// Judges the node's failure if it failed and that is open. `Some` if it was judged now.
    pub(super) fn resolve(&mut self, node: usize) -> Option<bool> {
        let open = &self.nodes[node];
        if open.record.state != NodeState::Failed || open.handled.is_some() {
            return None;
        }
        let handled = self.judge_failure(node)?;
        self.nodes[node].handled = Some(handled);
        Some(handled)
    }

    /// Nothing more will come from this node.
    pub(super) fn ended(&self, node: usize) -> bool {
        match self.nodes[node].record.state {
            NodeState::Failed => self.nodes[node].handled == Some(true),
            state => state.is_terminal(),
        }
    }

    /// What a reader is told about its sources.
    pub(super) fn source_states(&self, reader: usize) -> Vec<SourceState> {
        sources(self.plan.node(reader))
            .map(|source| self.source_state(source))
            .collect()
    }

    /// What a START says of the nodes that its run may read: its sources, or (the handler may
    /// propose an adapter of its own) its parents, if they are few enough for a message.
    pub(super) fn start_states(&self, node: usize) -> Vec<SourceState> {
        let plan = self.plan.node(node);
        if plan.adapter.is_some() || plan.parents.len() > START_PARENTS_MAX {
            return self.source_states(node);
        }
        plan.parents
            .iter()
            .map(|parent| self.source_state(parent.node))
            .collect()
    }

    fn source_state(&self, source: usize) -> SourceState {
        SourceState {
            node_id: self.plan.node(source).id.clone(),
            last: self.nodes[source].record.accepted,
            ended: self.ended(source),
            kept_from: self.nodes[source].record.kept_from.clone(),
        }
    }

    /// Something can still come to a reader: every source is terminal, or holds a grant and is itself
    /// fed. A reader of a reader that waits for a slot waits for that slot too. Only a fed reader may
    /// start: one that was recalled to make room would otherwise take the slot back before a node of
    /// lower priority had its turn.
    pub(super) fn is_fed(&self, reader: usize) -> bool {
        if sources(self.plan.node(reader)).next().is_none() {
            return true;
        }
        let mut seen = BTreeSet::from([reader]);
        let mut work = vec![reader];
        while let Some(reader) = work.pop() {
            for source in sources(self.plan.node(reader)) {
                let node = &self.nodes[source];
                if node.record.state.is_terminal() {
                    continue;
                }
                if !node.is_granted() {
                    return false;
                }
                if seen.insert(source) {
                    work.push(source);
                }
            }
        }
        true
    }

    /// No node may start any more.
    pub(super) fn is_closing(&self) -> bool {
        self.record.state.is_terminal() || self.record.state == TaskState::Cancelling
    }
}

fn new_record(task_id: &TaskId, plan: &PlanNode, history: History<NodeState>) -> NodeRecord {
    NodeRecord {
        version: RECORD_VERSION,
        task_id: task_id.clone(),
        node_id: plan.id.clone(),
        state: NodeState::Queued,
        epoch: Epoch(0),
        lease_no: Token(0),
        grant: None,
        last_seq: 0,
        accepted: 0,
        checkpoint: None::<Json>,
        checkpoint_batches: 0,
        cursor: Cursor::new(),
        cursor_batches: 0,
        totals: Totals::new(),
        result: None,
        failures: 0,
        losses: 0,
        grants: 0,
        wait_ms: None,
        new_attempt: true,
        failure: None,
        history,
        when_vars: None,
        made_vars: None,
        kept_from: None,
    }
}

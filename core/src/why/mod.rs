//! Why a task is not running: one plain sentence per node, and the cure.
//!
//! A pure function over what the store and the streams show. It repeats no decision of the
//! coordinator: where the coordinator would act by itself, it says so.

mod limits;
mod node;
mod waits;

#[cfg(test)]
mod tests;

pub use limits::Running;

use serde::Serialize;

use crate::coordinator::Limits;
use crate::graph::Graph;
use crate::id::{NodeId, Role, TaskId, WorkerId};
use crate::port::TaskWithNodes;
use crate::record::{NodeState, TaskRecord, TaskState};
use crate::text::cut;

/// What is known of a task and of those who could run it.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The task as stored.
    pub task: &'a TaskWithNodes,
    /// Every worker that ever registered.
    pub workers: &'a [WorkerFacts],
    /// Who folds the task's stream.
    pub owner: Owner,
    /// The limits of the coordinators, as far as they are known here.
    pub limits: &'a Limits,
    /// What stands against them.
    pub running: &'a Running,
}

/// What is known of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerFacts {
    /// The worker.
    pub worker_id: WorkerId,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Nodes it runs at once.
    pub capacity: u32,
    /// Nodes that are granted to it.
    pub held: u32,
    /// How long ago it was heard; `None` if not lately.
    pub heard_ms: Option<u64>,
    /// It said that it stops, or has stopped.
    pub leaving: bool,
    /// Silent for longer, it counts as gone: see [`silent_after_ms`].
    pub silent_after_ms: u64,
    /// Free slots, as it last said; `None` if it did not.
    pub free_slots: Option<u32>,
    /// Handlers that ignore that they were told to end, as it last said; each holds a slot.
    pub abandoned: u32,
}

impl WorkerFacts {
    /// It was heard lately.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard_ms.is_some_and(|ms| ms <= self.silent_after_ms)
    }

    /// It has a free slot: by its grants, and as it says itself.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let says_so = match self.free_slots {
            Some(free) => free > 0,
            None => self.held.saturating_add(self.abandoned) < self.capacity,
        };
        says_so && self.held < self.capacity
    }

    /// It was heard lately, and does not stop.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.leaving && self.is_heard()
    }
}

/// How long a worker may be silent before it counts as gone, in milliseconds: half as long again as the time
/// between its announcements, which it tells (0 = it did not: a minute is assumed), and at least 5 s.
#[must_use]
pub fn silent_after_ms(announce_interval_ms: u64) -> u64 {
    let interval_ms = match announce_interval_ms {
        0 => 60_000,
        said => said,
    };
    interval_ms.saturating_add(interval_ms / 2).max(5_000)
}

/// Who folds the stream of the task's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nothing runs here: a data folder that is looked at.
    Stopped,
    /// Messages wait to be folded: so many, the oldest for so long. 0 = somebody keeps up, or
    /// nobody has said anything.
    Folds {
        /// Messages that are not folded.
        lag: u64,
        /// How long the oldest of them has waited.
        oldest_ms: Option<u64>,
    },
}

impl Owner {
    /// Messages wait for so long that nobody seems to fold them.
    pub(super) fn is_away(self) -> bool {
        const PATIENCE_MS: u64 = 10_000;
        matches!(self, Self::Folds { lag: 1.., oldest_ms: Some(ms) } if ms > PATIENCE_MS)
    }
}

/// What a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitsFor {
    /// Its parents.
    Parents,
    /// A source that must hold a grant first.
    Source,
    /// A worker of its role that lives.
    Worker,
    /// A free slot.
    Slot,
    /// A limit, a rate or a pause.
    Limit,
    /// Its retry time.
    Retry,
    /// The start time that its submission asked for.
    Delay,
    /// The end of a run that was told to end.
    RunsEnd,
    /// The lease of a worker that is not heard any more.
    LeaseEnd,
    /// A coordinator.
    Coordinator,
    /// The engine of a data folder.
    Engine,
    /// Nothing: it runs, or is about to.
    Nothing,
}

/// Why a node is not running, or that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeWhy {
    /// The node.
    pub node_id: NodeId,
    /// Its state.
    pub state: NodeState,
    /// What it waits for.
    pub waits_for: WaitsFor,
    /// One sentence.
    pub why: String,
    /// What to do about it, if something can be done.
    pub cure: Option<String>,
}

/// Why a task is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The task.
    pub task_id: TaskId,
    /// Its state.
    pub state: TaskState,
    /// One sentence.
    pub why: String,
    /// What to do about it, if something can be done.
    pub cure: Option<String>,
    /// Its nodes that have not ended, in the order of the graph.
    pub nodes: Vec<NodeWhy>,
}

/// Why a task and its nodes are not running.
#[must_use]
pub fn why(facts: &Facts<'_>) -> Why {
    let task = &facts.task.task;
    let mut nodes = Vec::new();
    let mut broken = None;
    match Graph::parse_stored(&task.graph) {
        Ok(graph) => nodes = node::all(facts, &graph.plan()),
        Err(faults) => broken = Some(faults.len()),
    }
    let (why, cure) = task_sentence(facts, &nodes, broken);
    Why {
        task_id: task.task_id.clone(),
        state: task.state,
        why,
        cure,
        nodes,
    }
}

fn task_sentence(
    facts: &Facts<'_>,
    nodes: &[NodeWhy],
    broken: Option<usize>,
) -> (String, Option<String>) {
    let task = &facts.task.task;
    let open = nodes.len();
    let running = nodes
        .iter()
        .filter(|node| node.state == NodeState::Running)
        .count();
    if broken.is_some() {
        let cure = "look at it with a version of FlowKit that is as new as the one that wrote it";
        return (
            "its graph cannot be read by this version".to_owned(),
            Some(cure.to_owned()),
        );
    }
    match task.state {
        TaskState::Finished => ("it has finished".to_owned(), None),
        TaskState::Failed => {
            let failure = task.failure.as_ref().map_or_else(
                || "it has failed".to_owned(),
                |f| format!("it has failed: node `{}`: {} ({})", f.node_id, f.error, f.reason_code),
            );
            let more = match open {
                0 => String::new(),
                n => format!("; {n} of its nodes are still ending"),
            };
            let cure = "mend the cause, then submit it again";
            (failure + &more, Some(cure.to_owned()))
        }
        TaskState::Cancelled => (format!("it was cancelled{}", because(task, TaskState::Cancelling, "cancelled")), None),
        TaskState::Quarantined => (
            "it is set aside: a record of it cannot be read, or it broke an invariant of the engine"
                .to_owned(),
            Some("the coordinator's log names the cause; `flowkit doctor` checks what is stored".to_owned()),
        ),
        TaskState::Paused => (
            format!(
                "it is paused{}: no node starts, what runs goes on",
                because(task, TaskState::Paused, "paused")
            ),
            Some("resume it".to_owned()),
        ),
        TaskState::Cancelling => (
            format!("it is being cancelled; runs that have not ended yet: {running}"),
            None,
        ),
        TaskState::Queued | TaskState::Running if running > 0 && facts.owner != Owner::Stopped => {
            let waiting = open - running;
            (format!("it runs: nodes running {running}, waiting {waiting}"), None)
        }
        TaskState::Queued | TaskState::Running => stuck(nodes),
    }
}

/// The reason that a client gave when the task last entered a state, in brackets.
fn because(task: &TaskRecord, entered: TaskState, verb: &str) -> String {
    let mut newest_first = task.history.entries.iter().rev();
    let entry = newest_first.find(|entry| entry.to == entered);
    let reason = entry.and_then(|entry| entry.cause.strip_prefix(verb)?.strip_prefix(": "));
    reason.map_or_else(String::new, |reason| format!(" ({})", cut(reason, 200)))
}

/// No node runs: the first that waits for something other than its parents says why.
fn stuck(nodes: &[NodeWhy]) -> (String, Option<String>) {
    let cause = nodes
        .iter()
        .find(|node| node.waits_for != WaitsFor::Parents)
        .or_else(|| nodes.first());
    match cause {
        Some(node) => (
            format!("nothing of it runs: node `{}` {}", node.node_id, node.why),
            node.cure.clone(),
        ),
        None => ("every node of it has ended".to_owned(), None),
    }
}

/// A length of time for people.
#[must_use]
pub fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

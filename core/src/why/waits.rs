//! What a ready node waits for: a worker of its role, a slot, or what holds it back.

use super::node::Said;
use super::{Facts, WaitsFor, WorkerFacts, span};
use crate::graph::PlanNode;
use crate::id::Role;
use crate::record::{NodeRecord, TaskState};

/// Workers that are named in a sentence.
const NAMED_MAX: usize = 3;

/// What holds a node back although a slot may be free: the task's pause. Limits and rates belong
/// here as well: each says which limit is full, and by how much.
pub(super) fn held_back(facts: &Facts<'_>, _node: &PlanNode, _record: &NodeRecord) -> Option<Said> {
    if facts.task.task.state == TaskState::Paused {
        let said = Said::new(WaitsFor::Limit, "is ready, and its task is paused");
        return Some(said.cure("resume the task"));
    }
    None
}

/// Who could run it, and why they do not.
pub(super) fn slots(facts: &Facts<'_>, role: &Role) -> Said {
    let able: Vec<&WorkerFacts> = facts
        .workers
        .iter()
        .filter(|worker| worker.roles.contains(role))
        .collect();
    let start = format!("start one: flowkit worker --role {role}");
    if able.is_empty() {
        return Said::new(
            WaitsFor::Worker,
            format!("no worker for role `{role}` has ever registered"),
        )
        .cure(format!(
            "{start}; or is the node's `type` misspelt? `flowkit worker list` shows the roles there are"
        ));
    }
    let live: Vec<&&WorkerFacts> = able.iter().filter(|w| w.is_live()).collect();
    if live.is_empty() {
        let newest = able.iter().filter_map(|worker| worker.heard_ms).min();
        let since = newest.map_or_else(|| "lately".to_owned(), |ms| format!("for {}", span(ms)));
        let leaving = able
            .iter()
            .any(|worker| worker.leaving && worker.is_heard());
        let why = if leaving {
            format!("the workers for role `{role}` are stopping or have stopped")
        } else {
            format!("no worker for role `{role}` seen {since}")
        };
        return Said::new(WaitsFor::Worker, why).cure(start);
    }
    let busy = live.iter().all(|worker| worker.held >= worker.capacity);
    if busy {
        let mut names: Vec<String> = live
            .iter()
            .take(NAMED_MAX)
            .map(|w| format!("{} runs {} of {}", w.worker_id, w.held, w.capacity))
            .collect();
        if live.len() > NAMED_MAX {
            names.push(format!("{} more", live.len() - NAMED_MAX));
        }
        return Said::new(
            WaitsFor::Slot,
            format!("all slots of role `{role}` are busy: {}", names.join(", ")),
        )
        .cure(format!(
            "wait, raise --capacity, or start another: flowkit worker --role {role}"
        ));
    }
    let free = live.iter().find(|worker| worker.held < worker.capacity);
    let name = free.map_or_else(String::new, |worker| worker.worker_id.to_string());
    Said::new(
        WaitsFor::Nothing,
        format!("is about to start: {name} has a free slot"),
    )
    .cure("if it stays so, `flowkit doctor` looks for the cause")
}

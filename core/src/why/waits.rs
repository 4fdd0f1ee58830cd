//! What a ready node waits for: a limit, a worker of its role, or a slot.

use super::node::Said;
use super::{Facts, WaitsFor, WorkerFacts, limits, span};
use crate::graph::PlanNode;
use crate::id::Role;

/// Workers that are named in a sentence.
const NAMED_MAX: usize = 3;

/// Why a node that may start has not: as dispatch would, limits before slots; but what nobody could
/// run is told before a limit that passes by itself.
pub(super) fn turn(facts: &Facts<'_>, node: &PlanNode) -> Said {
    let said = slots(facts, &node.role);
    match said.waits_for {
        WaitsFor::Worker => said,
        WaitsFor::Nothing => limits::full(facts, node)
            .or_else(|| limits::starts(facts, node))
            .unwrap_or(said),
        _ => limits::full(facts, node).unwrap_or(said),
    }
}

/// Who could run it, and why they do not.
fn slots(facts: &Facts<'_>, role: &Role) -> Said {
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
    .cure(if facts.limits.is_none() {
        "if it stays so: have the coordinators limits? With their --config FILE this command knows them; \
         `flowkit doctor` looks for other causes"
    } else {
        "if it stays so, `flowkit doctor` looks for the cause"
    })
}

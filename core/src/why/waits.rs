//! What a ready node waits for: a limit, a worker of its role, or a slot.

use super::node::Said;
use super::{Facts, WaitsFor, WorkerFacts, limits, span};
use crate::graph::PlanNode;
use crate::id::Role;

/// Workers that are named in a sentence.
const NAMED_MAX: usize = 3;
/// A worker that is silent for so long may be gone. (An idle one speaks once a minute.)
const QUIET_MS: u64 = 15_000;

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
    let live: Vec<&WorkerFacts> = able.iter().filter(|w| w.is_live()).copied().collect();
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
    let free = live.iter().filter(|worker| worker.has_room());
    let Some(free) = free.min_by_key(|worker| worker.heard_ms) else {
        return full(role, &live);
    };
    let cure = if facts.limits.is_none() {
        "if it stays so: have the coordinators limits? With their --config FILE this command knows them; \
         `flowkit doctor` looks for other causes"
    } else {
        "if it stays so, `flowkit doctor` looks for the cause"
    };
    let alive = match quiet_ms(free) {
        Some(_) => format!(
            "does {} still run? It counts as gone after {} of silence; ",
            free.worker_id,
            span(free.silent_after_ms)
        ),
        None => String::new(),
    };
    Said::new(
        WaitsFor::Nothing,
        format!("is about to start: {} has a free slot", named(free)),
    )
    .cure(format!("{alive}{cure}"))
}

/// All who could run it live, and none of them has a free slot.
fn full(role: &Role, live: &[&WorkerFacts]) -> Said {
    let mut names: Vec<String> = live.iter().take(NAMED_MAX).map(|w| slots_of(w)).collect();
    if live.len() > NAMED_MAX {
        names.push(format!("{} more", live.len() - NAMED_MAX));
    }
    let with_abandoned = live.iter().find(|worker| worker.abandoned > 0);
    let without_grants = live.iter().find(|worker| worker.held < worker.capacity);
    let cure = match (with_abandoned, without_grants) {
        (Some(worker), _) => format!(
            "restart {}: what its handlers hold is free then, and they must heed their cancel",
            worker.worker_id
        ),
        (None, Some(worker)) => format!(
            "see the log and the /readyz of {}: a worker that does not reach the store takes nothing",
            worker.worker_id
        ),
        (None, None) => {
            format!("wait, raise --capacity, or start another: flowkit worker --role {role}")
        }
    };
    let why = format!("all slots of role `{role}` are busy: {}", names.join(", "));
    Said::new(WaitsFor::Slot, why).cure(cure)
}

/// What a worker without a free slot does with those that it has.
fn slots_of(worker: &WorkerFacts) -> String {
    let (held, capacity) = (worker.held, worker.capacity);
    let runs = format!("{} runs {held} of {capacity}", named(worker));
    match worker.abandoned {
        _ if held >= capacity => runs,
        0 => format!("{runs}, and says that none is free"),
        1 => format!("{runs}, and a handler that ignores its cancel holds a slot"),
        n => format!("{runs}, and {n} handlers that ignore their cancel hold slots"),
    }
}

/// How long it has been silent, if that is worth a word: it may be gone.
fn quiet_ms(worker: &WorkerFacts) -> Option<u64> {
    worker.heard_ms.filter(|ms| *ms >= QUIET_MS)
}

/// Its id, and how long it has been silent.
fn named(worker: &WorkerFacts) -> String {
    match quiet_ms(worker) {
        Some(ms) => format!("{} (heard {} ago)", worker.worker_id, span(ms)),
        None => worker.worker_id.to_string(),
    }
}

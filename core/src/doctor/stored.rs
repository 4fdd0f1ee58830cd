//! A validator over stored state: what no sequence of commits of ours leaves behind.

use std::collections::BTreeSet;

use crate::graph::Graph;
use crate::id::WorkerId;
use crate::port::TaskWithNodes;
use crate::record::{NodeRecord, NodeState, TaskState, cause};

/// What is wrong with a task as stored, one sentence each; empty if it makes sense.
#[must_use]
pub fn faults_of(found: &TaskWithNodes) -> Vec<String> {
    let task = &found.task;
    let mut faults = Vec::new();
    let plan = match Graph::parse_stored(&task.graph) {
        Ok(graph) => graph.plan(),
        Err(all) => {
            let first = all.first().map(ToString::to_string).unwrap_or_default();
            faults.push(format!("its graph breaks {} rules: {first}", all.len()));
            return faults;
        }
    };
    let planned: BTreeSet<&str> = plan.nodes().iter().map(|node| node.id.as_str()).collect();
    let stored: BTreeSet<&str> = found.nodes.iter().map(|n| n.node_id.as_str()).collect();
    for missing in planned.difference(&stored) {
        faults.push(format!("node `{missing}` of its graph has no record"));
    }
    for extra in stored.difference(&planned) {
        faults.push(format!("node `{extra}` is in no graph"));
    }
    let granted = found.nodes.iter().filter(|n| n.grant.is_some()).count();
    let open = |node: &&NodeRecord| !node.state.is_terminal();
    let not_started = found
        .nodes
        .iter()
        .filter(|n| open(n) && n.grant.is_none())
        .count();
    // The nodes of a task that was set aside stay as they were: one of them may be what broke. One
    // that had failed before, and whose runs were still ending, stays Failed.
    let may_hold = matches!(task.state, TaskState::Quarantined | TaskState::Failed);
    if task.settled && (!task.state.is_terminal() || (granted > 0 && !may_hold)) {
        faults.push(format!(
            "it is settled, in state {:?} with {granted} grants",
            task.state
        ));
    }
    match task.state {
        TaskState::Finished | TaskState::Cancelled if granted + not_started > 0 => {
            faults.push(format!(
                "it is {:?}, and {} of its nodes have not ended",
                task.state,
                granted + not_started
            ));
        }
        TaskState::Failed if not_started > 0 => faults.push(format!(
            "it is Failed, and {not_started} nodes still wait to start"
        )),
        TaskState::Failed if task.failure.is_none() => {
            faults.push("it is Failed, and no cause is stored".to_owned());
        }
        _ => {}
    }
    if let Some(last) = task.history.entries.last()
        && last.to != task.state
    {
        faults.push(format!(
            "its state is {:?}, its last transition was to {:?}",
            task.state, last.to
        ));
    }
    for node in &found.nodes {
        let name = &node.node_id;
        faults.extend(
            node_faults(node)
                .into_iter()
                .map(|f| format!("node `{name}`: {f}")),
        );
    }
    faults
}

/// The workers whose leases on a node ran out since then, here or there, once for each time; `None` if its
/// history does not tell who it was.
#[must_use]
pub fn lapses(node: &NodeRecord, since_ms: i64) -> Vec<Option<WorkerId>> {
    let ran_out = |cause: &str| [cause::LEASE_RAN_OUT, cause::LEASE_LAPSED].contains(&cause);
    let last_loss = node.failure.as_ref().map_or("", |failure| &failure.error);
    let last_ran_out = [cause::LEASE_RAN_OUT, cause::LEASE_LAPSED]
        .iter()
        .any(|cause| last_loss.ends_with(cause));
    let mut holder = None;
    let mut lapses = Vec::new();
    for entry in &node.history.entries {
        if let Some(worker) = cause::worker_of_grant(&entry.cause) {
            holder = Some(worker);
        } else if ran_out(&entry.cause) || (entry.cause == cause::WORKER_LOST && last_ran_out) {
            let holder = holder.take();
            if entry.at_ms > since_ms {
                lapses.push(holder);
            }
        }
    }
    lapses
}

fn node_faults(node: &NodeRecord) -> Vec<String> {
    let mut faults = Vec::new();
    if (node.state == NodeState::Running) != node.grant.is_some() {
        let grant = if node.grant.is_some() { "a" } else { "no" };
        faults.push(format!("its state is {:?}, with {grant} grant", node.state));
    }
    if node.grant.is_some() && node.lease_no.0 == 0 {
        faults.push("it is granted without a token".to_owned());
    }
    if node.lease_no.0 < u64::from(node.grants) {
        faults.push(format!(
            "its newest token is {}, after {} grants",
            node.lease_no, node.grants
        ));
    }
    if node.checkpoint_batches > node.accepted || node.cursor_batches > node.accepted {
        faults.push(format!(
            "its checkpoint or cursor is ahead of its {} accepted batches",
            node.accepted
        ));
    }
    // `finalize` adds one value more.
    let counted = node.totals.values().map(|total| total.count).max();
    if counted.unwrap_or(0) > node.accepted.saturating_add(1) {
        faults.push(format!(
            "its totals count {} values, of {} accepted batches",
            counted.unwrap_or(0),
            node.accepted
        ));
    }
    if node.state == NodeState::Failed && node.failure.is_none() {
        faults.push("it has failed, and no cause is stored".to_owned());
    }
    if let Some(last) = node.history.entries.last()
        && last.to != node.state
    {
        faults.push(format!(
            "its state is {:?}, its last transition was to {:?}",
            node.state, last.to
        ));
    }
    faults
}

//! One sentence for each node that has not ended.

use super::waits::turn;
use super::{Facts, NodeWhy, Owner, WaitsFor, span};
use crate::graph::{EdgeState, FanIn, ParentView, Plan, PlanNode, edge_state};
use crate::id::NodeId;
use crate::message::CancelReason;
use crate::planted::{Bug, is_planted};
use crate::record::{Grant, NodeRecord, NodeState, TaskState};
use std::collections::BTreeMap;

/// Parents that are named in a sentence.
const NAMED_MAX: usize = 5;

/// What is said of a node.
pub(super) struct Said {
    pub(super) waits_for: WaitsFor,
    pub(super) why: String,
    pub(super) cure: Option<String>,
}

impl Said {
    pub(super) fn new(waits_for: WaitsFor, why: impl Into<String>) -> Self {
        Self {
            waits_for,
            why: why.into(),
            cure: None,
        }
    }

    pub(super) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }
}

/// The nodes of a task that have not ended.
pub(super) fn all(facts: &Facts<'_>, plan: &Plan) -> Vec<NodeWhy> {
    let found = &facts.task.nodes;
    let records: BTreeMap<&NodeId, (usize, &NodeRecord)> = found
        .iter()
        .enumerate()
        .map(|(at, node)| (&node.node_id, (at, node)))
        .collect();
    let mut nodes = Vec::new();
    for node in plan.nodes() {
        let Some((at, record)) = records.get(&node.id) else {
            continue;
        };
        if record.state.is_terminal() {
            continue;
        }
        if record.state == NodeState::Ready && is_planted(Bug::WhyUnlisted) {
            continue;
        }
        let age_ms = facts.task.node_age_ms.get(*at).copied().unwrap_or(0);
        let state_of = |parent: usize| records.get(&plan.node(parent).id).map(|(_, r)| *r);
        let said = one(facts, plan, node, record, age_ms, &state_of);
        nodes.push(NodeWhy {
            node_id: node.id.clone(),
            state: record.state,
            waits_for: said.waits_for,
            why: said.why,
            cure: said.cure,
        });
    }
    nodes
}

fn one<'a>(
    facts: &Facts<'_>,
    plan: &Plan,
    node: &PlanNode,
    record: &NodeRecord,
    age_ms: u64,
    state_of: &dyn Fn(usize) -> Option<&'a NodeRecord>,
) -> Said {
    match record.state {
        NodeState::Queued => parents(plan, node, state_of),
        NodeState::Deferred if record.failures == 0 && record.losses == 0 => {
            delay(facts, record, age_ms)
        }
        NodeState::Deferred => retry(facts, node, record, age_ms),
        NodeState::Running => match &record.grant {
            Some(grant) => run(facts, record, grant, age_ms),
            None => Said::new(WaitsFor::Nothing, "runs"),
        },
        _ => ready(facts, plan, node, state_of),
    }
}

/// It waits for its start rule.
fn parents<'a>(
    plan: &Plan,
    node: &PlanNode,
    state_of: &dyn Fn(usize) -> Option<&'a NodeRecord>,
) -> Said {
    let mut counting = 0_usize;
    let mut skipped = 0_usize;
    let mut pending = Vec::new();
    for edge in &node.parents {
        let Some(record) = state_of(edge.node) else {
            continue;
        };
        let view = ParentView {
            state: record.state,
            accepted: record.accepted,
        };
        match edge_state(edge, view) {
            EdgeState::Counting => counting += 1,
            EdgeState::Skipped => skipped += 1,
            EdgeState::Pending => pending.push((&plan.node(edge.node).id, record.state)),
            EdgeState::Impossible => {}
        }
    }
    let needed = match node.fan_in {
        FanIn::All => node.parents.len() - skipped,
        FanIn::Any => 1,
        FanIn::Count(count) => count as usize,
    };
    let missing = needed.saturating_sub(counting);
    let mut names: Vec<String> = pending
        .iter()
        .take(NAMED_MAX)
        .map(|(id, state)| format!("`{id}` ({})", state_word(*state)))
        .collect();
    if pending.len() > NAMED_MAX {
        names.push(format!("{} more", pending.len() - NAMED_MAX));
    }
    let what = match node.fan_in {
        FanIn::All => format!("waits for {missing} of {} parents", node.parents.len()),
        rule => format!(
            "waits for {missing} more of {} parents (its fan_in is `{rule}`)",
            node.parents.len()
        ),
    };
    if names.is_empty() {
        return Said::new(WaitsFor::Parents, what);
    }
    Said::new(WaitsFor::Parents, format!("{what}: {}", names.join(", ")))
}

/// It never ran: its submission asked for a later start.
fn delay(facts: &Facts<'_>, record: &NodeRecord, age_ms: u64) -> Said {
    let asked_ms = facts.task.task.control.options.start_delay_ms;
    let left_ms = record.wait_ms.unwrap_or(0).saturating_sub(age_ms);
    let asked = format!("its submission asked for a delay of {}", span(asked_ms));
    if facts.owner == Owner::Stopped {
        return stopped(format!("waits for its start time ({asked})"));
    }
    if left_ms == 0 {
        let why = format!("{asked}, which is over: it may start at once");
        return away_or(facts, Said::new(WaitsFor::Delay, why));
    }
    Said::new(
        WaitsFor::Delay,
        format!("starts in {}: {asked}", span(left_ms)),
    )
    .cure("nothing need be done; the delay is `--delay-sec` of the submission")
}

/// It waits for its retry time.
fn retry(facts: &Facts<'_>, node: &PlanNode, record: &NodeRecord, age_ms: u64) -> Said {
    let left_ms = record.wait_ms.unwrap_or(0).saturating_sub(age_ms);
    let cause = record
        .history
        .entries
        .last()
        .map(|entry| entry.cause.as_str());
    let cause = cause.unwrap_or("unknown");
    let what = if record.new_attempt {
        format!(
            "attempt {} of {} failed ({cause})",
            record.failures, node.retry.max
        )
    } else {
        format!(
            "it lost its worker {} times in a row ({cause})",
            record.losses
        )
    };
    if facts.owner == Owner::Stopped {
        return stopped(format!("{what}; its next try waits for the engine"));
    }
    if left_ms == 0 {
        let why = format!("{what}; its wait is over, the next try begins at once");
        return away_or(facts, Said::new(WaitsFor::Retry, why));
    }
    let why = format!("next retry in {}: {what}", span(left_ms));
    Said::new(WaitsFor::Retry, why)
        .cure("nothing need be done; a shorter wait is `retry_policy.backoff_sec` of the graph")
}

/// It is granted.
fn run(facts: &Facts<'_>, record: &NodeRecord, grant: &Grant, age_ms: u64) -> Said {
    let worker = &grant.worker_id;
    if facts.owner == Owner::Stopped {
        return stopped(format!(
            "was running on {worker} when the engine ended; it is granted anew"
        ));
    }
    let known = facts.workers.iter().find(|w| w.worker_id == *worker);
    let silent_ms = known.and_then(|w| w.heard_ms);
    let lost = silent_ms.is_none_or(|ms| ms > grant.lease_ttl_ms);
    if let Some(cancel) = &grant.cancel {
        let why = match cancel.reason {
            CancelReason::UserRequest => "cancelling",
            CancelReason::Yield => "making room for a node that it reads",
            _ => "told to end",
        };
        return Said::new(
            WaitsFor::RunsEnd,
            format!(
                "{why}: waits for its run on {worker} to end, which has {} for it",
                span(cancel.grace_ms.max(grant.lease_ttl_ms))
            ),
        );
    }
    if lost {
        let since = silent_ms.map_or_else(
            || "was not heard lately".to_owned(),
            |ms| format!("was not heard for {}", span(ms)),
        );
        let why = format!(
            "runs on {worker}, which {since}; it is granted anew once its lease of {} has run out",
            span(grant.lease_ttl_ms)
        );
        let said = Said::new(WaitsFor::LeaseEnd, why);
        return away_or(
            facts,
            said.cure("start the worker again, or another one of its role"),
        );
    }
    Said::new(
        WaitsFor::Nothing,
        format!(
            "runs on {worker}: {} batches accepted, the newest word of it {} ago",
            record.accepted,
            span(age_ms)
        ),
    )
}

/// It may start.
fn ready<'a>(
    facts: &Facts<'_>,
    plan: &Plan,
    node: &PlanNode,
    state_of: &dyn Fn(usize) -> Option<&'a NodeRecord>,
) -> Said {
    if facts.owner == Owner::Stopped {
        return stopped("is ready to start".to_owned());
    }
    if facts.task.task.state == TaskState::Paused {
        let said = Said::new(WaitsFor::Limit, "is ready, and its task is paused");
        return said.cure("resume the task");
    }
    if node.function.is_some() {
        let why = "is about to run inside the coordinator";
        return away_or(facts, Said::new(WaitsFor::Nothing, why));
    }
    let mut sources = node.reads.iter();
    let dry = sources.find(|source| {
        state_of(**source).is_some_and(|r| !r.state.is_terminal() && r.grant.is_none())
    });
    if let Some(source) = dry {
        let id = &plan.node(*source).id;
        return Said::new(
            WaitsFor::Source,
            format!("reads `{id}` and starts once `{id}` runs; see what is said of `{id}`"),
        );
    }
    away_or(facts, turn(facts, node))
}

/// What is said, unless nobody would act on it.
fn away_or(facts: &Facts<'_>, said: Said) -> Said {
    if !facts.owner.is_away() {
        return said;
    }
    let Owner::Folds { lag, oldest_ms } = facts.owner else {
        return said;
    };
    Said::new(
        WaitsFor::Coordinator,
        format!(
            "{}, and no coordinator owns its shard: {lag} messages wait, the oldest for {}",
            said.why,
            span(oldest_ms.unwrap_or(0))
        ),
    )
    .cure("start one: flowkit coordinator; is one running? Its /readyz says what it lacks")
}

fn stopped(why: String) -> Said {
    Said::new(
        WaitsFor::Engine,
        format!("{why}; no engine runs on this data folder"),
    )
    .cure("type the command again that began it (`flowkit run FILE --data PATH`): it goes on")
}

const fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Queued => "queued",
        NodeState::Ready => "ready",
        NodeState::Deferred => "deferred",
        NodeState::Running => "running",
        NodeState::Finished => "finished",
        NodeState::Failed => "failed",
        NodeState::Cancelled => "cancelled",
        NodeState::Skipped => "skipped",
    }
}

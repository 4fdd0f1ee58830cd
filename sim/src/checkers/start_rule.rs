//! `start_rule`: a node starts only when its fan-in, streaming and routing rules hold, once per
//! attempt, and waits for nothing else: the commit that makes them hold makes it ready. Judged by
//! rules written out anew over the plan's graph.

use flowkit_core::id::{NodeId, TaskId, Token};
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View};
use crate::history::{Change, NodeFact, What};
use crate::ledger::TaskLedger;
use crate::plan::{FanIn, GraphPlan, Link, NodePlan};

const NAME: &str = "start_rule";

#[derive(Debug)]
pub(super) struct StartRule;

impl Judge for StartRule {
    fn event(&mut self, view: &mut View<'_>) {
        let What::Committed { changes, .. } = &view.event.what else {
            return;
        };
        for change in changes {
            if let Change::Node {
                task,
                node,
                old,
                new,
            } = change
            {
                let old_token = old.as_ref().map_or(0, |old| old.token.0);
                if new.token.0 > old_token && new.holder.is_some() {
                    // One commit may hold a grant and what ended the task right behind it.
                    let before = changes.iter().find_map(|change| match change {
                        Change::Task { task: t, old, .. } if t == task => {
                            Some(old.as_ref().map_or(TaskState::Queued, |old| old.state))
                        }
                        _ => None,
                    });
                    granted(view, (task, node), old.as_deref(), new, (changes, before));
                }
                let was = old.as_ref().map(|old| old.state);
                if new.state == NodeState::Skipped && was != Some(NodeState::Skipped) {
                    skipped(view, task, node);
                }
                let ended = new.state.is_terminal() && was != Some(new.state);
                let first = new.accepted > 0 && old.as_ref().is_none_or(|old| old.accepted == 0);
                if ended || first {
                    waits_on(view, task, node);
                }
            }
        }
    }
}

/// How a parent stands towards a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It counts.
    Counts,
    /// It may still come to count.
    Open,
    /// It was skipped, or its other outcome was taken: `all` looks past it.
    Passed,
    /// It will never count.
    Never,
}

/// How a parent in a state stands towards a child.
pub(crate) fn standing(state: NodeState, accepted: u64, link: Link, streams: bool) -> Standing {
    use NodeState as S;
    match (state, link) {
        (S::Skipped, _) => Standing::Passed,
        (S::Finished, Link::OnFailure) | (S::Failed, Link::OnSuccess) => Standing::Passed,
        (S::Failed, Link::OnFailure) | (S::Finished, _) => Standing::Counts,
        (S::Failed | S::Cancelled, _) => Standing::Never,
        _ if streams && accepted > 0 => Standing::Counts,
        _ => Standing::Open,
    }
}

/// Whether a node may start, given its parents' standings.
pub(crate) fn holds(node: &NodePlan, parents: &[Standing]) -> bool {
    let counting = parents.iter().filter(|s| **s == Standing::Counts).count();
    if parents.is_empty() {
        return true;
    }
    match node.fan_in {
        FanIn::Any => counting >= 1,
        FanIn::Count(n) => counting >= n as usize,
        FanIn::All => {
            counting >= 1
                && parents
                    .iter()
                    .all(|s| matches!(s, Standing::Counts | Standing::Passed))
        }
    }
}

/// Whether a node can never start, given its parents' standings.
fn hopeless(node: &NodePlan, parents: &[Standing]) -> bool {
    let possible = parents
        .iter()
        .filter(|s| matches!(s, Standing::Counts | Standing::Open))
        .count();
    if parents.is_empty() {
        return false;
    }
    match node.fan_in {
        FanIn::Any => possible == 0,
        FanIn::Count(n) => possible < n as usize,
        FanIn::All => possible == 0 || parents.contains(&Standing::Never),
    }
}

fn standings(graph: &GraphPlan, ledger: &TaskLedger, node: &NodePlan) -> Vec<Standing> {
    assert!(graph.node(&node.id).is_some());
    node.parents
        .iter()
        .map(|(parent, link)| {
            let fact = ledger
                .nodes
                .get(parent.as_str())
                .and_then(|n| n.fact.as_ref());
            let (state, accepted) = fact.map_or((NodeState::Queued, 0), |f| (f.state, f.accepted));
            standing(state, accepted, *link, node.streams_from(*link))
        })
        .collect()
}

fn granted(
    view: &mut View<'_>,
    (task, node): (&TaskId, &NodeId),
    old: Option<&NodeFact>,
    new: &NodeFact,
    (changes, before): (&[Change], Option<TaskState>),
) {
    let Some(graph) = view.task(task.as_str()).map(|task| &task.graph) else {
        // A user's own graph: what may start in it only its author knows.
        return;
    };
    let (Some(plan), Some(ledger)) = (graph.node(node.as_str()), view.ledger.tasks.get(task))
    else {
        view.broken(
            NAME,
            format!("{task}/{node}: granted, but not in the graph"),
        );
        return;
    };
    let parents = standings(graph, ledger, plan);
    // What made the rule hold may have gone on within the same commit (a first batch, then a
    // failure): parents that it changed are looked at before it too, and by their batches alone.
    let earlier: Vec<Standing> = plan
        .parents
        .iter()
        .zip(&parents)
        .map(|((parent, link), now)| {
            let streams = plan.streams_from(*link);
            let changed = changes.iter().find_map(|change| match change {
                Change::Node {
                    task: t,
                    node: n,
                    old,
                    new,
                } if t == task && n.as_str() == parent => Some((old.as_deref(), new)),
                _ => None,
            });
            match changed {
                Some((_, new)) if streams && new.accepted > 0 => Standing::Counts,
                Some((Some(old), _)) => {
                    let before = standing(old.state, old.accepted, *link, streams);
                    if before == Standing::Counts {
                        before
                    } else {
                        *now
                    }
                }
                _ => *now,
            }
        })
        .collect();
    let mut broken = Vec::new();
    if !holds(plan, &parents) && !holds(plan, &earlier) {
        broken.push(format!(
            "{task}/{node}: granted while its parents stand {parents:?}"
        ));
    }
    if plan.first_batch
        && let Some(reader) = &plan.reader
    {
        for source in &reader.from {
            let fact = ledger
                .nodes
                .get(source.as_str())
                .and_then(|n| n.fact.as_ref());
            let held_before = changes.iter().any(|change| {
                matches!(change, Change::Node { task: t, node: n, old, new }
                    if t == task && n.as_str() == source
                        && (old.as_ref().is_some_and(|old| old.holder.is_some())
                            || new.token > old.as_ref().map_or(Token(0), |old| old.token)))
            });
            let alive =
                held_before || fact.is_some_and(|f| f.state.is_terminal() || f.holder.is_some());
            if !alive {
                broken.push(format!(
                    "{task}/{node}: a reader granted while {source} neither runs nor ended"
                ));
            }
        }
    }
    if new.epoch.0 != new.failures + 1 {
        broken.push(format!(
            "{task}/{node}: attempt {} after {} failures",
            new.epoch, new.failures
        ));
    }
    if let Some(old) = old
        && old.state.is_terminal()
    {
        broken.push(format!(
            "{task}/{node}: granted after it was {:?}",
            old.state
        ));
    }
    let state = before.or(ledger.fact.as_ref().map(|fact| fact.state));
    // What may be granted around a pause is for `paused` to say.
    let starts = [TaskState::Queued, TaskState::Running, TaskState::Paused];
    if !state.is_some_and(|state| starts.contains(&state)) {
        broken.push(format!(
            "{task}/{node}: granted while the task is {state:?}"
        ));
    }
    for what in broken {
        view.broken(NAME, what);
    }
}

/// A parent ended, or has its first batch: no child whose rule holds waits any longer.
fn waits_on(view: &mut View<'_>, task: &TaskId, parent: &NodeId) {
    let (Some(plan), Some(ledger)) = (view.task(task.as_str()), view.ledger.tasks.get(task)) else {
        return;
    };
    let runs = [TaskState::Queued, TaskState::Running, TaskState::Paused];
    let state = ledger.fact.as_ref().map(|fact| fact.state);
    if !state.is_some_and(|state| runs.contains(&state)) {
        return;
    }
    let graph = &plan.graph;
    let waiting = graph.nodes.iter().find(|node| {
        let child = node.parents.iter().any(|(id, _)| id == parent.as_str());
        let fact = || ledger.nodes.get(node.id.as_str())?.fact.as_ref();
        child
            && fact().is_some_and(|fact| fact.state == NodeState::Queued)
            && holds(node, &standings(graph, ledger, node))
    });
    if let Some(node) = waiting {
        let what = format!("{task}/{}: waits although its rule holds", node.id);
        view.broken(NAME, what);
    }
}

/// A node may be skipped only if its rule can no longer hold, or its task is over.
fn skipped(view: &mut View<'_>, task: &TaskId, node: &NodeId) {
    let (Some(plan), Some(graph), Some(ledger)) = (
        view.node(task.as_str(), node.as_str()),
        view.task(task.as_str()).map(|task| &task.graph),
        view.ledger.tasks.get(task),
    ) else {
        return;
    };
    let over = ledger
        .fact
        .as_ref()
        .is_some_and(|fact| fact.state.is_terminal() || fact.state == TaskState::Cancelling);
    let parents = standings(graph, ledger, plan);
    // Whether its condition held is judged with the vars.
    let by_condition = plan.when.is_some() && holds(plan, &parents);
    if !over && !by_condition && !hopeless(plan, &parents) {
        let what = format!("{task}/{node}: skipped while its parents stand {parents:?}");
        view.broken(NAME, what);
    }
}

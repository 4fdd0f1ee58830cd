//! `rerun`: a task is run again only once it is settled; what finished is kept, and nothing below a
//! node that runs again; a kept node points to where its batches are, and never changes.

use std::collections::BTreeSet;

use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::message::{Reply, ReplyError};
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View};
use crate::functions::breaks_machine;
use crate::history::{Ask, Change, NodeFact, What};
use crate::plan::{Fault, GraphPlan, RerunPlan, TaskPlan};
use crate::vars_model as model;

const NAME: &str = "rerun";

#[derive(Debug)]
pub(super) struct Reruns;

impl Judge for Reruns {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Committed { changes, .. } => {
                for change in changes {
                    match change {
                        Change::Task { task, old, new } if old.is_none() => {
                            if let Err(what) = made(view, task, &new.holds, changes) {
                                view.broken(NAME, format!("{task}: {what}"));
                            }
                        }
                        Change::Node {
                            task,
                            node,
                            old: Some(old),
                            new,
                        } if old.kept_from.is_some() && old != new => {
                            let what = format!("{task}/{node}: kept, and then {new:?}");
                            view.broken(NAME, what);
                        }
                        _ => {}
                    }
                }
            }
            What::Answered {
                task,
                ask: Ask::Submit,
                reply,
                ..
            } if !reply.ok => {
                if let Err(what) = refused(view, task, reply) {
                    view.broken(NAME, format!("{task}: {what}"));
                }
            }
            _ => {}
        }
    }
}

/// The plan of a rerun, and of what it runs again.
fn plans<'v>(view: &'v View<'_>, task: &TaskId) -> Option<(&'v RerunPlan, &'v TaskPlan)> {
    let rerun = view.task(task.as_str())?.rerun.as_ref()?;
    Some((rerun, view.plan.tasks.get(rerun.of as usize)?))
}

fn source_fact<'v>(view: &'v View<'_>, source: &TaskPlan, node: &str) -> Option<&'v NodeFact> {
    let ledger = view.ledger.tasks.get(source.id.as_str())?;
    ledger.nodes.get(node)?.fact.as_deref()
}

/// Nodes that must run again.
fn runs_again<'g>(
    view: &View<'_>,
    rerun: &RerunPlan,
    source: &TaskPlan,
    graph: &'g GraphPlan,
) -> BTreeSet<&'g str> {
    let mut again: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = again.len();
        for node in &graph.nodes {
            let state = source_fact(view, source, &node.id).map(|fact| fact.state);
            let mut parents = node.parents.iter();
            if rerun.all
                || rerun.from.contains(&node.id)
                || state != Some(NodeState::Finished)
                || parents.any(|(parent, _)| again.contains(parent.as_str()))
            {
                again.insert(&node.id);
            }
        }
        if again.len() == before {
            return again;
        }
    }
}

/// A task appeared.
fn made(
    view: &View<'_>,
    task: &TaskId,
    holds: &[TaskId],
    changes: &[Change],
) -> Result<(), String> {
    let Some((rerun, source)) = plans(view, task) else {
        return Ok(());
    };
    let fact = view.ledger.tasks.get(source.id.as_str());
    let fact = fact.and_then(|source| source.fact.as_ref());
    if !fact.is_some_and(|fact| fact.settled) {
        return Err(format!("{} is run again, and is {fact:?}", source.id));
    }
    if !holds.iter().any(|held| held.as_str() == source.id) {
        return Err(format!("it does not point to {}", source.id));
    }
    let graph = &source.graph;
    let again = runs_again(view, rerun, source, graph);
    for node in &graph.nodes {
        let new = changes.iter().find_map(|change| match change {
            Change::Node {
                task: t,
                node: n,
                new,
                ..
            } if t == task && n.as_str() == node.id => Some(new),
            _ => None,
        });
        let Some(new) = new else {
            return Err(format!("its node {} is missing", node.id));
        };
        let Some(origin) = &new.kept_from else {
            if again.contains(node.id.as_str()) {
                continue;
            }
            return Err(format!("{} finished, and is not kept", node.id));
        };
        if again.contains(node.id.as_str()) {
            return Err(format!("{} is kept, and has to run again", node.id));
        }
        let old = source_fact(view, source, &node.id);
        let accepted = old.map(|old| old.accepted);
        let first = old.and_then(|old| old.kept_from.as_ref());
        let first = first.map_or(source.id.as_str(), TaskId::as_str);
        if new.state != NodeState::Finished || accepted != Some(new.accepted) {
            return Err(format!("{} is kept as {new:?}, it was {old:?}", node.id));
        }
        if origin.as_str() != first || !holds.contains(origin) {
            let id: &NodeId = &NodeId::new(&node.id).map_err(|e| e.to_string())?;
            return Err(format!(
                "{id} points to {origin}, its batches are those of {first}"
            ));
        }
    }
    Ok(())
}

/// What a kept function did to the vars cannot be done without what nodes that run again did.
fn cannot_be_done_again(view: &View<'_>, source: &TaskPlan, again: &BTreeSet<&str>) -> bool {
    let mut kept = Vec::new();
    for node in &source.graph.nodes {
        let Some(fact) = source_fact(view, source, &node.id) else {
            continue;
        };
        if let (Some(version), Some(function), false) = (
            fact.made_vars,
            &node.function,
            again.contains(node.id.as_str()),
        ) {
            kept.push((version, function, fact.result.as_ref()));
        }
    }
    kept.sort_by_key(|(version, ..)| *version);
    let mut vars = model::object(&source.vars);
    kept.into_iter().any(|(_, function, result)| {
        let told = result.and_then(|json| json.decode().ok());
        match model::after(function, &vars, &told.unwrap_or_default()) {
            None => true,
            Some(after) => {
                vars = after;
                false
            }
        }
    })
}

/// A client that asked for a settled task to be run again was refused.
fn refused(view: &View<'_>, task: &TaskId, reply: &Reply) -> Result<(), String> {
    let Some((rerun, source)) = plans(view, task) else {
        return Ok(());
    };
    let kind = reply.error.as_ref().map(|error| error.kind);
    let refuses = |fault: &Fault| match fault {
        Fault::RefuseCommit { .. } | Fault::RefuseTask { .. } => true,
        Fault::RefuseWrites { task: index, .. } => {
            let of = view
                .plan
                .tasks
                .get(*index as usize)
                .map(|of| of.id.as_str());
            of.is_some_and(|of| of == source.id || of == task.as_str())
        }
        _ => false,
    };
    let again = runs_again(view, rerun, source, &source.graph);
    let state = view.ledger.tasks.get(source.id.as_str());
    let state = state.and_then(|source| Some(source.fact.as_ref()?.state));
    let swept = view.ledger.tasks.get(source.id.as_str());
    // By the time that the answer is read, what it rests on may be gone.
    let because = matches!(kind, Some(ReplyError::Swept | ReplyError::Invalid));
    if because && swept.is_some_and(|task| task.tombstone.is_some()) {
        return Ok(());
    }
    let fits = kind == Some(ReplyError::Invalid)
        && (again.is_empty()
            || cannot_be_done_again(view, source, &again)
            || state == Some(TaskState::Quarantined)
            || TaskId::new(&source.id).is_ok_and(|id| view.ledger.is_rotten(&id))
            || breaks_machine(&source.graph)
            || view.plan.faults.iter().any(refuses));
    if fits {
        Ok(())
    } else {
        Err(format!(
            "a good rerun of {} ({state:?}) got {reply:?}",
            source.id
        ))
    }
}

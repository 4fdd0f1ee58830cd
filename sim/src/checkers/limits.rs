//! `limits`: never more grants than a limit says, of all, of a type and of a key; and never more of
//! them made within a limit's time. And no more tasks in flight than the coordinators may have.

use std::collections::{BTreeMap, VecDeque};

use flowkit_core::coordinator::Limit;
use flowkit_core::id::{NodeId, TaskId};

use super::{Judge, View};
use crate::history::{Change, What};

const NAME: &str = "limits";

#[derive(Debug, Default)]
pub(super) struct Limited {
    /// When grants were made, by what is limited.
    starts: BTreeMap<String, VecDeque<u64>>,
}

/// The limits that a node stands under, by name.
fn limits_of(view: &View<'_>, task: &TaskId, node: &NodeId) -> Vec<(String, Limit)> {
    let limits = &view.plan.world.limits;
    let mut found = Vec::new();
    if let Some(running_max) = limits.running_max {
        found.push(("all".to_owned(), Limit::running(running_max)));
    }
    if let Some(plan) = view.node(task.as_str(), node.as_str()) {
        let of_type = limits
            .types
            .iter()
            .find(|(role, _)| role.as_str() == plan.role);
        found.extend(of_type.map(|(role, limit)| (format!("type {role}"), *limit)));
    }
    let key = view.task(task.as_str());
    if let Some(key) = key.and_then(|task| task.options.limit_key.as_ref()) {
        let limit = limits.keys.get(key).or(limits.key_default.as_ref());
        found.extend(limit.map(|limit| (format!("key {key}"), *limit)));
    }
    found
}

impl Judge for Limited {
    fn event(&mut self, view: &mut View<'_>) {
        if matches!(view.event.what, What::Committed { .. }) {
            in_flight(view);
        }
        if view.plan.world.limits.is_none() {
            return;
        }
        match &view.event.what {
            What::Committed { changes, .. } => {
                let mut granted = false;
                for change in changes {
                    if let Some((task, node)) = made(change) {
                        granted = true;
                        self.started(view, task, node);
                    }
                }
                if granted {
                    running(view);
                }
            }
            // What a crash undid was never begun by anyone who lived to see it.
            What::Undone { changes } => {
                for change in changes {
                    let Some((task, node)) = made(change) else {
                        continue;
                    };
                    for (name, _) in limits_of(view, task, node) {
                        if let Some(starts) = self.starts.get_mut(&name) {
                            starts.pop_back();
                        }
                    }
                }
            }
            _ => {}
        }
    }
}

/// The node that a change granted.
fn made(change: &Change) -> Option<(&TaskId, &NodeId)> {
    match change {
        Change::Node {
            task,
            node,
            old,
            new,
        } => {
            let before = old.as_ref().map_or(0, |old| old.token.0);
            (new.token.0 > before && new.holder.is_some()).then_some((task, node))
        }
        Change::Task { .. }
        | Change::Artifact { .. }
        | Change::Tombstone { .. }
        | Change::Removed { .. } => None,
    }
}

impl Limited {
    fn started(&mut self, view: &mut View<'_>, task: &TaskId, node: &NodeId) {
        let at = view.event.at;
        for (name, limit) in limits_of(view, task, node) {
            let Some(max) = limit.starts_max else {
                continue;
            };
            let starts = self.starts.entry(name.clone()).or_default();
            starts.push_back(at);
            let window_us = limit.window_ms * 1_000;
            while starts.front().is_some_and(|first| first + window_us <= at) {
                starts.pop_front();
            }
            if starts.len() > max as usize {
                let what = format!(
                    "{task}/{node}: {} grants of {name} within {} ms, {max} are allowed",
                    starts.len(),
                    limit.window_ms
                );
                view.broken(NAME, what);
            }
        }
    }
}

/// Counts every task that is not settled.
fn in_flight(view: &mut View<'_>) {
    let world = &view.plan.world;
    let Some(max) = world.tasks_in_flight_max else {
        return;
    };
    let most = u64::from(max) * u64::from(world.shards);
    let tasks = view.ledger.tasks.iter();
    let open = tasks.filter(|(id, task)| {
        let open = task.fact.as_ref().is_some_and(|fact| !fact.settled);
        open && !view.ledger.is_set_aside(id)
    });
    let open = open.count() as u64;
    if open > most {
        let what = format!("{open} tasks are in flight, {most} are allowed");
        view.broken(NAME, what);
    }
}

/// Counts every grant as the records have them.
fn running(view: &mut View<'_>) {
    let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for (id, task) in &view.ledger.tasks {
        if view.ledger.is_set_aside(id) {
            continue;
        }
        let nodes = task.nodes.iter();
        let held = nodes.filter(|(_, node)| {
            let fact = node.fact.as_ref();
            fact.is_some_and(|fact| fact.holder.is_some())
        });
        for (node, _) in held {
            for (name, limit) in limits_of(view, id, node) {
                if let Some(max) = limit.running_max {
                    counts.entry(name).or_insert((0, max)).0 += 1;
                }
            }
        }
    }
    for (name, (held, max)) in counts {
        if held > max {
            view.broken(NAME, format!("{held} grants of {name}, {max} are allowed"));
        }
    }
}

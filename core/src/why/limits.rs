//! Which limit holds a node back, and by how much. Limits on what runs are judged by the grants in
//! the store; when something started is in no record, so of a limit on starts only its rule is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node::Said;
use super::{Facts, WaitsFor, span};
use crate::coordinator::{Limit, Limits};
use crate::graph::PlanNode;
use crate::id::Role;

/// Grants of all tasks, as limits count them: by the type of the node and the `limit_key` of its task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Of all tasks.
    pub all: u32,
    /// By type.
    pub types: BTreeMap<Role, u32>,
    /// By `limit_key`.
    pub keys: BTreeMap<Arc<str>, u32>,
}

impl Running {
    /// Counts one grant.
    pub fn count(&mut self, role: &Role, limit_key: Option<&Arc<str>>) {
        self.all += 1;
        *self.types.entry(role.clone()).or_default() += 1;
        if let Some(key) = limit_key {
            *self.keys.entry(key.clone()).or_default() += 1;
        }
    }
}

/// A limit that a node stands under.
struct Under<'a> {
    /// For a sentence.
    name: String,
    /// Where it stands in the settings.
    place: String,
    limit: &'a Limit,
    running: u32,
}

fn under<'a>(facts: &Facts<'a>, node: &PlanNode) -> Vec<Under<'a>> {
    let mut found = Vec::new();
    let running = facts.running;
    if let Some(limit) = facts.limits.types.get(&node.role) {
        found.push(Under {
            name: format!("the limit of type `{}`", node.role),
            place: format!("limits.types.{}", node.role),
            limit,
            running: running.types.get(&node.role).copied().unwrap_or(0),
        });
    }
    let key = facts.task.task.control.options.limit_key.as_ref();
    if let Some(key) = key
        && let Some(limit) = facts.limits.for_key(key)
    {
        let named = facts.limits.keys.contains_key(key);
        let of_key = || format!("limits.keys.{:?}", key.as_ref());
        let place = if named {
            of_key()
        } else {
            "limits.key_default".to_owned()
        };
        found.push(Under {
            name: format!("limit `{key}`"),
            place,
            limit,
            running: running.keys.get(key).copied().unwrap_or(0),
        });
    }
    found
}

/// As many run as may: of all, of its type, of its task's key.
pub(super) fn full(facts: &Facts<'_>, node: &PlanNode) -> Option<Said> {
    let Limits { running_max, .. } = facts.limits;
    let all = facts.running.all;
    if let Some(max) = running_max.filter(|max| all >= *max) {
        let why = "the limit of all nodes";
        return Some(is_full(why, "limits", all, max));
    }
    under(facts, node).iter().find_map(|under| {
        let max = under
            .limit
            .running_max
            .filter(|max| under.running >= *max)?;
        Some(is_full(&under.name, &under.place, under.running, max))
    })
}

fn is_full(name: &str, place: &str, running: u32, max: u32) -> Said {
    Said::new(
        WaitsFor::Limit,
        format!("is ready, and {name} is full: {running} of {max} nodes run"),
    )
    .cure(format!(
        "wait until one of them ends, or raise `{place}.running_max` of every coordinator"
    ))
}

/// A slot is free, and a limit on starts is in force.
pub(super) fn starts(facts: &Facts<'_>, node: &PlanNode) -> Option<Said> {
    under(facts, node).iter().find_map(|under| {
        let max = under.limit.starts_max?;
        let why = format!(
            "is ready, and {} allows {max} starts within any {}: it starts once an earlier start is older \
             than that",
            under.name,
            span(under.limit.window_ms)
        );
        Some(Said::new(WaitsFor::Limit, why).cure(format!(
            "wait, or raise `{}.starts_max` of every coordinator",
            under.place
        )))
    })
}

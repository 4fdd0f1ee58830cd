//! `priority`: no node is granted while one of the same type and a higher priority is ready and could
//! have been. `delayed`: no node of a task starts before its time, by the store's clock.

use std::collections::BTreeMap;

use flowkit_core::id::{NodeId, TaskId};
use flowkit_core::message::Body;
use flowkit_core::port::Stream;
use flowkit_core::record::{NodeState, TaskState};

use super::{Judge, View};
use crate::history::{Change, What};
use crate::plan::{Link, NodePlan};

const PRIORITY: &str = "priority";
const DELAYED: &str = "delayed";

#[derive(Debug, Default)]
pub(super) struct Order {
    /// No grant of the task before then.
    not_before: BTreeMap<TaskId, u64>,
}

impl Judge for Order {
    fn event(&mut self, view: &mut View<'_>) {
        match &view.event.what {
            What::Appended {
                stream: Stream::Shard(_),
                envelope,
                ..
            } => {
                if let (Body::Submit(submit), Some(task)) = (&envelope.body, &envelope.task_id) {
                    let exact = submit.options.start_delay_ms * 1_000;
                    let world = &view.plan.world;
                    let drift = exact * 2 * world.clock_rate_error_ppm / 1_000_000;
                    let early = drift + 2_000 + world.reading_us();
                    let from = view.event.at + exact.saturating_sub(early);
                    self.not_before.entry(task.clone()).or_insert(from);
                }
            }
            // Waits that outlive an owner are counted by the store's clock.
            What::StoreClock { by_ms } => {
                let ahead_us = u64::try_from(*by_ms).unwrap_or(0) * 1_000;
                for not_before in self.not_before.values_mut() {
                    *not_before = not_before.saturating_sub(ahead_us);
                }
            }
            What::Committed { changes, .. } => {
                for change in changes {
                    if let Change::Node {
                        task,
                        node,
                        old,
                        new,
                    } = change
                        && new.token.0 > old.as_ref().map_or(0, |old| old.token.0)
                        && new.holder.is_some()
                    {
                        self.granted(view, task, node, changes);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Order {
    fn granted(&self, view: &mut View<'_>, task: &TaskId, node: &NodeId, changes: &[Change]) {
        let at = view.event.at;
        if let Some(from) = self.not_before.get(task)
            && at < *from
        {
            let early = (from - at) / 1_000;
            view.broken(
                DELAYED,
                format!("{task}/{node}: granted {early} ms too early"),
            );
        }
        let (Some(plan), Some(of)) = (
            view.task(task.as_str()),
            view.node(task.as_str(), node.as_str()),
        ) else {
            return;
        };
        if view.plan.world.shards > 1 {
            return; // Each owner knows its own.
        }
        let passed = view.ledger.tasks.iter().find_map(|(id, known)| {
            let other = view.task(id.as_str())?;
            let state = known.fact.as_ref()?.state;
            let open = matches!(state, TaskState::Queued | TaskState::Running);
            let keyed = other.options.limit_key.is_some() && !view.plan.world.limits.is_none();
            let aside = view.ledger.is_set_aside(id);
            if other.options.priority <= plan.options.priority || !open || keyed || aside {
                return None;
            }
            let changed = |node: &NodeId| {
                changes.iter().any(|change| match change {
                    Change::Node { task, node: n, .. } => task == id && n == node,
                    _ => false,
                })
            };
            // What this commit changed may have become ready behind the grant.
            let touched = changes.iter().any(|change| match change {
                Change::Task { task, .. } => task == id,
                _ => false,
            });
            let waits = known.nodes.iter().find(|(node, ledger)| {
                let ready = ledger.fact.as_ref().map(|fact| fact.state) == Some(NodeState::Ready);
                let plan = other.graph.node(node.as_str());
                let alike = plan.is_some_and(|plan| plan.role == of.role && !reads(plan));
                ready && alike && !changed(node)
            });
            let (waits, _) = waits.filter(|_| !touched)?;
            Some(format!("{id}/{waits}"))
        });
        if let Some(passed) = passed {
            let what = format!("{task}/{node}: granted before {passed} of a higher priority");
            view.broken(PRIORITY, what);
        }
    }
}

/// A node that may have to wait for its sources.
fn reads(node: &NodePlan) -> bool {
    let by_batch = node.parents.iter().any(|(_, link)| *link == Link::OnBatch);
    node.reader.is_some() || node.first_batch || by_batch
}
